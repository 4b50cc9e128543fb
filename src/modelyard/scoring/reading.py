"""Read a CSV or Parquet file piece by piece, so that a file of any size takes the same memory.

A CSV file is cut into blocks of bytes at ends of rows. Everything that must be known to go on after a crash is a
``Place``: the byte, the line and the row where the next piece begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from modelyard.errors import InvalidInput, MissingDependency, NotFound, Problem

#: Bytes of a CSV file that are read at a time. Larger blocks are no faster.
BLOCK = 4 << 20
#: A quote that has not closed after this many bytes never will.
LONGEST = 8 << 20
#: Rows of a Parquet file that are read at a time.
ROWS = 1 << 15


class Place(msgspec.Struct, frozen=True):
    """Where the next piece begins: ``row`` data rows were read; for CSV, also ``offset`` bytes and ``line`` lines."""

    row: int = 0
    offset: int = 0
    line: int = 0


class Rejected(NamedTuple):
    """A row that is set aside: its line in the file (0 in Parquet), its number from 1, why, and what it said."""

    line: int
    row: int
    reason: str
    text: str


class Piece:
    """Some rows of a file. ``table`` holds those that have the right number of cells; ``numbers`` are theirs,
    counted from 1; ``rejected`` are the others. ``end`` is where the next piece begins.
    """

    def __init__(self, table: Any, numbers: Sequence[int], rejected: list[Rejected], end: Place) -> None:
        self.table = table
        self.numbers = numbers
        self.rejected = rejected
        self.end = end

    def reject(self, index: int, reason: str) -> Rejected:
        """Row ``index`` of the table as a rejected one."""
        values = ", ".join(f"{k}={v}" for k, v in self.table.slice(index, 1).to_pylist()[0].items())
        return Rejected(0, self.numbers[index], reason, values)


class Source(Protocol):
    """A file of rows."""

    #: The columns of the file, in its order.
    names: list[str]
    #: Whether every value comes as text.
    is_text: bool
    #: What is read in all, in the unit of ``position``.
    size: int

    def pieces(self, wanted: Sequence[str], start: Place) -> Iterator[Piece]: ...

    def position(self, place: Place) -> int: ...

    def type_of(self, name: str) -> Any:
        """The Arrow type in which a column comes."""


def open_source(path: Path) -> Source:
    """The rows of ``path``. Raises NotFound, and InvalidInput for a file of another kind."""
    if not path.exists():
        raise NotFound(f"no such file: {path}")
    if path.is_dir():
        raise InvalidInput(f"a folder, not a file: {path}")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingDependency.extra("pyarrow", "tables", "scoring a file") from None
    kind = path.suffix.lower()
    if kind in (".parquet", ".pq"):
        return ParquetSource(path)
    if kind in (".csv", ".tsv", ".txt"):
        return CsvSource(path)
    raise InvalidInput.at("input", "a .csv, .tsv or .parquet file", path.name)


# -- CSV ---------------------------------------------------------------------------------------------------------


class Grammar:
    """Where rows and cells end: RFC 4180, with a quote inside an unquoted cell taken as it is."""

    def __init__(self, delimiter: str) -> None:
        d = re.escape(delimiter).encode()
        cell = rb'(?:"(?:[^"]++|"")*+"[^%b\n]*+|[^"%b\n][^%b\n]*+|)' % (d, d, d)
        row = rb"%b(?:%b%b)*+\n" % (cell, d, cell)
        self._rows = re.compile(rb"(?:%b)*+" % row)
        self.row = re.compile(row)
        self.cell = re.compile(rb"%b(?:%b|\n)" % (cell, d))
        self.delimiter = delimiter

    def whole_rows(self, block: bytes) -> int:
        """How many bytes of ``block`` are whole rows."""
        if b'"' not in block:
            return block.rfind(b"\n") + 1
        found = self._rows.match(block)
        return found.end() if found else 0


class CsvSource:
    """A CSV file in UTF-8 with a header line."""

    is_text = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with path.open("rb") as file:
            first = file.readline(LONGEST)
        if first.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InvalidInput(f"not UTF-8 but UTF-16: {path}", hint=f"iconv -f UTF-16 -t UTF-8 {path} > utf8.csv")
        self._begin = len(first)
        try:
            header = first.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise InvalidInput(f"line 1 is not UTF-8: {path}", hint="save the file as UTF-8") from None
        if not header.strip():
            raise InvalidInput(f"no header line: {path}", hint="the first line names the columns")
        delimiter = max(",;\t|", key=header.count)
        self.grammar = Grammar(delimiter if delimiter in header else ",")
        self.names = _header(header, self.grammar.delimiter)

    def position(self, place: Place) -> int:
        return place.offset

    def type_of(self, name: str) -> Any:
        import pyarrow as pa

        return pa.string()

    def pieces(self, wanted: Sequence[str], start: Place) -> Iterator[Piece]:
        """The rows after ``start``, the columns ``wanted`` as text."""
        place = start if start.offset else Place(0, self._begin, 1)
        with self.path.open("rb") as file:
            file.seek(place.offset)
            rest = b""
            while True:
                data = file.read(BLOCK)
                block = rest + data
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
                delimiter=self.grammar.delimiter,
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

    def __init__(self, source: CsvSource, block: bytes, place: Place, table: Any) -> None:
        end = Place(
            place.row + table.num_rows,
            min(place.offset + len(block), source.size),
            place.line + block.count(b"\n"),
        )
        super().__init__(table, range(place.row + 1, place.row + table.num_rows + 1), [], end)
        self._sift = (source, block, place)

    @cached_property
    def _sifted(self) -> SiftedPiece:
        return SiftedPiece(*self._sift)

    def reject(self, index: int, reason: str) -> Rejected:
        return self._sifted.reject(index, reason)


class SiftedPiece(Piece):
    """Rows that were looked at one by one: those that are not UTF-8 or have too many or few cells are rejected."""

    def __init__(self, source: CsvSource, block: bytes, place: Place) -> None:
        self.texts: list[bytes] = []
        self._lines: list[int] = []
        numbers: list[int] = []
        rejected: list[Rejected] = []
        row, line, width = place.row, place.line, len(source.names)
        for found in source.grammar.row.finditer(block):
            text = found.group()
            begin, line = line + 1, line + text.count(b"\n")
            if not text.strip(b"\r\n"):
                continue
            row += 1
            reason = _fault(text, source.grammar, width)
            if reason:
                rejected.append(Rejected(begin, row, reason, shown(text)))
            else:
                self.texts.append(text)
                self._lines.append(begin)
                numbers.append(row)
        super().__init__(None, numbers, rejected, Place(row, min(place.offset + len(block), source.size), line))

    def reject(self, index: int, reason: str) -> Rejected:
        return Rejected(self._lines[index], self.numbers[index], reason, shown(self.texts[index]))


def _fault(text: bytes, grammar: Grammar, width: int) -> str:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} is not UTF-8"
    cells = len(grammar.cell.findall(text)) if b'"' in text else text.count(grammar.delimiter.encode()) + 1
    return "" if cells == width else f"expected {width} cells, got {cells}"


def shown(text: bytes) -> str:
    """The row as it stands in the file, for the file of rejected rows; at most 10,000 characters."""
    return text.decode(errors="replace").rstrip("\r\n")[:10_000]


def _header(line: str, delimiter: str) -> list[str]:
    import csv

    return next(csv.reader([line], delimiter=delimiter))


# -- Parquet -----------------------------------------------------------------------------------------------------


class ParquetSource:
    """A Parquet file; its columns come in their own types."""

    is_text = False

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

    def position(self, place: Place) -> int:
        return place.row

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
            row += batch.num_rows
            if skipped == batch.num_rows:
                continue
            table = pa.Table.from_batches([batch.slice(skipped)])
            yield Piece(table, range(row - table.num_rows + 1, row + 1), [], Place(row))


def check_names(source: Source, needed: Sequence[str], kept: Sequence[str]) -> None:
    """InvalidInput where the file lacks a column, or has one twice that is needed."""
    import difflib

    problems = []
    hints = []
    for name in dict.fromkeys([*needed, *kept]):
        count = source.names.count(name)
        if count == 0:
            near = difflib.get_close_matches(name, source.names, n=1)
            hints += [f"the file has a column {near[0]}: rename it to {name}"] if near else []
            problems.append(Problem(name, "a column of the file", "none of that name"))
        elif count > 1:
            problems.append(Problem(name, "one column of that name", f"{count}"))
    if problems:
        shown_names = ", ".join(source.names[:20]) + (", …" if len(source.names) > 20 else "")
        raise InvalidInput.of(problems, hint="\n".join(hints[:3]) or f"the file has: {shown_names}")
