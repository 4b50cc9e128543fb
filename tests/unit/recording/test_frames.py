"""Frames: every kind of column goes in and comes out, and what no signature allows corrupts nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.profile import Profile
from modelyard.recording import frames
from modelyard.recording.frames import Call, Lane, LaneWriter, Refusal
from modelyard.recording.ring import RingReader, RingWriter
from modelyard.schema import DTYPES, Columns, Field, Layout, Signature
from recordings import SIGNATURE, plain, some_rows


def call_of(rows: list[int], **changes: Any) -> Call:
    count = len(rows)
    given: dict[str, Any] = {
        "lane": 0, "wall": 1.5, "done": 5.0, "started": 3.0, "predicted": 4.0, "batch": sum(rows), "whole": 0,
        "first": 0, "lost": 0, "ids": [f"id-{n}" for n in range(count)], "received": [1.0] * count,
        "decoded": [2.0] * count, "rows": rows, "codes": None, "arms": None, "clients": None,
        "has_inputs": True, "has_outputs": True, "texts": [], "shapes": [],
    }  # fmt: skip
    return Call(**(given | changes))


class Pipe:
    """A ring with both ends."""

    def __init__(self, folder: Path, signature: Signature = SIGNATURE, size: int = 1 << 20) -> None:
        self.ring = RingWriter(folder / "1-a.ring", size)
        self.reader = RingReader(folder / "1-a.ring")
        self.writer = LaneWriter(self.ring, signature)
        self.lane = Lane(number=0, model="churn", version="1", digest="d", signature=signature)

    def read(self) -> list[tuple[Call, Columns | None, Columns | None]]:
        found = [frames.read_call(head, rest, self.lane) for _, head, rest, _ in self.reader.frames()]
        self.reader.release(self.reader.position, self.reader.rows)
        return found

    def pass_on(
        self, call: Call, inputs: Columns | None, outputs: Columns | None
    ) -> tuple[Call, Columns | None, Columns | None]:
        call.has_inputs, call.has_outputs = inputs is not None, outputs is not None
        assert self.writer.write(call, inputs, outputs)
        (found,) = self.read()
        return found


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return Pipe(tmp_path)


def same(a: Columns | None, b: Columns | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.rows == b.rows and all(
        x.dtype == y.dtype and x.shape == y.shape and plain(x) == plain(y)
        for x, y in zip(a.blocks, b.blocks, strict=True)
    )


# -- any signature, any values -----------------------------------------------------------------------------------

sizes = st.lists(st.sampled_from([-1, 0, 1, 2, 3]), max_size=3).map(tuple)


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    sides = []
    for side in "io":
        count = draw(st.integers(1, 4))
        fields = []
        for number in range(count):
            dtype = draw(st.sampled_from(DTYPES))
            shape = draw(st.one_of(st.just(()), sizes))
            fields.append(Field(name=f"{side}{number}", dtype=dtype, shape=shape, nullable=draw(st.booleans())))
        sides.append(tuple(fields))
    return Signature(inputs=sides[0], outputs=sides[1])


def any_columns(draw: Callable[[Any], Any], layout: Layout, rows: int) -> Columns:
    blocks = []
    for block in layout.blocks:
        shape = (
            (len(block.names),)
            if block.is_scalar
            else tuple(draw(st.integers(0, 3)) if s < 0 else s for s in block.shape)
        )
        whole = (rows, *shape)
        if block.storage == "object":
            texts = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
            array = np.empty(whole, dtype=object)
            for place in np.ndindex(*whole):
                array[place] = draw(texts)
        else:
            size = int(np.prod(whole)) * np.dtype(block.storage).itemsize
            raw = draw(st.binary(min_size=size, max_size=size))
            if block.storage == "bool":
                raw = bytes(each & 1 for each in raw)
            array = np.frombuffer(raw, dtype=block.storage).reshape(whole)
        blocks.append(array)
    return Columns(layout, blocks, rows)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), signature=signatures(), rows=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_columns_of_every_dtype_and_shape_come_out_as_they_went_in(
    data: st.DataObject, signature: Signature, rows: list[int]
) -> None:
    inputs = any_columns(data.draw, signature.input_layout, sum(rows))
    outputs = any_columns(data.draw, signature.output_layout, sum(rows))
    with tempfile.TemporaryDirectory() as folder:
        pipe = Pipe(Path(folder), signature)
        call, got_inputs, got_outputs = pipe.pass_on(call_of(rows), inputs, outputs)
        assert pipe.writer.unfit == 0
    assert call.rows == rows
    assert same(got_inputs, inputs) and same(got_outputs, outputs)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), signature=signatures(), rows=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    size=st.integers(64, 400).map(lambda n: n * 8),
)  # fmt: skip
def test_a_call_that_is_larger_than_a_frame_comes_in_parts(
    data: st.DataObject, signature: Signature, rows: list[int], size: int
) -> None:
    """With a reader that keeps up, every row comes through, in order, in frames that fit; or is counted as lost."""
    total = sum(rows)
    inputs = any_columns(data.draw, signature.input_layout, total)
    with tempfile.TemporaryDirectory() as folder:
        pipe = Pipe(Path(folder), signature, size)
        found: list[tuple[Call, Columns | None, Columns | None]] = []
        put = pipe.ring.put

        def put_and_read(*arguments: Any) -> bool:
            done = put(*arguments)
            for call, got_inputs, got_outputs in pipe.read():  # what lies in the ring is good until it is released
                found.append((call, got_inputs and got_inputs.take(np.arange(got_inputs.rows)), got_outputs))
            return done

        pipe.ring.put = put_and_read  # type: ignore[method-assign]
        is_written = pipe.writer.write(call_of(rows, has_outputs=False), inputs, None)
    assert is_written == (pipe.reader.lost[0] == 0)
    assert sum(sum(call.rows) for call, _, _ in found) + pipe.reader.lost[1] == total
    if not is_written:
        return
    starts = np.cumsum([0, *rows])
    seen: dict[str, int] = dict.fromkeys((f"id-{n}" for n in range(len(rows))), 0)
    for call, got, _ in found:
        at = 0
        for place, (id, count) in enumerate(zip(call.ids, call.rows, strict=True)):
            number = int(id.removeprefix("id-"))
            assert seen[id] == (call.first if place == 0 else 0)
            assert call.whole in (0, rows[number])
            if got is not None:  # a single row may be too large
                begin = int(starts[number]) + seen[id]
                assert same(got.slice(at, at + count), inputs.slice(begin, begin + count))
            seen[id] += count
            at += count
    assert list(seen.values()) == rows


# -- what is not as it should be ---------------------------------------------------------------------------------


def outputs_with(prediction: Any = None, probabilities: Any = None) -> Columns:
    sample = some_rows(3).outputs
    places = {name: sample.layout.places[name][0] for name in ("prediction", "probabilities")}
    blocks = list(sample.blocks)
    if prediction is not None:
        blocks[places["prediction"]] = prediction
    if probabilities is not None:
        blocks[places["probabilities"]] = probabilities
    return Columns(sample.layout, blocks, 3)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (outputs_with(probabilities=np.full((3, 2), 0.5, dtype="float32")), np.full((3, 2), 0.5)),
        (outputs_with(probabilities=np.full((3, 2), 0.5, dtype=">f8")), np.full((3, 2), 0.5)),
        (outputs_with(probabilities=np.full((2, 3), 0.5).T), np.full((3, 2), 0.5)),
        (outputs_with(probabilities=np.full((3, 2), 0.5, dtype=object)), np.full((3, 2), 0.5)),
        (outputs_with(probabilities=np.zeros((3, 2), dtype="int64")), np.zeros((3, 2))),
        (outputs_with(probabilities=np.full((6,), 0.5)), np.full((3, 2), 0.5)),
        (outputs_with(probabilities=np.full((6, 4), 0.5)[::2, ::2]), np.full((3, 2), 0.5)),
    ],
    ids=["float32", "big-endian", "fortran", "objects", "integers", "flat", "strided"],
)
def test_numbers_of_another_kind_become_those_of_the_signature(pipe: Pipe, outputs: Columns, expected: Any) -> None:
    _, inputs, found = pipe.pass_on(call_of([1, 2]), some_rows(3).inputs, outputs)
    assert same(inputs, some_rows(3).inputs)
    assert found is not None
    assert found["probabilities"].dtype == "float64"
    assert (found["probabilities"] == expected).all()


@pytest.mark.parametrize(
    "prediction",
    [
        np.array([["a"], ["b"], ["c"]]),
        np.array([[np.str_("a")], [np.str_("b")], [np.str_("c")]], dtype=object),
        np.array(["a", "b", "c"], dtype=object),
    ],
    ids=["unicode", "numpy texts", "flat"],
)
def test_texts_of_another_kind_become_texts(pipe: Pipe, prediction: Any) -> None:
    _, _, found = pipe.pass_on(call_of([3]), None, outputs_with(prediction=prediction))
    assert found is not None
    assert found["prediction"].tolist() == ["a", "b", "c"]


def test_half_characters_do_not_stop_a_frame(pipe: Pipe) -> None:
    outputs = outputs_with(prediction=np.array([["\ud800"], [None], ["c"]], dtype=object))
    call, _, found = pipe.pass_on(call_of([3], ids=["\udfff"]), None, outputs)
    assert found is not None
    assert found["prediction"].tolist() == ["\\ud800", None, "c"]
    assert call.ids == ["\\udfff"]


@pytest.mark.parametrize(
    "outputs",
    [
        outputs_with(probabilities=np.zeros((3, 3))),
        outputs_with(probabilities=np.zeros((2, 2))),
        outputs_with(probabilities=np.zeros((3, 2, 1, 2))),
        outputs_with(probabilities=np.array([["a", "b"]] * 3, dtype=object)),
        Columns(SIGNATURE.output_layout, [np.zeros((3, 2))], 3),
    ],
    ids=["another shape", "too few rows", "more axes", "texts", "too few blocks"],
)
def test_what_cannot_be_what_the_signature_says_is_left_out_and_told(pipe: Pipe, outputs: Columns) -> None:
    call, inputs, found = pipe.pass_on(call_of([1, 1, 1]), some_rows(3).inputs, outputs)
    assert same(inputs, some_rows(3).inputs)
    assert found is None and not call.has_outputs
    assert pipe.writer.unfit == 1


def test_sides_may_be_missing(pipe: Pipe) -> None:
    sample = some_rows(2)
    for inputs, outputs in ((None, None), (sample.inputs, None), (None, sample.outputs)):
        _, *found = pipe.pass_on(call_of([2]), inputs, outputs)
        assert same(found[0], inputs) and same(found[1], outputs)


def test_a_row_larger_than_the_ring_takes_is_noted_without_its_columns(tmp_path: Path) -> None:
    signature = Signature(inputs=(Field(name="image", dtype="float64", shape=(1000,)),))
    pipe = Pipe(tmp_path, signature, 8192)
    image = Columns(signature.input_layout, [np.zeros((1, 1000))], 1)
    call, inputs, _ = pipe.pass_on(call_of([1], has_outputs=False), image, None)
    assert call.ids == ["id-0"] and inputs is None


def test_what_was_lost_is_told_by_the_next_frame_of_the_lane(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path, size=4096)
    other = LaneWriter(pipe.ring, SIGNATURE)
    rows = some_rows(2)
    while pipe.writer.write(call_of([1, 1]), rows.inputs, rows.outputs):
        pass
    assert not pipe.writer.write(call_of([1, 1]), rows.inputs, rows.outputs)
    while other.write_refusal(refusal()):
        pass
    for _ in pipe.reader.frames():
        pass
    pipe.reader.release(pipe.reader.position, pipe.reader.rows)
    assert pipe.reader.lost == (3, 5)
    assert pipe.pass_on(call_of([1, 1]), rows.inputs, rows.outputs)[0].lost == 4
    assert pipe.pass_on(call_of([1, 1]), rows.inputs, rows.outputs)[0].lost == 0
    assert other.write_refusal(refusal())
    ((_, head, _, rows_lost),) = list(pipe.reader.frames())
    assert (frames.read_refusal(head).lost, rows_lost) == (1, 1)


def refusal(**changes: Any) -> Refusal:
    given: dict[str, Any] = {
        "lane": 0, "wall": 1.0, "done": 2.0, "received": 1.5, "lost": 0, "id": "id", "code": "invalid_input",
        "reason": "age: expected a number, got a text", "fields": ["age"], "arm": "", "client": "", "body": b"{}",
    }  # fmt: skip
    return Refusal(**(given | changes))


def test_a_refusal_comes_out_as_it_went_in(pipe: Pipe) -> None:
    assert pipe.writer.write_refusal(refusal())
    assert pipe.writer.write_refusal(refusal(reason="got \ud800", id="\ud800"))
    first, second = (frames.read_refusal(head) for _, head, _, _ in pipe.reader.frames())
    assert first == refusal()
    assert (second.reason, second.id) == ("got \\ud800", "\\ud800")


def test_lanes_are_read_as_far_as_they_are_written(tmp_path: Path) -> None:
    ring = tmp_path / "1-a.ring"
    assert frames.read_lanes(ring) == {}
    values = {"x": np.array([1.0, 2.0])}
    fields = (Field(name="x", dtype="float64"),)
    lanes = [
        Lane(
            number=n,
            model="churn",
            version=str(n),
            digest="d",
            signature=SIGNATURE,
            reference=Profile.of(values, fields),
        )
        for n in range(2)
    ]
    for lane in lanes:
        frames.write_lane(ring, lane)
    with frames.lanes_path(ring).open("ab") as file:
        file.write(b'{"number":2,"mod')
    assert frames.read_lanes(ring) == {0: lanes[0], 1: lanes[1]}


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with np.errstate(all="raise"):
        yield
