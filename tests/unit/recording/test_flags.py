"""Flags: what no reference row had, by row and column."""

from __future__ import annotations

import numpy as np

from modelyard.profile import Profile
from modelyard.recording.flags import Flags, joined
from modelyard.schema import Columns, Field, Signature
from recordings import SIGNATURE, reference, some_rows


def told(flags: Flags, inputs: Columns | None, outputs: Columns | None) -> list[list[str]]:
    found = flags.find(inputs, outputs)
    rows = max(columns.rows for columns in (inputs, outputs) if columns is not None)
    assert found.rows.tolist() == sorted(found.rows.tolist())
    assert found.mask(rows).tolist() == [row in found.rows for row in range(rows)]
    return [
        [flags.names[code] for at, code in zip(found.rows, found.codes, strict=True) if at == row]
        for row in range(rows)
    ]


def test_values_that_no_reference_row_had_are_flagged() -> None:
    flags = Flags(SIGNATURE, reference())
    inputs = SIGNATURE.input_layout.from_arrays(
        {
            "age": [50, 17, 200, 50],
            "income": [3000.0, np.nan, np.inf, -np.inf],
            "city": ["Bonn", None, "Bonn", "Düren"],
            "visits": np.zeros((4, 3), dtype="float32"),
        }
    )
    assert told(flags, inputs, None) == [
        [],  # missing values there were before
        ["age:below"],
        ["age:above", "income:above"],
        ["income:below", "city:unseen"],
    ]


def test_values_are_missed_where_none_ever_was() -> None:
    fields = (Field(name="x", dtype="float64", nullable=True), Field(name="c", dtype="string", nullable=True))
    signature = Signature(inputs=fields)
    frozen = Profile.of({"x": np.arange(3.0), "c": np.array(["a", "b", "c"], dtype=object)}, fields)
    inputs = signature.input_layout.from_arrays({"x": [np.nan, 1.0, 2.0], "c": [None, "z", "a"]})
    assert told(Flags(signature, frozen), inputs, None) == [["x:missing", "c:missing"], ["c:unseen"], []]


def test_outputs_that_are_no_numbers_are_invalid() -> None:
    signature = Signature(
        inputs=(Field(name="x", dtype="float64"),),
        outputs=(
            Field(name="score", dtype="float64"),
            Field(name="maybe", dtype="float32", nullable=True),
            Field(name="p", dtype="float64", shape=(2,)),
            Field(name="label", dtype="string", nullable=True),
        ),
    )
    outputs = signature.output_layout.from_arrays(
        {
            "score": np.array([1.0, 2.0, 3.0, 4.0]),
            "maybe": np.array([np.nan, 1.0, np.inf, 1.0], dtype="float32"),
            "p": np.zeros((4, 2)),
            "label": ["a", None, "b", "c"],
        }
    )
    outputs["p"][3, 1] = np.nan
    outputs["score"][3] = np.inf
    flags = Flags(signature, None)
    assert told(flags, None, outputs) == [[], [], ["maybe:invalid"], ["score:invalid", "p:invalid"]]
    assert flags.invalid(flags.find(None, outputs)).tolist() == [2, 3]


def test_ordinary_rows_have_no_flags() -> None:
    rows = some_rows(2000, seed=1)
    found = Flags(SIGNATURE, reference()).find(rows.inputs, rows.outputs)
    assert len(found.rows) == len(found.codes) == 0


def test_without_a_reference_nothing_is_odd() -> None:
    flags = Flags(SIGNATURE, None)
    rows = some_rows(3)
    rows.inputs["age"][:] = 10_000
    assert told(flags, rows.inputs, rows.outputs) == [[], [], []]


def test_flags_of_rows_one_after_the_other() -> None:
    flags = Flags(SIGNATURE, reference())
    rows = some_rows(6)
    rows.inputs["age"][[1, 2, 5]] = 1000
    parts = [(0, 2), (2, 2), (2, 6)]
    found = [
        (flags.find(rows.inputs.slice(start, stop), rows.outputs.slice(start, stop)), stop - start)
        for start, stop in parts
    ]
    assert joined(found).rows.tolist() == [1, 2, 5]
