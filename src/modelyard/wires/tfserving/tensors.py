"""Tensors and examples of TensorFlow as rows, and outputs as tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, Problem
from modelyard.messages import Batch, Request
from modelyard.schema import Array, Columns, Field, Layout
from modelyard.wires.tfserving.about import DATA_TYPES, data_type
from modelyard.wires.tfserving.rows import MATRIX, takes_matrix

#: How the elements of each data type lie in ``tensor_content``, and which field holds them otherwise.
_ELEMENTS = {
    1: ("DT_FLOAT", "<f4", "float_val"), 2: ("DT_DOUBLE", "<f8", "double_val"), 3: ("DT_INT32", "<i4", "int_val"),
    4: ("DT_UINT8", "u1", "int_val"), 5: ("DT_INT16", "<i2", "int_val"), 6: ("DT_INT8", "i1", "int_val"),
    7: ("DT_STRING", "", "string_val"), 9: ("DT_INT64", "<i8", "int64_val"), 10: ("DT_BOOL", "?", "bool_val"),
    14: ("DT_BFLOAT16", "<u2", "half_val"), 17: ("DT_UINT16", "<u2", "int_val"), 19: ("DT_HALF", "<u2", "half_val"),
    22: ("DT_UINT32", "<u4", "uint32_val"), 23: ("DT_UINT64", "<u8", "uint64_val"),
}  # fmt: skip
_FLOAT, _STRING, _BFLOAT16, _HALF = 1, 7, 14, 19
_WHOLE, _REAL, _BOOL = frozenset({3, 4, 5, 6, 9, 17, 22, 23}), frozenset({1, 2, 14, 19}), 10

#: The fields that hold their elements as they lie in an array, and how one is unpacked.
PACKED = {"float_val": struct.Struct("<f"), "double_val": struct.Struct("<d")}

#: Rows up to which a request is kept as tuples, which join with those of others at less cost.
_FEW_ROWS = 64

#: Elements up to which a tensor may leave them out, the last that is there standing for all others.
MOST_REPEATED = 2**20


def _accepted(field: Field) -> frozenset[int]:
    if field.dtype in ("string", "datetime"):
        return frozenset({_STRING})
    if field.dtype == "bool":
        return frozenset({_BOOL}) | (_REAL if field.nullable else frozenset())
    return _REAL | _WHOLE if field.dtype.startswith("float") or field.nullable else _WHOLE


class TensorReader:
    """Reads the named tensors of a request for the inputs of one model."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._layout = Layout.of(fields)
        self._fields = {field.name: (field, _accepted(field)) for field in fields}
        #: How each input is read in a request of few rows, in the layout's order; nothing where one cannot be.
        self._plain = [(field.name, _reader(field)) for field in self._layout.fields if _is_plain(field)]
        self._matrix = (fields[0], _accepted(fields[0])) if takes_matrix(fields) else None
        is_plain = self._matrix is not None and len(self._plain) == len(fields) and not any(f.nullable for f in fields)
        self._plain_matrix = _reader(fields[0], len(fields)) if is_plain else None

    def read(self, tensors: Mapping[str, Any], form: str) -> Request:
        """The rows of a request. Raises InvalidInput."""
        few = self._few(tensors)
        if few is not None:
            return Request(len(few), few, None, form)
        columns = self._columns(tensors)
        return Request(columns.rows, None, columns, form)

    def _few(self, tensors: Mapping[str, Any]) -> list[tuple[Any, ...]] | None:
        """The rows of a request of few that is plainly right; None for any other."""
        if self._plain_matrix is not None and MATRIX in tensors and len(tensors) == 1:
            flat, width = self._plain_matrix(tensors[MATRIX]), len(self._fields)
            return None if flat is None else [tuple(flat[i : i + width]) for i in range(0, len(flat), width)]
        lists = []
        for name, read in self._plain:
            if name not in tensors:
                return None
            values = read(tensors[name])
            if values is None:
                return None
            lists.append(values)
        if len(lists) != len(tensors) or len(set(map(len, lists))) != 1:
            return None
        return list(zip(*lists, strict=True))

    def _columns(self, tensors: Mapping[str, Any]) -> Columns:
        if self._matrix is not None and MATRIX in tensors and len(tensors) == 1:
            return self._layout.from_arrays(self._split(tensors[MATRIX], *self._matrix))
        if tensors.keys() != self._fields.keys():
            known = ", ".join(list(self._fields)[:20])
            problems = [Problem(f"inputs.{name[:40]}", f"one of {known}", "an unknown input")
                        for name in sorted(tensors) if name not in self._fields]  # fmt: skip
            problems += [Problem(f"inputs.{name}", "a tensor", "nothing: the input is missing")
                         for name in self._fields if name not in tensors]  # fmt: skip
            raise InvalidInput.of(problems)
        arrays: dict[str, Array] = {}
        rows = 0
        for name, (field, accepted) in self._fields.items():
            path = f"inputs.{name}"
            array = _array(tensors[name], field, accepted, path)
            if not _fits(array.shape, field.shape):
                expected = f"[N, {', '.join(map(str, field.shape))}]" if field.shape else "[N] or [N, 1]"
                raise InvalidInput.at(f"{path}.tensor_shape", expected, str(list(array.shape)))
            if arrays and len(array) != rows:
                raise InvalidInput.at(f"{path}.tensor_shape", f"{rows} rows, as in the other inputs", str(len(array)))
            rows = len(array)
            arrays[name] = array
        return self._layout.from_arrays(arrays)

    def _split(self, tensor: Any, field: Field, accepted: frozenset[int]) -> dict[str, Array]:
        array = _array(tensor, field, accepted, f"inputs.{MATRIX}")
        width = len(self._fields)
        if array.ndim != 2 or array.shape[1] != width or not len(array):
            known = ", ".join(list(self._fields)[:20])
            raise InvalidInput.at(f"inputs.{MATRIX}.tensor_shape", f"[N, {width}] ({known})", str(list(array.shape)))
        return {name: array[:, i] for i, name in enumerate(self._fields)}


