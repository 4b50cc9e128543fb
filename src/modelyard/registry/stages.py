"""How long the stages of a request took: histograms on bounds that are the same everywhere, and what they tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

STAGES = ("decode", "queue", "predict", "encode", "total")

#: Upper bounds of the bins, in seconds: 10 us to 100 s, ten to a decade; a last bin has what took longer.
STAGE_BOUNDS: tuple[float, ...] = tuple(1e-5 * 10 ** (step / 10) for step in range(71))


def quantile_of(counts: Sequence[int], q: float) -> float:
    """A quantile of a histogram, in seconds; NaN of an empty one. Within a bin in equal ratios."""
    total = sum(counts)
    if not total:
        return math.nan
    passed = np.cumsum(counts)
    at = int(np.searchsorted(passed, q * total, side="left"))
    high = STAGE_BOUNDS[min(at, len(STAGE_BOUNDS) - 1)]
    low = high / 10**0.1
    before = int(passed[at - 1]) if at else 0
    inside = (q * total - before) / max(counts[at], 1)
    return float(low * (high / low) ** min(max(inside, 0.0), 1.0))


def mean_of(counts: Sequence[int]) -> float:
    """The mean of a histogram, each request at the middle of its bin, in seconds."""
    middles = np.append(np.array(STAGE_BOUNDS) / 10**0.05, STAGE_BOUNDS[-1])
    return float((np.array(counts) * middles[: len(counts)]).sum() / max(sum(counts), 1))
