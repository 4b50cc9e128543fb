"""The protocol's datatypes, what field travels under which, and which a field may come in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelyard.decoding.fast import integer_range
from modelyard.errors import InvalidInput
from modelyard.schema import INTEGER_RANGES, Array, Field

#: Storage types of fields and the datatype under which each travels. FP16 has no JSON form: FP32 carries it.
DATATYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "float16": "FP32", "float32": "FP32", "float64": "FP64", "object": "BYTES",
}  # fmt: skip

#: How an element lies in binary tensors. BF16 is the upper half of an FP32; BYTES have no fixed size.
BINARY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("u1"), "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "FP16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}  # fmt: skip

#: Those that only binary tensors have.
HALVES = frozenset({"FP16", "BF16"})

_WHOLE = frozenset(name for name in BINARY if "INT" in name)
_REAL = frozenset({"FP32", "FP64"})
_KNOWN = frozenset(BINARY) | {"BYTES"}


def datatype_of(field: Field) -> str:
    """The datatype under which a field is announced and answered."""
    return "BYTES" if field.dtype == "datetime" else DATATYPES[field.storage]


def accepted(field: Field) -> frozenset[str]:
    """The datatypes in which a field may come; those of ``HALVES`` only as binary tensors."""
    if field.dtype in ("string", "datetime"):
        return frozenset({"BYTES"})
    if field.dtype == "bool":
        return frozenset({"BOOL"})
    if field.dtype.startswith("float"):
        return _REAL | _WHOLE | HALVES
    return _WHOLE | _REAL if field.nullable else _WHOLE


def refuse_datatype(name: str, datatype: str, field: Field, path: str, *, is_binary: bool) -> InvalidInput:
    """The error for a tensor in a datatype that its field does not come in."""
    words = ", ".join(sorted(accepted(field) - (frozenset() if is_binary else HALVES)))
    if datatype in HALVES and not is_binary:
        hint = f"{datatype} has no JSON form: send FP32, or {datatype} as a binary tensor"
        return InvalidInput.at(path, words, datatype, hint=hint)
    if datatype not in _KNOWN:
        hint = "datatypes are written in capitals" if datatype.upper() in _KNOWN else ""
        return InvalidInput.at(path, words, f"the unknown datatype {datatype}", hint=hint)
    return InvalidInput.at(path, f"{words} for {name}", datatype)


def misfits(field: Field, datatype: str) -> Callable[[Array], Array] | None:
    """A function that marks the elements of an array of ``datatype`` that a field of whole numbers cannot keep.

    None where all fit. Fields of other types have no such elements: NaN and infinity are looked for in whole blocks.
    """
    if field.dtype not in INTEGER_RANGES:
        return None
    low, high = integer_range(field)
    if datatype in _REAL:
        # Only where a value may be missing, which NaN says; the range is one that doubles hold exactly then.
        return lambda array: ~(np.isnan(array) | ((array == np.floor(array)) & (array >= low) & (array <= high)))
    least, most = INTEGER_RANGES[BINARY[datatype].name]
    below, above = least < low, most > high
    if below and above:
        return lambda array: (array < low) | (array > high)
    if below:
        return lambda array: array < low
    return (lambda array: array > high) if above else None


_LENGTH = struct.Struct("<I")


def split(data: bytes, start: int, size: int, count: int, path: str) -> list[bytes]:
    """``count`` elements of BYTES, each after its length, that fill ``size`` bytes."""
    found: list[bytes] = []
    at, end = start, start + size
    while at + 4 <= end and len(found) < count:
        stop = at + 4 + _LENGTH.unpack_from(data, at)[0]
        if stop > end:
            raise InvalidInput.at(f"{path}.data[{len(found)}]", f"{stop - at - 4} bytes, as its length says", "fewer")
        found.append(data[at + 4 : stop])
        at = stop
    if at != end or len(found) != count:
        got = f"{len(found)}, and {end - at} bytes more" if at != end else str(len(found))
        raise InvalidInput.at(path, f"{count} elements, each after its length in 4 bytes", got)
    return found


def framed(elements: Sequence[Any]) -> bytes:
    """Texts, bytes or None as BYTES, each after its length; None is empty.

    Labels come again and again, so each different one is framed once.
    """
    known = {element: _frame(element) for element in set(elements)}
    return b"".join([known[element] for element in elements])


def _frame(element: str | bytes | None) -> bytes:
    data = element.encode() if isinstance(element, str) else element or b""
    return _LENGTH.pack(len(data)) + data
