"""Counts as text for a database: most are small or zero, and deflate well."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import msgspec
import numpy as np

_encode = msgspec.msgpack.Encoder().encode

_DIGITS = np.zeros(256, "int64")
_DIGITS[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~")] = range(85)
_PLACES = 85 ** np.arange(4, -1, -1)


def pack(thing: Any) -> str:
    """MessagePack, deflated, in base 85."""
    return base64.b85encode(zlib.compress(_encode(thing), 6)).decode()


def raw(text: str) -> bytes:
    """The MessagePack of what ``pack`` made."""
    return zlib.decompress(_b85(text))


def _b85(text: str) -> bytes:
    """As base64.b85decode, which is Python all through: it would take longer than all else that reading takes."""
    short = -len(text) % 5
    digits = _DIGITS[np.frombuffer((text + "~" * short).encode(), "uint8")]
    made: bytes = (digits.reshape(-1, 5) @ _PLACES).astype(">u4").tobytes()
    return made[: -short or None]
