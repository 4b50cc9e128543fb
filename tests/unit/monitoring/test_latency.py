"""Quantiles of histograms, and the moment at which they changed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelyard.monitoring import latency, turn
from modelyard.monitoring.latency import Change
from modelyard.monitoring.rules import DEFAULTS, LatencyRules, Rules
from modelyard.monitoring.turn import Hour, State
from modelyard.registry.stages import mean_of, quantile_of
from modelyard.registry.windows import Counted, Window
from traffic import Traffic, histogram


def calm(traffic: Traffic, count: int, slower: float = 1.0) -> list[Window]:
    """Windows of which only latencies matter."""
    return [
        msgspec.structs.replace(window, counted=Counted(400, stages=traffic.stages(400, slower)))
        for window in traffic.windows(count, rows=0)
    ]


def changes(state: State, windows: list[Window], rules: Rules = DEFAULTS) -> list[Change]:
    outcomes, _ = turn.take(state, windows, None, rules, lambda _: Hour())
    return [outcome.event for outcome in outcomes if outcome.event.what != "seen"]


def test_quantiles_of_a_histogram_are_those_of_the_values_to_a_few_percent() -> None:
    rng = np.random.default_rng(1)
    times = rng.lognormal(-7, 1, 100_000)
    counts = histogram(times)
    for q in (0.05, 0.5, 0.95, 0.99):
        assert quantile_of(counts, q) == pytest.approx(float(np.quantile(times, q)), rel=0.03)
    assert mean_of(counts) == pytest.approx(float(times.mean()), rel=0.03)
    assert np.isnan(quantile_of([0] * 72, 0.5))


def test_calm_traffic_changes_nothing() -> None:
    traffic, state = Traffic(1), State()
    assert changes(state, calm(traffic, 300)) == []
    assert state.arms[""].latency.changes == []


def test_a_slower_model_is_found_with_its_moment_and_stage_and_is_over_when_it_is_fast_again() -> None:
    traffic, state = Traffic(2), State()
    assert changes(state, calm(traffic, 60)) == []
    began = traffic.moment
    slow = calm(traffic, 25, slower=3.0)
    (found,) = changes(state, slow)
    assert (found.what, found.evidence.measure) == ("open", "ratio")
    assert found.evidence.low > 1.5
    assert found.evidence.more["stage"] == "predict"
    assert found.evidence.more["share"] > 0.9
    assert "of the added time is in predict" in found.told
    changed = state.arms[""].latency.changes
    assert len(changed) == 1
    # the moment of the change is within two minutes of what it was
    assert abs(latency.seconds_between(began.isoformat(), changed[0])) <= 120
    assert len([w for w in slow if w.closed <= found.evidence.until]) < 20
    closed = changes(state, calm(traffic, 60))
    assert [each.what for each in closed] == ["close"]


def test_a_change_that_does_not_matter_is_noted_and_not_told() -> None:
    traffic, state = Traffic(3), State()
    changes(state, calm(traffic, 60))
    assert changes(state, calm(traffic, 60, slower=1.25)) == []
    assert len(state.arms[""].latency.changes) == 1


def test_what_matters_is_a_rule() -> None:
    traffic, state = Traffic(3), State()
    rules = Rules(latency=LatencyRules(slower=0.1))
    changes(state, calm(traffic, 60), rules)
    assert [each.what for each in changes(state, calm(traffic, 60, slower=1.25), rules)] == ["open"]


def test_faster_answers_are_no_trouble() -> None:
    traffic, state = Traffic(4), State()
    changes(state, calm(traffic, 60, slower=3.0))
    assert changes(state, calm(traffic, 60)) == []


def test_a_point_takes_enough_requests() -> None:
    traffic, state = Traffic(5), State()
    few = [
        msgspec.structs.replace(window, counted=Counted(20, stages=traffic.stages(20)))
        for window in traffic.windows(10, rows=0)
    ]
    changes(state, few)
    assert state.arms[""].latency.origins == 2  # of five windows each


def test_the_run_length_is_what_the_rules_ask_for() -> None:
    traffic, state = Traffic(6), State()
    changes(state, calm(traffic, 40))
    recent = state.arms[""].latency.recent
    # a point a minute and one false alarm in ten months
    assert latency.run_length(recent, DEFAULTS.latency) == pytest.approx(30 * 24 * 60 / 0.1)
