"""Keeping what was read: rows into segments, and then a checkpoint. On a thread of its own, so that a disk that is slow
or full holds up neither the reading nor a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.errors import MissingDependency
from modelyard.recording import flags
from modelyard.recording.batches import Recipe, arrow
from modelyard.recording.checkpoint import Checkpoint, write_checkpoint
from modelyard.recording.flags import Found
from modelyard.recording.frames import Refusal
from modelyard.recording.places import Places
from modelyard.recording.rows import Rows, joined
from modelyard.recording.segments import Segments
from modelyard.recording.subject import Subject
from modelyard.registry.redaction import Policy
from modelyard.schema import Array
from modelyard.telemetry import Log

if TYPE_CHECKING:
    import pyarrow

#: Versions for which is remembered how their rows become batches.
MOST_RECIPES = 200


class Held(NamedTuple):
    """Rows to be kept, with their flags and why the inputs of each are kept."""

    rows: Rows
    found: Found
    reasons: Array


class Refused(NamedTuple):
    """A request for which no model was called."""

    subject: Subject
    refusal: Refusal
    worker: int


class Job(NamedTuple):
    """What is to be kept at once. ``checkpoint`` lacks the spools."""

    rows: list[Held]
    refused: list[Refused]
    checkpoint: Checkpoint
    #: Spools that are Parquet files by now.
    converted: list[str]
    #: No spool is to stay open.
    is_last: bool


class Kept(NamedTuple):
    """How it went: whether the checkpoint stands, the spools in it to which nothing is added any more, and the rows of
    each version that the disk did not take.
    """

    is_safe: bool
    sealed: list[str]
    unkept: dict[tuple[str, str, str], int]


class Keeper:
    """Keeps jobs, one after the other."""

    def __init__(
        self, places: Places, segments: Segments, log: Log, policy: Callable[[str], Policy | None]
    ) -> None:  # fmt: skip
        self._places = places
        self._segments = segments
        self._log = log
        self._policy = policy
        self._recipes: dict[tuple[str, str, str], Recipe] = {}
        self._is_failing = False
        #: False where the library is missing: then rows are counted and not kept.
        self.can_keep = True
        try:
            arrow().array([])  # it looks for pandas, which takes a while where it is there: now rather than later
        except MissingDependency as error:
            self.can_keep = False
            log.write("info", "predictions are counted and not kept", error=error, hint=error.hint)

    @property
    def path(self) -> Path:
        return self._places.state / "checkpoint"

    def keep(self, job: Job) -> Kept:
        """Keep a job."""
        unkept: dict[tuple[str, str, str], int] = {}
        for name in job.converted:
            self._segments.sealed.pop(name, None)
        for subject, rows, made in self._batches(job):
            try:
                lost = self._segments.append(subject.model, subject.version, made())
            except Exception as error:  # a bug of ours: what other rows are there goes on
                self._log.write("error", "predictions are not kept", model=subject.model, error=error)
                lost = rows
            if lost:
                unkept[subject.key] = unkept.get(subject.key, 0) + lost
        self._segments.seal(every=job.is_last)
        sealed = list(self._segments.sealed)
        return Kept(self._write(msgspec.structs.replace(job.checkpoint, spools=self._segments.state())), sealed, unkept)

    def _write(self, checkpoint: Checkpoint) -> bool:
        try:
            write_checkpoint(self.path, checkpoint)
        except OSError as error:
            if not self._is_failing:
                self._log.write("warning", "a checkpoint cannot be written", file=str(self.path), error=error)
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    def _batches(self, job: Job) -> Iterator[tuple[Subject, int, Callable[[], pyarrow.RecordBatch]]]:
        groups: dict[object, list[Held]] = {}
        for held in job.rows:
            groups.setdefault(held.rows.form, []).append(held)
        for many in groups.values():
            subject, count = many[0].rows.subject, sum(held.rows.rows for held in many)
            yield subject, count, partial(self._batch, subject, many)
        refused: dict[object, list[Refused]] = {}
        for each in job.refused:
            refused.setdefault((each.subject.key, each.worker), []).append(each)
        for some in refused.values():
            yield some[0].subject, len(some), partial(self._refused, some[0].subject, some)

    def _batch(self, subject: Subject, many: Sequence[Held]) -> pyarrow.RecordBatch:
        found = flags.joined([(held.found, held.rows.rows) for held in many])
        reasons = np.concatenate([held.reasons for held in many])
        return self._recipe(subject).batch(joined([held.rows for held in many]), found, reasons)

    def _refused(self, subject: Subject, some: Sequence[Refused]) -> pyarrow.RecordBatch:
        return self._recipe(subject).refused([each.refusal for each in some], some[0].worker)

    def _recipe(self, subject: Subject) -> Recipe:
        policy = self._policy(subject.model)
        recipe = self._recipes.get(subject.key)
        if recipe is None or recipe.subject is not subject or recipe.policy != policy:
            if len(self._recipes) > MOST_RECIPES:
                self._recipes.clear()
            recipe = self._recipes[subject.key] = Recipe(subject, policy, self._secret)
        return recipe

    @cached_property
    def _key(self) -> bytes:
        return self._places.key()

    def _secret(self) -> bytes:
        return self._key
