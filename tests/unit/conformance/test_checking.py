"""The kit against servers that are wrong on purpose."""

from __future__ import annotations

import json
import random
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import main
from modelyard.conformance import DIALECTS, check
from modelyard.conformance.client import Client, Request
from modelyard.conformance.oip_model import DATATYPES
from modelyard.errors import InvalidInput, NotFound, Refused, RemoteFailed

BODY = b'{"instances": [{"x1": 5, "x2": 1}, {"x1": 0, "x2": 3}]}'

OUTPUT = {"name": "y", "datatype": "FP64", "shape": [2, 1], "data": [1.0, 2.0]}
INPUT = {"name": "x", "datatype": "FP64", "shape": [-1, 1]}
#: All that an example needs, whatever was asked.
AGREEABLE = {
    "name": "m", "version": "1", "extensions": ["binary_tensor_data"], "platform": "p", "inputs": [INPUT],
    "outputs": [OUTPUT], "model_name": "m", "model_version": "1", "predictions": [1, 2],
}  # fmt: skip


@contextmanager
def server(answer: Callable[[str, str, bytes], tuple[int, Any]]) -> Iterator[str]:
    """A server that answers what a function says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            try:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
            except ValueError:
                body = b""
            code, told = answer(self.command, self.path, body)
            data = json.dumps(told).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None: ...

    class Threads(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...

    with Threads(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}"
        finally:
            running.shutdown()
            thread.join()


def broken(url: str, protocol: str, **more: Any) -> set[str]:
    report = check(url, protocol, model="m", body=b"" if protocol == "oip" else BODY, seconds=60, **more)
    assert not report.passed
    assert all(each.reason for each in report.outcomes if each.outcome != "pass")
    return {each.id for each in report.broken}


def test_a_server_that_agrees_to_everything_breaks_every_refusal() -> None:
    with server(lambda *_: (200, AGREEABLE)) as url:
        found = broken(url, "oip")
        assert found >= {
            "unknown-model", "unknown-version", "not-json", "shape-huge", "text-for-number", "infer-id",
            "infer-unknown-output", "binary-outputs", "binary-trailing", "binary-length-negative", "server-live-body",
            "http-space-before-colon",
        }  # fmt: skip
        assert not found & {"server-metadata", "infer", "infer-whole", "still-there", "http-pipeline"}
        assert broken(url, "kserve") >= {"unknown-model", "no-json", "instances-text"}
        assert broken(url, "mlflow") >= {"other-type", "list", "both", "missing-column"}
        assert broken(url, "vertex") >= {"no-instances", "empty-body", "unknown-path"}
        assert broken(url, "sagemaker") >= {"bad-body", "get-invocations", "other-type"}


def test_rules_of_grpc_are_skipped_with_a_reason() -> None:
    with server(lambda *_: (200, AGREEABLE)) as url:
        for address, words in (("", "no address of gRPC"), ("127.0.0.1:1", "grpcio is not installed")):
            if address and find_spec("grpc"):
                continue
            report = check(url, "oip", model="m", seconds=60, grpc=address)
            skipped = [each for each in report.outcomes if each.id.startswith("grpc-")]
            assert len(skipped) > 25 and all(each.reason.startswith(words) for each in skipped)


def test_a_server_whose_values_change_is_found_out() -> None:
    count = iter(range(10**6))

    def answer(*_: Any) -> tuple[int, Any]:
        return 200, {**AGREEABLE, "outputs": [{**OUTPUT, "data": [1.0, float(next(count))]}]}

    with server(answer) as url:
        assert broken(url, "oip") >= {"infer-nested", "infer-parameters", "binary-inputs"}


JUNK = [
    None, [], {}, "x", 7, [None], {"inputs": 7, "outputs": {}}, {"outputs": []}, {"predictions": 7},
    {"outputs": [{"name": 1, "data": None}]}, {"data": {"tensor": []}}, {"data": {"ndarray": 7}},
    {"model_version_status": [{}]},
    {"metadata": {"signature_def": {"signature_def": {"a": {"inputs": {"x": {"dtype": 1}}}}}}}, {"models": [7]},
    {"extensions": 7, "inputs": [{"name": {}, "datatype": [], "shape": "x"}]},
    {"inputs": [{"name": "x", "datatype": "NONE", "shape": [-1, 2]}]},
]  # fmt: skip


@pytest.mark.parametrize("agreeable", [0, 2, 4, 5])
def test_whatever_a_server_answers_the_kit_says_so(agreeable: int) -> None:
    """It answers as it should a few times, and then anything."""
    seen, rng = [0], random.Random(agreeable)
    rows = {"ndarray": [[1], [2]]}

    def answer(*_: Any) -> tuple[int, Any]:
        seen[0] += 1
        if seen[0] <= agreeable:
            return 200, {**AGREEABLE, "data": rows}
        return rng.choice([200, 200, 400, 500]), rng.choice(JUNK)

    with server(answer) as url:
        for protocol in DIALECTS:
            seen[0] = 0
            body = b"" if protocol in ("oip", "tfserving") and agreeable < 5 else BODY
            with suppress(InvalidInput):
                assert not check(url, protocol, model="m", body=body, seconds=60).passed


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "x", "datatype": "BF16", "shape": [2], "data": [1, 2]},
        {"name": "x", "datatype": "FP64", "shape": [], "data": [1]},
        {"name": "x", "datatype": "INT64", "shape": [1], "data": ["a"]},
    ],
    ids=["type", "dimension", "data"],
)
def test_examples_that_have_no_binary_form_skip_its_rules(tensor: dict[str, Any]) -> None:
    with server(lambda *_: (200, AGREEABLE)) as url:
        report = check(url, "oip", model="m", body=json.dumps({"inputs": [tensor]}).encode(), seconds=60)
    skipped = {each.id: each.reason for each in report.outcomes if each.outcome == "skipped"}
    assert skipped["binary-shape"].startswith(("the kit writes no BF16", "the input x has no", "the data of x"))


def test_what_is_needed_is_said() -> None:
    with server(lambda *_: (200, {})) as url:
        for protocol in ("oip", "tfserving", "kserve"):
            with pytest.raises(InvalidInput, match="--model"):
                check(url, protocol)
        for protocol in ("mlflow", "vertex", "sagemaker", "seldon"):
            with pytest.raises(InvalidInput, match="an example request is missing"):
                check(url, protocol)
        with pytest.raises(InvalidInput, match="describe no inputs"):
            check(url, "oip", model="m")
        with pytest.raises(InvalidInput, match="does not answer the example request: 200"):
            check(url, "mlflow", body=BODY)
        with pytest.raises(InvalidInput, match="--body: expected"):
            check(url, "oip", model="m", body=b"[]")
    with server(lambda *_: (401, {"error": "a key, please"})) as url:
        for model in ("", "m"):
            with pytest.raises(Refused, match="a key, please") as caught:
                check(url, "oip", model=model)
            assert "--key" in caught.value.hint
    with server(lambda *_: (404, {"error": "no such model"})) as url, pytest.raises(NotFound, match="no such model"):
        check(url, "oip", model="m")
    with pytest.raises(RemoteFailed, match="no answer from http"):
        check(url, "oip", model="m")
    with pytest.raises(InvalidInput, match="URL: expected http"):
        check("localhost:8080", "oip")


def test_the_only_model_is_found_and_examples_are_made_for_every_datatype() -> None:
    inputs = [{"name": each.lower(), "datatype": each, "shape": [-1, 2]} for each in sorted(DATATYPES - {"BF16"})]
    asked: list[Any] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/v2/repository/index":
            return 200, [{"name": "m", "state": "READY"}]
        if path.endswith("/infer"):
            asked.append(body)
        return 200, {**AGREEABLE, "inputs": inputs}

    with server(answer) as url:
        assert check(url, "oip", seconds=60).model == "m"
    first = json.loads(asked[0])["inputs"]
    assert [each["datatype"] for each in first] == [each["datatype"] for each in inputs]
    assert all(each["shape"] == [2, 2] and len(each["data"]) == 4 for each in first)


def test_the_client_sends_what_it_is_told_and_survives_what_it_gets() -> None:
    with server(lambda method, path, body: (200, {"method": method, "path": path, "body": body.decode()})) as url:
        client = Client(url, headers={"authorization": "Bearer k"}, seconds=60)
        assert client.ask(Request("POST", "/a", b"xyz")).json == {"method": "POST", "path": "/a", "body": "xyz"}
        raw = b"GET /b HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n\r\n"
        request = Request("GET", "/b")
        assert b"Bearer k" in request.but(raw=raw).bytes("h:1", {"authorization": "Bearer k"})
        assert client.ask(request.but(raw=raw * 3, answers=3)).json["path"] == "/b"
        cut = client.ask(request.but(raw=raw, answers=2, closes=True))
        assert cut.status == 0 and cut.fault.startswith("1 of 2 requests were answered")
        assert client.ask(request.but(raw=b"GET", closes=True)).status in (0, 400)
    assert "refused" in client.ask(request).fault


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = tmp_path / "example.json"
    example.write_bytes(BODY)
    with server(lambda *_: (200, AGREEABLE)) as url:
        words = ["conformance", url, "--protocol", "vertex", "--body", str(example), "--seconds", "1"]
        assert main(words) == 11
        out = capsys.readouterr().out
        assert "fail     must    no-instances: An object without instances is refused.\n" in out
        assert "expected a status from 400 to 499, got 200" in out and "why: " in out
        assert "pass  " not in out and "rules kept" in out.splitlines()[-1]
        assert main([*words, "--all"]) == 11 and "pass     must    health" in capsys.readouterr().out
        assert main([*words, "--json"]) == 11
        told = json.loads(capsys.readouterr().out)
        assert told["passed"] is False and told["protocol"] == "vertex"
        assert {"id", "outcome", "severity", "asks", "why", "reason"} == set(told["outcomes"][0])
