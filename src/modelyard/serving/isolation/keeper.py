"""The keeper: starts model processes, replaces those that end, and ends those that nobody needs any more.

It belongs to the process that outlives the others: the server itself, or the supervisor of its workers, which ask it
over their link. Where a version is asked for twice, its processes are shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Protocol

import msgspec

import modelyard
from modelyard.bundle import Bundle
from modelyard.bundle.environments import ourselves
from modelyard.errors import BadBundle, ModelFailed, ModelyardError, NotReady, RemoteFailed
from modelyard.serving.isolation.child import Report, Task
from modelyard.serving.isolation.frames import error_of
from modelyard.telemetry import Log

_SCRIPT = """\
import json, sys
told = json.loads(sys.stdin.buffer.readline())
sys.path[:] = told.pop("path") or sys.path
sys.path += told.pop("more")
from modelyard.serving.isolation.child import live
live(told)
"""

#: Seconds that a process may take to load its model.
LONGEST_LOAD = 600

#: A process that ends is replaced after the first of these many seconds; each time that one ends before it has lived
#: for ``STEADY`` doubles them, up to the last.
BACK_OFF = (0.1, 10.0)
STEADY = 10.0

#: Seconds that a process has to end by itself.
GRACE = 2.0

#: Models run on one thread inside, unless the environment says otherwise: the threads of several processes would only
#: stand in each other's way.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


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
        self.folder = Path(tempfile.mkdtemp(prefix="modelyard-"))
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
        self._guards: list[_Guard] = []
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
            self._guards.append(_Guard(self._order.interpreter, line, self._report, self._log, self._order.digest))
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


class _Guard(threading.Thread):
    """One model process after another, as long as one is wanted.

    A thread for each: Linux ends a process with the thread that started it, if asked to, and so none outlives us.
    """

    def __init__(
        self, interpreter: str, line: bytes, report: Callable[[Exception | None], None], log: Log, digest: str
    ) -> None:
        super().__init__(name="modelyard-keeper", daemon=True)
        self._interpreter = interpreter
        self._line = line
        self._report: Callable[[Exception | None], None] | None = report
        self._log = log
        self._digest = digest
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        delay, longest = BACK_OFF
        while not self._ending.is_set():
            how, lived = self._live()
            self._let_go()
            if self._ending.is_set() or self._report is not None:
                break
            if lived > STEADY:
                delay = BACK_OFF[0]
            self._log.write("error", "model process ended", digest=self._digest, how=how, again_in=delay)
            self._ending.wait(delay)
            delay = min(delay * 2, longest)

    def _live(self) -> tuple[str, float]:
        """One process from its start to its end: how it ended, and how many seconds it could answer."""
        began = monotonic()
        failure = self._begin()
        if self._report is not None:
            self._report(failure)
            if failure is None:
                self._report = None
        if failure is not None:
            self._end_process()
            return failure.message, 0.0
        ready = monotonic()
        assert self._process is not None
        self._log.write(
            "info", "model process ready", digest=self._digest, process=self._process.pid,
            seconds=round(ready - began, 3),
        )  # fmt: skip
        self._process.wait()
        return _how(self._process), monotonic() - ready

    def _begin(self) -> ModelyardError | None:
        """Start a process and wait until it can answer; the reason if it never can."""
        try:
            process = self._process = subprocess.Popen(
                [self._interpreter, "-c", _SCRIPT],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
                env={**dict.fromkeys(_THREADS, "1"), **os.environ},
            )  # fmt: skip
        except OSError as error:
            return RemoteFailed(f"a model process cannot be started: {error}")
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):  # it has ended, as we shall read
            process.stdin.write(self._line)
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        said = process.stdout.readline() if poll.poll(LONGEST_LOAD * 1000) else b""
        try:
            report = msgspec.json.decode(said, type=Report)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._end_process()
            return ModelFailed(f"the model process ended while it loaded the model: {_how(process)}")
        return None if report.failure is None else error_of(report.failure)

    def end(self) -> None:
        """Let the process end: now where it waits, in a moment where it is busy."""
        self._ending.set()
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def join(self, timeout: float | None = None) -> None:
        super().join(GRACE if timeout is None else timeout)
        while self.is_alive():
            self._kill()
            super().join(0.1)

    def _let_go(self) -> None:
        """Close the pipes to a process that has ended."""
        for pipe in (self._process.stdin, self._process.stdout) if self._process is not None else ():
            if pipe is not None:
                pipe.close()

    def _end_process(self) -> None:
        self._kill()
        if self._process is not None:
            self._process.wait()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def _how(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code >= 0:
        return f"exit {code}"
    if -code == signal.SIGALRM:
        return "a call took too long"
    return f"killed by {signal.strsignal(-code) or 'signal'} ({-code})"


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
