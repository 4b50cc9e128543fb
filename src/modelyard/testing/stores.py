"""The conformance kit of the Store seam: what every store must do, as tests for anyone's own.

    class TestMine(StoreConformance):
        @pytest.fixture
        def store(self):
            return MyStore()

Needs nothing but a test runner that finds ``test_`` methods and passes the fixture ``store``, an empty store. A
class whose store can be damaged on purpose overrides ``damage``; the others leave that test out by
``test_damage_is_noticed = None``.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelyard.errors import BadBundle, ModelyardError, NotFound
from modelyard.interfaces import Store

_LARGE = bytes(range(256)) * 20_000


def digest_of(data: bytes) -> str:
    """The digest by which a store knows ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class StoreConformance:
    """Tests that a store passes if it fits the seam."""

    def damage(self, store: Store, digest: str) -> None:
        """Change one byte of a blob behind the store's back."""
        raise NotImplementedError("override this, or set test_damage_is_noticed = None")

    def test_it_is_a_store(self, store: Store) -> None:
        assert isinstance(store, Store)

    def test_what_is_put_comes_back(self, store: Store) -> None:
        for data in (b"", b"x", _LARGE):
            digest = store.put(data)
            assert digest == digest_of(data)
            assert store.has(digest)
            with store.get(digest) as blob:
                assert blob.read() == data

    def test_a_file_and_a_stream_are_put_like_bytes(self, store: Store) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "blob")
            file.write_bytes(_LARGE)
            from_file = store.put(file)
        from_stream = store.put(iter([_LARGE[:5], b"", _LARGE[5:]]))
        assert from_file == from_stream == digest_of(_LARGE)
        with store.get(from_file) as blob:
            assert blob.read() == _LARGE

    def test_a_blob_is_read_in_pieces(self, store: Store) -> None:
        with store.get(store.put(_LARGE)) as blob:
            pieces = list(iter(lambda: blob.read(100_000), b""))
        assert b"".join(pieces) == _LARGE
        assert len(pieces) > 1

    def test_putting_twice_is_putting_once(self, store: Store) -> None:
        assert store.put(b"twice") == store.put(b"twice")
        assert list(store.digests()) == [digest_of(b"twice")]

    def test_digests_lists_every_blob(self, store: Store) -> None:
        assert list(store.digests()) == []
        put = {store.put(bytes([number])) for number in range(20)}
        assert set(store.digests()) == put

    def test_what_is_deleted_is_gone(self, store: Store) -> None:
        digest = store.put(b"to go")
        kept = store.put(b"to stay")
        store.delete(digest)
        store.delete(digest)
        assert not store.has(digest)
        assert list(store.digests()) == [kept]
        _raises(NotFound, lambda: _read(store, digest), digest)

    def test_what_was_never_put_is_not_found(self, store: Store) -> None:
        digest = digest_of(b"never")
        assert not store.has(digest)
        store.delete(digest)
        _raises(NotFound, lambda: _read(store, digest), digest)

    def test_a_source_that_fails_leaves_nothing(self, store: Store) -> None:
        def source() -> Iterator[bytes]:
            yield b"some"
            raise ZeroDivisionError

        try:
            store.put(source())
        except ZeroDivisionError:
            assert list(store.digests()) == []
        else:
            raise AssertionError("put hid an error of its source")

    def test_damage_is_noticed(self, store: Store) -> None:
        digest = store.put(_LARGE)
        self.damage(store, digest)
        _raises(BadBundle, lambda: _read(store, digest), digest)
        store.put(_LARGE)
        assert _read(store, digest) == _LARGE, "putting a blob again must mend it"

    def test_putting_at_once_is_putting_in_turn(self, store: Store) -> None:
        blobs = [b"%d" % (number % 8) * 1000 for number in range(64)]
        with ThreadPoolExecutor(8) as pool:
            digests = list(pool.map(store.put, blobs))
        assert digests == [digest_of(data) for data in blobs]
        assert set(store.digests()) == set(digests)
        assert all(_read(store, digest) == data for digest, data in zip(digests, blobs, strict=True))


def _read(store: Store, digest: str) -> bytes:
    with store.get(digest) as blob:
        return blob.read()


def _raises(kind: type[ModelyardError], call: Callable[[], object], named: str) -> None:
    try:
        call()
    except kind as error:
        assert named in str(error), f"the error does not name the digest: {error}"
    else:
        raise AssertionError(f"expected {kind.__name__}")
