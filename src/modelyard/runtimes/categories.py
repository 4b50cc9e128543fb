"""Columns of categories as the codes that boosters were fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.schema import Array, Columns

#: Column -> category -> its code.
Codes = dict[str, dict[Any, int]]


def encoded(columns: Columns, names: tuple[str, ...], codes: Codes, dtype: str) -> Array:
    """The columns side by side; categories become codes, and NaN where missing or never seen in fitting."""
    out = np.empty((columns.rows, len(names)), dtype=dtype)
    for i, name in enumerate(names):
        known = codes.get(name)
        values = columns[name]
        out[:, i] = values if known is None else [known.get(value, np.nan) for value in values.tolist()]
    return out
