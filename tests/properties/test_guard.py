"""The guard, whatever the tallies: order and parting do not matter, replaying leads to the same decisions."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.registry import Registry
from modelyard.registry.evidence import Evidence
from modelyard.registry.leases import CONTROL
from modelyard.registry.plans import CANARY, SHADOW, STABLE, Plan, Rollout, Scores, Stage
from modelyard.registry.tallies import Counts, Labels, Pairs, Tally
from modelyard.rollouts import guard
from modelyard.rollouts.controller import Controller
from modelyard.stores.memory import MemoryStore
from registries import tiny_bundle

PLAN = Plan(
    stages=(Stage(0.05), Stage(0.5)), guards=("errors", "invalid", "latency", "scores", "labels"), stage_seconds=2.0,
    tolerances={"errors": 0.1, "invalid": 0.1, "latency": 0.3, "scores": 0.3, "labels": 0.3},
    scores=Scores(field="p", edges=(0.3, 0.6)), watch_seconds=60.0,
)  # fmt: skip
CHANCES = {1: 0.05, 2: 0.5}


@st.composite
def counted(draw: st.DrawFn) -> Counts:
    n = draw(st.integers(0, 400))
    some = st.integers(0, max(n // 10, 1) if n else 0)
    cuts = sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
    labels = draw(st.integers(0, n))
    slow = sorted((draw(st.integers(0, n)) for _ in range(3)), reverse=True)
    return Counts(
        requests=n, errors=draw(some), invalid=draw(some), slow50=slow[0], slow95=slow[1], slow99=slow[2],
        scores=[cuts[0], cuts[1] - cuts[0], n - cuts[1]], labels=Labels(labels, draw(st.integers(0, labels))),
    )  # fmt: skip


@st.composite
def tallies(draw: st.DrawFn) -> list[Tally]:
    """Rows of two recorders, in the order in which they came; their clocks go on, or jump."""
    made, minute = [], 0
    for number in range(draw(st.integers(1, 12))):
        minute = (minute + draw(st.sampled_from([0, 1, 1, 1, 40, -30]))) % 60
        arm = draw(st.sampled_from([CANARY, CANARY, CANARY, SHADOW]))
        made.append(
            Tally(
                rollout=1, revision=draw(st.sampled_from([1, 1, 1, 2])), source=draw(st.sampled_from("ab")),
                sequence=number, moment=f"2026-11-30T12:{minute:02}:00Z",
                arms={STABLE: draw(counted()), arm: draw(counted())},
                pairs=draw(st.sampled_from([None, Pairs(20, 3, 1, 2)])),
            )
        )  # fmt: skip
    return made


def begun(**more: Any) -> Rollout:
    given = {"id": 1, "model": "churn", "stable": 1, "candidate": 2, "plan": PLAN, "share": 0.05, "chances": CHANCES}
    return Rollout(**{**given, **more})


def folded(rows: list[Tally]) -> Rollout:
    rollout = begun()
    for tally in rows:
        rollout = msgspec.structs.replace(rollout, evidence=guard.fold(rollout, tally))
    return rollout


def sums(evidence: Evidence) -> Evidence:
    """Evidence without its clocks, which do have an order."""
    return msgspec.structs.replace(evidence, clocks={})


@given(tallies(), st.randoms())
@settings(max_examples=150, deadline=None)
def test_order_does_not_matter(rows: list[Tally], dice: Any) -> None:
    shuffled = list(rows)
    dice.shuffle(shuffled)
    one, other = folded(rows), folded(shuffled)
    assert sums(one.evidence) == sums(other.evidence)
    # How long a stage has had traffic does depend on the order, and so does whether it is judged yet.
    other = msgspec.structs.replace(other, evidence=msgspec.structs.replace(other.evidence, clocks=one.evidence.clocks))
    assert guard.judge(one).findings == guard.judge(other).findings


@given(tallies())
@settings(max_examples=100, deadline=None)
def test_rows_may_be_added_before_they_are_folded_in(rows: list[Tally]) -> None:
    """A recorder may write less often: what it counted meanwhile adds up."""
    first = rows[0]
    same = [r for r in rows if r.revision == first.revision and SHADOW not in r.arms]
    if len(same) < 2:
        return
    arms = {name: Counts() for name in (STABLE, CANARY)}
    for row in same:
        arms = {name: counts.plus(row.arms[name]) for name, counts in arms.items()}
    pairs = Pairs()
    for row in same:
        pairs = pairs.plus(row.pairs or Pairs())
    joined = msgspec.structs.replace(same[-1], arms=arms, pairs=pairs)
    assert sums(folded(same).evidence) == sums(folded([joined]).evidence)


@given(tallies())
@settings(max_examples=100, deadline=None)
def test_evidence_survives_a_database(rows: list[Tally]) -> None:
    evidence = folded(rows).evidence
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence) == evidence


@given(tallies())
@settings(max_examples=150, deadline=None)
def test_a_candidate_without_traffic_is_never_promoted(rows: list[Tally]) -> None:
    idle = [msgspec.structs.replace(row, arms={STABLE: row.arms[STABLE], CANARY: Counts()}) for row in rows]
    plan = msgspec.structs.replace(PLAN, stages=(Stage(0.05),), tolerances=dict.fromkeys(PLAN.guards, 1.0))
    rollout = msgspec.structs.replace(folded(idle), plan=plan)
    assert guard.judge(rollout).action in ("continue", "abort", "roll back")


@given(st.lists(tallies(), min_size=1, max_size=4), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_replaying_leads_to_the_same_decisions(parts: list[list[Tally]], data: st.DataObject) -> None:
    """Read one by one or in heaps, by one process or by several: what is decided is the same."""
    rows = [msgspec.structs.replace(row, sequence=n) for n, row in enumerate((r for p in parts for r in p), 1)]
    told = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            registry = Registry.open(Path(folder) / "home", store=MemoryStore())
            for text in ("one", "two"):
                registry.register(tiny_bundle(Path(folder) / text, text), "churn")
            registry.rollouts.start(begun(id=0, chances={}))
            lease = registry.lease(CONTROL, "test")
            lease.beat()
            left = list(rows)
            while left:
                size = data.draw(st.integers(1, len(left)))
                registry.tallies.add(left[:size])
                left = left[size:]
                Controller(registry, lease).step()
            told.append([msgspec.structs.replace(d, moment="", who="") for d in registry.rollouts.decisions(1)])
            told[-1].append(msgspec.structs.replace(registry.rollouts.latest("churn"), started="", ended=None))
            registry.close()
    assert told[0] == told[1]
