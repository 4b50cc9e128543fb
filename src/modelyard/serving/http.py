"""The HTTP/1.1 listener: an ``asyncio.Protocol`` on llhttp, without a framework between the socket and the engine.

Requests of one connection are answered in their order, however they finish. A head that has been seen before is
not parsed again: heads are remembered by their bytes, with what they came to mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httptools
import msgspec

from modelyard.errors import ModelyardError
from modelyard.messages import Message
from modelyard.serving.calls import Exchange
from modelyard.serving.compression import COMPRESSED_FROM, COMPRESSED_ON_LOOP, coding, compress
from modelyard.serving.frames import PREFACE
from modelyard.serving.limits import (
    BUSY_SECONDS,
    HEAD_SECONDS,
    IDLE_SECONDS,
    LINGER_SECONDS,
    MOST_HEAD_BYTES,
    MOST_HEADERS,
    STUCK_SECONDS,
    BadRequest,
    ExpectationFailed,
    TooSlow,
    head_too_large,
    is_request_id,
    is_slow_body,
)
from modelyard.serving.parted import part
from modelyard.serving.patience import seconds_of
from modelyard.serving.routing import Endpoint
from modelyard.serving.tracing import begin_trace, trace_for

if TYPE_CHECKING:
    from modelyard.serving.listener import Listener

#: Unanswered requests of one connection at which no more is read from it, and at which reading goes on.
MOST_UNANSWERED = 32
FEW_UNANSWERED = 8

#: A request that is refused by its head has at most so much of a body read and thrown away; else its connection ends.
MOST_DISCARDED = 65_536

#: Bytes that are parsed before it is asked whether the connection has had enough.
SLICE = 16_384

_JSON = "application/json"

#: The end of an answer's head by the length of its body.
MOST_LENGTHS = 1024
LENGTHS = tuple(b"\r\ncontent-length: %d\r\n\r\n" % size for size in range(MOST_LENGTHS))


class Head(msgspec.Struct, gc=False):
    """What a request's head came to mean."""

    method: str
    target: str
    headers: dict[str, str]
    #: Bytes of the body that follow; -1 where only the body itself tells.
    length: int
    keep_alive: bool
    #: HTTP/1.0, whose clients must be told that the connection stays open.
    is_old: bool
    #: Neither HEAD nor HTTP/1.0 nor the last request of its connection: the answer needs nothing special.
    is_plain: bool
    endpoint: Endpoint
    #: The caller's own id for the request, or "".
    request_id: str
    #: Seconds that the caller waits.
    seconds: float = inf
    #: In which coding the caller takes large answers: ``gzip``, ``deflate`` or "".
    coding: str = ""


class HttpExchange(Exchange, gc=False, kw_only=True, eq=False):
    """A request that came over a connection, whose answer is written in its turn."""

    head: Head
    connection: Connection
    answered: bytes | None = None

    def answer(self, message: Message) -> None:
        connection = self.connection
        listener = connection.listener
        if (
            self.head.is_plain
            and listener.is_plain
            and message.code == "ok"
            and (not self.head.coding or len(message.body) < COMPRESSED_FROM)
        ):
            is_usual = not message.headers and message.content_type == _JSON
            start = listener.plain if is_usual else listener.start_of(message)
            body = message.body
            size = len(body)
            length = LENGTHS[size] if size < MOST_LENGTHS else b"\r\ncontent-length: %d\r\n\r\n" % size
            if self.trace is not None:
                length = b"\r\ntraceresponse: " + self.trace.response.encode() + length
            data = b"".join((start, self.id.encode(), length, body))
            if listener.notes_all:
                listener.note(self, message)
        else:
            if self.head.coding and self._is_worth_compressing(message):
                if len(message.body) > COMPRESSED_ON_LOOP:
                    listener.compress_beside(self, message)
                    return
                message = compress(message, self.head.coding)
            data = listener.render(self, message)
        unanswered = connection.unanswered
        if unanswered and unanswered[0] is self:
            unanswered.popleft()
            connection.transport.write(data)
            if unanswered or connection.needs_care or not self.head.keep_alive:
                connection.answered(self)
        else:
            self.answered = data

    @staticmethod
    def _is_worth_compressing(message: Message) -> bool:
        return len(message.body) >= COMPRESSED_FROM and "content-encoding" not in message.headers

    @property
    def transport(self) -> Any:
        """Of the connection that it came over."""
        return self.connection.transport

    @property
    def is_gone(self) -> bool:
        return bool(self.connection.transport.is_closing())

    def answer_from_thread(self, message: Message) -> None:
        self.connection.listener.call_from_thread(lambda: self.answer(message))


