"""Bundles on the disk, ready to be loaded: one folder per bundle, made from the store's blobs when it is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.errors import BadBundle, NotFound, RemoteFailed
from modelyard.interfaces import Store
from modelyard.stores.blobs import CHUNK
from modelyard.stores.disk import FORBIDDEN, Scratch, disk_errors, locked
from modelyard.stores.image import Part, unpack

if TYPE_CHECKING:
    from modelyard.bundle import Bundle

BESIDE = "beside/"

_log = logging.getLogger(__name__)


class Cache:
    """Materialised bundles in ``folder``. Any number of processes may use one at once.

    A folder appears by a rename, complete; one that was tampered with is made anew from the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scratch = Scratch(folder.parent / "tmp")

    def fetch(self, digest: str, parts: Sequence[Part], store: Store) -> Bundle:
        """The bundle ``digest``, verified. ``parts`` are the blobs it is made of.

        Where the cache may not be written it is made in a private folder, which lives as long as the bundle. Raises
        BadBundle where a blob is damaged, NotFound where one is gone, RemoteFailed where the disk is full.
        """
        place = self.folder / _key(digest, parts)
        with contextlib.suppress(BadBundle, NotFound, FileNotFoundError):  # then it is made, or made anew
            return _opened(place, digest, parts)
        try:
            return self._made(place, digest, parts, store)
        except RemoteFailed as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in FORBIDDEN:
                raise
            _log.warning("%s; bundle %s is unpacked into a temporary folder", error.message, digest)
        from modelyard.bundle import Bundle

        return _checked(Bundle.private(lambda folder: _fill(folder, parts, store)), digest, parts)

    def _made(self, place: Path, digest: str, parts: Sequence[Part], store: Store) -> Bundle:
        """Make the folder ``place``, unless somebody else did, and open it."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder.parent / "lock"), self._scratch.directory() as folder:
                with contextlib.suppress(BadBundle, NotFound, FileNotFoundError):  # somebody else was faster
                    return _opened(place, digest, parts)
                _fill(folder / "bundle", parts, store)
                if place.exists():
                    place.rename(folder / "old")
                (folder / "bundle").rename(place)
                return _opened(place, digest, parts)

    def sweep(self) -> int:
        """Remove what killed processes left half-made; return the bytes that freed."""
        return self._scratch.sweep()

    def places(self) -> dict[Path, str]:
        """Each folder here and the digest of its bundle."""
        if not self.folder.is_dir():
            return {}
        return {place: f"sha256:{place.name.partition('.')[0]}" for place in self.folder.iterdir()}

    def remove(self, places: Iterable[Path]) -> int:
        """Remove folders; return the bytes that freed."""
        freed = 0
        for place in places:
            freed += sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            shutil.rmtree(place, ignore_errors=True)
        return freed


def _key(digest: str, parts: Sequence[Part]) -> str:
    """The digest, with a mark where files lie beside the bundle, which the digest does not cover."""
    beside = sorted(f"{part.role} {part.digest}" for part in parts if part.role.startswith(BESIDE))
    mark = hashlib.sha256("\n".join(beside).encode()).hexdigest()[:12] if beside else ""
    return digest.removeprefix("sha256:") + (f".{mark}" if mark else "")


def _fill(folder: Path, parts: Sequence[Part], store: Store) -> None:
    folder.mkdir()
    for part in parts:
        if part.role.startswith("layer/"):
            with store.get(part.digest) as blob:
                unpack(blob, folder)
        elif part.role.startswith(BESIDE):
            target = folder / part.role
            target.parent.mkdir(exist_ok=True)
            with store.get(part.digest) as blob, target.open("wb") as file:
                shutil.copyfileobj(blob, file, CHUNK)


def _opened(folder: Path, digest: str, parts: Sequence[Part]) -> Bundle:
    """The bundle in ``folder``, verified."""
    from modelyard.bundle import Bundle

    return _checked(Bundle.open(folder), digest, parts)


def _checked(bundle: Bundle, digest: str, parts: Sequence[Part]) -> Bundle:
    """``bundle`` if it is the one with this digest, and if what lies beside it, which it does not verify, is right."""
    if bundle.digest != digest:
        raise BadBundle(f"the bundle in {bundle.folder} is another one: expected {digest}, got {bundle.digest}")
    for part in parts:
        if part.role.startswith(BESIDE):
            with (bundle.folder / part.role).open("rb") as file:
                if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != part.digest:
                    raise BadBundle(f"a file beside the bundle in {bundle.folder} has been changed: {part.role}")
    return bundle
