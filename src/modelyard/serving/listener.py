"""What all connections of a server share: endpoints, remembered heads, templates of answers, time limits."""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from time import perf_counter, time
from typing import TYPE_CHECKING
from wsgiref.handlers import format_date_time

from modelyard.messages import Message
from modelyard.serving.compression import compress
from modelyard.serving.http import Connection, Head, HttpExchange, TooSlow

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelyard.serving.application import Application

#: Heads remembered, and the largest of them.
MOST_HEADS = 1024
LARGEST_HEAD = 4096

#: Seconds that a connection may idle, take for a head, take before its body's rate is looked at, linger, or not read.
IDLE_SECONDS = 75.0
HEAD_SECONDS = 15.0
BODY_SECONDS = 30.0
LINGER_SECONDS = 2.0
STUCK_SECONDS = 60.0

#: A connection that had a request within this many seconds is likely to send another.
BUSY_SECONDS = 0.5

#: Bytes a second below which a body is given up.
SLOWEST_BODY = 1024

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


def is_probe(target: str) -> bool:
    """Whether a target asks for health: probes come every second, and what is not ready has a line of its own."""
    return target.partition("?")[0].rstrip("/").endswith(("/ready", "/live"))


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
        self.connections: set[Connection] = set()
        self.lingering: set[Connection] = set()
        self.heads: dict[bytes, Head] = {}
        self._seen_once: set[int] = set()
        self.id_prefix = os.urandom(6).hex() + "-"
        self.count = 0
        self._access_log: str = chosen.access_log
        #: No answer needs more than the plain template: nothing is being closed, and successes are not logged.
        self.is_plain = self._access_log != "all"
        self.note_lost = lost
        self.is_draining = False
        #: Runs a function on the loop's thread.
        self.call_from_thread = loop.call_soon_threadsafe
        application.on_change.append(self.heads.clear)
        application.connections = lambda: len(self.connections)
        self._tell_time()

    def _tell_time(self) -> None:
        date = format_date_time(time()).encode()
        self._stamp = b"server: modelyard\r\ndate: " + date + b"\r\n"
        #: How most answers begin; the id, the length and the body follow.
        self.plain = _LINES[200] + self._stamp + b"content-type: application/json\r\nx-request-id: "

    def new_id(self) -> str:
        """An id for a request: unique to this process, then counted."""
        self.count += 1
        return f"{self.id_prefix}{self.count:x}"

    def remember(self, text: bytes, head: Head) -> None:
        """Know a head by heart when it comes the second time; one that differs each time never takes room."""
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

    def render(self, exchange: HttpExchange, message: Message) -> bytes:
        """The bytes of an answer, of any kind."""
        head = exchange.head
        status = STATUS.get(message.code, 500)
        is_last = not head.keep_alive or (self.is_draining and exchange.connection.ends_with(exchange))
        lines = [_LINES[status], self._stamp, f"content-type: {message.content_type}\r\n".encode()]
        lines.append(f"x-request-id: {exchange.id}\r\ncontent-length: {len(message.body)}\r\n".encode())
        lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in message.headers.items()]
        if status in (429, 503) and "retry-after" not in message.headers:
            lines.append(b"retry-after: 1\r\n")
        if is_last:
            lines.append(b"connection: close\r\n")
        elif head.is_old:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        if head.method != "HEAD":
            lines.append(message.body)
        if self._access_log == "all" or (self._access_log == "errors" and status >= 400 and not is_probe(head.target)):
            self._note_access(exchange, message, status)
        return b"".join(lines)

    def compress_beside(self, exchange: HttpExchange, message: Message) -> None:
        """Compress a large answer in a thread, and then send it."""

        def work() -> None:
            exchange.answer_from_thread(compress(message, exchange.head.coding))

        self.application.later(work)

    def _note_access(self, exchange: HttpExchange, message: Message, status: int) -> None:
        milliseconds = round((perf_counter() - exchange.received) * 1000, 3)
        self.log.write(
            "info" if status < 500 else "warning", "request", request_id=exchange.id, method=exchange.head.method,
            target=exchange.head.target[:200], status=status, code=message.code, milliseconds=milliseconds,
        )  # fmt: skip

    def drain(self) -> None:
        """Connections end once what they asked so far is answered; those that idle are closed. Called repeatedly.

        One that was busy a moment ago may have its next request under way, and is told with that answer.
        """
        self.is_draining = True
        self.is_plain = False
        now = perf_counter()
        for connection in list(self.connections):
            if connection.is_between and not connection.unanswered and now - connection.last > BUSY_SECONDS:
                connection.transport.close()

    def sweep(self) -> None:
        """Once a second: tell the time, end connections that idle, dawdle or never read, write the log."""
        self._tell_time()
        now = perf_counter()
        for connection in list(self.connections):
            waited = now - connection.began
            if connection in self.lingering:
                if waited > LINGER_SECONDS:
                    connection.transport.abort()
            elif connection.is_stuck:
                if now - connection.last > STUCK_SECONDS:
                    connection.transport.abort()
            elif connection.is_between:
                if not connection.unanswered and now - connection.last > IDLE_SECONDS:
                    connection.transport.close()
            elif not connection.is_closing and self._is_slow(connection, waited):
                connection.give_up(TooSlow(f"the request was not complete after {waited:.0f} seconds"))
        self.log.flush()

    def _is_slow(self, connection: Connection, waited: float) -> bool:
        if not connection.in_body:
            return waited > HEAD_SECONDS
        return waited > BODY_SECONDS + connection.received_bytes / SLOWEST_BODY
