"""What all connections of a server share: endpoints, remembered heads, templates of answers, time limits."""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from time import perf_counter, time
from typing import TYPE_CHECKING
from wsgiref.handlers import format_date_time

import msgspec

from modelyard.errors import ModelyardError
from modelyard.messages import Message
from modelyard.serving.access import AccessLog
from modelyard.serving.compression import INFLATED_ON_LOOP, compress, inflate
from modelyard.serving.http import Connection, Head, HttpExchange
from modelyard.serving.limits import TooLarge
from modelyard.serving.parted import part

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelyard.serving.application import Application
    from modelyard.serving.http2 import Http2Connection
    from modelyard.serving.streams import PlainExchange, StreamExchange
    from modelyard.serving.watches import Watches

#: Heads remembered, and the largest of them.
MOST_HEADS = 1024
LARGEST_HEAD = 4096

STATUS = {
    "ok": 200,
    "invalid_input": 400,
    "bad_request": 400,
    "unauthenticated": 401,
    "refused": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "conflict": 409,
    "too_large": 413,
    "unsupported": 415,
    "expectation_failed": 417,
    "rate_limited": 429,
    "head_too_large": 431,
    "internal": 500,
    "model_failed": 500,
    "bad_bundle": 500,
    "missing_dependency": 501,
    "unimplemented": 501,
    "remote_failed": 502,
    "not_ready": 503,
    "overloaded": 503,
    "deadline_passed": 504,
    "no_room": 507,
}

_LINES = {status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() for status in set(STATUS.values())}


