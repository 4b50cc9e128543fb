"""A CSV file, some megabytes of whole rows at a time. How the file is written is found out as training does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard.errors import InvalidInput
from modelyard.tables.dialect import Grammar
from modelyard.tables.pieces import Piece, Place, Rejected
from modelyard.tables.source import CsvFile

#: Bytes that are read at a time. Larger blocks are no faster.
BLOCK = 4 << 20
#: A quote that has not closed after this many bytes never will.
LONGEST = 8 << 20


class CsvRows:
    """The rows of a CSV file with a header line; every value comes as text."""

    is_text = True

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self._file = CsvFile.open(path, encoding=encoding)
        self._path = path
        self.names = self._file.names
        self.decimal = self._file.decimal
        self.size = path.stat().st_size
        self.done = 0
        self.grammar = Grammar(self._file.delimiter)
        self._begin = self._after_header()

    def type_of(self, name: str) -> Any:
        import pyarrow as pa

        return pa.string()

    def _after_header(self) -> Place:
        """Where the first row begins; empty lines before the header are no rows."""
        offset = line = 0
        for row in self.grammar.rows(next(self._file.chunks(BLOCK), (b"", 0))[0] + b"\n"):
            offset += len(row)
            line += row.count(b"\n")
            if row.strip(b"\r\n"):
                return Place(0, offset, line)
        raise InvalidInput.at(str(self._path), "a header line and rows", "an empty file")

    def pieces(self, wanted: Sequence[str], start: Place) -> Iterator[Piece]:
        """The rows after ``start``, the columns ``wanted`` as text."""
        place = start if start.offset else self._begin
        chunks = self._file.chunks(BLOCK, place.offset)
        rest = b""
        while True:
            data, self.done = next(chunks, (b"", self.size))
            block = rest + data if rest else data
            if not block:
                return
            if not data and not block.endswith(b"\n"):
                block += b"\n"
            end = self.grammar.whole_rows(block)
            if end:
                piece = self._piece(block[:end], wanted, place)
            elif data and len(block) < LONGEST:
                rest = block
                continue
            else:
                end = block.find(b"\n") + 1 or len(block)
                piece = self._unclosed(block[:end], wanted, place)
            rest = block[end:]
            place = piece.end
            yield piece

    def _piece(self, block: bytes, wanted: Sequence[str], place: Place) -> Piece:
        import pyarrow as pa

        ragged: list[Any] = []
        try:
            table = self._parse(block, wanted, ragged)
        except pa.ArrowInvalid:
            table = None
        if table is None or ragged:
            piece = SiftedPiece(self, block, place)
            piece.table = self._parse(b"".join(piece.texts), wanted, ragged=[])
            return piece
        return CsvPiece(self, block, place, table)

    def _unclosed(self, line: bytes, wanted: Sequence[str], place: Place) -> Piece:
        rejected = Rejected(place.line + 1, place.row + 1, "a quote that never closes", shown(line))
        end = Place(place.row + 1, place.offset + len(line), place.line + 1)
        return Piece(self._parse(b"", wanted, ragged=[]), [], [rejected], end)

    def _parse(self, block: bytes, wanted: Sequence[str], ragged: list[Any]) -> Any:
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        if not block:
            return pa.table({name: pa.array([], pa.string()) for name in wanted})

        def skip(row: Any) -> str:
            ragged.append(row)
            return "skip"

        return arrow_csv.read_csv(
            pa.py_buffer(block),
            arrow_csv.ReadOptions(column_names=self.names),
            arrow_csv.ParseOptions(
                delimiter=self._file.delimiter,
                newlines_in_values=b'"' in block,
                invalid_row_handler=skip,
            ),
            arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in wanted},
                include_columns=list(wanted),
                strings_can_be_null=False,
            ),
        )


class CsvPiece(Piece):
    """Rows as Arrow read them; none was at fault so far. Their texts are cut apart only if one is rejected."""

    def __init__(self, source: CsvRows, block: bytes, place: Place, table: Any) -> None:
        rows = place.row + table.num_rows
        end = Place(rows, place.offset + len(block), place.line + block.count(b"\n"))
        super().__init__(table, range(place.row + 1, rows + 1), [], end)
        self._source, self._block, self._place = source, block, place

    @cached_property
    def _lines(self) -> list[bytes] | None:
        """The rows as lines, where each is one."""
        if b'"' in self._block or self.end.line - self._place.line != self.table.num_rows:
            return None
        return self._block.split(b"\n")

    @cached_property
    def _sifted(self) -> SiftedPiece:
        return SiftedPiece(self._source, self._block, self._place)

    def reject(self, index: int, reason: str) -> Rejected:
        if self._lines is None:
            return self._sifted.reject(index, reason)
        return Rejected(self._place.line + 1 + index, self.numbers[index], reason, shown(self._lines[index]))


class SiftedPiece(Piece):
    """Rows that were looked at one by one: those that are not UTF-8 or have too many or few cells are rejected."""

    def __init__(self, source: CsvRows, block: bytes, place: Place) -> None:
        self.texts: list[bytes] = []
        self._lines: list[int] = []
        numbers: list[int] = []
        rejected: list[Rejected] = []
        width, grammar = len(source.names), source.grammar
        is_text = _fault_of_encoding(block) == ""
        row, line = place.row, place.line
        for text in grammar.rows(block):
            begin, line = line + 1, line + text.count(b"\n")
            if not text.strip(b"\r\n"):
                continue
            row += 1
            reason = "" if is_text else _fault_of_encoding(text)
            if not reason and (cells := grammar.cells(text)) != width:
                reason = f"expected {width} cells, got {cells}"
            if reason:
                rejected.append(Rejected(begin, row, reason, shown(text)))
            else:
                self.texts.append(text)
                self._lines.append(begin)
                numbers.append(row)
        super().__init__(None, numbers, rejected, Place(row, place.offset + len(block), line))

    def reject(self, index: int, reason: str) -> Rejected:
        return Rejected(self._lines[index], self.numbers[index], reason, shown(self.texts[index]))


def _fault_of_encoding(text: bytes) -> str:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} is not UTF-8"
    return ""


def shown(text: bytes) -> str:
    """The row as it stands in the file, for the file of rejected rows; at most 10,000 characters."""
    return text.decode(errors="replace").rstrip("\r\n")[:10_000]
