"""Writing to a disk so that nothing is ever seen half-written, and saying in words why it cannot be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from modelyard.errors import RemoteFailed

#: What the system says where somebody may not write.
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


class Scratch:
    """Temporary files and folders in ``folder``, to be renamed to where they belong when they are complete.

    Each one is locked (``flock``) while its maker lives; the system drops the lock with the process. What is not
    locked is therefore left over, whatever its age, and whoever comes next may sweep it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def file(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file, open for writing. It is removed at the end unless it was renamed."""

        def create(path: Path) -> int:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)

        path, descriptor = self._make(create)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """A new folder. It is removed at the end unless it was renamed."""

        def create(path: Path) -> int:
            path.mkdir()
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

        path, descriptor = self._make(create)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)

    def sweep(self) -> int:
        """Remove what dead processes left; return how many bytes that freed."""
        freed = 0
        try:
            leftovers = list(self.folder.iterdir())
        except FileNotFoundError:
            return 0
        for path in leftovers:
            with contextlib.suppress(OSError):  # somebody else swept it, or its maker lives
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    freed += _size(path)
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                finally:
                    os.close(descriptor)
        return freed

    def _make(self, create: Callable[[Path], int]) -> tuple[Path, int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = self.folder / secrets.token_hex(8)
            try:
                descriptor = create(path)
            except FileNotFoundError:  # swept between the making and the opening
                if self.folder.is_dir():
                    continue
                raise
            with contextlib.suppress(OSError):  # a file system without locks: then nothing there is ever swept
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return path, descriptor
            os.close(descriptor)  # swept between the opening and the lock


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write every byte of ``data`` to an unbuffered file, which may take them in parts."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within it no other thread or process holds the lock at ``path``, a file that is made and stays."""
    with path.open("ab") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # also for a child that was forked meanwhile


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the system's refusals to write into ``folder`` into RemoteFailed, in words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message, hint = "the disk is full", "free some space, or set MODELYARD_HOME to a folder on another disk"
        elif error.errno in FORBIDDEN:
            message, hint = "no permission to write", "set MODELYARD_HOME to a folder that you may write to"
        else:
            message, hint = error.strerror or str(error), ""
        raise RemoteFailed(f"cannot write to {folder}: {message}", hint=hint) from error
