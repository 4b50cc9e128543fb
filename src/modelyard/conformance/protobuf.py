"""As much of protobuf's wire format as rules need: fields by their numbers, so that no generated code is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Number and value of a field: a whole number, text, bytes, or the fields of a message.
Fields = Iterable[tuple[int, Any]]


def encode(fields: Fields) -> bytes:
    """A message of these fields."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
            continue
        data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else encode(value)
        parts.append(varint(number << 3 | 2) + varint(len(data)) + data)
    return b"".join(parts)


def varint(value: int) -> bytes:
    """A whole number, a negative one as 64 bits."""
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def decode(message: bytes) -> dict[int, list[Any]]:
    """Number -> the values of that field: numbers, and bytes of what has a length. Raises ValueError."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        value: Any
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            size, at = _varint(message, at) if kind == 2 else (8 if kind == 1 else 4, at)
            value, at = message[at : at + size], at + size
            if len(value) < size:
                raise ValueError(f"field {number} is cut")
        else:
            raise ValueError(f"field {number} has the unknown wire type {kind}")
        found.setdefault(number, []).append(value)
    return found


def numbers(values: list[Any]) -> list[int]:
    """A repeated field of whole numbers, packed or not, signed."""
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(number)
    return [each - 2**64 if each >= 2**63 else each for each in found]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
