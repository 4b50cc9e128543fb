"""SQLite and PostgreSQL behind one small door: statements with ``?``, rows as dicts, two kinds of transactions.

All writes of a registry happen one after another, under the database's own lock. Reads never wait for them and
see one moment. A database is safe for threads, and notices a fork.
"""

from __future__ import annotations

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from modelyard.errors import RemoteFailed

Row = dict[str, Any]
Kind = Literal["read", "write"]

#: How long a writer waits for another one.
PATIENCE_SECONDS = 30

#: Values that one statement may have; any database takes that many.
MOST_VALUES = 1000


class Lost(RemoteFailed):
    """The connection broke; if nothing was done on it yet, another one may be tried."""


class Work:
    """Statements on one connection, inside one transaction."""

    def __init__(self, database: Database, connection: Any) -> None:
        self._database = database
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Every row of a query."""
        with self._database.failures():
            found: list[Row] = self._connection.execute(self._database.dialect(sql), values).fetchall()
            return found

    def row(self, sql: str, *values: Any) -> Row | None:
        """The first row of a query, or None."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    def do(self, sql: str, *values: Any) -> None:
        """Run a statement that returns nothing."""
        with self._database.failures():
            self._connection.execute(self._database.dialect(sql), values)

    def put(self, sql: str, rows: Sequence[Sequence[str | int]]) -> None:
        """Run an INSERT for any number of rows without gaps: ``INSERT INTO tags (a, b) {} ON CONFLICT ...``, the rows
        in the place of ``{}``.
        """
        for statement, values in self._database.spread(sql, rows) if rows else ():
            self.do(statement, *values)

    def among(self, sql: str, values: Sequence[Any], *given: Any) -> list[Row]:
        """Every row of a query for any number of ``values``, in the place of ``{}``: ``... WHERE id IN ({})``.

        ``given`` are the values of the query before that place.
        """
        found: list[Row] = []
        for start in range(0, len(values), MOST_VALUES):
            some = values[start : start + MOST_VALUES]
            # Of one length mostly, so that a database knows the statement.
            found += self.rows(sql.format(",".join("?" * len(some))), *given, *some)
        return found

    def schema(self) -> int:
        """The number of the newest step of migration that was taken; 0 for an empty database."""
        if self.row(self._database.has_schema) is None:
            return 0
        found = self.row("SELECT version FROM schema_version")
        return int(found["version"]) if found else 0


class Database(ABC):
    """What both databases share: one connection for reads, one for writes, each used by one thread at a time."""

    #: The database's place, for messages; never with a password.
    where: str
    #: A query that has a row where the table ``schema_version`` exists.
    has_schema: str
    begin: ClassVar[dict[Kind, tuple[str, ...]]]
    #: Whether writers wait in a row; where they do not, one who comes again at once keeps others out.
    is_fair: ClassVar[bool] = True

    def __init__(self) -> None:
        self._abandoned: list[Any] = []
        self._connections: dict[Kind, Any] = {}
        self._fresh()

    @abstractmethod
    def connect(self, kind: Kind) -> Any:
        """A new connection that commits by itself. Raises RemoteFailed."""

    @abstractmethod
    def failures(self) -> contextlib.AbstractContextManager[None]:
        """Turns the library's errors into RemoteFailed, or Lost where the connection is gone."""

    def dialect(self, sql: str) -> str:
        """``sql`` as this database wants it."""
        return sql

    def spread(self, sql: str, rows: Sequence[Sequence[str | int]]) -> Iterator[tuple[str, Sequence[Any]]]:
        """Statements, with their values, that ``put`` these rows: many a statement."""
        width = len(rows[0])
        place, each = f"({','.join('?' * width)})", max(1, MOST_VALUES // width)
        for start in range(0, len(rows), each):
            some = rows[start : start + each]
            yield sql.format("VALUES " + ",".join([place] * len(some))), [value for row in some for value in row]

    def keeps(self) -> bool:
        """Whether a connection is used again; False where each use wants a new one."""
        return True

    def query(self, sql: str, *values: Any) -> list[Row]:
        """The rows of one query on its own."""
        with self._lock("read"):
            for attempt in (1, 2):
                try:
                    return self._work("read").rows(sql, *values)
                except BaseException as error:
                    self._drop("read")
                    if not isinstance(error, Lost) or attempt == 2:
                        raise
                finally:
                    if not self.keeps():
                        self._drop("read")
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def read(self) -> Iterator[Work]:
        """Several queries that see one moment."""
        with self._transaction("read") as work:
            yield work

    @contextlib.contextmanager
    def write(self) -> Iterator[Work]:
        """A transaction that nobody else's writing overlaps: all of it is kept, durably, or nothing."""
        with self._transaction("write") as work:
            yield work

    def schema(self) -> int:
        """See Work.schema."""
        with self.read() as work:
            return work.schema()

    def close(self) -> None:
        """Close the connections. New ones are opened if the database is used again."""
        kinds: tuple[Kind, ...] = ("read", "write")
        for kind in kinds:
            with self._lock(kind):
                self._drop(kind)

    def __del__(self) -> None:
        if getattr(self, "_process", None) == os.getpid():
            for kind in list(self._connections):
                self._drop(kind)

    @contextlib.contextmanager
    def _transaction(self, kind: Kind) -> Iterator[Work]:
        with self._lock(kind):
            work = self._started(kind)
            try:
                yield work
                try:
                    work.do("COMMIT")
                except Lost as error:
                    message = f"{error.message}; whether the change was made is not known"
                    raise RemoteFailed(message, hint="look at the history first", unknown=True) from None
            except BaseException:
                self._drop(kind)  # closing it undoes what was begun, whatever state it is in
                raise
            if not self.keeps():
                self._drop(kind)

    def _started(self, kind: Kind) -> Work:
        for attempt in (1, 2):
            try:
                work = self._work(kind)
                for statement in self.begin[kind]:
                    work.do(statement)
                return work
            except BaseException as error:
                self._drop(kind)
                if not isinstance(error, Lost) or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _work(self, kind: Kind) -> Work:
        connection = self._connections.get(kind)
        if connection is None:
            connection = self._connections[kind] = self.connect(kind)
        return Work(self, connection)

    def _drop(self, kind: Kind) -> None:
        connection = self._connections.pop(kind, None)
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be broken already; it is gone either way
                connection.close()

    def _lock(self, kind: Kind) -> threading.RLock:
        if self._process != os.getpid():
            # After a fork the connections are the parent's: neither to be used nor, by the collector, closed.
            self._abandoned.append(self._connections)
            self._fresh()
        return self._locks[kind]

    def _fresh(self) -> None:
        self._process = os.getpid()
        self._connections = {}
        self._locks = {"read": threading.RLock(), "write": threading.RLock()}


def open_database(where: str) -> Database:
    """The database at a postgresql:// URL, or the SQLite file at a path."""
    if is_url(where):
        from modelyard.registry.postgres import Postgres

        return Postgres(where)
    from modelyard.registry.sqlite import Sqlite

    return Sqlite(where)


def is_url(where: str) -> bool:
    """Whether ``where`` names a PostgreSQL server rather than a folder."""
    return where.startswith(("postgresql://", "postgres://"))
