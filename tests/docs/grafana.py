"""Grafana's own schema, as its publisher's Python types have it, asked of a dashboard's file: whatever stands there is
known, and of the type that it ought to have.
"""

from __future__ import annotations

import enum
import json
import sys
import typing
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

plugins.register_default_plugins()

UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("__")}


def problems(text: str) -> list[str]:
    """What Grafana would not know, or not take, in a dashboard's JSON."""
    given = json.loads(text)
    read = Dashboard.from_json(given)
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    return [*_lost(given, again, ""), *_mistyped(read, "")]


def _lost(given: Any, again: Any, at: str) -> Iterator[str]:
    """What the schema has no place for, so that it does not come back."""
    if isinstance(given, dict) and isinstance(again, dict):
        for key, value in given.items():
            if key in again:
                yield from _lost(value, again[key], f"{at}.{key}")
            else:
                yield f"{at}.{key}: unknown"
    elif isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for i, (mine, theirs) in enumerate(zip(given, again, strict=True)):
            yield from _lost(mine, theirs, f"{at}[{i}]")
    elif given != again:
        yield f"{at}: {given!r} is read as {again!r}"


def _mistyped(thing: Any, at: str) -> Iterator[str]:
    """Attributes that are not what they are declared to be."""
    known = vars(sys.modules[type(thing).__module__])
    for name, declared in typing.get_type_hints(type(thing), known).items():
        yield from _unfit(getattr(thing, name, None), declared, f"{at}.{name}")


def _unfit(value: Any, declared: Any, at: str) -> Iterator[str]:
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if declared in (object, Any):
        if hasattr(value, "to_json"):
            yield from _mistyped(value, at)
    elif origin in (typing.Union, UnionType):
        every = [list(_unfit(value, each, at)) for each in inner]
        if all(every):
            yield from min(every, key=len)
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{at}: {value!r} is none of {inner}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{at}: {value!r} is no list"
        else:
            for i, each in enumerate(value):
                yield from _unfit(each, inner[0], f"{at}[{i}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is no object"
        else:
            for key, each in value.items():
                yield from _unfit(each, inner[1], f"{at}.{key}")
    elif declared is NoneType:
        if value is not None:
            yield f"{at}: {value!r} is not null"
    elif isinstance(declared, type) and issubclass(declared, enum.Enum):
        if value not in [each.value for each in declared]:
            yield f"{at}: {value!r} is none of {[each.value for each in declared]}"
    elif declared is float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield f"{at}: {value!r} is no number"
    elif hasattr(declared, "from_json") and isinstance(value, dict):  # some parts are left as they were
        yield from _mistyped(declared.from_json(value), at)
    elif not isinstance(value, declared) or (declared is int and isinstance(value, bool)):
        yield f"{at}: {value!r} is no {declared.__name__}"
    elif hasattr(value, "to_json"):
        yield from _mistyped(value, at)
