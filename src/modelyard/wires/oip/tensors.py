"""From the tensors of a request to the rows of a model.

Every input field is a tensor of shape [N] or [N, 1], or [N, *its own shape]. Where all fields are numbers of one
type, one tensor of shape [N, fields] under any other name is taken for all of them, in the signature's order.

N is at least 1. In binary tensors NaN, or an empty text, stands for a missing value where null does in JSON, and is
refused where null is; infinity, which JSON cannot say, is refused in every form.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from modelyard.decoding import ValuesDecoder
from modelyard.errors import InvalidInput, Problem
from modelyard.messages import Request
from modelyard.schema import Array, Columns, Field, Layout
from modelyard.wires.oip.datatypes import BINARY, HALVES, accepted, datatype_of, misfits, refuse_datatype
from modelyard.wires.oip.outputs import Wanted

#: Rows up to which a request is kept as tuples, which join with those of others at less cost.
_FEW_ROWS = 64


class TensorRequest(Request, gc=False):
    """A request that also says how its answer shall look."""

    wanted: Wanted = None  # type: ignore[assignment]  # everybody who reads it comes after it was set
    #: The media type of the answer where it must hold what is a header otherwise; "" where not.
    carrier: str = ""
    #: Whether the caller asked for a mark on the last answer of a stream.
    is_marked: bool = False


class Tensor(Protocol):
    """What a tensor of either form is called, of and in."""

    name: str
    datatype: str
    shape: list[int]


class Place(msgspec.Struct, frozen=True):
    """Where the values of a tensor belong: one field, or all of them for a matrix."""

    field: Field
    #: Its place in a row tuple; None for a matrix.
    index: int | None
    values: ValuesDecoder
    accepted: frozenset[str]
    #: Datatype -> what marks the elements that do not fit, where any may not.
    misfits: dict[str, Callable[[Array], Array] | None]


def _place(field: Field, index: int | None) -> Place:
    element = Field(name=field.name, dtype=field.dtype, nullable=field.nullable)
    names = accepted(field)
    checks = {name: misfits(field, name) for name in names}
    return Place(element, index, ValuesDecoder.of(element), names, checks)


class Inputs:
    """The inputs of a signature, as tensors."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.layout = layout = Layout.of(fields)
        self._shapes = {field.name: field.shape for field in fields}
        #: In the order of a row tuple.
        self.places = {field.name: _place(field, i) for i, field in enumerate(layout.fields)}
        self.is_scalar = all(not field.shape for field in fields)
        self.matrix = self._matrix_place(fields)
        self._blocks = [b for b, block in enumerate(layout.blocks) for _ in block.names]
        #: For each block of floats, which columns must not be NaN, as indexes; None for other blocks.
        self._strict = [
            [i for i, field in enumerate(layout.fields[block.start : block.stop]) if not field.nullable]
            if block.storage.startswith("float")
            else None
            for block in layout.blocks
        ]

    def _matrix_place(self, fields: Sequence[Field]) -> Place | None:
        """The place that stands for all fields in one tensor; None where there can be none."""
        if len(self.layout.blocks) != 1 or not self.is_scalar or len({field.dtype for field in fields}) != 1:
            return None
        if not fields[0].is_numeric:
            return None
        together = Field(name="inputs", dtype=fields[0].dtype, nullable=any(field.nullable for field in fields))
        return _place(together, None)

    # What a request may say of its tensors.

    def arrange(self, tensors: Sequence[Tensor], *, is_binary: bool = False) -> tuple[int, list[Place]]:
        """The number of rows and where each tensor belongs. Raises InvalidInput."""
        if len(tensors) == 1 and self.matrix is not None and tensors[0].name not in self.places:
            return self._arrange_matrix(tensors[0], self.matrix, is_binary), [self.matrix]
        rows = -1
        places = []
        for i, tensor in enumerate(tensors):
            place = self.places.get(tensor.name)
            if place is None:
                names = ", ".join(list(self.places)[:20])
                raise InvalidInput.at(f"inputs[{i}].name", f"one of {names}", tensor.name)
            check_datatype(tensor, place, i, is_binary=is_binary)
            shape = tensor.shape
            if len(shape) != 1 or shape[0] < 1 or self._shapes[tensor.name]:
                self._check_shape(tensor, i)
            if rows < 0:
                rows = shape[0]
            elif rows != shape[0]:
                raise InvalidInput.at(f"inputs[{i}].shape", f"{rows} rows, as in the other inputs", str(shape[0]))
            places.append(place)
        if len(places) != len(self.places) or len({place.index for place in places}) != len(places):
            self._refuse_names(tensors)
        return rows, places

    def _arrange_matrix(self, tensor: Tensor, place: Place, is_binary: bool) -> int:
        check_datatype(tensor, place, 0, is_binary=is_binary)
        width = len(self.places)
        if len(tensor.shape) != 2 or tensor.shape[1] != width or tensor.shape[0] < 1:
            names = ", ".join(list(self.layout.names)[:20])
            raise InvalidInput.at(
                "inputs[0].shape", f"[N, {width}]", str(tensor.shape), hint=f"or send one tensor each: {names}"
            )
        return tensor.shape[0]

    def _check_shape(self, tensor: Tensor, i: int) -> None:
        shape, own = tensor.shape, self._shapes[tensor.name]
        if shape and shape[0] >= 1:
            if not own:
                if len(shape) == 2 and shape[1] == 1:
                    return
            elif len(shape) == len(own) + 1 and all(
                got >= 0 and want in (-1, got) for want, got in zip(own, shape[1:], strict=True)
            ):
                return
        expected = [["N"], ["N", 1]] if not own else [["N", *own]]
        words = " or ".join(str(one).replace("'", "") for one in expected)
        raise InvalidInput.at(f"inputs[{i}].shape", words, str(shape), hint="N is at least 1")

    def _refuse_names(self, tensors: Sequence[Tensor]) -> None:
        seen: set[str] = set()
        for i, tensor in enumerate(tensors):
            if tensor.name in seen:
                raise InvalidInput.at(f"inputs[{i}].name", "each input once", f"{tensor.name} twice")
            seen.add(tensor.name)
        raise InvalidInput.of(
            Problem(f"inputs.{name}", "a tensor", "nothing: the input is missing")
            for name in self.places
            if name not in seen
        )

    # Rows from flat values, one list or array a tensor.

    def rows(
        self, rows: int, places: Sequence[Place], tensors: Sequence[Tensor], values: Sequence[Any]
    ) -> tuple[list[tuple[Any, ...]] | None, Columns | None]:
        """Tuples where the rows are few and all values are lists, else columns."""
        is_few = rows <= _FEW_ROWS and self.is_scalar and all(type(one) is list for one in values)
        if places[0].index is None:
            return self._matrix_rows(rows, values[0], is_few)
        if is_few:
            ordered: list[Any] = [None] * len(places)
            for place, one in zip(places, values, strict=True):
                ordered[place.index] = one  # type: ignore[index]  # only the place of a matrix has none
            return list(zip(*ordered, strict=True)), None
        return None, self.columns(rows, places, [tensor.shape for tensor in tensors], values)

    def _matrix_rows(self, rows: int, values: Any, is_few: bool) -> tuple[list[tuple[Any, ...]] | None, Columns | None]:
        width = len(self.places)
        if isinstance(values, list):
            self._check_gaps(values, width)
            if is_few:
                return [tuple(values[i : i + width]) for i in range(0, rows * width, width)], None
            values = packed(values, self.layout.blocks[0].storage)
        return None, self.matrix_columns(values.reshape(rows, width))

    def _check_gaps(self, values: list[Any], width: int) -> None:
        """Raise where null stands for a field that may not be missing, in a matrix of some that may."""
        if self.matrix is None or not self.matrix.field.nullable or None not in values:
            return
        for place, field in enumerate(self.layout.fields):
            if not field.nullable and None in values[place::width]:
                row = values[place::width].index(None)
                raise InvalidInput.at(f"inputs[0].data[{row}][{place}]", f"{field.name}: {field.describe()}", "null")

    def matrix_columns(self, matrix: Array) -> Columns:
        """Columns around a matrix of all fields; NaN and infinity are looked for."""
        storage = self.layout.blocks[0].storage
        if matrix.dtype != storage:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, which is looked for
                matrix = matrix.astype(storage)
        blocks = [np.ascontiguousarray(matrix)]
        self._check_finite(blocks)
        return Columns(self.layout, blocks, len(matrix))

    def columns(
        self, rows: int, places: Sequence[Place], shapes: Sequence[Sequence[int]], values: Sequence[Any]
    ) -> Columns:
        """Columns from flat values, which may be lists or arrays; NaN and infinity are looked for."""
        blocks: list[Any] = [None] * len(self.layout.blocks)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which is looked for
            for place, shape, one in zip(places, shapes, values, strict=True):
                index = place.index
                assert index is not None
                b = self._blocks[index]
                block = self.layout.blocks[b]
                if block.is_scalar:
                    if blocks[b] is None:
                        blocks[b] = np.empty((rows, len(block.names)), dtype=block.storage)
                    blocks[b][:, index - block.start] = one
                else:
                    flat = np.empty(len(one), dtype=block.storage)
                    flat[:] = one
                    blocks[b] = flat.reshape(shape)
        self._check_finite(blocks)
        return Columns(self.layout, blocks, rows)

    def _check_finite(self, blocks: Sequence[Array]) -> None:
        """NaN stands for a missing value; infinity, which JSON cannot say either, is refused in every form."""
        for b, (array, strict) in enumerate(zip(blocks, self._strict, strict=True)):
            if strict is None or np.isfinite(array).all():
                continue
            block = self.layout.blocks[b]
            for i, field in enumerate(self.layout.fields[block.start : block.stop]):
                if field.dtype == "datetime":  # read from a text, and NaN only where it may be
                    continue
                values = array[:, i] if block.is_scalar else array
                wrong = np.isinf(values) if i not in strict else ~np.isfinite(values)
                if wrong.any():
                    row = np.argwhere(wrong)[0][0]
                    got = values.reshape(len(values), -1)[row]
                    got = got[~np.isfinite(got)][0]
                    kind = f"a number that fits {field.dtype}" if np.isinf(got) else field.describe()
                    raise InvalidInput.at(f"inputs.{field.name}[{row}]", kind, str(got))

    def bare(self, size: int) -> tuple[str, str, list[int]]:
        """Name, datatype and shape of the one tensor that a body of ``size`` bytes is where no JSON describes it.

        It is one row of a model with a single input, or with one matrix for all of them. Raises InvalidInput.
        """
        field, *others = self.layout.fields
        path, form = "inference-header-content-length", "0 only for a model with a single input"
        datatype = datatype_of(field)
        if others:
            if self.matrix is None:
                raise InvalidInput.at(path, form, f"0, and this model has {len(self.places)}")
            return "", datatype, [1, len(self.places)]
        if datatype == "BYTES":
            if field.shape:
                raise InvalidInput.at(path, f"{form}, of shape [1] where it is BYTES", f"shape {list(field.shape)}")
            return field.name, datatype, [1]
        if sum(one < 0 for one in field.shape) > 1:
            raise InvalidInput.at(path, f"{form}, of one variable dimension at most", f"shape {list(field.shape)}")
        fixed = math.prod(abs(one) for one in field.shape) * BINARY[datatype].itemsize
        varied = size // fixed if fixed else 0
        return field.name, datatype, [1, *(varied if one < 0 else one for one in field.shape)]


def check_datatype(tensor: Tensor, place: Place, i: int, *, is_binary: bool) -> None:
    """Raise InvalidInput where the field does not come in the tensor's datatype."""
    if tensor.datatype not in place.accepted or (not is_binary and tensor.datatype in HALVES):
        raise refuse_datatype(tensor.name, tensor.datatype, place.field, f"inputs[{i}].datatype", is_binary=is_binary)


def packed(values: list[Any], storage: str) -> Array:
    """A flat array of checked values. ``struct`` is thrice as fast as numpy, but takes no gaps."""
    dtype = np.dtype(storage)
    try:
        return np.frombuffer(struct.pack(f"{len(values)}{dtype.char}", *values), dtype)
    except struct.error:
        return np.array(values, dtype=dtype)
