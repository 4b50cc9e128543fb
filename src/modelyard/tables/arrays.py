"""Anything that holds columns, as one numpy array per column."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.schema import Array


def arrays_of(thing: Any, names: Sequence[str] | None = None) -> dict[str, Array]:
    """One array per column of a data frame, an arrow table, a mapping of columns, a list of records or a matrix.

    Texts come as object arrays with None where missing, numbers as they are with NaN where missing, dates as
    ``datetime64[us]`` in UTC. The columns of a matrix, or of a list of rows, are called ``names``, else x0, x1 ...
    Raises InvalidInput where ``thing`` is none of these, has another number of columns than there are ``names``, or
    a column holds what no model could take.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(thing, pandas.Series):
        thing = thing.to_frame(name="x0" if thing.name is None else thing.name)
    if pandas is not None and isinstance(thing, pandas.DataFrame):
        _check_names([str(name) for name in thing.columns])
        return {str(name): _from_pandas(str(name), thing.iloc[:, i]) for i, name in enumerate(thing.columns)}
    if isinstance(thing, Mapping):
        return _equally_long({str(name): _tidy(str(name), values) for name, values in thing.items()})
    if hasattr(thing, "__arrow_c_stream__"):
        from modelyard.tables.source import arrow

        table = arrow("reading arrow tables").table(thing)
        _check_names(table.column_names)
        return {name: from_arrow(name, table.column(name).combine_chunks()) for name in table.column_names}
    if isinstance(thing, np.ndarray) and thing.dtype.names:
        return {name: _tidy(name, thing[name]) for name in thing.dtype.names}
    if isinstance(thing, np.ndarray) and thing.ndim == 2:
        return {name: _tidy(name, thing[:, i]) for i, name in enumerate(_called(thing.shape[1], names, _named(thing)))}
    if isinstance(thing, Sequence) and not isinstance(thing, (str, bytes)):
        return _from_rows(thing, names)
    matrix = "a matrix" if names is None else f"a matrix with {_counted(names)}"
    raise InvalidInput.at("table", f"a data frame, columns, records or {matrix}", _named(thing))


def _called(count: int, names: Sequence[str] | None, shown: str) -> Sequence[str]:
    """What the columns of a matrix are called."""
    if names is None:
        return [f"x{i}" for i in range(count)]
    if count != len(names):
        raise InvalidInput.at("table", _counted(names), f"{shown}, {count}")
    return names


def _counted(names: Sequence[str]) -> str:
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"{len(names)} column{'' if len(names) == 1 else 's'} ({listed})"


def _named(thing: Any) -> str:
    shape = f" of shape {thing.shape}" if isinstance(thing, np.ndarray) else ""
    return f"{type(thing).__module__}.{type(thing).__qualname__}{shape}".removeprefix("builtins.")


def _check_names(names: list[str]) -> None:
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise InvalidInput.at("columns", "each name once", f"{', '.join(doubles)} twice")


def _equally_long(arrays: dict[str, Array]) -> dict[str, Array]:
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        first, *others = lengths
        other = next(name for name in others if lengths[name] != lengths[first])
        raise InvalidInput.at(other, f"{lengths[first]} rows, as in {first}", f"{lengths[other]}")
    return arrays


def _from_rows(rows: Sequence[Any], called: Sequence[str] | None) -> dict[str, Array]:
    if not rows:
        raise InvalidInput.at("table", "at least one record", "an empty list")
    if all(isinstance(row, Mapping) for row in rows):
        names = list(dict.fromkeys(str(name) for row in rows for name in row))
        return {name: _tidy(name, [row.get(name) for row in rows]) for name in names}
    if all(isinstance(row, (list, tuple, np.ndarray)) for row in rows):
        widths = {len(row) for row in rows}
        if len(widths) == 1:
            columns = enumerate(_called(widths.pop(), called, "rows"))
            return {name: _tidy(name, [row[i] for row in rows]) for i, name in columns}
        raise InvalidInput.at("table", "rows of equal length", f"lengths {', '.join(map(str, sorted(widths)))}")
    raise InvalidInput.at("table", "records or rows", f"a list of {_named(rows[0])}")


def _from_pandas(name: str, series: Any) -> Array:
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        values: Array = series.to_numpy()
        return values
    if type(dtype).__name__ == "CategoricalDtype":
        return _from_pandas(name, series.astype(dtype.categories.dtype if len(dtype.categories) else object))
    if type(dtype).__name__ == "DatetimeTZDtype":
        return _from_pandas(name, series.dt.tz_convert("UTC").dt.tz_localize(None))
    if getattr(dtype, "kind", "O") == "M":
        moments: Array = series.to_numpy(dtype="datetime64[us]")
        return moments
    if getattr(dtype, "kind", "O") in "iuf" and not isinstance(dtype, np.dtype):  # Int64, Float32 ...
        gaps = bool(series.isna().any())
        plain: Array = (
            series.to_numpy(dtype="float64" if gaps else dtype.numpy_dtype, na_value=np.nan)
            if gaps
            else (series.to_numpy(dtype=dtype.numpy_dtype))
        )
        return plain
    missing = series.isna().to_numpy()
    objects = series.to_numpy(dtype=object)
    if missing.any():
        objects = objects.copy()
        objects[missing] = None
    return _tidy(name, objects)


