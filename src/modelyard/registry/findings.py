"""Findings: what detectors found, one row for each episode, from when it began to when it was over.

Rows are written by whoever watches, inside its own transactions. A finding says what it rests on: how many rows, how
large the effect is and within which bounds, how often such a thing is found without a cause, and from which windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from modelyard.errors import NotFound
from modelyard.registry.database import Database, Row, Work

_COLUMNS = "id, model, version, kind, subject, opened, closed, content"

#: Kinds, and what each says of its subject.
KINDS = {
    "drift": "an input is distributed otherwise than the reference",
    "prediction": "predictions are distributed otherwise than the reference's",
    "score": "scores are distributed otherwise than the reference's",
    "stuck": "a column has one value only",
    "alive": "a column has values that was constant or missing",
    "unit": "a column is in another unit",
    "category": "texts that the reference does not have",
    "missing": "more or fewer values are missing",
    "type": "values of the wrong type",
    "invalid": "predictions that are no numbers",
    "latency": "answers take longer",
    "budget": "errors or slow answers use up their budget",
    "accuracy": "predictions are wrong more often",
}

Severity = Literal["info", "warning", "error", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error", "critical")


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a finding rests on. Rows, or requests, of the reference and of the live side."""

    #: What was measured: ``ks``, ``psi``, ``share`` ...
    measure: str
    value: float
    low: float
    high: float
    #: What ``low`` had to exceed.
    floor: float
    reference: int
    live: int
    #: The chance of what was seen, or more, if nothing changed.
    p: float | None = None
    #: The moments between which the live rows came, and the first and the last window that counted them.
    since: str = ""
    until: str = ""
    windows: tuple[int, int] = (0, 0)
    #: Further figures by name: distances with their critical values, texts, quantiles.
    more: dict[str, Any] = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One episode. Moments are ISO 8601 in UTC."""

    id: int = 0
    model: str
    version: str
    kind: str
    #: The feature, output, stage or objective.
    subject: str
    opened: str
    closed: str | None = None
    #: Of which arm of a route; "" where none parted the requests.
    arm: str = ""
    severity: Severity = "warning"
    #: What happened, in one sentence.
    told: str
    evidence: Evidence
    #: What was seen last while it was open, and in how many looks.
    latest: Evidence | None = None
    looks: int = 1
    #: How many such findings are to be expected a month where nothing changes, at most.
    false_alarms: float | None = None
    #: Why it was closed.
    why: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is about, among the findings of one version: no two that are open have the same."""
        return (self.arm, self.kind, self.subject)


class Findings:
    """The findings of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, number: int) -> Finding:
        """Raises NotFound."""
        rows = self._database.query(f"SELECT {_COLUMNS} FROM findings WHERE id = ?", number)
        if not rows:
            raise NotFound(f"no such finding: {number}", hint="modelyard monitor NAME lists those that are open")
        return _finding(rows[0])

    def find(
        self, model: str | None = None, version: str | None = None, *, kind: str | None = None, is_open: bool = False,
        since: str = "", most: int = 1_000,
    ) -> list[Finding]:  # fmt: skip
        """Findings, the newest first; those only that are open, or were at any time after ``since``."""
        sql = f"SELECT {_COLUMNS} FROM findings WHERE (closed IS NULL OR closed > ?)"
        values: list[Any] = [since]
        for name, value in (("model", model), ("version", version), ("kind", kind)):
            if value is not None:
                sql += f" AND {name} = ?"
                values.append(value)
        if is_open:
            sql += " AND closed IS NULL"
        return [_finding(row) for row in self._database.query(f"{sql} ORDER BY id DESC LIMIT {int(most)}", *values)]


# -- inside a transaction ------------------------------------------------------------------------------------------


def opened(work: Work, model: str, version: str) -> list[Finding]:
    """The findings of a version that are open, oldest first."""
    rows = work.rows(
        f"SELECT {_COLUMNS} FROM findings WHERE model = ? AND version = ? AND closed IS NULL ORDER BY id",
        model, version,
    )  # fmt: skip
    return [_finding(row) for row in rows]


def numbered(work: Work, numbers: Iterable[int]) -> list[Finding]:
    """The findings with these ids, in their order."""
    found = []
    for number in numbers:
        found += [_finding(row) for row in work.rows(f"SELECT {_COLUMNS} FROM findings WHERE id = ?", number)]
    return found


def insert(work: Work, finding: Finding) -> Finding:
    """Keep a new one; returns it with its id."""
    last = work.row("SELECT max(id) AS id FROM findings")
    made = msgspec.structs.replace(finding, id=((last and last["id"]) or 0) + 1)
    work.do(
        f"INSERT INTO findings ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        made.id, made.model, made.version, made.kind, made.subject, made.opened, made.closed, _content(made),
    )  # fmt: skip
    return made


def save(work: Work, finding: Finding) -> None:
    """Keep what changed of one: its latest evidence, or that it is closed."""
    work.do(
        "UPDATE findings SET closed = ?, content = ? WHERE id = ?", finding.closed, _content(finding), finding.id
    )  # fmt: skip


def _content(finding: Finding) -> str:
    return msgspec.json.encode(finding).decode()


def _finding(row: Row) -> Finding:
    return msgspec.structs.replace(msgspec.json.decode(row["content"], type=Finding), id=row["id"])
