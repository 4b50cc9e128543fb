"""Metrics of a version from the integers of its cohorts, with intervals that hold however often one looks.

Names are those of training, so that the two can be compared. Shares have confidence sequences of rates: accuracy,
precision and recall are shares of rows, and F1 is 2j / (1 + j) of the share j of hits among rows that are, or are
called, of the class. Means of losses, AUC and R2 have asymptotic ones, from the influence of each row on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from modelyard.monitoring.grading import BILLION, BINS, EDGES, MOST_CLASSES, Grader, histogram
from modelyard.registry.cohorts import Counts
from modelyard.schema import Array
from modelyard.statistics import quality
from modelyard.statistics.confidence import bound_mean, bound_rate

#: Of fewer labels, the limit theorems behind some intervals say nothing.
LEAST = 200

#: Hits, and the rows that they are a share of.
Share = tuple[float, float]

#: Metrics where less is better.
LOSSES = ("log_loss", "brier", "rmse", "mae", "mse")


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric: its value, None where it is undefined, and an interval, None where too little is known for one."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Of the rows whose probability lay in one bin: how many, its mean, and how often it came true."""

    rows: int
    said: float
    true: float
    low: float
    high: float


def measure(counts: Counts, grader: Grader, alpha: float = 0.05) -> dict[str, Metric]:
    """Every metric that can be told of these labelled rows; none where there are none."""
    rows = counts.get("labelled", 0)
    if not rows:
        return {}
    if grader.is_regression:
        return _of_numbers(counts, grader, rows, alpha)
    width = len(grader.classes)
    has_classes = 0 < width <= MOST_CLASSES
    shares: dict[str, Share] = {"accuracy": (counts.get("right", 0), rows)}
    if has_classes:
        table = confusion(counts, width)
        if width == 2:
            shares |= _shares(table, 1)
    found = rates(shares, alpha)
    if has_classes:
        found |= _means(table, alpha, with_own=width != 2)
        if grader.has_probabilities:
            found["roc_auc"] = _auc(counts, width, alpha)
    if grader.has_probabilities:
        for name, key in (("log_loss", "log"), ("brier", "brier")):
            found[name] = _mean(counts, key, rows, alpha, BILLION)
    return found


def confusion(counts: Counts, width: int) -> Array:
    """Rows by true and predicted class; the last of each are classes that the version does not know."""
    table = np.zeros((width + 1, width + 1))
    for truth in range(width + 1):
        for predicted in range(width + 1):
            table[truth, predicted] = counts.get(f"c.{truth}.{predicted}", 0)
    return table


def per_class(counts: Counts, grader: Grader, alpha: float = 0.05) -> dict[str, dict[str, Metric]]:
    """Precision, recall and F1 of each class, each with an interval of its own."""
    width = len(grader.classes)
    if not 0 < width <= MOST_CLASSES:
        return {}
    return dict(zip(grader.classes, _each(confusion(counts, width), alpha), strict=True))


def calibration(counts: Counts, grader: Grader, alpha: float = 0.05) -> list[Calibration]:
    """How often what was said to be so probable came true, in tenths: of two classes, the second; else the chosen one.

    The intervals hold for all tenths at once.
    """
    if not grader.has_probabilities or not counts.get("labelled"):
        return []
    negative, positive, sums = scores(counts, len(grader.classes))
    tenths = np.minimum((np.asarray(EDGES[:-1]) * 10 + 1e-9).astype("int64"), 9)
    sums_of = [[float(each[tenths == tenth].sum()) for each in (positive, negative, sums)] for tenth in range(10)]
    some = [(hits, hits + others, said) for hits, others, said in sums_of if hits + others]
    lows, highs = bound_rate([hits for hits, _, _ in some], [rows for _, rows, _ in some], alpha / 10)
    return [
        Calibration(rows=int(rows), said=said / rows, true=hits / rows, low=float(low), high=float(high))
        for (hits, rows, said), low, high in zip(some, lows, highs, strict=True)
    ]


