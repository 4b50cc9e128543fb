"""Production mode: what answers keep to themselves."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from modelyard import errors
from modelyard.errors import InvalidInput, Problem
from modelyard.registry import Registry
from modelyard.serving.reticence import quieted
from modelyard.serving.server import Server
from modelyard.testing.memory import MemoryBundle
from receivers import until

from .conftest import MemorySource, linear

Serve = Callable[..., Server]
ROW = {"x1": 1.5, "x2": 2}


class Broken(MemoryBundle):
    """Works until it is served."""

    def __init__(self) -> None:
        whole = linear()

        def predict(columns: Any) -> Mapping[str, Any]:
            if columns["x1"][0] == 666:
                raise ValueError("cannot open /srv/private/weights.bin")
            return {"prediction": columns["x1"]}

        super().__init__(whole.signature, predict, {"x1": [1.0], "x2": [2.0]})


@pytest.fixture
def server(source: MemorySource, serve: Serve) -> Server:
    source.add("secretmodel", Broken())
    source.add("other", linear())
    return serve("secretmodel", "other", production=True)


def ask(server: Server, path: str, body: Any = None, port: int = 0, key: str = "") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port or server.port, timeout=60)
    try:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers["x-request-id"]
    finally:
        connection.close()


def infer(**values: Any) -> Any:
    return {"inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in values.items()]}


def test_predictions_are_as_ever(server: Server) -> None:
    status, body, _ = ask(server, "/models/other/predict", ROW)
    assert status == 200 and json.loads(body)["prediction"] == 6.5


@pytest.mark.parametrize(
    ("path", "body", "status", "known"),
    [
        ("/models/other/predict", {"x1": "a", "x2": 2}, 400, "x1"),
        ("/models/other/predict", {"x1": 1, "x2": 2, "mine": 3}, 400, "mine"),
        ("/models/other/predict", {"x1": 1}, 400, ""),
        ("/v2/models/other/infer", infer(x1="a", x2=1), 400, "inputs[0]"),
        ("/v2/models/other/infer", infer(x1=1), 400, ""),
        ("/v2/models/other/infer", infer(x1=1, x2=1, mine=2), 400, "inputs[2].name"),
        ("/models/secretmodel/predict", {"x1": 666, "x2": 1}, 500, "the model failed"),
        ("/v2/models/secretmodel/infer", infer(x1=666, x2=1), 500, "the model failed"),
        ("/models/nosuch/predict", ROW, 404, "no such path, model or version"),
        ("/models/other/versions/9/predict", ROW, 404, "no such path, model or version"),
        ("/v2/models/nosuch/infer", infer(x1=1, x2=1), 404, "no such"),
        ("/predict", ROW, 404, "no such"),
        ("/nowhere", None, 404, "no such"),
    ],
)
def test_errors_tell_no_schema_and_no_reason(path: str, body: Any, status: int, known: str, server: Server) -> None:
    found, text, request_id = ask(server, path, body)
    assert found == status
    assert known in text and request_id
    said = text.replace(request_id, "")
    given = json.dumps(body) + path
    hidden = ["weights", "srv", "ValueError", "number", "float", "FP64", "column", "hint", "GET /", "modelyard"]
    assert not [word for word in [*hidden, "x1", "x2", "secretmodel", "other"] if word in said and word not in given]
    assert "x2" not in said or "x2" in given


def test_the_log_has_the_rest(server: Server) -> None:
    _, _, request_id = ask(server, "/models/secretmodel/predict", {"x1": 666, "x2": 1})
    (line,) = [line for line in server.lines() if "weights.bin" in json.dumps(line)]  # type: ignore[attr-defined]
    assert line["request_id"] == request_id


@pytest.mark.parametrize(
    "path", ["/", "/models", "/models/other", "/openapi.json", "/v2", "/v2/models/other", "/metrics"]
)
def test_descriptions_are_for_those_who_run_it(path: str, server: Server) -> None:
    status, text, _ = ask(server, path)
    assert status == 403
    assert "other" not in text and "x1" not in text


def test_readiness_says_yes_or_no(server: Server) -> None:
    assert ask(server, "/health/ready")[:2] == (200, '{"ready":true}')
    server.catalog.draining = True
    assert ask(server, "/health/ready")[:2] == (503, '{"ready":false}')
    status, text, _ = ask(server, "/v2/health/ready")
    assert status == 503 and "secretmodel" not in text


def test_no_dialect_tells_why_a_model_is_missing_or_what_we_are(source: MemorySource, serve: Serve) -> None:
    source.add("lin", linear())
    wires = ["native", "oip", "kserve", "tfserving", "mlflow", "seldon"]
    server = serve("lin", production=True, wires=wires)
    source.add("lin", errors.BadBundle("damaged: /srv/private/weights.bin"))
    until(lambda: any("load failed" in line["event"] for line in server.lines()))  # type: ignore[attr-defined]
    assert "weights" in "".join(server.catalog.faults().values())
    for path in ("/health/ready", "/v2/health/ready", "/v2/models/lin/ready", "/v1/models/lin", "/ping"):
        status, text, _ = ask(server, path)
        assert status in (200, 503)
        assert "private" not in text and "damaged" not in text
    assert ask(server, "/version")[0] == 403


def test_the_admin_port_describes(source: MemorySource, serve: Serve) -> None:
    source.add("lin", linear())
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = serve("lin", production=True, admin_port=port)
    for path in ("/", "/models", "/openapi.json", "/metrics", "/v2/models/lin"):
        assert ask(server, path, port=port)[0] == 200
        assert ask(server, path)[0] == 404


def test_a_key_for_operators_describes(
    source: MemorySource, serve: Serve, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    registry = Registry.open()
    _, shop = registry.keys.create("shop")
    _, operator = registry.keys.create("operator", scopes=["admin"])
    source.add("lin", linear())
    server = serve("lin", production=True, keys=True, registry=registry)
    for path in ("/", "/models", "/openapi.json", "/v2/models/lin"):
        assert ask(server, path, key=shop)[0] == 403
        assert ask(server, path, key=operator)[0] == 200
    assert ask(server, "/predict", ROW, key=shop)[0] == 200


@pytest.mark.parametrize(
    "cls", [cls for cls in errors.ModelyardError.__subclasses__() if cls.__module__ == "modelyard.errors"]
)
def test_errors_stay_what_they_are(cls: type[errors.ModelyardError]) -> None:
    error = cls("what happened: /srv/private", hint="look at /srv/private", where="/srv/private")
    quiet = quieted(error)
    assert type(quiet) is cls
    if cls.code not in ("error",):
        assert "private" not in str(quiet) and "private" not in str(quiet.details)  # type: ignore[attr-defined]


def test_problems_keep_the_callers_own_paths() -> None:
    problems = [
        Problem("[3].age", "a whole number from 0 to 120", "'x'"),
        Problem("income", "a number", "nothing: the column is missing"),
    ]
    quiet = quieted(InvalidInput.of(problems, hint="did you mean salary?"))
    assert isinstance(quiet, InvalidInput)
    assert (quiet.message, quiet.hint) == ("the input does not fit: [3].age", "")
    assert quiet.problems == (Problem("[3].age", "", ""),)
    assert str(quieted(InvalidInput.at("income", "a number", "nothing"))) == "the input does not fit"


def test_bugs_are_left_to_the_wires() -> None:
    bug = ValueError("x")
    assert quieted(bug) is bug
