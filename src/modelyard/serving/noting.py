"""Notes of what was predicted, for the recorder: written into a ring that another process reads (see ``recording``)."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING

from modelyard.recording import frames
from modelyard.recording.ring import RingWriter

if TYPE_CHECKING:
    from modelyard.messages import Message
    from modelyard.schema import Columns
    from modelyard.serving.calls import Exchange
    from modelyard.serving.loading import Loaded
    from modelyard.telemetry import Log


class Notes:
    """One process's notes. Used by one thread at a time."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._path = folder / "rings" / f"{os.getpid()}-{secrets.token_hex(4)}.ring"
        self._log = log
        self._ring: RingWriter | None = None
        self._numbers = itertools.count()
        self._is_full = False

    def open(self) -> None:
        """Make the ring. Where the disk has no room the service goes on without, and the log says so."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._ring = RingWriter(self._path)
        except OSError as error:
            self._log.write("error", "predictions are not recorded", folder=str(self._path.parent), error=error)

    def book(self, loaded: Loaded) -> Book | None:
        """Where the calls of one loaded version are noted; None where nothing is recorded."""
        if self._ring is None:
            return None
        lane = frames.Lane(
            number=next(self._numbers), model=loaded.name, version=loaded.version, digest=loaded.digest,
            signature=loaded.signature,
        )  # fmt: skip
        try:
            frames.write_lane(self._path, lane)
        except OSError as error:
            self._log.write("error", "predictions are not recorded", model=loaded.name, error=error)
            return None
        return Book(self, self._ring, lane.number)

    def told(self, has_room: bool) -> None:
        """Log once when records begin to be lost, and once when they are no longer."""
        if has_room == self._is_full:
            self._is_full = not has_room
            if has_room:
                self._log.write("info", "predictions are recorded again")
            else:
                self._log.write("warning", "predictions are not recorded: the recorder is too slow, or gone")

    def close(self) -> None:
        """Write no more; what is written stays for the recorder."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None


class Book:
    """Notes of one loaded version."""

    __slots__ = ("_lane", "_notes", "_ring", "is_routed")

    def __init__(self, notes: Notes, ring: RingWriter, lane: int) -> None:
        self._notes = notes
        self._ring = ring
        self._lane = lane
        #: Whether a route leads here, so that requests come by arms.
        self.is_routed = False

    def note(
        self, exchanges: Sequence[Exchange], messages: Sequence[Message], started: float, predicted: float,
        inputs: Columns | None, outputs: Columns | None,
    ) -> None:  # fmt: skip
        """One call of the model, when it started and had predicted; now its answers are encoded and sent."""
        codes = [message.code for message in messages]
        call = frames.Call(
            self._lane,
            time(),
            perf_counter(),
            started,
            predicted,
            [exchange.id for exchange in exchanges],
            [exchange.received for exchange in exchanges],
            [exchange.decoded for exchange in exchanges],
            [exchange.request.rows for exchange in exchanges],
            0,
            None if codes.count("ok") == len(codes) else codes,
            [exchange.arm for exchange in exchanges] if self.is_routed else None,
            [exchange.client for exchange in exchanges] if self.is_routed else None,
            0 if inputs is None else len(inputs.blocks),
            0 if outputs is None else len(outputs.blocks),
            [],
            [],
        )
        self._notes.told(frames.write_call(self._ring, call, inputs, outputs))

    def note_refused(self, exchange: Exchange, refusal: Message, reason: str, body: bytes = b"") -> None:
        """A request for which the model was not called."""
        refused = frames.Refusal(
            self._lane, time(), perf_counter(), exchange.received, exchange.id, refusal.code, reason, exchange.arm,
            exchange.client, body[: frames.MOST_BODY],
        )  # fmt: skip
        self._notes.told(frames.write_refusal(self._ring, refused))
