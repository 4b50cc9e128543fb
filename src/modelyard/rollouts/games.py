"""Evidence of harm, and that harm is tolerable, from events of two arms in several strata.

A stratum is the time in which one share was in force. Given that something bad happened there, it happened in the
candidate with chance q = theta r / (theta r + 1 - r) if bad events are theta times as frequent in it, so that the same
counts are evidence against any theta (``statistics.sequential``), whatever the rates are and however they change.
Harm is the difference of the rates, p1 - p0 = (theta - 1) p0. Arrays have shape (strata, events) or (events,).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from modelyard.schema import Array
from modelyard.statistics import special
from modelyard.statistics.confidence import PRIOR
from modelyard.statistics.sequential import CAPITAL, RATIOS, log_beta_binomial, log_gains

_RATIOS, _CAPITAL = np.array(RATIOS), np.log(CAPITAL)
#: Bets against a tolerance, which is a ratio ``null`` not far above 1: by how many times it is broken; where between 1
#: and it the truth lies, as powers of it; and that the candidate is better.
_BEYOND, _POWERS, _BETTER = np.geomspace(1.05, 12, 12), np.array([0.75, 0.5, 0.25, 0.0]), np.array([0.7, 0.4])
#: See ``log_harm_beyond``.
BEYOND_COST = -math.log(0.8)
#: Rates below this are not told apart.
_LEAST = 1e-7


class Counted(NamedTuple):
    """Events of both arms. ``n`` and ``stable_n`` are the trials of all strata, by event."""

    names: tuple[str, ...]
    chances: tuple[float, ...]
    bad: Array
    stable_bad: Array
    n: Array
    stable_n: Array

    @property
    def rates(self) -> tuple[Array, Array]:
        """Of the candidate and of the stable version, all strata together."""
        return self.bad.sum(0) / np.maximum(self.n, 1), self.stable_bad.sum(0) / np.maximum(self.stable_n, 1)

    def less(self, before: Counted) -> Counted:
        """What came after ``before``, which has the same strata."""
        parts = (a - b for a, b in zip(self[2:], before[2:], strict=True))
        return Counted(self.names, self.chances, *parts)


def log_harm(counted: Counted) -> Array:
    """ln of the evidence, by event, that it is more frequent in the candidate."""
    if not counted.chances:
        return np.zeros(len(counted.names))
    up, down = _gains(counted.chances)
    return special.log_sum(counted.bad.T @ up + counted.stable_bad.T @ down + _CAPITAL)


def log_better(counted: Counted) -> Array:
    """ln of the evidence, by event, that it is less frequent in the candidate: the same game, the other way round."""
    chances = tuple(1 - r for r in counted.chances)
    return log_harm(counted._replace(chances=chances, bad=counted.stable_bad, stable_bad=counted.bad))


def log_harm_beyond(counted: Counted, whole: Counted, tolerance: float, level: float) -> Array:
    """ln of the evidence, by event, that it is more frequent by more than ``tolerance``. For a ``level`` it takes
    ``BEYOND_COST`` more: a fifth of its chance is spent on how low the stable rates may be, by all that was seen
    (``whole``), because they make a ratio of the tolerance.
    """
    if not counted.chances:
        return np.zeros(len(counted.names))
    low = floor_of(whole.stable_bad.sum(0), whole.stable_n, level + math.log(5 * len(whole.names)))
    null = 1 + tolerance / np.maximum(low, _LEAST)
    return _log_bets(counted, null, null[:, None] * _BEYOND)


def is_below(counted: Counted, tolerance: Array | float, claim: float) -> Array:
    """Whether it is shown, by event, that it is at most ``tolerance`` more frequent; wrongly with chance ``claim``.

    Either the candidate's own rate is below it, or its ratio to the stable rate is, at the highest that this may be.
    """
    level = math.log(3 / claim)
    bad, n = counted.bad.sum(0), counted.n
    limit = np.minimum(tolerance, 1.0) * np.ones(len(counted.names))
    alone = (bad < limit * n) & (log_beta_binomial(bad, n, np.minimum(limit, 1 - 1e-9), PRIOR, PRIOR) > level)
    alone |= (limit >= 1) & (n > 0)
    if alone.all() or not counted.chances:
        return np.asarray(alone)
    high = 1 - floor_of(counted.stable_n - counted.stable_bad.sum(0), counted.stable_n, level)
    null = 1 + limit / np.maximum(high, _LEAST)
    bets = np.concatenate([null[:, None] ** _POWERS, np.tile(_BETTER, (len(null), 1))], axis=1)
    return np.asarray(alone | ((n > 0) & (_log_bets(counted, null, bets) > level)))


def at_most(counted: Counted, claim: float) -> Array:
    """The smallest harm, by event, that it is shown to be below, within 2 %; 1 where none is."""
    low, high = np.full(len(counted.names), math.log(1e-6)), np.zeros(len(counted.names))
    for _ in range(10):
        middle = (low + high) / 2
        holds = is_below(counted, np.exp(middle), claim)
        low, high = np.where(holds, low, middle), np.where(holds, middle, high)
    return np.exp(high)


def floor_of(k: Array, n: Array, level: float) -> Array:
    """A rate that the true one is above, at all times at once but with chance exp(-level), from ``k`` of ``n``.

    Wilson's limit with the price of looking always, moved down until the evidence against it is there
    (``statistics.confidence.bound_rate`` finds the highest such rate, much more slowly).
    """
    n = np.maximum(n, 1.0)
    p, spread = k / n, 2 * (level + 0.5 * np.log(n) + 1)
    for _ in range(40):
        half = spread / (2 * n)
        low = (p + half - np.sqrt(2 * half * p * (1 - p) + half * half)) / (1 + 2 * half)
        low = np.where(k > 0, np.maximum(low, 1e-12), 0.0)
        short = (k > 0) & (log_beta_binomial(k, n, np.where(k > 0, low, 0.5), PRIOR, PRIOR) < level)
        if not short.any():
            return np.asarray(low)
        spread = np.where(short, spread * 1.2, spread)
    return np.where(short, 0.0, low)


def _log_bets(counted: Counted, null: Array, ratios: Array) -> Array:
    """ln of the mean wealth of bets on ``ratios``, shape (events, bets), against ``null``, shape (events,)."""
    shares = np.array(counted.chances)[:, None, None]
    up, down = log_gains(shares, ratios, null[:, None])
    wealth = (counted.bad[:, :, None] * up + counted.stable_bad[:, :, None] * down).sum(0)
    return special.log_sum(wealth) - math.log(wealth.shape[1])


@lru_cache(maxsize=4096)
def _gains(chances: tuple[float, ...]) -> tuple[Array, Array]:
    return log_gains(np.array(chances)[:, None], _RATIOS)
