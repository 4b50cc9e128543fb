"""What is odd about single values: input values that no reference row had, outputs that are no numbers.

A flag is a text such as ``age:above``, ``city:unseen``, ``x:missing`` or ``prediction:invalid``. Inside it is the row
and the number of the text, so that nothing is done for each value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from modelyard.profile import Counts, Profile
from modelyard.recording.bins import Texts
from modelyard.schema import Array, Columns, Signature


class Found(NamedTuple):
    """Flags of some rows, ordered by row: the row of each, and the number of its text."""

    rows: Array
    codes: Array

    def mask(self, rows: int) -> Array:
        """Which of the rows have a flag."""
        mask = np.zeros(rows, dtype=bool)
        mask[self.rows] = True
        return mask


class Flags:
    """What to look for in rows of one version."""

    def __init__(self, signature: Signature, reference: Profile | None) -> None:
        self.names: list[str] = []
        self._numbers: list[_Limits] = []
        self._texts: list[tuple[Texts, bool, int]] = []
        layout = signature.input_layout
        parts = {part.field: part for part in reference.inputs if not part.part} if reference is not None else {}
        for number, block in enumerate(layout.blocks):
            known = [(place, parts[name]) for place, name in enumerate(block.names) if name in parts]
            if not block.is_scalar or not known:
                continue
            if block.storage == "object":
                for _, part in known:
                    if part.kind == "category":
                        self._texts.append((Texts(part, 0), part.missing == 0, len(self.names)))
                        self.names += [f"{part.field}:missing", f"{part.field}:unseen"]
            else:
                self._numbers.append(_Limits(number, known, len(self.names)))
                self.names += [f"{part.field}:{word}" for word in _WORDS for _, part in known]
        self._outputs = list(_outputs(signature))
        self._first_output = len(self.names)
        self.names += [f"{name}:invalid" for name, _ in self._outputs]

    def find(self, inputs: Columns | None, outputs: Columns | None) -> Found:
        """The flags of rows."""
        rows: list[Array] = []
        codes: list[Array] = []
        if inputs is not None:
            for limits in self._numbers:
                limits.find(inputs.blocks[limits.block], rows, codes)
            for texts, has_all, code in self._texts:
                _find_texts(inputs[texts.part.field].tolist(), texts, has_all, code, rows, codes)
        if outputs is not None:
            for number, (name, may_miss) in enumerate(self._outputs):
                values = outputs[name]
                bad: Array = ~np.isfinite(values)
                if bad.any():
                    if may_miss:
                        bad &= ~np.isnan(values)
                    odd = np.flatnonzero(bad.reshape(len(values), -1).any(axis=1))
                    rows.append(odd)
                    codes.append(np.full(len(odd), self._first_output + number))
        if not rows:
            return NONE
        at = np.concatenate(rows)
        order = np.argsort(at, kind="stable")
        return Found(at[order], np.concatenate(codes)[order])

    def invalid(self, found: Found) -> Array:
        """The rows whose outputs are no numbers."""
        return np.unique(found.rows[found.codes >= self._first_output])


def joined(many: Sequence[tuple[Found, int]]) -> Found:
    """The flags of rows one after the other; each with the number of its rows."""
    starts = np.cumsum([0, *(rows for _, rows in many)])
    moved = [found.rows + start for (found, _), start in zip(many, starts.tolist(), strict=False)]
    return Found(np.concatenate(moved), np.concatenate([found.codes for found, _ in many]))


NONE = Found(np.empty(0, dtype="int64"), np.empty(0, dtype="int64"))

_WORDS = ("missing", "below", "above")


class _Limits:
    """The range of the columns of one block of numbers."""

    def __init__(self, block: int, known: Sequence[tuple[int, Counts]], code: int) -> None:
        self.block = block
        places = [place for place, _ in known]
        self._at: Array | slice = np.array(places)
        if places == list(range(len(places))):
            self._at = slice(0, len(places))
        self._low = np.array([part.edges[0] if part.edges else -np.inf for _, part in known])
        self._high = np.array([np.inf if part.maximum is None else part.maximum for _, part in known])
        #: Columns of which no reference row missed a value.
        self._always = np.array([part.missing == 0 for _, part in known])
        self._code = code

    def find(self, block: Array, rows: list[Array], codes: list[Array]) -> None:
        values = block[:, self._at]
        with np.errstate(invalid="ignore"):
            fine = (values >= self._low) & (values <= self._high)  # NaN is not
        if fine.all():
            return
        at, column = np.nonzero(~fine)
        odd = values[at, column]
        gone = odd != odd
        word = np.where(gone, 0, np.where(odd < self._low[column], 1, 2))
        kept = self._always[column] | ~gone
        rows.append(at[kept])
        codes.append((self._code + word * len(self._low) + column)[kept])


def _find_texts(
    values: list[str | None], texts: Texts, has_all: bool, code: int, rows: list[Array], codes: list[Array]
) -> None:
    distinct = set(values)
    unseen = {value for value in distinct if isinstance(value, str) and texts.is_unseen(value)}
    missing = has_all and None in distinct
    if not unseen and not missing:
        return
    at = [(row, value) for row, value in enumerate(values) if value in unseen or (missing and value is None)]
    rows.append(np.array([row for row, _ in at], dtype="int64"))
    codes.append(np.array([code + (value is not None) for _, value in at], dtype="int64"))


def _outputs(signature: Signature) -> Iterable[tuple[str, bool]]:
    """Outputs that are floating numbers, and whether they may be missing."""
    for field in signature.outputs:
        if field.storage.startswith("float"):
            yield field.name, field.nullable
