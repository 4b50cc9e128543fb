"""Columns that give the answer away or cannot help are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.errors import NotFound
from modelyard.training.leakage import guard
from modelyard.training.table import rows_of

RANDOM = np.random.default_rng(0)
COUNT = 400
CLASSES = RANDOM.choice(["no", "yes"], COUNT, p=[0.8, 0.2]).astype(object)
NUMBERS = RANDOM.normal(size=COUNT) * 10


def found(column: Any, target: Any = CLASSES, name: str = "x", **options: Any) -> list[tuple[str, bool]]:
    rows = rows_of({name: column, "plain": RANDOM.normal(size=COUNT), "y": target}, "y")
    return [(f.kind, f.dropped) for f in guard(rows, "y", **options) if f.column == name]


@pytest.mark.parametrize(
    ("column", "target", "kind"),
    [
        (np.full(COUNT, 3), CLASSES, "constant"),
        (np.full(COUNT, np.nan), CLASSES, "constant"),
        (np.array(["same"] * COUNT, dtype=object), CLASSES, "constant"),
        (np.where(CLASSES == "yes", 1, 0), CLASSES, "copy"),
        (np.where(CLASSES == "yes", "J", "N").astype(object), CLASSES, "copy"),
        (CLASSES.copy(), CLASSES, "copy"),
        (NUMBERS.copy(), NUMBERS, "copy"),
        (NUMBERS * 1.8 + 32, NUMBERS, "copy"),
        (np.array([f"row {i:05}" for i in RANDOM.permutation(COUNT)], dtype=object), CLASSES, "identifier"),
        (np.arange(COUNT), CLASSES, "identifier"),
        (np.arange(COUNT)[::-1] * 10, NUMBERS, "identifier"),
        (RANDOM.permutation(COUNT), NUMBERS, "identifier"),
        (np.array([f"note {i * 2 // 3}" for i in range(COUNT)], dtype=object), CLASSES, "identifier or text"),
    ],
)
def test_what_is_dropped(column: Any, target: Any, kind: str) -> None:
    (only,) = found(column, target)
    assert only[0] in kind.replace("identifier or text", "text")
    assert only[1]


def test_an_identifier_by_its_name() -> None:
    numbers = RANDOM.choice(10**6, COUNT, replace=False)
    assert found(numbers, name="customer_id") == [("identifier", True)]
    assert found(numbers, name="CustomerID") == [("identifier", True)]
    assert found(numbers, name="population") == []
    assert found(numbers, name="paid") == []


@pytest.mark.parametrize(
    "column",
    [
        RANDOM.integers(0, 50, COUNT),
        RANDOM.normal(size=COUNT),
        np.array(["a", "b"] * (COUNT // 2), dtype=object),
        np.where(RANDOM.random(COUNT) < 0.5, np.nan, 1.0),
        np.datetime64("2024-01-01") + np.arange(COUNT).astype("timedelta64[D]"),
    ],
)
def test_what_is_fine(column: Any) -> None:
    assert found(column) == []


def test_a_near_perfect_column_is_a_warning() -> None:
    near = np.where(CLASSES == "yes", 5.0, 0.0) + RANDOM.normal(size=COUNT) * 0.5
    assert found(near) == [("suspect", False)]
    even = RANDOM.random(COUNT)
    assert found(np.exp(even) + RANDOM.normal(size=COUNT) * 0.001, even) == [("suspect", False)]


def test_a_flag_that_always_goes_with_one_class_is_a_warning() -> None:
    flag = ((CLASSES == "yes") & (RANDOM.random(COUNT) < 0.5)).astype(int)
    assert found(flag) == [("suspect", False)]


def test_two_columns_that_add_up_to_the_target() -> None:
    one = RANDOM.integers(0, 300, COUNT)
    other = RANDOM.integers(0, 300, COUNT)
    rows = rows_of({"one": one, "other": other, "plain": NUMBERS, "y": one + other}, "y")
    assert {(f.column, f.kind, f.dropped) for f in guard(rows, "y")} == {("one", "sum", True), ("other", "sum", True)}
    rows = rows_of({"one": one, "other": other, "plain": NUMBERS, "y": (one - other) * 1.0}, "y")
    assert {f.column for f in guard(rows, "y") if f.kind == "sum"} == {"one", "other"}


def test_keep_overrules() -> None:
    assert found(np.arange(COUNT), keep=["x"]) == [("identifier", False)]
    with pytest.raises(NotFound, match="no such column: z"):
        found(np.arange(COUNT), keep=["z"])
