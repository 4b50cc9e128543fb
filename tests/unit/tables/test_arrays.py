"""Anything that holds columns, as arrays by one convention."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from modelyard.errors import InvalidInput
from modelyard.schema import infer_fields
from modelyard.tables import arrays_of


def same(array: Any, expected: list[Any]) -> None:
    assert [None if v != v else v for v in array.tolist()] == expected


def test_a_pandas_frame() -> None:
    frame = pd.DataFrame(
        {
            "i": [1, 2],
            "f": [1.5, None],
            "b": [True, False],
            "t": ["x", None],
            "o": pd.Series(["x", np.nan], dtype=object),
            "s": pd.array(["x", None], dtype="string"),
            "c": pd.Categorical(["x", None]),
            "nc": pd.Categorical([3, 4]),
            "n": pd.array([1, None], dtype="Int64"),
            "m": pd.array([1, 2], dtype="Int32"),
            "nb": pd.array([True, None], dtype="boolean"),
            "d": pd.to_datetime(["2024-01-01", None]),
            "z": pd.to_datetime(["2024-01-01T01:00+01:00", None]),
        }
    )
    arrays = arrays_of(frame)
    kinds = {name: values.dtype.kind for name, values in arrays.items()}
    assert "".join(kinds.values()) == "ifbOOOOifiOMM"
    for name in "toc":
        assert arrays[name].tolist() == ["x", None]
    assert arrays["s"].tolist() == ["x", None]
    assert arrays["nb"].tolist() == [True, None]
    assert arrays["z"][0] == arrays["d"][0] == np.datetime64("2024-01-01")
    fields = {f.name: (f.dtype, f.nullable) for f in infer_fields(arrays)}
    assert fields["nb"] == ("bool", True)
    assert fields["n"] == ("float64", True)
    assert fields["d"] == ("datetime", True)
    assert fields["t"] == ("string", True)


def test_an_arrow_table() -> None:
    table = pa.table({"i": [1, None], "t": ["x", None], "b": [True, None], "d": pa.array([dt.date(2024, 1, 1), None])})
    arrays = arrays_of(table)
    same(arrays["i"], [1.0, None])
    assert arrays["t"].tolist() == ["x", None]
    assert arrays["b"].tolist() == [True, None]
    assert arrays["d"].dtype == "datetime64[us]"


def test_columns_in_a_mapping() -> None:
    arrays = arrays_of(
        {"a": [1, 2], "b": ("x", None), "c": np.array([1.0, 2.0]), "d": [dt.datetime(2024, 1, 1), None], "e": [None, 1]}
    )
    assert arrays["a"].dtype == "int64"
    assert arrays["b"].tolist() == ["x", None]
    assert arrays["d"].dtype == "datetime64[us]"
    same(arrays["e"], [None, 1.0])


def test_records() -> None:
    arrays = arrays_of([{"a": 1, "b": "x"}, {"a": 2, "c": True}])
    assert arrays["a"].tolist() == [1, 2]
    assert arrays["b"].tolist() == ["x", None]
    assert arrays["c"].tolist() == [None, True]


def test_a_matrix_and_rows_of_lists() -> None:
    assert list(arrays_of(np.zeros((3, 2)))) == ["x0", "x1"]
    assert arrays_of([[1, "x"], [2, "y"]])["x1"].tolist() == ["x", "y"]


def test_lists_as_values_become_shaped_columns() -> None:
    assert arrays_of({"v": [[1.0, 2.0], [3.0, 4.0]]})["v"].shape == (2, 2)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (5, "a data frame, columns, records or a matrix, got int"),
        ("path", "got str"),
        ([], "an empty list"),
        ([1, 2], "a list of int"),
        ([[1], [2, 3]], "lengths 1, 2"),
        ({"a": [1], "b": [1, 2]}, "b: expected 1 rows, as in a, got 2"),
        ({"a": 5}, "a: expected"),
        ({"a": [1j]}, "complex"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "a twice"),
        ({"v": [[1.0], [2.0, 3.0]]}, "lists of different lengths"),
        (pa.table({"s": [{"x": 1}]}), "struct"),
        (np.zeros((2, 2, 2)), "of shape"),
    ],
)
def test_what_holds_no_columns(thing: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        arrays_of(thing)
    assert words in str(caught.value)


def test_mixed_types_are_left_to_the_schema() -> None:
    arrays = arrays_of([{"a": 1}, {"a": "x"}])
    with pytest.raises(InvalidInput, match="a mixture of int, str"):
        infer_fields(arrays)
