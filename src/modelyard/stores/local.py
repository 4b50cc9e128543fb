"""Blobs in a folder that is an OCI image layout: ``skopeo copy --preserve-digests oci:FOLDER:churn:4 ...`` works.

    FOLDER/oci-layout            the layout's version
    FOLDER/index.json            which image each version is; derived, rebuilt by the registry when it is stale
    FOLDER/blobs/sha256/<hex>    the blobs
    FOLDER/owner                 which registry they belong to
    FOLDER/tmp/                  files being written

A blob appears under its digest by a rename, complete and on the disk, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from modelyard import settings
from modelyard.errors import NotFound, Refused, RemoteFailed
from modelyard.stores.blobs import CHUNK, Verified, check_digest, chunks_of, is_digest
from modelyard.stores.disk import Scratch, disk_errors, locked, sync_folder, write_all


class LocalStore:
    """The Store seam on a folder. Safe for any number of threads and processes at once.

    Putting a blob again replaces its file, which mends one that was damaged on the disk.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else settings.get("home") / "store"
        self._blobs = self.folder / "blobs" / "sha256"
        self._scratch = Scratch(self.folder / "tmp")

    def put(self, source: Path | bytes | Iterable[bytes]) -> str:
        """Keep the bytes of a file, a text of bytes or a stream of chunks; return their digest.

        Raises RemoteFailed where the folder cannot be written or its disk is full; nothing is kept then.
        """
        with disk_errors(self.folder):
            self._prepare()
            running = hashlib.sha256()
            with self._scratch.file() as (path, file):
                for chunk in chunks_of(source):
                    running.update(chunk)
                    write_all(file, chunk)
                os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o444)
                os.fsync(file.fileno())
                path.replace(self._blobs / running.hexdigest())
            sync_folder(self._blobs)
        return f"sha256:{running.hexdigest()}"

    def get(self, digest: str) -> BinaryIO:
        """The bytes, to be read from the start and checked on the way: BadBundle at the end where they are wrong."""
        try:
            file = self._path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"no such blob in {self.folder}: {digest}") from None
        except OSError as error:
            raise RemoteFailed(f"cannot read the blob {digest} in {self.folder}: {error.strerror}") from error
        return cast(BinaryIO, io.BufferedReader(Verified(file, digest), CHUNK))

    def has(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def delete(self, digest: str) -> None:
        """Forget the bytes. Forgetting what is not there is fine."""
        with disk_errors(self.folder):
            self._path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """The digest of every blob."""
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._blobs):
                if is_digest(f"sha256:{entry.name}"):
                    yield f"sha256:{entry.name}"

    def size(self, digest: str) -> int:
        """The blob's size in bytes; 0 where there is none."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def sweep(self) -> int:
        """Remove files that writers left when they were killed; return the bytes that freed."""
        return self._scratch.sweep()

    def claim(self, owner: str) -> None:
        """Write down whose blobs these are, the first time. Raises Refused where they are another owner's.

        Whoever collects blobs that it does not name would otherwise free those that somebody else does.
        """
        mark = self.folder / "owner"
        with disk_errors(self.folder):
            self._prepare()
            if not mark.exists():
                self._replace("owner", owner.encode())
            held = mark.read_text()
        if held != owner:
            raise Refused(
                f"the blobs in {self.folder} belong to another registry: {held}",
                hint=f"set MODELYARD_STORE to another folder; if that registry is no more, remove {mark}",
            )

    def exists(self) -> bool:
        """Whether anything was ever put here."""
        return self._blobs.is_dir()

    def index(self) -> dict[str, Any]:
        """What ``index.json`` holds; empty where it is missing or torn."""
        try:
            held: dict[str, Any] = msgspec.json.decode((self.folder / "index.json").read_bytes(), type=dict)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return held

    @contextlib.contextmanager
    def indexing(self) -> Iterator[None]:
        """Held by whoever is about to rewrite the index, so that a slower writer never puts back an older one."""
        with disk_errors(self.folder):
            self._prepare()
            with locked(self.folder / "index.lock"):
                yield

    def write_index(self, index: dict[str, Any]) -> None:
        """Replace ``index.json`` at one stroke. To be called while ``indexing``."""
        with disk_errors(self.folder):
            self._replace("index.json", msgspec.json.format(msgspec.json.encode(index), indent=1))

    def _path(self, digest: str) -> Path:
        return self._blobs / check_digest(digest).removeprefix("sha256:")

    def _prepare(self) -> None:
        """Make the layout. The last file to be written tells that all is there."""
        if (self.folder / "oci-layout").is_file():
            return
        self._blobs.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "index.json").exists():
            self._replace("index.json", b'{"schemaVersion":2,"manifests":[]}')
        self._replace("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

    def _replace(self, name: str, content: bytes) -> None:
        with self._scratch.file() as (path, file):
            write_all(file, content)
            os.fsync(file.fileno())
            path.replace(self.folder / name)
        sync_folder(self.folder)
