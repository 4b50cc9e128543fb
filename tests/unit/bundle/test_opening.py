"""Opening: whole bundles open alike as folder and file; whatever is wrong is refused by name."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from modelyard.bundle import FORMAT, Bundle, manifest
from modelyard.bundle.manifest import digest_of
from modelyard.errors import BadBundle, NotFound, RemoteFailed


def damage_manifest(folder, **changes):
    path = folder / "manifest.json"
    plain = json.loads(path.read_bytes())
    plain.update(changes)
    path.write_text(json.dumps(plain))


def test_a_bundle_opens_and_predicts(packed):
    bundle = Bundle.open(str(packed.folder))
    assert bundle.digest == packed.digest == digest_of(packed.folder / "manifest.json")
    predict = bundle.load()
    bundle.check_golden(predict)
    inputs, outputs = bundle.golden()
    assert 20 <= inputs.rows <= 100
    assert np.allclose(outputs["prediction"], 2 * inputs["x1"] + inputs["x2"])
    assert bundle.profile().rows == 200
    assert bundle.manifest.metrics == {"r2": 1.0}
    assert bundle.report.read_text() == "<p>fine</p>"
    assert bundle.provenance["user"]


def test_the_file_form_is_the_same_bundle_in_the_same_bytes(packed, tmp_path):
    one, two = packed.write_file(tmp_path / "one.zip"), packed.write_file(str(tmp_path / "two.zip"))
    assert one.read_bytes() == two.read_bytes()
    bundle = Bundle.open(one)
    assert bundle.digest == packed.digest
    assert bundle.provenance == packed.provenance
    assert bundle.write_file(tmp_path / "three.zip").read_bytes() == one.read_bytes()
    bundle.check_golden(bundle.load())
    folder = bundle.folder
    assert folder.is_dir()
    del bundle
    assert not folder.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.zip", "three.zip", "two.zip"]


def test_a_bundle_unpacked_from_a_file_is_gone_after_its_process(packed, tmp_path):
    file = packed.write_file(tmp_path / "one.zip")
    (tmp_path / "tmp").mkdir()
    script = """
import os, sys
from modelyard.bundle import Bundle
kept = Bundle.open(sys.argv[1])
if os.fork() == 0:
    sys.exit()  # a child that leaves in an orderly way takes nothing with it
assert os.wait()[1] == 0
kept.golden()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", script, str(file)],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_room_to_unpack_a_file_is_said(packed, tmp_path, monkeypatch):
    file = packed.write_file(tmp_path / "one.zip")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(RemoteFailed, match="cannot make a temporary folder") as caught:
        Bundle.open(file)
    assert "TMPDIR" in caught.value.hint


@pytest.mark.parametrize("name", ["model/model.onnx", "golden.json", "profile.json"])
@pytest.mark.parametrize("what", ["flipped", "truncated", "longer", "missing", "swapped"])
def test_a_file_that_is_not_as_packed_is_refused_by_name(copy, name, what):
    path = copy / name
    data = path.read_bytes()
    other = copy / ("golden.json" if name != "golden.json" else "profile.json")
    if what == "flipped":
        path.write_bytes(data[:10] + bytes([data[10] ^ 1]) + data[11:])
    elif what == "truncated":
        path.write_bytes(data[:-1])
    elif what == "longer":
        path.write_bytes(data + b"\0")
    elif what == "missing":
        path.unlink()
    else:
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    with pytest.raises(BadBundle) as caught:
        Bundle.open(copy)
    assert name in caught.value.message or other.name in caught.value.message


def test_every_byte_of_the_model_counts(copy):
    path = copy / "model/model.onnx"
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 17):
        data[at] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(BadBundle, match=r"model/model\.onnx"):
            Bundle.open(copy)
        data[at] ^= 0x10


def test_an_extra_file_is_refused(copy):
    (copy / "model" / "extra.bin").write_bytes(b"x")
    with pytest.raises(BadBundle, match=r"does not name: model/extra\.bin"):
        Bundle.open(copy)


def test_a_link_is_refused(copy, tmp_path):
    target = tmp_path / "outside"
    target.write_bytes((copy / "profile.json").read_bytes())
    (copy / "profile.json").unlink()
    (copy / "profile.json").symlink_to(target)
    with pytest.raises(BadBundle, match="link"):
        Bundle.open(copy)


@pytest.mark.parametrize("where", ["beside", "model"])
def test_a_linked_folder_is_refused(copy, tmp_path, where):
    (copy / where).rename(tmp_path / "moved")
    (copy / where).symlink_to(tmp_path / "moved")
    with pytest.raises(BadBundle, match="link"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["report.html", "provenance.json", "bundle.sig"])
