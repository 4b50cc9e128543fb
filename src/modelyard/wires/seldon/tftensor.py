"""TensorFlow's tensors in Seldon's messages: a ``TensorProto`` in protobuf's JSON, as far as it holds numbers."""

from __future__ import annotations

import base64
import binascii
from math import prod
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput
from modelyard.schema import Array

PATH = "data.tftensor"

#: How the elements of each data type lie in ``tensorContent``, and which field holds them otherwise.
_TYPES = {
    "DT_FLOAT": ("<f4", "floatVal"), "DT_DOUBLE": ("<f8", "doubleVal"), "DT_INT32": ("<i4", "intVal"),
    "DT_UINT8": ("u1", "intVal"), "DT_INT16": ("<i2", "intVal"), "DT_INT8": ("i1", "intVal"),
    "DT_INT64": ("<i8", "int64Val"), "DT_UINT16": ("<u2", "intVal"), "DT_UINT32": ("<u4", "uint32Val"),
    "DT_UINT64": ("<u8", "uint64Val"),
}  # fmt: skip

#: The same types by their numbers.
_NUMBERS = {
    1: "DT_FLOAT", 2: "DT_DOUBLE", 3: "DT_INT32", 4: "DT_UINT8", 5: "DT_INT16", 6: "DT_INT8", 9: "DT_INT64",
    17: "DT_UINT16", 22: "DT_UINT32", 23: "DT_UINT64",
}  # fmt: skip

#: Elements up to which a tensor may leave them out, the last that is there standing for all others.
_MOST_REPEATED = 2**20


def read(text: bytes) -> tuple[Array, list[int]]:
    """The elements and the shape of a tensor whose JSON is proper. Raises InvalidInput."""
    told = msgspec.json.decode(text)
    if not isinstance(told, dict):
        raise InvalidInput.at(PATH, "a TensorProto", type(told).__name__)
    dtype = told.get("dtype")
    name = _NUMBERS.get(dtype) if type(dtype) is int else dtype
    if not isinstance(name, str) or name not in _TYPES:
        raise InvalidInput.at(f"{PATH}.dtype", f"one of {', '.join(_TYPES)}", str(dtype)[:40])
    layout, field = _TYPES[name]
    shape = _shape(_named(told, "tensorShape"))
    content = _named(told, "tensorContent")
    if content:
        return _from_content(content, layout, shape), shape
    values = _named(told, field)
    if not isinstance(values, list) or not values:
        raise InvalidInput.at(PATH, f"elements in tensorContent or {field}", "none")
    return _filled(_array(values, layout, field), shape, field), shape


def written(matrix: Array) -> bytes:
    """Doubles as a tensor, as TensorFlow itself writes those of several elements."""
    content = base64.b64encode(np.ascontiguousarray(matrix, dtype="<f8").tobytes())
    dim = b",".join(b'{"size":"%d"}' % size for size in matrix.shape)
    return b'{"dtype":"DT_DOUBLE","tensorShape":{"dim":[%b]},"tensorContent":"%b"}' % (dim, content)


def _named(told: dict[str, Any], name: str) -> Any:
    """A field by either of the names that protobuf's JSON knows it by: ``floatVal``, ``float_val``."""
    return told.get(name, told.get("".join(f"_{c.lower()}" if c.isupper() else c for c in name)))


def _shape(told: Any) -> list[int]:
    path = f"{PATH}.tensorShape"
    dim = told.get("dim", []) if isinstance(told, dict) else None
    if not isinstance(dim, list):
        raise InvalidInput.at(path, '{"dim": [{"size": rows}, {"size": columns}]}', str(told)[:40])
    sizes = [each.get("size", 0) if isinstance(each, dict) else None for each in dim]
    try:
        return [int(size) if isinstance(size, str) else _whole(size) for size in sizes]
    except ValueError:
        raise InvalidInput.at(path, "whole numbers", str(sizes)[:40]) from None


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(value)
    return value


def _from_content(content: Any, layout: str, shape: list[int]) -> Array:
    path = f"{PATH}.tensorContent"
    try:
        data = base64.b64decode(content, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidInput.at(path, "base64", str(error)) from None
    expected = prod(shape) * np.dtype(layout).itemsize
    if len(data) != expected:
        raise InvalidInput.at(path, f"{expected} bytes, as the shape says", str(len(data)))
    return np.frombuffer(data, dtype=layout)


def _array(values: list[Any], layout: str, field: str) -> Array:
    """JSON's values as an array: protobuf writes large whole numbers, NaN and infinities as texts."""
    kind = float if layout.startswith("<f") else int
    try:
        if any(type(value) not in (int, float, str) for value in values):
            raise TypeError("a value that is no number")
        exact = [kind(value) if isinstance(value, str) else value for value in values]
        if kind is int and any(value != int(value) for value in exact):
            raise ValueError("a number that is not whole")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            return np.array([kind(value) for value in exact], dtype=layout)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput.at(f"{PATH}.{field}", f"numbers of {np.dtype(layout).name}", str(error)) from None


def _filled(values: Array, shape: list[int], field: str) -> Array:
    """The elements that a shape says, the last that is there standing for those that are left out."""
    size = prod(shape)
    if values.size < size <= _MOST_REPEATED and min(shape, default=1) > 0:
        return np.concatenate([values, np.full(size - values.size, values[-1])])
    if values.size != size:
        raise InvalidInput.at(f"{PATH}.{field}", f"{size} elements, as the shape says", str(values.size))
    return values
