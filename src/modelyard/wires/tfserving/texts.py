"""JSON as TensorFlow Serving writes it: the shortest digits, a point in whole floats, bare NaN and infinities."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard.interfaces import Served
from modelyard.messages import Batch, Message, Request, Response
from modelyard.schema import Array, Field
from modelyard.wires.tfserving.about import cannot, labels_of, regressed
from modelyard.wires.tfserving.examples import ExamplesReader
from modelyard.wires.tfserving.rows import PredictReader

_encode = msgspec.json.encode


def writer(field: Field) -> Callable[[Batch], list[bytes]]:
    """What writes an output of all rows of a batch as one text a row."""
    name, depth = field.name, len(field.shape)
    if field.dtype == "datetime":
        return lambda batch: batch.texts(name)
    if field.dtype == "string":
        plain = _binary if name.endswith("_bytes") else None
        return lambda batch: [
            _encode(value)
            for value in (batch.columns[name].tolist() if plain is None else map(plain, batch.values(name)))
        ]
    values = _list if field.storage in ("float64", "bool") or "int" in field.storage else _shortest
    if depth:
        return lambda batch: [_numbers(value) for value in values(batch.columns[name])]
    return lambda batch: _numbers(values(batch.columns[name]))[1:-1].split(b",")


def _list(column: Array) -> Any:
    return column.tolist()


def _shortest(column: Array) -> Any:
    """Doubles whose shortest digits are those of a smaller float: 0.1, not 0.10000000149."""
    return np.array([float(str(value)) for value in column.ravel()]).reshape(column.shape).tolist()


def _numbers(values: Any) -> bytes:
    """Numbers, and lists of them. Python's own encoder knows NaN and infinities, and is slower."""
    text = _encode(values)
    return json.dumps(values, separators=(",", ":")).encode() if b"null" in text else text


def _binary(value: object) -> object:
    if isinstance(value, list):
        return [_binary(inner) for inner in value]
    return {"b64": base64.b64encode(str(value).encode()).decode()} if value is not None else None


class PredictCodec:
    """Reads and answers ``:predict`` of one loaded version."""

    def __init__(self, served: Served) -> None:
        outputs = served.signature.outputs
        self.decode = PredictReader(served.signature.inputs).decode
        self._writers = [writer(field) for field in outputs]
        keys = [_encode(field.name).replace(b"%", b"%%") for field in outputs]
        #: One row, or one object, of several outputs; a single output goes without its name.
        self._row = b"{" + b",".join([key + b":%b" for key in keys]) + b"}" if len(keys) > 1 else b"%b"

    def encode(self, request: Request, response: Response) -> Message:
        batch, start, stop = response.batch, response.start, response.stop
        if request.form == "columns":
            parts = batch.kept.get((self, "columns")) or self._columns(batch)
            told = tuple([b"[" + b",".join(texts[start:stop]) + b"]" for texts in parts])
            return Message(b'{"outputs":' + self._row % told + b"}")
        rows = batch.kept.get(self) or self._rows(batch)
        return Message(b'{"predictions":[' + b",".join(rows[start:stop]) + b"]}")

    def _columns(self, batch: Batch) -> list[list[bytes]]:
        """The outputs of all rows of a batch, made once for all its requests; and so below."""
        parts = batch.kept[self, "columns"] = [write(batch) for write in self._writers]
        return parts

    def _rows(self, batch: Batch) -> list[bytes]:
        parts = [write(batch) for write in self._writers]
        template = self._row
        rows = parts[0] if len(parts) == 1 else [template % values for values in zip(*parts, strict=True)]
        batch.kept[self] = rows
        return rows


class _ResultsCodec:
    """Reads examples, and answers each with its result."""

    def __init__(self, served: Served, variant: str, output: Field) -> None:
        self.decode = ExamplesReader(served.signature.inputs, variant).decode
        self._write = writer(output)

    def encode(self, request: Request, response: Response) -> Message:
        batch = response.batch
        rows = batch.kept.get(self)
        if rows is None:
            rows = batch.kept[self] = [self._result(text) for text in self._write(batch)]
        return Message(b'{"results":[' + b",".join(rows[response.start : response.stop]) + b"]}")

    def _result(self, text: bytes) -> bytes:
        raise NotImplementedError


class ClassifyCodec(_ResultsCodec):
    """Reads and answers ``:classify``: each label and its score, or the label alone where the model has no scores."""

    def __init__(self, served: Served) -> None:
        labels = labels_of(served)
        if labels is None:
            raise cannot("classify", served)
        super().__init__(served, "classify", labels.field)
        pairs = [b"[" + _encode(name).replace(b"%", b"%%") + b",%b]" for name in labels.names]
        self._pairs = b"[" + b",".join(pairs) + b"]"
        self._has_scores = labels.has_scores

    def _result(self, text: bytes) -> bytes:
        if self._has_scores:
            return self._pairs % tuple(text[1:-1].split(b","))
        return b"[[%b,0.0]]" % (text if text.startswith(b'"') else b'"%b"' % text)


class RegressCodec(_ResultsCodec):
    """Reads and answers ``:regress``."""

    def __init__(self, served: Served) -> None:
        field = regressed(served)
        if field is None:
            raise cannot("regress", served)
        super().__init__(served, "regress", field)
        self._is_whole = not field.storage.startswith("float")

    def _result(self, text: bytes) -> bytes:
        return text + b".0" if self._is_whole else text  # a decimal number, always


CODECS: Mapping[str, type[PredictCodec] | type[ClassifyCodec] | type[RegressCodec]] = {
    "predict": PredictCodec,
    "classify": ClassifyCodec,
    "regress": RegressCodec,
}
