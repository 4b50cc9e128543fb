"""The monitoring page: drift, latency, budgets, quality and rules of models that do badly."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="a browser is driven")

from playwright.sync_api import expect

from console.conftest import Tab, Yard, ask, table_of
from console.drifting import Drifting

Open = Callable[..., Tab]
Home = tuple[Yard, Drifting]

#: Whether every chart there is has been drawn.
_ARE_DRAWN = "[...document.querySelectorAll('.nicegui-echart')].every(each => each.querySelector('svg'))"


def page_of(tab: Open, home: Home, path: str, size: str = "wide", **options: Any) -> tuple[Tab, Any]:
    look = tab(size, url=home[0].url, **options)
    return look, look.open(path)


def downloaded(page: Any, name: str) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"Download {name} as CSV", exact=True).click()
    return list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_everything_about_a_model_that_drifts(tab: Open, drifting: Home, size: str, dark: bool) -> None:
    look, page = page_of(tab, drifting, "/models/churn/monitoring?hours=3", size, dark=dark)
    features = table_of(page, "Features")
    # weight and age are told first, as findings of them are open; then by effect
    assert [row[0] for row in features] == ["weight", "age", "city", "fixed"]
    assert features[0][1:3] == ["unit", "KS distance"]
    outputs = table_of(page, "Predictions and scores")
    assert [row[0] for row in outputs] == ["score", "prediction"]
    assert [row[0] for row in table_of(page, "Latency")] == ["decode", "queue", "predict", "encode", "total"]
    page.get_by_text("Changed at").wait_for()
    assert {row[0] for row in table_of(page, "Error budgets")} == {"success"}
    expect(page.locator(".nicegui-echart svg")).to_have_count(7)
    page.wait_for_timeout(300)
    assert look.fits()
    look.look("monitoring")


def test_findings_are_told_over_time_and_each_opens(tab: Open, drifting: Home) -> None:
    look, page = page_of(tab, drifting, "/models/churn/monitoring?hours=3")
    kinds = [row[0] for row in table_of(page, "Findings")]
    assert sorted(kinds) == ["budget", "category", "drift", "latency", "score", "unit"]
    told = downloaded(page, "findings over time")
    assert {row["Kind"] for row in told} == set(kinds)
    assert [row["Subject"] for row in told if row["Over"]] == ["city"]
    # a bar of the chart leads to its finding
    card = page.locator("section", has=page.get_by_role("heading", name="Findings", exact=True))
    chart = card.locator(".nicegui-echart svg")
    chart.click(position={"x": chart.bounding_box()["width"] - 60, "y": 23})
    page.wait_for_url("**/findings/*")
    page.get_by_text("Rests on").wait_for()
    look.look("finding")


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_a_finding_says_what_it_rests_on(tab: Open, drifting: Home, size: str) -> None:
    number = next(f.id for f in drifting[1].registry.findings.find("churn") if f.kind == "category")
    look, page = page_of(tab, drifting, f"/findings/{number}", size)
    for text in ("1,500 live against 5,000 reference", "matters above 0.01", "such findings a month", "Quito"):
        page.get_by_text(text).first.wait_for()
    assert table_of(page, "Texts")[0][0] == "Quito"
    distances = table_of(page, "Distances")
    assert [row[0] for row in distances] == ["PSI", "Jensen-Shannon", "chi-square"]
    assert distances[0][3] == "< 1e-300" and re.fullmatch(r"1,\d{3}", distances[2][1])
    assert page.get_by_text("open", exact=True).count() == 0
    rows = page.get_by_role("link", name="Its recorded rows").get_attribute("href")
    assert "model=churn" in rows and "flag=city%3Aunseen" in rows and "since=" in rows
    assert look.fits()
    look.look("finding-category")


def test_a_finding_that_is_none_is_told(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/findings/999")
    page.get_by_role("alert").get_by_text("no such finding: 999").wait_for()


def test_another_feature_is_looked_at_by_keyboard(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/models/churn/monitoring?hours=3")
    assert downloaded(page, "weight histograms")[0]["Value"].startswith("below ")
    button = page.get_by_role("button", name="Show city")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Download city histograms as CSV").wait_for()
    cells = downloaded(page, "city histograms")
    assert [row["Value"] for row in cells] == ["Bern", "Kyiv", "Lima", "Oslo", "others", "new"]
    assert float(cells[0]["Share of reference rows"]) == pytest.approx(0.4, abs=0.03)
    assert float(cells[-1]["Share of live rows"]) > 0
    line = downloaded(page, "city effect over time")
    assert len(line) == 24 and any(row["Effect"] for row in line)


def test_an_arm_and_a_time_are_chosen(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/models/churn/monitoring?hours=3")
    page.get_by_role("combobox", name="Version and arm").click()
    page.get_by_role("option", name="version 2, canary").click()
    page.wait_for_url("**version=2&arm=canary")
    page.get_by_text("7,500", exact=True).first.wait_for()
    page.get_by_role("combobox", name="Time").click()
    page.get_by_role("option", name="7 days").click()
    page.wait_for_url("**hours=168**")
    page.get_by_text("7,500", exact=True).first.wait_for()


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_quality_by_labels_stands_beside_training(tab: Open, drifting: Home, size: str) -> None:
    look, page = page_of(tab, drifting, "/models/fraud/monitoring", size)
    rows = {row[0]: row for row in table_of(page, "Quality")}
    assert rows["Accuracy"][3] == "0.7500" and rows["Accuracy"][-1] == "worse"
    # what is only expected is called that, and never accuracy
    note = page.locator(".y-note", has_text="Expected if the relationship is unchanged")
    assert "no accuracy" in note.inner_text() and "500 predictions" in note.inner_text()
    page.get_by_text("Labels contradict what was expected").wait_for()
    days = downloaded(page, "version 1 days")
    assert len(days) == 8 and float(days[-1]["accuracy"]) < float(days[0]["accuracy"])
    assert len(downloaded(page, "version 1 calibration")) == 10
    assert float(downloaded(page, "label delays")[-1]["Share of labels"]) == 1.0
    assert downloaded(page, "version 1 segments")[0]["Part"] == "city=Oslo"
    page.wait_for_timeout(300)
    assert look.fits()
    look.look("quality")


def test_all_inputs_together_are_asked_on_a_button(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/models/churn/monitoring")
    page.get_by_role("button", name="Ask a classifier").click()
    page.get_by_text("no inputs of churn:").wait_for()


def test_a_rule_is_changed_and_taken_back_with_its_reason(tab: Open, drifting: Home) -> None:
    look, page = page_of(tab, drifting, "/models/churn/monitoring")

    def choose(rule: str) -> None:
        box = page.get_by_role("combobox", name="Rule to change")
        box.click()
        box.fill(rule)
        page.get_by_role("option", name=rule, exact=True).click()

    choose("drift.ks")
    expect(page.get_by_label("New value")).to_have_value("0.1")
    page.get_by_label("New value").fill("0.15")
    page.get_by_label("Why (kept in the history)").fill("a noisy sensor")
    page.get_by_role("button", name="Change the rule").click()
    page.get_by_text("drift.ks is 0.15 from the next turn on").wait_for()
    page.get_by_text("Show all rules").click()
    page.get_by_text("a noisy sensor").wait_for()
    (rule,) = [r for r in ask(drifting[0].url, "/api/rules?model=churn")["rules"] if r["place"] == "drift.ks"]
    assert rule == {"place": "drift.ks", "value": "0.15", "changed": "model"}
    look.look("rules")
    choose("drift.ks")
    page.get_by_label("New value").fill("lots")
    page.get_by_role("button", name="Change the rule").click()
    page.get_by_text("drift.ks: expected").wait_for()
    choose("drift.ks")
    page.get_by_role("button", name="Take a change back").click()
    page.get_by_text("drift.ks is as before from the next turn on").wait_for()
    (rule,) = [r for r in ask(drifting[0].url, "/api/rules?model=churn")["rules"] if r["place"] == "drift.ks"]
    assert rule["value"] == "0.1" and not rule["changed"]


def test_a_model_that_nobody_asked_says_how_to_begin(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/models/fraud/monitoring?hours=1")
    page.get_by_text("modelyard serve fraud").wait_for()
    _, page = page_of(tab, drifting, "/models/unheard/monitoring")
    page.get_by_role("alert").get_by_text("no such model: unheard").wait_for()
    _, page = page_of(tab, drifting, "/models/churn/monitoring?hours=lots")
    page.get_by_role("alert").get_by_text("hours: expected a number, got lots").wait_for()


def test_newer_windows_are_shown_in_place(tab: Open, drifting: Home) -> None:
    _, page = page_of(tab, drifting, "/models/churn/monitoring?version=2&arm=canary")
    page.get_by_text("7,500", exact=True).first.wait_for()
    page.wait_for_function(_ARE_DRAWN)
    page.evaluate("document.querySelectorAll('.nicegui-echart svg').forEach(each => { each.dataset.mine = 'there'; })")
    drifting[1].write(1, None, arm="canary", version="2")
    page.get_by_text("9,000", exact=True).first.wait_for()
    kept = page.locator(".nicegui-echart svg[data-mine=there]").count()
    assert kept == page.locator(".nicegui-echart svg").count() > 5
