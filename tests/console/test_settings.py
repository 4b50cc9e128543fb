"""Settings and keys in the console."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from console.conftest import Tab, Yard, table_of


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("phone", False), ("wide", True)])
def test_settings_and_where_they_come_from(tab: Callable[..., Tab], size: str, dark: bool) -> None:
    look = tab(size, dark=dark)
    page = look.open("/settings")
    rows = {row[0]: row for row in table_of(page, "Settings")}
    assert rows["home"][2] == "environment"
    assert rows["port"][1:3] == ["8080", "default"]
    page.get_by_text("onnxruntime").wait_for()
    assert look.fits()
    look.look("settings")


def test_a_key_is_made_shown_once_and_revoked(tab: Callable[..., Tab], yard: Yard) -> None:
    look = tab()
    page = look.open("/settings")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name, like shop").fill("shop floor")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("alert").get_by_text("key name: expected").wait_for()
    look.look("key-fault")
    page.get_by_label("Name, like shop").fill("shop")
    page.get_by_role("button", name="Make the key").click()
    text = page.get_by_role("dialog").locator("pre").inner_text()
    look.look("key-shown")
    page.get_by_role("button", name="I have it").click()
    page.get_by_role("button", name="Revoke shop").wait_for()
    (key,) = yard.type("keys", "list")
    assert text.startswith(f"my_{key['id']}_")
    assert text not in page.content()
    page.get_by_role("button", name="Revoke shop").click()
    page.get_by_role("dialog").get_by_text("cannot be taken back").wait_for()
    page.get_by_role("button", name="Cancel").click()
    assert len(yard.type("keys", "list")) == 1
    page.get_by_role("button", name="Revoke shop").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    page.get_by_text("There are none.").wait_for()
    assert yard.type("keys", "list") == []


def test_nothing_of_a_page_comes_from_elsewhere_nor_may_others_act(yard: Yard) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        request = urllib.request.Request(f"{yard.url}/api/keys", b'{"name": "theirs"}', headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403
    assert yard.type("keys", "list") == []
