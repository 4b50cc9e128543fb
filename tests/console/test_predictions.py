"""Recorded predictions: found by what they are, and opened one by one."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("playwright.sync_api", reason="a browser is driven")

from playwright.sync_api import expect

from console.conftest import Tab, Yard, ask, table_of
from console.drifting import Drifting

Open = Callable[..., Tab]
Home = tuple[Yard, Drifting]


def lines_of(page: Any, name: str) -> list[str]:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"Download {name} as CSV", exact=True).click()
    lines: list[str] = waiting.value.path().read_text().splitlines()[1:]
    return lines


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_the_newest_come_first(tab: Open, drifting: Home, size: str, dark: bool) -> None:
    look = tab(size, dark=dark, url=drifting[0].url)
    page = look.open("/predictions")
    rows = table_of(page, "Predictions")
    assert [row[0] for row in rows[:5]] == ["refused", "two.1", "two.0", "failed", "odd"]
    assert rows[4][2:6] == ["ok", "yes, at 0.637", "age:above", "shop"]
    assert len(rows) == 50
    page.get_by_text("Only what this machine recorded").wait_for()
    assert look.fits()
    look.look("predictions")


def test_pages_neither_repeat_nor_leave_out(tab: Open, drifting: Home) -> None:
    page = tab(url=drifting[0].url).open("/predictions?code=ok")
    seen = [row[0] for row in table_of(page, "Predictions")]
    page.get_by_role("link", name="Older ones").click()
    page.wait_for_url("**after=**")
    older = [row[0] for row in table_of(page, "Predictions")]
    assert [*seen, *older] == ["two.1", "two.0", "odd", *(f"fine-{n:02d}" for n in range(59, -1, -1))]
    page.get_by_role("link", name="The newest").click()
    page.wait_for_url(lambda url: "after" not in url)


def test_one_is_found_by_its_id_with_the_keyboard(tab: Open, drifting: Home) -> None:
    page = tab(url=drifting[0].url).open("/predictions")
    page.get_by_label("Id of a prediction or request").fill("two")
    page.keyboard.press("Enter")
    page.wait_for_url("**id=two")
    assert [row[0] for row in table_of(page, "Predictions")] == ["two.1", "two.0"]
    page.get_by_role("link", name="two.0").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/predictions/two.0")
    page.get_by_text("Rows of the request").wait_for()


def test_they_are_found_by_model_flag_and_value(tab: Open, drifting: Home) -> None:
    look = tab(url=drifting[0].url)
    page = look.open("/predictions?model=shop")
    page.get_by_text("More filters").click()
    page.get_by_label("Flag: any, or age:above").fill("age:above")
    page.get_by_role("combobox", name="Input or output").first.click()
    page.get_by_role("option", name="in.age").click()
    page.get_by_label("Value, or from..to").fill("99..150")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**flag=age%3Aabove**")
    (row,) = table_of(page, "Predictions")
    assert row[0] == "odd" and row[-1] == "flagged"
    # what was asked stands in the form again
    expect(page.get_by_label("Value, or from..to")).to_have_value("99..150")
    look.look("predictions-filtered")


def test_flags_that_rows_have_are_offered_and_those_that_fit_are_counted(tab: Open, drifting: Home) -> None:
    page = tab(url=drifting[0].url).open("/predictions?model=shop")
    page.get_by_text("The newest first; 65 fit", exact=True).wait_for()
    page.get_by_text("More filters").click()
    offered = page.get_by_label("Flag: any, or age:above").evaluate("each => [...each.list.options].map(o => o.value)")
    assert offered == ["any", "age:above"]
    page.get_by_label("Flag: any, or age:above").fill("any")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("The newest first; 1 fits", exact=True).wait_for()


def test_failures_are_found(tab: Open, drifting: Home) -> None:
    page = tab(url=drifting[0].url).open("/predictions")
    page.get_by_role("combobox", name="Answer").click()
    page.get_by_role("option", name="failed, for any reason").click()
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**code=failed")
    rows = table_of(page, "Predictions")
    assert [row[2] for row in rows] == ["invalid_input", "model_failed"]
    assert rows[0][3] == "at fault: age"


def test_times_are_asked_for_in_the_viewers_zone(tab: Open, drifting: Home) -> None:
    page = tab(url=drifting[0].url).open("/predictions")
    hour = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0) + dt.timedelta(hours=2)
    tokyo = (hour + dt.timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M:%S")
    page.get_by_label("From", exact=True).fill(tokyo)
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(f"**since={quote(hour.strftime('%Y-%m-%dT%H:%M:%S'), safe='')}**")
    page.get_by_text("No recorded prediction fits.").wait_for()
    expect(page.get_by_label("From", exact=True)).to_have_value(re.compile(tokyo[:16]))


def test_what_cannot_be_asked_is_told_and_is_never_sql(tab: Open, drifting: Home) -> None:
    for columns, told in (
        ("in.agee=3", "no such column: in.agee"),
        ("in.age=3 OR 1=1 --", "in.age: expected a number"),
        ("in.visits=3", "in.visits: expected a column of numbers, texts or truth values"),
    ):
        page = tab(url=drifting[0].url).open("/predictions?model=shop&columns=" + quote(columns))
        page.get_by_role("alert").get_by_text(told).wait_for()
    page = tab(url=drifting[0].url).open("/predictions?arm=" + quote("' OR 'a' = 'a"))
    page.get_by_text("No recorded prediction fits.").wait_for()


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_everything_about_one(tab: Open, drifting: Home, size: str, dark: bool) -> None:
    look = tab(size, dark=dark, url=drifting[0].url)
    page = look.open("/predictions/odd")
    page.get_by_text("age is above every value of the reference").wait_for()
    page.get_by_text("kept: a value was odd").wait_for()
    inputs = {row[0]: row[1:] for row in table_of(page, "Inputs")}
    assert inputs["age"] == ["140", "as it was"]
    # what was not to be kept was not, and it is said so
    assert inputs["income"] == ["", "not kept"]
    assert inputs["city"][1] == "kept as a keyed hash" and len(inputs["city"][0]) == 32
    classes = lines_of(page, "probabilities of odd")
    assert [line.split(",")[0] for line in classes] == ["yes", "no"]
    stages = [line.split(",") for line in lines_of(page, "stages of odd")]
    assert [stage[0] for stage in stages[:4]] == ["decode", "queue", "predict", "encode"]
    assert float(stages[1][1]) == pytest.approx(float(stages[0][2]))  # each begins where the one before ended
    page.get_by_text("Its label says: yes").wait_for()
    page.get_by_text("Before, it said no").wait_for()
    page.get_by_text("right", exact=True).wait_for()
    link = page.get_by_role("link", name="Try it with these inputs").get_attribute("href")
    assert link.endswith("/models/shop/try?like=odd")
    page.wait_for_timeout(300)
    assert look.fits()
    look.look("prediction")


def test_what_was_refused_says_why_and_what_was_sent(tab: Open, yard: Yard) -> None:
    (row,) = ask(yard.url, "/api/predictions?code=failed")["rows"]
    look = tab()
    page = look.open(f"/predictions/{row['id']}")
    page.get_by_text("invalid_input", exact=True).wait_for()
    page.locator("pre", has_text='{"petal_length": "long"}').wait_for()
    page.get_by_text("There is no answer").wait_for()
    look.look("prediction-refused")


def test_an_id_that_nobody_has_is_told(tab: Open, drifting: Home) -> None:
    page = tab(url=drifting[0].url).open("/predictions/nobody")
    page.get_by_role("alert").get_by_text("no prediction has this id: nobody").wait_for()