def scores(counts: Counts, width: int) -> tuple[Array, Array, Array]:
    """(negatives, positives, sums of scores) by bin: of two classes by the probability of the second, of more by that
    of the chosen class, where a positive is a right answer. Each of shape (bins,).
    """
    right, wrong, sums = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    negative, positive, means = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    for place in range(width):
        r, w, m = (histogram(counts, f"{name}.{place}") for name in ("r", "w", "m"))
        right, wrong, sums = right + r, wrong + w, sums + m / BILLION
        if place == 1:
            positive, negative, means = positive + r, negative + w, means + m / BILLION
        else:  # one less the probability of the first class: the bins mirror each other
            rows = (r + w)[::-1]
            positive, negative, means = positive + w[::-1], negative + r[::-1], means + rows - (m / BILLION)[::-1]
    return (negative, positive, means) if width == 2 else (wrong, right, sums)


# -- shares ---------------------------------------------------------------------------------------------------------


def rates(shares: Mapping[str, Share], alpha: float) -> dict[str, Metric]:
    """Shares with their intervals, all in one go; F1 from that of its hits."""
    known = {name: share for name, share in shares.items() if share[1]}
    lows, highs = bound_rate([hits for hits, _ in known.values()], [rows for _, rows in known.values()], alpha)
    found = {name: Metric(value=None) for name in shares}
    for (name, (hits, rows)), *bounds in zip(known.items(), lows.tolist(), highs.tolist(), strict=True):
        value, low, high = (2 * v / (1 + v) if name.startswith("f1") else v for v in (hits / rows, *bounds))
        found[name] = Metric(value=value, low=low, high=high)
    return found


def _shares(table: Array, place: int) -> dict[str, Share]:
    """Of one class."""
    hits, true, said = float(table[place, place]), float(table[place].sum()), float(table[:, place].sum())
    return {"precision": (hits, said), "recall": (hits, true), "f1": (hits, true + said - hits)}


def _each(table: Array, alpha: float) -> list[dict[str, Metric]]:
    """Of every class that the version knows."""
    width = len(table) - 1
    shares = {f"{name} {place}": v for place in range(width) for name, v in _shares(table, place).items()}
    found = rates(shares, alpha)
    return [{name: found[f"{name} {place}"] for name in ("precision", "recall", "f1")} for place in range(width)]


def _means(table: Array, alpha: float, *, with_own: bool) -> dict[str, Metric]:
    """Means over classes; those that go by the names of a single class's where a model has more than two."""
    width = len(table) - 1
    every = _each(table, alpha / width)
    present = [each["recall"] for each, rows in zip(every, table.sum(axis=1), strict=False) if rows]
    means = {name: _average([each[name] for each in every]) for name in ("precision", "recall", "f1")}
    return (means if with_own else {}) | {"balanced_accuracy": _average(present), "f1_macro": means["f1"]}


def _average(metrics: list[Metric]) -> Metric:
    """The mean of metrics whose intervals hold together. As in training, one that is undefined counts as 0."""
    if not metrics:
        return Metric(value=None)
    value, low, high = (
        sum(default if (v := getattr(metric, name)) is None else v for metric in metrics) / len(metrics)
        for name, default in (("value", 0.0), ("low", 0.0), ("high", 1.0))
    )
    return Metric(value=value, low=low, high=high)


def _auc(counts: Counts, width: int, alpha: float) -> Metric:
    if width == 2:
        negative, positive, _ = scores(counts, width)
        return _area(negative, positive, alpha)
    areas = [
        _area(histogram(counts, f"n.{place}"), histogram(counts, f"p.{place}"), alpha / width) for place in range(width)
    ]
    return _average(areas) if all(area.value is not None for area in areas) else Metric(value=None)


