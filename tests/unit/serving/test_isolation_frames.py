"""Columns as frames, and what is said of bytes that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import DeadlinePassed, InvalidInput, ModelFailed, ModelyardError, NotReady, Problem
from modelyard.schema import DTYPES, Columns, Field, Layout
from modelyard.serving.isolation.frames import (
    HEAD,
    Broken,
    RemoteTrace,
    pack,
    pack_failure,
    result_of,
    size_of,
    unpack,
)

MIXED = Layout.of(
    (
        Field(name="a", dtype="float64"),
        Field(name="word", dtype="string", nullable=True),
        Field(name="vector", dtype="float32", shape=(3,)),
        Field(name="b", dtype="float64"),
        Field(name="flag", dtype="bool"),
        Field(name="words", dtype="string", shape=(2,)),
        Field(name="open", dtype="int64", shape=(-1,)),
    )
)


def mixed(rows: int) -> Columns:
    made = np.random.default_rng(rows)
    words = np.array([[None if i % 3 == 1 else f"wörd {i}"] for i in range(rows)] or np.empty((0, 1)), dtype=object)
    pairs = np.array([["", str(i)] for i in range(rows)] or np.empty((0, 2)), dtype=object)
    arrays = {
        ("a", "b"): made.normal(size=(rows, 2)),
        ("word",): words,
        ("vector",): made.normal(size=(rows, 3)).astype("float32"),
        ("flag",): made.random((rows, 1)) > 0.5,
        ("words",): pairs,
        ("open",): np.arange(rows * 5).reshape(rows, 5),
    }
    return Columns(MIXED, [arrays[block.names] for block in MIXED.blocks], rows)


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 5000])
def test_columns_come_back_as_they_were(rows: int) -> None:
    columns = mixed(rows)
    frame = b"".join(pack(columns, 2.5))
    assert size_of(frame) == len(frame)
    note, back = unpack(frame, MIXED)
    assert back is not None
    assert (note.seconds, note.rows, back.rows) == (2.5, rows, rows)
    for block, other in zip(columns.blocks, back.blocks, strict=True):
        assert block.dtype == other.dtype
        assert np.array_equal(block, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_storage_travels(dtype: str) -> None:
    field = Field(name="x", dtype=dtype)
    layout = Layout.of((field,))
    array = np.array([["text"]], dtype=object) if field.storage == "object" else np.ones((1, 1), dtype=field.storage)
    _, back = unpack(b"".join(pack(Columns(layout, [array], 1))), layout)
    assert back is not None
    assert back.blocks[0].dtype == array.dtype
    assert back["x"].tolist() == array[:, 0].tolist()


def test_a_slice_of_columns_travels() -> None:
    columns = mixed(10).slice(3, 8)
    _, back = unpack(b"".join(pack(columns)), MIXED)
    assert back is not None
    assert back["vector"].tolist() == columns["vector"].tolist()


def raised() -> Exception:
    try:
        raise ValueError("not to my taste")
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "kind", "message", "has_trace"),
    [
        (raised(), ModelFailed, "the model failed: ValueError: not to my taste", True),
        (SystemExit(4), ModelFailed, "the model failed: SystemExit: 4", True),
        (NotReady("not yet", hint="wait"), NotReady, "not yet", False),
        (DeadlinePassed("too late"), DeadlinePassed, "too late", False),
        (InvalidInput.at("[0].x", "a number", "a text", hint="send one"), InvalidInput, "[0].x: expected", False),
        (ValueError("\ud800"), ModelFailed, "the model failed: ValueError: ?", True),
    ],
    ids=["raised", "exit", "not ready", "deadline", "input", "no text"],
)
def test_errors_travel_by_their_code(
    error: BaseException, kind: type[ModelyardError], message: str, has_trace: bool
) -> None:
    told = result_of(b"".join(pack_failure(error)), MIXED)
    assert type(told) is kind
    assert isinstance(told, ModelyardError)
    assert told.message.startswith(message)
    assert told.hint == getattr(error, "hint", "")
    assert isinstance(told.__cause__, RemoteTrace) is has_trace
    if isinstance(told, InvalidInput):
        assert told.problems == (Problem("[0].x", "a number", "a text"),)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_broken(data: bytes) -> None:
    frame = HEAD.pack(HEAD.size + len(data), min(len(data), data[0] if data else 0)) + data
    with pytest.raises(Broken):
        unpack(frame, MIXED)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_never_makes_columns_of_another_shape(place: int, change: int) -> None:
    frame = bytearray(b"".join(pack(mixed(3))))
    frame[HEAD.size + place % (len(frame) - HEAD.size)] ^= change
    try:
        note, back = unpack(frame, MIXED)
    except Broken:
        return
    assert back is None or all(len(block) == note.rows for block in back.blocks)


@pytest.mark.parametrize("change", ["rows", "dtype", "size", "shape", "blocks", "note", "length"])
def test_a_frame_that_lies_is_broken(change: str) -> None:
    import msgspec

    rows = 2
    blocks: list[Any] = [["<f8", [2, 1], 16]]
    layout = Layout.of((Field(name="x", dtype="float64"),))
    if change == "rows":
        rows = 3
    elif change == "dtype":
        blocks[0][0] = "|O"
    elif change == "size":
        blocks[0][2] = 24
    elif change == "shape":
        blocks[0][1] = [-2, -1]
    elif change == "blocks":
        blocks *= 2
    said = msgspec.msgpack.encode([rows, blocks] if change != "note" else {"rows": 2})
    body = said.ljust(len(said) + -len(said) % 16, b"\0") + bytes(16)
    frame = HEAD.pack(16 + len(body), len(said) if change != "length" else 2**40) + body
    with pytest.raises(Broken):
        size_of(frame)
        unpack(frame, layout)


def test_a_block_that_no_field_is_stored_in_cannot_be_packed() -> None:
    layout = Layout.of((Field(name="x", dtype="float64"),))
    with pytest.raises(TypeError, match="complex128"):
        pack(Columns(layout, [np.ones((1, 1), dtype=complex)], 1))
