"""Field, Signature and Columns: what goes into a model and what comes out.

A *field* has a name, a dtype and a shape per row. Rows travel as **columns**, and columns are stored as
**blocks**: all scalar fields that share a storage type lie side by side in one matrix of shape (rows, fields).
A model that takes ten numbers therefore gets one contiguous float64 matrix and no copy is made on the way.

Missing values: NaN in floating storage, ``None`` in string storage. A nullable integer or boolean is stored as
float64, so integers there must be exact in a double (at most 2**53 in magnitude).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput, ModelFailed, NotFound, Problem

Array = npt.NDArray[Any]

#: Every dtype a field may have. ``datetime`` travels as ISO 8601 text and is stored as seconds since 1970 UTC.
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "string", "datetime",
)  # fmt: skip

INTEGER_RANGES: dict[str, tuple[int, int]] = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}

#: The largest magnitude up to which every integer is exact in a double.
EXACT_INTEGER = 2**53


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of a model.

    ``shape`` is the shape of one row: ``()`` for a scalar, ``(30,)`` for a vector, -1 where it may vary.
    ``categories`` are the values seen in the reference rows of a string field, or the labels along the last
    axis of an output such as probabilities. ``minimum`` and ``maximum`` are the range seen there. They describe
    and are never enforced: unseen values are for monitoring to notice, not for serving to refuse.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    nullable: bool = False
    categories: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise NotFound.among("dtype", self.dtype, DTYPES)
        if not self.name:
            raise InvalidInput.at("field name", "a name", "an empty text")

    @property
    def storage(self) -> str:
        """The numpy dtype in which values of this field are kept."""
        if self.dtype == "string":
            return "object"
        if self.dtype == "datetime":
            return "float64"
        if self.nullable and not self.dtype.startswith("float"):
            return "float64"
        return self.dtype

    @property
    def is_numeric(self) -> bool:
        return self.dtype not in ("string", "datetime")

    def describe(self) -> str:
        """What a value should be, in words for an error message."""
        noun = {"string": "a text", "bool": "true or false", "datetime": "an ISO 8601 date or time"}.get(self.dtype)
        if noun is None:
            noun = f"a number ({self.dtype})" if self.dtype.startswith("float") else f"a whole number ({self.dtype})"
        if self.shape:
            sizes = " x ".join("any" if s < 0 else str(s) for s in self.shape)
            noun = f"nested lists of shape {sizes}, each element {noun}"
        return f"{noun} or null" if self.nullable else noun


class Signature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The inputs and outputs of a model, in the model's own order. Callers may send any order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        for side, fields in (("inputs", self.inputs), ("outputs", self.outputs)):
            seen: set[str] = set()
            for field in fields:
                if field.name in seen:
                    raise InvalidInput.at(side, "each name once", f"{field.name} twice")
                seen.add(field.name)

    @property
    def input_layout(self) -> Layout:
        return Layout.of(self.inputs)

    @property
    def output_layout(self) -> Layout:
        return Layout.of(self.outputs)

    def input(self, name: str) -> Field:
        """The input called ``name``; NotFound names the nearest."""
        for field in self.inputs:
            if field.name == name:
                return field
        raise NotFound.among("input", name, (f.name for f in self.inputs))


class Block(msgspec.Struct, frozen=True):
    """Fields stored in one array: many scalars of one storage type, or a single field with a shape.

    ``start`` and ``stop`` are this block's places in a row tuple laid out by ``Layout.fields``.
    """

    storage: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def is_scalar(self) -> bool:
        return not self.shape


class Layout:
    """How the fields of one side of a signature are laid out in blocks. Made once per tuple of fields."""

    __slots__ = ("_dtypes", "blocks", "by_name", "fields", "names", "places")

    def __init__(self, fields: tuple[Field, ...]) -> None:
        groups: dict[tuple[str, str], list[Field]] = {}
        for field in fields:
            key = ("", field.storage) if not field.shape else (field.name, field.storage)
            groups.setdefault(key, []).append(field)
        blocks: list[Block] = []
        ordered: list[Field] = []
        for (_, storage), members in groups.items():
            start = len(ordered)
            ordered.extend(members)
            names = tuple(f.name for f in members)
            blocks.append(Block(storage, names, members[0].shape, start, len(ordered)))
        #: The fields in block order: the order of a row tuple.
        self.fields: tuple[Field, ...] = tuple(ordered)
        self.blocks: tuple[Block, ...] = tuple(blocks)
        #: The names in the signature's own order.
        self.names: tuple[str, ...] = tuple(f.name for f in fields)
        self.places: dict[str, tuple[int, int]] = {
            name: (b, i) for b, block in enumerate(blocks) for i, name in enumerate(block.names)
        }
        self.by_name: dict[str, Field] = {field.name: field for field in fields}
        self._dtypes = [np.dtype(block.storage) for block in blocks]

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(fields: tuple[Field, ...]) -> Layout:
        return Layout(fields)

    def from_tuples(self, rows: Sequence[tuple[Any, ...]]) -> Columns:
        """Columns from row tuples in block order (``fields``), values already checked; None is missing."""
        arrays: list[Array] = []
        for block, dtype in zip(self.blocks, self._dtypes, strict=True):
            if block.is_scalar:
                part = rows if len(self.blocks) == 1 else [row[block.start : block.stop] for row in rows]
                arrays.append(_matrix(part, len(block.names), dtype))
            else:
                array = np.array([row[block.start] for row in rows], dtype)
                arrays.append(array if len(rows) else array.reshape(0, *(max(s, 0) for s in block.shape)))
        return Columns(self, arrays, len(rows))

    def from_arrays(self, arrays: Mapping[str, Any]) -> Columns:
        """Columns from one array per field, in any order. Shapes are checked, values are converted.

        Raises InvalidInput for an unknown or missing column, unequal lengths, a wrong shape, or values that
        do not convert.
        """
        unknown = [name for name in arrays if name not in self.places]
        missing = [name for name in self.names if name not in arrays]
        if unknown or missing:
            problems = [Problem(n, f"one of {', '.join(self.names)}", "an unknown column") for n in unknown]
            problems += [Problem(n, "a column", "nothing") for n in missing]
            raise InvalidInput.of(problems)
        rows = -1
        blocks: list[Array] = []
        for block in self.blocks:
            parts = []
            for name in block.names:
                part = store(arrays[name], self.by_name[name])
                if rows < 0:
                    rows = len(part)
                elif len(part) != rows:
                    raise InvalidInput.at(name, f"{rows} rows, as in the other columns", f"{len(part)}")
                parts.append(part)
            if block.is_scalar:
                matrix = np.empty((rows, len(parts)), dtype=block.storage)
                for i, part in enumerate(parts):
                    matrix[:, i] = part
                blocks.append(matrix)
            else:
                blocks.append(parts[0])
        return Columns(self, blocks, max(rows, 0))

    def concatenate(self, many: Sequence[Columns]) -> Columns:
        """The rows of ``many`` one after another; all must have this layout."""
        if len(many) == 1:
            return many[0]
        arrays = [np.concatenate([c.blocks[b] for c in many]) for b in range(len(self.blocks))]
        return Columns(self, arrays, sum(c.rows for c in many))


def _matrix(rows: Sequence[tuple[Any, ...]], width: int, dtype: np.dtype[Any]) -> Array:
    """Rows of scalars one below the other. Of several, ``np.array`` would first look each over for its shape, which
    takes longer than to read it.
    """
    if len(rows) == 1:
        return np.array(rows, dtype)
    return np.fromiter(chain.from_iterable(rows), dtype, len(rows) * width).reshape(len(rows), width)


class Columns(Mapping[str, Array]):
    """Rows by column, kept as blocks. ``columns["age"]`` is a view of shape (rows, *field shape)."""

    __slots__ = ("blocks", "layout", "rows")

    def __init__(self, layout: Layout, blocks: Sequence[Array], rows: int) -> None:
        self.layout = layout
        self.blocks = blocks
        self.rows = rows

    def __getitem__(self, name: str) -> Array:
        at, column = self.layout.places[name]
        block = self.blocks[at]
        return block[:, column] if self.layout.blocks[at].is_scalar else block

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.names)

    def __len__(self) -> int:
        return len(self.layout.names)

    def slice(self, start: int, stop: int) -> Columns:
        """Rows ``start`` to ``stop``, or to the end where that comes first, as views."""
        stop = min(stop, self.rows)
        return Columns(self.layout, [b[start:stop] for b in self.blocks], stop - start)

    def take(self, indices: Array) -> Columns:
        """The rows at ``indices``, copied."""
        return Columns(self.layout, [b[indices] for b in self.blocks], len(indices))

    def records(self) -> list[dict[str, Any]]:
        """One plain dict per row, for JSON: NaN becomes None, datetimes become ISO text."""
        lists = {name: to_plain(self[name], self.layout.by_name[name]) for name in self.layout.names}
        return [{name: values[i] for name, values in lists.items()} for i in range(self.rows)]


def store(values: Any, field: Field) -> Array:
    """``values`` (an array or list, one entry per row) in the storage of ``field``.

    Raises InvalidInput for a wrong shape, a value of another type, a missing value where none may be, or an
    integer that does not fit.
    """
    array = np.asarray(values, dtype=object) if field.dtype in ("string", "datetime") else np.asarray(values)
    if field.dtype == "string":
        flat = [_text(v, field, i) for i, v in enumerate(array.ravel().tolist())]
        array = np.array([*flat, None], dtype=object)[:-1].reshape(array.shape)
    elif field.dtype == "datetime":
        flat_seconds = [_seconds(v, field, i) for i, v in enumerate(array.ravel().tolist())]
        array = np.array(flat_seconds, dtype="float64").reshape(array.shape)
    else:
        array = _numbers(array, field)
    want = field.shape
    got = array.shape[1:]
    if len(want) != len(got) or any(w not in (-1, g) for w, g in zip(want, got, strict=True)):
        if not want and got == (1,):
            return array[:, 0]
        raise InvalidInput.at(field.name, f"rows of shape {list(want)}", f"rows of shape {list(got)}")
    return array


def _is_missing(value: Any) -> bool:
    return value is None or value != value or type(value).__name__ in ("NAType", "NaTType")


def _text(value: Any, field: Field, row: int) -> str | None:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str(value)
    if _is_missing(value):
        if field.nullable:
            return None
        raise InvalidInput.at(f"[{row}].{field.name}", field.describe(), "a missing value")
    raise InvalidInput.at(f"[{row}].{field.name}", field.describe(), _show(value))


def _seconds(value: Any, field: Field, row: int) -> float:
    if _is_missing(value):
        if field.nullable:
            return float("nan")
        raise InvalidInput.at(f"[{row}].{field.name}", field.describe(), "a missing value")
    try:
        return seconds_since_epoch(value)
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput.at(f"[{row}].{field.name}", field.describe(), _show(value)) from None


def seconds_since_epoch(value: Any) -> float:
    """Seconds since 1970-01-01 UTC of ISO 8601 text, a datetime, a numpy datetime or a number of seconds.

    Text and datetimes without a zone are taken as UTC, so that a model answers alike on every machine.
    Raises ValueError for text that is no date.
    """
    import datetime as dt

    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, np.datetime64):
        return float(value.astype("datetime64[us]").astype("int64")) / 1e6
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).total_seconds()
    if isinstance(value, dt.date):
        return float((value - dt.date(1970, 1, 1)).days * 86400)
    raise TypeError(f"not a moment: {value!r}")


def _numbers(array: Array, field: Field) -> Array:
    storage = field.storage
    if array.dtype == storage and (field.nullable or not storage.startswith("float")):
        return array
    if array.dtype.kind in "OUS":
        flat = array.ravel().tolist()
        wrong = next(
            (
                i
                for i, v in enumerate(flat)
                if not _is_missing(v) and not isinstance(v, (bool, int, float, np.number, np.bool_))
            ),
            None,
        )
        if wrong is not None:
            raise InvalidInput.at(f"[{wrong}].{field.name}", field.describe(), _show(flat[wrong]))
        lossless = all(_is_missing(v) or not isinstance(v, int) or abs(v) <= EXACT_INTEGER for v in flat)
        if lossless or any(_is_missing(v) for v in flat):
            array = np.array([float("nan") if _is_missing(v) else float(v) for v in flat], dtype="float64").reshape(
                array.shape
            )
        else:
            array = np.array([int(v) for v in flat], dtype=object).reshape(array.shape)
    elif array.dtype.kind not in "biuf":
        raise InvalidInput.at(field.name, field.describe(), f"values of type {array.dtype}")
    if array.dtype.kind == "f":
        gaps = np.isnan(array)
        if gaps.any() and not field.nullable:
            row = int(np.argwhere(gaps)[0][0])
            raise InvalidInput.at(f"[{row}].{field.name}", field.describe(), "a missing value")
    bounds = INTEGER_RANGES.get(field.dtype)
    if bounds is not None:
        low, high = bounds
        if field.nullable:
            low, high = max(low, -EXACT_INTEGER), min(high, EXACT_INTEGER)
        present = array[~np.isnan(array)] if array.dtype.kind == "f" else array
        if array.dtype.kind == "f" and bool((present != np.floor(present)).any()):
            raise InvalidInput.at(field.name, field.describe(), "a number with a fraction")
        if present.size and (present.min() < low or present.max() > high):
            raise InvalidInput.at(field.name, f"a whole number from {low} to {high}", "one that does not fit")
    elif field.dtype == "bool":
        present = array[~np.isnan(array)] if array.dtype.kind == "f" else array
        if not bool(np.isin(present, (0, 1)).all()):
            raise InvalidInput.at(field.name, field.describe(), "other numbers than 0 and 1")
    return array.astype(storage, copy=False)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def to_plain(array: Array, field: Field) -> list[Any]:
    """The values of a column as plain Python values fit for JSON: missing becomes None."""
    values: list[Any] = array.tolist()
    if field.dtype == "datetime":
        return [None if v != v else _iso(v) for v in values]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        values = _finite(values)
    if field.storage == "float64" and field.dtype != "float64":
        cast = bool if field.dtype == "bool" else (int if field.dtype in INTEGER_RANGES else float)
        return [None if v is None else cast(v) for v in values] if not field.shape else values
    return values


def _iso(seconds: float) -> str:
    import datetime as dt

    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value if value == value and value not in (float("inf"), float("-inf")) else None


#: A text column with at most this many distinct values keeps them as its categories.
MAX_CATEGORIES = 200


def infer_field(name: str, values: Any) -> Field:
    """The field that describes ``values``, one entry per row: dtype, shape, nullable, categories and range.

    Raises InvalidInput where the values have no type in common that a model could take.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        seconds = array.astype("datetime64[us]").astype("float64") / 1e6
        gaps = np.isnat(array)
        return _ranged(Field(name=name, dtype="datetime", nullable=bool(gaps.any())), seconds[~gaps])
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype.kind in "biuf":
        nullable = bool(array.dtype.kind == "f" and np.isnan(array).any())
        dtype = "float64" if array.dtype == np.longdouble else array.dtype.name
        field = Field(name=name, dtype=dtype, shape=array.shape[1:], nullable=nullable)
        return field if dtype == "bool" else _ranged(field, array[~np.isnan(array)] if nullable else array)
    if array.dtype != object:
        raise InvalidInput.at(name, "numbers, texts, booleans or dates", f"values of type {array.dtype}")
    return _infer_objects(name, array)


