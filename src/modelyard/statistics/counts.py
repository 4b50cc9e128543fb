"""What every function asks of the counts that it is given: as many on both sides, none negative, none fractional."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics.special import Array


def read(counts: npt.ArrayLike, name: str = "counts") -> Array:
    """``counts`` as float64, which holds them exactly up to 2**53."""
    read = np.asarray(counts, dtype="float64")
    bad = ~((read >= 0) & (read == np.floor(read)) & np.isfinite(read))
    if bad.any():
        raise InvalidInput(f"{name}: {read[bad].flat[0]:g}, expected whole numbers from 0 up")
    return read


def read_pair(reference: npt.ArrayLike, live: npt.ArrayLike) -> tuple[Array, Array]:
    """Two histograms on the same bins, each with at least one row. Shapes: (bins,)."""
    ours, theirs = read(reference, "reference"), read(live, "live")
    if ours.ndim != 1 or ours.shape != theirs.shape:
        raise InvalidInput(
            f"histograms of shapes {ours.shape} and {theirs.shape}: expected two of one length",
            hint="only counts on the same frozen bins can be compared",
        )
    for name, counts in (("reference", ours), ("live", theirs)):
        if not counts.sum():
            raise InvalidInput(f"{name}: no rows were counted, expected at least one")
    return ours, theirs


def check_level(value: float, name: str = "alpha") -> None:
    if not 0 < value < 1:
        raise InvalidInput(f"{name}: {value}, expected a number between 0 and 1")


def check_sizes(**sizes: float) -> None:
    for name, size in sizes.items():
        if not size >= 1:
            raise InvalidInput(f"{name}: {size:g} rows, expected at least 1")
