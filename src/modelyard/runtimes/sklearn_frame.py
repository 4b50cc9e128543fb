"""The table that a live scikit-learn estimator is given: what it was fitted on, as far as it can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, MissingDependency
from modelyard.runtimes.answers import matrix
from modelyard.schema import Array, Columns, Field, Signature


def table_maker(model: Any, names: tuple[str, ...] | None, signature: Signature) -> Callable[[Columns], Any]:
    """From columns to what ``predict`` takes: a data frame for a model that knows column names (``names``) or takes
    texts, else an array of numbers.

    Raises InvalidInput where the signature lacks a column that the model was fitted on, or has another.
    """
    given = tuple(field.name for field in signature.inputs)
    texts = any(field.dtype == "string" for field in signature.inputs)
    if names is None and not texts:
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
