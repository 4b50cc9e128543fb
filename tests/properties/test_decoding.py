"""For any fields and any rows: both readings agree, order never matters, and nothing but InvalidInput escapes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.decoding import NOT_PLAIN, RowDecoder, exact
from modelyard.errors import InvalidInput
from modelyard.messages import Request
from modelyard.schema import DTYPES, INTEGER_RANGES, Columns, Field

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


@st.composite
def some_fields(draw: Any) -> tuple[Field, ...]:
    chosen = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    return tuple(
        Field(
            name=name,
            dtype=draw(st.sampled_from(DTYPES)),
            nullable=draw(st.booleans()),
            shape=draw(st.sampled_from([(), (), (), (2,), (1, 2)])),
        )
        for name in chosen
    )


def element(field: Field) -> st.SearchStrategy[Any]:
    """Values that an element of ``field`` may have in JSON."""
    if field.dtype == "string":
        good: st.SearchStrategy[Any] = st.text(st.characters(codec="utf-8"), max_size=5)
    elif field.dtype == "datetime":
        good = st.datetimes().map(lambda moment: moment.isoformat())
    elif field.dtype == "bool":
        good = st.booleans()
    elif field.dtype in INTEGER_RANGES:
        low, high = INTEGER_RANGES[field.dtype]
        good = st.integers(max(low, -(2**53)), min(high, 2**53)) if field.nullable else st.integers(low, high)
    else:
        width = {"float16": 16, "float32": 32, "float64": 64}[field.dtype]
        good = st.floats(allow_nan=False, allow_infinity=False, width=width)  # type: ignore[call-overload]
    return st.none() | good if field.nullable else good


def value(field: Field) -> st.SearchStrategy[Any]:
    strategy = element(field)
    for size in reversed(field.shape):
        strategy = st.lists(strategy, min_size=size, max_size=size)
    return strategy


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def fields_and_rows(draw: Any) -> tuple[tuple[Field, ...], list[dict[str, Any]]]:
    fields = draw(some_fields())
    rows = draw(st.lists(st.fixed_dictionaries({f.name: value(f) for f in fields}), min_size=1, max_size=4))
    return fields, rows


def columns_of(request: Request, decoder: RowDecoder) -> Columns:
    return request.columns if request.columns is not None else decoder.layout.from_tuples(request.tuples or [])


def same(a: Columns, b: Columns) -> bool:
    return a.rows == b.rows and all(
        np.array_equal(x, y, equal_nan=True) if x.dtype.kind == "f" else x.tolist() == y.tolist()
        for x, y in zip(a.blocks, b.blocks, strict=True)
    )


def shuffled(row: dict[str, Any], draw: Any) -> dict[str, Any]:
    return dict(draw(st.permutations(list(row.items()))))


@settings(max_examples=150, deadline=None)
@given(fields_and_rows(), st.data())
def test_good_rows_read_alike_in_every_form_order_and_reading(case: Any, data: Any) -> None:
    fields, rows = case
    decoder = RowDecoder.of(fields)
    expected = columns_of(decoder.decode(json.dumps(rows).encode()), decoder)
    mixed = [shuffled(row, data.draw) for row in rows]
    texts = [
        json.dumps(mixed, ensure_ascii=False),
        json.dumps(mixed, indent=1),
        json.dumps(shuffled({f.name: [row[f.name] for row in rows] for f in fields}, data.draw)),
    ]
    for text in texts:
        assert same(columns_of(decoder.decode(text.encode()), decoder), expected)
        assert same(columns_of(exact.read(text.encode(), decoder), decoder), expected)
    if len(rows) == 1:
        assert same(columns_of(decoder.decode(json.dumps(mixed[0]).encode()), decoder), expected)


@settings(max_examples=100, deadline=None)
@given(fields_and_rows())
def test_what_is_read_is_what_was_written(case: Any) -> None:
    fields, rows = case
    decoder = RowDecoder.of(fields)
    columns = columns_of(decoder.decode(json.dumps(rows).encode()), decoder)
    for field in fields:
        if field.dtype == "datetime":
            continue
        got = columns[field.name].ravel().tolist()
        sent = np.array([row[field.name] for row in rows], dtype=object).ravel().tolist()
        for one, other in zip(got, sent, strict=True):
            if other is None or (field.dtype == "string" and field.nullable and other == ""):
                assert one is None or math.isnan(one)
            else:
                assert one == other


@settings(max_examples=150, deadline=None)
@given(fields_and_rows(), st.data())
def test_rows_with_something_wrong_are_refused_or_read_alike(case: Any, data: Any) -> None:
    fields, rows = case
    decoder = RowDecoder.of(fields)
    row = data.draw(st.sampled_from(rows))
    row[data.draw(st.sampled_from([*row, "other"]))] = data.draw(anything)
    body = json.dumps(data.draw(st.sampled_from([rows, row]))).encode()
    check(body, decoder)


@settings(max_examples=150, deadline=None)
@given(fields_and_rows(), st.data())
def test_mangled_bytes_are_refused_or_read_alike(case: Any, data: Any) -> None:
    fields, rows = case
    body = bytearray(json.dumps(rows if len(rows) > 1 else rows[0], ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not body:
            break
    check(bytes(body), RowDecoder.of(fields))


@settings(max_examples=150, deadline=None)
@given(some_fields(), anything)
def test_any_json_is_refused_or_read_alike(fields: tuple[Field, ...], sent: Any) -> None:
    check(json.dumps(sent).encode(), RowDecoder.of(fields))


def check(body: bytes, decoder: RowDecoder) -> None:
    """What the fast reading takes, the exact one takes alike; nothing but InvalidInput escapes from that."""
    try:
        fast: Request | None = decoder.plain(body)
    except NOT_PLAIN:
        fast = None
    try:
        slow = exact.read(body, decoder)
    except InvalidInput as error:
        assert fast is None, (body, error)
        assert error.problems
        return
    if fast is not None:
        assert fast.form == slow.form
        assert same(columns_of(fast, decoder), columns_of(slow, decoder))
