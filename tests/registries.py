"""Tiny bundles and empty registries, in SQLite and in PostgreSQL, for every test of the registry."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.bundle import Bundle
from modelyard.bundle.manifest import Environment, FileEntry, Manifest, digest_of
from modelyard.interfaces import ModelSpec
from modelyard.registry import Registry
from modelyard.registry.database import open_database
from modelyard.registry.migrations import migrate
from modelyard.schema import Field, Signature

Make = Callable[..., Bundle]

#: What a test leaves behind in a database, in the order in which it can be emptied.
TABLES = (
    "aliases", "tags", "blobs", "versions", "changes", "api_keys", "routes", "decisions", "rollouts", "tallies",
    "windows", "findings", "alerts", "deliveries", "silences", "labels", "cohorts", "states", "leases", "jobs",
)  # fmt: skip


SIGNATURE = Signature(inputs=(Field(name="x", dtype="float64"),), outputs=(Field(name="prediction", dtype="float64"),))


def tiny_bundle(
    folder: Path,
    text: str = "one",
    *,
    provenance: str = "",
    report: str = "",
    rows: int = 1,
    signature: Signature = SIGNATURE,
    profile: bytes = b"{}",
    metrics: dict[str, Any] | None = None,
) -> Bundle:
    """A bundle of a few bytes, complete and verified; another ``text`` is another digest."""
    (folder / "model").mkdir(parents=True)
    contents = {"model/model.onnx": text.encode() * rows, "profile.json": profile, "golden.json": b"{}"}
    files = {}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        files[name] = FileEntry(digest_of(content), len(content))
    manifest = Manifest(
        format=1,
        task="regression",
        signature=signature,
        model=ModelSpec(runtime="onnx", options={"file": "model.onnx"}),
        environment=Environment(python="3.11.7", implementation="CPython", platform="linux", machine="x86_64"),
        metrics=metrics or {"r2": 0.5},
        files=files,
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    for name, content in (("provenance.json", provenance), ("report.html", report)):
        if content:
            (folder / "beside").mkdir(exist_ok=True)
            (folder / "beside" / name).write_text(content)
    return Bundle.open(folder)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a tiny bundle from a text."""

    def made(text: str = "one", **options: Any) -> Bundle:
        return tiny_bundle(tmp_path / "bundles" / uuid.uuid4().hex, text, **options)

    return made


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder on a memory disk, if there is one: being killed loses nothing of it, and more happens in a second."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="modelyard-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where an empty registry is: a folder, or the URL of a schema of its own on a real server."""
    home = tmp_path / "home"
    monkeypatch.setenv("MODELYARD_HOME", str(home))
    if request.param == "sqlite":
        yield str(home)
        return
    url = request.getfixturevalue("postgres_schema")
    yield url
    run_sql(url, *(f"DELETE FROM {table}" for table in TABLES))


@pytest.fixture(scope="session")
def postgres_schema(postgres_url: str) -> Iterator[str]:
    """The URL of a schema that is made once and emptied after each test: making one is slow."""
    with new_schema(postgres_url) as url:
        database = open_database(url)
        migrate(database)
        database.close()
        yield url


@contextlib.contextmanager
def new_schema(url: str) -> Iterator[str]:
    """Within it, the URL of a schema of one's own on the server at ``url``."""
    name = f"test_{uuid.uuid4().hex}"
    run_sql(url, f"CREATE SCHEMA {name}")
    yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
    run_sql(url, f"DROP SCHEMA {name} CASCADE")


def run_sql(url: str, *statements: str) -> None:
    """Run statements on a PostgreSQL server."""
    import psycopg

    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def registry(place: str) -> Iterator[Registry]:
    """An empty registry."""
    opened = Registry.open(place)
    yield opened
    opened.close()
