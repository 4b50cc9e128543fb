"""Whose inputs are kept: those that failed, were slow or odd, and a sample that is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.recording import frames
from modelyard.recording.capture import LEAST_TIMED, REASONS, Capture, is_in_sample
from modelyard.recording.ring import RingReader
from modelyard.recording.rows import gather
from modelyard.recording.subject import Subject
from recordings import Shop, some_ids, some_rows


class Kept:
    def __init__(self, records: Path, sample: int = 0) -> None:
        self.shop = Shop(records)
        (path,) = self.shop.places.rings.glob("*.ring")
        self._reader = RingReader(path)
        self._subjects = {number: Subject(lane) for number, lane in frames.read_lanes(path).items()}
        self._capture = Capture(sample)

    def why(self) -> list[str | None]:
        """Why the inputs of each row are kept that was noted since."""
        (rows,) = gather(self._reader.frames(), self._subjects, 1).rows
        self._reader.release(self._reader.position, self._reader.rows)
        found = rows.subject.flags.find(rows.inputs, rows.outputs)
        return [REASONS[reason] for reason in self._capture.reasons(rows, found)]


@pytest.fixture
def kept(records: Path) -> Kept:
    return Kept(records)


def test_ordinary_requests_are_not_kept(kept: Kept) -> None:
    kept.shop.sell(some_ids(3), [1, 2, 1])
    assert kept.why() == [None] * 4


def test_every_row_of_a_failed_request_is_kept(kept: Kept) -> None:
    kept.shop.sell(["a", "b", "c"], [1, 2, 1], codes=["ok", "model_failed", "ok"])
    assert kept.why() == [None, "error", "error", None]


def test_odd_rows_are_kept_and_not_their_neighbours(kept: Kept) -> None:
    sample = some_rows(4)
    sample.inputs["age"][2] = 1000
    sample.outputs["probabilities"][3, 0] = np.nan
    kept.shop.sell(["a", "b"], [3, 1], sample)
    assert kept.why() == [None, None, "flagged", "flagged"]


def test_slow_requests_are_kept_once_it_is_known_what_is_slow(kept: Kept) -> None:
    kept.shop.sell(["slow"], seconds=1.0)
    assert kept.why() == [None]
    kept.shop.sell(some_ids(LEAST_TIMED), seconds=0.01)
    kept.why()
    kept.shop.sell(["a", "b"], [1, 2], seconds=0.01)
    assert kept.why() == [None] * 3
    kept.shop.sell(["c", "d"], [1, 2], seconds=0.2)
    assert kept.why() == ["slow"] * 3


def test_what_is_slow_changes_with_the_model(kept: Kept) -> None:
    """A hundredth is kept, whatever the times are: also after all of them have become ten times as long."""
    kept.shop.sell(some_ids(1000), seconds=0.01)
    kept.why()
    found: list[str | None] = []
    for _ in range(60):
        kept.shop.sell(some_ids(1000), seconds=0.1)
        found = kept.why()
    assert set(found) == {None}


def test_a_failed_request_that_was_slow_and_odd_is_kept_as_failed(records: Path) -> None:
    kept = Kept(records, sample=1)
    kept.shop.sell(some_ids(LEAST_TIMED), seconds=0.001)
    kept.why()
    sample = some_rows(4)
    sample.inputs["age"][[0, 2]] = 1000
    kept.shop.sell(["a", "b"], [2, 2], sample, ["model_failed", "ok"], seconds=0.001)
    assert kept.why() == ["error", "error", "flagged", "sample"]


def test_the_sample_depends_on_the_id_alone(records: Path) -> None:
    ids = some_ids(3000)
    chosen = {id for id in ids if is_in_sample(id, 10)}
    assert 200 < len(chosen) < 400
    kept = Kept(records, sample=10)
    kept.shop.sell(ids)
    why = dict(zip(ids, kept.why(), strict=True))
    odd = {id for id in ids if why[id] == "flagged"}
    assert {id for id in ids if why[id] == "sample"} == chosen - odd
    assert is_in_sample("any", 1)
    assert {id for id in ids if is_in_sample(id, 100)} <= chosen, "a rarer sample is part of a denser one"
