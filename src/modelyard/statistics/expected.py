"""Metrics without labels: what they would be if scores were calibrated and nothing but the inputs changed.

Never a measurement of quality: a changed relationship between inputs and truth does not show in them. They are what
labels are compared with when they come, and a sign that inputs moved to where the model is less sure.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics import quality
from modelyard.statistics.special import Array


class Expected(NamedTuple):
    """Expected if the relationship is unchanged. ``spread``: standard deviation of the accuracy of so many rows."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float
    brier: float
    log_loss: float
    spread: float


def expect(counts: npt.ArrayLike, scores: npt.ArrayLike, threshold: float = 0.5) -> Expected:
    """Metrics of ``counts`` rows whose calibrated scores are ``scores``, ascending; both of shape (bins,).

    A row of score s is positive with chance s and called positive from ``threshold`` on (confidence-based estimation
    of performance: NannyML's CBPE). No bin may straddle the threshold. Weights instead of counts are taken too, in
    which ``spread`` then is.
    """
    rows, s = np.asarray(counts, dtype="float64"), np.asarray(scores, dtype="float64")
    if rows.shape != s.shape or rows.ndim != 1 or not (rows >= 0).all() or not ((s >= 0) & (s <= 1)).all():
        raise InvalidInput(f"{rows.size} counts and {s.size} scores: expected one score from 0 to 1 a bin")
    total = float(rows.sum())
    if not total:
        return Expected(*[float("nan")] * 8)
    positive, negative, called = rows * s, rows * (1 - s), s >= threshold
    hits, alarms, missed = (float(v.sum()) for v in (positive[called], negative[called], positive[~called]))
    right = np.where(called, s, 1 - s)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.where(s > 0, s * np.log(s), 0.0) - np.where(s < 1, (1 - s) * np.log1p(-s), 0.0)
    return Expected(
        accuracy=float((rows * right).sum()) / total,
        precision=_ratio(hits, hits + alarms),
        recall=_ratio(hits, hits + missed),
        f1=_ratio(2 * hits, 2 * hits + alarms + missed),
        auc=quality.auc(negative, positive).value,
        brier=float((rows * s * (1 - s)).sum()) / total,
        log_loss=float((rows * surprise).sum()) / total,
        spread=float(np.sqrt((rows * right * (1 - right)).sum())) / total,
    )


def calibrate(negative: npt.ArrayLike, positive: npt.ArrayLike) -> Array:
    """The share of positives in each bin, made to ascend: what a score of the bin is worth. Shape (bins,).

    Isotonic regression by pooling adjacent violators (Ayer and others 1955). Bins without rows get the mean of their
    neighbours.
    """
    below, above = quality.read_scores(negative, positive)
    used = np.flatnonzero(below + above)
    if not used.size:
        raise InvalidInput("no labelled rows: expected some to calibrate by")
    pools: list[tuple[float, float, int]] = []
    for place in used.tolist():
        pools.append((float(above[place]), float(below[place] + above[place]), 1))
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last, before = pools.pop(), pools.pop()
            pools.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    shares = np.concatenate([np.full(bins, hits / rows) for hits, rows, bins in pools])
    return np.asarray(np.interp(np.arange(len(below)), used, shares))


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")
