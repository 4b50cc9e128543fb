"""An operation: a function on a registry, and the path at which the API answers it.

What stands in braces in the path is taken from there, other parameters from the query of a GET or DELETE and from the
JSON body of a POST. They are read by the types in the function's signature.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_type_hints

import msgspec

from modelyard.errors import InvalidInput, Problem
from modelyard.registry.records import check_text, shown

_IN_PATH = re.compile(r"{(\w+)}")
#: How msgspec ends its messages: `` - at `$.hours` ``.
_AT = re.compile(r"(?P<fault>.*?)(?: - at `(?P<path>.*)`)?")

Scope = Literal["view", "admin"]


class Operation:
    """``function`` at ``method path``, for keys that allow ``scope``."""

    def __init__(self, method: str, path: str, function: Callable[..., Any], scope: Scope = "view") -> None:
        self.method = method
        self.path = path
        self.scope = scope
        self.function = function
        self.name = function.__name__
        self.about = inspect.getdoc(function) or ""
        self.in_path = tuple(_IN_PATH.findall(path))
        hints = get_type_hints(function)
        self.returns = hints.pop("return", Any)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        #: What it takes, as a struct: its fields have the parameters' names.
        self.takes = msgspec.defstruct(
            f"{self.name.title().replace('_', '')}Input",
            [
                (each.name, hints[each.name])
                if each.default is inspect.Parameter.empty
                else (each.name, hints[each.name], each.default)
                for each in parameters
            ],
            kw_only=True,
            forbid_unknown_fields=True,
        )

    def match(self, method: str, segments: list[str]) -> dict[str, str] | None:
        """What the path says, where this is the operation that it asks for."""
        ours = self.path.strip("/").split("/")
        if method != self.method or len(ours) != len(segments):
            return None
        said = {}
        for mine, theirs in zip(ours, segments, strict=True):
            if mine.startswith("{"):
                said[mine[1:-1]] = theirs
            elif mine != theirs:
                return None
        return said

    def read(self, said: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        """The function's arguments. ``said``: what path and query say, as text. Raises InvalidInput."""
        try:
            told = msgspec.json.decode(body) if body and self.method == "POST" else {}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInput.at("body", "JSON", str(error)) from None
        if not isinstance(told, dict):
            raise InvalidInput.at("body", "a JSON object", type(told).__name__)
        if twice := said.keys() & told.keys():
            raise InvalidInput.at(min(twice), "it once, in the path", "it in the body too")
        try:
            taken = msgspec.convert({**self._texts(said), **told}, self.takes, str_keys=True)
        except msgspec.ValidationError as error:
            found = _AT.fullmatch(str(error))
            assert found is not None
            path = (found["path"] or "$").removeprefix("$").lstrip(".") or "body"
            raise InvalidInput.of([_problem(path, found["fault"])], hint="openapi.json tells what it takes") from None
        arguments = {field: getattr(taken, field) for field in taken.__struct_fields__}
        for name, value in arguments.items():
            if isinstance(value, str):
                check_text(name, value)
            elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:  # no database has such numbers
                raise InvalidInput.at(name, "a whole number of up to 64 bits", shown(value))
        return arguments

    def _texts(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Texts of a path and a query, which stand for numbers and truth values too, as JSON would say them."""
        types = {field.name: field.type for field in msgspec.structs.fields(self.takes)}
        made: dict[str, Any] = {}
        for name, value in said.items():
            try:
                read = msgspec.convert(value, types[name], strict=False) if name in types else value
            except msgspec.ValidationError as error:
                raise msgspec.ValidationError(f"{error} - at `$.{name}`") from None
            made[name] = msgspec.to_builtins(read)
        return made


def _problem(path: str, fault: str) -> Problem:
    expected, mark, got = fault.partition(", got ")
    if mark:
        return Problem(path, expected.removeprefix("Expected ").strip("`"), got.strip("`"))
    return Problem(path, "what the description says", fault[:1].lower() + fault[1:])
