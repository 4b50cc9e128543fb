"""The controller: reads tallies, has the guard judge, and writes what follows.

Evidence, position and decision are one transaction, fenced by the lease: whoever is killed in the middle of it has done
nothing, whoever reads again folds in nothing twice, and of two controllers one decides. A verdict depends on the
tallies alone, one after the other, so that the same tallies lead to the same decisions however they were read. While
the registry does not answer nothing is decided; afterwards everything is caught up with.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.errors import Conflict, RemoteFailed
from modelyard.registry import decisions, tallies
from modelyard.registry.database import Database, Work
from modelyard.registry.decisions import Decision, settle, take_back
from modelyard.registry.evidence import Point
from modelyard.registry.plans import Rollout, State
from modelyard.registry.tallies import Tally
from modelyard.rollouts import bandit, guard
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.leases import Lease

#: Who history says it was.
WHO = "guard"

#: How often to step while a rollout is under way, and while none is.
BUSY_SECONDS, IDLE_SECONDS = 0.1, 1.0

#: Tallies that are folded in in one transaction.
_BATCH = 200
#: How often the time that a promoted candidate was watched is written down.
_WATCH_SECONDS = 30.0


class Controller:
    """Takes the decisions about all rollouts of a registry, as long as it holds the lease."""

    def __init__(self, registry: Registry, lease: Lease, log: Log | None = None) -> None:
        self._log = log or Log()
        self._database: Database = registry.database
        self._rollouts = registry.rollouts
        self._tallies = registry.tallies
        self._lease = lease
        #: Since when each promoted candidate has been watched here, by the steady clock.
        self._watched: dict[int, float] = {}
        #: How long to wait before the next step.
        self.pause = IDLE_SECONDS

    def step(self) -> list[Decision]:
        """Fold in what was counted, and decide. Raises Conflict where another has the lease, RemoteFailed where the
        registry does not answer: then nothing was decided.
        """
        active = self._rollouts.active()
        self.pause = BUSY_SECONDS if active else IDLE_SECONDS
        self._watched = {r.id: self._watched.get(r.id, monotonic()) for r in active if r.state == "watching"}
        made: list[Decision] = []
        bugs: list[Exception] = []
        for rollout in active:
            try:
                made += self._follow(rollout)
            except (Conflict, RemoteFailed):
                raise
            except Exception as bug:  # the others are not to wait for it
                bugs.append(bug)
        if bugs:
            raise bugs[0]
        return made

    def _follow(self, rollout: Rollout) -> list[Decision]:
        """Everything that is new of one rollout."""
        made = []
        while self._is_due(rollout):
            with self._database.write() as work:
                self._lease.fence(work)
                now = decisions.find(work, rollout.id)
                decision, now = self._turn(work, now)
            if decision is not None:
                made.append(decision)
                level = "warning" if now.state in ("rolled back", "aborted") else "info"
                told = {"rollout": now.id, "model": now.model, "alias": now.alias, "why": decision.why}
                self._log.write(level, f"rollout: {decision.action}", **told)
            if now.ended or now.position == rollout.position:
                break
            rollout = now
        return made

    def _is_due(self, rollout: Rollout) -> bool:
        since = self._watched.get(rollout.id)
        is_time = since is not None and monotonic() - since >= _WATCH_SECONDS
        return is_time or self._tallies.newest(rollout.id) > rollout.position

    def _turn(self, work: Work, rollout: Rollout) -> tuple[Decision | None, Rollout]:
        """Tallies up to the first decision, which is taken; the evidence, where there is none."""
        if rollout.ended:
            return None, rollout
        if rollout.id in self._watched:
            rollout = self._watch(rollout)
        for tally in tallies.after(work, rollout.id, rollout.position, _BATCH):
            rollout, verdict = guard.follow(rollout, tally)
            rollout = _with_point(rollout, tally, verdict)
            if decision := _decide(work, rollout, verdict):
                return decision, decisions.find(work, rollout.id)
        if rollout.state == "watching" and (decision := _decide(work, rollout, guard.judge(rollout))):
            return decision, decisions.find(work, rollout.id)
        decisions.save(work, rollout)
        tallies.forget(work, rollout.id, rollout.position)
        return None, rollout

    def _watch(self, rollout: Rollout) -> Rollout:
        """Add the time since the last look, by the steady clock: what nobody watched does not count."""
        now = monotonic()
        passed = min(now - self._watched[rollout.id], 2 * _WATCH_SECONDS)
        self._watched[rollout.id] = now
        watched = rollout.evidence.watched + passed
        return msgspec.structs.replace(rollout, evidence=msgspec.structs.replace(rollout.evidence, watched=watched))


def _decide(work: Work, rollout: Rollout, verdict: guard.Verdict) -> Decision | None:
    """Take the decision that a verdict asks for, if any."""
    if verdict.action == "continue":
        share, why = bandit.weigh(rollout) if _may_reweigh(rollout) else (rollout.share, "")
        if math.isclose(share, rollout.share):
            return None
        route = rollout.route(rollout.stage, share)
        return settle(work, rollout, "reweigh", "running", why=why, who=WHO, route=route)
    told: dict[str, Any] = {"why": verdict.why, "who": WHO, "findings": guard.explain(rollout).findings}
    if verdict.action == "roll back":
        return take_back(work, rollout, "roll back", "rolled back", **told)
    if verdict.action == "abort":
        return take_back(work, rollout, "abort", "aborted", **told)
    if verdict.action == "advance":
        stage = rollout.stage + 1
        return settle(work, rollout, "advance", "running", stage=stage, route=rollout.route(stage), **told)
    if verdict.action == "promote":
        if decisions.pointed(work, rollout) != rollout.stable:
            told["why"] = f"{rollout.model}@{rollout.alias} was moved by somebody else"
            return settle(work, rollout, "abort", "aborted", **told)
        state: State = "watching" if rollout.plan.watch_seconds else "promoted"
        return settle(work, rollout, "promote", state, move=rollout.candidate, **told)
    if rollout.state == "watching":
        return settle(work, rollout, "end", "promoted", keep=True, **told)
    return settle(work, rollout, "pass", "passed", **told)


def _may_reweigh(rollout: Rollout) -> bool:
    evidence, plan = rollout.evidence, rollout.plan
    is_time = evidence.candidate >= guard.LEAST_REQUESTS and evidence.seconds >= plan.stage_seconds
    return plan.judge == "bandit" and rollout.state == "running" and is_time


def _with_point(rollout: Rollout, tally: Tally, verdict: guard.Verdict) -> Rollout:
    """The rollout with a point of its curve, where there is something new to see."""
    evidence = rollout.evidence
    requests = sum(stratum.candidate.requests for stratum in evidence.strata.values())
    before = evidence.curve[-1].requests if evidence.curve else -1
    is_over = verdict.action != "continue"
    if not verdict.findings or (requests <= before * 1.05 and not is_over):
        return rollout
    logs = {finding.guard: round(finding.log_e - finding.needed, 3) for finding in verdict.findings}
    return msgspec.structs.replace(rollout, evidence=evidence.with_point(Point(tally.moment, requests, logs)))