def test_a_link_beside_is_refused(copy, tmp_path, name):
    (tmp_path / "secret").write_text("{}")
    (copy / "beside" / name).unlink(missing_ok=True)
    (copy / "beside" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(BadBundle, match=f"a link or special file: beside/{name}"):
        Bundle.open(copy)


def test_names_that_differ_in_case_only_are_refused(copy):
    (copy / "model" / "MODEL.onnx").write_bytes(b"x")
    files = json.loads((copy / "manifest.json").read_bytes())["files"]
    damage_manifest(copy, files={**files, "model/MODEL.onnx": {"digest": digest_of(b"x"), "size": 1}})
    with pytest.raises(BadBundle, match=r"some systems take for one: model/MODEL\.onnx"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "options",
    [
        {"file": "a" * 5000}, {"file": 3}, {"max_rows": "x"}, {"max_rows": [1]}, {"inputs": "x"}, {"inputs": [1]},
        {"inputs": [{}]}, {"outputs": [1]}, {"outputs": {"a": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense_are_a_bad_bundle(copy, options):
    model = json.loads((copy / "manifest.json").read_bytes())["model"]
    damage_manifest(copy, model={**model, "options": {**model["options"], **options}})
    with pytest.raises(BadBundle):
        Bundle.open(copy).load()


def test_files_nested_too_deep_are_a_bad_bundle(copy):
    (copy / "beside" / "provenance.json").write_text('{"a":' + "[" * 100_000)
    with pytest.raises(BadBundle, match="provenance"):
        Bundle.open(copy).provenance  # noqa: B018 (raises)
    data = b"[" * 100_000
    (copy / "golden.json").write_bytes(data)
    files = json.loads((copy / "manifest.json").read_bytes())["files"]
    damage_manifest(copy, files={**files, "golden.json": {"digest": digest_of(data), "size": len(data)}})
    with pytest.raises(BadBundle, match=r"golden\.json"):
        Bundle.open(copy).golden()


def test_a_pipe_is_refused(copy):
    os.mkfifo(copy / "model" / "pipe")
    with pytest.raises(BadBundle, match="special"):
        Bundle.open(copy)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\b", "C:x", "", "./x", "a//b", "a\nb"])
def test_a_manifest_cannot_name_files_outside(copy, path):
    plain = json.loads((copy / "manifest.json").read_bytes())
    plain["files"][path] = {"digest": "sha256:" + "0" * 64, "size": 1}
    damage_manifest(copy, files=plain["files"])
    with pytest.raises(BadBundle, match="outside itself"):
        Bundle.open(copy)


@pytest.mark.parametrize("path", ["manifest.json", "beside/provenance.json"])
def test_a_manifest_cannot_name_itself_or_what_is_beside(copy, path):
    plain = json.loads((copy / "manifest.json").read_bytes())
    plain["files"][path] = {"digest": "sha256:" + "0" * 64, "size": 1}
    damage_manifest(copy, files=plain["files"])
    with pytest.raises(BadBundle, match="may not"):
        Bundle.open(copy)


def test_a_manifest_cannot_name_a_module_to_import(copy, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Runtime: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    damage_manifest(copy, model={"runtime": "stranger:Runtime", "options": {"file": "model.onnx"}})
    with pytest.raises(BadBundle, match="a runtime that is not installed here: 'stranger:Runtime'"):
        Bundle.open(copy).load()
    assert not (tmp_path / "canary").exists()


def test_a_locked_environment_cannot_name_a_module_to_import(copy, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    environment = json.loads((copy / "manifest.json").read_bytes())["environment"]
    strange = {"local": {"stranger.inner": "x", "stranger": "x"}, "distributions": [{"name": "", "version": "1"}]}
    damage_manifest(copy, environment={**environment, **strange})
    bundle = Bundle.open(copy)
    bundle.load()
    assert {difference.name for difference in bundle.differences()} >= {"module stranger.inner", "module stranger", ""}
    assert not (tmp_path / "canary").exists()


def test_a_newer_format_says_what_it_needs(copy):
    damage_manifest(copy, format=FORMAT + 1, modelyard="7.2.0", signature="of a kind unknown here")
    with pytest.raises(BadBundle, match=r"needs Modelyard 7\.2\.0 or later"):
        Bundle.open(copy)


def test_an_older_format_is_upgraded(copy, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 2)
    monkeypatch.setitem(manifest.UPGRADES, 1, lambda plain: {**plain, "format": 2, "task": "upgraded"})
    assert Bundle.open(copy).manifest.task == "upgraded"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"format": 0}', b'{"format": true}', b'{"format": 1}', b"\xff", b"null", b"[" * 10**5]
)
def test_a_damaged_manifest_is_explained(copy, data):
    (copy / "manifest.json").write_bytes(data)
    with pytest.raises(BadBundle, match=r"manifest\.json"):
        Bundle.open(copy)


def test_what_is_no_bundle_is_explained(tmp_path):
    with pytest.raises(NotFound, match="no such bundle"):
        Bundle.open(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadBundle, match="not a bundle") as caught:
        Bundle.open(tmp_path / "folder")
    assert "modelyard package" in caught.value.hint
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(BadBundle, match=r"not a bundle|damaged"):
        Bundle.open(tmp_path / "model.pkl")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(BadBundle, match="not a bundle"):
        Bundle.open(tmp_path / "other.zip")


def archive_of(packed, path, extra=(), skip=()):
    """The one-file form with entries added as they are and some left out."""
    source = packed.write_file(path.with_name("whole.zip"))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            if info.filename not in skip:
                new.writestr(info, old.read(info))
        for info, data in extra:
            new.writestr(info, data)
    return path


def entry(name, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "model/../../evil", "a\\..\\evil", "C:evil"])
def test_a_file_that_leaves_the_folder_is_refused(packed, tmp_path, name):
    path = archive_of(packed, tmp_path / "b.zip", [(entry(name), b"x")])
    with pytest.raises(BadBundle, match="outside itself"):
        Bundle.open(path)
    assert not (tmp_path / "evil").exists()


def test_links_and_doubles_in_a_file_are_refused(packed, tmp_path):
    path = archive_of(packed, tmp_path / "link.zip", [(entry("model/link", stat.S_IFLNK | 0o777), b"/etc/passwd")])
    with pytest.raises(BadBundle, match="link"):
        Bundle.open(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive_of(packed, tmp_path / "twice.zip", [(entry("golden.json"), b"{}")])
    with pytest.raises(BadBundle, match="twice"):
        Bundle.open(path)
    path = archive_of(packed, tmp_path / "case.zip", [(entry("GOLDEN.json"), b"{}")])
    with pytest.raises(BadBundle, match="twice"):
        Bundle.open(path)


def test_extra_and_missing_in_a_file_are_refused(packed, tmp_path):
    path = archive_of(packed, tmp_path / "extra.zip", [(entry("model/more"), b"x")])
    with pytest.raises(BadBundle, match="model/more"):
        Bundle.open(path)
    path = archive_of(packed, tmp_path / "less.zip", skip=("profile.json",))
    with pytest.raises(BadBundle, match=r"missing: profile\.json"):
        Bundle.open(path)


def test_a_bomb_is_refused_before_it_unpacks(packed, tmp_path):
    bomb = zipfile.ZipInfo("model/zeros")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    one = io.BytesIO(bytes(20 * 1024**2)).getvalue()
    path = archive_of(packed, tmp_path / "bomb.zip", [(bomb, one)])
    with pytest.raises(BadBundle, match="unpacks to far more"):
        Bundle.open(path)


def test_a_file_cut_or_flipped_anywhere_is_refused(packed, tmp_path):
    whole = packed.write_file(tmp_path / "b.zip").read_bytes()
    path = tmp_path / "damaged.zip"
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 25)):
        path.write_bytes(whole[:cut])
        with pytest.raises(BadBundle):
            Bundle.open(path)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        start = archive.getinfo("model/model.onnx").header_offset + 60
    flipped = bytearray(whole)
    flipped[start] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(BadBundle):
        Bundle.open(path)


def test_provenance_and_report_are_outside_the_digest(copy, packed):
    (copy / "beside" / "provenance.json").write_text('{"time": "another"}')
    (copy / "beside" / "report.html").unlink()
    bundle = Bundle.open(copy)
    assert bundle.digest == packed.digest
    assert bundle.provenance == {"time": "another"}
    assert bundle.report is None


def test_serving_an_onnx_bundle_imports_no_library_for_training(packed):
    script = (
        "import sys; from modelyard.bundle import Bundle; "
        f"b = Bundle.open({str(packed.folder)!r}); b.check_golden(b.load()); b.profile(); "
        "print(sorted({'sklearn', 'scipy', 'joblib', 'pandas', 'onnx', 'skops', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
