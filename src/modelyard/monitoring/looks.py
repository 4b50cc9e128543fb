"""Looks: closed windows of one arm, pooled until they are large enough to claim anything."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from modelyard.monitoring.rules import DriftRules
from modelyard.profile import Profile
from modelyard.registry.windows import Counted, Part, Window


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in one or several windows."""

    #: Moments, ISO 8601 in UTC, and the ids of the first and the last window.
    since: str
    until: str
    first: int
    last: int
    counted: Counted

    @classmethod
    def of(cls, window: Window) -> Look:
        return cls(
            since=window.opened, until=window.closed, first=window.id, last=window.id, counted=window.counted
        )  # fmt: skip

    def plus(self, more: Look) -> Look:
        return Look(
            since=min(self.since, more.since),
            until=max(self.until, more.until),
            first=min(self.first, more.first),
            last=max(self.last, more.last),
            counted=self.counted.plus(more.counted),
        )

    @property
    def seconds(self) -> float:
        """From its beginning to its end by the recorders' clocks; a clock that was turned back makes it longer."""
        return seconds_between(self.since, self.until)

    @property
    def hours(self) -> tuple[int, ...]:
        """The hours of the day, UTC, in which it lies."""
        start, end = (dt.datetime.fromisoformat(moment) for moment in (self.since, self.until))
        last = end - dt.timedelta(microseconds=1) if end > start else end
        whole = last.replace(minute=0, second=0, microsecond=0) - start.replace(minute=0, second=0, microsecond=0)
        return tuple(sorted({(start.hour + n) % 24 for n in range(min(24, whole // dt.timedelta(hours=1) + 1))}))


def seconds_between(since: str, until: str) -> float:
    """Seconds from one moment to another, never negative."""
    return max(0.0, (dt.datetime.fromisoformat(until) - dt.datetime.fromisoformat(since)).total_seconds())


def is_enough(look: Look, rules: DriftRules) -> bool:
    """Whether a look is large enough to be judged; on little traffic it is taken as it is after a day."""
    if look.counted.rows >= rules.rows and look.seconds >= rules.seconds:
        return True
    return look.counted.rows >= rules.few and look.seconds >= rules.patience * 3600


def has_bins_of(reference: Profile, bins: str, counted: Counted) -> bool:
    """Whether a window was counted on the bins of this reference, which are called ``bins``."""
    if counted.bins and counted.bins != bins:
        return False
    sides = ((reference.inputs, counted.inputs), (reference.outputs, counted.outputs))
    return all(
        len(parts) == len(frozen) and all(len(p.counts) == len(f.counts) for p, f in zip(parts, frozen, strict=True))
        for frozen, parts in sides
    )


def pool(counted: Iterable[Counted]) -> Counted:
    """What many windows counted on the same bins, but for the texts and numbers that those have no place for: as adding
    one after the other, in a fraction of the time.
    """
    those = list(counted)
    codes: Counter[str] = Counter()
    for each in those:
        codes.update(each.codes)
    stages = {name: None for each in those for name in each.stages}
    return Counted(
        requests=sum(each.requests for each in those), codes=dict(codes), rows=sum(each.rows for each in those),
        invalid=sum(each.invalid for each in those), lost=sum(each.lost for each in those),
        inputs=_parts([each.inputs for each in those if each.inputs]),
        outputs=_parts([each.outputs for each in those if each.outputs]),
        stages={name: _column([each.stages[name] for each in those if each.stages.get(name)]) for name in stages},
        bins=next((each.bins for each in those if each.bins), ""),
    )  # fmt: skip


def _parts(sides: Sequence[Sequence[Part]]) -> list[Part]:
    return [
        Part(_column([each.counts for each in same]), _column([each.counters for each in same]))
        for same in zip(*sides, strict=True)
    ]


def _column(rows: Sequence[Sequence[int]]) -> list[int]:
    return list(map(sum, zip(*rows, strict=True)))
