"""Migrations, locks, damage, lost connections and secrets: what lies between the registry and its database."""

import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import InvalidInput, MissingDependency, Refused, RemoteFailed
from modelyard.registry import Registry, migrations, sqlite
from modelyard.registry.database import is_url
from modelyard.registry.postgres import Postgres
from modelyard.stores.local import LocalStore
from registries import TABLES, Make, new_schema, run_sql


@pytest.fixture
def empty(place: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A place where no registry has been opened yet."""
    if not is_url(place):
        yield place
        return
    with new_schema(request.getfixturevalue("postgres_url")) as url:
        yield url


def execute(place: str, statement: str) -> None:
    """Change a registry's database behind its back."""
    if is_url(place):
        run_sql(place, statement)
        return
    with sqlite3.connect(Path(place) / "registry.db") as connection:
        connection.execute(statement)
    connection.close()


# -- migrations ----------------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_and_left_alone(empty: str) -> None:
    Registry.open(empty).close()
    execute(empty, "UPDATE schema_version SET version = 99")
    with pytest.raises(
        Refused, match=r"made by a newer Modelyard: its schema is 99, this one knows up to \d+"
    ) as caught:
        Registry.open(empty)
    assert "upgrade" in caught.value.hint


def test_an_older_schema_is_brought_up_to_date_with_all_that_is_in_it(
    empty: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Registry.open(empty)
    version = old.register(make(), "churn")
    old.close()
    more = ("CREATE TABLE notes (note TEXT NOT NULL)", "INSERT INTO notes (note) VALUES ('moved')")
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, more))
    for _ in range(2):
        registry = Registry.open(empty)
        assert registry.resolve("churn") == version
        assert registry._database.query("SELECT note FROM notes") == [{"note": "moved"}]
        assert registry._database.schema() == len(migrations.STEPS)
        registry.close()


