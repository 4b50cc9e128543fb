"""Rows as JSON lists, whose columns are named once or go by the signature's order; and rows in any form at all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from modelyard.decoding import exact
from modelyard.decoding.fast import NOT_PLAIN, RowDecoder, value_type
from modelyard.errors import MOST_PROBLEMS, InvalidInput, Problem
from modelyard.messages import Request
from modelyard.schema import Field

# Types made at run time, which a type checker cannot follow.
_LIST: Any = list

_astuple = msgspec.structs.astuple

#: The first two characters of a JSON text that are not blank.
_OPENING = re.compile(rb"\s*(.?)\s*(.?)", re.DOTALL)


def under(path: str, error: InvalidInput) -> InvalidInput:
    """An error found in a part of a body, with its problems at their places in the whole."""
    problems = [Problem(_join(path, problem.path), problem.expected, problem.got) for problem in error.problems]
    return InvalidInput.of(problems, hint=error.hint)


def _join(path: str, inside: str) -> str:
    if inside == "body":
        return path
    return f"{path}{inside}" if inside.startswith("[") else f"{path}.{inside}"


def check_envelope(body: bytes, keys: int, *inside: bytes) -> None:
    """Raise InvalidInput where a key comes twice in the objects of ``body``, which has ``keys`` keys beside those of
    its parts ``inside``, which are checked already.

    Counting colons tells that all is well; where the count differs, a text may hold one, so it is read again.
    """
    if body.count(b":") != keys + sum([part.count(b":") for part in inside]):
        exact.check_json(body)


class ListsDecoder:
    """Reads ``[[1.5, 2], [0, 4]]`` for one order of columns. Made once an order: ``ListsDecoder.of``."""

    def __init__(self, fields: tuple[Field, ...], names: tuple[str, ...], loose: bool) -> None:
        by_name = {field.name: field for field in fields}
        check_columns(by_name, names, loose)
        self._rows = RowDecoder.of(fields)
        self._names = names
        #: The field of each value in a row; None where it is passed over.
        self._fields = [by_name.get(name) for name in names]
        types = [(f"f{i}", Any if field is None else value_type(field)) for i, field in enumerate(self._fields)]
        row: Any = msgspec.defstruct("Row", types, array_like=True, gc=False, forbid_unknown_fields=True)
        self._read = msgspec.json.Decoder(_LIST[row]).decode
        places = [names.index(field.name) for field in self._rows.layout.fields]
        self._ordered: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None
        if places != list(range(len(names))):
            pick = itemgetter(*places)
            self._ordered = pick if len(places) > 1 else lambda row: (pick(row),)

    @staticmethod
    @lru_cache(maxsize=256)
    def of(fields: tuple[Field, ...], names: tuple[str, ...] | None = None, loose: bool = False) -> ListsDecoder:
        """The decoder for columns called ``names``, else for the fields in their order.

        ``loose`` passes over columns of other names. Raises InvalidInput, about ``columns``, where one is missing or
        comes twice, and where one is unknown and it is not ``loose``.
        """
        return ListsDecoder(fields, tuple(field.name for field in fields) if names is None else names, loose)

    def decode(self, text: bytes, path: str) -> Request:
        """The rows in ``text``. Raises InvalidInput that names places under ``path``."""
        try:
            rows = [_astuple(row) for row in self._read(text)]
            if rows:
                return self._request(rows)
        except NOT_PLAIN:
            pass
        return self._explain(text, path)

    def _request(self, rows: list[tuple[Any, ...]]) -> Request:
        if self._ordered is not None:
            rows = [self._ordered(row) for row in rows]
        return self._rows.request_of(self._rows.stored(rows), "lists")

    def _explain(self, text: bytes, path: str) -> Request:
        return _exactly(text, path, self._row, self._rows)

    def _row(self, value: Any, path: str, problems: exact.Problems) -> tuple[Any, ...]:
        """One row in the layout's order, in its stored form."""
        width = len(self._fields)
        if not isinstance(value, list) or len(value) != width:
            known = ", ".join(self._names[:20]) + (", …" if width > 20 else "")
            got = f"a list of {len(value)}" if isinstance(value, list) else exact.got(value)
            problems.add(path, f"a list of {width} ({known})", got)
            return ()
        row = {
            field.name: exact.element(inside, field, field.shape, f"{path}[{i}]", problems)
            for i, (inside, field) in enumerate(zip(value, self._fields, strict=True))
            if field is not None
        }
        return tuple(row[field.name] for field in self._rows.layout.fields)


