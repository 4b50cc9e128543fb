"""Requests in threads: those for a model in processes of its own share its calls, and nobody waits for nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import faulty
from modelyard.bundle import Trust, pack
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.batching import explain
from modelyard.serving.engine import Lane
from modelyard.serving.isolation import remote
from modelyard.serving.isolation.frames import ProcessEnded
from modelyard.serving.wsgi import WsgiApp
from modelyard.testing.memory import MemoryBundle
from receivers import waited

from .conftest import INPUTS, MemorySource


class Model:
    """Adds one. A call whose first row is 0 says that it has begun, and ends when it is let go; 13 is too much."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.began, self.go_on = threading.Event(), threading.Event()

    def predict(self, columns: Columns) -> dict[str, Any]:
        rows = columns["x1"].tolist()
        self.calls.append(rows)
        if rows[0] == 0:
            self.began.set()
            assert self.go_on.wait(60)
        if 13 in rows:
            raise ValueError("thirteen")
        if 666 in rows:
            raise ProcessEnded("the process ended")
        return {"prediction": columns["x1"] + 1}


class Host:
    """A mount of the model, as if it ran in so many processes of its own, and threads that ask it."""

    def __init__(self, source: MemorySource, processes: int, **options: Any) -> None:
        self.model = Model()
        #: Calls of the processes: rows, whether it may be made again, and when the process before ended.
        self.tries: list[tuple[int, bool, float]] = []
        signature = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="float64"),))
        source.add("m", MemoryBundle(signature, self.model.predict, {"x1": [1.0], "x2": [0.0]}), "production")
        self.app = WsgiApp(["m"], source=lambda: source, access_log="off", **options)
        application = self.app._live()
        (self.loaded,) = application.catalog.models()
        if processes:
            self.loaded.remote = SimpleNamespace(slots=processes, predict=self.call)  # type: ignore[assignment]
        application._lanes.clear()
        application._forget()
        self.lane: Lane = application.lane(self.loaded)
        self.model.calls.clear()
        self._threads = ThreadPoolExecutor(20)

    def call(self, columns: Columns, again: bool, ended: float) -> Columns:
        self.tries.append((columns.rows, again, ended))
        return self.loaded.predict(columns)

    def ask(self, x1: float, **headers: str) -> Future[Any]:
        """What the model says to a number, or the code word of why it says nothing."""

        def work() -> Any:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            body = b'{"x1": %f, "x2": 0}' % x1
            told = json.loads(self.app.answer("POST", "/predict", "", named, lambda most: body)[2])
            return told["prediction"] if "prediction" in told else told["error"]["code"]

        return self._threads.submit(work)

    def wait_for(self, requests: int) -> None:
        """Return once so many wait or run."""
        assert waited(lambda: self.lane.in_flight == requests), self.lane.in_flight

    def stop(self) -> None:
        self.model.go_on.set()
        self._threads.shutdown()
        self.app.stop()


@pytest.fixture
def mount(source: MemorySource) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def begin(processes: int = 1, **options: Any) -> Host:
        made.append(Host(source, processes, **options))
        return made[-1]

    yield begin
    for host in made:
        host.stop()


def test_what_comes_while_the_processes_are_busy_becomes_their_next_call(mount: Callable[..., Host]) -> None:
    host = mount()
    first = host.ask(0)
    assert host.model.began.wait(60)
    others = [host.ask(i) for i in range(1, 7)]
    host.wait_for(7)
    host.model.go_on.set()
    assert [asked.result(60) for asked in (first, *others)] == [i + 1 for i in range(7)]
    assert [len(rows) for rows in host.model.calls] == [1, 6]
    assert host.lane.in_flight == 0
    reasons = {told["reason"]: told["calls"] for told in explain(host.lane)["reasons"]}
    assert reasons == {"alone": 1, "gathered": 1}
    assert host.ask(7).result(60) == 8 and host.model.calls[-1] == [7]


def test_as_many_calls_as_processes_are_under_way(mount: Callable[..., Host]) -> None:
    host = mount(2)
    first = host.ask(0)
    assert host.model.began.wait(60)
    assert host.ask(1).result(60) == 2
    host.model.go_on.set()
    assert first.result(60) == 1


