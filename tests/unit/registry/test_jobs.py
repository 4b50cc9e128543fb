"""Batch jobs in the registry."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from modelyard.errors import NotFound
from modelyard.registry import Registry
from modelyard.registry import jobs as room
from modelyard.registry.records import stamp


def test_a_job_is_told_from_its_beginning_to_its_end(registry: Registry) -> None:
    job = registry.jobs.begin("churn", 3, "/in.csv", "/out.parquet")
    assert registry.jobs.get(job.id) == job
    assert (job.state, job.machine != "", job.process > 0) == ("running", True, True)
    half = registry.jobs.tell(msgspec.structs.replace(job, done=5, total=10))
    assert registry.jobs.get(job.id) == half
    registry.jobs.tell(msgspec.structs.replace(half, state="done", scored=9, rejected=1))
    (found,) = registry.jobs.find("churn")
    assert (found.state, found.scored, found.rejected, found.total) == ("done", 9, 1, 10)
    assert registry.jobs.find("other") == []
    with pytest.raises(NotFound):
        registry.jobs.get(99)


def test_a_job_that_says_nothing_is_lost(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    job = registry.jobs.begin("churn", 3, "/in.csv", "/out.parquet")
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=room.SILENT_SECONDS + 1)
    monkeypatch.setattr(room, "now", lambda: stamp(before))
    registry.jobs.tell(job)
    assert registry.jobs.get(job.id).state == "lost"
    registry.jobs.tell(msgspec.structs.replace(job, state="done"))
    assert registry.jobs.get(job.id).state == "done"


def test_the_newest_come_first_and_the_oldest_go(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEPT", 3)
    made = [registry.jobs.begin("churn", 1, "/in", f"/out{n}").id for n in range(5)]
    assert [job.id for job in registry.jobs.find()] == made[:1:-1]
