"""Latency: quantiles of each stage, and when they changed.

A point of the time line is a stretch of windows with enough requests; of each the median, the 95th and the 99th
percentile of the whole time are followed. Whether a point belongs to those before it is asked of ranks alone, by a
conformal martingale, and its gains feed an e-detector (Shiryaev and Roberts; Shin, Ramdas, Rinaldo 2023) that is the
mean over the three: while points come as if shuffled, it takes on average at least as many until a false alarm as the
rules ask for. When it alarms, the moment of the change is where Pettitt's statistic (1979) is largest, and it is told
only if answers take longer by more than the rules' margin. Points that follow one another are alike (load comes and
goes), which no rank test forgives: that margin, against what was usual at first, is what keeps a busy hour quiet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from modelyard.monitoring.looks import Look, seconds_between
from modelyard.monitoring.rules import LatencyRules
from modelyard.registry.findings import Evidence
from modelyard.registry.stages import STAGE_BOUNDS, STAGES, mean_of, quantile_of
from modelyard.schema import Array
from modelyard.statistics import special
from modelyard.statistics.streaming import WEIGHTS, ConformalMartingale, Detector

#: What is followed of the whole time.
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
#: Points that are kept, and those that must show that it is over.
RECENT, CALM = 60, 10

MONTH_SECONDS = 30 * 86_400.0
_CELLS = len(STAGE_BOUNDS) + 1


class Point(msgspec.Struct, kw_only=True):
    """A stretch of time: requests by how long they took in all, and how long each stage took on average."""

    since: str
    until: str
    total: list[int]
    means: dict[str, float]
    windows: tuple[int, int]


class Pace(msgspec.Struct, kw_only=True):
    """What is carried from one point of an arm to the next."""

    pool: Look | None = None
    #: The first points, all together: what later ones are held against.
    origin: Point | None = None
    origins: int = 0
    #: Where the quantiles of points fell since the last change, until there are enough to go by; then the tests.
    learning: list[list[int]] = []
    martingales: list[ConformalMartingale] = []
    detector: Detector | None = None
    recent: list[Point] = []
    #: Moments at which something changed, the newest last.
    changes: list[str] = []
    #: The quantile of an episode that is open.
    open: str = ""


class Change(NamedTuple):
    """What a point changed: an episode was opened, seen again or closed."""

    what: str
    subject: str
    evidence: Evidence
    told: str = ""
    why: str = ""


def is_enough(look: Look, rules: LatencyRules) -> bool:
    return sum(look.counted.stages.get("total", [])) >= rules.requests and look.seconds >= rules.seconds


def judge(pace: Pace, look: Look, rules: LatencyRules) -> list[Change]:
    """Take a point into account, in place, and say what it changed."""
    point = point_of(look)
    pace.recent = [*pace.recent, point][-RECENT:]
    if pace.origin is None or pace.origins < rules.baseline:
        pace.origin = point if pace.origin is None else _joined([pace.origin, point])
        pace.origins += 1
    changes = [_followed(pace, rules)] if pace.open else []
    if not pace.martingales:
        pace.learning.append(_places(point))
        if len(pace.learning) >= rules.baseline:
            _begin(pace)
        return [change for change in changes if change is not None]
    if _has_changed(pace, point, rules):
        changes.append(_tell(pace, rules))
    return [change for change in changes if change is not None]


def point_of(look: Look) -> Point:
    """A look as a point of the time line."""
    stages = look.counted.stages
    return Point(
        since=look.since, until=look.until, total=list(stages["total"]), windows=(look.first, look.last),
        means={stage: mean_of(stages[stage]) for stage in STAGES if sum(stages.get(stage, []))},
    )  # fmt: skip


def _begin(pace: Pace) -> None:
    places = np.array(pace.learning)
    pace.martingales = [
        ConformalMartingale(reference=np.bincount(column, minlength=_CELLS).tolist(), seed=i)
        for i, column in enumerate(places.T)
    ]
    shares = tuple((np.tile(WEIGHTS, len(QUANTILES)) / len(QUANTILES)).tolist())
    pace.detector = Detector(weights=shares)
    pace.learning = []


def _has_changed(pace: Pace, point: Point, rules: LatencyRules) -> bool:
    gains = []
    for martingale, place in zip(pace.martingales, _places(point), strict=True):
        counts = np.zeros(_CELLS, dtype="int64")
        counts[place] = 1
        gains.append(martingale.add(counts))
    assert pace.detector is not None
    wealth = float(pace.detector.add(np.hstack(gains))[-1])
    return bool(wealth >= math.log(run_length(pace.recent, rules)))


def run_length(recent: Sequence[Point], rules: LatencyRules) -> float:
    """How many points it takes on average until a false alarm, at least."""
    seconds = np.mean([max(seconds_between(point.since, point.until), 1e-3) for point in recent])
    return max(2.0, MONTH_SECONDS / float(seconds) / rules.false_alarms)


def _tell(pace: Pace, rules: LatencyRules) -> Change | None:
    """Begin anew after a change, and say whether it matters."""
    at = _pettitt(np.array([_places(point) for point in pace.recent]))
    after = pace.recent[at:]
    pace.changes = [*pace.changes, after[0].since][-20:]
    pace.martingales, pace.detector = [], None
    pace.learning = [_places(point) for point in after]
    pace.recent = after
    name, evidence = _slowest(pace, after, rules)
    if pace.open or evidence.low <= 1 + rules.slower:
        return None
    pace.open = name
    told = (
        f"{name} of the whole time is {evidence.value:.3g} times what it was at first: "
        f"{evidence.more['seconds'] * 1e3:.4g} ms, and was {evidence.more['before'] * 1e3:.4g} ms"
    )
    if stage := _blamed(pace.origin, after):
        told += f"; {stage[1]:.0%} of the added time is in {stage[0]}"
        evidence = msgspec.structs.replace(evidence, more={**evidence.more, "stage": stage[0], "share": stage[1]})
    return Change("open", name, evidence, told)


def _slowest(pace: Pace, points: Sequence[Point], rules: LatencyRules) -> tuple[str, Evidence]:
    """The quantile that grew most beside the first points."""
    found = {name: _ratio(pace.origin, points, name, rules) for name in QUANTILES}
    name = max(found, key=lambda each: found[each].low)
    return name, found[name]


def _followed(pace: Pace, rules: LatencyRules) -> Change | None:
    name = pace.open
    points = pace.recent[-CALM:]
    evidence = _ratio(pace.origin, points, name, rules)
    if len(points) == CALM and evidence.high < 1 + rules.slower / 2:
        pace.open = ""
        why = f"{name} of {CALM} points is {evidence.value:.3g} times what it was at first, below half of what matters"
        return Change("close", name, evidence, why=why)
    return Change("seen", name, evidence)


def _ratio(origin: Point | None, points: Sequence[Point], name: str, rules: LatencyRules) -> Evidence:
    """How many times as long a quantile is, with the order statistics' interval of both sides."""
    assert origin is not None
    now = _joined(points)
    before, after = (_bounds(side.total, QUANTILES[name]) for side in (origin, now))
    return Evidence(
        measure="ratio", value=after[0] / before[0], low=after[1] / before[2], high=after[2] / before[1],
        floor=1 + rules.slower, reference=sum(origin.total), live=sum(now.total), since=points[0].since,
        until=points[-1].until, windows=(points[0].windows[0], points[-1].windows[1]),
        more={"seconds": after[0], "before": before[0]},
    )  # fmt: skip


