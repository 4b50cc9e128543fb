"""Reading every ring of a records folder: those that come, those whose servers are gone, those that are damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, time

import msgspec

from modelyard.errors import BadBundle, ModelyardError
from modelyard.recording import frames
from modelyard.recording.checkpoint import Reached
from modelyard.recording.ring import MAKING, RingReader
from modelyard.recording.rows import Gathered, gather
from modelyard.recording.subject import Subject
from modelyard.telemetry import Log

#: Seconds that a frame may take to become visible; what does not by then is damaged.
TORN_SECONDS = 1.0


class Source:
    """One ring as it is read."""

    def __init__(self, reader: RingReader, subjects: dict[tuple[str, str, str], Subject]) -> None:
        self.reader = reader
        self.lanes: dict[int, Subject] = {}
        #: Of its lost rows, how many were counted.
        self.lost = 0
        #: It was read before; all of it was read, and nobody writes any more.
        self.is_begun = self.is_done = False
        self.torn_since = 0.0
        self._subjects = subjects
        self._described = 0

    @property
    def reached(self) -> Reached:
        return Reached(self.reader.position, self.reader.rows, self.lost)

    @property
    def last(self) -> Subject | None:
        """The version that it told of last."""
        return self.lanes[max(self.lanes)] if self.lanes else None

    def learn(self) -> None:
        """Read what lanes there are, where there are more than before."""
        path = frames.lanes_path(self.reader.path)
        try:
            size = path.stat().st_size
        except OSError:
            return
        if size == self._described:
            return
        self._described = size
        for number, lane in frames.read_lanes(self.reader.path).items():
            if number not in self.lanes:
                key = (lane.model, lane.version, lane.digest)
                known = self._subjects.get(key)
                self.lanes[number] = known or self._subjects.setdefault(key, Subject(lane))


class Read(msgspec.Struct, array_like=True):
    """What one turn found in one ring: rows, and how many there were that are lost, of which version."""

    gathered: Gathered
    lost: int
    subject: Subject | None
    worker: int


class Reading:
    """Every ring of a folder. ``reached`` is how far an earlier recorder had come; None where nobody knows."""

    def __init__(self, folder: Path, log: Log, reached: Mapping[str, Reached] | None) -> None:
        self._folder = folder
        self._log = log
        self._before = reached
        self._subjects: dict[tuple[str, str, str], Subject] = {}
        self.sources: dict[str, Source] = {}
        #: Rings that cannot be read; they are told once.
        self._bad: set[str] = set()

    def turn(self) -> Iterator[Read]:
        """Read what is there, ring after ring."""
        self._look()
        for source in self.sources.values():
            if not source.is_done:
                yield self._read(source)

    def reached(self) -> dict[str, Reached]:
        """How far every ring was read."""
        return {name: source.reached for name, source in self.sources.items()}

    def release(self, reached: Mapping[str, Reached]) -> None:
        """What was read up to there is kept: servers may write over it."""
        for name, there in reached.items():
            source = self.sources.get(name)
            if source is not None and there.position > source.reader.released:
                source.reader.release(there.position, there.rows)

    @property
    def unread(self) -> bool:
        """Whether there is more than the last turn read."""
        return any(source.reader.unread for source in self.sources.values())

    @property
    def has_done(self) -> bool:
        """Whether a ring is there of which all was read, and which nobody writes any more."""
        return any(source.is_done for source in self.sources.values())

    @property
    def fullest(self) -> float:
        """How full the fullest ring is, from 0 to 1."""
        return max((s.reader.waiting / s.reader.size for s in self.sources.values() if not s.is_done), default=0.0)

    def remove(self, reached: Mapping[str, Reached]) -> bool:
        """Remove the rings that are done and were kept to their ends; whether there were any."""
        done = [name for name, source in self.sources.items() if source.is_done and reached.get(name) == source.reached]
        for name in done:
            source = self.sources.pop(name)
            source.reader.close()
            with contextlib.suppress(OSError):
                frames.lanes_path(source.reader.path).unlink(missing_ok=True)
                source.reader.path.unlink(missing_ok=True)
        used = {id(subject) for source in self.sources.values() for subject in source.lanes.values()}
        for key in [key for key, subject in self._subjects.items() if id(subject) not in used]:
            del self._subjects[key]
        return bool(done)

    def close(self) -> None:
        for source in self.sources.values():
            source.reader.close()

    def _look(self) -> None:
        """Open rings that are new."""
        try:
            found = list(self._folder.iterdir())
        except OSError:
            return
        for path in found:
            if path.suffix == ".ring" and path.name not in self.sources and path.name not in self._bad:
                self._open(path)
            elif path.suffix == MAKING:
                with contextlib.suppress(OSError):  # made in an instant, or never
                    if path.stat().st_mtime < time() - 3600:
                        path.unlink()

    def _open(self, path: Path) -> None:
        try:
            source = Source(RingReader(path), self._subjects)
        except (BadBundle, OSError, ValueError) as error:
            self._bad.add(path.name)
            self._log.write("error", "a ring of records cannot be read", ring=str(path), error=error)
            return
        self.sources[path.name] = source

    def _begin(self, source: Source) -> int:
        """Go to where the recorder before had come; returns the rows that it had let go of and not kept."""
        source.is_begun = True
        if self._before is None:
            return 0
        before = self._before.get(source.reader.path.name, Reached(0, 0, 0))
        source.lost = before.lost
        lost = source.reader.seek(before.position, before.rows)
        if lost:
            self._log.write("error", "rows were not recorded: the recorder before ended too soon", rows=lost)
        return lost

    def _read(self, source: Source) -> Read:
        reader = source.reader
        lost = self._begin(source) if not source.is_begun else 0
        # In this order: who is gone has written all; a lane is described before its first frame.
        is_gone = reader.is_abandoned
        found = list(reader.frames())
        try:
            source.learn()
        except (msgspec.MsgspecError, ModelyardError) as error:  # what its frames mean is not known then
            self._log.write("error", "a ring's versions cannot be read", ring=reader.path.name, error=error)
        gathered = gather(found, source.lanes, reader.process)
        if gathered.unknown:
            lost += gathered.unknown
            self._log.write("error", "frames of a ring make no sense", ring=reader.path.name, rows=gathered.unknown)
        source.lost += sum(n for rows in gathered.rows for n, _ in rows.lost)
        source.lost += sum(refusal.lost for _, refusal in gathered.refusals)
        if reader.is_torn:
            source.torn_since = source.torn_since or monotonic()
            if is_gone or monotonic() - source.torn_since > TORN_SECONDS:
                lost += reader.skip()
                self._log.write("error", "a ring of records is damaged", ring=reader.path.name, rows=lost)
        else:
            source.torn_since = 0.0
        if is_gone and not reader.unread:
            source.is_done = True  # and a checkpoint has to say so before it is removed
            lost += max(0, reader.lost[1] - source.lost)
            source.lost = reader.lost[1]
        return Read(gathered, lost, source.last, reader.process)
