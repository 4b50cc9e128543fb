"""Web pages of other origins: what browsers are told before they call, and with every answer."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.serving.origins import Origins
from modelyard.serving.server import Server

from .conftest import MemorySource, linear
from .http2_peer import CALL, PLAIN, Peer, message

Serve = Callable[..., Server]
SHOP = "https://shop.example"
ROW = json.dumps({"x1": 1.5, "x2": 2})
ASKS = {"origin": SHOP, "access-control-request-method": "POST"}


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        ([SHOP], SHOP, True),
        ([SHOP], "HTTPS://SHOP.example", True),
        ([SHOP], "http://shop.example", False),
        ([SHOP], "https://shop.example:8443", False),
        ([SHOP], "https://shop.example.evil", False),
        (["shop.example"], SHOP, True),
        (["shop.example"], "http://shop.example", True),
        (["shop.example:8443"], "https://shop.example:8443", True),
        (["shop.example"], "https://my.shop.example", False),
        ([SHOP, "other.example"], "null", False),
        ([SHOP], "", False),
        (["*"], "null", True),
    ],
)
def test_who_may_call(allowed: list[str], origin: str, is_allowed: bool) -> None:
    assert Origins(allowed).allows(origin) == is_allowed


class Asked:
    def __init__(self, server: Server, method: str, path: str, body: str | None = None, **headers: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            self.status, self.headers, self.body = answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    @property
    def allowed(self) -> str | None:
        origin: str | None = self.headers["access-control-allow-origin"]
        return origin


@pytest.fixture
def server(source: MemorySource, serve: Serve) -> Server:
    source.add("m", linear())
    return serve("m", origins=(SHOP, "other.example"), wires=["native", "azure"])


class TestAnswers:
    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [("POST", "/predict", ROW, 200), ("POST", "/score", ROW, 200), ("POST", "/predict", "{}", 400),
         ("GET", "/nowhere", None, 404), ("GET", "/predict", None, 405), ("GET", "/health/ready", None, 200)],
    )  # fmt: skip
    def test_every_answer_says_who_may_read_it(
        self, server: Server, method: str, path: str, body: str | None, status: int
    ) -> None:
        for _ in range(3):  # the third time the head is known by heart
            answer = Asked(server, method, path, body, origin=SHOP)
            assert (answer.status, answer.allowed, answer.headers["vary"]) == (status, SHOP, "origin")

    @pytest.mark.parametrize("headers", [{}, {"origin": "https://evil.example"}])
    def test_nobody_else_is_told(self, server: Server, headers: dict[str, str]) -> None:
        answer = Asked(server, "POST", "/predict", ROW, **headers)
        assert (answer.status, answer.allowed, answer.headers["vary"]) == (200, None, "origin")

    def test_a_compressed_answer(self, server: Server) -> None:
        rows = json.dumps([{"x1": 1.5, "x2": 2}] * 500)
        answer = Asked(server, "POST", "/predict", rows, origin="http://other.example", accept_encoding="gzip")
        assert answer.allowed == "http://other.example" and answer.headers["content-encoding"] == "gzip"
        assert answer.headers.get_all("vary") == ["accept-encoding", "origin"]

    def test_all_may_read(self, source: MemorySource, serve: Serve) -> None:
        source.add("m", linear())
        answer = Asked(serve("m", origins=("*",)), "POST", "/predict", ROW)
        assert answer.allowed == "*" and answer.headers["vary"] is None

    def test_where_it_was_not_asked_for_nothing_is_said(self, source: MemorySource, serve: Serve) -> None:
        source.add("m", linear())
        server = serve("m")
        answer = Asked(server, "POST", "/predict", ROW, origin=SHOP)
        assert answer.allowed is None and answer.headers["vary"] is None
        assert Asked(server, "OPTIONS", "/predict", **ASKS).status == 405

    def test_over_http_2(self) -> None:
        peer = Peer(origins=(SHOP,))
        assert peer.ask(b"hello", {**PLAIN, "origin": SHOP}).headers["access-control-allow-origin"] == SHOP
        asked = {**PLAIN, ":method": "OPTIONS", **ASKS}
        answer = peer.answers[peer.open(asked, end=True)]
        assert answer.headers[":status"] == "200" and answer.headers["access-control-allow-origin"] == SHOP
        assert "access-control-allow-origin" not in peer.ask(message(b"x"), {**CALL, "origin": SHOP}).headers


class TestQuestions:
    def test_what_may_be_sent(self, server: Server) -> None:
        wanted = "content-type, x-api-key"
        answer = Asked(server, "OPTIONS", "/score?x=1", **ASKS, access_control_request_headers=wanted)
        assert (answer.status, answer.body, answer.allowed) == (200, b"", SHOP)
        assert answer.headers["access-control-allow-methods"] == "GET, POST"
        assert answer.headers["access-control-allow-headers"] == wanted

    def test_no_key_is_wanted(self, source: MemorySource, serve: Serve, tmp_path: Any, monkeypatch: Any) -> None:
        from modelyard.registry import Registry

        monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
        source.add("m", linear())
        registry = Registry.open()
        server = serve("m", origins=(SHOP,), keys=True, registry=registry)
        assert Asked(server, "OPTIONS", "/predict", **ASKS).status == 200
        refused = Asked(server, "POST", "/predict", ROW, origin=SHOP)
        assert (refused.status, refused.allowed) == (401, SHOP)
        registry.close()

    @pytest.mark.parametrize("headers", [{**ASKS, "origin": "https://evil.example"}, {"origin": SHOP}])
    def test_who_is_not_allowed_gets_what_there_was_before(self, server: Server, headers: dict[str, str]) -> None:
        answer = Asked(server, "OPTIONS", "/score", **headers)
        assert answer.headers["allow"] == "GET, POST, OPTIONS"
        assert answer.headers["access-control-allow-methods"] is None
        assert Asked(server, "OPTIONS", "/predict", **headers).status == 405
