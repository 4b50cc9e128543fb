"""Processes that count together in a folder, without anybody who starts or ends them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest

from modelyard.errors import InvalidInput
from modelyard.serving import shared
from modelyard.serving.metrics import Counts, Meter, Snapshot, Vitals
from modelyard.serving.siblings import Siblings


def told(sibling: Siblings, ok: int) -> None:
    """Have a sibling tell that it counted so many requests."""
    vitals = Vitals(
        worker=sibling.number, process=os.getpid(), started=1.0, cpu=0.0, resident=None, connections=0, ready=True,
        registry_up=True, in_flight={},
    )  # fmt: skip
    sibling.publish(Snapshot(Counts({("m", "1"): Meter("m", "1", ok=ok)}), vitals))


def seen(sibling: Siblings) -> tuple[int, list[int], int]:
    """What a sibling sees: requests of all, the numbers of those that live, and how many were replaced."""
    counts, vitals, replaced = sibling.collect()
    total = reduce(Counts.__add__, counts, Counts())
    return sum(meter.ok for meter in total.meters.values()), [each.worker for each in vitals], replaced


@pytest.fixture
def join(tmp_path: Path) -> Callable[[], Siblings]:
    return lambda: Siblings(tmp_path / "counts")


def test_each_sees_what_all_have_counted(join: Callable[[], Siblings]) -> None:
    first, second = join(), join()
    assert (first.number, second.number) == (0, 1)
    told(first, 3)
    assert seen(first) == seen(second) == (3, [0], 0)
    told(second, 4)
    assert seen(first) == seen(second) == (7, [0, 1], 0)


def test_the_counts_of_one_that_ended_stay_until_the_next_goes_on_from_them(join: Callable[[], Siblings]) -> None:
    first, second = join(), join()
    told(first, 3)
    told(second, 4)
    first.close()
    assert seen(second) == (7, [1], 0)
    heir = join()
    assert heir.number == 0 and heir.inherited.meters["m", "1"].ok == 3
    told(heir, 3 + 10)
    assert seen(second) == seen(heir) == (17, [0, 1], 1)


def test_a_process_that_is_killed_is_seen_to_be_gone(join: Callable[[], Siblings]) -> None:
    ours = join()
    told(ours, 1)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        told(join(), 2)
        os.write(writing, b"+")
        signal.pause()
    os.close(writing)
    assert os.read(reading, 1) == b"+"
    assert seen(ours) == (3, [0, 1], 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    assert seen(ours) == (3, [0], 0)


def test_where_nobody_lives_all_begin_from_nothing(join: Callable[[], Siblings]) -> None:
    before = [join() for _ in range(3)]
    for sibling in before:
        told(sibling, 5)
        sibling.close()
    first, second = join(), join()
    assert (first.number, second.number) == (0, 1)
    assert first.inherited == second.inherited == Counts()
    assert seen(first) == (0, [], 0)
    told(second, 1)
    assert seen(first) == (1, [1], 0)


def test_what_another_version_wrote_is_let_be(join: Callable[[], Siblings], tmp_path: Path) -> None:
    first, second = join(), join()
    told(first, 3)
    told(second, 4)
    path = tmp_path / "counts" / "1.counts"
    with path.open("r+b") as file:
        for start in (4096, 4096 + (1 << 21)):
            file.seek(start)
            file.write(b"\xc1" * 64)
    assert seen(first) == (3, [0], 0)
    second.close()
    heir = join()
    assert heir.number == 1 and heir.inherited == Counts()
    told(heir, 1)
    assert seen(first) == (4, [0, 1], 0)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system does not take room beforehand")
def test_room_is_taken_at_once(join: Callable[[], Siblings], tmp_path: Path) -> None:
    join()
    taken = (tmp_path / "counts" / "0.counts").stat()
    assert taken.st_blocks * 512 >= taken.st_size == shared.SLOT


def test_a_fork_while_somebody_looks_does_not_keep_the_others_out(join: Callable[[], Siblings]) -> None:
    first, second = join(), join()
    told(first, 3)
    with first._guarded():
        child = os.fork()
        if not child:
            signal.pause()
    try:
        looking = threading.Thread(target=second.collect, daemon=True)
        looking.start()
        looking.join(60)
        assert not looking.is_alive()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="metrics_folder: expected a folder in which this process may write") as told:
        Siblings(tmp_path / "file")
    assert "MODELYARD_METRICS_FOLDER=" in (told.value.hint or "")
