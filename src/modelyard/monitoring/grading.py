"""What a prediction, and its label once it is known, add to their cohort: integers only.

Of a classifier: right and wrong by class and by how sure the model was, and sums of losses. Of a regression: sums of
powers of errors and truths in a unit that is frozen with the version. All that ``accuracy`` tells comes from these.

    rows, labelled, delay.B      predictions; those whose label is known; labels by how late they came
    right, c.T.P                 labelled rows whose class was right; rows by true and predicted class
    s.P.B, r.P.B, w.P.B          rows, right ones and wrong ones, by predicted class and the bin of its probability
    m.P.B                        sum of the probabilities of the labelled ones, in billionths
    p.K.B, n.K.B                 of more than two classes: rows of class K and others by the bin of its probability
    log, log2, brier, brier2     sums of losses and of their squares, in billionths
    gap2                         sum of the squares of (1 where it was right, else 0) - probability
    abs, e1, e2, e4, t1 .. t4    of numbers, sums of |error|, error, error^2, error^4, truth .. truth^4
    u1, u2                       and of error^2 truth, error^2 truth^2
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.registry.cohorts import Counts
from modelyard.schema import Array
from modelyard.statistics.quality import CLIP
from modelyard.truth import PREDICTION, PROBABILITIES, Truth

if TYPE_CHECKING:
    from modelyard.bundle import Bundle

#: Inner bounds of the bins of probabilities: every 0.02, and finer towards 0 and 1. They mirror each other at 0.5.
_TAIL = [digit * 10.0**power for power in (-6, -5, -4, -3) for digit in (1, 2, 5)] + [0.01]
_LOWER = [*_TAIL, *(step / 50 for step in range(1, 25))]
INNER: tuple[float, ...] = (*_LOWER, 0.5, *(1 - bound for bound in reversed(_LOWER)))
#: All bounds of the bins, shape (bins + 1,).
EDGES: tuple[float, ...] = (0.0, *INNER, 1.0)
BINS = len(EDGES) - 1

#: Probabilities and losses are counted in billionths.
BILLION = 10**9

#: Errors and truths further away, in units, count as this far: a million times the range that the reference has.
FURTHEST = 2.0**40

#: Of more classes, no matrix and no histograms are kept.
MOST_CLASSES = 30

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Upper bounds of the bins of delays in seconds; what comes later is in one more bin.
DELAYS: tuple[int, ...] = (
    _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, *(h * _HOUR for h in (1, 2, 3, 6, 9, 12, 18)),
    *(d * _DAY for d in (1, 2, 3, 4, 5, 6, 7, 10, 14, 21, 28, 35, 42, 49, 56, 70, 90, 120, 150, 180, 270, 365)),
)  # fmt: skip


class Answers(NamedTuple):
    """What was predicted, a row each. Rows whose outputs are no answer are not here."""

    #: Index of the predicted class, or the number.
    predicted: Array
    #: Shape (rows, classes), or None where the model gives none.
    probabilities: Array | None


class Grader:
    """Grades the predictions of one version."""

    def __init__(
        self, truth: Truth, *, has_probabilities: bool = False, unit: float = 1.0, centre: float = 0.0
    ) -> None:
        self.truth = truth
        self.is_regression = truth.task == "regression"
        self.classes = truth.classes
        self.has_probabilities = has_probabilities
        #: Errors and truths are counted in this unit, truths from this centre on; the unit is a power of two.
        self.unit = unit
        self.centre = centre
        self._places = {name: place for place, name in enumerate(self.classes)}

    @classmethod
    def of(cls, bundle: Bundle) -> Grader:
        """The grader of a version. Raises InvalidInput where no label is about what it predicts."""
        manifest = bundle.manifest
        truth = Truth.of(manifest.task, [manifest.signature])
        unit, centre = 1.0, 0.0
        if truth.task == "regression":
            parts = [part for part in bundle.profile().outputs if part.field == PREDICTION]
            if parts and parts[0].edges and parts[0].maximum is not None:
                low, high = parts[0].edges[0], parts[0].maximum
                width = high - low or abs(high) or 1.0
                unit = 2.0 ** (math.floor(math.log2(width)) - 20)
                centre = round((low + high) / 2 / unit) * unit
        has_probabilities = any(f.name == PROBABILITIES for f in manifest.signature.outputs)
        return cls(truth, has_probabilities=has_probabilities, unit=unit, centre=centre)

    def read(self, predicted: Sequence[Any], probabilities: Sequence[Any] | Array | None) -> tuple[Array, Answers]:
        """What a model answered, as columns; first which rows hold an answer."""
        if self.is_regression:
            numbers = np.array([math.nan if v is None else v for v in predicted], dtype="float64")
            fine = np.isfinite(numbers)
            return fine, Answers(numbers[fine], None)
        known = {value: self._place_of_value(value) for value in set(predicted)}
        places = np.array([known[value] for value in predicted], dtype="int64")
        fine = places >= 0
        matrix = None
        if self.has_probabilities and probabilities is not None:
            width = len(self.classes)
            if not isinstance(probabilities, np.ndarray) or probabilities.shape[1] != width:
                rows = [row if row is not None and len(row) == width else [None] * width for row in probabilities]
                probabilities = np.array(rows, dtype="float64").reshape(len(rows), width)  # None is NaN
            matrix = np.asarray(probabilities, dtype="float64")
            fine &= np.isfinite(matrix).all(axis=1)
        return fine, Answers(places[fine], None if matrix is None else matrix[fine].clip(0.0, 1.0))

    def _place_of_value(self, value: Any) -> int:
        """The place of a predicted class; -1 of what is none."""
        try:
            return self._place(self.truth.read(value))
        except InvalidInput:
            return -1

    def _place(self, name: str) -> int:
        """The place of a class; one that the version does not know comes after all others."""
        if not self.classes:  # the model names none: any number will do that is the same for the same class
            return zlib.crc32(name.encode())
        return self._places.get(name, len(self.classes))

    # -- counting ------------------------------------------------------------------------------------------------

    def count(self, answers: Answers) -> Counts:
        """What predictions add before any label is known."""
        counts: Counts = {"rows": len(answers.predicted)}
        if answers.probabilities is not None:
            sure = _chosen(answers)
            counts |= _tally("s", answers.predicted, _bins(sure))
        return {name: count for name, count in counts.items() if count}

    def grade(self, answers: Answers, labels: Sequence[str], delays: Sequence[float] | None = None) -> Counts:
        """What labels add to their predictions; ``delays`` are the seconds that each took to come."""
        counts: Counts = {"labelled": len(labels)}
        if delays is not None:
            counts |= _tally("delay", np.searchsorted(DELAYS, np.asarray(delays, dtype="float64"), side="left"))
        if self.is_regression:
            counts |= self._errors(answers.predicted, labels)
        else:
            counts |= self._classes(answers, np.array([self._place(label) for label in labels], dtype="int64"))
        return {name: count for name, count in counts.items() if count}

    def _errors(self, predicted: Array, labels: Sequence[str]) -> Counts:
        sums: Counter[str] = Counter()
        for number, label in zip(predicted.tolist(), labels, strict=True):
            truth = float(label)
            e, t = _whole((number - truth) / self.unit), _whole((truth - self.centre) / self.unit)
            square = e * e
            sums.update({
                "abs": abs(e), "e1": e, "e2": square, "e4": square * square, "t1": t, "t2": t * t, "t3": t**3,
                "t4": t**4, "u1": square * t, "u2": square * t * t,
            })  # fmt: skip
        return dict(sums)

    def _classes(self, answers: Answers, truths: Array) -> Counts:
        predicted, p = answers
        right = truths == predicted
        counts: Counts = {"right": int(right.sum())}
        if 0 < len(self.classes) <= MOST_CLASSES:
            counts |= _tally("c", truths, predicted)
        if p is None:
            return counts
        sure = _chosen(answers)
        bins = _bins(sure)
        counts |= _tally("r", predicted[right], bins[right]) | _tally("w", predicted[~right], bins[~right])
        counts |= _tally("m", predicted, bins, weights=np.rint(sure * BILLION).astype("int64"))
        width = p.shape[1]
        is_class = truths[:, None] == np.arange(width)
        losses = -np.log(np.maximum(np.where(is_class, p, 0.0).sum(axis=1), CLIP))
        squares = ((p - is_class) ** 2).sum(axis=1) / (2 if width == 2 else 1)
        counts |= _sums("log", losses) | _sums("brier", squares)
        counts["gap2"] = _sums("gap", right - sure)["gap2"]
        if 2 < width <= MOST_CLASSES:
            for place in range(width):
                of = _bins(p[:, place])
                counts |= _tally(f"p.{place}", of[is_class[:, place]]) | _tally(f"n.{place}", of[~is_class[:, place]])
        return counts


def _whole(number: float) -> int:
    return round(min(max(number, -FURTHEST), FURTHEST))


def _chosen(answers: Answers) -> Array:
    """How probable the predicted class is; 0 where the version does not know it."""
    assert answers.probabilities is not None
    width = answers.probabilities.shape[1]
    known = answers.predicted < width
    found = answers.probabilities[np.arange(len(known)), np.where(known, answers.predicted, 0)]
    return np.where(known, found, 0.0)


def _bins(scores: Array) -> Array:
    return np.searchsorted(INNER, scores, side="right")


def _tally(name: str, *places: Array, weights: Array | None = None) -> Counts:
    """Rows, or the sums of their ``weights``, by places: ``name.1.17`` and how many."""
    if not len(places[0]):
        return {}
    distinct, which, counts = np.unique(np.stack(places, axis=1), axis=0, return_inverse=True, return_counts=True)
    if weights is not None:
        counts = np.zeros(len(distinct), dtype="int64")
        np.add.at(counts, which.ravel(), weights)
    named = (f"{name}.{'.'.join(map(str, place))}" for place in distinct.tolist())
    return dict(zip(named, counts.tolist(), strict=True))


def _sums(name: str, values: Array) -> Counts:
    """The sum of values and that of their squares, each value a whole number of billionths: exact."""
    whole = np.rint(values * BILLION).astype("int64").tolist()
    return {name: sum(whole), f"{name}2": sum(value * value for value in whole)}


def histogram(counts: Mapping[str, int], name: str, bins: int = BINS) -> Array:
    """The counts called ``name.0``, ``name.1`` ... Shape (bins,)."""
    found = np.zeros(bins)
    for place in range(bins):
        found[place] = counts.get(f"{name}.{place}", 0)
    return found
