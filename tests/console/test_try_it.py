"""Trying a version out: the form, its faults, the answers, and the request for elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="a browser is driven")

from playwright.sync_api import expect

from console.conftest import Garden, Tab, table_of


@pytest.fixture
def tab(tab: Callable[..., Tab], garden: Garden) -> Callable[..., Tab]:
    """Opens tabs on the garden."""
    return partial(tab, url=garden.url)


def form_of(look: Tab, path: str) -> Any:
    """The page, once its form is there."""
    page = look.open(path)
    page.get_by_role("button", name="Predict").wait_for()
    return page


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_two_versions_answer_the_same_row(
    tab: Callable[..., Tab], garden: Garden, size: str, dark: bool
) -> None:  # fmt: skip
    look = tab(size, dark=dark)
    page = form_of(look, "/models/garden/try")
    assert page.get_by_label("colour").input_value() == "red"
    assert page.get_by_label("planted").input_value().startswith("2026-02-06T00:00")
    page.get_by_text("a number, 3 to 9 in the reference").wait_for()
    page.get_by_text("in the reference, may be empty").wait_for()
    page.get_by_label("Compared with").click()
    page.get_by_role("option", name="2", exact=True).click()
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("Version 1: prediction").wait_for()
    page.get_by_text("Version 2: prediction").wait_for()
    rows = table_of(page, "All outputs")
    assert rows[0] == ["prediction", "rose", "rose"]
    page.get_by_text("the same answer").wait_for()
    page.locator("[role=img][aria-label='garden probabilities']").wait_for()
    assert look.fits()
    look.look("try")


def test_faults_stand_at_their_fields(tab: Callable[..., Tab], garden: Garden) -> None:
    look = tab("phone")
    page = form_of(look, "/models/garden/try?version=2")
    page.get_by_label("petals").fill("many")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text('expected a number (float64), got the text "many"').wait_for()
    look.look("try-fault")
    page.get_by_label("petals").fill("")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("expected a number (float64), got null").wait_for()
    page.get_by_label("petals").fill("4")
    page.get_by_label("height").fill("")
    page.keyboard.press("Enter")
    page.get_by_text("Version 2: prediction").wait_for()
    assert page.get_by_text("expected a number").count() == 0
    page.get_by_role("button", name="Empty").click()
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("expected a text, got null").wait_for()
    page.get_by_text("expected an ISO 8601 date or time, got null").wait_for()
    page.get_by_role("button", name="Example").click()
    expect(page.get_by_label("petals")).to_have_value("6")


def test_a_text_that_nobody_has_seen_may_be_sent(tab: Callable[..., Tab], garden: Garden) -> None:
    page = form_of(tab(), "/models/garden/try")
    page.get_by_label("colour").fill("green")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("Version 1: prediction").wait_for()
    assert '"colour": "green"' in page.locator("pre").first.inner_text()


def test_a_version_that_takes_something_else_says_so_beside(tab: Callable[..., Tab], garden: Garden) -> None:
    page = form_of(tab(), "/models/garden/try")
    page.get_by_label("Compared with").click()
    page.get_by_role("option", name="3", exact=True).click()
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("Version 1: prediction").wait_for()
    page.get_by_role("heading", name="Version 3 did not answer").wait_for()
    page.get_by_role("alert").get_by_text("colour").wait_for()


def test_code_that_nobody_vouched_for_is_not_loaded(tab: Callable[..., Tab], garden: Garden) -> None:
    look = tab()
    page = form_of(look, "/models/odd/try")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("nobody vouched for it: it would import faulty.Faulty").wait_for()
    page.get_by_text("--trust sha256:").wait_for()
    look.look("try-refused")


def test_the_request_can_be_taken_elsewhere(tab: Callable[..., Tab], garden: Garden) -> None:
    look = tab()
    page = form_of(look, "/models/garden/try")
    words = shlex.split(page.locator("pre").first.inner_text().replace("\\\n", " "))
    assert words[:2] == ["curl", "http://127.0.0.1:8080/models/garden/versions/1/predict"]
    row = json.loads(words[words.index("-d") + 1])
    assert garden_answer(garden, row)
    page.get_by_role("tab", name="Python").click()
    page.get_by_text("my.load('garden:1')").wait_for()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("tab", name="JSON").click()
    page.get_by_role("button", name="Copy the JSON form").click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('{'))")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == row


def garden_answer(garden: Garden, row: dict[str, Any]) -> Any:
    from modelyard import api

    return api.load("garden:1", registry=garden.registry).predict(row)
