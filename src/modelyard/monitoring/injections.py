"""Known drifts, done to what was counted: each row of a cell goes to another with a certain chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from modelyard.monitoring.compare import cells
from modelyard.profile import COUNTERS, Counts, Profile
from modelyard.registry.windows import Counted, Part, magnitudes
from modelyard.schema import Array
from modelyard.statistics import special

#: What a new text is called.
NEW = "a new text"

Change = Callable[[Counts, Part, np.random.Generator], tuple[Part, dict[str, int]]]


class Injection(NamedTuple):
    """A drift: what is done, to which part, and how. ``change`` returns the counts after it, and numbers beyond the
    reference's range by their magnitude, or new texts.
    """

    what: str
    kind: str
    part: Counts
    change: Change


def injections(reference: Profile) -> list[Injection]:
    """Those that this reference has columns for."""
    made: list[Injection] = []
    numbers = [p for p in reference.inputs if p.kind == "number" and p.maximum is not None and len(p.edges) >= 5]
    texts = [p for p in reference.inputs if p.kind == "category" and len(p.values) >= 2]
    if numbers:
        part = max(numbers, key=lambda each: len(each.edges))
        made += [
            Injection(f"up by {size:g} standard deviations", "drift", part, _shift(size)) for size in (0.5, 1.0)
        ]  # fmt: skip
        if part.edges[0] != part.maximum and part.maximum:
            made.append(Injection("times 2.54", "unit", part, _scale(2.54)))
        made.append(Injection("stuck at one value", "stuck", part, _stick))
    if texts:
        part = max(texts, key=lambda each: len(each.values))
        made.append(Injection("3 in 10 become the second most frequent", "drift", part, _mix(0.3)))
        if not part.open:
            made.append(Injection("1 in 20 becomes a new text", "category", part, _renew(0.05)))
    for part in (numbers or texts)[:1]:
        made.append(Injection("1 in 5 goes missing", "missing", part, _lose(0.2)))
    for part in reference.outputs[:1]:
        if part.kind == "category" and len(part.values) >= 2:
            made.append(Injection("half become the second most frequent", "prediction", part, _mix(0.5)))
        elif part.kind == "number" and len(part.edges) >= 5:
            made.append(Injection("up by 1 standard deviation", "prediction", part, _shift(1.0)))
    return made


def inject(reference: Profile, counted: Counted, injection: Injection, rng: np.random.Generator) -> Counted:
    """What would have been counted."""
    sides = []
    outside, unseen = dict(counted.outside), dict(counted.unseen)
    for frozen, parts in ((reference.inputs, counted.inputs), (reference.outputs, counted.outputs)):
        made = list(parts)
        for i, part in enumerate(frozen):
            if part is injection.part:
                made[i], beyond = injection.change(part, parts[i], rng)
                (unseen if part.kind == "category" else outside)[part.name] = beyond
        sides.append(made)
    return Counted(
        requests=counted.requests, rows=counted.rows, inputs=sides[0], outputs=sides[1], unseen=unseen, outside=outside
    )


def _cells(part: Counts, seen: Part) -> Array:
    """The counts of a part in the cells of ``compare.cells``."""
    counters = dict(zip(COUNTERS, seen.counters, strict=True))
    if part.kind == "category":
        return np.array([*seen.counts, counters["other"], counters["unseen"]])
    return np.array([counters["below"], *seen.counts, counters["above"]])


def _part(part: Counts, found: Array, seen: Part, missing: int = 0) -> Part:
    counters = dict(zip(COUNTERS, seen.counters, strict=True))
    counters["missing"] += missing
    if part.kind == "category":
        counts, counters["other"], counters["unseen"] = found[:-2], int(found[-2]), int(found[-1])
    else:
        counts, counters["below"], counters["above"] = found[1:-1], int(found[0]), int(found[-1])
    return Part([int(c) for c in counts], [counters[name] for name in COUNTERS])


def _moved(before: Array, chances: Array, rng: np.random.Generator) -> Array:
    """Each row of cell j goes to cell i with chance ``chances[j, i]``."""
    moved = [rng.multinomial(count, row) for count, row in zip(before, chances, strict=True)]
    return np.asarray(np.sum(moved, axis=0))


def _shift(size: float) -> Change:
    """Up by so many standard deviations, on the scale on which the reference is normal."""

    def change(part: Counts, seen: Part, rng: np.random.Generator) -> tuple[Part, dict[str, int]]:
        ours = np.array(cells(part), dtype="float64") + 1e-9
        ends = np.clip(np.append(0.0, np.cumsum(ours) / ours.sum()), 1e-9, 1 - 1e-9)
        z = np.array([special.normal_quantile(1 - u) for u in ends])
        back = np.array([1 - special.normal_sf(x - size) for x in z])  # where the bounds of cells came from
        back[0], back[-1], ends[0], ends[-1] = 0.0, 1.0, 0.0, 1.0
        return _part(part, _moved(_cells(part, seen), _overlaps(ends, back), rng), seen), {}

    return change


def _scale(factor: float) -> Change:
    """Numbers times a factor, each spread evenly over its bin."""

    def change(part: Counts, seen: Part, rng: np.random.Generator) -> tuple[Part, dict[str, int]]:
        assert part.maximum is not None
        beyond: dict[str, int] = {}
        found = np.zeros(len(part.counts) + 2, dtype="int64")
        edges = np.array([*part.edges, part.maximum])
        for low, high, count in zip(edges[:-1], edges[1:], _cells(part, seen)[1:-1], strict=True):
            values = factor * rng.uniform(low, high if high > low else low, count)
            places = np.searchsorted(part.edges, values, side="right")
            places[values > part.maximum] = len(found) - 1
            found += np.bincount(places, minlength=len(found))
            far = magnitudes(values[(values < part.edges[0]) | (values > part.maximum)])
            beyond = {text: beyond.get(text, 0) + far.get(text, 0) for text in beyond.keys() | far.keys()}
        return _part(part, found, seen), beyond

    return change


def _stick(part: Counts, seen: Part, rng: np.random.Generator) -> tuple[Part, dict[str, int]]:
    before = _cells(part, seen)
    found = np.zeros_like(before)
    found[len(before) // 2] = before.sum()
    return _part(part, found, seen), {}


def _mix(share: float) -> Change:
    def change(part: Counts, seen: Part, rng: np.random.Generator) -> tuple[Part, dict[str, int]]:
        before = _cells(part, seen)
        chances = np.eye(len(before)) * (1 - share)
        chances[:, 1] += share
        return _part(part, _moved(before, chances, rng), seen), {}

    return change


def _renew(share: float) -> Change:
    def change(part: Counts, seen: Part, rng: np.random.Generator) -> tuple[Part, dict[str, int]]:
        before = _cells(part, seen)
        taken = rng.binomial(before, share)
        found = before - taken
        found[-1] += taken.sum()
        return _part(part, found, seen), {NEW: int(taken.sum())}

    return change


def _lose(share: float) -> Change:
    def change(part: Counts, seen: Part, rng: np.random.Generator) -> tuple[Part, dict[str, int]]:
        before = _cells(part, seen)
        taken = rng.binomial(before, share)
        return _part(part, before - taken, seen, int(taken.sum())), {}

    return change


def _overlaps(ends: Array, back: Array) -> Array:
    """The share of each cell j of ``ends`` that lies in cell i of ``back``, shape (cells, cells)."""
    low = np.maximum(ends[:-1, None], back[None, :-1])
    high = np.minimum(ends[1:, None], back[None, 1:])
    widths = np.maximum(high - low, 0.0)
    sums = widths.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(widths, sums, out=np.eye(len(widths)), where=sums > 0))
