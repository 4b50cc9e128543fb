"""A spool: record batches of one version in one growing file, a stream of Arrow, until it becomes a Parquet file.

Whoever reads it takes the whole batches that are there. Its writer knows after each how long the file is, and cuts off
what came later: what was begun when the disk was full, or before a recorder was killed that had not kept its position.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from modelyard.recording.batches import arrow
from modelyard.stores.disk import sync_folder

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".arrows"

#: Rows that are in memory at a time where a spool becomes a Parquet file, and that lie together in it.
GROUP_ROWS = 1 << 16


class Spool:
    """The end that writes. Raises OSError where the disk takes no more; the file is then as it was before."""

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        pa = arrow()
        self.path = path
        self.schema = schema
        self.size = self.rows = 0
        #: What the stream has written and the file has not.
        self._buffer = io.BytesIO()
        self._stream = pa.ipc.new_stream(self._buffer, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self.append(pa.RecordBatch.from_pylist([], schema))  # the stream writes its schema with its first batch
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, batch: pyarrow.RecordBatch) -> None:
        self._stream.write_batch(batch)
        self._write()
        self.rows += batch.num_rows

    def _write(self) -> None:
        data = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            raise
        self.size += len(data)

    def close(self) -> None:
        os.close(self._descriptor)


def read_spool(path: Path) -> pyarrow.Table:
    """The whole batches of a spool. Raises FileNotFoundError, and ValueError for a file that is none."""
    pa = arrow()
    with path.open("rb") as file:
        stream = _opened(file, path)
        return pa.table({}) if stream is None else pa.Table.from_batches(list(_batches(stream)), stream.schema)


def to_parquet(spool: Path, target: Path) -> None:
    """Write a spool as a Parquet file, seen only when it is whole. Raises OSError, and ValueError for what is none."""
    making = target.with_suffix(".making")
    with spool.open("rb") as file:
        stream = _opened(file, spool)
        if stream is not None:
            write_parquet(making, target, stream.schema, _batches(stream))


def write_parquet(making: Path, target: Path, schema: pyarrow.Schema, batches: Iterator[pyarrow.RecordBatch]) -> None:
    """Write batches as a Parquet file, some of them in memory at a time; none where there are no rows."""
    import pyarrow.parquet as parquet

    pa, held, rows, written = arrow(), [], 0, 0
    try:
        with parquet.ParquetWriter(making, schema, compression="zstd") as writer:
            for batch in batches:
                held.append(batch)
                rows += batch.num_rows
                if rows >= GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(held, schema))
                    held, rows, written = [], 0, written + rows
            if rows:
                writer.write_table(pa.Table.from_batches(held, schema))
        if rows or written:
            with making.open("rb") as file:
                os.fsync(file.fileno())
            making.rename(target)
            sync_folder(target.parent)  # its spool is deleted next, whatever happens to the power
    finally:
        making.unlink(missing_ok=True)


def _opened(file: BinaryIO, path: Path) -> Any:
    """The stream in a spool's file; None where it was made this moment. Raises ValueError for a file that is none."""
    pa = arrow()
    if not os.fstat(file.fileno()).st_size:
        return None
    try:
        return pa.ipc.open_stream(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"not a spool of records: {path}") from error


def _batches(stream: Any) -> Iterator[pyarrow.RecordBatch]:
    """The whole batches; what comes after is not whole yet."""
    with contextlib.suppress(arrow().ArrowInvalid, OSError, StopIteration):
        while True:
            yield stream.read_next_batch()


def cut(path: Path, size: int) -> None:
    """Have a spool end where it was kept up to."""
    if path.stat().st_size > size:
        os.truncate(path, size)
