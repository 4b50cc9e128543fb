"""Rollouts as rows: one at a time, each decision whole; each test on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.errors import Conflict, InvalidInput, NotFound, Refused
from modelyard.registry import Registry, decisions
from modelyard.registry.database import Work
from modelyard.registry.plans import Plan, Rollout, Stage
from modelyard.registry.routes import Arm, Pin, Route
from registries import Make

PLAN = Plan(stages=(Stage(0.05), Stage(0.5)), guards=("errors",), tolerances={"errors": 0.01}, watch_seconds=60)


def draft(**more: Any) -> Rollout:
    return Rollout(**{"model": "churn", "stable": 1, "candidate": 2, "plan": PLAN, "share": 0.05, **more})


@pytest.fixture
def three(registry: Registry, make: Make) -> Registry:
    for text in ("one", "two", "three"):
        registry.register(make(text), "churn")
    return registry


def test_starting_makes_route_decision_and_history(three: Registry) -> None:
    made = three.rollouts.start(draft(why="better on paper"))
    assert (made.id, made.state, made.stage, made.share, made.chances) == (1, "running", 0, 0.05, {1: 0.05})
    route = three.routes.present("churn")
    assert route is not None
    assert [(a.name, a.version, a.weight) for a in route.arms] == [("stable", 1, 0.95), ("canary", 2, 0.05)]
    assert (route.rollout, route.salt) == (1, "rollout 1")
    (decision,) = three.rollouts.decisions(1)
    assert (decision.action, decision.state, decision.share, decision.why) == (
        "start",
        "running",
        0.05,
        "better on paper",
    )
    assert [(c.action, c.alias, c.detail) for c in three.history("churn")][-2:] == [
        ("route", "production", "stable 1 95%, canary 2 5%"),
        ("rollout", "production", "1 start: version 2 answers 5%"),
    ]
    assert three.resolve("churn").number == 1
    assert three.rollouts.active() == three.rollouts.all("churn") == [made] == [three.rollouts.latest("churn")]


def test_an_alias_has_one_at_a_time(three: Registry) -> None:
    three.rollouts.start(draft())
    marker = three.marker()
    with pytest.raises(Conflict, match="rollout 1 decides what churn@production means: it is running") as caught:
        three.rollouts.start(draft(candidate=3))
    assert caught.value.hint == "modelyard rollout abort churn"
    assert caught.value.details == {"rollout": 1}
    assert three.marker() == marker
    three.promote("churn", 1, alias="staging")
    other = three.rollouts.start(draft(alias="staging"))
    assert other.id == 2, "another alias, another rollout"
    assert three.rollouts.of("churn", "staging").id == 2


def test_a_rollout_starts_from_what_the_alias_names(three: Registry) -> None:
    with pytest.raises(Conflict, match="churn@production is version 1, not the expected 3"):
        three.rollouts.start(draft(stable=3))
    with pytest.raises(Conflict, match="churn@staging is not set"):
        three.rollouts.start(draft(alias="staging"))
    with pytest.raises(NotFound, match="no such version of churn: 9"):
        three.rollouts.start(draft(candidate=9))
    three.routes.set(Route(model="churn", arms=(Arm(name="a", version=1, weight=1.0),)))
    with pytest.raises(Conflict, match="has a route that somebody made") as caught:
        three.rollouts.start(draft())
    assert caught.value.hint == "modelyard route clear churn"
    assert three.rollouts.all() == []


def test_a_shadow_gets_copies_and_no_pins_to_itself(three: Registry) -> None:
    pins = (Pin(key="header:x", value="old", arm="stable"), Pin(key="header:x", value="new", arm="canary"))
    plan = Plan(stages=(Stage(0.2, "shadow"), Stage(0.5)), guards=("errors",), pins=pins)
    made = three.rollouts.start(draft(plan=plan, share=0.2))
    route = three.routes.present("churn")
    assert route is not None
    assert [(a.name, a.weight, a.mode) for a in route.arms] == [("stable", 1.0, "live"), ("shadow", 0.2, "shadow")]
    assert [pin.arm for pin in route.pins] == ["stable"]
    assert made.chances == {1: pytest.approx(1 / 6)}
    assert three.history("churn")[-1].detail == "1 start: version 2 gets copies of 20%"
    assert len(made.route(1).pins) == 2


def test_people_pause_resume_and_abort(three: Registry) -> None:
    three.rollouts.start(draft())
    assert three.rollouts.pause("churn", why="over the weekend").share == 0.05
    with pytest.raises(Conflict, match="is paused: `pause` is for one that is running"):
        three.rollouts.pause("churn")
    with pytest.raises(Conflict, match="`end` is for one that is watching"):
        three.rollouts.end("churn")
    assert three.routes.present("churn") is not None
    three.rollouts.resume("churn")
    decision = three.rollouts.abort("churn", why="complaints")
    assert (decision.action, decision.state, decision.share) == ("abort", "aborted", 0.0)
    assert three.routes.present("churn") is None
    assert three.resolve("churn").number == 1
    told = [(d.action, d.state, d.why) for d in three.rollouts.decisions(1)]
    assert told == [
        ("start", "running", ""), ("pause", "paused", "over the weekend"), ("resume", "running", ""),
        ("abort", "aborted", "complaints"),
    ]  # fmt: skip
    ended = three.rollouts.latest("churn")
    assert ended.ended is not None and ended.state == "aborted"
    with pytest.raises(NotFound, match="no rollout of churn@production is under way"):
        three.rollouts.abort("churn")
    assert three.rollouts.start(draft()).id == 2, "the next one may begin"


def test_what_a_rollout_decides_nobody_moves_beside_it(three: Registry, make: Make) -> None:
    three.rollouts.start(draft())
    moves: list[Callable[[], Any]] = [
        lambda: three.promote("churn", 3),
        lambda: three.register(make("four"), "churn", alias="production"),
        lambda: three.routes.set(Route(model="churn", arms=(Arm(name="a", version=3, weight=1.0),))),
        lambda: three.routes.clear("churn"),
    ]
    for move in moves:
        with pytest.raises(Conflict, match="rollout 1 decides"):
            move()
    for version in (1, 2):
        with pytest.raises(Refused, match=f"churn:{version} is needed by rollout 1 of churn@production"):
            three.delete(f"churn:{version}", force=True)
    three.delete("churn:3")
    assert len(three.versions("churn")) == 2, "nothing was registered either"


def test_rolling_back_takes_the_candidate_back(three: Registry) -> None:
    three.promote("churn", 3)
    three.rollouts.start(draft(stable=3))
    change = three.rollback("churn", why="alarm")
    assert (change.action, change.detail) == ("rollout", "1 roll back: version 3 answers everything")
    assert three.routes.present("churn") is None
    assert three.resolve("churn").number == 3
    assert three.rollouts.latest("churn").state == "rolled back"
    assert three.rollback("churn").to == 1, "now as ever"


def promoted(registry: Registry) -> Rollout:
    """A rollout whose candidate was promoted and is watched."""
    registry.rollouts.start(draft())
    with registry.database.write() as work:
        rollout = decisions.needed(work, "churn", "production")
        decisions.settle(work, rollout, "promote", "watching", who="guard", why="it is good", move=2)
    return registry.rollouts.of("churn")


def test_a_promoted_candidate_can_still_be_rolled_back(three: Registry) -> None:
    rollout = promoted(three)
    assert (rollout.state, rollout.share, rollout.ended) == ("watching", 1.0, None)
    assert three.routes.present("churn") is None
    assert three.resolve("churn").number == 2
    told = [(c.action, c.who, c.from_, c.to) for c in three.history("churn")][-3:]
    assert told == [("unroute", "guard", None, None), ("promote", "guard", 1, 2), ("rollout", "guard", None, None)]
    with pytest.raises(Conflict, match="it is watching") as caught:
        three.promote("churn", 3)
    assert caught.value.hint == "modelyard rollout end churn"
    three.rollback("churn")
    assert three.resolve("churn").number == 1
    assert [(c.action, c.from_, c.to) for c in three.history("churn")][-2:] == [
        ("rollback", 2, 1), ("rollout", None, None),
    ]  # fmt: skip


def test_a_promoted_candidate_stays_when_nobody_waits_any_more(three: Registry) -> None:
    promoted(three)
    assert three.rollouts.end("churn").state == "promoted"
    assert three.resolve("churn").number == 2
    assert three.promote("churn", 3).moved


def test_unknown_names_have_hints(three: Registry) -> None:
    with pytest.raises(NotFound) as caught:
        three.rollouts.latest("churn", "staging")
    assert caught.value.hint == "modelyard rollout start churn --to VERSION --alias staging"
    with pytest.raises(InvalidInput, match="why: expected text without NUL"):
        three.rollouts.start(draft(why="\0"))
    with pytest.raises(NotFound, match="no such rollout: 7") as caught:
        three.rollouts.find(7)
    assert caught.value.hint == "modelyard rollout list"


class Killed(BaseException):
    """The process is no more."""


def whole(registry: Registry) -> dict[str, Any]:
    """Everything that a decision changes."""
    return {
        "rollouts": registry.rollouts.all(),
        "decisions": [d for r in registry.rollouts.all() for d in registry.rollouts.decisions(r.id)],
        "route": registry.routes.present("churn"),
        "alias": registry.aliases("churn"),
        "history": registry.history("churn"),
    }


@pytest.mark.parametrize("what", ["start", "pause", "abort", "promote", "take back"])
def test_a_decision_is_whole_or_was_never_taken(three: Registry, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The process dies before each of its statements, one after the other."""
    if what == "take back":
        promoted(three)
    elif what != "start":
        three.rollouts.start(draft())

    def act() -> None:
        if what == "promote":
            with three.database.write() as work:
                rollout = decisions.needed(work, "churn", "production")
                decisions.settle(work, rollout, "promote", "watching", move=2)
        else:
            {
                "start": lambda: three.rollouts.start(draft()),
                "pause": lambda: three.rollouts.pause("churn"),
                "abort": lambda: three.rollouts.abort("churn"),
                "take back": lambda: three.rollback("churn"),
            }[what]()

    before, do = whole(three), Work.do
    for statement in range(100):
        left = statement

        def dying(self: Work, sql: str, *values: Any) -> None:
            nonlocal left
            if not sql.startswith(("BEGIN", "SET", "SELECT")):
                if left == 0:
                    raise Killed
                left -= 1
            do(self, sql, *values)

        with monkeypatch.context() as patch:
            patch.setattr(Work, "do", dying)
            with contextlib.suppress(Killed):
                act()
                break
        assert whole(three) == before, f"statement {statement}"
    assert statement >= 3, "it was killed in the middle"
    assert whole(three) != before


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (-7, "<0.01"),
        (0, "1"),
        (2.5, "12.2"),
        (4.9, "134"),
        (10, "22,026"),
        (14, "over a million"),
        (9e9, "over a million"),
    ],
)
def test_evidence_is_told_as_odds(log: float, told: str) -> None:
    assert decisions.odds(log) == told
