"""Environments for locks: which Python a model gets, and how one is made."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from modelyard.bundle import environments
from modelyard.bundle.environment import installed
from modelyard.bundle.manifest import Distribution, Environment
from modelyard.errors import RemoteFailed


def lock(version: str = "0.1.2", role: str = "framework") -> Environment:
    return Environment(
        python=platform.python_version(),
        implementation="CPython",
        platform=sys.platform,
        machine=platform.machine(),
        distributions=(Distribution(name="msgspec", version=version, role=role, archive="sha256:" + "0" * 64),),
    )


def made(place: Path) -> Path:
    python = place / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    return python


def test_our_own_python_is_taken_where_it_satisfies(tmp_path: Path) -> None:
    for fitting in (lock(installed("msgspec")), lock(role="imported")):
        assert environments.satisfies(fitting)
        assert environments.interpreter(fitting, tmp_path) == Path(sys.executable)


def test_another_lock_needs_an_environment_of_its_own(tmp_path: Path) -> None:
    assert environments.interpreter(lock(), tmp_path) is None
    python = made(environments.place_of(lock(), tmp_path))
    assert environments.interpreter(lock(), tmp_path) == python
    assert environments.build(lock(), tmp_path) == python


def test_each_lock_has_its_place(tmp_path: Path) -> None:
    one = lock()
    assert environments.place_of(one, tmp_path) == environments.place_of(lock(), tmp_path)
    older = msgspec.structs.replace(one, python="3.9.1")
    places = {environments.place_of(each, tmp_path) for each in (one, lock("0.1.3"), older)}
    assert len(places) == 3


@pytest.mark.parametrize("with_uv", [True, False], ids=["uv", "pip"])
def test_what_is_run_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_uv: bool) -> None:
    ran: list[list[str]] = []
    listed: list[str] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(words)
        if "venv" in words:
            (Path(words[-1]) / "bin").mkdir()
            (Path(words[-1]) / "bin" / "python").write_text("")
        if "-r" in words:
            listed.extend(Path(words[-1]).read_text().splitlines())
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uv" if name == "uv" and with_uv else None)
    told: list[str] = []
    python = environments.build(lock(), tmp_path, told.append)
    assert python.exists()
    assert python.parents[1] == environments.place_of(lock(), tmp_path)
    assert listed == ["msgspec==0.1.2", "numpy"]
    assert (ran[0][0] == "/bin/uv") is with_uv
    assert ("pip" in ran[1], "--no-deps" in ran[1]) == (True, True)
    assert told == [f"making an environment with 1 packages for Python {platform.python_version()}", "trying it"]
    assert [path.name for path in (tmp_path / "environments").iterdir()] == [python.parents[1].name]


def test_what_fails_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 2, "", "noise\n\n  no such version: msgspec==0.1.2\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RemoteFailed, match=r"could not make the environment \(exit 2\): noise no such version: msg"):
        environments.build(lock(), tmp_path)
    assert list((tmp_path / "environments").iterdir()) == []


def test_a_folder_with_nothing_but_ourselves(tmp_path: Path) -> None:
    folder = environments.ourselves(tmp_path / "own")
    assert environments.ourselves(folder) == folder
    script = f"""
import sys
sys.path.insert(0, {str(folder)!r})
from importlib.metadata import entry_points
print([point.name for point in entry_points(group="modelyard.runtimes")])
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
    assert "onnx" in done.stdout, done.stderr
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"modelyard"}
