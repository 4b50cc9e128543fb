"""The recorder: reads the rings of all servers of a folder, counts, keeps, and lets go of what is kept.

This thread reads and counts, and never waits. Another keeps: segments, and then a checkpoint; what was read is released
to the servers once a checkpoint holds it. Where the disk does not keep up, it is released all the same before a ring is
full, so that at least everything is counted; were the recorder killed then, the next one would say what was lost.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic, sleep, time

import msgspec

from modelyard.recording.capture import Capture
from modelyard.recording.checkpoint import Checkpoint, Total, read_checkpoint
from modelyard.recording.consumer import Consumer
from modelyard.recording.counting import Counting
from modelyard.recording.errands import Errands, taken
from modelyard.recording.frames import Refusal
from modelyard.recording.keeping import Held, Job, Keeper, Kept, Refused
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.posting import Posting
from modelyard.recording.reading import Reading
from modelyard.recording.redaction import removals
from modelyard.recording.rows import Rows
from modelyard.recording.segments import Segments
from modelyard.recording.subject import Subject
from modelyard.registry.registry import Registry
from modelyard.telemetry import Log

#: Seconds between two readings of the rings, the same once nothing came for a second, and between two checkpoints.
READ_SECONDS, IDLE_SECONDS = 0.05, 0.1
KEEP_SECONDS = 0.5

#: Bytes of rows that wait for the disk; of more, only windows are kept.
MOST_HELD = 64 << 20

#: Seconds that a stopping recorder waits for a registry.
LAST_SECONDS = 10.0


class Recorder:
    """The one recorder of a folder. Raises Conflict where another process records there, OSError for no room."""

    def __init__(
        self, places: Places, registry: Registry | None, log: Log, options: Options | None = None,
        consumers: Sequence[Consumer] = (),
    ) -> None:  # fmt: skip
        options = options or Options()
        places.make()
        self._lock = places.lock()
        with ExitStack() as undone:
            undone.callback(os.close, self._lock)
            source = places.source()
            self._log = log
            self._consumers = consumers
            self._segments = Segments(places.segments, source, log)
            self._errands = Errands(places, registry, log, options, source, self._segments)
            undone.callback(self._errands.close)
            self._keeper = Keeper(places, self._segments, log, self._errands.policy)
            self._posting = Posting()
            self._counting = Counting(source, options.window_seconds, options.window_rows, self._hidden)
            self._capture = Capture(options.sample)
            self._thread = ThreadPoolExecutor(1, "keeper")
            self._job: tuple[Future[Kept], Job] | None = None
            #: Rows and refusals that the next job keeps, and about how many bytes they are.
            self._rows: list[Held] = []
            self._refused: list[Refused] = []
            self._held = 0
            self._is_dropping = False
            self._kept_at = self._read_at = monotonic()
            self._has_news = False
            self._go_on(places)
            undone.pop_all()

    def _go_on(self, places: Places) -> None:
        """Know what the recorder before knew."""
        before = self._before()
        self._segments.recover(before.spools if before is not None else self._segments.found())
        self._reading = Reading(places.rings, self._log, before.rings if before is not None else None)
        before = before or Checkpoint()
        self._totals = {(total.model, total.version): total for total in before.totals}
        self._posting.post = before.post
        self._posting.add(before.windows)
        #: The batch of windows that is in a checkpoint, and spools that may become Parquet files.
        self._safe_batch, self._sealed = before.post.batch, list(self._segments.sealed)
        for consumer in self._consumers:
            if consumer.name in before.consumers:
                consumer.restore(before.consumers[consumer.name])

    def run(self, stopped: threading.Event) -> None:
        """Record until ``stopped``, and then what is left."""
        try:
            while not stopped.wait(READ_SECONDS if monotonic() - self._read_at < 1.0 else IDLE_SECONDS):
                self.turn()
        finally:
            self.finish()

    def turn(self) -> None:
        """Read, count, and have kept what is due."""
        for read in self._reading.turn():
            for rows in read.gathered.rows:
                self._guarded(rows.subject, rows.rows, self._take, rows)
            for subject, refusal in read.gathered.refusals:
                self._guarded(subject, 1, self._refuse, subject, refusal, read.worker)
            for unserved in read.gathered.unserved:
                self._has_news = True
                for consumer in self._consumers:
                    consumer.fail(unserved)
            if read.lost:
                self._lose(read.subject, read.lost)
        if self._posting.add(self._counting.close(time())):
            self._has_news = True
        self._look()
        if self._job is None:
            if self._is_due():
                self._keep()
        elif self._reading.fullest > 0.5:
            self._reading.release(self._reading.reached())

    def finish(self) -> None:
        """Read what is left, close every window, and leave all of it kept."""
        until = monotonic() + LAST_SECONDS
        try:
            self.turn()
            while self._reading.unread and monotonic() < until:
                self.turn()
            self._wait()
            self._posting.add(self._counting.close(time(), every=True))
            while True:
                self._keep(is_last=True)
                self._wait()
                self._errands.wait(until - monotonic())
                self._look()
                sleep(READ_SECONDS if self._has_news else 0.0)  # the disk may be full, and have room in a moment
                if monotonic() >= until or not (self._has_news or self._errands.is_busy or self._is_urgent):
                    break
        finally:
            self.close()  # whatever failed: nobody else could record here for as long as this process lives

    def close(self) -> None:
        """Let go of everything, keeping no more."""
        self._thread.shutdown()
        self._errands.close()
        self._reading.close()
        self._segments.close()
        os.close(self._lock)
        self._log.flush()

    # What was read.

    def _guarded(self, subject: Subject, rows: int, take: Callable[..., None], *what: object) -> None:
        """One version's rows that have a fault of ours in them must not keep all others from being recorded."""
        try:
            take(*what)
        except Exception as error:
            self._log.write("error", "rows could not be counted", model=subject.model, rows=rows, error=error)
            self._lose(subject, rows)

    def _take(self, rows: Rows) -> None:
        found = rows.subject.flags.find(rows.inputs, rows.outputs)
        self._counting.take(rows, found)
        for consumer in self._consumers:
            consumer.take(rows, found)
        total = self._total(rows.subject)
        total.requests += int((rows.begins == 0).sum())
        total.rows += rows.rows
        total.lost += sum(lost for lost, _ in rows.lost)
        total.last = max(total.last, float(rows.wall[-1]))
        if self._has_room(total, rows.rows, rows.bytes):
            self._rows.append(Held(rows, found, self._capture.reasons(rows, found)))

    def _refuse(self, subject: Subject, refusal: Refusal, worker: int) -> None:
        self._counting.refuse(subject, refusal)
        for consumer in self._consumers:
            consumer.refuse(subject, refusal)
        total = self._total(subject)
        total.requests += 1
        total.lost += refusal.lost
        total.last = max(total.last, refusal.wall)
        if self._has_room(total, 1, 500 + len(refusal.body)):
            self._refused.append(Refused(subject, refusal, worker))

    def _has_room(self, total: Total, rows: int, size: int) -> bool:
        """Whether these rows may wait for the disk."""
        self._has_news, self._read_at = True, monotonic()
        if not self._keeper.can_keep:
            return False
        has_room = self._held + size <= MOST_HELD
        if has_room:
            self._held += size
        else:
            total.unkept += rows
        if has_room == self._is_dropping:
            self._is_dropping = not has_room
            event = "predictions are kept again" if has_room else "the disk is too slow: predictions are only counted"
            self._log.write("info" if has_room else "warning", event)
        return has_room

    def _lose(self, subject: Subject | None, rows: int) -> None:
        self._has_news = True
        if subject is not None:
            self._counting.lose(subject, rows, "", time())
            self._total(subject).lost += rows

    def _total(self, subject: Subject) -> Total:
        key = (subject.model, subject.version)
        return self._totals.setdefault(key, Total(*key))

    def _hidden(self, subject: Subject) -> frozenset[str]:
        names = [field.name for field in subject.signature.inputs]
        return frozenset(removals(self._errands.policy(subject.model), names))

    # Having it kept.

    def _before(self) -> Checkpoint | None:
        """What the recorder before knew; None where that cannot be read."""
        try:
            return read_checkpoint(self._keeper.path)
        except ValueError as error:
            self._log.write("error", "the last checkpoint is damaged: some rows may be lost or doubled", error=error)
            return None

    def _is_due(self) -> bool:
        waited = monotonic() - self._kept_at
        is_much = self._reading.fullest > 0.25 or self._held > MOST_HELD // 4
        has_news = self._has_news or self._reading.has_done  # a ring goes once a checkpoint says that it is done
        return self._is_urgent or is_much or (has_news and waited >= KEEP_SECONDS)

    @property
    def _is_urgent(self) -> bool:
        return any(consumer.is_urgent for consumer in self._consumers)

    def _keep(self, *, is_last: bool = False) -> None:
        checkpoint = Checkpoint(
            self._reading.reached(), self._counting.present(time()), self._posting.prepare(), {},
            [msgspec.structs.replace(total) for total in self._totals.values()],
            {consumer.name: consumer.state() for consumer in self._consumers},
        )  # fmt: skip
        job = Job(self._rows, self._refused, checkpoint, taken(self._errands.converted), is_last)
        self._rows, self._refused, self._held, self._has_news = [], [], 0, False
        self._kept_at = monotonic()
        self._job = self._thread.submit(self._keeper.keep, job), job

    def _look(self) -> None:
        """See what has been done meanwhile, and have done what follows from it."""
        if self._job is not None and self._job[0].done():
            kept, job = self._job[0].result(), self._job[1]
            self._job = None
            self._reading.release(job.checkpoint.rings)
            for (model, version, _), rows in kept.unkept.items():
                self._totals[model, version].unkept += rows
            if kept.is_safe:
                if self._reading.remove(job.checkpoint.rings):
                    self._has_news = True
                self._safe_batch, self._sealed = job.checkpoint.post.batch, kept.sealed
                for consumer in self._consumers:
                    self._errands.tell(consumer.name, consumer.kept, job.checkpoint.consumers[consumer.name])
            else:
                self._has_news = True  # nothing else need come for it to be tried again
        for batch in taken(self._errands.sent):
            self._posting.sent(batch)
            self._has_news = True
        if self._errands.look():
            self._counting.hide()
        post = self._posting.post
        if post.sending and post.batch == self._safe_batch:
            self._errands.send(post.batch, post.sending)
        if self._sealed and self._errands.convert(self._sealed):
            self._sealed = []
        self._has_news |= bool(self._errands.converted)
        self._log.flush()

    def _wait(self) -> None:
        if self._job is not None:
            self._job[0].exception()
        self._look()
