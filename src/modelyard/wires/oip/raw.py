"""Tensors as bytes: little-endian, row-major, one after another; each element of BYTES after its length."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.schema import Array, Columns, seconds_since_epoch
from modelyard.wires.oip.datatypes import BINARY, split
from modelyard.wires.oip.tensors import Inputs, Place, Tensor

#: Datatypes whose bytes are the numbers themselves.
_PLAIN = frozenset(BINARY) - {"BOOL", "BF16"}

#: How ``struct`` calls the types of numpy.
_CODES = {
    "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f2": "e", "f4": "f",
    "f8": "d",
}  # fmt: skip


class RawPlan:
    """How the bytes of a request's tensors become columns: worked out once for all requests of one description.

    ``sizes`` are the bytes of each tensor, None for one whose values came otherwise and are in ``given``.
    """

    def __init__(
        self, inputs: Inputs, tensors: Sequence[Tensor], sizes: Sequence[int | None], given: Sequence[Any] = ()
    ) -> None:
        self._inputs = inputs
        self.rows, self._places = inputs.arrange(tensors, is_binary=True)
        self._shapes = [tensor.shape for tensor in tensors]
        self._datatypes = [tensor.datatype for tensor in tensors]
        self._counts = [math.prod(shape) for shape in self._shapes]
        self._given = given
        self._sizes = sizes
        for i, (datatype, size, count) in enumerate(zip(self._datatypes, sizes, self._counts, strict=True)):
            dtype = BINARY.get(datatype)
            if dtype is not None and size is not None and size != count * dtype.itemsize:
                words = f"{count * dtype.itemsize} bytes, as {datatype} of shape {self._shapes[i]} has"
                raise InvalidInput.at(f"inputs[{i}]", words, str(size))
        self.size = sum(size for size in sizes if size is not None)
        #: Whether it holds no values of one request, and so fits others.
        self.is_bytes_only = None not in sizes
        self._is_matrix = self._places[0].index is None
        self._order = self._columns_in_order()
        self._dtype = BINARY.get(self._datatypes[0])
        self._read_row = self._row_reader()

    def _columns_in_order(self) -> list[int] | None:
        """Which tensor is which column, where one matrix of numbers of one datatype is all there is; else None."""
        kinds = set(self._datatypes)
        if len(kinds) > 1 or not kinds <= _PLAIN or not self.is_bytes_only or len(self._inputs.layout.blocks) > 1:
            return None
        if not self._inputs.is_scalar or any(place.misfits[self._datatypes[0]] for place in self._places):
            return None
        if self._is_matrix:
            return []
        return sorted(range(len(self._places)), key=lambda i: self._places[i].index or 0)

    def _row_reader(self) -> Callable[[bytes, int], tuple[Any, ...]] | None:
        """What reads the only row, whose values need no check but that they are finite; None where there is more to do.

        One row as a tuple joins with those of other requests at less cost than as an array.
        """
        storage = self._inputs.layout.blocks[0].storage
        if self.rows != 1 or self._order is None or self._dtype is None or not np.can_cast(self._dtype, storage):
            return None
        unpack = struct.Struct(f"<{len(self._inputs.places)}{_CODES[self._dtype.str[1:]]}").unpack_from
        if self._is_matrix or self._order == sorted(self._order):
            return unpack
        pick = itemgetter(*self._order)
        return lambda data, start: pick(unpack(data, start))

    def read(self, data: bytes, start: int) -> tuple[list[tuple[Any, ...]] | None, Columns | None]:
        """The rows in ``data``, from ``start`` on, as tuples or columns. Raises InvalidInput."""
        if len(data) - start != self.size:
            raise InvalidInput.at(
                "body", f"{self.size} bytes of binary tensors, as their sizes say", str(len(data) - start)
            )
        if self._read_row is not None:
            row = self._read_row(data, start)
            if math.isfinite(sum(row)):
                return [row], None
        return None, self._read_columns(data, start)

    def _read_columns(self, data: bytes, start: int) -> Columns:
        if self._order is None:
            return self._read_each(data, start)
        flat = np.frombuffer(data, self._dtype, -1, start)
        if not flat.flags.aligned:
            flat = flat.copy()
        if self._is_matrix:
            return self._inputs.matrix_columns(flat.reshape(self.rows, -1))
        return self._inputs.matrix_columns(flat.reshape(-1, self.rows)[self._order].T)

    def _read_each(self, data: bytes, start: int) -> Columns:
        values = []
        for i, (place, datatype, size, count) in enumerate(
            zip(self._places, self._datatypes, self._sizes, self._counts, strict=True)
        ):
            if size is None:
                values.append(self._given[i])
                continue
            if datatype == "BYTES":
                values.append(stored_texts(split(data, start, size, count, f"inputs[{i}]"), place, f"inputs[{i}]"))
            else:
                values.append(checked(numbers(data, start, count, datatype, i), place, datatype, i))
            start += size
        if self._is_matrix:
            matrix = np.asarray(values[0]).reshape(self.rows, -1)
            return self._inputs.matrix_columns(matrix)
        return self._inputs.columns(self.rows, self._places, self._shapes, values)


def numbers(data: bytes, start: int, count: int, datatype: str, i: int) -> Array:
    """``count`` elements of a datatype that is not BYTES."""
    flat: Array = np.frombuffer(data, BINARY[datatype], count, start)
    if datatype == "BF16":
        return (flat.astype("u4") << np.uint32(16)).view("f4")
    if datatype == "BOOL":
        if count and flat.max() > 1:
            wrong = int(np.argmax(flat > 1))
            raise InvalidInput.at(f"inputs[{i}].data[{wrong}]", "a byte that is 0 or 1", str(flat[wrong]))
        return flat.view("?")
    return flat


def checked(values: Array, place: Place, datatype: str, i: int) -> Array:
    """The values, if they fit their field. Raises InvalidInput."""
    find = place.misfits[datatype]
    if find is not None:
        wrong = find(values)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InvalidInput.at(f"inputs[{i}].data[{at}]", place.field.describe(), str(values[at]))
    return values


def stored_texts(elements: Iterable[bytes], place: Place, path: str) -> list[Any]:
    """Elements of BYTES as the field keeps them; an empty one is missing where it may be."""
    field = place.field
    found: list[Any] = []
    for k, element in enumerate(elements):
        try:
            text = element.decode()
            if not text and field.nullable:
                found.append(None)
            else:
                found.append(seconds_since_epoch(text) if field.dtype == "datetime" else text)
        except UnicodeDecodeError:
            raise InvalidInput.at(f"{path}.data[{k}]", "a text in UTF-8", "other bytes") from None
        except (ValueError, OverflowError):
            raise InvalidInput.at(f"{path}.data[{k}]", field.describe(), f"the text {text[:40]!r}") from None
    return found
