"""Batch jobs in the console."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from console.conftest import Tab, Yard, ask, table_of


@pytest.fixture(scope="module")
def job(yard: Yard) -> int:
    words = ["--input", "flowers.csv", "--output", "scored.csv", "--overwrite"]
    yard.type("predict", "flowers", *words)
    (found,) = ask(yard.url, "/api/jobs")
    return int(found["id"])


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", True)])
def test_a_job_and_how_it_ended(tab: Callable[..., Tab], yard: Yard, job: int, size: str, dark: bool) -> None:
    look = tab(size, dark=dark)
    page = look.open("/jobs")
    (row,) = table_of(page, "Jobs")
    assert row[:5] == [str(job), "done", "flowers:1", "100%", "150"]
    assert look.fits()
    look.look("jobs")
    page.get_by_role("link", name=str(job), exact=True).click()
    page.get_by_text(str(yard.folder / "scored.csv")).wait_for()
    assert look.fits()
    look.look("job")


def test_a_job_that_is_not_there(tab: Callable[..., Tab]) -> None:
    page = tab().open("/jobs/99")
    page.get_by_role("alert").get_by_text("no such batch job: 99").wait_for()
