"""The guard: tallies become evidence, evidence becomes a verdict. Pure: no clock, no registry, the same every time.

Each guard has a part of ``alpha`` for itself, so that the chance that a candidate is rolled back which is no worse is
at most ``alpha`` over all guards, all stages and all times at which anybody looks. It passes when the harm is shown to
be tolerable: what it could do to all traffic at the share that follows, harm times share, is below the tolerance.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Literal

import msgspec

from modelyard.registry.decisions import Finding, odds
from modelyard.registry.evidence import COPIED, Clock, Evidence, Exposure, Stratum, share_key
from modelyard.registry.plans import CANARY, SHADOW, STABLE, Plan, Rollout
from modelyard.registry.tallies import Counts, Pairs, Tally
from modelyard.rollouts import weighing
from modelyard.statistics.sequential import log_beta_binomial

#: The least requests of the candidate in a stage, whatever else is shown: no traffic never promotes.
LEAST_REQUESTS = 50
#: Between two tallies of a recorder at most this much time counts, in seconds, whatever its clock says.
LONGEST_GAP = 60.0
#: A split of the requests that is not the route's: so sure, in so many requests, and so far off.
_SPLIT_LEVEL, _SPLIT_REQUESTS, _SPLIT_OFF = math.log(1e6), 2_000, 0.1
#: Of an experiment.
_UNDECIDED = "no difference between the outcomes is shown yet"

Action = Literal["continue", "advance", "promote", "pass", "roll back", "abort"]


class Verdict(msgspec.Struct, kw_only=True):
    """What is to be done, why, and what each guard said."""

    action: Action
    why: str
    findings: list[Finding] = []


def follow(rollout: Rollout, tally: Tally) -> tuple[Rollout, Verdict]:
    """The rollout with one more tally, and what is to be done."""
    rollout = msgspec.structs.replace(rollout, evidence=fold(rollout, tally), position=tally.id)
    verdict = judge(rollout)
    evidence = weighing.bet_anew(rollout.evidence, verdict.findings)
    return msgspec.structs.replace(rollout, evidence=evidence), verdict


# -- folding ------------------------------------------------------------------------------------------------------


def fold(rollout: Rollout, tally: Tally) -> Evidence:
    """The evidence with one more tally. Counts add up, so that their order does not matter, but for which answers of a
    shadow are compared with which others.
    """
    before = rollout.evidence
    stable = tally.arms.get(STABLE, Counts())
    live, shadow = tally.arms.get(CANARY), tally.arms.get(SHADOW)
    candidate = live or shadow or Counts()
    is_current = tally.revision == max(rollout.chances, default=0)
    is_timed = is_current and bool(stable.requests or candidate.requests)  # labels come whenever they come
    chance = rollout.chances.get(tally.revision, 0.0)
    strata, waiting = dict(before.strata), dict(before.waiting)
    if chance and rollout.plan.has_shadow and tally.revision == min(rollout.chances):
        # Copies that found no room were never made: what counts is how many there are. The two arms of one request may
        # come in two tallies; by which they are pooled depends on their number only, so that chance is what it was.
        kind = "requests" if stable.requests or candidate.requests else "labels"
        pooled = waiting.pop(kind, Stratum()).plus(stable, candidate)
        ours, theirs = (each.requests or each.labels.n for each in (pooled.candidate, pooled.stable))
        if ours and theirs:
            key = share_key(min(float(f"{ours / (ours + theirs):.2g}"), 0.99)) + COPIED
            strata[key] = strata.get(key, Stratum()).plus(pooled.stable, pooled.candidate)
        else:
            waiting[kind] = pooled
    elif 0.0 < chance < 1.0:
        key = share_key(chance)
        strata[key] = strata.get(key, Stratum()).plus(stable, candidate)
    exposure = before.exposure
    if live is not None:
        bad = live.bad or live.errors + live.invalid
        exposure = Exposure(
            exposure.requests + live.requests, exposure.bad + bad, exposure.slow + live.slow95,
            exposure.wrong + live.labels.wrong,
        )  # fmt: skip
    return msgspec.structs.replace(
        before,
        strata=strata,
        waiting=waiting,
        pairs=before.pairs.plus(tally.pairs or Pairs()),
        exposure=exposure,
        stable=before.stable + stable.requests * is_current,
        candidate=before.candidate + candidate.requests * is_current,
        clocks={**before.clocks, tally.source: _tick(before.clocks.get(tally.source), tally.moment, is_timed)},
        failed=before.failed or tally.failed.get(CANARY, "") or tally.failed.get(SHADOW, ""),
    )


def _tick(clock: Clock | None, moment: str, is_timed: bool) -> Clock:
    if clock is None:
        return Clock(moment, 0.0)
    passed = (dt.datetime.fromisoformat(moment) - dt.datetime.fromisoformat(clock.last)).total_seconds()
    return Clock(moment, clock.seconds + min(max(passed, 0.0), LONGEST_GAP) * is_timed)


# -- judging ------------------------------------------------------------------------------------------------------


def judge(rollout: Rollout) -> Verdict:
    """What the evidence says is to be done now."""
    plan, evidence, stage = rollout.plan, rollout.evidence, rollout.stage
    if evidence.failed:
        return Verdict(action="abort", why=f"version {rollout.candidate} cannot be served: {evidence.failed}")
    findings = [weighing.find(guard, plan, evidence) for guard in plan.guards]
    worst = max(findings, key=lambda finding: finding.log_e - finding.needed)
    if worst.log_e >= worst.needed:
        return Verdict(action="roll back", why=tell_harm(worst), findings=findings)
    if wrong := _split_is_wrong(rollout):
        return Verdict(action="abort", why=wrong, findings=findings)
    if rollout.state == "watching":
        return _watched(rollout, findings)
    if rollout.state != "running":
        return Verdict(action="continue", why=f"{rollout.state}: it stays at this share", findings=findings)
    if evidence.candidate < LEAST_REQUESTS or evidence.seconds < plan.stage_seconds:
        what = f"{LEAST_REQUESTS} requests to version {rollout.candidate} and {plan.stage_seconds:g} s of traffic"
        why = f"not enough evidence yet: a stage takes at least {what}"
        return Verdict(action="continue", why=why, findings=findings)
    is_last = stage + 1 == len(plan.stages)
    onward: Action = "advance" if not is_last else "promote" if plan.goal == "promote" else "pass"
    if plan.by == "schedule" and not is_last:
        why = f"{plan.stage_seconds:g} s are over, and no harm was shown"
        return Verdict(action=onward, why=why, findings=findings)
    if plan.judge != "harm":
        return _judge_outcome(plan, evidence, onward, findings)
    lacking = []
    for finding in findings:
        if finding.guard in _asked(plan, stage):
            finding.is_tolerable = weighing.is_tolerable(finding.guard, plan, evidence, plan.needs(stage))
            if not finding.is_tolerable:
                lacking.append(finding.guard)
    if lacking:
        why = f"not enough evidence yet that the harm is tolerable: {', '.join(lacking)}"
        return Verdict(action="continue", why=why, findings=findings)
    why = f"the harm that a share of {plan.needs(stage) * 100:.4g}% could do is shown to be tolerable"
    return Verdict(action=onward, why=why, findings=findings)


def explain(rollout: Rollout) -> Verdict:
    """The same verdict, with how large the harm is at most, and outcomes differ, which takes longer to find."""
    verdict, plan, evidence = judge(rollout), rollout.plan, rollout.evidence
    for finding in verdict.findings:
        finding.at_most = weighing.at_most(finding.guard, plan, evidence)
        if finding.guard == "labels":
            finding.between = weighing.between(plan, evidence)
    if verdict.why == _UNDECIDED:
        verdict.why += f": {weighing.tell_outcomes(plan, evidence)}"
    return verdict


def tell_harm(finding: Finding) -> str:
    """Why a candidate was rolled back, in a sentence."""
    what = finding.guard if finding.event in ("", finding.guard) else f"{finding.guard} ({finding.event})"
    stable = f" against {finding.stable_bad:,} of {finding.stable_n:,}" if finding.stable_n else ""
    found, needed = odds(finding.log_e), odds(finding.needed)
    return f"{what}: {finding.bad:,} of {finding.n:,}{stable}; evidence {found} to 1, {needed} needed"


def _asked(plan: Plan, stage: int) -> list[str]:
    """The guards that must find the harm tolerable. Labels may come long after, and are waited for after the promotion
    where anything else is watched; answers are compared only with a shadow's, whose own time tells nothing.
    """
    other = "latency" if plan.stages[stage].mode == "shadow" else "disagreement"
    asked = [guard for guard in plan.guards if guard != other]
    others = [guard for guard in asked if guard != "labels"]
    return others or asked


def _judge_outcome(plan: Plan, evidence: Evidence, onward: Action, findings: list[Finding]) -> Verdict:
    """An experiment goes on until the candidate's outcomes are shown to be better; worse ones roll it back."""
    log_e = weighing.log_better(plan, evidence)
    if log_e >= -math.log(plan.alpha):
        told = weighing.tell_outcomes(plan, evidence)
        why = f"its outcomes are shown to be better: {told}; evidence {odds(log_e)} to 1"
        return Verdict(action=onward, why=why, findings=findings)
    return Verdict(action="continue", why=_UNDECIDED, findings=findings)


