"""The guard of one model process: starts it, waits for its end, starts the next."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from time import monotonic

import msgspec

from modelyard.errors import ModelFailed, ModelyardError, RemoteFailed
from modelyard.serving.isolation.child import Report
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


class Guard(threading.Thread):
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
                [self._interpreter, "-c", _SCRIPT, self._digest],  # the digest for whoever lists processes
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
