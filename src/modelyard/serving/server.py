"""The server: binds, loads, serves, follows the registry, and stops without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from modelyard.errors import Conflict, InvalidInput, ModelyardError, RemoteFailed
from modelyard.serving.application import Application
from modelyard.serving.gate import check_exposure
from modelyard.serving.link import Model
from modelyard.serving.worker import BACKLOG, PortEntrance, Worker, new_loop, settle_memory


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
        self._asked = (references, options)
        chosen = application.settings
        self.host: str = chosen.host
        self.port: int = chosen.port
        self.admin_port: int = chosen.admin_port
        self._on_ready = on_ready
        self.log = application.log
        self.metrics = application.metrics
        self.catalog = application.catalog
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._stopping: asyncio.Event | None = None
        self._worker = Worker(application)
        #: The versions that were loaded when the server became ready.
        self.models: list[Model] = []

    @property
    def url(self) -> str:
        """Where the server listens, as ``http://127.0.0.1:8080``."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "") else ("[::1]" if self.host == "::" else self.host)
        scheme = "http" if self.application.certificates is None else "https"
        return f"{scheme}://{host}:{self.port}"

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

    def _bind(self) -> list[socket.socket]:
        """The listening sockets: the main port's, and the admin port's where there is one."""
        bound = [self._listen(self.port)]
        self.port = bound[0].getsockname()[1]
        if self.admin_port:
            try:
                bound.append(self._listen(self.admin_port))
            except BaseException:
                bound[0].close()
                raise
        return bound

    def _listen(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.host, port))
            check_exposure(bound.getsockname()[0], self.application.settings)
            bound.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            bound.close()
            raise self._explain(error, port) from None
        except BaseException:
            bound.close()
            raise
        bound.setblocking(False)
        return bound

    def _explain(self, error: OSError | OverflowError, port: int) -> ModelyardError:
        number = getattr(error, "errno", None)
        option = "--port" if port == self.port else "--admin-port"
        if number == errno.EADDRINUSE:
            return Conflict(
                f"port {port} on {self.host} is taken: another server listens there",
                hint=f"modelyard serve ... {option} {port + 1}" + ("   (0 picks a free one)" * (option == "--port")),
            )
        if number == errno.EACCES:
            return RemoteFailed(f"not allowed to listen on port {port}", hint=f"choose a port above 1023 with {option}")
        return InvalidInput.at("host and port", "an address of this machine", f"{self.host}:{port} ({error})")

    def _serve_quietly(self, bound: list[socket.socket], ready: threading.Event) -> None:
        try:
            self._serve(bound, with_signals=False, ready=ready.set)
        except BaseException as error:  # handed to whoever called start()
            self._failure = error
        finally:
            ready.set()

    def _serve(self, bound: list[socket.socket], *, with_signals: bool, ready: Callable[[], None]) -> None:
        loop = new_loop()
        self._loop = loop
        try:
            loop.run_until_complete(self._live(bound, with_signals, ready))
        finally:
            self.application.close()
            loop.close()
            for each in bound:
                each.close()

    async def _live(self, bound: list[socket.socket], with_signals: bool, ready: Callable[[], None]) -> None:
        self._stopping = stopping = asyncio.Event()
        if with_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopping.set)

        def tell(models: Sequence[Model]) -> None:
            self.models = list(models)
            self.log.write("info", "serving", url=self.url, wires=[wire.name for wire in self.application.wires])
            self.log.flush()
            if self._on_ready is not None:
                self._on_ready(self)
            ready()

        def tell_alone() -> None:
            if with_signals:
                settle_memory()
            tell([Model.of(served) for served in self.catalog.models()])

        if self.application.settings.workers > 1:
            await self._supervise(bound, stopping, tell)
        else:
            await self._worker.live(PortEntrance(bound), stopping, tell_alone)

    async def _supervise(
        self, bound: list[socket.socket], stopping: asyncio.Event, ready: Callable[[Sequence[Model]], None]
    ) -> None:
        from modelyard.serving.supervisor import Supervisor

        references, options = self._asked
        chosen = self.application.settings
        handed = {name: value for name, value in options.items() if name != "log_stream"}
        try:
            pickled = pickle.dumps(handed)
        except Exception as error:
            raise InvalidInput.at(
                "workers", "1 where an option cannot be handed to another process", f"{chosen.workers} ({error})"
            ) from error
        supervisor = Supervisor(
            chosen.workers, references, pickled, bound, drain_seconds=chosen.drain_seconds, log=self.log
        )
        await supervisor.live(stopping, ready)


def serve(references: Sequence[str], **options: Any) -> None:
    """Serve until told to stop; the options are those of ``Server``."""
    Server(references, **options).run()
