"""A table with columns of every kind."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np


def plants() -> Any:
    """240 plants, by which two kinds can be told apart."""
    import pandas as pd

    dice = np.random.default_rng(0)
    kind = dice.integers(0, 2, 240)
    height = kind * 1.5 + dice.normal(10, 1, 240)
    height[dice.random(240) < 0.1] = np.nan
    first = dt.datetime(2026, 1, 1)
    return pd.DataFrame({
        "height": height, "petals": dice.integers(3, 9, 240) + kind, "is_tall": (kind + dice.integers(0, 2, 240)) > 1,
        "colour": np.where(dice.random(240) < 0.3, "white", np.where(kind == 1, "red", "blue")),
        "planted": [first + dt.timedelta(days=int(day)) for day in dice.integers(0, 300, 240)],
        "kind": np.where(kind == 1, "rose", "iris"),
    })  # fmt: skip
