"""Well-formed requests of every wire, for a model of every kind of input (``m``) and one of two numbers (``xy``)."""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from modelyard.wires.oip.protos import messages as oip
from modelyard.wires.seldon.protos import messages as seldon
from modelyard.wires.tfserving.protos import messages as tfserving

JSON = "application/json"


class Seed(NamedTuple):
    """A request that is answered well. Its body is JSON as Python values, or bytes; over gRPC it is one message."""

    path: str
    body: Any = b""
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = (("content-type", JSON),)
    is_grpc: bool = False
    #: The same question gets the same answer, so that it can be asked between malformed ones.
    is_steady: bool = True

    @property
    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


ROW: dict[str, Any] = {"x": 1.5, "n": 3, "city": "Rome", "flag": True, "when": "2024-02-29T12:00:00", "v": [0.5, -2.0]}
OTHER: dict[str, Any] = {"x": 0, "n": -7, "city": None, "flag": False, "when": None, "v": [0, 1e30]}
ROWS = [ROW, OTHER]
NAMES = list(ROW)
SPLIT = {"columns": NAMES, "data": [list(row.values()) for row in ROWS]}
COLUMNS = {name: [row[name] for row in ROWS] for name in NAMES}
XY: dict[str, Any] = {"x1": 1.5, "x2": -2.0}


def rest(path: str, body: Any, *headers: tuple[str, str]) -> Seed:
    return Seed(path, body, headers=headers or (("content-type", JSON),))


def get(path: str, *, is_steady: bool = False) -> Seed:
    return Seed(path, method="GET", headers=(), is_steady=is_steady)


def grpc(path: str, body: bytes, *, is_steady: bool = True) -> Seed:
    headers = (("content-type", "application/grpc"), ("te", "trailers"))
    return Seed(path, body, headers=headers, is_grpc=True, is_steady=is_steady)


def tensor(name: str, datatype: str, data: Any, *inner: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [2, *inner], "data": data}


INFER = {
    "id": "a",
    "inputs": [
        tensor("x", "FP64", [1.5, 0]), tensor("n", "INT32", [3, -7]), tensor("city", "BYTES", ["Rome", None]),
        tensor("flag", "BOOL", [True, False]), tensor("when", "BYTES", ["2024-02-29", None]),
        tensor("v", "FP32", [[0.5, -2], [0, 1]], 2),
    ],
    "outputs": [{"name": "prediction", "parameters": {"binary_data": False}}, {"name": "probabilities"}],
    "parameters": {"priority": 0},
}  # fmt: skip

RAW: list[tuple[str, str, tuple[int, ...], bytes]] = [
    ("x", "FP32", (2,), np.array([1.5, 0], "<f4").tobytes()),
    ("n", "INT64", (2,), np.array([3, -7], "<i8").tobytes()),
    ("city", "BYTES", (2,), struct.pack("<I", 4) + b"Rome" + struct.pack("<I", 0)),
    ("flag", "BOOL", (2,), b"\1\0"),
    ("when", "BYTES", (2, 1), struct.pack("<I", 10) + b"2024-02-29" + struct.pack("<I", 0)),
    ("v", "FP16", (2, 2), np.array([0.5, -2, 0, 1], "<f2").tobytes()),
]


