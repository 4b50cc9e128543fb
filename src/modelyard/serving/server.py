"""The server: binds, loads, serves, follows the registry, and stops without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from modelyard.errors import Conflict, InvalidInput, ModelyardError, RemoteFailed
from modelyard.serving.application import Application
from modelyard.serving.http import Connection
from modelyard.serving.listener import Listener

if TYPE_CHECKING:
    pass

#: Connections that the system may hold for us while we are busy.
BACKLOG = 2048


class Server:
    """An ``Application`` on a port.

    ``run()`` blocks until SIGTERM or SIGINT. ``start()`` serves from a thread of its own and returns once every
    model is ready; ``stop()`` ends that, ``wait()`` waits for its end. Options are those of ``Application``:
    ``registry``, ``trust``, ``wires``, ``source`` and the settings by their names (``host``, ``port`` ...).
    """

    def __init__(
        self, references: Sequence[str], *, on_ready: Callable[[Server], None] | None = None, **options: Any
    ) -> None:
        self.application = application = Application(references, **options)
        chosen = application.settings
        self.host: str = chosen.host
        self.port: int = chosen.port
        self._drain_seconds: float = chosen.drain_seconds
        self._on_ready = on_ready
        self.log = application.log
        self.metrics = application.metrics
        self.catalog = application.catalog
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._stopping: asyncio.Event | None = None
        self._listener: Listener

    @property
    def url(self) -> str:
        """Where the server listens, as ``http://127.0.0.1:8080``."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "") else ("[::1]" if self.host == "::" else self.host)
        return f"http://{host}:{self.port}"

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then finish what is in flight. Raises what stands in the way of a start."""
        bound = self._bind()
        self._serve(bound, with_signals=True, ready=lambda: None)

    def start(self) -> Server:
        """Serve from a thread; returns once every model is ready. Raises what stands in the way."""
        bound = self._bind()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve_quietly, args=(bound, ready), name="modelyard-server", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def stop(self) -> None:
        """Stop accepting, finish what is in flight, and end the thread. Stopping twice is fine."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it may close between the question and the call
                loop.call_soon_threadsafe(stopping.set)
        self.wait()

    def wait(self) -> None:
        """Wait until the server has ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            while self._thread.is_alive():
                self._thread.join(timeout=1.0)  # in steps, so that Ctrl-C is heard

    def __enter__(self) -> Server:
        return self.start() if self._thread is None else self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Inside.

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.host, self.port))
            bound.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            bound.close()
            raise self._explain(error) from None
        bound.setblocking(False)
        self.port = bound.getsockname()[1]
        return bound

    def _explain(self, error: OSError | OverflowError) -> ModelyardError:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            return Conflict(
                f"port {self.port} on {self.host} is taken: another server listens there",
                hint=f"modelyard serve ... --port {self.port + 1}   (0 picks a free one)",
            )
        if number == errno.EACCES:
            return RemoteFailed(
                f"not allowed to listen on port {self.port}", hint="choose a port above 1023 with --port"
            )
        return InvalidInput.at("host and port", "an address of this machine", f"{self.host}:{self.port} ({error})")

    def _serve_quietly(self, bound: socket.socket, ready: threading.Event) -> None:
        try:
            self._serve(bound, with_signals=False, ready=ready.set)
        except BaseException as error:  # handed to whoever called start()
            self._failure = error
        finally:
            ready.set()

    def _serve(self, bound: socket.socket, *, with_signals: bool, ready: Callable[[], None]) -> None:
        loop = _new_loop()
        self._loop = loop
        try:
            loop.run_until_complete(self._live(bound, with_signals, ready))
        finally:
            self.application.close()
            loop.close()
            bound.close()

    async def _live(self, bound: socket.socket, with_signals: bool, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._stopping = stopping = asyncio.Event()
        gone = asyncio.Event()
        application = self.application
        self._listener = Listener(application, loop, lost=gone.set)
        if with_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
        server = await loop.create_server(lambda: Connection(self._listener), sock=bound, backlog=BACKLOG)
        sweeping = asyncio.ensure_future(self._sweep())
        try:
            application.start(loop)
            if await application.settled(stopping):
                if with_signals:
                    _settle_memory()
                self.log.write("info", "serving", url=self.url, wires=[wire.name for wire in application.wires])
                self.log.flush()
                if self._on_ready is not None:
                    self._on_ready(self)
                ready()
                await stopping.wait()
            self.log.write("info", "stopping", in_flight=self._in_flight())
            server.close()
            await self._drain(gone)
            self.log.write("info", "stopped")
        finally:
            sweeping.cancel()
            server.close()
            for connection in list(self._listener.connections):
                connection.transport.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._listener.sweep()

    async def _drain(self, gone: asyncio.Event) -> None:
        self.catalog.draining = True
        self._listener.drain()
        until = monotonic() + self._drain_seconds
        while self._listener.connections and (left := until - monotonic()) > 0:
            gone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), min(left, 0.1))
            self._listener.drain()
        if self._in_flight():
            self.log.write("warning", "stopped with requests unanswered", requests=self._in_flight())

    def _in_flight(self) -> int:
        return sum(len(connection.unanswered) for connection in self._listener.connections)


def serve(references: Sequence[str], **options: Any) -> None:
    """Serve until told to stop; the options are those of ``Server``."""
    Server(references, **options).run()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _settle_memory() -> None:
    """Keep what was loaded out of the garbage collector's rounds, and make those rarer."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
