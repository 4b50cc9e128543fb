"""The access log tells what was asked and what came of it, and nothing that is nobody's business."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import MemorySource, linear
from .http2_peer import CALL, PLAIN, Peer, message
from .test_tracing import SPAN, TRACE, ask

KEY = "my_0123456789ab_" + "aB-_" * 10 + "xyz"


def requests(server: Any) -> list[dict[str, Any]]:
    return [line for line in server.lines() if line["event"] == "request"]


def get(stream: socket.socket, target: str) -> None:
    stream.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"))
    assert stream.recv(65536)


def test_a_line_for_each_answer(source: MemorySource, serve: Callable[..., Any]) -> None:
    source.add("m", linear(), "production")
    server = serve("m", access_log="all", log_clients=True)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        headers, _ = ask(stream, f"traceparent: 00-{TRACE}-{SPAN}-01", "X-Request-Id: a/b+c=1")
        ask(stream)
        get(stream, "/nowhere")
    first, second, lost = requests(server)
    assert first.pop("time").endswith("Z") and 0 < first.pop("milliseconds") < 10_000
    assert first == {
        "level": "info", "event": "request", "request_id": "a/b+c=1", "method": "POST", "target": "/predict",
        "model": "m", "version": "1", "status": 200, "code": "ok", "bytes_in": 20,
        "bytes_out": int(headers["content-length"]), "trace_id": TRACE, "client": "127.0.0.1",
    }  # fmt: skip
    assert "trace_id" not in second and second["request_id"]
    assert (lost["status"], lost["code"], lost["bytes_in"]) == (404, "not_found", 0)
    assert "model" not in lost


@pytest.mark.parametrize("which", ["errors", "off"])
def test_only_what_is_asked_for(source: MemorySource, serve: Callable[..., Any], which: str) -> None:
    source.add("m", linear(), "production")
    server = serve("m", access_log=which)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        ask(stream)
        get(stream, "/nowhere")
        get(stream, "/models/none/ready")
    lines = requests(server)
    assert [line["target"] for line in lines] == (["/nowhere"] if which == "errors" else [])
    assert all("client" not in line for line in lines)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (f"/{KEY}/x", "/my_0123456789ab_***/x"),
        ("/x?token=abc&y=1", "/x?token=***&y=1"),
        ('/x"y\\z', '/x"y\\z'),
        ("/näher", ""),  # no proper request
        ("/" + "x" * 300, "/" + "x" * 199),
    ],
)
def test_targets(source: MemorySource, serve: Callable[..., Any], target: str, shown: str) -> None:
    source.add("m", linear(), "production")
    server = serve("m")
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
            get(stream, target)
    assert [line["target"] for line in requests(server)] == [shown] * 2


def test_calls_over_http2() -> None:
    peer = Peer(access_log="all")
    peer.ask(b"hello", {**PLAIN, "content-length": "5"})
    peer.ask(message(b"hello"), CALL)
    peer.application.log.flush()
    stream: Any = peer.application.log._stream
    lines = list(map(json.loads, stream.getvalue().splitlines()))
    plain, call = [line for line in lines if line["event"] == "request"]
    assert (plain["target"], plain["bytes_in"], plain["bytes_out"]) == ("/echo", 5, 5)
    assert (call["target"], call["code"], call["bytes_out"]) == ("/test.Echo/Echo", "ok", 5)
