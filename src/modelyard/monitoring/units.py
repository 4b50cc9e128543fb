"""Whether numbers are the reference's in another unit: a factor and an offset that lay the live bins over its own.

Only distribution functions are compared, at the bins' edges and, for what lies outside the reference's range, at
tenths of a decade. If live x is a times a reference value plus b, then the share of live values below x is the
reference's share below (x - b) / a, which is known to within a bin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from modelyard.profile import Counts
from modelyard.schema import Array
from modelyard.statistics import distances
from modelyard.statistics.twosample import ks_critical

#: Points that must lie where the distribution rises, so that a factor is pinned down by something.
_POINTS = 3
#: What an unnamed factor may be off: the width of a bin of the reference.
_SLACK = 0.05


class Unit(NamedTuple):
    """Live values are ``factor`` times the reference's plus ``offset``."""

    factor: float
    offset: float
    words: str


def _both(factor: float, there: str, back: str) -> list[Unit]:
    return [Unit(factor, 0.0, there), Unit(1 / factor, 0.0, back)]


UNITS: tuple[Unit, ...] = (
    *_both(10.0, "times 10", "divided by 10"),
    *_both(100.0, "times 100, as shares become percent", "divided by 100, as percent become shares"),
    *_both(1_000.0, "times 1000, as kilo is left out", "divided by 1000, as kilo comes in"),
    *_both(1e6, "times a million", "divided by a million"),
    *_both(60.0, "times 60, as minutes become seconds", "divided by 60, as seconds become minutes"),
    *_both(3_600.0, "times 3600, as hours become seconds", "divided by 3600, as seconds become hours"),
    *_both(24.0, "times 24, as days become hours", "divided by 24, as hours become days"),
    *_both(86_400.0, "times 86400, as days become seconds", "divided by 86400, as seconds become days"),
    *_both(12.0, "times 12, as years become months", "divided by 12, as months become years"),
    *_both(2.54, "times 2.54, as inches become centimetres", "divided by 2.54, as centimetres become inches"),
    *_both(1 / 0.3048, "times 3.281, as metres become feet", "divided by 3.281, as feet become metres"),
    *_both(1.609344, "times 1.609, as miles become kilometres", "divided by 1.609, as kilometres become miles"),
    *_both(0.45359237, "times 0.4536, as pounds become kilograms", "times 2.205, as kilograms become pounds"),
    Unit(1.8, 32.0, "times 1.8 plus 32, as Celsius becomes Fahrenheit"),
    Unit(1 / 1.8, -32 / 1.8, "less 32 divided by 1.8, as Fahrenheit becomes Celsius"),
    Unit(1.0, 273.15, "plus 273.15, as Celsius becomes Kelvin"),
    Unit(1.0, -273.15, "less 273.15, as Kelvin becomes Celsius"),
)


def find_unit(part: Counts, seen: Counts, outside: Mapping[str, int] | None = None) -> Unit | None:
    """The unit that explains best what was seen, if one does. ``outside``: numbers out of range by ``magnitudes``."""
    if part.kind != "number" or part.maximum is None or len(part.edges) < _POINTS:
        return None
    n = sum(part.counts)
    m = sum(seen.counts) + seen.below + seen.above
    if not n or not m:
        return None
    at, shares = _shares(part, seen, m, outside or {})
    known, below = np.array([*part.edges, part.maximum]), np.append(0.0, np.cumsum(part.counts) / n)
    now = distances.ks([part.below, *part.counts, part.above], [seen.below, *seen.counts, seen.above])
    error = ks_critical(n, m, 0.001)
    found: list[tuple[float, Unit]] = []
    for unit in UNITS:
        back = (at - unit.offset) / unit.factor
        guess = np.interp(back, known, below)
        rising = np.unique(guess[(guess > 0.02) & (guess < 0.98)])
        if len(rising) < _POINTS and unit.factor != 1.0:  # an offset is told by where all of it lies
            continue
        place = np.searchsorted(known, back, side="right")
        low = np.append(0.0, below)[place]  # the share below the edge to the left, and to the right
        high = np.append(below, 1.0)[place]
        off = float(np.maximum(np.maximum(low - shares, shares - high), 0.0).max())
        distance = float(np.abs(shares - guess).max())
        if off <= error and distance <= min(_SLACK + error, now / 2):
            found.append((distance, unit))
    return min(found)[1] if found else None


def _shares(part: Counts, seen: Counts, m: int, outside: Mapping[str, int]) -> tuple[Array, Array]:
    """Points, ascending, and the share of the live values below each."""
    assert part.maximum is not None
    below = (seen.below + np.append(0.0, np.cumsum(seen.counts))) / m
    points = dict(zip([*part.edges, part.maximum], below.tolist(), strict=True))
    stretches = [(*_stretch(text), count) for text, count in outside.items() if text != "0" and "inf" not in text]
    for start, end, _ in stretches:
        if end < part.edges[0]:
            points[end] = sum(count for _, other, count in stretches if other <= end) / m
        if start > part.maximum:
            points[start] = 1.0 - sum(count for other, _, count in stretches if other >= start) / m
    at = sorted(points)
    return np.array(at), np.array([points[x] for x in at])


def _stretch(magnitude: str) -> tuple[float, float]:
    """Where a magnitude begins and ends."""
    power = int(magnitude[1:])
    inner, outer = 10 ** (power / 10), 10 ** ((power + 1) / 10)
    return (inner, outer) if magnitude[0] == "+" else (-outer, -inner)
