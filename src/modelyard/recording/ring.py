"""A ring of frames in a file that two processes map: one writes, one reads, and neither ever waits for the other.

The file outlives both. What a server had written when it was killed is read afterwards, and what a recorder had not
kept yet when it was killed is read again by the next. Where the ring is full, a frame is not written but counted: the
service goes on, and says what was not recorded.

In the first page of the file: a mark, the size of the ring, the writer's process, how far was written and read (bytes
since the beginning, and rows), and the frames and rows that there was no room for. Behind it, frames one after the
other; one that would cross the end of the ring begins at its start.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelyard.errors import BadBundle

_MARK = b"MYRING02"
_PAGE = mmap.PAGESIZE
#: Places of numbers in the first page, eight bytes each. They are read and written through a view of whole numbers, one
#: access to the memory each, so that the other process never sees one half changed.
_SIZE, _PROCESS, _WRITTEN, _WRITTEN_ROWS, _READ, _READ_ROWS, _LOST_FRAMES, _LOST_ROWS = range(1, 9)

#: A frame begins with its size with everything, a stamp, how many bytes its head has, its rows, its kind and four bytes
#: of nothing. The stamp, which counts frames, stands at its end too, so that one of which only a part is visible yet,
#: or none, is known.
_FRAME = struct.Struct("<IIIIII")
_STAMP = struct.Struct("<I")
_pack_frame, _pack_stamp = _FRAME.pack_into, _STAMP.pack_into
_SKIP = 0

#: Bytes of a ring: what a third of a second of a very busy server takes.
RING_BYTES = 8 << 20

_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)


class RingWriter:
    """The end of the server's process. One thread at a time. Raises OSError where the disk has no room for it."""

    def __init__(self, path: Path, size: int = RING_BYTES) -> None:
        assert size % 8 == 0 and size >= 256
        self.path = path
        #: Bytes of the largest frame that is worth writing: of larger ones, too few would fit beside each other.
        self.room = size // 4
        # Nobody knows it under its name before it is whole and locked.
        making = path.with_suffix(MAKING)
        self._descriptor = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Held as long as the process lives: whoever can lock it knows that nobody writes any more.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _reserve(self._descriptor, _PAGE + size)
            self._map = mmap.mmap(self._descriptor, _PAGE + size, flags=_FLAGS)
            self._numbers = memoryview(self._map)[:_PAGE].cast("Q")
            self._numbers[_SIZE] = self._size = size
            self._numbers[_PROCESS] = os.getpid()
            self._map[0:8] = _MARK
            making.rename(path)
        except BaseException:
            os.close(self._descriptor)
            making.unlink(missing_ok=True)
            raise
        self._written = self._rows = self._stamp = self._seen = 0

    def put(self, kind: int, head: bytes, blocks: Sequence[Any], size: int, rows: int) -> bool:
        """Write one frame: ``head``, then ``blocks``, buffers of ``size`` bytes in all. False where there is no room.

        Raises ValueError for a block that is not contiguous; then nothing was written.
        """
        length = len(head)
        whole = (length + size + _ROUND) & ~7
        capacity = self._size
        place = self._written % capacity
        after = self._written + whole
        if place + whole > capacity:
            after += capacity - place
        if after - self._seen > capacity:
            self._seen = self._numbers[_READ]
            if after - self._seen > capacity:
                self.lose(1, rows)
                return False
        ring, stamp = self._map, self._stamp
        if place + whole > capacity:
            if capacity - place >= _FRAME.size:
                _pack_frame(ring, _PAGE + place, capacity - place, stamp, 0, 0, _SKIP, 0)
            place = 0
        at = _PAGE + place
        _pack_frame(ring, at, whole, stamp, length, rows, kind, 0)
        last = at + whole - 4
        at += _HEAD
        end = at + length
        ring[at:end] = head
        for block in blocks:
            at, end = end, end + block.nbytes
            ring[at:end] = block
        _pack_stamp(ring, last, stamp)
        self._stamp = stamp + 1 & 0xFFFFFFFF
        self._rows += rows
        self._written = after
        numbers = self._numbers
        numbers[_WRITTEN_ROWS] = self._rows
        numbers[_WRITTEN] = after
        return True

    def lose(self, frames: int, rows: int) -> None:
        """Count what is not written."""
        self._numbers[_LOST_FRAMES] += frames
        self._numbers[_LOST_ROWS] += rows

    def close(self) -> None:
        """Write no more. What is there stays for the reader, who removes the file."""
        self._numbers.release()
        self._map.close()
        os.close(self._descriptor)


#: What a frame takes before its head, and in all beside its head and blocks with what rounds it up to eight bytes.
_HEAD = _FRAME.size
_ROUND = _HEAD + _STAMP.size + 7

