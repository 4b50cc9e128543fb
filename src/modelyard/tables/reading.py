"""Read a whole table, or a fair sample of one that is larger, with every fault named by its line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelyard import settings
from modelyard.errors import InvalidInput, Problem
from modelyard.schema import Array
from modelyard.tables.arrays import from_arrow
from modelyard.tables.dialect import records
from modelyard.tables.kinds import Evidence, convert, spoken
from modelyard.tables.source import LISTED, MISSING, Block, CsvFile, arrow, is_parquet


@dataclass
class Table(Mapping[str, Array]):
    """A table in memory: a mapping from column name to an array of shape (rows,).

    ``total`` is the number of rows in the file, ``rows`` that of the rows kept. ``notes`` say what was decided on
    the way, ``missing`` counts missing values per column over the whole file.
    """

    path: str
    arrays: dict[str, Array]
    rows: int
    total: int
    missing: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    #: sha256 of the file as it lies on disk.
    digest: str = ""

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def sampled(self) -> bool:
        return self.rows < self.total


def read_table(
    path: str | Path,
    *,
    rows: int | None = None,
    seed: int = 0,
    encoding: str | None = None,
    delimiter: str | None = None,
    missing: Sequence[str] = (),
    text: Sequence[str] = (),
    progress: Callable[[float, float | None, str], None] | None = None,
) -> Table:
    """The table in a CSV (also compressed) or Parquet file.

    Types are decided over the whole file. At most ``rows`` rows are kept (the setting ``train_rows`` when None), a
    sample that depends on ``seed`` alone; memory stays constant however long the file is. ``missing`` are further
    texts that mean a missing value, ``text`` columns to be read as text whatever they hold. ``progress`` is told the
    bytes of a CSV file that are read, those in all, and a word.

    Raises NotFound, or InvalidInput with the lines at fault: rows with too many or too few values, text that is
    not UTF-8, a word in a column of numbers; and for a file that is empty or no table.
    """
    path = Path(path).expanduser()
    keep = _Sample(max(1, settings.get("train_rows", rows)), seed)
    if is_parquet(path):
        table = _read_parquet(path, keep)
    else:
        file = CsvFile.open(path, encoding=encoding, delimiter=delimiter)
        table = _read_csv(file, keep, (*MISSING, *missing), text, progress)
    with path.open("rb") as raw:
        table.digest = "sha256:" + hashlib.file_digest(raw, "sha256").hexdigest()
    if table.sampled:
        table.notes.insert(0, f"{table.rows:,} of {table.total:,} rows are looked at: a random sample (seed {seed})")
    return table


class _Sample:
    """Keeps at most ``limit`` rows: those whose number, hashed with the seed, is smallest. The order stays."""

    def __init__(self, limit: int, seed: int) -> None:
        self.limit, self.seed = limit, seed
        self.parts: list[tuple[Any, Array, Array]] = []  # arrow table, row numbers, priorities
        self.kept = self.seen = 0
        self.bar = np.uint64(2**64 - 1)

    def add(self, part: Any) -> None:
        """The next rows, an arrow table or record batch."""
        numbers = np.arange(self.seen, self.seen + part.num_rows, dtype=np.uint64)
        self.seen += part.num_rows
        ranks = _mixed(numbers + np.uint64(self.seed * 0x9E3779B97F4A7C15 % 2**64))
        if self.kept + part.num_rows > self.limit:
            chosen = np.flatnonzero(ranks <= self.bar)
            part, numbers, ranks = part.take(arrow().array(chosen)), numbers[chosen], ranks[chosen]
        if part.num_rows:
            self.parts.append((part, numbers, ranks))
            self.kept += part.num_rows
        if self.kept > 2 * self.limit:
            self._prune()

    def _prune(self) -> None:
        ranks = np.concatenate([r for _, _, r in self.parts])
        self.bar = np.partition(ranks, self.limit - 1)[self.limit - 1]
        pa, parts = arrow(), []
        for part, numbers, ranks in self.parts:
            chosen = np.flatnonzero(ranks <= self.bar)
            parts.append((part.take(pa.array(chosen)), numbers[chosen], ranks[chosen]))
        self.parts = parts
        self.kept = sum(part.num_rows for part, _, _ in parts)

    def table(self) -> Any:
        """The rows kept, as one arrow table."""
        if self.kept > self.limit:
            self._prune()
        return arrow().concat_tables([part for part, _, _ in self.parts]).combine_chunks()


def _mixed(values: Array) -> Array:
    """splitmix64: evenly spread 64-bit hashes of whole numbers."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed


def parse(file: CsvFile, block: Block, convert_options: Any) -> tuple[Any, list[tuple[int, int, str]]]:
    """The rows of a block as an arrow table, and the ragged ones: (number of the record in the block from 1, number
    of cells, text). Raises pyarrow.ArrowInvalid where values do not convert."""
    pa = arrow()
    ragged: list[tuple[int, int, str]] = []

    def set_aside(row: Any) -> str:
        ragged.append((row.number, row.actual_columns, row.text))
        return "skip"

    table = pa.csv.read_csv(
        pa.BufferReader(block.data),
        read_options=pa.csv.ReadOptions(column_names=file.names, use_threads=False, block_size=len(block.data) + 1),
        parse_options=pa.csv.ParseOptions(
            delimiter=file.delimiter, newlines_in_values=b'"' in block.data, invalid_row_handler=set_aside
        ),
        convert_options=convert_options,
    )
    return table, ragged


def _read_csv(file: CsvFile, keep: _Sample, markers: Sequence[str], text: Sequence[str], progress: Any) -> Table:
    pa = arrow()
    pc = pa.compute
    unknown = [name for name in text if name not in file.names]
    if unknown:
        raise InvalidInput.at("text", f"columns among {', '.join(file.names)}", ", ".join(unknown))
    as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(file.names, pa.string()), strings_can_be_null=False)
    evidence = {name: Evidence(file.decimal, kinds=[] if name in text else None) for name in file.names}
    marks = pa.array(dict.fromkeys(markers))
    faults = _Faults(file)
    size = file.path.stat().st_size
    for block in file.blocks():
        if progress:
            progress(block.offset, size, "read")
        faults.check(block)
        table, ragged = parse(file, block, as_text)
        faults.add_ragged(block, ragged)
        columns = []
        for name, seen in evidence.items():
            column = table.column(name).combine_chunks() if table.num_rows else pa.array([], pa.string())
            gaps = pc.is_in(column, marks)
            if pc.any(gaps).as_py():
                found = pc.value_counts(column.filter(gaps))
                seen.missing.update({item["values"]: item["counts"] for item in found.to_pylist()})
                column = pc.if_else(gaps, None, column)
            seen.see(column, keep.seen)
            columns.append(column)
        keep.add(pa.table(columns, names=file.names))
    faults.add_odd(evidence)
    faults.throw()
    if not keep.seen:
        raise InvalidInput.at(str(file.path), "rows below the header line", "only the header line")
    return _settled(file, keep, evidence)


def _settled(file: CsvFile, keep: _Sample, evidence: dict[str, Evidence]) -> Table:
    table = keep.table()
    notes = list(file.notes)
    arrays = {}
    for name, seen in evidence.items():
        kind = seen.settle()
        values, wrong = convert(table.column(name).combine_chunks(), kind, file.decimal)
        assert wrong is None, name
        arrays[name] = from_arrow(name, values)
        if seen.missing:
            notes.append(f"{name}: {_count_missing(seen)}")
        if seen.why_text:
            notes.append(f"{name}: {seen.why_text}")
        if kind.format:
            notes.append(f"{name}: dates read as {spoken(kind.format)}; requests write them as ISO 8601")
    if file.decimal == ",":
        notes.append("numbers are read with a decimal comma")
    missing = {name: sum(seen.missing.values()) for name, seen in evidence.items() if seen.missing}
    return Table(str(file.path), arrays, table.num_rows, keep.seen, missing, notes)


def _count_missing(seen: Evidence) -> str:
    marks = ", ".join(
        f"{count:,} {'blank' if not mark.strip() else 'written ' + mark}" for mark, count in seen.missing.most_common(4)
    )
    return f"{sum(seen.missing.values()):,} missing ({marks})"


class _Faults:
    """Collects what is wrong with a file, and tells all of it at once."""

    def __init__(self, file: CsvFile) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.count = 0
        self.hint = ""

    def check(self, block: Block) -> None:
        """Raise at once for what makes the rest unreadable."""
        if block.broken:
            raise InvalidInput.at(f"{self.file.path}, line {block.line}", "whole rows", block.broken)
        fault = block.fault()
        if fault is not None:
            raise InvalidInput.at(
                f"{self.file.path}, {fault.path}", fault.expected, fault.got,
                hint="" if "NUL" in fault.got else "name the encoding, perhaps: --encoding latin-1",
            )  # fmt: skip

    def add_ragged(self, block: Block, ragged: list[tuple[int, int, str]]) -> None:
        self.count += len(ragged)
        if not ragged or len(self.problems) >= LISTED:
            return
        wanted = {number: cells for number, cells, _ in ragged[: LISTED - len(self.problems)]}
        expected = f"{len(self.file.names)} values, as the header has names"
        for number, record in enumerate(records(block.data.decode(), self.file.delimiter, block.line), 1):
            if number in wanted:
                self.problems.append(Problem(f"line {record.line}", expected, f"{wanted[number]}"))
        self.hint = "rows with too many values often hold the delimiter in a text: put the text in quotation marks"

    def add_odd(self, evidence: dict[str, Evidence]) -> None:
        odd = [
            (row, name, value, seen.settle().describe())
            for name, seen in evidence.items()
            if seen.kinds and seen.odd
            for row, value in seen.first_odd
        ]
        if not odd or self.problems:
            return
        self.count = sum(seen.odd for seen in evidence.values() if seen.kinds)
        odd.sort()
        lines = self._lines_of([row for row, *_ in odd[:LISTED]])
        self.problems += [
            Problem(f"line {lines[row]}, column {name}", f"{kind}, as in the other rows", repr(value))
            for row, name, value, kind in odd[:LISTED]
        ]
        _, name, value, _ = odd[0]
        self.hint = f"mend the lines, or say what it means: --missing {value!r} or --text {name!r}"

    def _lines_of(self, rows: list[int]) -> dict[int, int]:
        """The physical line on which each row begins."""
        wanted, lines, row = set(rows), {}, 0
        for block in self.file.blocks():
            for record in records(block.data.decode(), self.file.delimiter, block.line):
                if len(record.cells) != len(self.file.names):
                    continue
                if row in wanted:
                    lines[row] = record.line
                    if len(lines) == len(wanted):
                        return lines
                row += 1
        return lines

    def throw(self) -> None:
        if not self.problems:
            return
        more = f" (and {self.count - 1:,} more)" if self.count > 1 else ""
        raise InvalidInput(f"{self.problems[0]}{more}", hint=self.hint, problems=self.problems, count=self.count)


def _read_parquet(path: Path, keep: _Sample) -> Table:
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            doubles = sorted({name for name in names if names.count(name) > 1})
            if doubles:
                raise InvalidInput.at(str(path), "each column name once", ", ".join(doubles))
            for batch in file.iter_batches(batch_size=65536):
                keep.add(pa.table(batch))
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput.at(str(path), "a whole Parquet file", str(error).splitlines()[0]) from None
    if not keep.seen:
        raise InvalidInput.at(str(path), "rows", "none")
    table = keep.table()
    arrays, notes, missing = {}, [], {}
    for name in table.column_names:
        try:
            arrays[name] = from_arrow(name, table.column(name).combine_chunks())
        except InvalidInput as error:
            notes.append(f"{name}: left out, for it holds {error.problems[0].got}")
        gaps = table.column(name).null_count
        if gaps:
            missing[name] = gaps
            notes.append(f"{name}: {gaps:,} missing")
    return Table(str(path), arrays, table.num_rows, keep.seen, missing, notes)
