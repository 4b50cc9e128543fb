"""A folder as an OCI image in a store: the same files give the same digests, on every machine.

The image is what container runtimes really mount: an OCI image config with the diff_ids of uncompressed tar
layers, files under ``models/``, no time, owner or compressor in any byte. The layers are kept uncompressed
because weights hardly shrink, and so that no digest depends on a build of zlib.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import msgspec

from modelyard.errors import BadBundle
from modelyard.interfaces import Store
from modelyard.stores.blobs import CHUNK, unreadable

#: Where the files lie inside the image. KServe mounts an image's ``models`` folder.
ROOT = "models"

ARTIFACT = "application/vnd.modelyard.bundle.v1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Source(msgspec.Struct, frozen=True):
    """A file to be put into a layer: its path inside, the file, and what its bytes must be."""

    path: str
    file: Path
    digest: str
    size: int


class Part(msgspec.Struct, frozen=True):
    """A blob of an image. ``role`` is ``image`` (the manifest), ``config`` or ``layer/<name>``."""

    role: str
    digest: str
    size: int


def put_image(store: Store, layers: Mapping[str, Iterable[Source]], annotations: Mapping[str, str]) -> Iterator[Part]:
    """Put an image with one layer per entry of ``layers`` (name -> files); yield each blob once it is kept.

    Raises BadBundle where a file's bytes are not what its Source says, RemoteFailed where the store cannot keep them.
    """
    parts: list[Part] = []
    for name, files in layers.items():
        parts.append(_put(store, f"layer/{name}", _Counted(layer(files))))
        yield parts[-1]
    config = {
        "architecture": "amd64",
        "config": {},
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [part.digest for part in parts]},
    }
    held = _put(store, "config", _Counted([_json(config)]))
    yield held
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": CONFIG, "digest": held.digest, "size": held.size},
        "layers": [
            {
                "mediaType": LAYER,
                "digest": part.digest,
                "size": part.size,
                "annotations": {"org.cncf.model.filepath": part.role.removeprefix("layer/")},
            }
            for part in parts
        ],
        "annotations": dict(annotations),
    }
    yield _put(store, "image", _Counted([_json(manifest)]))


def layer(sources: Iterable[Source]) -> Iterator[bytes]:
    """The chunks of an uncompressed tar of ``sources``: sorted, parent folders first, owner and time 0."""
    ordered = sorted(sources, key=lambda source: source.path)
    parents = {parent for source in ordered for parent in PurePosixPath(ROOT, source.path).parents}
    entries: list[tuple[str, Source | None]] = [(str(p), None) for p in parents if p.name]
    entries += [(f"{ROOT}/{source.path}", source) for source in ordered]
    written = 0
    for name, source in sorted(entries, key=lambda entry: entry[0]):
        info = tarfile.TarInfo(name)
        if source is None:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        else:
            info.size, info.mode = source.size, 0o644
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        written += len(header) + info.size + -info.size % tarfile.BLOCKSIZE
        yield header
        if source is not None:
            yield from _content(source)
            yield bytes(-source.size % tarfile.BLOCKSIZE)
    end = 2 * tarfile.BLOCKSIZE
    yield bytes(end + -(written + end) % tarfile.RECORDSIZE)


def unpack(blob: BinaryIO, folder: Path) -> None:
    """Write the files of a layer into ``folder``, without ``models/``; reads the blob to its end.

    Raises BadBundle for anything but plain files and folders that stay inside.
    """
    try:
        with tarfile.open(fileobj=blob, mode="r|", bufsize=CHUNK) as tar:
            for info in tar:
                path = PurePosixPath(info.name)
                if not (info.isreg() or info.isdir()) or path.parts[:1] != (ROOT,) or ".." in path.parts:
                    raise BadBundle(f"a layer holds what no bundle does: {info.name}")
                target = folder.joinpath(*path.parts[1:])
                if info.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                content = tar.extractfile(info)
                if content is None:
                    raise BadBundle(f"a layer holds what no bundle does: {info.name}")
                with target.open("wb") as file:
                    while chunk := content.read(CHUNK):
                        file.write(chunk)
    except tarfile.TarError as error:
        _drain(blob)  # a blob that checks itself says better what is wrong
        raise BadBundle(f"a layer is not a tar file: {error}") from error
    _drain(blob)


def describe(image: Part, name: str) -> dict[str, Any]:
    """The entry of an image in a layout's index, under ``name``."""
    return {
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "digest": image.digest,
        "size": image.size,
        "annotations": {"org.opencontainers.image.ref.name": name},
    }


class _Counted:
    """Chunks, counted while they pass."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            yield chunk


def _put(store: Store, role: str, chunks: _Counted) -> Part:
    digest = store.put(chunks)
    return Part(role, digest, chunks.size)


def _content(source: Source) -> Iterator[bytes]:
    running, left = hashlib.sha256(), source.size
    try:
        with source.file.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                running.update(chunk)
                yield chunk
    except FileNotFoundError:
        raise BadBundle(f"a file of the bundle is gone: {source.path}") from None
    except OSError as error:
        raise unreadable(source.file, error) from error
    if left or f"sha256:{running.hexdigest()}" != source.digest:
        raise BadBundle(f"a file of the bundle is not what its manifest says: {source.path}")


def _drain(blob: BinaryIO) -> None:
    while blob.read(CHUNK):
        pass


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")
