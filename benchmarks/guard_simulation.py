"""What the guard of rollouts promises, simulated through its own code: plan, tallies, evidence, verdict.

    nice -n 15 python benchmarks/guard_simulation.py              # a quarter of an hour on one core
    python benchmarks/guard_simulation.py --parts catch,sticky --runs 0.2 --json results.json

``false``   candidates that are no worse, 1e6 requests each, ramps of 1, 5, 25 and 50 %: how many are rolled back
``catch``   candidates that are worse, at 10 %: requests they get before they are rolled back, beside the limits
``late``    candidates that are as good for a million requests, and then worse: requests they get from then on
``guards``  the same for the other guards, with all guards on
``promote`` candidates that are as good, and that are worse by what is tolerated: how many are promoted, and when
``outage``  a thousand requests of which 30 % fail in both arms
``sticky``  clients that stick to an arm, a few of which send most requests, and some of which always fail
``idle``    no traffic, or none that reaches the candidate
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from modelyard.registry.plans import CANARY, STABLE, Plan, Rollout, Scores, Stage
from modelyard.registry.tallies import Counts, Labels, Tally
from modelyard.rollouts import guard
from modelyard.rollouts.plan import TOLERANCES
from modelyard.statistics import limits, special

ALPHA = 0.01
RAMP = (0.01, 0.05, 0.25, 0.5)
ALL = ("errors", "latency", "scores", "labels")
START = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)


class Ended(NamedTuple):
    """How a rollout ended, and how many requests the candidate had had."""

    action: str
    requests: int
    why: str


def rollout_of(stages: tuple[float, ...], guards: tuple[str, ...] = ("errors",), **plan: Any) -> Rollout:
    """A rollout by the defaults; where its stages take forever, only harm can end it."""
    made = Plan(
        stages=tuple(Stage(share) for share in stages), guards=guards, alpha=ALPHA,
        tolerances={name: TOLERANCES[name] for name in guards},
        scores=Scores(field="score", edges=tuple(np.linspace(0.1, 0.9, 9).tolist())) if "scores" in guards else None,
        **plan,
    )  # fmt: skip
    return Rollout(id=1, model="churn", stable=1, candidate=2, plan=made, share=stages[0], chances={1: stages[0]})


def run(rollout: Rollout, tallies: Iterator[tuple[int, dict[str, Counts], str]]) -> Ended:
    """Let the guard judge after each tally, and do what it says, as the controller does."""
    verdict = None
    for number, (revision, arms, moment) in enumerate(tallies, 1):
        tally = Tally(rollout=1, revision=revision, source="here", sequence=number, moment=moment, arms=arms)
        rollout, verdict = guard.follow(rollout, tally)
        if verdict.action == "advance":
            stage = rollout.stage + 1
            share = rollout.plan.stages[stage].share
            rollout = msgspec.structs.replace(
                rollout, stage=stage, share=share, chances={**rollout.chances, revision + 1: share},
                evidence=rollout.evidence.at_new_stage(),
            )  # fmt: skip
        elif verdict.action != "continue":
            return Ended(verdict.action, rollout.evidence.exposure.requests, verdict.why)
    return Ended("continue", rollout.evidence.exposure.requests, verdict.why if verdict else "")


# -- no worse: how often it is rolled back ------------------------------------------------------------------------


def false_rollbacks(baseline: float, runs: int, dice: np.random.Generator) -> dict[str, Any]:
    """Ramps to 50 %, a million requests each; the last stage goes on until they are used up."""
    sizes = {0.01: 100_000, 0.05: 200_000, 0.25: 300_000, 0.5: 400_000}
    looks = {share: growing(total) for share, total in sizes.items()}
    ended = [
        run(rollout_of(RAMP, by="schedule", stage_seconds=60.0), _ramp(looks, baseline, dice)) for _ in range(runs)
    ]
    return _rate([e.action for e in ended], baseline=baseline, requests=sum(sizes.values()))


def _ramp(
    looks: dict[float, list[int]], rate: float, dice: np.random.Generator
) -> Iterator[tuple[int, dict[str, Counts], str]]:
    moment = START
    for revision, (share, sizes) in enumerate(looks.items(), 1):
        requests = dice.binomial(sizes, share)
        failed, stable_failed = dice.binomial(requests, rate), dice.binomial(sizes - requests, rate)
        for place, size in enumerate(sizes):
            if place + 1 == len(sizes) and revision < len(looks):
                moment += dt.timedelta(seconds=60)  # which ends the stage
            yield revision, arms_of(size, requests[place], failed[place], stable_failed[place]), moment.isoformat()


def outages(baseline: float, runs: int, dice: np.random.Generator) -> dict[str, Any]:
    """50,000 requests at 10 %, a thousand of which meet an outage of both arms."""
    before, after = growing(20_000), growing(29_000)
    sizes = np.array([*before, *[50] * 20, *after])
    rates = np.array([*[baseline] * len(before), *[0.3] * 20, *[baseline] * len(after)])
    ended = [run(rollout_of((0.1,), stage_seconds=1e9), flat(sizes, 0.1, rates, rates, dice)) for _ in range(runs)]
    return _rate([e.action for e in ended], baseline=baseline, requests=int(sizes.sum()))


def growing(total: int, first: int = 100, growth: float = 1.15) -> list[int]:
    """Sizes of tallies that add up to ``total``, and grow, so that there are as many looks early as late."""
    sizes = []
    while sum(sizes) < total:
        sizes.append(min(int(first * growth ** len(sizes)), total - sum(sizes)))
    return sizes


# -- worse: how soon it is caught ---------------------------------------------------------------------------------

ROWS = ((0.001, 0.01), (0.005, 0.02), (0.01, 0.02), (0.01, 0.03), (0.01, 0.05), (0.01, 0.1), (0.05, 0.1))


def catch(stable: float, worse: float, guards: tuple[str, ...], runs: int, dice: np.random.Generator) -> dict[str, Any]:
    """Requests of the candidate until it is rolled back, at 10 %, of at most 60 times the limit."""
    limit = limits.two_arm_limit(stable, worse, 0.1, ALPHA)
    step = max(10, round(limit / 4))  # of all requests: some 40 looks until the limit
    sizes = np.full(2400, step)
    ended = [
        run(rollout_of((0.1,), guards, stage_seconds=1e9), flat(sizes, 0.1, stable, worse, dice, guards))
        for _ in range(runs)
    ]
    return _caught(ended, limit, stable=stable, worse=worse)


def catch_late(stable: float, worse: float, runs: int, dice: np.random.Generator) -> dict[str, Any]:
    """The same for harm that begins after a million requests without any."""
    limit = limits.two_arm_limit(stable, worse, 0.1, ALPHA)
    before = growing(1_000_000)
    sizes = np.array([*before, *np.full(2400, max(10, round(limit / 4)))])
    rates = np.where(np.arange(len(sizes)) < len(before), stable, worse)
    ended = [run(rollout_of((0.1,), stage_seconds=1e9), flat(sizes, 0.1, stable, rates, dice)) for _ in range(runs)]
    since = [e._replace(requests=e.requests - 100_000) for e in ended if e.requests > 90_000]
    return _caught(since, limit, stable=stable, worse=worse)


def catch_others(runs: int, dice: np.random.Generator) -> list[dict[str, Any]]:
    """What the other guards need: slow answers, shifted scores, wrong labels; all guards on."""
    even = np.full(10, 0.1)
    tilted = even * np.exp(np.linspace(-1.0, 1.0, 10))
    cases: dict[str, dict[str, Any]] = {
        "latency: a tenth slower than p95": {"slow95": 0.1},
        "latency: a fifth slower than p95": {"slow95": 0.2},
        "latency: 3 % slower than p99": {"slow99": 0.03},
        "scores: moved upwards": {"scores": tilted / tilted.sum()},
        "scores: half of them in one bin": {"scores": np.array([0.5, *[0.5 / 9] * 9])},
        "labels: 10 % wrong become 20 %": {"wrong": 0.2},
    }
    told = []
    for name, change in cases.items():
        ended = []
        for _ in range(runs):
            rollout = rollout_of((0.1,), ALL, stage_seconds=1e9)
            ended.append(run(rollout, flat(np.full(600, 250), 0.1, 0.01, 0.01, dice, ALL, change)))
        told.append({"what": name, **_caught(ended, None)})
    return told


def flat(
    sizes: Any, share: float, rates: Any, worse: Any, dice: np.random.Generator, guards: tuple[str, ...] = ("errors",),
    change: dict[str, Any] | None = None,
) -> Iterator[tuple[int, dict[str, Counts], str]]:  # fmt: skip
    """Tallies at one share; every tenth request gets a label."""
    requests = dice.binomial(sizes, share)
    failed, stable_failed = dice.binomial(requests, worse), dice.binomial(sizes - requests, rates)
    usual = {"slow50": 0.5, "slow95": 0.05, "slow99": 0.01, "wrong": 0.1, "scores": np.full(10, 0.1)}
    for place, size in enumerate(sizes):
        arms = arms_of(size, requests[place], failed[place], stable_failed[place])
        if len(guards) > 1:
            changed = {**usual, **(change or {})}
            arms = {name: _more(counts, changed if name == CANARY else usual, dice) for name, counts in arms.items()}
        yield 1, arms, START.isoformat()


def arms_of(size: int, requests: int, failed: int, stable_failed: int) -> dict[str, Counts]:
    return {
        STABLE: Counts(requests=int(size - requests), errors=int(stable_failed)),
        CANARY: Counts(requests=int(requests), errors=int(failed)),
    }


def _more(counts: Counts, rates: dict[str, Any], dice: np.random.Generator) -> Counts:
    n, labelled = counts.requests, int(dice.binomial(counts.requests, 0.1))
    slow = np.sort(dice.random(n))[::-1]  # how slow each was, as a rank of the stable version
    events = {name: int(np.searchsorted(-slow, -(1 - rates[name]))) for name in ("slow50", "slow95", "slow99")}
    return msgspec.structs.replace(
        counts, scores=dice.multinomial(n, rates["scores"]).tolist(),
        labels=Labels(labelled, int(dice.binomial(labelled, rates["wrong"]))), **events,
    )  # fmt: skip


# -- the positive claim -------------------------------------------------------------------------------------------


def promotions(stable: float, worse: float, runs: int, dice: np.random.Generator) -> dict[str, Any]:
    """A canary of 10 % that becomes everything when the harm is shown to be below half a point, of 3e6 requests."""
    sizes = np.array(growing(3_000_000))
    ended = [run(rollout_of((0.1,), stage_seconds=0.0), flat(sizes, 0.1, stable, worse, dice)) for _ in range(runs)]
    good = [e.requests for e in ended if e.action == "promote"]
    return {
        "stable": stable, "candidate": worse, "rollouts": runs, "promoted": len(good),
        "rolled_back": sum(e.action == "roll back" for e in ended),
        "median": float(np.median(good)) if good else math.nan,
    }  # fmt: skip


# -- clients that stick -------------------------------------------------------------------------------------------


def sticky(counting: str, failing: bool, runs: int, dice: np.random.Generator) -> dict[str, Any]:
    """An hour of 300 clients, 10 of which send ten times as much; 15 may fail always. No arm is worse.

    ``counting``: every request that failed; a client once a minute; or once in the rollout, as recorders do.
    """
    ended = []
    for _ in range(runs):
        busy = np.where(np.arange(300) % 30 == 0, 50.0, 5.0)
        rates = np.where((np.arange(300) % 20 == 7) & failing, 1.0, 0.01)
        ours = dice.random(300) < 0.1
        ended.append(
            run(rollout_of((0.1,), key="header:x", stage_seconds=1e9), _minutes(busy, rates, ours, counting, dice))
        )
    return _rate([e.action for e in ended], counting=counting, failing="15 always" if failing else "all alike")


def _minutes(
    busy: Any, rates: Any, ours: Any, counting: str, dice: np.random.Generator
) -> Iterator[tuple[int, dict[str, Counts], str]]:
    seen, known = np.zeros(len(busy), dtype=bool), np.zeros(len(busy), dtype=bool)
    for _ in range(60):
        requests = dice.poisson(busy)
        failed = dice.binomial(requests, rates)
        counted = {
            "every request": failed,
            "clients by the minute": failed > 0,
            "clients once": (failed > 0) & ~seen,
        }[counting]
        fresh = (requests > 0) & ~known
        seen, known = seen | (failed > 0), known | (requests > 0)
        arms = {
            name: Counts(
                requests=int(requests[who].sum()), clients=int(fresh[who].sum()), errors=int(counted[who].sum())
            )
            for name, who in ((STABLE, ~ours), (CANARY, ours))
        }
        yield 1, arms, START.isoformat()


# -- nothing to go by ---------------------------------------------------------------------------------------------


def idle() -> list[dict[str, Any]]:
    """Hours without a request, and hours in which none reaches the candidate: by schedule, with nothing to prove."""
    told = []
    for name, stable in (("no requests at all", 0), ("none that reaches the candidate", 20)):
        rollout = rollout_of((0.1,), stage_seconds=1.0)
        plan = msgspec.structs.replace(rollout.plan, tolerances={"errors": 1.0})
        moments = ((START + dt.timedelta(seconds=10 * i)).isoformat() for i in range(1000))
        arms = {STABLE: Counts(requests=stable), CANARY: Counts()}
        ended = run(msgspec.structs.replace(rollout, plan=plan), ((1, arms, moment) for moment in moments))
        told.append({"what": name, "verdict": ended.action, "why": ended.why})
    return told


# -- telling ------------------------------------------------------------------------------------------------------


def _rate(actions: list[str], **facts: Any) -> dict[str, Any]:
    hits = actions.count("roll back")
    assert set(actions) <= {"roll back", "continue"}, set(actions)
    return {
        **facts, "rollouts": len(actions), "rolled_back": hits, "rate": hits / len(actions),
        "at_most_99": upper(hits, len(actions)),
    }  # fmt: skip


def _caught(ended: list[Ended], limit: float | None, **facts: Any) -> dict[str, Any]:
    caught = [e.requests for e in ended if e.action == "roll back"]
    middle, late = (float(np.quantile(caught or [math.nan], q)) for q in (0.5, 0.9))
    made = {**facts, "rollouts": len(ended), "caught": len(caught), "median": middle, "p90": late}
    if limit is not None:
        made |= {"limit": limit, "median_by_limit": middle / limit, "p90_by_limit": late / limit}
    return made


def upper(k: int, n: int, level: float = 0.01) -> float:
    """Clopper and Pearson's upper bound of a rate, one-sided at 99 %."""
    if k == n:
        return 1.0
    return special.find_root(
        lambda p: float(special.log_beta_tails(k + 1, n - k, p)[0]) - math.log(1 - level), k / n, 1.0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="false,catch,late,guards,promote,outage,sticky,idle")
    parser.add_argument("--runs", type=float, default=1.0, help="how many rollouts, as a share of the usual number")
    parser.add_argument("--json", help="where to write the figures")
    given = parser.parse_args()
    dice = np.random.default_rng(20261130)

    def many(usual: int) -> int:
        return max(1, round(usual * given.runs))

    parts: dict[str, Any] = {
        "false": lambda: [false_rollbacks(rate, many(3000), dice) for rate in (0.001, 0.01, 0.05)],
        "outage": lambda: [outages(rate, many(2000), dice) for rate in (0.001, 0.01, 0.05)],
        "catch": lambda: [
            {"guards": ",".join(guards), **catch(*row, guards, many(runs), dice)}
            for guards, runs in ((("errors",), 300), (ALL, 200))
            for row in ROWS
        ],
        "late": lambda: [catch_late(*row, many(100), dice) for row in ((0.01, 0.02), (0.01, 0.05), (0.05, 0.1))],
        "guards": lambda: catch_others(many(60), dice),
        "promote": lambda: [
            promotions(rate, rate + more, many(300), dice) for rate in (0.001, 0.01) for more in (0.0, 0.0025, 0.005)
        ],
        "sticky": lambda: [
            sticky(how, failing, many(500), dice)
            for failing in (False, True)
            for how in ("every request", "clients by the minute", "clients once")
        ],
        "idle": idle,
    }
    results = {}
    for part in given.parts.split(","):
        start = time.perf_counter()
        results[part] = parts[part]()
        print(f"\n{part} ({time.perf_counter() - start:.0f} s)")
        for row in results[part]:
            print("  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
