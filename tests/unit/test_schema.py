import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import InvalidInput, NotFound
from modelyard.schema import (
    Field,
    Layout,
    Signature,
    infer_field,
    infer_fields,
    seconds_since_epoch,
    store,
)

MIXED = (
    Field(name="age", dtype="int64"),
    Field(name="city", dtype="string", nullable=True),
    Field(name="pay", dtype="float64", nullable=True),
    Field(name="member", dtype="bool"),
    Field(name="since", dtype="datetime", nullable=True),
    Field(name="pixels", dtype="float32", shape=(2, 2)),
)


def mixed_arrays() -> dict[str, object]:
    return {
        "age": [1, 2],
        "city": ["Oslo", None],
        "pay": [1.5, float("nan")],
        "member": [True, False],
        "since": ["2026-01-02", None],
        "pixels": np.arange(8, dtype="float32").reshape(2, 2, 2),
    }


def test_scalars_of_one_storage_share_a_block_and_tensors_stand_alone() -> None:
    layout = Layout.of(MIXED)
    shapes = {(b.storage, b.names, b.shape) for b in layout.blocks}
    assert ("float64", ("pay", "since"), ()) in shapes
    assert ("float32", ("pixels",), (2, 2)) in shapes
    assert len(layout.blocks) == 5
    assert layout.names == tuple(f.name for f in MIXED)


def test_columns_read_back_what_was_stored_whatever_the_order() -> None:
    arrays = mixed_arrays()
    layout = Layout.of(MIXED)
    one = layout.from_arrays(arrays)
    other = layout.from_arrays(dict(reversed(arrays.items())))
    for name in layout.names:
        np.testing.assert_array_equal(one[name], other[name])
    assert one.rows == 2
    assert one["city"].tolist() == ["Oslo", None]
    assert one["since"][0] == dt.datetime(2026, 1, 2, tzinfo=dt.UTC).timestamp()
    assert np.isnan(one["pay"][1])


def test_records_are_plain_and_tuples_make_the_same_columns() -> None:
    layout = Layout.of(MIXED)
    columns = layout.from_arrays(mixed_arrays())
    records = columns.records()
    assert records[1] == {
        "age": 2,
        "city": None,
        "pay": None,
        "member": False,
        "since": None,
        "pixels": [[4.0, 5.0], [6.0, 7.0]],
    }
    assert records[0]["since"] == "2026-01-02T00:00:00Z"
    tuples = [tuple(columns[f.name][i] for f in layout.fields) for i in range(2)]
    again = layout.from_tuples(tuples)
    for name in layout.names:
        np.testing.assert_array_equal(again[name], columns[name])


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 100])
@pytest.mark.parametrize("fields", [MIXED, MIXED[:1], MIXED[1:2], MIXED[2:3], MIXED[3:4]])
def test_tuples_make_the_same_columns_however_many(fields: tuple[Field, ...], rows: int) -> None:
    layout = Layout.of(fields)
    columns = Layout.of(MIXED).from_arrays(mixed_arrays()).take(np.arange(rows) % 2)
    again = layout.from_tuples([tuple(columns[f.name][i] for f in layout.fields) for i in range(rows)])
    assert again.rows == rows
    for name in layout.names:
        np.testing.assert_array_equal(again[name], columns[name])
        assert again[name].dtype == columns[name].dtype


def test_missing_numbers_in_tuples_are_nan() -> None:
    layout = Layout.of((MIXED[2],))
    for rows in (1, 2):
        assert np.isnan(layout.from_tuples([(None,)] * rows)["pay"]).all()


@given(st.integers(0, 5))
def test_no_rows_keep_their_shapes(rows: int) -> None:
    layout = Layout.of(MIXED)
    columns = layout.from_arrays(mixed_arrays())
    part = columns.take(np.zeros(rows, dtype="int64"))
    assert columns.slice(1, 9).rows == 1
    joined = layout.concatenate([part, columns.slice(0, 0), columns])
    assert joined.rows == rows + 2
    assert joined["pixels"].shape == (rows + 2, 2, 2)
    assert layout.from_tuples([]).rows == 0


