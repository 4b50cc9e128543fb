"""Every store in the tree against the kit that we give to others."""

from pathlib import Path

import pytest

from modelyard import plugins
from modelyard.interfaces import Store
from modelyard.stores.local import LocalStore
from modelyard.stores.memory import MemoryStore
from modelyard.testing.stores import StoreConformance


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store")

    def damage(self, store: Store, digest: str) -> None:
        assert isinstance(store, LocalStore)
        file = store.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.chmod(0o644)
        file.write_bytes(data)


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    def damage(self, store: Store, digest: str) -> None:
        assert isinstance(store, MemoryStore)
        store.blobs[digest] = b"!" + store.blobs[digest][1:]


def test_the_stores_are_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    local = plugins.find("stores", "local")
    assert isinstance(local, LocalStore)
    assert isinstance(plugins.find("stores", "memory"), MemoryStore)
