"""What the readers of TensorFlow Serving's JSON share.

A typed decoder compiled for a model's inputs reads an ordinary body in one pass. Whatever it does not take is read
again, exactly: bare NaN and infinities, texts as ``{"b64": ...}``, a context, and whatever is wrong.

NaN stands for a missing value, as everywhere here: an input that may be missing takes it, any other refuses it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from modelyard.decoding import NOT_PLAIN, RowDecoder, exact
from modelyard.decoding.exact import Enough, Problems, Repeated, Token, check_names, got, parse
from modelyard.decoding.fast import value_type
from modelyard.errors import InvalidInput
from modelyard.messages import Request
from modelyard.schema import Field
from modelyard.wires.tfserving.about import SIGNATURE_NAMES, check_signature

# Types made at run time, which a type checker cannot follow.
_LIST: Any = list
_ANNOTATED: Any = Annotated

_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Reader:
    """What the readers of the ways of predicting share."""

    def __init__(self, fields: tuple[Field, ...], variant: str) -> None:
        self._fields = fields
        self._variant = variant
        self._names = frozenset(SIGNATURE_NAMES[variant])
        self._rows = RowDecoder.of(fields)
        self._ordered = self._rows.layout.fields
        self._rename = {f"f{i}": field.name for i, field in enumerate(self._ordered)}
        #: Colons in the keys of one record, and which of its values may hold one.
        self._colons = len(fields) + sum(field.name.count(":") for field in fields)
        self._texts = [i for i, field in enumerate(self._ordered) if field.dtype in ("string", "datetime")]
        #: A record cannot be typed where a field's name needs escapes.
        self._is_plain = not any(c < " " or c in '\\"' for field in fields for c in field.name)

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        """The rows in a body. Raises InvalidInput with every problem found (at most about ten)."""
        try:
            return self._plain(body)
        except NOT_PLAIN:
            pass
        value = parse(body)
        problems = Problems()
        request: Request | None = None
        with contextlib.suppress(Enough):
            if not isinstance(value, dict):
                problems.add("body", "an object", got(value))
            else:
                self._check_signature(value)
                check_once(value, "", problems)
                request = None if problems else self._exactly(value, problems)
        if problems or request is None:
            raise InvalidInput.of(problems, hint=problems.hint)
        return request

    def _plain(self, body: bytes) -> Request:
        """The rows of a body that is plainly right. Raises one of ``NOT_PLAIN`` otherwise."""
        raise NotImplementedError

    def _exactly(self, value: dict[str, Any], problems: Problems) -> Request | None:
        """The rows of any body, or None with problems added."""
        raise NotImplementedError

    def _record(self, wrapped: bool) -> Any:
        """The type of an object with all inputs; ``wrapped`` where each value is in a list of its own."""
        typed = wrapped_type if wrapped else value_type
        fields = [(f"f{i}", typed(field)) for i, field in enumerate(self._ordered)]
        return msgspec.defstruct("Record", fields, gc=False, forbid_unknown_fields=True, rename=self._rename)

    def _request(
        self, body: bytes, rows: list[tuple[Any, ...]], objects: int, signature_name: Any, form: str
    ) -> Request:
        """The request for typed rows that came in ``objects`` objects. Raises ValueError where it is not plain."""
        keys = 1 + self._colons * objects
        if signature_name is not UNSET:
            if signature_name not in self._names:
                raise ValueError("no such signature")
            keys += 1
        if body.count(b":") != keys:  # a key may have come twice, or a text holds a colon
            texts = sum([str(row[i]).count(":") for row in rows for i in self._texts])
            if b"\\" in body or body.count(b":") != keys + texts + str(signature_name).count(":"):
                raise ValueError("a key may have come twice")
        return self._rows.request_of(self._rows.stored(rows), form)

    def _stored(self, rows: list[tuple[Any, ...]], form: str, problems: Problems) -> Request | None:
        if problems:
            return None
        try:
            return self._rows.request_of(rows, form)
        except ValueError:
            problems.add("body", "rows whose values have one shape", "rows of unequal shapes")
            return None

    def _check_signature(self, value: dict[str, Any]) -> None:
        name = value.get("signature_name", "")
        if not isinstance(name, str):
            raise InvalidInput.at("signature_name", "a text", got(name))
        check_signature(name, self._variant)

    def _named(self, value: dict[str, Any], path: str, problems: Problems) -> tuple[Any, ...]:
        check_names(value, self._rows, f"{path}.", problems)
        return tuple(
            element(value.get(field.name), field, field.shape, f"{path}.{field.name}", problems)
            if field.name in value
            else None
            for field in self._ordered
        )


def wrapped_type(field: Field) -> Any:
    """The type of a field's value in a list of its own."""
    return _ANNOTATED[_LIST[value_type(field)], Meta(min_length=1, max_length=1)]


def is_object(value: Any) -> bool:
    """Whether a value is an object, and not the one that stands for a text."""
    return isinstance(value, dict) and set(value) != {"b64"}


def check_once(value: Any, path: str, problems: Problems) -> None:
    """Add a problem for each object in which a key came twice."""
    if isinstance(value, Repeated):
        problems.add(f"{path}.{value.key}".lstrip("."), "each key once", "the same key twice")
    if isinstance(value, dict):
        for key, inside in value.items():
            check_once(inside, f"{path}.{key}".lstrip("."), problems)
    elif isinstance(value, list):
        for i, inside in enumerate(value):
            if isinstance(inside, (dict, list)):
                check_once(inside, f"{path}[{i}]", problems)


def element(value: Any, field: Field, shape: Sequence[int], path: str, problems: Problems) -> Any:
    """The stored form of a value, or None with a problem added. ``shape`` is what is left of the field's."""
    if shape:
        if not isinstance(value, list) or (shape[0] >= 0 and len(value) != shape[0]):
            return exact.element(value, field, shape, path, problems)  # which says what is wrong
        return [element(inside, field, shape[1:], f"{path}[{i}]", problems) for i, inside in enumerate(value)]
    if isinstance(value, list) and len(value) == 1 and not field.shape:
        value = value[0]  # the inputs of a row may have the shape [1]
    if isinstance(value, Token):
        value = _CONSTANTS.get(value.text, value)
    if isinstance(value, float) and field.dtype.startswith("float") and not math.isfinite(value):
        if math.isinf(value):
            return value
        if not field.nullable:
            problems.add(path, field.describe(), "NaN, which stands for a missing value")
        return None
    if isinstance(value, dict) and set(value) == {"b64"} and field.dtype in ("string", "datetime"):
        try:
            value = base64.b64decode(value["b64"], validate=True).decode()
        except (binascii.Error, ValueError, TypeError, AttributeError):
            problems.add(f"{path}.b64", "UTF-8 text in Base64", "something else", "inputs of bytes are not known here")
            return None
    return exact.element(value, field, (), path, problems)
