"""Metrics with bootstrap intervals.

Every metric is written for weighted rows: a resample of the bootstrap is a row of counts, so that all resamples are
computed at once as matrix products. With all weights 1 the values are those of ``sklearn.metrics``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import NotFound
from modelyard.schema import Array

RESAMPLES = 1000
#: Cells of the matrix of weights that are held at once.
_CELLS = 4_000_000
#: Of many classes, curves are not resampled this often.
_FEW_RESAMPLES = 200

TITLES = {
    "roc_auc": "ROC AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "f1_macro": "F1, macro",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
}
#: Metrics where less is better.
LOSSES = ("log_loss", "brier", "rmse", "mae", "mse")
REGRESSION = ("r2", "rmse", "mae", "mse")
SHARES = ("roc_auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "f1_macro")
CLASSIFICATION = (
    "roc_auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "f1_macro", "log_loss", "brier",
)  # fmt: skip


class Estimate(msgspec.Struct, frozen=True):
    """A metric on held-out rows with its 95% interval, and what the baseline reaches."""

    value: float
    low: float
    high: float
    baseline: float


@dataclass(frozen=True)
class Answers:
    """What a model says on some rows: predictions (rows,), and for classes their probabilities (rows, classes)."""

    predicted: Array
    probabilities: Array | None = None


def title_of(metric: str, classes: Sequence[Any] | None) -> str:
    """What a metric is called, with the class that it is of: ``Recall of yes``."""
    if classes and metric in ("precision", "recall", "f1"):
        return TITLES[metric] + (f" of {classes[1]}" if len(classes) == 2 else ", mean of the classes")
    return TITLES[metric]


def default_metric(is_classification: bool, classes: int) -> str:
    """The metric that candidates are compared by unless another is asked for."""
    if not is_classification:
        return "rmse"
    return "roc_auc" if classes == 2 else "log_loss"


def check_metric(name: str, is_classification: bool) -> str:
    """``name`` if it fits the task. Raises NotFound."""
    known = CLASSIFICATION if is_classification else REGRESSION
    if name not in known:
        raise NotFound.among("metric", name, known)
    return name


def better(metric: str, one: float, other: float) -> bool:
    """Whether ``one`` is better than ``other``."""
    return one < other if metric in LOSSES else one > other


class Measure:
    """The metrics of one model on one set of rows. ``at(weights)`` gives each for every row of weights."""

    def __init__(self, truth: Array, answers: Answers, classes: Sequence[Any] | None) -> None:
        self.rows = len(truth)
        self.classes = classes
        if classes is None:
            self.truth, self.error = truth, answers.predicted - truth
            return
        from scipy import sparse

        assert answers.probabilities is not None
        labels = np.asarray(classes, dtype=object if truth.dtype == object else None)
        place = {label: i for i, label in enumerate(labels.tolist())}
        self.index = np.array([place[v] for v in truth.tolist()])
        said = np.array([place[v] for v in answers.predicted.tolist()])
        self.correct = (self.index == said).astype("float64")
        shape, rows = (self.rows, len(classes)), np.arange(self.rows)
        self.true_of = sparse.csr_array((np.ones(self.rows), (rows, self.index)), shape=shape)
        self.said_of = sparse.csr_array((np.ones(self.rows), (rows, said)), shape=shape)
        self.hit_of = sparse.csr_array((self.correct, (rows, self.index)), shape=shape)
        p = answers.probabilities
        self.probabilities = p
        self.log_loss = -np.log(np.clip(p[rows, self.index], 1e-15, None))
        square = ((p - self.true_of.toarray()) ** 2).sum(axis=1)
        self.brier = square / 2 if len(classes) == 2 else square

    def at(self, weights: Array) -> dict[str, Array]:
        """Each metric as an array of shape (resamples,) for ``weights`` of shape (resamples, rows)."""
        total = weights.sum(axis=1)
        if self.classes is None:
            mse = weights @ self.error**2 / total
            mean = weights @ self.truth / total
            spread = weights @ self.truth**2 / total - mean**2
            with np.errstate(divide="ignore", invalid="ignore"):
                r2 = np.where(spread > 0, 1 - mse / spread, np.nan)
            return {"r2": r2, "rmse": np.sqrt(mse), "mae": weights @ np.abs(self.error) / total, "mse": mse}
        found = {
            "accuracy": weights @ self.correct / total,
            "log_loss": weights @ self.log_loss / total,
            "brier": weights @ self.brier / total,
        }
        each = self.per_class(weights)
        found["balanced_accuracy"] = _mean(each["recall"], each["present"])
        if len(self.classes) == 2:
            found.update({name: each[name][:, 1] for name in ("precision", "recall", "f1")})
            found["f1_macro"] = each["f1"].mean(axis=1)
            found["roc_auc"] = area(self.probabilities[:, 1], self.index == 1, weights)
        else:
            found.update({name: each[name].mean(axis=1) for name in ("precision", "recall", "f1")})
            found["f1_macro"] = found["f1"]
            areas = [area(self.probabilities[:, i], self.index == i, weights) for i in range(len(self.classes))]
            found["roc_auc"] = np.mean(areas, axis=0)
        return found

    def per_class(self, weights: Array) -> dict[str, Array]:
        """Precision, recall and F1 of shape (resamples, classes); 0 where there is nothing to divide by."""
        hit, true, said = ((kind.T @ weights.T).T for kind in (self.hit_of, self.true_of, self.said_of))
        return {
            "precision": _ratio(hit, said),
            "recall": _ratio(hit, true),
            "f1": _ratio(2 * hit, true + said),
            "present": true > 0,
        }

    def point(self) -> dict[str, float]:
        """The metrics themselves."""
        return {name: float(values[0]) for name, values in self.at(np.ones((1, self.rows))).items()}


def _ratio(above: Array, below: Array) -> Array:
    ratio: Array = np.divide(above, below, out=np.zeros_like(above, dtype="float64"), where=below > 0)
    return ratio


def _mean(values: Array, where: Array) -> Array:
    mean: Array = np.where(where, values, 0).sum(axis=1) / np.maximum(where.sum(axis=1), 1)
    return mean


def area(scores: Array, positive: Array, weights: Array) -> Array:
    """Area under the ROC curve, ties counted half; NaN where one side has no weight. Shape (resamples,)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sorted_weights, sorted_positive = weights[:, order], positive[order]
    above = np.add.reduceat(sorted_weights * sorted_positive, starts, axis=1)
    below = np.add.reduceat(sorted_weights * ~sorted_positive, starts, axis=1)
    before = np.cumsum(below, axis=1) - below
    pairs = above.sum(axis=1) * below.sum(axis=1)
    won = (above * (before + below / 2)).sum(axis=1)
    found: Array = np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return found


