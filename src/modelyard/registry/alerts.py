"""Alerts: findings that met a rule, what was sent of them to whom, and what people said to them.

An alert names all findings of one cause that its rule asks for. Deliveries are rows too, so that what was to be sent is
sent by whoever comes next, after any crash; a receiver may get one twice, and can tell by the delivery's number.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from typing import Any, Literal

import msgspec

from modelyard.errors import InvalidInput, NotFound
from modelyard.registry import journal
from modelyard.registry.database import Database, Row, Work
from modelyard.registry.findings import KINDS, Severity
from modelyard.registry.records import author, check_name, check_text, now, read_moment, shown, stamp

_COLUMNS = "id, rule, model, version, finding, state, opened, closed, content"
_DELIVERY = "id, alert, sink, state, attempts, due, content"
_SILENCE = "id, model, kind, subject, until, who, why"

_SPAN = re.compile(r"(?P<count>[1-9][0-9]{0,5})(?P<unit>m|h|d)")
_SPANS = {"m": 60, "h": 3600, "d": 86_400}

#: ``silenced``: nobody is told until the silence ends; ``acknowledged``: somebody looks after it.
State = Literal["open", "silenced", "acknowledged", "closed"]


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alert. Moments are ISO 8601 in UTC."""

    id: int = 0
    rule: str
    model: str
    version: str
    arm: str = ""
    #: What kinds of findings it gathers: ``inputs``, ``outputs``, ``latency``, ``budget`` or ``accuracy``.
    about: str
    #: The first finding, and all of them.
    finding: int
    findings: tuple[int, ...] = ()
    state: State = "open"
    severity: Severity = "warning"
    opened: str
    closed: str | None = None
    #: One line, and all that there is to say.
    title: str
    text: str = ""
    #: Where the evidence is: an address or a command, by what it shows.
    links: dict[str, str] = {}
    acknowledged: str = ""


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something to be sent. ``dead`` is what no attempt could bring to its receiver."""

    id: int = 0
    #: 0 for a test.
    alert: int
    sink: str
    event: Literal["open", "close", "test"] = "open"
    state: Literal["waiting", "sent", "dead"] = "waiting"
    attempts: int = 0
    #: When it is to be tried next, or was done with.
    due: str
    #: What went wrong last.
    error: str = ""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Until a moment nobody is told of findings of these; "" is any."""

    id: int = 0
    model: str = ""
    kind: str = ""
    subject: str = ""
    until: str
    who: str
    why: str = ""

    def covers(self, model: str, kind: str, subject: str) -> bool:
        asked = ((self.model, model), (self.kind, kind), (self.subject, subject))
        return all(ours in ("", theirs) for ours, theirs in asked)


