"""Columns: the places in tensors that flow between steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from modelyard.schema import Array

#: Codes of texts: a text that no step knows, and the empty text, which stands for a missing one.
UNSEEN, EMPTY = 0, 1

#: A scaling whose offset is larger than this (in units of its output) is not taken into weights: the terms would
#: cancel and cost digits.
FOLD_LIMIT = 1e3


@dataclass(frozen=True)
class Origin:
    """Where a column comes from: input field ``name`` (element ``index`` of a field with a shape); the column is
    about ``raw * factor + offset``. Only used to aim probe rows at thresholds."""

    name: str
    index: int | None = None
    factor: float = 1.0
    offset: float = 0.0


@dataclass(eq=False)
class Tensor:
    """A value of shape (rows, width); ``make`` adds its nodes when it is first needed."""

    width: int
    name: str = ""
    make: Callable[[], str] | None = None
    pending: Pending | None = None
    #: Whether no value is ever NaN or infinite, so that a weight of 0 silences a column.
    finite: bool = False


@dataclass(frozen=True)
class Pending:
    """Elementwise steps from other columns: Add, Sub, Mul, Div, or Fill (a value for NaN), each with one number a
    column. Kept beside a tensor so that an operator may take them into its own constants and leave them undone."""

    columns: Sequence[Column]
    steps: Sequence[tuple[str, Array]]

    def as_linear(self) -> tuple[Array, Array] | None:
        """(factor, offset) with value = column * factor + offset, or None where that is not so or costs digits."""
        factor, offset = np.ones(len(self.columns)), np.zeros(len(self.columns))
        for op, vector in self.steps:
            if op == "Fill":
                return None
            if op in ("Mul", "Div"):
                by = vector if op == "Mul" else 1.0 / vector
                factor, offset = factor * by, offset * by
            else:
                offset = offset + vector if op == "Add" else offset - vector
        exact = np.isfinite(factor).all() and np.abs(offset).max(initial=0.0) <= FOLD_LIMIT
        return (factor, offset) if exact else None


@dataclass(frozen=True)
class Column:
    """One place in a tensor. ``vocabulary`` is set for texts, whose tensor holds codes."""

    tensor: Tensor
    index: int
    nullable: bool = True
    vocabulary: Vocabulary | None = None
    origin: Origin | None = None

    @property
    def is_text(self) -> bool:
        return self.vocabulary is not None


@dataclass
class Vocabulary:
    """The texts of one text tensor that some step knows, each with its code."""

    codes: dict[str, int] = field(default_factory=lambda: {"": EMPTY})

    def code(self, text: str) -> int:
        return self.codes.setdefault(text, len(self.codes) + 1)

    def __len__(self) -> int:
        """Codes run from 0 to this, exclusive."""
        return len(self.codes) + 1


def moved(origin: Origin | None, factor: float, offset: float) -> Origin | None:
    """The origin of a column that is scaled and shifted."""
    if origin is None:
        return None
    return replace(origin, factor=origin.factor * factor, offset=origin.offset * factor + offset)
