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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    #: The version that answered; 0 where none did.
    version: int = 0


def ask(connection: http.client.HTTPConnection, path: str, x: float, headers: Mapping[str, str]) -> Answer:
    """Ask once. Raises OSError, HTTPException or ValueError where no answer comes."""
    connection.request("POST", path, json.dumps({"x": x}), {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    return Answer(
        time.time(), answer.status, told["request_id"], x, told.get("prediction"), int(told.get("version") or 0)
    )


class Load:
    """Threads that ask one after the other, each over a connection of its own; every answer is noted."""

    def __init__(self, url: str, threads: int = 4, rows: Callable[[], float] = random.random, **headers: str) -> None:
        self._address = url.removeprefix("http://")
        self._rows = rows
        self._headers = headers
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
            try:
                answer = ask(connection, "/predict", self._rows(), self._headers)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.dropped.append(repr(error))
                connection.close()
                continue
            self.codes[answer.status] += 1
            self.answers.append(answer)
        connection.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Callers:
    """Clients of one model, who ask over as many connections at once as the server has workers: each worker has one.
    Every answer is noted, and none may be missing.
    """

    def __init__(self, url: str, model: str, connections: int = 2) -> None:
        self._path = f"/models/{model}/predict"
        self._connections = [
            http.client.HTTPConnection(url.removeprefix("http://"), timeout=60) for _ in range(connections)
        ]
        self.answers: list[Answer] = []
        #: Answers by status.
        self.codes: Counter[int] = Counter()

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def ask(self, rows: Iterable[tuple[float, Mapping[str, str]]]) -> list[list[Answer]]:
        """Ask each of these (the number, the headers) in turn over every connection; the answers, by connection."""
        asked = list(rows)
        with ThreadPoolExecutor(len(self._connections)) as threads:
            found = list(threads.map(lambda way: [ask(way, self._path, *row) for row in asked], self._connections))
        for answers in found:
            self.answers += answers
            self.codes.update(answer.status for answer in answers)
        return found


class Rolling:
    """A home with models that have a version 1, a server of them, and the command line. The first model is meant where
    none is named. ``MODELYARD_HOME`` has to be ``folder / home``.
    """

    def __init__(self, folder: Path, where: str = "", *, workers: int = 2, models: Sequence[str] = ("m",)) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environment = environment(self.home) | QUICK
        if where:
            self.environment["MODELYARD_REGISTRY"] = where
        self.registry = Registry.open(where or self.home)
        self.versions = 0
        self.models = models
        for model in models:
            self.add("good", model)
        self.log = folder / "server.log"
        self.load: Load | None = None
        self.wire: Any = None
        self._workers = workers
        self.serve()

    def serve(self) -> None:
        """Start the server, and wait until it answers."""
        words = ("serve", *self.models, "--record", "--workers", str(self._workers), "--port", "0")
        command = [sys.executable, "-m", "modelyard", *words]
        with self.log.open("w") as written:
            self.server = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stderr=written, stdout=subprocess.DEVNULL
            )
        assert waited(lambda: self.server.poll() is not None or '"url"' in self.log.read_text())
        found = [json.loads(line) for line in self.log.read_text().splitlines() if '"url"' in line]
        assert found, self.log.read_text()
        self.url: str = found[0]["url"]

    def stop(self) -> None:
        """End the server, and what watches beside it."""
        self.server.terminate()
        self.server.wait(timeout=120)
        assert waited(lambda: self.registry.holder("control") == ""), self.log.read_text()

    def add(self, kind: str, model: str = "") -> int:
        """Register one more version; the number that it got."""
        self.versions += 1
        noise = float(self.versions)
        bundle = canaries.version(self.folder / f"bundle{self.versions}", kind, noise=noise)
        return self.register(bundle, model)

    def register(self, bundle: Bundle, model: str = "") -> int:
        return self.registry.register(bundle, model or self.models[0]).number

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
        model = self.models[0]
        windows = self.registry.windows.find(model, str(self.registry.resolve(model).number))
        return sum(sum(window.counted.stages.get("total", [])) for window in windows)

    def tallied(self, model: str = "") -> int:
        """Requests in the evidence of the newest rollout."""
        strata = self.registry.rollouts.latest(model or self.models[0]).evidence.strata.values()
        return sum(stratum.stable.requests + stratum.candidate.requests for stratum in strata)

    def settled(self, model: str = "") -> int:
        """The same, once no more come."""
        time.sleep(3)
        seen = [self.tallied(model)]
        while len(seen) < 7 or seen[-1] != seen[-7]:
            time.sleep(0.5)
            seen.append(self.tallied(model))
        return seen[-1]

    def start(self, kind: str, *words: str, model: str = "") -> int:
        """Roll out one more version; its number."""
        model = model or self.models[0]
        number = self.add(kind, model)
        self.cli("rollout", "start", model, "--to", str(number), "--stage", "1s", *words)
        return number

    def state(self, model: str = "") -> str:
        return self.registry.rollouts.latest(model or self.models[0]).state

    def until(self, *states: str, model: str = "", seconds: float = 200) -> str:
        """The state that the rollout got to, of these."""
        assert waited(lambda: self.state(model) in states, seconds), self.told(model)
        return self.state(model)

    def history(self, model: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cli("rollout", "history", model or self.models[0])
        return found

    def told(self, model: str = "") -> str:
        """What there is to say when a test fails."""
        lines = [self.log.read_text()[-3_000:]]
        with contextlib.suppress(Exception):
            lines.append(json.dumps(self.cli("rollout", "status", model or self.models[0]), indent=1))
        return "\n".join(lines)

    def close(self) -> None:
        if self.load is not None:
            self.load.stop()
        self.stop()
        self.registry.close()
