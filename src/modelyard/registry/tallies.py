"""Tallies: what recorders counted for a rollout, in integers that add up, several rows a second.

A recorder numbers its rows, so that a row that is sent again is known; a rollout's controller reads those after its
position and folds them into its evidence. What was folded in is kept for a while, for whoever wants to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from modelyard.registry.database import Database, Row, Work

_COLUMNS = "id, rollout, revision, source, sequence, moment, content"

#: Tallies that stay after they were folded in.
KEPT = 1_000


class Labels(msgspec.Struct, frozen=True, omit_defaults=True):
    """Predictions whose truth arrived, and those of them that were wrong."""

    n: int = 0
    wrong: int = 0

    def plus(self, more: Labels) -> Labels:
        return Labels(self.n + more.n, self.wrong + more.wrong)


class Counts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to the requests of one arm.

    Where a key makes clients stick to their arms, what is counted are clients, each once in a rollout for each kind of
    event (and by its first score, its first label): what one client does again says nothing new about the coin that
    gave it its arm. ``requests`` and ``bad`` are as many as there were all the same. Requests that have no key are
    clients of their own; those that a pin sent to an arm are not counted.
    """

    requests: int = 0
    #: Clients that were not seen before; 0 where nothing sticks.
    clients: int = 0
    errors: int = 0
    #: Outputs with NaN or infinity.
    invalid: int = 0
    #: Slower than the plan's thresholds: half, 5 % and 1 % of the stable version's requests were, before.
    slow50: int = 0
    slow95: int = 0
    slow99: int = 0
    #: Answers that were errors or invalid, as many as there were, also where the others count clients.
    bad: int = 0
    #: Scores by the plan's bins.
    scores: list[int] = []
    labels: Labels = Labels()

    def plus(self, more: Counts) -> Counts:
        return Counts(
            requests=self.requests + more.requests,
            clients=self.clients + more.clients,
            errors=self.errors + more.errors,
            invalid=self.invalid + more.invalid,
            slow50=self.slow50 + more.slow50,
            slow95=self.slow95 + more.slow95,
            slow99=self.slow99 + more.slow99,
            bad=self.bad + more.bad,
            scores=_add(self.scores, more.scores),
            labels=self.labels.plus(more.labels),
        )


class Pairs(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests that a shadow answered too: how often the answers differ, and which was right where that is known."""

    n: int = 0
    differ: int = 0
    live_better: int = 0
    shadow_better: int = 0

    def plus(self, more: Pairs) -> Pairs:
        return Pairs(
            self.n + more.n,
            self.differ + more.differ,
            self.live_better + more.live_better,
            self.shadow_better + more.shadow_better,
        )

    def less(self, before: Pairs) -> Pairs:
        """What came after ``before``."""
        return Pairs(
            self.n - before.n,
            self.differ - before.differ,
            self.live_better - before.live_better,
            self.shadow_better - before.shadow_better,
        )


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what a source counted since its row before, of requests parted by one revision of the route."""

    id: int = 0
    rollout: int
    revision: int
    #: The recorder, and the number that it gave to this row: they grow.
    source: str
    sequence: int
    moment: str
    arms: dict[str, Counts] = {}
    pairs: Pairs | None = None
    #: Arms whose version a server could not serve, and why.
    failed: dict[str, str] = {}


class _Content(msgspec.Struct, omit_defaults=True):
    arms: dict[str, Counts] = {}
    pairs: Pairs | None = None
    failed: dict[str, str] = {}


class Tallies:
    """The tallies of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, tallies: Iterable[Tally]) -> int:
        """Keep these rows, all or none; returns how many were not there already."""
        with self._database.write() as work:
            return sum(insert(work, tally) for tally in tallies)

    def newest(self, rollout: int) -> int:
        """The id of a rollout's newest tally; 0 where there is none."""
        rows = self._database.query("SELECT max(id) AS id FROM tallies WHERE rollout = ?", rollout)
        return rows[0]["id"] or 0

    def after(self, rollout: int, position: int, most: int = 1_000) -> list[Tally]:
        """A rollout's tallies with an id above ``position``, oldest first."""
        with self._database.read() as work:
            return after(work, rollout, position, most)


# -- inside a transaction -----------------------------------------------------------------------------------------


def insert(work: Work, tally: Tally) -> bool:
    """Keep one row; False where its source has sent it, or a later one, before."""
    if tally.sequence <= last(work, tally.rollout, tally.source):
        return False
    newest = work.row("SELECT max(id) AS id FROM tallies")
    content = msgspec.json.encode(_Content(tally.arms, tally.pairs, tally.failed)).decode()
    work.do(
        f"INSERT INTO tallies ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        ((newest and newest["id"]) or 0) + 1, tally.rollout, tally.revision, tally.source, tally.sequence, tally.moment,
        content,
    )  # fmt: skip
    return True


def last(work: Work, rollout: int, source: str) -> int:
    """The number of the last row that a source has sent; -1 where it has sent none."""
    sent = work.row("SELECT max(sequence) AS n FROM tallies WHERE rollout = ? AND source = ?", rollout, source)
    return -1 if sent is None or sent["n"] is None else int(sent["n"])


def after(work: Work, rollout: int, position: int, most: int = 1_000) -> list[Tally]:
    rows = work.rows(
        f"SELECT {_COLUMNS} FROM tallies WHERE rollout = ? AND id > ? ORDER BY id LIMIT {int(most)}", rollout, position
    )
    return [_tally(row) for row in rows]


def forget(work: Work, rollout: int, position: int) -> None:
    """Delete the rows that were folded in long ago; the last of each source stays, by which repeated ones are known."""
    work.do(
        """DELETE FROM tallies WHERE rollout = ? AND id <= ?
           AND id NOT IN (SELECT max(id) FROM tallies WHERE rollout = ? GROUP BY source)""",
        rollout, position - KEPT, rollout,
    )  # fmt: skip


def _tally(row: Row) -> Tally:
    content = msgspec.json.decode(row["content"], type=_Content)
    return Tally(
        id=row["id"], rollout=row["rollout"], revision=row["revision"], source=row["source"],
        sequence=row["sequence"], moment=row["moment"], arms=content.arms, pairs=content.pairs, failed=content.failed,
    )  # fmt: skip


def _add(a: Sequence[int], b: Sequence[int]) -> list[int]:
    if not a or not b:
        return list(a or b)
    return [x + y for x, y in zip(a, b, strict=True)]
