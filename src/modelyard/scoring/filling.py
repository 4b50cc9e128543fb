"""From the columns of a file to the columns of a model, whole columns at a time; rows that do not fit are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.schema import EXACT_INTEGER, INTEGER_RANGES, Array, Columns, Field, Signature, store
from modelyard.scoring.dates import DateForms, present
from modelyard.tables.kinds import ISO, convert
from modelyard.tables.source import MISSING

TRUE, FALSE = ("true", "1", "yes", "1.0"), ("false", "0", "no", "0.0")
_ALL_ISO: DateForms = {}
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


class Faults:
    """The first fault of each row that has one."""

    def __init__(self, rows: int) -> None:
        self.bad = np.zeros(rows, dtype=bool)
        self.reasons: dict[int, str] = {}

    def add(self, mask: Array, field: Field, got: Callable[[int], str]) -> None:
        """The rows of ``mask`` have a wrong value of ``field``; ``got`` shows the value of a row."""
        if not mask.any():
            return
        for index in np.flatnonzero(mask & ~self.bad).tolist():
            self.reasons[index] = f"{field.name}: expected {field.describe()}, got {got(index)}"
        self.bad |= mask


def fill(table: Any, signature: Signature, decimal: str = ".", dates: DateForms = _ALL_ISO) -> tuple[Columns, Faults]:
    """The inputs of the model for every row of an Arrow table, and which rows do not fit. ``decimal`` is how text
    writes fractions, ``dates`` how it writes the dates of each column.

    A row at fault keeps its place; what stands there means nothing. Raises InvalidInput where a whole column has a
    type that does not fit.
    """
    layout = signature.input_layout
    rows = table.num_rows
    faults = Faults(rows)
    fields = {field.name: field for field in layout.fields}
    blocks: list[Array] = []
    for block in layout.blocks:
        if block.is_scalar:
            matrix = np.empty((rows, len(block.names)), dtype=block.storage)
            for i, name in enumerate(block.names):
                matrix[:, i] = _scalar(table.column(name), fields[name], faults, decimal, dates)
            blocks.append(matrix)
        else:
            blocks.append(_shaped(table.column(block.names[0]), fields[block.names[0]], faults))
    return Columns(layout, blocks, rows), faults


def _scalar(column: Any, field: Field, faults: Faults, decimal: str, dates: DateForms) -> Array:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if field.dtype == "string":
            return _texts(column, field, faults)
        if field.dtype == "datetime":
            return _moments_in_text(column, field, faults, dates)
        return _numbers_in_text(column, field, faults, decimal)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if field.dtype == "string" and pa.types.is_integer(kind):
        return _texts(column.cast(pa.string()), field, faults)
    if field.dtype == "datetime" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        seconds = column.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None)).cast(pa.int64())
        return _check(_doubles(seconds) / 1e6, field, faults)
    if field.is_numeric and (is_number or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        if column.null_count == 0 and pa.types.is_integer(kind):
            return _check(column.to_numpy(), field, faults)
        return _check(_doubles(column), field, faults)
    raise InvalidInput.at(field.name, field.describe(), f"a column of type {kind}")


def _doubles(column: Any) -> Array:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    doubles: Array = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return doubles


def _texts(column: Any, field: Field, faults: Faults) -> Array:
    import pyarrow as pa
    import pyarrow.compute as compute

    if field.nullable:
        # As training reads a file; a word that the reference rows held as a text stays one.
        missing = pa.array([word for word in MISSING if word not in (field.categories or ())])
        column = compute.if_else(compute.is_in(column, missing), None, column)
    elif column.null_count:
        faults.add(column.is_null().to_numpy(), field, lambda _: "a missing value")
    texts: Array = column.to_numpy(zero_copy_only=False)
    return texts


def _numbers_in_text(column: Any, field: Field, faults: Faults, decimal: str) -> Array:
    """Text as numbers. All at once where every value is one; else those that are not are found."""
    import pyarrow as pa
    import pyarrow.compute as compute

    if decimal == "," and field.dtype.startswith("float"):
        column = compute.replace_substring(column, ",", ".")

    # Whole numbers that a double may not tell apart are never doubles on their way.
    whole = field.dtype in ("int64", "uint64") and not field.nullable
    if field.dtype != "bool":
        try:
            return _check(column.cast(getattr(pa, field.dtype)() if whole else pa.float64()).to_numpy(), field, faults)
        except pa.ArrowInvalid:
            if whole:
                return _whole_numbers_in_text(column, field, faults)
    text = compute.utf8_trim_whitespace(column)
    text = compute.if_else(compute.is_in(text, pa.array(MISSING)), None, text)
    if field.dtype == "bool":
        lower = compute.utf8_lower(text)
        true = compute.is_in(lower, pa.array(TRUE))
        known = compute.or_(true, compute.is_in(lower, pa.array(FALSE)))
        number = compute.if_else(known, compute.cast(true, pa.float64()), None)
    else:
        known = compute.match_substring_regex(text, NUMBER)
        number = compute.if_else(known, text, None).cast(pa.float64())
    wrong = compute.and_(compute.invert(compute.fill_null(known, False)), text.is_valid()).to_numpy()
    faults.add(wrong, field, lambda i: _quoted(column[i].as_py()))
    values: Array = number.to_numpy()
    return _check(np.where(wrong, 0.0, values), field, faults)


def _whole_numbers_in_text(column: Any, field: Field, faults: Faults) -> Array:
    """64-bit whole numbers one by one: ``7`` and ``7.0`` are some, and those that are not are found."""
    low, high = INTEGER_RANGES[field.dtype]
    values = np.zeros(len(column), dtype=field.dtype)
    wrong = np.zeros(len(column), dtype=bool)
    texts = [(text or "").strip() for text in column.to_pylist()]
    for i, text in enumerate(texts):
        digits, _, fraction = text.partition(".")
        if fraction.strip("0") or not digits.lstrip("+-").isdecimal() or not low <= int(digits) <= high:
            wrong[i] = True
        else:
            values[i] = int(digits)
    faults.add(wrong, field, lambda i: "a missing value" if texts[i] in MISSING else _quoted(texts[i]))
    return values


def _check(values: Array, field: Field, faults: Faults) -> Array:
    """``values`` with every row that ``field`` does not allow named; what is at fault becomes 0."""
    if values.dtype.kind == "f":
        gaps = np.isnan(values)
        if not field.nullable and gaps.any():
            faults.add(gaps, field, lambda _: "a missing value")
            values = np.where(gaps, 0.0, values)
        endless = np.isinf(values)
        if endless.any():
            faults.add(endless, field, lambda i: f"{values[i]}")
            values = np.where(endless, 0.0, values)
    bounds = (0, 1) if field.dtype == "bool" else INTEGER_RANGES.get(field.dtype)
    if bounds is None:
        return values
    low, high = bounds
    if values.dtype.kind == "f":  # beyond this a double does not tell one whole number from the next
        low, high = max(low, -EXACT_INTEGER), min(high, EXACT_INTEGER)
        wrong = (values != np.floor(values)) & ~np.isnan(values)
        wrong |= (values < low) | (values > high)
    else:
        wrong = (values < low) | (values > high)
    if wrong.any():
        faults.add(wrong, field, lambda i: f"{values[i]:.17g}" if values.dtype.kind == "f" else f"{values[i]}")
        values = np.where(wrong, np.zeros((), values.dtype), values)
    return values


def _moments_in_text(column: Any, field: Field, faults: Faults, dates: DateForms) -> Array:
    """Dates as seconds."""
    import pyarrow as pa
    import pyarrow.compute as compute

    moments, wrong = convert(present(column), dates.get(field.name, ISO))
    if wrong is not None:
        faults.add(wrong.to_numpy(zero_copy_only=False), field, lambda i: _quoted(column[i].as_py()))
        moments = compute.if_else(wrong, pa.scalar(0, pa.int64()).cast(moments.type), moments)
    return _check(_doubles(moments.cast(pa.timestamp("us")).cast(pa.int64())) / 1e6, field, faults)


def _shaped(column: Any, field: Field, faults: Faults) -> Array:
    """Lists (Parquet) or their JSON text (CSV), one row at a time."""
    import msgspec

    sizes = tuple(max(size, 0) for size in field.shape)
    rows: list[Array] = []
    filler = np.zeros(sizes, dtype=field.storage)
    wrong = np.zeros(len(column), dtype=bool)
    got: dict[int, str] = {}
    for i, value in enumerate(column.to_pylist()):
        try:
            value = msgspec.json.decode(value) if isinstance(value, str) else value
            rows.append(store(np.array([value], dtype=object if field.dtype == "string" else None), field)[0])
        except (InvalidInput, msgspec.DecodeError, ValueError, TypeError):
            wrong[i], got[i] = True, _quoted(value)
            rows.append(filler)
    faults.add(wrong, field, lambda i: got[i])
    if len({row.shape for row in rows}) > 1:
        raise InvalidInput.at(field.name, "rows of one shape in a batch", "rows of several shapes")
    return np.stack(rows) if rows else np.empty((0, *sizes), dtype=field.storage)


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
