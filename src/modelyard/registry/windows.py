"""Windows: what was counted of one arm of one version in a stretch of time, in integers that add up.

Bins are those of the version's reference profile, which are frozen, so that a window holds counts only, in the order of
the profile's parts. Windows of several workers, machines and hours merge by addition (``Window.plus``).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import Conflict
from modelyard.profile import COUNTERS, Counts, Profile
from modelyard.registry.database import Database, Row, Work
from modelyard.registry.packing import pack, raw
from modelyard.schema import Array

_COLUMNS = "id, model, version, arm, span, opened, closed, source, rows_seen, content"

#: Texts that no reference row had, kept by name in a window, and characters of each.
MOST_UNSEEN = 20
LONGEST_UNSEEN = 60


class Part(msgspec.Struct, array_like=True):
    """The counts of one part of a profile (``profile.Counts``), without its bins."""

    counts: list[int]
    #: In the order of ``profile.COUNTERS``.
    counters: list[int]

    def plus(self, more: Part) -> Part:
        return Part(_add(self.counts, more.counts), _add(self.counters, more.counters))


class Counted(msgspec.Struct, array_like=True):
    """All that a window counts."""

    #: Requests, and those of them that were refused or failed, by code word.
    requests: int = 0
    codes: dict[str, int] = {}
    #: Rows that were predicted, and those whose outputs held NaN or infinity.
    rows: int = 0
    invalid: int = 0
    inputs: list[Part] = []
    outputs: list[Part] = []
    #: Requests by the time that each of ``stages.STAGES`` took, on the bounds ``STAGE_BOUNDS``; those beyond come last.
    stages: dict[str, list[int]] = {}
    #: Texts that the reference did not have, by field and text.
    unseen: dict[str, dict[str, int]] = {}
    #: What was not recorded: rows that the recorder had no room for.
    lost: int = 0
    #: Which bins the parts were counted on; "" where there are no parts.
    bins: str = ""
    #: Numbers that lay below or above the reference's range, by part and ``magnitudes``: what tells a changed unit.
    outside: dict[str, dict[str, int]] = {}

    def fits(self, more: Counted) -> bool:
        """Whether both were counted on the same bins, as far as they were counted on any."""
        return self.bins == more.bins or not (self.bins and more.bins)

    def plus(self, more: Counted) -> Counted:
        return Counted(
            self.requests + more.requests, _sum(self.codes, more.codes), self.rows + more.rows,
            self.invalid + more.invalid, _parts(self.inputs, more.inputs), _parts(self.outputs, more.outputs),
            {name: _add(self.stages.get(name, []), more.stages.get(name, []))
             for name in self.stages.keys() | more.stages.keys()},
            {field: top(_sum(self.unseen.get(field, {}), more.unseen.get(field, {})))
             for field in self.unseen.keys() | more.unseen.keys()},
            self.lost + more.lost, self.bins or more.bins,
            {name: _sum(self.outside.get(name, {}), more.outside.get(name, {}))
             for name in self.outside.keys() | more.outside.keys()},
        )  # fmt: skip


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Moments are ISO 8601 in UTC."""

    id: int = 0
    model: str
    #: "" for a bundle that no registry has numbered.
    version: str
    #: ``stable``, ``canary`` ...; "" where no route parted the requests.
    arm: str = ""
    #: ``live``, or what older ones were merged to: ``hour`` or ``day``.
    span: str = "live"
    opened: str
    closed: str
    #: Which machine's recorder counted it; "" where several were merged.
    source: str = ""
    counted: Counted

    def plus(self, more: Window) -> Window:
        """Both as one. Raises Conflict where they are not of one version, or were counted on different bins."""
        if (self.model, self.version) != (more.model, more.version) or not self.counted.fits(more.counted):
            raise Conflict(f"windows of {self.model}:{self.version} and {more.model}:{more.version} do not add up")
        return msgspec.structs.replace(
            self,
            id=0,
            arm=self.arm if self.arm == more.arm else "",
            source=self.source if self.source == more.source else "",
            opened=min(self.opened, more.opened),
            closed=max(self.closed, more.closed),
            counted=self.counted.plus(more.counted),
        )


