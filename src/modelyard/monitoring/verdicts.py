"""Whether labels show that a version is worse than training measured, or not what its scores promise.

A version is worse where the interval of a metric, at a level that all of them share, lies apart from that of training
by more than what matters. Intervals hold at all times at once, so that looking often adds no false alarms. An episode
is over when the two intervals meet again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from modelyard.monitoring.accuracy import Quality
from modelyard.monitoring.expectation import TITLE
from modelyard.monitoring.rules import AccuracyRules
from modelyard.monitoring.scorecard import LOSSES, Metric
from modelyard.registry.findings import Evidence, Severity

#: The subject of findings that labels contradict what was expected.
PROMISE = "promise"

TITLES = {
    "accuracy": "accuracy", "roc_auc": "ROC AUC", "log_loss": "log loss", "mae": "mean absolute error",
    "rmse": "root mean squared error",
}  # fmt: skip


class Change(NamedTuple):
    """What a look changed: an episode was opened, seen again or closed."""

    what: Literal["open", "seen", "close"]
    subject: str
    evidence: Evidence | None = None
    severity: Severity = "warning"
    told: str = ""
    why: str = ""
    #: Findings a month to be expected where nothing changes, at most.
    false_alarms: float | None = None


class _Claim(NamedTuple):
    """How much worse something is."""

    subject: str
    evidence: Evidence
    told: str


def judge(quality: Quality, rules: AccuracyRules, opened: Collection[str]) -> list[Change]:
    """What labels say of a version, of which findings about these subjects are open."""
    changes, left = [], set(opened)
    for claim in (*_compared(quality, rules), *_promised(quality, rules)):
        left.discard(claim.subject)
        evidence, is_open = claim.evidence, claim.subject in opened
        if evidence.low > evidence.floor or (is_open and evidence.low > 0):
            severity: Severity = "error" if evidence.low > 2 * evidence.floor else "warning"
            what: Literal["open", "seen"] = "seen" if is_open else "open"
            # The chance is for ever; no month can have more of it.
            changes.append(Change(what, claim.subject, evidence, severity, claim.told, false_alarms=rules.alpha))
        elif is_open:
            changes.append(Change("close", claim.subject, evidence, why="labels do not show it any more"))
    why = f"no labels of the last {rules.days:g} days speak of it"
    return [*changes, *(Change("close", subject, why=why) for subject in sorted(left))]


def _compared(quality: Quality, rules: AccuracyRules) -> Iterator[_Claim]:
    """Metrics beside what training measured of them."""
    if quality.whole is None:
        return
    for name, metric in quality.judged.items():
        evidence = _worse(name, metric, quality, rules)
        if evidence is None:
            continue
        trained = quality.trained[name]
        now = f"{_shown(metric.value)} ({_shown(metric.low)} to {_shown(metric.high)})"
        then = f"{_shown(trained['value'])} ({_shown(trained['low'])} to {_shown(trained['high'])})"
        told = f"{TITLES.get(name, name)} is {now}, and was {then} on rows that training held out"
        yield _Claim(name, evidence, told)


def _worse(name: str, metric: Metric, quality: Quality, rules: AccuracyRules) -> Evidence | None:
    trained = quality.trained.get(name, {})
    value, low, high = (trained.get(each) for each in ("value", "low", "high"))
    if None in (value, low, high, metric.value, metric.low, metric.high):
        return None
    assert value is not None and low is not None and high is not None and quality.whole is not None
    assert metric.value is not None and metric.low is not None and metric.high is not None
    if name in LOSSES:
        if not low > 0:
            return None  # nothing can be told in relation to nothing
        measure, floor = "growth", rules.growth
        worse = (metric.value / value - 1, metric.low / high - 1, metric.high / low - 1)
    else:
        measure, floor = "lost", rules.drop
        worse = (value - metric.value, low - metric.high, high - metric.low)
    return Evidence(
        measure=measure, value=worse[0], low=worse[1], high=worse[2], floor=floor, reference=quality.trained_rows,
        live=quality.whole.labelled, since=quality.whole.since, until=quality.whole.until,
        more={"live": [metric.value, metric.low, metric.high], "training": [value, low, high]},
    )  # fmt: skip


def _promised(quality: Quality, rules: AccuracyRules) -> Iterator[_Claim]:
    """Labels beside what scores promised."""
    found = quality.contradiction
    if found is None or quality.whole is None:
        return
    sign = 1 if found.difference >= 0 else -1
    low, high = sorted((sign * found.low, sign * found.high))
    evidence = Evidence(
        measure="gap", value=abs(found.difference), low=low, high=high, floor=rules.drop, reference=found.learned_from,
        live=found.rows, since=quality.whole.since, until=quality.whole.until,
        more={"expected": found.expected, "accuracy": found.accuracy},
    )  # fmt: skip
    told = (
        f"labels contradict what scores promise: {found.accuracy:.1%} of the answers are right, where "
        f"{found.expected:.1%} was {TITLE}"
    )
    yield _Claim(PROMISE, evidence, told)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
