"""What a table of versions finds, and what it refuses to hold."""

from __future__ import annotations

import pytest

from modelyard.errors import Conflict, NotFound
from modelyard.serving.loading import Loaded, load
from modelyard.serving.sources import Wanted
from modelyard.serving.table import Table, check_reachable

from .conftest import linear


def loaded(name: str, version: str) -> Loaded:
    bundle = linear()
    return load(Wanted(model=name, version=version, digest="d", aliases=(), open=lambda: bundle), bundle, None, 64, 0.1)


def test_loading_warms_learns_and_finds_an_example() -> None:
    one = loaded("m", "1")
    assert one.example == {"x1": 1.0, "x2": 3.0}
    assert 0 < one.cost.expect(1) < 1
    assert (one.platform, one.task) == ("memory", "regression")


def test_a_table_finds_by_version_alias_and_default() -> None:
    first, second, other = loaded("m", "1"), loaded("m", "2"), loaded("n", "1")
    declared = [("m@staging", second), ("m:1", first), ("n", other)]
    table = Table(declared, {("m", "staging"): second})
    assert table.find("m", None, None) is second  # the first declared
    assert table.find("m", "1", None) is first
    assert table.find("m", None, "staging") is second
    assert table.find("n", None, None) is other
    assert Table(declared, {("m", "production"): first}).find("m", None, None) is first
    for which in ((None, None, None), ("x", None, None), ("m", "3", None), ("m", None, "production")):
        with pytest.raises(NotFound):
            table.find(*which)
    assert Table(declared[:2]).find(None, None, None) is second


@pytest.mark.parametrize(
    ("version", "others", "clash"),
    [
        ("", {"x/m": ("m", "")}, True),
        ("", {"m@production": ("m", "4")}, True),
        ("4", {"x/m": ("m", "")}, True),
        ("5", {"m:4": ("m", "4")}, False),
        ("", {"x/n": ("n", "")}, False),
        ("", {}, False),
    ],
)
def test_a_bundle_that_no_path_would_lead_to_is_refused(
    version: str, others: dict[str, tuple[str, str]], clash: bool
) -> None:
    one = loaded("m", version)
    served = {reference: loaded(*other) for reference, other in others.items()}
    check_reachable(one, "y/m", [("again", one)])
    if not clash:
        check_reachable(one, "y/m", served.items())
        return
    with pytest.raises(Conflict, match="two models would be served under one name: m") as caught:
        check_reachable(one, "y/m", served.items())
    assert caught.value.hint == "give a bundle another name: NAME=y/m"
