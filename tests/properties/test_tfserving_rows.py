"""Rows in TensorFlow Serving's JSON: every form of the same rows means the same, read fast or exactly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelyard.messages import Call
from modelyard.schema import Columns, Field, Signature
from modelyard.testing.wires import KitServed
from modelyard.wires.tfserving import TensorFlowServingWire

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
}
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4).filter(lambda name: name != "b64")


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[Field, ...], list[dict[str, Any]]]:
    fields = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(sorted(VALUES)))
        shape = draw(st.sampled_from([(), (), (2,), (1, 2)]))
        nullable = not shape and dtype != "uint64" and draw(st.booleans())
        fields.append(Field(name=name, dtype=dtype, shape=shape, nullable=nullable))
    rows = draw(st.integers(1, 3))
    return tuple(fields), [{field.name: draw(_values(field, field.shape)) for field in fields} for _ in range(rows)]


def _values(field: Field, shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    if shape:
        return st.lists(_values(field, shape[1:]), min_size=shape[0], max_size=shape[0])
    return VALUES[field.dtype] | st.none() if field.nullable else VALUES[field.dtype]


def wrapped(fields: tuple[Field, ...], row: dict[str, Any]) -> dict[str, Any]:
    return {field.name: row[field.name] if field.shape else [row[field.name]] for field in fields}


@given(tables())
def test_every_form_means_the_same(table: tuple[tuple[Field, ...], list[dict[str, Any]]]) -> None:
    fields, rows = table
    served = KitServed(signature=Signature(inputs=fields, outputs=KitServed().signature.outputs))
    predict, classify = (
        TensorFlowServingWire().codec(Call("predict", variant=v), served) for v in ("predict", "classify")
    )
    columns = {field.name: [row[field.name] for row in rows] for field in fields}
    bodies: list[tuple[Any, dict[str, Any]]] = [
        (predict, {"instances": rows}),
        (predict, {"instances": [wrapped(fields, row) for row in rows]}),
        (predict, {"inputs": columns}),
        (classify, {"examples": rows}),
        (classify, {"examples": [wrapped(fields, row) for row in rows]}),
    ]
    if len(fields) == 1:
        bodies += [(predict, {key: columns[fields[0].name]}) for key in ("instances", "inputs")]
    first: Columns | None = None
    for codec, body in bodies:
        for more in ({}, {"unknown": 1}):  # with which the fast reading leaves it to the exact one
            request = codec.decode(json.dumps({**body, **more}, ensure_ascii=False).encode(), {})
            assert request.rows == len(rows)
            found = request.columns or Signature(inputs=fields).input_layout.from_tuples(request.tuples)
            first = first or found
            for name in found:
                equal_nan = found[name].dtype.kind == "f"
                assert np.array_equal(first[name], found[name], equal_nan=equal_nan), (name, body)
    assert first is not None
    for field in fields:
        expected = [None if value is None else value for value in columns[field.name]]
        got = first[field.name].tolist()
        if field.dtype in ("string", "bool", "uint64", "float64") and not field.nullable:
            assert got == expected
