"""What rings held of calls, as columns: a turn's frames of one version and one form, together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from modelyard.recording import frames
from modelyard.recording.frames import Call, Refusal, Unserved
from modelyard.recording.ring import Frame
from modelyard.recording.subject import Subject
from modelyard.schema import Array, Columns


@dataclass
class Rows:
    """Rows of several requests, in the order of their calls. What is a list or an array has one entry a request.

    A request of very many rows may be in several of these: in all but the first, it ``begins`` later than at row 0.
    """

    subject: Subject
    #: The process that served them.
    worker: int
    inputs: Columns | None
    outputs: Columns | None
    #: About how much memory they take.
    bytes: int
    #: Rows that were lost before these, and the arm of the request after them.
    lost: list[tuple[int, str]]
    ids: list[str]
    #: Code words; None where all are ``ok``.
    codes: list[str] | None
    #: ``alias/revision/arm``, and what requests stick to them by; None where no route parts them.
    arms: list[str] | None
    clients: list[str] | None
    #: Rows here, at which of its rows each request begins here, and the rows that it has in all.
    sizes: Array
    begins: Array
    whole: Array
    #: Rows of the call that each was in.
    batch: Array
    #: When each was answered, in seconds since 1970.
    wall: Array
    #: Seconds in decode, queue, predict, encode, and in all: shape (requests, 5).
    stages: Array

    @classmethod
    def of(
        cls, subject: Subject, worker: int, calls: list[Call], inputs: Columns | None, outputs: Columns | None,
        size: int,
    ) -> Rows:  # fmt: skip
        """The rows of calls of one form, whose frames took ``size`` bytes."""
        many = np.array([len(call.ids) for call in calls])
        firsts = np.cumsum(many) - many
        sizes = _joined([call.rows for call in calls], "int64")
        begins, whole = np.zeros(len(sizes), dtype="int64"), sizes.copy()
        for place, call in zip(firsts.tolist(), calls, strict=True):
            if call.whole:
                begins[place], whole[place] = call.first, call.whole
        received, decoded = _joined([c.received for c in calls]), _joined([c.decoded for c in calls])
        told = np.array([(c.started, c.predicted, c.done, c.wall, c.batch) for c in calls]).repeat(many, axis=0)
        started, predicted, done = told[:, 0], told[:, 1], told[:, 2]
        stages = (decoded - received, started - decoded, predicted - started, done - predicted, done - received)
        return cls(
            subject, worker, inputs, outputs, 200 * len(sizes) + 100 * int(sizes.sum()) + 2 * size,
            lost=[(call.lost, call.arms[0] if call.arms else "") for call in calls if call.lost],
            ids=list(chain.from_iterable([call.ids for call in calls])),
            codes=_filled([(call.codes, len(call.ids)) for call in calls], "ok"),
            arms=_filled([(call.arms, len(call.ids)) for call in calls], ""),
            clients=_filled([(call.clients, len(call.ids)) for call in calls], ""),
            sizes=sizes, begins=begins, whole=whole, batch=told[:, 4].astype("int64"), wall=told[:, 3],
            stages=np.stack(stages, axis=1),
        )  # fmt: skip

    @property
    def requests(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> int:
        return int(self.sizes.sum())

    @cached_property
    def is_single(self) -> bool:
        """Whether each request has one row."""
        return bool((self.whole == 1).all())

    @property
    def form(self) -> tuple[Any, ...]:
        """Rows that have this in common can be ``joined``."""
        sides = [None if s is None else tuple(b.shape[1:] for b in s.blocks) for s in (self.inputs, self.outputs)]
        return (self.subject.key, self.worker, *sides)

    @cached_property
    def request_of(self) -> Array:
        """Which request each row is of."""
        return np.repeat(np.arange(self.requests), self.sizes)

    def per_row(self, values: Array) -> Array:
        """What each request has, for each row."""
        return values if self.is_single else values[self.request_of]

    def listed(self, values: Sequence[Any]) -> list[Any]:
        """What each request has, for each row, as a list."""
        return list(values) if self.is_single else [values[request] for request in self.request_of.tolist()]

    def prediction_ids(self) -> list[str]:
        """Each row's own id: its request's where that has only one row."""
        if self.is_single:
            return self.ids
        found: list[str] = []
        every = zip(self.ids, self.sizes.tolist(), self.whole.tolist(), self.begins.tolist(), strict=True)
        for id, size, whole, first in every:
            found += [id] if whole == 1 else [f"{id}.{number}" for number in range(first, first + size)]
        return found


def joined(many: Sequence[Rows]) -> Rows:
    """The rows of ``many`` one after the other; all are of one ``form``."""
    if len(many) == 1:
        return many[0]
    first = many[0]
    values: dict[str, Any] = {}
    for each in fields(Rows):
        parts = [getattr(rows, each.name) for rows in many]
        if isinstance(parts[0], np.ndarray):
            values[each.name] = np.concatenate(parts)
        elif isinstance(parts[0], Columns):
            values[each.name] = parts[0].layout.concatenate(parts)
        elif each.name == "bytes":
            values[each.name] = sum(parts)
        elif each.name in ("lost", "ids"):
            values[each.name] = list(chain.from_iterable(parts))
        elif each.name in ("codes", "arms", "clients"):
            nothing = "ok" if each.name == "codes" else ""
            values[each.name] = _filled([(part, r.requests) for part, r in zip(parts, many, strict=True)], nothing)
        else:
            values[each.name] = getattr(first, each.name)
    return Rows(**values)


def _joined(lists: list[list[Any]], dtype: str = "float64") -> Array:
    return np.array(lists[0] if len(lists) == 1 else list(chain.from_iterable(lists)), dtype=dtype)


def _filled(given: Sequence[tuple[list[str] | None, int]], nothing: str) -> list[str] | None:
    """Lists one after the other, where not all are None."""
    if all(part is None for part, _ in given):
        return None
    return list(chain.from_iterable([part if part is not None else [nothing] * count for part, count in given]))


class Gathered:
    """What was read of a ring in one turn."""

    def __init__(self) -> None:
        self.rows: list[Rows] = []
        self.refusals: list[tuple[Subject, Refusal]] = []
        self.unserved: list[Unserved] = []
        #: Rows of frames that could not be understood.
        self.unknown = 0


class _Group:
    """Frames of one version and one form."""

    def __init__(self, subject: Subject, call: Call) -> None:
        self.subject = subject
        self.calls: list[Call] = []
        self.rows = self.size = 0
        self._shapes = call.shapes
        sides = zip(subject.forms, (call.has_inputs, call.has_outputs), strict=True)
        self._sides = [(form, form.empty) if is_there else None for form, is_there in sides]

    def add(self, call: Call, head: memoryview, rest: memoryview, rows: int) -> None:
        texts, shapes, at = iter(call.texts), iter(call.shapes), 0
        for side in self._sides:
            if side is not None:
                at = side[0].take(rest, at, rows, texts, shapes, side[1])
        self.calls.append(call)
        self.rows += rows
        self.size += len(head) + len(rest)

    def joined(self, worker: int) -> Rows:
        """Raises ValueError where what a frame says of itself is not what is in it."""
        shapes = iter(self._shapes)
        inputs, outputs = (
            side[0].columns(side[1], self.rows, shapes) if side is not None else None for side in self._sides
        )
        if len(self.calls) == 1:  # they lie in the ring, which may be written over
            inputs, outputs = (_copied(columns) for columns in (inputs, outputs))
        return Rows.of(self.subject, worker, self.calls, inputs, outputs, self.size)


def gather(found: Iterable[Frame], subjects: Mapping[int, Subject], worker: int) -> Gathered:
    """Frames as rows, copied. ``subjects`` are those of the ring's lanes."""
    gathered = Gathered()
    groups: dict[Any, _Group] = {}
    for kind, head, rest, rows in found:
        try:
            if kind == frames.REFUSED:
                refusal = frames.read_refusal(head)
                gathered.refusals.append((subjects[refusal.lane], refusal))
                continue
            if kind == frames.UNSERVED:
                gathered.unserved.append(frames.read_unserved(head))
                continue
            call = frames.read_head(head)
            shapes = tuple(map(tuple, call.shapes)) if call.shapes else ()
            key = (call.lane, call.has_inputs, call.has_outputs, shapes)
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Group(subjects[call.lane], call)
            group.add(call, head, rest, rows)
        except (msgspec.MsgspecError, KeyError, StopIteration, ValueError):
            gathered.unknown += rows
    for group in groups.values():
        try:
            gathered.rows.append(group.joined(worker))
        except ValueError:
            gathered.unknown += group.rows
    return gathered


def _copied(columns: Columns | None) -> Columns | None:
    if columns is None:
        return None
    return Columns(columns.layout, [block.copy() for block in columns.blocks], columns.rows)
