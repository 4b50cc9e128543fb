"""Entering a bundle, and tagging it: the changes that touch more than one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from modelyard.registry import journal, moves, shelf
from modelyard.registry.database import Work
from modelyard.registry.records import PRODUCTION, Change, Version, author, now
from modelyard.stores.image import Part

if TYPE_CHECKING:
    from modelyard.bundle import Bundle


def enter(
    work: Work, bundle: Bundle, name: str, alias: str | None, tags: dict[str, str], why: str, kept: Sequence[Part]
) -> Version:
    """Register ``bundle`` inside a transaction; ``kept`` are its blobs. See Registry.register."""
    version = shelf.holding(work, name, bundle.digest)
    existing = version is not None
    if version is None:
        number = shelf.add(work, bundle, name, kept)
        journal.write(work, "register", name, target=number, why=why, detail=bundle.digest)
        version = shelf.numbered(work, name, number)
        if alias is None and shelf.alive(work, name) == {number}:
            journal.move(work, "promote", name, PRODUCTION, number, "first version" if number == 1 else "only version")
    elif added := shelf.attach(work, version, kept):
        journal.write(work, "attach", name, target=version.number, why=why, detail=", ".join(added))
    if alias is not None:
        moves.check(work, name, alias)
        journal.move(work, "promote", name, alias, version.number, why)
    for key, value in tags.items():
        tag(work, version, key, value, why)
    return msgspec.structs.replace(shelf.numbered(work, name, version.number), existing=existing)


def tag(work: Work, version: Version, key: str, value: str, why: str) -> Change:
    """Put a tag on a version; where it is there already nothing is written and ``moved`` is False."""
    where = (version.model, version.number, key)
    detail = f"{key}={value}"
    if version.tags.get(key) == value:
        return Change(
            id=journal.newest(work), when=now(), who=author(), action="tag", model=version.model,
            to=version.number, why=why, detail=detail, moved=False,
        )  # fmt: skip
    work.do("DELETE FROM tags WHERE model = ? AND number = ? AND tag = ?", *where)
    work.do("INSERT INTO tags (model, number, tag, content) VALUES (?, ?, ?, ?)", *where, value)
    return journal.write(work, "tag", version.model, target=version.number, why=why, detail=detail)