@dataclass
class Judgement:
    """How a model does on held-out rows, against the baseline."""

    estimates: dict[str, Estimate]
    #: label -> metric -> estimate; empty for regression.
    per_class: dict[str, dict[str, Estimate]]
    #: 95% interval of how much better than the baseline it is, by the metric of the comparison.
    gain: tuple[float, float]
    beats_baseline: bool


def judge(
    truth: Array, answers: Answers, baseline: Answers, classes: Sequence[Any] | None, metric: str, seed: int
) -> Judgement:
    """Metrics with percentile intervals over resampled rows; model and baseline are resampled together."""
    model, floor = Measure(truth, answers, classes), Measure(truth, baseline, classes)
    drawn = RESAMPLES if classes is None or len(classes) <= 10 else _FEW_RESAMPLES
    names = REGRESSION if classes is None else CLASSIFICATION
    samples: dict[str, list[Array]] = {name: [] for name in names}
    each: dict[str, list[Array]] = {name: [] for name in ("precision", "recall", "f1")}
    gains = []
    for weights in resamples(len(truth), drawn, seed):
        found, guessed = model.at(weights), floor.at(weights)
        for name in names:
            samples[name].append(found[name])
        gain = found[metric] - guessed[metric]
        gains.append(-gain if metric in LOSSES else gain)
        if classes is not None:
            for name, values in model.per_class(weights).items():
                if name in each:
                    each[name].append(values)
    point, guess = model.point(), floor.point()
    low, high = interval(np.concatenate(gains))
    per_class: dict[str, dict[str, Estimate]] = {}
    rarest = len(truth)
    if classes is not None:
        ones = np.ones((1, len(truth)))
        mine, theirs = model.per_class(ones), floor.per_class(ones)
        members = np.bincount(model.index, minlength=len(classes))
        rarest = int(members[members > 0].min())
        for i, label in enumerate(classes):
            per_class[str(label)] = {
                name: Estimate(
                    float(mine[name][0, i]),
                    *share_interval(np.concatenate([v[:, i] for v in each[name]]), int(members[i])),
                    float(theirs[name][0, i]),
                )
                for name in each
            }
    estimates = {}
    for name in names:
        drawn_values = np.concatenate(samples[name])
        # A metric over classes is as sure as the class with the fewest rows lets it be.
        trials = len(truth) if name == "accuracy" else rarest
        between = share_interval(drawn_values, trials) if name in SHARES else interval(drawn_values)
        estimates[name] = Estimate(point[name], *between, guess[name])
    return Judgement(estimates, per_class, (low, high), low > 0)


