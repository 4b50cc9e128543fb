"""Bodies with anything in any place: every wire reads them or refuses them, and never does anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import InvalidInput
from modelyard.interfaces import Codec, Wire
from modelyard.messages import QUERY, Batch, Call, Response
from modelyard.testing.wires import KitServed, columns_of, outputs
from modelyard.wires import Unsupported
from modelyard.wires.azure import AzureWire
from modelyard.wires.mlflow import MlflowWire
from modelyard.wires.native import NativeWire
from modelyard.wires.sagemaker import SagemakerWire
from modelyard.wires.seldon import SeldonWire
from modelyard.wires.seldon.grpc import SeldonGrpcWire
from modelyard.wires.vertex import VertexWire

WIRES: dict[str, Wire] = {
    wire.name: wire
    for wire in (
        AzureWire(), MlflowWire(), NativeWire(), SagemakerWire(is_multi_model=False, accept=""), SeldonWire(),
        SeldonGrpcWire(), VertexWire(),
    )
}  # fmt: skip
CODECS: dict[str, Codec] = {name: wire.codec(Call("predict"), KitServed()) for name, wire in WIRES.items()}

NAMES = st.sampled_from(
    [
        "dataframe_split", "dataframe_records", "instances", "inputs", "params", "data", "columns", "index", "x1", "x2",
        "city", "input_data", "Inputs", "features", "values", "jsonData", "strData", "ndarray", "tensor", "shape",
        "names", "meta", "puid", "parameters", "outputs", ":", "é",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "", ":", "1", "x1", "instances"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(
    ["application/json", "text/csv", "application/jsonlines", "multipart/form-data; boundary=a", "", ";", "é/é",
     "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)  # fmt: skip
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": KINDS,
        "accept": st.sampled_from(["*/*", "text/csv", "application/x-ndjson", "image/png", ""]),
        QUERY: st.sampled_from(["json=1", "x1=1&city=a&x2=2", "&&=", "%"]),
        "x-amzn-sagemaker-custom-attributes": st.sampled_from(["outputs=prediction", "outputs=", "a"]),
        "x-ms-request-id": st.just("b"),
    },
)


def check(codec: Codec, body: bytes, headers: dict[str, str]) -> None:
    try:
        request = codec.decode(body, headers)
    except InvalidInput as error:
        assert error.problems
    except Unsupported as error:
        assert error.message
    else:
        assert request.rows == columns_of(request).rows > 0
        assert codec.encode(request, Response(Batch(outputs(request.rows)), 0, request.rows, "id")).body


@pytest.mark.parametrize("name", WIRES)
@settings(max_examples=60, deadline=None)  # the first message over gRPC makes the classes
@given(value=VALUES, headers=HEADERS)
def test_values(name: str, value: Any, headers: dict[str, str]) -> None:
    check(CODECS[name], json.dumps(value).encode(), headers)


@pytest.mark.parametrize("name", WIRES)
@settings(max_examples=60, deadline=None)  # the first message over gRPC makes the classes
@given(body=st.binary(max_size=80), headers=HEADERS)
def test_bytes(name: str, body: bytes, headers: dict[str, str]) -> None:
    check(CODECS[name], body, headers)
