"""Notes of what was predicted, for the recorder: written into a ring that another process reads (see ``recording``)."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections.abc import Sequence
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.recording import frames
from modelyard.recording.ring import RING_BYTES, RingWriter

if TYPE_CHECKING:
    from modelyard.messages import Message
    from modelyard.profile import Profile
    from modelyard.recording.places import Places
    from modelyard.schema import Columns
    from modelyard.serving.calls import Exchange
    from modelyard.serving.loading import Loaded
    from modelyard.serving.metrics import Meter
    from modelyard.telemetry import Log


_HINT = "--no-record, or MODELYARD_RECORD=off, where that is meant"


class Notes:
    """One process's notes. Used by one thread at a time, unless they are for several (``is_shared``)."""

    def __init__(self, places: Places, log: Log, *, is_shared: bool = False) -> None:
        self.places = places
        self._log = log
        self._ring: RingWriter | None = None
        self._numbers = itertools.count()
        self._kind = SharedBook if is_shared else Book
        self.lock = threading.Lock()
        #: Whether the last frame found no room, and whether there could be no ring at all.
        self.is_full = self.is_failing = False

    def open(self) -> None:
        """Make the ring. Where there is no room for it the service goes on without, and the log says so."""
        try:
            self.places.make()
            self._ring = self._made(RING_BYTES)
        except OSError as error:
            self.is_failing = True
            self._log.write(
                "warning", "predictions are not recorded", folder=str(self.places.folder), error=error, hint=_HINT
            )  # fmt: skip

    def _made(self, size: int) -> RingWriter:
        path = self.places.rings / f"{os.getpid()}-{secrets.token_hex(4)}.ring"
        try:
            return RingWriter(path, size)
        except OSError:
            if size <= RING_BYTES // 16:
                raise
            return self._made(size // 4)  # the memory of containers may be small

    def book(self, loaded: Loaded, meter: Meter) -> Book:
        """Where the calls of one loaded version are noted; ``meter`` counts what cannot be."""
        if self._ring is None:
            return NoBook(meter)
        lane = frames.Lane(
            number=next(self._numbers), model=loaded.name, version=loaded.version, digest=loaded.digest,
            signature=loaded.signature, reference=_reference(loaded),
        )  # fmt: skip
        try:
            frames.write_lane(self._ring.path, lane)
        except OSError as error:
            self._log.write("error", "predictions are not recorded", model=loaded.name, error=error)
            return NoBook(meter)
        return self._kind(self, self._ring, lane, meter, self._log)

    def note_unserved(self, model: str, arm: str, reason: str) -> None:
        """A version of a rollout's arm cannot be served. Where there is no room for that, it is told again later, as
        whoever loads versions tries again.
        """
        if self._ring is not None:
            with self.lock:
                frames.write_unserved(self._ring, frames.Unserved(model, arm, reason[:1_000]))

    def told(self, has_room: bool) -> None:
        """Log that records begin to be lost, or that they are no longer."""
        self.is_full = not has_room
        if has_room:
            self._log.write("info", "predictions are recorded again")
        else:
            self._log.write("warning", "predictions are not recorded: the recorder is too slow, or gone")

    def close(self) -> None:
        """Write no more; what is written stays for the recorder."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None


def _reference(loaded: Loaded) -> Profile | None:
    try:
        return loaded.bundle.profile()
    except (ModelyardError, OSError):
        return None


class Book:
    """Notes of one loaded version."""

    __slots__ = ("_lane", "_log", "_meter", "_names", "_notes", "_number", "_writer", "is_routed")

    def __init__(self, notes: Notes, ring: RingWriter, lane: frames.Lane, meter: Meter, log: Log) -> None:
        self._notes = notes
        self._meter = meter
        self._lane = lane
        self._log = log
        self._number = lane.number
        self._names = frozenset(field.name for field in lane.signature.inputs)
        self._writer = frames.LaneWriter(ring, lane.signature)
        #: Whether a route leads here, so that requests come by arms.
        self.is_routed = False

    def note(
        self, exchanges: Sequence[Exchange], messages: Sequence[Message], started: float, predicted: float,
        inputs: Columns | None, outputs: Columns | None,
    ) -> None:  # fmt: skip
        """One call of the model, when it started and had predicted; now its answers are encoded and sent.

        Never raises: what cannot be noted is counted as lost, and an answer is not to fail for it.
        """
        codes = None
        for message in messages:
            if message.code != "ok":
                codes = [each.code for each in messages]
                break
        arms = clients = None
        if self.is_routed:
            arms = [exchange.arm for exchange in exchanges]
            clients = [exchange.client for exchange in exchanges]
        if len(exchanges) == 1:  # three comprehensions would cost as much as all the rest
            only = exchanges[0]
            ids, received, decoded, rows = [only.id], [only.received], [only.decoded], [only.request.rows]
        else:
            ids = [exchange.id for exchange in exchanges]
            received = [exchange.received for exchange in exchanges]
            decoded = [exchange.decoded for exchange in exchanges]
            rows = [exchange.request.rows for exchange in exchanges]
        call = frames.Call(
            self._number, time(), perf_counter(), started, predicted, sum(rows), 0, 0, 0, ids, received, decoded,
            rows, codes, arms, clients, inputs is not None, outputs is not None, [], [],
        )  # fmt: skip
        try:
            has_room = self._writer.write(call, inputs, outputs)
        except Exception as error:
            has_room = self._failed(error, sum(rows))
        if not has_room or self._notes.is_full:
            self._count(has_room)
        if self._writer.unfit > 0:
            self._tell_unfit()

    def note_refused(self, exchange: Exchange, refusal: Message, error: Exception, body: bytes = b"") -> None:
        """A request for which the model was not called, because of ``error``. Never raises."""
        at_fault: list[str] = []
        if isinstance(error, InvalidInput):
            names = [problem.path.split("].")[-1].split("[")[0] for problem in error.problems]
            at_fault = [name for name in names if name in self._names]
        refused = frames.Refusal(
            self._number, time(), perf_counter(), exchange.received, 0, exchange.id, refusal.code, str(error),
            at_fault, exchange.arm, exchange.client, body[: frames.MOST_BODY],
        )  # fmt: skip
        try:
            has_room = self._writer.write_refusal(refused)
        except Exception as failure:
            has_room = self._failed(failure, 1)
        if not has_room or self._notes.is_full:
            self._count(has_room)

    def _count(self, has_room: bool) -> None:
        """Count what found no room, and tell where that begins or ends."""
        self._meter.unrecorded += self._writer.unwritten
        self._writer.unwritten = 0
        if has_room is self._notes.is_full:
            self._notes.told(has_room)

    def _failed(self, error: Exception, rows: int) -> bool:
        """A bug of ours must not cost an answer; but it is told, and what it cost is counted."""
        self._writer.lose(rows)
        self._log.write("error", "a prediction was not recorded", model=self._lane.model, error=error)
        return False

    def _tell_unfit(self) -> None:
        """Once a version: what its model answers is not what its signature says."""
        self._writer.unfit = -1 << 62
        self._log.write(
            "warning", "inputs or outputs are not recorded: they are not what the signature says",
            model=self._lane.model, version=self._lane.version,
        )  # fmt: skip


class NoBook(Book):
    """In the place of a book where there is no ring: counts what is not recorded."""

    __slots__ = ()

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.is_routed = False

    def note(self, exchanges: Sequence[Exchange], *_arguments: Any) -> None:
        self._meter.unrecorded += sum([exchange.request.rows for exchange in exchanges])

    def note_refused(self, *_arguments: Any) -> None:
        self._meter.unrecorded += 1


class SharedBook(Book):
    """A book that several threads write in."""

    __slots__ = ()

    def note(self, *arguments: Any) -> None:
        with self._notes.lock:
            super().note(*arguments)

    def note_refused(self, *arguments: Any) -> None:
        with self._notes.lock:
            super().note_refused(*arguments)
