"""The manifest of a bundle: what it says, as bytes, and reading any format number that ever was.

A bundle is known by its digest: the sha256 of ``manifest.json``, which names every other file with its own digest.
So nothing that differs between two packings of one model (time, machine, command) may stand here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import BadBundle, ModelyardError
from modelyard.interfaces import ModelSpec
from modelyard.schema import Signature

#: The format that this Modelyard writes. Any change to what the manifest may hold is a new number.
FORMAT = 1

#: From a manifest (plain objects) of format n to one of format n + 1, by n. Old readers stay for good.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

#: A longer manifest is refused unread.
LARGEST = 64 * 1024**2

NAME = "manifest.json"


class FileEntry(msgspec.Struct, frozen=True):
    """What a file of the bundle must be: its digest (``sha256:…``) and its size in bytes."""

    digest: str
    size: int


class Conversion(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What happened to the original format: converted with how much difference, or kept and why."""

    #: What came: ``sklearn``, ``xgboost``, ``onnx`` ...
    source: str
    #: What is served: ``onnx``, or the native runtime kept.
    target: str
    #: Whether parity held and the converted form is served.
    accepted: bool
    #: ``emitter``, ``emitter+skl2onnx``, ``as given``.
    method: str = ""
    #: The step that could not be converted, and why in a sentence, when not accepted.
    step: str = ""
    reason: str = ""
    #: Rows compared with the original, and the largest differences among them.
    rows: int = 0
    worst_absolute: float = 0.0
    worst_relative: float = 0.0
    tolerance: float = 0.0
    #: Labels that differ outside ties.
    label_flips: int = 0
    versions: dict[str, str] = {}


class Distribution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One installed distribution. ``record`` is the sha256 over what its RECORD says of its files; ``archive`` that
    of the file it was installed from, where that is known.

    ``role``: ``framework`` brings the model back to life, ``imported`` is imported by it, ``required`` is
    required by one of those.
    """

    name: str
    version: str
    role: str = "imported"
    record: str = ""
    archive: str = ""


class Environment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The Python, the platform and every distribution that the model really imports.

    ``local`` are modules that no distribution provides, with the sha256 over their source.
    """

    python: str
    implementation: str
    platform: str
    machine: str
    distributions: tuple[Distribution, ...] = ()
    local: dict[str, str] = {}


class Manifest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Everything that a bundle says of itself. ``modelyard`` is the version that wrote it."""

    format: int
    task: str
    signature: Signature
    model: ModelSpec
    environment: Environment
    modelyard: str = ""
    conversion: Conversion | None = None
    metrics: dict[str, Any] = {}
    files: dict[str, FileEntry] = {}

    def to_json(self) -> bytes:
        """Canonical bytes: keys sorted, no space, UTF-8."""
        return canonical(self)


def canonical(thing: Any) -> bytes:
    """JSON that is the same bytes for equal things: keys sorted, no space, numpy values as plain ones."""
    return msgspec.json.encode(thing, order="sorted", enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise NotImplementedError(f"cannot write a {type(value).__name__} as JSON: {value!r}")


def digest_of(content: bytes | Path) -> str:
    """``sha256:<64 hex>`` of bytes or of a file."""
    if isinstance(content, bytes):
        return "sha256:" + hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``; older formats are upgraded. ``where`` names the bundle in errors.

    Raises BadBundle where it is no manifest or its format is newer than this Modelyard.
    """
    if len(data) > LARGEST:
        raise BadBundle(f"{NAME} of {where} is too large: {len(data)} bytes")
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBundle(f"{NAME} of {where} is damaged: {error}") from None
    number = plain.get("format") if isinstance(plain, dict) else None
    if type(number) is not int or number < 1:
        raise BadBundle(f"{NAME} of {where} is no bundle's manifest: it has no format number")
    if number > FORMAT:
        writer = plain.get("modelyard")
        needed = f"Modelyard {writer}" if isinstance(writer, str) and len(writer) < 40 else "a newer Modelyard"
        raise BadBundle(
            f"{where} has bundle format {number} and this Modelyard reads up to {FORMAT}: it needs {needed} or later",
            hint="pip install --upgrade modelyard",
        )
    try:
        for step in range(number, FORMAT):
            plain = UPGRADES[step](plain)
        return msgspec.convert(plain, Manifest)
    except (msgspec.MsgspecError, ModelyardError, KeyError) as error:
        detail = error.message if isinstance(error, ModelyardError) else str(error)
        raise BadBundle(f"{NAME} of {where} is damaged: {detail}") from None
