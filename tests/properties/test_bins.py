"""Compiled bins count what ``Profile.add`` counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.profile import COUNTERS, Profile
from modelyard.recording import bins as room
from modelyard.recording.bins import Bins
from modelyard.registry.windows import Part, parts_of
from modelyard.schema import Columns, Field, Layout

FIELDS = (
    Field(name="x", dtype="float64", nullable=True),
    Field(name="f", dtype="float32"),
    Field(name="n", dtype="int64"),
    Field(name="u", dtype="uint8"),
    Field(name="b", dtype="bool", nullable=True),
    Field(name="c", dtype="string", nullable=True),
    Field(name="d", dtype="string"),
    Field(name="t", dtype="datetime", nullable=True),
    Field(name="v", dtype="float64", shape=(3,)),
    Field(name="m", dtype="float16", shape=(2, 2)),
    Field(name="i", dtype="float64", shape=(6, 6)),
    Field(name="w", dtype="int32", shape=(-1,)),
    Field(name="s", dtype="string", shape=(2,)),
)
LAYOUT = Layout.of(FIELDS)

floats = st.one_of(
    st.integers(-3, 3).map(float), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 5e-324])
)
texts = st.one_of(st.none(), st.sampled_from("abcdefgh"), st.text(max_size=3))


whole_numbers = st.one_of(st.integers(-4, 4), st.integers(-(2**63), 2**63 - 1))


class Pool(NamedTuple):
    """Values of which rows are made."""

    floats: list[float]
    wholes: list[int]
    texts: list[str | None]
    seed: int


pools = st.builds(
    Pool,
    st.lists(floats, min_size=1, max_size=12),
    st.lists(whole_numbers, min_size=1, max_size=8),
    st.lists(texts, min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)


def rows_of(pool: Pool, rows: int) -> Columns:
    random = np.random.default_rng(pool.seed)
    blocks = []
    for block in LAYOUT.blocks:
        shape = (
            (len(block.names),)
            if block.is_scalar
            else tuple(int(random.integers(0, 4)) if s < 0 else s for s in block.shape)
        )
        whole = (rows, *shape)
        kind = "texts" if block.storage == "object" else "floats" if block.storage.startswith("float") else "wholes"
        values = np.array([*getattr(pool, kind), None], dtype=object)[:-1]
        drawn = values[random.integers(0, len(values), whole)]
        if kind == "wholes":
            low, high = (
                (0, 2) if block.storage == "bool" else (np.iinfo(block.storage).min, np.iinfo(block.storage).max)
            )
            drawn = np.array([min(max(int(v), int(low)), int(high)) for v in drawn.ravel()], dtype=object).reshape(
                whole
            )
        with np.errstate(over="ignore"):
            blocks.append(drawn if kind == "texts" else drawn.astype(block.storage))
    return Columns(LAYOUT, blocks, rows)


some_columns = st.builds(rows_of, pools, st.integers(0, 12))


def counted(reference: Profile, many: list[Columns]) -> tuple[list[Part], dict[tuple[str, str], int]]:
    bins = Bins(reference.inputs, LAYOUT)
    vector, unseen = bins.vector(), dict[tuple[str, str], int]()

    def tell(field: str, text: str, times: int) -> None:
        unseen[field, text] = unseen.get((field, text), 0) + times

    for columns in many:
        bins.count(columns, vector, tell, lambda *told: None)
    return bins.told(vector), unseen


@settings(max_examples=120, deadline=None)
@given(reference=st.builds(rows_of, pools, st.integers(0, 60)), live=st.lists(some_columns, max_size=3))
def test_the_same_counts_as_the_profile(reference: Columns, live: list[Columns]) -> None:
    frozen = Profile.of(reference, FIELDS)
    expected = frozen.empty()
    for columns in live:
        expected.add(columns)
    parts, unseen = counted(frozen, live)
    assert parts == parts_of(expected.inputs)
    for part in expected.inputs:
        assert sum(times for (field, _), times in unseen.items() if field == part.field) == (
            part.unseen if part.kind == "category" else 0
        )


def test_many_rows_are_counted_a_stretch_at_a_time(monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "_ROWS", 7)
    random = np.random.default_rng(0)
    fields = (Field(name="x", dtype="float64"), Field(name="y", dtype="float64"))
    layout = Layout.of(fields)
    frozen = Profile.of({"x": random.normal(size=500), "y": np.zeros(500)}, fields)
    live = layout.from_arrays({"x": random.normal(size=100), "y": random.normal(size=100)})
    expected = frozen.empty()
    expected.add(live)
    bins = Bins(frozen.inputs, layout)
    vector = bins.vector()
    bins.count(live, vector, lambda *told: None, lambda *told: None)
    assert bins.told(vector) == parts_of(expected.inputs)


def test_wrong_values_are_counted_for_each_part_of_their_field() -> None:
    fields = (Field(name="x", dtype="float64"), Field(name="v", dtype="float64", shape=(2,)))
    frozen = Profile.of({"x": np.arange(9.0), "v": np.ones((9, 2))}, fields)
    bins = Bins(frozen.inputs, Layout.of(fields))
    vector = bins.vector()
    bins.count_wrong("v", vector)
    bins.count_wrong("unknown", vector)
    wrong = [part.counters[COUNTERS.index("wrong")] for part in bins.told(vector)]
    assert wrong == [0, 1, 1]
    assert vector.sum() == 2
