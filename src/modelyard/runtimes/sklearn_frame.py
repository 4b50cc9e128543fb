"""The table that a live scikit-learn estimator is given: what it was fitted on, as far as it can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from modelyard.errors import BadBundle, InvalidInput, MissingDependency, ModelFailed
from modelyard.interfaces import Predict
from modelyard.runtimes.answers import matrix
from modelyard.schema import Array, Columns, Field, Signature

#: What a model may take that knows no column names.
ARRAY, FRAME = "array", "frame"


def names_of(model: Any) -> tuple[str, ...] | None:
    """The columns that the model was fitted on, in their order; None where it does not tell."""
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else tuple(str(name) for name in names)


def found_out(model: Any, signature: Signature, predictor: Callable[[str], Predict], rows: Columns) -> str:
    """Whether the model takes an array or a data frame, by trying ``rows`` on the ``predictor`` of each form; "" where
    there is no doubt: it knows its columns' names, or they hold texts, or shapes that no data frame has.

    Raises ModelFailed where it fails on both.
    """
    if names_of(model) is not None or any(field.dtype == "string" or field.shape for field in signature.inputs):
        return ""
    try:
        predictor(ARRAY)(rows)
        return ARRAY
    except ModelFailed as error:
        on_array = error
    try:
        predictor(FRAME)(rows)
        return FRAME
    except ModelFailed as on_frame:
        if _cause(on_frame) == _cause(on_array):
            raise on_array from on_array.__cause__
        # One that cannot even handle an array as a table was made for data frames: its other fault is the real one.
        lost = isinstance(on_array.__cause__, (AttributeError, IndexError, KeyError, TypeError))
        told, other = (on_frame, on_array) if lost else (on_array, on_frame)
        form, rest = ("a data frame", "an array") if lost else ("an array", "a data frame")
        raise ModelFailed(
            f"{told.message} (given {form}; given {rest}: {_cause(other)})",
            hint="the model knows no column names, so both were tried; the sample must have the columns that it was "
            f"fitted on, under the same names and in the same order: {', '.join(f.name for f in signature.inputs)}?",
        ) from told.__cause__


def _cause(error: ModelFailed) -> str:
    cause = error.__cause__
    return error.message if cause is None else f"{type(cause).__name__}: {cause}"


def table_maker(
    model: Any, names: tuple[str, ...] | None, signature: Signature, takes: str = ""
) -> Callable[[Columns], Any]:
    """From columns to what ``predict`` takes: a data frame for a model that knows column names (``names``) or takes
    texts, or of which that was found out (``takes``); else an array of numbers.

    Raises InvalidInput where the signature lacks a column that the model was fitted on, or has another.
    """
    if takes not in ("", ARRAY, FRAME):
        raise BadBundle(f"the bundle's model takes neither an array nor a frame: {takes!r}")
    given = tuple(field.name for field in signature.inputs)
    texts = any(field.dtype == "string" for field in signature.inputs)
    if names is None and not texts and takes != FRAME:
        return lambda columns: matrix(columns, given, "float64")
    order = names or given
    if set(order) != set(given):
        absent = [name for name in order if name not in given] or [name for name in given if name not in order]
        raise InvalidInput.at("signature", f"the columns that the model was fitted on: {', '.join(order)}", absent[0])
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependency.extra("pandas", "sklearn", "a model that was fitted on a data frame") from error
    fields = [signature.input(name) for name in order]
    if all(field.storage == "float64" and field.dtype != "bool" for field in fields):
        return lambda columns: pd.DataFrame(matrix(columns, order, "float64"), columns=list(order), copy=False)
    missing = _missing_text(model)

    def make(columns: Columns) -> Any:
        return pd.DataFrame(
            {field.name: _series(pd, columns[field.name], field, missing) for field in fields}, copy=False
        )

    return make


def _series(pd: Any, values: Array, field: Field, missing: Any) -> Any:
    if field.dtype == "string":
        filled = [missing if text is None else text for text in values.tolist()]
        return pd.Series(np.array([*filled, None], dtype=object)[:-1], dtype=object)
    if field.dtype == "bool" and field.nullable and np.isnan(values).any():
        # As pandas reads such a column: true and false as objects beside NaN.
        return pd.Series([value if value != value else bool(value) for value in values.tolist()], dtype=object)
    return pd.Series(values.astype("bool") if field.dtype == "bool" else values.copy())


def _missing_text(model: Any) -> Any:
    """What stands for a missing text in the rows that ``model`` was fitted on: NaN, None or "".

    Encoders remember the categories that they saw, imputers what they look for. NaN, which is what pandas reads from
    a file, where nothing tells.
    """
    seen = set()
    for part in parts_of(model):
        state = vars(part)
        if type(part).__name__ == "SimpleImputer":
            seen.add(_kind(state.get("missing_values")))
        for categories in _listed(state.get("categories_")):
            seen.update(_kind(value) for value in _listed(categories) if not isinstance(value, str) or not value)
    seen.discard("other")
    return next((value for kind, value in (("nan", np.nan), ("none", None), ("empty", "")) if seen == {kind}), np.nan)


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else values.tolist() if isinstance(values, np.ndarray) else []


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    if value == "":
        return "empty"
    return "nan" if value != value else "other"


def parts_of(thing: Any, depth: int = 0) -> Iterator[Any]:
    """Every object with parameters inside ``thing``: the steps of pipelines, the members of ensembles."""
    if depth > 12:
        return
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, (list, tuple)):
        for item in thing[:1000]:
            yield from parts_of(item, depth + 1)
    elif hasattr(thing, "get_params") and not isinstance(thing, type):
        yield thing
        yield from parts_of(list(vars(thing).values()), depth + 1)
