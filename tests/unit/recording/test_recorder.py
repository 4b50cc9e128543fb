"""The recorder, in processes of its own that are stopped and killed: every row is kept and counted exactly once."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from modelyard.errors import Conflict, InvalidInput, RemoteFailed
from modelyard.messages import Message
from modelyard.recording import recorder as room
from modelyard.recording.checkpoint import read_checkpoint
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.recorder import Recorder
from modelyard.recording.spool import read_spool
from modelyard.registry import Registry
from modelyard.registry.windows import Counted, Window, Windows
from modelyard.telemetry import Log
from receivers import waited
from recordings import Served, Shop, asked, remove_rings, some_ids, some_rows

RECORDER = """
import signal, sys, threading
from pathlib import Path
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.recorder import Recorder
from modelyard.registry import Registry
from modelyard.telemetry import Log

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
options = Options(sample=2, window_seconds=1.0, window_rows=int(sys.argv[3]))
recorder = Recorder(Places(Path(sys.argv[1])), Registry.open(sys.argv[2]), Log("warning"), options)
print("ready", flush=True)
recorder.run(stopped)
"""

#: Notes calls until it is told to stop, or killed; writes the ids of each call that it has noted to a file.
SERVER = """
import random, signal, sys, threading, time
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from recordings import Served, Shop, reference, some_ids, some_rows

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
shop = Shop(Path(sys.argv[1]), Served("churn", sys.argv[3], profile=reference()))
samples = {rows: some_rows(rows) for rows in range(1, 13)}
print("ready", flush=True)
with open(sys.argv[2], "w", buffering=1) as told:
    while not stopped.is_set():
        sizes = [random.randrange(1, 4) for _ in range(random.randrange(1, 5))]
        ids = some_ids(len(sizes))
        told.write("".join(f"{id} {size}\\n" for id, size in zip(ids, sizes)))
        shop.sell(ids, sizes, samples[sum(sizes)], ["model_failed" if random.random() < 0.1 else "ok" for _ in ids])
        time.sleep(random.random() / 100)
