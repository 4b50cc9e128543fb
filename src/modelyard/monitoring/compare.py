"""A look beside its reference: which differences matter, and how sure it is that they are real.

Each part of a profile is asked a few questions: is it distributed as in the reference, are as many values missing, are
there texts or types that the reference does not have. The answer is an effect with bounds and a p-value, and both carry
the reference's own size. The effect is asked for first, as it costs little and most often settles the matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from modelyard.monitoring.rules import DriftRules
from modelyard.profile import Counts, Profile
from modelyard.schema import Array
from modelyard.statistics import distances, effects, twosample
from modelyard.statistics.effects import Effect

Measure = Literal["ks", "psi", "share"]

#: Bounds of an effect hold with this confidence, both ends together.
ALPHA = 0.05


class Question(NamedTuple):
    """One thing asked of one part: two histograms on the same cells, or shares as [those, the rest]."""

    kind: str
    name: str
    measure: Measure
    #: What the lower bound of the effect must exceed to matter.
    floor: float
    reference: Sequence[int]
    live: Sequence[int]

    @property
    def rows(self) -> tuple[int, int]:
        """Rows of the reference and of the look."""
        return sum(self.reference), sum(self.live)

    def value(self) -> float:
        """The effect itself, without bounds; NaN where one side has no rows."""
        n, m = self.rows
        if not n or not m:
            return float("nan")
        if self.measure == "share":
            change = self.live[0] / m - self.reference[0] / n
            return abs(change) if self.kind == "missing" else change
        if self.measure == "ks":
            return distances.ks(self.reference, self.live)
        ours, theirs = self._joined()
        if len(ours) < 2:
            return 0.0
        return distances.psi(ours, theirs) - distances.psi_null_mean(n, m, len(ours))

    def effect(self) -> Effect:
        """The effect with its bounds. Both sides have rows."""
        n, m = self.rows
        if self.measure == "ks":
            return effects.bound_ks(self.reference, self.live, ALPHA)
        if self.measure == "psi":
            ours, theirs = self._joined()
            return effects.bound_psi(ours, theirs, ALPHA) if len(ours) > 1 else Effect(0.0, 0.0, 0.0)
        seen = effects.bound_difference(self.reference[0], n, self.live[0], m, ALPHA)
        if self.kind == "missing" and seen.value < 0:
            return Effect(-seen.value, -seen.high, -seen.low)
        return seen

    def p(self) -> float:
        """The chance of a difference like this, or larger, if nothing changed."""
        n, m = self.rows
        if self.measure == "ks":
            return twosample.compare_distributions(self.reference, self.live).p
        if self.measure == "psi":
            return twosample.compare_counts(self.reference, self.live).p
        return twosample.compare_shares(self.reference[0], n, self.live[0], m).p

    def matters(self, value: float | None = None) -> Effect | None:
        """The effect, where its lower bound is above the floor. ``value``: the effect itself, where it is known."""
        if not (self.value() if value is None else value) > self.floor:
            return None
        effect = self.effect()
        return effect if effect.low > self.floor else None

    def _joined(self) -> tuple[Array, Array]:
        return twosample.join_rare(*(np.asarray(side, dtype="float64") for side in (self.reference, self.live)))


def questions(reference: Profile, live: Profile, rules: DriftRules) -> list[Question]:
    """Everything that is asked of a look."""
    asked: list[Question] = []
    for side, theirs in ((reference.inputs, live.inputs), (reference.outputs, live.outputs)):
        for part, seen in zip(side, theirs, strict=True):
            if part.kind != "skipped" and not {part.name, part.field} & set(rules.ignore):
                asked += _of_part(part, seen, _kind(side is reference.inputs, part.field), rules)
    return asked


def _kind(is_input: bool, field: str) -> str:
    return "drift" if is_input else "prediction" if field == "prediction" else "score"


def _of_part(part: Counts, seen: Counts, kind: str, rules: DriftRules) -> list[Question]:
    def share(of: str, counter: str, floor: float) -> Question:
        sides = [[getattr(side, counter), side.total - getattr(side, counter)] for side in (part, seen)]
        return Question(of, part.name, "share", floor, *sides)

    asked = [share("missing", "missing", rules.missing), share("type", "wrong", rules.new)]
    if part.kind == "category":
        if not part.open:
            asked.append(share("category", "unseen", rules.new))
        asked.append(Question(kind, part.name, "psi", rules.psi, cells(part), cells(seen)))
    elif part.maximum is None:  # no reference row had a number here
        asked.append(share("alive", "unseen", rules.new))
    else:
        asked.append(Question(kind, part.name, "ks", rules.ks, cells(part), cells(seen)))
    return asked


def cells(part: Counts) -> list[int]:
    """All values that are there, in cells that are in order where they are numbers."""
    if part.kind == "category":
        return [*part.counts, part.other, part.unseen]
    return [part.below, *part.counts, part.above]


def least_claim(part: Counts, floor: float) -> float:
    """The smallest KS distance of which this reference, however many live rows there are, lets anybody say that it is
    above ``floor``.
    """
    counts = cells(part)
    return floor + effects.bound_ks(counts, [count * 10_000 for count in counts], ALPHA).high
