"""A client that sends whatever it is told to, also what no decent client would.

Libraries repair what they send: a length that lies, two lengths, a header with a space before its colon never leave
them. This one writes the bytes of a rule as they are, and leaves only the reading of answers to a library.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import urlsplit

from modelyard.errors import InvalidInput

#: The largest answer that is read.
_LARGEST = 64 * 2**20


@dataclass(frozen=True)
class Request:
    """What a rule sends. ``raw`` is sent as it stands, after ``{host}`` was put in."""

    method: str
    path: str
    body: bytes = b""
    #: A value of None leaves out the header that is usually sent.
    headers: Mapping[str, str | None] = field(default_factory=dict)
    raw: bytes | None = None
    #: How many answers are awaited on the one connection.
    answers: int = 1
    #: Whether nothing follows: the sending half of the connection is closed.
    closes: bool = False
    #: gRPC: whether answers come in a stream, of which the first is awaited.
    streams: bool = False

    def but(self, **changes: Any) -> Request:
        """The same request with changes."""
        return replace(self, **changes)

    def with_headers(self, **headers: str | None) -> Request:
        """The same request with more headers; underscores stand for hyphens."""
        return replace(self, headers={**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def bytes(self, host: str, extra: Mapping[str, str]) -> bytes:
        """What goes over the socket."""
        if self.raw is not None:
            more = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
            return self.raw.replace(b"{host}", host.encode()).replace(b"{extra}\r\n", more.encode())
        headers: dict[str, str | None] = {"host": host, "connection": "close", **extra}
        if self.body or self.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            headers |= {"content-length": str(len(self.body)), "content-type": "application/json"}
        headers |= {name.lower(): value for name, value in self.headers.items()}
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        return "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True)
class Answer:
    """What came back. ``status`` is 0 where nothing came, and ``fault`` says why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: str = ""

    @property
    def json(self) -> Any:
        """The body as JSON; bare NaN and infinities are taken, as some protocols write them."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("lists in one another without end") from None

    def __str__(self) -> str:
        if not self.status:
            return f"no answer: {self.fault}"
        text = " ".join(self.body[:120].decode(errors="replace").split())
        if not text.isprintable():
            text = f"and {len(self.body)} bytes"
        return f"{self.status} {text}{'…' if len(self.body) > 120 else ''}".strip()


class Client:
    """Opens a connection for each request to the server at ``url``."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, seconds: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise InvalidInput.at(
                "URL", "http://HOST:PORT or https://HOST:PORT", url, hint="a prefix goes to --path: --path /v1/mine"
            )
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        #: TLS has no connection of which one half is closed.
        self.can_close_half = self._tls is None
        self._name = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._host = parts.netloc.rpartition("@")[2]
        self._headers = dict(headers or {})
        self._seconds = seconds

    def ask(self, request: Request) -> Answer:
        """The last of the answers to ``request``; never raises because of what the server does."""
        answer = Answer(0, fault="nothing was asked")
        try:
            with self._connect() as connection:
                connection.sendall(request.bytes(self._host, self._headers))
                if request.closes:
                    connection.shutdown(socket.SHUT_WR)
                stream = _Stream(connection)
                for i in range(request.answers):
                    answer = _read(stream, request.method)
                    if not answer.status and i:
                        return Answer(0, fault=f"{i} of {request.answers} requests were answered; {answer.fault}")
        except OSError as error:
            return Answer(0, fault=str(error) or type(error).__name__)
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._name, self._port), timeout=self._seconds)
        return self._tls.wrap_socket(connection, server_hostname=self._name) if self._tls else connection


class _Stream:
    """What http.client reads from in place of a socket; it stays open between answers."""

    def __init__(self, connection: socket.socket) -> None:
        self._reader = _Reader(cast(io.RawIOBase, socket.SocketIO(connection, "r")))

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._reader


class _Reader(io.BufferedReader):
    def close(self) -> None:
        """Left to the connection."""


def _read(stream: _Stream, method: str) -> Answer:
    reading = http.client.HTTPResponse(cast(socket.socket, stream), method=method)
    try:
        reading.begin()
        body = reading.read(_LARGEST)
    except (http.client.HTTPException, OSError, ValueError) as error:
        text = "the connection was closed" if isinstance(error, ConnectionError) else str(error)
        return Answer(0, fault=text or type(error).__name__)
    return Answer(reading.status, {name.lower(): value for name, value in reading.getheaders()}, body)
