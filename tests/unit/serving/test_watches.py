"""Calls that are answered again and again: what is told, to whom, and when it ends."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from modelyard.errors import NotFound
from modelyard.interfaces import Catalog
from modelyard.messages import Call, Message
from modelyard.serving import frames, watches

from .http2_peer import CALL, HELLO, Answer, EchoWire, Peer, message

WATCH = {**CALL, ":path": "/test.Echo/Watch"}
DONE = {"grpc-status": "0"}


class Moods(EchoWire):
    """Answers with the mood of whoever it is asked for, and notes that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.moods: dict[bytes, bytes] = {}
        self.asked: list[bytes] = []

    def match(self, method: str, path: str) -> Call | None:
        if path == WATCH[":path"]:
            return Call("watch", scope="open", is_watched=True)
        return super().match(method, path)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action != "watch":
            return super().inform(call, message, catalog)
        self.asked.append(message.body)
        if message.body not in self.moods:
            raise NotFound("nobody of that name")
        return Message(self.moods[message.body], content_type="application/grpc")


class Watched(Peer):
    def __init__(self, hello: bytes = HELLO, **options: Any) -> None:
        self.wire = Moods()
        self.wire.moods |= {b"ann": b"glad", b"bob": b"sad"}
        super().__init__(hello, wires=[self.wire], **options)

    def watch(self, who: bytes = b"ann", *, end: bool = True) -> Answer:
        number = self.open(WATCH)
        self.data(number, message(who), end=end)
        return self.answers[number]

    def change(self, **moods: str) -> None:
        """Moods change, and endpoints are found anew."""
        self.wire.moods |= {who.encode(): mood.encode() for who, mood in moods.items()}
        for told in self.application.on_change:
            told()
        self.turn()

    def turn(self) -> None:
        self.loop.turn()
        self.listen()

    @property
    def count(self) -> int:
        """Watches that somebody remembers."""
        known = self.listener.watches
        return 0 if known is None else sum(map(len, known._asked.values()))


@pytest.fixture
def peer() -> Watched:
    return Watched()


def test_the_answer_is_told_at_once_and_at_each_change(peer: Watched) -> None:
    ann, bob = peer.watch(), peer.watch(b"bob")
    assert (ann.messages, bob.messages) == ([b"glad"], [b"sad"])
    assert ann.headers[":status"] == "200" and ann.headers["x-request-id"] and not ann.has_ended
    peer.change(ann="angry")
    peer.change(ann="glad", bob="mad")
    assert (ann.messages, bob.messages) == ([b"glad", b"angry", b"glad"], [b"sad", b"mad"])
    assert len(ann.blocks) == 1 and not ann.has_ended and peer.connection.in_flight == 0


def test_what_did_not_change_is_not_told(peer: Watched) -> None:
    ann = peer.watch()
    peer.change()
    peer.change(bob="mad")
    assert ann.messages == [b"glad"]


def test_changes_without_a_word_are_found_once_a_second(peer: Watched) -> None:
    ann = peer.watch()
    peer.wire.moods[b"ann"] = b"angry"
    peer.turn()
    assert ann.messages == [b"glad"]
    peer.listener.sweep()
    peer.turn()
    assert ann.messages == [b"glad", b"angry"]


def test_one_question_is_asked_once_for_all(peer: Watched) -> None:
    answers = [peer.watch() for _ in range(50)]
    peer.wire.asked.clear()
    peer.change(ann="angry")
    assert peer.wire.asked == [b"ann"]
    assert all(answer.messages == [b"glad", b"angry"] for answer in answers)


def test_the_client_may_say_that_it_has_said_all_later(peer: Watched) -> None:
    number = peer.open(WATCH)
    peer.data(number, message(b"ann")[:4])
    peer.data(number, message(b"ann")[4:])
    peer.data(number, b"", end=True)
    peer.change(ann="angry")
    answer = peer.answers[number]
    assert answer.messages == [b"glad", b"angry"] and not answer.has_ended


def test_a_question_may_come_compressed(peer: Watched) -> None:
    number = peer.open({**WATCH, "grpc-encoding": "gzip", "grpc-accept-encoding": "gzip"})
    peer.data(number, message(gzip.compress(b"ann"), 1), end=True)
    peer.change(ann="x" * 10_000)
    assert peer.answers[number].messages == [b"glad", b"x" * 10_000] and not peer.answers[number].has_ended


def test_a_call_without_a_question_ends(peer: Watched) -> None:
    assert peer.answers[peer.open(WATCH, end=True)].trailers["grpc-status"] == "0"


