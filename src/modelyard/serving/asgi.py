"""The application as an ASGI app, for mounting in FastAPI, Starlette and their like, or for any ASGI server.

Requests enter the same engine as those of our own listener: those of one turn of the loop share a call of the model.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from modelyard.errors import ModelyardError
from modelyard.messages import Message
from modelyard.serving.calls import Exchange
from modelyard.serving.guests import (
    RETRY_SECONDS,
    Accompany,
    GuestApplication,
    answer_of,
    check_length,
    id_of,
    plain_body,
    target_of,
    too_large,
    unserved,
)
from modelyard.serving.patience import seconds_of
from modelyard.serving.tracing import trace_for

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


#: A caller whose answer takes longer than this is listened to meanwhile: it may leave.
LISTEN_SECONDS = 0.05


class Left(Exception):
    """The caller closed its connection: nobody waits for the answer."""


class AsgiExchange(Exchange, gc=False, kw_only=True, eq=False):
    """A request whose answer a coroutine awaits."""

    future: asyncio.Future[Message]

    @property
    def is_gone(self) -> bool:
        return self.future.done()

    def answer(self, message: Message) -> None:
        if not self.future.done():
            self.future.set_result(message)

    def answer_from_thread(self, message: Message) -> None:
        self.future.get_loop().call_soon_threadsafe(self.answer, message)

    def leave(self) -> None:
        """The caller is gone."""
        if not self.future.done():
            self.future.set_exception(Left())


class AsgiApp:
    """Serves ``references`` below wherever it is mounted. Options are those of ``Application``.

    The models are loaded with the framework's start where it tells of it (``lifespan``), else with the first request,
    in each process anew. A model that cannot be loaded is an error of the start; of a request, 503.
    """

    def __init__(self, references: Sequence[str], *, accompany: Accompany | None = None, **options: Any) -> None:
        self._references = list(references)
        self._accompany = accompany
        self._options = options
        self._application: GuestApplication | None = None
        self._process = 0
        #: What a fork brought along: left as it is, and never freed, which would close and end what the parent uses.
        self._inherited: GuestApplication | None = None
        self._starting: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._retry_at = 0.0
        self._tending: asyncio.TimerHandle | None = None

    async def start(self) -> GuestApplication:
        """Load the models; returns when they serve. Raises what stands in the way. Starting twice is fine."""
        loop = asyncio.get_running_loop()
        if self._starting is not None and self._starting.get_loop() is loop:
            await asyncio.shield(self._starting)
            if self._failure is not None:
                raise self._failure
            return await self.start()
        application = self._application
        if application is None or self._process != os.getpid() or self._starting is not None:
            return await self._begin(loop)
        if application.loop is not loop:  # a test client has a loop for each request
            application.move(loop)
            self._tend()
        return application

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> GuestApplication:
        starting = self._starting = loop.create_future()
        if self._application is not None and self._process != os.getpid():
            self._inherited = self._application
        application = None
        try:
            self._process = os.getpid()
            application = self._application = GuestApplication(self._references, **self._options)
            application.start(loop)
            if self._accompany is not None:
                self._accompany(application, self._options.get("registry"))
            await application.settled(asyncio.Event())
        except BaseException as error:
            self._application = None
            if isinstance(error, Exception):
                self._failure, self._retry_at = error, perf_counter() + RETRY_SECONDS
            if application is not None:
                application.log.write("error", "models cannot be served", error=error)
                application.close()
            raise
        else:
            self._failure = None
        finally:
            starting.set_result(None)
            self._starting = None
        self._tend()
        return application

    def _tend(self) -> None:
        application = self._application
        if application is not None:
            if self._tending is not None:
                self._tending.cancel()
            application.tend()
            self._tending = application.loop.call_later(1.0, self._tend)

    def stop(self) -> None:
        """Stop following the registry, and let go of the models."""
        application, self._application = self._application, None
        if self._tending is not None:
            self._tending.cancel()
        if application is not None and self._process == os.getpid():
            application.close()

    @asynccontextmanager
    async def lifespan(self, _app: Any = None) -> Any:
        """For frameworks that take a context of their life."""
        await self.start()
        try:
            yield
        finally:
            self.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._respond(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})
        else:
            raise NotImplementedError(f"no such kind of connection: {kind}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        request_id = id_of(headers)
        trace, more = None, []
        try:
            application = await self._serving()
        except ModelyardError as error:
            message = unserved(error, request_id, self._options)
        else:
            received = perf_counter()
            target = target_of(_below(scope), scope.get("query_string", b"").decode("latin-1"))
            endpoint = application.endpoint(scope["method"], target, headers)
            exchange = AsgiExchange(
                id=request_id,
                received=received,
                deadline=received + seconds_of(headers, application.settings.request_seconds),
                endpoint=endpoint,
                trace=trace_for(headers, application.settings.traces),
                future=application.loop.create_future(),
            )
            trace = exchange.trace
            if application.origins is not None:
                more = application.origins.headers(headers)
            most: int = application.settings.max_body
            try:
                try:
                    check_length(headers, most)
                    body = plain_body(await _body(receive, most), headers, most)
                except ModelyardError as error:
                    application.refusing(target, error).accept(exchange, b"", headers)
                else:
                    endpoint.accept(exchange, body, headers)
                message = await _outcome(exchange, receive)
            except Left:
                return
        status, told = answer_of(message, request_id, trace)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*told, *more)]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else message.body})

    async def _serving(self) -> GuestApplication:
        """The application of this process and loop, started where it was not. Raises why there is none."""
        application = self._application
        if application is not None and self._starting is None and application.loop is asyncio.get_running_loop():
            return application
        if application is None and isinstance(self._failure, ModelyardError) and perf_counter() < self._retry_at:
            raise self._failure
        return await self.start()


async def _outcome(exchange: AsgiExchange, receive: Receive) -> Message:
    """The answer. Raises Left where the caller leaves before it comes."""
    future = exchange.future
    if future.done():
        return future.result()
    listening: list[asyncio.Task[None]] = []

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        exchange.leave()

    loop = future.get_loop()
    timer = loop.call_later(LISTEN_SECONDS, lambda: listening.append(loop.create_task(listen())))
    try:
        return await future
    finally:
        timer.cancel()
        for task in listening:
            task.cancel()


def _below(scope: Scope) -> str:
    """The path below the prefix at which we are mounted."""
    parameters = scope.get("path_params")
    if parameters and "modelyard_path" in parameters:
        return str(parameters["modelyard_path"])
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and not path.startswith(root):  # a proxy took the outer part of it away
        root = root.removeprefix(scope.get("app_root_path", "").rstrip("/"))
    return path[len(root) :] if root and path.startswith(root) else path


async def _body(receive: Receive, most: int) -> bytes:
    """The whole body. Raises TooLarge, and Left where the caller leaves before its end."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Left
        chunk: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            raise too_large(most)
