"""Labels: the truth about predictions, kept exactly once.

What is told twice changes nothing. Of several labels of one prediction that which became known last counts; where
nobody says when, that which came last. So labels that say when end in the same state in whatever order they come.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Sequence
from time import monotonic, sleep

import msgspec

from modelyard.registry import states
from modelyard.registry.database import Database, Row, Work
from modelyard.registry.records import now, stamp
from modelyard.truth import Label, Receipt

#: Labels that one transaction keeps: others who write wait no longer than that takes.
CHUNK = 5_000

#: Between two transactions others get this part of the time of one, where they would not get any.
LEFT = 0.3

#: Former labels of a prediction that are remembered.
KEPT = 4

#: The row of ``states`` that has a model's totals.
_NAME = "labels"

_encode = msgspec.json.encode
_History = list[tuple[str, str]]
_read_history = msgspec.json.Decoder(_History).decode


class Totals(msgspec.Struct, kw_only=True):
    """What a model's labels come to."""

    #: How many were told, in all, and of how many predictions.
    received: int = 0
    predictions: int = 0
    #: Predictions that were told different labels.
    corrected: int = 0
    #: Predictions that were found, and whose label is counted; those that were not found in time.
    matched: int = 0
    unknown: int = 0
    #: Corrections that came when the prediction's record was gone, so that the label before still counts.
    missed: int = 0
    #: The number given last; see ``Waiting``.
    sequence: int = 0


class Waiting(msgspec.Struct, frozen=True):
    """A label that is to be joined: a new one, or another than the one that is ``counted``."""

    prediction: str
    #: The order in which they came, or changed.
    sequence: int
    label: str
    #: When the prediction's first label came.
    received: str
    #: Who found the prediction, and what was counted then; "" where it was not found yet.
    source: str
    counted: str


class _Asked:
    """Labels that a thread wants to be kept."""

    def __init__(self, model: str, labels: Sequence[Label]) -> None:
        self.model = model
        self.labels = labels
        self.receipt: Receipt | None = None
        self.error: BaseException | None = None


class Labels:
    """The labels of a registry (a ``Ledger``). Safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Held by whoever keeps what all have asked for, and by whoever asks.
        self._turn, self._guard = threading.Lock(), threading.Lock()
        self._asked: list[_Asked] = []

    def add(self, model: str, labels: Sequence[Label]) -> Receipt:
        """Keep labels; once this returns they are durable. Where it raises, some may be: send all of them again.

        Many are kept in several short transactions. What several threads ask for at once is kept in one.
        """
        total = Receipt()
        for start in range(0, len(labels), CHUNK):
            begun = monotonic()
            total = total.plus(self._add(_Asked(model, labels[start : start + CHUNK])))
            if len(labels) - start > CHUNK and not self._database.is_fair:
                sleep(LEFT * (monotonic() - begun))
        return total

    def _add(self, mine: _Asked) -> Receipt:
        with self._guard:
            self._asked.append(mine)
        with self._turn:
            if mine.receipt is None and mine.error is None:  # nobody has kept ours with theirs
                with self._guard:
                    together, self._asked = self._asked, []
                try:
                    with self._database.write() as work:
                        receipts = [keep(work, asked.model, asked.labels) for asked in together]
                except BaseException as error:
                    for asked in together:
                        asked.error = error
                    raise
                for asked, receipt in zip(together, receipts, strict=True):
                    asked.receipt = receipt
        if mine.receipt is None:
            assert mine.error is not None
            raise mine.error
        return mine.receipt

    def totals(self, model: str) -> Totals:
        """What a model's labels come to; cheap to ask for."""
        with self._database.read() as work:
            return totals(work, model)

    def models(self) -> list[str]:
        """The models that have labels."""
        return [model for model, _ in states.find(self._database, _NAME)]

    def history(self, model: str, prediction: str) -> list[Label]:
        """Every label of a prediction that is remembered, the one that counts first."""
        sql = f"SELECT {_COLUMNS} FROM labels WHERE model = ? AND prediction = ?"
        rows = self._database.query(sql, model, prediction)
        return [Label(prediction, label, moment) for moment, label in _Entry.of(rows[0]).told] if rows else []

    def waiting(self, model: str, after: int = 0, until: int | None = None, most: int = CHUNK) -> list[Waiting]:
        """Labels to be joined with a ``sequence`` above ``after`` and up to ``until``, oldest first."""
        rows = self._database.query(
            f"""SELECT {_WAITING} FROM labels WHERE model = ? AND state = 'open' AND sequence > ? AND sequence <= ?
                ORDER BY sequence LIMIT {int(most)}""",
            model, after, 2**62 if until is None else until,
        )  # fmt: skip
        return [Waiting(**row) for row in rows]

    def numbered(self, model: str, sequences: Sequence[int]) -> list[Waiting]:
        """Those of these labels that still wait to be joined."""
        with self._database.read() as work:
            sql = f"SELECT {_WAITING} FROM labels WHERE model = ? AND state = 'open' AND sequence IN ({{}})"
            return [Waiting(**row) for row in work.among(sql, sequences, model)]

    def give_up(self, model: str, before: str) -> int:
        """Labels that came before a moment and found no prediction so far wait no longer. Returns how many."""
        condition = "model = ? AND state = 'open' AND counted = '' AND received < ?"
        if not self._database.query(f"SELECT 1 AS n FROM labels WHERE {condition} LIMIT 1", model, before):
            return 0
        with self._database.write() as work:
            count = int(work.rows(f"SELECT count(*) AS n FROM labels WHERE {condition}", model, before)[0]["n"])
            work.do(f"UPDATE labels SET state = 'unknown' WHERE {condition}", model, before)
            total = totals(work, model)
            total.unknown += count
            write_totals(work, model, total)
        return count

    def forget(self, model: str, before: str) -> int:
        """Delete labels that came before a moment and wait for nothing. Told again, they would count as new: so the
        records of their predictions must be gone by then. Returns how many.
        """
        condition = "model = ? AND state <> 'open' AND received < ?"
        with self._database.write() as work:
            gone = work.rows(f"SELECT count(*) AS n FROM labels WHERE {condition}", model, before)[0]["n"]
            work.do(f"DELETE FROM labels WHERE {condition}", model, before)
        return int(gone)


