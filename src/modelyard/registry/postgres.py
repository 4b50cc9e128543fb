"""A registry's database on a PostgreSQL server, for several machines. Give it a database or a schema of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import quote

from modelyard.errors import InvalidInput, MissingDependency, RemoteFailed
from modelyard.registry.database import PATIENCE_SECONDS, Database, Kind, Lost

#: The advisory lock that every writing transaction takes: "modelyard" in ASCII, cut to 63 bits.
_LOCK = int.from_bytes(b"modelyar", "big")

_CONNECT_SECONDS = 10


class Postgres(Database):
    """The Database at a postgresql:// URL. A connection that broke while nothing was going on is made anew."""

    has_schema = "SELECT 1 AS found WHERE to_regclass('schema_version') IS NOT NULL"
    begin: ClassVar[dict[Kind, tuple[str, ...]]] = {
        "read": ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
        "write": (
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS}s'",
            f"SELECT pg_advisory_xact_lock({_LOCK})",
        ),
    }

    def __init__(self, url: str) -> None:
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError:
            raise MissingDependency.extra("psycopg", "postgres", "a registry in PostgreSQL") from None
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # libpq's own words may quote a piece of the password.
            raise InvalidInput.at(
                "registry",
                "postgresql://user:password@host:port/database, special characters in the password as %XX",
                "a URL that does not parse",
            ) from None
        self._psycopg = psycopg
        self._url = url
        self._password = str(parts.get("password") or "")
        self._parameters = {"connect_timeout": parts.get("connect_timeout", _CONNECT_SECONDS)}
        user = f"{parts['user']}@" if parts.get("user") else ""
        port = f":{parts['port']}" if parts.get("port") else ""
        self.where = f"postgresql://{user}{parts.get('host') or 'localhost'}{port}/{parts.get('dbname') or ''}"
        super().__init__()

    def connect(self, kind: Kind) -> Any:
        """A new connection. Raises RemoteFailed with the server's place, never with a password."""
        from psycopg.rows import dict_row

        try:
            return self._psycopg.connect(
                self._url,
                autocommit=True,
                row_factory=dict_row,
                prepare_threshold=None,  # poolers between us and the server may not know prepared statements
                application_name="modelyard",
                **self._parameters,
            )
        except self._psycopg.Error as error:
            raise RemoteFailed(
                f"cannot reach the registry {self.where}: {self._words(error)}",
                hint="is the server running, and are the user, the password and the database right?",
            ) from None

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        errors = self._psycopg.errors
        try:
            yield
        except errors.LockNotAvailable:
            raise RemoteFailed(
                f"the registry {self.where} is busy: another process has held its lock for {PATIENCE_SECONDS} s",
                hint="try again",
            ) from None
        except (self._psycopg.IntegrityError, errors.SyntaxError, errors.UndefinedColumn):
            raise  # a bug of ours
        except self._psycopg.Error as error:
            state = error.sqlstate or "08"
            gone = state.startswith(("08", "57P"))  # connection exceptions; the server is shutting down or starting
            message = f"the registry {self.where} failed: {self._words(error)}"
            raise (Lost if gone else RemoteFailed)(message) from None

    def dialect(self, sql: str) -> str:
        return _percent(sql)

    def spread(self, sql: str, rows: Sequence[Sequence[str | int]]) -> Iterator[tuple[str, Sequence[Any]]]:
        """A column a value: the server need not read thousands of places in a statement, which takes it longer than
        keeping the rows.
        """
        columns = [list(column) for column in zip(*rows, strict=True)]
        places = [f"?::{'bigint' if type(column[0]) is int else 'text'}[]" for column in columns]
        yield sql.format(f"SELECT * FROM unnest({', '.join(places)})"), columns

    def _words(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        for secret in {self._password, quote(self._password, safe="")} - {""}:
            text = text.replace(secret, "***")
        return text


@lru_cache(maxsize=256)
def _percent(sql: str) -> str:
    return sql.replace("?", "%s")
