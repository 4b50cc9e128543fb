"""The wires of scoring servers and clouds against the kit that we give to others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.testing.wires import CHECKS, Case
from modelyard.wires.azure import AzureWire
from modelyard.wires.mlflow import MlflowWire
from modelyard.wires.sagemaker import SagemakerWire
from modelyard.wires.seldon.grpc import SeldonGrpcWire
from modelyard.wires.seldon.protos import messages
from modelyard.wires.seldon.rest import SeldonWire
from modelyard.wires.vertex import VertexWire

ROW = {"x1": 1.5, "city": "Rome", "x2": -2.0}
OTHER = {"x1": 0.0, "city": None, "x2": 4.0}
LISTS = [[1.5, "Rome", -2], [0, None, 4.0]]


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def split(**changes: Any) -> dict[str, Any]:
    return {"columns": ["x1", "city", "x2"], "data": LISTS, **changes}


RECORDS = {
    dumps(ROW): [ROW],
    dumps([ROW, OTHER]): [ROW, OTHER],
    dumps({"x1": [1.5, 0], "city": ["Rome", ""], "x2": [-2, 4]}): [ROW, OTHER],
    dumps(LISTS): [ROW, OTHER],
}
BAD_RECORDS = [
    dumps([]),
    dumps({}),
    dumps({**ROW, "x1": None}),
    dumps({**ROW, "x3": 1}),
    dumps([[1.5, "Rome"]]),
    dumps([[1.5, "Rome", -2, 1]]),
    dumps([ROW, LISTS[0]]),
    dumps([LISTS[0], ROW]),
    dumps(LISTS[0]),
    b'{"x1":1,"city":"a","x2":2,"x1":1}',
    b'[[NaN,"a",2]]',
]

#: Rows under a name, and what they mean.
NAMED: list[tuple[Any, list[dict[str, Any]]]] = [
    ([ROW, OTHER], [ROW, OTHER]),
    (LISTS, [ROW, OTHER]),
]
BAD_NAMED: list[Any] = [[], "a", 7, None, LISTS[0], [[1.5, "Rome"]], [{**ROW, "x1": "1"}], [ROW, LISTS[0]]]


def under(*names: str) -> dict[bytes, list[dict[str, Any]]]:
    return {dumps({name: value}): rows for name in names for value, rows in NAMED}


def bad_under(*names: str) -> list[bytes]:
    twice = [b'{"%b":[[1,"a",2]],"%b":[[1,"a",2]]}' % (name.encode(), name.encode()) for name in names]
    return [dumps({name: value}) for name in names for value in BAD_NAMED] + twice


MLFLOW_GOOD = {
    **under("instances", "inputs", "dataframe_records"),
    dumps({"dataframe_split": split()}): [ROW, OTHER],
    dumps({"dataframe_split": {"data": LISTS}, "params": None}): [ROW, OTHER],
    dumps({"dataframe_split": split(columns=[0, 1, 2], index=[7, 8])}): [ROW, OTHER],
    dumps({"dataframe_split": split(columns=["a:b", "x2", "x1", "city"], data=[[{"c": 1}, -2, 1.5, "Rome"]])}): [ROW],
    dumps({"dataframe_records": [{**ROW, "extra": 1}]}): [ROW],
    dumps({"inputs": {"x1": [1.5], "city": ["Rome"], "x2": [-2]}, "params": {"unknown": 1}}): [ROW],
    dumps({"inputs": ROW, "signature_name": "a:b"}): [ROW],
}
MLFLOW_BAD = [
    *bad_under("instances", "inputs", "dataframe_records"),
    dumps({}),
    dumps([ROW]),
    dumps({"instances": [ROW], "inputs": [ROW]}),
    dumps({"messages": [{"role": "user"}]}),
    dumps({"dataframe_split": [1]}),
    dumps({"dataframe_split": split(more=1)}),
    dumps({"dataframe_split": split(columns=["x1", "city"])}),
    dumps({"dataframe_split": split(columns=["x1", "city", "x1"])}),
    dumps({"dataframe_split": split(columns=[1.5])}),
    dumps({"dataframe_split": split(data=[])}),
    dumps({"inputs": [ROW], "params": 3}),
    b'{"inputs":[[1,"a",2]],"params":"\xff"}',
    dumps({"inputs": [ROW], "params": {"outputs": ["nothing"]}}),
]


def seldon(*, names: list[str] | None = None, **data: Any) -> bytes:
    return dumps({"data": ({} if names is None else {"names": names}) | data})


def seldon_message(fill: Callable[[Any], None]) -> bytes:
    message = messages().SeldonMessage()
    fill(message)
    text: bytes = message.SerializeToString()
    return text


def values(message: Any, *rows: list[Any]) -> None:
    for row in rows:
        into = message.data.ndarray.values.add().list_value.values
        for value in row:
            if isinstance(value, str):
                into.add(string_value=value)
            elif value is None:
                into.add(null_value=0)
            else:
                into.add(number_value=value)


CASES = {
    "mlflow": Case(
        MlflowWire(), ("POST", "/invocations"), MLFLOW_GOOD, MLFLOW_BAD,
        [("GET", "/version")],  # the lone newline of /ping is no JSON, though MLflow says so, and we after it
    ),
    "sagemaker": Case(
        SagemakerWire(is_multi_model=False, accept=""),
        ("POST", "/invocations"),
        {
            **RECORDS,
            **MLFLOW_GOOD,
            dumps({"instances": [{"features": row} for row in LISTS]}): [ROW, OTHER],
            dumps({"instances": [{"data": {"features": {"values": LISTS[0]}}}]}): [ROW],
            dumps({"x1": 1.5, "city": "Rome", "x2": -2.0}): [ROW],
        },
        [
            *BAD_RECORDS,
            *bad_under("instances"),
            dumps({"instances": [{"features": [1]}]}),
            dumps({"instances": [{"features": LISTS[0], "more": 1}]}),
            dumps({"instances": []}),
        ],
        [("GET", "/ping")],
    ),
    "sagemaker with many models": Case(
        SagemakerWire(is_multi_model=True, accept=""), ("POST", "/models/kit/invoke"), RECORDS, BAD_RECORDS,
        [("GET", "/ping"), ("GET", "/models"), ("GET", "/models/kit"), ("DELETE", "/models/kit")],
    ),
    "vertex": Case(
        VertexWire("/up", "/ask"), ("POST", "/ask"),
        {**under("instances"), dumps({"instances": [ROW], "parameters": {"a": "b:c"}}): [ROW]},
        [
            *bad_under("instances"),
            dumps({"instances": [ROW], "parameters": 3}),
            dumps([ROW]),
            b'{"instances":[[1,"a",2]],"parameters":{"\xff":1}}',
        ],
        [("GET", "/up")],
    ),
    "azure": Case(
        AzureWire(), ("POST", "/score"),
        {
            **RECORDS,
            **under("data", "input_data"),
            dumps({"input_data": split(index=[0, 1])}): [ROW, OTHER],
            dumps({"Inputs": {"data": [ROW]}, "GlobalParameters": {"method": "predict"}}): [ROW],
            dumps({"Inputs": {"WebServiceInput0": LISTS}}): [ROW, OTHER],
        },
        [*BAD_RECORDS, *bad_under("data", "input_data"), dumps({"Inputs": [ROW]}), dumps({"Inputs": {"a": [ROW]}})],
        [("GET", "/"), ("GET", "/swagger.json"), ("OPTIONS", "/score")],
    ),
    "seldon": Case(
        SeldonWire(), ("POST", "/api/v1.0/predictions"),
        {
            seldon(ndarray=LISTS): [ROW, OTHER],
            seldon(names=["t:0", "t:1", "t:2"], ndarray=LISTS): [ROW, OTHER],
            seldon(names=["city", "x2", "x1"], ndarray=[["Rome", -2, 1.5]]): [ROW],
            dumps({"jsonData": [ROW, OTHER], "meta": {"puid": "a:b", "tags": {"c": 1}}}): [ROW, OTHER],
            dumps({"jsonData": ROW}): [ROW],
        },
        [
            dumps({}),
            dumps({"data": {}}),
            dumps({"data": 3}),
            dumps({"data": {"ndarray": LISTS}, "jsonData": [ROW]}),
            dumps({"strData": "a"}),
            dumps({"binData": base64.b64encode(b"a").decode()}),
            seldon(ndarray=[]),
            seldon(ndarray=LISTS[0]),
            seldon(names=["x1", "x2"], ndarray=LISTS),
            seldon(ndarray=LISTS, tensor={"shape": [1, 3], "values": [1, 2, 3]}),
            seldon(tensor={"shape": [1, 3], "values": [1, 2, 3]}),  # no tensor holds a city
            seldon(tftensor={"dtype": "DT_DOUBLE"}),
            b'{"data":{"ndarray":[[1,"a",2]],"ndarray":[[1,"a",2]]}}',
        ],
        [("GET", "/health/ping"), ("GET", "/health/status"), ("GET", "/metadata"), ("GET", "/seldon.json")],
    ),
    "seldon-grpc": Case(
        SeldonGrpcWire(), ("POST", "/seldon.protos.Seldon/Predict"),
        {seldon_message(lambda message: values(message, *LISTS)): [ROW, OTHER]},
        [
            seldon_message(lambda message: None),
            seldon_message(lambda message: values(message, LISTS[0][:2])),
            seldon_message(lambda message: values(message, [float("nan"), "a", 2])),
            seldon_message(lambda message: setattr(message, "strData", "a")),
            seldon_message(lambda message: setattr(message, "binData", b"a")),
            seldon_message(lambda message: message.data.SetInParent()),
            seldon_message(lambda message: message.data.tensor.shape.extend([1, 3])),
        ],
        [("POST", "/seldon.protos.Model/Metadata"), ("POST", "/seldon.protos.Seldon/SendFeedback")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_the_scoring_wires(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])
