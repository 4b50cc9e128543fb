"""Every wire in the tree against the kit that we give to others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from modelyard import plugins
from modelyard.errors import ModelyardError
from modelyard.interfaces import Codec, Wire
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.testing import wires
from modelyard.testing.wires import CHECKS, Case, KitServed, MemoryWire, check_wire
from modelyard.wires.native import NativeWire
from modelyard.wires.oip.protos import messages
from modelyard.wires.tfserving.protos import messages as tfserving

ROW = {"x1": 1.5, "city": "Rome", "x2": -2.0}
OTHER = {"x1": 0.0, "city": None, "x2": 4.0}


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


RECORDS = {
    dumps(ROW): [ROW],
    dumps({"x2": -2, "city": "Rome", "x1": 1.5}): [ROW],
    dumps([ROW, OTHER]): [ROW, OTHER],
    dumps({"x1": [1.5, 0], "city": ["Rome", ""], "x2": [-2, 4]}): [ROW, OTHER],
}
BAD_RECORDS = [
    dumps([]),
    dumps({}),
    dumps({**ROW, "x1": None}),
    dumps({**ROW, "x3": 1}),
    b'{"x1":1,"city":"a","x2":2,"x1":1}',
    b'{"x1":NaN,"city":"a","x2":2}',
]


def tensor(name: str, datatype: str, data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": data}


def infer(**changes: Any) -> bytes:
    given = {
        "x1": tensor("x1", "FP64", [1.5, 0]),
        "city": tensor("city", "BYTES", ["Rome", None]),
        "x2": tensor("x2", "FP32", [-2, 4]),
        **changes,
    }
    return dumps({"inputs": [one for one in given.values() if one]})


OIP_GOOD = {
    infer(): [ROW, OTHER],
    infer(x1=tensor("x1", "FP64", [[1.5], [0]], [2, 1])): [ROW, OTHER],
    infer(x1=tensor("x1", "FP64", [1.5, 0], [2, 1])): [ROW, OTHER],
    dumps(
        {
            "id": "a",
            "parameters": {"b": 1},
            "inputs": [
                tensor("x2", "INT64", [4]),
                tensor("city", "BYTES", [""]),
                {"parameters": {"c": "d:e"}, **tensor("x1", "INT8", [0])},
            ],
            "outputs": [{"name": "prediction"}],
        }
    ): [OTHER],
}
OIP_BAD = [
    dumps({}),
    dumps({"inputs": []}),
    dumps({"inputs": 3}),
    infer(x1=None),
    infer(x3=tensor("x3", "FP64", [1, 2])),
    infer(again=tensor("x1", "FP64", [1, 2])),
    infer(x1=tensor("x1", "FP64", [1.5])),
    infer(x1=tensor("x1", "FP64", [1.5, 0], [3])),
    infer(x1=tensor("x1", "FP64", [1.5, 0, 1], [3])),
    infer(x1=tensor("x1", "FP64", [1.5, 0], [1, 2])),
    infer(x1=tensor("x1", "FP64", [1.5, 0], [])),
    infer(x1=tensor("x1", "FP64", [1.5, 0], [-2])),
    infer(x1=tensor("x1", "FP64", [1.5, 0], [2, 1, 1])),
    infer(x1=tensor("x1", "FP64", [[1.5, 0]], [2])),
    infer(x1=tensor("x1", "FP64", [1.5, None])),
    infer(x1=tensor("x1", "FP64", [1.5, "0"])),
    infer(x1=tensor("x1", "FP64", [1.5, True])),
    infer(x1=tensor("x1", "FP16", [1.5, 0])),
    infer(x1=tensor("x1", "BF16", [1.5, 0])),
    infer(x1=tensor("x1", "fp64", [1.5, 0])),
    infer(x1=tensor("x1", "FP128", [1.5, 0])),
    infer(x1=tensor("x1", "BYTES", ["1.5", "0"])),
    infer(x1={"name": "x1", "datatype": "FP64", "shape": [2]}),
    infer(x1={"name": "x1", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}}),
    infer(x1={"name": "x1", "datatype": "FP64", "shape": [2], "data": 5}),
    infer(x1={"name": 7, "datatype": "FP64", "shape": [2], "data": [1, 2]}),
    infer()[:-1] + b',"outputs":[{"name":"nothing"}]}',
    infer().replace(b"1.5", b"NaN"),
    infer().replace(b"1.5", b"1e400"),
    infer().replace(b'"datatype": "FP64"', b'"datatype":"FP64","datatype": "FP64"', 1),
]


def binary() -> tuple[bytes, dict[str, str]]:
    """An infer request of two binary tensors and one in JSON, and its headers."""
    inputs = [
        {"name": "x1", "datatype": "FP32", "shape": [2, 1], "parameters": {"binary_data_size": 8}},
        tensor("x2", "INT8", [-2, 4]),
        {"name": "city", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 12}},
    ]
    head = dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    tail = np.array([1.5, 0], "<f4").tobytes() + b"\x04\0\0\0Rome\0\0\0\0"
    return head + tail, {"inference-header-content-length": str(len(head))}


def infer_message(*, is_raw: bool, **changes: Any) -> bytes:
    """An infer request over gRPC."""
    request = messages().ModelInferRequest(model_name="kit", id="7")
    for name, datatype, kind, values in (
        ("x2", "FP64", "fp64_contents", [-2.0, 4.0]),
        ("city", "BYTES", "bytes_contents", [b"Rome", b""]),
        ("x1", "FP64", "fp64_contents", [1.5, 0.0]),
    ):
        added = request.inputs.add(name=name, datatype=datatype, shape=[2])
        if not is_raw:
            getattr(added.contents, kind).extend(values)
        elif datatype == "FP64":
            request.raw_input_contents.append(np.array(values, "<f8").tobytes())
        else:
            request.raw_input_contents.append(b"\x04\0\0\0Rome\0\0\0\0")
    for name, value in changes.items():
        setattr(request.inputs[0], name, value)
    text: bytes = request.SerializeToString()
    return text


BINARY, BINARY_HEADERS = binary()
INSTANCES = {
    dumps({"instances": [ROW, OTHER]}): [ROW, OTHER],
    dumps({"inputs": [ROW]}): [ROW],
    dumps({"instances": [[1.5, "Rome", -2], [0, None, 4.0]], "more": {"instances": 1}}): [ROW, OTHER],
}
BAD_INSTANCES = [
    dumps({}),
    dumps({"instances": []}),
    dumps({"instances": ROW}),
    dumps({"instances": [ROW], "inputs": [ROW]}),
    dumps({"instances": [[1.5, "Rome"]]}),
    dumps({"instances": [ROW, [1.5, "Rome", -2]]}),
    dumps({"instances": [{**ROW, "x3": 1}]}),
    dumps({"instances": [{**ROW, "x1": "1"}]}),
    dumps({"instances": [1.5]}),
    dumps({"instances": "a"}),
    b'{"instances":[[1,"a",2]],"instances":[[1,"a",2]]}',
    b'{"instances":[[NaN,"a",2]]}',
]

TFSERVING = {
    dumps({"instances": [ROW, OTHER]}): [ROW, OTHER],
    dumps({"instances": [{"x1": [1.5], "city": ["Rome"], "x2": [-2]}]}): [ROW],
    dumps({"signature_name": "serving_default", "instances": [ROW, {**OTHER, "city": [""]}]}): [ROW, OTHER],
    dumps({"instances": [{**ROW, "city": {"b64": "Um9tZQ=="}}], "more": 1}): [ROW],
    dumps({"inputs": {"x1": [1.5, 0], "city": ["Rome", None], "x2": [-2, 4]}}): [ROW, OTHER],
    dumps({"inputs": {"x2": [[4]], "city": [[""]], "x1": [[0]]}}): [OTHER],
}
BAD_TFSERVING = [
    dumps({}),
    dumps([ROW]),
    dumps({"instances": []}),
    dumps({"instances": ROW}),
    dumps({"instances": [ROW], "inputs": {"x1": [1.5], "city": ["Rome"], "x2": [-2]}}),
    dumps({"instances": [ROW], "signature_name": "classification"}),
    dumps({"instances": [ROW], "signature_name": 3}),
    dumps({"instances": [1.5]}),
    dumps({"instances": [[1.5, "Rome", -2]]}),
    dumps({"instances": [ROW, [1.5, "Rome", -2]]}),
    dumps({"instances": [{**ROW, "x3": 1}]}),
    dumps({"instances": [{**ROW, "x1": "1"}]}),
    dumps({"instances": [{**ROW, "x1": [1, 2]}]}),
    dumps({"instances": [{**ROW, "city": {"b64": "?"}}]}),
    dumps({"instances": [{**ROW, "city": {"b64": "/w=="}}]}),
    dumps({"inputs": {"x1": 1.5, "city": "Rome", "x2": -2}}),
    dumps({"inputs": {"x1": [1.5], "city": ["Rome", ""], "x2": [-2]}}),
    dumps({"inputs": {"x1": [], "city": [], "x2": []}}),
    dumps({"inputs": {"x1": [1.5], "city": ["Rome"]}}),
    b'{"instances":[{"x1":1,"city":"a","x2":2,"x1":1}]}',
    b'{"instances":[{"x1":1,"city":"a","x2":2}],"instances":[{"x1":1,"city":"a","x2":2}]}',
    b'{"instances":[{"x1":1e400,"city":"a","x2":2}]}',
    b'{"instances":[{"x1":NaN,"city":"a","x2":2}]}',
]
EXAMPLES = {
    dumps({"examples": [ROW, OTHER]}): [ROW, OTHER],
    dumps({"examples": [{"x1": 1.5, "x2": [-2]}], "context": {"city": "Rome"}}): [ROW],
    dumps({"context": {"x2": 4.0}, "examples": [{"x1": 0, "id": "7"}], "signature_name": "classification"}): [OTHER],
}
BAD_EXAMPLES = [
    dumps({"examples": []}),
    dumps({"examples": ROW}),
    dumps({"examples": [1.5]}),
    dumps({"instances": [ROW]}),
    dumps({"examples": [ROW], "context": 3}),
    dumps({"examples": [ROW], "context": {"city": "Rome"}}),
    dumps({"examples": [{"x1": 1.5}]}),
    dumps({"examples": [{**ROW, "x1": [1, 2]}]}),
    dumps({"examples": [ROW], "signature_name": "regression"}),
]


def predict_message(**changes: Any) -> bytes:
    """A predict request over gRPC; a change replaces one of its tensors, None leaves it out."""
    request = tfserving().PredictRequest(model_spec={"name": "kit"})
    two = {"dim": [{"size": 2}]}
    given = {
        "x1": {"dtype": 2, "tensor_shape": two, "double_val": np.array([1.5, 0], "<f8").tobytes()},
        "city": {"dtype": 7, "tensor_shape": two, "string_val": [b"Rome", b""]},
        "x2": {"dtype": 1, "tensor_shape": two, "tensor_content": np.array([-2, 4], "<f4").tobytes()},
        **changes,
    }
    for name, fields in given.items():
        if fields is not None:
            request.inputs[name].CopyFrom(tfserving().TensorProto(**fields))
    text: bytes = request.SerializeToString(deterministic=True)
    return text


CASES = {
    "memory": Case(MemoryWire(), ("POST", "/memory"), RECORDS, BAD_RECORDS),
    "native": Case(
        plugins.find("wires", "native"),
        ("POST", "/models/kit/predict"),
        RECORDS,
        BAD_RECORDS,
        [("GET", "/"), ("GET", "/models"), ("GET", "/models/kit"), ("GET", "/models/")],
    ),
    "oip": Case(
        plugins.find("wires", "oip"),
        ("POST", "/v2/models/kit/infer"),
        OIP_GOOD,
        OIP_BAD,
        [
            ("GET", "/v2"), ("GET", "/v2/"), ("GET", "/v2/health/live"), ("GET", "/v2/health/ready"),
            ("GET", "/v2/models"), ("GET", "/v2/models/kit"), ("GET", "/v2/models/kit/ready"),
            ("GET", "/v2/models/kit/versions/3"), ("GET", "/v2/models/kit/versions/3/ready"),
            ("GET", "/v2/models/%6bit/"), ("POST", "/v2/repository/index"), ("GET", "/v2/models/kit/config"),
            ("GET", "/v2/models/kit/stats"), ("GET", "/v2/models/stats"), ("GET", "/v2/models/kit/versions/3/stats"),
            ("POST", "/v2/repository/models/kit/load"), ("POST", "/v2/repository/models/kit/unload/"),
        ],
    ),
    "oip with binary tensors": Case(
        plugins.find("wires", "oip"), ("POST", "/v2/models/kit/infer"), {BINARY: [ROW, OTHER]},
        [BINARY + b"\0", BINARY[:-1]], headers=BINARY_HEADERS,
    ),
    "oip-grpc": Case(
        plugins.find("wires", "oip-grpc"),
        ("POST", "/inference.GRPCInferenceService/ModelInfer"),
        {infer_message(is_raw=True): [ROW, OTHER], infer_message(is_raw=False): [ROW, OTHER]},
        [
            infer_message(is_raw=raw, **change)
            for raw in (True, False)
            for change in ({"name": "x3"}, {"name": "x1"}, {"datatype": "FP32"}, {"datatype": "BYTES"})
        ],
        [
            ("POST", f"/inference.GRPCInferenceService/{name}")
            for name in ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
                         "ModelStatistics", "RepositoryIndex")
        ] + [("POST", "/inference.model_repository.ModelRepositoryService/RepositoryIndex")],
    ),
    "tfserving": Case(
        plugins.find("wires", "tfserving"), ("POST", "/v1/models/kit:predict"), TFSERVING, BAD_TFSERVING,
        [
            ("GET", "/v1/models/kit"), ("GET", "/V1/models/%6bit/Versions/003"), ("GET", "/v1/models/kit/metadata"),
            ("GET", "/v1/models/kit/labels/production"), ("GET", "/v1/models/kit/labels/production/metadata"),
        ],
        has_words=True,
    ),
    "tfserving, classify": Case(
        plugins.find("wires", "tfserving"), ("POST", "/v1/models/kit:classify"), EXAMPLES, BAD_EXAMPLES, has_words=True
    ),
    "tfserving-grpc": Case(
        plugins.find("wires", "tfserving-grpc"),
        ("POST", "/tensorflow.serving.PredictionService/Predict"),
        {predict_message(): [ROW, OTHER]},
        [
            predict_message(**change)
            for change in (
                {"x1": None}, {"x3": {"dtype": 1}}, {"x1": {"dtype": 7}}, {"x1": {"dtype": 99}}, {"city": {"dtype": 7}},
                {"x1": {"dtype": 2, "tensor_shape": {"unknown_rank": True}}},
                {"x1": {"dtype": 2, "tensor_shape": {"dim": [{"size": -2}]}, "double_val": b"12345678" * 2}},
                {"x1": {"dtype": 2, "tensor_shape": {"dim": [{"size": 2}]}, "float_val": b"12345678"}},
            )
        ],
    ),
    "kserve": Case(
        plugins.find("wires", "kserve"), ("POST", "/v1/models/kit:predict"), INSTANCES, BAD_INSTANCES,
        [("GET", "/"), ("GET", "/v1/models"), ("GET", "/v1/models/kit"), ("GET", "/v1/models/%6bit/")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_the_wires_in_the_tree(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])


class Broken(NativeWire):
    """The native wire with one thing broken at a time."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def match(self, method: str, path: str) -> Call | None:
        if self.fault == "greedy":
            return Call("predict")
        if self.fault == "raises":
            path.encode("ascii")
        return super().match(method, path)

    def codec(self, call: Call, served: Any) -> Codec:
        return BrokenCodec(super().codec(call, served), self.fault)

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        message = super().refuse(call, error, request_id)
        if self.fault == "leaks" and not isinstance(error, ModelyardError):
            message.body += str(error).encode()
        if self.fault == "miscodes":
            message.code = "invalid_input"
        return message


