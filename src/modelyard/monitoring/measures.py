"""Distances between a look and its reference, each with what it exceeds by chance at these sample sizes."""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import msgspec
import numpy as np

from modelyard.monitoring.compare import cells
from modelyard.profile import Counts
from modelyard.schema import Array
from modelyard.statistics import distances, special, twosample

#: What a distance exceeds once in twenty times where nothing changed.
ALPHA = 0.05
#: Draws of the bootstrap for a critical value that no formula gives.
DRAWS = 400


class Distance(msgspec.Struct, frozen=True):
    """A distance and its critical value; ``p`` is the chance of one as large if nothing changed, where it is known."""

    value: float
    critical: float
    p: float | None = None


def measure(part: Counts, seen: Counts, seed: int = 0) -> dict[str, Distance]:
    """PSI, Jensen-Shannon and chi-square of a part, and of numbers KS and Wasserstein; {} where a side has no rows.

    PSI is chi-square times (1/n + 1/m) where nothing changed, and the Jensen-Shannon divergence an eighth of it (both
    are the same to second order). Wasserstein's critical value, in standard deviations of the reference, is that of 400
    pairs of samples drawn from both histograms together.
    """
    ours, theirs = (np.asarray(cells(side), dtype="float64") for side in (part, seen))
    n, m = int(ours.sum()), int(theirs.sum())
    if not n or not m:
        return {}
    joined = twosample.join_rare(ours, theirs)
    bins = len(joined[0])
    made: dict[str, Distance] = {}
    if bins > 1:
        psi = distances.psi(*joined)
        critical = distances.psi_critical(n, m, bins, ALPHA)
        made["psi"] = Distance(psi, critical, distances.psi_p_value(psi, n, m, bins))
        made["js"] = Distance(distances.js_distance(*joined), sqrt(critical / 8 / log(2)))
        chi2 = twosample.compare_counts(ours, theirs)
        made["chi2"] = Distance(chi2.statistic, special.chi2_quantile(ALPHA, chi2.df) if chi2.df else 0.0, chi2.p)
    if part.kind == "number":
        ks = twosample.compare_distributions(ours, theirs)
        made["ks"] = Distance(ks.statistic, twosample.ks_critical(n, m, ALPHA), ks.p)
        at = places(part)
        far = distances.wasserstein_normalised(ours, theirs, at)
        if np.isfinite(far):
            made["wasserstein"] = Distance(far, _wasserstein_critical(ours, theirs, at, seed))
    return made


def places(part: Counts) -> Array:
    """Where the values of each cell lie: in the middle of a bin, at the ends of the reference's range beyond it."""
    assert part.maximum is not None
    edges = np.array([*part.edges, part.maximum])
    is_discrete = len(part.edges) == len(set(part.edges)) and part.maximum == part.edges[-1]
    middles = edges[:-1] if is_discrete else (edges[:-1] + edges[1:]) / 2
    return np.concatenate([edges[:1], middles, edges[-1:]])


def quantile(part: Counts, q: float) -> float | None:
    """The value below which a share ``q`` of a part's numbers lies, to within a bin; None where there are none."""
    if part.kind != "number" or part.maximum is None:
        return None
    counts = np.asarray(cells(part), dtype="float64")
    if not counts.sum():
        return None
    edges = np.array([part.edges[0], *part.edges, part.maximum, part.maximum])
    passed = np.append(0.0, np.cumsum(counts)) / counts.sum()
    at = int(np.clip(np.searchsorted(passed, q, side="right") - 1, 0, len(counts) - 1))
    inside = (q - passed[at]) / (passed[at + 1] - passed[at]) if passed[at + 1] > passed[at] else 0.0
    return float(edges[at] + inside * (edges[at + 1] - edges[at]))


def plain(made: dict[str, Distance]) -> dict[str, Any]:
    """Distances as plain values, for a row."""
    told: dict[str, Any] = msgspec.to_builtins(made)
    return told


def _wasserstein_critical(ours: Array, theirs: Array, at: Array, seed: int) -> float:
    both = (ours + theirs) / (ours + theirs).sum()
    rng = np.random.default_rng(seed)
    n, m = int(ours.sum()), int(theirs.sum())
    gaps = rng.multinomial(n, both, DRAWS) / n - rng.multinomial(m, both, DRAWS) / m
    areas = np.abs(np.cumsum(gaps, axis=1))[:, :-1] @ np.diff(at)
    share = ours / ours.sum()
    spread = sqrt(float((share * (at - (share * at).sum()) ** 2).sum()))
    return float(np.quantile(areas, 1 - ALPHA)) / spread if spread else 0.0