class Alerts:
    """The alerts of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, number: int) -> Alert:
        """Raises NotFound."""
        with self._database.read() as work:
            return find(work, number)

    def find(self, model: str | None = None, *, is_open: bool = False, most: int = 200) -> list[Alert]:
        """Alerts, the newest first."""
        sql, values = f"SELECT {_COLUMNS} FROM alerts WHERE id > 0", []
        if model is not None:
            sql, values = f"{sql} AND model = ?", [model]
        if is_open:
            sql += " AND closed IS NULL"
        return [_alert(row) for row in self._database.query(f"{sql} ORDER BY id DESC LIMIT {int(most)}", *values)]

    def are_open(self) -> int:
        """How many are not over."""
        return int(self._database.query("SELECT count(*) AS n FROM alerts WHERE closed IS NULL")[0]["n"])

    def acknowledge(self, number: int, *, why: str = "") -> Alert:
        """Say that somebody looks after it. Raises NotFound, InvalidInput where it is over."""
        check_text("why", why)
        with self._database.write() as work:
            alert = find(work, number)
            if alert.closed:
                raise InvalidInput(f"alert {number} was over at {alert.closed}: there is nothing to acknowledge")
            told = f"{author()}, {now()}" + (f": {why}" if why else "")
            made = msgspec.structs.replace(alert, state="acknowledged", acknowledged=told)
            save(work, made)
            journal.write(work, "acknowledge", alert.model, why=why, detail=f"alert {number}: {alert.title}")
            return made

    def silence(
        self, model: str = "", *, kind: str = "", subject: str = "", until: str = "2h", why: str = ""
    ) -> Silence:
        """Tell nobody of such findings for a while: ``30m``, ``2h``, ``7d``, or until a date."""
        if model:
            check_name(model)
        if kind and kind not in KINDS:
            raise NotFound.among("kind of findings", kind, KINDS)
        for what, text in (("subject", subject), ("why", why)):
            check_text(what, text, 1_000)
        ends = _moment(until)
        with self._database.write() as work:
            last = work.row("SELECT max(id) AS id FROM silences")
            made = Silence(
                id=((last and last["id"]) or 0) + 1, model=model, kind=kind, subject=subject, until=ends, who=author(),
                why=why,
            )  # fmt: skip
            work.do(
                f"INSERT INTO silences ({_SILENCE}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                made.id, made.model, made.kind, made.subject, made.until, made.who, made.why,
            )  # fmt: skip
            asked = ", ".join(f"{name} {text}" for name, text in (("kind", kind), ("subject", subject)) if text)
            journal.write(work, "silence", model, why=why, detail=f"{asked or 'everything'} until {made.until}")
            return made

    def unsilence(self, number: int) -> None:
        """End a silence now. Raises NotFound."""
        with self._database.write() as work:
            row = work.row(f"SELECT {_SILENCE} FROM silences WHERE id = ?", number)
            if row is None:
                raise NotFound(f"no such silence: {number}", hint="modelyard alerts list shows those in force")
            work.do("UPDATE silences SET until = ? WHERE id = ? AND until > ?", now(), number, now())
            journal.write(work, "unsilence", row["model"], detail=f"silence {number}")

    def silences(self) -> list[Silence]:
        """Those in force."""
        with self._database.read() as work:
            return silences(work)

    def deliveries(self, alert: int | None = None, *, state: str | None = None, most: int = 200) -> list[Delivery]:
        """Deliveries, the newest first."""
        sql = f"SELECT {_DELIVERY} FROM deliveries WHERE id > 0"
        values: list[Any] = []
        for name, value in (("alert", alert), ("state", state)):
            if value is not None:
                sql, values = f"{sql} AND {name} = ?", [*values, value]
        return [_delivery(row) for row in self._database.query(f"{sql} ORDER BY id DESC LIMIT {int(most)}", *values)]

    def waiting(self, most: int = 100, *, without: Collection[str] = ()) -> list[Delivery]:
        """What is still to be sent to other sinks than some, what was due first at the head."""
        others = f" AND sink NOT IN ({', '.join('?' * len(without))})" if without else ""
        rows = self._database.query(
            f"SELECT {_DELIVERY} FROM deliveries WHERE state = 'waiting'{others} ORDER BY due, id LIMIT {int(most)}",
            *without,
        )
        return [_delivery(row) for row in rows]

    def count(self) -> dict[str, int]:
        """How many deliveries there are in each state."""
        rows = self._database.query("SELECT state, count(*) AS n FROM deliveries GROUP BY state ORDER BY state")
        return {row["state"]: row["n"] for row in rows}


# -- inside a transaction ------------------------------------------------------------------------------------------


def find(work: Work, number: int) -> Alert:
    """Raises NotFound."""
    row = work.row(f"SELECT {_COLUMNS} FROM alerts WHERE id = ?", number)
    if row is None:
        raise NotFound(f"no such alert: {number}", hint="modelyard alerts list")
    return _alert(row)


def opened(work: Work, model: str | None = None) -> list[Alert]:
    """The alerts that are not over, oldest first."""
    asked = "" if model is None else " AND model = ?"
    rows = work.rows(
        f"SELECT {_COLUMNS} FROM alerts WHERE closed IS NULL{asked} ORDER BY id", *([] if model is None else [model])
    )
    return [_alert(row) for row in rows]


def insert(work: Work, alert: Alert) -> Alert:
    """Keep a new one; returns it with its id."""
    last = work.row("SELECT max(id) AS id FROM alerts")
    made = msgspec.structs.replace(alert, id=((last and last["id"]) or 0) + 1)
    work.do(
        f"INSERT INTO alerts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        made.id, made.rule, made.model, made.version, made.finding, made.state, made.opened, made.closed,
        _encoded(made),
    )  # fmt: skip
    return made


def save(work: Work, alert: Alert) -> None:
    """Keep what changed of one."""
    work.do(
        "UPDATE alerts SET state = ?, closed = ?, content = ? WHERE id = ?",
        alert.state, alert.closed, _encoded(alert), alert.id,
    )  # fmt: skip


def silences(work: Work) -> list[Silence]:
    """Those in force."""
    rows = work.rows(f"SELECT {_SILENCE} FROM silences WHERE until > ? ORDER BY id", now())
    return [msgspec.convert(row, Silence) for row in rows]


def send(work: Work, delivery: Delivery) -> Delivery:
    """Have something sent; returns it with its id."""
    last = work.row("SELECT max(id) AS id FROM deliveries")
    made = msgspec.structs.replace(delivery, id=((last and last["id"]) or 0) + 1)
    work.do(
        f"INSERT INTO deliveries ({_DELIVERY}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        made.id, made.alert, made.sink, made.state, made.attempts, made.due, _encoded(made),
    )  # fmt: skip
    return made


def settle(work: Work, delivery: Delivery) -> None:
    """Keep how an attempt ended."""
    work.do(
        "UPDATE deliveries SET state = ?, attempts = ?, due = ?, content = ? WHERE id = ?",
        delivery.state, delivery.attempts, delivery.due, _encoded(delivery), delivery.id,
    )  # fmt: skip


def _moment(until: str) -> str:
    span = _SPAN.fullmatch(until)
    if span is None:
        ends = read_moment(until)
    else:
        seconds = int(span["count"]) * _SPANS[span["unit"]]
        ends = stamp(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds))
    if ends <= now():
        raise InvalidInput.at("until", "a moment to come, like 30m, 2h, 7d or 2026-12-24", shown(until))
    return ends


def _encoded(thing: Any) -> str:
    return msgspec.json.encode(thing).decode()


def _alert(row: Row) -> Alert:
    return msgspec.structs.replace(msgspec.json.decode(row["content"], type=Alert), id=row["id"])


def _delivery(row: Row) -> Delivery:
    return msgspec.structs.replace(msgspec.json.decode(row["content"], type=Delivery), id=row["id"])
