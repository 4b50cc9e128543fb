"""A CSV file as blocks of whole records: encoding, delimiter, header and line numbers.

Blocks are cut at ends of lines that are not inside quotation marks, so each can be parsed by itself, in constant
memory, and any fault in it can be given its line.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from modelyard.errors import InvalidInput, MissingDependency, NotFound, Problem
from modelyard.tables.dialect import Grammar, check_text, codec_of, records, sniff_decimal, sniff_delimiter

#: Texts that mean a missing value. Blanks are there because spreadsheets and databases pad with them.
MISSING: tuple[str, ...] = (
    "", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NAN", "NaT", "null", "NULL", "Null", "None", "?",
    *(" " * n for n in range(1, 9)),
)  # fmt: skip
#: At most this many faults are listed one by one.
LISTED = 10
#: A record that is longer than this has a quotation mark that is never closed.
LONGEST = 64 * 2**20
NEWLINE = b"\n"
_SNIFFED = 256 * 1024
_NOT_TABLES = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "save the sheet as CSV, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV"),
    (b"%PDF", "a PDF document", ""),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
)


def arrow(purpose: str = "reading tables") -> Any:
    """The pyarrow module. Raises MissingDependency where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise MissingDependency.extra("pyarrow", "tables", purpose) from None
    return pyarrow


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does, whatever it is called."""
    return _head(path, 4) == b"PAR1"


def _head(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except IsADirectoryError:
        raise InvalidInput.at(str(path), "a CSV or Parquet file", "a folder") from None
    except PermissionError:
        raise InvalidInput.at(str(path), "a file that may be read", "permission denied") from None


def _unpack(path: Path, raw: IO[bytes]) -> Any:
    import bz2
    import gzip
    import lzma

    head = raw.read(6)
    raw.seek(0)
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)
    if head[:3] == b"BZh":
        return bz2.BZ2File(raw)
    if head == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(raw)
    for magic, what, hint in _NOT_TABLES:
        if head.startswith(magic[:6]):
            raise InvalidInput.at(str(path), "a CSV or Parquet file", what, hint=hint)
    return raw


@dataclass(frozen=True)
class Block:
    """Whole records of a CSV file as UTF-8 bytes, beginning at a physical line."""

    data: bytes
    #: Number of the physical line, from 1, on which the first record begins.
    line: int
    #: Bytes of the file read so far, for progress.
    offset: int
    #: Why the block cannot be parsed: a quotation mark is never closed. It is then a single line.
    broken: str = ""

    def fault(self) -> Problem | None:
        """The first byte that is not UTF-8 text, or None."""
        nul = self.data.find(b"\0")
        if nul >= 0:
            return Problem(f"line {self._line_at(nul)}", "text", f"a NUL byte at {self._place(nul)}")
        if self.data.isascii():
            return None
        try:
            self.data.decode()
        except UnicodeDecodeError as error:
            at = error.start
            return Problem(
                f"line {self._line_at(at)}", "UTF-8 text", f"the byte 0x{self.data[at]:02X} at {self._place(at)}"
            )
        return None

    def _line_at(self, at: int) -> int:
        return self.line + self.data.count(b"\n", 0, at)

    def _place(self, at: int) -> str:
        return f"byte {at - self.data.rfind(NEWLINE, 0, at)}"


@dataclass
class CsvFile:
    """An opened CSV file: how it is written and what its columns are called."""

    path: Path
    encoding: str
    delimiter: str
    decimal: str
    names: list[str]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, *, encoding: str | None = None, delimiter: str | None = None) -> CsvFile:
        """Look at the beginning of the file and at its header.

        Raises NotFound, or InvalidInput for a file that is empty, not text, or whose header names a column twice.
        """
        _head(path, 1)
        codec = codec_of(encoding)
        with path.open("rb") as raw:
            sample = _read(path, _unpack(path, raw), _SNIFFED)
        if not sample.strip(b"\xef\xbb\xbf \t\r\n\0"):
            raise InvalidInput.at(str(path), "a header line and rows", "an empty file")
        if codec is None:
            check_text(path, sample)
            codec = "utf-8-sig"
        text = codecs.getincrementaldecoder(codec)("replace").decode(sample)
        if "\n" not in text:
            text = text.replace("\r", "\n")
        delimiter = delimiter or sniff_delimiter(text)
        made = cls(path, codec, delimiter, sniff_decimal(text, delimiter), [])
        header = next(records(text, delimiter), None)
        if header is None:
            raise InvalidInput.at(str(path), "a header line and rows", "an empty file")
        made.names = made._names(header.cells)
        return made

    def _names(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        nameless = [i for i, name in enumerate(names) if not name]
        if len(nameless) == len(names):
            raise InvalidInput.at("line 1", "the names of the columns", "empty names")
        taken = set(names)
        for i in nameless:
            names[i] = next(n for n in (f"column_{i + 1}", f"column_{i + 1}_unnamed") if n not in taken)
            self.notes.append(f"column {i + 1} has no name in the header: called {names[i]}")
        first: dict[str, int] = {}
        problems = []
        for i, name in enumerate(names):
            if name in first:
                problems.append(
                    Problem("line 1", "each column name once", f"{name!r} in columns {first[name] + 1} and {i + 1}")
                )
            first.setdefault(name, i)
        if problems:
            numbers = sum(bool(re.fullmatch(r"[-+]?[\d.]+", n)) for n in names) > len(names) / 2
            raise InvalidInput.of(
                problems[:LISTED],
                hint="the first line looks like data: add a header line" if numbers else "rename one of them",
            )
        if all(re.fullmatch(r"[-+]?\d*\.\d+([eE][-+]?\d+)?", n) for n in names):
            self.notes.append("every column name is a number: is the header line missing?")
        return names

    def blocks(self, size: int = 4 * 2**20) -> Iterator[Block]:
        """The records after the header, in blocks of about ``size`` bytes. A line that opens a quotation mark which is
        never closed is a block of its own.
        """
        grammar = Grammar(self.delimiter)
        chunks = self.chunks(size)
        pending, line, header = b"", 1, True
        while True:
            chunk, offset = next(chunks, (b"", self.path.stat().st_size))
            pending = pending + chunk if pending else chunk
            if not pending:
                return
            if b"\n" not in pending and b"\r" in pending:
                pending = re.sub(rb"\r(?!\Z)", b"\n", pending)  # lines as old Macs end them
            if not chunk and not pending.endswith(NEWLINE):
                pending += NEWLINE
            cut = grammar.whole_rows(pending)
            while header and cut:
                first = len(next(grammar.rows(pending[:cut])))
                header = not pending[:first].strip(b"\r\n")  # an empty line before the header
                line, pending, cut = line + pending.count(NEWLINE, 0, first), pending[first:], cut - first
            if cut:
                yield Block(pending[:cut], line, offset)
            elif pending and (not chunk or len(pending) > LONGEST):
                cut = pending.find(NEWLINE) + 1 or len(pending)
                yield Block(pending[:cut], line, offset, "a quotation mark that is never closed")
            line, pending = line + pending.count(NEWLINE, 0, cut), pending[cut:]

    def chunks(self, size: int, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """Pieces of the file as UTF-8 (or, where it is not, as it is) with the bytes of the file read so far.

        ``start`` is the byte of that text (without its mark) to begin at: a plain file is read from there, a
        compressed or transcoded one from its beginning.
        """
        plain = self.encoding == "utf-8-sig"
        decoder = None if plain else codecs.getincrementaldecoder(self.encoding)("strict")
        with self.path.open("rb") as raw:
            source, first = _unpack(self.path, raw), True
            if plain and source is raw and start:
                raw.seek(start + len(codecs.BOM_UTF8) * (raw.read(3) == codecs.BOM_UTF8))
                first, start = False, 0
            while True:
                chunk = _read(self.path, source, size)
                if decoder is not None:
                    chunk = self._transcode(decoder, chunk)
                if first:
                    chunk, first = chunk.removeprefix(codecs.BOM_UTF8), False
                if not chunk:
                    return
                if start < len(chunk):
                    yield chunk[start:] if start else chunk, raw.tell()
                start = max(0, start - len(chunk))

    def _transcode(self, decoder: Any, chunk: bytes) -> bytes:
        try:
            text: str = decoder.decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            raise InvalidInput.at(
                str(self.path), f"{self.encoding} text", f"the byte 0x{error.object[error.start]:02X}"
            ) from None
        return text.encode()


def _read(path: Path, source: Any, size: int) -> bytes:
    """``size`` bytes, fewer only at the end."""
    try:
        data: bytes = source.read(size)
        return data
    except (EOFError, OSError) as error:
        raise InvalidInput.at(str(path), "a whole compressed file", str(error)) from None
    except Exception as error:  # zlib.error and lzma.LZMAError share no base
        raise InvalidInput.at(str(path), "a readable compressed file", str(error)) from None
