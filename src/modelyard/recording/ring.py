"""A ring of frames in a file that two processes map: one writes, one reads, and neither ever waits for the other.

The file outlives both. What a server had written when it was killed is read afterwards, and what a recorder had not
kept yet when it was killed is read again by the next. Where the ring is full, a frame is not written but counted: the
service goes on, and says what was not recorded.

In the first page of the file: a mark, the size of the ring, the writer's process, how far was written and read (bytes
since the beginning), the frames and rows written, and those there was no room for. Behind it, frames one after the
other; one that would cross the end of the ring begins at its start.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelyard.errors import BadBundle

_MARK = b"MYRING01"
_PAGE = mmap.PAGESIZE
#: Places of numbers in the first page.
_SIZE, _PROCESS, _WRITTEN, _READ, _FRAMES, _ROWS, _LOST_FRAMES, _LOST_ROWS = range(8, 72, 8)

_NUMBER = struct.Struct("<Q")
#: A frame: its size with everything, its kind, how many bytes its head has, and a stamp, which stands at its end too,
#: so that a frame of which only a part is visible yet is known as one.
_FRAME = struct.Struct("<IHHII")
_STAMP = struct.Struct("<I")
_SKIP = 0xFFFF

#: Bytes of a ring: what a second of a busy server takes.
RING_BYTES = 8 << 20


class RingWriter:
    """The end of the server's process. One thread at a time. Raises OSError where the disk has no room for it."""

    def __init__(self, path: Path, size: int = RING_BYTES) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Held as long as the process lives: whoever can lock it knows that nobody writes any more.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            _reserve(descriptor, _PAGE + size)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, _PAGE + size)
        self._size = size
        self._set(_SIZE, size)
        self._set(_PROCESS, os.getpid())
        self._written = self._seen = 0
        self._frames = self._rows = 0
        self._map[0:8] = _MARK  # last, so that a file half made is no ring

    def put(self, kind: int, head: bytes, blocks: Sequence[Any], size: int, rows: int) -> bool:
        """Write one frame: ``head``, then ``blocks``, buffers of ``size`` bytes in all. False where there is no room."""
        whole = (_FRAME.size + len(head) + size + _STAMP.size + 7) & ~7
        place = self._written % self._size
        gap = self._size - place
        needed = whole if whole <= gap else gap + whole
        if self._written + needed - self._seen > self._size:
            self._seen = self._get(_READ)
            if self._written + needed - self._seen > self._size:
                self._set(_LOST_FRAMES, self._get(_LOST_FRAMES) + 1)
                self._set(_LOST_ROWS, self._get(_LOST_ROWS) + rows)
                return False
        ring, stamp = self._map, self._frames & 0xFFFFFFFF
        if whole > gap:
            if gap >= _FRAME.size:
                _FRAME.pack_into(ring, _PAGE + place, gap, _SKIP, 0, 0, stamp)
            place = 0
        at = _PAGE + place
        _FRAME.pack_into(ring, at, whole, kind, 0, len(head), stamp)
        at += _FRAME.size
        end = at + len(head)
        ring[at:end] = head
        for block in blocks:
            at, end = end, end + block.nbytes
            ring[at:end] = block
        _STAMP.pack_into(ring, _PAGE + place + whole - _STAMP.size, stamp)
        self._frames += 1
        self._rows += rows
        self._written += needed
        _NUMBER.pack_into(ring, _FRAMES, self._frames)
        _NUMBER.pack_into(ring, _ROWS, self._rows)
        _NUMBER.pack_into(ring, _WRITTEN, self._written)
        return True

    @property
    def room(self) -> int:
        """Bytes of the largest frame that is worth writing: of larger ones, too few would fit beside each other."""
        return self._size // 4

    def close(self) -> None:
        """Write no more. What is there stays for the reader, who removes the file."""
        self._map.close()
        os.close(self._descriptor)

    def _get(self, place: int) -> int:
        value: int = _NUMBER.unpack_from(self._map, place)[0]
        return value

    def _set(self, place: int, value: int) -> None:
        _NUMBER.pack_into(self._map, place, value)


class RingReader:
    """The end of the recorder. Frames are read, kept by the caller, and then let go of with ``release``."""

    def __init__(self, path: Path) -> None:
        """Raises BadBundle where the file is no ring, or not one yet."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            length = os.fstat(self._descriptor).st_size
            if length <= _PAGE:
                raise BadBundle(f"not a ring of records, or not one yet: {path}")
            self._map = mmap.mmap(self._descriptor, length)
        except BaseException:
            os.close(self._descriptor)
            raise
        if self._map[0:8] != _MARK or self._get(_SIZE) != length - _PAGE:
            self.close()
            raise BadBundle(f"not a ring of records, or not one yet: {path}")
        self._size = length - _PAGE
        #: How far this reader has read; what lies before ``released`` may be overwritten.
        self.position = self._get(_READ)

    @property
    def process(self) -> int:
        """The writer's process."""
        return self._get(_PROCESS)

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
    def is_empty(self) -> bool:
        """Whether everything that was written has been released."""
        return self._get(_READ) == self._get(_WRITTEN)

    @property
    def lost(self) -> tuple[int, int]:
        """Frames and rows that there was no room for, since the ring was made."""
        return self._get(_LOST_FRAMES), self._get(_LOST_ROWS)

    @property
    def written(self) -> tuple[int, int]:
        """Frames and rows that were written since the ring was made."""
        return self._get(_FRAMES), self._get(_ROWS)

    def frames(self, most: int = 10_000) -> Iterator[tuple[int, bytes, memoryview]]:
        """The kind, head and rest of frames that were not read yet, oldest first. The rest is the ring's own memory: it
        is good until ``release``.
        """
        written = self._get(_WRITTEN)
        view = memoryview(self._map)
        for _ in range(most):
            if self.position >= written:
                return
            place = self.position % self._size
            at, gap = _PAGE + place, self._size - place
            if gap < _FRAME.size:
                self.position += gap
                continue
            whole, kind, _, length, stamp = _FRAME.unpack_from(self._map, at)
            if kind == _SKIP:
                self.position += gap
                continue
            end = at + whole
            if not _FRAME.size <= whole <= gap or _STAMP.unpack_from(self._map, end - _STAMP.size)[0] != stamp:
                return  # not all of it is visible here yet
            start = at + _FRAME.size + length
            self.position += whole
            yield kind, bytes(view[at + _FRAME.size : start]), view[start : end - _STAMP.size]

    def release(self) -> None:
        """What was read is kept elsewhere by now: the writer may write over it."""
        _NUMBER.pack_into(self._map, _READ, self.position)

    def close(self) -> None:
        try:
            self._map.close()
        except BufferError:  # somebody still looks at a frame; the map goes with the last of them
            pass
        os.close(self._descriptor)

    def _get(self, place: int) -> int:
        value: int = _NUMBER.unpack_from(self._map, place)[0]
        return value


def _reserve(descriptor: int, size: int) -> None:
    """Have the disk's room for a file now: a page that has none when it is first written to ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.write(descriptor, bytes(size))
