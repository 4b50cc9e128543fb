"""A client of HTTP/2 for tests, down to the bytes: a connection without a socket, on a loop that turns when told."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hpack import Decoder, Encoder

from modelyard.errors import ModelyardError
from modelyard.interfaces import Catalog, Codec, Served
from modelyard.messages import Call, Message
from modelyard.serving import frames
from modelyard.serving.application import Application
from modelyard.serving.http2 import Http2Connection
from modelyard.serving.listener import Listener

#: What opens a connection: the preface, and SETTINGS that say nothing.
HELLO = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)

PLAIN = {":method": "POST", ":scheme": "http", ":path": "/echo", ":authority": "here"}
CALL = {**PLAIN, ":path": "/test.Echo/Echo", "te": "trailers", "content-type": "application/grpc"}


def message(body: bytes, flag: int = 0) -> bytes:
    """A message of gRPC with what precedes it."""
    return bytes((flag,)) + len(body).to_bytes(4, "big") + body


class EchoWire:
    """Answers gRPC with what it was asked: at once, with an error, or when the test says so."""

    name = "echo-grpc"
    prefix = "/test.Echo"

    def __init__(self) -> None:
        self.seen: list[Message] = []

    def match(self, method: str, path: str) -> Call | None:
        service, _, name = path.removeprefix("/").rpartition("/")
        return Call(name.lower(), scope="open") if (method, service) == ("POST", "test.Echo") and name != "No" else None

    def codec(self, call: Call, served: Served) -> Codec:
        raise NotImplementedError

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        self.seen.append(message)
        if call.action == "bug":
            raise ValueError("a bug")
        if message.body.startswith(b"refuse "):
            return Message(b"", {"grpc-message": "näin\n100%"}, message.body.decode().split()[1], "application/grpc")
        if message.body.startswith(b"error "):
            return Message(message.body, code="invalid_input", content_type="application/grpc")
        return Message(message.body, content_type="application/grpc")

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        code = error.code if isinstance(error, ModelyardError) else "internal"
        return Message(b"", {"grpc-message": str(error)}, code, "application/grpc")


class PlainWire(EchoWire):
    """The same in plain HTTP."""

    name = "echo"
    prefix = "/echo"

    def match(self, method: str, path: str) -> Call | None:
        return Call("echo", scope="open") if path.startswith("/echo") else None

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        self.seen.append(message)
        return Message(message.body or b"nothing", {"x-more": "yes"}, content_type="text/plain")

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(str(error).encode(), code=getattr(error, "code", "internal"), content_type="text/plain")


class Loop:
    """Calls what it was given in ``turn``, and nothing before."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def call_soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._calls.append((function, arguments))

    call_soon_threadsafe = call_soon

    @property
    def waits(self) -> bool:
        """Whether there is something to call."""
        return bool(self._calls)

    def turn(self) -> None:
        while self._calls:
            function, arguments = self._calls.popleft()
            function(*arguments)


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.writes = 0
        self.is_reading = True
        self.is_closed = False

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.written += data
            self.writes += 1

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed


