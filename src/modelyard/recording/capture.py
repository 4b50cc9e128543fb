"""Which requests' inputs are kept, decided once it is known how they went: those that failed, were slow or odd, and
a sample of the others.
"""

from __future__ import annotations

import zlib

import numpy as np

from modelyard.recording.flags import Found
from modelyard.recording.rows import Rows
from modelyard.registry.stages import STAGE_BOUNDS
from modelyard.schema import Array

#: Why a row's inputs are kept; the number of a word is its place. The first that holds is told.
REASONS = (None, "error", "slow", "flagged", "sample")
_ERROR, _SLOW, _FLAGGED, _SAMPLE = range(1, len(REASONS))

#: Requests that must have been timed before any of them counts as slow, and how many are remembered: of older ones
#: half are forgotten, again and again.
LEAST_TIMED, MOST_TIMED = 200, 20_000

_BOUNDS = np.array(STAGE_BOUNDS)
_TOTAL = 4


class Capture:
    """The rule of one recorder."""

    def __init__(self, sample: int) -> None:
        self._sample = sample
        self._times: dict[tuple[str, str, str], Array] = {}

    def reasons(self, rows: Rows, found: Found) -> Array:
        """For each row the place in ``REASONS`` of why its inputs are kept."""
        wanted = np.zeros(rows.requests, dtype="int8")
        if self._sample:
            is_sampled = np.fromiter((is_in_sample(id, self._sample) for id in rows.ids), bool, rows.requests)
            wanted[is_sampled] = _SAMPLE
        by_row = rows.per_row(wanted)
        if len(found.rows):
            by_row = by_row.copy()
            by_row[found.rows] = _FLAGGED
        graver = np.where(rows.stages[:, _TOTAL] > self._slow(rows), _SLOW, 0)
        if rows.codes is not None:
            graver[[code != "ok" for code in rows.codes]] = _ERROR
        if graver.any():
            graver = rows.per_row(graver)
            by_row = np.where(graver > 0, graver, by_row)
        return by_row

    def _slow(self, rows: Rows) -> float:
        """Seconds above which a request of this version is among the slowest hundredth; counts these requests too."""
        times = self._times.setdefault(rows.subject.key, np.zeros(len(STAGE_BOUNDS) + 1, dtype="int64"))
        seen = int(times.sum())
        limit = float("inf")
        if seen >= LEAST_TIMED:
            place = int(np.cumsum(times).searchsorted(0.99 * seen))
            limit = STAGE_BOUNDS[place] if place < len(STAGE_BOUNDS) else limit
        times += np.bincount(_BOUNDS.searchsorted(rows.stages[:, _TOTAL]), minlength=len(times))
        if seen > MOST_TIMED:
            times //= 2
        return limit


def is_in_sample(id: str, sample: int) -> bool:
    """Whether the request of this id is one of ``sample``: the same on every machine."""
    return zlib.crc32(id.encode("utf-8", "surrogatepass")) % sample == 0
