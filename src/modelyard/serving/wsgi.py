"""The application as a WSGI app, for mounting in Flask, Django and their like, or for any WSGI server."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Any

from modelyard.errors import InvalidInput, ModelyardError, NotReady
from modelyard.serving.guests import (
    RETRY_SECONDS,
    Accompany,
    answer_of,
    check_length,
    id_of,
    plain_body,
    target_of,
    unserved,
)
from modelyard.serving.patience import seconds_of
from modelyard.serving.threaded import ThreadedApplication, ThreadExchange
from modelyard.serving.tracing import trace_for

#: How long a start, or the first request of a process, waits for the models.
START_SECONDS = 120.0

#: Sets of keys of environments that are remembered, and the characters that one may have: clients choose most of them.
MOST_KEYS, LONGEST_KEYS = 1024, 4096

_KNOWN: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class WsgiApp:
    """Serves ``references`` below wherever it is mounted. Options are those of ``Application``.

    The models are loaded at once, and what stands in the way is raised; with ``wait=False`` they are loaded beside,
    and requests get 503 until they are. A server that forks after this was made (gunicorn with ``--preload``) loads
    them anew in each of its processes, with the first request there.
    """

    def __init__(
        self, references: Sequence[str], *, wait: bool = True, accompany: Accompany | None = None, **options: Any
    ) -> None:  # fmt: skip
        self._references = list(references)
        self._accompany = accompany
        self._options = options
        self._lock = threading.Lock()
        self._process = 0
        self._application: ThreadedApplication | None = None
        #: What a fork brought along. Its threads are not here and its connections are the parent's: it is left as it
        #: is, and never freed, which would close and end what the parent uses.
        self._inherited: ThreadedApplication | None = None
        self._failure: ModelyardError | None = None
        self._retry_at = 0.0
        self._is_stopped = False
        atexit.register(self.stop)
        try:
            live = self._live()
            if wait:
                live.wait(START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _live(self) -> ThreadedApplication:
        """The application of this process. Raises why there is none."""
        application = self._application
        if application is not None and self._process == os.getpid():
            return application
        with self._lock:
            if self._is_stopped:
                raise NotReady("the models are not served any more: it was stopped")
            if self._application is None or self._process != os.getpid():
                self._begin()
            assert self._application is not None
            return self._application

    def _begin(self) -> None:
        """Load the models; in a process that was forked, wait for them."""
        if self._failure is not None and perf_counter() < self._retry_at:
            raise self._failure
        is_forked = self._process not in (0, os.getpid())
        if is_forked and self._inherited is None:
            self._inherited = self._application
        application = ThreadedApplication(self._references, **self._options)
        application.begin()
        if self._accompany is not None:
            self._accompany(application, self._options.get("registry"))
        try:
            if is_forked:
                application.wait(START_SECONDS)
        except ModelyardError as error:
            application.log.write("error", "models cannot be served", error=error)
            self._failure, self._retry_at = error, perf_counter() + RETRY_SECONDS
            application.close()
            raise
        self._application, self._process, self._failure = application, os.getpid(), None

    def stop(self) -> None:
        """Stop following the registry, and let go of the models. Requests get 503 from now on."""
        atexit.unregister(self.stop)
        self._is_stopped = True
        if self._application is not None and self._process == os.getpid():
            application, self._application = self._application, None
            application.close()

    def answer(
        self, method: str, path: str, query: str, headers: Mapping[str, str], read: Callable[[int], bytes]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for a request below the prefix. ``read(most)`` gives its body, or more than that."""
        received = perf_counter()
        request_id = id_of(headers)
        trace, more = None, []
        try:
            application = self._live()
        except ModelyardError as error:
            message = unserved(error, request_id, self._options)
        else:
            target, settings = target_of(path, query), application.settings
            endpoint, most = application.endpoint(method, target, headers), settings.max_body
            trace = trace_for(headers, settings.traces)
            exchange = ThreadExchange(
                id=request_id,
                received=received,
                deadline=received + seconds_of(headers, settings.request_seconds),
                endpoint=endpoint,
                trace=trace,
            )
            try:
                check_length(headers, most)
                body = plain_body(read(most), headers, most)
            except ModelyardError as error:
                application.refusing(target, error).accept(exchange, b"", headers)
            else:
                endpoint.accept(exchange, body, headers)
            assert exchange.message is not None  # every endpoint answers before it returns to this thread
            message = exchange.message
            if application.origins is not None:
                more = application.origins.headers(headers)
        status, told = answer_of(message, request_id, trace)
        told += more
        return status, told, b"" if method == "HEAD" else message.body

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        status, headers, body = self.answer(
            environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), headers_of(environ), reader_of(environ)
        )
        start_response(f"{status} {_PHRASES.get(status, 'Unknown')}", headers)
        return [body]


def headers_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers, with lower-case names, from a WSGI environment. What is empty there is none."""
    return {name: text for key, name in _headers_among(tuple(environ)) if (text := environ[key])}


def _headers_among(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Which keys of a WSGI environment are headers, with their names: of some thirty keys a few are, and a client's
    requests have the same ones time and again.
    """
    known = _KNOWN.get(keys)
    if known is None:
        found = [(key, key[5:].replace("_", "-").lower()) for key in keys if key.startswith("HTTP_")]
        found += [(key, key.replace("_", "-").lower()) for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if key in keys]
        known = tuple(found)
        if sum(map(len, keys)) <= LONGEST_KEYS:
            if len(_KNOWN) >= MOST_KEYS:
                _KNOWN.clear()
            _KNOWN[keys] = known
    return known


def reader_of(environ: Mapping[str, Any]) -> Callable[[int], bytes]:
    """Reads the request's body from a WSGI environment: at most one byte more than it is asked for."""

    def read(most: int) -> bytes:
        stream = environ["wsgi.input"]
        length = environ.get("CONTENT_LENGTH") or ""
        if length.isdecimal():
            size = min(int(length), most + 1)
            body = bytes(stream.read(size))
            if len(body) < size:
                raise InvalidInput.at("body", f"{length} bytes, as content-length says", f"{len(body)}, then its end")
            return body
        if environ.get("wsgi.input_terminated"):  # a chunked body, of which the server knows the end
            return bytes(stream.read(most + 1))
        return b""

    return read