def test_a_column_too_many_or_too_few_is_named() -> None:
    layout = Layout.of((Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64")))
    with pytest.raises(InvalidInput) as caught:
        layout.from_arrays({"x1": [1.0], "x3": [2.0]})
    assert [(p.path, p.got) for p in caught.value.problems] == [("x3", "an unknown column"), ("x2", "nothing")]
    with pytest.raises(InvalidInput, match="x2: expected 2 rows"):
        layout.from_arrays({"x1": [1.0, 2.0], "x2": [2.0]})


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        (Field(name="n", dtype="int8"), [300], "from -128 to 127"),
        (Field(name="n", dtype="int64"), [1.5], "a fraction"),
        (Field(name="n", dtype="int64", nullable=True), [2**60, None], "does not fit"),
        (Field(name="n", dtype="float64"), [1.0, None], r"\[1\].n: .* a missing value"),
        (Field(name="n", dtype="float64"), ["one"], "'one'"),
        (Field(name="s", dtype="string"), ["a", 3], r"\[1\].s: expected a text, got 3"),
        (Field(name="s", dtype="string"), [None], "a missing value"),
        (Field(name="d", dtype="datetime"), ["yesterday"], "ISO 8601"),
        (Field(name="b", dtype="bool"), [0, 2], "true or false"),
        (Field(name="v", dtype="float64", shape=(3,)), [[1.0, 2.0]], r"shape \[3\]"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_what_was_expected(
    field: Field, values: list[object], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        store(values, field)


def test_a_large_integer_stays_exact_in_its_own_type() -> None:
    assert store([2**62 + 1], Field(name="n", dtype="int64")).tolist() == [2**62 + 1]
    assert store([2**62 + 1, 1], Field(name="n", dtype="int64")).dtype == np.int64


def test_inference_says_type_range_categories_and_gaps() -> None:
    fields = infer_fields(
        {
            "n": np.array([1, 5]),
            "x": np.array([0.5, np.nan]),
            "s": np.array(["b", None, "a", "b"], dtype=object)[:2],
            "b": np.array([True, False]),
            "t": np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"),
            "v": np.zeros((2, 3), dtype="float32"),
        }
    )
    kinds = {f.name: (f.dtype, f.shape, f.nullable) for f in fields}
    assert kinds == {
        "n": ("int64", (), False),
        "x": ("float64", (), True),
        "s": ("string", (), True),
        "b": ("bool", (), False),
        "t": ("datetime", (), True),
        "v": ("float32", (3,), False),
    }
    assert (fields[0].minimum, fields[0].maximum) == (1.0, 5.0)
    assert fields[2].categories == ("b",)


def test_a_column_of_mixed_types_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a mixture of int, str"):
        infer_field("c", np.array([1, "a"], dtype=object))


def test_moments_without_a_zone_are_utc() -> None:
    assert seconds_since_epoch("1970-01-02") == 86400.0
    assert seconds_since_epoch("1970-01-01T01:00:00+01:00") == 0.0
    assert seconds_since_epoch(dt.datetime(1970, 1, 1, 0, 0, 1)) == 1.0
    assert seconds_since_epoch(np.datetime64("1970-01-01T00:00:02")) == 2.0


def test_signatures_refuse_double_names_and_unknown_types() -> None:
    with pytest.raises(InvalidInput, match="x twice"):
        Signature(inputs=(Field(name="x", dtype="int8"), Field(name="x", dtype="int8")))
    with pytest.raises(NotFound, match="float65"):
        Field(name="x", dtype="float65")
    signature = Signature(inputs=(Field(name="price", dtype="float64"),))
    with pytest.raises(NotFound) as caught:
        signature.input("prise")
    assert caught.value.hint == "did you mean price?"
