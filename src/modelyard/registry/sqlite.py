"""A registry's database in one file: nothing to install, one writer at a time, durable at every commit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from modelyard.errors import InvalidInput, RemoteFailed
from modelyard.registry.database import PATIENCE_SECONDS, Database, Kind


class Sqlite(Database):
    """The Database at ``path``. Where its folder cannot be written it can still be read."""

    has_schema = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'"
    is_fair: ClassVar[bool] = False
    begin: ClassVar[dict[Kind, tuple[str, ...]]] = {"read": ("BEGIN",), "write": ("BEGIN IMMEDIATE",)}

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.where = str(self._path)
        self._only_read = False
        #: Which file is open: device and inode. None before the first connection.
        self._file: tuple[int, int] | None = None
        super().__init__()

    def keeps(self) -> bool:
        """A file that only others can write is opened anew each time, so that their changes are seen; and so is one
        that was removed or put back, which an open connection would not notice.
        """
        return not self._only_read and self._file == self._found()

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino)

    def connect(self, kind: Kind) -> Any:
        """A new connection. Raises RemoteFailed where the file is missing, damaged or not to be written.

        What cannot be written (for want of permission, or of room on the disk) can still be read.
        """
        if self._file is not None and self._found() is None:  # nobody wants a new, empty one in its place
            raise RemoteFailed(f"the registry was removed: {self._path}")
        if self._writable():
            try:
                connection = self._for_all()
                self._file = self._found()
            except RemoteFailed:
                if kind == "write" or not self._path.exists():
                    raise
            else:
                self._only_read = False
                return connection
        elif kind == "write":
            raise self._unwritable()
        self._only_read = True
        return self._for_reading()

    def _for_all(self) -> sqlite3.Connection:
        with self.failures():
            connection = self._open(f"file:{quote(str(self._path))}?mode=rwc")
            try:
                self._use_log(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                connection.close()
                raise
            return connection

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
                raise  # a bug of ours
            raise self._in_words(error) from error
        except OverflowError:
            raise InvalidInput.at("number", "a whole number of up to 64 bits", "a larger one") from None

    def _writable(self) -> bool:
        return os.access(self._path.parent, os.W_OK) and (not self._path.exists() or os.access(self._path, os.W_OK))

    def _open(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = _as_dict
        return connection

    def _use_log(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log, once in the file's life. SQLite does not wait for its turn at that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while connection.execute("PRAGMA journal_mode").fetchone()["journal_mode"] != "wal":
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _for_reading(self) -> sqlite3.Connection:
        """A connection that only reads. The log of a crashed writer can only be read beside its index file."""
        if not os.access(self._path.parent, os.X_OK) or not self._path.exists():
            raise RemoteFailed(
                f"cannot use {self._path.parent}: no permission to write there, and no registry to read",
                hint="set MODELYARD_HOME to a folder that you may write to",
            )
        log = self._path.with_name(self._path.name + "-wal")
        modes = ["mode=ro"] if log.exists() and log.stat().st_size else ["mode=ro", "immutable=1"]
        for mode in modes:
            connection = self._open(f"file:{quote(str(self._path))}?{mode}")
            try:
                connection.execute("SELECT count(*) FROM sqlite_master")
                return connection
            except sqlite3.Error as error:
                connection.close()
                if mode == modes[-1]:
                    raise self._in_words(error) from error
        raise AssertionError("unreachable")

    def _unwritable(self) -> RemoteFailed:
        return RemoteFailed(
            f"cannot write to {self._path.parent}: no permission to write",
            hint="set MODELYARD_HOME to a folder that you may write to",
        )

    def _in_words(self, error: sqlite3.Error) -> RemoteFailed:
        name: str = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return RemoteFailed(
                f"the registry {self.where} is busy: another process has held its lock for {PATIENCE_SECONDS} s",
                hint="try again; if it stays so, find who has the file open: fuser " + self.where,
            )
        if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
            return RemoteFailed(
                f"cannot write to {self._path.parent}: the disk is full",
                hint="free some space, or set MODELYARD_HOME to a folder on another disk",
            )
        if name.startswith("SQLITE_READONLY"):
            return self._unwritable()
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return RemoteFailed(
                f"the registry's database is damaged: {self.where} ({error})",
                hint="put back a copy of it; the bundles themselves are in the store beside it",
            )
        return RemoteFailed(f"cannot use the registry's database {self.where}: {error}")


def _as_dict(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}
