"""From looks to episodes: pooled, told once, over when they are over, and silent where nothing can be claimed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from modelyard.monitoring import drift, turn, words
from modelyard.monitoring.compare import Question
from modelyard.monitoring.drift import Track
from modelyard.monitoring.looks import Look
from modelyard.monitoring.rules import DEFAULTS, DriftRules, Rules
from modelyard.monitoring.turn import Hour, Outcome, State
from modelyard.registry.packing import pack
from modelyard.registry.windows import Window
from modelyard.statistics.discovery import Stream
from traffic import Traffic


def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
    columns["age"] = columns["age"] + 8


class Loop:
    """What the loop keeps between turns, without a registry."""

    def __init__(self, traffic: Traffic, rules: Rules = DEFAULTS) -> None:
        self.traffic = traffic
        self.rules = rules
        self.state = State()
        self.hours: dict[int, Hour] = {}

    def take(self, windows: list[Window]) -> list[Outcome]:
        self.state = turn.unpack_state(pack(self.state))  # as it is kept between turns
        outcomes, grown = turn.take(
            self.state, windows, self.traffic.reference, self.rules, lambda n: self.hours.get(n, Hour())
        )
        self.hours |= grown
        return [outcome for outcome in outcomes if outcome.event.what != "seen"]

    def told(self, windows: list[Window]) -> list[tuple[str, str, str]]:
        return [(o.event.what, o.event.kind, o.event.subject) for o in self.take(windows)]


def test_nothing_is_found_where_nothing_changes() -> None:
    traffic = Traffic(2)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(120)) == []
    assert loop.state.arms[""].drift.looks == 120


def test_an_episode_begins_at_the_second_look_of_three_and_is_told_once() -> None:
    traffic = Traffic(3)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(5)) == []
    assert loop.told(traffic.windows(1, change=older)) == []
    assert loop.told(traffic.windows(1)) == []
    assert loop.told(traffic.windows(1, change=older)) == [("open", "drift", "age")]
    assert loop.told(traffic.windows(20, change=older)) == []


def test_two_looks_that_lie_far_apart_are_no_episode() -> None:
    traffic = Traffic(3)
    loop = Loop(traffic)
    for _ in range(4):
        assert loop.told(traffic.windows(1, change=older)) == []
        assert loop.told(traffic.windows(3)) == []


def test_an_episode_is_over_when_the_upper_bound_is_below_half_the_floor() -> None:
    traffic = Traffic(4, rows=20_000)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(3, change=older)) == [("open", "drift", "age")]
    taken, closed = 0, []
    while not closed:
        taken += 1
        assert taken < 30
        closed = loop.take(traffic.windows(1))
    # one look of 1,500 rows cannot show so little an effect: several are taken together
    assert taken > 2
    assert (closed[0].event.what, closed[0].event.subject) == ("close", "age")
    assert closed[0].event.evidence is not None
    assert closed[0].event.evidence.high < DEFAULTS.drift.ks / 2
    assert closed[0].event.evidence.live == taken * 1_500
    assert loop.told(traffic.windows(3, change=older)) == [("open", "drift", "age")]


def test_a_reference_too_small_to_show_that_it_is_over_takes_three_looks_that_show_nothing() -> None:
    traffic = Traffic(5, rows=800)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(3, change=older)) == [("open", "drift", "age")]
    closed = loop.take(traffic.windows(6))
    assert [(o.event.what, o.event.subject) for o in closed] == [("close", "age")]
    assert "too small to say more" in closed[0].event.why
    assert "800 rows" in closed[0].event.why


def test_small_windows_are_pooled_until_they_can_say_something() -> None:
    traffic = Traffic(6)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(49, rows=40, change=older)) == []
    assert loop.state.arms[""].drift.looks == 1  # of 25 windows, which have 1,000 rows
    assert loop.told(traffic.windows(1, rows=40, change=older)) == [("open", "drift", "age")]


def test_on_little_traffic_a_day_is_taken_as_it_is() -> None:
    traffic = Traffic(6)
    loop = Loop(traffic)
    for looks in (0, 1):
        for _ in range(24):
            assert loop.told(traffic.windows(1, rows=5)) == []
            assert loop.state.arms[""].drift.looks == looks
            traffic.moment += dt.timedelta(minutes=59)
        assert loop.told(traffic.windows(1, rows=5)) == []
        assert loop.state.arms[""].drift.looks == looks + 1


def test_a_reference_of_20_rows_claims_little_and_says_so() -> None:
    traffic = Traffic(7, rows=20)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(10)) == []
    told = " ".join(words.limits(traffic.reference, DEFAULTS.drift))
    assert "the reference has 20 rows" in told
    assert "can be claimed to matter" in told
    assert loop.told(traffic.windows(3, change=lambda c, _: c.update(age=c["age"] + 500))) == [("open", "stuck", "age")]


def test_a_large_reference_needs_no_excuse() -> None:
    assert words.limits(Traffic(7, rows=20_000).reference, DEFAULTS.drift) == []


def test_what_is_real_but_does_not_matter_is_not_told() -> None:
    traffic = Traffic(8, rows=20_000)
    loop = Loop(traffic)
    slightly = lambda c, _: c.update(age=c["age"] + 1.2)  # noqa: E731
    assert loop.told(traffic.windows(20, rows=20_000, change=slightly)) == []
    assert loop.state.arms[""].drift.worst[0] == "age"
    assert 0.02 < loop.state.arms[""].drift.worst[1] < DEFAULTS.drift.ks
    strict = Loop(traffic, Rules(drift=DriftRules(ks=0.01)))
    assert strict.told(traffic.windows(3, rows=20_000, change=slightly)) == [("open", "drift", "age")]


def test_what_is_to_be_ignored_is_not_asked_for() -> None:
    traffic = Traffic(9)
    loop = Loop(traffic, Rules(drift=DriftRules(ignore=("age",))))
    assert loop.told(traffic.windows(5, change=older)) == []


def test_an_episode_of_what_is_ignored_from_now_on_is_over() -> None:
    traffic = Traffic(9)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(3, change=older)) == [("open", "drift", "age")]
    loop.rules = Rules(drift=DriftRules(ignore=("age",)))
    assert loop.told(traffic.windows(1, change=older)) == [("close", "drift", "age")]


def test_arms_are_judged_by_themselves() -> None:
    traffic = Traffic(10)
    loop = Loop(traffic)
    both = [w for _ in range(4) for w in (traffic.window(arm="stable"), traffic.window(change=older, arm="canary"))]
    found = loop.take(both)
    assert [(o.arm, o.event.subject) for o in found] == [("canary", "age")]


def test_windows_on_other_bins_are_counted_and_not_compared() -> None:
    traffic, other = Traffic(11), Traffic(12, rows=300)
    loop = Loop(traffic)
    assert loop.told(other.windows(3, change=older)) == []
    assert loop.state.foreign == 3
    assert loop.state.position == 3


def test_without_a_reference_nothing_is_compared() -> None:
    traffic = Traffic(11)
    state = State()
    outcomes, _ = turn.take(state, traffic.windows(3, change=older), None, DEFAULTS, lambda _: Hour())
    assert outcomes == []
    assert state.position == 3


def test_a_daily_cycle_is_no_drift_once_a_week_of_it_is_known() -> None:
    traffic = Traffic(13, rows=20_000)
    loop = Loop(traffic)

    def cyclic(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
        # the reference is a mixture of all hours; at night others come than by day
        hour = traffic.moment.hour
        columns["age"] = columns["age"] + 12 * np.sin(2 * np.pi * hour / 24)

    def day(days: int, change: Any) -> list[Window]:
        made = []
        for hour in range(24):
            traffic.moment = start + dt.timedelta(days=days, hours=hour)
            made.append(traffic.window(rows=2_000, change=change))
        return made

    start = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    first: list[tuple[str, str, str]] = []
    for days in range(7):
        first += loop.told(day(days, cyclic))
    assert ("open", "drift", "age") in first  # before that it is: what is known is the reference alone
    for days in range(7, 10):
        assert [each for each in loop.told(day(days, cyclic)) if each[0] == "open"] == []

    def warped(columns: dict[str, Any], outputs: dict[str, Any]) -> None:
        cyclic(columns, outputs)
        columns["weight"] = columns["weight"] + 15

    assert ("open", "drift", "weight") in loop.told(day(10, warped))


def test_hours_of_a_look() -> None:
    def hours(since: str, until: str) -> tuple[int, ...]:
        return Look(since=since, until=until, first=1, last=1, counted=turn.Counted()).hours

    assert hours("2026-11-30T10:58:00Z", "2026-11-30T10:59:00Z") == (10,)
    assert hours("2026-11-30T10:59:00Z", "2026-11-30T11:00:00Z") == (10,)
    assert hours("2026-11-30T23:30:00Z", "2026-12-01T00:30:00Z") == (0, 23)
    assert len(hours("2026-11-30T00:00:00Z", "2026-12-02T00:00:00Z")) == 24


def test_a_clock_that_is_turned_back_stops_nothing() -> None:
    traffic = Traffic(14)
    loop = Loop(traffic)
    loop.take(traffic.windows(2))
    traffic.moment -= dt.timedelta(hours=3)
    assert loop.told(traffic.windows(4, change=older)) == [("open", "drift", "age")]


def test_what_a_difference_is_called_may_change_from_look_to_look() -> None:
    traffic = Traffic(15)
    loop = Loop(traffic)
    assert loop.told(traffic.windows(1, change=lambda c, _: c.update(weight=c["weight"] + 20))) == []
    found = loop.told(traffic.windows(1, change=lambda c, _: c.update(weight=c["weight"] * 2.54)))
    assert found == [("open", "unit", "weight")]
    assert loop.told(traffic.windows(3, change=lambda c, _: c.update(weight=c["weight"] + 20))) == []


def test_new_texts_that_stop_leave_the_drift_that_is_left() -> None:
    traffic = Traffic(16)
    loop = Loop(traffic)
    renamed = lambda c, _: c.update(city=np.where(c["city"] == "Bern", "Berne", c["city"]).astype(object))  # noqa: E731
    gone = lambda c, _: c.update(city=np.where(c["city"] == "Bern", "Oslo", c["city"]).astype(object))  # noqa: E731
    assert loop.told(traffic.windows(3, change=renamed)) == [("open", "category", "city")]
    found = loop.told(traffic.windows(12, change=gone))
    assert ("open", "drift", "city") in found
    assert ("close", "category", "city") in found


def test_another_rate_of_false_discoveries_begins_anew() -> None:
    traffic = Traffic(17)
    loop = Loop(traffic)
    loop.take(traffic.windows(2))
    loop.rules = Rules(drift=DriftRules(q=0.01))
    loop.take(traffic.windows(1))
    stream = loop.state.arms[""].drift.stream
    assert (stream.alpha, stream.start, stream.tests) == (0.01, 0.005, 1)


def test_false_alarms_that_are_promised_are_the_levels_to_come() -> None:
    track = Track(stream=Stream.lord(0.05), looks=10, began="2026-11-01T00:00:00Z", ended="2026-11-01T10:00:00Z")
    promised = drift.false_alarms(track, DEFAULTS.drift)
    levels = 0.0
    for _ in range(30 * 24):  # a look an hour, for a month
        levels += track.stream.level
        track.stream.test(1.0)
    assert promised == pytest.approx(levels / 2, rel=0.05)
    assert promised < 0.0125
    assert drift.false_alarms(track, DEFAULTS.drift) < promised  # what is spent is spent


@pytest.mark.parametrize("measure", ["ks", "psi", "share"])
def test_an_effect_on_nothing_is_no_effect(measure: Any) -> None:
    assert Question("drift", "x", measure, 0.1, [10, 10], [0, 0]).matters() is None
    assert Question("drift", "x", measure, 0.1, [0, 0], [10, 10]).matters() is None
