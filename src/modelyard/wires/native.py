"""Modelyard's own wire: plain JSON over paths that read like what they do.

    POST /predict                                     a server of one model
    POST /models/{model}/predict
    POST /models/{model}/versions/{version}/predict
    POST /models/{model}/aliases/{alias}/predict
    GET  /   /models   /models/{model}

The answer mirrors the form of the request: a record, a list of records, or columns. NaN and infinite outputs are
written as null, and ``warnings`` says so.

Rows may also come as CSV with a header, as one JSON record a line, or in columnar form (Arrow, Parquet), as the
content type says; any other content type is read as JSON. The answer is JSON unless ``Accept`` asks for an Arrow
stream, CSV or a record a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import numpy as np

from modelyard import __version__
from modelyard.decoding import CsvDecoder, RowDecoder
from modelyard.decoding.arrow import KINDS, STREAM, ArrowDecoder, stream_of
from modelyard.errors import InvalidInput, ModelyardError
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.wires import code_of, segments
from modelyard.wires.answers import RowTexts, csv_header, csv_of, is_labelled

_encode = msgspec.json.encode

JSON, CSV = "application/json", "text/csv"
LINES = ("application/jsonlines", "application/x-ndjson")

#: What requests accept that take JSON.
_USUAL = frozenset({"*/*", JSON})

#: Forms of answers that hold the rows alone, by their media types.
_FORMS = frozenset({STREAM, CSV, *LINES})


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
        "status": "alive",  # what KServe's client asks of this path
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
        #: Every name of an output says what it is, so that they need no object of their own.
        self._is_plain = bool(self._outputs) and {field.name for field in self._outputs} <= {
            "prediction",
            "probabilities",
        }
        self._texts = RowTexts.of(self._outputs, bare=False)
        about = {"model": served.name, "version": version_of(served)}
        known = _encode({key: value for key, value in about.items() if value is not None})[1:-1]
        about_bytes = known.replace(b"%", b"%%")
        self._tail = b"," + about_bytes + b',"request_id":"%b"}'

        arrow = ArrowDecoder(served.signature.inputs)
        self._readers: dict[str, Callable[[bytes], Request]] = {
            CSV: CsvDecoder.of(served.signature.inputs).decode,
            **dict.fromkeys(LINES, self._lines),
            **{kind: partial(arrow.decode, kind=kind) for kind in KINDS},
        }

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        kind = headers.get("content-type", JSON)
        if kind == JSON:
            request = self._rows(body)
        else:
            request = self._readers.get(kind.partition(";")[0].strip().lower(), self._rows)(body)
        accept = headers.get("accept", JSON)
        if accept not in _USUAL:
            request.form = _form(accept) or request.form
        return request

    def _lines(self, body: bytes) -> Request:
        """One record a line; blank lines are no rows."""
        lines = [line for line in body.split(b"\n") if line.strip()]
        request = self._rows(b"[" + b",".join(lines) + b"]")
        if request.rows != len(lines):
            raise InvalidInput.at("body", "one record a line", f"{request.rows} records on {len(lines)} lines")
        request.form = "records"
        return request

    def encode(self, request: Request, response: Response) -> Message:
        batch = response.batch
        if request.form in _FORMS:
            return self._table(request.form, response)
        if request.form == "columns":
            body = self._columns(batch, response.start, response.stop)
        else:
            rows = self._texts.render(batch)
            if request.form == "record":
                body = rows[response.start][:-1] if self._is_plain else b'{"prediction":' + rows[response.start]
            elif self._is_plain:
                body = b'{"predictions":[' + b",".join(rows[response.start : response.stop]) + b"]"
            else:
                inside = b'},{"prediction":'.join(rows[response.start : response.stop])
                body = b'{"predictions":[{"prediction":' + inside + b"}]"
        if batch.has_gaps:
            body += self._warnings(response)
        return Message(body + self._tail % response.id.encode())

    def _table(self, form: str, response: Response) -> Message:
        """The rows alone, in a form for programs that read tables."""
        batch, start, stop = response.batch, response.start, response.stop
        if form == STREAM:
            body = stream_of(response.columns(), [field.name for field in self._outputs])
        elif form == CSV:
            body = csv_header(self._outputs) + csv_of(batch, self._outputs, start, stop)
        else:
            body = b"\n".join(self._texts.render(batch)[start:stop]) + b"\n"
        return Message(body, content_type=form)

    def _columns(self, batch: Batch, start: int, stop: int) -> bytes:
        members = []
        for field in self._outputs:
            key = _encode(field.name)
            if is_labelled(field):
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


def _form(accept: str) -> str | None:
    """The first of the media types in ``accept`` that rows can be answered in; None for JSON."""
    for part in accept.split(","):
        kind, _, parameters = part.strip().lower().partition(";")
        if kind in ("*/*", "application/*", JSON):
            return None
        if kind in _FORMS and parameters.replace(" ", "") not in ("q=0", "q=0.0"):
            return kind
    return None
