"""What a server writes into a ring, and how it is read: a frame for each call of a model, and for each refusal.

A call's frame holds what came and went as it lay in memory, so that writing it costs a copy. What describes a version
once (a ``Lane``) stands in a file beside the ring, a line each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.profile import Profile
from modelyard.recording.layouts import Form
from modelyard.recording.ring import RingWriter
from modelyard.schema import Array, Columns, Signature

#: Kinds of frames; 0 is the ring's own.
CALL, REFUSED, UNSERVED = 1, 2, 3

#: Bytes of the body of a request that could not be read, which are kept to tell why.
MOST_BODY = 16_384


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded version, as frames mean it by its number."""

    number: int
    model: str
    #: "" for a bundle that no registry has numbered.
    version: str
    digest: str
    signature: Signature
    #: What its windows are counted on; None where the bundle has none.
    reference: Profile | None = None


class Call(msgspec.Struct, array_like=True, gc=False):
    """The head of a call's frame. What is a list has one entry a request, but for the last two."""

    lane: int
    #: Seconds since 1970 when the call was done, and the same moment on the steady clock of all other times.
    wall: float
    done: float
    started: float
    predicted: float
    #: Rows of the call, also where this frame holds a part of it.
    batch: int
    #: A request too large for one frame takes several, one after the other: how many rows it has in all, and at which
    #: of them this frame begins. 0 otherwise.
    whole: int
    first: int
    #: Rows of this lane that there was no room for since its last frame.
    lost: int
    ids: list[str]
    received: list[float]
    decoded: list[float]
    rows: list[int]
    #: Code words; None where all are ``ok``.
    codes: list[str] | None
    #: The arm that each took, as ``alias/revision/arm``, "" where no route parted them; None where no route leads here.
    arms: list[str] | None
    #: What sticks to an arm, where the route says what does.
    clients: list[str] | None
    #: Whether blocks of inputs and of outputs follow.
    has_inputs: bool
    has_outputs: bool
    #: Blocks of texts, which do not lie in memory as bytes, in order.
    texts: list[Any]
    #: Shapes of rows of the blocks whose fields' shapes vary, in order.
    shapes: list[list[int]]


class Refusal(msgspec.Struct, array_like=True, gc=False):
    """The whole of a refusal's frame: a request for which no model was called."""

    lane: int
    wall: float
    done: float
    received: float
    lost: int
    id: str
    code: str
    #: What the caller was told, and the inputs that were at fault.
    reason: str
    fields: list[str]
    arm: str
    client: str
    #: The first bytes of what was sent; empty where it may not be kept.
    body: bytes


class Unserved(msgspec.Struct, array_like=True, gc=False):
    """The whole of a frame that tells of an arm of a rollout's route whose version the server cannot serve, and why."""

    model: str
    arm: str
    reason: str


_encode = msgspec.msgpack.Encoder().encode
_read_call = msgspec.msgpack.Decoder(Call).decode
_read_refusal = msgspec.msgpack.Decoder(Refusal).decode
_read_unserved = msgspec.msgpack.Decoder(Unserved).decode


