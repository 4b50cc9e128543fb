"""What is joined, what runs where, and who pays for a fault."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import InvalidInput, ModelFailed, NotReady, Overloaded
from modelyard.messages import Call, Message
from modelyard.schema import Columns, Field, Signature
from modelyard.serving import engine
from modelyard.serving.batching import Limits, explain
from modelyard.serving.cache import AnswerCache
from modelyard.serving.calls import Exchange
from modelyard.serving.cost import Cost
from modelyard.serving.engine import Lane
from modelyard.serving.isolation.frames import ProcessEnded
from modelyard.serving.loading import Loaded
from modelyard.serving.metrics import Meter
from modelyard.serving.sources import Wanted
from modelyard.telemetry import Log
from modelyard.testing.memory import MemoryBundle
from modelyard.wires.native import NativeWire

from .conftest import INPUTS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not have a small call believed to be a long one."""
    monkeypatch.setattr(engine, "INLINE_SECONDS", 0.4)


class Answers(Exchange, gc=False, kw_only=True):
    """An exchange that keeps its answer."""

    got: list[Message]
    gone: bool = False

    @property
    def is_gone(self) -> bool:
        return self.gone

    def answer(self, message: Message) -> None:
        self.got.append(message)


class Endpoint:
    def __init__(self, loaded: Loaded) -> None:
        self.codec = NativeWire().codec(Call("predict"), loaded)

    def refuse(self, exchange: Exchange, error: Exception) -> Message:
        return NativeWire().refuse(None, error, exchange.id)


class Model:
    """A model that notes the rows of its calls."""

    def __init__(self, function: Callable[[Columns], Any], shape: tuple[int, ...] = ()) -> None:
        self.calls: list[int] = []
        self.threads: list[str] = []

        def noted(columns: Columns) -> Any:
            self.calls.append(columns.rows)
            self.threads.append(threading.current_thread().name)
            return function(columns)

        outputs = (Field(name="prediction", dtype="float64", shape=shape),)
        bundle = MemoryBundle(Signature(inputs=INPUTS, outputs=outputs), noted, {"x1": [0.0], "x2": [0.0]})
        wanted = Wanted(model="m", version="1", digest="d", aliases=(), open=lambda: bundle)
        self.loaded = Loaded(wanted, bundle, bundle.load())
        self.endpoint = Endpoint(self.loaded)
        self.meter = Meter("m", "1")


def plus_one(columns: Columns) -> dict[str, Any]:
    if (columns["x1"] == 13).any():
        raise ValueError("thirteen")
    return {"prediction": columns["x1"] + 1}


def drive(
    model: Model, bodies: list[list[bytes]], pool: ThreadPoolExecutor | None = None, **options: Any
) -> list[list[Answers]]:
    """Submit each list of bodies within one turn of the loop; returns when all are answered."""

    async def live() -> list[list[Answers]]:
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), pool or threads, Log("error"), **options)
        turns = []
        for turn in bodies:
            exchanges = [Answers(id=str(i), received=0.0, endpoint=model.endpoint, got=[]) for i in range(len(turn))]
            for exchange, body in zip(exchanges, turn, strict=True):
                exchange.request = model.endpoint.codec.decode(body, {})
                lane.submit(exchange)
            turns.append(exchanges)
            while not all(exchange.got for exchange in exchanges):
                await asyncio.sleep(0)
        assert lane.in_flight == 0
        return turns

    with ThreadPoolExecutor(1, thread_name_prefix="pool") as threads:
        return asyncio.run(live())


def row(x1: float) -> bytes:
    return b'{"x1": %f, "x2": 0}' % x1


def predictions(exchanges: list[Answers]) -> list[Any]:
    import msgspec

    told = [msgspec.json.decode(exchange.got[0].body) for exchange in exchanges]
    assert all(len(exchange.got) == 1 for exchange in exchanges)
    return [answer.get("prediction", answer.get("error", {}).get("code")) for answer in told]


