"""A Parquet file, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelyard.errors import InvalidInput
from modelyard.tables.pieces import Piece, Place

#: Rows that are read at a time.
ROWS = 1 << 15


class ParquetRows:
    """The rows of a Parquet file; its columns come in their own types."""

    is_text = False
    decimal = "."

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        try:
            # Buffered reading keeps a large row group from being held in memory as a whole.
            self._file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        except pa.ArrowInvalid as error:
            raise InvalidInput(f"not a Parquet file: {path} ({str(error).splitlines()[0]})") from None
        self.names: list[str] = self._file.schema_arrow.names
        self.size: int = self._file.metadata.num_rows
        self.done = 0

    def type_of(self, name: str) -> Any:
        import pyarrow as pa

        kind = self._file.schema_arrow.field(name).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def pieces(self, wanted: Sequence[str], start: Place) -> Iterator[Piece]:
        import pyarrow as pa

        row, groups = 0, list(range(self._file.num_row_groups))
        while groups and row + self._file.metadata.row_group(groups[0]).num_rows <= start.row:
            row += self._file.metadata.row_group(groups.pop(0)).num_rows
        if not groups:
            return
        for batch in self._file.iter_batches(ROWS, row_groups=groups, columns=list(wanted)):
            skipped = min(max(start.row - row, 0), batch.num_rows)
            self.done = row = row + batch.num_rows
            if skipped == batch.num_rows:
                continue
            table = pa.Table.from_batches([batch.slice(skipped)])
            yield Piece(table, range(row - table.num_rows + 1, row + 1), [], Place(row))
