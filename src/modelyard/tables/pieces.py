"""Read a CSV or Parquet file piece by piece, so that a file of any size takes the same memory.

Everything that must be known to go on after a crash is a ``Place``: where the next piece begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from modelyard.errors import InvalidInput, NotFound, Problem


class Place(msgspec.Struct, frozen=True):
    """Where the next piece begins: ``row`` data rows were read; of CSV, ``offset`` bytes of text and ``line`` lines."""

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
    #: Whether every value comes as text, and how a fraction is written there.
    is_text: bool
    decimal: str
    #: Bytes of a CSV file, rows of a Parquet file: what ``done`` counts.
    size: int
    done: int

    def pieces(self, wanted: Sequence[str], start: Place) -> Iterator[Piece]: ...

    def type_of(self, name: str) -> Any:
        """The Arrow type in which a column comes."""


def open_source(path: Path, encoding: str | None = None, *, purpose: str = "scoring a file") -> Source:
    """The rows of ``path``, Parquet or CSV by its content; ``encoding`` is that of a CSV file.

    Raises NotFound, MissingDependency, and InvalidInput for what is no table.
    """
    from modelyard.tables.source import arrow, is_parquet

    if not path.exists():
        raise NotFound(f"no such file: {path}")
    arrow(purpose)
    if is_parquet(path):
        from modelyard.tables.parquet_rows import ParquetRows

        return ParquetRows(path)
    from modelyard.tables.csv_rows import CsvRows

    return CsvRows(path, encoding)


def _nearest(name: str, names: Sequence[str]) -> str:
    """The name that is most like ``name``, large and small letters taken as the same, or nothing."""
    import difflib

    written = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), written, n=1)
    return written[near[0]] if near else ""


def check_names(source: Source, needed: Sequence[str], kept: Sequence[str]) -> None:
    """InvalidInput where the file lacks a column, or has one twice that is needed."""
    problems = []
    hints = []
    others = [name for name in source.names if name not in needed]
    for name in dict.fromkeys([*needed, *kept]):
        count = source.names.count(name)
        if count == 0:
            near = _nearest(name, others if name in needed else source.names)
            if near:
                mend = f"the file has a column {near}: rename it to {name}"
                hints.append(mend if name in needed else f"did you mean --keep {near}?")
            problems.append(Problem(name, "a column of the file", "none of that name"))
        elif count > 1:
            problems.append(Problem(name, "one column of that name", f"{count}"))
    if problems:
        shown_names = ", ".join(source.names[:20]) + (", …" if len(source.names) > 20 else "")
        raise InvalidInput.of(problems, hint="\n".join(hints[:3]) or f"the file has: {shown_names}")
