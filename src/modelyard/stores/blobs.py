"""What every store does with the bytes of a blob: take them in pieces, and know them by their digest."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from modelyard.errors import BadBundle, InvalidInput, ModelyardError, NotFound, RemoteFailed

CHUNK = 1 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is the digest of a blob."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: str) -> str:
    """``text`` as it is. Raises InvalidInput where it is no digest, so that none ever becomes another path."""
    if not is_digest(text):
        raise InvalidInput.at("digest", "sha256: and 64 hexadecimal digits", repr(text))
    return text


class Verified(io.RawIOBase):
    """A file that hashes itself while it is read, and raises BadBundle at its end where the digest is another."""

    def __init__(self, file: BinaryIO | io.RawIOBase, digest: str) -> None:
        self._file = file
        self._digest = digest
        self._running = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer) or 0  # type: ignore[union-attr]  # both kinds have it
        if count:
            self._running.update(memoryview(buffer)[:count])
        elif f"sha256:{self._running.hexdigest()}" != self._digest:
            raise damaged(self._digest)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def damaged(digest: str) -> BadBundle:
    """The error for a blob whose bytes are not those that were put."""
    return BadBundle(
        f"a blob is not what was put there: {digest}",
        hint="register the same bundle again: that writes its blobs anew",
        digest=digest,
    )


def unreadable(file: Path, error: OSError) -> ModelyardError:
    """The error for a file that was to be put and cannot be read."""
    if isinstance(error, FileNotFoundError):
        return NotFound(f"no such file: {file}")
    return RemoteFailed(f"cannot read {file}: {error.strerror or error}")


def chunks_of(source: Path | bytes | Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of anything that a store takes, in pieces."""
    if isinstance(source, bytes):
        yield source
    elif isinstance(source, Path):
        try:
            with source.open("rb", buffering=0) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise unreadable(source, error) from error
    else:
        yield from source
