"""Freeing what no version names, without harming what is just about to be named.

A blob is only deleted under the database's write lock, and a version is only written under the same lock, after a
look at whether all its blobs are still there. So either the version is there first and its blobs are kept, or the
blobs go first and whoever registers puts them again.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.interfaces import Store
from modelyard.registry.cache import Cache
from modelyard.registry.database import Database
from modelyard.stores.image import Part
from modelyard.stores.local import LocalStore


def collect(database: Database, store: Store, cache: Cache) -> int:
    """Free blobs, cached bundles and what killed processes left; return the bytes that freed.

    A store that cannot tell the size of a blob (``size``) adds none.
    """
    freed = cache.sweep() + (store.sweep() if isinstance(store, LocalStore) else 0)
    size = getattr(store, "size", lambda digest: 0)
    cached = cache.places()
    blobs = set(store.digests())
    with database.write() as work:
        blobs -= {row["digest"] for row in work.rows("SELECT DISTINCT digest FROM blobs")}
        for digest in blobs:
            freed += size(digest)
            store.delete(digest)
        alive = {row["digest"] for row in work.rows("SELECT DISTINCT digest FROM versions WHERE deleted IS NULL")}
    return freed + cache.remove(place for place, digest in cached.items() if digest not in alive)


def forget(database: Database, store: Store, parts: Iterable[Part]) -> None:
    """Free blobs that were put in vain, unless somebody names them."""
    with database.write() as work:
        for part in parts:
            if work.row("SELECT digest FROM blobs WHERE digest = ? LIMIT 1", part.digest) is None:
                store.delete(part.digest)
