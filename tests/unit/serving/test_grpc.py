"""gRPC over our HTTP/2: framing, order, statuses, and the stock clients."""

from __future__ import annotations

import gzip
import random
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients import interpreter
from modelyard.errors import NotReady
from modelyard.messages import Message
from modelyard.serving import frames, grpc
from modelyard.serving.listener import STATUS as HTTP_STATUS

from .conftest import MemorySource, linear
from .http2_peer import CALL, EchoWire, Peer, message

DONE = {"grpc-status": "0"}


@pytest.fixture
def peer() -> Peer:
    return Peer()


class Later:
    """An endpoint that answers when it is told to."""

    def __init__(self, peer: Peer) -> None:
        self.exchanges: list[Any] = []
        self.peer = peer
        endpoint = peer.application.endpoint("POST", CALL[":path"], {}, is_call=True)
        endpoint.accept = self.accept  # type: ignore[method-assign]

    def accept(self, exchange: Any, body: bytes, headers: Any) -> None:
        self.exchanges.append((exchange, body))

    def answer(self, index: int) -> None:
        exchange, body = self.exchanges[index]
        exchange.answer(Message(body, content_type="application/grpc"))
        self.peer.loop.turn()
        self.peer.listen()


class TestCalls:
    def test_one_message(self, peer: Peer) -> None:
        answer = peer.ask(message(b"hello"))
        assert answer.headers[":status"] == "200"
        assert answer.headers["content-type"] == "application/grpc"
        assert answer.headers["x-request-id"]
        assert (answer.messages, answer.trailers, answer.has_ended) == ([b"hello"], DONE, True)
        assert not peer.connection.streams

    def test_an_answer_leaves_in_one_write(self, peer: Peer) -> None:
        before = peer.transport.writes
        head = peer.block(CALL)
        data = b""
        for _ in range(10):
            number = peer.next()
            data += frames.headers(number, head if number == 1 else peer.block(CALL))
            data += frames.frame(frames.DATA, frames.END_STREAM, number, message(b"x"))
        peer.send(data)
        assert peer.transport.writes == before + 1
        assert [answer.messages for answer in peer.answers.values()] == [[b"x"]] * 10

    def test_the_callers_id_comes_back(self, peer: Peer) -> None:
        assert peer.ask(message(b""), {**CALL, "x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
        refused = peer.ask(message(b"refuse not_found"), {**CALL, "x-request-id": "mine-2"})
        assert refused.headers["x-request-id"] == "mine-2"

    def test_metadata_reach_the_wire(self, peer: Peer) -> None:
        peer.ask(message(b""), {**CALL, "tenant": "blue", "key-bin": "AAE="})
        headers = peer.grpc.seen[0].headers
        assert (headers["tenant"], headers["key-bin"], headers["host"]) == ("blue", "AAE=", "here")

    @pytest.mark.parametrize("step", [1, 3, 7, 100])
    def test_a_message_in_many_frames(self, peer: Peer, step: int) -> None:
        body = bytes(range(200))
        whole = message(body) + message(b"") + message(b"last")
        number = peer.open()
        for start in range(0, len(whole), step):
            peer.data(number, whole[start : start + step])
        peer.data(number, b"", end=True)
        answer = peer.answers[number]
        assert (answer.messages, answer.trailers) == ([body, b"", b"last"], DONE)
        assert peer.connection._held == 0

    def test_many_messages_in_a_frame(self, peer: Peer) -> None:
        bodies = [b"%d" % i for i in range(500)]
        assert peer.ask(b"".join(map(message, bodies))).messages == bodies

    def test_a_call_without_a_message(self, peer: Peer) -> None:
        number = peer.open(end=True)
        assert peer.answers[number].trailers["grpc-status"] == "0"
        assert peer.answers[number].has_ended

    def test_trailers_of_the_client_end_its_side(self, peer: Peer) -> None:
        number = peer.open()
        peer.data(number, message(b"x"))
        assert not peer.answers[number].has_ended
        peer.send(frames.headers(number, peer.block({"checksum": "1"}), frames.END_STREAM))
        assert (peer.answers[number].messages, peer.answers[number].trailers) == ([b"x"], DONE)

    def test_a_large_message_and_its_answer_flow(self, peer: Peer) -> None:
        body = bytes(3_000_000)
        number, whole = peer.open(), message(body)
        peer.send(frames.window_update(0, len(whole)) + frames.window_update(number, len(whole)))
        for start in range(0, len(whole), 16_384):
            peer.data(number, whole[start : start + 16_384])
        peer.data(number, b"", end=True)
        assert peer.answers[number].messages == [body]
        assert peer.updates(number) >= 2_000_000

    def test_head_by_head(self, peer: Peer) -> None:
        """Known blocks and new ones in turn, so that what is known by heart is never another's."""
        for i in range(40):
            fields = {**CALL, "tenant": f"t{i % 3}"}
            if i % 7 == 0:
                fields["fresh"] = f"value-{i}"
            peer.ask(message(b""), fields)
            headers = peer.grpc.seen[-1].headers
            assert (headers["tenant"], headers.get("fresh")) == (fields["tenant"], fields.get("fresh"))
        assert peer.connection._blocks.known


class TestOrder:
    def test_answers_keep_the_order_of_their_messages(self, peer: Peer) -> None:
        later = Later(peer)
        number = peer.open()
        peer.data(number, b"".join(map(message, (b"a", b"b", b"c"))), end=True)
        later.answer(2)
        later.answer(1)
        assert number not in peer.answers
        later.answer(0)
        assert peer.answers[number].messages == [b"a", b"b", b"c"]
        assert peer.answers[number].trailers == DONE

    def test_the_call_is_open_until_the_client_has_said_all(self, peer: Peer) -> None:
        later = Later(peer)
        number = peer.open()
        peer.data(number, message(b"a"))
        later.answer(0)
        assert peer.answers[number].messages == [b"a"] and not peer.answers[number].has_ended
        peer.data(number, message(b"b"), end=True)
        later.answer(1)
        assert peer.answers[number].messages == [b"a", b"b"] and peer.answers[number].has_ended

    def test_calls_do_not_wait_for_one_another(self, peer: Peer) -> None:
        later = Later(peer)
        first, second = peer.open(), peer.open()
        peer.data(first, message(b"slow"), end=True)
        peer.data(second, message(b"fast"), end=True)
        later.answer(1)
        assert peer.answers[second].messages == [b"fast"] and first not in peer.answers

    def test_a_cancelled_call_is_gone(self, peer: Peer) -> None:
        later = Later(peer)
        number = peer.open()
        peer.data(number, message(b"a"), end=True)
        exchange = later.exchanges[0][0]
        assert not exchange.is_gone and peer.connection.in_flight == 1
        peer.send(frames.reset(number, frames.CANCEL))
        assert exchange.is_gone and peer.connection.in_flight == 0
        later.answer(0)
        assert number not in peer.answers

    def test_answers_from_threads_come_back_to_the_loop(self, peer: Peer) -> None:
        later = Later(peer)
        answer = peer.ask(message(b"a"))
        exchange, body = later.exchanges[0]
        exchange.answer_from_thread(Message(body, content_type="application/grpc"))
        assert not answer.blocks
        peer.loop.turn()
        peer.listen()
        assert answer.messages == [b"a"]


class TestChanges:
    def test_a_stream_that_goes_on_finds_what_is_served_now(self, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
        number, other = peer.open(), peer.open()
        peer.data(number, message(b"old"))
        refusing = peer.application.refusing("/test.Echo/Echo", NotReady("it is gone"))
        monkeypatch.setattr(peer.application, "endpoint", lambda *_, **__: refusing)
        for told in peer.application.on_change:
            told()
        peer.data(number, message(b"new"))
        assert peer.answers[number].messages == [b"old"]
        assert peer.answers[number].trailers["grpc-status"] == "14"
        peer.data(other, message(b"new"), end=True)
        assert peer.answers[other].trailers["grpc-status"] == "14"
        assert peer.ask(message(b"known by heart")).trailers["grpc-status"] == "14"


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("invalid_input", 3), ("deadline_passed", 4), ("not_found", 5), ("conflict", 6), ("refused", 7),
            ("rate_limited", 8), ("too_large", 8), ("unimplemented", 12), ("model_failed", 13), ("internal", 13),
            ("not_ready", 14), ("overloaded", 14), ("unauthenticated", 16), ("a_word_of_tomorrow", 2),
        ],
    )  # fmt: skip
    def test_each_code_has_its_status(self, peer: Peer, code: str, status: int) -> None:
        answer = peer.ask(message(f"refuse {code}".encode()))
        assert answer.trailers["grpc-status"] == str(status)
        assert answer.trailers["grpc-message"] == "n%C3%A4in%0A100%25"
        assert len(answer.blocks) == 1 and answer.has_ended and answer.reset is None

    def test_whatever_has_a_status_in_http_has_one_in_grpc(self) -> None:
        assert set(HTTP_STATUS) - set(grpc.STATUS) == {"expectation_failed"}

    def test_a_bug_is_internal(self, peer: Peer) -> None:
        assert peer.ask(message(b""), {**CALL, ":path": "/test.Echo/Bug"}).trailers["grpc-status"] == "13"

    @pytest.mark.parametrize("path", ["/test.Echo/No", "/nobody.Knows/This", "/echo", "/health/ready"])
    def test_an_unknown_method_is_unimplemented(self, peer: Peer, path: str) -> None:
        answer = peer.ask(message(b""), {**CALL, ":path": path})
        assert answer.trailers["grpc-status"] == "12"
        assert answer.trailers["grpc-message"] == f"no such method: {path}"

    def test_an_error_within_a_stream_ends_it_after_what_was_before(self, peer: Peer) -> None:
        answer = peer.ask(message(b"one") + message(b"refuse invalid_input") + message(b"three"))
        assert (answer.messages, answer.trailers["grpc-status"]) == ([b"one"], "3")
        assert not peer.connection.in_flight

    def test_an_error_with_a_body_is_a_message(self, peer: Peer) -> None:
        answer = peer.ask(message(b"error x") + message(b"two"))
        assert (answer.messages, answer.trailers) == ([b"error x", b"two"], DONE)

    def test_an_early_end_lets_the_client_stop(self, peer: Peer) -> None:
        number = peer.open()
        peer.data(number, message(b"refuse not_found"))
        answer = peer.answers[number]
        assert answer.has_ended and answer.reset == frames.NO_ERROR
        peer.data(number, message(b"late"), end=True)
        assert peer.goaway is None and len(peer.grpc.seen) == 1

    def test_a_long_text_is_cut(self, peer: Peer) -> None:
        text = grpc.percent("ä" * 10_000)
        assert len(text) < 8192

    @pytest.mark.parametrize(
        ("body", "words"),
        [(b"\x02\0\0\0\x01x", "means nothing"), (b"\0\0\0\0\x05abc", "within a message"), (b"\0\0", "within a message"),
         (message(b"x", 1), "no grpc-encoding")],
        ids=["flag", "short", "cut", "compressed"],
    )  # fmt: skip
    def test_malformed_messages(self, peer: Peer, body: bytes, words: str) -> None:
        answer = peer.ask(body)
        assert answer.trailers["grpc-status"] == "13" and words in answer.trailers["grpc-message"]
        assert not peer.connection.streams and peer.connection._held == 0

    def test_a_message_above_the_limit_is_refused_by_its_length(self) -> None:
        peer = Peer(max_body=1000)
        assert peer.ask(message(bytes(1000))).messages == [bytes(1000)]
        number = peer.open()
        peer.data(number, b"\0" + (1001).to_bytes(4, "big"))
        assert peer.answers[number].trailers["grpc-status"] == "8"
        assert "MODELYARD_MAX_BODY" in peer.answers[number].trailers["grpc-message"]

    @pytest.mark.parametrize("kind", ["application/grpc+json", "application/grpc-web", "application/grpcx"])
    def test_other_kinds_of_grpc_are_unsupported(self, peer: Peer, kind: str) -> None:
        answer = peer.ask(message(b""), {**CALL, "content-type": kind})
        assert answer.headers[":status"] == "415"


class TestCompression:
    @pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
    def test_messages_are_inflated(self, peer: Peer, name: str, pack: Callable[[bytes], bytes]) -> None:
        body = message(pack(b"x" * 1000), 1) + message(b"plain")
        assert peer.ask(body, {**CALL, "grpc-encoding": name}).messages == [b"x" * 1000, b"plain"]

    def test_an_unknown_compression_tells_the_known_ones(self, peer: Peer) -> None:
        answer = peer.ask(message(b"x", 1), {**CALL, "grpc-encoding": "snappy"})
        assert answer.trailers["grpc-status"] == "12"
        assert answer.trailers["grpc-accept-encoding"] == "identity, deflate, gzip"

    def test_a_bomb_is_refused(self) -> None:
        answer = Peer(max_body=1000).ask(message(gzip.compress(bytes(100_000)), 1), {**CALL, "grpc-encoding": "gzip"})
        assert answer.trailers["grpc-status"] == "8"

    def test_broken_compression(self, peer: Peer) -> None:
        answer = peer.ask(message(b"no gzip", 1), {**CALL, "grpc-encoding": "gzip"})
        assert answer.trailers["grpc-status"] == "13"

    def test_a_message_whose_flag_lies(self, peer: Peer) -> None:
        answer = peer.ask(message(b"x", 1), {**CALL, "grpc-encoding": "identity"})
        assert answer.trailers["grpc-status"] == "13" and "no grpc-encoding" in answer.trailers["grpc-message"]

    def test_large_messages_are_inflated_beside_the_loop_and_keep_their_order(self, peer: Peer) -> None:
        large = random.Random(0).randbytes(100_000)
        bodies = [b"first", large, b"second", large[::-1], b"last"]
        body = b"".join(message(gzip.compress(each), 1) if len(each) > 9 else message(each) for each in bodies)
        number = peer.open({**CALL, "grpc-encoding": "gzip"})
        peer.send(frames.window_update(0, 1 << 20) + frames.window_update(number, 1 << 20))
        with peer.beside() as names:
            for start in range(0, len(body), 10_000):
                peer.data(number, body[start : start + 10_000])
            peer.data(number, b"", end=True)
            assert peer.answers[number].messages == [b"first"] and peer.connection._held > 0
            peer.settle(lambda: peer.answers[number].has_ended)
        assert peer.answers[number].messages == bodies and peer.answers[number].trailers == DONE
        assert len(names) == 2 and peer.connection._held == 0 and not peer.connection.in_flight

    def test_a_bomb_is_refused_beside_the_loop(self) -> None:
        peer = Peer(max_body=20_000_000)
        bomb = message(gzip.compress(bytes(30_000_000)), 1)
        number = peer.open({**CALL, "grpc-encoding": "gzip"})
        with peer.beside() as names:
            for start in range(0, len(bomb), 10_000):
                peer.data(number, bomb[start : start + 10_000])
            peer.settle(lambda: number in peer.answers)
        assert names and peer.answers[number].trailers["grpc-status"] == "8"
        assert not peer.connection.streams and peer.connection._held == 0

    def test_who_leaves_while_its_message_is_inflated(self, peer: Peer) -> None:
        body = message(gzip.compress(random.Random(0).randbytes(50_000)), 1)
        number = peer.open({**CALL, "grpc-encoding": "gzip"})
        with peer.beside() as names:
            for start in range(0, len(body), 10_000):
                peer.data(number, body[start : start + 10_000])
            peer.send(frames.reset(number, frames.CANCEL))
            peer.settle(lambda: bool(names))
            peer.settle(lambda: not peer.loop.waits)
        assert not peer.grpc.seen and not peer.connection.streams and peer.connection._held == 0

    def test_what_ends_within_a_message_behind_one_that_is_inflated(self, peer: Peer) -> None:
        body = message(gzip.compress(random.Random(0).randbytes(50_000)), 1) + b"\0\0"
        number = peer.open({**CALL, "grpc-encoding": "gzip"})
        with peer.beside():
            for start in range(0, len(body), 10_000):
                peer.data(number, body[start : start + 10_000])
            peer.data(number, b"", end=True)
            peer.settle(lambda: number in peer.answers and peer.answers[number].has_ended)
        assert "within a message" in peer.answers[number].trailers["grpc-message"]


ACCEPTS = {**CALL, "grpc-accept-encoding": "identity, deflate, gzip"}
ZIPPED = {**ACCEPTS, "grpc-encoding": "gzip"}


class TestCompressedAnswers:
    @pytest.mark.parametrize(
        ("accepted", "how", "unpack"),
        [("identity, deflate, gzip", "gzip", gzip.decompress), ("identity,deflate", "deflate", zlib.decompress)],
    )
    def test_a_large_answer_is_compressed_for_those_who_take_it_so(
        self, peer: Peer, accepted: str, how: str, unpack: Callable[[bytes], bytes]
    ) -> None:
        answer = peer.ask(message(b"abc" * 1000), {**ZIPPED, "grpc-accept-encoding": accepted})
        assert answer.headers["grpc-encoding"] == how and answer.body[0] == 1 and answer.trailers == DONE
        assert len(answer.body) < 300 and unpack(answer.messages[0]) == b"abc" * 1000

    @pytest.mark.parametrize(
        ("body", "fields"),
        [(b"abc" * 100, ZIPPED), (b"abc" * 1000, CALL), (b"abc" * 1000, {**ZIPPED, "grpc-accept-encoding": "snappy"}),
         (random.Random(0).randbytes(3000), ZIPPED), (b"abc" * 1000, ACCEPTS),
         (b"abc" * 1000, {**ACCEPTS, "grpc-encoding": "identity"})],
        ids=["small", "not asked for", "in no known way", "what does not shrink", "said unasked", "not itself"],
    )  # fmt: skip
    def test_any_other_answer_is_not(self, peer: Peer, body: bytes, fields: dict[str, str]) -> None:
        answer = peer.ask(message(body), fields)
        assert "grpc-encoding" not in answer.headers
        assert answer.body[0] == 0 and answer.messages == [body] and answer.trailers == DONE

    def test_each_answer_of_a_stream_for_itself(self, peer: Peer) -> None:
        number = peer.open(ZIPPED)
        peer.data(number, message(b"small"))
        peer.data(number, message(b"abc" * 1000), end=True)
        answer = peer.answers[number]
        assert answer.headers["grpc-encoding"] == "gzip"
        small, large = answer.messages
        assert (small, gzip.decompress(large)) == (b"small", b"abc" * 1000)
        assert answer.trailers == DONE

    def test_a_very_large_answer_is_compressed_beside_the_loop_in_its_turn(self, peer: Peer) -> None:
        body = b"abc" * 100_000
        number = peer.open(ZIPPED)
        peer.send(frames.window_update(number, 1 << 20))
        with peer.beside() as names:
            whole = message(body) + message(b"last")
            for start in range(0, len(whole), 10_000):
                peer.data(number, whole[start : start + 10_000], end=start + 10_000 >= len(whole))
            assert number not in peer.answers or not peer.answers[number].body
            peer.settle(lambda: number in peer.answers and peer.answers[number].has_ended)
        large, last = peer.answers[number].messages
        assert (gzip.decompress(large), last) == (body, b"last") and len(names) == 1
        assert peer.answers[number].trailers == DONE and not peer.connection.in_flight

    def test_a_refusal_that_is_no_message_of_grpc_stays_one(self, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
        refusing = peer.application.refusing("/echo", NotReady("not now " * 400))
        monkeypatch.setattr(peer.application, "endpoint", lambda *_, **__: refusing)
        answer = peer.ask(message(b"x"), ZIPPED)
        assert answer.trailers["grpc-status"] == "14" and not answer.body


class TestPatience:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("2S", 2.0), ("1500m", 1.5), ("3M", 180.0), ("1H", 3600.0), ("5000000u", 5.0), ("1000n", 1e-6),
         ("", 60.0), ("S", 60.0), ("-1S", 60.0), ("1x", 60.0), ("123456789S", 60.0)],
    )  # fmt: skip
    def test_the_timeout_becomes_the_deadline(self, peer: Peer, text: str, seconds: float) -> None:
        later = Later(peer)
        peer.ask(message(b""), {**CALL, **({"grpc-timeout": text} if text else {})})
        exchange = later.exchanges[0][0]
        assert exchange.deadline - exchange.received == pytest.approx(seconds)


CLIENT = Path(__file__).with_name("grpc_client.py")


class TestStockClients:
    @pytest.fixture
    def port(self, source: MemorySource, serve: Callable[..., Any]) -> int:
        source.add("m", linear())
        port: int = serve("m", wires=["native", "oip", EchoWire()], max_body="8MB").port
        return port

    @pytest.mark.parametrize("case", ["unary", "streams", "errors", "cancel", "health", "asynchronous", "many"])
    def test_grpcio(self, port: int, case: str) -> None:
        done = subprocess.run(
            [str(interpreter("triton")), str(CLIENT), str(port), case], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