class Windows:
    """The windows of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, windows: Iterable[Window], *, source: str = "", batch: str = "") -> bool:
        """Keep closed windows, all or none. A ``batch`` of a ``source`` is kept once: False where it was its last."""
        with self._database.write() as work:
            if batch:
                mine = ("recorded", source, "")
                row = work.row("SELECT content FROM states WHERE name = ? AND model = ? AND version = ?", *mine)
                if row is not None and row["content"] == batch:
                    return False
                work.do("DELETE FROM states WHERE name = ? AND model = ? AND version = ?", *mine)
                work.do("INSERT INTO states (name, model, version, content) VALUES (?, ?, ?, ?)", *mine, batch)
            for window in windows:
                insert(work, window)
        return True

    def find(
        self,
        model: str,
        version: str | None = None,
        *,
        since: str = "",
        until: str = "9999",
        after: int = 0,
        arm: str | None = None,
        span: str | None = None,
        most: int = 10_000,
    ) -> list[Window]:
        """Windows of a model that closed after ``since`` and not after ``until``, oldest first; with an id above
        ``after``. Those that older ones were merged to have ids too: who follows new ones asks for the span ``live``.
        """
        sql = f"SELECT {_COLUMNS} FROM windows WHERE model = ? AND closed > ? AND closed <= ? AND id > ?"
        values: list[Any] = [model, since, until, after]
        for name, value in (("version", version), ("arm", arm), ("span", span)):
            if value is not None:
                sql += f" AND {name} = ?"
                values.append(value)
        rows = self._database.query(f"{sql} ORDER BY closed, id LIMIT {int(most)}", *values)
        return [_window(row) for row in rows]

    def following(self, after: int) -> list[tuple[str, str]]:
        """Every model and version of which there are live windows with an id above ``after``."""
        rows = self._database.query(
            "SELECT DISTINCT model, version FROM windows WHERE id > ? AND span = 'live' ORDER BY model, version", after
        )
        return [(row["model"], row["version"]) for row in rows]

    def after(self, model: str, version: str, position: int, most: int = 1_000) -> list[Window]:
        """Live windows of a version with an id above ``position``, in the order in which they were kept."""
        rows = self._database.query(
            f"""SELECT {_COLUMNS} FROM windows WHERE model = ? AND version = ? AND span = 'live' AND id > ?
                ORDER BY id LIMIT {int(most)}""",
            model, version, position,
        )  # fmt: skip
        return [_window(row) for row in rows]

    def newest(self) -> int:
        """The highest id that was given; 0 where there is none."""
        return self._database.query("SELECT max(id) AS id FROM windows")[0]["id"] or 0

    def models(self) -> list[tuple[str, str]]:
        """Every model and version of which there are windows."""
        rows = self._database.query("SELECT DISTINCT model, version FROM windows ORDER BY model, version")
        return [(row["model"], row["version"]) for row in rows]

    def merge(self, before: str, span: str) -> int:
        """Merge windows of a finer span that closed before a moment: ``live`` ones to hours, hours to days. Returns how
        many rows there are fewer.
        """
        finer, length = {"hour": ("live", 13), "day": ("hour", 10)}[span]
        due = "FROM windows WHERE span = ? AND closed < ?"
        fewer = 0
        for found in self._database.query(f"SELECT DISTINCT model, version {due}", finer, before):
            with self._database.write() as work:
                rows = work.rows(
                    f"SELECT {_COLUMNS} {due} AND model = ? AND version = ? ORDER BY id",
                    finer, before, found["model"], found["version"],
                )  # fmt: skip
                merged: dict[tuple[str, ...], Window] = {}
                for window in map(_window, rows):
                    key = (window.arm, window.opened[:length], window.counted.bins)
                    merged[key] = merged[key].plus(window) if key in merged else window
                # First the new, then the old go: no id is ever given a second time.
                for window in merged.values():
                    insert(work, msgspec.structs.replace(window, span=span))
                for row in rows:
                    work.do("DELETE FROM windows WHERE id = ?", row["id"])
                fewer += len(rows) - len(merged)
        return fewer

    def forget(self, before: str) -> None:
        """Delete the windows that closed before a moment, but for the newest, whose id is not to be given again."""
        with self._database.write() as work:
            work.do("DELETE FROM windows WHERE closed < ? AND id < (SELECT max(id) FROM windows)", before)


def insert(work: Work, window: Window) -> int:
    """Keep one window inside a transaction; returns its id."""
    last = work.row("SELECT max(id) AS id FROM windows")
    number = ((last and last["id"]) or 0) + 1
    work.do(
        f"INSERT INTO windows ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        number, window.model, window.version, window.arm, window.span, window.opened, window.closed, window.source,
        window.counted.rows, pack(window.counted),
    )  # fmt: skip
    return number


def bins_of(reference: Profile) -> str:
    """What the bins of a reference are called: the same for profiles whose bins are the same."""
    return hashlib.sha256(reference.empty().to_json()).hexdigest()[:12]


def profile_of(reference: Profile, counted: Counted) -> Profile:
    """What was counted, on the reference's bins. Raises Conflict where it was counted on others, or on none."""

    def side(frozen: Sequence[Counts], parts: Sequence[Part]) -> list[Counts]:
        if len(parts) != len(frozen) or any(len(p.counts) != len(f.counts) for p, f in zip(parts, frozen, strict=True)):
            raise Conflict("this window was counted on other bins than the reference has")
        return [
            msgspec.structs.replace(f, counts=list(p.counts), **dict(zip(COUNTERS, p.counters, strict=True)))
            for f, p in zip(frozen, parts, strict=True)
        ]

    return Profile(
        rows=counted.rows,
        inputs=side(reference.inputs, counted.inputs),
        outputs=side(reference.outputs, counted.outputs),
    )


