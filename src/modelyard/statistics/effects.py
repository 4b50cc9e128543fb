"""Does it matter? Effects with intervals that hold with confidence 1 - alpha, both ends together.

An alert asks that the lower end lies above a floor, and ends when the upper end lies below.
"""

from __future__ import annotations

from math import log, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelyard.statistics import distances, special
from modelyard.statistics.counts import check_level, check_sizes, read_pair


class Effect(NamedTuple):
    value: float
    low: float
    high: float


def bound_ks(reference: npt.ArrayLike, live: npt.ArrayLike, alpha: float = 0.05) -> Effect:
    """The KS distance of the two distributions on these bins, at any sample size.

    The error of a distribution function is at most eps(n) = sqrt(ln(2 / a) / 2n) everywhere but for chance a
    (Dvoretzky, Kiefer, Wolfowitz 1956; Massart 1990), with half of ``alpha`` for each side. Or, if that is less, the
    error of their difference is at most sqrt(ln(2 (B - 1) / alpha) (1/n + 1/m) / 2) at all B - 1 inner bounds at once
    (Hoeffding 1963). Both are sure beforehand, so the smaller may be taken.
    """
    check_level(alpha)
    ours, theirs = read_pair(reference, live)
    n, m = float(ours.sum()), float(theirs.sum())
    bands = sqrt(log(4 / alpha) / 2) * (1 / sqrt(n) + 1 / sqrt(m))
    bounds = sqrt(log(2 * max(len(ours) - 1, 1) / alpha) * (1 / n + 1 / m) / 2)
    distance, error = distances.ks(reference, live), min(bands, bounds)
    return Effect(distance, max(0.0, distance - error), min(1.0, distance + error))


def bound_psi(reference: npt.ArrayLike, live: npt.ArrayLike, alpha: float = 0.05) -> Effect:
    """The true PSI: what was seen less its mean without drift, with the interval of a noncentral chi-square.

    PSI / (1/n + 1/m) is chi-square with B - 1 degrees, noncentral by the true PSI / (1/n + 1/m); its mean exceeds that
    without drift by the true PSI. The ends are the true values under which PSI is as large, or as small, with chance
    alpha / 2. Where drift is so large that its spread is no longer that of a chi-square, the spread by the delta
    method is taken if it is wider. Checked by simulation (docs/monitoring.md); wants about five rows in each bin.
    """
    check_level(alpha)
    ours, theirs = read_pair(reference, live)
    n, m = float(ours.sum()), float(theirs.sum())
    bins, seen = distances.count_bins(reference, live), distances.psi(reference, live)
    if bins < 2:
        return Effect(0.0, 0.0, 0.0)
    scale, reach_z = 1 / n + 1 / m, special.normal_quantile(alpha / 2)
    excess, reach = seen - scale * (bins - 1), reach_z * _psi_error(reference, live)
    x, df, rare = seen / scale, bins - 1, log(2 / alpha)

    # On the scale of normal scores and of the root of the noncentrality, both tails are nearly straight lines.
    def too_large(root: float) -> float:
        return reach_z - special.normal_quantile(_inside(special.noncentral_chi2_tails(x, df, root * root)[1]))

    def too_small(root: float) -> float:
        return special.normal_quantile(_inside(special.noncentral_chi2_tails(x, df, root * root)[0])) - reach_z

    far = sqrt(x + 3 * rare) + sqrt(2 * rare)  # where the chance is below alpha / 2 (Birgé 2001)
    low, high = (scale * special.find_root(end, 1e-6, far, 1e-6) ** 2 for end in (too_large, too_small))
    return Effect(excess, max(0.0, min(low, excess - reach)), max(high, excess + reach))


def _inside(p: float) -> float:
    return min(max(p, 1e-300), 1 - 1e-16)


def _psi_error(reference: npt.ArrayLike, live: npt.ArrayLike) -> float:
    """Standard deviation of PSI by the delta method, at the shares seen."""
    ours, theirs = read_pair(reference, live)
    used = ours + theirs > 0
    ours, theirs = np.maximum(ours[used], 0.5), np.maximum(theirs[used], 0.5)
    variance = 0.0
    for mine, other in ((ours, theirs), (theirs, ours)):
        p, q = mine / mine.sum(), other / other.sum()
        slope = np.log(p / q) + 1 - q / p
        variance += float((p * slope**2).sum() - (p * slope).sum() ** 2) / float(mine.sum())
    return sqrt(variance)


def bound_share(hits: float, rows: float, alpha: float = 0.05) -> Effect:
    """A share with Wilson's interval (1927)."""
    check_level(alpha)
    check_sizes(rows=rows)
    z2 = special.normal_quantile(alpha / 2) ** 2
    share = hits / rows
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    reach = sqrt(z2 * (share * (1 - share) + z2 / (4 * rows)) / rows) / (1 + z2 / rows)
    return Effect(share, min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach)))


def bound_difference(hits: float, rows: float, live_hits: float, live_rows: float, alpha: float = 0.05) -> Effect:
    """The live share less the reference's, with Newcombe's hybrid interval (1998, method 10) of Wilson's two."""
    ours, theirs = bound_share(hits, rows, alpha), bound_share(live_hits, live_rows, alpha)
    difference = theirs.value - ours.value
    down = sqrt((theirs.value - theirs.low) ** 2 + (ours.high - ours.value) ** 2)
    up = sqrt((theirs.high - theirs.value) ** 2 + (ours.value - ours.low) ** 2)
    return Effect(difference, max(-1.0, difference - down), min(1.0, difference + up))
