"""The Open Inference Protocol over gRPC: ``open_inference_grpc.proto``, and what stock stubs take for granted."""

from __future__ import annotations

import struct
from typing import Any

from modelyard.conformance.client import Answer, Request
from modelyard.conformance.oip_binary import unpack
from modelyard.conformance.oip_model import PACKED, OipModel, Tensor
from modelyard.conformance.protobuf import decode, encode, numbers, varint
from modelyard.conformance.rules import Expectation, Rule, Skip, alike, failed, refused, status, that

_SERVICE = "/inference.GRPCInferenceService/"
_PROTO = "open_inference_grpc.proto."
_HEALTH = "grpc.health.v1: health.proto."
_CONTENTS = "open_inference_grpc.proto: raw_input_contents are for all inputs, and instead of contents."

#: Datatype -> the field of InferTensorContents that has its values.
_FIELDS = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5,
    "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip


def _call(method: str, *fields: tuple[int, Any]) -> Request:
    return Request("POST", _SERVICE + method, encode(fields))


def _health(method: str, service: str = "", *, streams: bool = False) -> Request:
    return Request("POST", f"/grpc.health.v1.Health/{method}", encode([(1, service)]), streams=streams)


def _tensor(tensor: Tensor, *, is_typed: bool, **changes: Any) -> list[tuple[int, Any]]:
    told = {"input_name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape} | changes
    fields = [(1, told["input_name"]), (2, told["datatype"]), (3, b"".join(map(varint, told["shape"])))]
    return [*fields, (5, _contents(tensor))] if is_typed else fields


def _contents(tensor: Tensor) -> list[tuple[int, Any]]:
    if tensor.datatype not in _FIELDS:
        raise Skip(f"contents have no field for {tensor.datatype}")
    number = _FIELDS[tensor.datatype]
    if tensor.datatype == "BYTES":
        return [(number, str(value)) for value in tensor.data]
    if tensor.datatype in ("FP32", "FP64"):
        return [(number, struct.pack(f"<{len(tensor.data)}{PACKED[tensor.datatype]}", *tensor.data))]
    return [(number, b"".join(varint(int(value)) for value in tensor.data))]


def _infer(
    model: OipModel, *more: tuple[int, Any], is_typed: bool = False, raw: list[bytes] | None = None, name: str = "",
    **first: Any,
) -> Request:  # fmt: skip
    """The good request, raw or typed; ``first`` changes the first input."""
    fields: list[tuple[int, Any]] = [(1, name or model.model), *more]
    for i, tensor in enumerate(model.tensors):
        fields.append((5, _tensor(tensor, is_typed=is_typed, **({} if i else first))))
    parts = [] if is_typed else [tensor.raw for tensor in model.tensors]
    fields += [(7, part) for part in (parts if raw is None else raw)]
    return _call("ModelInfer", *fields)


def _text(answer: Answer, number: int) -> str:
    found = decode(answer.body).get(number, [b""])[-1]
    return bytes(found).decode()


def _says(number: int, expected: Any, name: str) -> Expectation:
    def expect(answer: Answer, model: OipModel) -> str | None:
        got, right = _text(answer, number), expected(model)
        return None if got == right else f"{name}: expected {right!r}, got {got!r}"

    return expect


def _true(answer: Answer, _model: OipModel) -> bool:
    return decode(answer.body).get(1) == [1]


def _same(answer: Answer, model: OipModel) -> str | None:
    """The outputs are those of REST, raw or typed."""
    told = decode(answer.body)
    raw: list[bytes] = told.get(6, [])
    got: dict[str, list[Any]] = {}
    try:
        for i, each in enumerate(told.get(5, [])):
            output = decode(each)
            name, datatype = output[1][0].decode(), output[2][0].decode()
            got[name] = unpack(datatype, raw[i]) if raw else _typed(datatype, output)
    except (ValueError, KeyError, IndexError, struct.error) as error:
        return f"no outputs in the answer ({type(error).__name__}: {error})"
    return None if alike(got, model.values) else f"expected {model.values} as over REST, got {got}"


def _typed(datatype: str, output: dict[int, list[Any]]) -> list[Any]:
    values = decode(output[5][0]).get(_FIELDS[datatype], [])
    if datatype == "BYTES":
        return [value.decode() for value in values]
    if datatype in ("FP32", "FP64"):
        return unpack(datatype, b"".join(values))
    found = numbers(values)
    return [bool(each) for each in found] if datatype == "BOOL" else found


def _inputs_as_over_rest(answer: Answer, model: OipModel) -> str | None:
    got = [decode(each)[1][0].decode() for each in decode(answer.body).get(4, [])]
    expected = [each["name"] for each in model.metadata.get("inputs") or []]
    return None if got == expected else f"inputs: expected {expected} as over REST, got {got}"


R = Rule[OipModel]
_RAW_SHORT = [b"\0\0\0"]

RULES: list[R] = [
    R("grpc-live", "ServerLive is live.", _PROTO, lambda m: _call("ServerLive"), [status(200), that(_true, "live")]),
    R("grpc-ready", "ServerReady is ready.", _PROTO, lambda m: _call("ServerReady"),
      [status(200), that(_true, "ready")]),
    R("grpc-health", "grpc.health.v1 says SERVING.", "Orchestrators probe it.", lambda m: _health("Check"),
      [status(200), that(_true, "SERVING")], "should"),
    R("grpc-health-unknown", "Health of an unknown service is NOT_FOUND.", _HEALTH,
      lambda m: _health("Check", "no-such-service"), [status(404)], "should"),
    R("grpc-health-watch", "Who watches is told SERVING at once.", _HEALTH, lambda m: _health("Watch", streams=True),
      [status(200), that(_true, "SERVING")], "should"),
    R("grpc-health-watch-unknown", "Who watches an unknown service is told SERVICE_UNKNOWN.", _HEALTH,
      lambda m: _health("Watch", "no-such-service", streams=True),
      [status(200), that(lambda a, m: decode(a.body).get(1) == [3], "SERVICE_UNKNOWN")], "should"),
    R("grpc-server-metadata", "ServerMetadata has a name.", _PROTO, lambda m: _call("ServerMetadata"),
      [status(200), that(lambda a, m: bool(_text(a, 1)), "a name")]),
    R("grpc-model-ready", "ModelReady is ready.", _PROTO, lambda m: _call("ModelReady", (1, m.model)),
      [status(200), that(_true, "ready")]),
    R("grpc-model-metadata", "ModelMetadata describes the inputs as REST does.", _PROTO,
      lambda m: _call("ModelMetadata", (1, m.model)),
      [status(200), _says(1, lambda m: m.model, "name"), _inputs_as_over_rest]),
    R("grpc-unknown-model-metadata", "Metadata of an unknown model are NOT_FOUND.", _PROTO,
      lambda m: _call("ModelMetadata", (1, "no-such-model")), [status(404)]),
    R("grpc-unknown-model-ready", "An unknown model is not ready.", _PROTO,
      lambda m: _call("ModelReady", (1, "no-such-model")),
      [that(lambda a, m: a.status != 200 or not _true(a, m), "NOT_FOUND, or not ready")]),
    R("grpc-raw", "Raw inputs are answered as over REST.", _PROTO, _infer, [status(200), _same]),
    R("grpc-typed", "Typed inputs are answered as over REST.", _PROTO, lambda m: _infer(m, is_typed=True),
      [status(200), _same]),
    R("grpc-gzip", "A message in gzip is answered as it is without.", "gRPC: compression.",
      lambda m: _infer(m).with_headers(grpc_encoding="gzip"), [status(200), _same], "should"),
    R("grpc-name", "An answer names the model.", _PROTO, _infer,
      [status(200), _says(1, lambda m: m.model, "model_name")]),
    R("grpc-id", "An id comes back.", _PROTO, lambda m: _infer(m, (3, "mine-7")),
      [status(200), _says(3, lambda m: "mine-7", "id")]),
    R("grpc-version", "A version that is asked for is the one that answers.", _PROTO,
      lambda m: _infer(m, (2, m.versioned())), [status(200), _says(2, lambda m: m.version, "model_version"), _same]),
    R("grpc-unknown-model", "An unknown model is NOT_FOUND.", _PROTO, lambda m: _infer(m, name="no-such-model"),
      [status(404)]),
    R("grpc-unknown-version", "An unknown version is refused.", _PROTO, lambda m: _infer(m, (2, "987654321")),
      [failed]),
    R("grpc-unknown-output", "An unknown output is refused.", _PROTO, lambda m: _infer(m, (6, [(1, "no-such-output")])),
      [refused]),
    R("grpc-unknown-input", "An input that the model has not is refused.", _PROTO,
      lambda m: _infer(m, input_name="no-such-input"), [refused], "should"),
    R("grpc-unknown-datatype", "A datatype that is not in the table is refused.", "Tensor Data Types.",
      lambda m: _infer(m, datatype="COMPLEX64"), [refused]),
    R("grpc-shape-negative", "A negative size is refused.", _PROTO,
      lambda m: _infer(m, shape=(-1, *m.tensors[0].shape[1:])), [refused]),
    R("grpc-shape-too-large", "A shape that says more than the data is refused.", _PROTO,
      lambda m: _infer(m, shape=(m.tensors[0].rows + 1, *m.tensors[0].shape[1:])), [refused]),
    R("grpc-shape-huge", "A shape whose product passes 64 bits is refused.", "A size that wraps around is a hole.",
      lambda m: _infer(m, shape=(2**32, 2**32)), [refused]),
    R("grpc-mixed", "Raw and typed contents at once are refused.", _CONTENTS,
      lambda m: _infer(m, is_typed=True, raw=[tensor.raw for tensor in m.tensors]), [refused]),
    R("grpc-raw-too-many", "A raw content too many is refused.", _CONTENTS,
      lambda m: _infer(m, raw=[*(tensor.raw for tensor in m.tensors), b"\0" * 8]), [refused]),
    R("grpc-raw-too-few", "A raw content too few is refused.", _CONTENTS,
      lambda m: _infer(m, raw=[tensor.raw for tensor in m.several()[1:]]), [refused]),
    R("grpc-raw-short", "A raw content that is too short is refused.", _CONTENTS,
      lambda m: _infer(m, raw=[*_RAW_SHORT, *(tensor.raw for tensor in m.tensors[1:])]), [refused]),
    R("grpc-no-contents", "Inputs without any contents are refused.", _CONTENTS, lambda m: _infer(m, raw=[]),
      [refused]),
    R("grpc-no-inputs", "A request without inputs is refused.", _PROTO, lambda m: _call("ModelInfer", (1, m.model)),
      [refused]),
    R("grpc-junk", "Bytes that are no message fail.", "gRPC: a message that cannot be read.",
      lambda m: Request("POST", _SERVICE + "ModelInfer", b"\xff\xff\xff"), [failed]),
    R("grpc-unknown-method", "A method that is nobody's is UNIMPLEMENTED.", "gRPC: status codes.",
      lambda m: _call("NoSuchMethod"), [status(501)]),
    R("grpc-still-there", "After all of this, the example is answered as it was at first.",
      "No request of one client may take the server away from the others.", _infer, [status(200), _same]),
]  # fmt: skip
