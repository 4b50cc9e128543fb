"""What a server counts. Counts are plain structures: those of several processes add up to those of one."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from modelyard.interfaces import Stats
from modelyard.prometheus import Page
from modelyard.serving import exposition
from modelyard.telemetry import COUNTS, SECONDS, Histogram

if TYPE_CHECKING:
    from modelyard.messages import Message
    from modelyard.serving.calls import Exchange
    from modelyard.serving.engine import Lane

#: Requests that wait to be sorted into histograms.
MOST_UNSORTED = 4096

#: Held by the one thread that sorts or publishes. Nobody forks meanwhile: in the new process it would be held for ever.
_SORTING = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_SORTING.acquire, after_in_parent=_SORTING.release, after_in_child=_SORTING.release)

#: Versions whose counts are kept: those of versions long gone make room.
MOST_METERS = 500


#: A call of a model: requests, rows, when it started, had predicted and was done; when each request was received and
#: decoded.
Noted = tuple[int, int, float, float, float, list[float], list[float]]


@dataclass(slots=True)
class Meter:
    """The counts of one version of a model.

    A dataclass because the interpreter sets its attributes faster than those of a ``msgspec.Struct``, and each call of
    a model sets a dozen.
    """

    model: str
    version: str
    #: Requests by code word; ``ok`` is kept apart because it comes most.
    ok: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    #: Calls of the model, and those whose outputs held NaN or infinity.
    calls: int = 0
    gaps: int = 0
    #: Requests that were answered from the cache.
    cache_hits: int = 0
    #: Rows, and requests that were refused, that no recorder will ever see.
    unrecorded: int = 0
    #: Requests under which, alone, a process of the model ended for good.
    fatal: int = 0
    #: Seconds in each stage: of each request; of predict and encode, of each call.
    decode: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    queue: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    predict: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    encode: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    #: When the last request was answered, in seconds since 1970.
    last: float = 0.0
    #: Calls by their rows, rounded up to a power of 2: rows -> (calls, seconds).
    batches: dict[int, tuple[int, float]] = field(default_factory=dict)
    latency: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_rows: Histogram = field(default_factory=lambda: Histogram(COUNTS))
    batch_requests: Histogram = field(default_factory=lambda: Histogram(COUNTS))
    #: Calls that are not in ``last``, ``batches`` and the histograms yet, and how many requests those are.
    recent: list[Noted] = field(default_factory=list)
    unsorted: int = 0

    def note(
        self, exchanges: Sequence[Exchange], messages: Sequence[Message], rows: int, started: float, predicted: float
    ) -> None:
        """Count one call of the model: when it started and had predicted; now its answers are encoded and sent."""
        now = time.perf_counter()
        count = len(exchanges)
        received = [exchange.received for exchange in exchanges]
        decoded = [exchange.decoded for exchange in exchanges]
        self.recent.append((count, rows, started, predicted, now, received, decoded))
        self.unsorted += count
        if self.unsorted > MOST_UNSORTED:
            self.sort_in()
        self.rows += rows
        refused = [message.code for message in messages if message.code != "ok"]
        self.ok += count - len(refused)
        if refused:
            self.refused.update(refused)

    def sort_in(self) -> None:
        """Have in ``last``, ``batches`` and the histograms what was noted until now: all at once costs a tenth of one
        after the other. Safe beside threads that note.
        """
        with _SORTING:
            recent = self.recent[:]
            del self.recent[: len(recent)]
            self.unsorted = 0
            if recent:
                self._sort_in(recent)

    def _sort_in(self, recent: Sequence[Noted]) -> None:
        counts, rows, started, predicted, done, *times = zip(*recent, strict=True)
        received, decoded = (np.array(list(chain.from_iterable(each))) for each in times)
        began, ready, end = np.array(started), np.array(predicted), np.array(done)
        self.last = time.time() - (time.perf_counter() - done[-1])
        for held, took in zip(rows, (ready - began).tolist(), strict=True):
            size = 1 << (held - 1).bit_length()
            calls, seconds = self.batches.get(size, (0, 0.0))
            self.batches[size] = (calls + 1, seconds + took)
        self.latency.observe(np.repeat(end, counts) - received)
        self.decode.observe(decoded - received)
        self.queue.observe(np.repeat(began, counts) - decoded)
        self.predict.observe(ready - began)
        self.encode.observe(end - ready)
        self.batch_rows.observe(rows)
        self.batch_requests.observe(counts)

    def stats(self) -> Stats:
        """What wires are told of it."""
        self.sort_in()
        failures = self.refused.total()
        return Stats(
            requests=self.ok + failures, failures=failures, rows=self.rows, calls=self.calls, last=self.last,
            decode=self.decode.read()[2], queue=self.queue.read()[2], predict=self.predict.read()[2],
            encode=self.encode.read()[2], batches=dict(self.batches), cache_hits=self.cache_hits,
        )  # fmt: skip

    def __add__(self, other: Meter) -> Meter:
        names = [each.name for each in fields(self) if each.name not in ("model", "version", "last")]
        sums = {name: _sum(getattr(self, name), getattr(other, name)) for name in names}
        return Meter(self.model, self.version, last=max(self.last, other.last), **sums)


class Counts(msgspec.Struct, array_like=True):
    """All that adds up. ``a + b`` is what one server would have counted that did the work of both."""

    meters: dict[tuple[str, str], Meter] = {}
    #: Failed loads by model.
    failed_loads: Counter[str] = msgspec.field(default_factory=Counter)
    #: Requests that reached no model, by code word.
    refused: Counter[str] = msgspec.field(default_factory=Counter)

    def __add__(self, other: Counts) -> Counts:
        return Counts(*[_sum(getattr(self, name), getattr(other, name)) for name in self.__struct_fields__])


def _sum(mine: Any, theirs: Any) -> Any:
    if isinstance(mine, dict):
        summed = type(mine)(mine)
        for key, value in theirs.items():
            summed[key] = _sum(summed[key], value) if key in summed else value
        return summed
    if isinstance(mine, tuple):
        return tuple(map(_sum, mine, theirs))
    return mine + theirs


class Vitals(msgspec.Struct, array_like=True):
    """How one process is at the moment."""

    #: Which of the server's workers it is; -1 where the server is one process.
    worker: int
    process: int
    started: float
    cpu: float
    resident: int | None
    connections: int
    ready: bool
    registry_up: bool
    #: Requests that wait or run, by model and version.
    in_flight: dict[tuple[str, str], int]
    #: Bytes that loaded versions take, where that was measured.
    memory: dict[tuple[str, str], int] = {}
    #: Whether somebody records what is predicted here, and whether somebody decides for this registry: None where
    #: nobody is to, and while that is not known.
    recorder_up: bool | None = None
    control_up: bool | None = None


class Snapshot(msgspec.Struct, array_like=True):
    """What a worker tells the others."""

    counts: Counts
    vitals: Vitals


class Board(Protocol):
    """Where the workers of a server see one another's snapshots (``serving.shared``)."""

    #: Which of the workers this is.
    number: int

    def publish(self, snapshot: Snapshot) -> None:
        """Put this worker's in the place of its last one."""

    def collect(self) -> tuple[list[Counts], list[Vitals], int]:
        """The counts of all workers there ever were, the vitals of those that live, and how many were replaced."""


