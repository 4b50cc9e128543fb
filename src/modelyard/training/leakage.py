"""Columns that give the answer away, or that cannot help: named before anything is learnt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.errors import NotFound
from modelyard.schema import Array
from modelyard.training.preprocess import kind_of
from modelyard.training.table import Rows, is_missing

#: A single column that predicts this well (ROC AUC, balanced accuracy or R²) is suspect.
SUSPECT = 0.99
#: Rows that suspects are looked for in.
_LOOKED_AT = 5000
#: Fewer rows than these say nothing about how values repeat.
_FEW = 20
_ID_NAME = re.compile(r"(^|[^a-z])(id|uid|uuid|udi|guid|key|index|instant|nr|no|number|rowid|row)$", re.IGNORECASE)
_ID_CAMEL = re.compile(r"[a-z](ID|Id|Key|Index|Number|No|Nr)$")


@dataclass(frozen=True)
class Finding:
    """One column and what is the matter with it. ``kind``: constant, identifier, text, copy, sum or suspect."""

    column: str
    kind: str
    detail: str
    dropped: bool

    def __str__(self) -> str:
        return f"{self.column}: {self.detail}" + (" (left out)" if self.dropped else "")


def guard(rows: Rows, target: str, *, keep: Sequence[str] = (), seed: int = 0) -> list[Finding]:
    """What is found in the inputs. Constants, identifiers and copies of the target are dropped unless in ``keep``.

    Raises NotFound where ``keep`` names no column.
    """
    for name in keep:
        if name not in rows.inputs:
            raise NotFound.among("column", name, rows.inputs)
    findings: list[Finding] = []

    def add(column: str, kind: str, detail: str, dropped: bool = True) -> None:
        findings.append(Finding(column, kind, detail, dropped and column not in keep))

    rest: dict[str, Array] = {}
    for name, values in rows.inputs.items():
        gaps = is_missing(values)
        codes, different = _codes(values, gaps)
        if different == 0:
            add(name, "constant", "every value is missing")
        elif different == 1 and not gaps.any():
            add(name, "constant", f"every value is {_first(values, gaps)}")
        elif values.ndim == 1 and (copy := _copy(values, codes, different, rows, gaps)):
            add(name, "copy", f"{copy} {target}")
        elif values.ndim == 1 and (identifier := _identifier(name, values, different, gaps)):
            add(name, *identifier)
        else:
            rest[name] = values
    numbers = {name: v for name, v in rest.items() if v.ndim == 1 and v.dtype.kind in "iuf"}
    for one, other, sign in _sums(numbers, rows):
        add(one, "sum", f"{one} {sign} {other} is {target} in every row")
        if other != one:
            add(other, "sum", f"{one} {sign} {other} is {target} in every row")
        rest.pop(one, None)
        rest.pop(other, None)
    for name, detail in _suspects(rest, rows, target, seed):
        add(name, "suspect", detail, dropped=False)
    return findings


def _codes(values: Array, gaps: Array) -> tuple[Array, int]:
    """Each present value as a small whole number, -1 where missing; and how many different ones there are."""
    codes = np.full(len(values), -1, dtype="int64")
    if values.ndim > 1:
        flat = values.reshape(len(values), -1)
        return codes, len(np.unique(flat, axis=0))
    present = values[~gaps]
    if not len(present):
        return codes, 0
    if present.dtype == object:
        present = np.array([str(v) for v in present.tolist()], dtype=object)
    known, places = np.unique(present, return_inverse=True)
    codes[~gaps] = places
    return codes, len(known)


def _first(values: Array, gaps: Array) -> str:
    text = str(values[~gaps][0])
    return text if len(text) <= 40 else text[:37] + "..."


def _copy(values: Array, codes: Array, different: int, rows: Rows, gaps: Array) -> str:
    """Words for a column that is the target under another name, or ""."""
    targets = rows.targets
    if gaps.mean() > 0.5:
        return ""
    if values.dtype.kind in "biuf" and targets.dtype.kind in "biuf":
        if np.array_equal(values[~gaps], targets[~gaps].astype(values.dtype)):
            return "it equals"
        if not rows.is_classification and different > 2:
            a, b = values[~gaps].astype("float64"), targets[~gaps].astype("float64")
            if a.std() > 0 and b.std() > 0 and abs(float(np.corrcoef(a, b)[0, 1])) > 1 - 1e-9:
                return "it is, but for scale,"
    _, wanted = np.unique(targets, return_inverse=True)
    classes = int(wanted.max()) + 1
    if different == classes and (rows.is_classification or different * 5 <= len(targets)):
        pairs = len(np.unique(codes[~gaps] * classes + wanted[~gaps]))
        if pairs == different:
            return "each of its values stands for one value of"
    return ""


def _identifier(name: str, values: Array, different: int, gaps: Array) -> tuple[str, str] | None:
    """(kind, words) for a column that names rows instead of describing them."""
    present = values[~gaps]
    count = len(present)
    kind = kind_of(values)
    if kind == "text" and count >= 10:
        if different == count:
            return "identifier", "an identifier: every value is different"
        if different > count * 0.5 and different > 40:
            return "text", f"an identifier or free text: {different:,} different values in {count:,} rows"
        return None
    if values.dtype.kind not in "iuf" or count < _FEW or (present != np.floor(present)).any():
        return None
    named = bool(_ID_NAME.search(name) or _ID_CAMEL.search(name))
    if different == count:
        steps = np.diff(present.astype("float64"))
        if (steps > 0).all() or (steps < 0).all():
            return "identifier", "an identifier: it only counts the rows up or down"
        span = float(present.max()) - float(present.min()) + 1
        # that many draws from so few numbers would repeat some by chance: somebody numbered the rows
        if named or count * count / (2 * span) > 12:
            return "identifier", "an identifier: every value is different"
    elif named and different > 0.9 * count:
        return "identifier", f"an identifier by its name: {different:,} different values in {count:,} rows"
    return None


def _sums(numbers: dict[str, Array], rows: Rows) -> list[tuple[str, str, str]]:
    """Pairs of columns whose sum or difference is the target in every row."""
    if rows.is_classification or not 2 <= len(numbers) <= 200:
        return []
    head = slice(0, 200)
    names = list(numbers)
    matrix = np.column_stack([numbers[name].astype("float64") for name in names])
    targets = rows.targets
    found = []
    for i, name in enumerate(names):
        for sign, rest in (("+", targets - matrix[:, i]), ("-", matrix[:, i] - targets)):
            near = np.isclose(matrix[head], rest[head, None], rtol=1e-9, atol=1e-9).all(axis=0)
            for j in np.flatnonzero(near).tolist():
                if j != i and (sign == "-" or j > i) and np.allclose(matrix[:, j], rest, rtol=1e-9, atol=1e-9):
                    found.append((name, names[j], sign))
    return found


def _suspects(columns: dict[str, Array], rows: Rows, target: str, seed: int) -> list[tuple[str, str]]:
    """Columns that predict the target nearly perfectly by themselves."""
    count = min(rows.count, _LOOKED_AT)
    chosen = np.sort(np.random.default_rng(seed).choice(rows.count, count, replace=False))
    found = []
    for name, values in columns.items():
        if values.ndim > 1:
            continue
        always = _always(name, values, rows, target)
        if always:
            found.append((name, always))
            continue
        score, measure = _alone(values[chosen], rows.targets[chosen], rows.is_classification, seed)
        if score > SUSPECT:
            found.append(
                (name, f"predicts {target} nearly perfectly by itself ({measure} {score:.4f}): is it known in time?")
            )
    return found


def _always(name: str, values: Array, rows: Rows, target: str) -> str:
    """Words for a flag one of whose values goes with one class alone, although that class is not common."""
    if not rows.is_classification:
        return ""
    gaps = is_missing(values)
    codes, different = _codes(values, gaps)
    if different != 2:
        return ""
    labels, wanted, counts = np.unique(rows.targets, return_inverse=True, return_counts=True)
    share = counts / rows.count
    for code in (0, 1):
        inside = codes == code
        within = np.bincount(wanted[inside], minlength=len(labels))
        top = int(within.argmax())
        purity = within[top] / inside.sum()
        # by chance this would happen once in e**30 times
        if purity >= SUSPECT and share[top] < 0.5 and -int(inside.sum()) * np.log(share[top]) > 30:
            value = _first(values[inside], is_missing(values[inside]))
            return (
                f"whenever it is {value}, {target} is {labels[top]!s} ({within[top]:,} of {int(inside.sum()):,} rows): "
                "is it known in time?"
            )
    return ""


def _alone(values: Array, targets: Array, is_classification: bool, seed: int) -> tuple[float, str]:
    """How well a small tree predicts from one column, by cross-validation: ROC AUC, balanced accuracy or R²."""
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    from modelyard.training.metrics import Answers, Measure
    from modelyard.training.search import folds_of

    gaps = is_missing(values)
    if kind_of(values) == "text":
        codes, different = _codes(values, gaps)
        if different > 1000:
            return 0.0, ""
        _, wanted = np.unique(targets, return_inverse=True)
        order = wanted.astype("float64") if is_classification else targets
        sums = np.bincount(codes + 1, weights=order, minlength=different + 1)
        means = sums / np.maximum(np.bincount(codes + 1, minlength=different + 1), 1)
        if different > len(values) / 20:  # the means of rare values know the target
            return 0.0, ""
        column = means[codes + 1]
    else:
        column = values.astype("float64") if values.dtype.kind != "M" else values.astype("int64").astype("float64")
        column = np.where(gaps, np.nan, column)
    column = column.reshape(-1, 1)
    smallest = max(2, len(targets) // 200)
    parts = folds_of(targets, is_classification, 3, seed)
    if not is_classification:
        tree = DecisionTreeRegressor(max_leaf_nodes=128, min_samples_leaf=smallest, random_state=seed)
        return Measure(targets, Answers(cross_val_predict(tree, column, targets, cv=parts)), None).point()["r2"], "R²"
    tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=smallest, random_state=seed)
    classes = np.unique(targets).tolist()
    p = cross_val_predict(tree, column, targets, cv=parts, method="predict_proba")
    predicted = np.array([*(classes[i] for i in p.argmax(axis=1)), None], dtype=object)[:-1]
    point = Measure(targets, Answers(predicted, p), classes).point()
    return (point["roc_auc"], "ROC AUC") if len(classes) == 2 else (point["balanced_accuracy"], "balanced accuracy")