def check_columns(by_name: Mapping[str, Field], names: Sequence[str], loose: bool) -> None:
    """Raise InvalidInput where a field has no column or several, or, unless ``loose``, a column has no field."""
    if len(names) == len(by_name) and by_name.keys() == set(names):
        return
    problems = [
        Problem(f"columns[{i}]", "each name once", f"{name} twice")
        for i, name in enumerate(names)
        if name in names[:i] and name in by_name
    ]
    if not loose:
        known = ", ".join(list(by_name)[:20])
        problems += [
            Problem(f"columns[{i}]", f"one of {known}", f"the unknown column {name[:40]}")
            for i, name in enumerate(names)
            if name not in by_name
        ]
    problems += [Problem("columns", f"the column {name}", "none of that name") for name in by_name if name not in names]
    if problems:
        raise InvalidInput.of(problems[:MOST_PROBLEMS])


def _exactly(
    text: bytes, path: str, read: Callable[[Any, str, exact.Problems], tuple[Any, ...]], rows: RowDecoder
) -> Request:
    """The rows of a list, one read at a time. Raises InvalidInput with every problem found."""
    values = exact.parse(text, path)
    problems = exact.Problems()
    request: Request | None = None
    with contextlib.suppress(exact.Enough):
        if not isinstance(values, list):
            problems.add(path, "a list of rows", exact.got(values))
        elif not values:
            problems.add(path, "at least one row", "an empty list")
        else:
            found = [read(value, f"{path}[{i}]", problems) for i, value in enumerate(values)]
            if not problems:
                try:
                    request = rows.request_of(found, "lists")
                except ValueError:
                    problems.add(path, "rows whose values have one shape", "rows of unequal shapes")
    if request is None:
        raise InvalidInput.of(problems, hint=problems.hint)
    return request


class AnyDecoder:
    """Rows in any form that JSON has for them: a record, records, columns, lists in the signature's order, or, for a
    single field, its bare values. ``loose`` passes over columns of other names.
    """

    def __init__(self, fields: tuple[Field, ...], loose: bool) -> None:
        self._rows = RowDecoder.of(fields)
        self._lists = ListsDecoder.of(fields)
        self._loose = loose
        self._names = frozenset(field.name for field in fields)
        self._only = fields[0] if len(fields) == 1 else None
        if self._only is not None:
            self._read_bare = msgspec.json.Decoder(_LIST[value_type(self._only)]).decode

    @staticmethod
    @lru_cache(maxsize=256)
    def of(fields: tuple[Field, ...], loose: bool = False) -> AnyDecoder:
        return AnyDecoder(fields, loose)

    def decode(self, text: bytes, path: str = "body") -> Request:
        """The rows in ``text``. Raises InvalidInput that names places under ``path``."""
        opening = _OPENING.match(text)
        first, second = opening.groups() if opening else (b"", b"")
        if first == b"{" or (first == b"[" and second == b"{"):
            return self._named(text, path)
        if self._only is not None:
            return self._bare(text, path, self._only, second == b"[")
        return self._lists.decode(text, path)

    def _named(self, text: bytes, path: str) -> Request:
        try:
            try:
                return self._rows.decode(text)
            except InvalidInput as error:
                if self._loose and any(problem.got == "an unknown column" for problem in error.problems):
                    return self._rows.decode(self._without_others(text))
                raise
        except InvalidInput as error:
            raise (error if path == "body" else under(path, error)) from None

    def _without_others(self, text: bytes) -> bytes:
        """The same rows without the columns that are no input."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return text
        records = value if isinstance(value, list) else [value]
        for record in records:
            if isinstance(record, dict):
                for name in [name for name in record if name not in self._names]:
                    del record[name]
        return msgspec.json.encode(value)

    def _bare(self, text: bytes, path: str, field: Field, is_nested: bool) -> Request:
        """Values of a single field, bare or each in a list of its own."""
        try:
            values = self._read_bare(text)
            if values:
                return self._rows.request_of(self._rows.stored([(value,) for value in values]), "lists")
        except NOT_PLAIN:
            pass
        if is_nested:
            try:
                return self._lists.decode(text, path)
            except InvalidInput:
                if not field.shape:
                    raise
        return _exactly(
            text,
            path,
            lambda value, at, problems: (exact.element(value, field, field.shape, at, problems),),
            self._rows,
        )
