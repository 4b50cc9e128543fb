"""Reads ``examples``, by which TensorFlow Serving classifies and regresses."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from modelyard.decoding.exact import Enough, Problems, got
from modelyard.errors import InvalidInput
from modelyard.messages import Request
from modelyard.schema import Field
from modelyard.wires.tfserving.reader import Reader, element, is_object

# A type made at run time, which a type checker cannot follow.
_LIST: Any = list

_astuple = msgspec.structs.astuple


class ExamplesReader(Reader):
    """Reads ``{"examples": [...], "context": {...}}``.

    As with serialised examples, an example may hold features that the model does not know, and an input that may be
    missing is missing where there is no feature of its name.
    """

    def __init__(self, fields: tuple[Field, ...], variant: str) -> None:
        super().__init__(fields, variant)
        if self._is_plain:
            body: Any = msgspec.defstruct(
                "Body",
                [("examples", _LIST[self._record(False)]), ("signature_name", str | msgspec.UnsetType, UNSET)],
                gc=False,
                forbid_unknown_fields=True,
            )
            self._read = msgspec.json.Decoder(body).decode

    def _plain(self, body: bytes) -> Request:
        if not self._is_plain:
            raise ValueError("not plain")
        found = self._read(body)
        rows = [_astuple(record) for record in found.examples]
        if not rows:
            raise ValueError("no rows")
        return self._request(body, rows, len(rows), found.signature_name, self._variant)

    def request(self, examples: list[dict[str, Any]], context: dict[str, Any]) -> Request:
        """The rows of examples that came in another form. Raises InvalidInput."""
        problems = Problems()
        request: Request | None = None
        with contextlib.suppress(Enough):
            request = self._exactly({"examples": examples, "context": context}, problems)
        if problems or request is None:
            raise InvalidInput.of(problems, hint=problems.hint)
        return request

    def _exactly(self, value: dict[str, Any], problems: Problems) -> Request | None:
        context, examples = value.get("context", {}), value.get("examples")
        if not is_object(context):
            problems.add("context", "an object of features", got(context))
        elif not isinstance(examples, list):
            problems.add("examples", "a list of objects", got(examples) if "examples" in value else "nothing")
        elif not examples:
            problems.add("examples", "at least one example", "an empty list")
        else:
            rows = [self._example(one, context, f"examples[{i}]", problems) for i, one in enumerate(examples)]
            return self._stored(rows, self._variant, problems)
        return None

    def _example(self, value: Any, context: dict[str, Any], path: str, problems: Problems) -> tuple[Any, ...]:
        if not is_object(value):
            problems.add(path, "an object of features", got(value))
            return ()
        for name in value:
            if name in context:
                problems.add(f"{path}.{name}", "a feature of the context or of examples", "one of both")
        features = {**context, **value}
        row: list[Any] = []
        for field in self._ordered:
            inside = features.get(field.name, [])
            if field.nullable and inside == [] and not field.shape:
                row.append(None)
            elif field.name not in features:
                problems.add(f"{path}.{field.name}", field.describe(), "nothing: the feature is missing")
            else:
                inside = nest(inside, field.shape)
                row.append(element(inside, field, field.shape, f"{path}.{field.name}", problems))
        return tuple(row)


def nest(values: Any, shape: Sequence[int]) -> Any:
    """The flat list of a feature as lists nested as ``shape``; anything else as it is."""
    if len(shape) < 2 or not isinstance(values, list) or isinstance(values[0] if values else None, list):
        return values
    size = math.prod(shape[1:])
    if size <= 0 or len(values) % size:
        return values
    return [nest(values[i : i + size], shape[1:]) for i in range(0, len(values), size)]
