"""Rows in columnar files (Arrow streams and files, Parquet), and outputs as an Arrow stream.

Numbers are taken as they lie in the file where a block of the model holds them alike: one column that is a block by
itself, or a column of lists of one size. Other columns are copied once, into the matrix that they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard import settings
from modelyard.decoding.lists import check_columns
from modelyard.errors import InvalidInput, MissingDependency, ModelyardError
from modelyard.messages import Request
from modelyard.schema import Array, Columns, Field, Layout, store

if TYPE_CHECKING:
    from types import ModuleType

STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"

#: Media types of columnar files, and what each is called.
KINDS = {STREAM: "an Arrow stream", FILE: "an Arrow file", PARQUET: "a Parquet file"}


def pyarrow() -> ModuleType:
    """The library, or MissingDependency."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingDependency.extra("pyarrow", "tables", "reading Arrow and Parquet") from error
    module: ModuleType = pa
    return module


class ArrowDecoder:
    """Reads columnar files for one tuple of input fields."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._by_name = {field.name: field for field in fields}
        self._layout = Layout.of(fields)

    def decode(self, body: bytes, kind: str, *, loose: bool = False) -> Request:
        """The rows in a file of the media type ``kind``. Raises InvalidInput, or MissingDependency.

        ``loose`` passes over columns of other names.
        """
        pa = pyarrow()
        most: int = settings.get("max_rows")
        with _explained(pa, KINDS[kind]):
            source = pa.BufferReader(body)
            table = _parquet(source, most) if kind == PARQUET else _arrow(pa, source, kind, most)
            check_columns(self._by_name, table.column_names, loose)
            if not table.num_rows:
                raise InvalidInput.at("body", "at least one row", "none")
            return Request(table.num_rows, None, self._columns(pa, table), "columns")

    def _columns(self, pa: Any, table: Any) -> Columns:
        fields = {field.name: field for field in self._layout.fields}
        blocks: list[Array] = []
        for block in self._layout.blocks:
            parts = [_values(pa, table.column(name), fields[name]) for name in block.names]
            if not block.is_scalar:
                blocks.append(parts[0])
            elif len(parts) == 1:
                blocks.append(np.asarray(parts[0], dtype=block.storage).reshape(-1, 1))
            else:
                matrix = np.empty((table.num_rows, len(parts)), dtype=block.storage)
                for i, part in enumerate(parts):
                    matrix[:, i] = part
                blocks.append(matrix)
        return Columns(self._layout, blocks, table.num_rows)


@contextmanager
def _explained(pa: Any, what: str) -> Iterator[None]:
    """Whatever the library finds wrong with the bytes is the caller's fault, and said in one line."""
    try:
        yield
    except (ModelyardError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InvalidInput.at("body", what, f"something else, or a part of one: {reason}") from None


def _check_rows(rows: int, most: int) -> None:
    if rows > most:
        raise InvalidInput.at(
            "body", f"at most {most} rows", f"{rows} or more", hint="send the rows in several requests"
        )


def _parquet(source: Any, most: int) -> Any:
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(source)
    _check_rows(file.metadata.num_rows, most)
    return file.read(use_threads=False)


def _arrow(pa: Any, source: Any, kind: str, most: int) -> Any:
    if kind == STREAM:
        reader = pa.ipc.open_stream(source)
        return pa.Table.from_batches(_bounded(reader, most), reader.schema)
    file = pa.ipc.open_file(source)
    return pa.Table.from_batches(_bounded(map(file.get_batch, range(file.num_record_batches)), most), file.schema)


def _bounded(batches: Iterable[Any], most: int) -> Iterator[Any]:
    rows = 0
    for batch in batches:
        batch.validate(full=True)  # offsets that point elsewhere are no reason to read there
        rows += batch.num_rows
        _check_rows(rows, most)
        yield batch


def _values(pa: Any, column: Any, field: Field) -> Array:
    """A column in the storage of a field."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    kind = array.type
    if field.shape:
        return store(_shaped(pa, array, field), field)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if pa.types.is_null(kind):
        return store([None] * len(array), field)
    if field.dtype == "datetime" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        micros = array.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
        if array.null_count and not field.nullable:
            raise InvalidInput.at(field.name, field.describe(), "a missing value")
        seconds: Array = micros.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / 1e6
        return seconds
    if is_text != (not field.is_numeric) or pa.types.is_nested(kind):
        raise InvalidInput.at(field.name, field.describe(), f"a column of type {kind}")
    if is_text:
        return store(_texts(array, field), field)
    return _finite(store(_numbers(pa, array, field), field), field)


def _texts(array: Any, field: Field) -> Any:
    values = array.to_pylist()
    return [value or None for value in values] if field.nullable and field.dtype == "string" else values


def _numbers(pa: Any, array: Any, field: Field) -> Array:
    """Numbers as they lie there, where none is missing."""
    if pa.types.is_boolean(array.type) != (field.dtype == "bool"):
        raise InvalidInput.at(field.name, field.describe(), f"a column of type {array.type}")
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if not array.null_count:
        values: Array = array.to_numpy(zero_copy_only=False)
        return values
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    return np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False))


def _shaped(pa: Any, array: Any, field: Field) -> Any:
    """Lists of one size as one array; they are copied only where their sizes may differ."""
    if len(field.shape) == 1 and pa.types.is_fixed_size_list(array.type) and not array.null_count:
        inner = array.flatten()
        if not inner.null_count and pa.types.is_primitive(inner.type):
            return _finite(inner.to_numpy(zero_copy_only=False).reshape(len(array), -1), field)
    if not pa.types.is_nested(array.type):
        raise InvalidInput.at(field.name, field.describe(), f"a column of type {array.type}")
    try:
        return _finite(np.array(array.to_pylist(), dtype=None if field.is_numeric else object), field)
    except ValueError:
        raise InvalidInput.at(field.name, "rows of one shape", "rows of unequal shapes") from None


def _finite(values: Array, field: Field) -> Array:
    if values.dtype.kind == "f" and bool(np.isinf(values).any()):
        row = int(np.argwhere(np.isinf(values))[0][0])
        raise InvalidInput.at(f"[{row}].{field.name}", field.describe(), "an infinite number")
    return values


def stream_of(columns: Columns, names: Sequence[str]) -> bytes:
    """Columns as an Arrow stream, with their labels in the fields' metadata."""
    pa = pyarrow()
    fields = {field.name: field for field in columns.layout.fields}
    arrays, described = [], []
    for name in names:
        field = fields[name]
        arrays.append(_array(pa, columns[name], field))
        labels = {"labels": "\n".join(field.categories)} if field.shape and field.categories else None
        described.append(pa.field(name, arrays[-1].type, metadata=labels))
    batch = pa.record_batch(arrays, schema=pa.schema(described))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    text: bytes = sink.getvalue().to_pybytes()
    return text


def _array(pa: Any, values: Array, field: Field) -> Any:
    if field.dtype == "datetime":
        gaps = np.isnan(values)
        micros = np.where(gaps, 0, values * 1e6).astype("int64")
        return pa.array(micros, mask=gaps).cast(pa.timestamp("us", "UTC"))
    if not field.shape:
        return pa.array(np.ascontiguousarray(values))
    flat = pa.array(np.ascontiguousarray(values).ravel())
    for size in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat
