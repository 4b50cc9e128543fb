"""Labels from a file of any size into a ledger, piece by piece: what does not fit is set aside with the reason."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from modelyard.errors import InvalidInput, NotFound, RemoteFailed
from modelyard.interfaces import Ledger
from modelyard.tables.pieces import Place, Rejected, Source, open_source
from modelyard.truth import Label, Receipt, Truth, read_label

if TYPE_CHECKING:
    from modelyard.registry import Registry

#: Bytes of JSON lines that are read at a time.
BLOCK = 4 << 20

#: Reasons that are told beside the file of all of them.
MOST_REASONS = 10

_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")


class Row(NamedTuple):
    """A label as a file has it."""

    prediction: Any
    label: Any
    time: Any = None


class Batch(NamedTuple):
    """Some rows, and how to tell of one that is set aside; those that could not even be read."""

    rows: list[Row]
    reject: Callable[[int, str], Rejected]
    rejected: list[Rejected]


class Sent(msgspec.Struct, kw_only=True):
    """What became of the labels of a file."""

    model: str
    received: int
    new: int
    repeated: int
    corrected: int
    late: int
    #: Rows that were set aside, the file that has them with the reasons, and the first reasons.
    rejected: int
    rejected_file: str | None
    reasons: list[str]
    seconds: float


class Taker(Protocol):
    """Takes labels, durably, and says which rows do not fit, by their places, and why."""

    def __call__(self, rows: Sequence[Row]) -> tuple[Receipt, dict[int, str]]: ...


class Here:
    """Takes labels into a ledger at hand."""

    def __init__(self, ledger: Ledger, model: str, truth: Truth) -> None:
        self._ledger = ledger
        self._model = model
        self._truth = truth

    def __call__(self, rows: Sequence[Row]) -> tuple[Receipt, dict[int, str]]:
        labels: list[Label] = []
        refused: dict[int, str] = {}
        for place, row in enumerate(rows):
            try:
                labels.append(read_label(*row, self._truth))
            except InvalidInput as error:
                refused[place] = str(error.problems[0])
        return self._ledger.add(self._model, labels), refused


def truth_of(registry: Registry, model: str) -> Truth:
    """What labels of a model may be: a class of any version that an alias names, or of the newest. Raises NotFound."""
    versions = registry.versions(model)
    newest = registry.resolve(model)
    wanted = {*registry.aliases(model).values(), versions[-1].number}
    used = [version for version in versions if version.number in wanted and version.task == newest.task]
    return Truth.of(newest.task, [registry.fetch(version).signature for version in used])


def send(
    model: str,
    batches: Iterator[Batch],
    take: Taker,
    rejects: Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Sent:
    """Send labels on, a batch at a time. Rows that do not fit go to ``rejects``, which is replaced. Where it raises,
    what was sent before is kept, and all can be sent again.
    """
    begun, receipt, count = monotonic(), Receipt(), 0
    reasons: list[str] = []
    with ExitStack() as files:
        writer: Any = None
        for batch in batches:
            taken, refused = take(batch.rows)
            receipt = receipt.plus(taken)
            set_aside = [*batch.rejected, *(batch.reject(place, reason) for place, reason in refused.items())]
            for row in sorted(set_aside, key=lambda rejected: rejected.row):
                if rejects is not None and writer is None:
                    writer = csv.writer(files.enter_context(_opened(rejects)))
                    writer.writerow(("line", "row", "reason", "text"))
                if writer is not None:
                    writer.writerow((row.line or "", row.row, row.reason, row.text))
                if len(reasons) < MOST_REASONS:
                    reasons.append(f"{f'line {row.line}' if row.line else f'row {row.row}'}: {row.reason}")
            count += len(set_aside)
            progress()
    if rejects is not None and not count:
        rejects.unlink(missing_ok=True)
    return Sent(
        model=model, **msgspec.structs.asdict(receipt), rejected=count,
        rejected_file=str(rejects) if rejects is not None and count else None, reasons=reasons,
        seconds=monotonic() - begun,
    )  # fmt: skip


def _opened(path: Path) -> Any:
    try:
        return path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise RemoteFailed(f"cannot write {path}: {error.strerror or error}", hint="--rejects names another") from error


# -- reading ---------------------------------------------------------------------------------------------------------


class LabelFile:
    """Labels in a CSV or Parquet file, or as one JSON record a line, by the file's content."""

    def __init__(self, path: Path, id: str, label: str, time: str | None, encoding: str | None = None) -> None:
        self._path = path
        self._names = [id, label, *([time] if time else [])]
        self._source: Source | None = None
        if not path.exists():
            raise NotFound(f"no such file: {path}")
        if not _is_lines(path):
            self._source = open_source(path, encoding, purpose="reading labels from a CSV or Parquet file")
            _check_names(self._source.names, self._names)
        self._read = 0

    @property
    def done(self) -> tuple[int, int]:
        """How much of the file was read, and how much there is."""
        if self._source is not None:
            return self._source.done, self._source.size
        return self._read, self._path.stat().st_size

    def batches(self) -> Iterator[Batch]:
        """The rows, some thousands at a time."""
        if self._source is None:
            yield from self._lines()
            return
        for piece in self._source.pieces(self._names, Place()):
            columns = [piece.table[name].to_pylist() for name in self._names]
            if self._source.decimal == ",":
                columns[1] = [value.replace(",", ".") if _COMMA.fullmatch(value) else value for value in columns[1]]
            yield Batch([Row(*cells) for cells in zip(*columns, strict=True)], piece.reject, piece.rejected)

    def _lines(self) -> Iterator[Batch]:
        number = 0
        with self._path.open("rb") as file:
            while lines := file.readlines(BLOCK):
                rows, numbers, rejected = [], [], []
                for line in lines:
                    number += 1
                    if not line.strip():
                        continue
                    try:
                        record = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"), type=dict[str, Any])
                        rows.append(Row(*(record.get(name) for name in self._names)))
                        numbers.append(number)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                        rejected.append(_rejected(number, f"no JSON record: {error}", line))
                self._read = file.tell()
                yield Batch(rows, _Lines(number - len(lines), numbers, lines).reject, rejected)


