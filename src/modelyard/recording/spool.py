"""A spool: record batches of one version in one growing file, a stream of Arrow, until it becomes a Parquet file.

Whoever reads it takes the whole batches that are there. Its writer knows after each how long the file is, and cuts off
what came later: what was begun when the disk was full, or before a recorder was killed that had not kept its position.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.recording.batches import arrow

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".arrows"


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
    batches = []
    with path.open("rb") as file:
        data = file.read()
    if not data:  # it was made this moment
        return pa.table({})
    try:
        stream = pa.ipc.open_stream(data)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"not a spool of records: {path}") from error
    with contextlib.suppress(pa.ArrowInvalid, OSError, StopIteration):  # what comes after is not whole yet
        while True:
            batches.append(stream.read_next_batch())
    return pa.Table.from_batches(batches, stream.schema)


def to_parquet(spool: Path, target: Path) -> None:
    """Write a spool as a Parquet file, seen only when it is whole. Raises OSError, and ValueError for what is none."""
    import pyarrow.parquet as parquet

    making = target.with_suffix(".making")
    table = read_spool(spool)
    if not table.num_rows:
        return
    try:
        parquet.write_table(table, making, compression="zstd")
        making.rename(target)
    finally:
        making.unlink(missing_ok=True)


def cut(path: Path, size: int) -> None:
    """Have a spool end where it was kept up to."""
    if path.stat().st_size > size:
        os.truncate(path, size)
