"""HTTP/1.1 as it comes over real sockets: framing, order, limits, and everything malformed."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from modelyard.schema import Field, Signature
from modelyard.serving import http, limits, listener
from modelyard.serving.access import is_probe
from modelyard.serving.server import Server
from modelyard.testing.memory import MemoryBundle
from receivers import until

from .conftest import INPUTS, MemorySource, linear

BODY = b'{"x1": 1.5, "x2": 2}'


def request(
    body: bytes = BODY, path: str = "/predict", method: str = "POST", *headers: str, version: str = "1.1"
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers]
    if body and not any(h.lower().startswith(("transfer-encoding", "content-length")) for h in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Client:
    """A socket that reads one answer at a time."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def more(self) -> bool:
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], Any]:
        while b"\r\n\r\n" not in self.buffer:
            assert self.more(), f"closed after {self.buffer!r}"
        text, _, rest = self.buffer.partition(b"\r\n\r\n")
        first, *lines = text.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if head else int(headers.get("content-length", 0))
        while len(rest) < length:
            assert self.more(), "closed inside a body"
            rest = self.buffer.partition(b"\r\n\r\n")[2]
        self.buffer = rest[length:]
        body = rest[:length]
        is_json = headers.get("content-type") == "application/json" and body
        return int(first.split()[1]), headers, json.loads(body) if is_json else body

    def is_closed(self) -> bool:
        try:
            return not self.more()
        except ConnectionResetError:
            return True


@pytest.fixture
def server(source: MemorySource, serve: Callable[..., Server]) -> Server:
    source.add("lin", linear(), "production")
    return serve("lin@production", max_body=10_000)


Connect = Callable[[Server], Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[Client] = []

    def start(server: Server) -> Client:
        made.append(Client(server))
        return made[-1]

    yield start
    for client in made:
        client.socket.close()


@pytest.fixture
def client(server: Server, connect: Connect) -> Client:
    return connect(server)


def gated(gate: threading.Event) -> MemoryBundle:
    """A model slow enough for a thread, that answers x1 > 0 only once ``gate`` is set."""
    signature = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="float64"),))

    def predict(columns: Any) -> dict[str, Any]:
        time.sleep(0.01)
        if (columns["x1"] > 0).any():
            gate.wait(60)
        return {"prediction": columns["x1"] + columns["x2"]}

    return MemoryBundle(signature, predict, {"x1": [0.0], "x2": [1.0]})


class TestUpgradeAndVersions:
    UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")

    def test_the_body_of_a_request_that_asks_for_an_upgrade_is_its_body(self, client: Client) -> None:
        for _ in range(3):  # as Java's client asks; the third time from memory, if ever
            client.send(request(BODY, "/predict", "POST", *self.UPGRADE))
            status, _, body = client.answer()
            assert (status, body["prediction"]) == (200, 6.5)

    def test_no_request_can_be_hidden_in_it(self, client: Client) -> None:
        hidden = request(b"", "/metrics", "GET")
        client.send(request(hidden, "/predict", "POST", *self.UPGRADE) + request())
        assert [client.answer()[0] for _ in range(2)] == [400, 200]

    def test_however_it_is_cut(self, client: Client) -> None:
        whole = request(BODY, "/predict", "POST", *self.UPGRADE)
        for at in range(1, len(whole), 17):
            client.send(whole[:at])
            time.sleep(0.002)
            client.send(whole[at:])
            assert client.answer()[0] == 200

    @pytest.mark.parametrize(
        "text",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"GET /\r\n\r\n",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
        ids=["no host", "two hosts", "2.0", "0.9", "chunks in 1.0"],
    )
    def test_what_is_no_request_here(self, client: Client, text: bytes) -> None:
        client.send(text)
        status, headers, answer = client.answer()
        assert (status, answer["error"]["code"], headers["connection"]) == (400, "bad_request", "close")


