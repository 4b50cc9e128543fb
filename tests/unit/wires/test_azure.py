"""Azure ML's inference server: forms of bodies, the matrix of request ids, probes and the description."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard import __version__
from modelyard.errors import InvalidInput, NotReady
from modelyard.messages import QUERY, Batch, Call, Message, Response
from modelyard.testing.wires import KitCatalog, KitServed, outputs
from modelyard.wires.azure import AzureWire

WIRE = AzureWire()
RECORD = {"x1": 1.5, "city": "Rome", "x2": -2}
LIST = [1.5, "Rome", -2]


def ask(body: Any, method: str = "POST", **headers: str) -> Message:
    call = WIRE.match(method, "/score")
    assert call is not None
    codec = WIRE.codec(call, KitServed())
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = codec.decode(text, {name.replace("_", "-"): value for name, value in headers.items()})
    return codec.encode(request, Response(Batch(outputs(70)), 50, 50 + request.rows, "made"))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"input_data": {"columns": list(RECORD), "index": [0], "data": [LIST]}}, ["no"]),
        ({"input_data": [LIST, LIST]}, ["no", "yes"]),
        ({"input_data": {name: [value] for name, value in RECORD.items()}, "params": {}}, ["no"]),
        ({"data": [RECORD]}, {"result": ["no"]}),
        ({"data": [LIST], "method": "predict"}, {"result": ["no"]}),
        ({"Inputs": {"data": [RECORD]}, "GlobalParameters": 1.0}, {"Results": ["no"]}),
        ({"Inputs": {"input1": [RECORD]}}, {"Results": ["no"]}),
        (RECORD, {"predictions": [{"prediction": "no", "probabilities": {"no": 0.5, "yes": 0.5}}]}),
        ({**RECORD, "city": "data"}, {"predictions": [{"prediction": "no", "probabilities": {"no": 0.5, "yes": 0.5}}]}),
    ],
)
def test_bodies_and_their_answers(body: Any, told: Any) -> None:
    assert json.loads(ask(body).body) == told


def test_a_query_is_a_row() -> None:
    message = ask(b"", "GET", **{QUERY: "x1=1.5&city=New%20York&x2=-2"})
    assert json.loads(message.body)["predictions"][0]["prediction"] == "no"
    for query in ("", "x1=1", "x1=a&city=b&x2=1", "x1=1&x1=2&city=b&x2=1"):
        with pytest.raises(InvalidInput):
            ask(b"", "GET", **{QUERY: query})


@pytest.mark.parametrize(
    ("mine", "client", "told", "told_client"),
    [
        ("", "", "made", None),
        ("B", "", "B", "B"),
        ("", "C", "C", "C"),
        ("B", "C", "C", "C"),
    ],
)
def test_request_ids(mine: str, client: str, told: str, told_client: str | None) -> None:
    """The matrix that Azure documents; ``x-request-id`` is every listener's own."""
    sent = {"x_ms_request_id": mine, "x_ms_client_request_id": client}
    headers = ask(RECORD, **{name: value for name, value in sent.items() if value}).headers
    assert headers["x-ms-request-id"] == told
    assert headers.get("x-ms-client-request-id") == told_client


def test_other_headers() -> None:
    headers = ask(RECORD, trace_id="t-1").headers
    assert headers["trace-id"] == "t-1" and headers["x-ms-server-version"] == f"modelyard/{__version__}"
    assert "trace-id" not in ask(RECORD).headers


def test_the_root_is_a_probe() -> None:
    call = WIRE.match("GET", "/")
    assert call is not None and call.scope == "open"
    message = WIRE.inform(call, Message(b"", {"accept": "*/*"}), KitCatalog())
    assert (message.body, message.content_type) == (b"Healthy", "text/plain; charset=utf-8")
    message = WIRE.inform(call, Message(b"", {"accept": "application/json"}), KitCatalog())
    assert json.loads(message.body) == {"status": "alive"}
    with pytest.raises(NotReady):
        WIRE.inform(call, Message(b""), KitCatalog(ready=False))


def test_options() -> None:
    call = WIRE.match("OPTIONS", "/score")
    assert call is not None
    assert WIRE.inform(call, Message(b""), KitCatalog()).headers == {"allow": "GET, POST, OPTIONS"}


@pytest.mark.parametrize(("query", "key", "value"), [("", "swagger", "2.0"), ("version=3", "openapi", "3.0.3")])
def test_the_description(query: str, key: str, value: str) -> None:
    told = json.loads(WIRE.inform(Call("swagger"), Message(b"", {QUERY: query}), KitCatalog()).body)
    assert told[key] == value and set(told["paths"]) == {"/", "/score"}
    row = json.dumps(told["paths"]["/score"]["post"])
    assert '"required": ["x1", "city", "x2"]' in row
    validate = pytest.importorskip("openapi_spec_validator", reason="the validator is not installed").validate
    validate(told)


def test_a_description_that_there_is_not() -> None:
    with pytest.raises(InvalidInput, match="2 or 3"):
        WIRE.inform(Call("swagger"), Message(b"", {QUERY: "version=4"}), KitCatalog())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"data": [[1]]}, "data[0]: expected a list of 3"),
        ({"input_data": {"columns": ["x1"], "data": [[1]]}}, "input_data.columns: expected the column city"),
        ({"Inputs": {"more": []}}, "exactly one of data, input1, WebServiceInput0"),
        ({"x1": 1}, "city: expected a text or null"),
    ],
)
def test_what_is_said(body: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(body)
    message = WIRE.refuse(Call("predict"), caught.value, "id-1")
    assert said in json.loads(message.body)["message"] and message.headers["x-ms-request-id"] == "id-1"
