"""What is carried for a version from one turn to the next, and how windows change it. No registry, no clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from modelyard.monitoring import drift, latency
from modelyard.monitoring.budget import Change as Burning
from modelyard.monitoring.drift import Event, Track
from modelyard.monitoring.latency import Change, Pace
from modelyard.monitoring.looks import Look, has_bins_of, is_enough
from modelyard.monitoring.rules import Rules
from modelyard.monitoring.verdicts import Change as Verdict
from modelyard.profile import Profile
from modelyard.registry.packing import raw
from modelyard.registry.records import stamp
from modelyard.registry.windows import Counted, Window, bins_of, profile_of
from modelyard.statistics.discovery import Stream

#: Days of a version's life that say what each hour of the day usually looks like, and how many of them it takes.
WEEK, LEAST_DAYS = 7, 5
#: An arm that has had no windows for so long is forgotten, unless something is open of it.
_FORGET = dt.timedelta(days=7)


class Arm(msgspec.Struct, kw_only=True):
    """One arm of a version."""

    drift: Track = msgspec.field(default_factory=Track)
    latency: Pace = msgspec.field(default_factory=Pace)
    #: When its last window closed, and the rows, and those not recorded, of all.
    ended: str = ""
    rows: int = 0
    lost: int = 0


class State(msgspec.Struct, kw_only=True):
    """One version. ``position`` is the id of the last window that was taken in."""

    position: int = 0
    began: str = ""
    ended: str = ""
    arms: dict[str, Arm] = {}
    #: Windows that were counted on other bins than the reference has.
    foreign: int = 0


class Hour(msgspec.Struct, kw_only=True):
    """What an hour of the day looked like in the version's first week."""

    days: list[str] = []
    counted: Counted = msgspec.field(default_factory=Counted)


class Outcome(NamedTuple):
    """What a turn changed, with the arm and the rate of false alarms of what was opened."""

    arm: str
    event: Event | Change | Burning | Verdict
    false_alarms: float | None = None


#: Reads what is kept of an hour of the day.
ReadHour = Callable[[int], Hour]


def take(
    state: State, windows: Sequence[Window], reference: Profile | None, rules: Rules, read_hour: ReadHour
) -> tuple[list[Outcome], dict[int, Hour]]:
    """Take windows of one version into account, in place. Returns what they changed, and the hours that grew."""
    outcomes: list[Outcome] = []
    grown: dict[int, Hour] = {}
    bins = bins_of(reference) if reference is not None else ""

    def hour(number: int) -> Hour:
        return grown[number] if number in grown else read_hour(number)

    for window in windows:
        state.position = max(state.position, window.id)
        state.began = state.began or window.opened
        state.ended = max(state.ended, window.closed)
        if window.arm not in state.arms:
            state.arms[window.arm] = Arm(drift=Track(stream=Stream.lord(rules.drift.q)))
        arm = state.arms[window.arm]
        if arm.drift.stream.alpha != rules.drift.q:  # another rate is another promise
            arm.drift.stream = Stream.lord(rules.drift.q)
        arm.ended = max(arm.ended, window.closed)
        arm.rows, arm.lost = arm.rows + window.counted.rows, arm.lost + window.counted.lost
        look = Look.of(window)
        if reference is not None and window.counted.rows:
            if has_bins_of(reference, bins, window.counted):
                outcomes += _take_drift(state, arm, window, look, reference, rules, hour, grown)
            else:
                state.foreign += 1
        outcomes += _take_latency(arm, window.arm, look, rules)
    # The last of them rather than the newest of all: a clock that was ahead once makes nothing else old for ever.
    last = dt.datetime.fromisoformat(windows[-1].closed) if windows else None
    for name, arm in list(state.arms.items()):
        old = last is not None and arm.ended and dt.datetime.fromisoformat(arm.ended) < last - _FORGET
        if old and not arm.drift.open and not arm.latency.open:
            del state.arms[name]
    return outcomes, grown


def _take_drift(
    state: State, arm: Arm, window: Window, look: Look, reference: Profile, rules: Rules, hour: ReadHour,
    grown: dict[int, Hour],
) -> list[Outcome]:  # fmt: skip
    track = arm.drift
    if window.arm != "shadow" and window.opened < _week_after(state.began):
        number = int(window.opened[11:13])
        grown[number] = _grown(hour(number), window)
    track.pool = look if track.pool is None else track.pool.plus(look)
    if not is_enough(track.pool, rules.drift):
        return []
    pooled, track.pool = track.pool, None
    usual = _usual(state, pooled, reference, rules, hour)
    events = drift.judge(track, pooled, reference, rules.drift, usual)
    expected = drift.false_alarms(track, rules.drift) if any(e.what == "open" for e in events) else None
    return [Outcome(window.arm, event, expected) for event in events]


def _take_latency(arm: Arm, name: str, look: Look, rules: Rules) -> list[Outcome]:
    pace = arm.latency
    if not look.counted.stages:
        return []
    bare = msgspec.structs.replace(look, counted=Counted(stages=look.counted.stages))
    pace.pool = bare if pace.pool is None else pace.pool.plus(bare)
    if not latency.is_enough(pace.pool, rules.latency):
        return []
    pooled, pace.pool = pace.pool, None
    changes = latency.judge(pace, pooled, rules.latency)
    return [Outcome(name, change, rules.latency.false_alarms) for change in changes]


def _usual(state: State, look: Look, reference: Profile, rules: Rules, hour: ReadHour) -> Profile | None:
    """What the hours of a look usually look like; None while that is not known."""
    if look.since < _week_after(state.began):
        return None
    made = Counted()
    for number in look.hours:
        known = hour(number)
        if len(known.days) < LEAST_DAYS or known.counted.rows < rules.drift.rows:
            return None
        made = made.plus(known.counted)
    return profile_of(reference, made)


def _grown(hour: Hour, window: Window) -> Hour:
    counted = window.counted
    bare = Counted(rows=counted.rows, inputs=counted.inputs, outputs=counted.outputs, bins=counted.bins)
    day = window.opened[:10]
    days = hour.days if day in hour.days else [*hour.days, day]
    return Hour(days=days, counted=hour.counted.plus(bare))


def _week_after(moment: str) -> str:
    return stamp(dt.datetime.fromisoformat(moment) + dt.timedelta(days=WEEK))


# -- as text for a row ---------------------------------------------------------------------------------------------


def unpack_state(text: str | None) -> State:
    return msgspec.msgpack.decode(raw(text), type=State) if text else State()


def unpack_hour(text: str | None) -> Hour:
    return msgspec.msgpack.decode(raw(text), type=Hour) if text else Hour()
