"""The allow list: names that a pickle may import without anybody being asked. The names are in ``allowed.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources


@cache
def _names() -> dict[str, frozenset[str]]:
    text = resources.files("modelyard.bundle").joinpath("allowed.toml").read_text("utf-8")
    return {module: frozenset(names) for module, names in tomllib.loads(text).items()}


def is_allowed(module: str, name: str) -> bool:
    """Whether exactly this name of exactly this module is on the list. A name with dots never is."""
    return "." not in name and name in _names().get(module, ())
