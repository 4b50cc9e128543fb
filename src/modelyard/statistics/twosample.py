"""Is it real? Tests of two histograms that carry the size of both samples, of the reference as of the live rows.

Each returns a ``Comparison``: the statistic, the p-value of "one distribution gave both", and how it was found.
Where counts are small the p-value is exact given the totals of each bin; ties and bins make no difference to it.
"""

from __future__ import annotations

from math import comb, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics import special
from modelyard.statistics.counts import read, read_pair
from modelyard.statistics.special import Array

#: Exact p-values of KS up to this many pairs of rows, of Mann-Whitney up to the next.
EXACT_KS, EXACT_MANN_WHITNEY = 10_000, 400
#: Chi-square wants at least this many rows expected in a cell.
EXPECTED = 5.0


class Comparison(NamedTuple):
    statistic: float
    p: float
    method: str
    #: Degrees of freedom, of chi-square.
    df: int = 0


def compare_counts(reference: npt.ArrayLike, live: npt.ArrayLike) -> Comparison:
    """Pearson's chi-square test of homogeneity on two histograms; bins may be categories.

    Bins are joined until each has 5 rows expected on both sides, rarest with rarest: which are joined depends on their
    totals alone, so that the p-value stands.
    """
    ours, theirs = join_rare(*read_pair(reference, live))
    bins, totals = len(ours), ours + theirs
    if bins < 2:
        return Comparison(0.0, 1.0, "chi-square", 0)
    n, m = ours.sum(), theirs.sum()
    # sum over both rows of (observed - expected)^2 / expected, with the two rows' equal gaps taken together
    statistic = float(((ours * m - theirs * n) ** 2 / totals).sum() / (n * m))
    return Comparison(statistic, _chi2_p(statistic, bins - 1), "chi-square", bins - 1)


def compare_to_shares(counts: npt.ArrayLike, shares: npt.ArrayLike) -> Comparison:
    """Pearson's chi-square test of fit of ``counts`` to known ``shares`` (any positive weights), shape (bins,).

    Only for shares that are known, such as a split of traffic. Shares that were counted in a sample carry an error
    of their own, which this test takes for drift: ``compare_counts`` is for those.
    """
    seen, weights = read(counts), np.asarray(shares, dtype="float64")
    if seen.shape != weights.shape or seen.ndim != 1 or not (weights > 0).all() or not seen.sum():
        raise InvalidInput(f"{seen.size} counts and {weights.size} shares: expected rows, and a positive share a bin")
    expected = weights / weights.sum() * seen.sum()
    statistic = float(((seen - expected) ** 2 / expected).sum())
    return Comparison(statistic, _chi2_p(statistic, len(seen) - 1), "chi-square", len(seen) - 1)


def join_rare(reference: Array, live: Array) -> tuple[Array, Array]:
    """The histograms with rare bins joined, smallest totals first, until 5 rows are expected in every cell."""
    used = reference + live > 0
    ours, theirs = reference[used], live[used]
    totals = ours + theirs
    needed = EXPECTED * totals.sum() / min(ours.sum(), theirs.sum())
    order = np.argsort(totals, kind="stable")
    sums = np.cumsum(totals[order])
    rare = int(np.count_nonzero(totals < needed))
    if rare:  # as many of the next larger as it takes to make one bin of all these
        rare = max(rare, int(np.searchsorted(sums, needed)) + 1)
    few, many = order[:rare], np.sort(order[rare:])
    if not rare:
        return ours, theirs
    return np.append(ours[many], ours[few].sum()), np.append(theirs[many], theirs[few].sum())


def _chi2_p(statistic: float, df: int) -> float:
    return float(np.exp(special.chi2_log_sf(statistic, df))) if df else 1.0


# -- Kolmogorov and Smirnov ----------------------------------------------------------------------------------------


def compare_distributions(reference: npt.ArrayLike, live: npt.ArrayLike) -> Comparison:
    """Kolmogorov-Smirnov test on two histograms with bins in ascending order.

    Up to 10,000 pairs of rows exact given the totals of each bin (paths of a lattice, counted in whole numbers;
    Hodges 1957 where each row has a bin of its own). Beyond, Kolmogorov's limit, which is too large for few bins.
    """
    ours, theirs = read_pair(reference, live)
    n, m = int(ours.sum()), int(theirs.sum())
    distance = float(np.abs(np.cumsum(ours / n - theirs / m)).max())
    if n * m <= EXACT_KS:
        return Comparison(distance, _exact_ks(ours, theirs, n, m), "exact")
    return Comparison(distance, special.kolmogorov_sf(distance * sqrt(n * m / (n + m))), "asymptotic")


def ks_critical(n: int, m: int, alpha: float = 0.05) -> float:
    """The distance that is exceeded with chance ``alpha`` without drift, for many rows: c sqrt((n + m) / nm)."""
    return special.kolmogorov_quantile(alpha) * sqrt((n + m) / (n * m))


