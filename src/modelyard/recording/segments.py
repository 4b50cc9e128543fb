"""Segments: what is kept of predictions, on disk, in files that anybody can read.

``segments/model=churn/version=5/20261130T160102123-<source>.parquet``; the newest rows are in a spool beside them. A
bundle that no registry has numbered is version 0.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING
from urllib.parse import quote

from modelyard.recording.spool import SUFFIX, Spool, cut, to_parquet
from modelyard.telemetry import Log

if TYPE_CHECKING:
    import pyarrow

#: A spool becomes a Parquet file at this many bytes; after ten minutes where it is worth a file, else after an hour:
#: many small files are slow to read, and files that are there are never changed, as labels know rows by their places.
SPOOL_BYTES, WORTH_BYTES = 32 << 20, 1 << 20
SPOOL_SECONDS, SMALL_SECONDS = 600.0, 3600.0


class Segments:
    """The spools of one recorder. Used by one thread, but for ``convert`` and ``retain``, which another may call."""

    def __init__(self, folder: Path, source: str, log: Log) -> None:
        self._folder = folder
        self._source = source
        self._log = log
        self._spools: dict[Path, tuple[Spool, float]] = {}
        #: Spools to which nothing is added any more, and their sizes.
        self.sealed: dict[str, int] = {}
        self._is_failing = False

    def found(self) -> dict[str, int]:
        """Our spools as they lie there, and how long they are."""
        return {self._name(path): path.stat().st_size for path in self._ours()}

    def recover(self, kept: dict[str, int]) -> None:
        """Go on from what a checkpoint says: spools end where it was kept up to, and what it does not know goes."""
        for path in self._ours():
            name = self._name(path)
            if name not in kept or path.with_suffix(".parquet").exists():
                path.unlink(missing_ok=True)
            else:
                cut(path, kept[name])
                self.sealed[name] = kept[name]
        for left in self._folder.glob(f"*/*/*-{self._source}.making"):
            left.unlink(missing_ok=True)

    def state(self) -> dict[str, int]:
        """Each spool that is not a Parquet file yet, and how long it is."""
        return self.sealed | {self._name(spool.path): spool.size for spool, _ in self._spools.values()}

    def append(self, model: str, version: str, batch: pyarrow.RecordBatch) -> int:
        """Keep rows; returns how many of them the disk did not take: all or none."""
        folder = self._folder / f"model={quote(model, safe='')}" / f"version={quote(version or '0', safe='')}"
        try:
            self._spool(folder, batch.schema).append(batch)
        except OSError as error:
            if not self._is_failing:
                self._is_failing = True
                self._log.write("warning", "predictions are not kept", folder=str(folder), error=error)
            return int(batch.num_rows)
        if self._is_failing:
            self._is_failing = False
            self._log.write("info", "predictions are kept again", folder=str(folder))
        return 0

    def _spool(self, folder: Path, schema: pyarrow.Schema) -> Spool:
        found = self._spools.get(folder)
        if found is not None and found[0].schema.equals(schema):
            return found[0]
        self._seal(folder)
        stamp = datetime.now(UTC)
        while True:
            name = f"{stamp:%Y%m%dT%H%M%S}{stamp.microsecond // 1000:03d}-{self._source}{SUFFIX}"
            with contextlib.suppress(FileExistsError):
                spool = Spool(folder / name, schema)
                break
            stamp = datetime.now(UTC)
        self._spools[folder] = (spool, monotonic())
        return spool

    def _seal(self, folder: Path) -> None:
        spool, _ = self._spools.pop(folder, (None, 0.0))
        if spool is not None:
            self.sealed[self._name(spool.path)] = spool.size
            spool.close()

    def seal(self, *, every: bool = False) -> None:
        """Add no more to spools that are large or old enough, or to any."""
        now = monotonic()
        for folder, (spool, since) in list(self._spools.items()):
            longest = SPOOL_SECONDS if spool.size >= WORTH_BYTES else SMALL_SECONDS
            if every or spool.size >= SPOOL_BYTES or now - since >= longest:
                self._seal(folder)

    def convert(self, name: str) -> bool:
        """Make a Parquet file of a sealed spool. False where the disk has no room; it may be tried again."""
        path = self._folder / name
        if not path.exists():  # it was done before
            return True
        try:
            to_parquet(path, path.with_suffix(".parquet"))
            path.unlink()
        except OSError as error:
            self._log.write("warning", "a spool stays as it is", spool=str(path), error=error)
            return False
        except ValueError as error:
            self._log.write("error", "a spool is damaged", spool=str(path), error=error)
            path.rename(path.with_suffix(".damaged"))
        return True

    def retain(self, days: float, size: int) -> int:
        """Delete the files of rows older than ``days``, and the oldest of those that take more than ``size`` bytes in
        all: also what cannot be read, and what recorders that are no more have left. Returns the bytes that freed.
        """
        found = []
        for path in self._folder.glob("*/*/*"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        held = sum(bytes for _, bytes, _ in found)
        freed, oldest = 0, time() - days * 86400
        written = tuple(f"-{self._source}{suffix}" for suffix in (SUFFIX, ".making"))
        for changed, bytes, path in sorted(found):
            if not path.name.endswith(written) and (changed < oldest or held - freed > size):
                path.unlink(missing_ok=True)
                freed += bytes
        return freed

    def close(self) -> None:
        for spool, _ in self._spools.values():
            spool.close()

    def _ours(self) -> list[Path]:
        return sorted(self._folder.glob(f"*/*/*-{self._source}{SUFFIX}"))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._folder))
