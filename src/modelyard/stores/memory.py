"""Blobs in memory: the local store's twin for tests, and for a process that keeps nothing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from modelyard.errors import NotFound
from modelyard.stores.blobs import chunks_of, damaged


class MemoryStore:
    """The Store seam on a dict. Safe for threads."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def put(self, source: Path | bytes | Iterable[bytes]) -> str:
        """Keep the bytes of a file, a text of bytes or a stream of chunks; return their digest."""
        data = b"".join(chunks_of(source))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def get(self, digest: str) -> BinaryIO:
        """The bytes. Raises NotFound; BadBundle where they are not what was put."""
        data = self.blobs.get(digest)
        if data is None:
            raise NotFound(f"no such blob in memory: {digest}")
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise damaged(digest)
        return io.BytesIO(data)

    def has(self, digest: str) -> bool:
        return digest in self.blobs

    def delete(self, digest: str) -> None:
        """Forget the bytes. Forgetting what is not there is fine."""
        self.blobs.pop(digest, None)

    def digests(self) -> Iterator[str]:
        """The digest of every blob."""
        return iter(list(self.blobs))

    def size(self, digest: str) -> int:
        """The blob's size in bytes; 0 where there is none."""
        return len(self.blobs.get(digest, b""))
