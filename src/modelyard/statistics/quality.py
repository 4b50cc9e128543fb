"""Metrics from counts: confusion matrices, score histograms by label, sums of errors. Adding counts merges them.

What is undefined, such as the precision of a class that was never predicted, is NaN, never 0. A metric of scores in
bins says how far the bins can put it off. Intervals for accuracy and error rates are ``confidence.bound_rate``, for
means of bounded losses (Brier) ``confidence.MeanSequence``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics.counts import read
from modelyard.statistics.special import Array

#: Scores nearer to 0 or 1 than this count as this near, in a log loss.
CLIP = 1e-15


class Binned(NamedTuple):
    """A metric of binned scores: the value, and between what it lies wherever in their bins the scores are."""

    value: float
    low: float
    high: float


# -- confusion matrices: shape (classes, classes), rows are the truth, columns the predictions -------------------------


def accuracy(confusion: npt.ArrayLike) -> float:
    """Share of the rows on the diagonal."""
    table = _read_confusion(confusion)
    return float(_ratio(np.trace(table), table.sum()))


def precision(confusion: npt.ArrayLike) -> Array:
    """For each class, the share of its predictions that are true. Shape (classes,)."""
    table = _read_confusion(confusion)
    return _ratio(np.diag(table), table.sum(axis=0))


def recall(confusion: npt.ArrayLike) -> Array:
    """For each class, the share of its rows that are found. Shape (classes,)."""
    table = _read_confusion(confusion)
    return _ratio(np.diag(table), table.sum(axis=1))


def f1(confusion: npt.ArrayLike) -> Array:
    """For each class, twice the hits over rows and predictions together. Shape (classes,)."""
    table = _read_confusion(confusion)
    return _ratio(2 * np.diag(table), table.sum(axis=0) + table.sum(axis=1))


def _read_confusion(confusion: npt.ArrayLike) -> Array:
    table = read(confusion, "confusion")
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise InvalidInput(f"confusion matrix of shape {table.shape}: expected a square one")
    return table


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Array:
    above, below = np.asarray(above, dtype="float64"), np.asarray(below, dtype="float64")
    return np.asarray(np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0))


# -- scores: histograms of negatives and positives on the same ascending bins, shape (bins,) ------------------------


def auc(negative: npt.ArrayLike, positive: npt.ArrayLike) -> Binned:
    """Area under the ROC curve: chance that a positive scores above a negative, those of one bin for half.

    The scores' own area is off by no more than half the share of pairs that fall into one bin.
    """
    below, above = read_scores(negative, positive)
    pairs = float(below.sum() * above.sum())
    if not pairs:
        return Binned(float("nan"), float("nan"), float("nan"))
    tied = float((below * above).sum()) / pairs
    wins = float((above * (np.cumsum(below) - below)).sum()) / pairs
    return Binned(wins + tied / 2, wins, wins + tied)


def log_loss(
    negative: npt.ArrayLike, positive: npt.ArrayLike, edges: npt.ArrayLike, means: npt.ArrayLike | None = None
) -> Binned:
    """Mean of -ln(score of what came true), in nats; ``edges`` (bins + 1,) are the bins' bounds, from 0 to 1.

    The value takes each row's score as the mean of its bin: ``means``, shape (bins,), else the middle of the bin.
    """
    return _mean_loss(negative, positive, edges, means, lambda s: -np.log(np.maximum(s, CLIP)))


def brier(
    negative: npt.ArrayLike, positive: npt.ArrayLike, edges: npt.ArrayLike, means: npt.ArrayLike | None = None
) -> Binned:
    """Mean of (score - truth)^2; arguments as of ``log_loss``."""
    return _mean_loss(negative, positive, edges, means, lambda s: (1 - s) ** 2)


def _mean_loss(
    negative: npt.ArrayLike,
    positive: npt.ArrayLike,
    edges: npt.ArrayLike,
    means: npt.ArrayLike | None,
    loss: Callable[[Array], Array],
) -> Binned:
    """The mean of ``loss``, a falling function of the score of what came true, with its bounds over the bins."""
    below, above = read_scores(negative, positive)
    bounds = np.asarray(edges, dtype="float64")
    if bounds.shape != (len(below) + 1,) or (np.diff(bounds) < 0).any() or bounds[0] < 0 or bounds[-1] > 1:
        raise InvalidInput(f"bounds of {len(below)} bins: expected {len(below) + 1} numbers that ascend from 0 to 1")
    low, high, rows = bounds[:-1], bounds[1:], below.sum() + above.sum()
    middle = (low + high) / 2 if means is None else np.asarray(means, dtype="float64")

    def mean(of_negatives: Array, of_positives: Array) -> float:
        return float(_ratio((below * loss(1 - of_negatives)).sum() + (above * loss(of_positives)).sum(), rows))

    return Binned(mean(middle, middle), mean(low, high), mean(high, low))


def calibration_error(negative: npt.ArrayLike, positive: npt.ArrayLike, means: npt.ArrayLike) -> tuple[float, float]:
    """(expected, largest) calibration error: how far the share of positives in a bin is from its mean score.

    The mean over rows, and the maximum over bins (Naeini, Cooper, Hauskrecht 2015). ``means``: shape (bins,).
    """
    below, above = read_scores(negative, positive)
    rows, scores = below + above, np.asarray(means, dtype="float64")
    if not rows.sum():
        return float("nan"), float("nan")
    used = rows > 0
    gaps = np.abs(above[used] / rows[used] - scores[used])
    return float((gaps * rows[used]).sum() / rows.sum()), float(gaps.max())


def read_scores(negative: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Array, Array]:
    """Weights rather than counts are taken too: the expected counts of ``expected`` are fractions."""
    below, above = np.asarray(negative, dtype="float64"), np.asarray(positive, dtype="float64")
    if below.ndim != 1 or below.shape != above.shape or not ((below >= 0) & (above >= 0)).all():
        raise InvalidInput(
            f"score histograms of shapes {below.shape} and {above.shape}: expected counts on the same bins"
        )
    return below, above


# -- numbers: sums over rows ----------------------------------------------------------------------------------------


class Regression(NamedTuple):
    mse: float
    rmse: float
    mae: float
    r2: float


def regression(rows: int, absolute: float, squared: float, total: float, squares: float) -> Regression:
    """Errors from sums over ``rows`` of |error|, error^2, truth and truth^2, in the units of the target.

    R2 = 1 - squared / (squares - total^2 / rows). Take truth less a constant, such as the reference's mean: where the
    mean is large beside the spread, the difference of the sums has no digits left.
    """
    if rows < 1:
        return Regression(*[float("nan")] * 4)
    spread = squares - total * total / rows
    r2 = 1 - squared / spread if spread > 0 else float("nan")
    return Regression(squared / rows, (squared / rows) ** 0.5, absolute / rows, r2)
