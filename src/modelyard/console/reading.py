"""What people type into dialogs, read."""

from __future__ import annotations

import re

from modelyard.errors import InvalidInput
from modelyard.registry.routes import Pin, read_pin


def percent(what: str, text: str) -> float:
    """``10``, ``10%`` or ``0.5`` as a fraction. Raises InvalidInput."""
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise InvalidInput.at(what, "a number of percent, like 10", repr(text)) from None


def percents(what: str, text: str) -> tuple[float, ...]:
    """Several, parted by commas or blanks. Raises InvalidInput."""
    return tuple(percent(what, word) for word in text.replace(",", " ").split())


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def span(what: str, text: str) -> float:
    """``90s``, ``10m``, ``24h``, ``7d``, or a plain number, in seconds. Raises InvalidInput."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if found is None:
        raise InvalidInput.at(what, "a time like 90s, 10m, 24h or 7d", repr(text))
    return float(found[1]) * _UNITS[found[2]]


def pins_of(text: str) -> list[Pin]:
    """A pin in each line. Raises InvalidInput."""
    return [read_pin(line) for line in filter(str.strip, text.splitlines())]
