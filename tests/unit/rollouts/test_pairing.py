"""Answers and those of a shadow meet by the request's id, whoever comes first."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.rollouts import pairing
from modelyard.rollouts.pairing import Pairing


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("yes", "yes", False), ("yes", "no", True), (3, 3, False), (3, 4, True), (1.0, 1.0 + 1e-9, False),
        (1.0, 1.4, False), (1.0, 1.6, True), (float("nan"), float("nan"), False), (1.0, float("nan"), True),
        (float("inf"), float("inf"), False), ([1.0, 2.0], [1.0, 2.1], False), ([1.0, 2.0], [1.0, 3.0], True),
        ([1.0], [1.0, 2.0], True), (None, "yes", True),
    ],
)  # fmt: skip
def test_what_differs(one: Any, other: Any, differ: bool) -> None:
    for shadow_first in (False, True):
        made = Pairing(0.5)
        assert made.meet("a", shadow_first, one) is None
        assert made.meet("a", not shadow_first, other) is differ
        assert len(made) == 0


def test_without_a_tolerance_numbers_differ_unless_they_round_alike() -> None:
    made = Pairing(None)
    made.meet("a", False, 1000.0)
    assert made.meet("a", True, 1000.0001) is False
    made.meet("b", False, 1000.0)
    assert made.meet("b", True, 1000.01) is True


def test_those_that_never_meet_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pairing, "monotonic", lambda: now[0])
    monkeypatch.setattr(pairing, "MOST_WAITING", 5)
    made = Pairing(None)
    for number in range(8):
        made.meet(str(number), False, 1.0)
    made.give_up()
    assert len(made) == 5
    assert made.meet("0", True, 1.0) is None, "it was the oldest"
    now[0] += pairing.PAIR_SECONDS + 1
    made.meet("late", False, 1.0)
    made.give_up()
    assert len(made) == 1