def binary() -> Seed:
    inputs = [
        {"name": name, "datatype": kind, "shape": list(shape), "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in RAW
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(data for *_, data in RAW)
    length = ("inference-header-content-length", str(len(head)))
    return rest("/v2/models/m/infer", body, length, ("content-type", "application/octet-stream"))


def infer_message(*, is_raw: bool) -> bytes:
    request = oip().ModelInferRequest(model_name="m", id="7")
    typed = {
        "x": ("FP64", {"fp64_contents": [1.5, 0.0]}), "n": ("INT32", {"int_contents": [3, -7]}),
        "city": ("BYTES", {"bytes_contents": [b"Rome", b""]}), "flag": ("BOOL", {"bool_contents": [True, False]}),
        "when": ("BYTES", {"bytes_contents": [b"2024-02-29", b""]}), "v": ("FP32", {"fp32_contents": [1.0] * 4}),
    }  # fmt: skip
    for name, kind, shape, data in RAW:
        if is_raw:
            request.inputs.add(name=name, datatype=kind, shape=shape)
            request.raw_input_contents.append(data)
        else:
            request.inputs.add(name=name, datatype=typed[name][0], shape=shape, contents=typed[name][1])
    request.outputs.add(name="probabilities")
    request.parameters["priority"].int64_param = 0
    return bytes(request.SerializeToString())


def predict_message() -> bytes:
    two = {"dim": [{"size": 2}]}
    given = {
        "x": {"dtype": 2, "tensor_shape": two, "double_val": np.array([1.5, 0], "<f8").tobytes()},
        "n": {"dtype": 3, "tensor_shape": two, "tensor_content": np.array([3, -7], "<i4").tobytes()},
        "city": {"dtype": 7, "tensor_shape": two, "string_val": [b"Rome", b""]},
        "flag": {"dtype": 10, "tensor_shape": two, "bool_val": [True, False]},
        "when": {"dtype": 7, "tensor_shape": two, "string_val": [b"2024-02-29", b""]},
        "v": {
            "dtype": 1, "tensor_shape": {"dim": [{"size": 2}, {"size": 2}]},
            "tensor_content": np.array([0.5, -2, 0, 1], "<f4").tobytes(),
        },
    }  # fmt: skip
    request = tfserving().PredictRequest(model_spec={"name": "m", "signature_name": "serving_default"})
    for name, fields in given.items():
        request.inputs[name].CopyFrom(tfserving().TensorProto(**fields))
    return bytes(request.SerializeToString(deterministic=True))


def classify_message() -> bytes:
    features = {"x1": {"float_list": {"value": [1.5]}}, "x2": {"float_list": {"value": [-2.0]}}}
    example = {"features": {"feature": features}}
    request = tfserving().ClassificationRequest(model_spec={"name": "xy"})
    request.input.CopyFrom(tfserving().Input(example_list={"examples": [example, example]}))
    return bytes(request.SerializeToString(deterministic=True))


def seldon_message(**data: Any) -> bytes:
    return bytes(seldon().SeldonMessage(meta={"puid": "p"}, data=data).SerializeToString(deterministic=True))


_FORM = (
    b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n{"ndarray": [[1.5, -2]]}\r\n'
    b'--b\r\nContent-Disposition: form-data; name="meta"\r\n\r\n{"puid": "p"}\r\n--b--\r\n'
)
_TENSOR = {"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "1"}, {"size": 2}]}, "floatVal": [1.5, "2"]}
_CSV = b"x,n,city,flag,when,v\r\n"

#: What a server of ``m`` alone answers.
MIXED: list[Seed] = [
    rest("/predict", ROW),
    rest("/predict", ROWS),
    rest("/models/m/predict", COLUMNS),
    rest("/invocations", {"dataframe_split": SPLIT, "params": {}}),
    rest("/invocations", {"dataframe_records": ROWS}),
    rest("/invocations", {"inputs": COLUMNS}),
    rest("/invocations", {"instances": ROWS}),
    rest("/v2/models/m/infer", INFER),
    binary(),
    rest("/v1/models/m:predict", {"instances": ROWS, "signature_name": "serving_default"}),
    rest("/v1/models/m:predict", {"inputs": COLUMNS}),
    rest("/score", {"input_data": SPLIT}),
    rest("/score", {"data": ROWS}),
    rest("/v1/endpoints/0/deployedModels/0:predict", {"instances": ROWS, "parameters": {"outputs": ["prediction"]}}),
    rest("/api/v1.0/predictions", {"jsonData": ROWS, "meta": {"puid": "p"}}),
    rest("/api/v1.0/predictions", {"data": {"names": NAMES, "ndarray": SPLIT["data"]}}),
    rest("/api/v1.0/feedback", {"request": {"jsonData": ROW}, "reward": 1.0}),
    rest("/v2/repository/index", {"ready": True}, ("content-type", JSON))._replace(is_steady=False),
    grpc("/inference.GRPCInferenceService/ModelInfer", infer_message(is_raw=True)),
    grpc("/inference.GRPCInferenceService/ModelInfer", infer_message(is_raw=False)),
    grpc("/inference.GRPCInferenceService/ModelStreamInfer", infer_message(is_raw=True)),
    grpc("/inference.GRPCInferenceService/ModelMetadata", b"\n\1m"),
    grpc("/inference.GRPCInferenceService/ModelStatistics", b"\n\1m", is_steady=False),
    grpc("/tensorflow.serving.PredictionService/Predict", predict_message()),
    grpc("/tensorflow.serving.PredictionService/GetModelMetadata", b"\n\3\n\1m\x12\rsignature_def"),
    grpc("/tensorflow.serving.ModelService/GetModelStatus", b"\n\3\n\1m"),
    grpc("/seldon.protos.Seldon/ModelMetadata", b"", is_steady=False),
    grpc("/grpc.health.v1.Health/Check", b""),
    grpc("/grpc.health.v1.Health/Watch", b"\n\1m"),
    grpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x3a\0"),
    grpc("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"\x22\x1binference.ModelInferRequest"),
    *[
        get(path)
        for path in (
            "/", "/models", "/models/m", "/metrics", "/openapi.json", "/health/ready", "/v2", "/v2/models",
            "/v2/models/m/versions/1", "/v2/models/m/config", "/v2/models/m/stats", "/v1/models/m",
            "/v1/models/m/metadata", "/v1/models/m/labels/production", "/swagger.json?version=3", "/version",
            "/seldon.json", "/metadata", "/debug/batching/m", "/debug/limits",
        )
    ],
]  # fmt: skip

#: What a server of ``xy`` and others answers, SageMaker's and KServe's wires first.
PAIR: list[Seed] = [
    rest("/models/xy/predict", [XY, {"x1": 0, "x2": 0}]),
    rest("/models/xy/invoke", b"1.5,-2\n0,1\n", ("content-type", "text/csv"), ("accept", "application/jsonlines")),
    rest("/models/xy/invoke", b'{"x1":1,"x2":2}\n{"x2":4,"x1":3}\n', ("content-type", "application/jsonlines")),
    rest("/models/xy/invoke", {"instances": [{"features": [1.5, 2]}]}, ("accept", "text/csv")),
    rest("/v1/models/xy:predict", {"instances": [[1.5, 2], [0, 0]]}),
    rest("/V1/models/xy:classify", {"examples": [XY], "context": {}}),
    rest("/seldon/a/xy/api/v1.0/predictions", {"data": {"tensor": {"shape": [1, 2], "values": [1.5, 2]}}}),
    rest("/seldon/a/xy/api/v1.0/predictions", {"data": {"names": ["x2", "x1"], "ndarray": [[1.5, 2]]}}),
    rest("/seldon/a/xy/api/v1.0/predictions", {"data": {"tftensor": _TENSOR}}),
    rest("/seldon/a/xy/api/v1.0/predictions", _FORM, ("content-type", "multipart/form-data; boundary=b")),
    rest(
        "/seldon/a/xy/api/v1.0/predictions",
        f"json={quote(json.dumps({'data': {'ndarray': [[1.5, -2]]}}))}".encode(),
        ("content-type", "application/x-www-form-urlencoded"),
    ),
    grpc("/tensorflow.serving.PredictionService/Classify", classify_message()),
    grpc("/tensorflow.serving.PredictionService/Regress", classify_message(), is_steady=False),
    # Models come and go: the ones asked about are others than the one that is probed.
    Seed("/v2/repository/models/spare/load", {"parameters": {}}, is_steady=False),
    Seed("/v2/repository/models/spare/unload", {"parameters": {"unload_dependents": False}}, is_steady=False),
    Seed("/models", {"model_name": "spare", "url": "/nowhere/at/all"}, is_steady=False),
    Seed("/models/spare", method="DELETE", is_steady=False),
    grpc("/inference.GRPCInferenceService/RepositoryModelLoad", b"\x12\5spare", is_steady=False),
    grpc("/inference.GRPCInferenceService/RepositoryModelUnload", b"\x12\5spare", is_steady=False),
    get("/models"),
    get("/models/spare"),
    get("/v1/models/xy"),
    get("/ping"),
]

#: What is answered to everybody.
OPEN: list[Seed] = [get("/health/live", is_steady=True), get("/health/ready", is_steady=True)]

#: What a server of several models answers, of which one has versions that take different things.
PRICE: dict[str, Any] = {
    "rooms": None, "floor": -1, "lot": 2**64 - 1, "built": "1970-01-01T00:00:00Z", "kind": "flat", "new": True,
    "area": 81.5, "rate": 0.5,
}  # fmt: skip
MORE: dict[str, Any] = {"view": [[1, 2], [3, 4]], "trace": [1, 2, 3], "words": ["a", "b"], "rooms": 4}
SEVERAL: list[Seed] = [
    rest("/models/xy/predict", [XY, XY]),
    rest("/models/price/predict", PRICE),
    rest("/models/price/versions/1/predict", [PRICE, {**PRICE, "area": None}]),
    rest("/models/price/versions/2/predict", MORE),
    get("/openapi.json", is_steady=True),
]
