"""The engine: requests that wait for the same loaded version become one call of its model. No sockets here.

A lone request is run where it arrives. Where several arrive in one turn of the event loop, or while a call runs in
a thread, they are joined. Nothing ever waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from math import inf
from time import perf_counter
from typing import Protocol

import msgspec

from modelyard.errors import InvalidInput, ModelFailed, ModelyardError, Overloaded
from modelyard.interfaces import Codec
from modelyard.messages import Batch, Message, Request, Response
from modelyard.schema import Columns, check_outputs
from modelyard.serving.catalog import Loaded
from modelyard.serving.metrics import Meter
from modelyard.telemetry import Log

#: A call that should take longer than this many seconds runs in a thread, so that the loop stays free.
INLINE_SECONDS = 0.002

#: Requests are joined up to this many rows; a larger one runs by itself.
JOINED_ROWS = 8192

#: Requests and rows that may wait for one version while a call runs; more are refused.
WAITING_REQUESTS = 4096
WAITING_ROWS = 262_144


class Answerer(Protocol):
    """What turns results into messages for one wire, one call and one loaded version."""

    codec: Codec

    def refuse(self, exchange: Exchange, error: Exception) -> Message:
        """The message that tells of ``error``."""


class Exchange(msgspec.Struct, gc=False, kw_only=True):
    """One request on its way through the server. A listener's own kind knows where the answer goes."""

    #: The id of the request, sent back with the answer.
    id: str
    #: When it was received and when it was decoded, as ``perf_counter`` seconds.
    received: float
    decoded: float = 0.0
    #: Set once it is decoded, before it is submitted.
    request: Request = None  # type: ignore[assignment]  # everybody who reads it comes after that
    #: Who answers it: encodes the response, or refuses.
    endpoint: Answerer

    #: When the caller stops waiting, as ``perf_counter`` seconds.
    deadline: float = inf

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return False

    def answer(self, message: Message) -> None:
        """Send the answer. Called once, on the loop's thread."""
        raise NotImplementedError

    def answer_from_thread(self, message: Message) -> None:
        """``answer`` for a caller on another thread."""
        raise NotImplementedError


