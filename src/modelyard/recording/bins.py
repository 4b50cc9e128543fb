"""A reference profile, compiled: rows are counted on its bins a block at a time.

What is counted is what ``Profile.add`` counts. It is kept in one vector of integers: for each part of the profile its
bins, and behind them its counters.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from modelyard.profile import COUNTERS, Counts, part_of
from modelyard.registry.windows import Part, magnitudes
from modelyard.schema import Array, Columns, Layout

_MISSING, _BELOW, _ABOVE, _OTHER, _UNSEEN, _WRONG = range(len(COUNTERS))

#: Called for each text that the reference did not have: the field (or part), the text, how many times.
Tell = Callable[[str, str, int], None]


class Bins:
    """The parts of one side of a profile, for columns of one layout."""

    def __init__(self, parts: Sequence[Counts], layout: Layout) -> None:
        self.parts = parts
        widths = [len(part.counts) + len(COUNTERS) for part in parts]
        #: Where each part begins in the vector, and the vector's length.
        self.starts = [sum(widths[:i]) for i in range(len(widths))]
        self.size = sum(widths)
        self._texts: list[Texts] = []
        self._numbers: list[_Numbers] = []
        self._others: list[tuple[Counts, int]] = []
        by_block: dict[int, list[tuple[Counts, int, int]]] = {}
        for part, start in zip(parts, self.starts, strict=True):
            place = layout.places.get(part.field)
            if place is None or part.kind == "skipped":
                continue
            block = layout.blocks[place[0]]
            if part.kind == "number" and block.storage != "object":
                by_block.setdefault(place[0], []).append((part, place[1], start))
            elif part.kind == "category" and block.storage == "object" and block.is_scalar:
                self._texts.append(Texts(part, start))
            else:
                self._others.append((part, start))
        for number, members in by_block.items():
            self._numbers.append(_Numbers(number, layout.blocks[number].is_scalar, members))

    def vector(self) -> Array:
        """Nothing counted yet."""
        return np.zeros(self.size, dtype="int32")

    def count(self, columns: Columns, into: Array, tell: Tell, tell_far: Tell) -> None:
        """Add rows to a vector. ``tell_far`` hears of numbers beyond the reference's range, by their magnitude."""
        if not columns.rows:
            return
        for numbers in self._numbers:
            numbers.count(columns.blocks[numbers.block], into, tell_far)
        for texts in self._texts:
            texts.count(columns[texts.part.field], into, tell)
        for part, start in self._others:  # no model of ours has such a profile: exactness rather than speed
            counted = part.empty()
            counted.count(part_of(columns[part.field], part))
            bins = len(counted.counts)
            into[start : start + bins] += counted.counts
            into[start + bins : start + bins + len(COUNTERS)] += [getattr(counted, name) for name in COUNTERS]

    def count_wrong(self, field: str, into: Array) -> None:
        """Add a value that was refused before it could become a column's."""
        for part, start in zip(self.parts, self.starts, strict=True):
            if part.field == field:
                into[start + len(part.counts) + _WRONG] += 1

    def told(self, vector: Array) -> list[Part]:
        """What a vector counts, part by part."""
        plain = vector.tolist()
        return [
            Part(plain[start : (end := start + len(part.counts))], plain[end : end + len(COUNTERS)])
            for part, start in zip(self.parts, self.starts, strict=True)
        ]


