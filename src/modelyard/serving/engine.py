"""The engine: requests that wait for the same loaded version become one call of its model. No sockets here.

A lone request is run where it arrives. Where several arrive in one turn of the event loop, or while the model is busy,
they are joined. Nothing ever waits for a timer. What nobody waits for any more is dropped before it is computed.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.errors import DeadlinePassed, InvalidInput, NotReady, Overloaded
from modelyard.schema import Columns, check_outputs
from modelyard.serving.batching import History, Limits, row_bytes
from modelyard.serving.beside import Beside, Processes, Threads
from modelyard.serving.calls import INLINE_SECONDS, Calls, Done, Exchange
from modelyard.serving.isolation.frames import ProcessEnded
from modelyard.serving.loading import Loaded
from modelyard.serving.metrics import Meter
from modelyard.serving.parts import Parts
from modelyard.serving.waiting import Waiting
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.serving.cache import AnswerCache
    from modelyard.serving.noting import Book
    from modelyard.serving.spans import Spans

#: How often the deadlines of requests under way are looked at, in seconds.
WATCH_SECONDS = 0.02

#: A call that would take longer than LONG_SECONDS joins no more rows than make what a call costs by itself this small a
#: part of it: more would be no faster, and keep all of them waiting.
LONG_SECONDS = 0.05
FIXED_SHARE = 0.05


class Lane:
    """The requests for one loaded version. Everything that is not said to run in a thread runs on the loop's.

    ``slots`` calls may be under way beside the loop: in threads of ``pool``, or in the model's own processes; where it
    ``is_beside``, all are.
    """

    def __init__(
        self,
        loaded: Loaded,
        meter: Meter,
        loop: asyncio.AbstractEventLoop,
        pool: Executor,
        log: Log,
        *,
        limits: Limits | None = None,
        slots: int = 1,
        cache: AnswerCache | None = None,
        spans: Spans | None = None,
        book: Book | None = None,
        is_beside: bool = False,
    ) -> None:
        self.loaded = loaded
        self.meter = meter
        self.limits = limits or Limits()
        self.history = History()
        self.log = log
        self._cache = cache
        self._spans = spans
        #: Where calls are noted for the recorder, if they are.
        self._book = book
        self._calls = Calls(loaded, meter, log, cache)
        self._loop = loop
        self._pool = pool
        remote = getattr(loaded, "remote", None)
        self._beside: Beside = Threads(self._calls, pool, slots)
        #: Calls that should take no longer run on the loop.
        self._inline_seconds = INLINE_SECONDS
        if remote is not None:
            self._beside = Processes(self._calls, pool, remote)
        if remote is not None or is_beside:
            self._inline_seconds = -1.0
        self._slots = self._beside.slots
        self._row_bytes = row_bytes(loaded.signature.input_layout)
        self._waiting = Waiting()
        #: The calls under way beside the loop, by the ``id`` of their lists.
        self._running: dict[int, list[Exchange]] = {}
        self._watching = False
        #: Why a call of several requests holds them (see ``batching.REASONS``).
        self._several = "together"
        #: Turns in a row that brought a single request; from four on, requests are run where they arrive.
        self._singles = 0
        self._turns = 0

    @property
    def is_routed(self) -> bool:
        """Whether a route leads here, so that requests come by its arms."""
        return self._book is not None and self._book.is_routed

    @is_routed.setter
    def is_routed(self, is_so: bool) -> None:
        if self._book is not None:
            self._book.is_routed = is_so

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return len(self._waiting) + sum(map(len, self._running.values()))

    @property
    def where(self) -> str:
        """Where the next small call would run, in words."""
        return "on the event loop" if self.loaded.cost.expect(1) <= self._inline_seconds else self._beside.where

    @property
    def _most(self) -> int:
        """Rows that one call may hold."""
        return max(1, min(self.limits.batch_rows, self.limits.batch_bytes // self._row_bytes))

    @property
    def _enough(self) -> int:
        """Rows that one call joins; a single request may hold more."""
        cost, most = self.loaded.cost, self._most
        long = max(LONG_SECONDS, cost.per_call / FIXED_SHARE)
        return max(1, int(long / cost.per_row)) if cost.per_row * most > long else most

    # Coming in.

    def submit(self, exchange: Exchange) -> None:
        """Run a decoded request, now or with others.

        Raises Overloaded where too many wait, DeadlinePassed where its time was up before, InvalidInput where it
        holds too many rows.
        """
        if exchange.deadline <= exchange.decoded:
            raise DeadlinePassed(
                f"{self.loaded.name} was not asked: the request's time was up when it had been read",
                hint="give it more time with the header x-request-timeout",
            )
        if exchange.request.rows > self.limits.max_rows:
            raise InvalidInput.at(
                "body", f"at most {self.limits.max_rows} rows in one request", str(exchange.request.rows),
                hint="send fewer rows at once, or set MODELYARD_MAX_ROWS for the server",
            )  # fmt: skip
        if self._cache is not None and self._answer_again(exchange):
            return
        waiting = self._waiting
        if self._running:
            self._singles = 0
            if len(self._running) >= self._slots:
                self._check_room(exchange)
                waiting.requests.append(exchange)
                waiting.rows += exchange.request.rows
                if exchange.deadline < waiting.soonest:
                    waiting.soonest = exchange.deadline
                return
        if waiting.requests:
            waiting.requests.append(exchange)
            waiting.rows += exchange.request.rows
        elif self._singles >= 4 and self._turns & 15:
            self._turns += 1
            self._run([exchange], "alone")
        else:  # every sixteenth request looks whether others come with it
            self._turns += 1
            waiting.requests.append(exchange)
            waiting.rows = exchange.request.rows
            self._loop.call_soon(self._turn)

    def _answer_again(self, exchange: Exchange) -> bool:
        """Answer from the cache, if it can."""
        done = self._calls.answer_again(exchange)
        if done is None:
            return False
        exchange.answer(done.messages[0])
        self.meter.cache_hits += 1
        self._tell_of(done)
        return True

    def _check_room(self, exchange: Exchange) -> None:
        """Raise Overloaded where a request would wait too long, or with too many."""
        limits, count = self.limits, len(self._waiting.requests)
        rows = self._waiting.rows + exchange.request.rows
        cost = self.loaded.cost
        wait = (cost.per_row * rows + cost.per_call * (1 + rows // self._most)) / self._slots
        most = min(limits.queue_seconds, exchange.deadline - perf_counter())
        if count >= limits.queue_requests or (count and (rows > limits.queue_rows or wait > most)):
            raise Overloaded(
                f"too many requests wait for {self.loaded.name}: {count}, for about {wait:.2g} s",
                hint="try again later, or serve it with more workers",
                retry_after=max(1, round(wait)),
            )

    # One call after the other.

    def _turn(self) -> None:
        if not self._running and len(self._waiting.requests) == 1:
            self._singles += 1
        else:
            self._singles = 0
        self._several = "together"
        self._go_on()
        if self._waiting.requests:
            self._waiting.note_deadlines()

    def _go_on(self) -> None:
        """Run what waits, as far as there is room."""
        waiting = self._waiting
        while len(self._running) < self._slots and len(waiting):
            parts = waiting.take_parts()
            if parts is not None:
                if self._is_wanted(parts.exchange, perf_counter()):
                    self._run_part(parts)
                continue
            taken, reason = waiting.take(self._enough, self._several)
            if self._several == "gathered" or reason in ("apart", "suspect"):  # they have waited
                now = perf_counter()
                taken = [exchange for exchange in taken if self._is_wanted(exchange, now)]
            if taken:
                self._run(taken, reason)

    def _run(self, exchanges: list[Exchange], reason: str) -> None:
        rows = exchanges[0].request.rows if len(exchanges) == 1 else sum([e.request.rows for e in exchanges])
        if rows > self._most:
            self._run_in_parts(exchanges[0])
        elif self.loaded.cost.expect(rows) > self._inline_seconds:
            self._beside.run(self, exchanges, rows, reason)
        else:
            done = self._calls.compute(exchanges, rows, reason)
            if isinstance(done, Done):
                for exchange, message in zip(exchanges, done.messages, strict=True):
                    exchange.answer(message)
                self._note(done)
            else:
                self._waiting.apart += exchanges

    def _note(self, done: Done) -> None:
        self._tell_of(done)
        exchanges, started = done.exchanges, done.started
        waited, took = started - exchanges[0].decoded, done.predicted - started
        self.history.note(done.reason, len(exchanges), done.rows, waited, took)

    def _tell_of(self, done: Done) -> None:
        """Tell all who count or keep what was answered."""
        self.meter.note(done.exchanges, done.messages, done.rows, done.started, done.predicted)
        if self._spans is not None:
            self._spans.note(self.loaded, done)
        if self._book is not None:
            self._book.note(done.exchanges, done.messages, done.started, done.predicted, done.inputs, done.outputs)

    # What comes back from beside the loop.

    def tell(self, function: Any, *arguments: Any) -> None:
        """Call ``function`` on the loop's thread."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits for the answer any more
            self.log.write("warning", "answers dropped", model=self.loaded.name)

    def begin(self, exchanges: list[Exchange]) -> None:
        """A call beside the loop begins."""
        self._running[id(exchanges)] = exchanges
        if not self._watching:
            self._watching = True
            self._loop.call_later(WATCH_SECONDS, self._watch)

    def done(self, done: Done) -> None:
        """A call beside the loop has ended: answer, and go on."""
        del self._running[id(done.exchanges)]
        for exchange, message in zip(done.exchanges, done.messages, strict=True):
            if not exchange.is_settled:
                exchange.answer(message)
        self._note(done)
        self._after_waiting()

    def failed(self, exchanges: list[Exchange], error: BaseException, rows: int, started: float, reason: str) -> None:
        """A call beside the loop has failed as a whole."""
        del self._running[id(exchanges)]
        self._settle(exchanges, error, rows, started, reason)
        self._after_waiting()

    def _settle(self, exchanges: list[Exchange], error: BaseException, rows: int, started: float, reason: str) -> None:
        """Where one request of several may be at fault, each runs again by itself; else they are refused."""
        if len(exchanges) > 1 and not isinstance(error, (NotReady, DeadlinePassed)):
            again = [exchange for exchange in exchanges if not exchange.is_settled]
            if isinstance(error, ProcessEnded):
                self._waiting.suspects += again
            else:
                self._waiting.apart += again
            return
        messages = [self._calls.refuse(exchange, error) for exchange in exchanges]
        for exchange, message in zip(exchanges, messages, strict=True):
            if not exchange.is_settled:
                exchange.answer(message)
        self._note(Done(exchanges, messages, rows, started, perf_counter(), reason))

    def _after_waiting(self) -> None:
        """Go on after a call beside the loop: what came meanwhile runs together, without what nobody waits for."""
        if self._waiting.requests:
            self._several = "gathered"
        self._go_on()

    # What nobody waits for any more.

    def _watch(self) -> None:
        """Answer, in time, those whose deadline passes while their model still works or before it begins."""
        self._watching = bool(self._running or self._waiting.requests)
        if not self._watching:
            return
        self._loop.call_later(WATCH_SECONDS, self._watch)
        self._waiting.look(self._is_wanted)
        now = perf_counter()
        for exchanges in list(self._running.values()):
            for exchange in exchanges:
                if exchange.deadline <= now and not exchange.is_settled:
                    self._give_up(exchange, now)

    def _is_wanted(self, exchange: Exchange, now: float) -> bool:
        if exchange.is_settled:
            return False
        if exchange.is_gone:
            exchange.is_settled = True
            self.meter.refused["cancelled"] += 1
            return False
        if exchange.deadline <= now:
            self._give_up(exchange, now)
            return False
        return True

    def _give_up(self, exchange: Exchange, now: float) -> None:
        exchange.is_settled = True
        waited = now - exchange.received
        error = DeadlinePassed(
            f"{self.loaded.name} had no answer when the request's time was up, after {waited:.3g} s",
            hint="give it more time with the header x-request-timeout, or send fewer rows",
        )
        self.turn_down(exchange, error)

    def turn_down(self, exchange: Exchange, error: Exception, body: Any = b"") -> None:
        """Refuse a request for which the model is not asked, or not waited for; ``body`` is what could not be read."""
        refusal = exchange.endpoint.refuse(exchange, error)
        self.meter.refused[refusal.code] += 1
        exchange.answer(refusal)
        if self._spans is not None:
            self._spans.note_refused(self.loaded, exchange, refusal)
        if self._book is not None:
            self._book.note_refused(exchange, refusal, error, body)

    # In parts.

    def _run_in_parts(self, exchange: Exchange) -> None:
        started = perf_counter()
        try:
            columns = self._calls.columns(exchange.request)
        except Exception as error:
            self._settle([exchange], error, exchange.request.rows, started, "part")
        else:
            self._run_part(Parts(exchange, columns, started))

    def _run_part(self, parts: Parts) -> None:
        """The next rows of a request that holds more than a call may."""
        self._waiting.is_parts_turn = False
        self.begin(parts.alone)
        self._beside.run_part(self, parts, parts.next(self._most))

    def part_done(self, parts: Parts, rows: int, started: float, result: Columns | BaseException) -> None:
        """The call of a part has ended beside the loop."""
        del self._running[id(parts.alone)]
        exchange, now = parts.exchange, perf_counter()
        self.meter.calls += 1
        self.history.note("part", 1, rows, started - exchange.decoded, now - started)
        try:
            if isinstance(result, BaseException):
                raise result
            parts.add(check_outputs(result, rows), now - started)
        except BaseException as error:
            if not exchange.is_settled:
                self._settle(parts.alone, error, rows, parts.started, "part")
        else:
            self.loaded.cost.learn(rows, now - started)
            if parts.are_all_there:
                self.begin(parts.alone)
                self._pool.submit(lambda: self.tell(self.done, self._calls.finish(parts)))
            else:
                self._waiting.parted.append(parts)
        self._after_waiting()
