"""The process that watches: it records what the servers of its folder predict, joins labels with that, holds the lease
if it can, and runs the loops that decide for as long as it does.

Any number of these processes may share a registry. On each machine one of them records; of all of them one holds the
lease and acts. The others look on, and one takes over within ten seconds of the end of whoever acted, or of its
standing still. Each loop has a thread, so that none waits for another; what they decide is fenced by the lease (see
``registry.leases``). Loops begin anew with each term, as whatever they carry on is in the registry.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from modelyard.errors import Conflict, ModelyardError, RemoteFailed
from modelyard.monitoring import labelling
from modelyard.monitoring.judging import Judge
from modelyard.monitoring.watch import Monitor
from modelyard.recording.consumer import Consumer
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.recorder import LAST_SECONDS, Recorder
from modelyard.registry.leases import BEAT_SECONDS, CONTROL, Lease
from modelyard.rollouts.controller import Controller
from modelyard.rollouts.tallying import Tallying
from modelyard.rollouts.truths import Truths
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry


class Loop(Protocol):
    """Something that decides, step by step. A step raises Conflict where the lease is another's by now."""

    #: Seconds to wait before the next step.
    pause: float

    def step(self) -> object: ...


#: Makes a loop for a registry and a lease that is held.
MakeLoop = Callable[["Registry", Lease, Log], Loop]

#: The loops of every watching process.
LOOPS: list[MakeLoop] = [Monitor, Judge, Controller]

#: Makes what else looks at everything that is recorded.
MakeConsumer = Callable[["Registry", Log], Consumer]

#: Those of every recorder.
CONSUMERS: list[MakeConsumer] = [Tallying]

#: A loop that takes longer for one step stands still: the lease is left to others.
STUCK_SECONDS = 60.0
#: How long to wait after a failure, and before another recorder's folder is asked for again.
_FAILED_SECONDS, _RECORDER_SECONDS = 2.0, 5.0
#: How often a loop looks whether a beat that is late has come.
_LATE_SECONDS = 0.2


#: How long an end waits for a thread: a recorder has to leave all of what it knows kept.
_LAST_SECONDS = LAST_SECONDS + 5.0


@dataclass(eq=False)
class _Running:
    """A loop of one term, and when its present step began."""

    loop: Loop
    term: int
    begun: float = field(default_factory=monotonic)
    is_stepping: bool = False

    @property
    def is_stuck(self) -> bool:
        return self.is_stepping and monotonic() - self.begun > STUCK_SECONDS


