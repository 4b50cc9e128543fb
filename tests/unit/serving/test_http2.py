"""HTTP/2: plain requests, flow control, the rules of RFC 9113, floods, farewells, and bytes at random."""

from __future__ import annotations

import gc
import gzip
import json
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.messages import Message
from modelyard.serving import frames, http2, limits
from modelyard.serving.frames import (
    COMPRESSION_ERROR,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    frame,
)
from modelyard.serving.streams import Stream

from .conftest import MemorySource, linear
from .http2_peer import CALL, HELLO, PLAIN, Answer, Peer, message


@pytest.fixture
def peer() -> Peer:
    return Peer()


def number4(value: int) -> bytes:
    return value.to_bytes(4, "big")


def setting(name: int, value: int) -> bytes:
    return frames.settings({name: value})


class TestPlain:
    def test_a_request_and_its_answer(self, peer: Peer) -> None:
        answer = peer.ask(b"hello", PLAIN)
        assert answer.body == b"hello" and answer.has_ended
        assert {
            ":status": "200", "content-type": "text/plain", "content-length": "5", "x-more": "yes",
            "server": "modelyard",
        }.items() <= answer.headers.items()  # fmt: skip
        assert answer.headers["date"] and answer.headers["x-request-id"]

    def test_head_has_no_body(self, peer: Peer) -> None:
        answer = peer.answers[peer.open({**PLAIN, ":method": "HEAD"}, end=True)]
        assert (answer.body, answer.headers["content-length"], answer.has_ended) == (b"", "7", True)

    def test_what_nobody_knows_is_not_found(self, peer: Peer) -> None:
        assert peer.ask(b"", {**PLAIN, ":path": "/health/no"}).headers[":status"] == "404"

    def test_a_body_in_parts_with_its_length(self, peer: Peer) -> None:
        number = peer.open({**PLAIN, "content-length": "6"})
        peer.data(number, b"abc")
        peer.data(number, b"def", end=True)
        assert peer.answers[number].body == b"abcdef" and peer.connection._held == 0

    @pytest.mark.parametrize("length", ["5", "7", "x", "-6"])
    def test_a_wrong_length_ends_the_stream(self, peer: Peer, length: str) -> None:
        number = peer.open({**PLAIN, "content-length": length})
        peer.data(number, b"abcdef", end=True)
        assert peer.answers[number].reset == PROTOCOL_ERROR and not peer.plain.seen

    def test_a_body_above_the_limit(self) -> None:
        peer = Peer(max_body=100)
        assert peer.ask(bytes(100), PLAIN).headers[":status"] == "200"
        assert peer.ask(bytes(101), PLAIN).headers[":status"] == "413"
        number = peer.open({**PLAIN, "content-length": "101"})
        peer.data(number, b"x")
        assert peer.answers[number].headers[":status"] == "413" and peer.answers[number].reset == NO_ERROR

    def test_a_body_is_inflated(self, peer: Peer) -> None:
        packed = {**PLAIN, "content-encoding": "gzip"}
        assert peer.ask(gzip.compress(b"hello"), packed).body == b"hello"
        assert peer.ask(b"no gzip", packed).headers[":status"] == "400"
        assert peer.ask(b"x", {**PLAIN, "content-encoding": "br"}).headers[":status"] == "415"

    def test_a_bomb_is_refused(self) -> None:
        answer = Peer(max_body=1000).ask(gzip.compress(bytes(100_000)), {**PLAIN, "content-encoding": "gzip"})
        assert answer.headers[":status"] == "413"

    def test_a_large_body_is_inflated_beside_the_loop(self, peer: Peer) -> None:
        body = random.Random(0).randbytes(50_000)
        packed = gzip.compress(body)
        number = peer.open({**PLAIN, "content-encoding": "gzip"})
        with peer.beside() as names:
            for start in range(0, len(packed), 10_000):
                peer.data(number, packed[start : start + 10_000], end=start + 10_000 >= len(packed))
            assert number not in peer.answers and peer.connection.in_flight == 1
            peer.settle(lambda: number in peer.answers and peer.answers[number].has_ended)
        assert len(names) == 1 and peer.answers[number].body == body and not peer.connection.in_flight

    def test_a_large_body_that_is_broken(self, peer: Peer) -> None:
        packed = gzip.compress(random.Random(0).randbytes(50_000))[:-9]
        number = peer.open({**PLAIN, "content-encoding": "gzip"})
        with peer.beside():
            for start in range(0, len(packed), 10_000):
                peer.data(number, packed[start : start + 10_000], end=start + 10_000 >= len(packed))
            peer.settle(lambda: number in peer.answers and peer.answers[number].has_ended)
        assert peer.answers[number].headers[":status"] == "400"

    def test_a_large_answer_is_compressed_for_those_who_take_it_so(self, peer: Peer) -> None:
        answer = peer.ask(b"abc" * 3000, {**PLAIN, "accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip" and gzip.decompress(answer.body) == b"abc" * 3000

    def test_a_client_that_expects_is_told_to_go_on(self, peer: Peer) -> None:
        number = peer.open({**PLAIN, "expect": "100-continue"})
        assert peer.answers[number].headers == {":status": "100"}
        peer.data(number, b"x", end=True)
        assert peer.answers[number].trailers[":status"] == "200"

    def test_the_wait_of_the_caller(self, peer: Peer) -> None:
        peer.ask(b"", {**PLAIN, "x-request-timeout": "2"})
        assert {head.seconds for head in peer.connection._blocks.known.values()} <= {2.0, 60.0}


class TestWindows:
    def test_an_answer_waits_for_the_window(self) -> None:
        peer = Peer(HELLO + setting(frames.INITIAL_WINDOW, 10))
        number = peer.open()
        peer.data(number, message(b"x" * 20), end=True)
        answer = peer.answers[number]
        assert len(answer.body) == 10 and not answer.has_ended
        peer.send(frames.window_update(number, 5))
        assert len(answer.body) == 15
        peer.send(setting(frames.INITIAL_WINDOW, 40))
        assert answer.messages == [b"x" * 20] and answer.has_ended
        assert peer.connection.outbox.backlog == 0

    def test_the_window_of_the_connection_is_shared(self, peer: Peer) -> None:
        body = message(bytes(30_000))
        answers = []
        for _ in range(3):
            number = peer.open()
            peer.data(number, body[:16_000])
            peer.data(number, body[16_000:], end=True)
            answers.append(peer.answers[number])
        assert [answer.has_ended for answer in answers] == [True, True, False]
        assert sum(len(answer.body) for answer in answers) == frames.DEFAULT_WINDOW
        peer.send(frames.window_update(0, 100_000))
        assert answers[2].messages == [bytes(30_000)] and answers[2].has_ended

    def test_settings_may_take_a_window_below_nothing(self, peer: Peer) -> None:
        number = peer.open()
        peer.data(number, message(bytes(1000)))
        peer.send(setting(frames.INITIAL_WINDOW, 0))
        peer.data(number, message(b"more"), end=True)
        assert len(peer.answers[number].messages) == 1
        peer.send(frames.window_update(number, 2000))
        assert peer.answers[number].messages == [bytes(1000), b"more"]

    def test_a_cancelled_answer_gives_its_room_back(self) -> None:
        peer = Peer(HELLO + setting(frames.INITIAL_WINDOW, 0))
        number = peer.open()
        peer.data(number, message(bytes(1000)), end=True)
        assert peer.connection.outbox.backlog == 1005
        peer.send(frames.reset(number, frames.CANCEL))
        assert peer.connection.outbox.backlog == 0 and not peer.connection.outbox.blocked

    def test_frames_are_as_large_as_the_client_takes(self) -> None:
        peer = Peer(HELLO + setting(frames.MAX_FRAME, 40_000) + frames.window_update(0, 1 << 20))
        peer.send(setting(frames.INITIAL_WINDOW, 1 << 20))
        number = peer.open()
        whole = message(bytes(50_000))
        for start in range(0, len(whole), 16_000):
            peer.data(number, whole[start : start + 16_000])
        peer.data(number, b"", end=True)
        assert peer.answers[number].messages == [bytes(50_000)]

    def test_a_client_that_takes_nothing_may_not_send_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http2, "MOST_BACKLOG", 1 << 20)
        peer = Peer(HELLO + setting(frames.INITIAL_WINDOW, 0))
        number, part = peer.open(), message(bytes(16_000))
        for _ in range(1000):
            if peer.transport.is_closed or number not in peer.connection.streams:
                break
            peer.data(number, part)
        assert peer.connection.outbox.backlog < 3 << 20
        assert peer.answers[number].reset == FLOW_CONTROL_ERROR  # it went beyond what it was granted

    def test_it_may_send_on_once_it_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http2, "MOST_BACKLOG", 1 << 18)
        peer = Peer(HELLO + setting(frames.INITIAL_WINDOW, 0) + frames.window_update(0, 1 << 24))
        number, part = peer.open(), message(bytes(16_000))
        for _ in range(60):
            peer.data(number, part)
        assert peer.updates(number) == 0
        peer.send(frames.window_update(number, 1 << 21))
        assert peer.updates(number) > 900_000 and len(peer.answers[number].messages) == 60

    def test_a_client_that_does_not_read_is_not_read(self, peer: Peer) -> None:
        peer.connection.pause_writing()
        assert not peer.transport.is_reading
        peer.connection.resume_writing()
        assert peer.transport.is_reading

    def test_who_asks_too_much_at_once_waits(self, peer: Peer) -> None:
        endpoint = peer.application.endpoint("POST", CALL[":path"], {}, is_call=True)
        waiting: list[Any] = []
        endpoint.accept = lambda exchange, body, headers: waiting.append(exchange)  # type: ignore[method-assign]
        number = peer.open()
        for _ in range(3):
            peer.data(number, message(b"x") * 1000)
        assert not peer.transport.is_reading and peer.connection.in_flight < 5000
        answered = 0
        while waiting:
            waiting.pop(0).answer(Message(b"y", content_type="application/grpc"))
            answered += 1
            peer.loop.turn()
        assert peer.transport.is_reading and peer.connection.in_flight == 0
        peer.data(number, b"", end=True)
        assert len(peer.answers[number].messages) == answered >= http2.MOST_UNANSWERED

    def test_too_much_that_is_not_whole(self) -> None:
        peer = Peer(max_body=1 << 20)
        numbers = [peer.open() for _ in range(4)]
        part = bytes(16_000)
        for number in numbers:
            peer.data(number, b"\0" + number4(1 << 20))
        for _ in range(62):
            for number in numbers:
                if peer.answers.get(number, Answer()).reset is None:
                    peer.data(number, part)
        assert peer.connection._held <= (2 << 20) + (1 << 20)
        assert ENHANCE_YOUR_CALM in {peer.answers[number].reset for number in numbers if number in peer.answers}


