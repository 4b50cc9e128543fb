"""Leases: of several processes that share a registry, one at a time acts.

Clocks are not asked. Whoever holds a lease counts up its ``beat``; another takes it over once it has seen the same beat
for long enough by its own steady clock. Each holder has a ``term`` of its own, and what it decides is written only
while the term is still in force (``fence``), so that one who woke up late decides nothing twice.
"""

from __future__ import annotations

from time import monotonic

from modelyard.errors import Conflict
from modelyard.registry.database import Database, Work

#: The lease of whoever reads windows and tallies, and decides.
CONTROL = "control"

#: Seconds without a beat after which a lease is free, and how often its holder should beat.
FREE_SECONDS = 6.0
BEAT_SECONDS = 1.5


class Lease:
    """One process's claim to a lease. Not for several threads."""

    def __init__(self, database: Database, name: str, holder: str, *, free_seconds: float = FREE_SECONDS) -> None:
        self._database = database
        self.name = name
        self.holder = holder
        self._free_seconds = free_seconds
        #: What was seen last of another holder, and since when.
        self._seen: tuple[int, int] | None = None
        self._since = 0.0
        self._term = 0
        self._beaten = 0.0

    @property
    def term(self) -> int:
        """The term in which we hold it; 0 where we do not, or have not beaten for too long to be sure."""
        return self._term if self._term and monotonic() - self._beaten < self._free_seconds else 0

    def beat(self) -> bool:
        """Keep the lease, or take it where it is free; whether it is ours. Raises RemoteFailed."""
        with self._database.write() as work:
            row = work.row("SELECT holder, term, beat FROM leases WHERE name = ?", self.name)
            if row is None:
                work.do("INSERT INTO leases (name, holder, term, beat) VALUES (?, ?, 1, 0)", self.name, self.holder)
                return self._hold(1)
            if self._term and (row["holder"], row["term"]) == (self.holder, self._term):
                work.do("UPDATE leases SET beat = beat + 1 WHERE name = ?", self.name)
                return self._hold(self._term)
            self._term = 0
            if row["holder"] and not self._is_free((row["term"], row["beat"])):
                return False
            term = row["term"] + 1
            work.do("UPDATE leases SET holder = ?, term = ?, beat = 0 WHERE name = ?", self.holder, term, self.name)
            return self._hold(term)

    def release(self) -> None:
        """Let others have it at once."""
        if not self._term:
            return
        with self._database.write() as work:
            work.do(
                "UPDATE leases SET holder = '' WHERE name = ? AND holder = ? AND term = ?",
                self.name, self.holder, self._term,
            )  # fmt: skip
        self._term = 0

    def fence(self, work: Work) -> None:
        """Inside the transaction that writes a decision: raises Conflict where the lease is another's by now."""
        row = work.row("SELECT holder, term FROM leases WHERE name = ?", self.name)
        if not self._term or row is None or (row["holder"], row["term"]) != (self.holder, self._term):
            self._term = 0
            raise Conflict(f"the lease {self.name} is not held by {self.holder} any more: nothing was decided")

    def _hold(self, term: int) -> bool:
        self._term, self._beaten, self._seen = term, monotonic(), None
        return True

    def _is_free(self, seen: tuple[int, int]) -> bool:
        now = monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since >= self._free_seconds


class Onlooker:
    """Sees whether somebody holds a lease, by its beats, without wanting it. Not for several threads."""

    def __init__(self, database: Database, name: str, *, free_seconds: float = FREE_SECONDS) -> None:
        self._database = database
        self._name = name
        self._free_seconds = free_seconds
        self._seen: tuple[str, int, int] | None = None
        self._since = 0.0

    def is_held(self) -> bool:
        """As far as anybody can know who has not looked for long. Raises RemoteFailed."""
        rows = self._database.query("SELECT holder, term, beat FROM leases WHERE name = ?", self._name)
        if not rows or not rows[0]["holder"]:
            return False
        seen, now = (rows[0]["holder"], rows[0]["term"], rows[0]["beat"]), monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since < self._free_seconds


def holder_of(database: Database, name: str) -> str:
    """Who holds a lease, as far as anybody knows; "" for nobody."""
    rows = database.query("SELECT holder FROM leases WHERE name = ?", name)
    return rows[0]["holder"] if rows else ""