class Connection(asyncio.Protocol):
    """One connection. Everything that most requests do not need is kept out of ``data_received``."""

    __slots__ = (
        "_chunks", "_completed", "_expects", "_fault", "_head_bytes", "_headers", "_heads", "_is_refused", "_last_head",
        "_lingers", "_opening", "_parser", "_reading_paused", "_rest", "_size", "_told", "_url", "_writing_paused",
        "began", "in_body", "is_between", "is_closing", "last", "listener", "needs_care", "owes_continue", "transport",
        "unanswered",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        #: Heads that are known by heart.
        self._heads = listener.heads
        self.transport: Any = None
        self.unanswered: deque[HttpExchange] = deque()
        #: No request is partly read, and none but whole requests may come.
        self.is_between = True
        #: The answer in hand is the last.
        self.is_closing = False
        #: Something must be done after the next answer: close, read on, say ``100 Continue``.
        self.needs_care = False
        self.owes_continue = False
        #: When the request that is being read began, and when the last one was complete.
        self.began = self.last = perf_counter()
        self.in_body = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._reading_paused = self._writing_paused = False
        self._fault: ModelyardError | None = None
        self._completed = 0
        self._last_head: Head | None = None
        #: What has come while it may still become the preface of HTTP/2; None once it cannot.
        self._opening: bytes | None = b""
        #: All is written, and the client may read it before the connection is closed.
        self._lingers = False
        #: What was received but waits until earlier requests are answered.
        self._rest = b""
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        self.in_body = False
        #: The client waits to be asked for the body.
        self._expects = False
        #: Whether the request was refused by its head, and its body is thrown away; None until that is looked at.
        self._is_refused: bool | None = None
        #: The headers, once they were read.
        self._told: dict[str, str] | None = None

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.listener.connections.add(self)
        if self.listener.is_admin(transport):
            self._heads = {}  # they mean something else there, and are few

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closing = True
        self.is_between = False
        self.unanswered.clear()
        self._parser = None  # it knows us: without this, both would wait for the collector of garbage
        self.listener.connections.discard(self)
        self.listener.note_lost()

    def data_received(self, data: bytes) -> None:
        if self.is_between:
            end = data.find(b"\r\n\r\n") + 4
            head = self._heads.get(data[:end])
            if head is not None and len(data) == end + head.length:
                listener = self.listener
                self.last = received = perf_counter()
                listener.count = count = listener.count + 1
                exchange = HttpExchange(
                    id=head.request_id or listener.id_prefix + hex(count)[2:],
                    received=received,
                    deadline=received + head.seconds,
                    trace=begin_trace(listener.traces) if listener.traces else None,
                    endpoint=head.endpoint,
                    head=head,
                    connection=self,
                )
                self.unanswered.append(exchange)
                head.endpoint.accept(exchange, data[end:], head.headers)
                if len(self.unanswered) >= MOST_UNANSWERED:
                    self._pause_reading()
                return
            if head is None and end > 4 and self._accept_parted(data, end):
                return
        if not self.is_closing:
            self._feed_slices(data)

    def _accept_parted(self, data: bytes, end: int) -> bool:
        """Take a whole request whose head is known but for the ids of its request and its trace."""
        parted = part(data[:end])
        if parted is None:
            return False
        text, told = parted
        head = self._heads.get(text)
        if head is None or len(data) != end + head.length:
            return False
        self.last = perf_counter()
        self._accept(head, data[end:], {**head.headers, **told}, told.get("x-request-id", ""))
        if len(self.unanswered) >= MOST_UNANSWERED:
            self._pause_reading()
        return True

    def _accept(self, head: Head, body: bytes, headers: dict[str, str], given: str) -> None:
        """Pass a request on; ``given`` is the caller's id for it."""
        listener = self.listener
        exchange = HttpExchange(
            id=given if given and is_request_id(given) else listener.new_id(),
            received=self.last,
            deadline=self.last + head.seconds,
            trace=trace_for(headers, listener.traces),
            endpoint=head.endpoint,
            head=head,
            connection=self,
        )
        self.unanswered.append(exchange)
        encoding = headers.get("content-encoding")
        if encoding and not head.endpoint.is_refusing:
            listener.accept_encoded(exchange, body, encoding)
        else:
            head.endpoint.accept(exchange, body, headers)

    def eof_received(self) -> bool:
        """A client that has said all may still want its answers; one that stopped half-way gets none."""
        if self.unanswered:
            self.is_closing = self.needs_care = True
            return True
        return False

    def pause_writing(self) -> None:
        self._writing_paused = True
        self.last = perf_counter()
        self._pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._resume_reading()

    # Reading what is not known by heart.

    def _feed_slices(self, data: bytes) -> None:
        if self._opening is not None:
            data = self._opening + data
            if PREFACE.startswith(data[: len(PREFACE)]) and not self.unanswered:
                self._begin_http2(data)
                return
            self._opening = None
            self.is_between = True
        if len(data) <= SLICE:
            self._feed(data)
        else:
            for start in range(0, len(data), SLICE):
                if self._has_enough:
                    self._rest = data[start:]
                    break
                if self.is_closing:
                    return
                self._feed(data[start : start + SLICE])
        if self._has_enough:
            self._pause_reading()

    def _begin_http2(self, data: bytes) -> None:
        """Hand the connection over once the preface of HTTP/2 is whole."""
        if len(data) < len(PREFACE):
            if self.is_between:
                self.is_between = False
                self.began = perf_counter()
            self._opening = data
            return
        from modelyard.serving.http2 import Http2Connection  # a server that is only asked in HTTP/1.1 needs none of it

        self.listener.connections.discard(self)
        successor = Http2Connection(self.listener)
        self.transport.set_protocol(successor)
        successor.connection_made(self.transport)
        successor.data_received(data)

    @property
    def _has_enough(self) -> bool:
        return self._writing_paused or len(self.unanswered) >= MOST_UNANSWERED

    def _feed(self, data: bytes) -> None:
        fresh = self.is_between
        if fresh:
            self.began = perf_counter()
        self._completed = 0
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._fault is None and not self.is_closing:
                self._feed_without_upgrade(data[upgrade.args[0] :])
                return
        except httptools.HttpParserError as error:
            self._fault = self._fault or BadRequest(f"not a proper HTTP request: {error}")
        if self._fault is None and not self.in_body and self._head_bytes > MOST_HEAD_BYTES and not self.is_between:
            self._fault = head_too_large()
        if self._fault is not None:
            self.give_up(self._fault)
            return
        if self.in_body and self._is_refused is None and not self.is_closing:
            self._judge()
        head, self._last_head = self._last_head, None  # an idle connection holds no version that it once asked
        if fresh and self._completed == 1 and self.is_between and head is not None:
            end = data.find(b"\r\n\r\n") + 4
            if head.length >= 0 and len(data) == end + head.length and self._heads is self.listener.heads:
                self.listener.remember(data[:end], head)

    def _judge(self) -> None:
        """Look at a head whose body is still to come: nobody sends that only to hear that it was for nothing."""
        headers = self._told = self._read_headers()
        endpoint = self._find(headers)
        self._is_refused = endpoint.is_refusing
        if self._is_refused:
            length = MOST_DISCARDED + 1 if "transfer-encoding" in headers else int(headers["content-length"])
            head = self._read_head(headers, endpoint)
            # Whoever waited to be asked may send the body or not: where the next request begins, nobody knows.
            if self._expects or length > MOST_DISCARDED:
                head.keep_alive = head.is_plain = False
                self.is_closing = True
            head.length = -1
            self.last = perf_counter()
            self._accept(head, b"", headers, head.request_id)
        elif self._expects:
            if self.unanswered:
                self.owes_continue = self.needs_care = True
            else:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _feed_without_upgrade(self, rest: bytes) -> None:
        """Read a request as if no upgrade had been asked for: the parser takes what follows its head for another
        protocol, but it is the body, and what a client hides there must not become a request.
        """
        lines = [self._parser.get_method() + b" " + self._url + b" HTTP/" + self._parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self._headers if name.lower() != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self._reset()
        self.is_between = True
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    @property
    def _is_upgrade(self) -> bool:
        return bool(self._parser.should_upgrade()) and self._parser.get_method() != b"CONNECT"

    def on_message_begin(self) -> None:
        self.is_between = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:  # trailers are of no interest
            self._headers.append((name, value))
            if len(self._headers) > MOST_HEADERS:
                self._fault = self._fault or head_too_large()

    def on_headers_complete(self) -> None:
        self.in_body = True
        if self._fault is not None or self.is_closing or self._is_upgrade:
            return
        if sum(len(n) + len(v) for n, v in self._headers) + len(self._url) > MOST_HEAD_BYTES:
            self._fault = head_too_large()
            return
        length, expects, chunked, hosts = 0, b"", False, 0
        for name, value in self._headers:
            lower = name.lower()
            if lower == b"content-length":
                length = int(value)
            elif lower == b"transfer-encoding":
                chunked = True
            elif lower == b"expect":
                expects = value.lower()
            elif lower == b"host":
                hosts += 1
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._fault = BadRequest(f"no such version of HTTP here: {version}")
        elif hosts > 1 or (not hosts and version == "1.1"):
            self._fault = BadRequest(f"a request needs one Host header: it has {hosts or 'none'}")
        elif chunked and version == "1.0":
            self._fault = BadRequest("HTTP/1.0 has no Transfer-Encoding")
        elif length > self.listener.max_body:
            self._fault = self.listener.too_large()
        elif expects and expects != b"100-continue":
            self._fault = ExpectationFailed(f"no such expectation: {expects.decode('latin-1')}")
        else:
            self._expects = bool(expects and (length or chunked) and version != "1.0")

    def on_body(self, body: bytes) -> None:
        if self._fault is None and not self.is_closing:
            self._size += len(body)
            if self._size > self.listener.max_body:
                self._fault = self.listener.too_large()
                self._chunks.clear()
            elif not self._is_refused:
                self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._fault is not None or self.is_closing or self._is_upgrade:
            return
        self.is_between = True
        self.last = perf_counter()
        if self._is_refused:
            self._reset()
            return
        self._completed += 1
        headers = self._told if self._told is not None else self._read_headers()
        head = self._read_head(headers, self._find(headers))
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._reset()
        self._last_head = head
        if not head.keep_alive:
            self.is_closing = True
            self.is_between = False
        self._accept(head, body, headers, head.request_id)

    def _read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for name, value in self._headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers

    def _find(self, headers: dict[str, str]) -> Endpoint:
        method, target = self._parser.get_method().decode("latin-1"), self._url.decode("latin-1")
        listener = self.listener
        return listener.application.endpoint(method, target, headers, is_admin_port=listener.is_admin(self.transport))

    def _read_head(self, headers: dict[str, str], endpoint: Endpoint) -> Head:
        parser = self._parser
        method = parser.get_method().decode("latin-1")
        target = self._url.decode("latin-1")
        is_old = parser.get_http_version() == "1.0"
        keep_alive = bool(parser.should_keep_alive()) and method != "CONNECT"
        known_by_heart = headers.keys().isdisjoint(("transfer-encoding", "expect", "content-encoding"))
        given = headers.get("x-request-id", "")
        return Head(
            method,
            target,
            headers,
            self._size if known_by_heart else -1,
            keep_alive,
            is_old,
            keep_alive and not is_old and method != "HEAD",
            endpoint,
            given if is_request_id(given) else "",
            seconds_of(headers, self.listener.request_seconds),
            coding(headers["accept-encoding"]) if "accept-encoding" in headers else "",
        )

    # Giving up, closing, going on.

    def give_up(self, error: ModelyardError) -> None:
        """Answer that the request in hand cannot be read, after those before it, and close."""
        if self.is_closing:
            return
        if self._is_refused:  # it has its answer
            self.is_closing = self.needs_care = True
            if not self.unanswered:
                self.transport.close()
            return
        listener = self.listener
        listener.metrics.refused[error.code] += 1
        path = self._url.decode("latin-1")
        endpoint = listener.application.refusing(path, error)
        head = Head("POST", path, {}, -1, False, False, False, endpoint, "")
        exchange = HttpExchange(
            id=listener.new_id(), received=perf_counter(), endpoint=endpoint, head=head, connection=self
        )
        self.is_closing = True
        self.is_between = False
        self._fault = None
        self.unanswered.append(exchange)
        exchange.answer(endpoint.refuse(exchange, error))

    def answered(self, exchange: HttpExchange) -> None:
        """After an answer was written: write those that were ready behind it, then close or read on."""
        unanswered = self.unanswered
        last = exchange
        while unanswered and unanswered[0].answered is not None:
            last = unanswered.popleft()
            self.transport.write(last.answered)
        if not last.head.keep_alive or (self.is_closing and not unanswered):
            self._close(last)
            return
        if self.owes_continue and not unanswered:
            self.owes_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._resume_reading()
        self.needs_care = self._reading_paused or self.owes_continue or self.is_closing or bool(unanswered)

    def ends_with(self, exchange: HttpExchange) -> bool:
        """Whether ``exchange`` is the last that has come. If so it stays the last: nothing more is read."""
        if self.unanswered and self.unanswered[-1] is not exchange:
            return False
        self.is_closing = self.needs_care = True
        self.is_between = False
        return True

    def _close(self, last: HttpExchange) -> None:
        """Close once all is written. Where the client may still be sending, first let it read the answer."""
        self.is_closing = True
        self.is_between = False
        self.unanswered.clear()
        if last.head.length < 0 and self.transport.can_write_eof():
            self.transport.write_eof()
            self.began = perf_counter()
            self._lingers = True
        else:
            self.transport.close()

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.needs_care = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if (
            not self._reading_paused
            or self._writing_paused
            or len(self.unanswered) > FEW_UNANSWERED
            or self.transport.is_closing()
        ):
            return
        rest, self._rest = self._rest, b""
        if rest:
            self._feed_slices(rest)
        if self._reading_paused and not self._rest and not self._has_enough and not self.is_closing:
            self._reading_paused = False
            self.transport.resume_reading()

    # Looked after by the listener.

    def forget(self) -> None:
        """Nothing is remembered here: the listener knows the heads of all connections."""

    @property
    def is_stuck(self) -> bool:
        """The client does not read its answers."""
        return self._writing_paused

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        return len(self.unanswered)

    def drain(self, now: float) -> None:
        """End once what was asked so far is answered. Called repeatedly.

        A client that was busy a moment ago may have its next request under way, and is told with that answer.
        """
        if self.is_between and not self.unanswered and now - self.last > BUSY_SECONDS:
            self.transport.close()

    def tend(self, now: float) -> None:
        """Once a second: end a connection that idles, dawdles or never reads."""
        waited = now - self.began
        if self._lingers:
            if waited > LINGER_SECONDS:
                self.transport.abort()
        elif self.is_stuck:
            if now - self.last > STUCK_SECONDS:
                self.transport.abort()
        elif self.is_between:
            if not self.unanswered and now - self.last > IDLE_SECONDS:
                self.transport.close()
        elif not self.is_closing and (is_slow_body(waited, self._size) if self.in_body else waited > HEAD_SECONDS):
            self.give_up(TooSlow(f"the request was not complete after {waited:.0f} seconds"))