class _Numbers:
    """The parts of one block of numbers.

    Each value's place is how many limits of its part it has reached: the edges, and what is above the maximum. All
    values are compared with the first limit, then all with the second: thirty passes over memory that is near take a
    fraction of the time of a search for each value, or of sorting them.
    """

    def __init__(self, block: int, is_scalar: bool, members: list[tuple[Counts, int, int]]) -> None:
        self.block = block
        self._parts = [part for part, _, _ in members]
        places = [place for _, place, _ in members] if is_scalar else [part.at for part, _, _ in members]
        #: Which elements of a row the parts are; None where some are summaries of it.
        self._at: Array | slice | None = np.array(places) if None not in places else None
        if places == list(range(len(places))):
            self._at = slice(0, len(places))
        most = max(len(part.edges) for part in self._parts) + 1
        limits = np.full((most, len(members), 1), np.nan)  # nothing reaches NaN
        #: Of the counts of places, part after part: which of them, and where they go to in the vector.
        sources: list[int] = []
        targets: list[int] = []
        low: list[int] = []
        missing: list[int] = []
        beyond: list[tuple[int, int]] = []
        for row, (part, _, start) in enumerate(members):
            edges, counters, first = len(part.edges), start + len(part.counts), row * (most + 1)
            low.append(counters + (_UNSEEN if part.maximum is None else _BELOW))
            missing.append(counters + _MISSING)
            sources.append(first)
            targets.append(low[-1])
            beyond.append((first, first + edges + 1))
            if part.maximum is not None:
                limits[:edges, row, 0] = part.edges
                limits[edges, row, 0] = np.nextafter(part.maximum, np.inf)
                sources += range(first + 1, first + edges + 2)
                targets += [*range(start, start + edges), counters + _ABOVE]
        self._limits = list(limits)
        self._offsets = (np.arange(len(members)) * (most + 1))[:, None]
        self._size = len(members) * (most + 1)
        self._sources, self._targets = np.array(sources), np.array(targets)
        self._low, self._missing = np.array(low), np.array(missing)
        #: Of the counts of places, those below and above each part's range.
        self._beyond = np.array(beyond)

    def count(self, block: Array, into: Array, tell_far: Tell) -> None:
        for start in range(0, len(block), _ROWS):
            self._count(self._matrix(block[start : start + _ROWS]), into, tell_far)

    def _matrix(self, block: Array) -> Array:
        """The values, a row for each part."""
        if self._at is None:
            return np.stack([part_of(block, part).astype("float64") for part in self._parts])
        return np.array(block.reshape(len(block), -1)[:, self._at].T, dtype="float64", order="C")

    def _count(self, matrix: Array, into: Array, tell_far: Tell) -> None:
        reached = np.empty(matrix.shape, dtype=bool)
        places = np.zeros(matrix.shape, dtype="uint8")
        for limit in self._limits:
            np.greater_equal(matrix, limit, out=reached)
            places += reached.view("uint8")
        found = np.bincount((places + self._offsets).ravel(), minlength=self._size)
        into[self._targets] += found[self._sources]
        far = found[self._beyond].sum(axis=1)
        np.isnan(matrix, out=reached)
        if reached.any():  # they reached nothing
            gaps = reached.sum(axis=1)
            into[self._low] -= gaps
            into[self._missing] += gaps
            far -= gaps
        for row in far.nonzero()[0].tolist():
            part = self._parts[row]
            if part.maximum is not None:
                numbers = matrix[row][(places[row] == 0) | (places[row] > len(part.edges))]
                for text, times in magnitudes(numbers[~np.isnan(numbers)]).items():
                    tell_far(part.name, text, times)


#: Rows that are counted at once: they stay near the processor.
_ROWS = 1024


class Texts:
    """One field of texts."""

    def __init__(self, part: Counts, start: int) -> None:
        self.part = part
        self._start = start
        self._places = {value: start + i for i, value in enumerate(part.values)}
        self._known = frozenset(np.frombuffer(part.known, "<u4").tolist())
        self._counters = start + len(part.counts)

    def is_unseen(self, text: str) -> bool:
        """Whether the reference did not have this text."""
        return not (text in self._places or self.part.open or _hash(text) in self._known)

    def count(self, values: Array, into: Array, tell: Tell) -> None:
        places, counters = self._places, self._counters
        for value, times in Counter(values.tolist()).items():
            place = places.get(value)
            if place is not None:
                into[place] += times
            elif value is None or value != value:
                into[counters + _MISSING] += times
            elif not isinstance(value, str):
                into[counters + _WRONG] += times
            elif not self.is_unseen(value):
                into[counters + _OTHER] += times
            else:
                into[counters + _UNSEEN] += times
                tell(self.part.field, value, times)


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
