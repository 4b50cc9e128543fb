"""The fast reading of JSON rows: typed decoders compiled for the fields of a model.

A row tuple is in the layout's block order, so that the rows of many requests become one matrix in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from modelyard.messages import Request
from modelyard.schema import (
    EXACT_INTEGER,
    INTEGER_RANGES,
    Array,
    Columns,
    Field,
    Layout,
    seconds_since_epoch,
)

# Types made at run time, which a type checker cannot follow.
_LIST: Any = list
_ANNOTATED: Any = Annotated

#: A value from here on becomes infinite in the storage of a smaller float: halfway past the largest finite one.
FLOAT_LIMITS = {"float16": 65520.0, "float32": 3.4028235677973366e38}

#: What a fast decoder may raise on a body that is not plainly right.
NOT_PLAIN = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)


def element_type(field: Field) -> Any:
    """The type that one element of a field must decode to."""
    kind: Any
    if field.dtype in ("string", "datetime"):
        kind = str
    elif field.dtype == "bool":
        kind = bool
    elif field.dtype in INTEGER_RANGES:
        low, high = integer_range(field)
        bounds = Meta(ge=low, le=high) if high < 2**63 else Meta(ge=low)  # see ``fixup`` for the others
        kind = _ANNOTATED[int, bounds]
    else:
        limit = FLOAT_LIMITS.get(field.dtype)
        kind = _ANNOTATED[float, Meta(gt=-limit, lt=limit)] if limit else float
    return kind | None if field.nullable else kind


def integer_range(field: Field) -> tuple[int, int]:
    """The smallest and largest value of an integer field; a nullable one is kept in a double."""
    low, high = INTEGER_RANGES[field.dtype]
    return (max(low, -EXACT_INTEGER), min(high, EXACT_INTEGER)) if field.nullable else (low, high)


def value_type(field: Field) -> Any:
    """The type of a field's value in one row: nested lists of the field's shape."""
    kind = element_type(field)
    for size in reversed(field.shape):
        kind = _ANNOTATED[_LIST[kind], Meta(min_length=size, max_length=size)] if size >= 0 else _LIST[kind]
    return kind


def fixup(field: Field) -> Callable[[Any], Any] | None:
    """What turns a decoded element into its stored form, or None where they are the same.

    The function raises ValueError for an element that has no stored form.
    """
    if field.dtype == "datetime":
        return lambda value: None if value is None else seconds_since_epoch(value)
    if field.dtype == "string" and field.nullable:
        return lambda value: value or None
    if field.dtype in INTEGER_RANGES and integer_range(field)[1] >= 2**63:
        return _check_uint64
    return None


def _check_uint64(value: int) -> int:
    if value >= 2**64:
        raise ValueError("too large for uint64")
    return value


def deep(function: Callable[[Any], Any], depth: int) -> Callable[[Any], Any]:
    """``function`` for each element of lists nested ``depth`` deep."""
    if not depth:
        return function
    inner = deep(function, depth - 1)
    return lambda values: [inner(value) for value in values]


class RowDecoder:
    """Reads JSON bodies for one tuple of input fields. Made once per tuple: ``RowDecoder.of(fields)``."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        self.layout = Layout.of(fields)
        ordered = self.layout.fields
        rename = {f"f{i}": field.name for i, field in enumerate(ordered)}
        options: Any = {"gc": False, "forbid_unknown_fields": True, "rename": rename}
        never: Callable[[bytes], Any] = _not_plain
        self._record = self._records = self._columns = never
        if not any(c < " " or c in '\\"' for field in ordered for c in field.name):
            types = [(f"f{i}", value_type(field)) for i, field in enumerate(ordered)]
            record: Any = msgspec.defstruct("Record", types, **options)
            columns: Any = msgspec.defstruct("Columns", [(name, _LIST[kind]) for name, kind in types], **options)
            self._record = msgspec.json.Decoder(record).decode
            self._records = msgspec.json.Decoder(_LIST[record]).decode
            self._columns = msgspec.json.Decoder(columns).decode
        self._fixups = [
            (i, deep(function, len(field.shape)))
            for i, field in enumerate(ordered)
            if (function := fixup(field)) is not None
        ]
        #: Colons in the keys of one record, each key's own included.
        self._colons = len(ordered) + sum(field.name.count(":") for field in ordered)
        self._texts = [
            (i, deep(_colons_in, len(field.shape)), len(field.shape))
            for i, field in enumerate(ordered)
            if field.dtype in ("string", "datetime")
        ]
        #: Rows may differ in shape, so a request is made an array before it is joined with others.
        self._varies = any(size < 0 for field in ordered for size in field.shape)

    @staticmethod
    @lru_cache(maxsize=256)
    def of(fields: tuple[Field, ...]) -> RowDecoder:
        return RowDecoder(fields)

    def decode(self, body: bytes) -> Request:
        """The rows in ``body``. Raises InvalidInput with every problem found (at most about ten)."""
        try:
            return self.plain(body)
        except NOT_PLAIN:
            from modelyard.decoding import exact

            return exact.read(body, self)

    def plain(self, body: bytes) -> Request:
        """The rows of a body that is plainly right. Raises one of ``NOT_PLAIN`` otherwise."""
        try:
            row = _astuple(self._record(body))
        except msgspec.ValidationError:
            return self._plain_columns(body) if body.lstrip()[:1] == b"{" else self._plain_records(body)
        if body.count(b":") != self._colons:
            self._check_keys(body, [row], 1)
        if self._fixups:
            row = self._fixed(row)
        if self._varies:
            return self.request_of([row], "record")
        return Request(1, [row], None, "record")

    def _plain_records(self, body: bytes) -> Request:
        rows = [_astuple(record) for record in self._records(body)]
        if not rows:
            raise ValueError("no rows")
        if body.count(b":") != self._colons * len(rows):
            self._check_keys(body, rows, len(rows))
        return self.request_of(self.stored(rows), "records")

    def _plain_columns(self, body: bytes) -> Request:
        lists = _astuple(self._columns(body))
        if body.count(b":") != self._colons:
            self._check_keys(body, list(zip(*lists, strict=True)), 1)
        if self._fixups:
            fixed = list(lists)
            for i, function in self._fixups:
                fixed[i] = [function(value) for value in fixed[i]]
            lists = tuple(fixed)
        return self.request_of_columns(lists)

    def stored(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Decoded rows, in the layout's order, in their stored form. Raises ValueError where one has none."""
        return [self._fixed(row) for row in rows] if self._fixups else rows

    def request_of(self, rows: list[tuple[Any, ...]], form: str) -> Request:
        """The request for checked rows. Raises ValueError where rows that may vary in shape differ."""
        if not self._varies:
            return Request(len(rows), rows, None, form)
        return Request(len(rows), None, self.columns_of(list(zip(*rows, strict=True))), form)

    def request_of_columns(self, lists: Sequence[Sequence[Any]]) -> Request:
        """The request for checked columns in layout order. Raises ValueError for unequal lengths or no rows."""
        rows = len(lists[0])
        if not rows or any(len(values) != rows for values in lists):
            raise ValueError("no rows, or columns of unequal lengths")
        return Request(rows, None, self.columns_of(lists), "columns")

    def columns_of(self, lists: Sequence[Sequence[Any]]) -> Columns:
        """Columns from one checked list per field, in layout order. Raises ValueError for ragged shapes."""
        blocks: list[Array] = []
        for block in self.layout.blocks:
            if block.is_scalar:
                matrix = np.empty((len(lists[0]), len(block.names)), dtype=block.storage)
                for i in range(block.start, block.stop):
                    matrix[:, i - block.start] = lists[i]
                blocks.append(matrix)
            else:
                array = np.array(lists[block.start], dtype=block.storage)
                if array.ndim != 1 + len(block.shape):
                    raise ValueError("rows of unequal shapes")
                blocks.append(array)
        return Columns(self.layout, blocks, len(lists[0]))

    def _fixed(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for i, function in self._fixups:
            values[i] = function(values[i])
        return tuple(values)

    def _check_keys(self, body: bytes, rows: Sequence[tuple[Any, ...]], objects: int) -> None:
        """Raise unless the colons of ``body`` are those of its keys and texts, so that no key came twice.

        Every known key came at least once, so a key that came twice is a colon too many. An escape could write
        a colon in another way; then, too, the exact reading decides.
        """
        inside = 0
        for i, colons, depth in self._texts:
            for row in rows:
                inside += _total(colons(row[i]), depth)
        if b"\\" in body or body.count(b":") != self._colons * objects + inside:
            raise ValueError("a key may have come twice")


_astuple = msgspec.structs.astuple


def _not_plain(body: bytes) -> Any:
    """In place of a decoder, where a field's name needs escapes, which typed decoders do not take."""
    raise ValueError("not plain")


def _colons_in(value: str | None) -> int:
    return value.count(":") if value else 0


def _total(counts: Any, depth: int) -> int:
    return sum(_total(count, depth - 1) for count in counts) if depth else counts


class ValuesDecoder:
    """Reads one column's values from JSON: ``[1, 2]``, for wires that send a list a field."""

    def __init__(self, field: Field) -> None:
        self.field = field
        element = element_type(field)
        self._flat = msgspec.json.Decoder(_LIST[element]).decode
        self._nested = msgspec.json.Decoder(_LIST[_LIST[element]]).decode
        self._fixup = fixup(field)

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(field: Field) -> ValuesDecoder:
        return ValuesDecoder(field)

    def decode(self, text: bytes | msgspec.Raw, shape: Sequence[int], path: str) -> list[Any]:
        """The elements of a list that is flat or nested as ``shape``, row after row.

        Raises InvalidInput that names places under ``path``.
        """
        try:
            return self.plain(text)
        except NOT_PLAIN:
            pass
        try:
            rows = self._nested(text)
            if len(shape) == 2 and len(rows) == shape[0] and all(len(row) == shape[1] for row in rows):
                return self._fixed([value for row in rows for value in row])
        except NOT_PLAIN:
            pass
        from modelyard.decoding import exact

        return exact.read_values(bytes(text), self.field, shape, path)

    def plain(self, text: bytes | msgspec.Raw) -> list[Any]:
        """The elements of a flat list that is plainly right. Raises one of ``NOT_PLAIN`` otherwise."""
        return self._fixed(self._flat(text))

    def _fixed(self, values: list[Any]) -> list[Any]:
        return [self._fixup(value) for value in values] if self._fixup is not None else values