def _infer_objects(name: str, array: Array) -> Field:
    import datetime as dt

    flat = array.ravel().tolist()
    present = [v for v in flat if not _is_missing(v)]
    nullable = len(present) < len(flat)
    shape = array.shape[1:]
    if all(isinstance(v, str) for v in present):
        known = sorted(set(present)) if present else []
        categories = tuple(str(v) for v in known) if 0 < len(known) <= MAX_CATEGORIES else None
        return Field(name=name, dtype="string", shape=shape, nullable=nullable, categories=categories)
    if all(isinstance(v, (bool, np.bool_)) for v in present):
        return Field(name=name, dtype="bool", shape=shape, nullable=nullable)
    if all(isinstance(v, (int, np.integer)) for v in present):
        if nullable:  # kept as a double, as data frames keep it
            return _ranged(
                Field(name=name, dtype="float64", shape=shape, nullable=True),
                np.array(present, dtype="float64"),
            )
        return _ranged(Field(name=name, dtype="int64", shape=shape), np.array(present))
    if all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in present):
        numbers = np.array(present, dtype="float64")
        return _ranged(Field(name=name, dtype="float64", shape=shape, nullable=nullable), numbers)
    if all(isinstance(v, (dt.date, dt.datetime, np.datetime64)) for v in present):
        moments = np.array([seconds_since_epoch(v) for v in present])
        return _ranged(Field(name=name, dtype="datetime", shape=shape, nullable=nullable), moments)
    kinds = sorted({type(v).__name__ for v in present})
    raise InvalidInput.at(name, "values of one type", f"a mixture of {', '.join(kinds)}")


def _ranged(field: Field, present: Array) -> Field:
    finite = present[np.isfinite(present)] if present.dtype.kind == "f" else present
    if not finite.size:
        return field
    return msgspec.structs.replace(field, minimum=float(finite.min()), maximum=float(finite.max()))


def infer_fields(arrays: Mapping[str, Any]) -> tuple[Field, ...]:
    """One field per column, in the mapping's order."""
    return tuple(infer_field(str(name), values) for name, values in arrays.items())


def check_outputs(columns: Columns, expected_rows: int) -> Columns:
    """``columns`` as they are, or ModelFailed where a model returned another number of rows than it was given."""
    if columns.rows != expected_rows:
        raise ModelFailed(f"the model answered {columns.rows} rows for {expected_rows}")
    return columns
