"""How late labels come, found while the latest are still to come; and which cohorts are told of."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from modelyard.monitoring.grading import DELAYS
from modelyard.monitoring.maturity import Curve, age, curve, ripe
from modelyard.registry.cohorts import Cohort, Counts, Key

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def cohort(hour: dt.datetime, counts: Counts, version: str = "1", segment: str = "") -> Cohort:
    return Cohort(Key(version, "", segment, hour.strftime("%Y-%m-%dT%H")), counts)


def stream(days: int, mean_hours: float, share: float = 0.3, rows: int = 100, seed: int = 0) -> list[Cohort]:
    """Cohorts of the last days, with the labels that have come by now, of delays that are exponential."""
    random = np.random.default_rng(seed)
    found = []
    for ago in range(1, days * 24):
        hour = NOW - dt.timedelta(hours=ago)
        moments = random.random(rows) * 3600
        delays = random.exponential(mean_hours * 3600, rows)
        delays = delays[(random.random(rows) < share) & (moments + delays < ago * 3600)]
        counts = {"rows": rows, "labelled": len(delays)}
        for place in np.searchsorted(DELAYS, delays).tolist():
            counts[f"delay.{place}"] = counts.get(f"delay.{place}", 0) + 1
        found.append(cohort(hour, {name: count for name, count in counts.items() if count}))
    return found[::-1]


def test_the_curve_of_a_stream_is_that_of_its_delays() -> None:
    found = curve(stream(20, mean_hours=24.0), NOW)
    for seconds, share in zip(found.seconds, found.shares, strict=True):
        assert share == pytest.approx(1 - np.exp(-seconds / 86_400), abs=0.03)
    assert found.within(0.94) == 3 * 86_400
    assert found.within(0.5) == 18 * 3600


def test_recent_hours_do_not_make_labels_look_early() -> None:
    """The plain share of labels by delay would: of most hours only early ones have come."""
    cohorts = stream(4, mean_hours=48.0, rows=2_000)
    found = curve(cohorts, NOW)
    early = [place for place, bound in enumerate(DELAYS) if bound <= 6 * 3600]
    plain = sum(c.counts.get(f"delay.{p}", 0) for c in cohorts for p in early)
    plain_share = plain / sum(c.counts.get("labelled", 0) for c in cohorts)
    at = found.seconds.index(6 * 3600)
    # Of labels that come within three days, the longest that was watched.
    truth = (1 - np.exp(-6 / 48)) / (1 - np.exp(-72 / 48))
    assert found.shares[at] == pytest.approx(truth, abs=0.02)
    assert plain_share > found.shares[at] + 0.05


def test_while_the_longest_delays_still_bring_labels_nobody_knows() -> None:
    assert curve(stream(3, mean_hours=200.0), NOW).within(0.95) is None
    assert Curve().within(0.5) is None
    assert curve([], NOW) == Curve()


def test_labels_that_all_came_at_once_say_nothing_about_delays() -> None:
    cohorts = []
    for ago in range(1, 200):
        place = int(np.searchsorted(DELAYS, ago * 3600))
        cohorts.append(cohort(NOW - dt.timedelta(hours=ago), {"rows": 100, "labelled": 30, f"delay.{place}": 30}))
    assert curve(cohorts, NOW).within(0.95) is None


def test_segments_are_not_counted_twice() -> None:
    cohorts = stream(20, mean_hours=24.0)
    doubled = [*cohorts, *(Cohort(c.key._replace(segment="city=Rome"), c.counts) for c in cohorts)]
    assert curve(doubled, NOW) == curve(cohorts, NOW)


def test_cohorts_are_ripe_by_age_or_when_nothing_is_missing() -> None:
    old = cohort(NOW - dt.timedelta(hours=50), {"rows": 100, "labelled": 10})
    young = cohort(NOW - dt.timedelta(hours=5), {"rows": 100, "labelled": 10})
    complete = cohort(NOW - dt.timedelta(hours=4), {"rows": 100, "labelled": 96})
    part = Cohort(complete.key._replace(segment="city=Rome"), {"rows": 3})
    few = cohort(NOW - dt.timedelta(hours=3), {"rows": 10, "labelled": 10})
    other = Cohort(complete.key._replace(version="2"), {"rows": 100, "labelled": 50})
    every = [old, young, complete, part, few, other]
    assert ripe(every, NOW, 0.95, 48 * 3600) == ([old, complete, part], [young, few, other])
    assert ripe(every, NOW, 0.95, None) == ([complete, part], [old, young, few, other])
    assert ripe(every, NOW, 0.95, 0.0) == (every, [])


def test_an_hour_is_as_old_as_its_last_prediction() -> None:
    assert age("2026-02-28T22", NOW) == 3600
    assert age("2026-02-27", NOW) == 86_400
    assert age("2026-03-01T00", NOW) == age("2026-03-01", NOW) == 0
