"""What a model's windows say of its traffic: how much, how much of it failed, and how long it took."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from modelyard.errors import InvalidInput
from modelyard.monitoring import budget, latency
from modelyard.registry import Registry
from modelyard.registry.plans import SHADOW
from modelyard.registry.records import now, stamp
from modelyard.registry.stages import quantile_of
from modelyard.registry.windows import Counted, Window

#: How far back anybody may look, in hours.
MOST_HOURS = 24 * 400.0

#: Windows that are read for one question.
MOST_WINDOWS = 50_000


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of a stretch of time. Seconds of the whole time; None where there was no request."""

    requests: int = 0
    failed: int = 0
    rows: int = 0
    invalid: int = 0
    #: Rows that were not recorded.
    lost: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    #: When the last of them came; "" where none did.
    last: str = ""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of one version over time, a point a step."""

    version: str
    arm: str
    points: list[Sums]


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """A model's traffic: all of it, and over time. ``times`` are when the points of each series begin."""

    model: str
    since: str
    until: str
    #: Seconds of a point.
    step: float
    times: list[str]
    whole: Sums
    series: list[Series]
    #: By code word, of all requests that failed; and of those of each point.
    codes: dict[str, int]
    failures: dict[str, list[int]]


def traffic(registry: Registry, model: str, *, hours: float = 24.0, points: int = 60) -> Traffic:
    """A model's requests, failures and latency over the last hours, of each version and arm.

    Points begin at whole multiples of their length, as windows do, so that each holds as many; the last is not over.
    """
    if not 1 <= points <= 1_000:
        raise InvalidInput.at("points", "from 1 to 1000", str(points))
    step = dt.timedelta(hours=span(hours)) / points
    end = dt.datetime.now(dt.UTC)
    epoch = dt.datetime.fromtimestamp(0, dt.UTC)
    begin = epoch + (end - epoch) // step * step - (points - 1) * step
    times = [stamp(begin + step * i) for i in range(points)]
    windows = registry.windows.find(model, since=stamp(begin), most=MOST_WINDOWS)
    groups: dict[tuple[str, str], list[list[Window]]] = {}
    failures: dict[str, list[int]] = {}
    for window in windows:
        group = groups.setdefault((window.version, window.arm), [[] for _ in times])
        place = min(max(int((dt.datetime.fromisoformat(window.opened) - begin) / step), 0), points - 1)
        group[place].append(window)
        for code, count in window.counted.codes.items():
            failures.setdefault(code, [0] * points)[place] += count
    series = [
        Series(version=version, arm=arm, points=[_sums(each) for each in group])
        for (version, arm), group in sorted(groups.items())
    ]
    return Traffic(
        model=model, since=stamp(begin), until=now(), step=step.total_seconds(), times=times,
        whole=_sums(window for window in windows if window.arm != SHADOW), series=series,
        codes={code: sum(counts) for code, counts in failures.items()}, failures=failures,
    )  # fmt: skip


def span(hours: float) -> float:
    """``hours`` as they are. Raises InvalidInput where nobody may look that far back."""
    if not 0 < hours <= MOST_HOURS:
        raise InvalidInput.at("hours", f"more than 0, up to {MOST_HOURS:g}", f"{hours:g}")
    return hours


def ago(hours: float) -> str:
    """The moment so many hours before now. Raises InvalidInput, as ``span`` does."""
    return stamp(dt.datetime.now(dt.UTC) - dt.timedelta(hours=span(hours)))


def sums_of(registry: Registry, model: str, since: str) -> Sums:
    """All of a model's requests after a moment, but for a shadow's, which nobody waited for."""
    return _sums(w for w in registry.windows.find(model, since=since, most=MOST_WINDOWS) if w.arm != SHADOW)


def by_version(registry: Registry, model: str, since: str) -> dict[str, Sums]:
    """The same of each version that had requests after a moment."""
    found: dict[str, list[Window]] = {}
    for window in registry.windows.find(model, since=since, most=MOST_WINDOWS):
        if window.arm != SHADOW:
            found.setdefault(window.version, []).append(window)
    return {version: _sums(windows) for version, windows in found.items()}


def _sums(windows: Iterable[Window]) -> Sums:
    found = list(windows)
    if not found:
        return Sums()
    counted = [window.counted for window in found]
    times = _total_times(counted)
    p50, p95, p99 = (quantile_of(times, q) if sum(times) else None for q in latency.QUANTILES.values())
    return Sums(
        requests=sum(c.requests for c in counted), failed=sum(budget.failed_of(c) for c in counted),
        rows=sum(c.rows for c in counted), invalid=sum(c.invalid for c in counted), lost=sum(c.lost for c in counted),
        p50=p50, p95=p95, p99=p99, last=max(window.closed for window in found),
    )  # fmt: skip


def _total_times(counted: Sequence[Counted]) -> list[int]:
    lines = [c.stages["total"] for c in counted if c.stages.get("total")]
    return [sum(cells) for cells in zip(*lines, strict=True)] if lines else []