class BrokenCodec:
    def __init__(self, inner: Codec, fault: str) -> None:
        self.inner = inner
        self.fault = fault

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        if self.fault == "crashes" and not body:
            raise KeyError("body")
        if self.fault == "lenient" and not body:
            return Request(0, [])
        request = self.inner.decode(body, headers)
        if self.fault == "swaps" and request.tuples:
            request.tuples = [(b, a, *rest) for a, b, *rest in request.tuples]
        return request

    def encode(self, request: Request, response: Response) -> Message:
        if self.fault == "first rows":
            response = Response(response.batch, 0, response.stop - response.start, response.id)
        message = self.inner.encode(request, response)
        if self.fault == "writes NaN":
            message.body = message.body.replace(b"null", b"NaN")
        return message


@pytest.mark.parametrize(
    "fault",
    ["greedy", "raises", "leaks", "miscodes", "crashes", "lenient", "swaps", "first rows", "writes NaN"],
)
def test_the_kit_finds_what_is_broken(fault: str) -> None:
    good = CASES["native"]
    with pytest.raises((AssertionError, KeyError, UnicodeEncodeError)):
        check_wire(Case(Broken(fault), good.predict, good.good, good.bad, good.informs))


def test_the_kit_passes_what_is_not() -> None:
    good = CASES["native"]
    wire: Wire = Broken("nothing")
    check_wire(Case(wire, good.predict, good.good, good.bad, good.informs))


def test_the_twins_fit_their_seams() -> None:
    from modelyard.interfaces import Catalog, Served

    assert isinstance(KitServed(), Served)
    assert isinstance(wires.KitCatalog(), Catalog)
    assert all(isinstance(case.wire, Wire) for case in CASES.values())
    assert Batch(wires.outputs(3)).texts("prediction") == [b'"no"', b'"no"', b'"no"']
