"""The table of settings, one row each, and the only reader of the environment.

A setting named ``home`` is read from ``MODELYARD_HOME``. Options of a command win over the environment, the
environment over the default. The table also drives ``modelyard settings`` and the page in the documentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from modelyard.errors import InvalidInput


class Setting(msgspec.Struct, frozen=True):
    """One row: its name, how text becomes a value, the default as text, what it is for, and how a value must look."""

    name: str
    parse: Callable[[str], Any]
    default: str
    purpose: str
    expects: str = "a text"

    @property
    def variable(self) -> str:
        return f"MODELYARD_{self.name.upper()}"


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _size(text: str) -> int:
    """Bytes from ``64MB``, ``1GiB``, ``512k`` or a plain number; powers of 1024."""
    cleaned = text.strip().lower().removesuffix("b").removesuffix("i")
    scale = {"k": 1, "m": 2, "g": 3, "t": 4}.get(cleaned[-1:], 0)
    return int(float(cleaned[: -1 if scale else None]) * 1024**scale)


def _whole(low: int, high: float = float("inf")) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return parse


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(text)
        return text.lower()

    return parse


_SECONDS = "a number of seconds"

TABLE: tuple[Setting, ...] = (
    Setting("home", _path, "~/.modelyard", "folder of the embedded registry: its database, blobs and cache"),
    Setting("registry", str, "", "registry to use instead: a folder or a postgresql:// URL"),
    Setting("store", str, "", "folder of the registry's blobs; inside the home folder when empty"),
    Setting("trust", _words, "", "digests and public-key files whose pickles may be loaded, comma-separated"),
    Setting("host", str, "127.0.0.1", "address that a server binds to"),
    Setting(
        "port",
        _whole(0, 65535),
        "8080",
        "port that a server binds to; 0 picks a free one",
        "a whole number from 0 to 65535",
    ),
    Setting("wires", _words, "native,oip", "wire protocols that a server speaks"),
    Setting("max_body", _size, "64MB", "largest request body that a server accepts", "a size, like 64MB"),
    Setting("poll_seconds", _seconds, "0.25", "how often a server looks for moved aliases", _SECONDS),
    Setting("drain_seconds", _seconds, "30", "how long a stopping server waits for requests in flight", _SECONDS),
    Setting(
        "access_log",
        _one_of("errors", "all", "off"),
        "errors",
        "which answers a server logs: errors, all or off",
        "errors, all or off",
    ),
    Setting(
        "train_rows",
        _whole(1),
        "200000",
        "most rows that training looks at; more are sampled",
        "a whole number above 0",
    ),
    Setting(
        "log_level",
        _one_of("debug", "info", "warning", "error"),
        "info",
        "least grave lines that a server logs: debug, info, warning or error",
        "debug, info, warning or error",
    ),
    Setting("user", str, "", "who is written into the history; the login name when empty"),
)

_BY_NAME = {setting.name: setting for setting in TABLE}


def get(name: str, given: Any = None) -> Any:
    """The value of a setting: ``given`` if it is not None, else from the environment, else the default.

    Raises InvalidInput where the environment holds a value that does not parse.
    """
    if given is not None:
        return given
    setting = _BY_NAME[name]
    text = os.environ.get(setting.variable)
    if text is None:
        return setting.parse(setting.default)
    try:
        return setting.parse(text)
    except (ValueError, OverflowError):
        raise InvalidInput.at(setting.variable, setting.expects, repr(text)) from None


def who() -> str:
    """The name that history rows carry."""
    import getpass

    named: str = get("user")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
