"""The application in request threads: for WSGI, where a request has a thread of its own and waits in it anyway.

A call is made where the request is, which spares two changes of threads. Requests for a model in processes of its own
are joined as the engine joins them: those that come while all processes are busy become the next call, and nothing
waits for a timer. Models in this process are called side by side: waking the threads that wait would take longer than
most of their calls. What follows the registry and the keys lives on a loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from modelyard.errors import DeadlinePassed, InvalidInput, NotReady
from modelyard.messages import Message
from modelyard.serving.application import SHADOW, SHADOW_REQUESTS
from modelyard.serving.beside import Processes
from modelyard.serving.calls import Done, Exchange
from modelyard.serving.engine import Lane
from modelyard.serving.guests import GuestApplication
from modelyard.serving.loading import Loaded
from modelyard.serving.routing import Endpoint
from modelyard.serving.table import Table


class ThreadExchange(Exchange, gc=False, kw_only=True, eq=False):
    """A request whose answer is kept for the thread that asks."""

    message: Message | None = None
    #: Where its thread waits while others call the model: for a call to make and why it holds what it holds, or for
    #: None once it is answered.
    turn: SimpleQueue[tuple[list[Exchange], str] | None] | None = None

    def answer(self, message: Message) -> None:
        self.message = message
        if self.turn is not None:
            self.turn.put(None)

    def answer_from_thread(self, message: Message) -> None:
        self.answer(message)


class ThreadLane(Lane):
    """Answers each request in the thread that brings it, or in that of another with which it shares a call."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lock = threading.Lock()
        self._processes = self._beside if isinstance(self._beside, Processes) else None

    @property
    def where(self) -> str:
        return "in the thread of its request" if self._processes is None else self._processes.where

    def submit(self, exchange: Exchange) -> None:
        rows, most = exchange.request.rows, self.limits.max_rows
        if rows > most:
            raise InvalidInput.at("body", f"at most {most} rows in one request", str(rows))
        if exchange.deadline <= perf_counter():
            raise DeadlinePassed(f"{self.loaded.name} was not asked: the request's time was up before")
        if self._cache is not None:
            with self._lock:
                if self._answer_again(exchange):
                    return
        if rows > 1 and rows > self._most:
            done = self._calls.compute_in_parts(exchange, self._most)
        elif self._processes is None or not isinstance(exchange, ThreadExchange):
            # The model runs here; or what asks is a copy for a shadow, for which nobody waits.
            outcome = self._calls.compute([exchange], rows, "alone")
            assert isinstance(outcome, Done)  # only calls of several requests fail as a whole
            done = outcome
        else:
            self._share(exchange)
            return
        exchange.answer(done.messages[0])
        with self._lock:
            self._note(done)

    def _share(self, exchange: ThreadExchange) -> None:
        """Ask the model's processes, alone if one is free. Else wait, and be part of the next call."""
        assert self._processes is not None
        turn = exchange.turn = SimpleQueue()
        with self._lock:
            if len(self._running) < self._slots:
                self._hand([exchange], "alone")
            else:
                self._check_room(exchange)
                self._waiting.requests.append(exchange)
                self._waiting.rows += exchange.request.rows
        while (told := turn.get()) is not None:
            call, reason = told
            rows, started = sum([each.request.rows for each in call]), perf_counter()
            outcome = self._calls.compute(call, rows, reason, partial(self._processes.predict, self, call, reason))
            with self._lock:
                del self._running[id(call)]
                if not isinstance(outcome, Done):
                    self._settle(call, outcome, rows, started, reason)
                self._hand_on()
            if isinstance(outcome, Done):
                for each, message in zip(call, outcome.messages, strict=True):
                    each.answer(message)
                with self._lock:
                    self._note(outcome)

    def _hand_on(self) -> None:
        """A process is free: have the thread of the first that waits call it for all that wait."""
        while len(self._waiting) and len(self._running) < self._slots:
            taken, reason = self._waiting.take(self._enough, "gathered")
            now = perf_counter()
            call = [exchange for exchange in taken if self._is_wanted(exchange, now)]
            if call:
                self._hand(call, reason)

    def _hand(self, call: list[Exchange], reason: str) -> None:
        """Have the thread of the first of these requests make a call for all of them."""
        self._running[id(call)] = call
        first = call[0]
        assert isinstance(first, ThreadExchange) and first.turn is not None
        first.turn.put((call, reason))

    def tell(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class ThreadedApplication(GuestApplication):
    """An application whose requests are answered in the threads that bring them."""

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
        def tend() -> None:
            self.tend()
            loop.call_later(1.0, tend)

        loop.call_soon(tend)
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
        if self.gate is None:
            known = self.router.known(method, target)  # of a target with a query it knows nothing
            if known is not None and not known.is_grpc:
                return known
        with self._lock:  # an endpoint found for the table before must not be remembered after it
            return super().endpoint(method, target, headers, is_admin_port=is_admin_port, is_call=is_call)

    def lane(self, loaded: Loaded) -> Lane:
        lane = self._lanes.get(loaded)
        if lane is None:
            meter = self.metrics.meter(loaded.name, loaded.version)
            pool: ThreadPoolExecutor = self._pool
            lane = self._lanes[loaded] = ThreadLane(
                loaded, meter, self.loop, pool, self.log,
                limits=self.limits, cache=self.cache, spans=self.spans, book=self.book(loaded, meter),
            )  # fmt: skip
        return lane

    def shadow_lane(self, loaded: Loaded) -> Lane:
        lane = self._shadows.get(loaded)
        if lane is None:
            meter = self.metrics.meter(loaded.name, f"{loaded.version}{SHADOW}")
            book = self.book(loaded, meter)
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