def _is_plain(field: Field) -> bool:
    """Whether the elements of an input need no more than one look each."""
    numbers = field.dtype in ("float32", "float64", "int32", "int64", "uint32", "uint64", "bool")
    return not field.shape and (field.dtype == "string" or (numbers and field.storage == field.dtype))


def _reader(field: Field, width: int = 0) -> Callable[[Any], list[Any] | None]:
    """What reads the elements of a tensor of few rows, each of ``width``; it returns None for what is not plain."""
    announced = data_type(field)[1]
    kinds = frozenset({announced, _FLOAT}) if field.storage == "float64" else frozenset({announced})
    columns, nullable = width or 1, field.nullable

    def read(tensor: Any) -> list[Any] | None:
        kind, dims = tensor.dtype, tensor.tensor_shape.dim
        if (
            kind not in kinds
            or len(dims) > 2
            or not (dims[1].size == columns if len(dims) == 2 else dims and not width)
        ):
            return None
        count = dims[0].size * columns
        if not 0 < dims[0].size <= _FEW_ROWS:
            return None
        place = _ELEMENTS[kind][2]
        values: list[Any]
        if place in PACKED:
            content = tensor.tensor_content or getattr(tensor, place)
            if len(content) != count * PACKED[place].size:
                return None
            values = [value for (value,) in PACKED[place].iter_unpack(content)]
            return values if nullable or not math.isnan(sum(values)) else None
        values = list(getattr(tensor, place))
        if len(values) != count or tensor.tensor_content:
            return None
        if kind != _STRING:
            return values
        try:
            texts = [value.decode() for value in values]
        except UnicodeDecodeError:
            return None
        return [text or None for text in texts] if nullable else texts

    return read


def _fits(shape: tuple[int, ...], own: tuple[int, ...]) -> bool:
    if not shape or not shape[0]:
        return False
    inner = shape[1:]
    return (not own and inner in ((), (1,))) or (
        len(inner) == len(own) and all(want in (-1, size) for want, size in zip(own, inner, strict=True))
    )


def _array(tensor: Any, field: Field, accepted: frozenset[int], path: str) -> Array:
    """The elements of a tensor in its shape. Raises InvalidInput."""
    kind = tensor.dtype
    if kind not in accepted:
        words = ", ".join(_ELEMENTS[number][0] for number in sorted(accepted))
        known = _ELEMENTS.get(kind)
        got = known[0] if known else f"data type {kind}"
        raise InvalidInput.at(f"{path}.dtype", words, got, hint=f"it is announced as {data_type(field)[0]}")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        got = "an unknown rank" if tensor.tensor_shape.unknown_rank else str(shape)
        raise InvalidInput.at(f"{path}.tensor_shape", "the sizes of the tensor", got)
    count = math.prod(shape)
    if not count and shape and max(shape) > MOST_REPEATED:
        raise InvalidInput.at(f"{path}.tensor_shape", "the sizes of the tensor", f"no elements in the shape {shape}")
    flat = _content(tensor, kind, count, path) if tensor.tensor_content else _values(tensor, kind, count, path)
    if kind == _HALF:
        flat = flat.view("<f2")
    elif kind == _BFLOAT16:
        flat = (flat.astype("<u4") << 16).view("<f4")
    elif kind == _STRING and field.nullable:
        flat[flat == ""] = None  # the protocol has no missing text
    return flat.reshape(shape)


