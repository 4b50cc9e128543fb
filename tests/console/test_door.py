"""A console that wants keys."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from console.conftest import Tab, Yard, ask, end, start


class Locked(NamedTuple):
    url: str
    admin: str
    viewer: str
    caller: str


@pytest.fixture(scope="module")
def locked(yard: Yard) -> Iterator[Locked]:
    keys = {
        scope: yard.type("keys", "create", scope, "--scope", scope)["key"] for scope in ("admin", "view", "predict")
    }
    process, url = start(yard.home, yard.folder, "console", "--port", "0", "--keys", log=yard.folder / "locked.log")
    yield Locked(url, keys["admin"], keys["view"], keys["predict"])
    end(process)
    for scope in keys:
        if any(key["name"] == scope for key in yard.type("keys", "list")):
            yard.type("keys", "revoke", scope)


def log_in(tab: Tab, key: str) -> None:
    tab.page.goto(tab.url + "/settings")
    tab.page.get_by_label("Key").fill(key)
    tab.page.keyboard.press("Enter")


def test_who_has_no_key_sees_the_log_in_and_nothing_else(tab: Callable[..., Tab], locked: Locked) -> None:
    look = tab("phone", url=locked.url)
    look.page.goto(locked.url + "/models/flowers")
    assert "/login?next=/models/flowers" in look.page.url
    assert look.fits()
    look.look("login")
    look.page.get_by_label("Key").fill("my_0123456789ab_" + "x" * 43)
    look.page.keyboard.press("Enter")
    look.page.get_by_role("alert").get_by_text("no such key").wait_for()
    look.faults.clear()  # browsers tell of every answer that is a 401
    for path in ("/api/overview", "/api/keys", "/api/openapi.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(locked.url, path)
        assert refused.value.code == 401


def test_a_key_for_predictions_opens_nothing(tab: Callable[..., Tab], locked: Locked) -> None:
    look = tab(url=locked.url)
    log_in(look, locked.caller)
    look.page.get_by_role("alert").get_by_text("allows predict, and not to look in here").wait_for()
    look.faults.clear()
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(locked.url, "/api/overview", headers={"Authorization": f"Bearer {locked.caller}"})
    assert refused.value.code == 403


def test_a_key_to_look_shows_and_does_nothing(tab: Callable[..., Tab], locked: Locked) -> None:
    look = tab(url=locked.url)
    log_in(look, locked.viewer)
    look.page.get_by_text("view, looks only").wait_for()
    assert look.page.get_by_role("button", name="New key").count() == 0
    bearer = {"Authorization": f"Bearer {locked.viewer}"}
    assert ask(locked.url, "/api/overview", headers=bearer)["endpoints"]
    for path, body in (("/api/keys", {"name": "mine", "scopes": ["admin"]}), ("/api/keys", None)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(locked.url, path, body, headers=bearer)
        assert refused.value.code == 403


def test_an_administrator_acts_in_the_name_of_the_key_until_it_ends(
    tab: Callable[..., Tab], yard: Yard, locked: Locked
) -> None:
    look = tab(url=locked.url)
    log_in(look, locked.admin)
    page = look.page
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name, like shop").fill("made-inside")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("button", name="I have it").click()
    (made,) = [key for key in yard.type("keys", "list") if key["name"] == "made-inside"]
    assert made["by"] == "admin"
    yard.type("keys", "revoke", "made-inside")
    page.get_by_role("link", name="Log out").click()
    page.get_by_label("Key").wait_for()
    page.goto(locked.url + "/")
    page.get_by_label("Key").wait_for()
    log_in(look, locked.admin)
    page.get_by_role("button", name="New key").wait_for()
    yard.type("keys", "revoke", "admin")
    page.get_by_label("Key").wait_for()  # what looks again and again is sent out


def test_who_may_only_look_at_how_a_model_does_is_offered_no_action(tab: Callable[..., Tab], locked: Locked) -> None:
    look = tab(url=locked.url)
    log_in(look, locked.viewer)
    look.page.locator("main h1").first.wait_for()
    page = look.open("/models/flowers/monitoring")
    page.get_by_text("Show all rules").wait_for()
    assert page.get_by_role("button", name="Change the rule").count() == 0
    page = look.open("/alerts")
    page.get_by_role("heading", name="Who is told").wait_for()
    for name in ("Silence", "Send a test to every sink"):
        assert page.get_by_role("button", name=name, exact=True).count() == 0
    bearer = {"Authorization": f"Bearer {locked.viewer}"}
    assert ask(locked.url, "/api/rules", headers=bearer)["rules"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(locked.url, "/api/silences", {"model": "flowers"}, headers=bearer)
    assert refused.value.code == 403
