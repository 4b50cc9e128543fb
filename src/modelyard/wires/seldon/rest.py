"""Seldon's protocol over REST."""

from __future__ import annotations

import base64
import email
import email.policy
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
import numpy as np

from modelyard.decoding import AnyDecoder, check_envelope, check_json
from modelyard.errors import InvalidInput, NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import QUERY, Call, Message, Request, Response
from modelyard.schema import Field
from modelyard.wires import Unimplemented, code_of, segments, told
from modelyard.wires.answers import Predictions
from modelyard.wires.seldon import tftensor
from modelyard.wires.seldon.feedback import keep_truth
from modelyard.wires.seldon.rows import SeldonOutputs, SeldonRows

_encode = msgspec.json.encode

_NOTHING = msgspec.Raw(b"")

_PREDICT = (("predict",), ("api", "v1.0", "predictions"), ("api", "v0.1", "predictions"))
_FEEDBACK = (("send-feedback",), ("api", "v1.0", "feedback"), ("api", "v0.1", "feedback"))
_OTHERS = ("transform-input", "transform-output", "route", "aggregate")

#: Code words of what is the caller's fault, and what Seldon calls it.
_BAD_DATA = ("invalid_input", "unsupported", "not_found")


class SeldonWire:
    """See the package. Behind Seldon's ingress, ``/seldon/{namespace}/{name}/...`` means the model called so."""

    name = "seldon"
    prefix = "/api/"

    def match(self, method: str, path: str) -> Call | None:
        if method not in ("GET", "POST"):
            return None
        parts, model = segments(path), None
        if len(parts) > 3 and parts[0] == "seldon":
            model, parts = parts[2], parts[3:]
        if method == "POST" or parts == ("predict",):
            if parts in _PREDICT:
                return Call("predict", model)
            if parts in _FEEDBACK:
                return Call("feedback", model, scope="label", is_slow=True)
        if len(parts) == 1 and parts[0] in _OTHERS:
            return Call("other", model)
        if method == "GET":
            match parts:
                case ("health", "ping" | "status" as which):
                    return Call(which, model, scope="open")
                case ("metadata",) | ("api", "v1.0", "metadata"):
                    return Call("metadata", model)
                case ("seldon.json",):
                    return Call("openapi", model)
        return None

    def codec(self, call: Call, served: Served) -> SeldonCodec:
        return SeldonCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        match call.action:
            case "ping":
                return Message(b"pong", content_type="text/plain; charset=utf-8")
            case "status":
                if not catalog.ready:
                    raise NotReady("not every declared model is ready")
                return Message(b'{"meta":{}}')
            case "feedback":
                feedback = _read_feedback(_json_of(message.body, message.headers))
                if feedback.truth is not None and feedback.truth != _Message():
                    keep_truth(catalog, call.model, feedback.puid, _truths(feedback.truth))
                return Message(b'{"meta":{}}')
            case "metadata":
                return Message(_encode(metadata_of(catalog.find(call.model, None, None), catalog)))
            case "openapi":
                return Message(_encode(_OPENAPI))
        raise Unimplemented("this server predicts: it is no transformer, router or combiner")

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        code = code_of(error)
        reason = "MICROSERVICE_BAD_DATA" if code in _BAD_DATA else "MICROSERVICE_INTERNAL_ERROR"
        status = {"status": 1, "info": told(error), "code": -1, "reason": reason}
        return Message(_encode({"status": status}), code=code)