def _tidy(name: str, values: Any) -> Array:
    """Any sequence as an array by the conventions above."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(values, pandas.Series):
        return _from_pandas(name, values)
    if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
        from modelyard.tables.source import arrow

        chunked = arrow("reading arrow columns").chunked_array(values)
        return from_arrow(name, chunked.combine_chunks())
    array = values if isinstance(values, np.ndarray) else _array(name, values)
    if array.ndim == 0:
        raise InvalidInput.at(name, "one value per row", repr(array.item()))
    if array.dtype.kind == "M":
        return array.astype("datetime64[us]")
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind in "biuf":
        return array
    if array.dtype != object:
        raise InvalidInput.at(name, "numbers, texts, truth values or dates", f"values of type {array.dtype}")
    return _objects(array)


def _array(name: str, values: Any) -> Array:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise InvalidInput.at(name, "one value per row", repr(values))
    listed = list(values)
    if any(v is None or isinstance(v, (str, bytes, dt.date)) for v in listed):
        array = np.empty(len(listed), dtype=object)
        array[:] = listed
        return array
    try:
        array = np.asarray(listed)
    except ValueError:
        raise InvalidInput.at(name, "values of one shape", "lists of different lengths") from None
    if array.dtype.kind == "U" or (array.dtype.kind == "f" and any(type(v) is bool for v in listed)):
        return np.array([*listed, None], dtype=object)[:-1]  # numpy has made texts of numbers: leave it to the schema
    return array


def _objects(array: Array) -> Array:
    """Object values: numbers with None become floats with NaN, dates become datetime64, texts keep None."""
    flat = array.ravel().tolist()
    gaps = [v is None or v != v or type(v).__name__ in ("NAType", "NaTType") for v in flat]
    present = [v for v, gap in zip(flat, gaps, strict=True) if not gap]
    if present and all(isinstance(v, (dt.date, np.datetime64)) for v in present):
        moments = [np.datetime64("NaT") if gap else _moment(v) for v, gap in zip(flat, gaps, strict=True)]
        return np.array(moments, dtype="datetime64[us]").reshape(array.shape)
    numbers = (int, float, np.integer, np.floating)
    if present and all(isinstance(v, numbers) and not isinstance(v, bool) for v in present):
        if any(gaps) or any(isinstance(v, (float, np.floating)) for v in present):
            return np.array(
                [np.nan if gap else float(v) for v, gap in zip(flat, gaps, strict=True)], dtype="float64"
            ).reshape(array.shape)
        try:
            return np.array(flat, dtype="int64").reshape(array.shape)
        except OverflowError:
            return array
    if present and not any(gaps) and all(isinstance(v, (bool, np.bool_)) for v in present):
        return array.astype(bool)
    if not any(gaps):
        return array
    tidy = array.copy()
    tidy[np.array(gaps).reshape(array.shape)] = None
    return tidy


def _moment(value: Any) -> np.datetime64:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


def from_arrow(name: str, column: Any) -> Array:
    """An arrow array as a numpy array. Raises InvalidInput for a type that no model could take."""
    from modelyard.tables.source import arrow

    pa = arrow()
    kinds = pa.types
    of = column.type
    if kinds.is_dictionary(of):
        return from_arrow(name, column.cast(of.value_type))
    if kinds.is_null(of):
        return np.full(len(column), np.nan)
    if kinds.is_integer(of) or kinds.is_floating(of) or kinds.is_decimal(of):
        if kinds.is_decimal(of) or (column.null_count and kinds.is_integer(of)):
            column = column.cast(pa.float64())
        numbers: Array = column.to_numpy(zero_copy_only=False)
        return numbers if numbers.flags.writeable else numbers.copy()
    if kinds.is_boolean(of):
        flags: Array = column.to_numpy(zero_copy_only=False)
        return flags
    if kinds.is_date(of) or kinds.is_timestamp(of):
        unzoned = column.cast(pa.timestamp("us", of.tz)) if getattr(of, "tz", None) else column
        moments: Array = unzoned.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
        return moments.astype("datetime64[us]")
    if kinds.is_string(of) or kinds.is_large_string(of) or kinds.is_string_view(of):
        return _texts(column)
    if kinds.is_fixed_size_list(of) or kinds.is_list(of) or kinds.is_large_list(of):
        if column.null_count:
            raise InvalidInput.at(name, "lists without gaps", "missing lists")
        return _tidy(name, column.to_pylist())
    raise InvalidInput.at(name, "numbers, texts, truth values or dates", f"values of type {of}")


def _texts(column: Any) -> Array:
    """Texts share one object per distinct value, which keeps them small."""
    coded = column.dictionary_encode()
    known = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    places = coded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)
    texts: Array = known[places]
    return texts