def test_requests_of_one_turn_become_one_call() -> None:
    model = Model(plus_one)
    (exchanges,) = drive(model, [[row(i) for i in range(10)]])
    assert predictions(exchanges) == [i + 1 for i in range(10)]
    assert model.calls == [10]


def test_records_lists_and_columns_are_joined_too() -> None:
    model = Model(plus_one)
    (exchanges,) = drive(model, [[row(1), b'[{"x1":2,"x2":0},{"x1":3,"x2":0}]', b'{"x1":[4,5],"x2":[0,0]}']])
    assert predictions(exchanges)[0] == 2
    assert b'{"predictions":[{"prediction":3.0},{"prediction":4.0}]' in exchanges[1].got[0].body
    assert b'{"prediction":[5.0,6.0]' in exchanges[2].got[0].body
    assert model.calls == [5]


def test_a_lone_caller_is_answered_where_it_arrives() -> None:
    model = Model(plus_one)

    async def live() -> int:
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), threads, Log("error"))
        at_once = 0
        for i in range(50):
            exchange = Answers(id="", received=0.0, endpoint=model.endpoint, got=[])
            exchange.request = model.endpoint.codec.decode(row(i), {})
            lane.submit(exchange)
            at_once += bool(exchange.got)
            await asyncio.sleep(0)
            assert exchange.got
        return at_once

    with ThreadPoolExecutor(1) as threads:
        assert asyncio.run(live()) >= 40


def test_a_bad_row_fails_alone() -> None:
    model = Model(plus_one)
    (exchanges,) = drive(model, [[row(1), row(13), row(2)]])
    assert predictions(exchanges) == [2.0, "model_failed", 3.0]
    assert model.meter.ok == 2
    assert model.meter.refused == {"model_failed": 1}
    assert b"thirteen" in exchanges[1].got[0].body


class Panic(BaseException):
    """As libraries written in Rust raise."""


@pytest.mark.parametrize("error", [SystemExit(3), Panic("at src/lib.rs")])
@pytest.mark.parametrize("slow", [False, True], ids=["on the loop", "in a thread"])
def test_a_model_cannot_end_the_server_nor_hold_its_lane(error: BaseException, slow: bool) -> None:
    def die(columns: Columns) -> Any:
        if (columns["x1"] == 13).any():
            raise error
        return {"prediction": columns["x1"]}

    model = Model(die)
    if slow:
        model.loaded.cost.learn(1, 1.0)
    turns = drive(model, [[row(13)], [row(2)]])
    assert [predictions(exchanges) for exchanges in turns] == [["model_failed"], [2.0]]
    assert type(error).__name__.encode() in turns[0][0].got[0].body


def test_a_model_that_breaks_its_row_count_has_failed() -> None:
    model = Model(lambda columns: {"prediction": np.zeros(columns.rows + 1)})
    (exchanges,) = drive(model, [[row(1), row(2)]])
    assert predictions(exchanges) == ["model_failed", "model_failed"]
    assert b"answered 2 rows for 1" in exchanges[0].got[0].body


def test_a_models_own_refusal_of_the_input_is_the_callers_fault() -> None:
    def refuse(columns: Columns) -> Any:
        raise InvalidInput.at("[0].x1[2]", "something else", "this")

    (exchanges,) = drive(Model(refuse), [[row(1)]])
    assert predictions(exchanges) == ["invalid_input"]


def test_a_models_refusal_of_its_own_output_is_not() -> None:
    def refuse(columns: Columns) -> Any:
        raise InvalidInput.at("[0].prediction", "a number", "a missing value")

    (exchanges,) = drive(Model(refuse), [[row(1)]])
    assert predictions(exchanges) == ["model_failed"]


def test_a_costly_call_runs_in_a_thread_and_gathers_meanwhile() -> None:
    model = Model(plus_one)
    for _ in range(5):
        model.loaded.cost.learn(1, 1.0)
    turns = drive(model, [[row(1)], [row(2), row(3)]])
    assert [predictions(turn) for turn in turns] == [[2.0], [3.0, 4.0]]
    assert all(name.startswith("pool") for name in model.threads)


