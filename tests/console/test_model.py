"""The page about a model: its versions, two of them compared, its history, and what is done with them."""

from __future__ import annotations

import csv
import io
import re
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from console.conftest import Garden, Tab, Yard, table_of


@pytest.fixture
def tab(tab: Callable[..., Tab], garden: Garden) -> Callable[..., Tab]:
    """Opens tabs on the garden."""
    return partial(tab, url=garden.url)


def choose(page: Any, number: int, verb: str) -> Any:
    """Open what can be done with a version, and choose one; returns the dialog that asks."""
    page.get_by_role("button", name=f"What to do with version {number}").click()
    page.get_by_role("dialog").get_by_role("button", name=verb).click()
    return page.get_by_role("dialog").filter(has_text="Cancel")


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_versions_stand_side_by_side(tab: Callable[..., Tab], garden: Garden, size: str, dark: bool) -> None:
    look = tab(size, dark=dark)
    page = look.open("/models/garden")
    rows = table_of(page, "Versions")
    assert [row[1] for row in rows] == ["3", "2", "1"]
    assert rows[2][2] == "production" and rows[2][4] == garden.user
    assert "ROC AUC" in rows[0][6]
    assert page.title() == "garden – Modelyard"
    assert page.get_by_role("navigation", name="About garden").get_by_role("link").all_inner_texts() == [
        "Versions", "Endpoint", "Monitoring", "Try it",
    ]  # fmt: skip
    assert [row[2] for row in table_of(page, "History")].count("register") == 3
    assert look.fits()
    look.look("model")


def test_traffic_is_told_where_it_is_known(tab: Callable[..., Tab], yard: Yard) -> None:
    rows = table_of(tab(url=yard.url).open("/models/flowers"), "Versions")
    served = next(row for row in rows if row[1] == "1")
    assert served[7] == "401" and served[8].endswith(" ms")


def test_two_versions_are_compared(tab: Callable[..., Tab]) -> None:
    page = tab().open("/models/garden")
    page.get_by_text("another signature").wait_for()
    rows = {(row[0], row[1]): row[2:] for row in table_of(page, "Compare")}
    assert rows["signature", "input colour is gone"][2] == "differs"
    made = rows["lineage", "time"]  # of today, in the viewer's zone
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d [AP]M|\w+ \d+, \d{4}, .*", each) for each in made[:2])
    metrics = {name: cells for (what, name), cells in rows.items() if what == "metric"}
    assert {"ROC AUC", "Accuracy", "Log loss"} <= metrics.keys()
    assert all(
        cells[2] in ("", "better", "worse") or cells[2].endswith("within the error") for cells in metrics.values()
    )
    assert rows["lineage", "seed"][:2] == ["0", "0"]
    assert rows["rows", "reference"][0] == rows["rows", "learnt from"][0]
    assert rows["served by", "runtime"][:2] == ["onnx", "onnx"]
    page.get_by_label("Version beside").click()
    page.get_by_role("option", name="2", exact=True).click()
    page.get_by_text("same signature").wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download garden 1 beside 2 as CSV").click()
    told = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert {row["What"] for row in told} >= {"metric", "size", "signature", "lineage", "rows"}


def test_promoting_and_rolling_back_keep_the_reason(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    look = tab()
    page = look.open(f"/models/{lane}")
    asking = choose(page, 2, "Promote")
    asking.get_by_text("Version 2 answers for production from now on; version 1 did.").wait_for()
    asking.get_by_label("Why").fill("two is kinder")
    look.look("promote")
    asking.get_by_role("button", name="Promote").click()
    page.get_by_text("production is 2", exact=True).wait_for()
    assert garden.registry.aliases(lane) == {"production": 2}
    page.get_by_role("button", name="Roll back production").click()
    page.get_by_role("dialog").get_by_label("Why").fill("two is not kinder")
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    page.get_by_text("production is 1", exact=True).wait_for()
    last = garden.registry.history(lane)[-2:]
    assert [(each.action, each.to, each.why, each.who) for each in last] == [
        ("promote", 2, "two is kinder", garden.user), ("rollback", 1, "two is not kinder", garden.user),
    ]  # fmt: skip
    page.locator("section", has_text="History").get_by_text("two is not kinder").wait_for()


def test_another_alias_can_be_given(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    page = tab().open(f"/models/{lane}")
    asking = choose(page, 3, "Promote")
    asking.get_by_label("Alias").fill("staging")
    asking.get_by_text("Version 3 answers for staging from now on.").wait_for()
    asking.get_by_role("button", name="Promote").click()
    page.get_by_text("staging is 3", exact=True).wait_for()
    asking = choose(page, 3, "Promote")
    asking.get_by_label("Alias").fill("no alias")
    asking.get_by_role("button", name="Promote").click()
    page.get_by_text("alias: expected 1 to 100 of a-z").wait_for()
    assert garden.registry.aliases(lane) == {"production": 1, "staging": 3}


def test_tags_are_put_and_taken(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    garden.registry.tag(f"{lane}:1", "owner", "ada")
    page = tab().open(f"/models/{lane}")
    asking = choose(page, 1, "Tag")
    assert asking.locator("textarea").input_value() == "owner=ada"
    asking.locator("textarea").fill("ticket=ML-12\nchecked")
    asking.get_by_role("button", name="Keep").click()
    page.locator("tbody").get_by_text("checked, ticket=ML-12").wait_for()
    assert garden.registry.resolve(f"{lane}:1").tags == {"ticket": "ML-12", "checked": ""}


def test_deleting_says_what_is_lost_and_what_is_in_the_way(
    tab: Callable[..., Tab], garden: Garden, lane: str
) -> None:  # fmt: skip
    look = tab("phone")
    page = look.open(f"/models/{lane}")
    asking = choose(page, 1, "Delete")
    asking.get_by_text("its number is never given again. The aliases production name it").wait_for()
    asking.get_by_role("button", name="Delete").click()
    page.get_by_text(f"{lane}:1 is what an alias points to: production").wait_for()
    look.look("delete-refused")
    asking = choose(page, 2, "Delete")
    asking.get_by_role("button", name="Cancel").click()
    asking = choose(page, 3, "Delete")
    asking.get_by_label("Why").fill("too few inputs")
    asking.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="What to do with version 3").wait_for(state="detached")
    assert [each.number for each in garden.registry.versions(lane)] == [1, 2]
    assert garden.registry.history(lane)[-1].why == "too few inputs"
    page.get_by_text("same signature").wait_for()


def test_a_training_report_can_do_nothing_here(tab: Callable[..., Tab], garden: Garden) -> None:
    look = tab()
    page = look.open("/models/garden")
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Report of version 1").click()
    report = opening.value
    report.get_by_text("Written by Modelyard").or_(report.locator("h1")).first.wait_for()
    assert report.evaluate("window.origin") == "null", "an origin of its own"
    report.screenshot(path="/dev/null", type="png")
    with urllib.request.urlopen(f"{garden.url}/models/garden/versions/1/report") as answer:
        policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'") and "script-src" not in policy
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        urllib.request.urlopen(f"{garden.url}/models/odd/versions/1/report")
    assert b"odd:1 has no report" in missing.value.read()


def test_what_is_not_there_is_said(tab: Callable[..., Tab]) -> None:
    page = tab().open("/models/gardn")
    page.get_by_role("alert").first.get_by_text("no such model: gardn").wait_for()
    page.get_by_text("did you mean garden?").first.wait_for()
