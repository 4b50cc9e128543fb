"""Deadlines, rows, large bodies, compressed answers and the debug pages, over a socket."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard import plugins
from modelyard.errors import InvalidInput
from modelyard.schema import Field, Signature
from modelyard.serving import compression, routing
from modelyard.serving.compression import coding
from modelyard.serving.debug import read_changes
from modelyard.serving.patience import seconds_of
from modelyard.testing.memory import MemoryBundle

from .conftest import INPUTS, MemorySource, linear

Serve = Callable[..., Any]


def ask(server: Any, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    method = named.pop("method", "POST" if body is not None else "GET")
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    told = answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    connection.close()
    return told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0.25", 0.25), ("250ms", 0.25), ("2s", 2), ("1m", 60), ("500us", 0.0005), ("soon", 9), ("-1", 9), ("", 9)],
)  # fmt: skip
def test_how_long_a_caller_waits(text: str, seconds: float) -> None:
    assert seconds_of({"x-request-timeout": text}, 9) == pytest.approx(seconds)


def test_envoy_tells_it_too() -> None:
    assert seconds_of({"x-envoy-expected-rq-timeout-ms": "1500"}, 9) == 1.5
    assert seconds_of({}, 9) == 9


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def held(source: MemorySource, serve: Serve, gate: threading.Event) -> Any:
    """A server whose model answers x1 = 0 at once, and others when ``gate`` is open."""

    def predict(columns: Any) -> dict[str, Any]:
        if (columns["x1"] != 0).any():
            gate.wait(60)
        return {"prediction": columns["x1"]}

    signature = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="float64"),))
    source.add("m", MemoryBundle(signature, predict, {"x1": [0.0], "x2": [0.0]}), "production")
    server = serve("m")
    loaded = server.catalog.models()[0]
    for _ in range(100):
        loaded.cost.learn(1, 0.5)  # so that calls run in threads
    yield server
    gate.set()


def test_a_deadline_in_a_header(held: Any) -> None:
    status, _, body = ask(held, "/predict", b'{"x1": 1, "x2": 0}', x_request_timeout="100ms")
    assert status == 504
    error = json.loads(body)["error"]
    assert error["code"] == "deadline_passed" and "x-request-timeout" in error["hint"]


def test_a_deadline_that_passes_before_the_model_is_asked(source: MemorySource, serve: Serve) -> None:
    source.add("m", linear(), "production")
    server = serve("m")
    status, _, body = ask(server, "/predict", b'{"x1": 1, "x2": 2}', x_request_timeout="0.000000001")
    assert status == 504 and b"was not asked" in body
    assert b'modelyard_calls_total{model="m",version="1"} 0' in ask(server, "/metrics")[2]


def test_too_many_who_wait_are_told_when_to_come_again(held: Any, gate: threading.Event) -> None:
    held.application.limits.queue_seconds = 0.2
    answers: list[tuple[int, dict[str, str], bytes]] = []
    callers = [
        threading.Thread(target=lambda: answers.append(ask(held, "/predict", b'{"x1": 1, "x2": 0}'))) for _ in range(12)
    ]
    for caller in callers:
        caller.start()
    while not any(status == 503 for status, _, _ in answers):
        assert any(caller.is_alive() for caller in callers)
        time.sleep(0.01)
    gate.set()
    for caller in callers:
        caller.join()
    refused = [(headers, body) for status, headers, body in answers if status == 503]
    assert len(answers) == 12 and {status for status, _, _ in answers} == {200, 503}
    assert all(int(headers["retry-after"]) >= 1 for headers, _ in refused)
    assert b'"overloaded"' in refused[0][1]


def test_more_rows_than_a_request_may_hold(source: MemorySource, serve: Serve) -> None:
    source.add("m", linear(), "production")
    server = serve("m", max_rows=3)
    assert ask(server, "/predict", b'{"x1": [1, 2, 3], "x2": [1, 2, 3]}')[0] == 200
    status, _, body = ask(server, "/predict", b'{"x1": [1, 2, 3, 4], "x2": [1, 2, 3, 4]}')
    assert status == 400 and b"at most 3 rows" in body and b"MODELYARD_MAX_ROWS" in body


def test_a_large_body_is_decoded_beside_the_loop(
    source: MemorySource, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add("m", linear(), "production")
    server = serve("m")
    names: set[str] = set()
    real = routing.Predicting._decode_in_thread

    def noted(self: Any, *arguments: Any) -> None:
        names.add(threading.current_thread().name)
        real(self, *arguments)

    monkeypatch.setattr(routing.Predicting, "_decode_in_thread", noted)
    count = 30_000
    values = [float(i) for i in range(count)]
    status, _, body = ask(server, "/predict", json.dumps({"x1": values, "x2": values}).encode())
    assert status == 200
    assert np.allclose(json.loads(body)["prediction"], 3 * np.array(values) + 1)
    assert all(name.startswith("modelyard-slow") for name in names) and names
    status, _, body = ask(server, "/predict", json.dumps({"x1": values, "x2": [*values[:-1], "no"]}).encode())
    assert status == 400 and b"[29999].x2" in body.replace(b"x2[29999]", b"[29999].x2")


def test_a_large_compressed_body_is_inflated_beside_the_loop(source: MemorySource, serve: Serve) -> None:
    source.add("m", linear(), "production")
    server = serve("m", max_body=1 << 20)
    values = np.random.default_rng(0).random(9000).tolist()
    packed = gzip.compress(json.dumps({"x1": values, "x2": values}).encode(), 1)
    assert len(packed) > compression.INFLATED_ON_LOOP
    status, _, body = ask(server, "/predict", packed, content_encoding="gzip")
    assert status == 200 and np.allclose(json.loads(body)["prediction"], 3 * np.array(values) + 1)
    assert ask(server, "/predict", packed[:-9], content_encoding="gzip")[0] == 400
    assert ask(server, "/predict", gzip.compress(bytes(40 << 20)), content_encoding="gzip")[0] == 413


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate, br", "gzip"), ("deflate, gzip;q=0.5", "deflate"),
        ("br", ""), ("gzip;q=0", ""), ("*", "gzip"), ("identity, gzip;q=0.5", ""), ("", ""), ("gzip;q=x", ""),
        ("GZIP;q=1.0", "gzip"),
    ],
)  # fmt: skip
def test_the_coding_of_an_answer(accepted: str, chosen: str) -> None:
    assert coding(accepted) == chosen


@pytest.mark.parametrize("rows", [500, 30_000])
def test_large_answers_are_compressed_for_those_who_take_them(source: MemorySource, serve: Serve, rows: int) -> None:
    source.add("m", linear(), "production")
    server = serve("m")
    body = json.dumps({"x1": list(range(rows)), "x2": [0] * rows}).encode()
    status, headers, plain = ask(server, "/predict", body, x_request_id="r")
    assert status == 200 and "content-encoding" not in headers
    for how, wbits in (("gzip", 31), ("deflate", 15)):
        status, headers, packed = ask(server, "/predict", body, accept_encoding=how, x_request_id="r")
        assert (status, headers["content-encoding"], headers["vary"]) == (200, how, "accept-encoding")
        assert len(packed) < len(plain) and zlib.decompress(packed, wbits) == plain
    status, headers, _ = ask(server, "/predict", b'{"x1": 1, "x2": 2}', accept_encoding="gzip")
    assert status == 200 and "content-encoding" not in headers


def test_errors_are_compressed_as_well(source: MemorySource, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("m", linear(), "production")
    monkeypatch.setattr("modelyard.serving.http.COMPRESSED_FROM", 10)
    status, headers, packed = ask(serve("m"), "/predict", b"{}", accept_encoding="gzip")
    assert status == 400 and headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed))["error"]["code"] == "invalid_input"
    assert compression.COMPRESSED_FROM > 10


def test_the_pages_of_those_who_ask_why(source: MemorySource, serve: Serve) -> None:
    source.add("m", linear(), "production")
    server = serve("m")
    for _ in range(3):
        assert ask(server, "/predict", b'{"x1": 1, "x2": 2}')[0] == 200
    status, _, body = ask(server, "/debug/batching/m")
    (told,) = json.loads(body)["batching"]
    assert status == 200 and told["requests"] == 3 and told["reasons"][0]["reason"] == "alone"
    assert json.loads(ask(server, "/debug/batching")[2])["batching"][0]["model"] == "m"
    status, _, body = ask(server, "/debug/batching/n")
    assert status == 404 and b"known: m" in body


def test_limits_change_live(source: MemorySource, serve: Serve) -> None:
    source.add("m", linear(), "production")
    server = serve("m")
    two = b'{"x1": [1, 2], "x2": [1, 2]}'
    assert ask(server, "/predict", two)[0] == 200
    status, _, body = ask(server, "/debug/limits", b'{"max_rows": 1}', method="PATCH")
    assert status == 200 and json.loads(body)["max_rows"] == 1
    assert ask(server, "/predict", two)[0] == 400
    assert json.loads(ask(server, "/debug/limits")[2])["max_rows"] == 1
    status, _, body = ask(server, "/debug/limits", b'{"max_rows": 0}', method="PATCH")
    assert status == 400 and b"a whole number above 0" in body
    assert ask(server, "/debug/limits", b"{}", method="PUT")[0] == 405


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "body"), (b"[]", "body"), (b'{"rows": 1}', "rows"), (b'{"batch_rows": 1.5}', "batch_rows"),
        (b'{"batch_rows": true}', "batch_rows"), (b'{"queue_seconds": "1"}', "queue_seconds"),
        (b'{"queue_seconds": -1}', "queue_seconds"), (b'{"queue_seconds": 1e400}', "body"),
    ],
)  # fmt: skip
def test_limits_that_make_no_sense(body: bytes, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_changes(body)
    assert caught.value.problems[0].path == path


def test_half_a_pair_of_code_units_is_told_in_the_refusal(source: MemorySource, serve: Serve) -> None:
    source.add("m", linear(), "production")
    server = serve("m")
    body = b'{"instances": [{"x1": 1, "x2": 2}], "signature_name": "\\ud800"}'
    status, _, answer = ask(server, "/v1/models/m:predict", body)
    assert status == 400 and b"ud800" in answer


def test_a_wire_that_cannot_refuse_leaves_nobody_without_an_answer(
    source: MemorySource, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add("m", linear(), "production")
    server = serve("m")

    def broken(*_: Any) -> Any:
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    monkeypatch.setattr("modelyard.wires.native.NativeWire.refuse", broken)
    assert ask(server, "/predict", b"{}")[0] == 500
    assert any(line["event"] == "internal error" for line in server.lines())
    assert json.loads(ask(server, "/predict", b"{}")[2])["error"]["code"] == "internal"


GRPC = "/inference.GRPCInferenceService/ModelInfer"


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/", None, 404, "no such path: /"),
        ("/nowhere", b"{}", 404, "no such path: /nowhere"),
        ("/v2/nowhere", None, 404, "no such path: /v2/nowhere"),
        (GRPC, b"{}", 415, "is called over gRPC"),
        (GRPC, None, 405, "use POST"),
        ("/inference.GRPCInferenceService/No", b"{}", 404, "no such path"),
        ("/grpc.health.v1.Health/Check", b"", 415, "is called over gRPC"),
        ("/grpc.health.v1.Health/Watch?x=1", b"", 415, "is called over gRPC"),
    ],
)
def test_each_refusal_has_a_body_in_the_words_of_the_only_wire(
    source: MemorySource, serve: Serve, path: str, body: bytes | None, status: int, words: str
) -> None:
    source.add("m", linear(), "production")
    got, headers, answer = ask(serve("m", wires=["oip"]), path, body)
    assert got == status and headers["content-type"] == "application/json"
    told = json.loads(answer)["error"]
    assert isinstance(told, str) and words in told


@pytest.mark.parametrize("wire", plugins.names("wires"))
def test_no_refusal_is_without_a_body(source: MemorySource, serve: Serve, wire: str) -> None:
    source.add("m", linear(), "production")
    server = serve("m", wires=[wire])
    for path, body in (("/nowhere", None), ("/nowhere", b"{}"), (GRPC, b"{}"), ("/predict/x", b"{}")):
        status, _, answer = ask(server, path, body)
        assert 400 <= status < 500 and answer, path


def test_without_a_key_a_call_of_grpc_is_refused_in_plain_words_too(
    source: MemorySource, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    source.add("m", linear(), "production")
    status, headers, answer = ask(serve("m", keys=True, wires=["oip"]), GRPC, b"{}")
    assert status == 401 and headers["www-authenticate"] == "Bearer"
    assert "API key" in json.loads(answer)["error"]
