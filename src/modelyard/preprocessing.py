"""Transformers of our own for scikit-learn pipelines; each has an exact ONNX form.

They follow scikit-learn's conventions (``get_params``, ``clone``, ``get_feature_names_out``) without importing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, NotFound
from modelyard.schema import Array, seconds_since_epoch

DAY = 86400.0
#: Mean length of a year of the Gregorian calendar, in days.
YEAR = 365.2425
TURN = 2.0 * np.pi

#: Every part, in the order of the columns. ``days``: days since 1970, with a fraction. ``hour``: 0 to 24, with a
#: fraction. ``weekday``: 0 for Monday to 6. ``weekend``: 1 on Saturday and Sunday. The day, the week and the year as
#: points on a circle: ``day_sin``, ``day_cos`` ...
PARTS = ("days", "hour", "day_sin", "day_cos", "weekday", "weekend", "week_sin", "week_cos", "year_sin", "year_cos")


class _Numpy:
    """The operations of ``date_parts`` on arrays."""

    add, subtract, multiply, divide = np.add, np.subtract, np.multiply, np.divide
    floor, sin, cos = np.floor, np.sin, np.cos


def date_parts(on: Any, seconds: Any, parts: Sequence[str]) -> list[Any]:
    """Each part of ``seconds`` since 1970 UTC, in the operations of ``on``: numpy's, or those that add graph nodes.

    Only the four basic operations, floor, sine and cosine, so that both give the same doubles (sine and cosine to
    the last digit or two). A missing moment (NaN) gives missing parts.
    """
    days = on.divide(seconds, DAY)
    whole = on.floor(days)

    def hours() -> Any:
        # From the seconds of the day, which are exact, rather than from the fraction of a quotient.
        return on.divide(on.subtract(seconds, on.multiply(whole, DAY)), 3600.0)

    def weekday() -> Any:
        since_monday = on.add(whole, 3.0)  # 1970 began on a Thursday
        return on.subtract(since_monday, on.multiply(on.floor(on.divide(since_monday, 7.0)), 7.0))

    def angle(cycle: str) -> Any:
        if cycle == "day":
            share = on.divide(hours(), 24.0)
        elif cycle == "week":
            share = on.divide(on.add(weekday(), on.divide(hours(), 24.0)), 7.0)
        else:
            years = on.divide(days, YEAR)
            share = on.subtract(years, on.floor(years))
        return on.multiply(share, TURN)

    def part(name: str) -> Any:
        if name == "days":
            return days
        if name == "hour":
            return hours()
        if name == "weekday":
            return weekday()
        if name == "weekend":
            # 0 up to 4 (Friday), 1 for 5 and 6, and NaN stays NaN.
            return on.floor(on.divide(weekday(), 5.0))
        cycle, _, form = name.partition("_")
        return on.sin(angle(cycle)) if form == "sin" else on.cos(angle(cycle))

    return [part(name) for name in parts]


class DateParts:
    """Moments to numbers that a model can learn from: trend, time of day, day of the week, season.

    Input: columns of seconds since 1970 UTC (float64, NaN missing), or numpy or pandas datetimes. Output: float64,
    for each input column the ``parts`` in order; shape (rows, columns * parts). It learns nothing from the rows.

    Raises NotFound from ``fit`` for a part that is not one of ``PARTS``.
    """

    def __init__(self, parts: Sequence[str] = PARTS) -> None:
        self.parts = parts

    def fit(self, X: Any, y: Any = None) -> DateParts:
        for name in self.parts:
            if name not in PARTS:
                raise NotFound.among("part of a date", name, PARTS)
        names = getattr(X, "columns", None)
        if names is not None and all(isinstance(name, str) for name in names):
            self.feature_names_in_ = np.array(list(names), dtype=object)
        self.n_features_in_ = _seconds(X).shape[1]
        return self

    def transform(self, X: Any) -> Array:
        """The parts of each moment: (rows, columns) to (rows, columns * parts)."""
        seconds = _seconds(X)
        if seconds.shape[1] != self.n_features_in_:
            raise InvalidInput.at("DateParts", f"{self.n_features_in_} columns", f"{seconds.shape[1]}")
        made = date_parts(_Numpy, seconds, self.parts)
        return np.stack(made, axis=2).reshape(len(seconds), -1)

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        return self.fit(X).transform(X)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> Array:
        known = getattr(self, "feature_names_in_", None)
        if input_features is None:
            input_features = known if known is not None else [f"x{i}" for i in range(self.n_features_in_)]
        return np.array([f"{name}_{part}" for name in input_features for part in self.parts], dtype=object)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"parts": self.parts}

    def set_params(self, **params: Any) -> DateParts:
        for name, value in params.items():
            if name != "parts":
                raise NotFound.among("parameter of DateParts", name, ["parts"])
            self.parts = value
        return self

    def set_output(self, *, transform: str | None = None) -> DateParts:
        """Accepted for pipelines that ask for it; the output stays an array."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import Tags, TargetTags, TransformerTags
        from sklearn.utils._tags import InputTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(allow_nan=True),
        )

    def __repr__(self) -> str:
        return "DateParts()" if tuple(self.parts) == PARTS else f"DateParts(parts={tuple(self.parts)!r})"


def _seconds(X: Any) -> Array:
    """(rows, columns) of seconds as doubles, from numbers, datetimes or a data frame of either."""
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        return np.column_stack([_seconds(X.iloc[:, i].to_numpy()) for i in range(len(X.columns))])
    array = np.asarray(X)
    if array.dtype.kind == "M":
        seconds = array.astype("datetime64[us]").astype("float64") / 1e6
        seconds[np.isnat(array)] = np.nan
    elif array.dtype == object:
        moments = [np.nan if v is None or v != v else seconds_since_epoch(v) for v in array.ravel().tolist()]
        seconds = np.array(moments, dtype="float64").reshape(array.shape)
    else:
        seconds = array.astype("float64")
    return seconds if seconds.ndim == 2 else seconds.reshape(len(seconds), -1)
