"""Watching processes on a real PostgreSQL: one acts, another takes over when it is killed, nothing is done twice."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands import environment
from modelyard.registry import Registry
from modelyard.registry.leases import CONTROL
from modelyard.watching import Watch
from receivers import receiving, waited
from registries import new_schema
from traffic import Traffic
from watches import may_be_cut_off, running


def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
    columns["age"] = columns["age"] + 8


@pytest.fixture
def shared(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Registry, str]]:
    """A registry on PostgreSQL, and its URL."""
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    with new_schema(postgres_url) as url:
        registry = Registry.open(url)
        yield registry, url
        registry.close()


class Yard:
    """A shared registry with traffic, and processes that watch it, each on a machine of its own."""

    def __init__(self, registry: Registry, url: str, folder: Path) -> None:
        self.registry = registry
        self.traffic = Traffic(1)
        self.traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
        registry.register(self.traffic.bundle(folder / "one"), "churn")
        self._url = url
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def write(self, count: int, change: Any = None) -> None:
        made = [msgspec.structs.replace(w, id=0) for w in self.traffic.windows(count, change=change)]
        self.registry.windows.add(made)

    def start(self) -> subprocess.Popen[bytes]:
        # the blobs are shared, as machines of one registry share them
        known = environment(self._folder / "home") | {
            "MODELYARD_REGISTRY": self._url,
            "MODELYARD_RECORDS": str(self._folder / f"records{len(self.processes)}"),
        }
        command = [sys.executable, "-m", "modelyard", "watch"]
        self.processes.append(subprocess.Popen(command, env=known, stderr=subprocess.PIPE))
        return self.processes[-1]

    @property
    def holder(self) -> int:
        """The process that holds the lease; 0 for none."""
        held = self.registry.holder(CONTROL)
        return int(held.split("-")[-2]) if held else 0

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def yard(shared: tuple[Registry, str], tmp_path: Path) -> Iterator[Yard]:
    made = Yard(*shared, tmp_path)
    yield made
    made.end()


def test_another_takes_over_when_the_one_that_acts_is_killed(yard: Yard) -> None:
    from modelyard.monitoring import rules

    with receiving() as receiver:
        put = {"sinks.ops.kind": "webhook", "sinks.ops.url": f"{receiver.url}/hook", "alerts.all.sinks": "ops"}
        rules.edit(yard.registry.database, put=put)
        first = yard.start()
        assert waited(lambda: yard.holder == first.pid)
        second = yard.start()
        yard.write(5)
        yard.write(2, change=older)
        assert waited(lambda: len(receiver.got) == 1)
        # killed between sending and noting that it was sent, it would be told twice
        assert waited(lambda: [d.state for d in yard.registry.alerts.deliveries()] == ["sent"])
        assert yard.holder == first.pid
        yard.write(1, change=older)
        first.send_signal(signal.SIGKILL)
        assert waited(lambda: yard.holder == second.pid)
        # what was open goes on, is over once, and told once more
        yard.write(40)
        assert waited(lambda: len(receiver.got) == 2)
        assert waited(lambda: all(d.state == "sent" for d in yard.registry.alerts.deliveries()))
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=120) == 0
    (finding,) = yard.registry.findings.find()
    (alert,) = yard.registry.alerts.find()
    assert (finding.subject, alert.state) == ("age", "closed")
    assert [(d.event, d.state) for d in yard.registry.alerts.deliveries()] == [("close", "sent"), ("open", "sent")]
    looks = [row["n"] for row in yard.registry.database.query("SELECT count(*) AS n FROM windows")]
    assert looks == [48]


def test_an_orderly_end_hands_the_lease_on_at_once(yard: Yard) -> None:
    first = yard.start()
    assert waited(lambda: yard.holder == first.pid)
    second = yard.start()
    assert waited(lambda: second.poll() is not None or b"looking on" in _told(second))
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=120) == 0
    assert yard.holder != first.pid, "nobody has to wait until it can be sure that the first is gone"
    assert waited(lambda: yard.holder == second.pid)


def _told(process: subprocess.Popen[bytes]) -> bytes:
    """What a process has written by now."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    _WRITTEN[process.pid] = _WRITTEN.get(process.pid, b"") + (process.stderr.read() or b"")
    return _WRITTEN[process.pid]


_WRITTEN: dict[int, bytes] = {}


class Counting:
    """A loop that counts its steps, and may stand still."""

    pause = 0.02

    def __init__(self, *_given: Any) -> None:
        self.steps = 0
        made.append(self)

    def step(self) -> None:
        self.steps += 1
        while stands_still:
            time.sleep(0.01)


made: list[Counting] = []
stands_still: list[bool] = []


def test_a_loop_that_stands_still_leaves_the_lease_to_others(
    shared: tuple[Registry, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, url = shared
    monkeypatch.setattr("modelyard.watching.STUCK_SECONDS", 3.0)
    made.clear()
    watches = [Watch(Registry.open(url), loops=[Counting], holder=name) for name in ("one", "two")]
    threads = [threading.Thread(target=watch.run) for watch in watches]
    try:
        threads[0].start()
        assert waited(lambda: made and made[0].steps > 3)
        threads[1].start()
        stands_still.append(True)
        assert waited(lambda: registry.holder(CONTROL) == "two")
        stands_still.clear()
        assert waited(lambda: made[-1].steps > 3)
        assert len(made) == 2
        assert not watches[0].lease.term
    finally:
        stands_still.clear()
        for watch in watches:
            watch.stop()
        for thread in threads:
            thread.join()
    assert registry.holder(CONTROL) == ""


def test_while_the_registry_is_gone_nothing_is_decided_and_then_it_goes_on(
    shared: tuple[Registry, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, url = shared
    monkeypatch.setattr("modelyard.watching.BEAT_SECONDS", 0.05)
    made.clear()
    watch = Watch(Registry.open(url), loops=[Counting], holder="here")
    monkeypatch.setattr(watch.lease, "_free_seconds", 2.0)
    gone = may_be_cut_off(watch, monkeypatch)
    with running(watch):
        assert waited(lambda: made and made[0].steps > 3)
        gone.set()
        assert waited(lambda: not watch.lease.term)
        seen: list[int] = []
        # The last step may still be on its way.
        assert waited(lambda: seen.append(made[0].steps) or time.sleep(0.3) or seen[-1] == made[0].steps)  # type: ignore[func-returns-value]
        assert len(made) == 1
        gone.clear()
        assert waited(lambda: len(made) == 2 and made[1].steps > 3)
    told = capsys.readouterr().err
    assert told.count("the registry does not answer: nothing is decided") == 1
    assert told.count("the registry answers again") == 1


def test_once_takes_in_what_there_is(yard: Yard) -> None:
    yard.write(5, change=older)
    watch = Watch(yard.registry, holder="here")
    assert watch.once()
    assert [f.subject for f in yard.registry.findings.find()] == ["age"]
    assert yard.registry.holder(CONTROL) == ""
    other = yard.registry.lease(CONTROL, "there")
    assert other.beat()
    assert not watch.once()
