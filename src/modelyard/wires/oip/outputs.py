"""The outputs of a model as tensors: in JSON, flat and with null for NaN, or as bytes; whole or as classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput
from modelyard.messages import Batch
from modelyard.schema import Field
from modelyard.wires.oip.datatypes import BINARY, datatype_of, framed

_encode = msgspec.json.encode


class Output:
    """One output of a model, or its ``top`` classes."""

    def __init__(self, field: Field, top: int = 0) -> None:
        self.field = field
        self.name = field.name
        self.datatype = "BYTES" if top else datatype_of(field)
        self._top = top
        self._is_number = field.is_numeric and field.storage == field.dtype
        name = _encode(field.name).decode().replace("%", "%%")
        start = f'{{"name":{name},"datatype":"{self.datatype}","shape":[%b],'
        self._json = (start + '"data":[%b]}').encode()
        self._binary = (start + '"parameters":{"binary_data_size":%d}}').encode()

    def shape(self, batch: Batch, rows: int) -> list[int]:
        """The shape of the tensor for some rows of a batch."""
        if not self.field.shape:
            return [rows]
        inner = batch.columns[self.name].shape[1:]
        return [rows, min(self._top, inner[-1])] if self._top else [rows, *inner]

    def in_json(self, batch: Batch, start: int, stop: int) -> bytes:
        """The tensor as an object of JSON."""
        return self._json % (_sizes(self.shape(batch, stop - start)), self._elements(batch, start, stop))

    def each_in_json(self, batch: Batch) -> list[bytes]:
        """The tensor of each row of a batch, as if it were alone."""
        if not self.field.shape:
            texts: Sequence[bytes] = batch.texts(self.name)
        elif self._is_number:
            cells, width = batch.cells(self.name), math.prod(batch.columns[self.name].shape[1:])
            texts = [b",".join(cells[i : i + width]) for i in range(0, len(cells), width)]
        else:
            texts = [self._elements(batch, i, i + 1) for i in range(batch.columns.rows)]
        template, shape = self._json, _sizes(self.shape(batch, 1))
        return [template % (shape, text) for text in texts]

    def in_binary(self, batch: Batch, start: int, stop: int) -> tuple[bytes, bytes]:
        """The object of JSON that announces the tensor, and its bytes."""
        data = self.raw(batch, start, stop)
        return self._binary % (_sizes(self.shape(batch, stop - start)), len(data)), data

    def raw(self, batch: Batch, start: int, stop: int) -> bytes:
        """The elements as bytes."""
        if self.datatype == "BYTES":
            return framed(self.texts(batch, start, stop))
        whole: bytes | None = batch.kept.get(self)
        if whole is None:
            whole = batch.kept[self] = batch.columns[self.name].astype(BINARY[self.datatype], copy=False).tobytes()
        size = len(whole) // batch.columns.rows
        return whole[start * size : stop * size]

    def texts(self, batch: Batch, start: int, stop: int) -> Sequence[str | None]:
        """The elements of an output of BYTES; None for a missing one."""
        if self._top:
            return self._classes(batch, start, stop)
        return _flatten(batch.values(self.name)[start:stop], len(self.field.shape))

    def _elements(self, batch: Batch, start: int, stop: int) -> bytes:
        """The elements as JSON, separated by commas."""
        if self._top:
            return _encode(self._classes(batch, start, stop))[1:-1]
        is_all = start == 0 and stop == batch.columns.rows
        if not self.field.shape:
            if not is_all:
                return b",".join(batch.texts(self.name)[start:stop])
            text = _encode(batch.values(self.name))
        elif self._is_number:
            if not is_all:
                width = math.prod(batch.columns[self.name].shape[1:])
                return b",".join(batch.cells(self.name)[start * width : stop * width])
            text = _encode(batch.columns[self.name].ravel().tolist())
        else:
            text = _encode(_flatten(batch.values(self.name)[start:stop], len(self.field.shape)))
        if self.field.storage.startswith("float") and b"null" in text:
            batch.has_gaps = True
        return text[1:-1]

    def _classes(self, batch: Batch, start: int, stop: int) -> list[str]:
        """``value:index[:label]`` of the largest elements along the last axis, the largest first."""
        values = batch.columns[self.name][start:stop]
        values = values.reshape(len(values), -1)
        order = np.argsort(-values.astype("float64"), axis=1, kind="stable")[:, : self._top]
        labels = [f":{label}" for label in self.field.categories or ()]
        return [
            f"{row[i]:f}:{i}{labels[i] if i < len(labels) else ''}"
            for row, best in zip(values.tolist(), order.tolist(), strict=True)
            for i in best
        ]


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """The outputs of an answer, in order, and which of them are sent as bytes."""

    outputs: tuple[Output, ...]
    is_binary: tuple[bool, ...]
    #: None where they are all of them.
    names: tuple[str, ...] | None = None


class Outputs:
    """The outputs of a signature."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._all = {field.name: Output(field) for field in fields}
        outputs = tuple(self._all.values())
        #: All of them, in JSON or as bytes.
        self.in_json = Wanted(outputs, (False,) * len(outputs))
        self.in_binary = Wanted(outputs, (True,) * len(outputs))

    def choose(self, wanted: Sequence[tuple[str, Mapping[str, Any] | None]], *, is_binary: bool) -> Wanted:
        """Those named, each with its parameters. Raises InvalidInput."""
        if not wanted:
            return self.in_binary if is_binary else self.in_json
        chosen: dict[str, tuple[Output, bool]] = {}
        for i, (name, parameters) in enumerate(wanted):
            output = self._all.get(name)
            if output is None:
                raise InvalidInput.at(f"outputs[{i}].name", f"one of {', '.join(self._all)}", name)
            if name in chosen:
                raise InvalidInput.at(f"outputs[{i}].name", "each output once", f"{name} twice")
            binary = is_binary
            if parameters:
                path = f"outputs[{i}].parameters"
                binary = parameters.get("binary_data", is_binary)
                if not isinstance(binary, bool):
                    raise InvalidInput.at(f"{path}.binary_data", "true or false", str(binary))
                output = _classified(output, parameters.get("classification", 0), path)
            chosen[name] = output, binary
        outputs, is_bytes = zip(*chosen.values(), strict=True)
        return Wanted(outputs, is_bytes, tuple(chosen))


def _classified(output: Output, top: Any, path: str) -> Output:
    if isinstance(top, bool) or not isinstance(top, int) or top < 0:
        raise InvalidInput.at(f"{path}.classification", "how many classes, as a whole number", str(top))
    if not top:
        return output
    if len(output.field.shape) != 1 or not output.field.is_numeric:
        raise InvalidInput.at(
            f"{path}.classification", "none: the output is not one number a class", str(top),
            hint="ask for the output probabilities where the model has it",
        )  # fmt: skip
    return Output(output.field, top)


def _sizes(shape: list[int]) -> bytes:
    return b",".join([b"%d" % size for size in shape])


def _flatten(values: Any, depth: int) -> list[Any]:
    for _ in range(depth):
        values = [inner for value in values for inner in value]
    found: list[Any] = values
    return found
