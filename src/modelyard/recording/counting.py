"""Windows being counted: per version and arm, aligned to the clock, closed by time and by rows.

The state of one is a few vectors of integers and a bounded handful of texts, however many rows and whatever values.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

import numpy as np

from modelyard.recording.arms import read_arm
from modelyard.recording.flags import Found
from modelyard.recording.frames import Refusal
from modelyard.recording.rows import Rows
from modelyard.recording.subject import Subject
from modelyard.recording.unseen import Unseen
from modelyard.registry.records import stamp
from modelyard.registry.stages import STAGE_BOUNDS, STAGES
from modelyard.registry.windows import Counted, Window
from modelyard.schema import Array

#: Seconds after its end at which a window closes: what was answered at its end comes a little later.
GRACE_SECONDS = 1.0

#: Magnitudes of numbers beyond the reference's range that a window keeps apart, of one part and of all.
MOST_MAGNITUDES, ALL_MAGNITUDES = 30, 200

#: Code words that a window keeps apart; there are fewer.
MOST_CODES = 40

_BOUNDS = np.array(STAGE_BOUNDS)
_WIDTH = len(STAGE_BOUNDS) + 1
_STARTS = np.arange(len(STAGES)) * _WIDTH


#: The inputs of a version whose texts may not be told.
Hidden = Callable[[Subject], frozenset[str]]


class Open:
    """A window that is open."""

    def __init__(self, subject: Subject, arm: str, start: float, end: float, hidden: frozenset[str]) -> None:
        self.subject = subject
        self.arm = arm
        self.start, self.end = start, end
        #: When it was opened, on a clock that does not jump.
        self.since = monotonic()
        self.requests = self.rows = self.invalid = self.lost = 0
        self.codes: Counter[str] = Counter()
        self.sides = tuple(bins.vector() for bins in subject.bins)
        self.stages = np.zeros(len(STAGES) * _WIDTH, dtype="int32")
        self.outside: dict[str, dict[str, int]] = {}
        self._magnitudes = 0
        self.unseen = Unseen(sum(part.kind == "category" for part in subject.bins[0].parts), hidden)

    def counted(self) -> Counted:
        """All that it has counted until now."""
        parts = [bins.told(vector) for bins, vector in zip(self.subject.bins, self.sides, strict=True)]
        stages = self.stages.reshape(len(STAGES), _WIDTH).tolist()
        return Counted(
            self.requests, dict(self.codes), self.rows, self.invalid, parts[0], parts[1],
            dict(zip(STAGES, stages, strict=True)) if self.stages.any() else {}, self.unseen.told(), self.lost,
            self.subject.bins_id, {name: dict(counts) for name, counts in self.outside.items()},
        )  # fmt: skip

    def tell_far(self, name: str, magnitude: str, times: int) -> None:
        """Count numbers beyond the reference's range, as long as there is room for their magnitude."""
        counts = self.outside.get(name)
        if counts is not None and magnitude in counts:
            counts[magnitude] += times
        elif self._magnitudes < ALL_MAGNITUDES and (counts is None or len(counts) < MOST_MAGNITUDES):
            self._magnitudes += 1
            self.outside.setdefault(name, {})[sys.intern(magnitude)] = times

    def count_codes(self, codes: list[str]) -> None:
        for code, times in Counter(codes).items():
            if code != "ok":
                self.codes[code if code in self.codes or len(self.codes) < MOST_CODES else "other"] += times