def test_what_comes_while_a_call_runs_becomes_the_next_call() -> None:
    gate = threading.Event()

    def wait(columns: Columns) -> Any:
        gate.wait(60)
        return {"prediction": columns["x1"]}

    model = Model(wait)
    model.loaded.cost.learn(1, 1.0)

    async def live() -> None:
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), threads, Log("error"))
        exchanges = []
        for i in range(6):
            exchange = Answers(id="", received=0.0, endpoint=model.endpoint, got=[])
            exchange.request = model.endpoint.codec.decode(row(i), {})
            lane.submit(exchange)
            exchanges.append(exchange)
            await asyncio.sleep(0.005)
        assert lane.in_flight == 6
        gate.set()
        while not all(exchange.got for exchange in exchanges):
            await asyncio.sleep(0.001)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(live())
    assert model.calls == [1, 5]


def test_too_many_waiting_requests_are_refused() -> None:
    gate = threading.Event()

    def wait(columns: Columns) -> Any:
        gate.wait(60)
        return {"prediction": columns["x1"]}

    model = Model(wait)
    model.loaded.cost.learn(1, 1.0)

    async def live() -> None:
        loop, limits = asyncio.get_running_loop(), Limits(queue_requests=3, queue_seconds=60.0)
        lane = Lane(model.loaded, model.meter, loop, threads, Log("error"), limits=limits)
        kept = []
        for i in range(5):
            exchange = Answers(id="", received=0.0, endpoint=model.endpoint, got=[])
            exchange.request = model.endpoint.codec.decode(row(i), {})
            if i == 4:
                with pytest.raises(Overloaded):
                    lane.submit(exchange)
            else:
                lane.submit(exchange)
                kept.append(exchange)
            await asyncio.sleep(0.002)
        gate.set()
        while not all(exchange.got for exchange in kept):
            await asyncio.sleep(0.001)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(live())


def test_joined_rows_have_a_limit() -> None:
    model = Model(plus_one)
    (exchanges,) = drive(model, [[row(i) for i in range(10)]], limits=Limits(batch_rows=4))
    assert predictions(exchanges) == [i + 1 for i in range(10)]
    assert model.calls == [4, 4, 2]


def test_not_finite_outputs_are_null_and_said_to_be() -> None:
    model = Model(lambda columns: {"prediction": np.where(columns["x1"] > 1, np.nan, columns["x1"])})
    (exchanges,) = drive(model, [[row(1), row(2)]])
    assert b"warnings" not in exchanges[0].got[0].body
    assert b'{"prediction":null,"warnings":["prediction is not a finite number' in exchanges[1].got[0].body
    assert model.meter.gaps == 1


def test_a_failed_model_says_what_failed() -> None:
    failed = ModelFailed("the graph broke")

    def fail(columns: Columns) -> Any:
        raise failed

    (exchanges,) = drive(Model(fail), [[row(1)]])
    assert b"the graph broke" in exchanges[0].got[0].body


class TestCost:
    def test_it_learns_a_and_b(self) -> None:
        cost = Cost()
        for i in range(200):
            rows = 1 + i % 50
            cost.learn(rows, 0.001 * rows + 0.01)
        assert cost.per_row == pytest.approx(0.001)
        assert cost.per_call == pytest.approx(0.01)
        assert cost.expect(100) == pytest.approx(0.11)

    def test_calls_of_one_size_tell_only_of_that_size(self) -> None:
        cost = Cost()
        for _ in range(10):
            cost.learn(1, 0.005)
        assert cost.expect(1) == pytest.approx(0.005)

    def test_it_forgets(self) -> None:
        cost = Cost()
        cost.learn(1, 1.0)
        for _ in range(500):
            cost.learn(1, 0.001)
        assert cost.expect(1) < 0.002

    def test_one_interrupted_call_hardly_counts(self) -> None:
        cost = Cost()
        for _ in range(100):
            cost.learn(1, 0.00001)
        cost.learn(1, 0.5)
        assert cost.expect(1) < 0.00002

    def test_a_model_that_became_slow_is_learned(self) -> None:
        cost = Cost()
        for _ in range(100):
            cost.learn(1, 0.00001)
        for _ in range(60):
            cost.learn(1, 0.01)
        assert cost.expect(1) > 0.002

    def test_nothing_is_negative(self) -> None:
        cost = Cost()
        for rows, seconds in ((1, 0.0), (100, 1.0), (1, 0.0), (50, 0.1)):
            cost.learn(rows, seconds)
            assert cost.per_row >= 0 and cost.per_call >= 0


