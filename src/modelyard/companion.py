"""The process beside a server that records and watches: there is one for each records folder, whoever starts it.

A server, or an application with mounted models, looks every few seconds whether somebody records what it notes, and
starts ``modelyard watch --beside`` where nobody does. That process ends by itself once all who noted have ended and all
they wrote is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from time import sleep
from typing import Any

from modelyard import settings
from modelyard.recording.places import Places

#: Seconds between two looks; and after a companion that ended at once, doubled each time up to the second.
LOOK_SECONDS = 2.0
LONGEST_WAIT = 60.0


class Companion:
    """Sees to it that somebody records what is noted in ``places``. ``chosen`` are settings for that process."""

    def __init__(self, places: Places, **chosen: Any) -> None:
        self._places = places
        self._chosen = chosen
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._follow, name="modelyard-companion", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more. What is left to record is recorded all the same."""
        self._stop.set()

    def _follow(self) -> None:
        wait = LOOK_SECONDS
        while True:
            if self._process is not None and self._process.poll() is not None:
                self._process = None
                wait = min(wait * 2, LONGEST_WAIT)
            if self._process is None and self._places.recorder() is None:
                self._start()
            elif self._process is not None:
                wait = LOOK_SECONDS
            if self._stop.wait(wait):
                return

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "modelyard", "watch", "--beside", str(os.getpid())]
        # By the environment, since everybody can read a command line, and a registry's URL may hold a password.
        chosen = settings.environment(records=self._places.folder, **self._chosen)
        try:
            # A session of its own: Ctrl-C in the server's terminal is not meant for it, as it still has to keep things.
            self._process = subprocess.Popen(
                command, env=chosen, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError:  # no memory, no processes: the next look tries again, and the log tells of records lost
            self._process = None


def leave_with(process: int, places: Places, stop: Callable[[], None]) -> None:
    """In a thread of its own: call ``stop`` once ``process`` has ended and no server's ring is left in ``places``."""

    def follow() -> None:
        while _is_alive(process) or any(places.rings.glob("*.ring")):
            sleep(1.0)
        stop()

    threading.Thread(target=follow, name="modelyard-leave", daemon=True).start()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process has its number by now
        return False
    return True
