"""The environment lock: what it lists, how it is compared, and what it never says."""

from __future__ import annotations

import sys
from importlib import metadata

import msgspec
import pytest

from modelyard.bundle import environment
from modelyard.bundle.environment import Difference, capture, differences, requirements
from modelyard.bundle.manifest import Distribution


def changed(lock, which, **changes):
    distributions = tuple(
        msgspec.structs.replace(one, **changes) if one.name == which else one for one in lock.distributions
    )
    return msgspec.structs.replace(lock, distributions=distributions)


def test_an_onnx_bundle_lists_what_serves_it_and_no_more(packed):
    names = {one.name: one.role for one in packed.manifest.environment.distributions}
    assert names["numpy"] == names["onnxruntime"] == names["msgspec"] == "imported"
    assert names["protobuf"] == "required"
    assert not names.keys() & {"scikit-learn", "pandas", "scipy", "onnx", "pytest", "modelyard", "rich", "click"}
    assert packed.differences() == []


def test_versions_and_records_are_those_installed(packed):
    for one in packed.manifest.environment.distributions:
        assert one.version == metadata.version(one.name)
        assert one.record.startswith("sha256:")
    assert capture(["numpy"], "") == capture(["numpy.linalg", "numpy"], "")


def test_a_framework_refuses_on_major_and_minor_only():
    lock = capture(["sklearn", "numpy"], "sklearn")
    assert differences(lock) == []
    roles = {one.name: one.role for one in lock.distributions}
    assert (roles["scikit-learn"], roles["numpy"], roles["scipy"]) == ("framework", "imported", "required")
    here = metadata.version("scikit-learn")
    patch = ".".join([*here.split(".")[:2], "99"])
    assert [d.severity for d in differences(changed(lock, "scikit-learn", version=patch))] == ["warn"]
    (found,) = differences(changed(lock, "scikit-learn", version="1.3.2"))
    assert found == Difference("refuse", "scikit-learn", "1.3.2", here)
    assert [d.severity for d in differences(changed(lock, "numpy", version="1.0.0"))] == ["warn"]


def test_what_is_not_installed_is_told_and_grave_ones_come_first():
    lock = capture(["numpy", "sklearn"], "sklearn")
    lock = changed(changed(lock, "numpy", name="no-such-thing"), "scikit-learn", version="0.1")
    first, second = differences(lock)
    assert (first.severity, first.name) == ("refuse", "scikit-learn")
    assert (second.name, second.found) == ("no-such-thing", "")
    assert "nothing" in str(second)


def test_python_and_platform_are_compared():
    lock = msgspec.structs.replace(capture([]), python="2.7.18", machine="vax")
    assert [d.name for d in differences(lock)] == ["python", "platform"]


def test_requirements_pin_and_carry_only_real_archive_hashes():
    lock = capture(["numpy"])
    assert requirements(lock) == f"numpy=={metadata.version('numpy')}\n"
    digest = "sha256:" + "a" * 64
    assert requirements(changed(lock, "numpy", archive=digest)).endswith(f" --hash={digest}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"url": "https://u:p@host/x.whl", "archive_info": {"hashes": {"sha256": "%s"}}}' % ("b" * 64), "b" * 64),
        ('{"url": "x", "archive_info": {"hash": "sha256=%s"}}' % ("c" * 64), "c" * 64),
        ('{"url": "x", "dir_info": {"editable": true}}', ""),
        ('{"url": "x", "archive_info": {}}', ""),
        ("{", ""),
        ("", ""),
    ],
)
def test_of_a_direct_install_only_the_hash_is_kept(text, expected):
    assert environment._archive_digest(text) == (f"sha256:{expected}" if expected else "")


def test_the_record_digest_does_not_depend_on_the_installer():
    files = "a/b.py,sha256=x,3\na/c.py,sha256=y,4\n"
    noise = (
        "a/__pycache__/b.cpython-311.pyc,,\n../../../bin/tool,sha256=z,5\na-1.dist-info/RECORD,,\n"
        "a-1.dist-info/INSTALLER,sha256=q,4\na-1.dist-info/direct_url.json,sha256=r,4\n"
    )
    assert environment._record_digest(files) == environment._record_digest(noise + files)
    assert environment._record_digest(files) != environment._record_digest(files.replace("x", "w"))
    assert environment._record_digest("") == ""


def test_local_modules_are_recorded_with_their_source(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("x = 1\n")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").write_text("")
    (tmp_path / "ours" / "part.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    lock = capture(["mine", "ours", "ours.part", "json", "builtins", "_made_up"])
    assert list(lock.local) == ["mine", "ours"]
    assert differences(lock) == []
    (tmp_path / "ours" / "part.py").write_text("y = 2\n")
    (found,) = differences(lock)
    assert (found.severity, found.name) == ("warn", "module ours")


def test_extras_are_not_followed_and_names_are_canonical(monkeypatch):
    requires = {"a": ["B_c>=1; python_version>'3'", "d; extra == 'more'", "not-here"], "b-c": ["a"], "d": []}
    monkeypatch.setattr(environment, "installed", lambda name: "1" if name in requires else "")
    monkeypatch.setattr(environment.metadata, "requires", lambda name: requires[name])
    assert environment._closure({"a"}) == {"a", "b-c"}


def test_the_lock_names_no_addresses(packed):
    text = (packed.folder / "manifest.json").read_text()
    assert "http" not in text
    assert sys.prefix not in text
    assert isinstance(packed.manifest.environment.distributions[0], Distribution)