def _bounds(counts: Sequence[int], q: float) -> tuple[float, float, float]:
    """A quantile and its 95 % interval: the quantiles at the ranks between which it lies (binomial)."""
    reach = special.normal_quantile(0.025) * math.sqrt(q * (1 - q) / sum(counts))
    return (quantile_of(counts, q), quantile_of(counts, max(q - reach, 0.0)), quantile_of(counts, min(q + reach, 1.0)))


def _blamed(origin: Point | None, points: Sequence[Point]) -> tuple[str, float] | None:
    """The stage that took most of the added time, and its share of it."""
    assert origin is not None
    now = _joined(points).means
    added = {stage: now[stage] - origin.means.get(stage, 0.0) for stage in now if stage != "total"}
    more = sum(value for value in added.values() if value > 0)
    if more <= 0:
        return None
    worst = max(added, key=lambda stage: added[stage])
    return worst, added[worst] / more


def _places(point: Point) -> list[int]:
    """The bins of the quantiles of a point."""
    passed = np.cumsum(point.total)
    return [int(np.searchsorted(passed, q * passed[-1], side="left")) for q in QUANTILES.values()]


def _joined(points: Sequence[Point]) -> Point:
    totals = np.sum([point.total for point in points], axis=0)
    weights = np.array([sum(point.total) for point in points], dtype="float64")
    stages = {stage for point in points for stage in point.means}
    return Point(
        since=points[0].since, until=points[-1].until, total=totals.tolist(),
        means={stage: _weighted(points, weights, stage) for stage in sorted(stages)},
        windows=(points[0].windows[0], points[-1].windows[1]),
    )  # fmt: skip


def _weighted(points: Sequence[Point], weights: Array, stage: str) -> float:
    return float(sum(w * point.means.get(stage, 0.0) for w, point in zip(weights, points, strict=True)) / weights.sum())


def _pettitt(places: Array) -> int:
    """Where a series changed: the split at which the points before and after differ most in rank, over all columns."""
    signs = np.sign(places[None, :, :] - places[:, None, :])  # [i, j]: whether j is above i
    n = len(places)
    statistics = [np.abs(signs[:at, at:].sum(axis=(0, 1))).sum() for at in range(1, n)]
    return 1 + int(np.argmax(statistics)) if statistics else 0
