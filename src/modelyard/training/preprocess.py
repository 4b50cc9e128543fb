"""The preprocessing inside the pipeline, from steps that also have an exact ONNX form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelyard.schema import Array

#: One-hot columns that all text columns share, and bounds for a single one.
ONE_HOT_BUDGET, MOST_PER_COLUMN, LEAST_PER_COLUMN = 400, 40, 8


def frame_of(arrays: Mapping[str, Array]) -> Any:
    """The columns as the data frame that the pipelines are fitted on: texts as objects, never as categories."""
    import pandas

    return pandas.DataFrame(
        {
            name: pandas.Series(values, dtype=object if values.dtype == object else None)
            for name, values in arrays.items()
        }
    )


def kind_of(values: Array) -> str:
    """``number``, ``date`` or ``text``. Truth values, also those with gaps, count as numbers."""
    if values.dtype.kind == "M":
        return "date"
    if values.dtype == object:
        first = next((v for v in values.tolist() if v is not None), None)
        return "number" if isinstance(first, (bool, np.bool_)) else "text"
    return "number"


def preprocessing(arrays: Mapping[str, Array]) -> Any:
    """An unfitted ColumnTransformer for these columns.

    Numbers: missing ones become the median with a flag beside, then all are scaled. Texts: one column per frequent
    value; missing is a value of its own, rare and unseen ones share a column. Dates: their parts, as numbers.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from modelyard.preprocessing import DateParts

    names: dict[str, list[str]] = {"number": [], "text": [], "date": []}
    for name, values in arrays.items():
        names[kind_of(values)].append(name)
    steps: list[Any] = []
    if names["number"]:
        numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        steps.append(("numbers", numbers, names["number"]))
    if names["text"]:
        most = min(MOST_PER_COLUMN, max(LEAST_PER_COLUMN, ONE_HOT_BUDGET // len(names["text"])))
        # a frame may hold None or NaN for a missing text: one after the other becomes ""
        blank = (SimpleImputer(missing_values=gap, strategy="constant", fill_value="") for gap in (np.nan, None))
        coded = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=most, sparse_output=False)
        steps.append(("texts", make_pipeline(*blank, coded), names["text"]))
    if names["date"]:
        dates = make_pipeline(DateParts(), SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        steps.append(("dates", dates, names["date"]))
    return ColumnTransformer(steps, sparse_threshold=0.0)