def test_models_in_this_process_are_called_side_by_side(mount: Callable[..., Host]) -> None:
    host = mount(0)
    first = host.ask(0)
    assert host.model.began.wait(60)
    assert [asked.result(60) for asked in [host.ask(i) for i in range(1, 6)]] == [2, 3, 4, 5, 6]
    host.model.go_on.set()
    assert first.result(60) == 1
    assert {len(rows) for rows in host.model.calls} == {1}
    assert explain(host.lane)["cost"]["runs"] == "in the thread of its request"


def test_who_is_at_fault_pays_alone(mount: Callable[..., Host]) -> None:
    host = mount()
    first = host.ask(0)
    assert host.model.began.wait(60)
    others = [host.ask(i) for i in (12, 13, 14)]
    host.wait_for(4)
    host.model.go_on.set()
    assert first.result(60) == 1
    assert [asked.result(60) for asked in others] == [13, "model_failed", 15]
    assert host.lane.in_flight == 0


def test_whose_time_is_up_is_told_so_and_is_not_computed(mount: Callable[..., Host]) -> None:
    host = mount()
    first = host.ask(0)
    assert host.model.began.wait(60)
    hasty, patient = host.ask(5, x_request_timeout="3"), host.ask(6)
    host.wait_for(3)
    sleep(3)
    host.model.go_on.set()
    assert (first.result(60), hasty.result(60), patient.result(60)) == (1, "deadline_passed", 7)
    assert host.model.calls == [[0], [6]]
    assert host.lane.meter.refused["deadline_passed"] == 1


def test_too_many_are_turned_away(mount: Callable[..., Host]) -> None:
    host = mount(queue_requests=2)
    first = host.ask(0)
    assert host.model.began.wait(60)
    others = [host.ask(i) for i in (1, 2)]
    host.wait_for(3)
    assert host.ask(3).result(60) == "overloaded"
    host.model.go_on.set()
    assert [asked.result(60) for asked in (first, *others)] == [1, 2, 3]


def test_a_call_joins_no_more_rows_than_it_may(mount: Callable[..., Host]) -> None:
    host = mount(batch_rows=4)
    first = host.ask(0)
    assert host.model.began.wait(60)
    others = [host.ask(i) for i in range(1, 7)]
    host.wait_for(7)
    host.model.go_on.set()
    assert [asked.result(60) for asked in (first, *others)] == [i + 1 for i in range(7)]
    assert [len(rows) for rows in host.model.calls] == [1, 4, 2]


def test_a_call_under_which_a_process_ends_is_made_apart(mount: Callable[..., Host]) -> None:
    host = mount()
    first = host.ask(0)
    assert host.model.began.wait(60)
    others = [host.ask(i) for i in (12, 666, 14)]
    host.wait_for(4)
    host.model.go_on.set()
    assert first.result(60) == 1
    assert [asked.result(60) for asked in others] == [13, "model_failed", 15]
    # Those that come while the process is replaced wait for it, and what may have ended it is not tried again.
    assert [again for _, again, _ in host.tries] == [True, False, False, False, False]
    assert [ended > 0 for _, _, ended in host.tries] == [False, False, True, True, True]
    assert host.lane.meter.fatal == 1


def test_real_processes_answer_each_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process is replaced twice below. After ten seconds who waits is told to try again; a slow machine may need more.
    monkeypatch.setattr(remote, "PATIENCE", 120.0)
    bundle = pack(faulty.Faulty().fit(), tmp_path / "m", sample={"order": np.zeros(20), "value": np.arange(20.0)})
    app = WsgiApp([str(bundle.path)], trust=Trust((bundle.digest,)), access_log="off")

    def ask(value: int) -> Any:
        order = faulty.KILLED if value == 57 else faulty.RAISES if value % 10 == 3 else faulty.FINE
        body = b'{"order": %d, "value": %d}' % (order, value)
        told = json.loads(app.answer("POST", "/predict", "", {}, lambda most: body)[2])
        return told["prediction"] if "prediction" in told else told["error"]["code"]

    try:
        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(ask, range(200)))
        (lane,) = app._live()._lanes.values()
        assert lane.in_flight == 0
        assert lane.where == "in 1 model process(es)"
    finally:
        app.stop()
    assert answers == ["model_failed" if value % 10 == 3 or value == 57 else 2 * value for value in range(200)]
