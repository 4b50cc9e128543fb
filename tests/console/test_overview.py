"""The frame of the console, and its first page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest

from console.conftest import Tab, Yard, table_of
from modelyard.console.tables import SORT


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_every_model_is_told_at_a_glance(tab: Callable[..., Tab], size: str, dark: bool) -> None:
    look = tab(size, dark=dark)
    page = look.open("/")
    (row,) = table_of(page, "Models")
    assert row[:3] == ["flowers", "1", "401"]
    page.get_by_text("Watched").wait_for()
    assert page.title() == "Overview – Modelyard"
    assert look.fits()
    look.look("overview")


def test_a_row_is_a_card_where_there_is_no_room_for_columns(tab: Callable[..., Tab]) -> None:
    page = tab("phone").open("/")
    cells = page.locator("tbody tr td")
    cells.first.wait_for()
    lefts = cells.evaluate_all("all => all.filter(each => each.checkVisibility()).map(each => each.offsetLeft)")
    assert len(lefts) > 5 and len(set(lefts)) == 1
    named = cells.evaluate_all("all => all.map(each => getComputedStyle(each, '::before').content)")
    assert '"Requests"' in named and '"Last request"' in named
    assert page.locator("thead").is_hidden()


def test_numbers_with_units_are_in_order_of_what_they_mean(tab: Callable[..., Tab]) -> None:
    page = tab().open("/")
    told = ["1.2 s", "10 ms", "–", "9.5 ms", "1,200 ms", "0.5%", 3]
    assert page.evaluate(f"told => told.sort({SORT})", told) == [
        "–", "0.5%", 3, "9.5 ms", "10 ms", "1.2 s", "1,200 ms",
    ]  # fmt: skip


def test_moments_are_those_of_the_viewer(tab: Callable[..., Tab], yard: Yard) -> None:
    page = tab().open("/")
    shown = page.locator("tbody time").first
    shown.wait_for()
    said = shown.get_attribute("data-utc")
    hour = (int(said[11:13]) + 9) % 24  # Tokyo
    assert f"{hour % 12 or 12:02d}:{said[14:16]}" in shown.inner_text()


def test_a_table_can_be_taken_along(tab: Callable[..., Tab]) -> None:
    page = tab().open("/")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download models as CSV").click()
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert [row["Model"] for row in rows] == ["flowers"]


def test_the_keyboard_is_enough(tab: Callable[..., Tab]) -> None:
    page = tab().open("/")
    page.locator("tbody a").first.wait_for()
    page.locator("body").click(position={"x": 2, "y": 400})  # a browser in no window has to be given the focus
    page.keyboard.press("Tab")
    page.get_by_text("Skip to the page").and_(page.locator(":focus")).wait_for()
    page.keyboard.press("Enter")
    page.locator("tbody a").first.wait_for()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('tbody a')"):
            break
    assert page.evaluate("document.activeElement.textContent") == "flowers"


def test_an_address_that_no_page_has_leads_back(tab: Callable[..., Tab], yard: Yard) -> None:
    look = tab()
    page = look.open("/nowhere")
    page.get_by_role("alert").get_by_text("no page has the address /nowhere").wait_for()
    page.get_by_role("link", name="To the overview").click()
    page.locator("tbody a").first.wait_for()
    # the browser itself tells that a page is missing
    assert look.faults.pop(0).startswith("Failed to load resource: the server responded with a status of 404")


@pytest.mark.parametrize("path", ["", "/endpoint", "/monitoring", "/try"])
def test_a_model_that_is_none_is_told_once(tab: Callable[..., Tab], path: str) -> None:
    page = tab().open(f"/models/nobody{path}")
    page.get_by_role("alert").get_by_text("no such model: nobody (known: flowers)").wait_for()
    assert page.get_by_role("alert").count() == 1 and page.locator("main section, main form").count() == 0


def test_light_and_dark_can_be_chosen(tab: Callable[..., Tab]) -> None:
    page = tab().open("/")
    page.get_by_role("button", name="Light or dark").click()
    page.locator("body.body--dark").wait_for()