class Lane:
    """The requests for one loaded version. Everything but ``_compute`` runs on the loop's thread."""

    def __init__(self, loaded: Loaded, meter: Meter, loop: asyncio.AbstractEventLoop, pool: Executor, log: Log) -> None:
        self.loaded = loaded
        self.meter = meter
        self._layout = loaded.signature.input_layout
        self._loop = loop
        self._pool = pool
        self._log = log
        self._waiting: list[Exchange] = []
        self._running = 0
        #: Turns in a row that brought a single request; from four on, requests are run where they arrive.
        self._singles = 0
        self._turns = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return len(self._waiting) + self._running

    def submit(self, exchange: Exchange) -> None:
        """Run a decoded request, now or with others. Raises Overloaded where too many wait."""
        waiting = self._waiting
        if self._running:
            self._check_room(exchange)
            waiting.append(exchange)
        elif waiting:
            waiting.append(exchange)
        elif self._singles >= 4 and self._turns & 15:
            self._turns += 1
            self._run([exchange])
        else:  # every sixteenth request looks whether others come with it
            self._turns += 1
            waiting.append(exchange)
            self._loop.call_soon(self._turn)

    def _check_room(self, exchange: Exchange) -> None:
        waiting = self._waiting
        full = len(waiting) >= WAITING_REQUESTS
        if (not full and len(waiting) % 64 == 63) or (exchange.request.rows > 64 and waiting):
            full = sum(e.request.rows for e in (*waiting, exchange)) > WAITING_ROWS
        if full:
            raise Overloaded(f"too many requests wait for {self.loaded.name}: {len(waiting)}", hint="try again later")

    def _turn(self) -> None:
        """Run everything that waits, as far as it may run on the loop."""
        if not self._running and len(self._waiting) == 1:
            self._singles += 1
        else:
            self._singles = 0
        while self._waiting and not self._running:
            self._run(self._take())

    def _take(self) -> list[Exchange]:
        waiting = self._waiting
        rows = 0
        for i, exchange in enumerate(waiting):
            rows += exchange.request.rows
            if rows > JOINED_ROWS and i:
                self._waiting = waiting[i:]
                return waiting[:i]
        self._waiting = []
        return waiting

    def _run(self, exchanges: list[Exchange]) -> None:
        rows = exchanges[0].request.rows if len(exchanges) == 1 else sum([e.request.rows for e in exchanges])
        if self.loaded.cost.expect(rows) > INLINE_SECONDS:
            self._running = len(exchanges)
            self._pool.submit(self._work, exchanges, rows)
            return
        started = perf_counter()
        messages, predicted = self._compute(exchanges, rows)
        for exchange, message in zip(exchanges, messages, strict=True):
            exchange.answer(message)
        self.meter.note(exchanges, messages, rows, started, predicted)

    def _work(self, exchanges: list[Exchange], rows: int) -> None:
        """``_run`` in a thread of the pool."""
        started = perf_counter()
        messages, predicted = self._compute(exchanges, rows)
        try:
            self._loop.call_soon_threadsafe(self._done, exchanges, messages, rows, started, predicted)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits for the answer any more
            self._log.write("warning", "answers dropped", model=self.loaded.name, requests=len(exchanges))

    def _done(
        self, exchanges: list[Exchange], messages: list[Message], rows: int, started: float, predicted: float
    ) -> None:
        self._running = 0
        for exchange, message in zip(exchanges, messages, strict=True):
            exchange.answer(message)
        self.meter.note(exchanges, messages, rows, started, predicted)
        if self._waiting:
            self._turn()

    def _compute(self, exchanges: list[Exchange], rows: int) -> tuple[list[Message], float]:
        """The answers, one an exchange, and when the model had answered. Never raises."""
        started = perf_counter()
        try:
            outputs = check_outputs(self.loaded.predict(self._join(exchanges)), rows)
        except BaseException as error:  # a model may call sys.exit, and a panic of a Rust library is no Exception
            if len(exchanges) > 1:  # one of them may be at fault; the others should not pay for it
                apart = [self._compute([e], e.request.rows) for e in exchanges]
                return [messages[0] for messages, _ in apart], apart[-1][1]
            return [self._refuse(exchanges[0], error)], perf_counter()
        predicted = perf_counter()
        self.meter.calls += 1
        if self.meter.calls & 7 == 0 or self._running or predicted - started > INLINE_SECONDS:
            self.loaded.cost.learn(rows, predicted - started)
        batch = Batch(outputs)
        messages = []
        start = 0
        for exchange in exchanges:
            request = exchange.request
            stop = start + request.rows
            response = Response(batch, start, stop, request.id or exchange.id)
            try:
                messages.append(exchange.endpoint.codec.encode(request, response))
            except Exception as error:
                messages.append(self._refuse(exchange, error))
            start = stop
        if batch.has_gaps:
            self.meter.gaps += 1
        return messages, predicted

    def _join(self, exchanges: Sequence[Exchange]) -> Columns:
        if len(exchanges) == 1:
            return self._columns(exchanges[0].request)
        rows = []
        for exchange in exchanges:
            tuples = exchange.request.tuples
            if tuples is None:
                return self._layout.concatenate([self._columns(e.request) for e in exchanges])
            rows += tuples
        return self._layout.from_tuples(rows)

    def _columns(self, request: Request) -> Columns:
        return request.columns if request.columns is not None else self._layout.from_tuples(request.tuples or [])

    def _refuse(self, exchange: Exchange, error: BaseException) -> Message:
        if isinstance(error, InvalidInput) and self._is_about_inputs(error):
            return exchange.endpoint.refuse(exchange, error)
        if isinstance(error, ModelFailed):
            told = error
        else:
            reason = str(error) if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
            told = ModelFailed(f"the model {self.loaded.name} failed: {reason}")
            told.__cause__ = error
        self._log.write(
            "error", "model failed", model=self.loaded.name, version=self.loaded.version, request_id=exchange.id,
            error=told,
        )  # fmt: skip
        return exchange.endpoint.refuse(exchange, told)

    def _is_about_inputs(self, error: InvalidInput) -> bool:
        """Whether a model found fault with what it was given, rather than with what it made of it."""
        places = self._layout.places
        return any(problem.path.split("].")[-1].split("[")[0] in places for problem in error.problems)