def test_a_migration_that_fails_leaves_things_as_they_were(
    empty: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Registry.open(empty)
    old.register(make(), "churn")
    good = migrations.STEPS
    monkeypatch.setattr(migrations, "STEPS", (*good, ("CREATE TABLE notes (note TEXT)", "DROP TABLE nothing")))
    with pytest.raises(RemoteFailed, match="nothing"):
        Registry.open(empty)
    monkeypatch.setattr(migrations, "STEPS", good)
    registry = Registry.open(empty)
    assert registry._database.schema() == len(good)
    assert registry.resolve("churn").number == 1
    with pytest.raises(RemoteFailed, match="notes"):
        registry._database.query("SELECT note FROM notes")


def test_many_open_an_empty_place_at_once(empty: str) -> None:
    reader, writer = os.pipe()
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(writer, Registry.open(empty)._identity.encode())
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    identities = os.read(reader, 10_000).decode()
    assert identities == identities[:32] * 8


# -- locks, threads, forks -----------------------------------------------------------------------------------


def test_reading_never_waits_for_a_writer(registry: Registry, make: Make, place: str) -> None:
    registry.register(make(), "churn")
    other = Registry.open(place)
    with other._database.write() as work:
        work.do("UPDATE aliases SET number = number")
        assert registry.resolve("churn").number == 1
        assert registry.marker() == 2
    other.close()


def test_a_writer_that_waits_too_long_says_so(
    registry: Registry, make: Make, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(make(), "churn")
    other = Registry.open(place)
    monkeypatch.setattr(sqlite, "PATIENCE_SECONDS", 0.05)
    lock = [statement.replace("30s", "50ms") for statement in Postgres.begin["write"]]
    monkeypatch.setitem(Postgres.begin, "write", tuple(lock))
    registry.close()
    with other._database.write(), pytest.raises(RemoteFailed, match="is busy: another process has held its lock"):
        registry.tag("churn", "a", "b")
    registry.tag("churn", "a", "b")
    other.close()


def test_one_registry_serves_many_threads(registry: Registry, make: Make) -> None:
    bundles = [make(str(number)) for number in range(8)]
    stop = threading.Event()
    marks: list[int] = []

    def poll() -> None:
        while not stop.is_set():
            marks.append(registry.marker())

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            versions = list(pool.map(lambda bundle: registry.register(bundle, "churn"), bundles))
            list(pool.map(lambda version: registry.promote("churn", version.number), versions))
            assert all(pool.map(lambda version: registry.fetch(version).digest == version.digest, versions))
    finally:
        stop.set()
        poller.join()
    assert sorted(version.number for version in versions) == list(range(1, 9))
    assert marks == sorted(marks)
    assert len(registry.history("churn")) == registry.marker()


def test_a_registry_survives_a_fork(registry: Registry, make: Make) -> None:
    registry.register(make("one"), "churn")
    bundle = make("two")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert registry.register(bundle, "churn").number == 2
            assert registry.resolve("churn").number == 1
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert registry.resolve("churn:2").digest == bundle.digest
    assert registry.promote("churn", 2).moved


def test_a_closed_registry_opens_itself_again(registry: Registry, make: Make) -> None:
    registry.register(make(), "churn")
    registry.close()
    registry.close()
    assert registry.resolve("churn").number == 1


def test_an_error_inside_a_change_undoes_all_of_it(
    registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(make("one"), "churn")
    marker = registry.marker()
    from modelyard.registry import journal

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(journal, "write", fail)
        for change in (lambda: registry.register(make("two"), "churn"), lambda: registry.delete("churn", force=True)):
            with pytest.raises(ZeroDivisionError):
                change()
    assert registry.marker() == marker
    assert [version.ref for version in registry.versions("churn")] == ["churn:1"]
    assert registry.aliases("churn") == {"production": 1}
    assert registry.collect() == 0, "the blobs of what failed are gone already"


# -- SQLite --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["junk", "middle"])
def test_a_damaged_database_file(tmp_path: Path, make: Make, harm: str) -> None:
    registry = Registry.open(tmp_path / "home")
    for number in range(20):
        registry.register(make(str(number)), "churn")
    registry.close()
    file = tmp_path / "home" / "registry.db"
    data = file.read_bytes()
    file.write_bytes(b"junk" * 2000 if harm == "junk" else data[:4096] + b"\xff" * 20_000 + data[24_096:])
    with pytest.raises(RemoteFailed, match=rf"the registry's database is damaged: {file}"):
        registry = Registry.open(tmp_path / "home")
        registry.versions("churn")


def test_a_lost_database_does_not_take_over_the_blobs_of_the_one_before(tmp_path: Path, make: Make) -> None:
    registry = Registry.open(tmp_path / "home")
    registry.register(make("one"), "churn")
    registry.close()
    for file in (tmp_path / "home").glob("registry.db*"):
        file.unlink()
    registry = Registry.open(tmp_path / "home")
    with pytest.raises(Refused, match="belong to another registry"):
        registry.collect()
    with pytest.raises(Refused, match="belong to another registry"):
        registry.register(make("two"), "churn")


def test_home_is_what_the_settings_say(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "first"))
    monkeypatch.setenv("MODELYARD_STORE", str(tmp_path / "blobs"))
    Registry.open().register(make(), "churn")
    assert (tmp_path / "first" / "registry.db").exists()
    assert (tmp_path / "blobs" / "oci-layout").exists()
    monkeypatch.setenv("MODELYARD_REGISTRY", str(tmp_path / "second"))
    assert Registry.open().models() == []
    assert (tmp_path / "second" / "registry.db").exists()
    assert Registry.open(tmp_path / "first").models() == ["churn"]


# -- PostgreSQL ----------------------------------------------------------------------------------------------

SECRET = "s3cr%2Ft"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@127.0.0.1:1/models",
        f"postgresql://ada@127.0.0.1:1/models?password={SECRET}",
        f"postgres://ada:{SECRET}@no-such-host.invalid/models",
        f"postgresql://ada:{SECRET}@127.0.0.1:1/models?options=-csearch_path%3Dx",
    ],
)
def test_a_server_that_is_down_is_named_and_the_password_is_not(url: str) -> None:
    with pytest.raises(
        RemoteFailed, match=r"cannot reach the registry postgresql://ada@(127\.0\.0\.1:1|no-such-host)"
    ) as caught:
        Registry.open(url)
    shown = repr(caught.value) + str(caught.value) + repr(caught.value.details)
    assert "s3cr" not in shown


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@[::1/models",
        f"postgresql://ada:{SECRET}@h/d?nonsense={SECRET}",
        f"postgresql://a:%{SECRET}%zz@h",
    ],
)
def test_a_url_that_does_not_parse_is_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInput, match="registry: expected postgresql://user:password@host") as caught:
        Registry.open(url)
    assert "s3cr" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "POSTGRESQL", "mysql"])
