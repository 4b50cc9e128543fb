"""Spans arrive at a receiver of OTLP as OpenTelemetry has them, whoever takes the requests."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import time_ns
from typing import Any

import pytest

from modelyard import settings
from modelyard.errors import InvalidInput, MissingDependency
from modelyard.serving import spans
from modelyard.serving.application import Application
from modelyard.serving.grpc import STATUS as GRPC_STATUS
from modelyard.serving.spans import Noted, _attributes, _is_fault
from modelyard.serving.tracing import Trace
from modelyard.serving.wsgi import WsgiApp
from otlp import Receiver, attributes
from receivers import until

from .conftest import MemorySource, linear
from .test_tracing import SPAN, TRACE, ask

PARENT = f"traceparent: 00-{TRACE}-{SPAN}-01"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def test_a_request_becomes_a_span_with_its_stages(
    source: MemorySource, serve: Callable[..., Any], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    source.add("m", linear(), "production")
    server = serve("m", otlp=receiver.address)
    before = time_ns()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        headers, body = ask(stream, PARENT, "tracestate: vendor=1")
    request, *stages = receiver.wait(5)
    assert request.trace_id.hex() == TRACE and request.parent_span_id.hex() == SPAN
    assert headers["traceresponse"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert (request.name, request.trace_state, request.kind) == ("predict m", "vendor=1", 2)
    assert before - 10**9 < request.start_time_unix_nano < request.end_time_unix_nano < time_ns() + 10**9
    told = attributes(request)
    assert told.pop("modelyard.digest").startswith("sha256:")
    assert told == {
        "modelyard.model": "m", "modelyard.version": "1", "modelyard.wire": "native",
        "modelyard.request_id": body["request_id"], "modelyard.rows": 1, "modelyard.call.rows": 1,
        "modelyard.call.requests": 1, "http.request.method": "POST", "url.path": "/predict",
        "http.response.status_code": 200,
    }  # fmt: skip
    assert [stage.name for stage in stages] == ["decode", "queue", "predict", "encode"]
    assert {stage.parent_span_id for stage in stages} == {request.span_id}
    assert len({stage.span_id for stage in stages}) == 4
    times = [(stage.start_time_unix_nano, stage.end_time_unix_nano) for stage in stages]
    assert times[0][0] == request.start_time_unix_nano and times[-1][1] == request.end_time_unix_nano
    assert all(end == start for (_, end), (start, _) in pairwise(times))
    about = attributes(receiver.requests[0].resource_spans[0].resource)
    assert about["service.name"] == "modelyard" and about["deployment.environment"] == "test"


def test_what_is_not_sampled_is_not_sent(source: MemorySource, serve: Callable[..., Any], receiver: Receiver) -> None:
    source.add("m", linear(), "production")
    server = serve("m", otlp=receiver.address)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        for lines in ([], [f"traceparent: 00-{TRACE}-{SPAN}-00"], ["traceparent: nonsense"], [PARENT]):
            ask(stream, *lines)
    server.stop()  # sends what is left
    assert len(receiver.spans) == 5
    assert not any(isinstance(handler, logging.Handler) for handler in logging.getLogger("opentelemetry").handlers)


def test_refusals_tell_whose_fault_they_are(
    source: MemorySource, serve: Callable[..., Any], receiver: Receiver
) -> None:
    def fail(columns: Any) -> Any:
        raise RuntimeError("broken")

    source.add("m", linear(), "production")
    server = serve("m", otlp=receiver.address)
    next(iter(server.application.catalog.table.versions)).predict = fail
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        ask(stream, PARENT)
        head = f"POST /predict?key=1 HTTP/1.1\r\nHost: a\r\n{PARENT}\r\nContent-Length: 2\r\n\r\n"
        stream.sendall(head.encode() + b"{}")
        assert stream.recv(65536)
    requests = [span for span in receiver.wait(7) if span.name == "predict m"]
    failed, wrong = [(attributes(span), span.status.code) for span in requests]
    assert (failed[0]["error.type"], failed[0]["http.response.status_code"], failed[1]) == ("model_failed", 500, 2)
    assert (wrong[0]["error.type"], wrong[0]["http.response.status_code"], wrong[1]) == ("invalid_input", 400, 0)
    assert wrong[0]["url.path"] == "/predict" and "modelyard.rows" not in wrong[0]


def test_requests_of_a_framework(source: MemorySource, receiver: Receiver) -> None:
    source.add("m", linear(), "production")
    app = WsgiApp(["m"], source=lambda: source, otlp=receiver.address)
    body = b'{"x1": 1.5, "x2": 2}'
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "content-length": str(len(body))}
    status, told, _ = app.answer("POST", "/predict", "", headers, lambda _: body)
    app.stop()
    assert status == 200 and len(receiver.spans) == 5
    assert dict(told)["traceresponse"] == f"00-{TRACE}-{receiver.spans[0].span_id.hex()}-01"
    assert "url.path" not in attributes(receiver.spans[0])


def test_a_call_of_grpc() -> None:
    trace = Trace(TRACE, SPAN, SPAN, True)

    def noted(code: str) -> Noted:
        return Noted(trace, "1", "m", "1", "sha256:0", "oip-grpc", code, "POST", "/a.B/C", True, 0.0, 1.0)

    told = _attributes(noted("not_found"))
    assert (told["rpc.service"], told["rpc.method"], told["rpc.grpc.status_code"]) == ("a.B", "C", 5)
    assert [code for code in GRPC_STATUS if _is_fault(noted(code))] == [
        "deadline_passed", "too_slow", "missing_dependency", "unimplemented", "method_not_allowed", "internal",
        "model_failed", "bad_bundle", "overloaded", "not_ready", "remote_failed",
    ]  # fmt: skip


def test_a_receiver_that_is_gone_stops_nothing(
    source: MemorySource, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "CLOSE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    source.add("m", linear(), "production")
    server = serve("m", otlp=f"http://127.0.0.1:{port}", traces=1.0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        assert ask(stream)[1]["prediction"] == 6.5
    until(lambda: any(line["event"] == "opentelemetry" for line in server.lines()))


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingDependency, match="opentelemetry") as caught:
        Application(["m"], source=lambda: None, otlp="http://127.0.0.1:4318")  # type: ignore[arg-type,return-value]
    assert caught.value.hint == "pip install 'modelyard[tracing]'"


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, ""),
        ({"ENDPOINT": "http://a:4318/"}, "http://a:4318/v1/traces"),
        ({"ENDPOINT": "http://a", "TRACES_ENDPOINT": "http://b/here"}, "http://b/here"),
        ({"ENDPOINT": "http://a", "PROTOCOL": "grpc", "TRACES_PROTOCOL": "http/protobuf"}, "http://a/v1/traces"),
        ({"PROTOCOL": "grpc"}, ""),
    ],
)
def test_the_address(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    assert settings.spans_address("") == address
    assert settings.spans_address("http://given/x") == "http://given/x/v1/traces"
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as also:
            also.setenv(name, value)
            assert settings.spans_address("") == ""


def test_a_protocol_that_we_do_not_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InvalidInput, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        settings.spans_address("")
