"""One process that serves: an application, and the connections that come in at its entrance, on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

from modelyard.serving.application import Application
from modelyard.serving.http import Connection
from modelyard.serving.listener import Listener

#: Connections that the system may hold for us while we are busy.
BACKLOG = 2048


#: What the event loop is told of TLS, as ``Certificates.options`` says it.
Security = Mapping[str, Any]


class Entrance(Protocol):
    """Where connections come from."""

    async def open(self, connect: Callable[[], asyncio.Protocol], secure: Security) -> None:
        """Let connections in, and make a protocol for each."""

    def close(self) -> None:
        """Let no more in; those that are in stay."""

    async def settle(self) -> None:
        """Return once those who had come before that are in."""

    def note_lost(self) -> None:
        """A connection has ended."""


class PortEntrance:
    """Accepts the connections of bound sockets itself."""

    def __init__(self, bound: Sequence[socket.socket]) -> None:
        self._bound = bound
        self._servers: list[asyncio.AbstractServer] = []

    async def open(self, connect: Callable[[], asyncio.Protocol], secure: Security) -> None:
        loop = asyncio.get_running_loop()
        self._servers = [
            await loop.create_server(connect, sock=bound, backlog=BACKLOG, **secure) for bound in self._bound
        ]

    def close(self) -> None:
        for server in self._servers:
            server.close()

    async def settle(self) -> None:
        """Whom the loop accepts is in at once, but for handshakes of TLS, of which it does not tell."""

    def note_lost(self) -> None:
        """Nobody else counts them."""


class Worker:
    """Serves an ``Application`` until it is told to stop, and stops without dropping a request."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.log = application.log
        self.drain_seconds: float = application.settings.drain_seconds
        self.listener: Listener

    async def live(self, entrance: Entrance, stopping: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until ``stopping``; ``ready`` is called once every model is loaded. Raises what stands in the way."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        application = self.application

        def lost() -> None:
            entrance.note_lost()
            gone.set()

        self.listener = listener = Listener(application, loop, lost=lost)
        certificates = application.certificates
        await entrance.open(lambda: Connection(listener), certificates.options() if certificates else {})
        sweeping = asyncio.ensure_future(self._sweep())
        try:
            application.start(loop)
            if await application.settled(stopping):
                ready()
                await stopping.wait()
            self.log.write("info", "stopping", in_flight=self._in_flight())
            entrance.close()
            await entrance.settle()
            await self._drain(gone)
            self.log.write("info", "stopped")
        finally:
            sweeping.cancel()
            entrance.close()
            for connection in list(listener.connections):
                connection.transport.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.listener.sweep()
            if self.application.certificates is not None:
                self.application.certificates.refresh()

    async def _drain(self, gone: asyncio.Event) -> None:
        self.application.catalog.draining = True
        self.listener.drain()
        until = monotonic() + self.drain_seconds
        while self.listener.connections and (left := until - monotonic()) > 0:
            gone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), min(left, 0.1))
            self.listener.drain()
        if self._in_flight():
            self.log.write("warning", "stopped with requests unanswered", requests=self._in_flight())

    def _in_flight(self) -> int:
        return sum(connection.in_flight for connection in self.listener.connections)


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def settle_memory() -> None:
    """Keep what was loaded out of the garbage collector's rounds, and make those rarer."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
