"""The server: binds, loads, serves, follows the registry, and stops without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from modelyard import plugins, settings
from modelyard.errors import Conflict, InvalidInput, ModelyardError, RemoteFailed
from modelyard.interfaces import Wire
from modelyard.serving.catalog import Loaded, ServerCatalog, Table
from modelyard.serving.engine import Lane
from modelyard.serving.http import Connection
from modelyard.serving.listener import Listener
from modelyard.serving.metrics import Metrics
from modelyard.serving.operations import OperationsWire
from modelyard.serving.routing import Router
from modelyard.serving.sources import MixedSource, Source
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.bundle import Trust

#: Connections that the system may hold for us while we are busy.
BACKLOG = 2048


class Server:
    """Serves the models that ``references`` name (see ``serving.catalog``).

    ``run()`` blocks until SIGTERM or SIGINT. ``start()`` serves from a thread of its own and returns once every
    model is ready; ``stop()`` ends that, ``wait()`` waits for its end. Options not given come from the settings.

    ``registry`` is a registry or its address; ``source`` replaces registry and disk altogether, for tests.
    ``access_log`` is ``errors`` (answers from 400 upward), ``all`` or ``off``.
    """

    def __init__(
        self,
        references: Sequence[str],
        *,
        registry: Any = None,
        trust: Trust | None = None,
        host: str | None = None,
        port: int | None = None,
        wires: Sequence[str | Wire] | None = None,
        max_body: int | None = None,
        poll_seconds: float | None = None,
        drain_seconds: float | None = None,
        access_log: str | None = None,
        on_ready: Callable[[Server], None] | None = None,
        source: Callable[[], Source] | None = None,
        log_stream: TextIO | None = None,
    ) -> None:
        self.host: str = settings.get("host", host)
        self.port: int = settings.get("port", port)
        self._max_body: int = settings.get("max_body", max_body)
        self._drain_seconds: float = settings.get("drain_seconds", drain_seconds)
        self._access_log: str = settings.get("access_log", access_log)
        if self._access_log not in ("errors", "all", "off"):
            raise InvalidInput.at("access_log", "errors, all or off", self._access_log)
        self._on_ready = on_ready
        self.log = Log(settings.get("log_level"), log_stream)
        self.metrics = Metrics()
        self.catalog = ServerCatalog(
            references,
            source or (lambda: MixedSource(registry)),
            trust=trust,
            poll_seconds=settings.get("poll_seconds", poll_seconds),
            publish=self._publish,
            log=self.log,
            metrics=self.metrics,
        )
        operations = OperationsWire(self._render_metrics, lambda: self.catalog.registry_fault)
        self._wires: list[Wire] = [plugins.find("wires", name) for name in settings.get("wires", wires)]
        self._router = Router([*self._wires, operations], self.catalog, self._lane, self.metrics, self.log)
        self._lanes: dict[Loaded, Lane] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._stopping: asyncio.Event | None = None
        self._listener: Listener
        self._pool: ThreadPoolExecutor

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
        # As many threads as cores: a thread runs model code that lets go of the interpreter, or waits for it.
        self._pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="modelyard-model")
        try:
            loop.run_until_complete(self._live(bound, with_signals, ready))
        finally:
            self.catalog.stop()
            self._pool.shutdown(wait=False, cancel_futures=True)
            loop.close()
            bound.close()
            self.log.flush()

    async def _live(self, bound: socket.socket, with_signals: bool, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._stopping = stopping = asyncio.Event()
        gone = asyncio.Event()
        self._listener = Listener(
            self._router, self.metrics, self.log, max_body=self._max_body, access_log=self._access_log, lost=gone.set
        )
        if with_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
        server = await loop.create_server(lambda: Connection(self._listener), sock=bound, backlog=BACKLOG)
        sweeping = asyncio.ensure_future(self._sweep())
        try:
            self.catalog.start()
            if await self._settle(stopping):
                if with_signals:
                    _settle_memory()
                self.log.write("info", "serving", url=self.url, wires=[wire.name for wire in self._wires])
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

    async def _settle(self, stopping: asyncio.Event) -> bool:
        """Wait for the first loading. False where the server was told to stop meanwhile; raises where it failed."""
        while not self.catalog.settled.is_set() and not stopping.is_set():
            await asyncio.sleep(0.005)
        if self.catalog.failure is not None:
            raise self.catalog.failure
        await asyncio.sleep(0)  # the published table arrives before anybody is told that we are ready
        return not stopping.is_set()

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

    def _lane(self, loaded: Loaded) -> Lane:
        lane = self._lanes.get(loaded)
        if lane is None:
            assert self._loop is not None
            meter = self.metrics.meter(loaded.name, loaded.version)
            lane = self._lanes[loaded] = Lane(loaded, meter, self._loop, self._pool, self.log)
        return lane

    def _publish(self, table: Table) -> None:
        """Called by the catalog's thread with each new table of versions."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop was closed while the catalog was loading
            self._loop.call_soon_threadsafe(self._take_over, table)

    def _take_over(self, table: Table) -> None:
        """From here on requests go to the versions of ``table``; those under way end where they began."""
        self.catalog.table = table
        self._listener.forget()
        for loaded in table.versions:
            self._lane(loaded)
        for loaded in [loaded for loaded in self._lanes if loaded not in table.versions]:
            del self._lanes[loaded]

    def _render_metrics(self) -> bytes:
        return self.metrics.render(
            self._lanes.values(),
            ready=self.catalog.ready,
            registry_up=not self.catalog.registry_fault,
            connections=len(self._listener.connections),
        )


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
