"""Trace context in and out, and heads that differ in nothing but ids."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.serving.parted import part
from modelyard.serving.tracing import begin_trace, trace_for, trace_of

from .conftest import MemorySource, linear
from .http2_peer import CALL, PLAIN, Peer, message

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
BODY = b'{"x1": 1.5, "x2": 2}'


def test_a_trace_context() -> None:
    trace = trace_of({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"})
    assert trace is not None
    assert (trace.trace_id, trace.parent_id, trace.is_sampled, trace.state) == (TRACE, SPAN, True, "vendor=1")
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", trace.response) and trace.span_id != SPAN
    unsampled = trace_of({"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert unsampled is not None and not unsampled.is_sampled and unsampled.response.endswith("-00")
    later = trace_of({"traceparent": f"01-{TRACE}-{SPAN}-03-more"})
    assert later is not None and later.is_sampled
    begun = begin_trace(1.0)
    assert begun is not None and begun.is_sampled and not begun.parent_id and len(begun.trace_id) == 32
    assert begin_trace(0.0) is None and trace_for({}, 0.0) is None
    assert trace_for({"traceparent": "nonsense"}, 1.0) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-1", f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
)  # fmt: skip
def test_a_malformed_one_is_none(text: str) -> None:
    assert trace_of({"traceparent": text}) is None


HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\n%bContent-Length: 20\r\n\r\n"


def test_a_head_without_its_ids() -> None:
    text = HEAD % b"Traceparent: 00-x\r\nX-Request-ID:a-1\r\n"
    assert part(text) == (HEAD % b"", {"traceparent": "00-x", "x-request-id": "a-1"})


@pytest.mark.parametrize(
    "lines",
    [
        b"", b"X-Other: 1\r\n", b"x-request-id: 1\r\nx-request-id: 2\r\n", b"x-request-id: a\r\n b\r\n",
        b"x-request-id: a\r\n\tb\r\n", b"x-request-id: a b\r\n", b"x-request-id : a\r\n", b"x-request-id: \r\n",
        b"xx-request-id: a\r\n", b"x-request-id: a\n", b"x-request-id: \x00\r\n",
    ],
)  # fmt: skip
def test_what_is_left_to_the_parser(lines: bytes) -> None:
    assert part(HEAD % lines) is None


LINES = [b"A: 1\r\n", b"x-request-id: q\r\n", b"traceparent: t\r\n", b" folded\r\n"]


@given(st.lists(st.sampled_from(LINES), max_size=5))
def test_what_is_left_of_a_head_are_its_other_lines_in_order(lines: list[bytes]) -> None:
    text = HEAD % b"".join(lines)
    parted = part(text)
    if parted is not None:
        bare, told = parted
        cut = [line for line in text.split(b"\r\n") if not line.startswith((b"x-request-id: ", b"traceparent: "))]
        assert bare == b"\r\n".join(cut) and told


def ask(stream: socket.socket, *lines: str) -> tuple[dict[str, str], Any]:
    head = "\r\n".join(["POST /predict HTTP/1.1", "Host: a", *lines, f"Content-Length: {len(BODY)}", "", ""])
    stream.sendall(head.encode() + BODY)
    data = b""
    while b"\r\n\r\n" not in data or b"}" not in data:
        data += stream.recv(65536)
    text, _, body = data.partition(b"\r\n\r\n")
    return dict(line.split(": ", 1) for line in text.decode().split("\r\n")[1:]), json.loads(body)


def test_each_request_has_its_own_ids_however_often_its_head_comes(
    source: MemorySource, serve: Callable[..., Any]
) -> None:
    source.add("m", linear(), "production")
    server = serve("m", access_log="all")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        for i in range(1, 8):
            trace = f"{i:032x}"
            headers, body = ask(stream, f"traceparent: 00-{trace}-{SPAN}-01", f"X-Request-Id: id-{i}")
            assert headers["traceresponse"].startswith(f"00-{trace}-") and headers["x-request-id"] == f"id-{i}"
            assert body["prediction"] == 6.5 and body["request_id"] == f"id-{i}"
        headers, _ = ask(stream, "traceparent: nonsense")
        assert "traceresponse" not in headers
        headers, _ = ask(stream, "X-Request-Id: bad\u00e9id")
        assert headers["x-request-id"] != "badéid"
    assert len(server._worker.listener.heads) < 5
    logged = [line for line in server.lines() if line["event"] == "request" and "trace_id" in line]
    assert [line["trace_id"] for line in logged] == [f"{i:032x}" for i in range(1, 8)]


def test_a_share_of_requests_begins_a_trace(source: MemorySource, serve: Callable[..., Any]) -> None:
    source.add("m", linear(), "production")
    server = serve("m", traces=1.0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        seen = {ask(stream)[0]["traceresponse"] for _ in range(5)}
    assert len(seen) == 5


@pytest.mark.parametrize("kind", ["plain", "call"])
def test_a_trace_over_http2(kind: str) -> None:
    peer = Peer(access_log="all")
    fields = {**(CALL if kind == "call" else PLAIN), "traceparent": f"00-{TRACE}-{SPAN}-01"}
    body = message(b"hello") if kind == "call" else b"hello"
    seen = {peer.ask(body, fields).headers["traceresponse"] for _ in range(3)}
    assert len(seen) == 3 and all(re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", told) for told in seen)
    assert "traceresponse" not in peer.ask(body, {**fields, "traceparent": "nonsense"}).headers
    assert "traceresponse" not in peer.ask(body, CALL if kind == "call" else PLAIN).headers
    assert "traceresponse" in Peer(traces=1.0).ask(body, CALL if kind == "call" else PLAIN).headers


def test_each_message_of_a_stream_has_a_span_of_its_own() -> None:
    peer = Peer(traces=0.0)
    seen: list[str] = []

    def note(exchange: Any, _: Any) -> None:
        seen.append(exchange.trace.span_id)

    peer.connection.listener.notes_all, peer.connection.listener.note = True, note  # type: ignore[method-assign]
    number = peer.open({**CALL, "traceparent": f"00-{TRACE}-{SPAN}-00"})
    for i in range(3):
        peer.data(number, message(b"%d" % i))
    answer = peer.answers[number]
    assert answer.messages == [b"0", b"1", b"2"] and len(set(seen)) == 3
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{seen[0]}-00"
