"""Error budgets: what share of a model's requests may fail or be slow, and how fast that is used up.

A burn rate of 1 uses the budget up in exactly its period. An alert asks for a rate over a long window and over a short
one (Google, Site Reliability Workbook, chapter 5), so that it comes soon for what is grave and goes soon when it is
over; and for the lower bound of the long window's rate, so that a single error among few requests is no alarm.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from modelyard.monitoring.looks import seconds_between
from modelyard.monitoring.rules import BudgetRules
from modelyard.registry.findings import Evidence, Severity
from modelyard.registry.records import stamp
from modelyard.registry.stages import STAGE_BOUNDS
from modelyard.registry.windows import Counted, Window
from modelyard.statistics import special
from modelyard.statistics.confidence import PRIOR, bound_rate
from modelyard.statistics.sequential import log_beta_binomial

#: Code words of what was the caller's fault: no error of the service.
CALLERS = frozenset({
    "invalid_input", "bad_request", "unauthenticated", "refused", "not_found", "method_not_allowed", "too_slow",
    "conflict", "too_large", "unsupported", "expectation_failed", "rate_limited", "head_too_large",
})  # fmt: skip

MINUTES, HOURS = 5, 60
#: How long buckets of five minutes are kept, and those of an hour.
_KEEP = {MINUTES: dt.timedelta(hours=7), HOURS: dt.timedelta(hours=74)}
ALPHA = 0.05


class Burn(NamedTuple):
    """A pair of windows, in minutes, and the rate at which it is told."""

    long: int
    short: int
    rate: float
    severity: Severity


BURNS = (
    Burn(60, 5, 14.4, "critical"),
    Burn(6 * 60, 30, 6.0, "critical"),
    Burn(3 * 24 * 60, 6 * 60, 1.0, "warning"),
)


class Bucket(msgspec.Struct, array_like=True):
    """Requests of a stretch of time, those that failed and those that were slow, by version."""

    requests: int = 0
    failed: int = 0
    slow: int = 0
    failed_by: dict[str, int] = {}


class Spent(msgspec.Struct, kw_only=True):
    """What is carried from one turn to the next, of a model. Buckets by the moment at which they begin."""

    fine: dict[str, Bucket] = {}
    coarse: dict[str, Bucket] = {}
    #: Objectives of which an episode is open, and of which severity.
    open: dict[str, Severity] = {}


class Change(NamedTuple):
    what: str
    subject: str
    evidence: Evidence
    severity: Severity
    told: str = ""
    why: str = ""
    false_alarms: float = 0.0


def add(spent: Spent, windows: Iterable[Window], rules: BudgetRules, now: str = "9999") -> None:
    """Count windows, in place. Copies that a shadow got do not count: nobody waited for them.

    What a clock that is ahead says came after ``now`` came now: were it believed, everything after it would be too old
    to count.
    """
    for buckets in (spent.fine, spent.coarse):
        for moment in [moment for moment in buckets if moment > now]:  # or our own clock was ahead
            del buckets[moment]
    for window in windows:
        if window.arm == "shadow" or not window.counted.requests:
            continue
        failed, slow = failed_of(window.counted), slow_of(window.counted, rules.slow_ms)
        for minutes, buckets in ((MINUTES, spent.fine), (HOURS, spent.coarse)):
            bucket = buckets.setdefault(_start(min(window.opened, now), minutes), Bucket())
            bucket.requests += window.counted.requests
            bucket.failed += failed
            bucket.slow += slow
            if failed:
                bucket.failed_by = {
                    **bucket.failed_by,
                    window.version: bucket.failed_by.get(window.version, 0) + failed,
                }
    for minutes, buckets in ((MINUTES, spent.fine), (HOURS, spent.coarse)):
        if buckets:
            last = dt.datetime.fromisoformat(max(buckets))
            for old in [moment for moment in buckets if dt.datetime.fromisoformat(moment) < last - _KEEP[minutes]]:
                del buckets[old]


def failed_of(counted: Counted) -> int:
    """Requests that the service failed."""
    return sum(count for code, count in counted.codes.items() if code not in CALLERS)


def slow_of(counted: Counted, slow_ms: float) -> int:
    """Requests that took longer; those of the bin in which the limit lies count as fast."""
    if not slow_ms:
        return 0
    counts = counted.stages.get("total", [])
    return sum(counts[int(np.searchsorted(STAGE_BOUNDS, slow_ms / 1e3, side="left")) + 1 :])


def judge(spent: Spent, rules: BudgetRules) -> list[Change]:
    """What the buckets say, at the end of the newest."""
    changes = []
    asked = [("success", 1 - rules.objective, "failed")]
    if rules.slow_ms:
        asked.append(("speed", 1 - rules.fast_objective, "slow"))
    for subject, budget, what in asked:
        changes += _judge(spent, rules, subject, budget, what)
    return changes


def _judge(spent: Spent, rules: BudgetRules, subject: str, budget: float, what: str) -> list[Change]:
    before = spent.open.get(subject)
    for burn in BURNS:
        long, short = sum_of(spent, burn.long), sum_of(spent, burn.short)
        bad, lately = getattr(long, what), getattr(short, what)
        if not short.requests or seconds_between(min(spent.coarse), max(spent.fine)) < 60 * (burn.short - MINUTES):
            continue  # too young to say anything about so long a time
        limit = burn.rate * budget
        if lately / short.requests <= limit or not _is_above(bad, long.requests, limit):
            continue
        evidence = _evidence(spent, burn, long, _bounds(bad, long.requests), budget)
        spent.open[subject] = burn.severity
        if before is not None and _rank(before) >= _rank(burn.severity):
            return [Change("seen", subject, evidence, burn.severity)]
        did = "failed" if what == "failed" else f"took longer than {rules.slow_ms:g} ms"
        told = (
            f"{bad:,} of {long.requests:,} requests {did} in {_hours(burn.long)}: {evidence.value:.3g} times what the "
            f"budget of {budget:.3%} allows, which is used up in {_days(rules.days / evidence.value)} at this pace"
        )
        if what == "failed" and (worst := max(long.failed_by, key=lambda each: long.failed_by[each], default="")):
            told += f"; {long.failed_by[worst]:,} of them in version {worst}"
        rate = _by_chance(long.requests, burn, budget)
        return [Change("open", subject, evidence, burn.severity, told, "", rate)]
    if before is None:
        return []
    del spent.open[subject]
    burn = next(each for each in BURNS if each.severity == before)
    short = sum_of(spent, burn.short)
    share = _bounds(getattr(short, what), max(short.requests, 1))
    evidence = _evidence(spent, burn, short, share, budget)
    why = f"in the last {_hours(burn.short)} the budget was used {evidence.value:.3g} times as fast as allowed"
    return [Change("close", subject, evidence, before, why=why)]


def sum_of(spent: Spent, minutes: int) -> Bucket:
    """The buckets of the last so many minutes, of whole ones up to the newest."""
    buckets, width = (spent.fine, MINUTES) if minutes <= 6 * 60 else (spent.coarse, HOURS)
    made = Bucket()
    if not buckets:
        return made
    end = dt.datetime.fromisoformat(max(buckets)) + dt.timedelta(minutes=width)
    first = stamp(end - dt.timedelta(minutes=minutes))
    for moment, bucket in buckets.items():
        if moment >= first:
            made.requests += bucket.requests
            made.failed += bucket.failed
            made.slow += bucket.slow
            both = made.failed_by.keys() | bucket.failed_by.keys()
            made.failed_by = {key: made.failed_by.get(key, 0) + bucket.failed_by.get(key, 0) for key in both}
    return made


def _is_above(bad: int, requests: int, limit: float) -> bool:
    """Whether the lower bound of ``_bounds`` is above a limit, without looking for it."""
    evidence = log_beta_binomial(bad, requests, min(limit, 1.0 - 1e-12), PRIOR, PRIOR)
    return bad > limit * requests and bool(evidence > -math.log(ALPHA))


def _bounds(bad: int, requests: int) -> tuple[float, float, float]:
    """A share with an interval that holds however often it is looked at."""
    low, high = bound_rate(bad, requests, ALPHA)
    return bad / requests, float(low), float(high)


def _evidence(spent: Spent, burn: Burn, seen: Bucket, share: tuple[float, float, float], budget: float) -> Evidence:
    value, low, high = (each / budget for each in share)
    buckets = spent.fine if burn.long <= 6 * 60 else spent.coarse
    return Evidence(
        measure="burn", value=value, low=low, high=high, floor=burn.rate, reference=0, live=seen.requests,
        since=min(buckets, default=""), until=max(buckets, default=""),
        more={"budget": budget, "minutes": burn.long, "versions": seen.failed_by},
    )  # fmt: skip


def _by_chance(requests: int, burn: Burn, budget: float) -> float:
    """Alarms a month where exactly the budget is used: the chance that so many requests show so many bad ones
    (Poisson), times the windows of a month.
    """
    low, high = 0, requests + 1
    while high - low > 1:  # the least number of bad ones that is enough
        middle = (low + high) // 2
        low, high = (low, middle) if _is_above(middle, requests, burn.rate * budget) else (middle, high)
    if high > requests:
        return 0.0
    chance = float(np.exp(special.log_gamma_tails(float(high), requests * budget)[0]))
    return chance * 30 * 24 * 60 / burn.long


def _start(moment: str, minutes: int) -> str:
    at = dt.datetime.fromisoformat(moment)
    return stamp(at.replace(minute=at.minute - at.minute % minutes if minutes < 60 else 0, second=0, microsecond=0))


def _rank(severity: Severity) -> int:
    return ("info", "warning", "error", "critical").index(severity)


def _hours(minutes: int) -> str:
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours" if minutes < 2_880 else "3 days"


def _days(days: float) -> str:
    return f"{days * 24:.2g} hours" if days < 2 else f"{days:.2g} days"