class Counting:
    """Every window that is open, of one source."""

    def __init__(
        self, source: str, seconds: float = 60.0, most_rows: int = 100_000, hidden: Hidden = lambda subject: frozenset()
    ) -> None:  # fmt: skip
        self._source = source
        self._hidden = hidden
        self._seconds = seconds
        self._most_rows = most_rows
        self._open: dict[tuple[tuple[str, str, str], str, float], Open] = {}

    def take(self, rows: Rows, found: Found) -> None:
        """Count rows with the flags that were found on them."""
        whole = self._only(rows)
        if whole is not None:
            self._count(self._window(rows.subject, *whole), rows, None, found)
        else:
            names = [arm_name(arm) for arm in rows.arms or [""] * rows.requests]
            keys = list(zip(names, (rows.wall // self._seconds * self._seconds).tolist(), strict=True))
            for key in dict.fromkeys(keys):
                mine = np.fromiter((each == key for each in keys), bool, rows.requests)
                self._count(self._window(rows.subject, *key), rows, mine, found)
        for lost, arm in rows.lost:
            self.lose(rows.subject, lost, arm, float(rows.wall[0]))

    def refuse(self, subject: Subject, refusal: Refusal) -> None:
        """Count a request for which no model was called."""
        window = self._window(subject, arm_name(refusal.arm), self._minute(refusal.wall))
        window.requests += 1
        window.count_codes([refusal.code])
        window.lost += refusal.lost
        for field in refusal.fields:
            subject.bins[0].count_wrong(field, window.sides[0])

    def lose(self, subject: Subject, rows: int, arm: str, wall: float) -> None:
        """Count rows that were not recorded."""
        self._window(subject, arm_name(arm), self._minute(wall)).lost += rows

    def close(self, now: float, *, every: bool = False) -> list[Window]:
        """Take out the windows that are over at ``now`` (seconds since 1970), or all."""
        over = []
        for key, window in list(self._open.items()):
            is_old = monotonic() - window.since >= self._seconds + GRACE_SECONDS
            if every or is_old or now >= window.end + GRACE_SECONDS or window.rows >= self._most_rows:
                over.append(self._row(window, now))
                del self._open[key]
        return over

    def hide(self) -> None:
        """What may be told has changed."""
        for window in self._open.values():
            window.unseen.hide(self._hidden(window.subject))

    def present(self, now: float) -> list[Window]:
        """The open windows, as if they closed now."""
        return [self._row(window, now) for window in self._open.values()]

    def _row(self, window: Open, now: float) -> Window:
        return Window(
            model=window.subject.model, version=window.subject.version, arm=window.arm, source=self._source,
            opened=moment(window.start), closed=moment(min(max(now, window.start), window.end)),
            counted=window.counted(),
        )  # fmt: skip

    def _minute(self, wall: float) -> float:
        return wall // self._seconds * self._seconds

    def _only(self, rows: Rows) -> tuple[str, float] | None:
        """The arm and the beginning of the window of all these rows, where they have only one."""
        arms = set(rows.arms) if rows.arms else {""}
        minutes = {self._minute(float(rows.wall.min())), self._minute(float(rows.wall.max()))}
        return (arm_name(arms.pop()), minutes.pop()) if len(arms) == len(minutes) == 1 else None

    def _window(self, subject: Subject, arm: str, start: float) -> Open:
        key = (subject.key, arm, start)
        found = self._open.get(key)
        if found is None:
            end = start + self._seconds
            found = self._open[key] = Open(subject, arm, start, end, self._hidden(subject))
        return found

    def _count(self, window: Open, rows: Rows, mine: Array | None, found: Found) -> None:
        """Count those requests of ``rows`` that are ``mine``, or all."""
        begun = rows.begins == 0 if mine is None else mine & (rows.begins == 0)
        all_begun = bool(begun.all())
        window.requests += rows.requests if all_begun else int(begun.sum())
        if rows.codes is not None:
            window.count_codes([code for code, is_mine in zip(rows.codes, begun.tolist(), strict=True) if is_mine])
        stages = rows.stages if all_begun else rows.stages[begun]
        places = _BOUNDS.searchsorted(stages.ravel()).reshape(stages.shape) + _STARTS
        window.stages += np.bincount(places.ravel(), minlength=len(window.stages)).astype("int32")
        chosen = None if mine is None else np.flatnonzero(mine[rows.request_of])
        if rows.outputs is not None:
            window.rows += rows.rows if chosen is None else len(chosen)
            odd = rows.subject.flags.invalid(found)
            window.invalid += len(odd) if chosen is None else int(np.isin(odd, chosen).sum())
        for bins, vector, columns in zip(rows.subject.bins, window.sides, (rows.inputs, rows.outputs), strict=True):
            if columns is not None and bins.size:
                chosen_columns = columns if chosen is None else columns.take(chosen)
                bins.count(chosen_columns, vector, window.unseen.add, window.tell_far)


def arm_name(told: str) -> str:
    """The name of an arm, without its route."""
    return read_arm(told).arm


def moment(wall: float) -> str:
    """Seconds since 1970 as rows of the registry write them."""
    return stamp(datetime.fromtimestamp(wall, UTC))
