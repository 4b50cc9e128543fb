"""Labels joined with the predictions that this machine recorded: each counts once, in the cohort of its prediction.

A turn takes the labels that came since the last one, and those that found no prediction so far against predictions
that are new. What a label adds and that it was counted are written in one transaction, with where its predictions are,
so that a correction takes back exactly what was added. Several machines share the labels of a registry: each counts
those whose predictions it recorded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from modelyard.monitoring.bookkeeping import Book, Versions
from modelyard.monitoring.recorded import Hit, Part, Recorded, hash_of, hashes
from modelyard.registry import cohorts, states
from modelyard.registry.joined import Joined, Tell
from modelyard.registry.labels import Waiting, mark_counted, totals, write_totals
from modelyard.registry.records import stamp

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.database import Work

#: Labels that are looked up together, and those that one transaction counts; predictions that one does.
LOOK, CHUNK, STEP = 100_000, 5_000, 50_000

#: Seconds after which all predictions of a request, a shadow's too, are recorded.
SETTLE_SECONDS = 10.0

#: Days that a label waits for its prediction.
HORIZON_DAYS = 30.0

#: Labels that found no prediction and are looked for among new ones; of more, the oldest wait until a process starts.
MOST_WAITING = 500_000

_STATE = "joining"

_T = TypeVar("_T")


class Turn(msgspec.Struct, kw_only=True):
    """What a turn did: labels that found their prediction, that were corrected, that were given up; predictions."""

    joined: int = 0
    corrected: int = 0
    #: Corrections of labels whose predictions are not recorded any more.
    missed: int = 0
    unknown: int = 0
    predictions: int = 0

    def plus(self, more: Turn) -> Turn:
        return Turn(**{name: getattr(self, name) + getattr(more, name) for name in self.__struct_fields__})


class _State(msgspec.Struct, kw_only=True):
    """How far this machine has come with a model's labels, and with its own predictions."""

    #: The ``sequence`` of the last label that was looked up among all predictions.
    position: int = 0
    #: The number of each part, by which labels remember it, and its rows that are counted.
    parts: dict[str, tuple[int, int]] = {}
    last: int = 0

    def rows(self, part: str) -> int:
        """How many rows of a part are counted."""
        return self.parts.get(part, (0, 0))[1]

    def number(self, part: str) -> int:
        """The number of a part, which gets one where it has none."""
        if part not in self.parts:
            self.last += 1
            self.parts[part] = (self.last, 0)
        return self.parts[part][0]


class _Counted(msgspec.Struct, array_like=True):
    """What was counted of a label: the label, the columns of segments, and the rows: the numbers of parts and rows."""

    label: str
    columns: tuple[str, ...]
    rows: list[tuple[int, int]]


_read_counted = msgspec.json.Decoder(_Counted).decode
_encode = msgspec.json.encode