class Watch:
    """Holds the lease while it can, and runs the loops."""

    def __init__(
        self, registry: Registry, *, places: Places | None = None, loops: Sequence[MakeLoop] | None = None,
        holder: str = "", log: Log | None = None,
    ) -> None:  # fmt: skip
        """``places``: the folder of records to record in; None where another process does."""
        self._registry = registry
        self._places = places
        self._loops = list(LOOPS if loops is None else loops)
        self._log = log or Log()
        self.lease = registry.lease(CONTROL, holder or f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(3)}")
        self._running: list[_Running] = []
        self._threads: list[threading.Thread] = []
        #: Those of them that have loops of this term, or of an earlier one.
        self._deciding: list[threading.Thread] = []
        self._stop = threading.Event()

    def run(self) -> None:
        """Watch until ``stop``."""
        was, failing = -1, False
        if self._places is not None:
            self._start(self._record, "recorder")
            given = self._registry, self._places, self._stop, self._log, [Truths()]
            self._start(partial(labelling.follow, *given), "labels")
        try:
            while True:
                if any(running.is_stuck for running in self._running):
                    self._log.write("error", "a loop stands still: the lease is left to others", after=STUCK_SECONDS)
                else:
                    failing = self._beat(failing)
                term = self.lease.term
                if term != was:
                    was = term
                    self._log.write("info", "deciding" if term else "looking on", holder=self.lease.holder, term=term)
                    self._begin(term)
                self._log.flush()
                if self._stop.wait(BEAT_SECONDS):
                    return
        finally:
            self._end()

    def stop(self) -> None:
        """End soon, from any thread or a signal's handler."""
        self._stop.set()

    def once(self) -> bool:
        """Take in all that there is, and return; False where another process has the lease."""
        if not self.lease.beat():
            return False
        try:
            loops = [make(self._registry, self.lease, self._log) for make in self._loops]
            while True:
                for loop in loops:
                    loop.step()
                if all(loop.pause >= 0.2 for loop in loops):
                    return True
                self._stop.wait(min(loop.pause for loop in loops))
                self.lease.beat()
        finally:
            self.lease.release()
            self._log.flush()

    def _beat(self, failing: bool) -> bool:
        """Whether it failed; what fails again is not logged again."""
        try:
            self.lease.beat()
        except RemoteFailed as error:
            if not failing:
                self._log.write("warning", "the registry does not answer: nothing is decided", error=error)
            return True
        if failing:
            self._log.write("info", "the registry answers again")
        return False

    def _begin(self, term: int) -> None:
        """Run the loops of a term. Those of the one before see that it is over; what one of them still has under way
        ends before anything of this term begins.
        """
        self._running = []
        if not term:
            return
        before = [thread for thread in self._deciding if thread.is_alive()]
        self._deciding = list(before)
        for make in self._loops:
            running = _Running(make(self._registry, self.lease, self._log), term)
            self._running.append(running)
            self._deciding.append(self._start(partial(self._follow, running, before), f"loop-{term}"))

    def _start(self, target: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()
        return thread

    def _record(self) -> None:
        """Record, or wait until the process that does has ended."""
        assert self._places is not None
        told = ""
        while not self._stop.is_set():
            try:
                consumers = [make(self._registry, self._log) for make in CONSUMERS]
                recorder = Recorder(self._places, self._registry, self._log, Options.chosen(), consumers)
            except Exception as error:  # what is in the way for long is told once
                if str(error) != told:
                    self._tell_of(error)
                told = str(error)
                self._stop.wait(_RECORDER_SECONDS)
                continue
            told = ""
            self._log.write("info", "recording", folder=str(self._places.folder))
            try:
                recorder.run(self._stop)
            except Exception as error:
                self._log.write("error", "the recorder failed", error=error)
                self._stop.wait(_FAILED_SECONDS)

    def _tell_of(self, error: Exception) -> None:
        """What keeps this process from recording."""
        assert self._places is not None
        if isinstance(error, Conflict):
            self._log.write("info", "another process records", reason=error.message)
            return
        hint = getattr(error, "hint", "")
        if isinstance(error, OSError):
            hint = "name another folder with --records or MODELYARD_RECORDS"
            error = RemoteFailed(f"cannot use {self._places.folder}: {error.strerror or error}")
        self._log.write("error", "predictions are not recorded", error=error, hint=hint)

    def _follow(self, running: _Running, before: Sequence[threading.Thread]) -> None:
        running.begun, running.is_stepping = monotonic(), True
        for thread in before:
            while thread.is_alive() and not self._stop.is_set():
                thread.join(0.1)
        running.is_stepping = False
        while not self._stop.is_set() and running in self._running:
            if self.lease.term != running.term:  # a beat is late, and may yet come: then this term goes on
                self._stop.wait(_LATE_SECONDS)
                continue
            running.begun, running.is_stepping = monotonic(), True
            pause = _FAILED_SECONDS
            try:
                running.loop.step()
                pause = running.loop.pause
            except Conflict as error:
                self._log.write("info", "nothing was decided", reason=error.message)
            except ModelyardError as error:
                self._log.write("warning", "nothing was decided", error=error)
            except Exception as error:
                self._log.write("error", "a loop failed", loop=type(running.loop).__name__, error=error)
            finally:
                running.is_stepping = False
            self._stop.wait(pause)

    def _end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=_LAST_SECONDS)
        try:
            self.lease.release()
        except ModelyardError as error:
            self._log.write("warning", "the lease was not given back: others take it in a few seconds", error=error)
        self._log.flush()