class _Lines(NamedTuple):
    """Lines as they were read, to be told of."""

    before: int
    numbers: list[int]
    lines: list[bytes]

    def reject(self, place: int, reason: str) -> Rejected:
        number = self.numbers[place]
        return _rejected(number, reason, self.lines[number - self.before - 1])


def batches_of(
    columns: Mapping[str, Any], id: str, label: str, time: str | None, size: int = 10_000
) -> Iterator[Batch]:
    """The rows of columns that are in memory."""
    names = [id, label, *([time] if time else [])]
    _check_names(list(columns), names)
    values = [[None if v != v else v for v in columns[name].tolist()] for name in names]
    rows = [Row(*cells) for cells in zip(*values, strict=True)]
    for start in range(0, len(rows), size):
        some = rows[start : start + size]

        def reject(place: int, reason: str, start: int = start, some: list[Row] = some) -> Rejected:
            return Rejected(0, start + place + 1, reason, ", ".join(map(str, some[place])))

        yield Batch(some, reject, [])


def _check_names(there: Sequence[str], wanted: Sequence[str]) -> None:
    options = ("--id", "--label", "--time")
    for name, option in zip(wanted, options, strict=False):
        if there.count(name) != 1:
            known = ", ".join(there[:20]) + (", …" if len(there) > 20 else "")
            got = f"{there.count(name)} of that name" if name in there else f"none; the file has {known}"
            raise InvalidInput.at(name, "one column of that name", got, hint=f"{option} COLUMN says which it is")


def _is_lines(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _rejected(number: int, reason: str, line: bytes) -> Rejected:
    return Rejected(number, number, reason, line.decode(errors="replace").rstrip("\r\n")[:10_000])
