"""Routes: what may be put in force, what is in force, and what was."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelyard.errors import Conflict, InvalidInput, NotFound
from modelyard.registry import Registry
from modelyard.registry.routes import Arm, Pin, Route, Routes, told
from registries import Make


@pytest.fixture
def routes(registry: Registry, make: Make) -> Routes:
    """The routes of a registry with churn:1 to churn:3."""
    for number in range(1, 4):
        registry.register(make(str(number)), "churn")
    return registry.routes


STABLE, CANARY = Arm(name="stable", version=1, weight=0.9), Arm(name="canary", version=2, weight=0.1)


def route(*arms: Arm, **changes: Any) -> Route:
    return Route(model="churn", arms=arms or (STABLE, CANARY), **changes)


def test_without_a_route_the_alias_decides(routes: Routes) -> None:
    assert routes.present("churn") is None
    assert routes.all() == routes.revisions("churn") == []
    routes.clear("churn")
    assert routes.revisions("churn") == []


def test_a_route_is_in_force_until_the_next(routes: Routes, registry: Registry) -> None:
    first = routes.set(route(), why="try it")
    assert (first.revision, first.arms) == (1, (STABLE, CANARY))
    assert first.moment and first.who
    assert routes.present("churn") == first
    shadow = Arm(name="shadow", version=3, weight=1.0, mode="shadow")
    second = routes.set(
        route(
            msgspec.structs.replace(STABLE, weight=1.0), shadow, key="header:x-user", salt="s",
            pins=(Pin(header="x-team", value="qa", arm="stable"),),
        )
    )  # fmt: skip
    assert routes.present("churn") == second
    assert routes.all() == [second]
    other = routes.set(route(alias="staging"))
    assert (other.revision, routes.present("churn", "staging")) == (1, other)
    routes.clear("churn", why="done")
    assert routes.present("churn") is None
    assert routes.all() == [other]
    third = routes.set(route())
    assert third.revision == 3
    assert routes.revisions("churn") == [first, second, third]
    changes = [c for c in registry.history("churn") if "route" in c.action]
    assert [(c.action, c.alias, c.why, c.detail) for c in changes] == [
        ("route", "production", "try it", "stable 1 90%, canary 2 10%"),
        ("route", "production", "", "stable 1 100%, shadow 3 100% (shadow)"),
        ("route", "staging", "", "stable 1 90%, canary 2 10%"),
        ("unroute", "production", "done", ""),
        ("route", "production", "", "stable 1 90%, canary 2 10%"),
    ]


def test_servers_notice_a_change(routes: Routes, registry: Registry) -> None:
    marker = registry.marker()
    routes.set(route())
    assert registry.marker() > marker
    marker = registry.marker()
    routes.clear("churn")
    assert registry.marker() > marker


@pytest.mark.parametrize(
    ("wrong", "told_of"),
    [
        (route(STABLE, msgspec.structs.replace(CANARY, weight=0.2)), "expected 1 in all, got 1.1"),
        (route(STABLE), "expected 1 in all, got 0.9"),
        (route(msgspec.structs.replace(STABLE, weight=1.0, mode="shadow")), "expected 1 in all, got 0"),
        (route(STABLE, msgspec.structs.replace(CANARY, name="stable")), "each name once"),
        (route(STABLE, msgspec.structs.replace(CANARY, weight=-0.1)), "a number from 0 to 1"),
        (route(STABLE, msgspec.structs.replace(CANARY, weight=float("nan"))), "a number from 0 to 1"),
        (route(STABLE, msgspec.structs.replace(CANARY, name="a/b")), "arm"),
        (route(key="user"), "request, header:NAME or column:NAME"),
        (route(key="header:"), "request, header:NAME or column:NAME"),
        (route(pins=(Pin(header="x", value="y", arm="nobody"),)), "one of stable, canary"),
        (
            route(
                msgspec.structs.replace(STABLE, weight=1.0),
                msgspec.structs.replace(CANARY, mode="shadow"),
                pins=(Pin(header="x", value="y", arm="canary"),),
            ),
            "an arm that answers",
        ),
        (route(alias="1x"), "alias"),
        (msgspec.structs.replace(route(), model="no/name"), "model name"),
    ],
)
def test_what_does_not_fit_together_is_refused(routes: Routes, wrong: Route, told_of: str) -> None:
    with pytest.raises(InvalidInput, match=told_of):
        routes.set(wrong)
    assert routes.revisions("churn") == []


def test_an_arm_needs_a_version_that_is_there(routes: Routes, registry: Registry) -> None:
    registry.delete("churn:3")
    for version in (3, 9):
        with pytest.raises(NotFound, match=f"version of churn: {version}"):
            routes.set(route(STABLE, msgspec.structs.replace(CANARY, version=version)))
    assert routes.present("churn") is None


def test_a_rollout_keeps_others_from_its_route(routes: Routes) -> None:
    held = routes.set(route(rollout=7))
    with pytest.raises(Conflict, match="rollout 7 has the route of churn@production") as error:
        routes.set(route())
    assert error.value.hint == "modelyard rollout abort churn --alias production"
    with pytest.raises(Conflict, match="rollout 7 has the route"):
        routes.set(route(rollout=8))
    with pytest.raises(Conflict, match="rollout 7 has the route"):
        routes.clear("churn")
    assert routes.present("churn") == held
    assert routes.set(route(rollout=7)).revision == 2


def test_a_version_that_a_route_names_is_not_deleted(routes: Routes, registry: Registry) -> None:
    from modelyard.errors import Refused

    routes.set(route())
    with pytest.raises(Refused, match="the route of churn@production sends requests to churn:2"):
        registry.delete("churn:2")
    with pytest.raises(Refused):
        registry.delete("churn:2", force=True)
    routes.clear("churn")
    registry.delete("churn:2")


def test_an_arm_is_found_by_its_name() -> None:
    assert route().arm("canary") == CANARY
    with pytest.raises(NotFound, match="known: canary, stable"):
        route().arm("canari")
    assert told(route()) == "stable 1 90%, canary 2 10%"
