"""How far a converted model is from the original, on the same rows."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from modelyard.schema import Array, Columns, Field


class Parity(msgspec.Struct, kw_only=True):
    """The largest differences found. ``fault`` says what makes the converted model unfit, or is empty."""

    rows: int
    worst_absolute: float = 0.0
    worst_relative: float = 0.0
    label_flips: int = 0
    fault: str = ""
    #: A row in which the fault shows; -1 where it is not one of rows.
    row: int = -1

    def note(self, fault: str, row: int = -1) -> None:
        """Remember the first fault."""
        if not self.fault:
            self.fault, self.row = fault, row


def compare(expected: Columns, got: Columns, tolerance: float) -> Parity:
    """Compare the outputs of two models on the same rows.

    A number's relative difference is taken to its own size or to the typical size of that output, whichever is
    larger, so that a value that happens to be near zero does not look wrong. Labels may differ only where the
    original's two best probabilities differ by no more than the tolerance.
    """
    parity = Parity(rows=expected.rows)
    tied = _ties(expected, tolerance)
    for field in expected.layout.fields:
        left, right = expected[field.name], got[field.name]
        if left.shape != right.shape:
            parity.note(f"output {field.name} has shape {list(right.shape)}, not {list(left.shape)}")
        elif field.name == "prediction" and (not field.dtype.startswith("float") or "probabilities" in expected):
            _compare_labels(parity, field, left, right, tied)
        else:
            _compare_numbers(parity, field, left, right, tolerance)
    return parity


def _ties(expected: Columns, tolerance: float) -> Array:
    """Rows whose label may go either way."""
    if "probabilities" not in expected or expected["probabilities"].shape[-1] < 2:
        return np.zeros(expected.rows, dtype=bool)
    ordered = np.sort(expected["probabilities"], axis=1)
    tied: Array = ordered[:, -1] - ordered[:, -2] <= 2 * tolerance
    return tied


def _compare_labels(parity: Parity, field: Field, left: Array, right: Array, tied: Array) -> None:
    flipped = (left != right) & ~((left != left) & (right != right)) & ~tied
    flips = int(flipped.sum())
    parity.label_flips += flips
    if flips:
        parity.note(f"{flips} of {len(left)} labels differ", int(np.argmax(flipped)))


def _compare_numbers(parity: Parity, field: Field, left: Array, right: Array, tolerance: float) -> None:
    left, right = left.astype("float64"), right.astype("float64")
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    finite = np.isfinite(left) & np.isfinite(right)
    broken = int((~same & ~finite).sum())
    if broken:
        parity.note(f"{broken} values of {field.name} are finite in one model only")
    difference = np.where(same | ~finite, 0.0, np.abs(np.where(finite, left, 0.0) - np.where(finite, right, 0.0)))
    size = np.where(np.isfinite(left), np.abs(left), 0.0)
    known = size[np.isfinite(left)]
    typical = 1.0 if field.name == "probabilities" else float(np.median(known)) if known.size else 0.0
    relative = difference / np.maximum(np.maximum(size, typical), np.finfo("float64").tiny)
    parity.worst_absolute = max(parity.worst_absolute, float(difference.max(initial=0.0)))
    worst = float(relative.max(initial=0.0))
    parity.worst_relative = max(parity.worst_relative, worst)
    if worst > tolerance:
        over = int((relative > tolerance).sum())
        parity.note(
            f"{over} of {difference.size} values of {field.name} differ by more than {tolerance:g} (worst {worst:.2g})",
            int(np.argmax(relative)) // max(1, difference.size // len(left)),
        )


def versions(*libraries: str) -> dict[str, str]:
    """The installed versions of distributions, those that are there."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