def _watched(rollout: Rollout, findings: list[Finding]) -> Verdict:
    """After the promotion: until the labels show that the harm is tolerable, or the time is up."""
    plan, evidence = rollout.plan, rollout.evidence
    if "labels" in plan.guards and weighing.is_tolerable("labels", plan, evidence, 1.0):
        why = "the labels show that the harm is tolerable"
    elif evidence.watched >= plan.watch_seconds:
        why = "the time to watch it is over, and no harm was shown"
    else:
        return Verdict(action="continue", why="promoted; labels may still roll it back", findings=findings)
    return Verdict(action="pass", why=why, findings=findings)


def _split_is_wrong(rollout: Rollout) -> str:
    """Why the requests are not parted as the route says, so that nothing can be learnt from their arms; else ""."""
    evidence, stage = rollout.evidence, rollout.plan.stages[rollout.stage]
    ours, both = evidence.candidate, evidence.stable + evidence.candidate
    share = rollout.share
    if stage.mode == "shadow" or not 0 < share < 1:
        return ""
    if rollout.plan.is_sticky:  # clients are as many coins as there are; only that none falls to the candidate is sure
        both = evidence.strata.get(share_key(share), Stratum()).stable.clients
    if ours and (rollout.plan.is_sticky or both < _SPLIT_REQUESTS):
        return ""
    what = "clients" if rollout.plan.is_sticky else "requests"
    seen = f"{ours:,} of {both:,} {what} reached version {rollout.candidate}, and the route gives it {share * 100:.4g}%"
    if ours == 0:
        is_sure = evidence.seconds >= 10 and both * math.log1p(-share) < -_SPLIT_LEVEL
    else:
        is_far = abs(ours / both / share - 1) > _SPLIT_OFF
        is_sure = is_far and float(log_beta_binomial(ours, both, share)) > _SPLIT_LEVEL
    return seen if is_sure else ""