_COLUMNS = "prediction, sequence, label, moment, received, history, state"
_WAITING = "prediction, sequence, label, received, source, counted"


# -- inside a transaction -----------------------------------------------------------------------------------------


def totals(work: Work, model: str) -> Totals:
    text = states.read(work, _NAME, model)
    return msgspec.json.decode(text, type=Totals) if text else Totals()


def write_totals(work: Work, model: str, content: Totals) -> None:
    states.put(work, _NAME, _encode(content).decode(), model)


def mark_counted(work: Work, model: str, source: str, counted: Sequence[tuple[str, str]]) -> None:
    """Labels of these predictions wait no longer: what was counted of each, and by whom. They are there, so that
    nothing is inserted.
    """
    work.put(
        """INSERT INTO labels
           (model, prediction, source, counted, state, sequence, label, moment, received, history) {}
           ON CONFLICT (model, prediction) DO UPDATE SET source = excluded.source, counted = excluded.counted,
           state = excluded.state""",
        [(model, prediction, source, text, "counted", 0, "", "", "", "") for prediction, text in counted],
    )


def keep(work: Work, model: str, labels: Sequence[Label]) -> Receipt:
    """Keep labels of one model."""
    ids = list(dict.fromkeys(label.prediction for label in labels))
    known = work.among(f"SELECT {_COLUMNS} FROM labels WHERE model = ? AND prediction IN ({{}})", ids, model)
    entries = {row["prediction"]: _Entry.of(row) for row in known}
    counts, total, moment = Receipt(received=len(labels)), totals(work, model), now()
    for label in labels:
        entry = entries.get(label.prediction)
        if entry is None:
            entries[label.prediction] = _Entry(moment, [(label.moment or moment, label.label)])
            counts.new += 1
        else:
            outcome = entry.tell(label, moment)
            setattr(counts, outcome, getattr(counts, outcome) + 1)
    total.received += len(labels)
    _write(work, model, entries, total)
    write_totals(work, model, total)
    return counts


def _write(work: Work, model: str, entries: dict[str, _Entry], total: Totals) -> None:
    rows = []
    for prediction in sorted(entries):  # neighbours lie in the same pages
        entry = entries[prediction]
        if entry.is_moved:
            total.sequence += 1
            entry.sequence = total.sequence
            total.unknown -= entry.state == "unknown"
            entry.state = "open"
        total.predictions += entry.is_new
        total.corrected += len(entry.told) > 1 and entry.before < 2
        if entry.is_new or entry.is_changed:
            (moment, label), former = entry.told[0], entry.told[1:]
            rows.append((
                model, prediction, entry.sequence, label, "" if moment == entry.received else moment, entry.received,
                _encode(former).decode() if former else "", entry.state, "", "",
            ))  # fmt: skip
    work.put(
        """INSERT INTO labels
           (model, prediction, sequence, label, moment, received, history, state, source, counted) {}
           ON CONFLICT (model, prediction) DO UPDATE SET sequence = excluded.sequence, label = excluded.label,
           moment = excluded.moment, history = excluded.history, state = excluded.state""",
        rows,
    )


class _Entry:
    """What was told of one prediction."""

    __slots__ = ("before", "is_changed", "is_moved", "is_new", "received", "sequence", "state", "told")

    def __init__(self, received: str, told: _History) -> None:
        self.received = received
        #: (moment, label), the one that counts first; each label once, at the last moment it was told for.
        self.told = told
        self.sequence = 0
        self.state = "open"
        #: How many labels were known before.
        self.before = 0
        self.is_new = self.is_moved = True
        self.is_changed = False

    @classmethod
    def of(cls, row: Row) -> _Entry:
        former = _read_history(row["history"]) if row["history"] else []
        entry = cls(row["received"], [(row["moment"] or row["received"], row["label"]), *former])
        entry.sequence, entry.state, entry.before = row["sequence"], row["state"], len(entry.told)
        entry.is_new = entry.is_moved = False
        return entry

    def tell(self, label: Label, arrived: str) -> str:
        """Take one more label; returns what came of it, in the words of ``Receipt``."""
        latest, current = self.told[0]
        moment = label.moment
        if not moment:
            if label.label == current:
                return "repeated"
            moment = max(arrived, _after(latest))  # it counts, whatever the clocks say
        moments = {said: when for when, said in self.told}
        if moments.get(label.label, "") < moment:
            moments[label.label] = moment
            self.told = sorted(((when, said) for said, when in moments.items()), reverse=True)[: KEPT + 1]
            self.is_changed = True
        if self.told[0][1] != current:
            self.is_moved = True
            return "corrected"
        return "repeated" if label.label == current else "late"


def _after(moment: str) -> str:
    return stamp(dt.datetime.fromisoformat(moment) + dt.timedelta(microseconds=1))
