"""The controller: tallies become decisions, each of them whole and taken once; on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from modelyard.errors import Conflict, RemoteFailed
from modelyard.registry import Registry, leases
from modelyard.registry.database import Work
from modelyard.registry.leases import CONTROL
from modelyard.registry.plans import CANARY, STABLE, Plan, Rollout, Stage
from modelyard.registry.tallies import Counts, Labels, Tally
from modelyard.rollouts import controller, weighing
from modelyard.rollouts.controller import BUSY_SECONDS, IDLE_SECONDS, Controller
from recorders import Recorder
from registries import Make

RAMP = Plan(
    stages=(Stage(0.05), Stage(0.5)), guards=("errors",), tolerances={"errors": 0.02}, stage_seconds=5.0,
)  # fmt: skip


@pytest.fixture
def two(registry: Registry, make: Make) -> Registry:
    for text in ("one", "two"):
        registry.register(make(text), "churn")
    return registry


@pytest.fixture
def loop(two: Registry) -> Controller:
    lease = two.lease(CONTROL, "test")
    assert lease.beat()
    return Controller(two, lease)


def start(registry: Registry, plan: Plan = RAMP, **more: Any) -> Rollout:
    given = {"model": "churn", "stable": 1, "candidate": 2, "plan": plan, "share": plan.stages[0].share}
    return registry.rollouts.start(Rollout(**{**given, **more}))


def run(registry: Registry, loop: Controller, recorder: Recorder, tallies: int = 400, requests: int = 500) -> list[str]:
    """What was decided, while tallies come in one after the other."""
    told = []
    for _ in range(tallies):
        active = registry.rollouts.active()
        if not active:
            break
        recorder.write(registry, active[0], requests)
        told += [decision.action for decision in loop.step()]
    return told


def test_a_good_candidate_climbs_the_ramp_and_is_promoted(two: Registry, loop: Controller) -> None:
    start(two)
    assert run(two, loop, Recorder()) == ["advance", "promote"]
    assert two.resolve("churn").number == 2
    assert two.routes.present("churn") is None
    ended = two.rollouts.latest("churn")
    assert (ended.state, ended.share) == ("promoted", 1.0)
    decisions = two.rollouts.decisions(ended.id)
    assert [(d.action, d.who) for d in decisions[1:]] == [("advance", "guard"), ("promote", "guard")]
    last = decisions[-1]
    assert last.findings[0].is_tolerable and last.findings[0].at_most is not None
    assert last.exposure.requests > 0 and last.evidence.strata and last.evidence.curve
    rows = [(c.action, c.who, c.detail) for c in two.history("churn")][-7:]
    assert rows == [
        ("route", rows[0][1], "stable 1 95%, canary 2 5%"), ("rollout", rows[0][1], "1 start: version 2 answers 5%"),
        ("route", "guard", "stable 1 50%, canary 2 50%"), ("rollout", "guard", "1 advance: version 2 answers 50%"),
        ("unroute", "guard", ""), ("promote", "guard", ""),
        ("rollout", "guard", "1 promote: version 2 answers everything"),
    ]  # fmt: skip
    assert rows[0][1] != "guard"


def test_a_bad_candidate_is_taken_back(two: Registry, loop: Controller) -> None:
    start(two)
    assert run(two, loop, Recorder(candidate={"errors": 0.1})) == ["roll back"]
    assert two.resolve("churn").number == 1
    assert two.routes.present("churn") is None
    (_, back) = two.rollouts.decisions(1)
    assert back.state == "rolled back"
    assert back.why.startswith("errors: ")
    assert back.exposure.bad == sum(s.candidate.errors for s in back.evidence.strata.values()) > 0


def test_without_traffic_nothing_is_decided_or_written(two: Registry, loop: Controller) -> None:
    start(two)
    marker, before = two.marker(), two.rollouts.of("churn")
    for _ in range(20):
        assert loop.step() == []
    assert (two.marker(), two.rollouts.of("churn")) == (marker, before)


def test_it_looks_often_only_while_there_is_something_to_see(two: Registry, loop: Controller) -> None:
    loop.step()
    assert loop.pause == IDLE_SECONDS
    start(two)
    loop.step()
    assert loop.pause == BUSY_SECONDS


def test_evidence_is_folded_in_once(two: Registry, loop: Controller) -> None:
    rollout = start(two)
    recorder = Recorder()
    for _ in range(3):
        recorder.write(two, rollout, 100)
        loop.step()
        loop.step()
    assert two.tallies.add(two.tallies.after(rollout.id, 0)) == 0, "they are sent again"
    loop.step()
    now = two.rollouts.of("churn")
    assert sum(s.stable.requests + s.candidate.requests for s in now.evidence.strata.values()) == 300
    assert now.position == two.tallies.newest(rollout.id)


def test_who_has_not_the_lease_decides_nothing(
    two: Registry, loop: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(leases, "monotonic", lambda: now[0])
    rollout = start(two)
    Recorder(candidate={"errors": 0.9}).write(two, rollout, 1000)
    other = two.lease(CONTROL, "other")
    assert not other.beat()
    now[0] += leases.FREE_SECONDS
    assert other.beat()
    with pytest.raises(Conflict, match="the lease control is not held by test any more: nothing was decided"):
        loop.step()
    assert two.rollouts.of("churn") == rollout
    assert [d.action for d in Controller(two, other).step()] == ["roll back"]


def test_two_controllers_take_each_decision_once(two: Registry, loop: Controller) -> None:
    """The lease goes to and fro while tallies come in."""
    start(two)
    recorder, told = Recorder(), []
    holders = [two.lease(CONTROL, name) for name in ("a", "b")]
    loop._lease.release()
    for turn in range(200):
        if not two.rollouts.active():
            break
        holder = holders[turn % 2]
        assert holder.beat()
        recorder.write(two, two.rollouts.active()[0], 500)
        for each in holders:
            with contextlib.suppress(Conflict):
                told += [d.action for d in Controller(two, each).step()]
        holder.release()
    assert told == ["advance", "promote"]


def test_while_the_registry_is_away_nothing_is_decided_and_then_all_is_caught_up(
    two: Registry, loop: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(two)
    recorder = Recorder(candidate={"errors": 0.05})
    written = [recorder.tally(two.rollouts.of("churn"), 400) for _ in range(240)]

    def away(*_: Any) -> Iterator[None]:
        raise RemoteFailed("cannot reach the registry")

    with monkeypatch.context() as patch:
        patch.setattr(type(two.database), "query", away)
        patch.setattr(type(two.database), "write", away)
        for _ in range(5):
            with pytest.raises(RemoteFailed):
                loop.step()
    two.tallies.add(written)
    assert [d.action for d in loop.step()] == ["roll back"]
    back = two.rollouts.latest("churn")
    assert back.position < written[-1].sequence, "it was decided by the tallies up to there, as it would have been then"


def test_a_candidate_that_fails_to_load_ends_it(two: Registry, loop: Controller) -> None:
    rollout = start(two)
    Recorder().write(two, rollout, 10, failed={CANARY: "golden rows differ"})
    (decision,) = loop.step()
    assert (decision.action, decision.state) == ("abort", "aborted")
    assert decision.why == "version 2 cannot be served: golden rows differ"
    assert two.routes.present("churn") is None


def test_one_that_cannot_be_judged_does_not_stop_the_others(two: Registry, loop: Controller) -> None:
    """A row that no recorder of ours writes: a bug, which is told, and not the end of all watching."""
    two.promote("churn", 1, alias="staging")
    broken = start(two, alias="staging")
    good = start(two)
    assert broken.id < good.id
    recorder = Recorder(candidate={"errors": 0.9})
    strange = recorder.tally(broken, 10)
    two.tallies.add([msgspec.structs.replace(strange, moment="yesterday") for strange in (strange, strange)])
    two.tallies.add([msgspec.structs.replace(strange, sequence=2, moment="today")])
    two.tallies.add([recorder.tally(good, 1000)])
    with pytest.raises(ValueError, match="Invalid isoformat string"):
        loop.step()
    assert two.rollouts.latest("churn").state == "rolled back"
    assert two.rollouts.of("churn", "staging").position == 0


def test_what_people_decide_meanwhile_holds(two: Registry, loop: Controller) -> None:
    rollout = start(two)
    recorder = Recorder(candidate={"errors": 0.9})
    recorder.write(two, rollout, 10)
    two.rollouts.pause("churn")
    loop.step()
    assert two.rollouts.of("churn").state == "paused"
    two.rollouts.abort("churn")
    two.tallies.add([recorder.tally(rollout, 1000)])
    assert loop.step() == []
    assert two.rollouts.latest("churn").state == "aborted"


def test_old_tallies_go(two: Registry, loop: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.registry import tallies

    monkeypatch.setattr(tallies, "KEPT", 5)
    rollout = start(two)
    recorder = Recorder()
    for _ in range(12):
        recorder.write(two, rollout, 10)
        loop.step()
    assert len(two.tallies.after(rollout.id, 0)) == 5


# -- after the promotion ------------------------------------------------------------------------------------------

LABELLED = Plan(
    stages=(Stage(0.1),), guards=("errors", "labels"), tolerances={"errors": 0.02, "labels": 0.05}, stage_seconds=5.0,
    watch_seconds=100.0,
)  # fmt: skip


def late(rollout: Rollout, wrong: int, sequence: int = 1) -> Tally:
    """The truth about 500 of the candidate's predictions of before, and about 4,500 others."""
    arms = {STABLE: Counts(labels=Labels(4500, 450)), CANARY: Counts(labels=Labels(500, wrong))}
    return Tally(
        rollout=rollout.id, revision=1, source="late", sequence=sequence, moment="2026-12-01T00:00:00Z", arms=arms
    )