def _area(negative: Array, positive: Array, alpha: float) -> Metric:
    """The area with what bins and chance may put it off: each positive's influence is the share of negatives below it
    (DeLong, DeLong, Clarke-Pearson 1988).
    """
    found = quality.auc(negative, positive)
    if math.isnan(found.value):
        return Metric(value=None)
    rows, below = float(negative.sum() + positive.sum()), np.cumsum(negative) - negative
    above = positive.sum() - np.cumsum(positive)
    of_positives = (below + negative / 2) / negative.sum()
    of_negatives = (above + positive / 2) / positive.sum()
    spread = sum(
        float((n * (v - found.value) ** 2).sum() / n.sum()) * rows / float(n.sum())
        for n, v in ((positive, of_positives), (negative, of_negatives))
    )
    if rows < LEAST:
        return Metric(value=found.value)
    low, high = bound_mean(rows, 0.0, spread, alpha)
    return Metric(value=found.value, low=max(0.0, found.low + float(low)), high=min(1.0, found.high + float(high)))


# -- means and numbers --------------------------------------------------------------------------------------------


def _mean(counts: Counts, key: str, rows: int, alpha: float, unit: float) -> Metric:
    mean = counts.get(key, 0) / rows / unit
    variance = counts.get(f"{key}2", 0) / rows / unit**2 - mean * mean
    return _metric(mean, variance, rows, alpha)


def _metric(mean: float, variance: float, rows: int, alpha: float, least: float = 0.0) -> Metric:
    if rows < LEAST:
        return Metric(value=mean)
    low, high = bound_mean(rows, mean, variance, alpha)
    return Metric(value=mean, low=max(least, float(low)), high=float(high))


def _of_numbers(counts: Counts, grader: Grader, rows: int, alpha: float) -> dict[str, Metric]:
    def mean(name: str, power: int) -> float:
        """The mean of what is counted in the unit to a power; exact integers are divided last."""
        return counts.get(name, 0) / rows * grader.unit**power

    mse, mae = mean("e2", 2), mean("abs", 1)
    of_mse = _metric(mse, mean("e4", 4) - mse * mse, rows, alpha)
    return {
        "r2": _r2(counts, grader, rows, alpha),
        "rmse": Metric(value=math.sqrt(mse), low=_root(of_mse.low), high=_root(of_mse.high)),
        "mae": _metric(mae, mse - mae * mae, rows, alpha),
        "mse": of_mse,
        "bias": _metric(mean("e1", 1), mse - mean("e1", 1) ** 2, rows, alpha, -math.inf),
    }


def _r2(counts: Counts, grader: Grader, rows: int, alpha: float) -> Metric:
    """1 - mean of e^2 / variance of t. The influence of a row is (r (t - m)^2 - e^2) / variance, r = 1 - R2.

    Integers are exact where differences of sums of doubles have no digits left.
    """
    n, t1, t2 = rows, counts.get("t1", 0), counts.get("t2", 0)
    spread = n * t2 - t1 * t1  # n^2 variances, in the unit squared
    if spread <= 0:
        return Metric(value=None)
    t3, t4, e2, e4 = (counts.get(name, 0) for name in ("t3", "t4", "e2", "e4"))
    ratio = n * e2 / spread
    # Sums over rows of d^4 and of e^2 d^2, where d = n t - t1 is whole: n times a truth's distance from their mean.
    d4 = n**4 * t4 - 4 * n**3 * t1 * t3 + 6 * n**2 * t1**2 * t2 - 3 * n * t1**4
    e2d2 = n**2 * counts.get("u2", 0) - 2 * n * t1 * counts.get("u1", 0) + t1**2 * e2
    square = spread * spread
    variance = d4 / (n * square) * ratio**2 - 2 * ratio * (n * e2d2 / square) + n**3 * e4 / square
    return _metric(1 - ratio, variance, rows, alpha, -math.inf)


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(max(0.0, value))


def compared(metric: Metric, name: str, trained: Mapping[str, float | None] | None, floor: float = 0.0) -> str:
    """``worse`` or ``better`` than at training where the two intervals lie apart by more than ``floor``, else ""."""
    if trained is None or metric.low is None or metric.high is None:
        return ""
    low, high = trained.get("low"), trained.get("high")
    if low is None or high is None:
        return ""
    is_above, is_below = metric.low > high + floor, metric.high < low - floor
    if name in LOSSES:
        is_above, is_below = is_below, is_above
    return "better" if is_above else "worse" if is_below else ""
