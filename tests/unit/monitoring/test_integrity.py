"""Differences that have a name are told by it, once, and as nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelyard.monitoring import turn, words
from modelyard.monitoring.rules import DEFAULTS
from modelyard.monitoring.turn import Hour, Outcome, State
from modelyard.monitoring.units import UNITS, Unit, find_unit
from modelyard.profile import Profile
from modelyard.schema import Array, Field
from traffic import Traffic, counted_of

Change = Callable[[dict[str, Array], dict[str, Array]], None]

RNG = np.random.default_rng(7)


def column(name: str, function: Callable[[Array], Array]) -> Change:
    def change(columns: dict[str, Array], outputs: dict[str, Array]) -> None:
        side = columns if name in columns else outputs
        side[name] = function(side[name])

    return change


def opened(change: Change | None, **more: Any) -> list[Outcome]:
    """What is opened when this is done to six windows, after five to which nothing was done."""
    traffic, state = Traffic(1), State()
    before, _ = turn.take(state, traffic.windows(5), traffic.reference, DEFAULTS, lambda _: Hour())
    after, _ = turn.take(
        state, traffic.windows(6, change=change, **more), traffic.reference, DEFAULTS, lambda _: Hour()
    )
    assert not before
    return [outcome for outcome in after if outcome.event.what == "open"]


def some(share: float, value: Any) -> Callable[[Array], Array]:
    """That share of a column becomes a value."""
    return lambda values: np.where(RNG.random(len(values)) < share, value, values).astype(values.dtype)


CASES: dict[str, tuple[Change, str, str, str]] = {
    "shift": (column("age", lambda v: v + 6), "drift", "age", "half of them are below"),
    "inches": (column("weight", lambda v: v * 2.54), "unit", "weight", "inches become centimetres"),
    "kilograms": (column("weight", lambda v: v / 0.45359237), "unit", "weight", "kilograms become pounds"),
    "kilo": (column("weight", lambda v: v * 1000), "unit", "weight", "times 1000"),
    "percent": (column("weight", lambda v: v / 100), "unit", "weight", "divided by 100"),
    "fahrenheit": (column("age", lambda v: v * 1.8 + 32), "unit", "age", "Celsius becomes Fahrenheit"),
    "stuck": (column("weight", lambda v: np.where(np.isnan(v), v, 70.0)), "stuck", "weight", "in nearly all rows"),
    "sentinel": (column("weight", lambda v: np.where(np.isnan(v), v, -999.0)), "stuck", "weight", "below"),
    "alive": (column("fixed", lambda v: RNG.normal(size=len(v))), "alive", "fixed", "always 3 in the reference"),
    "missing": (column("weight", some(0.3, np.nan)), "missing", "weight", "of the rows, and was in 1"),
    "never missing": (column("weight", lambda v: np.nan_to_num(v, nan=75.0)), "missing", "weight", "0.0% of the rows"),
    "new": (column("city", some(0.1, "Quito")), "category", "city", "“Quito”"),
    "mix": (column("city", some(0.4, "Oslo")), "drift", "city", "“Oslo” is"),
    "type": (column("city", some(0.1, 5)), "type", "city", "of the wrong type"),
    "predictions": (column("prediction", some(0.6, "yes")), "prediction", "prediction", "“no” is"),
    "scores": (column("score", lambda v: v / 2), "score", "score", "scores of score"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_cause_is_one_finding(case: str) -> None:
    change, kind, subject, told = CASES[case]
    found = opened(change)
    assert [(outcome.event.kind, outcome.event.subject) for outcome in found] == [(kind, subject)]
    assert told in words.tell(found[0].event)


def test_predictions_that_are_no_numbers_are_found() -> None:
    assert [outcome.event.kind for outcome in opened(None, invalid=100)] == ["invalid"]


def test_a_text_that_is_renamed_is_one_finding() -> None:
    found = opened(column("city", lambda v: np.where(v == "Bern", "Berne", v).astype(object)))
    assert [outcome.event.kind for outcome in found] == ["category"]
    assert found[0].event.evidence is not None
    assert list(found[0].event.evidence.more["texts"]) == ["Berne"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.words[:24])
def test_each_unit_is_known_again(unit: Unit) -> None:
    rng = np.random.default_rng(3)
    fields = (Field(name="x", dtype="float64"),)
    values = rng.normal(60, 9, 4_000)
    reference = Profile.of({"x": values}, fields)
    counted = counted_of(reference, {"x": rng.normal(60, 9, 2_000) * unit.factor + unit.offset}, {}, {})
    seen = reference.empty()
    seen.add({"x": rng.normal(60, 9, 2_000) * unit.factor + unit.offset})
    found = find_unit(reference.inputs[0], seen.inputs[0], counted.outside.get("x"))
    assert found is not None
    # inches are told from pounds by 15 %, which is less than a bin beyond the range is wide
    assert (found.factor, found.offset) == pytest.approx((unit.factor, unit.offset), rel=0.2)


@pytest.mark.parametrize("factor", [0.97, 1.05, 1.3, 1.37])
def test_what_is_no_unit_is_not_taken_for_one(factor: float) -> None:
    found = opened(column("age", lambda v: v * factor))
    assert all(outcome.event.kind == "drift" for outcome in found)
