"""Receivers of alerts, on real sockets: those that behave, and those that do not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What a receiver got: the path, the headers in lower case, and the body.
Got = tuple[str, dict[str, str], bytes]


class Receiver:
    """An HTTP server that keeps what it gets, and answers with one status after the other (the last one stays)."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[Got] = []
        self._statuses = list(statuses or (200,))
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status = receiver._statuses.pop(0) if len(receiver._statuses) > 1 else receiver._statuses[0]
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("location", f"{receiver.url}/elsewhere")
                self.end_headers()
                self.wfile.write(b"said: " + body[:200])

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    receiver = Receiver(*statuses)
    try:
        yield receiver
    finally:
        receiver.close()


@contextlib.contextmanager
def hanging(*, drip: bool = False) -> Iterator[str]:
    """The address of a receiver that takes everything and never answers; or a byte of a header now and then."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                made, _ = listener.accept()
            except OSError:
                return
            held.append(made)
            if drip:
                threading.Thread(target=_drip, args=(made, stop), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
    finally:
        stop.set()
        listener.close()
        for each in held:
            each.close()


def _drip(made: socket.socket, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        made.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not stop.wait(0.05):
            made.sendall(b"a")


class Mailbox:
    """A mail server that takes every message."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                made, _ = self._listener.accept()
            except OSError:
                return
            with made, made.makefile("rb") as lines:
                self._talk(made, lines)

    def _talk(self, made: socket.socket, lines: Any) -> None:
        made.sendall(b"220 here\r\n")
        for line in lines:
            word = line.split()[0].upper() if line.split() else b""
            if word == b"DATA":
                made.sendall(b"354 go on\r\n")
                text = b""
                for part in lines:
                    if part == b".\r\n":
                        break
                    text += part
                self.messages.append(text.decode())
                made.sendall(b"250 taken\r\n")
            elif word == b"QUIT":
                made.sendall(b"221 bye\r\n")
                return
            else:
                made.sendall(b"250 fine\r\n")

    def close(self) -> None:
        self._listener.close()


def waited(condition: Any, seconds: float = 120.0) -> bool:
    """Whether a condition comes to hold. The seconds only end a wait that is in vain: a slow machine may need many."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def until(condition: Any) -> None:
    """Return once a condition holds."""
    assert waited(condition), "not within the time"
