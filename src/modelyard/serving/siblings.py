"""Counts of processes that no supervisor of ours has started: those of gunicorn or uvicorn that mount the same models.

Each has a file in a folder that they are given, with one slot of ``shared``, and holds the file's lock as long as it
lives: however it ends, the system lets go of that. So whoever is asked knows who lives, and there is nothing to clean
away. The file of one that ended goes to the next that starts, which counts on from it; where one starts and nobody
lives, all begin from nothing.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from modelyard.errors import InvalidInput
from modelyard.serving import shared
from modelyard.serving.metrics import Counts, Snapshot, Vitals
from modelyard.serving.shared import Board


class Siblings:
    """This process among those that count in ``folder`` (a ``metrics.Board``). Raises InvalidInput where it cannot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._publishing = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._guarded():
                self.number, self._file = self._take()
        except OSError as error:
            raise InvalidInput.at(
                "metrics_folder", "a folder in which this process may write", f"{folder} ({error.strerror})",
                hint="MODELYARD_METRICS_FOLDER=/dev/shm/shop-metrics",
            ) from error  # fmt: skip
        counts, _, replaced = _told(self._file)
        #: What those before had counted in this process's place.
        self.inherited = sum(counts, Counts())
        self._board = Board(self._file, 0)
        self._board.settle(0, os.getpid(), replaced + len(counts))

    def publish(self, snapshot: Snapshot) -> None:
        """Put this process's snapshot in the place of its last one. For any thread."""
        with self._publishing:
            self._board.publish(snapshot)

    def collect(self) -> tuple[list[Counts], list[Vitals], int]:
        """The counts of all processes since the first of them, the vitals of those that live, and how many were
        replaced.
        """
        counts: list[Counts] = []
        vitals: list[Vitals] = []
        replaced = 0
        with self._guarded():
            for file in self._files():
                lives = not _lock(file)
                theirs, how, before = _told(file)
                _let_go(file)
                counts += theirs
                replaced += before
                if lives:
                    vitals += how
        return counts, vitals, replaced

    def close(self) -> None:
        """This process counts no more."""
        _let_go(self._file)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """While no other process takes a file, or looks who lives."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            _let_go(folder)

    def _take(self) -> tuple[int, int]:
        """The first file that nobody holds: its number and its descriptor, locked."""
        files = self._files()
        free = [number for number, file in enumerate(files) if _lock(file)]
        if len(free) == len(files):
            for file in files:
                os.ftruncate(file, 0)
        if not free:
            free = [len(files)]
            files.append(os.open(self._path(len(files)), os.O_RDWR | os.O_CREAT, 0o600))
            _lock(files[-1])
        number = free[0]
        for other, file in enumerate(files):
            if other != number:
                _let_go(file)
        _make_room(files[number])
        return number, files[number]

    def _files(self) -> list[int]:
        """Descriptors of all files, which are numbered without a gap."""
        found: list[int] = []
        with suppress(FileNotFoundError):
            while True:
                found.append(os.open(self._path(len(found)), os.O_RDWR))
        return found

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.counts"


def _lock(file: int) -> bool:
    """Take the lock of a file, if nobody holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _let_go(file: int) -> None:
    """Close a file. Its lock goes at once, even if the file is mapped still, or a fork has it open."""
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _make_room(file: int) -> None:
    """Take all the room at once: a disk that is full is an error now, where later it would end the process."""
    os.ftruncate(file, shared.SLOT)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file, 0, shared.SLOT)


def _told(file: int) -> tuple[list[Counts], list[Vitals], int]:
    """What a file tells; nothing where it is empty, or where another version of Modelyard has written it."""
    if not os.fstat(file).st_size:
        return [], [], 0
    try:
        return Board(file, 0).collect()
    except msgspec.DecodeError:
        return [], [], 0
