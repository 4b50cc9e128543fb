"""What supervisor and workers say to each other, and who gets the next connection."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import threading
from collections.abc import Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.errors import NotFound, NotReady
from modelyard.serving import seat as seats
from modelyard.serving import shared
from modelyard.serving.application import Application
from modelyard.serving.catalog import Change
from modelyard.serving.employed import Employment, LinkEntrance
from modelyard.serving.isolation.frames import failure_of
from modelyard.serving.link import Answer, Apply, Begin, Leaving, Limit, Link, Model, Ready, Said, Stop, Up
from modelyard.serving.metrics import Counts, Snapshot, Vitals
from modelyard.serving.seat import MOST_ON_THE_WAY, Seat
from modelyard.serving.supervisor import Supervisor
from modelyard.serving.worker import Worker, new_loop
from modelyard.telemetry import Log
from yes_or_no import Source

MODEL = Model("churn", "4", "sha256:0", {"x1": 1.5, "when": "2026-01-01"})


class End:
    """One end of a link, and what it heard."""

    def __init__(self) -> None:
        self.heard: list[Said] = []
        self.ended = asyncio.Event()
        self.link: Link

    async def over(self, line: socket.socket) -> End:
        self.link = await Link.over(line, self.heard.append, self.ended.set)
        return self


async def pair() -> tuple[End, End]:
    left, right = socket.socketpair()
    return await End().over(left), await End().over(right)


async def until(true: Any) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.001)


class TestLink:
    @pytest.mark.parametrize(
        "said",
        [
            Begin(1, ["churn@production"], {"batch_rows": 64}, ["/usr/lib"], b"\x80"),
            Limit({"queue_seconds": 0.5}), Stop(), Up(), Leaving(), Ready([MODEL]), Ready([]),
            Apply(Change("replace", ("churn:1", "risk")), 3), Answer(3, references=["churn:1"]),
            Answer(4, failure_of(NotFound("no such model: risk", hint="did you mean rask?"))),
        ],
        ids=lambda said: type(said).__name__,
    )  # fmt: skip
    def test_what_is_said_is_heard(self, said: Said) -> None:
        async def talk() -> None:
            left, right = await pair()
            left.link.say(said)
            left.link.say(Stop())
            await until(lambda: len(right.heard) == 2)
            assert right.heard == [said, Stop()]
            left.link.close()
            right.link.close()

        asyncio.run(talk())

    def test_frames_may_come_in_any_pieces(self) -> None:
        async def talk() -> None:
            left, right = socket.socketpair()
            sender = await End().over(left)
            right.setblocking(False)
            sender.link.say(Ready([MODEL] * 50))
            sender.link.say(Up())
            data = await asyncio.get_running_loop().sock_recv(right, 1 << 16)
            heard: list[Said] = []
            receiver = Link(heard.append, lambda: None)
            for i in range(len(data)):
                receiver.data_received(data[i : i + 1])
            assert heard == [Ready([MODEL] * 50), Up()]
            sender.link.close()
            right.close()

        asyncio.run(talk())

    def test_a_question_from_a_thread_gets_its_own_answer_or_its_error(self) -> None:
        async def talk() -> None:
            left, right = await pair()
            got: dict[str, Any] = {}

            def ask(name: str) -> None:
                try:
                    got[name] = left.link.ask_from_thread(lambda id: Apply(Change("load", (name,)), id)).references
                except NotFound as error:
                    got[name] = error

            threads = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b", "gone")]
            for thread in threads:
                thread.start()
            await until(lambda: len(right.heard) == 3)
            for said in reversed(right.heard):
                assert isinstance(said, Apply)
                (name,) = said.change.names
                failed = failure_of(NotFound("no such model: gone", hint="look")) if name == "gone" else None
                right.link.say(Answer(said.id, failed, references=[name]))
            await until(lambda: len(got) == 3)
            assert (got["a"], got["b"]) == (["a"], ["b"])
            assert (got["gone"].message, got["gone"].hint) == ("no such model: gone", "look")
            left.link.close()
            right.link.close()

        asyncio.run(talk())

    def test_who_waits_for_an_answer_hears_that_the_other_is_gone(self) -> None:
        async def talk() -> None:
            left, right = await pair()
            before = left.link.ask(lambda id: Apply(Change("load", ("a",)), id))
            right.link.close()
            await left.ended.wait()
            after = left.link.ask(lambda id: Apply(Change("load", ("a",)), id))
            for asked in (before, after):
                with pytest.raises(NotReady, match="gone"):
                    asked.result(60)
            left.link.say(Stop())  # lost, and no error

        asyncio.run(talk())


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = shared.make(3)
    yield descriptor
    os.close(descriptor)


class Place:
    """A seat whose worker is in this process."""

    def __init__(self, memory: int, number: int) -> None:
        self.seat = Seat(number, shared.Board(memory), memory)
        self.board = shared.Board(memory, number)
        line, self.line = socket.socketpair()
        line.setblocking(False)
        self.seat._line = line
        self.seat.is_up = True
        self.seat.process = SimpleNamespace(pid=1)  # type: ignore[assignment]

    def pulse(self) -> None:
        self.board.publish(Snapshot(Counts(), Vitals(0, 1, 0.0, 0.0, None, 0, True, True, {})))

    def close(self) -> None:
        assert self.seat._line is not None
        self.seat._line.close()
        self.line.close()
        for _, connection in self.seat._on_the_way:
            connection.close()


@pytest.fixture
def places(memory: int) -> Iterator[list[Place]]:
    made = [Place(memory, number) for number in range(3)]
    yield made
    for place in made:
        place.close()


class TestSeat:
    def test_a_connection_is_kept_until_it_was_taken(self, places: list[Place]) -> None:
        place = places[0]
        client, connection = socket.socketpair()
        assert place.seat.give(0, connection)
        assert place.seat.load == 1
        assert connection.fileno() >= 0
        _, (taken,), _, _ = socket.recv_fds(place.line, 1, 1)
        place.board.note_taken()
        place.line.send(b"+")
        told: list[bool] = []
        place.seat._hear_taken(lambda: told.append(True))
        assert told and connection.fileno() == -1
        os.write(taken, b"hello")
        os.close(taken)
        assert client.recv(10) == b"hello"
        assert client.recv(10) == b""  # nobody else holds it open
        place.board.note_lost()
        assert place.seat.load == 0
        client.close()

    def test_only_so_many_are_on_their_way(self, places: list[Place]) -> None:
        place = places[0]
        for _ in range(MOST_ON_THE_WAY):
            assert place.seat.has_room
            place.seat.give(0, socket.socket())
        assert not place.seat.has_room

    def test_giving_to_who_is_gone_fails(self, places: list[Place]) -> None:
        places[0].line.close()
        connection = socket.socket()
        assert not places[0].seat.give(0, connection)
        assert places[0].seat.load == 0
        connection.close()

    def test_silence(self, places: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
        now = [monotonic()]
        monkeypatch.setattr(seats, "monotonic", lambda: now[0])
        seat = places[0].seat
        seat._seen = now[0]
        now[0] += seats.START_SECONDS - 1
        assert not seat.is_silent()  # it starts
        places[0].pulse()
        assert not seat.is_silent()
        now[0] += seats.SILENT_SECONDS - 1
        assert not seat.is_silent()
        now[0] += 2
        assert seat.is_silent()
        places[0].pulse()
        assert not seat.is_silent()
        now[0] += seats.SILENT_SECONDS + 1
        seat.process = None
        assert not seat.is_silent()


def supervisor(*given: Seat) -> Supervisor:
    made = Supervisor(len(given), ["churn"], b"", [], drain_seconds=1, log=Log("error"))
    made._seats = list(given)
    return made


class TestWhoIsNext:
    def test_the_one_with_the_fewest_connections(self, places: list[Place]) -> None:
        async def choose() -> None:
            few, many, gone = (place.seat for place in places)
            chooser = supervisor(few, many, gone)
            many._given, gone.is_up = 2, False
            assert chooser._freest() is few
            few._given = 3
            assert chooser._freest() is many
            many.is_up = False
            assert chooser._freest() is few

        asyncio.run(choose())

    def test_who_is_ready_comes_first_and_who_is_not_can_at_least_say_so(self, places: list[Place]) -> None:
        async def choose() -> None:
            ready, starting, _ = (place.seat for place in places)
            chooser = supervisor(ready, starting)
            assert chooser._freest() is ready
            ready._given, ready.is_ready = 50, True
            assert chooser._freest() is ready
            for _ in range(MOST_ON_THE_WAY):
                ready._on_the_way.append((0, socket.socket()))
            assert chooser._freest() is None  # it will soon have room: nobody is sent to who would refuse
            ready.is_up = ready.is_ready = False
            assert chooser._freest() is starting

        asyncio.run(choose())

    def test_each_end_in_a_row_doubles_the_wait(self, places: list[Place]) -> None:
        async def wait() -> None:
            chooser, seat = supervisor(places[0].seat), places[0].seat
            waits = []
            chooser._loop = SimpleNamespace(call_later=lambda seconds, *_: waits.append(seconds))  # type: ignore[assignment]
            for seat.failures in range(12):
                chooser._replace(seat)
            assert waits[:5] == [0.0, 0.0, 0.1, 0.2, 0.4]
            assert max(waits) == waits[-1] == 10.0
            assert seat.replaced == 12

        asyncio.run(wait())


def test_a_worker_takes_connections_until_it_closes_and_those_that_wait_then(memory: int) -> None:
    class Greeter(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"hello")
            transport.close()

    async def take() -> None:
        near, far = socket.socketpair()
        far.setblocking(False)
        board = shared.Board(memory, 0)
        entrance = LinkEntrance(far, board)
        await entrance.open(Greeter, {})
        listening = socket.create_server(("127.0.0.1", 0))
        clients = []
        for i in range(3):
            client = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
            socket.send_fds(near, [b"\0"], [accepted.fileno()])
            accepted.close()
            client.setblocking(False)
            clients.append(client)
            if i == 1:
                await until(lambda: board.taken(0) == 2)
        entrance.close()
        assert board.taken(0) == 3
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            assert [await loop.sock_recv(client, 10) for client in clients] == [b"hello"] * 3
        for each in (near, far, listening, *clients):
            each.close()

    asyncio.run(take())


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_whoever_comes_with_the_word_to_stop_is_answered(memory: int, turns: int) -> None:
    async def serve() -> bytes:
        near, far = socket.socketpair()
        far.setblocking(False)
        application = Application(["m"], source=Source, log_stream=io.StringIO())
        worker, stopping, ready = Worker(application), asyncio.Event(), asyncio.Event()
        living = asyncio.ensure_future(worker.live(LinkEntrance(far, shared.Board(memory, 0)), stopping, ready.set))
        await ready.wait()
        client, connection = socket.socketpair()
        client.settimeout(60)
        client.sendall(b'POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 18\r\n\r\n{"x1": 2, "x2": 1}')
        socket.send_fds(near, [b"\0"], [connection.fileno()])
        connection.close()
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping.set()
        await living
        application.close()
        near.close()
        with client:
            return client.recv(1000)

    loop = new_loop()
    assert loop.run_until_complete(serve()).startswith(b"HTTP/1.1 200 OK")
    loop.close()


def test_a_connection_for_which_no_descriptor_was_left_counts_as_lost(memory: int) -> None:
    async def take() -> None:
        near, far = socket.socketpair()
        far.setblocking(False)
        board = shared.Board(memory, 0)
        entrance = LinkEntrance(far, board)
        await entrance.open(asyncio.Protocol, {})
        near.send(b"\0")  # so it comes where the system could not make one
        await until(lambda: board.taken(0) == 1)
        assert board.lost(0) == 1
        entrance.close()
        near.close()
        far.close()

    asyncio.run(take())


def test_a_change_waits_for_no_thread_that_waits_for_a_change() -> None:
    """As many clients as there are threads for it have asked this very worker for changes."""

    async def talk() -> None:
        ours, theirs = await pair()
        employment = Employment(*socket.socketpair(), -1)
        taken: list[Any] = []
        catalog = SimpleNamespace(apply=lambda change: None, references=("m",))
        application = SimpleNamespace(catalog=catalog, later=taken.append, block=taken.append)
        employment._link, employment._worker = ours.link, SimpleNamespace(application=application)  # type: ignore[assignment]
        employment._hear(Apply(Change("load", ("m",)), 7))
        await until(lambda: theirs.heard)
        assert theirs.heard == [Answer(7, references=["m"])] and not taken
        ours.link.close()
        theirs.link.close()
        employment._line.close()
        employment._connections.close()

    asyncio.run(talk())
