"""Intervals that hold at all times at once: with chance 1 - alpha the truth is in every one ever looked at.

For rates from two integers, for the difference of two rates from four, for the mean of values between 0 and 1 from
their sums. They are for positive claims, such as "the harm is below the tolerance", which may then be made at any time.
Rates are taken to be constant while they are counted. Where they move, as with the time of day, compare the two arms by
the label game of ``sequential``, which does not mind.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, log1p, sqrt

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics.counts import check_level
from modelyard.statistics.sequential import log_beta_binomial, log_likelihood
from modelyard.statistics.special import Array, log_beta

#: Jeffreys' prior for a rate: the mixture is then nearly as good as one made for the rate at hand.
PRIOR = 0.5
#: See ``bound_mean``.
BEST = 1000
_HALVINGS = 60


def bound_rate(k: npt.ArrayLike, n: npt.ArrayLike, alpha: float = 0.05) -> tuple[Array, Array]:
    """(low, high) of the rate behind ``k`` of ``n``: all rates against which there is no evidence of 1 / alpha.

    A confidence sequence by a Beta(1/2, 1/2) mixture (Robbins 1970; Howard and others 2021). Vectorised.
    """
    k, n = _read_shares(k, n, alpha)
    best = k / np.maximum(n, 1)

    def far(p: Array) -> Array:
        return log_beta_binomial(k, n, p, PRIOR, PRIOR) > -log(alpha)

    low = _halve(far, np.zeros_like(best), best)
    high = 1 - _halve(lambda q: far(1 - q), np.zeros_like(best), 1 - best)
    return np.where(k > 0, low, 0.0), np.where(k < n, high, 1.0)


def bound_mean(
    n: npt.ArrayLike, mean: npt.ArrayLike, variance: npt.ArrayLike, alpha: float = 0.05
) -> tuple[Array, Array]:
    """(low, high) of the mean behind ``n`` values of any range, from their mean and variance. Vectorised.

    An asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, theorem 2.2): it holds at all
    times at once from where the central limit theorem does, so do not ask it about a few dozen values. It is narrowest,
    beside an interval for a single look, at about ``BEST`` values.
    """
    check_level(alpha)
    count, middle, spread = (np.asarray(v, dtype="float64") for v in (n, mean, variance))
    weight = (-2 * log(alpha) + log(1 - 2 * log(alpha))) / BEST
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = count * weight + 1
        reach = np.sqrt(np.maximum(spread, 0.0) * 2 * grown / (count * count * weight) * np.log(np.sqrt(grown) / alpha))
    reach = np.where(count > 0, reach, np.inf)
    return np.asarray(middle - reach), np.asarray(middle + reach)


def bound_rate_difference(
    k: npt.ArrayLike, n: npt.ArrayLike, live_k: npt.ArrayLike, live_n: npt.ArrayLike, alpha: float = 0.05
) -> tuple[Array, Array]:
    """(low, high) of the live (canary) rate less the other, at all times at once. Vectorised.

    Evidence against a pair of rates is the mean of two mixtures, one over both rates, one over a rate that both share,
    over the likelihood of the pair, whatever the order in which the arms were seen. The interval is of the differences
    of all pairs against which there is no evidence of 1 / alpha (in the way of Turner and Grünwald 2023). Narrower than
    two intervals at alpha / 2: by a quarter where the rates are alike, by a tenth where they are not.
    """
    k, n = _read_shares(k, n, alpha)
    live_k, live_n = _read_shares(live_k, live_n, alpha)
    k, n, live_k, live_n = np.broadcast_arrays(k, n, live_k, live_n)
    high = _highest_difference(k, n, live_k, live_n, alpha)
    return -_highest_difference(live_k, live_n, k, n, alpha), high


def _highest_difference(k: Array, n: Array, live_k: Array, live_n: Array, alpha: float) -> Array:
    """The largest q - p among the pairs (p, q) against which the evidence is 1 / alpha.

    There the evidence rises in q as fast as it falls in p: by some pull t > 0 on both. The rate at which k of n are
    pulled down by t is the root of t p^2 - (n + t) p + k = 0, and the more pull, the more evidence.
    """

    both = _log_mixture(k, n) + _log_mixture(live_k, live_n)
    mixture = np.logaddexp(both, _log_mixture(k + live_k, n + live_n)) - log(2)

    def pulled(k: Array, n: Array, t: Array) -> Array:
        return np.asarray(2 * k / (n + t + np.sqrt(np.maximum((n + t) ** 2 - 4 * t * k, 0.0))))

    def rates(log_t: Array) -> tuple[Array, Array]:
        t = np.exp(log_t)
        return pulled(k, n, t), 1 - pulled(live_n - live_k, live_n, t)

    def near(log_t: Array) -> Array:
        p, q = rates(log_t)
        return np.asarray(mixture - log_likelihood(k, n, p) - log_likelihood(live_k, live_n, q) < -log(alpha))

    p, q = rates(_halve(near, np.full(k.shape, -30.0), np.log(n + live_n + 1) + 30))
    return np.asarray(q - p)


def _log_mixture(k: Array, n: Array) -> Array:
    return np.asarray(log_beta(PRIOR + k, PRIOR + n - k) - log_beta(PRIOR, PRIOR))


def _halve(test: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where ``test``, true from ``low`` up to somewhere, ends: by halving."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        holds = test(middle)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return np.asarray(low)


def _read_shares(k: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> tuple[Array, Array]:
    check_level(alpha)
    hits, rows = np.broadcast_arrays(np.asarray(k, dtype="float64"), np.asarray(n, dtype="float64"))
    bad = ~((hits >= 0) & (hits <= rows))
    if bad.any():
        raise InvalidInput(f"{hits[bad].flat[0]:g} of {rows[bad].flat[0]:g}: expected at most as many as there are")
    return hits, rows


class MeanSequence(msgspec.Struct, kw_only=True):
    """A confidence sequence for the mean of values between 0 and 1, from the sums of batches.

    The predictable plug-in empirical Bernstein sequence (Waudby-Smith and Ramdas 2024, theorem 2), with the bet and the
    guess of the mean fixed at the start of each batch, so that a batch is three numbers, which add up over workers.
    """

    alpha: float = 0.05
    rows: int = 0
    total: float = 0.0
    squares: float = 0.0
    #: Sums over rows of the bet, of the bet times the value, and of the price of variance.
    bets: float = 0.0
    weighted: float = 0.0
    price: float = 0.0

    def add(self, rows: int, total: float, squares: float) -> None:
        """Count ``rows`` values with sum ``total`` and sum of squares ``squares``."""
        if rows < 0 or not -1e-9 <= squares <= total + 1e-9 <= rows + 2e-9:
            raise InvalidInput(f"{rows} values of sum {total:g}, squares {squares:g}: expected values from 0 to 1")
        mean = (0.5 + self.total) / (1 + self.rows)
        variance = (0.25 + max(0.0, self.squares - 2 * mean * self.total + self.rows * mean * mean)) / (1 + self.rows)
        time = self.rows + 1
        bet = min(0.5, sqrt(2 * log(2 / self.alpha) / (variance * time * log1p(time))))
        self.bets += rows * bet
        self.weighted += bet * total
        self.price += max(0.0, squares - 2 * mean * total + rows * mean * mean) * (-log1p(-bet) - bet)
        self.rows, self.total, self.squares = self.rows + rows, self.total + total, self.squares + squares

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high) of the mean."""
        if not self.bets:
            return 0.0, 1.0
        middle = self.weighted / self.bets
        reach = (log(2 / self.alpha) + self.price) / self.bets
        return max(0.0, middle - reach), min(1.0, middle + reach)
