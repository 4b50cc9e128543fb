"""The settings of this process, the versions of what it runs on, and the keys of the registry."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import msgspec

from modelyard import settings as room
from modelyard.registry import Registry
from modelyard.registry.keys import Key
from modelyard.telemetry import masked


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as this process has it. Passwords in URLs are hidden."""

    name: str
    variable: str
    value: str
    default: str
    #: ``environment`` or ``default``.
    origin: str
    purpose: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What this process was told."""

    registry: str
    versions: dict[str, str]
    settings: list[Setting]


class MadeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key. ``text`` is what callers send, and is told this once."""

    key: Key
    text: str


def settings(registry: Registry) -> Settings:
    """The settings of the process that answers this, where each value comes from, and the versions of its libraries."""
    versions = {"python": platform.python_version()}
    for name in ("modelyard", "numpy", "onnxruntime", "nicegui", "pyarrow", "duckdb", "scikit-learn", "psycopg"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Settings(registry=_hidden(str(registry.database.where)), versions=versions, settings=every_setting())


def every_setting() -> list[Setting]:
    """Each setting as this process has it."""
    return [
        Setting(
            name=row.name, variable=row.variable, value=_hidden(_plain(room.get(row.name))), default=row.default,
            origin="environment" if row.variable in os.environ else "default", purpose=row.purpose,
        )
        for row in room.TABLE
    ]  # fmt: skip


def keys(registry: Registry, *, revoked: bool = False) -> list[Key]:
    """The API keys, oldest first: those that are in force, or with ``revoked`` all. Nobody can read their secrets."""
    return registry.keys.list(revoked=revoked)


def create_key(
    registry: Registry, *, name: str, scopes: list[str] | None = None, models: list[str] | None = None,
    rate: str = "", expires: str = "",
) -> MadeKey:  # fmt: skip
    """Make an API key. Its text is in the answer, and never told again.

    ``scopes``: of predict, label, view and admin; ``rate`` like 100/s; ``expires`` like 30d or a date.
    """
    key, text = registry.keys.create(
        name, scopes=["predict"] if scopes is None else scopes, models=models or [], rate=rate, expires=expires
    )
    return MadeKey(key=key, text=text)


def revoke_key(registry: Registry, key: str) -> Key:
    """End the key of an id or a name for good; servers follow within a second."""
    return registry.keys.revoke(key)


def _plain(value: Any) -> str:
    """A value as the environment would say it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _hidden(text: str) -> str:
    return masked(text.encode()).decode()
