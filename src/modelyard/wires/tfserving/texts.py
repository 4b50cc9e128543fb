"""JSON as TensorFlow Serving writes it: the shortest digits, a point in whole floats, bare NaN and infinities."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import msgspec
import numpy as np

from modelyard.interfaces import Served
from modelyard.messages import Batch, Message, Request, Response
from modelyard.schema import Array, Field
from modelyard.wires.tfserving.about import cannot, labels_of, regressed
from modelyard.wires.tfserving.examples import ExamplesReader
from modelyard.wires.tfserving.rows import PredictReader

_encode = msgspec.json.encode


def texts(batch: Batch, field: Field) -> list[bytes]:
    """An output of all rows of a batch as one text a row. Made once for all requests of the batch."""
    key = ("tfserving", field.name)
    found: list[bytes] | None = batch.kept.get(key)
    if found is None:
        found = batch.kept[key] = _texts(batch, field)
    return found


def _texts(batch: Batch, field: Field) -> list[bytes]:
    column = batch.columns[field.name]
    if column.dtype.kind == "f" and field.dtype != "datetime":
        values = _shortest(column).tolist()
        return [_floats(value) for value in values] if field.shape else _floats(values)[1:-1].split(b",")
    if field.dtype == "string" and field.name.endswith("_bytes"):
        return [_encode(_binary(value)) for value in batch.values(field.name)]
    return batch.texts(field.name)


def _shortest(column: Array) -> Array:
    """Doubles whose shortest digits are those of a smaller float: 0.1, not 0.10000000149."""
    if column.dtype == "float64":
        return column
    return np.array([float(str(value)) for value in column.ravel()]).reshape(column.shape)


def _floats(values: object) -> bytes:
    """Floats, and lists of them. Python's own encoder knows NaN and infinities, and is slower."""
    text = _encode(values)
    return json.dumps(values, separators=(",", ":")).encode() if b"null" in text else text


def _binary(value: object) -> object:
    if isinstance(value, list):
        return [_binary(inner) for inner in value]
    return {"b64": base64.b64encode(str(value).encode()).decode()} if value is not None else None


class PredictCodec:
    """Reads and answers ``:predict`` of one loaded version."""

    def __init__(self, served: Served) -> None:
        self.decode = PredictReader(served.signature.inputs).decode
        self._outputs = served.signature.outputs
        members = [_encode(field.name).replace(b"%", b"%%") + b":%b" for field in self._outputs]
        #: One row of several outputs; a single output goes without its name.
        self._row = b"{" + b",".join(members) + b"}" if len(members) > 1 else b""

    def encode(self, request: Request, response: Response) -> Message:
        batch, start, stop = response.batch, response.start, response.stop
        if request.form == "columns":
            return Message(b'{"outputs":' + self._columns(batch, start, stop) + b"}")
        rows: list[bytes] = batch.kept.get(self) or self._render(batch)
        return Message(b'{"predictions":[' + b",".join(rows[start:stop]) + b"]}")

    def _render(self, batch: Batch) -> list[bytes]:
        parts = [texts(batch, field) for field in self._outputs]
        rows = [self._row % values for values in zip(*parts, strict=True)] if self._row else parts[0]
        batch.kept[self] = rows
        return rows

    def _columns(self, batch: Batch, start: int, stop: int) -> bytes:
        tensors = [b"[" + b",".join(texts(batch, field)[start:stop]) + b"]" for field in self._outputs]
        if len(tensors) == 1:
            return tensors[0]
        named = zip(self._outputs, tensors, strict=True)
        return b"{" + b",".join([_encode(field.name) + b":" + tensor for field, tensor in named]) + b"}"


class ClassifyCodec:
    """Reads and answers ``:classify``: each label and its score, or the label alone where the model has no scores."""

    def __init__(self, served: Served) -> None:
        labels = labels_of(served)
        if labels is None:
            raise cannot("classify", served)
        self.decode = ExamplesReader(served.signature.inputs, "classify").decode
        self._field = labels.field
        self._names = [_encode(name) for name in labels.names]

    def encode(self, request: Request, response: Response) -> Message:
        rows: list[bytes] = response.batch.kept.get(self) or self._render(response.batch)
        return Message(b'{"results":[' + b",".join(rows[response.start : response.stop]) + b"]}")

    def _render(self, batch: Batch) -> list[bytes]:
        found = texts(batch, self._field)
        if self._names:
            rows = [self._scores(text) for text in found]
        else:
            rows = [b"[[%b,0.0]]" % (text if text[:1] == b'"' else b'"%b"' % text) for text in found]
        batch.kept[self] = rows
        return rows

    def _scores(self, text: bytes) -> bytes:
        scores = zip(self._names, text[1:-1].split(b","), strict=True)
        return b"[" + b",".join([b"[%b,%b]" % pair for pair in scores]) + b"]"


class RegressCodec:
    """Reads and answers ``:regress``."""

    def __init__(self, served: Served) -> None:
        field = regressed(served)
        if field is None:
            raise cannot("regress", served)
        self.decode = ExamplesReader(served.signature.inputs, "regress").decode
        self._field = field
        self._is_float = field.storage.startswith("float")

    def encode(self, request: Request, response: Response) -> Message:
        rows = texts(response.batch, self._field)[response.start : response.stop]
        between = b"," if self._is_float else b".0,"  # whole numbers, too, are told as decimal ones
        return Message(b'{"results":[' + between.join(rows) + between[:-1] + b"]}")


CODECS: Mapping[str, type[PredictCodec] | type[ClassifyCodec] | type[RegressCodec]] = {
    "predict": PredictCodec,
    "classify": ClassifyCodec,
    "regress": RegressCodec,
}
