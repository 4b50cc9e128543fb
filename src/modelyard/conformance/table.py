"""A model that takes rows, as an example request shows them; most protocols do not describe their models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from modelyard.conformance.client import Client, Request
from modelyard.conformance.rules import Asked, Skip
from modelyard.errors import InvalidInput


@dataclass(frozen=True)
class Table:
    """Rows, and the names of their columns where they are known."""

    rows: tuple[tuple[Any, ...], ...]
    columns: tuple[str, ...] = ()

    @property
    def lists(self) -> list[list[Any]]:
        return [list(row) for row in self.rows]

    @property
    def records(self) -> list[dict[str, Any]]:
        """Raises Skip where the columns have no names."""
        return [dict(zip(self.named(), row, strict=True)) for row in self.rows]

    @property
    def plain(self) -> list[Any]:
        """Records where the columns have names, else lists."""
        return self.records if self.columns else self.lists

    def named(self) -> list[str]:
        """The names of the columns. Raises Skip where there are none."""
        if not self.columns:
            raise Skip("the example does not name its columns: give one that does with --body")
        return list(self.columns)

    def number(self) -> int:
        """The first column of numbers. Raises Skip."""
        for i, value in enumerate(self.rows[0]):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return i
        raise Skip("the example has no column of numbers")

    def with_value(self, value: Any) -> Table:
        """The same with ``value`` in place of the first number."""
        first, i = self.rows[0], self.number()
        return replace(self, rows=((*first[:i], value, *first[i + 1 :]), *self.rows[1:]))

    def without_column(self) -> Table:
        """The same without its last column. Raises Skip where it has no other."""
        if len(self.rows[0]) < 2:
            raise Skip("the model has one input")
        return Table(tuple(row[:-1] for row in self.rows), self.columns[:-1])

    def turned(self) -> Table:
        """The same with its columns in the other order."""
        return Table(tuple(row[::-1] for row in self.rows), tuple(self.named()[::-1]))


@dataclass(frozen=True)
class TableModel:
    """See the module: a request, where it goes, and what it means."""

    path: str
    body: bytes
    prefix: str = ""
    model: str = ""
    content_type: str = "application/json"
    #: None where the example is of a form that is opaque to the protocol.
    read: Table | None = None
    values: Any = None

    @property
    def good(self) -> Request:
        return self.sends(self.body)

    @property
    def table(self) -> Table:
        """Raises Skip where the example cannot be read as rows."""
        if self.read is None:
            raise Skip("the example is not JSON with rows in it")
        return self.read

    def sends(self, body: bytes, kind: str | None = "") -> Request:
        """A request with this body; ``kind`` is its content type, None for none, else that of the example."""
        headers = {"content-type": self.content_type if kind == "" else kind}
        return Request("POST", self.path, body, headers)

    def posts(self, told: Any, **more: Any) -> Request:
        """A request with ``told`` as JSON."""
        return self.sends(json.dumps(told, **more).encode(), "application/json")

    def get(self, path: str) -> Request:
        return Request("GET", self.prefix + path)


def met(client: Client, model: TableModel, read: Callable[[Any], Any]) -> TableModel:
    """``model`` with the values that it answers. Raises InvalidInput where it answers none."""
    answer = client.ask(model.good)
    try:
        if answer.status != 200:
            raise ValueError
        values = read(answer.json)
    except (ValueError, KeyError, IndexError, TypeError):
        raise InvalidInput(
            f"the server does not answer the example request: {answer}",
            hint="--body FILE gives a request that it answers; --path and --model say where it goes",
        ) from None
    return replace(model, values=values)


def example_of(asked: Asked, protocol: str, form: str) -> bytes:
    """The caller's example. Raises InvalidInput without one."""
    if not asked.body:
        raise InvalidInput(
            f"{protocol} does not describe a model's inputs: an example request is missing",
            hint=f"--body FILE, with for instance {form} in it",
        )
    return asked.body


def table_of(body: bytes) -> Table | None:
    """The rows of a JSON body, in whatever of the usual envelopes they are; None where there are none."""
    try:
        told = json.loads(body)
        if isinstance(told, dict):
            told = told.get("data", told)
        if isinstance(told, dict):
            for envelope in ("dataframe_split", "dataframe_records", "instances", "inputs", "ndarray"):
                if envelope in told:
                    names = told.get("names", ())
                    return _rows(told[envelope], tuple(names))
            return None
        return _rows(told, ())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _rows(told: Any, names: tuple[str, ...]) -> Table | None:
    if isinstance(told, dict):
        return Table(tuple(map(tuple, told["data"])), tuple(told["columns"]))
    if isinstance(told[0], dict):
        names = tuple(told[0])
        return Table(tuple(tuple(row[name] for name in names) for row in told), names)
    return Table(tuple(tuple(row) if isinstance(row, list) else (row,) for row in told), names)
