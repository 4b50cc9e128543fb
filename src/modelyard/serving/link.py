"""What the supervisor and a worker say to each other: MessagePack frames over a pair of sockets.

Connections travel beside them, over a pair of their own: one byte says at which of the server's sockets a connection
came in, and with it comes the file descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from modelyard.errors import NotReady
from modelyard.serving.catalog import Change
from modelyard.serving.isolation.frames import Failure, error_of
from modelyard.serving.isolation.keeper import Address, Order
from modelyard.serving.loading import Loaded

#: Seconds that a question over the link may take: loading a large model is the longest.
ANSWER_SECONDS = 900.0

_LENGTH = struct.Struct("<I")


class Begin(msgspec.Struct, tag=True):
    """To a worker, first of all: which it is, where Python finds modules, and the pickled options of its server."""

    number: int
    references: list[str]
    limits: dict[str, int | float]
    path: list[str]
    options: bytes


class Stop(msgspec.Struct, tag=True):
    """To a worker: finish what is in flight, and end."""


class Apply(msgspec.Struct, tag=True):
    """A change of what is served: asked of the supervisor by a worker, and then of every worker by it."""

    change: Change
    id: int


class Limit(msgspec.Struct, tag=True):
    """New bounds of joining and waiting: told to the supervisor by a worker, and then to the others by it."""

    limits: dict[str, int | float]


class Start(msgspec.Struct, tag=True):
    """To the supervisor: a model wants processes of its own (``Keeping.start``)."""

    order: Order
    id: int


class End(msgspec.Struct, tag=True):
    """To the supervisor: a worker needs the processes of a model no longer (``Keeping.stop``)."""

    address: Address


class Answer(msgspec.Struct, tag=True):
    """The answer to what had this ``id``."""

    id: int
    failure: Failure | None = None
    #: To ``Start``.
    address: Address | None = None
    #: To ``Apply``, by a worker: what it serves from now on.
    references: list[str] = []


class Up(msgspec.Struct, tag=True):
    """To the supervisor: connections are welcome, if only to be told that the models are being loaded."""


class Model(msgspec.Struct):
    """A loaded version, as those who started the server are told of it."""

    name: str
    version: str
    digest: str
    example: dict[str, Any]

    @classmethod
    def of(cls, loaded: Loaded) -> Model:
        return cls(loaded.name, loaded.version, loaded.digest, loaded.example)


class Ready(msgspec.Struct, tag=True):
    """To the supervisor: every model is loaded."""

    models: list[Model]


class Failed(msgspec.Struct, tag=True):
    """To the supervisor: what stood in the way of a start."""

    failure: Failure


class Leaving(msgspec.Struct, tag=True):
    """To the supervisor: somebody told this worker to end; it takes no more connections."""


Said = Begin | Stop | Apply | Limit | Start | End | Answer | Up | Ready | Failed | Leaving

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode: Callable[[bytes], Said] = msgspec.msgpack.Decoder(Said).decode


class Link(asyncio.Protocol):
    """One end. ``hear`` is called on the loop's thread with all that the other end says; ``end`` when it is gone."""

    def __init__(self, hear: Callable[[Said], None], end: Callable[[], None]) -> None:
        self._hear = hear
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._asked: dict[int, Future[Answer]] = {}
        self._count = 0
        self._transport: Any = None

    @classmethod
    async def over(cls, line: socket.socket, hear: Callable[[Said], None], end: Callable[[], None]) -> Link:
        """A link over one of a pair of sockets."""
        link = cls(hear, end)
        await link._loop.create_unix_connection(lambda: link, sock=line)
        return link

    def say(self, said: Said) -> None:
        """On the loop's thread. What is said to one who is gone is lost."""
        if not self._transport.is_closing():
            data = _encode(said)
            self._transport.write(_LENGTH.pack(len(data)) + data)

    def ask(self, make: Callable[[int], Said]) -> Future[Answer]:
        """Say what ``make`` gives for an id; the future is that of its answer."""
        future: Future[Answer] = Future()
        if self._transport.is_closing():
            future.set_exception(_gone())
        else:
            self._count += 1
            self._asked[self._count] = future
            self.say(make(self._count))
        return future

    def ask_from_thread(self, make: Callable[[int], Said]) -> Answer:
        """``ask``, and wait for the answer. Raises what that tells."""
        asking: Future[Future[Answer]] = Future()
        self._loop.call_soon_threadsafe(lambda: asking.set_result(self.ask(make)))
        answer = asking.result(ANSWER_SECONDS).result(ANSWER_SECONDS)
        if answer.failure is not None:
            raise error_of(answer.failure)
        return answer

    def say_from_thread(self, said: Said) -> None:
        """``say`` from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens any more
            self._loop.call_soon_threadsafe(self.say, said)

    def close(self) -> None:
        self._transport.close()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        while len(received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
            if len(received) < end:
                return
            said = _decode(bytes(received[_LENGTH.size : end]))
            del received[:end]
            if isinstance(said, Answer) and said.id in self._asked:
                self._asked.pop(said.id).set_result(said)
            else:
                self._hear(said)

    def connection_lost(self, error: Exception | None) -> None:
        for future in self._asked.values():
            future.set_exception(_gone())
        self._asked.clear()
        self._end()


class LinkedKeeper:
    """The supervisor's keeper of model processes, as a worker asks it from a thread (a ``Keeping``)."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def start(self, order: Order) -> Address:
        address = self._link.ask_from_thread(lambda number: Start(order, number)).address
        assert address is not None
        return address

    def stop(self, address: Address) -> None:
        self._link.say_from_thread(End(address))


def _gone() -> NotReady:
    return NotReady("the server's supervisor is gone", hint="start the server again")