class Metrics:
    """Every count of a process, and of its server where that has several."""

    def __init__(self) -> None:
        self.started = time.time()
        #: Set where other workers count for the same server.
        self.board: Board | None = None
        #: How this process is; set by the application.
        self.vitals: Callable[[], Vitals]
        self.adopt(Counts())

    def adopt(self, counts: Counts) -> None:
        """Go on counting from ``counts``: a worker that takes a dead one's place takes over what it had counted."""
        self.counts = counts
        self.meters = counts.meters
        self.failed_loads = counts.failed_loads
        self.refused = counts.refused

    def meter(self, model: str, version: str) -> Meter:
        """The meter of a version, made when first asked for."""
        found = self.meters.get((model, version))
        if found is None:
            if len(self.meters) >= MOST_METERS:
                self.meters.pop(next(iter(self.meters)))
            found = self.meters[model, version] = Meter(model, version)
        return found

    def publish(self) -> None:
        """Tell the other workers. What they read of us never falls, whichever of them is asked."""
        if self.board is not None:
            self._sort_in()
            snapshot = Snapshot(self.counts, self.vitals())
            with _SORTING:
                self.board.publish(snapshot)

    def stats(self, model: str, version: str) -> Stats:
        """The counts of a version, in all workers."""
        return self._gather()[0].meters.get((model, version), Meter(model, version)).stats()

    def tell(self, lanes: Iterable[Lane]) -> Page:
        """All of it, of all workers, as a page."""
        counts, vitals, restarts = self._gather()
        return exposition.tell(counts, vitals, restarts, list(lanes))

    def _sort_in(self) -> None:
        for meter in list(self.meters.values()):
            meter.sort_in()

    def _gather(self) -> tuple[Counts, list[Vitals], int]:
        if self.board is None:
            self._sort_in()
            return self.counts, [self.vitals()], 0
        self.publish()
        counts, vitals, restarts = self.board.collect()
        return sum(counts, Counts()), vitals, restarts


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
