"""Distances between two histograms on the same bins, and what PSI is when nothing drifted.

Arguments are counts, ``reference`` first, of shape (bins,). Shares are counts over their sum. Bins that are empty on
both sides are left out. Where a logarithm meets an empty bin (PSI, KL), that bin counts as half a row: n rows cannot
tell a share of nothing from one of 1/(2n). Histograms without empty bins are not touched.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics import special
from modelyard.statistics.counts import check_level, check_sizes, read_pair
from modelyard.statistics.special import Array


def _shares(reference: npt.ArrayLike, live: npt.ArrayLike, empty: float = 0.0) -> tuple[Array, Array]:
    """Shares on the bins that either side has, each empty one counted as ``empty`` rows."""
    ours, theirs = read_pair(reference, live)
    used = ours + theirs > 0
    ours, theirs = np.maximum(ours[used], empty), np.maximum(theirs[used], empty)
    return ours / ours.sum(), theirs / theirs.sum()


def count_bins(reference: npt.ArrayLike, live: npt.ArrayLike) -> int:
    """How many bins are not empty on both sides: the B of the formulas below."""
    ours, theirs = read_pair(reference, live)
    return int(np.count_nonzero(ours + theirs))


def psi(reference: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Population stability index: sum of (p - q) ln(p / q), in nats; symmetric (Jeffreys 1946)."""
    p, q = _shares(reference, live, 0.5)
    return float(((p - q) * np.log(p / q)).sum())


def kl(reference: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Kullback-Leibler divergence of the reference p from the live q: sum of p ln(p / q), in nats."""
    p, q = _shares(reference, live, 0.5)
    return float((p * np.log(p / q)).sum())


def js_divergence(reference: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Jensen-Shannon divergence in nats, 0 to ln 2: the mean KL of both from their middle (Lin 1991)."""
    p, q = _shares(reference, live)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(s > 0, s * np.log(s / middle), 0.0).sum() for s in (p, q)]
    return max(0.0, float(sum(parts)) / 2)


def js_distance(reference: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Jensen-Shannon distance to base 2, 0 to 1: root of the divergence in bits; a metric (Endres, Schindelin 2003)."""
    return float(np.sqrt(js_divergence(reference, live) / np.log(2)))


def hellinger(reference: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Hellinger distance, 0 to 1: root of half the sum of (sqrt p - sqrt q)^2."""
    p, q = _shares(reference, live)
    return float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2))


def ks(reference: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Kolmogorov-Smirnov distance over the bins' bounds, bins in ascending order: never above that of the raw rows."""
    p, q = _shares(reference, live)
    return float(np.abs(np.cumsum(p - q)).max())


def wasserstein(reference: npt.ArrayLike, live: npt.ArrayLike, values: npt.ArrayLike) -> float:
    """Wasserstein-1 distance, in the units of ``values``: where the rows of each bin lie, ascending, shape (bins,).

    The area between the distribution functions (Vallender 1974). Off from that of the raw rows by no more than rows
    lie from the value of their bin, on average, on both sides together.
    """
    ours, theirs = read_pair(reference, live)
    at = _read_values(values, ours)
    gaps = np.abs(np.cumsum(ours / ours.sum() - theirs / theirs.sum()))[:-1]
    return float((gaps * np.diff(at)).sum())


def wasserstein_normalised(reference: npt.ArrayLike, live: npt.ArrayLike, values: npt.ArrayLike) -> float:
    """Wasserstein-1 distance in standard deviations of the reference, both on the bins' ``values``.

    Infinite where the reference has one value only and the live rows have another.
    """
    ours, _ = read_pair(reference, live)
    at = _read_values(values, ours)
    share = ours / ours.sum()
    spread = float(np.sqrt((share * (at - (share * at).sum()) ** 2).sum()))
    distance = wasserstein(reference, live, values)
    return distance / spread if spread else (float("inf") if distance else 0.0)


def _read_values(values: npt.ArrayLike, counts: Array) -> Array:
    at = np.asarray(values, dtype="float64")
    if at.shape != counts.shape or not np.isfinite(at).all() or (np.diff(at) < 0).any():
        raise InvalidInput(f"values of {counts.size} bins: expected {counts.size} finite numbers in ascending order")
    return at


# -- PSI without drift ---------------------------------------------------------------------------------------------


def psi_null_mean(n: float, m: float, bins: int) -> float:
    """Mean of PSI between samples of ``n`` and ``m`` rows of one distribution: (1/n + 1/m)(B - 1).

    Yurdakul 2018 (dissertation 3208, Western Michigan University): PSI ~ (1/n + 1/m) chi-square with B - 1 degrees.
    """
    return (bins - 1) * _scale(n, m)


def psi_critical(n: float, m: float, bins: int, alpha: float = 0.05, floor: float = 0.0) -> float:
    """What PSI exceeds with chance ``alpha`` while the true PSI is ``floor``, 0 for no drift at all.

    (1/n + 1/m) times the quantile of chi-square with B - 1 degrees, noncentral by floor / (1/n + 1/m) (Potgieter and
    others, arXiv 2307.11878). A limit for many rows in each bin: good from about five, see docs/monitoring.md.
    """
    check_level(alpha)
    scale = _scale(n, m)
    return scale * special.chi2_quantile(alpha, bins - 1, floor / scale) if bins > 1 else 0.0


def psi_p_value(value: float, n: float, m: float, bins: int, floor: float = 0.0) -> float:
    """Chance of a PSI of at least ``value`` while the true PSI is ``floor``: what ``psi_critical`` inverts."""
    scale = _scale(n, m)
    if bins < 2:
        return 1.0
    if not floor:
        return float(np.exp(special.chi2_log_sf(value / scale, bins - 1)))
    return special.noncentral_chi2_tails(value / scale, bins - 1, floor / scale)[1]


def _scale(n: float, m: float) -> float:
    check_sizes(n=n, m=m)
    return 1 / n + 1 / m
