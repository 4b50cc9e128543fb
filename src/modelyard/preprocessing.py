"""Transformers of our own for scikit-learn pipelines; each has an exact ONNX form.

They follow scikit-learn's conventions (``get_params``, ``clone``, ``get_feature_names_out``) without importing it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, NotFound
from modelyard.schema import Array, seconds_since_epoch

DAY = 86400.0
#: Mean length of a year of the Gregorian calendar, in days.
YEAR = 365.2425
#: sin(2 pi t) is t * (1 - 4 t^2) * (these coefficients of 1, t^2, t^4 ...) to 1.3e-9 for t from -1/2 to 1/2: a
#: minimax fit. Libraries' sines differ in the last digit, and a tree may decide at just that value; a polynomial of
#: plain products and sums gives the same double everywhere.
WAVE = (
    6.283185269992041, -16.208955641947234, 16.76918963371592, -9.62460438656114, 3.5163749441390197,
    -0.7983417459117746,
)  # fmt: skip

#: Every part, in the order of the columns. ``days``: days since 1970, with a fraction. ``hour``: 0 to 24, with a
#: fraction. ``weekday``: 0 for Monday to 6. ``weekend``: 1 on Saturday and Sunday. The day, the week and the year as
#: points on a circle: ``day_sin``, ``day_cos`` ...
PARTS = ("days", "hour", "day_sin", "day_cos", "weekday", "weekend", "week_sin", "week_cos", "year_sin", "year_cos")


class _Numpy:
    """The operations of ``date_parts`` on arrays."""

    add, subtract, multiply, divide, floor = np.add, np.subtract, np.multiply, np.divide, np.floor

    @staticmethod
    def beside(arrays: Sequence[Array]) -> Array:
        return np.concatenate(arrays, axis=1)


def date_parts(on: Any, seconds: Any, parts: Sequence[str]) -> list[tuple[Any, int]]:
    """Each part of ``seconds`` since 1970 UTC, in the operations of ``on``: numpy's, or those that add graph nodes.

    Only the four basic operations and floor, so that both give the same doubles. Returns for each part a matrix and
    its number n: the part is that matrix's n-th run of as many columns as ``seconds`` has. A missing moment (NaN)
    gives missing parts.
    """
    days = on.divide(seconds, DAY)
    whole = on.floor(days)
    made: dict[str, Any] = {}

    def plain(name: str) -> Any:
        if name not in made:
            made[name] = forms[name]()
        return made[name]

    def hour() -> Any:
        # From the seconds of the day, which are exact, rather than from the fraction of a quotient.
        return on.divide(on.subtract(seconds, on.multiply(whole, DAY)), 3600.0)

    def weekday() -> Any:
        since_monday = on.add(whole, 3.0)  # 1970 began on a Thursday
        return on.subtract(since_monday, on.multiply(on.floor(on.divide(since_monday, 7.0)), 7.0))

    def week() -> Any:
        return on.divide(on.add(plain("weekday"), on.divide(plain("hour"), 24.0)), 7.0)

    forms: dict[str, Callable[[], Any]] = {
        "days": lambda: days,
        "hour": hour,
        "weekday": weekday,
        "weekend": lambda: on.floor(on.divide(plain("weekday"), 5.0)),  # 0 up to Friday (4), 1 for 5 and 6
        "day": lambda: on.divide(plain("hour"), 24.0),
        "week": week,
        "year": lambda: on.divide(days, YEAR),
    }
    circles = [name for name in parts if name not in forms]
    waves: Any = None
    if circles:
        # The cosine is the sine a quarter of a turn later; all of them are worked out side by side.
        shares = [plain(name.partition("_")[0]) for name in circles]
        turned = [on.add(s, 0.25) if n.endswith("_cos") else s for s, n in zip(shares, circles, strict=True)]
        waves = _wave(on, on.beside(turned) if len(turned) > 1 else turned[0])
    return [(waves, circles.index(name)) if name in circles else (plain(name), 0) for name in parts]


def _wave(on: Any, turns: Any) -> Any:
    """sin(2 pi turns)."""
    near = on.subtract(turns, on.floor(on.add(turns, 0.5)))
    square = on.multiply(near, near)
    series: Any = WAVE[-1]
    for coefficient in reversed(WAVE[:-1]):
        series = on.add(on.multiply(square, series), coefficient)
    ends = on.subtract(1.0, on.multiply(square, 4.0))
    return on.multiply(on.multiply(near, ends), series)


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
        width = seconds.shape[1]
        made = [matrix[:, n * width : (n + 1) * width] for matrix, n in date_parts(_Numpy, seconds, self.parts)]
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
