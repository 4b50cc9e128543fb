"""Modelyard's own wire: plain JSON over paths that read like what they do.

    POST /predict                                     a server of one model
    POST /models/{model}/predict
    POST /models/{model}/versions/{version}/predict
    POST /models/{model}/aliases/{alias}/predict
    GET  /   /models   /models/{model}

The answer mirrors the form of the request: a record, a list of records, or columns. NaN and infinite outputs are
written as null, and ``warnings`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard import __version__
from modelyard.decoding import RowDecoder
from modelyard.errors import InvalidInput, ModelyardError
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.schema import Field
from modelyard.wires import code_of, segments

_encode = msgspec.json.encode


class NativeWire:
    """See the module."""

    name = "native"
    prefix = ""

    def match(self, method: str, path: str) -> Call | None:
        parts = segments(path)
        if method == "POST":
            match parts:
                case ("predict",):
                    return Call("predict")
                case ("models", model, "predict"):
                    return Call("predict", model)
                case ("models", model, "versions", version, "predict"):
                    return Call("predict", model, version)
                case ("models", model, "aliases", alias, "predict"):
                    return Call("predict", model, None, alias)
        elif method == "GET":
            match parts:
                case ():
                    return Call("index")
                case ("models",):
                    return Call("models")
                case ("models", model):
                    return Call("model", model)
        return None

    def codec(self, call: Call, served: Served) -> NativeCodec:
        return NativeCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "index":
            return Message(_encode(_index(catalog)))
        if call.action == "models":
            names = dict.fromkeys(served.name for served in catalog.models())
            return Message(_encode({"models": [_describe(name, catalog) for name in names]}))
        name = catalog.find(call.model, None, None).name
        return Message(_encode(_describe(name, catalog)))

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        code = code_of(error)
        told: dict[str, Any] = {"code": code, "message": "something went wrong inside the server"}
        if isinstance(error, ModelyardError):
            told = {"code": code, "message": error.message}
            if error.hint:
                told["hint"] = error.hint
            if isinstance(error, InvalidInput):
                told["problems"] = error.problems
        return Message(_encode({"error": told, "request_id": request_id}), code=code)


def _index(catalog: Catalog) -> dict[str, Any]:
    names = dict.fromkeys(served.name for served in catalog.models())
    return {
        "modelyard": __version__,
        "ready": catalog.ready,
        "models": {name: f"/models/{name}" for name in names},
        "links": {
            "models": "/models", "openapi": "/openapi.json", "live": "/health/live", "ready": "/health/ready",
            "metrics": "/metrics",
        },
    }  # fmt: skip


def _describe(name: str, catalog: Catalog) -> dict[str, Any]:
    versions = [served for served in catalog.models() if served.name == name]
    return {
        "name": name,
        "predict": f"/models/{name}/predict",
        "versions": [
            {
                "version": version_of(served),
                "aliases": served.aliases,
                "digest": served.digest,
                "platform": served.platform,
                "task": served.task,
                "signature": served.signature,
                "metrics": served.metrics,
            }
            for served in versions
        ],
    }


def version_of(served: Served) -> int | str | None:
    """A version as this wire writes it: a number, or null where nothing has numbered it."""
    return int(served.version) if served.version.isdigit() else served.version or None


class NativeCodec:
    """Reads and answers requests of one loaded version. Templates of the answer are made once, here."""

    def __init__(self, served: Served) -> None:
        self._rows = RowDecoder.of(served.signature.inputs).decode
        self._outputs = served.signature.outputs
        row = [f"{_escaped(field.name)}:{_template(field)}" for field in self._outputs]
        is_plain = bool(row) and {field.name for field in self._outputs} <= {"prediction", "probabilities"}
        #: The outputs of one row, not closed: ``{"prediction":%b,"probabilities":{"no":%b,"yes":%b}``.
        text = ",".join(row)
        self._row = ("{" + text if is_plain else '{"prediction":{' + text + "}").encode()
        self._is_plain = is_plain
        about = {"model": served.name, "version": version_of(served)}
        known = _encode({key: value for key, value in about.items() if value is not None})[1:-1]
        about_bytes = known.replace(b"%", b"%%")
        self._tail = b"," + about_bytes + b',"request_id":"%b"}'

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        return self._rows(body)

    def encode(self, request: Request, response: Response) -> Message:
        batch = response.batch
        if request.form == "columns":
            body = self._columns(batch, response.start, response.stop)
        else:
            rows: list[bytes] = batch.kept.get(self) or self._render(batch)
            if request.form == "record":
                body = rows[response.start]
            else:
                body = b'{"predictions":[' + b"},".join(rows[response.start : response.stop]) + b"}]"
        if batch.has_gaps:
            body += self._warnings(response)
        return Message(body + self._tail % response.id.encode())

    def _render(self, batch: Batch) -> list[bytes]:
        """The outputs of every row of a batch as JSON members, made once for all its requests."""
        parts: list[list[bytes]] = []
        for field in self._outputs:
            if _is_labelled(field):
                cells, width = batch.cells(field.name), len(field.categories or ())
                parts.extend(cells[i::width] for i in range(width))
            else:
                parts.append(batch.texts(field.name))
        template = self._row
        rows = [template % values for values in zip(*parts, strict=True)]
        batch.kept[self] = rows
        return rows

    def _columns(self, batch: Batch, start: int, stop: int) -> bytes:
        members = []
        for field in self._outputs:
            key = _encode(field.name)
            if _is_labelled(field):
                labels = field.categories or ()
                cells, width = batch.cells(field.name)[start * len(labels) : stop * len(labels)], len(labels)
                inside = b",".join(
                    _encode(label) + b":[" + b",".join(cells[i::width]) + b"]" for i, label in enumerate(labels)
                )
                members.append(key + b":{" + inside + b"}")
            else:
                members.append(key + b":[" + b",".join(batch.texts(field.name)[start:stop]) + b"]")
        text = b",".join(members)
        return b"{" + text if self._is_plain else b'{"prediction":{' + text + b"}"

    def _warnings(self, response: Response) -> bytes:
        columns = response.columns()
        told = [
            f"{name} is not a finite number in {rows} of {columns.rows} rows, written as null"
            for name, values in columns.items()
            if values.dtype.kind == "f"
            and (rows := int((~np.isfinite(values)).reshape(columns.rows, -1).any(axis=1).sum()))
        ]
        return b',"warnings":' + _encode(told) if told else b""


def _is_labelled(field: Field) -> bool:
    """Whether the last axis of an output is named by labels, so that it is an object in JSON."""
    return field.shape == (len(field.categories or ()),) and field.is_numeric and bool(field.shape)


def _escaped(text: str) -> str:
    """A text as JSON inside a template of ``%``."""
    return _encode(text).decode().replace("%", "%%")


def _template(field: Field) -> str:
    if not _is_labelled(field):
        return "%b"
    labels = (_escaped(label) for label in field.categories or ())
    return "{" + ",".join(f"{label}:%b" for label in labels) + "}"