def headers_frame(peer: Peer, flags: int = END_HEADERS | END_STREAM, stream: int = 1, **changes: str) -> bytes:
    fields = {**PLAIN, **{":" + name if name in ("path", "method") else name: v for name, v in changes.items()}}
    return frame(HEADERS, flags, stream, peer.block(fields))


class TestRules:
    """What ends the connection, by what it ends with."""

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
            (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
            (frame(DATA, 0, 2, b"x"), PROTOCOL_ERROR),
            (frame(HEADERS, END_HEADERS, 0, b"\x82"), PROTOCOL_ERROR),
            (frame(HEADERS, END_HEADERS, 2, b"\x82"), PROTOCOL_ERROR),
            (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), COMPRESSION_ERROR),
            (frame(HEADERS, END_HEADERS, 1, b"\xbe"), COMPRESSION_ERROR),
            (frame(HEADERS, END_HEADERS, 1, b"\x80"), COMPRESSION_ERROR),
            (frame(HEADERS, END_HEADERS, 1, b"\x20\x20\x20\x82"), COMPRESSION_ERROR),
            (frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x7f"), COMPRESSION_ERROR),
            (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05\x82"), PROTOCOL_ERROR),
            (frame(HEADERS, END_HEADERS | PADDED, 1, b""), FRAME_SIZE_ERROR),
            (frame(HEADERS, END_HEADERS | PRIORITISED, 1, b"\0\0"), PROTOCOL_ERROR),
            (frame(HEADERS, 0, 1, b"\x82") + frame(PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
            (frame(HEADERS, 0, 1, b"\x82") + frame(frames.CONTINUATION, 4, 3, b""), PROTOCOL_ERROR),
            (frame(frames.CONTINUATION, 4, 1, b"\x82"), PROTOCOL_ERROR),
            (frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL_ERROR),
            (frame(RST_STREAM, 0, 1, bytes(4)), PROTOCOL_ERROR),
            (frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
            (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
            (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
            (frame(SETTINGS, 1, 0, bytes(6)), FRAME_SIZE_ERROR),
            (setting(frames.ENABLE_PUSH, 2), PROTOCOL_ERROR),
            (setting(frames.INITIAL_WINDOW, 1 << 31), FLOW_CONTROL_ERROR),
            (setting(frames.MAX_FRAME, 100), PROTOCOL_ERROR),
            (setting(frames.MAX_FRAME, 1 << 24), PROTOCOL_ERROR),
            (frame(PUSH_PROMISE, 4, 1, bytes(4)), PROTOCOL_ERROR),
            (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
            (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
            (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
            (frame(WINDOW_UPDATE, 0, 0, number4(0)), PROTOCOL_ERROR),
            (frame(WINDOW_UPDATE, 0, 0, number4(0x7FFFFFFF)), FLOW_CONTROL_ERROR),
            (frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
            (frame(WINDOW_UPDATE, 0, 1, number4(1)), PROTOCOL_ERROR),
            (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
            (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
            (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", FRAME_SIZE_ERROR),
        ],
        ids=str,
    )
    def test_broken_rules(self, peer: Peer, data: bytes, code: int) -> None:
        peer.send(data)
        assert peer.goaway is not None and peer.goaway[0] == code
        assert peer.transport.is_closed and not peer.connection.streams

    @pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + frame(PING, 0, 0, bytes(8)),
                                       PREFACE + frame(SETTINGS, 1, 0)], ids=["http1", "ping", "ack"])  # fmt: skip
    def test_a_wrong_start(self, hello: bytes) -> None:
        peer = Peer(hello)
        assert peer.goaway is not None and peer.goaway[0] == PROTOCOL_ERROR and peer.transport.is_closed

    def test_a_hello_byte_by_byte(self) -> None:
        peer = Peer(b"")
        for byte in HELLO:
            peer.send(bytes((byte,)))
        assert peer.ask(b"x", PLAIN).body == b"x"

    @pytest.mark.parametrize(
        "fields",
        [
            {name: value for name, value in PLAIN.items() if name != missing}
            for missing in (":method", ":path", ":scheme")
        ]
        + [
            {**PLAIN, ":path": ""}, {**PLAIN, ":status": "200"}, {"a": "b", **PLAIN}, {**PLAIN, "Upper": "x"},
            {**PLAIN, "connection": "close"}, {**PLAIN, "transfer-encoding": "chunked"}, {**PLAIN, "te": "gzip"},
            {**PLAIN, "x": "a\r\nb"}, {**PLAIN, "content-length": "1x"}, {**PLAIN, "": "x"},
        ],
        ids=["no method", "no path", "no scheme", "empty path", "status", "late pseudo", "upper case", "connection",
             "chunked", "te", "line", "length", "no name"],
    )  # fmt: skip
    def test_improper_requests_end_their_stream_only(self, peer: Peer, fields: dict[str, str]) -> None:
        number = peer.next()
        peer.send(frames.headers(number, peer.block(fields.items()), END_STREAM))
        assert peer.answers[number].reset == PROTOCOL_ERROR
        assert peer.ask(b"x", PLAIN).body == b"x" and peer.goaway is None

    def test_doubled_pseudo_headers(self, peer: Peer) -> None:
        number = peer.next()
        peer.send(frames.headers(number, peer.block([*PLAIN.items(), (":path", "/")]), END_STREAM))
        assert peer.answers[number].reset == PROTOCOL_ERROR

    def test_numbers_only_grow(self, peer: Peer) -> None:
        peer.send(headers_frame(peer, stream=5))
        assert peer.answers[5].has_ended
        peer.send(headers_frame(peer, stream=3))
        assert peer.goaway is not None and peer.goaway[0] == STREAM_CLOSED

    def test_data_after_the_end(self, peer: Peer) -> None:
        number = peer.open(PLAIN, end=True)
        peer.data(number, b"x")
        assert peer.answers[number].reset == STREAM_CLOSED and peer.goaway is None

    def test_trailers_must_end_and_have_no_pseudo_headers(self, peer: Peer) -> None:
        first, second = peer.open(), peer.open()
        peer.send(frames.headers(first, peer.block({"a": "b"})))
        peer.send(frames.headers(second, peer.block({":path": "/"}), END_STREAM))
        assert (peer.answers[first].reset, peer.answers[second].reset) == (PROTOCOL_ERROR, PROTOCOL_ERROR)

    def test_padding_priorities_and_unknown_frames_mean_nothing(self, peer: Peer) -> None:
        number = peer.next()
        block = peer.block(PLAIN)
        peer.send(frame(HEADERS, END_HEADERS | PADDED | PRIORITISED, number, b"\x03" + bytes(5) + block + bytes(3)))
        peer.send(frame(PRIORITY, 0, number, bytes(5)) + frame(0xBA, 0xFF, number, b"?") + frame(0xBB, 1, 0))
        peer.send(frame(DATA, PADDED | END_STREAM, number, b"\x02hello\0\0"))
        assert peer.answers[number].body == b"hello"

    def test_a_block_over_many_frames(self, peer: Peer) -> None:
        number, block = peer.next(), peer.block({**PLAIN, "x": "y" * 2000})
        peer.send(frame(HEADERS, END_STREAM, number, block[:1000]))
        peer.send(frame(frames.CONTINUATION, 0, number, block[1000:1500]))
        peer.send(frame(frames.CONTINUATION, END_HEADERS, number, block[1500:]))
        assert peer.answers[number].body == b"nothing" and peer.plain.seen[0].headers["x"] == "y" * 2000

    def test_a_ping_is_answered(self, peer: Peer) -> None:
        peer.send(frame(PING, 0, 0, b"12345678"))
        assert (PING, 1, 0, b"12345678") in peer.others
        assert sum(kind == SETTINGS and flags == 1 for kind, flags, _, _ in peer.others) == 1

    def test_a_client_with_a_small_table_can_read_us(self, peer: Peer) -> None:
        peer.send(setting(frames.TABLE_SIZE, 0))
        peer._decoder.max_allowed_table_size = 0
        assert peer.ask(message(b"x")).messages == [b"x"]

    def test_late_frames_of_a_stream_that_we_ended(self, peer: Peer) -> None:
        number = peer.open({**PLAIN, "content-length": "x"})
        peer.data(number, b"late")
        peer.send(frames.headers(number, peer.block({"late": "too"}), END_STREAM))
        peer.send(frames.reset(number, frames.CANCEL))
        assert peer.goaway is None and peer.ask(b"x", PLAIN).body == b"x"


class TestFloods:
    @pytest.mark.parametrize(
        "data",
        [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0), frame(PRIORITY, 0, 1, bytes(5)), frame(0xEE, 0, 0),
         frame(DATA, 0, 1)],
        ids=["ping", "settings", "priority", "unknown", "empty"],
    )  # fmt: skip
    def test_frames_to_no_purpose(self, peer: Peer, data: bytes) -> None:
        peer.open()
        peer.send(data * 900)
        assert peer.goaway is None
        peer.send(data * 200)
        assert peer.goaway is not None and peer.goaway[0] == ENHANCE_YOUR_CALM

    def test_rapid_resets(self, peer: Peer) -> None:
        endpoint = peer.application.endpoint("POST", CALL[":path"], {}, is_call=True)
        accepted: list[Any] = []
        endpoint.accept = lambda exchange, body, headers: accepted.append(exchange)  # type: ignore[method-assign]
        for _ in range(1500):
            number = peer.open()
            peer.send(frame(DATA, END_STREAM, number, message(b"")) + frames.reset(number, frames.CANCEL))
        assert peer.goaway is not None and peer.goaway[0] == ENHANCE_YOUR_CALM
        assert len(accepted) <= 1001 and all(exchange.is_gone for exchange in accepted)
        assert peer.connection.in_flight == 0

    def test_pings_of_a_client_that_works_are_fine(self, peer: Peer) -> None:
        for _ in range(3000):
            peer.ask(message(b"x"))
            peer.send(frame(PING, 0, 0, bytes(8)) + frames.window_update(0, 100))
        assert peer.goaway is None

    def test_every_second_is_a_new_one(self, peer: Peer) -> None:
        for _ in range(3):
            peer.send(frame(PING, 0, 0, bytes(8)) * 900)
            peer.connection.tend(perf_counter())
        assert peer.goaway is None

    def test_too_many_streams(self, peer: Peer) -> None:
        numbers = [peer.open() for _ in range(257)]
        assert peer.answers[numbers[-1]].reset == REFUSED_STREAM and len(peer.connection.streams) == 256
        peer.send(frames.reset(numbers[0], frames.CANCEL))
        assert peer.ask(message(b"x")).messages == [b"x"]

    def test_endless_continuations(self, peer: Peer) -> None:
        peer.send(frame(HEADERS, 0, 1, bytes(16_000)))
        for _ in range(5):
            peer.send(frame(frames.CONTINUATION, 0, 1, bytes(16_000)))
        assert peer.goaway is not None and peer.goaway[0] == ENHANCE_YOUR_CALM

    def test_endless_small_continuations(self, peer: Peer) -> None:
        peer.send(frame(HEADERS, 0, 1, b"") + frame(frames.CONTINUATION, 0, 1, b"") * 1100)
        assert peer.goaway is not None and peer.goaway[0] == ENHANCE_YOUR_CALM

    def test_a_block_that_swells(self, peer: Peer) -> None:
        first = b"\x40\x01a\x7f\xc1\x1e" + b"x" * 4000  # enters the table; then it is named again and again
        assert len(first) == 4006
        peer.send(frame(HEADERS, END_HEADERS, 1, first + b"\xbe" * 1000))
        assert peer.goaway is not None and peer.goaway[0] == ENHANCE_YOUR_CALM

    def test_blocks_that_swell_from_the_table(self, peer: Peer) -> None:
        peer.open({**PLAIN, "x": "y" * 3000}, end=True)
        number = peer.next()
        peer.send(frames.headers(number, peer.block(PLAIN) + b"\xbe" * 100, END_STREAM))
        assert peer.goaway is not None and peer.goaway[0] == ENHANCE_YOUR_CALM

    def test_too_many_headers(self, peer: Peer) -> None:
        number = peer.open({**PLAIN, **{f"h{i}": "x" for i in range(200)}}, end=True)
        assert peer.answers[number].reset == ENHANCE_YOUR_CALM


class TestTime:
    def test_an_idle_connection_is_closed(self, peer: Peer) -> None:
        peer.ask(message(b"x"))
        peer.connection.tend(perf_counter() + limits.IDLE_SECONDS - 1)
        assert peer.goaway is None
        peer.connection.tend(perf_counter() + limits.IDLE_SECONDS + 1)
        peer.listen()
        assert peer.goaway == (NO_ERROR, "idle") and peer.transport.is_closed

    def test_a_slow_body_is_given_up(self, peer: Peer) -> None:
        plain, call, idle = peer.open(PLAIN), peer.open(), peer.open()
        peer.data(plain, b"x")
        peer.data(call, message(b"hello")[:7])
        peer.connection.tend(perf_counter() + limits.BODY_SECONDS + 1)
        peer.loop.turn()
        peer.listen()
        assert peer.answers[plain].headers[":status"] == "408"
        assert peer.answers[call].trailers["grpc-status"] == "4"
        assert list(peer.connection.streams) == [idle]

    @pytest.mark.parametrize("start", [PREFACE[:10], HELLO + b"\0\0", HELLO + frame(HEADERS, 0, 1, b"\x82")],
                             ids=["preface", "frame", "block"])  # fmt: skip
    def test_a_frame_that_does_not_end(self, start: bytes) -> None:
        peer = Peer(start)
        peer.connection.tend(perf_counter() + limits.BODY_SECONDS + 1)
        peer.listen()
        assert peer.goaway is not None and peer.transport.is_closed

    @pytest.mark.parametrize("how", ["windows", "socket"])
    def test_a_client_that_never_takes_its_answers(self, how: str) -> None:
        peer = Peer(HELLO + setting(frames.INITIAL_WINDOW, 0))
        peer.ask(message(b"x"))
        if how == "socket":
            peer.connection.pause_writing()
        peer.connection.tend(perf_counter() + limits.STUCK_SECONDS - 1)
        assert not peer.transport.is_closed
        peer.connection.tend(perf_counter() + limits.STUCK_SECONDS + 1)
        assert peer.transport.is_closed

    def test_a_silent_client_is_asked_and_then_left(self, peer: Peer) -> None:
        peer.open()
        now = perf_counter() + http2.PROBE_SECONDS + 1
        peer.connection.tend(now)
        peer.loop.turn()
        peer.listen()
        assert peer.others[-1][0] == PING
        peer.connection.tend(now + 1)
        assert not peer.transport.is_closed
        peer.connection.tend(now + http2.PROBE_ANSWER_SECONDS + 1)
        assert peer.transport.is_closed

    def test_draining_lets_streams_end(self, peer: Peer) -> None:
        number = peer.open()
        now = perf_counter()
        peer.connection.drain(now)
        late = peer.open()  # it was under way
        peer.connection.drain(now + 0.01)
        peer.connection.drain(now + 1.01 * http2.FAREWELL_SECONDS)
        refused = peer.open()
        assert peer.answers[refused].reset == REFUSED_STREAM
        for one in (number, late):
            assert not peer.transport.is_closed
            peer.data(one, message(b"x"), end=True)
            assert peer.answers[one].messages == [b"x"]
        assert peer.transport.is_closed and peer.goaway == (NO_ERROR, "")

    def test_draining_an_idle_connection(self, peer: Peer) -> None:
        peer.connection.drain(1.0)
        peer.connection.drain(2.0)
        assert peer.transport.is_closed

    def test_streams_that_are_over_leave_memory(self, peer: Peer) -> None:
        def count() -> int:
            gc.collect()
            return sum(isinstance(thing, Stream) for thing in gc.get_objects())

        before = count()
        for _ in range(5):
            peer.ask(b"x", PLAIN)
            peer.ask(message(b"x"))
            peer.ask(message(b"refuse not_found") + message(b"x"))
        endpoint = peer.application.endpoint("POST", CALL[":path"], {}, is_call=True)
        endpoint.accept = lambda exchange, body, headers: None  # type: ignore[method-assign]
        for _ in range(5):
            peer.ask(message(b"x"))
            peer.send(frames.reset(peer.open(), frames.CANCEL))
        peer.connection.connection_lost(None)
        assert count() == before

    def test_a_client_that_has_said_all_gets_its_answers(self) -> None:
        peer = Peer(HELLO + setting(frames.INITIAL_WINDOW, 0))
        half, whole = peer.open(), peer.open()
        peer.data(whole, message(b"x"), end=True)
        assert peer.connection.eof_received()
        assert list(peer.connection.streams) == [whole] and half not in peer.answers
        peer.connection.outbox.widen(peer.connection.streams[whole], 100)
        peer.loop.turn()
        peer.listen()
        assert peer.answers[whole].messages == [b"x"] and peer.transport.is_closed

    def test_a_client_that_leaves_half_way_gets_nothing(self, peer: Peer) -> None:
        peer.open()
        assert not peer.connection.eof_received() and not peer.connection.streams

    def test_what_was_answered_in_the_turn_of_the_end_is_written(self, peer: Peer) -> None:
        answered = frame(PING, 0, 0, b"answered")
        peer.connection.outbox.write(answered)
        assert not peer.connection.eof_received()
        assert peer.transport.written.endswith(answered)

    def test_what_does_not_fit_into_the_windows_of_a_client_that_has_said_all_is_dropped(self) -> None:
        peer = Peer(HELLO + setting(frames.INITIAL_WINDOW, 1))
        peer.data(peer.open(), message(b"x"), end=True)
        peer.connection.tend(perf_counter() + 1)
        assert not peer.transport.is_closed  # it may widen them
        assert peer.connection.eof_received()
        peer.connection.tend(perf_counter() + 1)
        assert peer.transport.is_closed

    def test_nothing_is_written_to_a_lost_connection(self, peer: Peer) -> None:
        peer.connection.outbox.write(frame(PING, 0, 0, b"answered"))
        before = peer.transport.writes
        peer.connection.connection_lost(None)
        peer.loop.turn()
        assert peer.transport.writes == before

    def test_a_lost_connection_leaves_nothing(self, peer: Peer) -> None:
        peer.open()
        peer.data(1, message(b"x" * 10)[:8])
        peer.open()
        assert peer.connection._known
        peer.connection.connection_lost(None)
        assert not peer.connection._known  # its endpoints hold versions that may be unloaded
        assert not peer.connection.streams and peer.connection._held == 0
        assert not peer.listener.connections


def check_whole(peer: Peer) -> None:
    """Whatever came, the books are right."""
    connection = peer.connection
    peer.loop.turn()
    assert connection.unanswered == sum(stream.in_flight for stream in connection.streams.values())
    assert connection._held == sum(len(stream.buffer) for stream in connection.streams.values())
    assert connection.outbox.backlog == sum(len(stream.backlog) for stream in connection.streams.values())
    assert set(connection.outbox.blocked) <= set(connection.streams)
    connection.connection_lost(None)
    assert not connection.streams and connection.unanswered == connection._held == connection.outbox.backlog == 0


KINDS = st.integers(0, 11)
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([message(b"hi"), message(b"refuse not_found"), number4(1), number4(1 << 20), bytes(8), bytes(5)]),
)
FRAMES = st.builds(
    frame,
    KINDS, st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]), st.integers(0, 9), PAYLOADS,
)  # fmt: skip


class TestFuzz:
    @settings(max_examples=150, deadline=None)
    @given(
        changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
        tail=st.sampled_from([b"", b"\x00\x03abc\x05hello", b"\x10\x01z\x00", b"\x00\x01a", b"\x00", b"\x0f\x10\x01x"]),
    )
    def test_blocks_mean_the_same_read_quickly(self, changes: list[tuple[int, int]], tail: bytes) -> None:
        peer = Peer()
        blocks = peer.connection._blocks
        blocks.decode(peer.block(CALL))
        block = bytearray(peer.block(CALL) + tail)
        for place, value in changes:
            block[place % len(block)] = value
        state = blocks._state
        quickly = blocks._quickly(bytes(block))
        if quickly is not None:
            assert blocks.decode(bytes(block)) == quickly and blocks._state is state
        elif not changes:
            assert tail in (b"\x00\x01a", b"\x00", b"\x0f\x10\x01x")

    @settings(max_examples=150, deadline=None)
    @given(data=st.binary(max_size=300), greeted=st.booleans())
    def test_bytes(self, data: bytes, greeted: bool) -> None:
        peer = Peer(HELLO if greeted else b"")
        peer.send(data)
        check_whole(peer)

    @settings(max_examples=200, deadline=None)
    @given(parts=st.lists(FRAMES, max_size=12))
    def test_frames(self, parts: list[bytes]) -> None:
        peer = Peer()
        peer.open()
        peer.open(PLAIN)
        for part in parts:
            peer.send(part)
        check_whole(peer)

    @settings(max_examples=200, deadline=None)
    @given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), cut=st.integers(1, 200))
    def test_mutations(self, changes: list[tuple[int, int]], cut: int) -> None:
        peer = Peer(PREFACE + setting(frames.INITIAL_WINDOW, 30))
        data = bytearray(
            headers_frame(peer, END_HEADERS, 1)
            + frame(DATA, 0, 1, b"hello")
            + frame(HEADERS, END_HEADERS, 3, peer.block(CALL))
            + frame(DATA, 0, 3, message(b"x" * 20)[:9])
            + frame(PING, 0, 0, bytes(8))
            + frame(DATA, END_STREAM, 3, message(b"x" * 20)[9:] + message(b"y"))
            + frame(DATA, END_STREAM | PADDED, 1, b"\x02more\0\0")
            + frames.window_update(3, 100)
        )
        for place, value in changes:
            data[place % len(data)] = value
        for start in range(0, len(data), cut):
            peer.send(bytes(data[start : start + cut]))
        check_whole(peer)


class TestSockets:
    """Both versions of HTTP on one port."""

    @pytest.fixture
    def server(self, source: MemorySource, serve: Callable[..., Any]) -> Any:
        source.add("m", linear())
        return serve("m")

    def test_curl(self, server: Any) -> None:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        body = json.dumps({"x1": 1.0, "x2": 2.0})
        for version in ("--http2-prior-knowledge", "--http1.1"):
            done = subprocess.run(
                ["curl", "-sS", version, "-w", " %{http_version} %{http_code}", "-d", body,
                 f"{server.url}/models/m/predict"],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            assert done.stdout.endswith(" 2 200" if "http2" in version else " 1.1 200"), done.stdout
            assert "6.0" in done.stdout

    def test_a_preface_in_pieces(self, server: Any) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in (HELLO[:1], HELLO[1:20], HELLO[20:]):
                client.sendall(part)
                client.settimeout(0.2) if part != HELLO[20:] else client.settimeout(60)
                if part != HELLO[20:]:
                    with pytest.raises(TimeoutError):
                        client.recv(1)
            first = client.recv(9)
        assert first[3] == SETTINGS

    def test_what_only_starts_like_one_is_http_1(self, server: Any) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"P")
            with pytest.raises(TimeoutError):
                client.settimeout(0.2)
                client.recv(1)
            client.settimeout(60)
            client.sendall(b"OST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 404")

    def test_stopping_says_goodbye(self, server: Any) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(HELLO)
            client.recv(1000)
            server.stop()
            rest = b""
            while part := client.recv(1000):
                rest += part
        assert rest.count(frame(GOAWAY, 0, 0, number4(0) + number4(0))) == 1
