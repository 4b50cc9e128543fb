"""How late labels come, and which cohorts have most of theirs.

Labels that come early are not like the others: frauds that are noticed at once, customers who leave at once. So a
cohort is told of only once nearly all of its labels are there, and those that are not ripe are never mixed in.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from modelyard.monitoring.grading import DELAYS
from modelyard.registry.cohorts import Cohort, Counts, plus

#: A cohort whose predictions have this share of their labels is ripe, whatever else is known; of at least so many.
LEAST_COMPLETE = 20


class Curve(msgspec.Struct, kw_only=True):
    """The share of labels that have come by a delay, of those that come within the time that was watched."""

    #: Delays in seconds, ascending, and the share of labels that come within each.
    seconds: list[int] = []
    shares: list[float] = []
    #: The labels that it is known from.
    labels: int = 0

    def within(self, share: float) -> int | None:
        """The seconds within which this share of the labels comes. None where that is not known: while the longest
        delay that was watched still brings new ones, nobody can say how many will follow.
        """
        for seconds, reached in zip(self.seconds[:-1], self.shares[:-1], strict=True):
            if reached >= share:
                return seconds
        return None


def curve(cohorts: Iterable[Cohort], now: dt.datetime) -> Curve:
    """How late labels come, from when those of each hour came.

    Recent hours have had no time for late labels, so each delay is looked at in those hours only that are old enough:
    of the labels that came within it, a share came within the delay before (chain ladder; the product of these shares
    is the estimate of Lynden-Bell 1971 for truncated data).
    """
    hours: dict[str, Counts] = {}
    for cohort in cohorts:
        if not cohort.key.segment:
            hours[cohort.key.hour] = plus(hours.get(cohort.key.hour, {}), _delays(cohort.counts))
    watched = [(age(hour, now), counts) for hour, counts in hours.items() if counts]
    within: list[int] = []
    new: list[int] = []
    for place, bound in enumerate(DELAYS):
        old = [counts for seconds, counts in watched if seconds >= bound]
        within.append(sum(counts.get(f"delay.{p}", 0) for counts in old for p in range(place + 1)))
        new.append(sum(counts.get(f"delay.{place}", 0) for counts in old))
    if not any(within):
        return Curve()
    last = max(place for place, count in enumerate(within) if count)
    shares = [1.0]
    for place in range(last, 0, -1):
        shares.append(shares[-1] * (1 - new[place] / within[place]) if within[place] else 0.0)
    return Curve(seconds=list(DELAYS[: last + 1]), shares=shares[::-1], labels=within[last])


def ripe(
    cohorts: Sequence[Cohort], now: dt.datetime, share: float, delay: float | None
) -> tuple[list[Cohort], list[Cohort]]:
    """Cohorts that have nearly all of their labels, and the others. ``delay``: the seconds after which they have.

    Where that is not known, those are ripe of whose predictions this share has a label: no more can be missing.
    """
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for cohort in cohorts:
        if not cohort.key.segment:
            rows, labelled = sizes.get((cohort.key.version, cohort.key.hour), (0, 0))
            more = (cohort.counts.get("rows", 0), cohort.counts.get("labelled", 0))
            sizes[cohort.key.version, cohort.key.hour] = (rows + more[0], labelled + more[1])
    found: tuple[list[Cohort], list[Cohort]] = ([], [])
    for cohort in cohorts:
        is_old = delay is not None and age(cohort.key.hour, now) >= delay
        rows, labelled = sizes.get((cohort.key.version, cohort.key.hour), (0, 0))
        is_complete = rows >= LEAST_COMPLETE and labelled >= share * rows
        found[not (is_old or is_complete)].append(cohort)
    return found


def age(hour: str, now: dt.datetime) -> float:
    """Seconds since the last prediction of an hour, or of a day; none while it is not over."""
    length = dt.timedelta(hours=1) if len(hour) == 13 else dt.timedelta(days=1)
    begin = dt.datetime.fromisoformat(f"{hour}:00" if len(hour) == 13 else hour).replace(tzinfo=dt.UTC)
    return max(0.0, (now - begin - length).total_seconds())


def _delays(counts: Counts) -> Counts:
    return {name: count for name, count in counts.items() if name.startswith("delay.")}
