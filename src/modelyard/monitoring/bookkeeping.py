"""From recorded rows to what they add to their cohorts: which hour, arm and segments each is of, and what it counts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from modelyard.monitoring.grading import Answers, Grader
from modelyard.monitoring.recorded import Recorded
from modelyard.recording.capture import is_in_sample
from modelyard.registry.cohorts import Counts, Key, plus
from modelyard.registry.joined import Joined
from modelyard.schema import Array
from modelyard.truth import PREDICTION, PROBABILITIES

if TYPE_CHECKING:
    import pyarrow

#: Columns by which rows may be parted into segments, values of each that are told apart, and letters of a value.
MOST_COLUMNS, MOST_VALUES, LONGEST_VALUE = 5, 32, 60

#: What is not one of the values that are told apart, and what is missing.
OTHER, MISSING = "(other)", "(missing)"

_HEAD = ("prediction_id", "request_id", "time", "arm", "alias", "revision", "pinned", "client", "code", "kept")

#: A row: the part that it is in, and its number there.
Place = tuple[str, int]


class Segmenting(NamedTuple):
    """By which columns the rows of a version are parted, and the values that are told apart.

    Only a fair sample of the rows has its inputs for certain: of the requests, one in ``sample``. Those that are kept
    because they failed or were odd would make segments look worse than they are, and are left out.
    """

    columns: tuple[str, ...] = ()
    #: Of every column that is a category.
    values: Mapping[str, Sequence[str]] = {}
    sample: int = 100

    def takes(self, request: str) -> bool:
        """Whether a request is of the sample."""
        return bool(self.sample) and is_in_sample(request, self.sample)

    def segment(self, column: str, value: Any) -> str:
        if value is None:
            return f"{column}={MISSING}"
        text = str(value)
        return f"{column}={text if text in self.values.get(column, ()) else OTHER}"


class Version(NamedTuple):
    """How the predictions of a version are counted."""

    grader: Grader
    segmenting: Segmenting = Segmenting()


#: How a version's predictions are counted; None where labels say nothing about them, or nobody knows it any more.
Versions = Callable[[str], Version | None]


class _Page:
    """Rows of one part."""

    def __init__(self, version: str, how: Version, table: pyarrow.Table, rows: Sequence[int]) -> None:
        self.version = version
        self.how = how
        self._table = table
        self.index = {row: i for i, row in enumerate(rows)}
        moments = table["time"].to_numpy().astype("datetime64[us]")
        self.seconds: Array = moments.astype("int64") / 1e6
        hours, which = np.unique(moments.astype("datetime64[h]"), return_inverse=True)
        self.hours: list[str] = np.datetime_as_string(hours)[which].tolist()
        self.ids, self.requests, codes, self.kept = (
            table[name].to_pylist() for name in ("prediction_id", "request_id", "code", "kept")
        )
        self.arms = [arm or "" for arm in table["arm"].to_pylist()]
        answered = np.array([code == "ok" for code in codes], dtype=bool)
        given = [f"out.{name}" for name in (PREDICTION, PROBABILITIES)]
        predicted, probabilities = (table[name] if name in table.column_names else None for name in given)
        listed = [None] * len(rows) if predicted is None else predicted.to_pylist()
        fine, self.answers = how.grader.read(listed, None if probabilities is None else _matrix(probabilities))
        unanswered = fine & ~answered
        #: The place of each row among the answers; -1 of one that has none.
        self.places = np.where(fine & ~unanswered, np.cumsum(fine) - 1, -1)

    def segments(self, i: int, columns: Sequence[str]) -> list[str]:
        """The segments that a row is of."""
        segmenting = self.how.segmenting
        if not columns or self.kept[i] is None or not segmenting.takes(self.requests[i]):
            return []
        there = (name for name in columns if f"in.{name}" in self._table.column_names)
        return [segmenting.segment(name, self._table[f"in.{name}"][i].as_py()) for name in there]

    @cached_property
    def routes(self) -> list[tuple[str, int, bool, str]]:
        """Of each row the alias, the revision, whether a pin chose the arm, and the client; nothing where no row came
        by a route.
        """
        table = self._table
        if table["revision"].null_count == table.num_rows:
            return []
        aliases, revisions, clients = (table[name].to_pylist() for name in ("alias", "revision", "client"))
        pinned = table["pinned"].to_pylist() if "pinned" in table.column_names else [None] * table.num_rows
        every = zip(aliases, revisions, pinned, clients, strict=True)
        return [(alias or "", revision or 0, bool(pin), client or "") for alias, revision, pin, client in every]

    def joined(self, i: int, label: str) -> Joined | None:
        if not self.routes or not self.routes[i][1]:
            return None
        value, classes = self.answers.predicted[int(self.places[i])], self.how.grader.classes
        predicted = classes[value] if classes else repr(value.item())
        return Joined(
            self.ids[i], self.requests[i], self.version, self.arms[i], *self.routes[i], predicted, label
        )  # fmt: skip


class Book:
    """Reads rows, and sums up what they and their labels add."""

    def __init__(self, recorded: Recorded, versions: Versions) -> None:
        self._recorded = recorded
        self._versions = versions
        self._pages: dict[str, _Page] = {}
        #: What is to be added: of a part, by sign, by columns of segments, and by whether it counts when labels came:
        #: rows, their labels, and when those came.
        self._labels: dict[tuple[str, int, tuple[str, ...], bool], list[tuple[int, str, float]]] = {}
        self._sums: dict[Key, Counts] = {}

    def read(self, places: Iterable[Place], columns: Iterable[str] = ()) -> None:
        """Read rows: all that are asked for below, with these columns beside those of segments. Called once."""
        more = set(columns)
        wanted: dict[str, set[int]] = {}
        for part, row in places:
            wanted.setdefault(part, set()).add(row)
        for part, rows in wanted.items():
            version = self._recorded.version(part)
            how = None if version is None else self._versions(version)
            if how is None or version is None:
                continue
            outputs = [f"out.{PREDICTION}", f"out.{PROBABILITIES}"]
            inputs = [f"in.{name}" for name in sorted({*how.segmenting.columns, *more})]
            table = self._recorded.rows(part, sorted(rows), [*_HEAD, *outputs, *inputs])
            if table is not None:
                self._pages[part] = _Page(version, how, table, sorted(rows))

    def has(self, places: Iterable[Place]) -> bool:
        """Whether all of these rows could be read."""
        return all(part in self._pages and row in self._pages[part].index for part, row in places)

    def columns(self, place: Place) -> tuple[str, ...]:
        """The columns of segments that count now for a row."""
        return self._pages[place[0]].how.segmenting.columns

    def predictions(self, id: str, places: Iterable[Place], before: dt.datetime) -> list[Place] | None:
        """Of these rows those that are predictions of this id: the first of each version and arm. None where one of
        them came after a moment, so that there may be more that are not recorded yet.
        """
        found: dict[tuple[str, str], tuple[float, Place]] = {}
        for part, row in places:
            page = self._pages.get(part)
            if page is None or page.ids[i := page.index[row]] != id or page.places[i] < 0:
                continue
            if page.seconds[i] > before.timestamp():
                return None
            key, this = (page.version, page.arms[i]), (float(page.seconds[i]), (part, row))
            found[key] = min(found.get(key, this), this)
        return [place for _, place in found.values()]

    def joined(self, place: Place, label: str) -> Joined | None:
        """A row with its label, where it came by a route."""
        page = self._pages[place[0]]
        return page.joined(page.index[place[1]], label)

    def add(
        self, places: Iterable[Place], columns: tuple[str, ...], label: str, sign: int, received: str = ""
    ) -> None:  # fmt: skip
        """Add a label to rows, or take it back (``sign``). ``received``: when it came, where that is to be counted."""
        moment = dt.datetime.fromisoformat(received).timestamp() if received else 0.0
        for part, row in places:
            entry = (self._pages[part].index[row], label, moment)
            self._labels.setdefault((part, sign, columns, bool(received)), []).append(entry)

    def add_predictions(self) -> None:
        """Add all that was read, whether or not there will be labels."""
        for page in self._pages.values():
            answered = np.flatnonzero(page.places >= 0)
            groups = _grouped(page, answered.tolist(), page.how.segmenting.columns)
            for key, chosen in groups.items():
                self._sum(key, page.how.grader.count(_taken(page.answers, page.places[answered[chosen]])), 1)

    def increments(self) -> dict[Key, Counts]:
        """What was added, by cohort."""
        for (part, sign, columns, has_delays), entries in self._labels.items():
            page = self._pages[part]
            for key, chosen in _grouped(page, [i for i, _, _ in entries], columns).items():
                some = [entries[number] for number in chosen.tolist()]
                delays = [moment - page.seconds[i] for i, _, moment in some] if has_delays else None
                answers = _taken(page.answers, page.places[[i for i, _, _ in some]])
                self._sum(key, page.how.grader.grade(answers, [label for _, label, _ in some], delays), sign)
        self._labels.clear()
        return {key: counts for key, counts in self._sums.items() if counts}

    def _sum(self, key: Key, counts: Counts, sign: int) -> None:
        self._sums[key] = plus(self._sums.get(key, {}), counts, sign)


def _grouped(page: _Page, rows: Sequence[int], columns: Sequence[str]) -> dict[Key, Array]:
    """Rows by cohort, as places in ``rows``."""
    groups: dict[Key, list[int]] = {}
    for number, i in enumerate(rows):
        hour, arm = page.hours[i], page.arms[i]
        for segment in ("", *page.segments(i, columns)):
            groups.setdefault(Key(page.version, arm, segment, hour), []).append(number)
    return {key: np.array(numbers) for key, numbers in groups.items()}


def _matrix(column: Any) -> Any:
    """Lists of one length as a matrix; others as they are."""
    array = column.combine_chunks()
    flat, rows = array.flatten(), len(array)
    if array.null_count or flat.null_count or not rows or len(flat) % rows:
        return array.to_pylist()
    width = len(flat) // rows
    if not np.array_equal(np.diff(array.offsets.to_numpy()), np.full(rows, width)):
        return array.to_pylist()
    return flat.to_numpy(zero_copy_only=False).reshape(rows, width)


def _taken(answers: Answers, places: Array) -> Answers:
    matrix = answers.probabilities
    return Answers(answers.predicted[places], None if matrix is None else matrix[places])
