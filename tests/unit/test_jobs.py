"""What a batch job tells the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelyard as my
from modelyard.api import open_registry
from modelyard.errors import Conflict, RemoteFailed
from modelyard.registry.jobs import Job, Jobs

pytest.importorskip("sklearn", reason="a model is packaged")


@pytest.fixture
def line(tmp_path: Path) -> tuple[str, Path]:
    """A registry with ``line``, and a table for it with one row that does not fit."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["x1", "x2"])
    home = str(tmp_path / "home")
    my.package(LinearRegression().fit(rows, rows.x1), sample=rows, name="line", registry=home)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("none,1\n")
    return home, tmp_path


def test_a_job_is_told(line: tuple[str, Path]) -> None:
    home, folder = line
    calls = []
    scored = my.predict(
        "line", folder / "rows.csv", folder / "out.csv", registry=home, progress=lambda *done: calls.append(done)
    )
    (job,) = open_registry(home).jobs.find("line")
    assert (job.state, job.version, job.scored, job.rejected) == ("done", 1, 50, 1)
    assert (job.input, job.output) == (str(folder / "rows.csv"), str(folder / "out.csv"))
    assert job.rejected_file == scored.rejected_file
    assert calls
    assert job.done == job.total > 0


def test_why_a_job_failed_is_told(line: tuple[str, Path]) -> None:
    home, folder = line
    my.predict("line", folder / "rows.csv", folder / "out.csv", registry=home)
    with pytest.raises(Conflict):
        my.predict("line", folder / "rows.csv", folder / "out.csv", registry=home)
    job = open_registry(home).jobs.find("line")[0]
    assert (job.state, job.error.startswith("the output is there already")) == ("failed", True)


def test_a_registry_that_cannot_be_told_holds_up_nothing(
    line: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, folder = line

    def away(*_: object) -> None:
        raise RemoteFailed("the registry is away")

    monkeypatch.setattr(Jobs, "begin", away)
    assert my.predict("line", folder / "rows.csv", folder / "out.csv", registry=home).scored == 50


def test_the_end_of_a_job_is_told_again_until_it_is_heard(
    line: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, folder = line
    refused = []
    tell = Jobs.tell

    def away_at_first(jobs: Jobs, job: Job) -> Job:
        if job.state == "done" and len(refused) < 3:
            refused.append(job)
            raise RemoteFailed("the registry is away")
        return tell(jobs, job)

    monkeypatch.setattr(Jobs, "tell", away_at_first)
    monkeypatch.setattr("modelyard.jobs.AGAIN_SECONDS", 0.01)
    my.predict("line", folder / "rows.csv", folder / "out.csv", registry=home)
    (job,) = open_registry(home).jobs.find("line")
    assert (job.state, job.scored, len(refused)) == ("done", 50, 3)


@pytest.mark.parametrize("broken", [RemoteFailed("the registry is away"), KeyboardInterrupt()])
def test_a_job_whose_end_nobody_hears_is_done_all_the_same(
    line: tuple[str, Path], broken: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where somebody interrupts the waiting."""
    home, folder = line

    def away(_: Jobs, job: Job) -> Job:
        raise broken

    monkeypatch.setattr(Jobs, "tell", away)
    monkeypatch.setattr("modelyard.jobs.END_SECONDS", 0.05)
    monkeypatch.setattr("modelyard.jobs.AGAIN_SECONDS", 0.01)
    assert my.predict("line", folder / "rows.csv", folder / "out.csv", registry=home).scored == 50
    (warning,) = caplog.messages
    assert warning.startswith("the job is done, but the registry does not know and will show it as lost: ")
    caplog.clear()
    with pytest.raises(Conflict, match="the output is there already"):
        my.predict("line", folder / "rows.csv", folder / "out.csv", registry=home)
    (warning,) = caplog.messages
    assert warning.startswith("the job is failed, but the registry does not know")


def test_a_bundle_that_is_not_registered_has_no_job(line: tuple[str, Path]) -> None:
    home, folder = line
    registry = open_registry(home)
    bundle = registry.fetch(registry.resolve("line"))
    my.predict(bundle.folder, folder / "rows.csv", folder / "out.csv", registry=home)
    assert registry.jobs.find() == []