def parts_of(counts: Iterable[Counts]) -> list[Part]:
    """The counts of a profile's parts, without their bins."""
    return [Part(list(part.counts), [getattr(part, name) for name in COUNTERS]) for part in counts]


def magnitudes(numbers: Array) -> dict[str, int]:
    """How many of these numbers lie in which tenth of a decade: ``+13`` from 10^1.3 up to 10^1.4, ``-13`` for their
    negatives, ``+inf``, ``-inf`` and ``0``.
    """
    with np.errstate(divide="ignore"):
        powers = np.floor(10 * np.log10(np.abs(numbers)))
    signed = zip(np.sign(numbers).tolist(), powers.tolist(), strict=True)
    return {
        "0" if not sign else f"{'+' if sign > 0 else '-'}{power if math.isinf(power) else int(power)}": times
        for (sign, power), times in Counter(signed).items()
    }


def top(texts: dict[str, int]) -> dict[str, int]:
    """The most frequent of these texts, as many as a window keeps."""
    if len(texts) <= MOST_UNSEEN:
        return texts
    return dict(sorted(texts.items(), key=lambda item: (-item[1], item[0]))[:MOST_UNSEEN])


_decode = msgspec.msgpack.Decoder(Counted).decode


def unpack(text: str) -> Counted:
    """What ``packing.pack`` made of what a window counted."""
    return _decode(raw(text))


def _window(row: Row) -> Window:
    return Window(
        id=row["id"], model=row["model"], version=row["version"], arm=row["arm"], span=row["span"],
        opened=row["opened"], closed=row["closed"], source=row["source"], counted=unpack(row["content"]),
    )  # fmt: skip


def _add(a: Sequence[int], b: Sequence[int]) -> list[int]:
    if not a or not b:
        return list(a or b)
    return [x + y for x, y in zip(a, b, strict=True)]


def _parts(a: Sequence[Part], b: Sequence[Part]) -> list[Part]:
    if not a or not b:
        return list(a or b)
    return [x.plus(y) for x, y in zip(a, b, strict=True)]


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in a.keys() | b.keys()}
