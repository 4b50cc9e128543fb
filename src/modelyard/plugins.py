"""From a seam and a short name to an object.

A name may be an entry point (``onnx``; built-ins enter by the same door as anyone's), a ``module:thing``, or
already an object, which passes through. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from modelyard.errors import NotFound

SEAMS = ("runtimes", "wires", "stores", "targets", "explainers")


@cache
def _points(seam: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"modelyard.{seam}")}


def names(seam: str) -> list[str]:
    """The short names known for a seam, sorted."""
    return sorted(_points(seam))


def find(seam: str, name: Any) -> Any:
    """The object that ``name`` means for ``seam`` (``runtimes``, ``wires`` ...).

    Classes are instantiated without arguments. Raises NotFound with the known names.
    """
    if not isinstance(name, str):
        return name
    return _instance(seam, name)


@cache
def _instance(seam: str, name: str) -> Any:
    point = _points(seam).get(name)
    if point is not None:
        thing = point.load()
    elif ":" in name:
        module, _, attribute = name.partition(":")
        try:
            thing = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise NotFound(f"no such plugin for {seam}: {name} ({error})") from error
    else:
        raise NotFound.among(f"plugin for {seam}", name, _points(seam))
    return thing() if isinstance(thing, type) else thing
