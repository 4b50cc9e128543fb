"""A batch job that tells the registry how it does, from a thread of its own: a slow registry holds up nothing.

Only the end of a job is told by the job itself, and again for a while where the registry is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import ModelyardError

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.jobs import Job
    from modelyard.scoring import Scored

#: Seconds between two tellings.
TELL_SECONDS = 2.0

#: Seconds for which the end of a job is told again and again, and between two times. Somebody may wait for the command.
END_SECONDS = 15.0
AGAIN_SECONDS = 0.5

_log = logging.getLogger("modelyard")


class Told:
    """Use as a context around the job; what goes wrong in it is told as its end."""

    def __init__(self, registry: Registry, model: str, version: int, input: str, output: str) -> None:
        self._registry = registry
        self._what = (model, version, input, output)
        self._job: Job | None = None
        self._lock = threading.Lock()
        self._done = (0, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="modelyard-job", daemon=True)

    def progress(self, then: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
        """What the job calls with how far it is; ``then`` is called too."""

        def tell(done: int, total: int) -> None:
            self._done = (done, total)
            if then is not None:
                then(done, total)

        return tell

    def ended(self, scored: Scored) -> None:
        """The job is done."""
        self._end(
            state="done", scored=scored.scored, rejected=scored.rejected, rejected_file=scored.rejected_file or "",
            seconds=scored.seconds,
        )  # fmt: skip

    def __enter__(self) -> Told:
        try:
            self._job = self._registry.jobs.begin(*self._what)
        except ModelyardError:  # a registry that may not be written: the job itself needs none
            return self
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            told = error.message if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
            self._end(state="failed", error="stopped" if isinstance(error, KeyboardInterrupt) else told)

    def _follow(self) -> None:
        while not self._stop.wait(TELL_SECONDS):
            self._tell()

    def _tell(self, **changes: object) -> ModelyardError | None:
        """Returns what was in the way."""
        with self._lock:
            if self._job is None:
                return None
            done, total = self._done
            try:
                job = msgspec.structs.replace(self._job, done=done, total=total, **changes)
                self._job = self._registry.jobs.tell(job)
            except ModelyardError as error:  # the next telling says the same and more
                return error
            return None

    def _end(self, **changes: object) -> None:
        """Nothing comes after this telling, so it is made again until it is heard. The job itself is over: that nobody
        heard is no failure of it, and who does not want to wait need not.
        """
        self._stop.set()
        until = time.monotonic() + END_SECONDS
        why = "stopped"
        try:
            while (error := self._tell(**changes)) is not None:
                why = error.message
                if time.monotonic() >= until:
                    break
                time.sleep(AGAIN_SECONDS)
            else:
                return
        except KeyboardInterrupt:
            pass
        _log.warning(
            "the job is %s, but the registry does not know and will show it as lost: %s", changes["state"], why
        )
