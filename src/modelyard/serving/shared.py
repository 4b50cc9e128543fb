"""Memory that the workers of a server share, in which each tells the others what it has counted.

Each worker has a slot of its own, and only the worker writes there; no lock is held by anybody. A slot has two halves:
a snapshot is written to the one that is not read, and a number that is then raised says which one counts. A process
that is killed half-way leaves the last whole snapshot; the one that takes its place goes on counting from it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections import Counter
from typing import Any

import msgspec

from modelyard.serving.metrics import Counts, Snapshot, Vitals

#: Bytes of half a slot. What nobody writes to takes no memory.
HALF = 1 << 21

#: At the start of a slot: the process that lives there (0: none), how many were replaced, the number of the snapshot,
#: the lengths of both halves, and how many connections the process has taken and lost.
_PROCESS, _REPLACED, _TURN, _LENGTHS, _TAKEN, _LOST = 0, 8, 16, (24, 32), 40, 48
_NUMBER = struct.Struct("<Q")

#: Bytes of a slot.
SLOT = mmap.PAGESIZE + 2 * HALF

_encode = msgspec.msgpack.Encoder().encode


def _decode_hook(kind: Any, value: Any) -> Any:
    return Counter(value)


_decode = msgspec.msgpack.Decoder(Snapshot, dec_hook=_decode_hook).decode


def make(slots: int) -> int:
    """A file descriptor of fresh memory for so many workers; it has no name, and ends with the last who holds it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("modelyard-workers")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, slots * SLOT)
    return descriptor


class Board:
    """The slots. ``number`` is the worker's own; the supervisor has none and says -1."""

    def __init__(self, descriptor: int, number: int = -1) -> None:
        self.number = number
        self._map = mmap.mmap(descriptor, 0)
        self._slots = len(self._map) // SLOT

    # For the supervisor.

    def settle(self, number: int, process: int, replaced: int) -> None:
        """Note which process lives in a slot, 0 for none, and how many did before."""
        for place, value in ((_PROCESS, process), (_REPLACED, replaced), (_TAKEN, 0), (_LOST, 0)):
            self._set(number, place, value)

    def pulse(self, number: int) -> int:
        """A number that changes as long as the worker publishes."""
        return self._get(number, _TURN)

    def taken(self, number: int) -> int:
        """How many connections the process in a slot has taken."""
        return self._get(number, _TAKEN)

    def lost(self, number: int) -> int:
        """How many of them have ended."""
        return self._get(number, _LOST)

    # For workers.

    def note_taken(self) -> None:
        self._set(self.number, _TAKEN, self.taken(self.number) + 1)

    def note_lost(self) -> None:
        self._set(self.number, _LOST, self.lost(self.number) + 1)

    def inherited(self) -> Counts:
        """What those before had counted in this slot."""
        snapshot = self._read(self.number)
        return snapshot.counts if snapshot is not None else Counts()

    def publish(self, snapshot: Snapshot) -> None:
        """Put this worker's snapshot in the place of its last one; where it is too large, that one is told again."""
        data = _encode(snapshot)
        if len(data) > HALF:
            before = self._read(self.number)
            data = _encode(Snapshot(before.counts if before is not None else Counts(), snapshot.vitals))
        turn = self.pulse(self.number) + 1
        half = turn & 1
        start = self.number * SLOT + mmap.PAGESIZE + half * HALF
        self._map[start : start + len(data)] = data
        self._set(self.number, _LENGTHS[half], len(data))
        self._set(self.number, _TURN, turn)

    def collect(self) -> tuple[list[Counts], list[Vitals], int]:
        """The counts of all workers there ever were, the vitals of those that live, and how many were replaced."""
        counts, vitals, replaced = [], [], 0
        for number in range(self._slots):
            replaced += self._get(number, _REPLACED)
            snapshot = self._read(number)
            if snapshot is not None:
                counts.append(snapshot.counts)
                if snapshot.vitals.process == self._get(number, _PROCESS):
                    vitals.append(snapshot.vitals)
        return counts, vitals, replaced

    def _read(self, number: int) -> Snapshot | None:
        while turn := self.pulse(number):
            half = turn & 1
            start = number * SLOT + mmap.PAGESIZE + half * HALF
            data = self._map[start : start + self._get(number, _LENGTHS[half])]
            if self.pulse(number) == turn:  # nobody began to write over what we copied
                return _decode(data)
        return None

    def _get(self, number: int, place: int) -> int:
        value: int = _NUMBER.unpack_from(self._map, number * SLOT + place)[0]
        return value

    def _set(self, number: int, place: int, value: int) -> None:
        _NUMBER.pack_into(self._map, number * SLOT + place, value)
