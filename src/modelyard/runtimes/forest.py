"""Boosted trees as plain arrays, read off XGBoost's and LightGBM's own model files.

Converters that go through float32 move rows over thresholds. Here every decision is kept: XGBoost rounds a value to
float32 and asks ``x < t``, LightGBM asks ``x <= t`` in double; both become ``x <= limit`` on the untouched double.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from modelyard.schema import Array

#: Comparison of a node: value <= split, or value is a member of a set.
LEQ, MEMBER = 0, 6


class NoForest(Exception):
    """The booster has no exact form as trees; the message says why."""


@dataclass
class Tree:
    """One tree as arrays over its nodes; node 0 is the root, and a leaf has ``left`` -1.

    A value <= ``threshold`` goes left, a missing one (NaN) where ``missing_left`` says. ``members`` maps a node to
    the category codes that go left instead. ``leaves``: (nodes,) what each leaf adds to ``target``.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    leaves: Array
    target: int = 0
    members: dict[int, Array] = field(default_factory=dict)


@dataclass
class Forest:
    """Trees, and what becomes of the sum of their leaves (its *raw* scores, one column for each target)."""

    trees: list[Tree]
    #: (targets,) what the scores start from.
    base: Array
    #: ``identity``, ``sigmoid``, ``softmax``, ``exp``, ``square`` (with the sign kept) or ``softplus``.
    link: str = "identity"
    #: Factor on the raw scores inside a sigmoid.
    slope: float = 1.0
    #: Class labels in order; None for a regression. Two classes have one target, the score of the second.
    classes: Array | None = None
    #: Whether classes have probabilities, or labels only.
    has_probabilities: bool = True
    #: This value stands for a missing one, besides NaN.
    missing: float | None = None
    #: Zeros (at most 1e-35 in magnitude) are missing as well.
    zero_is_missing: bool = False

    @property
    def targets(self) -> int:
        return len(self.base)


def float32_limits(thresholds: Array) -> Array:
    """For each float32 t the largest double x with float32(x) < t, rounding to nearest, ties to even."""
    t = np.asarray(thresholds, dtype="float32")
    with np.errstate(over="ignore"):
        below = np.nextafter(t, np.float32(-np.inf))
    middle = (below.astype("float64") + t.astype("float64")) / 2
    even = (below.view("uint32") & 1) == 0  # then the tie in the middle rounds down, below t
    limits = np.where(even, middle, np.nextafter(middle, -np.inf))
    # Below the least float32 lies half a step that still rounds to it, and its end rounds to minus infinity.
    return np.asarray(np.where(np.isfinite(below), limits, -(2.0**128 - 2.0**103)))
