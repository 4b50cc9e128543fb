"""What travels inside: requests and responses as columns, calls and messages as bytes. No sockets here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from modelyard.schema import Columns, to_plain


class Call(msgspec.Struct, frozen=True, gc=False):
    """What a wire understood from a method and a path.

    ``action`` is ``predict`` or another word of the wire's own (``metadata``, ``model_ready`` ...), which its
    ``inform`` answers. ``model`` is None where the wire leaves the choice to the server (a single model).
    """

    action: str
    model: str | None = None
    version: str | None = None
    alias: str | None = None
    #: What a key must allow: ``predict``, ``label`` or ``admin``; with ``any``, whichever key it is will do; ``open``
    #: needs none (health and readiness).
    scope: str = "predict"
    #: The model is named in the message: the wire ``Addresses`` it, one message at a time.
    is_inside: bool = False
    #: The answer may take long: it is made in a thread, where it may block.
    is_slow: bool = False
    #: The answer takes a moment to make: it is made in a thread, which it may keep for that moment only.
    is_lengthy: bool = False
    #: Over gRPC the answer is given at once, and again whenever it is another one, until the caller leaves. For calls
    #: of the scope ``open``, whose answer is the same for everybody and soon made.
    is_watched: bool = False
    #: Which of its ways of predicting, for the codec of a wire that has several (``classify``, ``regress`` ...).
    variant: str = ""


#: Shared by all messages without headers: making a dict for each would cost as much as the message.
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


#: The name under which a message's headers hold the query of its target, still percent-encoded, where it has one.
QUERY = ":query"


class Message(msgspec.Struct, gc=False):
    """Bytes with headers (lower-case names). ``code`` is ``ok`` or the code word of an error.

    An incoming message carries the caller's headers; an outgoing one the answer's.
    """

    body: bytes
    headers: Mapping[str, str] = NO_HEADERS
    code: str = "ok"
    content_type: str = "application/json"


class Request(msgspec.Struct, gc=False):
    """Rows to predict. Either ``tuples`` (rows in the layout's block order, the fast form) or ``columns``."""

    rows: int
    tuples: list[tuple[Any, ...]] | None = None
    columns: Columns | None = None
    #: How the rows came (``record``, ``records``, ``columns`` ...), so that the answer mirrors it.
    form: str = "records"
    #: The caller's own id for it, or "" until the server gives it the request's.
    id: str = ""
    #: Names of the outputs that are wanted, in order; None for all of them.
    outputs: tuple[str, ...] | None = None
    parameters: dict[str, Any] | None = None


class Batch:
    """The outputs of one call of a model. They are turned into text once for all the requests that share it."""

    __slots__ = ("_cells", "_lists", "_texts", "columns", "has_gaps", "kept")

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        #: Whether an output that was turned into JSON held NaN or infinity; they are written as null.
        self.has_gaps = False
        #: What a codec made of all rows, for the next request of the same batch.
        self.kept: dict[Any, Any] = {}
        self._lists: dict[str, list[Any]] = {}
        self._texts: dict[str, list[bytes]] = {}
        self._cells: dict[str, list[bytes]] = {}

    def values(self, name: str) -> list[Any]:
        """The output called ``name`` for all rows of the batch, as plain values fit for JSON."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = _plain(self.columns, name)
        return found

    def texts(self, name: str) -> list[bytes]:
        """The output called ``name`` as one JSON text a row."""
        found = self._texts.get(name)
        if found is None:
            values = self.values(name)
            if values and isinstance(values[0], (float, int)):
                text = _encode(values)  # one call for all rows; numbers hold no comma
                self.has_gaps = self.has_gaps or b"null" in text
                found = text[1:-1].split(b",")
            else:
                found = [_encode(value) for value in values]
                self.has_gaps = self.has_gaps or (self._is_float(name) and any(b"null" in text for text in found))
            self._texts[name] = found
        return found

    def cells(self, name: str) -> list[bytes]:
        """An output of numbers with a shape as one JSON text an element, row after row."""
        found = self._cells.get(name)
        if found is None:
            text = _encode(self.columns[name].ravel().tolist())
            self.has_gaps = self.has_gaps or b"null" in text
            found = self._cells[name] = text[1:-1].split(b",")
        return found

    def _is_float(self, name: str) -> bool:
        return self.columns[name].dtype.kind == "f"


_encode = msgspec.json.encode


def _plain(columns: Columns, name: str) -> list[Any]:
    field = columns.layout.by_name[name]
    if field.dtype != "datetime" and (field.storage == field.dtype or field.dtype == "string"):
        values: list[Any] = columns[name].tolist()
        return values
    return to_plain(columns[name], field)


class Response(msgspec.Struct, gc=False):
    """The outputs for one request: rows ``start`` to ``stop`` of a batch."""

    batch: Batch
    start: int
    stop: int
    id: str

    def columns(self) -> Columns:
        """The outputs as columns."""
        return self.batch.columns.slice(self.start, self.stop)
