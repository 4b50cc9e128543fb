"""The store's index of OCI images: derived from the versions, written anew after each change of them."""

from __future__ import annotations

from modelyard.interfaces import Store
from modelyard.registry.database import Database
from modelyard.stores.image import Part, describe
from modelyard.stores.local import LocalStore

#: The change up to which an index is complete.
_MARK = "org.modelyard.change"


def refresh_index(database: Database, store: Store) -> None:
    """Bring ``index.json`` up to date where the store is a layout and its index is stale, torn or missing.

    Each version becomes an image called ``churn:4``. Raises RemoteFailed where the index cannot be written.
    """
    if not isinstance(store, LocalStore) or not store.exists():
        return
    if store.index().get("annotations", {}).get(_MARK) == _mark(database):
        return
    with store.indexing():  # reading happens inside, so that whoever writes last has seen the most
        mark = _mark(database)
        rows = database.query(
            "SELECT model, number, digest, size FROM blobs WHERE part = 'image' ORDER BY model, number"
        )
        present = set(store.digests())  # with a shared database, other machines may hold others
        images = [
            describe(Part("image", row["digest"], row["size"]), f"{row['model']}:{row['number']}")
            for row in rows
            if row["digest"] in present
        ]
        store.write_index({"schemaVersion": 2, "manifests": images, "annotations": {_MARK: mark}})


def _mark(database: Database) -> str:
    """The newest change that made or removed a version."""
    found = database.query("SELECT max(id) AS id FROM changes WHERE alias IS NULL AND action IN ('register', 'delete')")
    return str(found[0]["id"] or 0)