shop.close()
"""


class Process:
    """A program of ours in a process of its own."""

    def __init__(self, program: str, *arguments: object) -> None:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._child.stdout is not None
        first = self._child.stdout.readline()
        if first != "ready\n":
            _, told = self._child.communicate()
            raise AssertionError(told)

    def end(self, number: int) -> str:
        """Send it a signal; what it told on stderr when it has ended."""
        self._child.send_signal(number)
        return self._child.communicate(timeout=120)[1]


class Kept:
    """All that was recorded in a folder and its registry."""

    def __init__(self, records: Path, home: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        for path in sorted((records / "segments").rglob("*")):
            if path.suffix == ".parquet":
                self.rows += parquet.read_table(path, partitioning=None).to_pylist()
            elif path.suffix == ".arrows":
                self.rows += read_spool(path).to_pylist()
        registry = Registry.open(home)
        self.windows = registry.windows.find("churn")
        registry.close()
        self.counted = Counted()
        for window in self.windows:
            self.counted = self.counted.plus(window.counted)

    @property
    def ids(self) -> Counter[str]:
        return Counter(row["prediction_id"] for row in self.rows)

    def check(self) -> None:
        """Whether windows tell of as much as the rows do."""
        requests = {row["request_id"]: row["code"] for row in self.rows}
        assert self.counted.requests == sum(self.counted.stages["total"]) == len(requests)
        assert self.counted.rows == sum(row["out.prediction"] is not None for row in self.rows)
        assert self.counted.codes == {"model_failed": sum(code != "ok" for code in requests.values())}
        ages = self.counted.inputs[0]
        assert sum(ages.counts) + sum(ages.counters) == len(self.rows)


def told_by(path: Path) -> Counter[str]:
    """The prediction ids of what a server said that it noted."""
    found: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        id, size = line.split()
        found.update([id] if size == "1" else [f"{id}.{number}" for number in range(int(size))])
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Registry.open(tmp_path / "home").close()
    return tmp_path / "home"


def start_recorder(records: Path, home: Path, window_rows: int = 300) -> Process:
    return Process(RECORDER, records, home, window_rows)


def start_server(records: Path, told: Path, version: str = "1") -> Process:
    return Process(SERVER, records, told, version, Path(__file__).parents[2])


def until_told(path: Path, lines: int = 1) -> None:
    """Until a server has said of so many requests that it noted them."""
    assert waited(lambda: path.exists() and path.read_bytes().count(b"\n") >= lines)


def test_stopping_loses_nothing(records: Path, home: Path, tmp_path: Path) -> None:
    recorder = start_recorder(records, home)
    servers = [start_server(records, tmp_path / f"told{n}") for n in range(2)]
    for number in range(2):
        until_told(tmp_path / f"told{number}", 500)
    for server in servers:
        assert server.end(signal.SIGTERM) == ""
    assert recorder.end(signal.SIGTERM) == ""
    kept, told = Kept(records, home), told_by(tmp_path / "told0") + told_by(tmp_path / "told1")
    assert kept.ids == told
    kept.check()
    assert kept.counted.lost == 0
    assert not list(Places(records).rings.glob("*.*")), "rings of servers that are gone go too"
    assert not list((records / "segments").rglob("*.arrows"))
    assert len(kept.windows) > 2


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(3))
def test_a_recorder_that_is_killed_at_any_moment_loses_and_doubles_nothing(
    records: Path, home: Path, tmp_path: Path, turn: int
) -> None:
    """Also while windows are written to the registry, spools become Parquet files, and rings are removed."""
    told: Counter[str] = Counter()
    servers: list[Process] = []
    for kill in range(6):
        recorder = start_recorder(records, home, window_rows=random.choice([50, 100_000]))
        servers.append(start_server(records, tmp_path / f"told{kill}"))
        time.sleep(random.random() * 1.2)
        if len(servers) > 1:
            assert servers.pop(0).end(signal.SIGTERM) == ""
            time.sleep(random.random() * 0.2)
        if kill % 3 == 2:
            recorder.end(signal.SIGTERM)
        else:
            assert recorder.end(signal.SIGKILL) == ""
    for server in servers:
        server.end(signal.SIGTERM)
    assert start_recorder(records, home).end(signal.SIGTERM) == ""
    for kill in range(6):
        told += told_by(tmp_path / f"told{kill}")
    kept = Kept(records, home)
    assert kept.ids == told
    kept.check()
    assert kept.counted.lost == 0


def test_a_server_that_is_killed_loses_at_most_the_call_that_it_was_noting(
    records: Path, home: Path, tmp_path: Path
) -> None:
    recorder = start_recorder(records, home)
    for turn in range(4):
        server = start_server(records, tmp_path / f"told{turn}")
        until_told(tmp_path / f"told{turn}")
        time.sleep(random.random() * 0.3)
        server.end(signal.SIGKILL)
    time.sleep(0.2)
    assert recorder.end(signal.SIGTERM) == ""
    kept = Kept(records, home)
    for turn in range(4):
        told = told_by(tmp_path / f"told{turn}")
        missing = told - kept.ids
        assert len({id.partition(".")[0] for id in missing}) <= 4, "the requests of one call"
        assert told
    assert max(kept.ids.values()) == 1
    kept.check()
    assert not list(Places(records).rings.glob("*.*"))


def test_everything_killed_at_once_loses_at_most_the_call_that_was_being_noted(
    records: Path, home: Path, tmp_path: Path
) -> None:
    recorder, server = start_recorder(records, home), start_server(records, tmp_path / "told")
    until_told(tmp_path / "told", 100)
    recorder.end(signal.SIGKILL)
    server.end(signal.SIGKILL)
    start_recorder(records, home).end(signal.SIGTERM)
    kept, told = Kept(records, home), told_by(tmp_path / "told")
    assert max(kept.ids.values()) == 1
    assert len({id.partition(".")[0] for id in told - kept.ids}) <= 4
    kept.check()


# -- in this process ---------------------------------------------------------------------------------------------


class Here:
    """A recorder in this process, turned by hand."""

    def __init__(self, records: Path, registry: Registry | None, **options: Any) -> None:
        self.log = io.StringIO()
        self.recorder = Recorder(Places(records), registry, Log("info", self.log), Options(**options))

    def turn_until(self, done: Callable[[], Any]) -> None:
        until = time.monotonic() + 120
        while not done():
            assert time.monotonic() < until, self.log.getvalue()
            self.recorder.turn()
            time.sleep(0.01)

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]

    @property
    def totals(self) -> dict[tuple[str, str], tuple[int, int, int, int]]:
        return {key: (t.requests, t.rows, t.lost, t.unkept) for key, t in self.recorder._totals.items()}


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    opened = Registry.open(home)
    yield opened
    opened.close()


def test_who_only_asks_who_records_keeps_nobody_from_it(records: Path) -> None:
    import fcntl

    places = Places(records)
    Here(records, None).recorder.close()
    with (records / "state" / "recorder.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.03, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        Here(records, None).recorder.close()
    assert places.recorder() is None


def test_a_second_recorder_is_told_who_the_first_is(records: Path) -> None:
    here = Here(records, None)
    with pytest.raises(Conflict, match=f"recorded by process {os.getpid()} already"):
        Here(records, None)
    assert Places(records).recorder() == os.getpid()
    here.recorder.close()
    assert Places(records).recorder() is None
    Here(records, None).recorder.close()


def test_rows_are_kept_within_a_moment(records: Path, shop: Shop) -> None:
    here = Here(records, None, sample=1)
    shop.sell(["a", "b"])
    here.turn_until(lambda: list((records / "segments").rglob("*.arrows")))
    here.turn_until(lambda: here.recorder._job is None)
    (path,) = (records / "segments").rglob("*.arrows")
    assert read_spool(path)["prediction_id"].to_pylist() == ["a", "b"]
    assert read_checkpoint(records / "state" / "checkpoint").totals[0].rows == 2
    here.recorder.close()


def test_windows_are_kept_until_a_registry_that_is_away_is_back(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here(records, registry, window_seconds=1e6, window_rows=1)
    add, is_away = Windows.add, True

    def away(self: Windows, windows: list[Window], **options: Any) -> bool:
        if is_away:
            raise RemoteFailed("the registry is away")
        return add(self, windows, **options)

    monkeypatch.setattr(Windows, "add", away)
    for number in range(5):
        shop.sell([f"{number}"])
        here.turn_until(lambda seen=number + 1: here.totals.get(("churn", "1"), (0,))[0] == seen)
    here.turn_until(lambda: "the registry is away: windows are kept until it is back" in here.events)
    before = read_checkpoint(records / "state" / "checkpoint")
    here.turn_until(lambda: here.recorder._job is None)
    assert registry.windows.find("churn") == []
    assert before.post.sending
    is_away = False
    here.turn_until(lambda: sum(w.counted.rows for w in registry.windows.find("churn")) == 5)
    here.turn_until(lambda: not here.recorder._posting.post.sending)
    assert "the registry is back" in here.events
    here.recorder.finish()
    assert sum(window.counted.rows for window in registry.windows.find("churn")) == 5


def test_windows_that_wait_for_long_become_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.recording import posting

    monkeypatch.setattr(posting, "MOST_WAITING", 10)
    post = posting.Posting()
    for hour in range(3):
        for minute in range(60):
            at = f"2026-11-30T{hour:02}:{minute:02}:00.000000Z"
            post.add([Window(model="m", version="1", opened=at, closed=at, counted=Counted(requests=1))])
    assert len(post.post.waiting) <= 13
    assert sum(window.counted.requests for window in post.post.waiting) == 180


def test_a_stopped_recorder_costs_rows_which_are_counted(
    records: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.serving.noting.RING_BYTES", 1 << 15)
    shop = Shop(records)
    for _ in range(300):
        shop.sell(some_ids(2))
    here = Here(records, registry)
    here.turn_until(lambda: here.totals.get(("churn", "1"), (0, 0))[1] > 0)
    here.turn_until(lambda: not shop.places.rings.exists() or here.recorder._reading.fullest == 0)
    shop.sell(some_ids(1))
    shop.close()
    here.recorder.finish()
    ((_, rows, lost, unkept),) = here.totals.values()
    assert (rows + lost, unkept) == (601, 0)
    (window,) = registry.windows.find("churn")
    assert window.counted.lost == lost > 0
    assert window.counted.rows == rows


def test_what_a_killed_server_lost_last_is_counted_when_its_ring_goes(
    records: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.serving.noting.RING_BYTES", 1 << 15)
    shop = Shop(records)
    for _ in range(300):
        shop.sell(some_ids(2))
    shop.close()
    here = Here(records, registry)
    here.recorder.finish()
    ((_, rows, lost, _),) = here.totals.values()
    assert rows + lost == 600


def test_a_disk_that_is_slow_costs_rows_of_segments_and_no_windows(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper hangs; the recorder goes on reading, so that the ring never fills, and tells what was not kept."""
    monkeypatch.setattr(room, "MOST_HELD", 200_000)
    here = Here(records, registry)
    hangs = threading.Event()
    keep = here.recorder._keeper.keep

    def slow(job: Any) -> Any:
        hangs.wait(240)
        return keep(job)

    here.recorder._keeper.keep = slow  # type: ignore[method-assign]
    sample = some_rows(1000)
    for number in range(100):  # three times the ring
        shop.sell([f"{number}"], [1000], sample)
        here.recorder.turn()
    hangs.set()
    shop.close()
    here.recorder.finish()
    ((_, rows, lost, unkept),) = here.totals.values()
    assert (rows, lost) == (100_000, 0)
    assert unkept > 0
    assert "the disk is too slow: predictions are only counted" in here.events
    kept = Kept(records, Path(registry._database.where).parent)
    assert len(kept.rows) == rows - unkept
    assert kept.counted.rows == 100_000