class _Tensor(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    shape: list[int]
    values: list[float]


class _Data(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    names: list[str] | None = None
    ndarray: msgspec.Raw = _NOTHING
    tensor: _Tensor | None = None
    tftensor: msgspec.Raw = _NOTHING


class _Meta(msgspec.Struct, gc=False):
    puid: str = ""


class _Message(msgspec.Struct, gc=False):
    data: _Data | None = None
    jsonData: msgspec.Raw = _NOTHING
    strData: msgspec.Raw = _NOTHING
    binData: msgspec.Raw = _NOTHING
    customData: msgspec.Raw = _NOTHING
    meta: _Meta | None = None
    status: msgspec.Raw = _NOTHING


_read_message = msgspec.json.Decoder(_Message).decode


class _Feedback(msgspec.Struct, forbid_unknown_fields=True):
    request: _Message | None = None
    response: _Message | None = None
    reward: float = 0.0
    truth: _Message | None = None

    @property
    def puid(self) -> str:
        """Of the answer, or of the request where that brought one."""
        known = [m.meta.puid for m in (self.response, self.request) if m is not None and m.meta is not None]
        return next(filter(None, known), "")


class SeldonCodec:
    """Reads and answers predictions of one loaded version."""

    def __init__(self, served: Served) -> None:
        self._rows = SeldonRows(served.signature.inputs)
        self._any = AnyDecoder.of(served.signature.inputs)
        self._outputs = SeldonOutputs(served.signature.outputs)
        self._predictions = Predictions(served.signature.outputs, served.signature.outputs)
        self._names = _encode(self._outputs.names)

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        text = _json_of(body, headers)
        try:
            message = _read_message(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _explain(text, error) from None
        request = self._read(message, text)
        if message.meta is not None and message.meta.puid:
            request.id = message.meta.puid
        return request

    def _read(self, message: _Message, text: bytes) -> Request:
        data = message.data
        others = [name for name in ("strData", "binData", "customData") if getattr(message, name)]
        if (data is not None) + bool(message.jsonData) + len(others) != 1:
            check_json(text)
            raise InvalidInput.at("body", "exactly one of data, jsonData", "none of them, or several")
        if others:
            raise InvalidInput.at(others[0], "rows: data.ndarray, data.tensor or jsonData", others[0])
        if message.meta is not None or message.status or (data is not None and data.tftensor):
            check_json(text)
        elif data is None:
            check_envelope(text, 1, bytes(message.jsonData))
        elif data.tensor is not None:
            check_envelope(text, 4 + (data.names is not None))
        else:
            check_envelope(text, 2 + (data.names is not None), bytes(data.ndarray))
        if data is None:
            request = self._any.decode(bytes(message.jsonData), "jsonData")
            request.form = "jsonData"
        elif bool(data.ndarray) + (data.tensor is not None) + bool(data.tftensor) != 1:
            raise InvalidInput.at("data", "exactly one of ndarray, tensor, tftensor", "none of them, or several")
        elif data.tftensor:
            values, shape = tftensor.read(bytes(data.tftensor))
            request = self._rows.take(data.names or (), values, shape, "tftensor")
        elif data.tensor is not None:
            values = np.array(data.tensor.values, dtype="float64")
            request = self._rows.take(data.names or (), values, data.tensor.shape)
        else:
            request = self._rows.decode(data.names or (), bytes(data.ndarray), "data.ndarray")
            request.form = "ndarray"
        return request

    def encode(self, request: Request, response: Response) -> Message:
        batch, start, stop = response.batch, response.start, response.stop
        if request.form == "jsonData":
            rows = b'{"jsonData":{"predictions":[' + b",".join(self._predictions.rows(request, response)) + b"]}"
        elif request.form == "tensor" and self._outputs.is_numeric:
            matrix = self._outputs.matrix(batch, start, stop)
            shape, values = _encode(matrix.shape), _encode(matrix.ravel().tolist())
            rows = b'{"data":{"names":%b,"tensor":{"shape":%b,"values":%b}}' % (self._names, shape, values)
        elif request.form == "tftensor" and self._outputs.is_numeric:
            tensor = tftensor.written(self._outputs.matrix(batch, start, stop))
            rows = b'{"data":{"names":%b,"tftensor":%b}' % (self._names, tensor)
        else:
            table = b",".join(self._outputs.texts(batch, start, stop))
            rows = b'{"data":{"names":%b,"ndarray":[%b]}' % (self._names, table)
        return Message(rows + b',"meta":{"puid":%b}}' % _encode(response.id))


def _json_of(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The JSON text of a request, from wherever Seldon's clients put it."""
    kind = headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        return _from_parts(body, kind)
    if kind.startswith("application/x-www-form-urlencoded") and not body.lstrip().startswith(b"{"):
        return parse_qs(body.decode("latin-1")).get("json", [""])[-1].encode()
    if QUERY in headers and not body:
        return parse_qs(headers[QUERY]).get("json", [""])[-1].encode()
    return body


def _from_parts(body: bytes, kind: str) -> bytes:
    """One member a part: JSON, a plain text under ``strData``, bytes under ``binData``."""
    head = b"content-type: " + kind.encode("latin-1", "replace") + b"\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    if not message.is_multipart():
        raise InvalidInput.at("body", "multipart/form-data", "something else, or a part of it")
    members = []
    for part in message.iter_parts():
        name = part.get_param("name", "", header="content-disposition")
        content = part.get_payload(decode=True) or b""
        assert isinstance(content, bytes)
        if name == "binData":
            content = _encode(base64.b64encode(content).decode())
        elif name == "strData":
            content = _encode(content.decode(errors="replace"))
        else:
            check_json(content)
        members.append(_encode(str(name)) + b":" + content)
    return b"{" + b",".join(members) + b"}"


def _read_feedback(text: bytes) -> _Feedback:
    try:
        return msgspec.json.decode(text, type=_Feedback)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _explain(text, error) from None


def _truths(truth: _Message) -> Any:
    """What a message says to be true, as plain values."""
    data = truth.data
    for name in ("jsonData", "strData"):
        if getattr(truth, name):
            return _plain(bytes(getattr(truth, name)), f"truth.{name}")
    if data is not None and data.ndarray:
        return _plain(bytes(data.ndarray), "truth.data.ndarray")
    if data is not None and data.tensor is not None:
        return data.tensor.values
    raise InvalidInput.at("truth", "one of data.ndarray, data.tensor, jsonData, strData", "none of them")


def _plain(text: bytes, path: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.at(path, "JSON", str(error)) from None


def _explain(text: bytes, error: Exception) -> InvalidInput:
    """What is wrong with a text that is no message of Seldon's."""
    try:
        check_json(text)
    except InvalidInput as found:
        return found
    message, _, place = str(error).partition(" - at `")
    return InvalidInput.at(place.rstrip("`").removeprefix("$").lstrip(".") or "body", "a SeldonMessage", message)


def metadata_of(served: Served, catalog: Catalog) -> dict[str, Any]:
    """What ``/metadata`` tells of a model."""
    return {
        "name": served.name,
        "versions": [v.version for v in catalog.models() if v.name == served.name and v.version],
        "platform": served.platform,
        "inputs": [{"messagetype": "ndarray", "schema": _schema(served.signature.inputs)}],
        "outputs": [{"messagetype": "ndarray", "schema": _schema(SeldonOutputs(served.signature.outputs).fields)}],
    }


def _schema(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {"names": [field.name for field in fields], "shape": [len(fields)]}


_OPENAPI: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Seldon Core's protocol, version 1", "version": "1.0"},
    "paths": {
        path: {"post": {"responses": {"200": {"description": "A SeldonMessage"}}}}
        for path in ("/api/v1.0/predictions", "/api/v1.0/feedback")
    },
}
