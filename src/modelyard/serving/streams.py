"""Streams of HTTP/2: what they share, and those that are plain HTTP."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.errors import ModelyardError
from modelyard.messages import Message
from modelyard.serving import frames
from modelyard.serving.calls import Exchange
from modelyard.serving.compression import COMPRESSED_FROM, COMPRESSED_ON_LOOP, compress
from modelyard.serving.frames import DATA, END_STREAM, PROTOCOL_ERROR, StreamFault
from modelyard.serving.limits import TooSlow, is_slow_body
from modelyard.serving.tracing import trace_for

if TYPE_CHECKING:
    from modelyard.serving.heads import Head
    from modelyard.serving.http2 import Http2Connection

#: Bytes that a client may send ahead in one stream.
STREAM_WINDOW = 1 << 20


class Stream:
    """A stream from its first header block until both sides have ended it. The kinds of it ``feed``."""

    __slots__ = (
        "backlog", "began", "buffer", "connection", "credit", "has_ended", "head", "is_over", "number", "tail",
        "window",
    )  # fmt: skip

    def __init__(self, connection: Http2Connection, number: int, head: Head) -> None:
        self.connection = connection
        self.number = number
        self.head = head
        #: Bytes that we may send, and that the client may.
        self.window = connection.outbox.first_window
        self.credit = STREAM_WINDOW
        #: What could not be sent yet, and the frame that ends the stream after it.
        self.backlog = b""  # type: bytes | bytearray
        self.tail = b""
        #: What has come of a message that is not whole yet, and since when.
        self.buffer = bytearray()
        self.began = connection.last
        #: The client has said all.
        self.has_ended = False
        #: Everything was answered, or nobody waits for it any more.
        self.is_over = False

    def feed(self, data: bytes, ended: bool) -> None:
        """Take in what came, maybe the last of it. Raises StreamFault."""
        raise NotImplementedError

    @property
    def in_flight(self) -> int:
        """Requests of the stream that are not answered."""
        raise NotImplementedError

    @property
    def is_partial(self) -> bool:
        """Whether a message has begun that is not whole yet."""
        raise NotImplementedError

    def give_up(self, error: ModelyardError) -> None:
        """Answer that what comes cannot be read, and end the stream."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Nobody waits for the answers any more."""
        self.connection.note_answered(self.in_flight)
        self.is_over = True
        self.connection.let_go(self)

    def part(self) -> None:
        """The client says nothing more, in no stream."""
        if not self.has_ended:
            self.cancel()

    def tend(self, now: float) -> None:
        """Give up on a message that comes too slowly."""
        waited = now - self.began
        if self.is_partial and not self.is_over and is_slow_body(waited, len(self.buffer)):
            self.give_up(TooSlow(f"the request was not complete after {waited:.0f} seconds"))


class StreamExchange(Exchange, gc=False, kw_only=True, eq=False):
    """A request that came over a stream."""

    stream: Stream

    @property
    def head(self) -> Head:
        """What the headers of the stream came to mean."""
        return self.stream.head

    @property
    def transport(self) -> Any:
        """Of the connection that it came over."""
        return self.stream.connection.transport

    @property
    def is_gone(self) -> bool:
        return self.stream.is_over

    def answer_from_thread(self, message: Message) -> None:
        self.stream.connection.listener.call_from_thread(lambda: self.answer(message))


class PlainStream(Stream):
    """A request of plain HTTP and its answer."""

    __slots__ = ("_is_asked",)

    def __init__(self, connection: Http2Connection, number: int, head: Head) -> None:
        super().__init__(connection, number, head)
        #: The request is whole. Its exchange knows us; if we knew it, both would stay in memory for ever.
        self._is_asked = False
        if head.headers.get("expect", "").lower() == "100-continue":
            connection.outbox.write(frames.headers(number, connection.outbox.block(b"\x08\x03100")))

    @property
    def in_flight(self) -> int:
        return int(self._is_asked and not self.is_over)

    @property
    def is_partial(self) -> bool:
        return not self._is_asked

    def feed(self, data: bytes, ended: bool) -> None:
        connection, head, buffer = self.connection, self.head, self.buffer
        listener = connection.listener
        if max(head.length, len(buffer) + len(data)) > listener.max_body:
            self.give_up(listener.too_large())
            return
        if buffer or not ended:
            buffer += data
            connection.hold(len(data))
            if not ended:
                return
            data = bytes(buffer)
            connection.hold(-len(data))
            buffer.clear()
        if head.length >= 0 and head.length != len(data):
            raise StreamFault(PROTOCOL_ERROR, f"content-length is {head.length}, but {len(data)} bytes came")
        received = connection.last
        exchange = PlainExchange(
            id=head.request_id or listener.new_id(),
            received=received,
            endpoint=head.endpoint,
            deadline=received + head.seconds,
            trace=trace_for(head.headers, listener.traces),
            stream=self,
        )
        self._is_asked = True
        connection.unanswered += 1
        encoding = head.headers.get("content-encoding")
        if encoding:
            listener.accept_encoded(exchange, data, encoding)
        else:
            head.endpoint.accept(exchange, data, head.headers)

    def give_up(self, error: ModelyardError) -> None:
        listener = self.connection.listener
        listener.metrics.refused[error.code] += 1
        endpoint = listener.application.refusing(self.head.target, error)
        exchange = PlainExchange(id=listener.new_id(), received=perf_counter(), endpoint=endpoint, stream=self)
        self._is_asked = True
        self.connection.unanswered += 1
        exchange.answer(endpoint.refuse(exchange, error))


class PlainExchange(StreamExchange, gc=False, kw_only=True, eq=False):
    """A request of plain HTTP that came over a stream."""

    def answer(self, message: Message) -> None:
        stream = self.stream
        if stream.is_over:
            return
        head, connection = stream.head, stream.connection
        listener = connection.listener
        if head.coding and len(message.body) >= COMPRESSED_FROM and "content-encoding" not in message.headers:
            if len(message.body) > COMPRESSED_ON_LOOP:
                listener.compress_beside(self, message)
                return
            message = compress(message, head.coding)
        connection.note_answered()
        size = len(message.body)
        status, fields = listener.describe(self, message)
        fields += [("server", "modelyard"), ("date", listener.date)]
        block = connection.outbox.block(frames.status(status) + frames.fields(fields))
        if head.method == "HEAD" or not size:
            connection.outbox.send(stream, b"", b"", b"", frames.headers(stream.number, block, END_STREAM))
        else:
            end = frames.frame(DATA, END_STREAM, stream.number)
            connection.outbox.send(stream, frames.headers(stream.number, block), b"", message.body, end)
