"""How a CSV file is written: its encoding, delimiter and decimal mark, told from its beginning; and its records."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.errors import InvalidInput

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def codec_of(encoding: str | None) -> str | None:
    """Python's name for an encoding; None for UTF-8. Raises InvalidInput for an unknown one."""
    if encoding is None or encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
        return None
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise InvalidInput.at("encoding", "a known encoding such as utf-8, latin-1, utf-16", encoding) from None


def check_text(path: Path, sample: bytes) -> None:
    """Raise InvalidInput where the beginning of a file is no UTF-8 text, saying what it seems to be."""
    for mark, name in _BOMS:
        if sample.startswith(mark):
            raise InvalidInput.at(
                f"{path}, line 1, byte 1",
                "UTF-8 text",
                f"the mark of {name.upper()} ({mark.hex(' ').upper()})",
                hint=f"name the encoding: --encoding {name}",
            )
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if even + odd > len(sample) // 5 and min(even, odd) <= (even + odd) // 20:
        name = "utf-16-le" if odd > even else "utf-16-be"
        raise InvalidInput.at(
            f"{path}, line 1, byte {sample.find(0) + 1}",
            "UTF-8 text",
            f"a NUL byte in every second place, as {name.upper()} has",
            hint=f"name the encoding: --encoding {name}",
        )
    controls = len(sample) - len(sample.translate(None, bytes(b for b in range(32) if b not in (9, 10, 13))))
    if controls > max(4, len(sample) // 100):
        raise InvalidInput.at(str(path), "a CSV or Parquet file", "binary data")


class Grammar:
    """Where rows and cells end: RFC 4180, with a quote inside an unquoted cell taken as it is."""

    def __init__(self, delimiter: str) -> None:
        d = re.escape(delimiter).encode()
        cell = rb'(?:"(?:[^"]++|"")*+"[^%b\n]*+|[^"%b\n][^%b\n]*+|)' % (d, d, d)
        row = rb"%b(?:%b%b)*+\n" % (cell, d, cell)
        self._rows = re.compile(rb"(?:%b)*+" % row)
        self._row = re.compile(row)
        self._cell = re.compile(rb"%b(?:%b|\n)" % (cell, d))
        self._delimiter = delimiter.encode()

    def whole_rows(self, block: bytes) -> int:
        """How many bytes of ``block`` are whole rows."""
        if b'"' not in block:
            return block.rfind(b"\n") + 1
        found = self._rows.match(block)
        return found.end() if found else 0

    def rows(self, block: bytes) -> Iterator[bytes]:
        """Each row of a block of whole rows, with its end of line."""
        if b'"' not in block:
            return (line + b"\n" for line in block.split(b"\n")[:-1])
        return (found.group() for found in self._row.finditer(block))

    def cells(self, row: bytes) -> int:
        """How many cells a row has."""
        return len(self._cell.findall(row)) if b'"' in row else row.count(self._delimiter) + 1


@dataclass(frozen=True)
class Record:
    """One record as text: the physical line that it begins on (from 1), its cells, and the text itself."""

    line: int
    cells: list[str]
    text: str


def records(text: str, delimiter: str, line: int = 1) -> Iterator[Record]:
    """The records of ``text``, which begins on physical line ``line``; empty lines are none."""
    csv.field_size_limit(2**31 - 1)
    kept: list[str] = []

    def feed() -> Iterator[str]:
        for piece in io.StringIO(text, newline="\n"):  # str.splitlines would part at a dozen other characters
            kept.append(piece)
            yield piece

    reader = csv.reader(feed(), delimiter=delimiter)
    for cells in reader:
        raw = "".join(kept)
        if cells:
            yield Record(line, cells, raw.rstrip("\r\n"))
        line += len(kept)
        kept.clear()


def sniff_delimiter(text: str) -> str:
    """The delimiter among , ; tab | that parts the first records into the most columns of equal number."""
    head = text[:65536]
    best, most = ",", (0.0, 0)
    for candidate in (",", ";", "\t", "|"):
        try:
            widths = [len(r.cells) for r in list(records(head, candidate))[:50]]
        except csv.Error:
            continue
        if len(widths) > 2 and len(head) < len(text):
            widths = widths[:-1]
        if not widths or widths[0] < 2:
            continue
        same = sum(w == widths[0] for w in widths) / len(widths)
        if (round(same, 1), widths[0]) > most:
            best, most = candidate, (round(same, 1), widths[0])
    return best


def sniff_decimal(text: str, delimiter: str) -> str:
    """``,`` where numbers are written 3,14 and none 3.14 (only possible with another delimiter)."""
    if delimiter == ",":
        return "."
    commas = points = 0
    for record in list(records(text[:65536], delimiter))[1:200]:
        for cell in record.cells:
            commas += bool(re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell))
            points += bool(re.fullmatch(r"\s*[-+]?\d+\.\d+\s*", cell))
    return "," if commas and not points else "."
