"""Differences that have a name. What is named is no plain drift: one cause, one finding."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from modelyard.monitoring.compare import ALPHA, cells
from modelyard.monitoring.units import find_unit
from modelyard.profile import BINS, Counts
from modelyard.statistics import effects

#: A column is stuck where so much of it, at the least, is in one cell that held less than half of the reference.
STUCK = 0.95


class Named(NamedTuple):
    """What a difference in distribution is, in a word and in a sentence."""

    kind: str
    told: str
    more: Mapping[str, Any] = MappingProxyType({})


def name(part: Counts, seen: Counts, outside: Mapping[str, int] | None = None) -> Named | None:
    """What a difference of an input's or output's distribution is, where it is nothing but drift None.

    ``outside``: live numbers beyond the reference's range by their magnitude, where that was counted.
    """
    ours, theirs = cells(part), cells(seen)
    n, m = sum(ours), sum(theirs)
    if sum(count > 0 for count in ours) <= 1:
        was = f"always {_cell(part, ours.index(max(ours)))}" if n else "always missing"
        return Named("alive", f"has values of its own, and was {was} in the reference")
    unit = find_unit(part, seen, outside)
    if unit is not None:
        more = {"factor": unit.factor, "offset": unit.offset}
        return Named("unit", f"looks like another unit: {unit.words}", more)
    fullest = max(range(len(theirs)), key=lambda i: theirs[i])
    if effects.bound_share(theirs[fullest], m, ALPHA).low < STUCK or ours[fullest] > n / 2:
        return None
    where = _cell(part, fullest)
    is_beyond = part.kind == "number" and fullest in (0, len(theirs) - 1)
    spread = sum(count > 0 for count in (outside or {}).values())
    if is_beyond and spread > 1:
        return Named("unit", f"is {where}, in nearly all rows: another unit, by none of the usual factors")
    if is_beyond and not spread:
        return Named("stuck", f"is {where}, in nearly all rows: one value, or another unit")
    return Named("stuck", f"is {where}, in nearly all rows", {"value": where})


def _cell(part: Counts, at: int) -> str:
    """A cell in words."""
    if part.kind == "category":
        if at < len(part.values):
            return f"“{part.values[at]}”"
        return "one of the rarer texts" if at == len(part.values) else "a text that the reference does not have"
    if at == 0:
        return f"below {part.edges[0]:.6g}, the least of the reference"
    if at > len(part.edges):
        return f"above {part.maximum:.6g}, the most of the reference"
    low = part.edges[at - 1]
    high = part.edges[at] if at < len(part.edges) else part.maximum
    return f"{low:.6g}" if high in (None, low) or _is_discrete(part) else f"between {low:.6g} and {high:.6g}"


def _is_discrete(part: Counts) -> bool:
    """Whether each bin is one value: a reference of few distinct ones has a bin for each."""
    return len(part.edges) <= BINS and part.maximum == part.edges[-1]
