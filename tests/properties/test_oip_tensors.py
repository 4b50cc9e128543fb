"""Whatever bytes come as a request of the Open Inference Protocol: rows of the model's shape, or InvalidInput."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import InvalidInput
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.schema import Field, Signature
from modelyard.testing.wires import KitServed, columns_of, outputs
from modelyard.wires.oip import OipWire
from modelyard.wires.oip.grpc import OipGrpcWire
from modelyard.wires.oip.protos import messages

SIGNATURE = KitServed().signature
MIXED = (
    *SIGNATURE.inputs, Field(name="n", dtype="int16"), Field(name="flag", dtype="bool"),
    Field(name="when", dtype="datetime", nullable=True), Field(name="v", dtype="float32", shape=(2,)),
)  # fmt: skip
REST, GRPC = OipWire(), OipGrpcWire()
LENGTH = "inference-header-content-length"
MODEL = KitServed(signature=Signature(inputs=MIXED, outputs=SIGNATURE.outputs))
CODEC = REST.codec(Call("predict"), MODEL)
INFER = GRPC.match("POST", "/inference.GRPCInferenceService/ModelInfer")
assert INFER is not None
GRPC_CODEC = GRPC.codec(INFER, MODEL)


def framed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


TENSORS: list[tuple[str, str, list[int], bytes]] = [
    ("x1", "FP32", [2], np.array([1.5, 2], "<f4").tobytes()),
    ("city", "BYTES", [2, 1], framed(b"Rome", b"")),
    ("x2", "FP64", [2], np.array([1.5, 2], "<f8").tobytes()),
    ("n", "INT64", [2], np.array([7, -7], "<i8").tobytes()),
    ("flag", "BOOL", [2], b"\1\0"),
    ("when", "BYTES", [2], framed(b"2020-01-01", b"")),
    ("v", "BF16", [2, 2], np.array([0x3FC0, 0, 1, 2], "<u2").tobytes()),
]
_INPUTS = [
    {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    for name, datatype, shape, data in TENSORS
]
HEAD = json.dumps({"inputs": _INPUTS, "parameters": {"binary_data_output": True}}).encode()
TAIL = b"".join(data for *_, data in TENSORS)


def message() -> bytes:
    request = messages().ModelInferRequest(model_name="kit", id="7")
    for name, datatype, shape, data in TENSORS:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(data)
    text: bytes = request.SerializeToString()
    return text


#: Where to change a text, how many bytes to take away there, and what to put in their place.
CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 8), st.binary(max_size=8)), max_size=3)


def changed(text: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, size, put in changes:
        at %= len(text) + 1
        text = text[:at] + put + text[at + size :]
    return text


def check(request: Request, codec: Any) -> None:
    """The rows are those of the signature, and are answered."""
    columns = columns_of(request)
    assert columns.rows == request.rows >= 1
    for field in MIXED:
        assert columns[field.name].shape == (request.rows, *field.shape)
        assert columns[field.name].dtype == field.storage
    rows = min(request.rows, 5)
    assert codec.encode(request, Response(Batch(outputs(rows)), 0, rows, "id")).body


@given(CHANGES, CHANGES, st.integers(-2, 2))
@settings(max_examples=150, deadline=None)
def test_binary_tensors(head: list[Any], tail: list[Any], shift: int) -> None:
    start = changed(HEAD, head)
    body = start + changed(TAIL, tail)
    with contextlib.suppress(InvalidInput):
        check(CODEC.decode(body, {LENGTH: str(len(start) + (shift if head else 0))}), CODEC)


@given(CHANGES)
@settings(max_examples=150, deadline=None)
def test_messages(changes: list[Any]) -> None:
    assert INFER is not None
    with contextlib.suppress(InvalidInput):
        _, opened = GRPC.address(INFER, Message(changed(message(), changes)))
        check(GRPC_CODEC.decode(opened, {}), GRPC_CODEC)


@given(st.binary(max_size=200), st.text(max_size=12))
@settings(max_examples=100, deadline=None)
def test_junk(body: bytes, length: str) -> None:
    for headers in ({}, {LENGTH: length}, {"content-type": f"application/vnd.x;json-header-size={length}"}):
        with contextlib.suppress(InvalidInput):
            check(CODEC.decode(body, headers), CODEC)


def test_the_seeds_are_right() -> None:
    assert INFER is not None
    check(CODEC.decode(HEAD + TAIL, {LENGTH: str(len(HEAD))}), CODEC)
    check(GRPC_CODEC.decode(GRPC.address(INFER, Message(message()))[1], {}), GRPC_CODEC)
