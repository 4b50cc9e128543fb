"""Evidence that may be looked at at any time: the canary guard's games.

Each request, or each client, is sent to the canary with chance ``share`` and to the stable version otherwise. Given
that something bad happened, it happened in the canary with chance ``share`` if the canary is no worse. How often bad
things happen does not matter, nor the time of day: both arms share them. A bet against that chance has an expected
gain of at most 1 whatever happened before, so its wealth e exceeds 1 / alpha ever with chance at most alpha (Ville
1939), however often one looks, and whatever made one stop. Wealth is kept as its logarithm.

What is counted must be as independent as the coin that assigns arms. Where clients stick to an arm, count each of them
once (``count_clients``).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics import special
from modelyard.statistics.counts import read
from modelyard.statistics.special import Array

#: How many times worse the canary may be: 12 guesses in equal steps. The smaller have more of the capital (12/78, 11/78
#: ... 1/78), because the larger need few events: so all are caught at about the same multiple of the least possible.
RATIOS: tuple[float, ...] = tuple(np.geomspace(1.2, 20, 12).tolist())
CAPITAL: tuple[float, ...] = tuple((np.arange(12, 0, -1) / 78).tolist())


# -- one metric ----------------------------------------------------------------------------------------------------


def log_gains(share: npt.ArrayLike, ratios: npt.ArrayLike, null: npt.ArrayLike = 1.0) -> tuple[Array, Array]:
    """(gain of a bad event in the canary, in the stable version), as logarithms, for bets on each of ``ratios``.

    If canary events are theta times as frequent as stable ones, a bad event is the canary's with chance
    q = theta r / (theta r + 1 - r), r = ``share``. The gains are q / q0 and (1 - q) / (1 - q0), q0 at theta = ``null``.
    Shape: that of ``ratios``, with ``share`` and ``null`` broadcast against it.
    """
    r, theta, null = (np.asarray(v, dtype="float64") for v in (share, ratios, null))
    if not ((r > 0) & (r < 1)).all():
        raise InvalidInput(f"share of the canary: {share!r}, expected a number between 0 and 1")
    mixed = np.log((null * r + 1 - r) / (theta * r + 1 - r))
    return np.log(theta / null) + mixed, mixed


class LabelGame(msgspec.Struct, kw_only=True):
    """Whether bad events are more than ``null`` times as frequent in the canary, at shares that may change.

    A grid of bets, each on one rate ratio. The evidence is their weighted mean, against "at most ``null`` times as
    frequent"; with ratios below ``null`` it is the other way round, against "at least ``null`` times" (``below``).
    """

    null: float = 1.0
    ratios: tuple[float, ...] = RATIOS
    weights: tuple[float, ...] = CAPITAL
    #: ln wealth of each bet.
    wealth: list[float] = []
    canary: int = 0
    stable: int = 0

    @classmethod
    def below(cls, tolerance: float) -> LabelGame:
        """The game whose evidence promotes: that bad events are less than ``tolerance`` times as frequent."""
        return cls(null=tolerance, ratios=tuple(tolerance / ratio for ratio in RATIOS))

    def add(self, canary: int, stable: int, share: float) -> None:
        """Count bad events of both arms that happened while ``share`` was in force. Order within does not matter.

        With all or nothing sent to the canary, there is nothing to compare: the events are counted, not bet on.
        """
        if canary < 0 or stable < 0 or not 0 <= share <= 1:
            raise InvalidInput(
                f"{canary} and {stable} events at share {share}: expected counts, and a share from 0 to 1"
            )
        self.canary += canary
        self.stable += stable
        wealth = np.array(self.wealth or [0.0] * len(self.ratios))
        if 0 < share < 1:
            up, down = log_gains(share, self.ratios, self.null)
            wealth += canary * up + stable * down
        self.wealth = wealth.tolist()

    @property
    def log_e(self) -> float:
        return float(average(self.wealth, self.weights)) if self.wealth else 0.0


def log_beta_mixture(k: npt.ArrayLike, n: npt.ArrayLike, share: float, a: float = 1.0) -> Array:
    """ln of the evidence of harm in ``k`` canary events of ``n`` bad ones, at one constant ``share`` r.

    The mean likelihood ratio over arm chances q from Beta(a, a(1 - r) / r), whose mean is r, restricted to q > r.
    """
    k, n = np.asarray(k, dtype="float64"), np.asarray(n, dtype="float64")
    b = a * (1 - share) / share
    seen = special.log_beta(a + k, b + n - k) + special.log_beta_tails(a + k, b + n - k, share)[1]
    prior = special.log_beta(a, b) + special.log_beta_tails(a, b, share)[1]
    return np.asarray(seen - prior - k * np.log(share) - (n - k) * np.log1p(-share))


def log_sign(worse: npt.ArrayLike, better: npt.ArrayLike) -> Array:
    """ln of the evidence that the shadow errs more often, from pairs in which only it, or only the live answer, did."""
    worse = np.asarray(worse, dtype="float64")
    return log_beta_mixture(worse, worse + np.asarray(better, dtype="float64"), 0.5)


def log_beta_binomial(k: npt.ArrayLike, n: npt.ArrayLike, rate: npt.ArrayLike, a: float = 1.0, b: float = 1.0) -> Array:
    """ln of the evidence against a known ``rate`` in ``k`` of ``n``, both ways: a Beta(a, b) mixture (Robbins 1970)."""
    k, n = np.asarray(k, dtype="float64"), np.asarray(n, dtype="float64")
    return np.asarray(special.log_beta(a + k, b + n - k) - special.log_beta(a, b) - log_likelihood(k, n, rate))


def log_likelihood(k: npt.ArrayLike, n: npt.ArrayLike, rate: npt.ArrayLike) -> Array:
    """k ln(rate) + (n - k) ln(1 - rate), where nothing times ln 0 is nothing."""
    k, n, p = (np.asarray(v, dtype="float64") for v in (k, n, rate))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(k > 0, k * np.log(p), 0.0) + np.where(n > k, (n - k) * np.log1p(-p), 0.0)


def log_dirichlet_multinomial(counts: npt.ArrayLike, shares: npt.ArrayLike, alpha: float = 1.0) -> float:
    """ln of the evidence against known ``shares`` in ``counts``, both of shape (bins,): a Dirichlet(alpha) mixture.

    Lindon and Malek 2022: a split of traffic that is not the one asked for.
    """
    seen, theta = read(counts), np.asarray(shares, dtype="float64")
    if seen.shape != theta.shape or not (theta > 0).all() or abs(theta.sum() - 1) > 1e-9:
        raise InvalidInput(f"{seen.size} counts and {theta.size} shares: expected one positive share a bin, of sum 1")
    total, prior = seen.sum(), np.full(seen.shape, alpha)
    start = special.log_gamma(prior.sum()) - special.log_gamma(prior).sum()
    end = special.log_gamma(prior + seen).sum() - special.log_gamma(prior.sum() + total)
    return float(start + end - (seen * np.log(theta)).sum())


# -- scores over bins ----------------------------------------------------------------------------------------------

#: Bets on what moved, up or down, and on what spread or gathered: strengths of the tilts.
_MOVED, _SPREAD = (0.2, 0.5, 1.2, 3.0), (1.0,)


class ScoreGame(msgspec.Struct, kw_only=True):
    """Whether the canary's scores (or latencies) are distributed as the stable ones: one label game a bin.

    Bins are frozen, ascending, and hold ``shares`` of the stable scores. Given its bin, a score is the canary's with
    chance r if nothing differs. Most of the capital is bet on tilts of the distribution, which are found soon, a
    quarter on whatever the counts before the batch showed, which finds any difference.
    """

    shares: list[float]
    canary: list[int] = []
    stable: list[int] = []
    #: ln wealth of the bets: tilts, and last the learned one.
    wealth: list[float] = []

    def add(self, canary: npt.ArrayLike, stable: npt.ArrayLike, share: float) -> None:
        """Count a batch of scores of both arms on the bins, taken while ``share`` was in force."""
        ours, theirs = read(canary, "canary"), read(stable, "stable")
        bins = len(self.shares)
        if ours.shape != (bins,) or theirs.shape != (bins,):
            raise InvalidInput(f"scores in {ours.size} and {theirs.size} bins: expected {bins}, as frozen")
        shares = np.array(self.shares)
        before = np.array([self.stable or [0] * bins, self.canary or [0] * bins], dtype="float64")
        bets = np.vstack([tilts(shares), _learned(shares, *before)])
        wealth = np.array(self.wealth or [0.0] * len(bets))
        if 0 < share < 1:
            up, down = log_gains(share, bets)
            wealth += up @ ours + down @ theirs
        self.wealth = wealth.tolist()
        self.stable = (before[0] + theirs).astype("int64").tolist()
        self.canary = (before[1] + ours).astype("int64").tolist()

    @property
    def log_e(self) -> float:
        return float(average(self.wealth, capital(len(self.wealth)))) if self.wealth else 0.0


def tilts(shares: Array) -> Array:
    """Ratios of densities, shape (tilts, bins): exponential in a bin's rank, and in its distance from the middle."""
    p = shares / shares.sum()
    rank = 2 * (np.cumsum(p) - p / 2) - 1
    shapes = [rank * s * way for s in _MOVED for way in (1, -1)]
    shapes += [(1.5 * rank**2 - 0.5) * s * way for s in _SPREAD for way in (1, -1)]
    ratios = np.exp(np.array(shapes))
    return np.asarray(ratios / (ratios @ p)[:, None])


