"""Type commands as a person does, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.err.strip().splitlines()[-1])["error"]
        return told


def environment(home: Path) -> dict[str, str]:
    """Settings as they come, but for recording (see ``conftest``)."""
    return {**as_it_comes(home), "MODELYARD_RECORD": "off"}


def as_it_comes(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    return {**clean, "MODELYARD_HOME": str(home), "NO_COLOR": "1"}


def type_in(home: Path, folder: Path, *words: str, before: tuple[str, ...] = ()) -> Done:
    """Run a command in a process of its own; ``before`` is put in front of it."""
    command = [*before, sys.executable, "-m", "modelyard", *words]
    done = subprocess.run(command, cwd=folder, env=environment(home), capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


class Place(NamedTuple):
    """A home with ``line`` (versions 1, 2: from pickles) and ``flowers`` (version 1: trained), and its inputs."""

    home: Path
    folder: Path
