"""What each guard finds in the evidence: how much speaks for harm, and whether the harm is shown to be tolerable.

Bets on harm lose while there is none, and after a long good time they could not win soon any more. So some of the
capital is kept back, and a part of that is bet anew whenever what was bet last is nearly lost. All of it together is
evidence as before: what is kept back is not at stake, and when it is bet is decided by what happened before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from modelyard.registry.decisions import Finding
from modelyard.registry.evidence import COPIED, Evidence, Restart, Stratum, share_of
from modelyard.registry.plans import Plan
from modelyard.registry.tallies import Counts, Labels, Pairs
from modelyard.rollouts import games
from modelyard.rollouts.games import Counted
from modelyard.schema import Array
from modelyard.statistics.confidence import PRIOR, bound_rate_difference
from modelyard.statistics.sequential import average, log_beta_binomial, log_beta_mixture, log_sign

#: What each guard counts.
EVENTS: dict[str, tuple[str, ...]] = {
    "errors": ("errors",), "invalid": ("invalid",), "latency": ("slow50", "slow95", "slow99"), "labels": ("wrong",),
}  # fmt: skip

#: How much of a guard's tolerance is an event's: further out, less more is harm.
_PARTS = {"slow95": 0.5, "slow99": 0.2}

#: The capital that is bet at once, and the logarithm of a bet that is nearly lost.
_AT_ONCE, _NEARLY_LOST = 0.8, -8.0


# -- harm ---------------------------------------------------------------------------------------------------------


def find(guard: str, plan: Plan, evidence: Evidence) -> Finding:
    """The evidence of harm that one guard has."""
    tolerance, level = plan.tolerances.get(guard, 0.0), -math.log(plan.level(guard))
    whole, pairs = _counted(guard, plan, evidence.strata, evidence.strata), evidence.pairs
    logs = _logs(guard, plan, whole, pairs, whole, level)
    bets, capital, kept, seen = [_mean(logs)], [_AT_ONCE], 1 - _AT_ONCE, whole
    if restart := evidence.restarts.get(guard):
        since = whole.less(_counted(guard, plan, restart.strata, evidence.strata))
        lately = _logs(guard, plan, since, pairs.less(restart.pairs), whole, level)
        bets.append(_mean(lately))
        capital.append(_part(restart.number))
        kept -= sum(map(_part, range(1, restart.number + 1)))
        if bets[1] > bets[0]:  # what speaks loudest is told
            seen, logs = since, lately
    most = max(0.0, *bets)
    worth = kept * math.exp(-most) + sum(part * math.exp(bet - most) for part, bet in zip(capital, bets, strict=True))
    log_e = most + math.log(worth)
    found = Finding(guard=guard, log_e=log_e, log_last=bets[-1], needed=level, tolerance=tolerance)
    if guard == "scores":
        found.needed += games.BEYOND_COST
    if guard == "disagreement":
        found.bad, found.n, found.harm = pairs.differ, pairs.n, pairs.differ / pairs.n if pairs.n else None
    else:
        _describe(found, seen, logs)
    return found


def bet_anew(evidence: Evidence, findings: Iterable[Finding]) -> Evidence:
    """The evidence, with new bets where the last ones are nearly lost."""
    lost = [finding.guard for finding in findings if finding.log_last < _NEARLY_LOST]
    if not lost:
        return evidence
    numbers = {guard: before.number for guard, before in evidence.restarts.items()}
    anew = {guard: Restart(numbers.get(guard, 0) + 1, evidence.strata, evidence.pairs) for guard in lost}
    return msgspec.structs.replace(evidence, restarts={**evidence.restarts, **anew})


# -- outcomes -----------------------------------------------------------------------------------------------------


def log_better(plan: Plan, evidence: Evidence) -> float:
    """ln of the evidence that the candidate's outcomes are better."""
    return float(games.log_better(_counted("labels", plan, evidence.strata, evidence.strata))[0])


def outcomes(evidence: Evidence) -> tuple[Labels, Labels]:
    """Those of the candidate, and of the stable version."""
    ours, theirs = Labels(), Labels()
    for stratum in evidence.strata.values():
        ours, theirs = ours.plus(stratum.candidate.labels), theirs.plus(stratum.stable.labels)
    return ours, theirs


def between(plan: Plan, evidence: Evidence) -> tuple[float, float] | None:
    """How much more often the candidate's outcomes are at least and at most bad, wrongly with the chance ``claim`` over
    all times. None where there are none, and for a bandit: while shares follow outcomes, both may move with the time.
    """
    ours, theirs = outcomes(evidence)
    if plan.judge != "outcome" or not (ours.n and theirs.n):
        return None
    low, high = bound_rate_difference(theirs.wrong, theirs.n, ours.wrong, ours.n, plan.claim)
    return float(low), float(high)


