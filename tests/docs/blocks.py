"""Run the code blocks of a Markdown page the way a reader would: in order, in one folder, with a real server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and text of every fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


class Reader:
    """Somebody with an empty folder, an empty registry and a terminal or two."""

    def __init__(self, folder: Path) -> None:
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
        }
        self.servers: list[subprocess.Popen[bytes]] = []

    def run(self, language: str, text: str) -> str:
        """Run a block; a line that serves is left running. Returns what it printed; fails with it."""
        text = text.replace("8080", str(self.port))
        if language == "python":
            return self._finish([sys.executable, "-c", text])
        printed = ""
        for line in text.strip().splitlines():
            if line.startswith("modelyard serve"):
                self._serve(line)
            else:
                printed += self._finish(["bash", "-euc", line])
        return printed

    def _finish(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _serve(self, line: str) -> None:
        self.stop()
        with (self.folder / "server.log").open("wb") as log:
            server = subprocess.Popen(line.split(), cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        self.servers.append(server)
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, (self.folder / "server.log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=5)
                return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        while self.servers:
            server = self.servers.pop()
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=60) == 0


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    somebody = Reader(folder)
    try:
        yield somebody
    finally:
        somebody.stop()
