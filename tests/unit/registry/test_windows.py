"""Windows in a registry: kept once, found, merged to hours and days, and forgotten."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import Conflict
from modelyard.profile import COUNTERS, Profile
from modelyard.registry import Registry
from modelyard.registry.packing import pack
from modelyard.registry.stages import STAGE_BOUNDS, STAGES
from modelyard.registry.windows import (
    MOST_UNSEEN,
    Counted,
    Part,
    Window,
    parts_of,
    profile_of,
    unpack,
)
from modelyard.schema import Field

counts = st.lists(st.integers(0, 2**40), min_size=3, max_size=3)
parts = st.lists(st.builds(Part, counts, st.lists(st.integers(0, 9), min_size=6, max_size=6)), min_size=2, max_size=2)
numbers = st.integers(0, 2**40)
texts = st.dictionaries(st.text(max_size=5), st.integers(1, 100), max_size=6)
some_counted = st.builds(
    Counted, numbers, texts, numbers, numbers, parts, parts,
    st.fixed_dictionaries(dict.fromkeys(STAGES, counts)), st.dictionaries(st.sampled_from("abc"), texts, max_size=2),
    numbers, st.just("bins"),
)  # fmt: skip


@given(some_counted, some_counted, some_counted)
def test_adding_is_adding(a: Counted, b: Counted, c: Counted) -> None:
    assert a.plus(b) == b.plus(a)
    assert a.plus(b).plus(c) == a.plus(b.plus(c))
    assert a.plus(Counted()) == a == Counted().plus(a)
    assert unpack(pack(a)) == a
    both = a.plus(b)
    assert both.inputs[1].counts == [x + y for x, y in zip(a.inputs[1].counts, b.inputs[1].counts, strict=True)]
    assert both.stages["total"] == [x + y for x, y in zip(a.stages["total"], b.stages["total"], strict=True)]
    assert sum(both.codes.values()) == sum(a.codes.values()) + sum(b.codes.values())


def test_the_most_frequent_texts_stay_where_there_are_too_many() -> None:
    a = Counted(unseen={"city": {f"{n:03}": n for n in range(1, 40)}})
    found = a.plus(Counted(unseen={"city": {"often": 1000}})).unseen["city"]
    assert len(found) == MOST_UNSEEN
    assert max(found, key=lambda text: found[text]) == "often" and "001" not in found


def test_bounds_of_stages_are_ten_to_a_decade() -> None:
    assert len(STAGE_BOUNDS) == 71
    assert (STAGE_BOUNDS[0], round(STAGE_BOUNDS[-1], 6)) == (1e-5, 100.0)
    steps = np.diff(np.log10(STAGE_BOUNDS))
    assert np.allclose(steps, 0.1)


def test_counts_and_their_reference_make_a_profile() -> None:
    fields = (Field(name="x", dtype="float64"), Field(name="c", dtype="string"))
    columns = {"x": np.arange(50.0), "c": np.array(["a", "b"] * 25, dtype=object)}
    reference = Profile.of(columns, fields)
    live = reference.empty()
    live.add({"x": np.array([-1.0, 3.0]), "c": np.array(["a", "new"], dtype=object)})
    counted = Counted(rows=2, inputs=parts_of(live.inputs), outputs=[])
    assert profile_of(reference, counted) == live
    with pytest.raises(Conflict, match="other bins"):
        profile_of(Profile.of({"x": np.arange(3.0)}, fields[:1]), counted)
    assert len(counted.inputs[0].counters) == len(COUNTERS)


def window(
    opened: str, closed: str, requests: int = 1, *, model: str = "churn", version: str = "1", arm: str = "",
    source: str = "here", span: str = "live", **counted: Any,
) -> Window:  # fmt: skip
    return Window(
        model=model, version=version, arm=arm, source=source, span=span, opened=opened, closed=closed,
        counted=Counted(requests=requests, rows=requests, **counted),
    )  # fmt: skip


def minute(hour: int, minute: int, day: int = 1) -> str:
    return f"2026-11-{day:02}T{hour:02}:{minute:02}:00.000000Z"


def test_windows_of_different_things_do_not_add_up() -> None:
    first = window(minute(1, 0), minute(1, 1))
    for other in (
        window(minute(1, 0), minute(1, 1), version="2"),
        window(minute(1, 0), minute(1, 1), model="risk"),
    ):
        with pytest.raises(Conflict, match="do not add up"):
            first.plus(other)
    with pytest.raises(Conflict, match="do not add up"):
        window(minute(1, 0), minute(1, 1), bins="a").plus(window(minute(1, 0), minute(1, 1), bins="b"))
    both = first.plus(window(minute(0, 58), minute(0, 59), arm="canary", source="there"))
    assert (both.opened, both.closed, both.arm, both.source) == (minute(0, 58), minute(1, 1), "", "")


def test_windows_are_found_by_what_they_are_and_when(registry: Registry) -> None:
    windows = registry.windows
    windows.add([window(minute(1, n), minute(1, n + 1), n, arm="canary" if n % 2 else "") for n in range(6)])
    windows.add(
        [window(minute(1, 0), minute(1, 1), 9, version="2"), window(minute(1, 0), minute(1, 1), 9, model="risk")]
    )
    assert [w.counted.requests for w in windows.find("churn", "1")] == [0, 1, 2, 3, 4, 5]
    assert len(windows.find("churn")) == 7
    assert [w.counted.requests for w in windows.find("churn", "1", arm="canary")] == [1, 3, 5]
    assert [w.counted.requests for w in windows.find("churn", "1", since=minute(1, 2), until=minute(1, 4))] == [2, 3]
    found = windows.find("churn", "1", most=2)
    assert [w.id for w in found] == [1, 2]
    assert [w.id for w in windows.find("churn", "1", after=2, most=2)] == [3, 4]
    assert windows.find("nobody") == []
    assert windows.models() == [("churn", "1"), ("churn", "2"), ("risk", "1")]


def test_a_batch_is_kept_once(registry: Registry) -> None:
    windows = registry.windows
    one, two = window(minute(1, 0), minute(1, 1)), window(minute(1, 1), minute(1, 2))
    assert windows.add([one], source="here", batch="a")
    assert not windows.add([one], source="here", batch="a"), "sent again after a connection broke"
    assert windows.add([one], source="there", batch="a")
    assert windows.add([two], source="here", batch="b")
    assert len(windows.find("churn")) == 3


def test_all_or_none_of_a_batch_is_kept(registry: Registry) -> None:
    def broken() -> Iterator[Window]:
        yield window(minute(1, 0), minute(1, 1))
        raise RuntimeError("killed")

    with contextlib.suppress(RuntimeError):
        registry.windows.add(broken(), source="here", batch="a")
    assert registry.windows.find("churn") == []
    assert registry.windows.add([window(minute(1, 0), minute(1, 1))], source="here", batch="a")


def test_old_windows_become_hours_and_hours_days(registry: Registry) -> None:
    windows = registry.windows
    for day in (1, 2):
        for hour in (0, 13):
            windows.add(
                [
                    window(
                        minute(hour, n, day), minute(hour, n + 1, day), arm=arm, source=f"s{n % 2}",
                        inputs=[Part([1], [0])],
                    )
                    for n in range(5)
                    for arm in ("", "canary")
                ]
            )  # fmt: skip
    assert windows.merge(minute(0, 0, 2), "hour") == 16
    hours = windows.find("churn", span="hour")
    assert [(w.arm, w.opened, w.closed, w.counted.requests, w.source) for w in hours] == [
        ("", minute(0, 0), minute(0, 5), 5, ""),
        ("canary", minute(0, 0), minute(0, 5), 5, ""),
        ("", minute(13, 0), minute(13, 5), 5, ""),
        ("canary", minute(13, 0), minute(13, 5), 5, ""),
    ]
    assert hours[0].counted.inputs == [Part([5], [0])]
    assert len(windows.find("churn", span="live")) == 20
    assert windows.merge(minute(0, 0, 2), "hour") == 0
    assert windows.merge(minute(0, 0, 3), "hour") == 16
    assert windows.merge(minute(0, 0, 3), "day") == 4
    assert [(w.arm, w.span, w.counted.requests) for w in windows.find("churn")] == [
        ("", "day", 10), ("canary", "day", 10), ("", "day", 10), ("canary", "day", 10),
    ]  # fmt: skip
    windows.forget(minute(0, 0, 2))
    assert [w.opened for w in windows.find("churn")] == [minute(0, 0, 2)] * 2


def test_a_window_that_comes_late_is_merged_later(registry: Registry) -> None:
    windows = registry.windows
    windows.add([window(minute(0, n), minute(0, n + 1)) for n in range(3)])
    windows.merge(minute(5, 0), "hour")
    windows.add([window(minute(0, 5), minute(0, 6))])
    windows.merge(minute(5, 0), "hour")
    windows.merge(minute(5, 0), "day")
    assert [w.counted.requests for w in windows.find("churn")] == [4]


def test_windows_on_other_bins_stay_apart(registry: Registry) -> None:
    """A bundle that no registry numbered may change; what was counted before cannot be added to what comes."""
    windows = registry.windows
    windows.add(
        [
            window(minute(0, n), minute(0, n + 1), version="", bins=bins, inputs=[Part([1] * size, [0])])
            for n in range(4)
            for bins, size in (("a", 2), ("b", 3))
        ]
    )
    windows.merge(minute(5, 0), "hour")
    assert sorted(w.counted.bins for w in windows.find("churn")) == ["a", "b"]


def test_who_follows_new_windows_misses_none_and_sees_none_twice(registry: Registry) -> None:
    """Ids only ever grow, whatever is merged and forgotten meanwhile."""
    windows = registry.windows
    position, seen = 0, []
    for hour in range(6):
        windows.add([window(minute(hour, n), minute(hour, n + 1), 100 * hour + n) for n in range(3)])
        new = windows.find("churn", after=position, span="live")
        seen += [w.counted.requests for w in new]
        position = max(w.id for w in new)
        windows.merge(minute(hour, 59), "hour")
        if hour % 2:
            windows.merge(minute(hour, 59), "day")
            windows.forget(minute(hour, 59))
    assert seen == [100 * hour + n for hour in range(6) for n in range(3)]


def test_two_that_merge_at_once_lose_nothing(registry: Registry, place: str) -> None:
    registry.windows.add([window(minute(h, n), minute(h, n + 1), arm=f"{n}") for h in range(8) for n in range(20)])
    registry.close()
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                mine = Registry.open(place)
                mine.windows.merge(minute(23, 0), "hour")
                mine.windows.merge(minute(23, 0), "day")
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    found = registry.windows.find("churn")
    assert {(w.arm, w.span) for w in found} == {(f"{n}", "day") for n in range(20)}
    assert sum(w.counted.requests for w in found) == 160
