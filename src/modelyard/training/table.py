"""The rows to learn from: the target apart from the inputs, the task, and what had to be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelyard import settings
from modelyard.errors import InvalidInput, NotFound
from modelyard.schema import EXACT_INTEGER, Array
from modelyard.tables import Table, arrays_of, read_table

#: Fewer rows than these cannot be both learnt from and tested on.
FEWEST_ROWS = 20
#: A class with fewer rows is left out: it could not be in every part that is learnt from and in the one that tests.
FEWEST_OF_A_CLASS = 5
#: A target of whole numbers with at most this many different values is taken as classes.
MOST_CLASSES_OF_NUMBERS = 20
MOST_CLASSES = 200
TASKS = ("classification", "regression")


@dataclass
class Rows:
    """Inputs as one array per column, targets of shape (rows,), and how they came about."""

    inputs: dict[str, Array]
    targets: Array
    task: str
    why: str
    notes: list[str] = field(default_factory=list)
    #: What the table was: path, digest, rows in all, missing values per column.
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.targets)

    @property
    def is_classification(self) -> bool:
        return self.task == "classification"

    @property
    def classes(self) -> list[Any]:
        """The class labels in the order of the model."""
        return list(np.unique(self.targets).tolist())

    def take(self, indices: Array) -> dict[str, Array]:
        """The inputs of some rows."""
        return {name: values[indices] for name, values in self.inputs.items()}


def rows_of(
    data: Any,
    target: str,
    *,
    task: str | None = None,
    seed: int = 0,
    max_rows: int | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[float, float | None, str], None] | None = None,
    **reading: Any,
) -> Rows:
    """The rows of a file, data frame, mapping or list of records, ready to learn from.

    ``reading`` goes to ``read_table``. Raises NotFound for an unknown target, and InvalidInput for a target that
    cannot be learnt: one value only, too few rows, too many classes.
    """
    if task is not None and task not in TASKS:
        raise NotFound.among("task", task, TASKS)
    arrays, notes, source = _arrays(data, seed, max_rows, {**reading, "progress": progress})
    if target not in arrays:
        raise NotFound.among("column", target, arrays, hint=_delimiter_in(arrays))
    unknown = [name for name in exclude if name not in arrays]
    if unknown:
        raise NotFound.among("column", unknown[0], arrays)
    targets = arrays[target]
    inputs = {name: values for name, values in arrays.items() if name != target and name not in exclude}
    if not inputs:
        raise InvalidInput.at("table", f"columns to predict {target} from", "none")
    if targets.ndim > 1:
        raise InvalidInput.at(target, "one value per row", f"values of shape {list(targets.shape[1:])}")
    targets, inputs = _present(target, targets, inputs, notes)
    if len(targets) < FEWEST_ROWS:
        raise InvalidInput.at(
            "table", f"at least {FEWEST_ROWS} rows with a {target}", f"{len(targets)}",
            hint="a fifth of the rows is held out to test on; with fewer, no figure would mean anything",
        )  # fmt: skip
    task, why = _task(target, targets, task)
    rows = Rows(inputs, targets, task, why, notes, source)
    if rows.is_classification:
        _check_classes(rows, target)
    else:
        _check_numbers(rows, target)
    return rows


def _arrays(
    data: Any, seed: int, max_rows: int | None, reading: Mapping[str, Any]
) -> tuple[dict[str, Array], list[str], dict[str, Any]]:
    if isinstance(data, (str, Path)):
        data = read_table(data, rows=max_rows, seed=seed, **reading)
    arrays = arrays_of(data)
    notes: list[str] = []
    source: dict[str, Any] = {}
    if isinstance(data, Table):
        notes = list(data.notes)
        source = {"data": Path(data.path).name, "data_digest": data.digest, "data_rows": data.total}
    count = len(next(iter(arrays.values()))) if arrays else 0
    limit = settings.get("train_rows", max_rows)
    source.setdefault("data_rows", count)
    if count > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
        arrays = {name: values[chosen] for name, values in arrays.items()}
        notes.append(f"{limit:,} of {count:,} rows are looked at: a random sample (seed {seed})")
    return arrays, notes, source


def _delimiter_in(names: Iterable[str]) -> str:
    """A hint where the only column seems to be a whole line: it was parted at the wrong character."""
    first, *others = [*names, ""]
    found = max(",;\t|", key=first.count)
    if len(others) != 1 or found not in first:
        return ""
    shown = "$'\\t'" if found == "\t" else f"'{found}'"
    return f"the delimiter looks like {'a tab' if found == chr(9) else f'`{found}`'}: --delimiter {shown}"


def is_missing(values: Array) -> Array:
    """(rows,) of truth values."""
    if values.dtype.kind == "f":
        gaps: Array = np.isnan(values)
        return np.asarray(gaps.reshape(len(values), -1).any(axis=1)) if values.ndim > 1 else gaps
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype == object:
        return np.array([v is None or v != v for v in values.tolist()], dtype=bool)
    return np.zeros(len(values), dtype=bool)


def _present(target: str, targets: Array, inputs: dict[str, Array], notes: list[str]) -> tuple[Array, dict[str, Array]]:
    """The rows that have a target."""
    gaps = is_missing(targets)
    if targets.dtype.kind == "f":
        gaps |= np.isinf(targets)
    if gaps.any():
        notes.append(f"{int(gaps.sum()):,} rows have no {target}: left out")
        targets = targets[~gaps]
        inputs = {name: values[~gaps] for name, values in inputs.items()}
    if targets.dtype == object and targets.size and all(isinstance(v, (bool, np.bool_)) for v in targets.tolist()):
        targets = targets.astype(bool)
    whole = targets.dtype.kind == "f" and targets.size and bool((targets == np.floor(targets)).all())
    if whole and np.abs(targets).max() <= EXACT_INTEGER:
        targets = targets.astype("int64")
    return targets, inputs


def _task(target: str, targets: Array, task: str | None) -> tuple[str, str]:
    """The task and why it was chosen."""
    kind = targets.dtype.kind
    if kind not in "biufO" or (kind == "O" and not all(isinstance(v, str) for v in targets.tolist())):
        what = "dates" if kind == "M" else "values of several types"
        raise InvalidInput.at(target, "texts, truth values or numbers to predict", what)
    if task == "regression" and kind == "O":
        raise InvalidInput.at(target, "numbers, for regression", f"texts such as {targets[0]!r}")
    if task is not None:
        return task, "as asked for"
    different = len(np.unique(targets))
    if kind == "O":
        return "classification", f"{target} holds texts"
    if kind == "b":
        return "classification", f"{target} holds truth values"
    few = different <= MOST_CLASSES_OF_NUMBERS and different * FEWEST_OF_A_CLASS <= len(targets)
    if kind in "iu" and few:
        hint = "; to predict the number itself, ask for regression" if different > 2 else ""
        return "classification", f"{target} holds only {different} different whole numbers{hint}"
    return "regression", f"{target} holds {different:,} different numbers"


def _check_classes(rows: Rows, target: str) -> None:
    labels, counts = np.unique(rows.targets, return_counts=True)
    if len(labels) == 1:
        raise InvalidInput.at(target, "at least two classes", f"only {labels[0]!s} in all {rows.count:,} rows")
    if len(labels) > MOST_CLASSES or len(labels) * FEWEST_OF_A_CLASS > rows.count:
        raise InvalidInput.at(
            target, f"at most {min(MOST_CLASSES, rows.count // FEWEST_OF_A_CLASS)} classes for {rows.count:,} rows",
            f"{len(labels):,} different values",
            hint="" if rows.targets.dtype == object else "to predict a number: --task regression",
        )  # fmt: skip
    rare = labels[counts < FEWEST_OF_A_CLASS]
    if len(rare):
        if len(labels) - len(rare) < 2:
            common = labels[counts.argmax()]
            raise InvalidInput.at(
                target, f"at least two classes with {FEWEST_OF_A_CLASS} rows each",
                f"one such class, {common!s}; {rare[0]!s} has {int(counts[counts < FEWEST_OF_A_CLASS][0])}",
            )  # fmt: skip
        keep = ~np.isin(rows.targets.astype(str), rare.astype(str))
        shown = ", ".join(str(label) for label in rare[:5]) + (" …" if len(rare) > 5 else "")
        rows.notes.append(
            f"{len(rare)} classes of {target} have fewer than {FEWEST_OF_A_CLASS} rows and are left out "
            f"({int((~keep).sum())} rows): {shown}"
        )
        rows.targets = rows.targets[keep]
        rows.inputs = {name: values[keep] for name, values in rows.inputs.items()}


def _check_numbers(rows: Rows, target: str) -> None:
    rows.targets = rows.targets.astype("float64")
    if rows.targets.min() == rows.targets.max():
        raise InvalidInput.at(target, "numbers that differ", f"only {rows.targets[0]:g} in all {rows.count:,} rows")
