"""Vertex AI's custom containers: routes, parameters and answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.errors import InvalidInput, NotReady
from modelyard.messages import Batch, Call, Message, Response
from modelyard.testing.wires import KitCatalog, KitServed, outputs
from modelyard.wires.vertex import VertexWire

RECORD = {"x1": 1.5, "city": "Rome", "x2": -2}


def answer(body: Any, kind: str = "application/json") -> Any:
    codec = VertexWire().codec(Call("predict"), KitServed())
    request = codec.decode(body if isinstance(body, bytes) else json.dumps(body).encode(), {"content-type": kind})
    message = codec.encode(request, Response(Batch(outputs(70)), 50, 50 + request.rows, "id-1"))
    return json.loads(message.body)


def test_routes_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "AIP_HTTP_PORT", "AIP_MODE"):
        monkeypatch.delenv(name, raising=False)
    assert VertexWire().match("POST", "/v1/endpoints/0/deployedModels/0:predict") == Call("predict")
    monkeypatch.setenv("AIP_ENDPOINT_ID", "12")
    monkeypatch.setenv("AIP_DEPLOYED_MODEL_ID", "34")
    monkeypatch.setenv("AIP_MODE", "PREDICTION")
    wire = VertexWire()
    assert wire.match("POST", "/v1/endpoints/12/deployedModels/34:predict") == Call("predict")
    assert wire.match("GET", "/v1/endpoints/12/deployedModels/34") == Call("health", scope="open")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/up")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/ask")
    wire = VertexWire()
    assert wire.match("POST", "/ask") == Call("predict") and wire.match("GET", "/ask") is None
    assert wire.match("GET", "/up") == Call("health", scope="open")


def test_health() -> None:
    call = Call("health", scope="open")
    assert json.loads(VertexWire().inform(call, Message(b""), KitCatalog()).body)
    with pytest.raises(NotReady):
        VertexWire().inform(call, Message(b""), KitCatalog(ready=False))


def test_predictions_are_as_many_as_instances() -> None:
    assert answer({"instances": [RECORD] * 2, "parameters": {"k": 1}}) == {
        "predictions": [
            {"prediction": "no", "probabilities": {"no": 0.5, "yes": 0.5}},
            {"prediction": "yes", "probabilities": {"no": 0.49, "yes": 0.51}},
        ]
    }


def test_a_single_output_is_bare() -> None:
    told = answer({"instances": [list(RECORD.values())], "parameters": {"outputs": ["prediction"]}})
    assert told == {"predictions": ["no"]}


def test_what_raw_predict_forwards() -> None:
    assert len(answer(b"x1,city,x2\n1,a,2\n3,b,4\n", "text/csv; charset=utf-8")["predictions"]) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"instances": [RECORD], "parameters": [1]}, "parameters: expected an object"),
        ({"instances": [{**RECORD, "x3": 1}]}, "instances[0].x3"),
        ({"data": [RECORD]}, "exactly one of instances, got none of them"),
    ],
)
def test_what_is_said(body: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        answer(body)
    told = VertexWire().refuse(None, caught.value, "id-1")
    assert said in json.loads(told.body)["error"] and told.code == "invalid_input"


@pytest.mark.parametrize("names", ['[{"a":1}]', '[["prediction"]]', "{}", '"prediction"', "[" * 700 + "]" * 700, "[1]"])
def test_outputs_that_are_no_names(names: str) -> None:
    body = json.dumps({"instances": [RECORD], "parameters": {"outputs": None}}).replace("null", names).encode()
    with pytest.raises(InvalidInput, match="a list of outputs"):
        answer(body)
