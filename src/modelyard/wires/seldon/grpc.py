"""Seldon's protocol over gRPC: the services ``Seldon`` and ``Model`` of the package ``seldon.protos``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from modelyard.decoding import AnyDecoder
from modelyard.errors import InvalidInput
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call, Message, Request, Response
from modelyard.wires import Unimplemented, code_of, told
from modelyard.wires.answers import Predictions
from modelyard.wires.seldon.feedback import keep_truth
from modelyard.wires.seldon.protos import messages
from modelyard.wires.seldon.rest import metadata_of
from modelyard.wires.seldon.rows import SeldonOutputs, SeldonRows

_CALLS = {
    "Seldon/Predict": Call("predict"),
    "Model/Predict": Call("predict"),
    "Seldon/SendFeedback": Call("feedback", scope="label", is_slow=True),
    "Model/SendFeedback": Call("feedback", scope="label", is_slow=True),
    "Generic/SendFeedback": Call("feedback", scope="label", is_slow=True),
    "Seldon/ModelMetadata": Call("metadata"),
    "Model/Metadata": Call("metadata"),
}

_PREFIX = "/seldon.protos."


class SeldonGrpcWire:
    """See the module."""

    name = "seldon-grpc"
    prefix = _PREFIX

    def match(self, method: str, path: str) -> Call | None:
        if method != "POST" or not path.startswith(_PREFIX):
            return None
        return _CALLS.get(path.removeprefix(_PREFIX)) or Call("other")

    def codec(self, call: Call, served: Served) -> SeldonGrpcCodec:
        return SeldonGrpcCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "feedback":
            feedback = _parsed("Feedback", message.body)
            if feedback.truth.WhichOneof("data_oneof"):
                puid = feedback.response.meta.puid or feedback.request.meta.puid
                keep_truth(catalog, None, puid, _truths(feedback.truth))
            return _answer(messages().SeldonMessage())
        if call.action == "metadata":
            wanted = _parsed("SeldonModelMetadataRequest", message.body).name
            return _answer(_metadata(metadata_of(catalog.find(wanted or None, None, None), catalog)))
        raise Unimplemented("this server predicts: it is no transformer, router, combiner or graph")

    def descriptors(self) -> Sequence[bytes]:
        return messages().files

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(b"", {"grpc-message": told(error)}, code_of(error), "application/grpc")


def _truths(truth: Any) -> Any:
    """What a message says to be true, as plain values."""
    kind = truth.WhichOneof("data_oneof")
    if kind == "jsonData":
        return _plain(truth.jsonData, "truth.jsonData")
    if kind == "strData":
        return truth.strData
    if kind == "data" and truth.data.WhichOneof("data_oneof") == "tensor":
        return list(truth.data.tensor.values)
    if kind == "data" and truth.data.WhichOneof("data_oneof") == "ndarray":
        return [_plain(value, f"truth.data.ndarray[{i}]") for i, value in enumerate(truth.data.ndarray.values)]
    raise InvalidInput.at("truth", "one of data.ndarray, data.tensor, jsonData, strData", kind)


def _answer(message: Any) -> Message:
    return Message(message.SerializeToString(), content_type="application/grpc")


def _parsed(name: str, body: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return getattr(messages(), name).FromString(body)
    except DecodeError as error:
        raise InvalidInput.at("message", f"a {name} in protobuf", str(error)) from None


def _metadata(known: dict[str, Any]) -> Any:
    filled = messages().SeldonModelMetadata(name=known["name"], versions=known["versions"], platform=known["platform"])
    for side, into in (("inputs", filled.inputs), ("outputs", filled.outputs)):
        for one in known[side]:
            into.add(messagetype=one["messagetype"], schema=_value_of(one["schema"]))
    return filled


def _value_of(plain: Any) -> Any:
    """A plain value as a message."""
    value = messages().Value()
    if plain is None:
        value.null_value = 0
    elif isinstance(plain, bool):
        value.bool_value = plain
    elif isinstance(plain, (int, float)):
        value.number_value = plain
    elif isinstance(plain, str):
        value.string_value = plain
    elif isinstance(plain, dict):
        value.struct_value.SetInParent()
        for key, inside in plain.items():
            value.struct_value.fields[key].CopyFrom(_value_of(inside))
    else:
        value.list_value.values.extend(map(_value_of, plain))
    return value


def _plain(value: Any, path: str) -> Any:
    """A message as a plain value; a whole number is an integer again, which the protocol cannot say."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number: float = value.number_value
        if number - number != 0:
            raise InvalidInput.at(path, "a finite number", str(number), hint="send null for a missing value")
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "struct_value":
        return {key: _plain(inside, f"{path}.{key}") for key, inside in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(inside, f"{path}[{i}]") for i, inside in enumerate(value.list_value.values)]
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


class SeldonGrpcCodec:
    """Reads and answers predictions of one loaded version."""

    def __init__(self, served: Served) -> None:
        self._rows = SeldonRows(served.signature.inputs)
        self._any = AnyDecoder.of(served.signature.inputs)
        self._outputs = SeldonOutputs(served.signature.outputs)
        self._predictions = Predictions(served.signature.outputs, served.signature.outputs)

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        message = _parsed("SeldonMessage", body)
        kind = message.WhichOneof("data_oneof") or "nothing"
        if kind == "data":
            request = self._read(message.data)
        elif kind == "jsonData":
            request = self._any.decode(msgspec.json.encode(_plain(message.jsonData, "jsonData")), "jsonData")
            request.form = "jsonData"
        else:
            raise InvalidInput.at("message", "data.ndarray, data.tensor or jsonData", kind)
        request.id = message.meta.puid
        return request

    def _read(self, data: Any) -> Request:
        kind = data.WhichOneof("data_oneof") or "nothing"
        if kind == "tensor":
            values = np.fromiter(data.tensor.values, dtype="float64", count=len(data.tensor.values))
            return self._rows.take(data.names, values, data.tensor.shape)
        if kind != "ndarray":
            raise InvalidInput.at("data", "ndarray or tensor", kind)
        lists = [_plain(value, f"data.ndarray[{i}]") for i, value in enumerate(data.ndarray.values)]
        request = self._rows.decode(data.names, msgspec.json.encode(lists), "data.ndarray")
        request.form = "ndarray"
        return request

    def encode(self, request: Request, response: Response) -> Message:
        batch, start, stop = response.batch, response.start, response.stop
        answer = messages().SeldonMessage()
        answer.meta.puid = response.id
        if request.form == "jsonData":
            rows = msgspec.json.decode(b"[" + b",".join(self._predictions.rows(request, response)) + b"]")
            answer.jsonData.CopyFrom(_value_of({"predictions": rows}))
            return _answer(answer)
        answer.data.names.extend(self._outputs.names)
        if request.form == "tensor" and self._outputs.is_numeric:
            matrix = self._outputs.matrix(batch, start, stop)
            answer.data.tensor.shape.extend(matrix.shape)
            answer.data.tensor.values.extend(matrix.ravel().tolist())
        else:
            texts = msgspec.json.decode(b"[" + b",".join(self._outputs.texts(batch, start, stop)) + b"]")
            answer.data.ndarray.values.extend(map(_value_of, texts))
        return _answer(answer)
