"""The application in request threads: for WSGI, where a request has a thread of its own and waits in it anyway.

A call is made where the request is, which spares two changes of threads; requests are not joined. What follows the
registry and the keys lives on a loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from modelyard.errors import DeadlinePassed, InvalidInput, NotReady
from modelyard.messages import Message
from modelyard.serving.application import SHADOW, SHADOW_REQUESTS, Application
from modelyard.serving.calls import Done, Exchange
from modelyard.serving.engine import Lane
from modelyard.serving.loading import Loaded
from modelyard.serving.routing import Endpoint
from modelyard.serving.table import Table


class ThreadExchange(Exchange, gc=False, kw_only=True, eq=False):
    """A request whose answer is kept for the thread that asks."""

    message: Message | None = None

    def answer(self, message: Message) -> None:
        self.message = message

    def answer_from_thread(self, message: Message) -> None:
        self.message = message


class ThreadLane(Lane):
    """Answers each request in the thread that brings it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        return "in the thread of its request"

    def submit(self, exchange: Exchange) -> None:
        rows, most = exchange.request.rows, self.limits.max_rows
        if rows > most:
            raise InvalidInput.at("body", f"at most {most} rows in one request", str(rows))
        started = perf_counter()
        if exchange.deadline <= started:
            raise DeadlinePassed(f"{self.loaded.name} was not asked: the request's time was up before")
        if self._cache is not None:
            with self._lock:
                if self._answer_again(exchange):
                    return
        if rows > self._most:
            done = self._calls.compute_in_parts(exchange, self._most)
        else:
            outcome = self._calls.compute([exchange], rows, "alone")
            assert isinstance(outcome, Done)  # only calls of several requests fail as a whole
            done = outcome
        exchange.answer(done.messages[0])
        with self._lock:
            self._note(done)

    def tell(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class ThreadedApplication(Application):
    """An ``Application`` whose requests are answered in the threads that bring them."""

    is_threaded = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lock = threading.RLock()
        #: Copies for shadows that may be under way at once.
        self._copies = threading.BoundedSemaphore(SHADOW_REQUESTS)
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread of the loop, and loading. ``wait`` tells when that is done."""
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, args=(loop,), name="modelyard-loop", daemon=True)
        loop.call_soon(self.start, loop)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Return once every model serves. Raises what stands in the way, and NotReady after ``seconds``."""
        if not self.catalog.settled.wait(seconds):
            raise NotReady(f"the models are not loaded after {seconds:g} s")
        if self.catalog.failure is not None:
            raise self.catalog.failure
        published = threading.Event()
        self.loop.call_soon_threadsafe(published.set)  # behind the table that was published before
        published.wait(seconds)

    def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        def flush() -> None:
            self.log.flush()
            loop.call_later(1.0, flush)

        loop.call_soon(flush)
        loop.run_forever()
        loop.close()

    def close(self) -> None:
        super().close()
        if self._thread is not None and self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout=5)

    def endpoint(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        *,
        is_admin_port: bool = False,
        is_call: bool = False,
    ) -> Endpoint:
        with self._lock:  # an endpoint found for the table before must not be remembered after it
            return super().endpoint(method, target, headers, is_admin_port=is_admin_port, is_call=is_call)

    def lane(self, loaded: Loaded) -> Lane:
        lane = self._lanes.get(loaded)
        if lane is None:
            meter = self.metrics.meter(loaded.name, loaded.version)
            pool: ThreadPoolExecutor = self._pool
            lane = self._lanes[loaded] = ThreadLane(
                loaded, meter, self.loop, pool, self.log,
                limits=self.limits, cache=self.cache, spans=self.spans, book=self.book(loaded),
            )  # fmt: skip
        return lane

    def shadow_lane(self, loaded: Loaded) -> Lane:
        lane = self._shadows.get(loaded)
        if lane is None:
            meter = self.metrics.meter(loaded.name, f"{loaded.version}{SHADOW}")
            book = self.book(loaded)
            lane = self._shadows[loaded] = ThreadLane(loaded, meter, self.loop, self._pool, self.log, book=book)
            lane.is_routed = True
        return lane

    def beside(self, function: Callable[[], None]) -> None:
        """In a thread of its own kind, unless too many wait there already."""
        if self._copies.acquire(blocking=False):
            self._pool.submit(function).add_done_callback(lambda _: self._copies.release())

    def later(self, function: Callable[[], None]) -> None:
        function()

    def block(self, function: Callable[[], None]) -> None:
        function()

    def _take_over(self, table: Table) -> None:
        with self._lock:
            super()._take_over(table)

    def _forget(self) -> None:
        with self._lock:  # keys have changed
            super()._forget()
