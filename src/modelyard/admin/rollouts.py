"""Rollouts: how they stand, what was decided about them, and deciding it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from modelyard import api
from modelyard.registry import Registry
from modelyard.registry.decisions import Decision, Finding
from modelyard.registry.evidence import Exposure, Point
from modelyard.registry.leases import CONTROL
from modelyard.registry.plans import Plan, Rollout, State
from modelyard.registry.records import PRODUCTION
from modelyard.registry.routes import Pin
from modelyard.rollouts import guard


class RolloutRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout: what it was to do, and how it stands or ended."""

    id: int
    model: str
    alias: str
    stable: int
    candidate: int
    state: State
    stage: int
    share: float
    started: str
    ended: str | None
    who: str
    why: str
    exposure: Exposure


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One decision: who or what took it, why, what it was based on, and what the candidate had served until then."""

    id: int
    moment: str
    who: str
    action: str
    why: str
    state: State
    stage: int
    share: float
    exposure: Exposure
    findings: list[Finding]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout stands. ``verdict`` and ``action`` are what the guard says now; "" of one that has ended."""

    rollout: RolloutRow
    plan: Plan
    verdict: str
    action: str
    findings: list[Finding]
    #: Of the present stage: requests to the stable version and to the candidate, and seconds with traffic.
    stable_requests: int
    candidate_requests: int
    seconds: float
    curve: list[Point]
    decisions: list[Decided]
    #: Which process decides; "" where none does.
    decider: str


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that began, and what was decided for its plan, in sentences."""

    rollout: RolloutRow
    plan: Plan
    notes: list[str]


def rollout(registry: Registry, rollout: int) -> Standing:
    """A rollout by its number: plan, evidence, exposure and verdict, and every decision with what it was based on."""
    return standing_of(registry, registry.rollouts.find(rollout))


def standing_of(registry: Registry, rollout: Rollout) -> Standing:
    """How it stands, or how it ended."""
    decisions = registry.rollouts.decisions(rollout.id)
    verdict = None if rollout.ended else guard.explain(rollout)
    evidence = rollout.evidence
    return Standing(
        rollout=row_of(rollout), plan=rollout.plan, verdict=verdict.why if verdict else "",
        action=verdict.action if verdict else "",
        findings=verdict.findings if verdict else decisions[-1].findings if decisions else [],
        stable_requests=evidence.stable, candidate_requests=evidence.candidate, seconds=evidence.seconds,
        curve=evidence.curve, decisions=[_decided(each) for each in decisions], decider=registry.holder(CONTROL),
    )  # fmt: skip


def row_of(rollout: Rollout) -> RolloutRow:
    """What is told of a rollout in one line."""
    return RolloutRow(
        id=rollout.id, model=rollout.model, alias=rollout.alias, stable=rollout.stable, candidate=rollout.candidate,
        state=rollout.state, stage=rollout.stage, share=rollout.share, started=rollout.started, ended=rollout.ended,
        who=rollout.who, why=rollout.why, exposure=rollout.evidence.exposure,
    )  # fmt: skip


def _decided(decision: Decision) -> Decided:
    return Decided(
        id=decision.id, moment=decision.moment, who=decision.who, action=decision.action, why=decision.why,
        state=decision.state, stage=decision.stage, share=decision.share, exposure=decision.exposure,
        findings=decision.findings,
    )  # fmt: skip


def start_rollout(
    registry: Registry, model: str, to: int, *, alias: str = PRODUCTION, canary: float | None = None,
    ramp: Sequence[float] = (), shadow: float | None = None, ab: float | None = None, bandit: bool = False,
    guards: list[str] | None = None, by: Literal["evidence", "schedule"] = "evidence", alpha: float = 0.01,
    tolerances: dict[str, float] | None = None, stage_seconds: float = 60.0, watch_seconds: float | None = None,
    key: str = "request", pins: Sequence[Pin] = (), outcome: str = "", hold: bool = False,
    force_signature: bool = False, why: str = "",
) -> Started:  # fmt: skip
    """Let a version take over by and by, watched by a guard.

    Shares, tolerances and `alpha` are fractions. Without `guards` all are on that can be. A version with another
    signature is refused, with the difference, unless `force_signature` is given.
    """
    made, notes = api.start_rollout(
        model, to, alias=alias, canary=canary, ramp=ramp, shadow=shadow, ab=ab, bandit=bandit, guards=guards, by=by,
        alpha=alpha, tolerances=tolerances, stage_seconds=stage_seconds, watch_seconds=watch_seconds, key=key,
        pins=pins, outcome=outcome, hold=hold, force_signature=force_signature, why=why, registry=registry,
    )  # fmt: skip
    return Started(rollout=row_of(made), plan=made.plan, notes=notes)


def pause_rollout(registry: Registry, model: str, *, alias: str = PRODUCTION, why: str = "") -> Decided:
    """Let a rollout stay at its share; harm still ends it."""
    return _decided(api.pause_rollout(model, alias=alias, why=why, registry=registry))


def resume_rollout(registry: Registry, model: str, *, alias: str = PRODUCTION, why: str = "") -> Decided:
    """Let a rollout go on after a pause."""
    return _decided(api.resume_rollout(model, alias=alias, why=why, registry=registry))


def abort_rollout(registry: Registry, model: str, *, alias: str = PRODUCTION, why: str = "") -> Decided:
    """End a rollout: the version before answers everything."""
    return _decided(api.abort_rollout(model, alias=alias, why=why, registry=registry))


def end_rollout(registry: Registry, model: str, *, alias: str = PRODUCTION, why: str = "") -> Decided:
    """Watch a promoted version no longer: it stays."""
    return _decided(api.end_rollout(model, alias=alias, why=why, registry=registry))