def tell_outcomes(plan: Plan, evidence: Evidence) -> str:
    """In words, what the outcomes of both are, and the difference."""
    ours, theirs = (f"{each.n - each.wrong:,} of {each.n:,}" for each in outcomes(evidence))
    told = f"{ours} were a success against {theirs}"
    if found := between(plan, evidence):
        low, high = (f"{0.0 - round(bound * 100, 1):.1f}" for bound in reversed(found))
        told += f", {low} to {high} points more"
    return told


def _mean(logs: Array) -> float:
    """Of the evidence of several events: evidence again."""
    return float(average(logs)) if len(logs) > 1 else float(logs[0])


def _part(number: int) -> float:
    """Of the capital that is kept back, the part of the n-th new bet: they add up to all of it."""
    return (1 - _AT_ONCE) * 6 / (math.pi * number) ** 2


def _logs(guard: str, plan: Plan, seen: Counted, pairs: Pairs, whole: Counted, level: float) -> Array:
    """ln of the evidence by event, in what was seen since some moment; ``whole`` is all that was seen."""
    tolerance = plan.tolerances.get(guard, 0.0)
    if guard == "disagreement":
        return np.array([float(log_beta_mixture(pairs.differ, pairs.n, tolerance)) if pairs.n else 0.0])
    if guard == "scores":
        return games.log_harm_beyond(seen, whole, tolerance, level)
    logs = games.log_harm(seen)
    if guard == "labels" and plan.has_shadow:
        return np.append(logs, log_sign(pairs.live_better, pairs.shadow_better))
    return logs


def _describe(found: Finding, seen: Counted, logs: Array) -> None:
    """Tell of the event that looks worst."""
    ours, theirs = seen.rates
    worst = int(np.argmax(ours - theirs if found.guard == "scores" else logs[: len(seen.names)]))
    found.event = seen.names[worst]
    found.bad, found.n = int(seen.bad.sum(0)[worst]), int(seen.n[worst])
    found.stable_bad, found.stable_n = int(seen.stable_bad.sum(0)[worst]), int(seen.stable_n[worst])
    found.harm = float(ours[worst] - theirs[worst]) if found.n else None


# -- what is tolerable ---------------------------------------------------------------------------------------------


def is_tolerable(guard: str, plan: Plan, evidence: Evidence, share: float) -> bool:
    """Whether ``share`` of the harm is shown to be below the guard's tolerance."""
    tolerance = plan.tolerances.get(guard, 0.0)
    if guard == "disagreement":
        differ, n = evidence.pairs.differ, evidence.pairs.n
        told = log_beta_binomial(differ, n, tolerance, PRIOR, PRIOR) if 0 < tolerance < 1 and n else 0.0
        return bool(differ < tolerance * n and told > -math.log(plan.claim))
    counted = _counted(guard, plan, evidence.strata, evidence.strata)
    return bool(games.is_below(counted, tolerance * _parts(counted) / share, plan.claim).all())


def at_most(guard: str, plan: Plan, evidence: Evidence) -> float | None:
    """How large the harm is at most, as the guard's tolerance counts it; None where nothing can be said."""
    if guard == "disagreement":
        return None
    counted = _counted(guard, plan, evidence.strata, evidence.strata)
    return float((games.at_most(counted, plan.claim) / _parts(counted)).max()) if counted.n.all() else None


def _parts(counted: Counted) -> Array:
    return np.array([_PARTS.get(name, 1.0) for name in counted.names])


# -- counting -----------------------------------------------------------------------------------------------------


def _counted(guard: str, plan: Plan, strata: Mapping[str, Stratum], keys: Iterable[str]) -> Counted:
    """The events of a guard in the strata of these keys, with the trials of all."""
    told = [] if guard == "disagreement" else [k for k in sorted(keys) if guard != "latency" or not k.endswith(COPIED)]
    rows = [(share_of(key), strata.get(key) or Stratum()) for key in told]
    names = EVENTS.get(guard) or (plan.scores.names if guard == "scores" and plan.scores else ())
    counts = [(_events(guard, s.candidate, plan), _events(guard, s.stable, plan)) for _, s in rows]
    zeros = np.zeros((0, len(names)))
    bad, stable_bad = (np.array([c[i][0] for c in counts], dtype="float64") if counts else zeros for i in (0, 1))
    n, stable_n = (np.full(len(names), float(sum(c[i][1] for c in counts))) for i in (0, 1))
    return Counted(names, tuple(chance for chance, _ in rows), bad, stable_bad, n, stable_n)


def _events(guard: str, counts: Counts, plan: Plan) -> tuple[Sequence[int], int]:
    """How often each event of a guard happened in an arm, and in how many trials."""
    if guard == "labels":
        return [counts.labels.wrong], counts.labels.n
    if guard == "scores":
        return (plan.scores.sets(counts.scores) if plan.scores else []), sum(counts.scores)
    return [getattr(counts, name) for name in EVENTS[guard]], counts.clients if plan.is_sticky else counts.requests
