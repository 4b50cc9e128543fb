"""From a version back to a folder on the disk, and what damage does."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.errors import BadBundle, NotFound
from modelyard.registry import Registry, Version
from modelyard.stores.local import LocalStore
from registries import Make


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def blob_of(registry: Registry, version: Version, role: str) -> Path:
    """The file of one of a version's blobs."""
    store = registry._store
    assert isinstance(store, LocalStore)
    found = registry._database.query(
        "SELECT digest FROM blobs WHERE model = ? AND number = ? AND part = ?", version.model, version.number, role
    )
    return store.folder / "blobs" / "sha256" / found[0]["digest"].removeprefix("sha256:")


def damage(file: Path, at: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)


def test_what_was_registered_comes_back_file_by_file(registry: Registry, make: Make) -> None:
    bundle = make("one", provenance='{"command": "x"}', report="<p>fine</p>")
    fetched = registry.fetch(registry.register(bundle, "churn"))
    assert fetched.digest == bundle.digest
    assert files_of(fetched.folder) == files_of(bundle.folder)
    assert fetched.provenance == {"command": "x"}
    assert fetched.report is not None
    assert fetched.folder.is_relative_to(registry._cache.folder)


def test_it_is_made_once(registry: Registry, make: Make) -> None:
    version = registry.register(make(), "churn")
    first = registry.fetch(version).folder
    inode = first.stat().st_ino
    assert registry.fetch(version).folder == first
    assert first.stat().st_ino == inode
    assert list((first.parent.parent / "tmp").iterdir()) == []


def test_what_lies_beside_belongs_to_the_version(registry: Registry, make: Make) -> None:
    ours = registry.register(make("one", provenance='{"command": "ours"}'), "ours")
    theirs = registry.register(make("one", provenance='{"command": "theirs"}'), "theirs")
    assert ours.digest == theirs.digest
    assert registry.fetch(ours).provenance == {"command": "ours"}
    assert registry.fetch(theirs).provenance == {"command": "theirs"}
    assert (ours.provenance, theirs.provenance) == ({"command": "ours"}, {"command": "theirs"})


@pytest.mark.parametrize("harm", ["changed", "gone", "extra", "truncated", "swapped", "beside", "beside gone"])
def test_a_tampered_cache_is_made_anew(registry: Registry, make: Make, harm: str) -> None:
    bundle = make("one", provenance='{"n": 1}')
    version = registry.register(bundle, "churn")
    folder = registry.fetch(version).folder
    model = folder / "model" / "model.onnx"
    if harm == "changed":
        model.write_bytes(b"eno")
    elif harm == "gone":
        model.unlink()
    elif harm == "extra":
        (folder / "model" / "extra.pkl").write_bytes(b"")
    elif harm == "truncated":
        model.write_bytes(b"")
    elif harm == "beside":
        (folder / "beside" / "provenance.json").write_text('{"n": 2}')
    elif harm == "beside gone":
        (folder / "beside" / "provenance.json").unlink()
    else:  # another bundle that is right in itself
        other = registry.fetch(registry.register(make("two"), "churn"))
        folder.rename(folder.parent / "aside")
        other.folder.rename(folder)
    fetched = registry.fetch(version)
    assert fetched.digest == bundle.digest
    assert files_of(fetched.folder) == files_of(bundle.folder)
    assert list((folder.parent.parent / "tmp").iterdir()) == []


@pytest.mark.parametrize(("role", "at"), [("layer/model", 600), ("layer/model", 0), ("layer/about", -1)])
def test_a_damaged_blob_is_named_and_mended_by_registering_again(
    registry: Registry, make: Make, role: str, at: int
) -> None:
    version = registry.register(make("one"), "churn")
    blob = blob_of(registry, version, role)
    damage(blob, at)
    with pytest.raises(BadBundle, match=f"a blob is not what was put there: sha256:{blob.name}") as caught:
        registry.fetch(version)
    assert "register the same bundle again" in caught.value.hint
    assert list(registry._cache.folder.iterdir()) == []
    assert registry.register(make("one"), "churn").existing
    assert registry.fetch(version).digest == version.digest


def test_a_truncated_blob(registry: Registry, make: Make) -> None:
    version = registry.register(make("one"), "churn")
    blob = blob_of(registry, version, "layer/model")
    blob.chmod(0o644)
    for size in (0, 100, 1024, 5000):
        os.truncate(blob, size)
        with pytest.raises(BadBundle, match=blob.name):
            registry.fetch(version)


def test_a_blob_that_is_gone(registry: Registry, make: Make) -> None:
    version = registry.register(make("one"), "churn")
    blob = blob_of(registry, version, "layer/model")
    blob.unlink()
    with pytest.raises(NotFound, match=blob.name):
        registry.fetch(version)


def test_a_deleted_version_is_not_fetched(registry: Registry, make: Make) -> None:
    version = registry.register(make("one"), "churn")
    registry.delete("churn:1", force=True)
    with pytest.raises(NotFound, match="churn:1 was deleted"):
        registry.fetch(version)


def test_many_fetch_at_once(registry: Registry, make: Make) -> None:
    version = registry.register(make("one", rows=100_000), "churn")
    for _ in range(5):
        with ThreadPoolExecutor(6) as pool:
            fetched = list(pool.map(registry.fetch, [version] * 6))
        assert [bundle.digest for bundle in fetched] == [version.digest] * 6
        damage(fetched[0].folder / "model" / "model.onnx")  # the next round finds it wrong, all at once
    assert list((registry._cache.folder.parent / "tmp").iterdir()) == []


def test_collecting_frees_what_nobody_names(registry: Registry, make: Make) -> None:
    versions = [registry.register(make(text, rows=10_000), "churn") for text in ("one", "two", "three")]
    folders = [registry.fetch(version).folder for version in versions]
    assert registry.collect() == 0
    registry.delete("churn:2")
    freed = registry.collect()
    assert freed > versions[1].size
    assert [folder.exists() for folder in folders] == [True, False, True]
    assert registry.collect() == 0
    for version in (versions[0], versions[2]):
        assert registry.fetch(version).digest == version.digest