# Under way beside the loop.


def many(xs: list[float]) -> bytes:
    return b'{"x1": [%s], "x2": [%s]}' % (b",".join(b"%f" % x for x in xs), b",".join(b"0" for _ in xs))


def slow(model: Model) -> Model:
    """``model``, believed to take long, so that it runs in a thread."""
    model.loaded.cost.learn(1, 1.0)
    return model


def test_a_call_joins_no_more_than_make_it_long() -> None:
    """Where each row costs much and the call by itself little, more rows in a call only keep all of them waiting."""

    class Known(Cost):
        def learn(self, rows: int, seconds: float) -> None: ...

    model = Model(plus_one)
    cost = model.loaded.cost = Known()
    cost.per_row = 0.02
    drive(model, [[row(i) for i in range(5)] + [many([5, 6, 7, 8])]], limits=Limits(queue_seconds=60))
    assert model.calls == [2, 2, 1, 4]
    model.calls.clear()
    cost.per_call = 1.0  # now what the call costs by itself is worth sharing
    drive(model, [[row(i) for i in range(9)]], limits=Limits(queue_seconds=60))
    assert model.calls == [9]


def test_a_request_larger_than_a_call_runs_in_parts_with_others_between_them() -> None:
    model = slow(Model(plus_one))
    big, small = many([float(i) for i in range(20, 32)]), many([1, 2, 3])
    (exchanges,) = drive(model, [[big, small]], limits=Limits(batch_rows=5, queue_seconds=60))
    assert model.calls == [5, 3, 5, 2]
    assert b'{"prediction":[21.0,22.0,23.0,24.0,25.0,26.0,27.0,28.0,29.0,30.0,31.0,32.0]' in exchanges[0].got[0].body
    assert b'{"prediction":[2.0,3.0,4.0]' in exchanges[1].got[0].body
    assert model.meter.ok == 2 and model.meter.rows == 15


def test_a_part_that_fails_fails_its_request_only() -> None:
    model = slow(Model(plus_one))
    bodies = [many([0, 1, 2, 3, 13, 5, 6]), many([1])]
    (exchanges,) = drive(model, [bodies], limits=Limits(batch_rows=3, queue_seconds=60))
    assert predictions(exchanges)[0] == "model_failed"
    assert b"thirteen" in exchanges[0].got[0].body
    assert b'{"prediction":[2.0]' in exchanges[1].got[0].body


def test_parts_that_do_not_fit_together_fail_their_request_and_not_the_lane() -> None:
    widths = iter(range(1, 9))
    model = Model(lambda columns: {"prediction": np.zeros((columns.rows, next(widths)))}, shape=(-1,))
    turns = drive(slow(model), [[many([0, 1, 2])], [many([1])]], limits=Limits(batch_rows=2))
    assert predictions(turns[0]) == ["model_failed"]
    assert b'{"prediction":[[0.0,0.0,0.0]]' in turns[1][0].got[0].body


def test_a_request_that_ran_in_parts_leaves_memory() -> None:
    seen: list[weakref.ref[Any]] = []

    def predict(columns: Columns) -> Any:
        seen.append(weakref.ref(columns.blocks[0].base))
        return {"prediction": columns["x1"]}

    drive(slow(Model(predict)), [[many([1.0] * 5)]], limits=Limits(batch_rows=2))
    gc.collect()
    assert len(seen) == 3 and not any(base() is not None for base in seen)


