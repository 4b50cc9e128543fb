"""A model: its versions, what they are called, what was done with them, and doing it."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard import api
from modelyard.admin.traffic import Sums, ago, by_version
from modelyard.errors import NotFound
from modelyard.registry import Registry
from modelyard.registry.records import PRODUCTION, Change, Version, now


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version. ``size`` is bytes; ``metrics`` are those on rows that it did not learn from, where it has any."""

    number: int
    aliases: tuple[str, ...]
    created: str
    by: str
    task: str
    digest: str
    size: int
    tags: dict[str, str]
    metrics: dict[str, float]
    #: What its requests of the last hours came to.
    traffic: Sums


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model with all of its versions, newest first."""

    made: str
    model: str
    task: str
    aliases: dict[str, int]
    hours: float
    versions: list[VersionRow]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a training, a page of HTML by itself, as whoever packaged the version wrote it."""

    model: str
    version: int
    html: str


def model(registry: Registry, model: str, *, hours: float = 24.0) -> Model:
    """A model's versions side by side: aliases, metrics, size, tags, and their traffic of the last hours."""
    found = registry.versions(model)
    traffic = by_version(registry, model, ago(hours))
    return Model(
        made=now(), model=model, task=found[-1].task, aliases=registry.aliases(model), hours=hours,
        versions=[row_of(each, traffic.get(str(each.number), Sums())) for each in reversed(found)],
    )  # fmt: skip


def row_of(version: Version, traffic: Sums) -> VersionRow:
    """What is told of a version."""
    return VersionRow(
        number=version.number, aliases=version.aliases, created=version.created, by=version.by, task=version.task,
        digest=version.digest, size=version.size, tags=version.tags, metrics=measured(version.metrics), traffic=traffic,
    )  # fmt: skip


def measured(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are one number, the one it was chosen by first: those on held-out rows where it was trained
    here.
    """
    held_out = metrics.get("held_out")
    found = held_out if isinstance(held_out, dict) else metrics
    names = sorted(found, key=lambda name: name != metrics.get("metric"))
    values = {name: each.get("value") if isinstance(each := found[name], dict) else each for name in names}
    return {name: float(v) for name, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def history(registry: Registry, model: str, *, most: int = 200) -> list[Change]:
    """What was done with a model, when, by whom and why: the newest changes first."""
    return registry.history(model)[::-1][: max(most, 0)]


def promote(
    registry: Registry, model: str, version: int, *, alias: str = PRODUCTION, why: str = "", expect: int | None = None
) -> Change:
    """Point an alias at a version.

    `expect` is the version that the alias is taken to name now, 0 for none; where it names another, nothing is changed.
    """
    return api.promote(model, version, alias=alias, why=why, expect=expect, registry=registry)


def rollback(registry: Registry, model: str, *, alias: str = PRODUCTION, why: str = "") -> Change:
    """Point an alias back at the version before, or take back what its rollout or its route brought."""
    return api.rollback(model, alias=alias, why=why, registry=registry)


def delete(registry: Registry, model: str, version: int, *, why: str = "", force: bool = False) -> None:
    """Delete a version that no alias names; `force` removes aliases other than production, too."""
    api.delete(f"{model}:{version}", why=why, force=force, registry=registry)


def tag(registry: Registry, model: str, version: int, tags: dict[str, str | None]) -> dict[str, str]:
    """Put tags on a version, or take those off that are null; answers with all that it has then."""
    return api.tag(f"{model}:{version}", tags, registry=registry).tags


def report(registry: Registry, model: str, version: int) -> Report:
    """The report that the training wrote beside a version."""
    found = registry.fetch(registry.resolve(f"{model}:{version}")).report
    if found is None:
        raise NotFound(f"{model}:{version} has no report", hint="`modelyard train` writes one")
    return Report(model=model, version=version, html=found.read_text(encoding="utf-8", errors="replace"))