class TestEncodedBodies:
    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("gzip", gzip.compress(BODY)),
            ("deflate", zlib.compress(BODY)),
            ("Deflate", zlib.compress(BODY, wbits=-15)),
            ("identity", BODY),
        ],
        # The bytes of gzip hold the time: in an id they would differ between processes.
        ids=["gzip", "deflate", "raw deflate", "identity"],
    )
    def test_are_read(self, client: Client, name: str, body: bytes) -> None:
        for _ in range(3):
            client.send(request(body, "/predict", "POST", f"Content-Encoding: {name}"))
            status, _, answer = client.answer()
            assert (status, answer["prediction"]) == (200, 6.5)

    @pytest.mark.parametrize(
        ("name", "body", "status", "code"),
        [
            ("br", BODY, 415, "unsupported"),
            ("gzip, gzip", BODY, 415, "unsupported"),
            ("gzip", BODY, 400, "invalid_input"),
            ("gzip", gzip.compress(BODY)[:-1], 400, "invalid_input"),
            ("gzip", gzip.compress(b" " * 20_000), 413, "too_large"),
        ],
        ids=["unknown", "twice", "not so", "cut short", "a bomb"],
    )
    def test_or_refused(self, client: Client, name: str, body: bytes, status: int, code: str) -> None:
        client.send(request(body, "/predict", "POST", f"Content-Encoding: {name}"))
        got, headers, answer = client.answer()
        assert (got, answer["error"]["code"]) == (status, code)
        assert headers.get("accept-encoding") == ("gzip, deflate" if status == 415 else None)
        client.send(request())
        assert client.answer()[0] == 200

    def test_in_the_words_of_the_wire(self, client: Client) -> None:
        client.send(request(BODY, "/v2/models/lin/infer", "POST", "Content-Encoding: br"))
        status, _, answer = client.answer()
        assert status == 415 and list(answer) == ["error"]


def test_a_client_that_never_waits_is_not_read_without_end(
    source: MemorySource, serve: Callable[..., Server], connect: Connect
) -> None:
    """One known request a packet, while the model is busy: what is unanswered stays bounded."""
    gate = threading.Event()
    source.add("slow", gated(gate), "production")
    server = serve("slow@production")
    client = connect(server)
    for _ in range(3):
        client.send(request(b'{"x1": 0, "x2": 2}'))
        client.answer()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = request(b'{"x1": 1, "x2": 2}')
    (connection,) = server._worker.listener.connections
    for i in range(200):
        client.send(sent)
        if i < http.MOST_UNANSWERED:  # a server that is slow to read would get many in one
            until(lambda i=i: len(connection.unanswered) > i)  # type: ignore[misc]
    assert http.MOST_UNANSWERED <= len(connection.unanswered) < 100
    gate.set()
    assert [client.answer()[0] for _ in range(200)] == [200] * 200


def test_what_was_pipelined_before_the_end_is_answered(
    source: MemorySource, serve: Callable[..., Server], connect: Connect
) -> None:
    gate = threading.Event()
    source.add("slow", gated(gate), "production")
    server = serve("slow@production")
    client = connect(server)
    client.send(request(b'{"x1": 1, "x2": 2}') * 5)
    until(lambda: [each.in_flight for each in server._worker.listener.connections] == [5])
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    until(lambda: server._worker.listener.is_draining)
    gate.set()
    answers = [client.answer() for _ in range(5)]
    stopping.join(60)
    assert [status for status, _, _ in answers] == [200] * 5
    assert ["connection" in headers for _, headers, _ in answers] == [False] * 4 + [True]
    assert client.is_closed()