class LaneWriter:
    """Writes the calls and refusals of one lane."""

    __slots__ = ("_inputs", "_lost", "_outputs", "_ring", "unfit", "unwritten")

    def __init__(self, ring: RingWriter, signature: Signature) -> None:
        self._ring = ring
        self._inputs = Form.of(signature.input_layout)
        self._outputs = Form.of(signature.output_layout)
        #: Rows that there was no room for since the last frame that there was room for.
        self._lost = 0
        #: The same since the caller set it to 0.
        self.unwritten = 0
        #: Sides of calls that could not be written, because they are not what the signature says.
        self.unfit = 0

    def write(self, call: Call, inputs: Columns | None, outputs: Columns | None) -> bool:
        """Write a call's frame, parted where it is too large for one. False where some of it found no room."""
        blocks: list[Array] = []
        rows = sum(call.rows)
        size = 0
        if inputs is not None:
            size = self._inputs.lay(inputs, rows, blocks, call.texts, call.shapes)
            if size < 0:
                return self._without(call, None, outputs)
        if outputs is not None:
            more = self._outputs.lay(outputs, rows, blocks, call.texts, call.shapes)
            if more < 0:
                return self._without(call, inputs, None)
            size += more
        call.lost = self._lost
        try:
            head = _encode(call)
        except (TypeError, ValueError):  # texts that are none, or that no UTF-8 can hold
            call.texts[:] = _writable(call.texts)
            call.ids, call.arms, call.clients = (_writable(each) for each in (call.ids, call.arms, call.clients))
            head = _encode(call)
        ring = self._ring
        if size + len(head) > ring.room:
            return self._parted(call, rows, inputs, outputs)
        try:
            is_written = ring.put(CALL, head, blocks, size, rows)
        except ValueError:  # an array that does not lie in memory row after row
            is_written = ring.put(CALL, head, [np.ascontiguousarray(block) for block in blocks], size, rows)
        return self._note(is_written, rows)

    def write_refusal(self, refusal: Refusal) -> bool:
        """Write a refusal's frame. False where it found no room."""
        refusal.lost = self._lost
        try:
            frame = _encode(refusal)
        except ValueError:
            for name in ("id", "reason", "fields", "arm", "client"):
                setattr(refusal, name, _writable(getattr(refusal, name)))
            frame = _encode(refusal)
        is_written = self._ring.put(REFUSED, frame, [], 0, 1)
        return self._note(is_written, 1)

    def lose(self, rows: int) -> None:
        """Count rows that could not be written."""
        self._note(False, rows)
        self._ring.lose(1, rows)

    def _note(self, is_written: bool, rows: int) -> bool:
        if is_written:
            self._lost = 0
        else:
            self._lost += rows
            self.unwritten += rows
        return is_written

    def _without(self, call: Call, inputs: Columns | None, outputs: Columns | None) -> bool:
        self.unfit += 1
        call.texts.clear()
        call.shapes.clear()
        call.has_inputs, call.has_outputs = inputs is not None, outputs is not None
        return self.write(call, inputs, outputs)

    def _parted(self, call: Call, rows: int, inputs: Columns | None, outputs: Columns | None) -> bool:
        """Two halves of a call: of its requests, or of its rows where it has only one."""
        count = len(call.ids)
        if count > 1:
            middle = count // 2
            cut = sum(call.rows[:middle])
            halves = [_some(call, 0, middle), _some(call, middle, count)]
        elif rows > 1 and (inputs is not None or outputs is not None):
            cut = rows // 2
            halves = [_rows(call, cut, 0), _rows(call, rows - cut, cut)]
        elif inputs is not None or outputs is not None:  # a single row that is larger than the ring takes
            return self._without(call, None, None)
        else:  # an endless id
            self.lose(rows)
            return False
        good = True
        for half, (start, stop) in zip(halves, ((0, cut), (cut, rows)), strict=True):
            sides = [each.slice(start, stop) if each is not None else None for each in (inputs, outputs)]
            good = self.write(half, *sides) and good
        return good


def _some(call: Call, start: int, stop: int) -> Call:
    lists = {
        name: each[start:stop]
        for name in ("ids", "received", "decoded", "rows", "codes", "arms", "clients")
        if (each := getattr(call, name)) is not None
    }
    return msgspec.structs.replace(call, **lists, texts=[], shapes=[])


def _rows(call: Call, rows: int, first: int) -> Call:
    whole = call.whole or call.rows[0]
    return msgspec.structs.replace(call, rows=[rows], whole=whole, first=call.first + first, texts=[], shapes=[])


def _writable(value: Any) -> Any:
    if isinstance(value, list):
        return [_writable(each) for each in value]
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def read_head(head: bytes | memoryview) -> Call:
    """The head of a call's frame."""
    return _read_call(head)


def read_call(head: bytes | memoryview, rest: memoryview, lane: Lane) -> tuple[Call, Columns | None, Columns | None]:
    """A call from its frame, with its inputs and outputs; None for those that it lacks. They view ``rest``'s memory."""
    call = _read_call(head)
    rows, at = sum(call.rows), 0
    texts, taken, shapes = iter(call.texts), iter(call.shapes), iter(call.shapes)
    sides: list[Columns | None] = [None, None]
    layouts = (lane.signature.input_layout, lane.signature.output_layout)
    for side, (is_there, layout) in enumerate(zip((call.has_inputs, call.has_outputs), layouts, strict=True)):
        if is_there:
            form = Form.of(layout)
            blocks = form.empty
            at = form.take(rest, at, rows, texts, taken, blocks)
            sides[side] = form.columns(blocks, rows, shapes)
    return call, sides[0], sides[1]


def read_refusal(head: bytes | memoryview) -> Refusal:
    """A refusal from its frame."""
    return _read_refusal(head)


def write_unserved(ring: RingWriter, unserved: Unserved) -> bool:
    """Write such a frame. False where it found no room."""
    return ring.put(UNSERVED, _encode(unserved), [], 0, 0)


def read_unserved(head: bytes | memoryview) -> Unserved:
    """What such a frame tells."""
    return _read_unserved(head)


def lanes_path(ring: Path) -> Path:
    """The file beside a ring that describes its lanes."""
    return ring.with_suffix(".lanes")


def write_lane(ring: Path, lane: Lane) -> None:
    """Describe one more lane; before its first frame."""
    with lanes_path(ring).open("ab") as file:
        file.write(msgspec.json.encode(lane) + b"\n")


def read_lanes(ring: Path) -> dict[int, Lane]:
    """The lanes of a ring by their numbers; a line that is being written comes later."""
    try:
        whole, _, _ = lanes_path(ring).read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return {}
    found = [msgspec.json.decode(line, type=Lane) for line in whole.splitlines()]
    return {lane.number: lane for lane in found}