def capital(bets: int) -> Array:
    """Shares of the capital: a quarter for the learned bet, which is the last, the rest in equal parts for tilts."""
    return np.append(np.full(bets - 1, 0.75 / (bets - 1)), 0.25)


def _learned(shares: Array, stable: Array, canary: Array) -> Array:
    """The ratio of the densities that the counts before show, drawn towards 1 by four rows a bin."""
    bins = len(shares)
    prior = (shares / shares.sum() + 1 / bins) / 2
    theirs = (stable + bins * prior) / (stable.sum() + bins)
    ours = (canary + 4 * bins * theirs) / (canary.sum() + 4 * bins)
    return np.asarray(ours / theirs)


# -- several metrics, clustered clients ----------------------------------------------------------------------------


def average(log_es: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
    """ln of the mean of several evidences along the last axis: evidence again, however they depend on one another.

    ``weights`` are taken relative to their sum and must not depend on the data.
    """
    logs = np.asarray(log_es, dtype="float64")
    shares = np.ones(logs.shape[-1]) if weights is None else np.asarray(weights, dtype="float64")
    if shares.shape != logs.shape[-1:] or not logs.size or (shares < 0).any() or not shares.sum() > 0:
        raise InvalidInput(f"weights of {logs.shape[-1:]} evidences: expected that many numbers from 0 up")
    with np.errstate(divide="ignore"):
        return special.log_sum(logs + np.log(shares / shares.sum()))


def count_clients(events: Iterable[tuple[str, bool]], seen: set[str]) -> tuple[int, int]:
    """(canary, stable): bad ``events`` of clients who had none before; each is (client, whether in the canary).

    The clients are added to ``seen``, which is to be kept for as long as they keep their arms. A ramp that only moves
    the threshold of a hash tosses no new coin, nor does a new window: a client that fails every hour is one fact about
    one coin, not one an hour. Begin anew only when the arms are drawn anew.
    """
    counts = [0, 0]
    for client, canary in events:
        if client not in seen:
            seen.add(client)
            counts[canary] += 1
    return counts[True], counts[False]
