"""SQL over what was recorded, with DuckDB: reading only, and nothing but the records.

The view ``predictions`` has the rows of all models, and a view of each model's name has its own; names that differ in
large and small letters only have one, as DuckDB does not tell them apart. ``time`` is UTC. A row is seen once, whether
it is in a spool or in the Parquet file that the spool has become.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Timer
from time import sleep
from typing import Any, NamedTuple
from urllib.parse import unquote

from modelyard.errors import InvalidInput, MissingDependency, NotFound, Overloaded, RemoteFailed
from modelyard.recording.batches import arrow
from modelyard.recording.places import Places
from modelyard.recording.spool import SUFFIX, read_spool

_NOTHING = "nothing has been recorded yet"
_HINT = "`modelyard records status` says where records are and who records"

#: Seconds between two looks at what is new.
FOLLOW_SECONDS = 0.5


class Result(NamedTuple):
    """What a query found."""

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Query:
    """The records as they are at this moment. Raises NotFound where there are none, MissingDependency."""

    def __init__(self, places: Places) -> None:
        self._duckdb = _duckdb()
        arrow()
        # Spools first: one that becomes a Parquet file meanwhile is then found twice, and not missed.
        spools = {path: table for path, table in _spools(places.segments) if table.num_rows}
        files = sorted(places.segments.glob("model=*/version=*/*.parquet"))
        done = {path.with_suffix("") for path in files}
        spools = {path: table for path, table in spools.items() if path.with_suffix("") not in done}
        if not files and not spools:
            raise NotFound(f"{_NOTHING} in {places.folder}", hint=_HINT)
        self._connection = self._duckdb.connect(":memory:")
        for setting in (
            "autoinstall_known_extensions=false", "autoload_known_extensions=false", "python_enable_replacements=false",
            "TimeZone='UTC'", f"allowed_paths=[{', '.join(_text(str(path)) for path in files)}]",
        ):  # fmt: skip
            self._connection.execute(f"SET {setting}")
        #: Files that are left out, as they cannot be read, or were deleted this moment.
        self.unreadable: list[Path] = []
        try:
            self._make_views(files, spools)
        except self._duckdb.Error as error:
            self.unreadable = [path for path in files if not _is_readable(path)]
            whole = [path for path in files if path not in self.unreadable]
            if len(whole) == len(files) or not (whole or spools):
                raise RemoteFailed(f"records in {places.folder} cannot be read: {_first_line(error)}") from None
            self._make_views(whole, spools)
        for setting in ("enable_external_access=false", "lock_configuration=true"):
            self._connection.execute(f"SET {setting}")

    def run(self, sql: str, parameters: Sequence[Any] = (), *, seconds: float | None = None) -> Result:
        """The rows of a SELECT. Raises InvalidInput for anything else, and for what DuckDB does not understand;
        Overloaded where it takes longer than ``seconds``.
        """
        timer = Timer(seconds or 0.0, self._connection.interrupt)
        if seconds is not None:
            timer.start()
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != self._duckdb.StatementType.SELECT:
                raise InvalidInput.at("sql", "one SELECT", "something else", hint="records are only read")
            found = self._connection.execute(statements[0], list(parameters))
            return Result([column[0] for column in found.description], found.fetchall())
        except self._duckdb.IOException as error:
            raise RemoteFailed(f"records cannot be read: {_first_line(error)}", hint="try again") from None
        except self._duckdb.InterruptException:
            raise Overloaded(
                f"the records were searched for {seconds:g} seconds, and longer is not allowed",
                hint="ask for one model and a shorter time",
            ) from None
        except self._duckdb.Error as error:
            raise InvalidInput(f"the query failed: {_first_line(error)}", hint=self._hint(error)) from None
        finally:
            timer.cancel()

    def close(self) -> None:
        self._connection.close()

    def _hint(self, error: Exception) -> str:
        if "Table with name" in str(error):
            return f"there are {', '.join(quoted(name) for name in ['predictions', *self.models][:20])}"
        lines = [line.strip() for line in str(error).splitlines()]
        return next((line for line in lines if line.startswith(("Did you mean", "Candidate bindings"))), "")

    def _make_views(self, files: Sequence[Path], spools: dict[Path, Any]) -> None:
        versions: dict[tuple[str, str], list[str]] = {}
        by_folder: dict[Path, list[Path]] = {}
        for path in files:
            by_folder.setdefault(path.parent, []).append(path)
        for folder, paths in by_folder.items():
            listed = ", ".join(_text(str(path)) for path in paths)
            source = f"read_parquet([{listed}], union_by_name=true, hive_partitioning=false)"
            versions.setdefault(_named(folder), []).append(source)
        for number, (path, table) in enumerate(spools.items()):
            self._connection.register(f"_spool_{number}", table)
            versions.setdefault(_named(path.parent), []).append(f"_spool_{number}")
        models: dict[str, list[str]] = {}
        for (model, version), sources in sorted(versions.items()):
            named = f"SELECT {_text(model)} AS model, {_text(version)} AS version"
            made = [f"{named}, * REPLACE (time AT TIME ZONE 'UTC' AS time) FROM {source}" for source in sources]
            models.setdefault(model, []).extend(made)
        #: Those that have records here.
        self.models = sorted(models)
        everything = [source for sources in models.values() for source in sources]
        views: dict[str, tuple[str, list[str]]] = {}
        for model, sources in models.items():
            views.setdefault(model.lower(), (model, []))[1].extend(sources)
        views["predictions"] = ("predictions", everything)
        for name, sources in views.values():
            self._connection.execute(f"CREATE OR REPLACE VIEW {quoted(name)} AS {' UNION ALL BY NAME '.join(sources)}")


def show(query: Query, id: str, *, seconds: float | None = None) -> list[dict[str, Any]]:
    """All rows of a prediction or a request, with what they were joined with, in their model's own types and columns.
    Raises NotFound.
    """
    asked, found = "prediction_id = $1 OR request_id = $1", []
    models = query.run(f"SELECT DISTINCT model FROM predictions WHERE {asked} ORDER BY model", [id], seconds=seconds)
    for (model,) in models.rows:
        sql = f"SELECT * FROM {quoted(model)} WHERE model = $2 AND ({asked}) ORDER BY time, prediction_id"
        found += query.run(sql, [id, model], seconds=seconds).records()
    if not found:
        raise NotFound(f"no prediction has this id: {id}", hint=_HINT)
    for row in found:
        mates = query.run(
            "SELECT DISTINCT request_id FROM predictions WHERE worker = $1 AND time = $2 AND request_id <> $3 "
            "AND code IS NOT NULL AND batch IS NOT NULL ORDER BY request_id LIMIT 1000",
            [row["worker"], row["time"], row["request_id"]],
        )  # fmt: skip
        row["joined_with"] = [mate for (mate,) in mates.rows]
    return found


def follow(places: Places, model: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows as they are recorded, from now on."""
    seen = {path: table.num_rows for path, table in _spools(places.segments)}
    while True:
        tables = dict(_spools(places.segments))
        for path in seen.keys() - tables.keys():
            tables[path] = _converted(path)
        for path, table in tables.items():
            name, version = _named(path.parent)
            for row in table.slice(seen.get(path, 0)).to_pylist() if model in (None, name) else ():
                yield {"model": name, "version": version, **row}
            seen[path] = table.num_rows
        seen = {path: rows for path, rows in seen.items() if path.exists()}
        sleep(FOLLOW_SECONDS)


def _converted(spool: Path) -> Any:
    """What was in a spool that is a Parquet file by now."""
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(spool.with_suffix(".parquet"), partitioning=None)
    except FileNotFoundError:
        return arrow().table({})


def _spools(folder: Path) -> Iterator[tuple[Path, Any]]:
    for path in sorted(folder.glob(f"model=*/version=*/*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError, ValueError):  # it became a Parquet file, or is being made
            yield path, read_spool(path)


def _named(folder: Path) -> tuple[str, str]:
    """The model and the version whose folder it is."""
    return unquote(folder.parent.name.partition("=")[2]), unquote(folder.name.partition("=")[2])


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _is_readable(path: Path) -> bool:
    """Whether a Parquet file is there and begun and ended well."""
    import pyarrow.parquet as parquet

    try:
        parquet.read_metadata(path)
    except (OSError, arrow().ArrowInvalid):
        return False
    return True


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise MissingDependency.extra("duckdb", "records", "querying records") from None
    return duckdb