def test_what_came_while_the_server_stood_still_is_answered_before_it_stops(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BUSY_SECONDS", 1.0)
    client.send(request())
    assert client.answer()[0] == 200
    loop = server._loop
    assert loop is not None

    def stand_still() -> None:
        if server._worker.listener.is_draining:
            client.send(request())
            time.sleep(1.5)  # as where the machine has others to run
        else:
            loop.call_soon(stand_still)

    loop.call_soon_threadsafe(stand_still)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.answer()[0] == 200
    stopping.join(60)


class TestFraming:
    def test_a_request_is_answered_and_the_connection_stays(self, client: Client) -> None:
        for _ in range(20):
            client.send(request())
            status, headers, body = client.answer()
            assert status == 200
            assert body["prediction"] == 6.5
            assert headers["x-request-id"] == body["request_id"]
            assert "connection" not in headers
            assert headers["date"].endswith("gmt")

    def test_no_content_type_is_needed(self, client: Client) -> None:
        client.send(request(BODY, "/predict", "POST", "Content-Type: application/x-www-form-urlencoded"))
        assert client.answer()[0] == 200

    def test_ids_differ(self, client: Client) -> None:
        seen = set()
        for _ in range(50):
            client.send(request())
            seen.add(client.answer()[1]["x-request-id"])
        assert len(seen) == 50

    @pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
    def test_requests_cut_anywhere_are_put_together(self, client: Client, chunk: int) -> None:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = request() * 3 + request(b"", "/health/live", "GET") + request(b'{"x1": 0, "x2": 0}')
        for i in range(0, len(stream), chunk):
            client.send(stream[i : i + chunk])
            if chunk < 3 and i % 40 == 0:
                time.sleep(0.001)
        got = [client.answer() for _ in range(5)]
        assert [status for status, _, _ in got] == [200] * 5
        assert [body.get("prediction") for _, _, body in got] == [6.5, 6.5, 6.5, None, 1.0]

    def test_every_single_cut_of_two_known_requests(self, client: Client) -> None:
        one = request()
        for _ in range(3):
            client.send(one)
            client.answer()
        for cut in range(1, 2 * len(one), 5):
            client.send((one + one)[:cut])
            time.sleep(0.0005)
            client.send((one + one)[cut:])
            assert [client.answer()[2]["prediction"] for _ in range(2)] == [6.5, 6.5], cut

    def test_a_known_head_with_another_body_is_not_answered_from_memory(self, client: Client) -> None:
        for x in range(8):
            client.send(request(b'{"x1": %d, "x2": 1}' % x))
            assert client.answer()[2]["prediction"] == x + 3

    def test_chunked_bodies(self, client: Client) -> None:
        chunked = (
            b"5;ext=1\r\n"
            + BODY[:5]
            + b"\r\n"
            + b"%x\r\n" % (len(BODY) - 5)
            + BODY[5:]
            + b"\r\n0\r\nTrailer: x\r\n\r\n"
        )
        for _ in range(4):
            client.send(request(chunked, "/predict", "POST", "Transfer-Encoding: chunked"))
            assert client.answer()[2]["prediction"] == 6.5

    def test_expect_continue(self, client: Client) -> None:
        client.send(request(b"", "/predict", "POST", "Expect: 100-continue", f"Content-Length: {len(BODY)}"))
        assert client.answer()[0] == 100
        client.send(BODY)
        assert client.answer()[2]["prediction"] == 6.5

    def test_another_expectation_is_refused(self, client: Client) -> None:
        client.send(request(BODY, "/predict", "POST", "Expect: miracles"))
        assert client.answer()[0] == 417

    def test_head_has_no_body(self, client: Client) -> None:
        client.send(request(b"", "/health/live", "HEAD"))
        status, headers, _ = client.answer(head=True)
        assert (status, headers["content-length"]) == (200, "13")
        client.send(request())
        assert client.answer()[0] == 200

    def test_connection_close(self, client: Client) -> None:
        client.send(request(BODY, "/predict", "POST", "Connection: close"))
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert client.is_closed()

    def test_http_1_0(self, server: Server, connect: Connect) -> None:
        client = connect(server)
        client.send(request(BODY, version="1.0"))
        assert client.answer()[1]["connection"] == "close"
        assert client.is_closed()
        client = connect(server)
        for _ in range(3):
            client.send(request(BODY, "/predict", "POST", "Connection: keep-alive", version="1.0"))
            assert client.answer()[1]["connection"] == "keep-alive"

    def test_an_absolute_target_and_a_query(self, client: Client) -> None:
        client.send(request(BODY, "http://elsewhere:99/predict?a=b"))
        assert client.answer()[0] == 200

    def test_percent_encoded_paths(self, client: Client) -> None:
        client.send(request(BODY, "/models/%6cin/predict"))
        assert client.answer()[0] == 200
        client.send(request(BODY, "/models/%ff/predict"))
        assert client.answer()[0] == 404
        client.send(request(b"", "/models/lin%2Fpredict", "GET"))  # the model "lin/predict", not a path of two parts
        assert client.answer()[0] == 404

    def test_an_upgrade_is_not_taken_up(self, client: Client) -> None:
        client.send(
            request(b"", "/health/live", "GET", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") + request()
        )
        assert client.answer()[0] == 200
        assert client.answer()[2]["prediction"] == 6.5

    def test_a_client_that_has_said_all_still_gets_its_answers(self, client: Client) -> None:
        client.send(request() * 3)
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.answer()[0] for _ in range(3)] == [200, 200, 200]
        assert client.is_closed()


class TestRequestIds:
    def test_the_callers_is_taken_over(self, client: Client) -> None:
        client.send(request(BODY, "/predict", "POST", "X-Request-ID: abc-1.2_3"))
        _, headers, body = client.answer()
        assert headers["x-request-id"] == body["request_id"] == "abc-1.2_3"

    @pytest.mark.parametrize("bad", ["", "a b", 'a"b', "x" * 129, "a\x01b", "é"])
    def test_a_harmful_one_is_not(self, client: Client, bad: str) -> None:
        client.send(
            request(BODY, "/predict", "POST").replace(
                b"Host: test", f"Host: test\r\nX-Request-ID: {bad}".encode("latin-1")
            )
        )
        status, headers, _ = client.answer()
        if status == 200:
            assert headers["x-request-id"] != bad.lower()
        else:  # llhttp refuses control characters
            assert status == 400 and bad == "a\x01b"


class TestOrder:
    def test_pipelined_requests_are_answered_in_order(self, client: Client) -> None:
        client.send(b"".join(request(b'{"x1": %d, "x2": 0}' % i) for i in range(100)))
        assert [client.answer()[2]["prediction"] for _ in range(100)] == [i + 1 for i in range(100)]

    def test_a_quick_answer_waits_for_a_slow_one_before_it(
        self, source: MemorySource, serve: Callable[..., Server], connect: Connect
    ) -> None:
        gate = threading.Event()
        source.add("slow", gated(gate))
        client = connect(serve("slow"))
        client.send(
            request(b'{"x1": 1, "x2": 1}') + request(b"", "/health/live", "GET") + request(b"", "/nothing", "GET")
        )
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.more()
        client.socket.settimeout(60)
        gate.set()
        assert [client.answer()[0] for _ in range(3)] == [200, 200, 404]

    def test_health_answers_while_a_model_runs(
        self, source: MemorySource, serve: Callable[..., Server], connect: Connect
    ) -> None:
        gate = threading.Event()
        source.add("slow", gated(gate))
        server = serve("slow")
        busy, other = connect(server), connect(server)
        busy.send(request(b'{"x1": 1, "x2": 1}'))
        other.send(request(b"", "/health/ready", "GET"))
        assert other.answer()[0] == 200
        gate.set()
        assert busy.answer()[0] == 200

    def test_one_connection_may_not_pile_up_requests(
        self, source: MemorySource, serve: Callable[..., Server], connect: Connect
    ) -> None:
        gate = threading.Event()
        source.add("slow", gated(gate))
        server = serve("slow")
        client = connect(server)
        threading.Thread(target=client.send, args=(request(b'{"x1": 1, "x2": 0}') * 3_000,), daemon=True).start()
        until(lambda: any(each.in_flight for each in server._worker.listener.connections))
        time.sleep(0.3)
        (connection,) = server._worker.listener.connections
        assert len(connection.unanswered) < 400  # what one slice brought, and no more
        gate.set()
        for _ in range(3_000):
            assert client.answer()[2]["prediction"] == 1

    def test_a_client_that_does_not_read_stops_being_read(
        self, source: MemorySource, serve: Callable[..., Server], connect: Connect
    ) -> None:
        big = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="float64", shape=(2_000,)),))
        source.add(
            "big", MemoryBundle(big, lambda c: {"prediction": np.ones((c.rows, 2_000))}, {"x1": [0.0], "x2": [0.0]})
        )
        server = serve("big")
        client = connect(server)
        requests, sent = request() * 1000, 0
        client.socket.settimeout(0.5)

        def is_stuck() -> bool:
            nonlocal sent
            with contextlib.suppress(TimeoutError):
                while True:
                    sent += client.socket.send(requests[sent % len(requests) :])
                    assert sent < 100_000_000
            (connection,) = server._worker.listener.connections
            return connection.is_stuck

        until(is_stuck)
        (connection,) = server._worker.listener.connections
        assert connection.transport.get_write_buffer_size() < 10_000_000
        client.socket.settimeout(60)
        for _ in range(300):  # and goes on once it reads
            assert client.answer()[0] == 200