def test_a_url_of_another_kind_is_neither_repeated_nor_made_a_folder(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="registry: expected a folder, or postgresql://user:password@host") as caught:
        Registry.open(f"{scheme}://ada:{SECRET}@h/d")
    assert "s3cr" not in repr(caught.value) + str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_password_is_masked_wherever_the_server_repeats_it() -> None:
    database = Postgres(f"postgresql://ada:{SECRET}@127.0.0.1/models")
    assert "s3cr" not in database.where
    assert database._words(ValueError("auth failed for s3cr/t, s3cr%2Ft")) == "auth failed for ***, ***"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDependency) as caught:
        Registry.open("postgresql://h/d")
    assert caught.value.hint == "pip install 'modelyard[postgres]'"


@pytest.fixture
def remote(postgres_schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry on the server, and no other connections than its own."""
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    registry = Registry.open(postgres_schema)
    yield registry
    registry.close()
    run_sql(postgres_schema, *(f"DELETE FROM {table}" for table in TABLES))


def disconnect(registry: Registry, url: str) -> None:
    """Let the server end a registry's connections."""
    for connection in registry._database._connections.values():
        run_sql(url, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")


def test_a_connection_that_broke_is_made_anew(remote: Registry, make: Make, postgres_schema: str) -> None:
    remote.register(make(), "churn")
    for use in (remote.marker, lambda: remote.resolve("churn"), lambda: remote.promote("churn", 1), remote.collect):
        disconnect(remote, postgres_schema)
        use()


def test_a_connection_that_breaks_in_the_middle_leaves_nothing(
    remote: Registry, make: Make, postgres_schema: str
) -> None:
    remote.register(make(), "churn")
    with pytest.raises(RemoteFailed, match="failed"), remote._database.write() as work:
        work.do("DELETE FROM aliases")
        disconnect(remote, postgres_schema)
        work.do("DELETE FROM tags")
    with (
        pytest.raises(RemoteFailed, match="whether the change was made is not known"),
        remote._database.write() as work,
    ):
        work.do("DELETE FROM aliases")
        disconnect(remote, postgres_schema)
    assert remote.aliases("churn") == {"production": 1}


def test_blobs_of_different_servers_lie_apart(remote: Registry, make: Make, postgres_url: str) -> None:
    version = remote.register(make(), "churn")
    with new_schema(postgres_url) as url:
        other = Registry.open(url)
        other.register(make("two"), "churn")
        other.collect()
        assert isinstance(other._store, LocalStore)
        assert isinstance(remote._store, LocalStore)
        assert other._store.folder != remote._store.folder
        other.close()
    assert remote.fetch(version).digest == version.digest


def test_a_file_that_is_removed_and_put_back_is_noticed(tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    registry = Registry.open(str(home))
    marker = registry.marker()
    home.rename(away)
    with pytest.raises(RemoteFailed, match="the registry was removed"):
        for _ in range(2):  # the open connection may answer once more
            registry.marker()
    home.mkdir()
    with pytest.raises(RemoteFailed, match="the registry was removed"):
        registry.marker()
    assert list(home.iterdir()) == []
    home.rmdir()
    away.rename(home)
    assert registry.marker() == marker


def test_a_file_that_is_overwritten_is_noticed(tmp_path: Path) -> None:
    Registry.open(str(tmp_path)).close()  # what the log held is in the file now
    registry = Registry.open(str(tmp_path))
    marker = registry.marker()
    file = tmp_path / "registry.db"
    copy = file.read_bytes()
    file.write_bytes(b"something else, " * 1000)
    with pytest.raises(RemoteFailed, match="the registry's database is damaged"):
        for _ in range(2):  # the open connection may answer once more
            registry.marker()
    file.write_bytes(copy)
    assert registry.marker() == marker
