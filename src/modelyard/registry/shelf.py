"""Versions as rows: finding them, listing them, writing a new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.errors import Conflict, NotFound
from modelyard.interfaces import Store
from modelyard.registry.cache import BESIDE
from modelyard.registry.database import Row, Work
from modelyard.registry.records import LARGEST_NUMBER, PRODUCTION, Reference, Version, author, now
from modelyard.stores.blobs import unreadable
from modelyard.stores.image import Part, Source, put_image

if TYPE_CHECKING:
    from modelyard.bundle import Bundle

_COLUMNS = "model, number, digest, image, created, made_by, task, size, metrics, provenance, deleted"


def put_bundle(store: Store, bundle: Bundle) -> Iterator[Part]:
    """Put a bundle into the store as an OCI image, and one blob for each file beside it; yield every blob.

    The model's files are one layer and the small rest another, so that versions share what they can.
    """
    manifest = bundle.folder / "manifest.json"
    sources = [Source("manifest.json", manifest, bundle.digest, _size(manifest))]
    for path, entry in bundle.manifest.files.items():
        sources.append(Source(path, bundle.folder / path, entry.digest, entry.size))
    layers = {
        "model": [source for source in sources if source.path.startswith("model/")],
        "about": [source for source in sources if not source.path.startswith("model/")],
    }
    annotations = {"org.modelyard.bundle.digest": bundle.digest, "org.modelyard.bundle.task": bundle.manifest.task}
    yield from put_image(store, layers, annotations)
    for file in sorted((bundle.folder / BESIDE).glob("*")):
        if file.is_file() and not file.is_symlink():
            yield Part(BESIDE + file.name, store.put(file), _size(file))


def add(work: Work, bundle: Bundle, name: str, parts: Sequence[Part]) -> int:
    """Write ``bundle`` down as the next version of ``name``; return its number."""
    row = work.row("SELECT max(number) AS number FROM versions WHERE model = ?", name)
    number = ((row and row["number"]) or 0) + 1
    image = next(part.digest for part in parts if part.role == "image")
    work.do(
        f"INSERT INTO versions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        name, number, bundle.digest, image, now(), author(), bundle.manifest.task,
        sum(part.size for part in parts), _json(bundle.manifest.metrics), _json(bundle.provenance),
    )  # fmt: skip
    _name(work, name, number, parts)
    return number


def attach(work: Work, version: Version, parts: Sequence[Part]) -> list[str]:
    """Add those files beside a bundle that its version lacks, such as a later signature; return their names."""
    held = {part.role for part in parts_of(work, version)}
    fresh = [part for part in parts if part.role.startswith(BESIDE) and part.role not in held]
    _name(work, version.model, version.number, fresh)
    work.do(
        "UPDATE versions SET size = size + ? WHERE model = ? AND number = ?",
        sum(part.size for part in fresh), version.model, version.number,
    )  # fmt: skip
    return [part.role.removeprefix(BESIDE) for part in fresh]


def erase(work: Work, version: Version) -> None:
    """Let go of a version's blobs and tags. Its row stays, so that its number is never given again."""
    for table in ("blobs", "tags"):
        work.do(f"DELETE FROM {table} WHERE model = ? AND number = ?", version.model, version.number)
    work.do("UPDATE versions SET deleted = ? WHERE model = ? AND number = ?", now(), version.model, version.number)


def parts_of(work: Work, version: Version) -> list[Part]:
    """The blobs that a version is made of; none where it was deleted."""
    rows = work.rows(
        "SELECT part, digest, size FROM blobs WHERE model = ? AND number = ? ORDER BY part",
        version.model, version.number,
    )  # fmt: skip
    return [Part(row["part"], row["digest"], row["size"]) for row in rows]


def models(work: Work) -> list[str]:
    """The models that have a version, sorted."""
    return sorted(row["model"] for row in work.rows("SELECT DISTINCT model FROM versions WHERE deleted IS NULL"))


def versions(work: Work, name: str) -> list[Version]:
    """The versions of ``name``, oldest first. Raises NotFound with the nearest name where there are none."""
    found = _select(work, name, "deleted IS NULL")
    if not found:
        raise NotFound.among("model", name, models(work))
    return found


