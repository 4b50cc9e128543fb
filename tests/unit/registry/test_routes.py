"""Routes: who answers for an alias; each test on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelyard.errors import Conflict, InvalidInput, NotFound, Refused
from modelyard.registry import Registry
from modelyard.registry.routes import Arm, Pin, Route, check_columns, read_pin
from modelyard.schema import Field, Signature
from registries import Make


@pytest.fixture
def three(registry: Registry, make: Make) -> Registry:
    for text in ("one", "two", "three"):
        registry.register(make(text), "churn")
    return registry


def parted(first: float = 0.9, **more: Any) -> Route:
    arms = (Arm(name="v1", version=1, weight=first), Arm(name="v2", version=2, weight=1 - first))
    return Route(model="churn", **{"arms": arms, **more})


def test_a_route_is_set_changed_and_cleared(three: Registry) -> None:
    assert three.routes.present("churn") is None
    first = three.routes.set(parted(), why="to try")
    assert (first.revision, three.routes.present("churn")) == (1, first)
    second = three.routes.set(parted(0.5))
    assert (second.revision, second.arm("v2").weight) == (2, 0.5)
    assert three.routes.revisions("churn") == [first, second]
    assert three.routes.all() == [second]
    assert three.routes.clear("churn")
    assert three.routes.present("churn") is None
    assert not three.routes.clear("churn"), "there is none any more"
    assert three.routes.set(parted()).revision == 3, "numbers are never given again"
    assert three.routes.revision("churn", "production", 2) == second
    with pytest.raises(NotFound, match="churn@staging never had a route of revision 2"):
        three.routes.revision("churn", "staging", 2)


def test_servers_notice_each_change(three: Registry) -> None:
    marker = three.marker()
    for change in (lambda: three.routes.set(parted()), lambda: three.routes.clear("churn")):
        change()
        assert three.marker() > marker
        marker = three.marker()
    assert [(c.action, c.alias, c.detail, c.why) for c in three.history("churn")][-2:] == [
        ("route", "production", "v1 1 90%, v2 2 10%", ""),
        ("unroute", "production", "", ""),
    ]


def test_an_equal_route_is_no_change(three: Registry) -> None:
    first = three.routes.set(parted())
    marker = three.marker()
    assert three.routes.set(parted()) == first
    assert three.marker() == marker


def test_routes_do_not_move_the_alias(three: Registry) -> None:
    three.routes.set(parted())
    after = three.history("churn")[-1].when
    live = three.live_at("churn", after)
    assert live is not None and live.number == 1
    three.routes.clear("churn")
    three.promote("churn", 3)
    assert three.rollback("churn").to == 1


def test_each_alias_has_its_own(three: Registry) -> None:
    three.promote("churn", 2, alias="staging")
    three.routes.set(parted(alias="staging"))
    assert three.routes.present("churn") is None
    assert three.routes.present("churn", "staging") is not None


def test_a_route_needs_its_versions(three: Registry) -> None:
    with pytest.raises(NotFound, match=r"no such version of churn: 7 \(known: 1, 2, 3\)"):
        three.routes.set(parted(arms=(Arm(name="a", version=7, weight=1.0),)))
    assert three.routes.present("churn") is None
    three.routes.set(parted())
    with pytest.raises(Refused, match="churn:2 is needed by the route of churn@production"):
        three.delete("churn:2")
    three.routes.clear("churn")
    three.delete("churn:2")


def test_an_alias_with_a_route_is_not_moved_in_vain(three: Registry, make: Make) -> None:
    three.routes.set(parted())
    with pytest.raises(Conflict, match="churn@production has a route") as caught:
        three.promote("churn", 3)
    assert caught.value.hint == "modelyard route clear churn"
    with pytest.raises(Conflict, match="has a route"):
        three.register(make("four"), "churn", alias="production")
    three.promote("churn", 3, alias="staging")


def test_rolling_back_takes_a_route_away_first(three: Registry) -> None:
    three.promote("churn", 2)
    three.routes.set(parted())
    assert three.rollback("churn", why="it was worse").action == "unroute"
    assert three.routes.present("churn") is None
    assert three.resolve("churn").number == 2
    assert three.rollback("churn").to == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"arms": ()}, "weights of the live arms: expected 1 in all, got 0"),
    ({"arms": (Arm(name="a", version=1, weight=0.5),)}, "expected 1 in all, got 0.5"),
    ({"arms": (Arm(name="a", version=1, weight=float("nan")),)}, "weight of a: expected a number from 0 to 1"),
    ({"arms": (Arm(name="a", version=1, weight=1.5),)}, "weight of a: expected a number from 0 to 1, got 1.5"),
    ({"arms": (Arm(name="a", version=1, weight=1.0), Arm(name="a", version=2, weight=0.0))}, "each name once"),
    ({"arms": (Arm(name="a b", version=1, weight=1.0),)}, "arm: expected 1 to 100 of"),
    ({"key": "cookie"}, "key: expected request, header:NAME or column:NAME, got 'cookie'"),
    ({"key": "header:"}, "key: expected request"),
    ({"key": "header:" + "x" * 500}, "key: expected at most 200 characters"),
    ({"pins": (Pin(key="header:x", value="y", arm="v3"),)}, "pin of header:x:y: expected one of v1, v2, got 'v3'"),
    ({"pins": [Pin(key=f"header:{x}", value="y", arm="v1") for x in "xX"]}, "pins: expected each key and value once"),
    ({"pins": (Pin(key="header:x", value="\0", arm="v1"),)}, "without NUL"),
    ({"pins": (Pin(key="x", value="y", arm="v1"),)}, "key of a pin: expected header:NAME or column:NAME, got 'x'"),
    ({"alias": "1"}, "alias: expected"),
    ({"model": "a b"}, "model name: expected"),
]


@pytest.mark.parametrize(("change", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_does_not_fit_together_is_told(three: Registry, change: dict[str, Any], told: str) -> None:
    import re

    with pytest.raises(InvalidInput, match=re.escape(told)):
        three.routes.set(msgspec.structs.replace(parted(), **change))
    assert three.routes.present("churn") is None


def test_a_shadow_adds_nothing_to_the_shares_and_answers_no_pin(three: Registry) -> None:
    shadow = Arm(name="v3", version=3, weight=0.2, mode="shadow")
    made = three.routes.set(parted(arms=(*parted().arms, shadow)))
    assert three.history("churn")[-1].detail == "v1 1 90%, v2 2 10%, v3 3 20% (shadow)"
    with pytest.raises(InvalidInput, match="expected an arm that answers, got v3, a shadow"):
        three.routes.set(msgspec.structs.replace(made, pins=(Pin(key="header:x", value="y", arm="v3"),)))


def test_pins_are_read_and_told_alike() -> None:
    for text in ("header:x-group:testers=canary", "column:at:10:30=v4", "column:amount:1000..=stable"):
        assert str(read_pin(text)) == text
    assert read_pin(" header: x-group : a=b = v2 ") == Pin(key="header:x-group", value="a=b", arm="v2")
    for text in ("x-group:testers=canary", "header:x=v1", "header::y=v1", "header:x:=v1", "header:x:y=", "column:x:y"):
        with pytest.raises(InvalidInput, match="pin: expected header:NAME:VALUE=ARM or column:NAME:VALUE=ARM, got"):
            read_pin(text)


def test_a_column_decides_only_where_there_is_one_and_for_numbers_by_numbers() -> None:
    fields = (
        Field(name="amount", dtype="float64"), Field(name="city", dtype="string"),
        Field(name="pixels", dtype="float32", shape=(4,)),
    )  # fmt: skip
    signature = Signature(inputs=fields)
    fitting = [("amount", "7"), ("amount", "-1..1"), ("amount", "1000.."), ("amount", "..0"), ("city", "Oslo..")]
    check_columns("column:city", [Pin(key=f"column:{n}", value=v, arm="a") for n, v in fitting], signature)
    check_columns("request", [Pin(key="header:x", value="..", arm="a")], signature)
    for value in ("much", "2..1", "1..x", "nan", "1..2..3"):
        with pytest.raises(InvalidInput, match="pin of column:amount: expected a number, or a range like"):
            check_columns("request", [Pin(key="column:amount", value=value, arm="a")], signature)
    with pytest.raises(NotFound, match="no such input column: town"):
        check_columns("request", [Pin(key="column:town", value="x", arm="a")], signature)
    with pytest.raises(InvalidInput, match="expected a column of single values, got pixels"):
        check_columns("column:pixels", (), signature)


def test_an_arm_is_found_by_its_name() -> None:
    assert parted().arm("v2").version == 2
    with pytest.raises(NotFound, match=r"no such arm: v3 \(known: v1, v2\)"):
        parted().arm("v3")
