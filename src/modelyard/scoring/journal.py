"""A job that survives a crash: two files that only grow, and a checkpoint that says how far they are true.

Beside the output stands a work folder, ``OUTPUT.partial``, with the grown rows, the rejected rows and
``checkpoint.json``. A checkpoint is written after the rows it speaks of are on disk, by renaming, so that it is
either the old one or the new one. Going on means: cut both files off at the checkpoint's lengths and read on from
its place. What was written after it is gone and is written again; so no row is there twice and none is missing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec

from modelyard.errors import Conflict
from modelyard.tables.pieces import Place

FORMAT = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What must be the same for a job to go on."""

    input: str
    input_size: int
    input_modified: int
    model: str
    columns: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job has come: bytes of both files, rows of each kind, and where to read on."""

    format: int = FORMAT
    job: Job
    place: Place = Place()
    written: int = 0
    rejected_written: int = 0
    scored: int = 0
    rejected: int = 0
    done: bool = False


class Journal:
    """The work folder of one output. Opening it takes a lock, goes on from the checkpoint or begins anew.

    Raises Conflict where another process is at work there, or where the work begun was another job.
    """

    def __init__(self, output: Path, job: Job, *, anew: bool = False) -> None:
        self.folder = output.with_name(output.name + ".partial")
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Conflict(f"another process is writing {output}") from None
        try:
            self.checkpoint = self._read(job, anew)
            self._files: list[BinaryIO] = []
            if not self.checkpoint.done:
                self._files.append(_open(self.rows_path, self.checkpoint.written))
                self._files.append(_open(self.rejected_path, self.checkpoint.rejected_written))
        except BaseException:
            self._lock.close()
            raise

    @property
    def rows_path(self) -> Path:
        return self.folder / "rows"

    @property
    def rejected_path(self) -> Path:
        return self.folder / "rejected"

    def _read(self, job: Job, anew: bool) -> Checkpoint:
        path = self.folder / "checkpoint.json"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
        except FileNotFoundError:
            return Checkpoint(job=job)
        except msgspec.DecodeError:
            found = None
        changed = _changes(found, job)
        if found is not None and not changed:
            return found
        if anew:
            path.unlink()
            return Checkpoint(job=job)
        raise Conflict(
            f"work that was begun cannot go on, {changed} changed: {self.folder}",
            hint="--overwrite begins anew",
        )

    def append(self, rows: bytes, rejected: bytes) -> None:
        for file, data in zip(self._files, (rows, rejected), strict=True):
            file.write(data)

    def commit(self, **changes: Any) -> None:
        """Make what was appended true: first the bytes, then the checkpoint that counts them."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        written, rejected_written = (file.tell() for file in self._files)
        self.checkpoint = msgspec.structs.replace(
            self.checkpoint, written=written, rejected_written=rejected_written, **changes
        )
        fresh = self.folder / "checkpoint.new"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(self.checkpoint))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / "checkpoint.json")
        sync_folder(self.folder)

    def close_files(self) -> None:
        for file in self._files:
            file.close()

    def remove(self) -> None:
        """Forget the work; the checkpoint goes first, so that what is left of the folder means nothing."""
        (self.folder / "checkpoint.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_files()
        self._lock.close()


def _open(path: Path, length: int) -> BinaryIO:
    """The file, cut off at ``length``, to be appended to."""
    file = path.open("rb+" if path.exists() else "wb+")
    if path.stat().st_size < length:
        file.close()
        raise Conflict(f"work that was begun cannot go on, rows are missing: {path}", hint="--overwrite begins anew")
    file.truncate(length)
    file.seek(length)
    return file


def _changes(found: Checkpoint | None, job: Job) -> str:
    if found is None or found.format != FORMAT:
        return "the format of the checkpoint"
    if found.job == job:
        return ""
    words = {
        "input": "the input",
        "input_size": "the input",
        "input_modified": "the input",
        "model": "the model",
        "columns": "the wanted columns",
    }
    named = [words[name] for name in job.__struct_fields__ if getattr(job, name) != getattr(found.job, name)]
    return " and ".join(dict.fromkeys(named))


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
