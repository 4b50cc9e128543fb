"""Columns as bytes, between two processes of one machine. Nothing that is read here runs code.

A frame is a head of two numbers (bytes of the frame, bytes of its note), a note in MessagePack and the bytes of the
blocks, each part at a multiple of 16, so that arrays are views of what was received. Blocks of texts are MessagePack
too, with nil for a missing one.
"""

from __future__ import annotations

import math
import struct
import traceback
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput, ModelFailed, ModelyardError, Problem
from modelyard.schema import Array, Columns, Layout

HEAD = struct.Struct("<QQ")

#: A longer frame is refused unread.
LONGEST = 2**36

#: What one receive asks for: most frames come whole.
AT_ONCE = 1 << 18

_ALIGNED = 16
_TEXTS = "texts"
#: The dtypes that blocks may have, besides texts.
_DTYPES = {name: np.dtype(name) for name in ("?", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8")} | {
    name: np.dtype(name) for name in ("<f2", "<f4", "<f8")
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

#: A frame up to this many bytes is one piece; and the system takes only so many pieces at once.
_JOINED = 1 << 14
_PIECES = 256

#: The longest trace that travels.
_LONGEST_TRACE = 20_000


class Failure(msgspec.Struct, array_like=True):
    """An error that travels: its code word and texts."""

    code: str
    message: str
    hint: str = ""
    problems: list[Problem] = []
    trace: str = ""


class Note(msgspec.Struct, array_like=True):
    """What a frame says of itself. A call carries blocks and ``seconds``; an answer blocks or a ``failure``."""

    rows: int
    #: dtype, shape and bytes of each block.
    blocks: list[tuple[str, list[int], int]]
    seconds: float = 0.0
    failure: Failure | None = None


class Broken(Exception):
    """The bytes are no frame."""


class ProcessEnded(ModelFailed):
    """The model's process ended under a call, or had to be ended, and the call is not made again."""


class RemoteTrace(Exception):
    """The trace of an error in another process, as text."""


_encode = msgspec.msgpack.Encoder().encode
_decode_note = msgspec.msgpack.Decoder(Note).decode
_decode_texts = msgspec.msgpack.Decoder(list[Any]).decode


def pack(columns: Columns, seconds: float = 0.0) -> list[Any]:
    """The frame of ``columns`` as pieces to be sent one after another."""
    blocks: list[tuple[str, list[int], int]] = []
    pieces: list[Any] = []
    for block in columns.blocks:
        name = _NAMES.get(block.dtype, _TEXTS)
        data: Any = b""
        if name == _TEXTS:
            data = _texts(block)
        elif block.size:
            data = np.ascontiguousarray(block).data.cast("B")
        size = len(data)
        blocks.append((name, list(block.shape), size))
        pieces.append(data)
        if size % _ALIGNED:
            pieces.append(bytes(-size % _ALIGNED))
    return _frame(Note(columns.rows, blocks, seconds), pieces)


def _texts(block: Array) -> bytes:
    if block.dtype != object:
        raise TypeError(f"a block of {block.dtype}, which no field is stored in")
    return _encode(block.ravel().tolist())


def pack_failure(error: BaseException) -> list[Any]:
    """The frame that tells of ``error``."""
    return _frame(Note(0, [], failure=failure_of(error)), [])


def _frame(note: Note, pieces: list[Any]) -> list[Any]:
    said = _encode(note)
    padded = len(said) + -len(said) % _ALIGNED
    size = HEAD.size + padded + sum([len(piece) for piece in pieces])
    pieces.insert(0, HEAD.pack(size, len(said)) + said.ljust(padded, b"\0"))
    return pieces if size > _JOINED and len(pieces) <= _PIECES else [b"".join(pieces)]


def size_of(data: Any) -> int:
    """The bytes of the frame that begins with ``data``; 0 while its head is not there. Raises Broken."""
    if len(data) < HEAD.size:
        return 0
    size, said = HEAD.unpack_from(data)
    if not HEAD.size + said <= size <= LONGEST:
        raise Broken(f"a frame of {size} bytes with a note of {said}")
    return int(size)


def unpack(frame: Any, layout: Layout) -> tuple[Note, Columns | None]:
    """What a whole frame holds: its note, and columns in ``layout``, which are views of it. Raises Broken."""
    said = HEAD.unpack_from(frame)[1]
    view = memoryview(frame)
    try:
        note = _decode_note(view[HEAD.size : HEAD.size + said])
        if note.failure is not None:
            return note, None
        start = HEAD.size + said + -said % _ALIGNED
        arrays = []
        for name, shape, size in note.blocks:
            data = view[start : start + size]
            if len(data) != size:
                raise ValueError(f"{len(data)} bytes for a block of {size}")
            arrays.append(_array(data, name, shape))
            start += size + -size % _ALIGNED
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Broken(f"{type(error).__name__}: {error}") from error
    _check(arrays, layout, note.rows)
    return note, Columns(layout, arrays, note.rows)


def _array(data: memoryview, name: str, shape: list[int]) -> Array:
    if min(shape, default=0) < 0:
        raise ValueError(f"a negative size: {shape}")
    if name != _TEXTS:
        return np.frombuffer(data, _DTYPES[name]).reshape(shape)
    values = _decode_texts(data)
    if len(values) != math.prod(shape):
        raise ValueError(f"{len(values)} texts for {shape}")
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _check(arrays: list[Array], layout: Layout, rows: int) -> None:
    """Whether the blocks are those of ``layout``. Whether their values are right is for others to judge."""
    shapes = _shapes(layout)
    if len(arrays) != len(shapes):
        raise Broken(f"{len(arrays)} blocks instead of {len(shapes)}")
    for array, shape in zip(arrays, shapes, strict=True):
        wanted, got = (rows, *shape), array.shape
        if got != wanted and (
            len(got) != len(wanted) or any(w not in (-1, g) for w, g in zip(wanted, got, strict=True))
        ):
            raise Broken(f"a block of shape {list(got)} instead of {list(wanted)}")


@lru_cache(maxsize=1024)
def _shapes(layout: Layout) -> tuple[tuple[int, ...], ...]:
    """The shapes that rows have in the blocks of a layout; -1 where they may vary."""
    return tuple((len(block.names),) if block.is_scalar else block.shape for block in layout.blocks)


def result_of(frame: Any, layout: Layout) -> Columns | ModelyardError:
    """What an answer holds: the outputs, or the error that it tells of. Raises Broken."""
    note, columns = unpack(frame, layout)
    if columns is not None:
        return columns
    assert note.failure is not None
    return error_of(note.failure)


def failure_of(error: BaseException) -> Failure:
    """``error`` as texts. One that nobody foresaw becomes the model's failure, with its trace."""
    if isinstance(error, ModelyardError) and error.__cause__ is None:
        problems = list(getattr(error, "problems", ()))
        return Failure(error.code, error.message, error.hint, problems)
    trace = "".join(traceback.format_exception(error))[-_LONGEST_TRACE:].encode("utf-8", "replace").decode()
    if isinstance(error, ModelyardError):
        return Failure(error.code, error.message, error.hint, list(getattr(error, "problems", ())), trace)
    text = f"the model failed: {type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return Failure(ModelFailed.code, text, trace=trace)


def error_of(failure: Failure) -> ModelyardError:
    """The error that ``failure`` tells of, of the class with its code."""
    kind = _classes().get(failure.code, ModelFailed)
    if issubclass(kind, InvalidInput):
        error: ModelyardError = kind(failure.message, hint=failure.hint, problems=failure.problems)
    else:
        error = kind(failure.message, hint=failure.hint)
    if failure.trace:
        error.__cause__ = RemoteTrace("\n" + failure.trace)
    return error


def _classes() -> dict[str, type[ModelyardError]]:
    found: dict[str, type[ModelyardError]] = {}
    waiting: list[type[ModelyardError]] = [ModelyardError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.code, kind)
        waiting += kind.__subclasses__()
    return found
