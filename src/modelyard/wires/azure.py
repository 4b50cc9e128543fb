"""Azure ML's inference server: ``/score``, ``/`` for its probes, ``/swagger.json``.

``POST /score`` takes our own forms (a record, records, columns), lists in the signature's order, and what Azure's own
scoring scripts take: ``{"input_data": {"columns": ..., "data": ...}}``, ``{"data": [...]}`` and ``{"Inputs": {"data":
[...]}}``, each answered as there. ``GET /score?x1=1.5&x2=2`` is one row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import msgspec

from modelyard import __version__
from modelyard.decoding import AnyDecoder, CsvDecoder, EnvelopeDecoder, SplitDecoder
from modelyard.errors import InvalidInput, NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import QUERY, Call, Message, Request, Response
from modelyard.schema import Field
from modelyard.wires import code_of, told
from modelyard.wires.answers import Predictions, RowTexts, main_outputs

_encode = msgspec.json.encode

_TEXT = "text/plain; charset=utf-8"

_SERVER = f"modelyard/{__version__}"

#: How each of Azure's own forms is answered.
_ANSWERS = {"input_data": b"[%b]", "data": b'{"result":[%b]}', "Inputs": b'{"Results":[%b]}'}


class AzureWire:
    """See the module."""

    name = "azure"
    prefix = "/score"

    def match(self, method: str, path: str) -> Call | None:
        match method, path:
            case "POST" | "GET", "/score":
                return Call("predict", variant=method)
            case "OPTIONS", "/score":
                return Call("options", scope="open")
            case "GET", "/":
                return Call("root", scope="open")
            case "GET", "/swagger.json":
                return Call("swagger")
        return None

    def codec(self, call: Call, served: Served) -> AzureCodec:
        return AzureCodec(served, call.variant)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "options":
            return Message(b"", {"allow": "GET, POST, OPTIONS"}, content_type=_TEXT)
        if call.action == "swagger":
            return _swagger(message, catalog)
        if not catalog.ready:
            raise NotReady("not every declared model is ready")
        # KServe's clients ask the same path for JSON.
        if message.headers.get("accept", "").startswith("application/json"):
            return Message(b'{"status":"alive"}')
        return Message(b"Healthy", content_type=_TEXT)

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(_encode({"message": told(error)}), {"x-ms-request-id": request_id}, code_of(error))


class AzureCodec:
    """Reads and answers scoring requests of one loaded version."""

    def __init__(self, served: Served, method: str) -> None:
        fields, outputs = served.signature.inputs, served.signature.outputs
        self._is_query = method == "GET"
        self._names = frozenset(field.name for field in fields)
        self._any, self._csv = AnyDecoder.of(fields), CsvDecoder.of(fields)
        self._split = SplitDecoder(fields)
        forms = [name for name in _ANSWERS if name not in self._names]
        #: A model whose own column is called so means it.
        self._marks = [f'"{name}"'.encode() for name in forms]
        self._envelopes = EnvelopeDecoder(fields, rows=tuple(forms), others=("params", "GlobalParameters", "method"))
        self._inner = EnvelopeDecoder(fields, rows=("data", "input1", "WebServiceInput0"))
        self._main = RowTexts.of(main_outputs(outputs))
        self._predictions = Predictions(outputs, outputs)

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        request = self._from_query(headers.get(QUERY, "")) if self._is_query else self._from_body(body)
        mine = headers.get("x-ms-client-request-id") or headers.get("x-ms-request-id", "")
        request.form = "\n".join((request.form, mine, headers.get("trace-id", "")))
        return request

    def _from_query(self, query: str) -> Request:
        """One row, each column a parameter."""
        pairs = parse_qsl(query, keep_blank_values=True)
        text = io.StringIO()
        csv.writer(text).writerows(zip(*pairs, strict=True))
        return self._csv.decode(text.getvalue().encode())

    def _from_body(self, body: bytes) -> Request:
        if not any(mark in body for mark in self._marks):
            return self._any.decode(body)
        form, text = self._envelopes.open(body)
        if form == "Inputs":
            request, _ = self._inner.decode(text)
        elif form == "input_data" and self._is_split(text):
            request = self._split.decode(text, form)
        elif form:
            request = self._any.decode(text, form)
        else:
            return self._any.decode(body)
        request.form = form
        return request

    def _is_split(self, text: bytes) -> bool:
        return "data" not in self._names and text.lstrip().startswith(b"{") and b'"data"' in text

    def encode(self, request: Request, response: Response) -> Message:
        form, mine, trace = request.form.split("\n")
        answer = _ANSWERS.get(form)
        if answer is None:
            message = self._predictions.answer(request, response)
        else:
            rows = self._main.render(response.batch)[response.start : response.stop]
            message = Message(answer % b",".join(rows))
        headers = {"x-ms-request-id": mine or response.id, "x-ms-server-version": _SERVER}
        if mine:
            headers["x-ms-client-request-id"] = mine
        if trace:
            headers["trace-id"] = trace
        message.headers = headers
        return message


def _swagger(message: Message, catalog: Catalog) -> Message:
    """The description of ``/score``, as Swagger 2.0 or OpenAPI 3.0."""
    version = parse_qs(message.headers.get(QUERY, "")).get("version", ["2"])[-1]
    if version not in ("2", "3"):
        raise InvalidInput.at("version", "2 or 3", version[:40])
    served = catalog.find(None, None, None)
    row = {
        "type": "object",
        "properties": {field.name: _schema(field) for field in served.signature.inputs},
        "required": [field.name for field in served.signature.inputs],
    }
    body = {"type": "object", "properties": {"data": {"type": "array", "items": row}}, "required": ["data"]}
    result = {"type": "object", "properties": {"result": {"type": "array", "items": {}}}}
    about: dict[str, Any] = {"info": {"title": served.name, "version": served.version or "1"}}
    if version == "2":
        about = {"swagger": "2.0", **about, "consumes": ["application/json"], "produces": ["application/json"]}
        taken: dict[str, Any] = {"parameters": [{"in": "body", "name": "body", "required": True, "schema": body}]}
        answers: dict[str, Any] = {"200": {"description": "The predictions", "schema": result}}
        healthy: dict[str, Any] = {"description": "Healthy", "schema": {"type": "string"}}
    else:
        about = {"openapi": "3.0.3", **about}
        taken = {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}
        answers = {"200": {"description": "The predictions", "content": {"application/json": {"schema": result}}}}
        healthy = {"description": "Healthy", "content": {"text/plain": {"schema": {"type": "string"}}}}
    about["paths"] = {
        "/": {"get": {"operationId": "ServiceHealthCheck", "responses": {"200": healthy}}},
        "/score": {"post": {"operationId": "RunMLService", **taken, "responses": answers}},
    }
    return Message(_encode(about))


def _schema(field: Field) -> dict[str, Any]:
    kinds = {"string": "string", "datetime": "string", "bool": "boolean"}
    kind = kinds.get(field.dtype, "number" if field.dtype.startswith("float") else "integer")
    schema: dict[str, Any] = {"type": kind}
    for _ in field.shape:
        schema = {"type": "array", "items": schema}
    return schema