class Listener:
    """Shared by the connections of one server. Used on the loop's thread only."""

    def __init__(self, application: Application, loop: asyncio.AbstractEventLoop, *, lost: Callable[[], None]) -> None:
        self.application = application
        self.metrics = application.metrics
        self.log = application.log
        chosen = application.settings
        self.max_body: int = chosen.max_body
        #: Seconds that a request may take where its caller says nothing.
        self.request_seconds: float = chosen.request_seconds
        #: The share of requests without a trace for which one begins here.
        self.traces: float = chosen.traces
        self.connections: set[Connection | Http2Connection] = set()
        #: Calls that are answered again and again, once there was one.
        self.watches: Watches | None = None
        #: Heads by their bytes, as the main port understands them.
        self.heads: dict[bytes, Head] = {}
        self._admin_port: int = chosen.admin_port
        self._seen_once: set[int] = set()
        self.id_prefix = os.urandom(6).hex() + "-"
        self.count = 0
        self._access = AccessLog(self.log, chosen.access_log, tells_clients=chosen.log_clients)
        #: Whether every answer is logged.
        self.notes_all = self._access.is_whole
        #: No answer needs more than the plain template: nothing is being closed, and no pages are told of.
        self.is_plain = application.origins is None
        self.note_lost = lost
        self.is_draining = False
        #: Runs a function in the next turn of the loop.
        self.call_soon = loop.call_soon
        #: Runs a function on the loop's thread.
        self.call_from_thread = loop.call_soon_threadsafe
        application.on_change.append(self.forget)
        application.connections = lambda: len(self.connections)
        self._tell_time()

    def _tell_time(self) -> None:
        self.date = format_date_time(time())
        self._stamp = f"server: modelyard\r\ndate: {self.date}\r\n".encode()
        #: How most answers begin; the id, the length and the body follow.
        self.plain = _LINES[200] + self._stamp + b"content-type: application/json\r\nx-request-id: "

    def forget(self) -> None:
        """Find every endpoint anew."""
        self.heads.clear()
        for connection in self.connections:
            connection.forget()
        if self.watches is not None:
            self.watches.look()

    def is_admin(self, transport: asyncio.BaseTransport) -> bool:
        """Whether a connection came in at the admin port."""
        if not self._admin_port:
            return False
        here = transport.get_extra_info("sockname")
        return bool(here and here[1] == self._admin_port)

    def new_id(self) -> str:
        """An id for a request: unique to this process, then counted."""
        self.count += 1
        return f"{self.id_prefix}{self.count:x}"

    def remember(self, text: bytes, head: Head) -> None:
        """Know a head by heart when it comes the second time; one that differs each time never takes room."""
        parted = part(text)
        if parted is None:
            self._remember(text, head)
            return
        bare, told = parted
        headers = {name: value for name, value in head.headers.items() if name not in told}
        self._remember(bare, msgspec.structs.replace(head, headers=headers, request_id=""))

    def _remember(self, text: bytes, head: Head) -> None:
        if len(text) > LARGEST_HEAD:
            return
        mark = hash(text)
        if mark not in self._seen_once:
            if len(self._seen_once) >= 4 * MOST_HEADS:
                self._seen_once.clear()
            self._seen_once.add(mark)
            return
        if len(self.heads) >= MOST_HEADS:
            self.heads.clear()
        self.heads[text] = head

    def start_of(self, message: Message) -> bytes:
        """``plain`` for an answer of another type, or one that has headers of its own."""
        lines = [f"content-type: {message.content_type}\r\n"]
        lines += [f"{name}: {' '.join(value.splitlines())}\r\n" for name, value in message.headers.items()]
        return b"".join((_LINES[200], self._stamp, "".join(lines).encode("latin-1", "replace"), b"x-request-id: "))

    def render(self, exchange: HttpExchange, message: Message) -> bytes:
        """The bytes of an answer, of any kind."""
        head = exchange.head
        is_last = not head.keep_alive or (self.is_draining and exchange.connection.ends_with(exchange))
        status, fields = self.describe(exchange, message)
        lines = [_LINES[status], self._stamp]
        lines += [f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in fields]
        if is_last:
            lines.append(b"connection: close\r\n")
        elif head.is_old:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        if head.method != "HEAD":
            lines.append(message.body)
        return b"".join(lines)

    def describe(self, exchange: HttpExchange | StreamExchange, message: Message) -> tuple[int, list[tuple[str, str]]]:
        """Status and headers of an answer, in any version of HTTP; the answer is logged."""
        status = STATUS.get(message.code, 500)
        fields = [("content-type", message.content_type), ("x-request-id", exchange.id)]
        fields.append(("content-length", str(len(message.body))))
        if exchange.trace is not None:
            fields.append(("traceresponse", exchange.trace.response))
        fields += [(name, " ".join(value.splitlines())) for name, value in message.headers.items()]
        if status in (429, 503) and "retry-after" not in message.headers:
            fields.append(("retry-after", "1"))
        if self.application.origins is not None:
            fields += self.application.origins.headers(exchange.head.headers)
        self.note(exchange, message)
        return status, fields

    def note(self, exchange: HttpExchange | StreamExchange, message: Message) -> None:
        """Write an answer into the log, if it is one of those that are logged."""
        self._access.note(exchange, message, STATUS.get(message.code, 500))

    def inflate(self, body: bytes, encoding: str, then: Callable[[bytes | ModelyardError], None]) -> bool:
        """Hand a body on without its encoding, or what is wrong with it. A large one is inflated in a thread and handed
        on later; returns whether it was handed on at once.
        """

        def work() -> bytes | ModelyardError:
            try:
                plain = inflate(body, encoding, self.max_body)
            except ModelyardError as error:
                return error
            return self.too_large() if plain is None else plain

        if len(body) > INFLATED_ON_LOOP:

            def beside() -> None:
                self.call_from_thread(then, work())

            self.application.later(beside)
            return False
        then(work())
        return True

    def accept_encoded(self, exchange: HttpExchange | PlainExchange, body: bytes, encoding: str) -> None:
        """Pass a request on once its body is inflated."""

        def accept(plain: bytes | ModelyardError) -> None:
            head = exchange.head
            endpoint = head.endpoint
            if isinstance(plain, ModelyardError):
                exchange.endpoint = endpoint = self.application.refusing(head.target, plain)
                plain = b""
            endpoint.accept(exchange, plain, head.headers)

        self.inflate(body, encoding, accept)

    def compress_beside(self, exchange: HttpExchange | PlainExchange, message: Message) -> None:
        """Compress a large answer in a thread, and then send it."""

        def work() -> None:
            exchange.answer_from_thread(compress(message, exchange.head.coding))

        self.application.later(work)

    def too_large(self) -> TooLarge:
        """What to tell a client whose body is larger than we accept."""
        hint = "send fewer rows at once, or set MODELYARD_MAX_BODY for the server"
        return TooLarge(f"the body is larger than {self.max_body} bytes", hint=hint)

    def drain(self) -> None:
        """Connections end once what they asked so far is answered; those that idle are closed. Called repeatedly."""
        self.is_draining = True
        self.is_plain = False
        if self.watches is not None:
            self.watches.end()
        now = perf_counter()
        for connection in list(self.connections):
            connection.drain(now)

    def sweep(self) -> None:
        """Once a second: tell the time, end connections that idle, dawdle or never read, write the log."""
        self._tell_time()
        now = perf_counter()
        for connection in list(self.connections):
            connection.tend(now)
        if self.watches is not None:
            self.watches.look()
        self.log.flush()