def _exact_ks(ours: Array, theirs: Array, n: int, m: int) -> float:
    """Share of all ways to call n of the rows reference in which the distance is at least the one seen."""
    totals = [int(t) for t in ours + theirs if t]
    bound = int(np.abs(np.cumsum(ours * m - theirs * n)).max())  # in units of 1 / nm, exact
    ways, passed = {0: 1}, 0
    for total in totals:
        passed += total
        after: dict[int, int] = {}
        for taken, count in ways.items():
            for more in range(min(total, n - taken) + 1):
                after[taken + more] = after.get(taken + more, 0) + count * comb(total, more)
        # those that stay within the bound
        ways = {i: c for i, c in after.items() if abs(i * m - (passed - i) * n) < bound}
    whole = comb(n + m, n)
    return 1.0 if not bound else (whole - ways.get(n, 0)) / whole


# -- Mann and Whitney ----------------------------------------------------------------------------------------------


def compare_ranks(reference: npt.ArrayLike, live: npt.ArrayLike) -> Comparison:
    """Mann-Whitney test on two histograms with bins in ascending order, two-sided; rows of one bin are tied.

    The statistic is U of the live rows: pairs in which the live row is above the reference row, ties for half. Up to
    400 pairs exact given the totals of each bin; beyond, normal with the variance for ties and continuity correction.
    """
    ours, theirs = read_pair(reference, live)
    n, m = int(ours.sum()), int(theirs.sum())
    statistic = float((theirs * (np.cumsum(ours) - ours / 2)).sum())
    if n * m <= EXACT_MANN_WHITNEY:
        ways = _count_ranks((ours + theirs).astype("int64"), n, m)
        far = np.abs(np.arange(len(ways)) - n * m) >= abs(2 * statistic - n * m)
        return Comparison(statistic, float(ways[far].sum() / ways.sum()), "exact")
    totals, rows = ours + theirs, n + m
    ties = float((totals * (totals**2 - 1)).sum()) / (rows * (rows - 1))
    variance = n * m / 12 * (rows + 1 - ties)
    if variance <= 0:
        return Comparison(statistic, 1.0, "normal")
    z = max(0.0, abs(statistic - n * m / 2) - 0.5) / sqrt(variance)
    return Comparison(statistic, min(1.0, 2 * special.normal_sf(z)), "normal")


def _count_ranks(totals: Array, n: int, m: int) -> Array:
    """In how many ways 2U takes each value 0..2nm, over all ways to call n of the rows reference.

    At most C(40, 20) ways, which int64 holds.
    """
    width = 2 * n * m + 1
    ways = np.zeros((n + 1, width), dtype="int64")
    ways[0, 0] = 1
    passed = 0
    for total in totals.tolist():
        after = np.zeros_like(ways)
        for taken in range(min(n, passed) + 1):
            for more in range(max(0, passed + total - taken - m), min(total, n - taken) + 1):
                live = total - more
                gain = live * (2 * taken + more)  # live rows of this bin over the reference rows below and beside
                after[taken + more, gain:] += ways[taken, : width - gain] * comb(total, more)
        ways, passed = after, passed + total
    return np.asarray(ways[n])


# -- shares --------------------------------------------------------------------------------------------------------


def compare_shares(hits: int, rows: int, live_hits: int, live_rows: int) -> Comparison:
    """Whether missing, unseen or wrong values, ``hits`` among ``rows``, are as frequent live, two-sided.

    Fisher's exact test where a cell expects fewer than ten, else the z-test with the pooled share. The statistic is
    the difference of the shares, live less reference.
    """
    read_pair([hits, rows - hits], [live_hits, live_rows - live_hits])
    both, total = hits + live_hits, rows + live_rows
    difference = live_hits / live_rows - hits / rows
    if min(rows, live_rows) * min(both, total - both) < 2 * EXPECTED * total:
        return Comparison(difference, _fisher(hits, rows, both, total), "exact")
    pooled = both / total
    z = difference / sqrt(pooled * (1 - pooled) * (1 / rows + 1 / live_rows))
    return Comparison(difference, 2 * special.normal_sf(abs(z)), "normal")


def _fisher(hits: int, rows: int, both: int, total: int) -> float:
    """Chance of a table no more likely than the one seen, given its margins (hypergeometric)."""
    first, last = max(0, both - (total - rows)), min(rows, both)
    i = np.arange(first, last, dtype="float64")
    ratios = (rows - i) * (both - i) / ((i + 1) * (total - rows - both + i + 1))
    logs = np.append(0.0, np.cumsum(np.log(ratios)))
    chances = np.exp(logs - logs.max())
    unlikely = chances <= chances[hits - first] * (1 + 1e-7)
    return float(chances[unlikely].sum() / chances.sum())
