"""Calls of a model beside the event loop: in threads, or in the model's own processes.

A lane hands itself over with each call and is told of the outcome on its loop's thread. Nobody here keeps a lane: a
circle of the two would hold its model in memory.
"""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.errors import ModelFailed, NotReady
from modelyard.schema import Columns, check_outputs
from modelyard.serving.calls import Calls, Done, Exchange
from modelyard.serving.isolation.frames import ProcessEnded
from modelyard.serving.parts import Parts

if TYPE_CHECKING:
    from modelyard.serving.engine import Lane

#: Answers of a model process for more rows than this are encoded in a thread.
ENCODED_ON_LOOP = 512

#: Requests of a call that ended its process, of which the log tells the ids.
MOST_SUSPECTS_TOLD = 32


class Beside(Protocol):
    """Where calls run that do not run on the loop."""

    #: Calls that may be under way at once.
    slots: int
    #: In words.
    where: str

    def run(self, lane: Lane, exchanges: list[Exchange], rows: int, reason: str) -> None:
        """Begin a call; ``lane.done`` or ``lane.failed`` is told of its outcome."""

    def run_part(self, lane: Lane, parts: Parts, columns: Columns) -> None:
        """Begin the call of a part, of which ``lane.part_done`` is told."""


class Threads:
    """Calls in threads of ``pool``."""

    def __init__(self, calls: Calls, pool: Executor, slots: int) -> None:
        self._calls = calls
        self._pool = pool
        self.slots = slots
        self.where = f"in up to {slots} thread(s)"

    def run(self, lane: Lane, exchanges: list[Exchange], rows: int, reason: str) -> None:
        lane.begin(exchanges)
        self._pool.submit(self._work, lane, exchanges, rows, reason)

    def _work(self, lane: Lane, exchanges: list[Exchange], rows: int, reason: str) -> None:
        started = perf_counter()
        outcome = self._calls.compute(exchanges, rows, reason)
        if isinstance(outcome, Done):
            lane.tell(lane.done, outcome)
        else:
            lane.tell(lane.failed, exchanges, outcome, rows, started, reason)

    def run_part(self, lane: Lane, parts: Parts, columns: Columns) -> None:
        self._pool.submit(self._work_part, lane, parts, columns)

    def _work_part(self, lane: Lane, parts: Parts, columns: Columns) -> None:
        started = perf_counter()
        result: Columns | BaseException
        try:
            result = lane.loaded.predict(columns)
        except BaseException as error:  # see ``Calls.compute``
            result = error
        lane.tell(lane.part_done, parts, columns.rows, started, result)


class Processes:
    """Calls in the model's own processes (``isolation``); large answers are encoded in threads of ``pool``."""

    def __init__(self, calls: Calls, pool: Executor, remote: Any) -> None:
        self._calls = calls
        self._pool = pool
        self._remote = remote
        self.slots = remote.slots
        self.where = f"in {remote.slots} model process(es)"
        #: When a call last failed: what had come by then waits for a replacement, where one is made.
        self._failed = 0.0

    def run(self, lane: Lane, exchanges: list[Exchange], rows: int, reason: str) -> None:
        started = perf_counter()
        lane.begin(exchanges)
        try:
            columns = self._calls.join(exchanges)
        except Exception as error:
            lane.failed(exchanges, error, rows, started, reason)
            return
        returned = partial(self._returned, lane, exchanges, columns, started, reason)
        self._call(lane, exchanges[0], columns, returned, again=_may_be_made_again(exchanges, reason))

    def run_part(self, lane: Lane, parts: Parts, columns: Columns) -> None:
        returned = partial(self._part_returned, lane, parts, columns.rows, perf_counter())
        self._call(lane, parts.exchange, columns, returned, again=True)

    def predict(self, lane: Lane, exchanges: list[Exchange], reason: str, columns: Columns) -> Columns:
        """A call from a thread, which waits for what comes of it."""
        again = _may_be_made_again(exchanges, reason)
        try:
            outputs: Columns = self._remote.predict(columns, again=again, ended=self._ended_for(exchanges[0]))
        except BaseException as error:
            self._note_failure(lane, exchanges, error)
            raise
        return outputs

    def _call(self, lane: Lane, first: Exchange, columns: Columns, done: Any, *, again: bool) -> None:
        self._remote.call(columns, lane.limits.model_seconds, done, again=again, ended=self._ended_for(first))

    def _ended_for(self, first: Exchange) -> float:
        """When the process ended for whose replacement a call waits; 0 where it need not wait for one."""
        return self._failed if first.received < self._failed else 0.0

    def _returned(
        self, lane: Lane, exchanges: list[Exchange], inputs: Columns, started: float, reason: str,
        result: Columns | BaseException,
    ) -> None:  # fmt: skip
        if isinstance(result, BaseException):
            self._note_failure(lane, exchanges, result)
            lane.failed(exchanges, result, inputs.rows, started, reason)
        elif inputs.rows > ENCODED_ON_LOOP:
            answer = partial(self._answer, lane, exchanges, inputs, started, reason, result)
            self._pool.submit(lambda: lane.tell(lane.done, answer()))
        else:
            lane.done(self._answer(lane, exchanges, inputs, started, reason, result))

    def _answer(
        self, lane: Lane, exchanges: list[Exchange], inputs: Columns, started: float, reason: str, outputs: Columns
    ) -> Done:
        predicted, rows = perf_counter(), inputs.rows
        try:
            check_outputs(outputs, rows)
        except ModelFailed as error:
            messages = [self._calls.refuse(exchange, error) for exchange in exchanges]
            return Done(exchanges, messages, rows, started, predicted, reason, inputs)
        lane.loaded.cost.learn(rows, predicted - started)
        messages = self._calls.encode(exchanges, outputs)
        return Done(exchanges, messages, rows, started, predicted, reason, inputs, outputs)

    def _part_returned(
        self, lane: Lane, parts: Parts, rows: int, started: float, result: Columns | BaseException
    ) -> None:
        if isinstance(result, BaseException):
            self._note_failure(lane, parts.alone, result)
        lane.part_done(parts, rows, started, result)

    def _note_failure(self, lane: Lane, exchanges: list[Exchange], error: BaseException) -> None:
        """Tell whose fault it is, or may be, that a process is gone."""
        if not isinstance(error, NotReady):
            self._failed = perf_counter()
        if not isinstance(error, ProcessEnded):
            return
        if len(exchanges) == 1:
            lane.meter.fatal += 1
        else:
            lane.log.write(
                "warning", "a model process ended under several requests: each runs again alone",
                model=lane.loaded.name, version=lane.loaded.version, requests=len(exchanges),
                request_ids=[exchange.id for exchange in exchanges[:MOST_SUSPECTS_TOLD]],
            )  # fmt: skip


def _may_be_made_again(exchanges: list[Exchange], reason: str) -> bool:
    """Whether a call whose process ends is made once more, or each of its requests by itself."""
    return len(exchanges) == 1 and reason != "suspect"