def alive(work: Work, name: str) -> set[int]:
    """The numbers of the versions of ``name``."""
    rows = work.rows("SELECT number FROM versions WHERE model = ? AND deleted IS NULL", name)
    return {row["number"] for row in rows}


def numbered(work: Work, name: str, number: int) -> Version:
    """One version, deleted or not."""
    return _select(work, name, "number = ?", number)[0]


def holding(work: Work, name: str, digest: str) -> Version | None:
    """The version of ``name`` that holds this bundle."""
    found = _select(work, name, "deleted IS NULL AND digest = ?", digest)
    return found[0] if found else None


def aliases(work: Work, name: str) -> dict[str, int]:
    """Each alias of ``name`` and the number it points to."""
    rows = work.rows("SELECT alias, number FROM aliases WHERE model = ? ORDER BY alias", name)
    return {row["alias"]: row["number"] for row in rows}


def find(work: Work, wanted: Reference) -> Version:
    """The version that a reference means. Raises NotFound with the nearest, Conflict where a digest fits several."""
    if wanted.number is not None:
        return _by_number(work, wanted.name, wanted.number)
    if wanted.digest is not None:
        return _by_digest(work, wanted.name, wanted.digest)
    pointing = aliases(work, wanted.name)
    alias = wanted.alias or PRODUCTION
    if alias in pointing:
        return numbered(work, wanted.name, pointing[alias])
    newest = versions(work, wanted.name)[-1]
    if wanted.alias is None:
        return newest
    missing = NotFound.among(f"alias of {wanted.name}", alias, pointing)
    missing.hint = missing.hint or f"modelyard promote {wanted.name} {newest.number} --alias {alias}"
    raise missing


def _by_number(work: Work, name: str, number: int) -> Version:
    found = _select(work, name, "number = ?", number) if 0 < number <= LARGEST_NUMBER else []
    if found and not found[0].deleted:
        return found[0]
    near = min(versions(work, name), key=lambda version: abs(version.number - number))
    what = f"{found[0].ref} was deleted on {found[0].deleted}" if found else f"no such version of {name}: {number}"
    raise NotFound(what, hint=f"did you mean {near.ref}? modelyard versions {name} lists them")


def _by_digest(work: Work, name: str, digest: str) -> Version:
    fitting = [version for version in versions(work, name) if version.digest.startswith(digest)]
    if not fitting:
        raise NotFound(f"no version of {name} has the digest {digest}", hint=f"modelyard versions {name}")
    if len(fitting) > 1:
        refs = ", ".join(version.ref for version in fitting)
        raise Conflict(f"more than one version has a digest that begins with {digest}: {refs}", hint="give more digits")
    return fitting[0]


def _name(work: Work, name: str, number: int, parts: Sequence[Part]) -> None:
    for part in parts:
        work.do(
            "INSERT INTO blobs (model, number, part, digest, size) VALUES (?, ?, ?, ?, ?)",
            name, number, part.role, part.digest, part.size,
        )  # fmt: skip


def _select(work: Work, name: str, condition: str, *values: Any) -> list[Version]:
    rows = work.rows(f"SELECT {_COLUMNS} FROM versions WHERE model = ? AND {condition} ORDER BY number", name, *values)
    if not rows:
        return []
    pointing: dict[int, list[str]] = {}
    for alias, number in aliases(work, name).items():
        pointing.setdefault(number, []).append(alias)
    tags: dict[int, dict[str, str]] = {}
    for row in work.rows("SELECT number, tag, content FROM tags WHERE model = ? ORDER BY number, tag", name):
        tags.setdefault(row["number"], {})[row["tag"]] = row["content"]
    return [_version(row, tags.get(row["number"], {}), pointing.get(row["number"], [])) for row in rows]


def _version(row: Row, tags: dict[str, str], pointing: list[str]) -> Version:
    return Version(
        model=row["model"], number=row["number"], digest=row["digest"], image=row["image"], created=row["created"],
        by=row["made_by"], task=row["task"], size=row["size"], deleted=row["deleted"],
        metrics=msgspec.json.decode(row["metrics"]), provenance=msgspec.json.decode(row["provenance"]),
        tags=tags, aliases=tuple(pointing),
    )  # fmt: skip


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise unreadable(file, error) from error


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