def test_a_checkpoint_that_cannot_be_written_stops_nothing_but_what_needs_it(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.recording import keeping

    here = Here(records, registry, window_rows=1)
    write, is_full = keeping.write_checkpoint, True

    def full(path: Path, checkpoint: Any) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        write(path, checkpoint)

    monkeypatch.setattr(keeping, "write_checkpoint", full)
    shop.sell(["a"])
    here.turn_until(lambda: "a checkpoint cannot be written" in here.events)
    here.turn_until(lambda: here.recorder._reading.fullest == 0)
    assert registry.windows.find("churn") == [], "a window is sent once it cannot be forgotten"
    is_full = False
    here.turn_until(lambda: len(registry.windows.find("churn")) == 1)
    shop.sell(["b"])
    here.turn_until(lambda: len(registry.windows.find("churn")) == 2)
    assert here.events.count("a checkpoint cannot be written") == 1
    here.recorder.finish()


def test_a_spool_that_finds_no_room_as_a_file_is_tried_again_later_only(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.recording import errands, segments

    monkeypatch.setattr(segments, "SPOOL_BYTES", 1)
    make, is_full = segments.to_parquet, True

    def full(spool: Path, target: Path) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        make(spool, target)

    monkeypatch.setattr(segments, "to_parquet", full)
    here = Here(records, registry)
    shop.sell(["a"])
    here.turn_until(lambda: "a spool stays as it is" in here.events)
    for number in range(3):
        shop.sell([f"b{number}"])
        here.turn_until(lambda: here.recorder._reading.fullest == 0)
    assert here.events.count("a spool stays as it is") == 1
    is_full = False
    monkeypatch.setattr(errands, "monotonic", lambda: time.monotonic() + errands.CONVERT_SECONDS + 1)
    shop.sell(["c"])
    here.turn_until(lambda: len(list((records / "segments").rglob("*.parquet"))) >= 4)
    is_full = True
    shop.sell(["d"])
    here.recorder.finish()
    assert here.events.count("a spool stays as it is") == 2


def test_a_clock_that_jumps_ages_nothing(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is old by a clock that has been steady for a while goes."""
    from modelyard.recording import errands, segments, steadiness

    ahead = passed = 0.0
    monkeypatch.setattr(steadiness, "time", lambda: time.time() + ahead + passed)
    monkeypatch.setattr(steadiness, "monotonic", lambda: time.monotonic() + passed)
    monkeypatch.setattr(errands, "monotonic", lambda: time.monotonic() + passed)
    monkeypatch.setattr(segments, "time", lambda: time.time() + ahead + passed)

    def files() -> int:
        return len(list((records / "segments").rglob("*.parquet")))

    here = Here(records, registry)
    shop.sell(["a"])
    here.turn_until(lambda: here.totals)
    here.recorder.finish()
    assert files() == 1
    here = Here(records, registry)
    ahead = 40 * 86_400.0
    rounds = []
    retain = segments.Segments.retain
    monkeypatch.setattr(segments.Segments, "retain", lambda *given: rounds.append(retain(*given)))
    for _ in range(3):
        before, passed = len(rounds), passed + errands.RETAIN_SECONDS + 1
        here.turn_until(lambda before=before: len(rounds) > before)  # type: ignore[misc]
    assert files() == 1
    passed += steadiness.STEADY_SECONDS
    here.turn_until(lambda: files() == 0)
    here.recorder.finish()


def test_a_damaged_checkpoint_costs_no_spool(records: Path, shop: Shop) -> None:
    here = Here(records, None)
    shop.sell(["a", "b"])
    here.turn_until(lambda: here.totals and here.recorder._reading.fullest == 0)
    here.recorder.close()
    (records / "state" / "checkpoint").write_bytes(b"damaged")
    again = Here(records, None)
    again.recorder.finish()
    assert [event for event in again.events if "checkpoint" in event] == [
        "the last checkpoint is damaged: some rows may be lost or doubled"
    ]
    (path,) = (records / "segments").rglob("*.parquet")
    assert parquet.read_table(path, partitioning=None)["prediction_id"].to_pylist() == ["a", "b"]


def test_a_ring_stays_until_a_checkpoint_says_that_it_is_done(
    records: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.recording import keeping

    shop = Shop(records)
    shop.sell(["a"])
    shop.close()
    here = Here(records, registry)

    def full(_path: Path, _checkpoint: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keeping, "write_checkpoint", full)
        here.turn_until(lambda: "a checkpoint cannot be written" in here.events)
        here.turn_until(lambda: here.recorder._job is None)
        assert len(list(Places(records).rings.glob("*.ring"))) == 1
        here.recorder.close()
    again = Here(records, registry)
    again.recorder.finish()
    assert again.totals == {("churn", "1"): (0, 0, 1, 0)}, "what was forgotten is counted"
    assert "rows were not recorded: the recorder before ended too soon" in again.events


def test_a_ring_goes_with_its_server_however_long_nothing_was_predicted(records: Path, registry: Registry) -> None:
    shop = Shop(records)
    shop.sell(["a"])
    here = Here(records, registry, window_seconds=0.01)
    here.turn_until(registry.windows.newest)
    here.turn_until(lambda: here.recorder._job is None and not here.recorder._has_news)
    shop.close()
    here.turn_until(lambda: not list(Places(records).rings.glob("*.ring")))
    here.recorder.finish()


def test_a_damaged_ring_is_told_and_given_up(records: Path, registry: Registry) -> None:
    shops = [Shop(records) for _ in range(2)]
    for number, shop in enumerate(shops):
        shop.sell([f"{number}"], [3])
        shop.close()
    (path, _) = sorted(Places(records).rings.glob("*.ring"))
    with path.open("r+b") as file:
        file.seek(os.sysconf("SC_PAGE_SIZE"))
        file.write(bytes(8))
    (Places(records).rings / "1-junk.ring").write_bytes(b"junk")
    here = Here(records, registry)
    here.recorder.finish()
    assert list(here.totals.values()) == [(1, 3, 3, 0)]
    assert "a ring of records is damaged" in here.events
    assert here.events.count("a ring of records cannot be read") == 1
    assert [path.name for path in Places(records).rings.glob("*.*")] == ["1-junk.ring"]


def test_frames_that_make_no_sense_are_counted_as_lost(records: Path, shop: Shop, registry: Registry) -> None:
    from modelyard.recording.frames import CALL, REFUSED

    ring = shop.notes._ring
    assert ring is not None
    ring.put(CALL, b"\xc1", [], 0, 5)
    ring.put(REFUSED, b"\x90", [], 0, 1)
    shop.sell(["a"])
    here = Here(records, registry)
    shop.close()
    here.recorder.finish()
    assert list(here.totals.values()) == [(1, 1, 6, 0)]
    assert "frames of a ring make no sense" in here.events


def test_versions_that_cannot_be_read_cost_their_rows_and_no_others(
    records: Path, shop: Shop, registry: Registry
) -> None:
    from modelyard.recording.frames import lanes_path

    strange = Shop(records, Served("strange"))
    ring = strange.notes._ring
    assert ring is not None
    lanes_path(ring.path).write_bytes(b'{"number": 0, "model": "strange", "signature": {"inputs": [{"dtype": "x"}]}}\n')
    strange.sell(["a", "b"])
    strange.close()
    shop.sell(["c"])
    shop.close()
    here = Here(records, registry)
    here.recorder.finish()
    assert here.totals == {("churn", "1"): (1, 1, 0, 0)}
    assert "a ring's versions cannot be read" in here.events
    assert "frames of a ring make no sense" in here.events


def test_a_fault_in_one_version_costs_its_rows_only(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.recording.counting import Counting

    take = Counting.take

    def broken(self: Counting, rows: Any, found: Any) -> None:
        if rows.subject.model == "risk":
            raise RuntimeError("a bug")
        take(self, rows, found)

    monkeypatch.setattr(Counting, "take", broken)
    book = shop.notes.book(Served("risk"), shop.meter)  # type: ignore[arg-type]
    sample = some_rows(2)
    book.note([asked("x", 2)], [Message(b"")], 1.0, 2.0, sample.inputs, sample.outputs)
    shop.sell(["a"])
    here = Here(records, registry)
    shop.close()
    here.recorder.finish()
    assert here.totals == {("risk", "1"): (0, 0, 2, 0), ("churn", "1"): (1, 1, 0, 0)}
    assert "rows could not be counted" in here.events


def test_without_the_library_rows_are_counted_and_not_kept(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    here = Here(records, registry)
    shop.sell(["a"])
    shop.book.note_refused(asked("b"), Message(b"", code="invalid_input"), InvalidInput("no"))
    shop.close()
    here.recorder.finish()
    assert list(here.totals.values()) == [(2, 1, 0, 0)]
    (window,) = registry.windows.find("churn")
    assert window.counted.requests == 2
    assert list((records / "segments").iterdir()) == []
    (line,) = [json.loads(line) for line in here.log.getvalue().splitlines()]
    assert line["event"] == "predictions are counted and not kept"
    assert line["hint"] == "pip install 'modelyard[records]'"


def test_a_policy_is_in_force_a_moment_after_it_was_made(records: Path, shop: Shop, registry: Registry) -> None:
    names = ["age", "income", "city", "visits"]
    here = Here(records, registry, sample=1)
    sample = some_rows(1)
    sample.inputs["city"][:] = "Düren"
    shop.sell(["before"], sample=sample)
    here.turn_until(lambda: here.recorder._job)
    registry.policies.set("churn", {"city": "drop"}, names)
    here.turn_until(lambda: here.recorder._errands.policy("churn"))
    shop.sell(["after"], sample=sample)
    shop.close()
    here.recorder.finish()
    kept = Kept(records, Path(registry._database.where).parent)
    assert {row["prediction_id"]: row["in.city"] for row in kept.rows} == {"before": "Düren", "after": None}
    assert kept.counted.unseen == {}


def test_where_no_policy_was_ever_seen_no_input_is_kept(
    records: Path, shop: Shop, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Registry) -> int:
        raise RemoteFailed("away")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "marker", away)
        here = Here(records, registry, sample=1)
        shop.sell(["a"])
        here.recorder.turn()
        here.turn_until(lambda: here.recorder._kept_at > 0 and not here.recorder._rows and here.recorder._job is None)
        here.recorder.finish()
    (row,) = Kept(records, Path(registry._database.where).parent).rows
    assert row["in.age"] is None and row["removed"] == ["age:drop", "income:drop", "city:drop", "visits:drop"]


def test_what_a_consumer_knows_is_in_the_checkpoint(records: Path, shop: Shop) -> None:
    class Ids:
        name = "ids"
        is_urgent = False

        def __init__(self) -> None:
            self.seen: list[str] = []
            self.safe: list[str] = []

        def take(self, rows: Any, found: Any) -> None:
            self.seen += rows.ids

        def refuse(self, subject: Any, refusal: Any) -> None:
            self.seen.append(refusal.id)

        def state(self) -> bytes:
            return ",".join(self.seen).encode()

        def restore(self, state: bytes) -> None:
            self.seen = state.decode().split(",")

        def fail(self, unserved: Any) -> None:
            self.seen.append(unserved.arm)

        def kept(self, state: bytes) -> None:
            self.safe.append(state.decode())

    first, second = Ids(), Ids()
    recorder = Recorder(Places(records), None, Log("error"), consumers=[first])
    shop.sell(["a", "b"])
    shop.book.note_refused(asked("c"), Message(b"", code="overloaded"), InvalidInput("no"))
    shop.notes.note_unserved("churn", "production/2/canary", "no such file")
    recorder.finish()
    assert first.seen == ["a", "b", "c", "production/2/canary"] and first.safe[-1] == "a,b,c,production/2/canary"
    recorder = Recorder(Places(records), None, Log("error"), consumers=[second])
    assert second.seen == first.seen
    recorder.close()


def test_a_consumer_that_waits_for_long_is_told_the_newest_state_only(records: Path, shop: Shop) -> None:
    class Slow:
        name = "slow"
        is_urgent = True

        def __init__(self) -> None:
            self.states = 0
            self.told: list[str] = []
            self.go_on = threading.Event()

        def take(self, rows: Any, found: Any) -> None: ...

        def refuse(self, subject: Any, refusal: Any) -> None: ...

        def fail(self, unserved: Any) -> None: ...

        def state(self) -> bytes:
            self.states += 1
            return str(self.states).encode()

        def restore(self, state: bytes) -> None: ...

        def kept(self, state: bytes) -> None:
            self.told.append(state.decode())
            self.go_on.wait(240)

    slow = Slow()
    recorder = Recorder(Places(records), None, Log("error"), consumers=[slow])
    assert waited(lambda: recorder.turn() or slow.told)  # type: ignore[func-returns-value]
    enough = slow.states + 20
    assert waited(lambda: recorder.turn() or slow.states >= enough)  # type: ignore[func-returns-value]
    assert len(slow.told) == 1
    slow.is_urgent = False
    slow.go_on.set()
    recorder.finish()
    assert len(slow.told) < 7 and int(slow.told[1]) > enough - 5 and slow.told[-1] == str(slow.states)


@pytest.fixture(autouse=True)
def clean(records: Path) -> Iterator[None]:
    yield
    with contextlib.suppress(OSError):
        remove_rings(records)
