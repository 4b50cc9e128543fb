"""Counts of several processes add up to those of one, and are told through shared memory without loss."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import reduce
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from modelyard.prometheus import form
from modelyard.serving import shared
from modelyard.serving.metrics import _SORTING, Counts, Meter, Metrics, Snapshot, Vitals
from modelyard.serving.shared import Board

#: Sixteenths add up without rounding, in whatever order.
SECONDS = st.integers(0, 16 * 60).map(lambda sixteenths: sixteenths / 16)
#: One thing that happens: for a version of a model, or to no model at all.
EVENTS = st.tuples(
    st.sampled_from(["churn", "risk", ""]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["ok", "invalid_input", "model_failed"]),
    st.integers(1, 1000),
    SECONDS,
)


def tell(metrics: Metrics, event: tuple[str, str, str, int, float]) -> None:
    model, version, code, rows, seconds = event
    if not model:
        metrics.refused[code] += 1
        metrics.failed_loads[version] += 1
        return
    meter = metrics.meter(model, version)
    if code == "ok":
        meter.ok += 1
    else:
        meter.refused[code] += 1
    meter.rows += rows
    meter.calls += 1
    meter.predict.observe([seconds])
    meter.last = max(meter.last, seconds)
    meter.latency.observe([seconds])
    meter.batch_rows.observe([rows])
    calls, spent = meter.batches.get(rows, (0, 0.0))
    meter.batches[rows] = (calls + 1, spent + seconds)


def told(metrics: Metrics) -> Counts:
    for meter in metrics.meters.values():
        meter.sort_in()
    return metrics.counts


@given(st.lists(st.tuples(st.integers(0, 2), EVENTS), max_size=40))
def test_what_several_counted_adds_up_to_what_one_would_have(happened: list[tuple[int, Any]]) -> None:
    one, several = Metrics(), [Metrics(), Metrics(), Metrics()]
    for which, event in happened:
        tell(one, event)
        tell(several[which], event)
    a, b, c = map(told, several)
    assert a + b + c == told(one)
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Counts() == a


def vitals(worker: int, process: int, **changes: Any) -> Vitals:
    fields = {
        "worker": worker, "process": process, "started": 1.0, "cpu": 0.5, "resident": 1000, "connections": 2,
        "ready": True, "registry_up": True, "in_flight": {("churn", "1"): 3},
    }  # fmt: skip
    return Vitals(**{**fields, **changes})


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = shared.make(3)
    yield descriptor
    os.close(descriptor)


def counted(ok: int) -> Counts:
    meter = Meter("churn", "1", ok=ok)
    meter.refused["overloaded"] += 1
    return Counts({("churn", "1"): meter})


class TestBoard:
    def test_nothing_is_told_before_anybody_lives(self, memory: int) -> None:
        assert Board(memory).collect() == ([], [], 0)

    def test_every_worker_reads_what_each_has_told_last(self, memory: int) -> None:
        first, second = Board(memory, 0), Board(memory, 1)
        supervisor = Board(memory)
        supervisor.settle(0, 100, 0)
        supervisor.settle(1, 101, 4)
        for ok in range(5):
            first.publish(Snapshot(counted(ok), vitals(0, 100)))
        second.publish(Snapshot(counted(7), vitals(1, 101)))
        for board in (first, second, supervisor):
            counts, alive, replaced = board.collect()
            assert reduce(Counts.__add__, counts).meters["churn", "1"].ok == 11
            assert [each.process for each in alive] == [100, 101]
            assert replaced == 4

    def test_the_counts_of_the_dead_stay_and_their_vitals_go(self, memory: int) -> None:
        supervisor, worker = Board(memory), Board(memory, 0)
        supervisor.settle(0, 100, 0)
        worker.publish(Snapshot(counted(5), vitals(0, 100)))
        supervisor.settle(0, 0, 0)
        assert supervisor.collect() == ([counted(5)], [], 0)
        supervisor.settle(0, 200, 1)
        assert supervisor.collect() == ([counted(5)], [], 1)

    def test_who_takes_the_place_of_a_dead_one_goes_on_from_its_counts(self, memory: int) -> None:
        Board(memory, 0).publish(Snapshot(counted(5), vitals(0, 100)))
        heir = Board(memory, 0)
        metrics = Metrics()
        metrics.board, metrics.vitals = heir, lambda: vitals(0, 200)
        metrics.adopt(heir.inherited())
        metrics.meter("churn", "1").ok += 2
        metrics.meter("churn", "1").refused["overloaded"] += 1
        assert metrics.stats("churn", "1").requests == 9

    def test_a_writer_that_dies_half_way_leaves_the_last_whole_snapshot(self, memory: int) -> None:
        worker = Board(memory, 0)
        worker.publish(Snapshot(counted(5), vitals(0, 100)))
        other_half = shared.mmap.PAGESIZE + ((worker.pulse(0) + 1) & 1) * shared.HALF
        worker._map[other_half : other_half + 6] = b"rubble"
        assert Board(memory).collect()[0] == [counted(5)]

    def test_publishing_is_the_pulse(self, memory: int) -> None:
        worker, supervisor = Board(memory, 2), Board(memory)
        before = supervisor.pulse(2)
        worker.publish(Snapshot(counted(0), vitals(2, 1)))
        assert supervisor.pulse(2) != before

    def test_counts_that_do_not_fit_are_not_told_but_the_pulse_goes_on(self, memory: int) -> None:
        worker = Board(memory, 0)
        worker.publish(Snapshot(counted(5), vitals(0, 100)))
        before = worker.pulse(0)
        large = Counts(failed_loads=shared.Counter({"x" * shared.HALF: 1}))
        worker.publish(Snapshot(large, vitals(0, 100)))
        assert worker.pulse(0) != before
        assert Board(memory).collect()[0] == [counted(5)]


def samples(families: Any) -> dict[tuple[Any, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_the_text_tells_of_all_workers(memory: int) -> None:
    supervisor = Board(memory)
    every = []
    for number in (0, 1):
        supervisor.settle(number, 100 + number, number)
        metrics = Metrics()
        metrics.board = Board(memory, number)
        metrics.vitals = lambda number=number: vitals(number, 100 + number, ready=number == 0)  # type: ignore[misc]
        tell(metrics, ("churn", "1", "ok", 4, 0.25))
        metrics.publish()
        every.append(metrics)
    text = every[0].tell([]).text(form("*/*"))
    assert text == every[1].tell([]).text()
    found = samples(text_string_to_metric_families(text))
    open_text = every[0].tell([]).text(form("application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.2"))
    in_open = samples(openmetrics.text_string_to_metric_families(open_text))
    assert {key[0] for key in found} == {key[0] for key in in_open} and sorted(found.values()) == sorted(
        in_open.values()
    )
    churn = (("model", "churn"), ("version", "1"))
    assert found["modelyard_requests_total", ("code", "ok"), *churn] == 2
    assert found["modelyard_rows_total", *churn] == 8
    assert found["modelyard_request_seconds_count", *churn] == 2
    assert found["modelyard_stage_seconds_sum", churn[0], ("stage", "predict"), churn[1]] == 0.5
    assert found["modelyard_stage_seconds_bucket", ("le", "0.2"), churn[0], ("stage", "predict"), churn[1]] == 0
    assert found["modelyard_in_flight", *churn] == 6
    assert found["modelyard_connections",] == 4
    assert found["modelyard_ready",] == 1
    assert found["modelyard_workers", ("state", "ready")] == 1
    assert found["modelyard_workers", ("state", "not_ready")] == 1
    assert found["modelyard_worker_restarts_total",] == 1
    assert found["process_resident_memory_bytes", ("worker", "1")] == 1000


@pytest.mark.parametrize("requests", [1, 7, 5000])
def test_each_request_and_each_call_is_counted_in_its_stages(requests: int) -> None:
    meter = Meter("churn", "1")
    exchanges: Any = [
        SimpleNamespace(received=1.0 + i / 1024, decoded=1.0625 + i / 1024, is_settled=False) for i in range(requests)
    ]
    answers: Any = [SimpleNamespace(code="ok")] * requests
    for _ in range(2):
        meter.note(exchanges, answers, 3 * requests, 16.0, 16.25)
    stats = meter.stats()
    assert stats.requests == 2 * requests and stats.rows == 6 * requests and not meter.recent
    assert (stats.decode, stats.predict) == (0.125 * requests, 0.5)
    assert stats.queue == sum(16.0 - exchange.decoded for exchange in exchanges) * 2
    assert [getattr(meter, name).read()[1] for name in ("latency", "decode", "queue")] == [2 * requests] * 3
    calls = ("predict", "encode", "batch_rows", "batch_requests")
    assert [getattr(meter, name).read()[1] for name in calls] == [2] * 4
    assert meter.batch_requests.total == 2 * requests and meter.batch_rows.total == 6 * requests


def test_a_fork_waits_until_nobody_sorts() -> None:
    meter, holds = Meter("churn", "1"), threading.Event()
    meter.note([SimpleNamespace(received=1.0, decoded=2.0)], [SimpleNamespace(code="ok")], 1, 3.0, 4.0)  # type: ignore[list-item]

    def hold() -> None:
        with _SORTING:
            holds.set()
            sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holds.wait(60)
    child = os.fork()
    if not child:
        meter.sort_in()  # where the lock was held in that moment, it would be for ever
        os._exit(len(meter.recent))
    holder.join()
    until = monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and monotonic() < until:
        sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
