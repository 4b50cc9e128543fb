"""The labels of all models, joined with what this machine recorded: what a loop calls now and then."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from modelyard import settings
from modelyard.errors import BadBundle, Conflict, InvalidInput, MissingDependency, ModelyardError, NotFound
from modelyard.monitoring.bookkeeping import LONGEST_VALUE, MOST_COLUMNS, MOST_VALUES, Segmenting, Version
from modelyard.monitoring.grading import Grader
from modelyard.monitoring.joining import HORIZON_DAYS, SETTLE_SECONDS, Joiner, Turn
from modelyard.monitoring.recorded import Recorded
from modelyard.monitoring.rules import load
from modelyard.recording.checkpoint import read_checkpoint
from modelyard.recording.places import Places
from modelyard.registry.joined import Tell
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.registry import Registry

#: Seconds between two turns, and before another process's folder is asked for again.
TURN_SECONDS, _CONFLICT_SECONDS = 5.0, 10.0

#: By which columns the rows of a model are parted into segments.
Columns = Callable[[str], Sequence[str]]


class Labelling:
    """Joins labels on one machine, with what is recorded in ``places``. Holds a lock until it is closed.

    ``columns``: by which columns rows of a model are parted into segments; unless given, those of its rules. ``tell``:
    who is told of a model's labels when they are counted. Raises Conflict where another process joins.
    """

    def __init__(
        self, registry: Registry, places: Places, *, columns: Columns | None = None, sample: int = 100,
        tell: Sequence[Tell] = (), horizon_days: float = HORIZON_DAYS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._places = places
        self._columns = columns or (lambda model: load(registry.database, model).accuracy.columns)
        #: By model, in this turn.
        self._asked: dict[str, tuple[str, ...]] = {}
        self._sample = sample
        self._tell = tell
        self._horizon_days = horizon_days
        self._settle_seconds = settle_seconds
        self._joiners: dict[str, Joiner] = {}
        self._versions: dict[tuple[str, str, tuple[str, ...]], Version | None] = {}
        self._lock = _locked(places.state / "joining.lock")
        try:
            self._source = places.source()
        except BaseException:
            self.close()
            raise

    def turn(self, models: Sequence[str] | None = None) -> dict[str, Turn]:
        """Join what can be joined of these models, or of all that have labels. Raises RemoteFailed."""
        self._asked.clear()
        return {model: self._joiner(model).turn() for model in (self.models() if models is None else models)}

    def models(self) -> list[str]:
        """The models that have labels, of which predictions were recorded here. Until a model's first label comes, its
        predictions are not read: most models never have any, and theirs are taken in then.
        """
        recorded = {unquote(path.name[6:]) for path in self._places.segments.glob("model=*")}
        return sorted(recorded.intersection(self._registry.labels.models()))

    def close(self) -> None:
        """Let another process join."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _spools(self) -> Mapping[str, int]:
        """What of the spools a recorder that follows this one would go on from."""
        return read_checkpoint(self._places.state / "checkpoint").spools

    def _joiner(self, model: str) -> Joiner:
        if model not in self._joiners:
            recorded = Recorded(model, self._places.segments, self._places.state / "ids", self._spools)
            self._joiners[model] = Joiner(
                self._registry, model, recorded, self._source, lambda version: self._version(model, version),
                self._tell, horizon_days=self._horizon_days, settle_seconds=self._settle_seconds,
            )  # fmt: skip
        return self._joiners[model]

    def _version(self, model: str, version: str) -> Version | None:
        if model not in self._asked:
            self._asked[model] = tuple(self._columns(model))
        columns = self._asked[model]
        key = (model, version, columns)
        if key not in self._versions:
            try:
                bundle = self._registry.fetch(self._registry.resolve(f"{model}:{version}"))
                self._versions[key] = Version(Grader.of(bundle), segmenting_of(bundle, columns, self._sample))
            except (NotFound, BadBundle, InvalidInput):
                # It was deleted or never registered, or predicts what no label says anything about.
                self._versions[key] = None
        return self._versions[key]


def follow(
    registry: Registry, places: Places, stop: threading.Event, log: Log, tell: Sequence[Tell] = ()
) -> None:  # fmt: skip
    """Join labels now and then until told to ``stop``, or wait until the process that does has ended. Without the
    library that reads records, say so and return.
    """
    failing = False
    while not stop.is_set():
        try:
            labelling = Labelling(registry, places, sample=settings.get("record_sample"), tell=tell)
        except Conflict:
            stop.wait(_CONFLICT_SECONDS)
            continue
        except (ModelyardError, OSError) as error:
            if not failing:
                log.write("warning", "labels cannot be joined", error=error)
            failing = True
            stop.wait(_CONFLICT_SECONDS)
            continue
        try:
            while not stop.wait(TURN_SECONDS):
                try:
                    labelling.turn()
                    failing = False
                except MissingDependency as error:
                    log.write("warning", "labels are kept and not joined", error=error, hint=error.hint)
                    return
                except Exception as error:  # a bug of ours must not keep labels from being joined later
                    if not failing:
                        kind = "warning" if isinstance(error, ModelyardError) else "error"
                        log.write(kind, "labels could not be joined", error=error)
                    failing = True
        finally:
            labelling.close()


def segmenting_of(bundle: Bundle, columns: Sequence[str], sample: int = 100) -> Segmenting:
    """How the rows of a version are parted by these columns, those of them that are categories of it."""
    values = {
        part.field: [value for value in part.values if len(value) <= LONGEST_VALUE][:MOST_VALUES]
        for part in bundle.profile().inputs
        if part.kind == "category" and not part.part
    }
    return Segmenting(tuple(name for name in columns if name in values)[:MOST_COLUMNS], values, sample)


def _locked(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(
            f"another process joins labels with the predictions in {path.parent.parent}",
            hint="`modelyard watch` does it by itself, and so does `modelyard serve` beside itself",
        ) from None
    return descriptor