class TestLimits:
    def test_a_body_that_is_announced_too_large(self, client: Client) -> None:
        client.send(request(b"", "/predict", "POST", "Content-Length: 10001"))
        status, headers, body = client.answer()
        assert (status, body["error"]["code"], headers["connection"]) == (413, "too_large", "close")
        assert client.is_closed()

    def test_a_chunked_body_that_grows_too_large(self, client: Client) -> None:
        client.send(request(b"ffff\r\n" + b"x" * 20_000, "/predict", "POST", "Transfer-Encoding: chunked"))
        assert client.answer()[0] == 413
        assert client.is_closed()

    def test_the_answer_is_readable_while_the_client_still_sends(self, client: Client) -> None:
        client.send(request(b"", "/predict", "POST", "Content-Length: 5000000"))
        for _ in range(50):
            client.send(b"x" * 1000)
            time.sleep(0.001)
        assert client.answer()[0] == 413

    def test_expect_continue_of_too_large_a_body_is_refused_at_once(self, client: Client) -> None:
        client.send(request(b"", "/predict", "POST", "Expect: 100-continue", "Content-Length: 20000"))
        assert client.answer()[0] == 413

    def test_a_body_of_exactly_the_limit(self, client: Client) -> None:
        client.send(request(BODY + b" " * (10_000 - len(BODY))))
        assert client.answer()[0] == 200

    def test_too_many_headers(self, client: Client) -> None:
        client.send(request(BODY, "/predict", "POST", *[f"X-{i}: 1" for i in range(200)]))
        assert client.answer()[0] == 431
        assert client.is_closed()

    @pytest.mark.parametrize("size", [70_000, 500_000])
    def test_a_header_that_is_too_large(self, client: Client, size: int) -> None:
        client.send(request(BODY, "/predict", "POST", "X-Big: " + "x" * size))
        assert client.answer()[0] == 431

    def test_an_endless_head_is_cut_off(self, client: Client) -> None:
        client.send(b"GET / HTTP/1.1\r\n")
        for _ in range(500):
            client.send(b"X-A: " + b"a" * 1000 + b"\r\n")
        assert client.answer()[0] == 431
        assert client.is_closed()

    def test_a_long_path_is_no_trouble(self, client: Client) -> None:
        client.send(request(BODY, "/" + "a" * 30_000))
        assert client.answer()[0] == 404

    def test_a_slow_head_is_given_up(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)
        client.send(b"POST /predict HT")
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert client.is_closed()

    def test_a_slow_body_is_given_up(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)
        client.send(request()[:-3])
        assert client.answer()[0] == 408

    def test_an_idle_connection_is_closed(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        client.send(request())
        client.answer()
        monkeypatch.setattr(http, "IDLE_SECONDS", 0.1)
        assert client.is_closed()

    def test_known_heads_stay_bounded(self, server: Server, client: Client) -> None:
        for i in range(600):
            one = request(BODY, f"/predict?{i}")
            client.send(one + one)
            client.answer(), client.answer()
        for i in range(600):
            client.send(request(BODY, f"/predict?{i}"))
            client.answer()
        assert len(server._worker.listener.heads) <= listener.MOST_HEADS
        assert len(server.application.router._known) <= 1024


class TestRefusedByTheHead:
    """What is refused whatever its body says hears so before it has sent that."""

    @pytest.fixture
    def client(self, source: MemorySource, serve: Callable[..., Server], connect: Connect) -> Client:
        source.add("lin", linear(), "production")
        return connect(serve("lin@production"))

    CASES = pytest.mark.parametrize(
        ("method", "path", "status"),
        [("POST", "/nothing", 404), ("PUT", "/predict", 405), ("POST", "/models/other/predict?a=b", 404)],
        ids=["no such path", "no such method", "no such model"],
    )

    @CASES
    def test_and_may_go_on_where_little_is_left_to_send(
        self, client: Client, method: str, path: str, status: int
    ) -> None:
        for _ in range(3):
            client.send(request(b"", path, method, f"Content-Length: {len(BODY)}"))
            got, headers, _ = client.answer()
            assert (got, headers.get("connection")) == (status, None)
            client.send(BODY[:5])
            client.send(BODY[5:] + request())
            assert client.answer()[2]["prediction"] == 6.5

    @CASES
    @pytest.mark.parametrize("header", ["Content-Length: 65537", "Transfer-Encoding: chunked"])
    def test_and_is_closed_where_much_is(
        self, client: Client, method: str, path: str, status: int, header: str
    ) -> None:
        client.send(request(b"", path, method, header))
        got, headers, _ = client.answer()
        assert (got, headers["connection"]) == (status, "close")
        client.send(b"0\r\n\r\n" + request())  # nobody listens any more
        assert client.is_closed()

    @CASES
    def test_is_not_asked_for_a_body(self, client: Client, method: str, path: str, status: int) -> None:
        client.send(request(b"", path, method, "Expect: 100-continue", "Content-Length: 5"))
        got, headers, _ = client.answer()
        assert (got, headers["connection"]) == (status, "close")
        assert client.is_closed()

    def test_the_answer_is_readable_while_the_client_still_sends(self, client: Client) -> None:
        client.send(request(b"", "/nothing", "POST", "Content-Length: 50000000"))
        for _ in range(50):
            client.send(b"x" * 100_000)
        assert client.answer()[0] == 404

    def test_its_turn_is_kept(self, source: MemorySource, serve: Callable[..., Server], connect: Connect) -> None:
        gate = threading.Event()
        source.add("slow", gated(gate))
        client = connect(serve("slow"))
        client.send(request(b'{"x1": 1, "x2": 1}') + request(b"", "/nothing", "POST", "Content-Length: 65537"))
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.more()
        client.socket.settimeout(60)
        gate.set()
        assert [client.answer()[0] for _ in range(2)] == [200, 404]
        assert client.is_closed()

    @pytest.mark.parametrize("encoding", ["br", "gzip"])
    def test_its_body_is_not_inflated_either(self, client: Client, encoding: str) -> None:
        client.send(request(BODY, "/nothing", "POST", f"Content-Encoding: {encoding}"))
        assert client.answer()[0] == 404

    def test_a_body_that_never_comes_is_waited_for_no_longer_than_another(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)
        client.send(request(b"", "/nothing", "POST", "Content-Length: 5"))
        assert client.answer()[0] == 404
        assert client.is_closed()
        assert client.buffer == b""

    def test_what_is_welcome_is_read_as_ever(self, client: Client) -> None:
        for header in ("X: 1", "Expect: 100-continue"):
            client.send(request(b"", "/predict", "POST", header, f"Content-Length: {len(BODY)}"))
            if header != "X: 1":
                assert client.answer()[0] == 100
            client.send(BODY[:5])
            time.sleep(0.01)
            client.send(BODY[5:])
            assert client.answer()[2]["prediction"] == 6.5

    def test_who_sends_the_body_without_being_asked_is_not_asked(self, client: Client) -> None:
        client.send(request(BODY, "/predict", "POST", "Expect: 100-continue"))
        assert client.answer()[0] == 200


class TestMalformed:
    @pytest.mark.parametrize(
        "data",
        [
            b"hello\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x00" * 100,
        ],
    )
    def test_is_answered_400_and_closed(self, client: Client, data: bytes) -> None:
        client.send(data)
        status, headers, body = client.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert body["error"]["code"] == "bad_request"
        assert client.is_closed()

    def test_after_a_good_request_comes_after_its_answer(self, client: Client) -> None:
        client.send(request() + b"nonsense\r\n\r\n")
        assert client.answer()[0] == 200
        assert client.answer()[0] == 400

    def test_half_a_request_and_goodbye_leaves_nothing(self, server: Server, client: Client) -> None:
        client.send(request()[:-5])
        client.socket.close()
        until(lambda: not server._worker.listener.connections)

    def test_a_client_gone_before_its_answer_is_no_trouble(self, server: Server, connect: Connect) -> None:
        for _ in range(50):
            gone = connect(server)
            gone.send(request() * 10)
            gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            gone.socket.close()
        client = connect(server)
        client.send(request())
        assert client.answer()[0] == 200
        assert not [line for line in server.lines() if line["level"] == "error"]  # type: ignore[attr-defined]


def test_an_ended_connection_does_not_wait_for_the_collector(server: Server, connect: Connect) -> None:
    gc.disable()
    try:
        client = connect(server)
        client.send(request())
        assert client.answer()[0] == 200
        client.socket.close()
        ours = server._worker.listener  # connections to other tests' servers are no business of this one
        until(lambda: not any(isinstance(each, http.Connection) and each.listener is ours for each in gc.get_objects()))
    finally:
        gc.enable()


class TestPaths:
    def test_an_unknown_path(self, client: Client) -> None:
        client.send(request(b"", "/nothing", "GET"))
        status, _, body = client.answer()
        assert (status, body["error"]["code"]) == (404, "not_found")
        assert "/nothing" in body["error"]["message"]

    def test_a_wrong_method_names_the_right_one(self, client: Client) -> None:
        client.send(request(b"", "/models/m/predict", "GET"))
        status, headers, _ = client.answer()
        assert (status, headers["allow"]) == (405, "post")
        client.send(request(BODY, "/models", "DELETE"))
        status, headers, _ = client.answer()
        assert (status, headers["allow"]) == (405, "get, head")

    def test_strange_methods_and_targets(self, client: Client) -> None:
        client.send(request(b"", "*", "OPTIONS"))
        assert client.answer()[0] == 404
        client.send(request(b"", "elsewhere:80", "CONNECT"))
        assert client.answer()[0] in (400, 404)


@pytest.mark.parametrize("text", ["a", "A-z_0.9:/+=@~", "x" * 128])
def test_request_ids_that_are_taken(text: str) -> None:
    assert http.is_request_id(text)


@pytest.mark.parametrize("text", ["", "x" * 129, "a b", "a\n", "é", '"', "%"])
def test_request_ids_that_are_not(text: str) -> None:
    assert not http.is_request_id(text)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/health/ready", True), ("/v2/health/live?x=1", True), ("/v2/models/a/ready/", True), ("/predict", False)],
)
def test_probes_are_known_by_their_target(target: str, expected: bool) -> None:
    assert is_probe(target) is expected
