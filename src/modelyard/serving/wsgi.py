"""The application as a WSGI app, for mounting in Flask, Django and their like, or for any WSGI server."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

from modelyard.errors import ModelyardError, NotReady
from modelyard.messages import Message
from modelyard.serving.guests import answer_of, id_of, plain_body, target_of
from modelyard.serving.patience import seconds_of
from modelyard.serving.threaded import ThreadedApplication, ThreadExchange

#: How long a start, or the first request of a process, waits for the models.
START_SECONDS = 120.0

_PHRASES = {
    200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Content Too Large",
    415: "Unsupported Media Type", 429: "Too Many Requests", 500: "Internal Server Error", 501: "Not Implemented",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout", 507: "Insufficient Storage",
}  # fmt: skip


class WsgiApp:
    """Serves ``references`` below wherever it is mounted. Options are those of ``Application``.

    The models are loaded at once, and what stands in the way is raised; with ``wait=False`` they are loaded beside,
    and requests get 503 until they are. A server that forks after this was made (gunicorn with ``--preload``) loads
    them anew in each of its processes, with the first request there.
    """

    def __init__(self, references: Sequence[str], *, wait: bool = True, **options: Any) -> None:
        self._references = list(references)
        self._options = options
        self._lock = threading.Lock()
        self._process = 0
        self._application: ThreadedApplication | None = None
        live = self._live()
        if wait:
            try:
                live.wait(START_SECONDS)
            except BaseException:
                self.stop()
                raise
        atexit.register(self.stop)

    def _live(self) -> ThreadedApplication:
        """The application of this process."""
        application = self._application
        if application is not None and self._process == os.getpid():
            return application
        with self._lock:
            if self._application is None or self._process != os.getpid():
                forked = self._process not in (0, os.getpid())
                application = ThreadedApplication(self._references, **self._options)
                application.begin()
                if forked:
                    application.wait(START_SECONDS)
                self._application, self._process = application, os.getpid()
            assert self._application is not None
            return self._application

    def stop(self) -> None:
        """Stop following the registry, and let go of the models."""
        application, self._application = self._application, None
        if application is not None and self._process == os.getpid():
            application.close()

    def answer(
        self, method: str, path: str, query: str, headers: Mapping[str, str], read: Callable[[int], bytes]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for a request below the prefix. ``read(most)`` gives its body, or more than that."""
        received = perf_counter()
        request_id = id_of(headers)
        try:
            application = self._live()
        except ModelyardError as error:
            from modelyard.wires.native import NativeWire

            told = NotReady(f"the models cannot be served: {error.message}", hint=error.hint)
            return self._sent(NativeWire().refuse(None, told, request_id), request_id, method)
        target = target_of(path, query)
        endpoint = application.endpoint(method, target, headers)
        exchange = ThreadExchange(
            id=request_id,
            received=received,
            deadline=received + seconds_of(headers, application.settings.request_seconds),
            endpoint=endpoint,
        )
        most: int = application.settings.max_body
        try:
            body = plain_body(read(most), headers, most)
        except ModelyardError as error:
            application.refusing(target, error).accept(exchange, b"", headers)
        else:
            endpoint.accept(exchange, body, headers)
        assert exchange.message is not None  # every endpoint answers in this thread
        return self._sent(exchange.message, request_id, method)

    def _sent(self, message: Message, request_id: str, method: str) -> tuple[int, list[tuple[str, str]], bytes]:
        status, headers = answer_of(message, request_id)
        return status, headers, b"" if method == "HEAD" else message.body

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        status, headers, body = self.answer(
            environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), headers_of(environ), reader_of(environ)
        )
        start_response(f"{status} {_PHRASES.get(status, 'Unknown')}", headers)
        return [body]


def headers_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers, with lower-case names, from a WSGI environment."""
    headers = {key[5:].replace("_", "-").lower(): text for key, text in environ.items() if key.startswith("HTTP_")}
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    if environ.get("CONTENT_LENGTH"):
        headers["content-length"] = environ["CONTENT_LENGTH"]
    return headers


def reader_of(environ: Mapping[str, Any]) -> Callable[[int], bytes]:
    """Reads the request's body from a WSGI environment: at most one byte more than it is asked for."""

    def read(most: int) -> bytes:
        stream = environ["wsgi.input"]
        length = environ.get("CONTENT_LENGTH")
        if length:
            return bytes(stream.read(min(int(length), most + 1)))
        if environ.get("wsgi.input_terminated"):  # a chunked body, of which the server knows the end
            return bytes(stream.read(most + 1))
        return b""

    return read
