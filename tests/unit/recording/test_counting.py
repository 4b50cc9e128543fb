"""Windows: what they count, when they close, and that no traffic makes them large."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.messages import Message
from modelyard.profile import COUNTERS, Profile
from modelyard.recording import frames
from modelyard.recording.counting import Counting, Open
from modelyard.recording.ring import RingReader
from modelyard.recording.rows import Rows, gather
from modelyard.recording.subject import Subject
from modelyard.recording.unseen import MOST_NAMED
from modelyard.registry.packing import pack
from modelyard.registry.stages import STAGE_BOUNDS
from modelyard.registry.windows import MOST_UNSEEN, Window, magnitudes, parts_of, profile_of
from modelyard.schema import Columns, Field, Signature
from recordings import Served, Shop, asked, reference, some_ids, some_rows

STATE_BYTES = 64 * 1024


class Counted:
    """A shop whose ring is read and counted at once."""

    def __init__(self, records: Path, **options: Any) -> None:
        served = options.pop("served", None)
        self.shop = Shop(records, served)
        self.counting = Counting("here", **options)
        (path,) = self.shop.places.rings.glob("*.ring")
        self.reader = RingReader(path)
        self.subjects = {number: Subject(lane) for number, lane in frames.read_lanes(path).items()}

    def read(self) -> list[Rows]:
        """Count what was noted since."""
        found = gather(self.reader.frames(), self.subjects, 1)
        assert not found.unknown
        for rows in found.rows:
            self.counting.take(rows, rows.subject.flags.find(rows.inputs, rows.outputs))
        for subject, refusal in found.refusals:
            self.counting.refuse(subject, refusal)
        self.reader.release(self.reader.position, self.reader.rows)
        return found.rows

    def windows(self) -> list[Window]:
        self.read()
        return self.counting.close(0.0, every=True)


@pytest.fixture
def counted(records: Path) -> Counted:
    return Counted(records, seconds=1e9)


def test_a_window_counts_requests_rows_codes_and_every_column(counted: Counted) -> None:
    samples = [some_rows(3, seed=5), some_rows(2, seed=6)]
    samples[1].outputs["probabilities"][0, 0] = np.nan
    counted.shop.sell(["a", "b"], [2, 1], samples[0], ["ok", "model_failed"])
    counted.shop.sell(["c"], [2], samples[1])
    counted.shop.book.note_refused(
        asked("d"), Message(b"", code="invalid_input"), InvalidInput.at("[0].age", "a number", "'x'")
    )
    (window,) = counted.windows()
    found = window.counted
    assert (window.model, window.version, window.arm, window.source, window.span) == ("churn", "1", "", "here", "live")
    assert (found.requests, found.rows, found.invalid, found.lost) == (4, 5, 1, 0)
    assert found.codes == {"model_failed": 1, "invalid_input": 1}
    expected = reference().empty()
    for sample in samples:
        expected.add(sample.inputs, sample.outputs)
    age = next(part for part in expected.inputs if part.field == "age")
    age.wrong += 1
    assert found.inputs == parts_of(expected.inputs)
    assert found.outputs == parts_of(expected.outputs)
    assert profile_of(reference(), found) == expected


def test_stages_are_timed_by_request(counted: Counted) -> None:
    counted.shop.sell(["a", "b"], [1, 5], seconds=0.5)
    counted.shop.sell(["c"], seconds=0.0005)
    (window,) = counted.windows()
    assert {name: sum(times) for name, times in window.counted.stages.items()} == dict.fromkeys(
        ("decode", "queue", "predict", "encode", "total"), 3
    )
    total = window.counted.stages["total"]
    assert len(total) == len(STAGE_BOUNDS) + 1
    slow = [number for number, times in enumerate(total) if times == 2]
    assert len(slow) == 1
    assert STAGE_BOUNDS[slow[0] - 1] < 0.55 and STAGE_BOUNDS[slow[0]] >= 0.5


def test_arms_and_minutes_have_windows_of_their_own(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(records, seconds=60.0)
    moment = 1_800_000_000.0  # the beginning of a minute
    monkeypatch.setattr("modelyard.serving.noting.time", lambda: moment)
    counted.shop.sell(["a", "b", "c"], [1, 2, 1], arms=["production/4/stable", "production/4/canary", ""])
    moment += 59.9
    counted.shop.sell(["d"], arms=["production/4/canary"])
    moment += 0.2
    counted.shop.sell(["e"], arms=["production/5/canary"])
    counted.shop.sell(["f"])
    windows = {(w.arm, w.opened[14:19], w.closed[14:19]): w.counted for w in counted.windows()}
    assert {key: (found.requests, found.rows) for key, found in windows.items()} == {
        ("stable", "00:00", "00:00"): (1, 1),
        ("canary", "00:00", "00:00"): (2, 3),
        ("", "00:00", "00:00"): (1, 1),
        ("canary", "01:00", "01:00"): (1, 1),
        ("", "01:00", "01:00"): (1, 1),
    }
    ages = windows["canary", "00:00", "00:00"].inputs[0]
    assert sum(ages.counts) + sum(ages.counters) == 3


def test_a_request_of_many_rows_in_several_frames_is_one_request(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.serving.noting.RING_BYTES", 1 << 18)
    counted = Counted(records, seconds=1e9)
    sample = some_rows(2000)
    counted.shop.sell(["small", "large"], [1, 1999], sample)
    (window,) = counted.windows()
    assert (window.counted.requests, window.counted.rows) == (2, 2000)
    assert sum(window.counted.stages["total"]) == 2
    expected = reference().empty()
    expected.add(sample.inputs, sample.outputs)
    assert window.counted.inputs == parts_of(expected.inputs)


def test_what_was_lost_is_in_the_window_of_its_model(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.serving.noting.RING_BYTES", 1 << 14)
    counted = Counted(records, seconds=1e9)
    for _ in range(100):
        counted.shop.sell(["a", "b"])
    counted.read()
    counted.shop.sell(["c"])
    (window,) = counted.windows()
    assert window.counted.rows + window.counted.lost == 201
    assert window.counted.lost == counted.reader.lost[1] > 0


def close_at(counting: Counting, moments: Iterable[float]) -> list[int]:
    return [len(counting.close(moment)) for moment in moments]


def test_windows_close_when_their_time_is_over_or_they_are_full(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(records, seconds=60.0, most_rows=10)
    start = 1_800_000_000.0
    monkeypatch.setattr("modelyard.serving.noting.time", lambda: start + 5)
    counted.shop.sell(["a"])
    counted.read()
    assert close_at(counted.counting, [start + 5, start + 60.5, start + 61.5, start + 70]) == [0, 0, 1, 0]
    counted.shop.sell(["a"], [9])
    counted.read()
    assert close_at(counted.counting, [start + 5]) == [0]
    counted.shop.sell(["a"])
    counted.read()
    (full,) = counted.counting.close(start + 6)
    assert (full.counted.rows, full.closed) == (10, "2027-01-15T08:00:06.000000Z")


def test_a_clock_that_jumped_ahead_keeps_no_window_open(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(records, seconds=60.0)
    monkeypatch.setattr("modelyard.serving.noting.time", lambda: 4_000_000_000.0)
    counted.shop.sell(["a"])
    counted.read()
    steady = 0.0
    monkeypatch.setattr("modelyard.recording.counting.monotonic", lambda: steady)
    (window,) = counted.counting._open.values()
    window.since = 0.0
    steady = 59.0
    assert counted.counting.close(1_800_000_000.0) == []
    steady = 62.0
    assert len(counted.counting.close(1_800_000_000.0)) == 1


def test_without_a_reference_codes_stages_and_rows_are_counted(records: Path) -> None:
    counted = Counted(records, seconds=1e9, served=Served("bare", ""))
    counted.shop.sell(["a", "b"], [1, 3])
    (window,) = counted.windows()
    found = window.counted
    assert (window.version, found.requests, found.rows, found.bins) == ("", 2, 4, "")
    assert (found.inputs, found.outputs, sum(found.stages["total"])) == ([], [], 2)


def test_texts_that_may_not_be_kept_are_not_named(records: Path) -> None:
    hidden: frozenset[str] = frozenset()
    counted = Counted(records, seconds=1e9, hidden=lambda subject: hidden)
    sample = some_rows(1)
    sample.inputs["city"][0] = "Düren"
    counted.shop.sell(["a"], sample=sample)
    counted.read()
    (window,) = counted.counting.present(0.0)
    assert window.counted.unseen == {"city": {"Düren": 1}}
    hidden = frozenset(["city"])
    counted.counting.hide()
    counted.shop.sell(["b"], sample=sample)
    (window,) = counted.windows()
    assert window.counted.unseen == {}
    place = [part.field for part in reference().inputs].index("city")
    assert window.counted.inputs[place].counters[COUNTERS.index("unseen")] == 2


# -- hostile traffic ---------------------------------------------------------------------------------------------


def size_of(window: Open) -> int:
    """Bytes of memory that grow or could grow with traffic."""
    names = window.unseen.told()
    texts = sum(sys.getsizeof(text) + 28 + 100 for found in names.values() for text in found)
    texts += sum(map(sys.getsizeof, {text for found in window.outside.values() for text in found}))
    texts += sum(28 for found in window.outside.values() for _ in found)
    texts += sum(map(sys.getsizeof, (window.outside, *window.outside.values())))
    arrays = sum(vector.nbytes for vector in window.sides) + window.stages.nbytes
    return texts + arrays + sys.getsizeof(window.codes) + 100 * len(window.codes)


def test_state_stays_small_whatever_the_texts_are(records: Path) -> None:
    numbers = [Field(name=f"x{n}", dtype="float64") for n in range(100)]
    texts = [Field(name=f"c{n}", dtype="string") for n in range(100)]
    signature = Signature(inputs=(*numbers, *texts), outputs=(Field(name="y", dtype="float64"),))
    random = np.random.default_rng(0)

    def columns(count: int, seed: int) -> Columns:
        words = np.array([f"\U0001f600{'é' * 100}{seed}-{n}" for n in range(count)], dtype=object)
        far = 10.0 ** (seed * 7 % 300) if seed else 1.0
        arrays: dict[str, Any] = {field.name: far * random.normal(size=count) for field in numbers}
        arrays |= {field.name: words for field in texts}
        return signature.input_layout.from_arrays(arrays)

    usual = columns(2000, 0)
    known = {field.name: np.array(["a", "b"] * 1000, dtype=object) for field in texts}
    profile = Profile.of({**usual, **known}, signature.inputs, {"y": np.arange(2000.0)}, signature.outputs)
    served = Served("hostile", "1", signature, profile)
    counted = Counted(records, seconds=1e9, most_rows=10**9, served=served)
    for turn in range(30):
        inputs = columns(100, turn)
        outputs = signature.output_layout.from_arrays({"y": np.full(100, np.inf)})
        counted.shop.book.note([asked(f"{turn}", 100)], [Message(b"", code=f"code {turn}")], 1.0, 2.0, inputs, outputs)
        for number in range(20):
            counted.shop.book.note_refused(asked("r"), Message(b"", code=f"r {turn}.{number}"), InvalidInput("no"))
        counted.read()
    (window,) = counted.counting._open.values()
    assert window.rows == window.invalid == 3000
    assert size_of(window) < STATE_BYTES
    (told,) = counted.counting.present(0.0)
    assert len(msgspec.msgpack.encode(told)) < STATE_BYTES
    assert len(pack(told.counted)) < STATE_BYTES
    unseen = told.counted.unseen
    assert 0 < sum(map(len, unseen.values())) <= MOST_NAMED
    assert all(len(text) <= 60 for found in unseen.values() for text in found)
    for part in told.counted.inputs[100:]:
        assert part.counters[COUNTERS.index("unseen")] == 3000, "how many there were is exact"


def test_what_is_frequent_among_hostile_texts_is_still_named(counted: Counted) -> None:
    for turn in range(10):
        sample = some_rows(300, seed=turn)
        sample.inputs["city"][:] = some_ids(300)
        sample.inputs["city"][::3] = "Düren"
        counted.shop.sell([f"{turn}"], [300], sample)
    (window,) = counted.windows()
    cities = window.counted.unseen["city"]
    assert len(cities) <= MOST_UNSEEN
    assert max(cities, key=lambda city: cities[city]) == "Düren"
    assert cities["Düren"] <= 1000


def test_windows_of_one_signature_add_up_to_what_one_would_have_counted(records: Path) -> None:
    whole, parts = Counted(records / "a", seconds=1e9), Counted(records / "b", seconds=1e9)
    single: list[Window] = []
    for turn in range(4):
        sample = some_rows(50, seed=turn)
        for each in (whole, parts):
            each.shop.sell([f"{turn}"], [50], sample)
        single += parts.windows()
    (expected,) = whole.windows()
    added = single[0]
    for window in single[1:]:
        added = added.plus(window)
    assert added.counted.inputs == expected.counted.inputs
    assert added.counted.outputs == expected.counted.outputs
    assert (added.counted.requests, added.counted.rows) == (4, 200)


def test_numbers_beyond_the_range_are_counted_by_their_magnitude(counted: Counted) -> None:
    sample = some_rows(300, seed=4)
    sample.inputs["income"][:] = sample.inputs["income"] * 1000  # about a tenth of them are missing
    counted.shop.sell(["a"], [300], sample)
    (window,) = counted.windows()
    found = window.counted.outside
    assert set(found) == {"income"}
    above = window.counted.inputs[1].counters[COUNTERS.index("above")]
    assert sum(found["income"].values()) == above == 300 - window.counted.inputs[1].counters[0]
    # 3,000,000 lies between 10^6.4 and 10^6.5
    assert max(found["income"], key=lambda text: found["income"][text]) == "+64"
    assert set(found["income"]) <= {f"+{power}" for power in range(60, 68)}


def test_magnitudes_have_a_bound(counted: Counted) -> None:
    sample = some_rows(600, seed=4)
    sample.inputs["income"][:] = np.logspace(-300, 300, 600) * np.where(np.arange(600) % 2, 1, -1)
    counted.shop.sell(["a"], [600], sample)
    (window,) = counted.windows()
    assert len(window.counted.outside["income"]) <= 30


def test_magnitudes_are_tenths_of_decades() -> None:
    numbers = np.array([1.0, 1.25, 1.26, 9.99, -20.0, 0.0, np.inf, -np.inf, 0.05])
    assert magnitudes(numbers) == {
        "+0": 2, "+1": 1, "+9": 1, "-13": 1, "0": 1, "+inf": 1, "-inf": 1, "+-14": 1,
    }  # fmt: skip
    assert magnitudes(np.array([])) == {}
