"""The page about an endpoint: who answers, routes by hand, rollouts from start to end, traffic."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from console.conftest import Garden, Tab, Yard, table_of
from modelyard import api as my
from modelyard.registry.plans import Rollout
from recorders import Recorder


@pytest.fixture
def tab(tab: Callable[..., Tab], garden: Garden) -> Callable[..., Tab]:
    """Opens tabs on the garden."""
    return partial(tab, url=garden.url)


def begin(
    look: Tab, model: str, *, version: int = 2, how: str = "", share: str = "", guards: tuple[str, ...] = ()
) -> Any:
    """Fill in the dialog that starts a rollout, up to its last button; returns the dialog."""
    page = look.open(f"/models/{model}/endpoint")
    page.get_by_role("button", name="Start a rollout").click()
    asking = page.get_by_role("dialog").filter(has_text="Cancel")
    pick(page, asking, "Version", str(version))
    if how:
        pick(page, asking, "How", how)
    if share:
        asking.get_by_label("Shares, %" if how.startswith("Ramp") else "Share, %").fill(share)
    if guards:
        asking.get_by_label("Guards").click()
        for guard in guards:
            page.get_by_role("option", name=guard, exact=True).click()
        page.keyboard.press("Escape")
    asking.get_by_text("More", exact=True).click()
    asking.get_by_label("Least time of a stage").fill("1s")
    return asking


def pick(page: Any, within: Any, label: str, choice: str) -> None:
    within.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=choice).first.click()


def feed(
    garden: Garden, model: str, recorder: Recorder, until: Callable[[Rollout], bool], requests: int = 5_000
) -> Rollout:
    """Write tallies until those who watch have decided."""
    until_then = time.monotonic() + 200
    while time.monotonic() < until_then:
        rollout = garden.registry.rollouts.latest(model)
        if until(rollout):
            return rollout
        if rollout.ended is None:
            recorder.write(garden.registry, rollout, requests)
        time.sleep(0.1)
    raise AssertionError(f"{rollout.name} is {rollout.state}, stage {rollout.stage}")


def confirm(page: Any, verb: str, why: str = "") -> None:
    page.locator("main").get_by_role("button", name=verb, exact=True).click()
    asking = page.get_by_role("dialog")
    asking.get_by_label("Why").fill(why)
    asking.get_by_role("button", name=verb, exact=True).click()


def unnamed(page: Any) -> list[str]:
    """The inputs that no label names."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, select, button')]
        .filter(each => each.offsetParent && !(each.labels?.length || each.ariaLabel || each.innerText?.trim()))
        .map(each => each.outerHTML.slice(0, 200))"""
    )
    return found


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_traffic_is_drawn_by_version_and_arm(
    tab: Callable[..., Tab], yard: Yard, size: str, dark: bool
) -> None:  # fmt: skip
    look = tab(size, dark=dark, url=yard.url)
    page = look.open("/models/flowers/endpoint")
    page.get_by_text("Version 1 answers every request.").wait_for()
    card = page.locator("section", has=page.get_by_role("heading", name="Traffic"))
    card.get_by_text("401", exact=True).wait_for()
    for name in ("requests a second", "latency", "failed requests", "failures by code"):
        card.locator(f"[role=img][aria-label='flowers {name}'] svg").wait_for()
    with page.expect_download() as waiting:
        card.get_by_role("button", name="Download flowers latency as CSV").click()
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert sum(int(row["requests"]) for row in rows) == 401 and {row["version"] for row in rows} == {"1"}
    assert any(float(row["p99"] or 0) > 0 for row in rows)
    with page.expect_download() as waiting:
        card.get_by_role("button", name="Download flowers failures by code as CSV").click()
    assert "invalid_input,1" in waiting.value.path().read_text()
    assert look.fits() and unnamed(page) == []
    look.look("endpoint")
    card.get_by_role("button", name="7 d").click()
    card.get_by_text("401", exact=True).wait_for()


def test_a_model_without_traffic_says_how_to_get_some(tab: Callable[..., Tab], garden: Garden) -> None:
    page = tab().open("/models/odd/endpoint")
    page.get_by_text("modelyard serve odd", exact=True).wait_for()


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_a_good_version_takes_over_by_and_by(tab: Callable[..., Tab], garden: Garden, lane: str, size: str) -> None:
    look = tab(size)
    asking = begin(look, lane, how="Ramp", share="5, 50", guards=("errors", "labels"))
    page = look.page
    asking.get_by_label("Why").fill("it is newer")
    assert unnamed(page) == []
    look.look("start")
    asking.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("rollout", exact=False).first.wait_for()
    step = page.locator("[aria-current=step]")
    step.get_by_text("5%", exact=True).wait_for()
    recorder = Recorder(labelled=0.02)
    feed(garden, lane, recorder, lambda rollout: rollout.stage == 1)
    step.get_by_text("50%", exact=True).wait_for()
    page.locator(f"[role=img][aria-label^='{lane} rollout'] svg").wait_for()
    row = table_of(page, "Decisions")[0]
    assert row[1:4] == ["guard", "advance", "50%"]
    assert look.fits()
    look.look("rollout")
    feed(garden, lane, recorder, lambda rollout: rollout.state == "watching")
    page.get_by_text("promoted; labels may still roll it back").wait_for()
    confirm(page, "End", "labels are slow")
    past = page.locator("section", has=page.get_by_role("heading", name="Past rollouts"))
    past.get_by_text("promoted", exact=True).wait_for()
    assert garden.registry.aliases(lane)["production"] == 2
    past.get_by_role("link", name="rollout").click()
    page.get_by_text("labels are slow").first.wait_for()
    assert [row[2] for row in table_of(page, "Decisions")] == ["end", "promote", "advance", "start"]
    with page.expect_download() as waiting:
        page.get_by_role("button", name="evidence as CSV").click()
    told = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert {row["guard"] for row in told} == {"errors", "labels"}
    look.look("rollout-past")


def test_a_bad_version_is_seen_to_be_taken_back(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    look = tab("wide", dark=True)
    begin(look, lane, guards=("errors",)).get_by_role("button", name="Start", exact=True).click()
    page = look.page
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    page.get_by_role("button", name="Part the requests").wait_for(state="detached")
    ended = feed(garden, lane, Recorder(candidate={"errors": 0.3}), lambda rollout: rollout.ended is not None)
    assert ended.state == "rolled back"
    page.get_by_text("rolled back", exact=True).wait_for()
    page.get_by_text("Version 1 answers every request.").wait_for()
    page.get_by_role("link", name=f"rollout {ended.id}").click()
    page.get_by_text("roll back by guard: errors:").wait_for()
    page.get_by_text("harm is shown").wait_for()
    row = table_of(page, "Decisions")[0]
    assert row[2] == "roll back" and int(row[5]) == ended.evidence.exposure.bad > 0
    look.look("rolled-back")


def test_people_pause_resume_abort_and_roll_back(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    look = tab()
    begin(look, lane, guards=("errors",)).get_by_role("button", name="Start", exact=True).click()
    page = look.page
    confirm(page, "Pause", "lunch")
    page.get_by_text("paused: it stays at this share").wait_for()
    confirm(page, "Resume")
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    confirm(page, "Abort", "enough")
    page.get_by_role("button", name="Start a rollout").wait_for()
    (aborted,) = garden.registry.rollouts.all(lane)
    decisions = garden.registry.rollouts.decisions(aborted.id)
    assert [(each.action, each.why, each.who) for each in decisions[1:]] == [
        ("pause", "lunch", garden.user), ("resume", "", garden.user), ("abort", "enough", garden.user),
    ]  # fmt: skip
    begin(look, lane, guards=("errors",)).get_by_role("button", name="Start", exact=True).click()
    confirm(page, "Roll back", "second thoughts")
    page.get_by_text("rolled back", exact=True).wait_for()
    assert garden.registry.rollouts.latest(lane).state == "rolled back"


def test_another_signature_is_refused_with_the_difference(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    look = tab("phone")
    asking = begin(look, lane, version=3, how="Shadow", share="x")
    asking.get_by_role("button", name="Start", exact=True).click()
    fault = asking.get_by_role("alert")
    fault.get_by_text("share: expected a number of percent").wait_for()
    asking.get_by_label("Share, %").fill("20")
    asking.get_by_role("button", name="Start", exact=True).click()
    fault.get_by_text(f"{lane}:3 has another signature than {lane}:1: input colour is gone").wait_for()
    look.look("start-refused")
    asking.get_by_text("Even if callers may break").click()
    asking.get_by_role("button", name="Start", exact=True).click()
    look.page.locator("[aria-current=step]").get_by_text("copies 20%").wait_for()
    assert garden.registry.routes.present(lane).arms[1].mode == "shadow"
    garden.registry.rollouts.abort(lane)


def test_a_route_is_set_changed_and_cleared_by_hand(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    look = tab()
    page = look.open(f"/models/{lane}/endpoint")
    page.get_by_role("button", name="Part the requests").click()
    asking = page.get_by_role("dialog")
    asking.get_by_label("Version 1 answers, %").fill("60")
    asking.get_by_label("Version 2 answers, %").fill("20")
    asking.get_by_role("button", name="Put in force").click()
    asking.get_by_role("alert").get_by_text("weights of the live arms: expected 1 in all, got 0.8").wait_for()
    asking.get_by_label("Version 1 answers, %").fill("80")
    asking.get_by_label("Version 3 gets copies, %").fill("5")
    asking.get_by_label("What sticks").fill("header:x-user-id")
    asking.get_by_label("Always there").fill("header:x-group:testers")
    asking.get_by_role("button", name="Put in force").click()
    asking.get_by_role("alert").get_by_text("pin: expected header:NAME:VALUE=ARM").wait_for()
    asking.get_by_label("Always there").fill("header:x-group:testers=v2")
    asking.get_by_label("Why").fill("testers first")
    look.look("route-dialog")
    asking.get_by_role("button", name="Put in force").click()
    rows = table_of(page, "Who answers")
    assert sorted(rows) == [
        ["v1", "1", "80%", "answers", ""], ["v2", "2", "20%", "answers", "header:x-group:testers"],
        ["v3-shadow", "3", "5%", "copies", ""],
    ]  # fmt: skip
    page.get_by_text("The route that somebody made has to be cleared first.").wait_for()
    page.get_by_text("sticks by header:x-user-id").wait_for()
    assert garden.registry.history(lane)[-1].why == "testers first"
    look.look("route")
    page.get_by_role("button", name="Change the route").click()
    assert asking.get_by_label("Version 2 answers, %").input_value() == "20"
    asking.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Clear the route").click()
    page.get_by_role("dialog").get_by_text("From now on version 1 answers every request.").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Clear").click()
    page.get_by_text("Version 1 answers every request.", exact=True).wait_for()
    assert garden.registry.routes.present(lane) is None


def test_each_alias_has_its_endpoint(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    garden.registry.promote(lane, 2, alias="staging")
    page = tab().open(f"/models/{lane}/endpoint")
    page.get_by_role("navigation", name="Aliases").get_by_role("link", name="staging").click()
    page.get_by_text("Version 2 answers every request.").wait_for()
    page.get_by_text(f"for {lane}@staging").wait_for()
    page.goto(f"{garden.url}/models/{lane}/endpoint?alias=nobody")
    page.get_by_text("Nobody: no version is called nobody.").wait_for()


def test_a_bandit_follows_outcomes_and_is_watched_as_long_as_wanted(
    tab: Callable[..., Tab], garden: Garden, lane: str
) -> None:
    look = tab()
    asking = begin(look, lane, how="Bandit", share="50", guards=("errors", "labels"))
    asking.get_by_label("The label that is a success").fill("rose")
    asking.get_by_label("How long labels may roll it back later").fill("soon")
    asking.get_by_role("button", name="Start", exact=True).click()
    fault = asking.get_by_role("alert")
    fault.get_by_text("how long labels may roll it back: expected a time like 90s, 10m, 24h or 7d").wait_for()
    asking.get_by_label("How long labels may roll it back later").fill("12h")
    asking.get_by_role("button", name="Start", exact=True).click()
    fault.get_by_text("key: expected a header or a column").wait_for()
    asking.get_by_label("What sticks").fill("header:x-user-id")
    look.look("start-bandit")
    asking.get_by_role("button", name="Start", exact=True).click()
    look.page.locator("[aria-current=step]").get_by_text("50%").wait_for()
    plan = garden.registry.rollouts.latest(lane).plan
    assert (plan.judge, plan.key, plan.outcome) == ("bandit", "header:x-user-id", "rose")
    assert (plan.watch_seconds, plan.stage_seconds) == (12 * 3_600, 1)
    garden.registry.rollouts.abort(lane)


def test_newer_evidence_moves_what_is_shown(tab: Callable[..., Tab], garden: Garden, lane: str) -> None:
    rollout, _ = my.start_rollout(lane, 2, canary=0.5, guards=["errors"], registry=garden.registry)
    garden.registry.rollouts.pause(lane)
    recorder = Recorder()

    def write() -> str:
        recorder.write(garden.registry, rollout, 1_000)
        before = garden.registry.rollouts.latest(lane).position
        while (now := garden.registry.rollouts.latest(lane)).position == before:
            time.sleep(0.1)
        return f"{now.evidence.candidate:,}"

    first = write()
    page = tab().open(f"/models/{lane}/endpoint")
    tile = page.locator(".y-tile", has_text="Requests to version 2 in this stage")
    tile.get_by_text(first, exact=True).wait_for()
    drawn = page.locator("[role=img][aria-label$=evidence]")
    drawn.evaluate("each => each.dataset.mine = 'yes'")
    tile.get_by_text(write(), exact=True).wait_for()
    assert drawn.get_attribute("data-mine") == "yes", "the chart was made anew"
    page.get_by_role("button", name="Abort", exact=True).click()
    asking = page.get_by_role("dialog")
    asking.get_by_label("Why").fill("half a sen")
    garden.registry.rollouts.resume(lane)
    page.get_by_role("button", name="Pause", exact=True, include_hidden=True).wait_for()
    assert asking.get_by_label("Why").input_value() == "half a sen", "a dialog stays while the page changes"
    asking.get_by_role("button", name="Abort", exact=True).click()
    page.get_by_role("button", name="Start a rollout").wait_for()
    assert garden.registry.rollouts.latest(lane).state == "aborted"
