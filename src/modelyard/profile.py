"""Profile of a set of rows: integer counts on frozen bins.

The reference rows freeze the bins: quantiles for numbers, the most frequent values for texts. From then on rows are
only counted, so merging two profiles on the same bins is addition: exact, in any order, over workers and machines.
The reference profile of a bundle and a live window are the same type; drift is a comparison of two of them.

A number falls into the last bin whose edge it is not below. A number under the reference's minimum counts as
``below``, over its maximum as ``above``; infinities are such numbers. Counting never raises over a value.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np

from modelyard.errors import BadBundle, Conflict
from modelyard.schema import Array, Field

#: Bins per number. A value that fills more than one bin gets a bin of its own, so there may be up to half more.
BINS = 20
#: Texts kept by name; the rest of those known is kept as 32-bit hashes.
TOP = 32
#: Most known texts per field. With more, a text that is not at the top is ``other``: unseen cannot be told.
KNOWN = 512
#: Longer texts are never kept by name.
LONGEST = 100
#: A shaped field of at most this many elements is profiled element by element, a larger one by summaries of its rows.
ELEMENTS = 32

SUMMARIES = ("minimum", "mean", "maximum")

#: What a field's counters are called, in the order in which MONITORING and the console show them.
COUNTERS = ("missing", "below", "above", "other", "unseen", "wrong")


class Counts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One histogram: of a scalar field, or of one ``part`` of a shaped one: the element ``at`` a flat index, called
    by its label where it has one, or a summary of the row's elements.

    Frozen: ``edges`` (ascending lower edges of the bins) and ``maximum`` of a number; ``values`` (most frequent
    first) of a category, with ``known``: the sorted crc32 of the other texts in the reference, little-endian
    uint32. ``open`` means that there were too many to know. Everything after ``counts`` is a counter too.
    """

    field: str
    part: str = ""
    at: int | None = None
    kind: Literal["number", "category", "skipped"] = "number"
    edges: list[float] = []
    maximum: float | None = None
    values: list[str] = []
    known: bytes = b""
    open: bool = False
    reason: str = ""
    counts: list[int] = []
    missing: int = 0
    below: int = 0
    above: int = 0
    other: int = 0
    unseen: int = 0
    wrong: int = 0

    @property
    def name(self) -> str:
        return f"{self.field}[{self.part}]" if self.part else self.field

    @property
    def total(self) -> int:
        """Rows counted here."""
        counters: list[int] = [getattr(self, name) for name in COUNTERS]
        return sum(self.counts) + sum(counters)

    def frozen(self) -> tuple[Any, ...]:
        """What must be equal for two of these to be added."""
        names = ("field", "part", "at", "kind", "edges", "maximum", "values", "known", "open", "reason")
        return tuple(getattr(self, name) for name in names)

    def empty(self) -> Counts:
        zeros: dict[str, Any] = dict.fromkeys(COUNTERS, 0)
        return msgspec.structs.replace(self, counts=[0] * len(self.counts), **zeros)

    def plus(self, more: Counts) -> Counts:
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(more, name) for name in COUNTERS}
        return msgspec.structs.replace(
            self, counts=[a + b for a, b in zip(self.counts, more.counts, strict=True)], **sums
        )

    def count(self, values: Array) -> None:
        """Add ``values``, one per row."""
        if self.kind == "number":
            self._count_numbers(values)
        elif self.kind == "category":
            self._count_texts(values)

    def _count_numbers(self, values: Array) -> None:
        numbers, missing, wrong = _as_numbers(values)
        self.missing += missing
        self.wrong += wrong
        if self.maximum is None:
            self.unseen += len(numbers)
            return
        above = int(np.count_nonzero(numbers > self.maximum))
        places = np.searchsorted(self.edges, numbers, side="right")
        found = np.bincount(places, minlength=len(self.edges) + 1)
        self.below += int(found[0])
        self.above += above
        found[-1] -= above
        self.counts = [a + int(b) for a, b in zip(self.counts, found[1:], strict=True)]

    def _count_texts(self, values: Array) -> None:
        places = {value: i for i, value in enumerate(self.values)}
        known = set(np.frombuffer(self.known, "<u4").tolist())
        counts = list(self.counts)
        for value, times in Counter(values.tolist()).items():
            place = places.get(value)
            if place is not None:
                counts[place] += times
            elif value is None or value != value:
                self.missing += times
            elif not isinstance(value, str):
                self.wrong += times
            elif self.open or _hash(value) in known:
                self.other += times
            else:
                self.unseen += times
        self.counts = counts


