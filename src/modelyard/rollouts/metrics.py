"""Metrics of rollouts and routes, made from rows: of each alias its newest rollout, also when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.prometheus import Page
from modelyard.rollouts import guard

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.decisions import Finding
    from modelyard.registry.plans import Rollout


def tell(registry: Registry) -> Page:
    """All of it, as a page. Raises RemoteFailed."""
    page = Page()
    newest = [(_names(rollout), rollout) for rollout in registry.rollouts.newest()]
    page.head("modelyard_rollout_info", "gauge", "The newest rollout of an alias: its versions, and its state.")
    for names, rollout in newest:
        versions = {"stable": str(rollout.stable), "candidate": str(rollout.candidate)}
        page.add({**names, "rollout": str(rollout.id), **versions, "state": rollout.state}, 1)
    page.head("modelyard_rollout_active", "gauge", "1 while the newest rollout of an alias has not ended.")
    for names, rollout in newest:
        page.add(names, int(rollout.ended is None))
    page.head("modelyard_rollout_stage", "gauge", "The stage of a rollout that has not ended, from 1.")
    for names, rollout in newest:
        if rollout.ended is None:
            page.add(names, rollout.stage + 1)
    page.head("modelyard_rollout_share", "gauge", "The share of the requests that the candidate answers.")
    for names, rollout in newest:
        page.add(names, rollout.share)
    page.head("modelyard_rollout_served", "gauge", "Requests that the candidate answered, and how many of them badly.")
    for names, rollout in newest:
        served = rollout.evidence.exposure
        for what in ("requests", "bad", "slow", "wrong"):
            page.add({**names, "what": what}, getattr(served, what))
    _guards(page, [(names, finding) for names, rollout in newest for finding in _findings(registry, rollout)])
    page.head("modelyard_rollout_decisions_total", "counter", "Decisions about the rollouts of an alias.")
    for (model, alias, action), count in registry.rollouts.counts().items():
        page.add({"model": model, "alias": alias, "action": action}, count)
    page.head("modelyard_route_share", "gauge", "The shares of the arms of the routes in force.")
    for route in registry.routes.all():
        for arm in route.arms:
            told = {"arm": arm.name, "version": str(arm.version), "mode": arm.mode}
            page.add({"model": route.model, "alias": route.alias, **told}, arm.weight)
    return page


def _guards(page: Page, found: list[tuple[dict[str, str], Finding]]) -> None:
    page.head("modelyard_rollout_log_evidence", "gauge", "Natural logarithm of a guard's evidence that it does harm.")
    for names, finding in found:
        page.add({**names, "guard": finding.guard}, finding.log_e)
    page.head("modelyard_rollout_log_evidence_needed", "gauge", "What that has to reach for the candidate to go back.")
    for names, finding in found:
        page.add({**names, "guard": finding.guard}, finding.needed)
    page.head("modelyard_rollout_harm", "gauge", "How many more of the candidate's answers are bad: as seen.")
    for names, finding in found:
        if finding.harm is not None:
            page.add({**names, "guard": finding.guard}, finding.harm)
    page.head("modelyard_rollout_tolerance", "gauge", "How many more are tolerated.")
    for names, finding in found:
        page.add({**names, "guard": finding.guard}, finding.tolerance)


def _findings(registry: Registry, rollout: Rollout) -> list[Finding]:
    """What the guards say now; of a rollout that has ended, what they said last."""
    if rollout.ended is None:
        return guard.judge(rollout).findings
    told = [decision.findings for decision in registry.rollouts.decisions(rollout.id) if decision.findings]
    return told[-1] if told else []


def _names(rollout: Rollout) -> dict[str, str]:
    return {"model": rollout.model, "alias": rollout.alias}
