"""Rows as CSV text, read with the types of a model's inputs: no guessing and no data frame."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from modelyard.decoding import exact
from modelyard.decoding.fast import NOT_PLAIN, RowDecoder, ValuesDecoder
from modelyard.decoding.lists import check_columns
from modelyard.errors import InvalidInput
from modelyard.messages import Request
from modelyard.schema import Field

#: What stands for a missing value, as batch jobs over files have it.
MISSING = frozenset({"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NAN", "NaT", "null", "NULL", "Null", "None", "?"})

_TRUE, _FALSE = frozenset({"true", "1", "yes", "1.0"}), frozenset({"false", "0", "no", "0.0"})

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

#: Rows up to which a request is kept as tuples, which join with those of others at less cost.
_FEW_ROWS = 64


class CsvDecoder:
    """Reads CSV for one tuple of input fields. Made once per tuple: ``CsvDecoder.of(fields)``."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._by_name = {field.name: field for field in fields}
        self._rows = RowDecoder.of(fields)
        self._names = tuple(field.name for field in fields)
        self._readers = {field.name: _reader(field) for field in fields}

    @staticmethod
    @lru_cache(maxsize=256)
    def of(fields: tuple[Field, ...]) -> CsvDecoder:
        return CsvDecoder(fields)

    def decode(self, body: bytes, *, header: bool = True, loose: bool = False) -> Request:
        """The rows in ``body``. Raises InvalidInput.

        Without a ``header`` the columns come in the fields' order; one that names them all may come nevertheless.
        ``loose`` passes over columns of other names.
        """
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput.at("body", "CSV in UTF-8", f"byte 0x{body[error.start]:02x}") from None
        rows = [row for _, row in _rows_of(text)] if '"' in text else _plain_rows(text)
        if not rows:
            raise InvalidInput.at("body", "rows of CSV", "nothing: it is empty")
        names = self._names
        has_header = header or set(rows[0]) == set(names)
        if has_header:
            names = tuple(name.strip() for name in rows[0])
            check_columns(self._by_name, names, loose)
        start = int(has_header)
        if len(rows) == start:
            raise InvalidInput.at("body", "at least one row after the header", "none")
        try:
            columns = dict(zip(names, zip(*rows[start:], strict=True), strict=True))
            return self._request([self._readers[field.name](columns[field.name]) for field in self._rows.layout.fields])
        except NOT_PLAIN:
            return self._explain(names, _rows_of(text)[start:])

    def _request(self, lists: Sequence[Sequence[Any]]) -> Request:
        rows = len(lists[0])
        if rows <= _FEW_ROWS:
            return self._rows.request_of(list(zip(*lists, strict=True)), "records")
        request = self._rows.request_of_columns(lists)
        request.form = "records"
        return request

    def _explain(self, names: tuple[str, ...], rows: list[tuple[int, list[str]]]) -> Request:
        """Cell by cell. Raises InvalidInput with every problem found, up to the most that are told."""
        problems = exact.Problems()
        places = {name: i for i, name in enumerate(names)}
        found: list[tuple[Any, ...]] = []
        with contextlib.suppress(exact.Enough):
            for line, row in rows:
                if len(row) != len(names):
                    problems.add(f"line {line}", f"{len(names)} cells", f"{len(row)}")
                    continue
                found.append(
                    tuple(
                        _cell(row[places[field.name]], field, f"line {line}, {field.name}", problems)
                        for field in self._rows.layout.fields
                    )
                )
        if problems:
            raise InvalidInput.of(problems, hint=problems.hint)
        try:
            return self._request(list(zip(*found, strict=True)))
        except ValueError:
            raise InvalidInput.at("body", "rows whose values have one shape", "rows of unequal shapes") from None


def _rows_of(text: str) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line on which it ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found = []
    try:
        for row in reader:
            if row:
                found.append((reader.line_num, row))
    except csv.Error as error:
        raise InvalidInput.at(f"line {reader.line_num}", "a row of CSV", str(error)) from None
    return found


def _plain_rows(text: str) -> list[list[str]]:
    """The rows of a text without quotes."""
    return [line.split(",") for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line]


def _reader(field: Field) -> Callable[[Sequence[str]], list[Any]]:
    """What reads a whole column that is plainly right; raises one of ``NOT_PLAIN`` for any other."""
    if field.shape:
        return _never
    if field.is_numeric and field.dtype != "bool" and not field.nullable:
        values = ValuesDecoder.of(Field(name=field.name, dtype=field.dtype))
        return lambda cells: _numbers(cells, values)
    return lambda cells: _each(cells, field)


def _never(cells: Sequence[str]) -> list[Any]:
    raise ValueError("not plain")


def _numbers(cells: Sequence[str], values: ValuesDecoder) -> list[Any]:
    """Numbers that are also JSON's, which is read several times as fast as Python's own."""
    found = values.plain(("[" + ",".join(cells) + "]").encode())
    if len(found) != len(cells):
        raise ValueError("a comma in a cell")
    return found


def _each(cells: Sequence[str], field: Field) -> list[Any]:
    problems = exact.Problems()
    try:
        values = [_cell(cell, field, "", problems) for cell in cells]
    except exact.Enough:
        raise ValueError("not plain") from None
    if problems:
        raise ValueError("not plain")
    return values


def _cell(text: str, field: Field, path: str, problems: exact.Problems) -> Any:
    """The stored form of a cell, or None with a problem added."""
    if field.shape:
        value = exact.parse(text.encode(), path)
    elif field.dtype == "string":
        is_missing = field.nullable and text.strip() in MISSING and text not in (field.categories or ())
        value = None if is_missing else text
    else:
        value = _plain(text.strip(), field)
        if value is None and not field.nullable:
            problems.add(path, field.describe(), "a missing value")
            return None
    return exact.element(value, field, field.shape, path, problems)


def _plain(text: str, field: Field) -> Any:
    """A cell as JSON would have it; text that is no such value stays text, and so is refused."""
    if text in MISSING:
        return None
    if field.dtype == "bool":
        word = text.lower()
        return True if word in _TRUE else False if word in _FALSE else text
    if field.dtype == "datetime" or not _NUMBER.fullmatch(text):
        return text
    if text.lstrip("+-").isdecimal():
        return int(text) if len(text) <= exact.MOST_DIGITS else text
    return float(text)
