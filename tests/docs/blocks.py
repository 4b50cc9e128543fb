"""Run the code blocks of a Markdown page the way a reader would: in order, in one folder, with a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients import interpreter

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)

#: What a block that uses another server's client imports, and the interpreter that has it.
CLIENTS = {"tritonclient": "triton", "tensorflow_serving": "tfs", "kserve": "kserve", "mlflow": "mlflow"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and text of every fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def sections(page: Path) -> dict[str, list[tuple[str, str]]]:
    """The blocks of a page by its sections, in order; sections without blocks are left out."""
    found = {}
    for part in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.M)[1:]:
        if inside := BLOCK.findall(part):
            found[part.partition("\n")[0]] = inside
    return found


def check_answer(printed: str, language: str, expected: str) -> None:
    """A block ``json`` or ``text`` shows what was printed last before it; ``...`` is any text, fractions are rough."""
    if language == "text":
        assert printed.strip().endswith(expected.strip()), printed
        return
    _compare(json.loads(printed.strip().splitlines()[-1]), json.loads(expected))


def _compare(told: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert told.keys() == expected.keys(), told
        for name in expected:
            _compare(told[name], expected[name])
    elif isinstance(expected, list):
        assert len(told) == len(expected), told
        for one, other in zip(told, expected, strict=True):
            _compare(one, other)
    elif isinstance(expected, float):
        assert told == pytest.approx(expected, abs=0.01)
    else:
        assert expected == "..." or told == expected


class Reader:
    """Somebody with an empty folder, an empty registry and a terminal or two."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MODELYARD_HOME": str(folder / "home"),
            "MODELYARD_PORT": str(self.port),
            "NO_COLOR": "1",
            **settings,
        }
        self.servers: list[subprocess.Popen[bytes]] = []

    def run(self, language: str, text: str) -> str:
        """Run a block; a line that serves is left running. Returns what it printed; fails with it."""
        text = text.replace("8080", str(self.port))
        if language == "python":
            return self._finish([str(_python(text)), "-c", text])
        printed = ""
        for line in text.replace("\\\n", " ").strip().splitlines():
            if re.match(r"([A-Z_]+=\S+ )*modelyard serve", line):
                self._serve(line)
            else:
                printed += self._finish(["bash", "-euc", line]).rstrip("\n") + "\n"
        return printed

    def _finish(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _serve(self, line: str) -> None:
        self.stop()
        words = shlex.split(line, comments=True)
        command = words[words.index("modelyard") :]
        variables = dict(word.split("=", 1) for word in words[: -len(command)])
        with (self.folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                command, cwd=self.folder, env={**self.environment, **variables}, stdout=log, stderr=log
            )
        self.servers.append(server)
        deadline = time.monotonic() + 120
        while True:
            assert server.poll() is None, (self.folder / "server.log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=60)
                return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        while self.servers:
            server = self.servers.pop()
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=120) == 0


def _python(text: str) -> Path:
    """The interpreter for a block; skips the test where a client that it uses is not installed."""
    for module, name in CLIENTS.items():
        if re.search(rf"^(?:import|from) {module}\b", text, re.M):
            return interpreter(name)
    return Path(sys.executable)


@contextmanager
def reader(folder: Path, **settings: str) -> Iterator[Reader]:
    """``settings`` are variables of the reader's environment."""
    somebody = Reader(folder, settings)
    try:
        yield somebody
    finally:
        somebody.stop()
