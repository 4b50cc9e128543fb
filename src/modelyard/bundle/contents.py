"""What a bundle holds on disk, checked file by file before anything reads it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from modelyard.bundle.manifest import LARGEST, NAME, FileEntry, Manifest, digest_of, read_manifest
from modelyard.errors import BadBundle, NotFound, RemoteFailed

#: What is kept beside the digest: provenance, report, signature. Nothing that loads a model reads it.
BESIDE = "beside"

#: The most that a one-file bundle may unpack to, in all and as a multiple of its own size.
LARGEST_UNPACKED = 64 * 1024**3
LARGEST_RATIO = 200
#: A file under ``beside/`` may be this large.
LARGEST_BESIDE = 64 * 1024**2


def check_path(path: str, where: str) -> str:
    """``path`` if it stays inside the bundle on every system. Raises BadBundle where it does not."""
    pure = PurePosixPath(path)
    fine = (
        path
        and path == pure.as_posix()
        and not pure.is_absolute()
        and ".." not in pure.parts
        and not any(c in path for c in "\\:\0")
        and path.isprintable()
    )
    if not fine:
        raise BadBundle(f"{where} names a file outside itself: {path!r}")
    return path


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Every file that counts towards the digest: all but the manifest and what is beside."""
    return {
        path: FileEntry(digest_of(folder / path), (folder / path).stat().st_size)
        for path in sorted(_walk(folder))
        if path != NAME
    }


def check_folder(folder: Path) -> tuple[Manifest, str]:
    """The manifest of the bundle in ``folder`` and its digest, every file verified.

    Raises NotFound, or BadBundle naming the file that is missing, extra, truncated or changed.
    """
    if not folder.exists():
        raise NotFound(f"no such bundle: {folder}")
    where = folder.name or str(folder)
    if not (folder / NAME).is_file():
        raise BadBundle(f"not a bundle, it has no {NAME}: {folder}", hint=_packaging_hint(folder))
    if (folder / NAME).is_symlink() or folder.joinpath(NAME).stat().st_size > LARGEST:
        raise BadBundle(f"{NAME} of {where} is a link or too large")
    data = (folder / NAME).read_bytes()
    manifest = read_manifest(data, where)
    folded: set[str] = set()
    for path in manifest.files:
        check_path(path, where)
        if path == NAME or PurePosixPath(path).parts[0] == BESIDE:
            raise BadBundle(f"{NAME} of {where} names a file that it may not: {path}")
        if path.casefold() in folded:
            raise BadBundle(f"{NAME} of {where} names two files that some systems take for one: {path}")
        folded.add(path.casefold())
    present = set(_walk(folder)) - {NAME}
    for path in sorted(manifest.files.keys() - present):
        raise BadBundle(f"a file of bundle {where} is missing: {path}")
    for path in sorted(present - manifest.files.keys()):
        raise BadBundle(f"bundle {where} has a file that its manifest does not name: {path}")
    for path, entry in manifest.files.items():
        size = (folder / path).stat().st_size
        if size != entry.size:
            raise BadBundle(f"a file of bundle {where} has {size} bytes instead of {entry.size}: {path}")
        if digest_of(folder / path) != entry.digest:
            raise BadBundle(f"a file of bundle {where} has been changed: {path}")
    return manifest, digest_of(data)


def _walk(folder: Path) -> Iterator[str]:
    """Paths of all files under ``folder`` but those beside, with forward slashes. Links are refused."""
    for parent, names, files in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        for name in (*names, *files):
            mode = (Path(parent) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BadBundle(f"bundle {folder.name} holds a link or special file: {(inside / name).as_posix()}")
        if inside.parts[:1] != (BESIDE,):
            yield from ((inside / name).as_posix() for name in files)


def _packaging_hint(path: Path) -> str:
    return f"if it is a model, package it: modelyard package {path} --sample rows.csv --name NAME"


# -- the one-file form -------------------------------------------------------------------------------------------


def write_archive(folder: Path, path: Path) -> Path:
    """The bundle in ``folder`` as one zip file at ``path``: the same bytes for the same files. Nothing is compressed,
    because compressors differ between machines. Written aside and renamed, so it is whole or absent.
    """
    names = [NAME, *sorted(set(_walk(folder)) - {NAME})]
    if (folder / BESIDE).is_dir():
        beside = (p for p in (folder / BESIDE).iterdir() if p.is_file())
        names += sorted(f"{BESIDE}/{p.name}" for p in beside)
    try:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name in names:
                    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                    info.create_system = 3
                    info.external_attr = (stat.S_IFREG | 0o644) << 16
                    info.file_size = (folder / name).stat().st_size
                    with (folder / name).open("rb") as source, archive.open(info, "w") as target:
                        shutil.copyfileobj(source, target, 1024**2)
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RemoteFailed(f"cannot write {path}: {error.strerror or error}") from error
    return path


def extract_archive(path: Path, folder: Path) -> None:
    """Unpack the one-file bundle at ``path`` into ``folder``: only what its manifest names, and what is beside.

    Raises BadBundle for anything that is no bundle or tries to leave the folder, repeat a name or swell.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _extract(archive, path, folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadBundle(f"bundle {path.name} is truncated or damaged: {error}") from None


def _extract(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    infos: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in archive.infolist():
        check_path(info.filename.removesuffix("/"), path.name)
        if info.orig_filename != info.filename or info.filename.casefold() in folded:
            raise BadBundle(f"bundle {path.name} names a file twice: {info.filename}")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or info.flag_bits & 1:
            raise BadBundle(f"bundle {path.name} holds a link, a special or an encrypted file: {info.filename}")
        folded.add(info.filename.casefold())
        if not info.is_dir():
            infos[info.filename] = info
    if NAME not in infos:
        raise BadBundle(f"not a bundle, it has no {NAME}: {path}", hint=_packaging_hint(path))
    if infos[NAME].file_size > LARGEST:
        raise BadBundle(f"{NAME} of {path.name} is too large: {infos[NAME].file_size} bytes")
    total = sum(info.file_size for info in infos.values())
    if total > min(LARGEST_UNPACKED, LARGEST_RATIO * path.stat().st_size):
        raise BadBundle(f"bundle {path.name} unpacks to far more than it should: {total} bytes")
    for name, info in infos.items():
        if PurePosixPath(name).parts[0] == BESIDE and info.file_size > LARGEST_BESIDE:
            raise BadBundle(f"a file of bundle {path.name} is too large: {name}")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1024**2)
