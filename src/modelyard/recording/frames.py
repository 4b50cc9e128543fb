"""What a server writes into a ring, and how it is read: a frame for each call of a model, and for each refusal.

A call's frame holds what came and went as it lay in memory, so that writing it costs a copy. What describes a version
once (a ``Lane``) stands in a file beside the ring, a line each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.recording.ring import RingWriter
from modelyard.schema import Array, Columns, Signature

#: Kinds of frames.
CALL, REFUSED = 1, 2

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


class Call(msgspec.Struct, array_like=True, gc=False):
    """The head of a call's frame. What is a list has one entry a request."""

    lane: int
    #: Seconds since 1970 when the call was done, and the same moment on the steady clock of all other times.
    wall: float
    done: float
    started: float
    predicted: float
    ids: list[str]
    received: list[float]
    decoded: list[float]
    rows: list[int]
    #: The row of the first request at which this frame begins: large calls take several frames.
    first: int
    #: Code words; None where all are ``ok``.
    codes: list[str] | None
    #: The arm that each took, as ``alias/revision/arm``, "" where no route parted them; None where no route leads here.
    arms: list[str] | None
    #: What sticks to an arm, where the route says what does.
    clients: list[str] | None
    #: How many blocks of inputs and of outputs follow.
    inputs: int
    outputs: int
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
    id: str
    code: str
    #: What the caller was told.
    reason: str
    arm: str
    client: str
    #: The first bytes of what was sent; empty where it may not be kept.
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_read_call = msgspec.msgpack.Decoder(Call).decode
_read_refusal = msgspec.msgpack.Decoder(Refusal).decode


def write_call(ring: RingWriter, call: Call, inputs: Columns | None, outputs: Columns | None) -> bool:
    """Write a call's frame, parted where it is too large for one. False where some of it found no room."""
    blocks: list[Any] = []
    size = 0
    for columns in (inputs, outputs):
        if columns is None:
            continue
        for block, frozen in zip(columns.blocks, columns.layout.blocks, strict=True):
            if block.dtype.hasobject:
                call.texts.append(block.tolist())
                continue
            if min(frozen.shape, default=0) < 0:
                call.shapes.append(list(block.shape[1:]))
            size += block.nbytes
            if block.nbytes:
                blocks.append(memoryview(block if block.flags.c_contiguous else np.ascontiguousarray(block)).cast("B"))
    head = _encode(call)
    if size + len(head) > ring.room:
        return _write_parts(ring, call, inputs, outputs)
    return ring.put(CALL, head, blocks, size, sum(call.rows))


def _write_parts(ring: RingWriter, call: Call, inputs: Columns | None, outputs: Columns | None) -> bool:
    """Two halves of a call: of its requests, or of its rows where it has only one."""
    call.texts.clear()
    call.shapes.clear()
    count, rows = len(call.ids), sum(call.rows)
    if rows < 2:  # a single row larger than the ring takes
        return ring.put(CALL, _encode(_without(call)), [], 0, rows)
    if count > 1:
        middle = count // 2
        cut = sum(call.rows[:middle])
        halves = [_part(call, 0, middle), _part(call, middle, count)]
    else:
        cut = rows // 2
        halves = [
            msgspec.structs.replace(call, rows=[n], first=call.first + at, texts=[], shapes=[])
            for n, at in ((cut, 0), (rows - cut, cut))
        ]
    good = True
    for half, (start, stop) in zip(halves, ((0, cut), (cut, rows)), strict=True):
        parts = [each.slice(start, stop) if each is not None else None for each in (inputs, outputs)]
        good = write_call(ring, half, parts[0], parts[1]) and good
    return good


def _part(call: Call, start: int, stop: int) -> Call:
    lists = {
        name: each[start:stop]
        for name in ("ids", "received", "decoded", "rows", "codes", "arms", "clients")
        if (each := getattr(call, name)) is not None
    }
    return msgspec.structs.replace(call, **lists, texts=[], shapes=[])


def _without(call: Call) -> Call:
    return msgspec.structs.replace(call, inputs=0, outputs=0, texts=[], shapes=[])


def write_refusal(ring: RingWriter, refusal: Refusal) -> bool:
    """Write a refusal's frame. False where it found no room."""
    return ring.put(REFUSED, _encode(refusal), [], 0, 0)


def read_call(head: bytes, rest: memoryview, lane: Lane) -> tuple[Call, Columns | None, Columns | None]:
    """A call from its frame, with its inputs and outputs; None for those that it lacks. They view ``rest``'s memory."""
    call = _read_call(head)
    texts, shapes = iter(call.texts), iter(call.shapes)
    rows, at = sum(call.rows), 0
    sides: list[Columns | None] = []
    for count, layout in ((call.inputs, lane.signature.input_layout), (call.outputs, lane.signature.output_layout)):
        if not count:
            sides.append(None)
            continue
        blocks: list[Array] = []
        for block in layout.blocks:
            shape = (len(block.names),) if block.is_scalar else block.shape
            if block.storage == "object":
                blocks.append(_texts(next(texts), (rows, *shape)))
                continue
            if min(shape) < 0:
                shape = tuple(next(shapes))
            size = int(np.prod(shape, dtype=np.int64)) * rows
            array = np.frombuffer(rest, block.storage, size, at).reshape(rows, *shape)
            at += array.nbytes
            blocks.append(array)
        sides.append(Columns(layout, blocks, rows))
    return call, sides[0], sides[1]


def read_refusal(head: bytes) -> Refusal:
    """A refusal from its frame."""
    return _read_refusal(head)


def _texts(values: list[Any], shape: Sequence[int]) -> Array:
    array = np.empty(shape, dtype=object)
    if array.size:
        array[...] = values
    return array


def lanes_path(ring: Path) -> Path:
    """The file beside a ring that describes its lanes."""
    return ring.with_suffix(".lanes")


def write_lane(ring: Path, lane: Lane) -> None:
    """Describe one more lane; before its first frame."""
    with lanes_path(ring).open("ab") as file:
        file.write(msgspec.json.encode(lane) + b"\n")


def read_lanes(ring: Path) -> dict[int, Lane]:
    """The lanes of a ring by their numbers."""
    try:
        lines = lanes_path(ring).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    found = [msgspec.json.decode(line, type=Lane) for line in lines]
    return {lane.number: lane for lane in found}
