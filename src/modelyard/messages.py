"""What travels inside: requests and responses as columns, calls and messages as bytes. No sockets here."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.schema import Columns


class Call(msgspec.Struct, frozen=True, gc=False):
    """What a wire understood from a method and a path.

    ``action`` is ``predict`` or another word of the wire's own (``metadata``, ``model_ready`` ...), which its
    ``inform`` answers. ``model`` is None where the wire leaves the choice to the server (a single model).
    """

    action: str
    model: str | None = None
    version: str | None = None
    alias: str | None = None


class Message(msgspec.Struct, gc=False):
    """Bytes with headers (lower-case names). ``code`` is ``ok`` or the code word of an error.

    An incoming message carries the caller's headers; an outgoing one the answer's.
    """

    body: bytes
    headers: dict[str, str] = {}
    code: str = "ok"
    content_type: str = "application/json"


class Request(msgspec.Struct):
    """Rows to predict. Either ``tuples`` (rows in the layout's block order, the fast form) or ``columns``."""

    rows: int
    tuples: list[tuple[Any, ...]] | None = None
    columns: Columns | None = None
    #: How the rows came (``record``, ``records``, ``columns`` ...), so that the answer mirrors it.
    form: str = "records"
    id: str = ""
    #: Names of the outputs that are wanted, in order; None for all of them.
    outputs: tuple[str, ...] | None = None
    parameters: dict[str, Any] = {}


class Batch:
    """The outputs of one call of a model. Its values are turned into Python lists once for all its requests."""

    __slots__ = ("_lists", "columns")

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._lists: dict[str, list[Any]] = {}

    def values(self, name: str) -> list[Any]:
        """The output called ``name`` for all rows of the batch, as a plain list."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = self.columns[name].tolist()
        return found


class Response(msgspec.Struct, gc=False):
    """The outputs for one request: rows ``start`` to ``stop`` of a batch."""

    batch: Batch
    start: int
    stop: int
    id: str
    model: str
    version: str

    def columns(self) -> Columns:
        return self.batch.columns.slice(self.start, self.stop)
