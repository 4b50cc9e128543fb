"""What accuracy would be if the relationship between inputs and truth were unchanged: known before labels are.

It is no accuracy. It is what a model's own scores promise, corrected by how such promises were kept by the first labels
of the version. Where later labels contradict it, the relationship has changed, whatever the inputs look like.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from modelyard.monitoring.grading import EDGES, Grader, histogram
from modelyard.monitoring.scorecard import scores
from modelyard.registry.cohorts import Cohort, Counts, total
from modelyard.schema import Array
from modelyard.statistics import quality
from modelyard.statistics.confidence import bound_mean
from modelyard.statistics.expected import calibrate

#: What it has to be called wherever it is shown.
TITLE = "expected if the relationship is unchanged"

#: The first labels of a version by which its scores are corrected: all of the cohorts that hold so many.
LEARNED = 1_000


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Expected if the relationship is unchanged, of these predictions; never measured."""

    title: str = TITLE
    rows: int
    accuracy: float | None
    #: Of two classes, those of the second.
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    roc_auc: float | None = None
    #: What scores were corrected by; 0 where they are taken as they are.
    learned_from: int = 0


class Contradiction(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy by labels less what was expected of the same rows, with an interval that holds at all times at once and
    has the uncertainty of the first labels in it.
    """

    rows: int
    learned_from: int
    expected: float
    accuracy: float
    difference: float
    low: float
    high: float


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """How often an answer is right, by predicted class (rows) and bin of its probability."""

    chances: list[list[float]]
    #: The labels that say so, by bin of the score, and of all.
    rows: list[float] = []
    learned_from: int = 0


def learn(cohorts: Sequence[Cohort], grader: Grader, least: int = LEARNED) -> tuple[Promise, int]:
    """How a version's scores are to be read, from its first ripe cohorts, oldest first; and how many of those it took,
    0 where they have fewer labels.
    """
    counts: Counts = {}
    used = 0
    while counts.get("labelled", 0) < least:
        if used == len(cohorts):
            return Promise(chances=_as_they_are(grader).tolist()), 0
        counts = total([counts, cohorts[used].counts])
        used += 1
    width = len(grader.classes)
    negative, positive, _ = scores(counts, width)
    worth = calibrate(negative, positive)
    chances = np.stack([1 - worth[::-1], worth]) if width == 2 else np.tile(worth, (width, 1))
    return Promise(chances=chances.tolist(), rows=(negative + positive).tolist(), learned_from=counts["labelled"]), used


def expect(counts: Counts, grader: Grader, promise: Promise) -> Expected:
    """What is to be expected of predictions, labelled or not."""
    rows, chances = _by_class(counts, grader, "s"), np.array(promise.chances)
    count = rows.sum()
    if not count:
        return Expected(rows=0, accuracy=None)
    accuracy = float((rows * chances).sum() / count)
    found = Expected(rows=int(count), accuracy=accuracy, learned_from=promise.learned_from)
    if len(grader.classes) != 2:
        return found
    hits, alarms = float((rows[1] * chances[1]).sum()), float((rows[1] * (1 - chances[1])).sum())
    missed = float((rows[0] * (1 - chances[0])).sum())
    positive = rows[1] * chances[1] + (rows[0] * (1 - chances[0]))[::-1]
    negative = rows[1] * (1 - chances[1]) + (rows[0] * chances[0])[::-1]
    area = quality.auc(negative, positive).value
    return msgspec.structs.replace(
        found,
        precision=hits / (hits + alarms) if hits + alarms else None,
        recall=hits / (hits + missed) if hits + missed else None,
        f1=2 * hits / (2 * hits + alarms + missed) if hits + alarms + missed else None,
        roc_auc=area if area == area else None,
    )


def contradict(counts: Counts, grader: Grader, promise: Promise, alpha: float) -> Contradiction | None:
    """How labels that were not learned from fit what was expected of their predictions. None where nothing was learned,
    or there are none.
    """
    right, wrong = _by_class(counts, grader, "r"), _by_class(counts, grader, "w")
    rows, chances = right + wrong, np.array(promise.chances)
    count = float(rows.sum())
    if not promise.learned_from or not count:
        return None
    expected, accuracy = float((rows * chances).sum() / count), float(right.sum() / count)
    difference = accuracy - expected
    squares = float((right * (1 - chances) ** 2 + wrong * chances**2).sum() / count)
    reach = float(bound_mean(count, 0.0, squares - difference**2, alpha / 2)[1])
    # The chances themselves are known from few labels: each bin's by its share of these rows.
    known, shares = np.array(promise.rows), rows / count
    of_bins = (shares[0][::-1] + shares[1], chances[1]) if len(rows) == 2 else (shares.sum(axis=0), chances[0])
    spread = float((of_bins[0] ** 2 * of_bins[1] * (1 - of_bins[1]) / np.maximum(known, 1.0)).sum())
    reach += float(bound_mean(promise.learned_from, 0.0, spread * promise.learned_from, alpha / 2)[1])
    return Contradiction(
        rows=int(count), learned_from=promise.learned_from, expected=expected, accuracy=accuracy,
        difference=difference, low=difference - reach, high=difference + reach,
    )  # fmt: skip


def _by_class(counts: Counts, grader: Grader, name: str) -> Array:
    """Rows by predicted class and bin: shape (classes, bins)."""
    return np.array([histogram(counts, f"{name}.{place}") for place in range(len(grader.classes))])


def _as_they_are(grader: Grader) -> Array:
    """Scores that are chances."""
    middles = (np.array(EDGES[:-1]) + np.array(EDGES[1:])) / 2
    return np.tile(middles, (len(grader.classes), 1))
