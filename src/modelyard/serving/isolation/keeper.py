"""The keeper: starts model processes, replaces those that end, and ends those that nobody needs any more.

It belongs to the process that outlives the others: the server itself, or the supervisor of its workers, which ask it
over their link. Where a version is asked for twice, its processes are shared.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Protocol

import msgspec

import modelyard
from modelyard.bundle import Bundle
from modelyard.bundle.environments import ourselves
from modelyard.errors import BadBundle, NotReady
from modelyard.serving.isolation.child import Task
from modelyard.serving.isolation.guard import Guard
from modelyard.telemetry import Log

#: The system takes paths of sockets up to about a hundred bytes.
_LONGEST_FOLDER = 64


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Which model processes are wanted. Plain values, so that it may be asked for over a link."""

    #: The bundle: a folder, or a one-file bundle.
    path: str
    digest: str
    #: Digests and keys, as in ``bundle.Trust``.
    trust: tuple[str, ...] = ()
    processes: int = 1
    #: Of the environment that the model needs.
    interpreter: str = sys.executable
    #: Bytes that each process may take; 0 sets no bound.
    memory: int = 0


class Address(msgspec.Struct, frozen=True):
    """Where the processes of a version answer: one socket each, which their replacements take over."""

    digest: str
    sockets: tuple[str, ...]


class Keeping(Protocol):
    """What is asked for model processes: a ``Keeper``, or a link to one."""

    def start(self, order: Order) -> Address:
        """Returns once all processes can answer; raises what kept one from it."""

    def stop(self, address: Address) -> None:
        """One of those who asked for the processes needs them no longer; with the last they end."""


class Keeper:
    """Keeps model processes in a private folder (a ``Keeping``). Safe for threads."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._pools: dict[str, _Pool] = {}
        self._made = 0
        self.folder = _folder()
        weakref.finalize(self, _remove, self.folder, os.getpid())

    def start(self, order: Order) -> Address:
        with self._lock:
            pool = self._pools.get(order.digest)
            if pool is None:
                self._made += 1
                pool = self._pools[order.digest] = _Pool(order, self.folder, self._made, self._log)
            pool.users += 1
        try:
            pool.wait()
        except BaseException:
            self.stop(pool.address)
            raise
        return pool.address

    def stop(self, address: Address) -> None:
        with self._lock:
            pool = self._pools.get(address.digest)
            if pool is None or pool.address != address:
                return
            pool.users -= 1
            if pool.users:
                return
            del self._pools[address.digest]
        pool.end()

    def close(self) -> None:
        """End every process."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def _folder() -> Path:
    """A new private folder, whose path is short enough for that of a socket."""
    where = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="modelyard-", dir=where if len(where) < _LONGEST_FOLDER else "/tmp"))


def _remove(folder: Path, process: int) -> None:
    """Remove the folder, but not on behalf of a process that was forked from ours."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


class _Pool:
    """The processes of one version."""

    def __init__(self, order: Order, folder: Path, number: int, log: Log) -> None:
        self.address = Address(order.digest, tuple(str(folder / f"{number}.{i}") for i in range(order.processes)))
        self.users = 0
        self.failure: Exception | None = None
        self._settled = threading.Event()
        self._starting = order.processes
        self._lock = threading.Lock()
        self._order = order
        self._folder = folder
        self._guards: list[Guard] = []
        self._log = log
        self._is_open = False

    def wait(self) -> None:
        """Until every process can answer. Raises why one cannot."""
        with self._lock:
            if not self._is_open:
                self._is_open = True
                try:
                    self._open()
                except Exception as error:
                    self.failure = error
                    self._settled.set()
        self._settled.wait()
        if self.failure is not None:
            raise self.failure

    def _open(self) -> None:
        # Opened here, so that the files of a one-file bundle are there as long as the processes.
        self._bundle = Bundle.open(self._order.path)
        if self._bundle.digest != self._order.digest:
            raise BadBundle(
                f"the bundle in {self._order.path} is another one: "
                f"expected {self._order.digest}, got {self._bundle.digest}"
            )
        path, more = _paths(self._order.interpreter, self._folder)
        for socket in self.address.sockets:
            told = Task(
                folder=str(self._bundle.folder.absolute()), digest=self._order.digest, trust=self._order.trust,
                address=socket, memory=self._order.memory,
            )  # fmt: skip
            line = json.dumps({**msgspec.to_builtins(told), "path": path, "more": more}).encode() + b"\n"
            self._guards.append(Guard(self._order.interpreter, line, self._report, self._log, self._order.digest))
        for guard in self._guards:
            guard.start()

    def _report(self, failure: Exception | None) -> None:
        """What a guard says of its first process."""
        with self._lock:
            self._starting -= 1
            self.failure = self.failure or failure
            if failure is not None or not self._starting:
                self._settled.set()

    def end(self) -> None:
        if self.failure is None and not self._settled.is_set():
            self.failure = NotReady("the model processes were ended while they started")
            self._settled.set()
        for guard in self._guards:
            guard.end()
        for guard in self._guards:
            guard.join()
        for socket in self.address.sockets:
            Path(socket).unlink(missing_ok=True)


def _paths(interpreter: str, folder: Path) -> tuple[list[str], list[str]]:
    """Where a model process finds modules: the whole path, or what to add to its own.

    Another environment must see nothing of ours but Modelyard itself and the user's own modules.
    """
    known = [str(Path(entry).absolute()) for entry in sys.path]
    if interpreter == sys.executable:
        return known, []
    ours = {str(Path(path)) for path in sysconfig.get_paths().values()}
    ours |= {str(Path(modelyard.__file__).parents[1])}
    mine = [
        entry
        for entry in known
        if entry not in ours
        and Path(entry).name not in ("site-packages", "dist-packages", "lib-dynload")
        and not entry.endswith(".zip")
    ]
    return [], [str(ourselves(folder / "ourselves")), *mine]
