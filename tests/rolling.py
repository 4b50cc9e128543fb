"""A model that is served with records by real processes, under a steady load, while a version is rolled out."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import canaries
from commands import environment
from modelyard.bundle import Bundle
from modelyard.registry import Registry
from receivers import waited

#: Windows close after a second, so that nobody waits a minute until it is known what is slow.
QUICK = {"MODELYARD_WINDOW_SECONDS": "1", "MODELYARD_RECORD_SAMPLE": "0"}


class Answer(NamedTuple):
    """One answer, and when it came, in seconds since 1970."""

    moment: float
    status: int
    id: str
    x: float
    #: None where there is none, or it is no number.
    prediction: float | None


class Load:
    """Threads that ask one after the other, each over a connection of its own; every answer is noted."""

    def __init__(self, url: str, threads: int = 4, rows: Callable[[], float] = random.random, **headers: str) -> None:
        self._address = url.removeprefix("http://")
        self._rows = rows
        self._headers = {"content-type": "application/json", **headers}
        self._stop = threading.Event()
        self.answers: list[Answer] = []
        #: Answers by status; requests that got none, and why.
        self.codes: Counter[int] = Counter()
        self.dropped: list[str] = []
        #: Seconds between two requests of a thread.
        self.pause = 0.002
        #: Nothing is asked for as long as it is set.
        self.is_held = False
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        while not self._stop.wait(self.pause):
            if self.is_held:
                continue
            x = self._rows()
            try:
                connection.request("POST", "/predict", json.dumps({"x": x}), self._headers)
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.dropped.append(repr(error))
                connection.close()
                continue
            self.codes[answer.status] += 1
            self.answers.append(Answer(time.time(), answer.status, told["request_id"], x, told.get("prediction")))
        connection.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Rolling:
    """A home with version 1, a server of it, and the command line. ``MODELYARD_HOME`` has to be ``folder / home``."""

    def __init__(self, folder: Path, where: str = "", *, workers: int = 2) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environment = environment(self.home) | QUICK
        if where:
            self.environment["MODELYARD_REGISTRY"] = where
        self.registry = Registry.open(where or self.home)
        self.versions = 0
        self.add("good")
        self.log = folder / "server.log"
        words = ("serve", "m", "--record", "--workers", str(workers), "--port", "0")
        command = [sys.executable, "-m", "modelyard", *words]
        with self.log.open("w") as written:
            self.server = subprocess.Popen(
                command, env=self.environment, cwd=folder, stderr=written, stdout=subprocess.DEVNULL
            )
        assert waited(lambda: self.server.poll() is not None or '"url"' in self.log.read_text())
        found = [json.loads(line) for line in self.log.read_text().splitlines() if '"url"' in line]
        assert found, self.log.read_text()
        self.url: str = found[0]["url"]
        self.load: Load | None = None
        self.wire: Any = None

    def add(self, kind: str) -> int:
        """Register one more version; the number that it got."""
        self.versions += 1
        noise = float(self.versions)
        bundle = canaries.version(self.folder / f"bundle{self.versions}", kind, noise=noise)
        return self.register(bundle)

    def register(self, bundle: Bundle) -> int:
        return self.registry.register(bundle, "m").number

    @property
    def watcher(self) -> int:
        """The process that records and decides; 0 for none."""
        held = self.registry.holder("control")
        return int(held.split("-")[-2]) if held else 0

    def cli(self, *words: str, fails: bool = False) -> Any:
        """Type a command; what it told as JSON."""
        command = [sys.executable, "-m", "modelyard", *words, "--json"]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=240
        )
        assert (done.returncode != 0) == fails, done.stderr
        return json.loads((done.stderr.strip().splitlines()[-1]) if fails else done.stdout)

    def start_load(self, **options: Any) -> Load:
        """Load the server, in place of the load before, and wait until it is known how fast it is."""
        if self.load is not None:
            self.load.stop()
        self.load = Load(self.url, **options)
        assert waited(lambda: self.counted() >= 600), self.told()
        return self.load

    def counted(self) -> int:
        """Requests of the stable version that are in windows."""
        windows = self.registry.windows.find("m", str(self.registry.resolve("m").number))
        return sum(sum(window.counted.stages.get("total", [])) for window in windows)

    def start(self, kind: str, *words: str) -> int:
        """Roll out one more version; its number."""
        number = self.add(kind)
        self.cli("rollout", "start", "m", "--to", str(number), "--stage", "1s", *words)
        return number

    def state(self) -> str:
        return self.registry.rollouts.latest("m").state

    def until(self, *states: str, seconds: float = 200) -> str:
        """The state that the rollout got to, of these."""
        assert waited(lambda: self.state() in states, seconds), self.told()
        return self.state()

    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cli("rollout", "history", "m")
        return found

    def told(self) -> str:
        """What there is to say when a test fails."""
        lines = [self.log.read_text()[-3_000:]]
        with contextlib.suppress(Exception):
            lines.append(json.dumps(self.cli("rollout", "status", "m"), indent=1))
        return "\n".join(lines)

    def close(self) -> None:
        if self.load is not None:
            self.load.stop()
        self.server.terminate()
        self.server.wait(timeout=120)
        assert waited(lambda: self.registry.holder("control") == ""), self.log.read_text()
        self.registry.close()
