"""The process that watches, where what it stands on comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import RemoteFailed
from modelyard.recording.places import Places
from modelyard.registry import Registry
from modelyard.watching import Watch
from receivers import waited
from recordings import records
from watches import may_be_cut_off, running

__all__ = ["records"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry.open(tmp_path / "home")
    yield opened
    opened.close()


class Slow:
    """A loop whose steps last until they are let go, and which knows how many of its kind are at work."""

    pause = 0.01

    def __init__(self, *_given: Any) -> None:
        self.steps = 0
        made.append(self)

    def step(self) -> None:
        with lock:
            working.append(self)
            most.append(len(working))
        go.wait(20)
        with lock:
            working.remove(self)
            self.steps += 1


made: list[Slow] = []
working: list[Slow] = []
most: list[int] = []
lock, go = threading.Lock(), threading.Event()


def quick(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """With one such loop, and a lease that is soon free."""
    monkeypatch.setattr("modelyard.watching.BEAT_SECONDS", 0.05)
    for each in (made, working, most):
        each.clear()
    watch = Watch(registry, loops=[Slow], holder="here")
    monkeypatch.setattr(watch.lease, "_free_seconds", 0.5)
    return watch


def test_a_loop_that_outlasts_an_outage_is_never_at_work_beside_its_successor(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = quick(registry, monkeypatch)
    go.clear()
    gone = may_be_cut_off(watch, monkeypatch)
    with running(watch):
        try:
            assert waited(lambda: bool(working))
            gone.set()
            assert waited(lambda: not watch._running)
            gone.clear()
            assert waited(lambda: len(made) == 2 and bool(watch.lease.term))
            assert not threading.Event().wait(0.3)  # time for a second one, were there to be one
            go.set()
            assert waited(lambda: made[1].steps > 20)
            assert (made[0].steps, max(most)) == (1, 1)
        finally:
            go.set()


def test_a_beat_that_comes_late_ends_no_loop(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that see that the lease may be another's by now wait; that it is not, nobody would tell them again."""
    watch = quick(registry, monkeypatch)
    go.set()
    beat, slow = watch.lease.beat, threading.Event()

    def beat_in_the_end() -> bool:
        while slow.is_set():
            time.sleep(0.01)
        return beat()

    monkeypatch.setattr(watch.lease, "beat", beat_in_the_end)
    with running(watch):
        assert waited(lambda: bool(made) and made[0].steps > 3)
        slow.set()
        assert waited(lambda: not watch.lease.term)
        time.sleep(0.1)
        steps = made[0].steps
        time.sleep(0.3)
        assert made[0].steps == steps
        slow.clear()
        assert waited(lambda: made[-1].steps > (steps if len(made) == 1 else 0) + 3)


def test_a_recorder_that_could_not_begin_begins_once_it_can(
    records: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It keeps nothing from itself: neither the lock of the folder nor that of labels."""
    monkeypatch.setattr("modelyard.watching._RECORDER_SECONDS", 0.05)
    monkeypatch.setattr("modelyard.monitoring.labelling._CONFLICT_SECONDS", 0.05)
    places, is_full = Places(records), True
    source = Places.source

    def with_room(self: Places) -> str:
        if is_full:
            raise RemoteFailed("cannot write to state: No space left on device")
        return source(self)

    monkeypatch.setattr(Places, "source", with_room)
    watch = Watch(registry, places=places, loops=[], holder="here")
    with running(watch):
        told = ""

        def heard(text: str) -> bool:
            nonlocal told
            told += capsys.readouterr().err
            return text in told

        assert waited(lambda: heard("predictions are not recorded"))
        assert waited(lambda: heard("labels cannot be joined"))
        is_full = False
        assert waited(lambda: heard('"recording"'))
    assert "another process" not in told


def test_a_folder_that_is_none_is_told_once_and_without_a_trace(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("modelyard.watching._RECORDER_SECONDS", 0.02)
    (tmp_path / "file").touch()
    watch = Watch(registry, places=Places(tmp_path / "file"), loops=[], holder="here")
    with running(watch):
        assert not threading.Event().wait(0.5)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "predictions are not recorded" in line)
    assert f"cannot use {tmp_path / 'file'}: File exists" in line
    assert "--records" in line and "Traceback" not in line


def test_a_recorder_that_fails_is_followed_by_another(
    records: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from modelyard.recording.reading import Reading

    monkeypatch.setattr("modelyard.watching._FAILED_SECONDS", 0.05)
    monkeypatch.setattr("modelyard.watching._RECORDER_SECONDS", 0.05)
    is_broken, turn = True, Reading.turn

    def broken(self: Reading) -> Any:
        if is_broken:
            raise ArithmeticError("a bug of ours")
        return turn(self)

    monkeypatch.setattr(Reading, "turn", broken)
    watch = Watch(registry, places=Places(records), loops=[], holder="here")
    told = ""
    with running(watch):

        def heard(text: str, times: int) -> bool:
            nonlocal told
            told += capsys.readouterr().err
            return told.count(text) >= times

        assert waited(lambda: heard("the recorder failed", 2))
        is_broken = False
        before = told.count('"recording"')
        assert waited(lambda: heard('"recording"', before + 1))
        assert waited(lambda: Places(records).recorder() is not None)
    assert "another process" not in told
