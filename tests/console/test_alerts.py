"""Alerts: what was told, to whom, and what people say to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from console.conftest import Tab, Yard, ask, table_of
from console.drifting import Drifting

Open = Callable[..., Tab]
Home = tuple[Yard, Drifting]


def page_of(tab: Open, home: Home, path: str, size: str = "wide", **options: Any) -> tuple[Tab, Any]:
    look = tab(size, url=home[0].url, **options)
    return look, look.open(path)


def number_of(home: Home, about: str) -> int:
    return next(a.id for a in home[1].registry.alerts.find() if a.about == about)


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_alerts_are_listed_with_what_could_not_be_delivered(tab: Open, drifting: Home, size: str, dark: bool) -> None:
    look, page = page_of(tab, drifting, "/alerts", size, dark=dark)
    rows = table_of(page, "Alerts")
    assert len(rows) == 5
    assert any("weight looks like another unit" in row[2] and row[3] == "error" for row in rows)
    assert table_of(page, "Could not be delivered")[0][-1] == "it hung up"
    sinks = {row[0]: row for row in table_of(page, "Who is told")}
    assert sinks["log"][-1].startswith("all: every kind of every model")
    assert "nobody sends to it" in sinks["ops"][-1]
    assert look.fits()
    look.look("alerts")


def test_those_that_are_over_are_listed_too(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/alerts")
    page.get_by_role("link", name="Over", exact=True).click()
    page.wait_for_url("**state=past")
    (row,) = table_of(page, "Alerts")
    assert "Quito" in row[2] and row[1] == "closed"


def test_the_navigation_says_how_many_are_open(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/")
    badge = page.locator("nav .y-badge")
    badge.wait_for()
    assert badge.inner_text() == "5"


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_an_alert_has_its_evidence_and_deliveries(tab: Open, drifting: Home, size: str) -> None:
    look, page = page_of(tab, drifting, f"/alerts/{number_of(drifting, 'inputs')}", size)
    findings = table_of(page, "Findings")
    assert len(findings) >= 1
    page.get_by_text("What was sent").click()
    page.locator("pre", has_text="such findings a month").wait_for()
    assert table_of(page, "Deliveries")[0][1] == "log"
    assert look.fits()
    look.look("alert")


def test_a_finding_of_an_alert_leads_to_its_rows(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, f"/alerts/{number_of(drifting, 'inputs')}")
    page.locator("tbody a", has_text="recorded rows").first.click()
    page.wait_for_url("**/predictions?model=churn**")


def test_an_alert_is_acknowledged_with_a_reason(tab: Open, drifting: Home) -> None:
    number = number_of(drifting, "latency")
    look, page = page_of(tab, drifting, f"/alerts/{number}")
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_role("dialog").get_by_label("Why (kept in the history)").fill("looking into it")
    look.look("alert-acknowledging")
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    page.get_by_text("acknowledged", exact=True).first.wait_for()
    page.locator("dd", has_text="looking into it").wait_for()
    alert = drifting[1].registry.alerts.get(number)
    assert alert.state == "acknowledged" and alert.acknowledged.endswith("looking into it")


def test_nothing_is_done_where_somebody_changes_their_mind(tab: Open, drifting: Home) -> None:
    number = number_of(drifting, "outputs")
    _, page = page_of(tab, drifting, f"/alerts/{number}")
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    assert drifting[1].registry.alerts.get(number).state == "open"


def test_findings_are_silenced_and_a_silence_is_ended(tab: Open, drifting: Home) -> None:
    look, page = page_of(tab, drifting, "/alerts")
    page.get_by_label("Model (empty: every)").fill("churn")
    page.get_by_role("combobox", name="Kind").click()
    page.get_by_role("option", name="drift", exact=True).click()
    page.get_by_label("For how long").fill("yesterday")
    page.get_by_role("button", name="Silence", exact=True).click()
    page.get_by_text("moment: expected an ISO 8601 date").wait_for()
    page.get_by_label("For how long").fill("7d")
    page.get_by_label("Why (kept in the history)").fill("a campaign")
    page.get_by_role("button", name="Silence", exact=True).click()
    page.get_by_text("churn, drift").wait_for()
    (silence,) = ask(drifting[0].url, "/api/silences")
    assert (silence["model"], silence["kind"], silence["why"]) == ("churn", "drift", "a campaign")
    look.look("silence")
    page.get_by_role("button", name="End the silence of churn, drift").click()
    page.get_by_text("The silence is over").wait_for()
    page.get_by_role("heading", name="Silences").wait_for(state="detached")
    assert ask(drifting[0].url, "/api/silences") == []


def test_every_sink_is_tried_from_here(tab: Open, drifting: Home) -> None:
    look, page = page_of(tab, drifting, "/alerts")
    page.get_by_role("button", name="Send a test to every sink").click()
    page.get_by_text("MODELYARD_NOT_THERE").nth(1).wait_for()
    page.get_by_text("delivered", exact=True).wait_for()
    page.get_by_text("failed", exact=True).wait_for()
    look.look("sinks")


def test_without_alerts_it_says_so(tab: Open, yard: Yard) -> None:
    page = tab().open("/alerts")
    page.get_by_text("No alert is open.").wait_for()
    assert not page.locator("nav .y-badge").is_visible()
