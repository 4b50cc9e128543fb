"""What the loop decides does not depend on how windows reach it, and what it keeps is what it knew."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.monitoring import turn
from modelyard.monitoring.budget import Spent, add, sum_of
from modelyard.monitoring.compare import Question
from modelyard.monitoring.integrity import name
from modelyard.monitoring.looks import Look
from modelyard.monitoring.measures import measure, quantile
from modelyard.monitoring.rules import DEFAULTS, BudgetRules
from modelyard.monitoring.turn import Hour, State
from modelyard.monitoring.units import find_unit
from modelyard.profile import Counts
from modelyard.registry.packing import pack
from modelyard.registry.windows import Counted, Window
from traffic import Traffic

TRAFFIC = Traffic(1, rows=2_000)


def _windows() -> list[Window]:
    def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
        columns["age"] = columns["age"] + 9

    made = TRAFFIC.windows(12, rows=600)
    made += TRAFFIC.windows(10, rows=600, change=older, slower=4.0)
    return made + TRAFFIC.windows(18, rows=600)


WINDOWS = _windows()


def told(cuts: list[int]) -> tuple[list[tuple[Any, ...]], bytes]:
    """What is told when the windows come in these pieces, and what is kept in the end."""
    state, found = State(), []
    hours: dict[int, Hour] = {}

    def read_hour(number: int) -> Hour:
        return hours.get(number, Hour())

    for start, stop in zip([0, *cuts], [*cuts, len(WINDOWS)], strict=True):
        outcomes, grown = turn.take(state, WINDOWS[start:stop], TRAFFIC.reference, DEFAULTS, read_hour)
        hours.update(grown)
        found += [(o.event.what, o.event.subject, o.event.evidence) for o in outcomes]
        state = turn.unpack_state(pack(state))
    return found, pack(state).encode()


WHOLE = told([])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.sets(st.integers(1, len(WINDOWS) - 1), max_size=8).map(sorted))
def test_the_pieces_in_which_windows_come_change_nothing(cuts: list[int]) -> None:
    assert WHOLE[0]
    assert told(cuts) == WHOLE


numbers = st.integers(0, 400)
cells = st.lists(numbers, min_size=2, max_size=24)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["ks", "psi", "share"]))
def test_an_effect_lies_within_its_bounds_and_matters_only_above_the_floor(data: st.DataObject, kind: Any) -> None:
    ours = data.draw(cells if kind != "share" else st.lists(numbers, min_size=2, max_size=2))
    theirs = data.draw(st.lists(numbers, min_size=len(ours), max_size=len(ours)))
    question = Question("missing", "x", kind, 0.1, ours, theirs)
    if not sum(ours) or not sum(theirs):
        assert question.matters() is None
        return
    effect = question.effect()
    if kind != "psi":  # of which the excess over chance is told, and of the truth that it is not negative
        assert effect.low - 1e-9 <= effect.value <= effect.high + 1e-9
    found = question.matters()
    assert (found is not None) == (effect.low > 0.1 and question.value() > 0.1)
    assert 0.0 <= question.p() <= 1.0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_counts_can_be_measured_and_named(data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=20)))
    part = Counts(field="x", edges=edges, maximum=edges[-1] + data.draw(st.floats(0, 1e6)), counts=[])
    sides = []
    for _ in range(2):
        counts = data.draw(st.lists(numbers, min_size=len(edges), max_size=len(edges)))
        below, above, missing = (data.draw(numbers) for _ in range(3))
        sides.append(
            Counts(
                field="x", edges=edges, maximum=part.maximum, counts=counts, below=below, above=above, missing=missing
            )
        )
    outside = data.draw(st.dictionaries(st.sampled_from(["+12", "-3", "0", "+inf", "+-7"]), numbers, max_size=4))
    measured = measure(*sides)
    if any(sides[0].counts) and any(sides[1].counts):
        name(sides[0], sides[1], outside)
        find_unit(sides[0], sides[1], outside)
    for distance in measured.values():
        assert distance.value >= -1e-12
        assert distance.critical >= 0
    middle = quantile(sides[1], 0.5)
    assert middle is None or edges[0] <= middle <= (part.maximum or 0)


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(6)))
def test_looks_add_up_in_any_order(order: list[int]) -> None:
    looks = [Look.of(window) for window in WINDOWS[:6]]
    whole = looks[0]
    for look in looks[1:]:
        whole = whole.plus(look)
    made = looks[order[0]]
    for place in order[1:]:
        made = made.plus(looks[place])
    assert made == whole


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.integers(0, 50), min_size=1, max_size=10))
def test_a_budget_counts_every_request_once(parts: list[int]) -> None:
    windows = [
        Window(model="churn", version="1", opened=f"2026-11-30T12:{i:02}:00.000000Z", closed="", counted=Counted(count))
        for i, count in enumerate(parts)
    ]
    spent = Spent()
    for window in windows:
        add(spent, [window], BudgetRules())
    assert sum_of(spent, 60).requests == sum(parts)
    assert sum_of(spent, 72 * 60).requests == sum(parts)


def test_states_are_small() -> None:
    state = State()
    turn.take(state, WINDOWS, TRAFFIC.reference, DEFAULTS, lambda _: Hour())
    assert len(pack(state)) < 64 * 1024
    assert turn.unpack_state(pack(state)) == state
    assert turn.unpack_state(None) == State()
    assert np.isfinite(state.arms[""].drift.worst[1])