def test_a_second_question_ends_the_call(peer: Watched) -> None:
    answer = peer.watch(end=False)
    peer.data(1, message(b"bob"))
    assert answer.messages == [b"glad"] and answer.trailers["grpc-status"] == "13"
    assert peer.count == 0


def test_a_question_may_not_be_large(peer: Watched) -> None:
    answer = peer.watch(b"x" * (watches.LARGEST_QUESTION + 1))
    assert answer.trailers["grpc-status"] == "8" and peer.count == 0 and not peer.wire.asked


def test_a_cut_question_ends_the_call(peer: Watched) -> None:
    number = peer.open(WATCH)
    peer.data(number, message(b"ann") + b"\0\0", end=True)
    assert peer.answers[number].trailers["grpc-status"] == "13" and peer.count == 0


def test_an_error_is_told_as_ever(peer: Watched) -> None:
    answer = peer.watch(b"eve")
    assert answer.trailers == {**answer.trailers, "grpc-status": "5", "grpc-message": "nobody of that name"}
    assert answer.has_ended and peer.count == 0


def test_an_error_of_later_ends_what_was_told(peer: Watched) -> None:
    ann, other = peer.watch(), peer.watch()
    del peer.wire.moods[b"ann"]
    peer.change()
    for answer in (ann, other):
        assert answer.messages == [b"glad"] and answer.trailers["grpc-status"] == "5" and answer.has_ended
    assert peer.count == 0


def test_who_cancels_is_forgotten(peer: Watched) -> None:
    answer = peer.watch()
    peer.send(frames.reset(1, frames.CANCEL))
    peer.change(ann="angry")
    assert answer.messages == [b"glad"] and peer.count == 0 and not peer.connection.streams


def test_whose_connection_is_lost_is_forgotten(peer: Watched) -> None:
    peer.watch()
    peer.watch(b"bob")
    assert peer.count == 2
    peer.connection.connection_lost(None)
    assert peer.count == 0
    peer.change(ann="angry")


def test_who_closes_its_half_is_forgotten(peer: Watched) -> None:
    """It may have closed the other as well, which is not heard before something is written."""
    ended, halfway = peer.watch(), peer.watch(b"bob", end=False)
    assert not peer.connection.eof_received()
    peer.turn()
    assert (ended.messages, ended.trailers) == ([b"glad"], DONE) and not halfway.has_ended
    assert peer.count == 0 and not peer.connection.streams


def test_there_are_only_so_many(peer: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MOST_WATCHES", 2)
    peer.watch()
    peer.watch(b"bob")
    refused = peer.watch()
    assert refused.trailers["grpc-status"] == "14" and "watch" in refused.trailers["grpc-message"]
    assert peer.count == 2
    peer.send(frames.reset(1, frames.CANCEL))
    assert peer.watch().messages == [b"glad"] and peer.count == 2


def test_there_are_only_so_many_questions(peer: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MOST_QUESTIONS", 1)
    peer.watch()
    assert peer.watch().messages == [b"glad"]
    assert peer.watch(b"bob").trailers["grpc-status"] == "14"


def test_a_client_that_takes_nothing_is_told_the_newest_once_it_does() -> None:
    peer = Watched(HELLO[:24] + frames.settings({frames.INITIAL_WINDOW: 0}))
    answer = peer.watch()
    for mood in ("angry", "mad", "calm"):
        peer.change(ann=mood)
    assert answer.messages == [] and peer.connection.outbox.backlog < 20
    peer.send(frames.window_update(1, 1000))
    assert answer.messages == [b"glad"]
    peer.listener.sweep()
    peer.turn()
    assert answer.messages == [b"glad", b"calm"]


def test_a_server_that_stops_tells_what_there_is_and_ends(peer: Watched) -> None:
    ann, bob = peer.watch(), peer.watch(b"bob")
    peer.wire.moods[b"ann"] = b"tired"
    peer.listener.drain()
    peer.turn()
    assert (ann.messages, ann.trailers, ann.has_ended) == ([b"glad", b"tired"], DONE, True)
    assert (bob.messages, bob.trailers, bob.has_ended) == ([b"sad"], DONE, True)
    assert not peer.connection.streams and peer.count == 0
    late = peer.watch()
    assert (late.messages, late.trailers) == ([b"tired"], DONE) and peer.count == 0


def test_a_watch_that_needs_a_key_is_a_call_as_any_other() -> None:
    class Guarded(Moods):
        def match(self, method: str, path: str) -> Call | None:
            return Call("watch", is_watched=True) if path == WATCH[":path"] else None

    peer = Watched()
    peer.wire.match = Guarded().match  # type: ignore[method-assign]
    answer = peer.watch()
    assert answer.messages == [b"glad"] and answer.has_ended and peer.count == 0
