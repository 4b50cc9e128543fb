"""Options that are shares of requests, lengths of time, or pins."""

from __future__ import annotations

import re
from typing import Any

import click

from modelyard.cli.frame import Usage

_SPAN = re.compile(r"(?P<count>[0-9]+(\.[0-9]+)?)(?P<unit>s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Share(click.ParamType[float]):
    """A share in percent above 0 and below ``below``, or all with ``or_all``: ``10%``. Inside it is a fraction."""

    name = "percent"

    def __init__(self, below: float = 1.0, *, or_all: bool = False) -> None:
        self._below = below
        self._or_all = or_all

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        return read_share(str(value), _named(param), self._below, or_all=self._or_all)


class Shares(click.ParamType[tuple[float, ...]]):
    """Several, parted by commas, with or without the sign: ``1,5,25,50,100``."""

    name = "percents"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        words = str(value).replace(",", " ").split()
        if not words:
            raise Usage(f"{_named(param)}: expected percentages that grow, like 1,5,25,50,100, got none")
        return tuple(read_share(word.removesuffix("%") + "%", _named(param), or_all=True) for word in words)


class Span(click.ParamType[float]):
    """A length of time: ``90s``, ``10m``, ``24h``, ``7d``. Inside it is seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _SPAN.fullmatch(str(value))
        if found is None:
            raise Usage(f"{_named(param)}: expected a time like 90s, 10m, 24h or 7d, got {str(value)!r}")
        return float(found["count"]) * _SECONDS[found["unit"]]


def read_share(text: str, what: str, below: float = 1.0, *, or_all: bool = False) -> float:
    """``10%`` as 0.1, above 0 and below ``below``, or 1 with ``or_all``. Raises Usage."""
    share = read_percent(text, what)
    if not (0 < share < below or (or_all and share == 1)):
        most = "up to 100%" if or_all else f"below {below * 100:g}%"
        raise Usage(f"{what}: expected a percentage above 0% and {most}, got {text!r}")
    return share


def read_percent(text: str, what: str) -> float:
    """``10%`` as 0.1, from 0 to 1. Raises Usage."""
    number, sign = text[:-1], text[-1:]
    try:
        if sign != "%":
            raise ValueError
        share = float(number) / 100
    except ValueError:
        raise Usage(f"{what}: expected a percentage like 10%, got {text!r}") from None
    if not 0 <= share <= 1:
        raise Usage(f"{what}: expected a percentage from 0% to 100%, got {text!r}")
    return share


def pairs_of(words: tuple[str, ...], what: str) -> list[tuple[str, str]]:
    """``name=value`` words. Raises Usage for one without ``=``."""
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise Usage(f"{what}: expected NAME=VALUE, got {word!r}")
        found.append((name, value))
    return found


def pins_of(words: tuple[str, ...]) -> list[Any]:
    """``header:x-group:testers=canary`` words as pins. Raises Usage."""
    from modelyard.errors import InvalidInput
    from modelyard.registry.routes import read_pin

    try:
        return [read_pin(word) for word in words]
    except InvalidInput as error:
        raise Usage(f"--{error.message}") from None


def _named(parameter: click.Parameter | None) -> str:
    return parameter.opts[0] if parameter is not None else "share"