#: How the file is called while it is made; its maker died where one stays behind.
MAKING = ".making"


#: A frame as it is read: its kind, its head, the rest, and its rows. Head and rest are the ring's own memory, which is
#: good until ``release``.
Frame = tuple[int, memoryview, memoryview, int]


class RingReader:
    """The end of the recorder. Frames are read, kept by the caller, and then let go of with ``release``."""

    def __init__(self, path: Path) -> None:
        """Raises BadBundle where the file is no ring."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            length = os.fstat(self._descriptor).st_size
            if length <= _PAGE:
                raise BadBundle(f"not a ring of records: {path}")
            self._map = mmap.mmap(self._descriptor, length)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._view = memoryview(self._map)
        self._numbers = self._view[:_PAGE].cast("Q")
        self.size = length - _PAGE
        if self._map[0:8] != _MARK or self._numbers[_SIZE] != self.size:
            self.close()
            raise BadBundle(f"not a ring of records: {path}")
        #: How far this reader has read, in bytes and rows; what lies before what was released may be overwritten.
        self.position = self.released
        self.rows = self._numbers[_READ_ROWS]
        self._stamp: int | None = None
        #: Whether the last reading ended at a frame of which not everything is visible.
        self.is_torn = False

    @property
    def process(self) -> int:
        """The writer's process."""
        return self._numbers[_PROCESS]

    @property
    def is_abandoned(self) -> bool:
        """Whether its writer is gone."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return True

    @property
    def released(self) -> int:
        """Where what was not released yet begins."""
        return self._numbers[_READ]

    @property
    def waiting(self) -> int:
        """Bytes that were written and not released."""
        return max(0, self._numbers[_WRITTEN] - self.released)

    @property
    def unread(self) -> int:
        """Bytes that were written and not read."""
        return max(0, self._numbers[_WRITTEN] - self.position)

    @property
    def written_rows(self) -> int:
        """Rows that were written since the ring was made."""
        return self._numbers[_WRITTEN_ROWS]

    @property
    def lost(self) -> tuple[int, int]:
        """Frames and rows that there was no room for, since the ring was made."""
        return self._numbers[_LOST_FRAMES], self._numbers[_LOST_ROWS]

    def frames(self, most: int = 100_000) -> Iterator[Frame]:
        """Frames that were not read yet, oldest first."""
        written = self._numbers[_WRITTEN]
        view = self._view
        self.is_torn = False
        while most > 0 and self.position < written:
            place = self.position % self.size
            at, gap = _PAGE + place, self.size - place
            if gap < _FRAME.size:
                self.position += gap
                continue
            whole, stamp, length, rows, kind, _ = _FRAME.unpack_from(view, at)
            if self._stamp not in (None, stamp) or not _FRAME.size <= whole <= gap:
                self.is_torn = True
                return
            if kind == _SKIP:
                self.position += gap
                continue
            start, end = at + _FRAME.size + length, at + whole - _STAMP.size
            if start > end or _STAMP.unpack_from(view, end)[0] != stamp:
                self.is_torn = True
                return
            self._stamp = (stamp + 1) & 0xFFFFFFFF
            self.position += whole
            self.rows += rows
            most -= 1
            yield kind, view[at + _HEAD : start], view[start:end], rows

    def seek(self, position: int, rows: int) -> int:
        """Go on where another reader had kept everything up to; returns the rows between there and what was released,
        which nobody can read any more.
        """
        if position >= self.released:
            self.position, self.rows = position, rows
            return 0
        return max(0, self.rows - rows)

    def skip(self) -> int:
        """Give up what is there and cannot be read; returns how many rows that are."""
        written, rows = self._numbers[_WRITTEN], self._numbers[_WRITTEN_ROWS]
        given_up = max(0, rows - self.rows)
        self.position, self.rows = written, rows
        self._stamp, self.is_torn = None, False
        return given_up

    def release(self, position: int, rows: int) -> None:
        """What was read up to there is kept elsewhere by now: the writer may write over it."""
        self._numbers[_READ_ROWS] = rows
        self._numbers[_READ] = position

    def close(self) -> None:
        # Where somebody still looks at a frame, the map goes with the last of them.
        with contextlib.suppress(BufferError):
            self._numbers.release()
            self._view.release()
            self._map.close()
        os.close(self._descriptor)


def is_written(path: Path) -> bool:
    """Whether a process writes, or may write, to the ring of this file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _reserve(descriptor: int, size: int) -> None:
    """Have the room for a file now: a page that has none when it is first written to ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    rest = memoryview(bytes(size))
    while rest:
        rest = rest[os.write(descriptor, rest) :]