class Held:
    """A model that answers when it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.model = slow(Model(self.predict))

    def predict(self, columns: Columns) -> Any:
        self.gate.wait(60)
        return {"prediction": columns["x1"] + 1}

    def exchange(self, x1: float, **options: Any) -> Answers:
        found = Answers(id="", received=perf_counter(), endpoint=self.model.endpoint, got=[], **options)
        found.request = self.model.endpoint.codec.decode(row(x1), {})
        return found


def live(held: Held, steps: Callable[[Lane], Any], **options: Any) -> None:
    async def run() -> None:
        loop, limits = asyncio.get_running_loop(), Limits(queue_seconds=60.0)
        lane = Lane(held.model.loaded, held.model.meter, loop, threads, Log("error"), limits=limits, **options)
        await steps(lane)

    with ThreadPoolExecutor(2) as threads:
        try:
            asyncio.run(run())
        finally:
            held.gate.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


def test_what_nobody_waits_for_is_not_computed() -> None:
    held = Held()
    running, gone, last = held.exchange(1), held.exchange(3, gone=True), held.exchange(4)

    async def steps(lane: Lane) -> None:
        lane.submit(running)
        await until(lambda: held.model.calls == [1])
        expired = held.exchange(2, deadline=perf_counter() + 0.5)
        for exchange in (expired, gone, last):
            lane.submit(exchange)
        await until(lambda: bool(expired.got))
        assert b"deadline_passed" in expired.got[0].body and not running.got
        held.gate.set()
        await until(lambda: bool(last.got))
        assert held.model.calls == [1, 1] and not gone.got and len(expired.got) == 1
        assert lane.in_flight == 0
        assert held.model.meter.refused == {"deadline_passed": 1, "cancelled": 1}

    live(held, steps)


def test_a_caller_hears_in_time_that_its_model_still_works() -> None:
    held = Held()

    async def steps(lane: Lane) -> None:
        exchange = held.exchange(1, deadline=perf_counter() + 0.5)
        lane.submit(exchange)
        await until(lambda: bool(exchange.got))
        assert b"deadline_passed" in exchange.got[0].body
        held.gate.set()
        await until(lambda: lane.in_flight == 0)
        assert len(exchange.got) == 1

    live(held, steps)


def test_a_request_that_would_wait_longer_than_its_caller_is_refused_at_once() -> None:
    held = Held()

    async def steps(lane: Lane) -> None:
        lane.submit(held.exchange(1))
        await until(lambda: held.model.calls == [1])
        lane.submit(held.exchange(2))
        with pytest.raises(Overloaded, match=r"for about [\d.]+ s") as caught:
            lane.submit(held.exchange(3, deadline=perf_counter() + 0.5))
        assert caught.value.details["retry_after"] >= 1
        held.gate.set()
        await until(lambda: lane.in_flight == 0)

    live(held, steps)


def test_as_many_calls_are_under_way_as_there_are_slots() -> None:
    held = Held()

    async def steps(lane: Lane) -> None:
        exchanges = [held.exchange(i) for i in range(4)]
        for exchange in exchanges:
            lane.submit(exchange)
            await asyncio.sleep(0.01)
        await until(lambda: held.model.calls == [1, 1])
        held.gate.set()
        await until(lambda: all(exchange.got for exchange in exchanges))
        assert sorted(held.model.calls) in ([1, 1, 2], [1, 1, 1, 1])

    live(held, steps, slots=2)


class Remote:
    """A model process that is a function."""

    slots = 1

    def __init__(self, function: Callable[[Columns], Any]) -> None:
        self.function = function
        self.calls: list[int] = []

    def call(self, columns: Columns, seconds: float, done: Callable[[Any], None], **_: Any) -> None:
        self.calls.append(columns.rows)
        try:
            result = self.function(columns)
        except Exception as error:
            result = error
        asyncio.get_running_loop().call_soon(done, result)


@pytest.mark.parametrize("rows", [1, 600])
def test_a_model_in_a_process_of_its_own(rows: int) -> None:
    model = Model(plus_one)
    remote = model.loaded.remote = Remote(model.loaded.predict)  # type: ignore[assignment]
    bodies = [many([float(i)] * rows) for i in range(20, 23)]
    (exchanges,) = drive(model, [bodies])
    assert remote.calls == [3 * rows]
    for i, exchange in enumerate(exchanges):
        assert b'{"prediction":[%s]' % b",".join([b"%.1f" % (i + 21)] * rows) in exchange.got[0].body


def test_a_bad_neighbour_in_a_process_of_its_own() -> None:
    model = Model(plus_one)
    model.loaded.remote = Remote(model.loaded.predict)  # type: ignore[assignment]
    (exchanges,) = drive(model, [[row(1), row(13), row(3)]])
    assert predictions(exchanges) == [2, "model_failed", 4]


class Mortal(Remote):
    """A model process that ends under a row of 13. The next is there for those who wait for one."""

    def __init__(self, function: Callable[[Columns], Any]) -> None:
        super().__init__(function)
        self.ends = 0
        self._is_there = True

    def call(
        self, columns: Columns, seconds: float, done: Callable[[Any], None], *, again: bool = True, ended: float = 0.0
    ) -> None:
        self._is_there |= ended > 0
        if not self._is_there:
            asyncio.get_running_loop().call_soon(done, NotReady("being replaced"))
        elif (columns["x1"] == 13).any():
            self.calls.append(columns.rows)
            self.ends += 1 + again
            self._is_there = False
            asyncio.get_running_loop().call_soon(done, ProcessEnded("it ended"))
        else:
            super().call(columns, seconds, done)


@settings(deadline=None)
@given(rows=st.lists(st.sampled_from([1, 2, 13]), min_size=1, max_size=8), late=st.lists(st.just(3), max_size=3))
def test_one_that_ends_its_process_is_told_from_those_who_were_with_it(rows: list[float], late: list[float]) -> None:
    model = Model(plus_one)
    model.loaded.remote = remote = Mortal(model.loaded.predict)  # type: ignore[assignment]

    async def run() -> list[Answers]:
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), threads, Log("error", io.StringIO()))
        exchanges = []
        for x1 in (*rows, None, *late):
            if x1 is None:  # the others come while those are under way
                await asyncio.sleep(0)
                continue
            exchange = Answers(id="", received=perf_counter(), endpoint=model.endpoint, got=[])
            exchange.request = model.endpoint.codec.decode(row(x1), {})
            lane.submit(exchange)
            exchanges.append(exchange)
        await until(lambda: all(exchange.got for exchange in exchanges))
        assert lane.in_flight == 0
        return exchanges

    with ThreadPoolExecutor(1) as threads:
        found = asyncio.run(run())
    poisons = rows.count(13)
    assert predictions(found) == ["model_failed" if x1 == 13 else x1 + 1 for x1 in (*rows, *late)]
    assert remote.ends == poisons + (poisons > 0)  # with the others, or at the second try; and alone
    assert model.meter.fatal == poisons


def test_those_who_wait_for_their_turn_after_a_failure_keep_their_deadlines() -> None:
    """Where a call of several failed, each runs by itself, and the last may wait for long."""
    model = Model(plus_one)
    results: list[Callable[[Any], None]] = []
    model.loaded.remote = remote = Remote(model.loaded.predict)  # type: ignore[assignment]
    remote.call = lambda columns, seconds, done, **_: results.append(done)  # type: ignore[method-assign]
    gone = Answers(id="", received=0.0, endpoint=model.endpoint, got=[])
    hasty = Answers(id="", received=0.0, endpoint=model.endpoint, got=[])
    patient = Answers(id="", received=0.0, endpoint=model.endpoint, got=[])

    async def run() -> None:
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), threads, Log("error"))
        for exchange in (hasty, gone, patient):
            exchange.request = model.endpoint.codec.decode(row(1), {})
        hasty.deadline = perf_counter() + 0.5
        for exchange in (hasty, gone, patient):
            lane.submit(exchange)
        await until(lambda: len(results) == 1)
        gone.gone = True
        results[0](ModelFailed("together they fail"))
        await until(lambda: bool(hasty.got))
        assert b"deadline_passed" in hasty.got[0].body and len(results) == 2
        results[1](ModelFailed("alone too"))
        await asyncio.sleep(0)
        assert len(results) == 2 and lane.in_flight == 0
        assert len(hasty.got) == len(patient.got) == 1 and not gone.got

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(run())


def test_a_large_request_does_not_take_the_places_of_others() -> None:
    model = Model(plus_one)
    results: list[tuple[Columns, Callable[[Any], None]]] = []
    model.loaded.remote = remote = Remote(model.loaded.predict)  # type: ignore[assignment]
    remote.call = lambda columns, seconds, done, **_: results.append((columns, done))  # type: ignore[method-assign]
    exchanges = [Answers(id="", received=0.0, endpoint=model.endpoint, got=[]) for _ in range(3)]

    async def run() -> None:
        limits = Limits(batch_rows=3, queue_rows=4)
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), threads, Log("error"), limits=limits)
        large, *others = exchanges
        for exchange, body in ((large, many([0.0] * 9)), (others[0], row(1)), (others[1], row(2))):
            exchange.request = model.endpoint.codec.decode(body, {})
        lane.submit(large)
        await until(lambda: len(results) == 1)
        lane.submit(others[0])
        for i in range(5):
            await until(lambda i=i: len(results) > i)  # type: ignore[misc]
            if i == 1:
                lane.submit(others[1])  # while the large one waits for its second part
            columns, done = results[i]
            done(model.loaded.predict(columns))
        await until(lambda: lane.in_flight == 0)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(run())
    assert [columns.rows for columns, _ in results] == [3, 1, 3, 1, 3]
    assert [exchange.got[0].code for exchange in exchanges] == ["ok"] * 3


def test_answers_are_given_again() -> None:
    model, cache = Model(plus_one), AnswerCache(1 << 20)
    turns = drive(model, [[row(1)], [row(1)], [many([1, 2])], [many([1, 2])], [row(2)]], cache=cache)
    assert [turn[0].got[0].body for turn in turns[:2]] == [turns[0][0].got[0].body] * 2
    assert turns[2][0].got[0].body == turns[3][0].got[0].body
    assert model.calls == [1, 2, 1]
    assert (cache.hits, cache.misses, model.meter.cache_hits, model.meter.ok) == (2, 3, 2, 5)


def test_the_history_says_why_calls_had_their_sizes() -> None:
    model = Model(plus_one)

    async def run() -> dict[str, Any]:
        limits = Limits(batch_rows=4)
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), threads, Log("error"), limits=limits)
        for count in (1, 3, 6):
            exchanges = [Answers(id="", received=0.0, endpoint=model.endpoint, got=[]) for _ in range(count)]
            for exchange in exchanges:
                exchange.request = model.endpoint.codec.decode(row(1), {})
                lane.submit(exchange)
            await until(lambda exchanges=exchanges: all(e.got for e in exchanges))  # type: ignore[misc]
        return explain(lane)

    with ThreadPoolExecutor(1) as threads:
        told = asyncio.run(run())
    assert {each["reason"]: each["calls"] for each in told["reasons"]} == {"alone": 1, "together": 2, "full": 1}
    assert [(each["reason"], each["rows"]) for each in told["recent"]] == [
        ("together", 2), ("full", 4), ("together", 3), ("alone", 1),
    ]  # fmt: skip
    assert told["limits"]["batch_rows"] == 4 and "us * n" in told["cost"]["says"]
