"""The demo's traffic: tumours that were held back, drawn again and again with a little noise, asked of the live server;
and some seconds later the truth about each. Who leaves a note in the demo's folder breaks it.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import numpy as np

from modelyard.cli.demo_data import MODEL, TARGET
from modelyard.errors import Conflict

if TYPE_CHECKING:
    import pandas as pd

_Note = TypeVar("_Note")

#: Requests a second, how much they differ from the tumours that were measured, and how late the truth comes.
RATE, NOISE, LABEL_SECONDS = 40, 0.02, 5.0


class Running(msgspec.Struct):
    """What a running demo tells others in its folder."""

    process: int
    url: str


class Broken(msgspec.Struct):
    """A column that arrives multiplied, until a moment in seconds since 1970 at most."""

    column: str
    factor: float
    until: float


class Traffic:
    """Sends requests and labels from a thread until it is stopped."""

    def __init__(self, url: str, rows: pd.DataFrame, folder: Path) -> None:
        self.sent = self.failed = self.labelled = 0
        self._truth = rows[TARGET].tolist()
        self._names = [name for name in rows.columns if name != TARGET]
        self._values = rows[self._names].to_numpy("float64")
        self._dice = np.random.default_rng()
        self._note = _note(folder)
        self._broken: Broken | None = None
        #: Requests whose truth is not told yet: when they were answered, their ids, what is true of them.
        self._open: deque[tuple[float, str, str]] = deque()
        self._address = urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(self._address, timeout=10)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-traffic", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        due = looked = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            due = max(due + 1 / RATE, time.monotonic() - 1.0)
            self._ask()
            if time.monotonic() - looked >= 1.0:
                looked = time.monotonic()
                self._broken = _read(self._note, Broken)
                self._tell_truth()

    def _ask(self) -> None:
        """One request: a row drawn anew, each of its values moved a little."""
        drawn = int(self._dice.integers(len(self._values)))
        row = self._values[drawn] * self._dice.normal(1.0, NOISE, len(self._names))
        broken = self._broken
        if broken is not None and time.time() < broken.until:
            row[self._names.index(broken.column)] *= broken.factor
        told = self._send("/predict", dict(zip(self._names, row.tolist(), strict=True)))
        if told is None:
            self.failed += 1
        else:
            self.sent += 1
            self._open.append((time.monotonic(), told["request_id"], self._truth[drawn]))

    def _tell_truth(self) -> None:
        """Labels for what was answered some seconds ago."""
        ready = []
        while self._open and time.monotonic() - self._open[0][0] > LABEL_SECONDS:
            _, id, truth = self._open.popleft()
            ready.append({"prediction_id": id, "label": truth})
        if ready and self._send(f"/models/{MODEL}/labels", ready) is not None:
            self.labelled += len(ready)

    def _send(self, path: str, body: Any) -> Any:
        """The answer of the server; None where there was none, or it was no."""
        try:
            self._connection.request("POST", path, json.dumps(body))
            answer = self._connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            return None
        return told if answer.status == 200 else None


# -- notes in the folder -------------------------------------------------------------------------------------------


@contextmanager
def told(folder: Path, url: str) -> Iterator[None]:
    """Within it, others find the running demo in its folder."""
    path = folder / "running.json"
    path.write_bytes(msgspec.json.encode(Running(os.getpid(), url)))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def is_running(folder: Path) -> bool:
    """Whether a demo runs in a folder."""
    found = _read(folder / "running.json", Running)
    return found is not None and _is_alive(found.process)


def find(folder: Path) -> None:
    """Raises Conflict where no demo runs in a folder."""
    if not is_running(folder):
        raise Conflict(
            f"no demo is running in {folder}", hint=f"modelyard demo --folder {folder}    (in another terminal)"
        )


@contextmanager
def broken(folder: Path, column: str, factor: float, seconds: float) -> Iterator[None]:
    """Within it, a column of the running demo's traffic arrives multiplied."""
    path = _note(folder)
    made = path.with_suffix(".new")
    made.write_bytes(msgspec.json.encode(Broken(column, factor, time.time() + seconds)))
    made.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _note(folder: Path) -> Path:
    return folder / "broken.json"


def _read(path: Path, kind: type[_Note]) -> _Note | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
