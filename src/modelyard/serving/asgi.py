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

from modelyard.errors import ModelyardError, NotReady
from modelyard.messages import Message
from modelyard.serving.application import Application
from modelyard.serving.calls import Exchange
from modelyard.serving.guests import answer_of, id_of, plain_body, target_of, too_large
from modelyard.serving.patience import seconds_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


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


class AsgiApp:
    """Serves ``references`` below wherever it is mounted. Options are those of ``Application``.

    The models are loaded with the framework's start where it tells of it (``lifespan``), else with the first request,
    in each process anew. A model that cannot be loaded is an error of the start; of a request, 503.
    """

    def __init__(self, references: Sequence[str], **options: Any) -> None:
        self._references = list(references)
        self._options = options
        self._application: Application | None = None
        self._process = 0
        self._starting: asyncio.Future[None] | None = None
        self._flushing: asyncio.TimerHandle | None = None

    async def start(self) -> Application:
        """Load the models; returns when they serve. Raises what stands in the way. Starting twice is fine."""
        loop = asyncio.get_running_loop()
        application = self._application
        if application is not None and self._process == os.getpid() and self._starting is None:
            if application.loop is not loop:  # a test client has a loop for each request
                application.move(loop)
            return application
        if self._starting is not None and self._starting.get_loop() is loop:
            await asyncio.shield(self._starting)
            return await self.start()
        self._starting = loop.create_future()
        try:
            application = self._application = Application(self._references, **self._options)
            self._process = os.getpid()
            application.start(loop)
            await application.settled(asyncio.Event())
        except BaseException:
            self._application = None
            if application is not None:
                application.close()
            raise
        finally:
            self._starting.set_result(None)
            self._starting = None
        self._flush()
        return application

    def _flush(self) -> None:
        """Write the log once a second."""
        application = self._application
        if application is not None:
            application.log.flush()
            self._flushing = application.loop.call_later(1.0, self._flush)

    def stop(self) -> None:
        """Stop following the registry, and let go of the models."""
        application, self._application = self._application, None
        if self._flushing is not None:
            self._flushing.cancel()
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
        message = await self._answer(scope, headers, request_id, receive)
        status, told = answer_of(message, request_id)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else message.body})

    async def _answer(self, scope: Scope, headers: dict[str, str], request_id: str, receive: Receive) -> Message:
        received = perf_counter()
        application = self._application
        if application is None or self._starting is not None or application.loop is not asyncio.get_running_loop():
            try:
                application = await self.start()
            except ModelyardError as error:
                from modelyard.wires.native import NativeWire

                told = NotReady(f"the models cannot be served: {error.message}", hint=error.hint)
                return NativeWire().refuse(None, told, request_id)
        target = target_of(_below(scope), scope.get("query_string", b"").decode("latin-1"))
        endpoint = application.endpoint(scope["method"], target, headers)
        exchange = AsgiExchange(
            id=request_id,
            received=received,
            deadline=received + seconds_of(headers, application.settings.request_seconds),
            endpoint=endpoint,
            future=application.loop.create_future(),
        )
        try:
            body = plain_body(
                await _body(receive, application.settings.max_body), headers, application.settings.max_body
            )
        except ModelyardError as error:
            refusing = application.refusing(target, error)
            refusing.accept(exchange, b"", headers)
        else:
            endpoint.accept(exchange, body, headers)
        return await exchange.future


def _below(scope: Scope) -> str:
    """The path below the prefix at which we are mounted."""
    parameters = scope.get("path_params")
    if parameters and "modelyard_path" in parameters:
        return str(parameters["modelyard_path"])
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


async def _body(receive: Receive, most: int) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return body
    chunks, size = [message.get("body", b"")], len(message.get("body", b""))
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > most:
            raise too_large(most)
    return b"".join(chunks)