def test_labels_roll_a_promoted_candidate_back(two: Registry, loop: Controller) -> None:
    start(two, LABELLED)
    assert run(two, loop, Recorder()) == ["promote"]
    rollout = two.rollouts.of("churn")
    assert (rollout.state, two.resolve("churn").number) == ("watching", 2)
    two.tallies.add([late(rollout, 150)])
    assert [d.action for d in loop.step()] == ["roll back"]
    assert two.resolve("churn").number == 1
    assert two.history("churn")[-2].action == "rollback"


def test_a_promoted_candidate_is_watched_by_the_steady_clock_only(
    two: Registry, loop: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(controller, "monotonic", lambda: now[0])
    start(two, LABELLED)
    run(two, loop, Recorder())
    loop.step()
    now[0] += 100_000.0  # this process was stopped: nobody watched
    assert loop.step() == []
    assert two.rollouts.of("churn").evidence.watched <= 60
    again = Controller(two, loop._lease)  # another process goes on where this one was
    assert again.step() == []
    for _ in range(2):
        now[0] += 31.0
        assert two.rollouts.of("churn").state == "watching"
        told = again.step()
    assert [(d.action, d.state, d.why) for d in told] == [
        ("end", "promoted", "the time to watch it is over, and no harm was shown")
    ]  # fmt: skip
    assert two.resolve("churn").number == 2


def test_a_bandit_follows_the_outcomes(two: Registry, loop: Controller) -> None:
    plan = Plan(
        stages=(Stage(0.5),), guards=("labels",), tolerances={"labels": 0.05}, judge="bandit", key="header:x",
        stage_seconds=1.0, floor=0.1,
    )  # fmt: skip
    start(two, plan, share=0.5)
    recorder = Recorder(stable={"wrong": 0.5}, candidate={"wrong": 0.4}, labelled=0.3)
    told, shares = [], []
    for _ in range(200):
        if not (active := two.rollouts.active()):
            break
        recorder.write(two, active[0], 100)
        told += [decision.action for decision in loop.step()]
        shares.append(two.rollouts.latest("churn").share)
    assert told[-1] == "promote" and set(told[:-1]) == {"reweigh"}
    assert max(shares[:-1]) == pytest.approx(0.9), "the floor is kept"
    moves = [each for each in two.rollouts.decisions(1) if each.action == "reweigh"]
    for each in moves:
        ours, theirs = weighing.outcomes(each.evidence)
        told = f"{ours.n - ours.wrong} of {ours.n} were a success against {theirs.n - theirs.wrong} of {theirs.n}"
        assert each.why.startswith("better with a chance of 0.") and each.why.endswith(f": {told}"), each.why
    assert len(two.rollouts.latest("churn").evidence.strata) > 1


# -- killed, and replayed ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is no more."""


def told(registry: Registry) -> list[Any]:
    """Every decision, without what differs from run to run."""
    rollouts = registry.rollouts
    return [
        msgspec.structs.replace(decision, id=0, moment="", who="", rollout=0)
        for decision in rollouts.decisions(rollouts.latest("churn").id)
    ]


def test_killed_before_any_statement_it_goes_on_as_if_nothing_had_been(
    two: Registry, loop: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tallies, once in peace and once with a process that dies at each of its statements in turn."""
    start(two)
    recorder = Recorder()
    run(two, loop, recorder)
    calm = told(two)
    assert [d.action for d in calm] == ["start", "advance", "promote"]

    two.promote("churn", 1)
    start(two)
    again, do, deaths = Recorder(), Work.do, []

    def step(statements: int) -> bool:
        """A step of a process that dies after so many statements; whether it lived."""
        left = statements

        def dying(self: Work, sql: str, *values: Any) -> None:
            nonlocal left
            if not sql.startswith(("BEGIN", "SET", "SELECT")):
                if left == 0:
                    raise Killed
                left -= 1
            do(self, sql, *values)

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(Work, "do", dying)
            Controller(two, loop._lease).step()
            return True
        return False

    while two.rollouts.active():
        again.write(two, two.rollouts.active()[0], 500)
        before = two.rollouts.latest("churn")
        statements = 0
        while not step(statements):
            assert two.rollouts.latest("churn") == before
            route = two.routes.present("churn")
            assert route is not None and route.arms[1].weight == before.share
            statements += 1
        deaths.append(statements)
    assert max(deaths) >= 8 and len(deaths) > 20, "it died in the middle of decisions, and between them"
    assert told(two) == calm
