"""Rows inside a JSON object that names their form: ``{"instances": [...]}``, ``{"dataframe_split": {...}}``."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.decoding.exact import check_json
from modelyard.decoding.lists import AnyDecoder, ListsDecoder, check_envelope, under
from modelyard.errors import InvalidInput
from modelyard.messages import Request
from modelyard.schema import Field

#: Orders of columns whose decoders are kept.
_MOST_ORDERS = 64

_NOTHING = msgspec.Raw(b"")


class _Split(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A data frame as pandas writes it with ``orient="split"``."""

    data: msgspec.Raw
    columns: list[str | int] | None = None
    index: msgspec.Raw = _NOTHING


_read_split = msgspec.json.Decoder(_Split).decode


class SplitDecoder:
    """Reads ``{"columns": ["x1", "x2"], "index": [0], "data": [[1.5, 2]]}``; other columns are passed over."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._fields = fields
        self._lists = ListsDecoder.of(fields)
        self._orders: dict[tuple[str | int, ...], ListsDecoder] = {}

    def decode(self, text: bytes, path: str) -> Request:
        """The rows in ``text``. Raises InvalidInput that names places under ``path``."""
        try:
            split = _read_split(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _explain(text, error, path, '{"columns": [names], "data": [rows]}') from None
        data = bytes(split.data)
        check_envelope(text, 1 + (split.columns is not None) + bool(split.index), data, bytes(split.index))
        decoder = self._lists
        if split.columns is not None:
            try:
                decoder = self._order(tuple(split.columns))
            except InvalidInput as error:
                raise under(path, error) from None
        return decoder.decode(data, f"{path}.data")

    def _order(self, names: tuple[str | int, ...]) -> ListsDecoder:
        """The decoder for columns in this order; a frame that only counts them has the signature's."""
        found = self._orders.get(names)
        if found is None:
            is_counted = names == tuple(range(len(names)))
            found = self._lists if is_counted else ListsDecoder.of(self._fields, tuple(map(str, names)), True)
            if len(self._orders) >= _MOST_ORDERS:
                self._orders.clear()
            self._orders[names] = found
        return found


class EnvelopeDecoder:
    """Reads objects that hold rows under exactly one of several names, and maybe ``others`` beside them.

    What lies under a name of ``splits`` is a data frame in pieces; under one of ``rows`` they have any form. ``loose``
    passes over columns that are no input.
    """

    def __init__(
        self, fields: tuple[Field, ...], *, rows: tuple[str, ...], splits: tuple[str, ...] = (),
        others: tuple[str, ...] = (), loose: bool = False,
    ) -> None:  # fmt: skip
        self._forms = (*splits, *rows)
        self._others = others
        self._count = len(self._forms)
        members = [(name, msgspec.Raw, _NOTHING) for name in (*self._forms, *others)]
        self._read = msgspec.json.Decoder(msgspec.defstruct("Envelope", members, gc=False)).decode
        split, some = SplitDecoder(fields), AnyDecoder.of(fields, loose)
        self._decoders: dict[str, SplitDecoder | AnyDecoder] = {
            **dict.fromkeys(splits, split),
            **dict.fromkeys(rows, some),
        }

    def open(self, body: bytes) -> tuple[str, bytes]:
        """The one name that ``body`` has, and what lies under it; "" where it has none of them or is no object."""
        try:
            form, text, _ = self._open(body)
        except InvalidInput:
            return "", body
        return form, text

    def decode(self, body: bytes) -> tuple[Request, dict[str, bytes]]:
        """The rows, and the texts of what else there is. Raises InvalidInput."""
        form, text, others = self._open(body)
        return self._decoders[form].decode(text, form), others

    def _open(self, body: bytes) -> tuple[str, bytes, dict[str, bytes]]:
        try:
            parts: tuple[Any, ...] = msgspec.structs.astuple(self._read(body))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _explain(body, error, "", f"an object with one of {', '.join(self._forms)}") from None
        found, others = [], {}
        for i, part in enumerate(parts):
            if part:
                if i < self._count:
                    found.append(i)
                else:
                    others[self._others[i - self._count]] = bytes(part)
        if len(found) != 1:
            check_json(body)
            got = ", ".join(self._forms[i] for i in found) or "none of them"
            raise InvalidInput.at("body", f"exactly one of {', '.join(self._forms)}", got)
        text = bytes(parts[found[0]])
        check_envelope(body, 1 + len(others), text, *others.values())
        return self._forms[found[0]], text, others


def _explain(text: bytes, error: Exception, path: str, expected: str) -> InvalidInput:
    """What is wrong with a text that is not the object it should be."""
    try:
        check_json(text)
    except InvalidInput as found:
        return found if not path else under(path, found)
    message, _, place = str(error).partition(" - at `")
    inside = place.rstrip("`").removeprefix("$").lstrip(".")
    return InvalidInput.at(".".join(filter(None, (path, inside))) or "body", expected, message)