def resamples(rows: int, count: int, seed: int) -> Any:
    """``count`` bootstrap resamples of ``rows`` rows as counts, in pieces of shape (some, rows)."""
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // rows)
    for start in range(0, count, step):
        some = min(step, count - start)
        drawn = random.integers(0, rows, (some, rows)) + np.arange(some)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows).astype("float64")


def interval(values: Array) -> tuple[float, float]:
    """The middle 95% of ``values``; NaN where there are none."""
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def share_interval(values: Array, trials: int) -> tuple[float, float]:
    """The interval of a metric between 0 and 1, resampled as ``values``, where ``trials`` rows speak of it.

    Rows that are all right stay all right however they are resampled, which would claim certainty. The interval is
    then that of ``trials`` successes in as many trials: from (0.05 / 2) ** (1 / trials) to 1 (Clopper and Pearson
    1934); the same from 0 where all are wrong.
    """
    low, high = interval(values)
    if low == high and trials > 0:
        missed = 1 - 0.025 ** (1 / trials)
        if low == 1:
            return 1 - missed, 1.0
        if high == 0:
            return 0.0, missed
    return low, high


def calibration(truth: Array, answers: Answers, classes: Sequence[Any], bins: int = 10) -> list[dict[str, float]]:
    """Of rows grouped by how probable the model said: the mean of what it said, the share that came true, the count.

    Two classes: of the second class. More: of the class that it chose.
    """
    assert answers.probabilities is not None
    if len(classes) == 2:
        said = answers.probabilities[:, 1]
        true = np.array([v == classes[1] for v in truth.tolist()])
    else:
        said = answers.probabilities.max(axis=1)
        true = truth == answers.predicted
    order = np.argsort(said, kind="stable")
    groups = np.array_split(order, max(1, min(bins, len(said) // 5)))
    return [
        {"said": float(said[g].mean()), "true": float(true[g].mean()), "rows": float(len(g))} for g in groups if len(g)
    ]


def confusion(truth: Array, predicted: Array, classes: Sequence[Any]) -> list[list[int]]:
    """Counts, a row for each true class, a column for each predicted one."""
    place = {label: i for i, label in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype="int64")
    np.add.at(counts, ([place[v] for v in truth.tolist()], [place[v] for v in predicted.tolist()]), 1)
    listed: list[list[int]] = counts.tolist()
    return listed