class Profile(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Counts of the inputs of ``rows`` rows and, where given, of the outputs predicted for them."""

    rows: int = 0
    inputs: list[Counts] = []
    outputs: list[Counts] = []

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Array],
        fields: Iterable[Field],
        outputs: Mapping[str, Array] | None = None,
        output_fields: Iterable[Field] = (),
    ) -> Profile:
        """The profile of reference rows, with bins frozen at what is in them.

        ``columns`` maps each field's name to an array of shape (rows, *field shape) in the field's storage.
        """
        profile = cls(
            inputs=[part for field in fields for part in _freeze(field, columns[field.name])],
            outputs=[part for field in output_fields for part in _freeze(field, (outputs or {})[field.name])],
        )
        profile.add(columns, outputs)
        return profile

    def add(
        self,
        columns: Mapping[str, Array],
        outputs: Mapping[str, Array] | None = None,
        wrong: Mapping[str, int] | None = None,
    ) -> None:
        """Count more rows, in place.

        ``wrong``: for each input, how many values were refused before they could become columns.
        """
        self.rows += max((len(columns[part.field]) for part in self.inputs[:1]), default=0)
        for side, given in ((self.inputs, columns), (self.outputs, outputs)):
            if given is None:
                continue
            for part in side:
                if part.kind != "skipped":
                    part.count(part_of(given[part.field], part))
        for part in self.inputs:
            part.wrong += (wrong or {}).get(part.field, 0)

    def empty(self) -> Profile:
        """The same bins with nothing counted: where a live window starts."""
        return Profile(inputs=[p.empty() for p in self.inputs], outputs=[p.empty() for p in self.outputs])

    def fits(self, other: Profile) -> bool:
        """Whether the two have the same frozen bins."""
        ours, theirs = ([p.frozen() for p in chain(x.inputs, x.outputs)] for x in (self, other))
        return ours == theirs and len(self.inputs) == len(other.inputs)

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows. Raises Conflict where the bins differ."""
        if not self.fits(other):
            raise Conflict("these profiles have different bins: only windows on one reference can be added")
        return Profile(
            rows=self.rows + other.rows,
            inputs=[a.plus(b) for a, b in zip(self.inputs, other.inputs, strict=True)],
            outputs=[a.plus(b) for a, b in zip(self.outputs, other.outputs, strict=True)],
        )

    def to_json(self) -> bytes:
        """The same bytes for the same profile."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def from_json(cls, data: bytes) -> Profile:
        """The profile in ``data``. Raises BadBundle where it is none."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise BadBundle(f"not a profile: {error}") from None


# -- freezing the bins -------------------------------------------------------------------------------------------


def _freeze(field: Field, values: Array) -> list[Counts]:
    """Empty counts for each part of ``field``, their bins frozen at ``values``."""
    if not field.shape:
        return [_freeze_part(Counts(field=field.name), field, values)]
    if field.dtype == "string":
        return [Counts(field=field.name, kind="skipped", reason="texts with a shape are not profiled")]
    size = int(np.prod(field.shape))
    if 0 < size <= ELEMENTS:  # a size that varies is negative
        labels = field.categories if field.categories and len(field.categories) == size else None
        names = labels or ["x".join(map(str, place)) for place in np.ndindex(*field.shape)]
        parts = [Counts(field=field.name, part=name, at=i) for i, name in enumerate(names)]
    else:
        parts = [Counts(field=field.name, part=name) for name in SUMMARIES]
    return [_freeze_part(part, field, part_of(values, part)) for part in parts]


def _freeze_part(part: Counts, field: Field, values: Array) -> Counts:
    if field.dtype == "string":
        return _freeze_texts(part, values)
    numbers, _, _ = _as_numbers(values)
    edges, maximum = _quantile_edges(numbers[np.isfinite(numbers)])
    return msgspec.structs.replace(part, edges=edges, maximum=maximum, counts=[0] * len(edges))


def _quantile_edges(numbers: Array) -> tuple[list[float], float | None]:
    """Lower edges of the bins, and the maximum. Edges are values that occur, so they are the same everywhere."""
    distinct = np.unique(numbers)
    if not distinct.size:
        return [], None
    if distinct.size <= BINS:
        edges = distinct
    else:
        at = np.arange(BINS) * len(numbers) // BINS
        chosen, times = np.unique(np.sort(numbers)[at], return_counts=True)
        after = np.searchsorted(distinct, chosen[times > 1], side="right")
        edges = np.union1d(chosen, distinct[after[after < distinct.size]])
    # + 0.0 turns a negative zero, which JSON would keep apart, into zero
    return [float(edge) + 0.0 for edge in edges], float(distinct[-1]) + 0.0


def _freeze_texts(part: Counts, values: Array) -> Counts:
    times = Counter(value for value in values.tolist() if isinstance(value, str))
    few = len(times) <= KNOWN
    ranked = sorted(times.items(), key=lambda item: (-item[1], item[0]))
    # A text of many that occurs once says who, not what: it stays unnamed.
    named = [text for text, count in ranked[:TOP] if len(text) <= LONGEST and (few or count > 1)]
    rest = sorted({_hash(text) for text in times.keys() - set(named)}) if few else []
    return msgspec.structs.replace(
        part,
        kind="category",
        values=named,
        known=np.array(rest, dtype="<u4").tobytes(),
        open=not few,
        counts=[0] * len(named),
    )


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


# -- values ------------------------------------------------------------------------------------------------------


def part_of(values: Array, part: Counts) -> Array:
    """The values of ``part``, one per row. A summary is of the row's finite elements, NaN where there are none."""
    if not part.part:
        return values
    flat: Array = values.reshape(len(values), prod(values.shape[1:]))
    if part.at is not None:
        return flat[:, part.at]
    flat = flat.astype("float64")
    if part.part == "mean":
        finite = np.isfinite(flat)
        means: Array = np.full(len(flat), np.nan)
        with np.errstate(over="ignore"):  # a sum of numbers may be infinity where they are not
            sums = np.where(finite, flat, 0.0).sum(axis=1)
        np.divide(sums, finite.sum(axis=1), out=means, where=finite.any(axis=1))
        return means
    extreme: Array = (np.fmin if part.part == "minimum" else np.fmax).reduce(flat, axis=1, initial=np.nan)
    return extreme


def _as_numbers(values: Array) -> tuple[Array, int, int]:
    """The numbers among ``values`` as float64, how many are missing, and how many are no numbers."""
    wrong = 0
    if values.dtype.kind not in "biuf":
        plain = values.ravel().tolist()
        numbers = [v for v in plain if isinstance(v, (bool, int, float)) and v == v]
        missing = sum(v is None or v != v for v in plain)
        wrong = len(plain) - len(numbers) - missing
        return np.array(numbers, dtype="float64"), missing, wrong
    doubles = values.astype("float64", copy=False)
    gaps = np.isnan(doubles)
    missing = int(np.count_nonzero(gaps))
    return (doubles[~gaps] if missing else doubles), missing, wrong