class Answer:
    """What came over one stream."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, str]] = []
        self.body = b""
        self.has_ended = False
        self.reset: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        return self.blocks[0]

    @property
    def trailers(self) -> dict[str, str]:
        return self.blocks[-1]

    @property
    def messages(self) -> list[bytes]:
        found, rest = [], self.body
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


class Peer:
    """A client and, behind it, a connection of ours."""

    def __init__(self, hello: bytes = HELLO, **options: Any) -> None:
        self.loop = Loop()
        self.grpc, self.plain = EchoWire(), PlainWire()
        options = {"log_stream": io.StringIO(), "wires": [self.plain, self.grpc], **options}
        self.application = Application(["m"], source=lambda: None, **options)  # type: ignore[arg-type,return-value]
        self.listener = Listener(self.application, self.loop, lost=lambda: None)  # type: ignore[arg-type]
        self.transport = Transport()
        self.connection = Http2Connection(self.listener)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.answers: dict[int, Answer] = {}
        self.others: list[tuple[int, int, int, bytes]] = []
        self._encoder, self._decoder = Encoder(), Decoder()
        self._read = 0
        self._number = -1
        self.send(hello)

    def send(self, data: bytes) -> None:
        """Let bytes arrive, and the loop turn."""
        if self.transport.is_reading and not self.transport.is_closed:
            self.connection.data_received(data)
        self.loop.turn()
        self.listen()

    def block(self, fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        encoded: bytes = self._encoder.encode(list(pairs), huffman=False)
        return encoded

    def next(self) -> int:
        """The number of a new stream."""
        self._number += 2
        return self._number

    def open(self, fields: Mapping[str, str] = CALL, *, end: bool = False) -> int:
        """Open a stream; its number."""
        number = self.next()
        self.send(frames.headers(number, self.block(fields), frames.END_STREAM if end else 0))
        return number

    def data(self, number: int, data: bytes, *, end: bool = False) -> None:
        self.send(frames.frame(frames.DATA, frames.END_STREAM if end else 0, number, data))

    def ask(self, body: bytes, fields: Mapping[str, str] = CALL) -> Answer:
        """A whole request: what came of it so far."""
        number = self.open(fields)
        self.data(number, body, end=True)
        return self.answers.setdefault(number, Answer())

    @contextmanager
    def beside(self) -> Iterator[list[str]]:
        """Hold back what runs in threads until ``settle``; the names of the threads in which it then ran."""
        names: list[str] = []
        real, held = self.application.later, threading.Event()

        def later(function: Callable[[], None]) -> None:
            def run() -> None:
                held.wait()
                names.append(threading.current_thread().name)
                function()

            real(run)

        self.application.later = later  # type: ignore[method-assign]
        self._held_back = held
        try:
            yield names
        finally:
            held.set()
            self.application.later = real  # type: ignore[method-assign]

    def settle(self, until: Callable[[], bool]) -> None:
        """Let threads run, and turn the loop, until something has come true."""
        self._held_back.set()
        deadline = time.monotonic() + 60
        while not until():
            assert time.monotonic() < deadline, "it never comes true"
            time.sleep(0.001)
            self.loop.turn()
            self.listen()

    def listen(self) -> None:
        """Read what our side has written."""
        written = self.transport.written
        while len(written) - self._read >= 9:
            high, low, kind, flags, number = frames.FRAME.unpack_from(written, self._read)
            size = high << 8 | low
            start = self._read + 9
            assert len(written) >= start + size, "frames are written whole"
            payload = bytes(written[start : start + size])
            self._read = start + size
            answer = self.answers.setdefault(number, Answer()) if number else None
            if answer is None or kind not in (frames.DATA, frames.HEADERS, frames.RST_STREAM):
                self.others.append((kind, flags, number, payload))
                continue
            assert not answer.has_ended or kind == frames.RST_STREAM, "nothing comes after the end"
            if kind == frames.RST_STREAM:
                answer.reset = int.from_bytes(payload, "big")
            elif kind == frames.DATA:
                answer.body += payload
            else:
                assert flags & frames.END_HEADERS
                answer.blocks.append(dict(self._decoder.decode(payload)))
            answer.has_ended |= kind != frames.RST_STREAM and bool(flags & frames.END_STREAM)

    @property
    def goaway(self) -> tuple[int, str] | None:
        """The code and the reason of the last farewell."""
        for kind, _, _, payload in reversed(self.others):
            if kind == frames.GOAWAY:
                return int.from_bytes(payload[4:8], "big"), payload[8:].decode()
        return None

    def updates(self, number: int = 0) -> int:
        """Bytes that our side let the client send beyond what it may from the start."""
        return sum(
            int.from_bytes(payload, "big")
            for kind, _, stream, payload in self.others
            if kind == frames.WINDOW_UPDATE and stream == number
        )
