"""The engine: requests that wait for the same loaded version become one call of its model. No sockets here.

A lone request is run where it arrives. Where several arrive in one turn of the event loop, or while the model is busy,
they are joined. Nothing ever waits for a timer. What nobody waits for any more is dropped before it is computed.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.errors import DeadlinePassed, InvalidInput, ModelFailed, NotReady, Overloaded
from modelyard.messages import Message
from modelyard.schema import Columns, check_outputs
from modelyard.serving.batching import History, Limits, row_bytes
from modelyard.serving.calls import INLINE_SECONDS, Calls, Exchange
from modelyard.serving.isolation.frames import ProcessEnded
from modelyard.serving.loading import Loaded
from modelyard.serving.metrics import Meter
from modelyard.serving.parts import Parts
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.serving.cache import AnswerCache
    from modelyard.serving.spans import Spans

#: Answers of a model process for more rows than this are encoded in a thread.
ENCODED_ON_LOOP = 512

#: How often the deadlines of requests under way are looked at, in seconds; and those that wait, for callers who left.
WATCH_SECONDS = 0.02
SWEEP_SECONDS = 1.0

#: Requests of a call that ended its process, of which the log tells the ids.
MOST_SUSPECTS_TOLD = 32

#: A call that would take longer than LONG_SECONDS joins no more rows than make what a call costs by itself this small a
#: part of it: more would be no faster, and keep all of them waiting.
LONG_SECONDS = 0.05
FIXED_SHARE = 0.05


class Lane:
    """The requests for one loaded version. Everything that is not said to run in a thread runs on the loop's.

    ``slots`` calls may be under way beside the loop: in threads of ``pool``, or in the model's own processes.
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
    ) -> None:
        self.loaded = loaded
        self.meter = meter
        self.limits = limits or Limits()
        self.history = History()
        self._remote: Any = getattr(loaded, "remote", None)
        self._slots = self._remote.slots if self._remote is not None else slots
        self._cache = cache
        self._spans = spans
        self._calls = Calls(loaded, meter, log, cache)
        self._row_bytes = row_bytes(loaded.signature.input_layout)
        self._loop = loop
        self._pool = pool
        self._log = log
        self._waiting: list[Exchange] = []
        self._waiting_rows = 0
        #: No deadline of what waits is earlier; and when what waits is looked at one by one, at the latest.
        self._soonest = inf
        self._look_at = self._sweep_at = 0.0
        #: Requests of a call that failed, to be run one by one; and those of one under which a model process ended.
        self._apart: list[Exchange] = []
        self._suspects: list[Exchange] = []
        #: When a call of a model process last failed: what had come by then waits for a replacement, where one is made.
        self._failed = 0.0
        #: Requests that run in parts and wait for the next; others run between two parts.
        self._parted: list[Parts] = []
        self._is_parts_turn = False
        #: The calls under way beside the loop, by the ``id`` of their lists.
        self._running: dict[int, list[Exchange]] = {}
        self._watching = False
        #: Why the next call holds what it holds (see ``batching.REASONS``), and what it is when several run together.
        self._reason = self._several = "together"
        #: Turns in a row that brought a single request; from four on, requests are run where they arrive.
        self._singles = 0
        self._turns = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        waiting = len(self._waiting) + len(self._apart) + len(self._suspects) + len(self._parted)
        return waiting + sum(map(len, self._running.values()))

    @property
    def where(self) -> str:
        """Where the next small call would run, in words."""
        if self._remote is not None:
            return f"in {self._slots} model process(es)"
        inline = self.loaded.cost.expect(1) <= INLINE_SECONDS
        return "on the event loop" if inline else f"in up to {self._slots} thread(s)"

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
                waiting.append(exchange)
                self._waiting_rows += exchange.request.rows
                if exchange.deadline < self._soonest:
                    self._soonest = exchange.deadline
                return
        if waiting:
            waiting.append(exchange)
            self._waiting_rows += exchange.request.rows
        elif self._singles >= 4 and self._turns & 15:
            self._turns += 1
            self._reason = "alone"
            self._run([exchange])
        else:  # every sixteenth request looks whether others come with it
            self._turns += 1
            waiting.append(exchange)
            self._waiting_rows = exchange.request.rows
            self._loop.call_soon(self._turn)

    def _answer_again(self, exchange: Exchange) -> bool:
        """Answer from the cache, if it can."""
        started = perf_counter()
        message = self._calls.answer_again(exchange)
        if message is None:
            return False
        exchange.answer(message)
        self.meter.cache_hits += 1
        self.meter.note([exchange], [message], exchange.request.rows, started, started)
        if self._spans is not None:
            self._spans.note(self.loaded, [exchange], [message], exchange.request.rows, started, started)
        return True

    def _check_room(self, exchange: Exchange) -> None:
        """Raise Overloaded where a request would wait too long, or with too many."""
        limits, count, rows = self.limits, len(self._waiting), self._waiting_rows + exchange.request.rows
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
        if not self._running and len(self._waiting) == 1:
            self._singles += 1
        else:
            self._singles = 0
        self._several = "together"
        self._go_on()
        if self._waiting:
            self._soonest = min([exchange.deadline for exchange in self._waiting])

    def _go_on(self) -> None:
        """Run what waits, as far as there is room."""
        while len(self._running) < self._slots:
            whole = self._waiting or self._apart or self._suspects
            if self._parted and (self._is_parts_turn or not whole):
                parts = self._parted.pop(0)
                if self._is_wanted(parts.exchange, perf_counter()):
                    self._run_part(parts)
            elif whole:
                self._is_parts_turn = True
                taken = self._take()
                if self._reason in ("apart", "suspect") or self._several == "gathered":  # they have waited
                    taken = self._wanted(taken)
                if taken:
                    self._run(taken)
            else:
                break

    def _take(self) -> list[Exchange]:
        if self._suspects:
            self._reason = "suspect"
            return [self._suspects.pop()]
        if self._apart:
            self._reason = "apart"
            return [self._apart.pop()]
        waiting = self._waiting
        self._waiting = []
        if len(waiting) == 1:
            self._waiting_rows = 0
            self._reason = "alone"
            return waiting
        self._reason = self._several
        most = self._enough
        if self._waiting_rows > most:
            rows = waiting[0].request.rows
            for i in range(1, len(waiting)):
                more = waiting[i].request.rows
                if rows + more > most:
                    self._waiting = waiting[i:]
                    self._waiting_rows -= rows
                    self._reason = "full"
                    return waiting[:i]
                rows += more
        self._waiting_rows = 0
        return waiting

    def _run(self, exchanges: list[Exchange]) -> None:
        rows = exchanges[0].request.rows if len(exchanges) == 1 else sum([e.request.rows for e in exchanges])
        if rows > self._most:
            self._run_in_parts(exchanges[0])
        elif self._remote is not None:
            self._run_remote(exchanges, rows)
        elif self.loaded.cost.expect(rows) > INLINE_SECONDS:
            self._begin(exchanges)
            self._pool.submit(self._work, exchanges, rows, self._reason)
        else:
            started = perf_counter()
            messages, predicted = self._calls.compute(exchanges, rows)
            for exchange, message in zip(exchanges, messages, strict=True):
                exchange.answer(message)
            self._note(exchanges, messages, rows, started, predicted, self._reason)

    def _note(
        self, exchanges: list[Exchange], messages: list[Message], rows: int, started: float, predicted: float,
        reason: str,
    ) -> None:  # fmt: skip
        self.meter.note(exchanges, messages, rows, started, predicted)
        if self._spans is not None:
            self._spans.note(self.loaded, exchanges, messages, rows, started, predicted)
        self.history.note(reason, len(exchanges), rows, started - exchanges[0].decoded, predicted - started)

    # In a thread.

    def _work(self, exchanges: list[Exchange], rows: int, reason: str) -> None:
        started = perf_counter()
        messages, predicted = self._calls.compute(exchanges, rows)
        self.tell(self._done, exchanges, messages, rows, started, predicted, reason)

    def tell(self, function: Any, *arguments: Any) -> None:
        """Call ``function`` on the loop's thread."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits for the answer any more
            self._log.write("warning", "answers dropped", model=self.loaded.name)

    def _done(
        self, exchanges: list[Exchange], messages: list[Message], rows: int, started: float, predicted: float,
        reason: str,
    ) -> None:  # fmt: skip
        del self._running[id(exchanges)]
        for exchange, message in zip(exchanges, messages, strict=True):
            if not exchange.is_settled:
                exchange.answer(message)
        self._note(exchanges, messages, rows, started, predicted, reason)
        self._after_waiting()

    def _after_waiting(self) -> None:
        """Go on after a call beside the loop: what came meanwhile runs together, without what nobody waits for."""
        if self._waiting:
            self._several = "gathered"
        self._go_on()

    def _wanted(self, exchanges: list[Exchange]) -> list[Exchange]:
        """Those of waiting requests that somebody still waits for; the others are refused, or forgotten."""
        now = perf_counter()
        return [exchange for exchange in exchanges if self._is_wanted(exchange, now)]

    def _drop_stale(self) -> None:
        """Forget waiting requests whose callers are gone, and refuse those whose deadline has passed."""
        # What an answer lets in is appended meanwhile, and looked at too.
        self._waiting = self._wanted(self._waiting)
        self._waiting_rows = sum([exchange.request.rows for exchange in self._waiting])
        self._soonest = min([exchange.deadline for exchange in self._waiting], default=inf)

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

    # Deadlines of what is under way.

    def _begin(self, exchanges: list[Exchange]) -> None:
        self._running[id(exchanges)] = exchanges
        if not self._watching:
            self._watching = True
            self._loop.call_later(WATCH_SECONDS, self._watch)

    def _watch(self) -> None:
        """Answer, in time, those whose deadline passes while their model still works or before it begins."""
        self._watching = bool(self._running or self._waiting)
        if not self._watching:
            return
        self._loop.call_later(WATCH_SECONDS, self._watch)
        now = perf_counter()
        if now >= self._sweep_at or (self._soonest <= now and now >= self._look_at):
            # To look at one that waits takes half a microsecond; of many, more seldom, so that it stays a hundredth.
            self._look_at = now + len(self._waiting) * 5e-5
            self._sweep_at = now + max(SWEEP_SECONDS, len(self._waiting) * 5e-5)
            self._drop_stale()
        if self._apart:
            self._apart = self._wanted(self._apart)
        if self._suspects:
            self._suspects = self._wanted(self._suspects)
        if self._parted:
            self._parted = [parts for parts in self._parted if self._is_wanted(parts.exchange, now)]
        for exchanges in list(self._running.values()):
            for exchange in exchanges:
                if exchange.deadline <= now and not exchange.is_settled:
                    self._give_up(exchange, now)

    def _give_up(self, exchange: Exchange, now: float) -> None:
        exchange.is_settled = True
        waited = now - exchange.received
        error = DeadlinePassed(
            f"{self.loaded.name} had no answer when the request's time was up, after {waited:.3g} s",
            hint="give it more time with the header x-request-timeout, or send fewer rows",
        )
        self.turn_down(exchange, error)

    def turn_down(self, exchange: Exchange, error: Exception) -> None:
        """Refuse a request for which the model is not asked, or not waited for."""
        refusal = exchange.endpoint.refuse(exchange, error)
        self.meter.refused[refusal.code] += 1
        exchange.answer(refusal)
        if self._spans is not None:
            self._spans.note_refused(self.loaded, exchange, refusal)

    # In the model's own process.

    def _run_remote(self, exchanges: list[Exchange], rows: int) -> None:
        started = perf_counter()
        try:
            columns = self._calls.join(exchanges)
        except Exception as error:
            self._settle(exchanges, error, rows, started)
            return
        self._begin(exchanges)
        returned = partial(self._returned, exchanges, rows, started, self._reason)
        again = len(exchanges) == 1 and self._reason != "suspect"
        self._call_remote(exchanges[0], columns, returned, again)

    def _call_remote(self, first: Exchange, columns: Columns, done: Any, again: bool) -> None:
        ended = self._failed if first.received < self._failed else 0.0
        self._remote.call(columns, self.limits.model_seconds, done, again=again, ended=ended)

    def _returned(
        self, exchanges: list[Exchange], rows: int, started: float, reason: str, result: Columns | BaseException
    ) -> None:
        if isinstance(result, BaseException):
            del self._running[id(exchanges)]
            self._note_failure(exchanges, result)
            self._settle(exchanges, result, rows, started)
            self._after_waiting()
        elif rows > ENCODED_ON_LOOP:
            self._pool.submit(self._encode_in_thread, exchanges, rows, started, reason, result)
        else:
            predicted = perf_counter()
            messages = self._answers(exchanges, rows, started, predicted, result)
            self._done(exchanges, messages, rows, started, predicted, reason)

    def _encode_in_thread(
        self, exchanges: list[Exchange], rows: int, started: float, reason: str, outputs: Columns
    ) -> None:
        predicted = perf_counter()
        messages = self._answers(exchanges, rows, started, predicted, outputs)
        self.tell(self._done, exchanges, messages, rows, started, predicted, reason)

    def _answers(
        self, exchanges: list[Exchange], rows: int, started: float, predicted: float, outputs: Columns
    ) -> list[Message]:
        try:
            check_outputs(outputs, rows)
        except ModelFailed as error:
            return [self._calls.refuse(exchange, error) for exchange in exchanges]
        self.loaded.cost.learn(rows, predicted - started)
        return self._calls.encode(exchanges, outputs)

    def _note_failure(self, exchanges: list[Exchange], error: BaseException) -> None:
        """A call in a model process failed: tell whose fault it is, or may be, where the process is gone."""
        if not isinstance(error, NotReady):
            self._failed = perf_counter()
        if not isinstance(error, ProcessEnded):
            return
        if len(exchanges) == 1:
            self.meter.fatal += 1
        else:
            self._log.write(
                "warning", "a model process ended under several requests: each runs again alone",
                model=self.loaded.name, version=self.loaded.version, requests=len(exchanges),
                request_ids=[exchange.id for exchange in exchanges[:MOST_SUSPECTS_TOLD]],
            )  # fmt: skip

    def _settle(self, exchanges: list[Exchange], error: BaseException, rows: int, started: float) -> None:
        """After a call that failed as a whole: where one request may be at fault, each runs again by itself."""
        if len(exchanges) > 1 and not isinstance(error, (NotReady, DeadlinePassed)):
            again = [exchange for exchange in exchanges if not exchange.is_settled]
            if isinstance(error, ProcessEnded):
                self._suspects += again
            else:
                self._apart += again
            return
        messages = [self._calls.refuse(exchange, error) for exchange in exchanges]
        for exchange, message in zip(exchanges, messages, strict=True):
            if not exchange.is_settled:
                exchange.answer(message)
        self._note(exchanges, messages, rows, started, perf_counter(), self._reason)

    # In parts.

    def _run_in_parts(self, exchange: Exchange) -> None:
        started = perf_counter()
        try:
            columns = self._calls.columns(exchange.request)
        except Exception as error:
            self._settle([exchange], error, exchange.request.rows, started)
        else:
            self._run_part(Parts(exchange, columns, started))

    def _run_part(self, parts: Parts) -> None:
        """The next rows of a request that holds more than a call may."""
        self._is_parts_turn = False
        started = perf_counter()
        columns = parts.next(self._most)
        self._begin(parts.alone)
        if self._remote is not None:
            self._call_remote(parts.exchange, columns, partial(self._part_done, parts, columns.rows, started), True)
        else:
            self._pool.submit(self._work_part, parts, columns, started)

    def _work_part(self, parts: Parts, columns: Columns, started: float) -> None:
        """A part in a thread."""
        result: Columns | BaseException
        try:
            result = self.loaded.predict(columns)
        except BaseException as error:  # see ``Calls.compute``
            result = error
        self.tell(self._part_done, parts, columns.rows, started, result)

    def _part_done(self, parts: Parts, rows: int, started: float, result: Columns | BaseException) -> None:
        del self._running[id(parts.alone)]
        exchange, now = parts.exchange, perf_counter()
        self.meter.calls += 1
        self.history.note("part", 1, rows, started - exchange.decoded, now - started)
        try:
            if isinstance(result, BaseException):
                raise result
            parts.add(check_outputs(result, rows), now - started)
        except BaseException as error:
            self._note_failure(parts.alone, error)
            if not exchange.is_settled:
                self._settle(parts.alone, error, rows, parts.started)
        else:
            self.loaded.cost.learn(rows, now - started)
            if parts.are_all_there:
                self._begin(parts.alone)
                self._pool.submit(self._join_parts, parts)
            else:
                self._parted.append(parts)
        self._after_waiting()

    def _join_parts(self, parts: Parts) -> None:
        """The answer from all parts, in a thread."""
        try:
            outputs = self.loaded.signature.output_layout.concatenate(parts.outputs)
            messages = self._calls.encode(parts.alone, outputs)
        except BaseException as error:  # such as parts whose shapes differ
            messages = [self._calls.refuse(parts.exchange, error)]
        predicted = parts.started + parts.seconds
        self.tell(self._done, parts.alone, messages, parts.columns.rows, parts.started, predicted, "part")
