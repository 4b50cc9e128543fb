"""The process beside a server that records and watches: there is one for each records folder, whoever starts it.

A server, or an application with mounted models, looks every few seconds whether somebody records what it notes, and
starts ``modelyard watch --beside`` where nobody does. That process is told of the server's end by the end of a pipe,
however that comes, and ends once all that was noted is kept; nobody waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from select import select
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from modelyard import settings
from modelyard.recording.places import Places
from modelyard.recording.ring import is_written

if TYPE_CHECKING:
    from modelyard.serving.application import Application
    from modelyard.telemetry import Log

#: Seconds between two looks; and after a companion that ended soon, doubled each time up to the second. One that lived
#: longer than that did not end soon.
LOOK_SECONDS = 2.0
LONGEST_WAIT = 60.0

#: Where processors are wanted by both, the server gets nine tenths.
NICE = 10

#: Seconds in which a companion whose server has ended, and which cannot keep what is left, gives up: the next one can.
LAST_SECONDS = 15.0


def accompany(application: Application, registry: Any = None, begun: threading.Event | None = None) -> None:
    """Have what an application notes recorded and watched, from when its models are loaded until it is closed. Where
    others than it load them, ``begun`` tells when.
    """
    if application.notes is None:
        return
    place = registry if registry is None or isinstance(registry, (str, Path)) else registry.place
    begun = begun or application.catalog.settled
    companion = Companion(application.notes.places, application.log, begun, registry=place)
    application.on_close.append(companion.close)


class Companion:
    """Sees to it that somebody records what is noted in ``places``, once ``begun``. ``chosen`` are settings for that
    process.
    """

    def __init__(self, places: Places, log: Log, begun: threading.Event, **chosen: Any) -> None:
        self._places = places
        self._log = log
        self._begun = begun
        self._chosen = chosen
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        #: Companions in a row that ended soon.
        self._failures = 0
        self._thread = threading.Thread(target=self._follow, name="modelyard-companion", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more, and let the process end. What is left to record is recorded all the same."""
        self._stop.set()
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _follow(self) -> None:
        while not self._begun.wait(0.5):
            if self._stop.is_set():
                return
        try:
            self._places.make()
        except OSError:  # whoever notes has said that it cannot
            return
        while not self._stop.is_set():
            self._look()
            self._stop.wait(min(LOOK_SECONDS * 2**self._failures, LONGEST_WAIT))
        if self._process is not None:
            self.close()
            self._process.wait()  # or it would stay a zombie for as long as this process lives

    def _look(self) -> None:
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            if code:
                self._failures = self._failures + 1 if monotonic() - self._started < LONGEST_WAIT else 1
                self._log.write("warning", "the process that records has ended: another is started", code=code)
        if self._places.recorder() is None:
            self._start()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "modelyard", "watch", "--beside"]
        # By the environment, since everybody can read a command line, and a registry's URL may hold a password.
        chosen = settings.environment(records=self._places.folder, **self._chosen)
        chosen.setdefault("MALLOC_ARENA_MAX", "2")  # its threads take turns: each with memory of its own, it is larger
        with _alone(self._places) as is_alone:
            if not is_alone:  # a process beside another server begins to record this moment
                return
            try:
                # A session of its own: Ctrl-C in the server's terminal is not meant for it, as it still has to keep
                # things.
                process = subprocess.Popen(
                    command, env=chosen, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
                )
            except OSError:  # no memory, no processes: the next look tries again, and the log tells of records lost
                return
            self._process, self._started = process, monotonic()
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
            while process.poll() is None and self._places.recorder() is None and not self._stop.wait(0.1):
                pass


@contextlib.contextmanager
def _alone(places: Places) -> Any:
    """Whether no other process starts a recorder of this folder at the moment; none will meanwhile."""
    descriptor = os.open(places.state / "starting.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield places.recorder() is None
    finally:
        os.close(descriptor)


def leave_with(pipe: int, places: Places, stop: Callable[[], None]) -> None:
    """In a thread of its own: call ``stop`` once the other end of ``pipe`` is closed and no server's ring is left in
    ``places``, or at once where another process records there.
    """

    def follow() -> None:
        is_over, until = False, 0.0
        while places.recorder() in (None, os.getpid()):
            if is_over:
                rings = list(places.rings.glob("*.ring"))
                if not rings or (monotonic() > until and not any(map(is_written, rings))):
                    break
                sleep(0.2)
            elif select([pipe], [], [], 1.0)[0] and not os.read(pipe, 1):
                is_over, until = True, monotonic() + LAST_SECONDS
        stop()

    threading.Thread(target=follow, name="modelyard-leave", daemon=True).start()