def _content(tensor: Any, kind: int, count: int, path: str) -> Array:
    name, dtype, values = _ELEMENTS[kind]
    if kind == _STRING:
        raise InvalidInput.at(f"{path}.tensor_content", f"nothing: texts go in {values}", "bytes")
    size = count * np.dtype(dtype).itemsize
    if len(tensor.tensor_content) != size:
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        expected = f"{size} bytes, as the shape {shape} of {name} says"
        raise InvalidInput.at(f"{path}.tensor_content", expected, str(len(tensor.tensor_content)))
    if kind == _BOOL:
        truths: Array = np.frombuffer(tensor.tensor_content, dtype="u1") != 0
        return truths
    return np.frombuffer(tensor.tensor_content, dtype=dtype)


def _values(tensor: Any, kind: int, count: int, path: str) -> Array:
    """The elements in their typed field. Where some are left out, the last that is there stands for them."""
    name, _, place = _ELEMENTS[kind]
    found = _typed(tensor, kind, path)
    if not len(found) and count:
        others = [field.name for field, _ in tensor.ListFields() if field.name.endswith("_val")]
        if others:
            raise InvalidInput.at(f"{path}.{others[0]}", f"{place}, which holds the elements of {name}", others[0])
    if len(found) > count or (len(found) < count and (not len(found) or count > MOST_REPEATED)):
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        raise InvalidInput.at(f"{path}.{place}", f"{count} elements, as the shape {shape} says", str(len(found)))
    return found if len(found) == count else np.concatenate([found, np.repeat(found[-1:], count - len(found))])


def _typed(tensor: Any, kind: int, path: str) -> Array:
    """The elements in the typed field of ``kind``, as many as are there."""
    name, dtype, place = _ELEMENTS[kind]
    values = getattr(tensor, place)
    if kind == _STRING:
        return _texts(values, f"{path}.{place}")
    if place not in PACKED:
        try:
            return np.array(list(values), dtype=dtype)
        except OverflowError as error:
            raise InvalidInput.at(f"{path}.{place}", f"elements that fit {name}", str(error)) from None
    if len(values) % PACKED[place].size:
        raise InvalidInput.at(f"{path}.{place}", f"elements of {PACKED[place].size} bytes", f"{len(values)} bytes")
    return np.frombuffer(values, dtype=dtype)


def _texts(values: Sequence[bytes], path: str) -> Array:
    found = np.full(len(values), "", dtype=object)
    for i, value in enumerate(values):
        try:
            found[i] = value.decode()
        except UnicodeDecodeError:
            raise InvalidInput.at(f"{path}[{i}]", "text in UTF-8", "other bytes") from None
    return found


def features(example: Any, fields: Mapping[str, Field]) -> dict[str, list[Any]]:
    """The features of an example that ``fields`` know, as plain values. Raises InvalidInput."""
    found: dict[str, list[Any]] = {}
    for name, feature in example.features.feature.items():
        field = fields.get(name)
        kind = feature.WhichOneof("kind")
        if field is None:
            continue
        values: list[Any] = list(getattr(feature, kind).value) if kind else []
        if kind == "bytes_list":
            values = _texts(values, f"{name}.bytes_list").tolist()
        elif kind == "int64_list" and field.dtype == "bool" and set(values) <= {0, 1}:
            values = [bool(value) for value in values]
        found[name] = values
    return found


class TensorWriter:
    """Writes an output as a tensor."""

    def __init__(self, field: Field) -> None:
        self.name = field.name
        self._dtype = data_type(field)[1]
        _, self._layout, self._place = _ELEMENTS[self._dtype]
        self._is_half = self._dtype == DATA_TYPES["float16"][1]

    def write(self, batch: Batch, start: int, stop: int, into: Any) -> None:
        """Fill the tensor ``into`` with rows of a batch. As the original does, values go in their typed fields."""
        column = batch.columns[self.name][start:stop]
        into.dtype = self._dtype
        for size in column.shape:
            into.tensor_shape.dim.add().size = size
        if self._place in PACKED:
            setattr(into, self._place, np.ascontiguousarray(column, dtype=self._layout).tobytes())
            return
        values = getattr(into, self._place)
        if self._dtype == _STRING:
            texts = _flat(batch.values(self.name)[start:stop], column.ndim - 1)
            values.extend([b"" if text is None else text.encode() for text in texts])
        else:
            values.extend((column.view("u2") if self._is_half else column).ravel().tolist())


def _flat(values: list[Any], depth: int) -> list[Any]:
    for _ in range(depth):
        values = [inner for value in values for inner in value]
    return values
