"""Triton's binary tensors: JSON, then raw tensors, with a header that says where the JSON ends.

All of it is asked only where the server advertises ``binary_tensor_data``. tritonclient sends binary inputs and wants
binary outputs unless it is told otherwise, so a server without them fails that client at its defaults.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from modelyard.conformance.client import Answer, Request
from modelyard.conformance.oip_model import PACKED, OipModel, Tensor, read_outputs, texts
from modelyard.conformance.rules import (
    Expectation,
    Rule,
    Skip,
    alike,
    error_text,
    header,
    no_fault_of_the_server,
    no_header,
    refused,
    status,
    that,
    values,
)

LENGTH = "inference-header-content-length"
_WHY = "Triton's binary tensor extension."
_SAME = values(read_outputs)
_TOLD: list[Expectation] = [refused, error_text()]


def _binary(
    model: OipModel, *, length: str | None = "", tail: bytes = b"", first: dict[str, Any] | None = None, **fields: Any
) -> Request:
    """The good request in binary; ``first`` changes parameters of the first input, ``length`` the header."""
    model.needs("binary_tensor_data")
    told = [tensor.described for tensor in model.tensors]
    told[0] = {**told[0], "parameters": {**told[0]["parameters"], **(first or {})}}
    return _joined(model, {"inputs": told, **fields}, [t.raw for t in model.tensors], length=length, tail=tail)


def _joined(model: OipModel, told: Any, raw: list[bytes], *, length: str | None = "", tail: bytes = b"") -> Request:
    text = json.dumps(told).encode()
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(text)) if length == "" else length}
    return model.sends(text + b"".join(raw) + tail).but(headers=headers)


def _plain(model: OipModel) -> Request:
    model.needs("binary_tensor_data")
    return model.infer(parameters={"binary_data_output": True})


def _mixed(model: OipModel) -> Request:
    model.needs("binary_tensor_data")
    first, *rest = model.several()
    return _joined(model, {"inputs": [first.described, *(tensor.json for tensor in rest)]}, [first.raw])


def _one_output(model: OipModel, is_binary: bool) -> list[dict[str, Any]]:
    return [{"name": model.outputs[0]["name"], "parameters": {"binary_data": is_binary}}]


def _both_forms(model: OipModel) -> Request:
    model.needs("binary_tensor_data")
    first, *rest = model.tensors
    told = [{**first.described, "data": list(first.data)}, *(tensor.described for tensor in rest)]
    return _joined(model, {"inputs": told}, [tensor.raw for tensor in model.tensors])


def _no_rows(model: OipModel) -> Request:
    model.needs("binary_tensor_data")
    told = [{**t.described, "shape": [0, *t.shape[1:]], "parameters": {"binary_data_size": 0}} for t in model.tensors]
    return _joined(model, {"inputs": told}, [])


def _other_shape(model: OipModel) -> Request:
    model.needs("binary_tensor_data")
    first, *rest = model.tensors
    told = {**first.described, "shape": [first.rows + 1, *first.shape[1:]]}
    return _joined(model, {"inputs": [told, *(t.described for t in rest)]}, [t.raw for t in model.tensors])


def _bad_text(model: OipModel, raw: bytes) -> Request:
    """An input of texts whose own lengths lie."""
    model.needs("binary_tensor_data")
    chosen = model.find(texts, "a text")

    def bad(tensor: Tensor) -> bytes:
        return raw if tensor is chosen else tensor.raw

    told = [{**t.described, "parameters": {"binary_data_size": len(bad(t))}} for t in model.tensors]
    return _joined(model, {"inputs": told}, [bad(t) for t in model.tensors])


def _raw_request(model: OipModel) -> Request:
    model.needs("binary_tensor_data")
    (tensor, *others) = model.tensors
    described = (model.metadata.get("inputs") or [{}])[0].get("shape", [])
    is_fit = not others and tensor.datatype != "BYTES" and tensor.shape and -1 not in described[1:]
    if not is_fit:
        raise Skip("only a model with one input of numbers of a fixed size takes a raw body")
    one = tensor.raw[: len(tensor.raw) // tensor.rows]
    headers = {"content-type": "application/octet-stream", LENGTH: "0"}
    return model.sends(one).but(headers=headers)


def _is_binary(answer: Answer, model: OipModel) -> str | None:
    """The outputs, all or some of them in binary, are those of the good request."""
    if LENGTH not in answer.headers:
        return f"expected a header {LENGTH}, got none"
    try:
        size = int(answer.headers[LENGTH])
        told, rest = json.loads(answer.body[:size]), answer.body[size:]
        got: dict[str, list[Any]] = {}
        for output in told["outputs"]:
            if "data" in output:
                got |= read_outputs({"outputs": [output]})
                continue
            count = output["parameters"]["binary_data_size"]
            got[output["name"]], rest = unpack(output["datatype"], rest[:count]), rest[count:]
    except (ValueError, KeyError, TypeError, struct.error) as error:
        return f"no binary answer ({type(error).__name__}: {error}): {answer}"
    if rest:
        return f"expected nothing after the last output, got {len(rest)} bytes"
    expected = {name: model.values.get(name) for name in got}
    return None if alike(got, expected) else f"expected {expected} as in JSON, got {got}"


def unpack(datatype: str, raw: bytes) -> list[Any]:
    """The values of a raw tensor."""
    if datatype != "BYTES":
        kind = PACKED[datatype]
        return list(struct.unpack(f"<{len(raw) // struct.calcsize(kind)}{kind}", raw))
    found = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return found


R = Rule[OipModel]

RULES: list[R] = [
    R("binary-advertised", "The server advertises binary_tensor_data.", "tritonclient sends binary tensors by default.",
      lambda m: Request("GET", f"{m.prefix}/v2"),
      [that(lambda a, m: "binary_tensor_data" in m.extensions, "binary_tensor_data among the extensions")], "should"),
    R("binary-inputs", "Binary inputs mean the same as JSON.", _WHY, _binary, [status(200), no_header(LENGTH), _SAME]),
    R("binary-mixed", "Binary and JSON inputs may stand side by side.", _WHY, _mixed, [status(200), _SAME]),
    R("binary-outputs", "binary_data_output makes all outputs binary.", _WHY,
      lambda m: _binary(m, parameters={"binary_data_output": True}), [status(200), _is_binary]),
    R("binary-outputs-of-json", "binary_data_output does so where the request is all JSON, too.", _WHY, _plain,
      [status(200), _is_binary]),
    R("binary-output", "binary_data makes one output binary.", _WHY, lambda m: _binary(m, outputs=_one_output(m, True)),
      [status(200), _is_binary]),
    R("binary-output-not", "binary_data of an output goes before binary_data_output.", _WHY,
      lambda m: _binary(m, outputs=_one_output(m, False), parameters={"binary_data_output": True}),
      [status(200), no_header(LENGTH)]),
    R("binary-length-case", "The header's name may be in any case.",
      "RFC 9110, 5.1: names of fields are case-insensitive.", lambda m: _with_upper(_binary(m)), [status(200), _SAME]),
    R("binary-length-negative", "A negative length is refused with {error}.", _WHY, lambda m: _binary(m, length="-1"),
      _TOLD),
    R("binary-length-word", "A length that is no number is refused with {error}.", _WHY,
      lambda m: _binary(m, length="many"), _TOLD),
    R("binary-length-huge", "A length beyond 32 bits is refused with {error}.", _WHY,
      lambda m: _binary(m, length="4294967999"), _TOLD),
    R("binary-length-beyond", "A length beyond the body is refused with {error}.", _WHY,
      lambda m: _binary(m, length="99999"), _TOLD),
    R("binary-length-short", "A length that cuts the JSON is refused with {error}.", _WHY,
      lambda m: _binary(m, length="9"), _TOLD),
    R("binary-length-missing", "Binary tensors without the header are refused with {error}.", _WHY,
      lambda m: _binary(m, length=None), _TOLD),
    R("binary-trailing", "Bytes after the last tensor are refused with {error}.", _WHY,
      lambda m: _binary(m, tail=b"\0\0\0"), _TOLD),
    R("binary-size-beyond", "A binary_data_size beyond the body is refused with {error}.", _WHY,
      lambda m: _binary(m, first={"binary_data_size": 10**6}), _TOLD),
    R("binary-size-wrong", "A binary_data_size that is not the shape's is refused with {error}.", _WHY,
      lambda m: _binary(m, first={"binary_data_size": len(m.tensors[0].raw) - 1}), _TOLD),
    R("binary-size-negative", "A negative binary_data_size is refused with {error}.", _WHY,
      lambda m: _binary(m, first={"binary_data_size": -8}), _TOLD),
    R("binary-size-text", "A binary_data_size that is a text is refused with {error}.", _WHY,
      lambda m: _binary(m, first={"binary_data_size": "8"}), _TOLD),
    R("binary-shape", "A shape that the bytes do not fill is refused with {error}.", _WHY, _other_shape, _TOLD),
    R("binary-both", "Binary and JSON data of one input at once are refused with {error}.", _WHY, _both_forms, _TOLD,
      "should"),
    R("binary-no-rows", "Tensors without elements are no fault of the server.", _WHY, _no_rows,
      [no_fault_of_the_server]),
    R("binary-text-beyond", "A text that is longer than its tensor is refused with {error}.", _WHY,
      lambda m: _bad_text(m, struct.pack("<I", 2**31) + b"a"), _TOLD),
    R("binary-text-cut", "A length of a text that is cut is refused with {error}.", _WHY,
      lambda m: _bad_text(m, b"\1\0"), _TOLD),
    R("binary-raw", "A length of 0 makes the whole body the one input, and outputs binary.", _WHY, _raw_request,
      [status(200), header(LENGTH)]),
]  # fmt: skip


def _with_upper(request: Request) -> Request:
    length = request.headers[LENGTH] or ""
    head = (
        f"POST {request.path} HTTP/1.1",
        "Host: {host}",
        "Connection: close",
        f"Content-Length: {len(request.body)}",
        "Content-Type: application/octet-stream",
        f"INFERENCE-HEADER-CONTENT-LENGTH: {length}",
        "{extra}",
    )
    raw = "\r\n".join((*head, "", ""))
    return request.but(raw=raw.encode() + request.body)
