"""What is joined, what runs where, and who pays for a fault."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, ModelFailed, Overloaded
from modelyard.messages import Call, Message
from modelyard.schema import Columns, Field, Signature
from modelyard.serving import engine
from modelyard.serving.catalog import Loaded
from modelyard.serving.cost import Cost
from modelyard.serving.engine import Exchange, Lane
from modelyard.serving.metrics import Meter
from modelyard.serving.sources import Wanted
from modelyard.telemetry import Log
from modelyard.testing.memory import MemoryBundle
from modelyard.wires.native import NativeWire

from .conftest import INPUTS

OUTPUT = (Field(name="prediction", dtype="float64"),)


class Answers(Exchange, gc=False, kw_only=True):
    """An exchange that keeps its answer."""

    got: list[Message]

    def answer(self, message: Message) -> None:
        self.got.append(message)


class Endpoint:
    def __init__(self, loaded: Loaded) -> None:
        self.codec = NativeWire().codec(Call("predict"), loaded)

    def refuse(self, exchange: Exchange, error: Exception) -> Message:
        return NativeWire().refuse(None, error, exchange.id)


class Model:
    """A model that notes the rows of its calls."""

    def __init__(self, function: Callable[[Columns], Any]) -> None:
        self.calls: list[int] = []
        self.threads: list[str] = []

        def noted(columns: Columns) -> Any:
            self.calls.append(columns.rows)
            self.threads.append(threading.current_thread().name)
            return function(columns)

        bundle = MemoryBundle(Signature(inputs=INPUTS, outputs=OUTPUT), noted, {"x1": [0.0], "x2": [0.0]})
        wanted = Wanted(model="m", version="1", digest="d", aliases=(), open=lambda: bundle)
        self.loaded = Loaded(wanted, bundle, bundle.load())
        self.endpoint = Endpoint(self.loaded)
        self.meter = Meter("m", "1")


def plus_one(columns: Columns) -> dict[str, Any]:
    if (columns["x1"] == 13).any():
        raise ValueError("thirteen")
    return {"prediction": columns["x1"] + 1}


def drive(model: Model, bodies: list[list[bytes]], pool: ThreadPoolExecutor | None = None) -> list[list[Answers]]:
    """Submit each list of bodies within one turn of the loop; returns when all are answered."""

    async def live() -> list[list[Answers]]:
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), pool or threads, Log("error"))
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


def test_a_lone_caller_is_answered_where_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "INLINE_SECONDS", 60.0)
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
        gate.wait(10)
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


def test_too_many_waiting_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WAITING_REQUESTS", 3)
    gate = threading.Event()

    def wait(columns: Columns) -> Any:
        gate.wait(10)
        return {"prediction": columns["x1"]}

    model = Model(wait)
    model.loaded.cost.learn(1, 1.0)

    async def live() -> None:
        lane = Lane(model.loaded, model.meter, asyncio.get_running_loop(), threads, Log("error"))
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


def test_joined_rows_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "JOINED_ROWS", 4)
    model = Model(plus_one)
    (exchanges,) = drive(model, [[row(i) for i in range(10)]])
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
