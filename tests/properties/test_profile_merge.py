"""Counting is adding: however rows are split over workers, the sum is what one worker would have counted."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.profile import Profile
from modelyard.schema import Field

FIELDS = (Field(name="x", dtype="float64", nullable=True), Field(name="c", dtype="string", nullable=True))

numbers = st.one_of(st.integers(-5, 5).map(float), st.floats(allow_nan=True, allow_infinity=True))
texts = st.one_of(st.none(), st.sampled_from("abcdefgh"), st.text(max_size=4))
rows = st.lists(st.tuples(numbers, texts), max_size=40)


def columns(some):
    return {
        "x": np.array([x for x, _ in some], dtype="float64"),
        "c": np.array([*(c for _, c in some), None], dtype=object)[:-1],
    }


def window(reference: Profile, some) -> Profile:
    profile = reference.empty()
    profile.add(columns(some))
    return profile


@settings(max_examples=150, deadline=None)
@given(reference=rows, live=rows, cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_any_split_in_any_order_gives_the_same_counts(reference, live, cuts):
    frozen = Profile.of(columns(reference), FIELDS)
    first, second = sorted(int(cut * len(live)) for cut in cuts)
    a, b, c = (window(frozen, part) for part in (live[:first], live[first:second], live[second:]))
    whole = window(frozen, live)
    assert a.merge(b).merge(c) == whole
    assert a.merge(b.merge(c)) == whole
    assert c.merge(a).merge(b) == whole
    assert whole.merge(frozen.empty()) == whole


@settings(max_examples=150, deadline=None)
@given(reference=rows, live=rows)
def test_every_value_is_counted_once_and_survives_json(reference, live):
    frozen = Profile.of(columns(reference), FIELDS)
    assert all(part.total == len(reference) for part in frozen.inputs)
    assert all(part.below == 0 or np.isneginf(columns(reference)["x"]).any() for part in frozen.inputs)
    counted = window(frozen, live)
    assert all(part.total == len(live) for part in counted.inputs)
    assert Profile.from_json(counted.to_json()) == counted