class Joiner:
    """Joins the labels of one model with this machine's predictions. For one thread of one process."""

    def __init__(
        self, registry: Registry, model: str, recorded: Recorded, source: str, versions: Versions,
        tell: Sequence[Tell] = (), *, horizon_days: float = HORIZON_DAYS, settle_seconds: float = SETTLE_SECONDS,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._model = model
        self._recorded = recorded
        self._source = source
        self._versions = versions
        self._tell = tell
        self._horizon = dt.timedelta(days=horizon_days)
        self._settle = dt.timedelta(seconds=settle_seconds)
        #: Labels without a prediction so far, by the hash of its id, and those to be looked up once more.
        self._waiting: dict[int, int] | None = None
        self._again: list[int] = []

    def turn(self) -> Turn:
        """Join what can be joined. Raises RemoteFailed where the registry fails; what was joined is joined then."""
        try:
            return self._turn()
        except BaseException:
            self._waiting = None  # what was tried is not known any more
            raise

    def _turn(self) -> Turn:
        parts = self._recorded.refresh()
        with self._registry.database.read() as work:
            state = _load(work, self._model, self._source)
        done = Turn()
        if self._waiting is None:  # nobody knows what was tried before
            self._waiting = {}
            done = done.plus(self._look_up(state, 0, state.position))
        fresh = {part.name: state.rows(part.name) for part in parts if part.rows > state.rows(part.name)}
        done = done.plus(self._look_among(state, fresh))
        for part in parts:
            for begin in range(fresh.get(part.name, part.rows), part.rows, STEP):
                done.predictions += self._take_in(state, part, begin, min(begin + STEP, part.rows))
        again, self._again = self._again, []
        for some in _chunks(again, CHUNK):
            done = done.plus(self._join(state, self._registry.labels.numbered(self._model, some)))
        done = done.plus(self._look_up(state, state.position, None))
        done.unknown += self._registry.labels.give_up(self._model, stamp(dt.datetime.now(dt.UTC) - self._horizon))
        self._forget(state, {part.name for part in parts})
        return done

    # -- which labels and which predictions ------------------------------------------------------------------------

    def _look_up(self, state: _State, after: int, until: int | None) -> Turn:
        """Look for the predictions of labels among all that are recorded."""
        done = Turn()
        while labels := self._registry.labels.waiting(self._model, after, until, LOOK):
            after = labels[-1].sequence
            ours = [label for label in labels if label.source in ("", self._source)]
            done = done.plus(self._join(state, ours))
            if after > state.position:
                state.position = after
                with self._registry.database.write() as work:
                    self._save(work, state)
        return done

    def _look_among(self, state: _State, fresh: Mapping[str, int]) -> Turn:
        """Look for labels that wait for a prediction among predictions that are new."""
        assert self._waiting is not None
        if not fresh or not self._waiting:
            return Turn()
        wanted = np.sort(np.fromiter(self._waiting, dtype="<u8", count=len(self._waiting)))
        found = sorted({self._waiting[int(wanted[hit.which])] for hit in self._recorded.find(wanted, fresh)})
        done = Turn()
        for some in _chunks(found, CHUNK):
            done = done.plus(self._join(state, self._registry.labels.numbered(self._model, some)))
        return done

    def _join(self, state: _State, labels: Sequence[Waiting]) -> Turn:
        """Count labels whose predictions are there, and correct those that were counted."""
        assert self._waiting is not None
        found = self._find([label for label in labels if not label.counted])
        done = Turn()
        # Those whose predictions lie together come together, so that each part is read once or twice.
        for some in _chunks(sorted(labels, key=lambda label: found.get(label.prediction, [])[:1]), CHUNK):
            ready: list[tuple[Waiting, list[Hit]]] = []
            for label in some:
                if label.counted or label.prediction in found:
                    ready.append((label, found.get(label.prediction, [])))
                else:
                    self._waiting[hash_of(label.prediction)] = label.sequence
            if ready:
                done = done.plus(self._count(state, ready))
        for old in list(self._waiting)[: max(0, len(self._waiting) - MOST_WAITING)]:
            del self._waiting[old]
        return done

    def _find(self, labels: Sequence[Waiting]) -> dict[str, list[Hit]]:
        """The rows that may be the predictions of labels, by their ids."""
        hashed = hashes(label.prediction for label in labels)
        wanted, first = np.unique(hashed, return_index=True)
        found: dict[str, list[Hit]] = {}
        for hit in self._recorded.find(wanted):
            found.setdefault(labels[first[hit.which]].prediction, []).append(hit)
        return found

    # -- counting --------------------------------------------------------------------------------------------------

    def _count(self, state: _State, ready: Sequence[tuple[Waiting, list[Hit]]]) -> Turn:
        """Count some labels in one transaction."""
        assert self._waiting is not None
        names = {number: name for name, (number, _) in state.parts.items()}
        before = {label.prediction: _read_counted(label.counted) for label, _ in ready if label.counted}
        book = Book(self._recorded, self._versions)
        places = [(hit.part, hit.row) for _, hits in ready for hit in hits]
        places += [(names[number], row) for each in before.values() for number, row in each.rows if number in names]
        book.read(places, [name for each in before.values() for name in each.columns])
        done, written = Turn(), []
        told: list[Joined] = []
        with self._registry.database.write() as work:
            there = work.among(
                "SELECT prediction, sequence FROM labels WHERE model = ? AND state = 'open' AND prediction IN ({})",
                [label.prediction for label, _ in ready], self._model,
            )  # fmt: skip
            still = {(row["prediction"], row["sequence"]) for row in there}
            for label, hits in ready:
                if (label.prediction, label.sequence) not in still:
                    continue  # it changed meanwhile, and comes again
                if label.counted:
                    counted = _correct(book, label, before[label.prediction], names, done)
                else:
                    rows = book.predictions(label.prediction, [(hit.part, hit.row) for hit in hits], self._settled())
                    if rows is None:
                        self._again.append(label.sequence)
                    elif not rows:
                        self._waiting[hash_of(label.prediction)] = label.sequence
                    if not rows:
                        continue
                    columns = book.columns(rows[0])
                    book.add(rows, columns, label.label, 1, label.received)
                    if self._tell:
                        told += filter(None, [book.joined(row, label.label) for row in rows])
                    counted = _Counted(label.label, columns, [(state.number(name), row) for name, row in rows])
                    done.joined += 1
                written.append((label.prediction, _encode(counted).decode()))
            for each in self._tell:
                each(work, self._model, told)
            cohorts.add(work, self._model, self._source, book.increments())
            mark_counted(work, self._model, self._source, written)
            total = totals(work, self._model)
            total.matched += done.joined
            total.missed += done.missed
            write_totals(work, self._model, total)
            self._save(work, state)
        for prediction, _ in written:
            self._waiting.pop(hash_of(prediction), None)
        return done

    def _take_in(self, state: _State, part: Part, begin: int, end: int) -> int:
        """Count the predictions in some rows of a part, whether or not they will have a label."""
        book = Book(self._recorded, self._versions)
        book.read((part.name, row) for row in range(begin, end))
        book.add_predictions()
        increments = book.increments()
        with self._registry.database.write() as work:
            if _load(work, self._model, self._source).rows(part.name) != begin:
                return 0  # another process has
            cohorts.add(work, self._model, self._source, increments)
            state.parts[part.name] = (state.number(part.name), end)
            self._save(work, state)
        return end - begin

    def _settled(self) -> dt.datetime:
        """Of predictions before this moment, all are recorded that have the same id."""
        return dt.datetime.now(dt.UTC) - self._settle

    def _forget(self, state: _State, there: set[str]) -> None:
        """Parts that are gone have no number any more: labels cannot mean them."""
        gone = [name for name in state.parts if name not in there]
        if gone:
            for name in gone:
                del state.parts[name]
            with self._registry.database.write() as work:
                self._save(work, state)

    def _save(self, work: Work, state: _State) -> None:
        states.put(work, _STATE, _encode(state).decode(), self._model, self._source)


def _correct(book: Book, label: Waiting, before: _Counted, names: Mapping[int, str], done: Turn) -> _Counted:
    """Take back what was counted of a label, and count the one that counts now."""
    if before.label == label.label:
        return before  # it changed back before anybody looked
    rows = [(names[number], row) for number, row in before.rows if number in names]
    if len(rows) < len(before.rows) or not book.has(rows):
        done.missed += 1
        return before
    book.add(rows, before.columns, before.label, -1)
    book.add(rows, before.columns, label.label, 1)
    done.corrected += 1
    return _Counted(label.label, before.columns, before.rows)


def _load(work: Work, model: str, source: str) -> _State:
    text = states.read(work, _STATE, model, source)
    return msgspec.json.decode(text, type=_State) if text else _State()


def _chunks(many: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(many), size):
        yield many[start : start + size]
