"""Rows and outputs as Seldon's messages hold them: lists or matrices, with names for the columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.decoding import ListsDecoder
from modelyard.errors import InvalidInput, Problem
from modelyard.messages import Batch, Request
from modelyard.schema import Array, Columns, Field, Layout, store
from modelyard.wires.answers import is_labelled, main_outputs

#: Orders of columns whose decoders are kept.
_MOST_ORDERS = 64


class SeldonRows:
    """Reads lists and matrices whose columns have names, or none that mean anything here."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._fields = fields
        self._known = {field.name: i for i, field in enumerate(fields)}
        self._layout = Layout.of(fields)
        #: A matrix of doubles is what the model takes.
        self._is_matrix = all(field.dtype == "float64" and not field.shape for field in fields)
        self._lists = ListsDecoder.of(fields)
        self._orders: dict[tuple[str, ...], ListsDecoder] = {}

    def decode(self, names: Sequence[str], text: bytes, path: str) -> Request:
        """The rows of a JSON list of lists. Raises InvalidInput."""
        if not names or self._known.keys().isdisjoint(names):
            return self._lists.decode(text, path)
        order = tuple(names)
        found = self._orders.get(order)
        if found is None:
            try:
                found = ListsDecoder.of(self._fields, order)
            except InvalidInput as error:
                problems = [Problem(p.path.replace("columns", "data.names"), p.expected, p.got) for p in error.problems]
                raise InvalidInput.of(problems) from None
            if len(self._orders) >= _MOST_ORDERS:
                self._orders.clear()
            self._orders[order] = found
        return found.decode(text, path)

    def take(self, names: Sequence[str], values: Array, shape: Sequence[int], kind: str = "tensor") -> Request:
        """The rows of a tensor of numbers, in a message's ``data.tensor`` or another ``kind``. Raises InvalidInput."""
        width = len(self._fields)
        if len(shape) == 1 and width == 1:
            shape = (shape[0], 1)
        if len(shape) != 2 or shape[1] != width or shape[0] < 1:
            known = ", ".join(list(self._known)[:20])
            raise InvalidInput.at(f"data.{kind}.shape", f"[rows, {width}] ({known})", str(list(shape)))
        if values.size != shape[0] * width:
            raise InvalidInput.at(f"data.{kind}.values", f"{shape[0] * width}, as the shape says", str(values.size))
        matrix = values.reshape(shape[0], width)
        is_named = bool(names) and not self._known.keys().isdisjoint(names)
        is_whole = self._is_matrix and not is_named and matrix.dtype == np.float64
        if is_whole and bool(np.isfinite(matrix).all()):
            return Request(shape[0], None, Columns(self._layout, [matrix], shape[0]), kind)
        if is_named:
            if sorted(names) != sorted(self._known):
                raise InvalidInput.at("data.names", f"each of {', '.join(self._known)}", ", ".join(names))
            places = {name: i for i, name in enumerate(names)}
        else:
            places = self._known
        columns = {field.name: _finite(matrix[:, places[field.name]], field, kind) for field in self._fields}
        return Request(shape[0], None, self._layout.from_arrays(columns), kind)


def _finite(values: Array, field: Field, kind: str) -> Array:
    if not field.is_numeric or field.shape:
        raise InvalidInput.at(f"data.{kind}", f"numbers alone; {field.name} is {field.describe()}", "a tensor")
    if bool(np.isinf(values).any()):
        raise InvalidInput.at(field.name, field.describe(), "an infinite number")
    return store(values, field)


class SeldonOutputs:
    """The outputs of a model as one table: the probabilities where it has them, else the prediction."""

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        labelled = tuple(field for field in outputs if is_labelled(field))
        self.fields = labelled[:1] or main_outputs(outputs)
        #: Seldon's servers write one number a row where there is but one.
        self.is_vector = len(self.fields) == 1 and not self.fields[0].shape
        self.is_numeric = all(field.is_numeric and len(field.shape) < 2 for field in self.fields)
        self.names: list[str] = []
        for field in self.fields:
            self.names += list(field.categories or ()) if is_labelled(field) else [field.name]

    def matrix(self, batch: Batch, start: int, stop: int) -> Array:
        """Numbers of rows ``start`` to ``stop``: a vector, or a matrix."""
        parts = [np.asarray(batch.columns[field.name][start:stop], dtype="float64") for field in self.fields]
        if self.is_vector:
            return parts[0]
        return np.concatenate([part.reshape(stop - start, -1) for part in parts], axis=1)

    def texts(self, batch: Batch, start: int, stop: int) -> list[bytes]:
        """One JSON text a row: a value, or a list of them."""
        if len(self.fields) == 1:
            return batch.texts(self.fields[0].name)[start:stop]
        parts = [batch.texts(field.name)[start:stop] for field in self.fields]
        return [b"[" + b",".join(cells) + b"]" for cells in zip(*parts, strict=True)]
