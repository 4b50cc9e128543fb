"""What is taken as the task, and tables that cannot be learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, ModelyardError, NotFound
from modelyard.training.table import rows_of


def data(target: Any, rows: int = 40) -> dict[str, Any]:
    return {"a": np.arange(rows) * 1.5, "y": target}


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["yes", "no"] * 20, "classification", ["no", "yes"]),
        ([True, False] * 20, "classification", [False, True]),
        ([0, 1] * 20, "classification", [0, 1]),
        ([0.0, 1.0] * 19 + [np.nan, np.nan], "classification", [0, 1]),
        ([True, None] * 15 + [False] * 10, "classification", [False, True]),
        (list(range(40)), "regression", None),
        ([0.5, 1.5] * 20, "regression", None),
        (list(range(20)) * 2, "regression", None),
    ],
)
def test_the_task(target: Any, task: str, classes: Any) -> None:
    rows = rows_of(data(target), "y")
    assert rows.task == task
    assert rows.why
    if classes is not None:
        assert rows.classes == classes


def test_the_task_as_asked_for() -> None:
    assert rows_of(data([0, 1] * 20), "y", task="regression").targets.dtype == "float64"
    assert rows_of(data([0.5, 1.5] * 20), "y", task="classification").classes == [0.5, 1.5]


def test_rows_without_a_target_are_left_out_and_counted() -> None:
    rows = rows_of(data(["a", "b", None, "a"] * 10), "y")
    assert rows.count == 30
    assert "10 rows have no y: left out" in rows.notes
    assert len(rows.inputs["a"]) == 30


def test_a_rare_class_is_left_out_and_named() -> None:
    rows = rows_of(data(["a", "b"] * 19 + ["a", "odd"]), "y")
    assert rows.classes == ["a", "b"]
    assert any("odd" in note and "(1 rows)" in note for note in rows.notes)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (["a"] * 40, {}, "at least two classes, got only a in all 40 rows"),
        (["a"] * 39 + ["b"], {}, "one such class, a; b has 1"),
        ([1.5] * 40, {}, "numbers that differ"),
        ([f"t{i}" for i in range(40)], {}, "40 different values"),
        ([None] * 40, {}, "at least 20 rows with a y, got 0"),
        (["a", "b"] * 20, {"task": "regression"}, "texts such as 'a'"),
        (np.array(["2024-01-01"] * 40, dtype="datetime64[us]"), {}, "got dates"),
        (np.zeros((40, 2)), {}, "values of shape [2]"),
    ],
)
def test_targets_that_cannot_be_learnt(target: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        rows_of(data(target), "y", **options)
    assert words in str(caught.value)


def test_five_rows_are_too_few() -> None:
    with pytest.raises(InvalidInput) as caught:
        rows_of(data([0, 1, 0, 1, 0], rows=5), "y")
    assert "at least 20 rows" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("yy", {}, "no such column: yy (known: a, y)\nhint: did you mean y?"),
        ("y", {"exclude": ["b"]}, "no such column: b"),
        ("y", {"task": "clustering"}, "no such task: clustering"),
    ],
)
def test_names_that_are_not_there(target: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(NotFound) as caught:
        rows_of(data([0, 1] * 20), target, **options)
    assert words in str(caught.value)


def test_no_inputs_are_left() -> None:
    with pytest.raises(InvalidInput, match="columns to predict y from"):
        rows_of(data([0, 1] * 20), "y", exclude=["a"])


def test_a_file_and_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i},{'yn'[i % 2]}\n" for i in range(50)))
    rows = rows_of(str(path), "y", max_rows=30, seed=3)
    assert rows.count == 30
    assert rows.source["data"] == "t.csv"
    assert rows.source["data_rows"] == 50
    assert rows.source["data_digest"].startswith("sha256:")


def test_a_frame_is_sampled_too() -> None:
    rows = rows_of(data([0, 1] * 500, rows=1000), "y", max_rows=100)
    assert rows.count == 100
    assert "100 of 1,000 rows" in rows.notes[0]


def test_what_is_no_table() -> None:
    with pytest.raises(ModelyardError):
        rows_of(5, "y")


@pytest.mark.parametrize(("mark", "said"), [(",", "`,`"), (";", "`;`"), ("\t", "a tab")])
def test_a_wrong_delimiter_is_noticed(tmp_path: Path, mark: str, said: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text("\n".join([mark.join("aby"), *(mark.join(f"{i}{i}{i % 2}") for i in range(9))]))
    with pytest.raises(NotFound) as caught:
        rows_of(file, "y", delimiter="|")
    assert f"the delimiter looks like {said}" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        rows_of({"a,b": [1.0, 2.0], "z": [1.0, 2.0]}, "y")
    assert "delimiter" not in caught.value.hint
