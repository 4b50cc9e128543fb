"""Who answers for an alias: the version that it names, or the arms of a route that a person or a rollout made."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modelyard import api
from modelyard.admin.rollouts import RolloutRow, Standing, row_of, standing_of
from modelyard.registry import Registry
from modelyard.registry.plans import Rollout
from modelyard.registry.records import PRODUCTION, check_alias
from modelyard.registry.routes import Pin, Route


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for an alias now. ``version``: what it names, None where it is not set."""

    model: str
    alias: str
    aliases: dict[str, int]
    version: int | None
    #: The numbers of the versions that there are, newest first.
    versions: list[int]
    #: None where the alias alone decides.
    route: Route | None
    #: The rollout that is under way, else None; and all that ever were, newest first.
    rollout: Standing | None
    rollouts: list[RolloutRow]


class Cleared(msgspec.Struct, frozen=True):
    """Whether there was a route."""

    cleared: bool


def answering(registry: Registry, model: str, *, alias: str = PRODUCTION) -> Answering:
    """Who answers for an alias: the version it names, its route, its rollout under way, and those that were."""
    check_alias(alias)
    versions = registry.versions(model)
    aliases = registry.aliases(model)
    rollouts: list[Rollout] = [each for each in registry.rollouts.all(model) if each.alias == alias]
    present = next((each for each in rollouts if each.ended is None), None)
    return Answering(
        model=model, alias=alias, aliases=aliases, version=aliases.get(alias),
        versions=[each.number for each in reversed(versions)],
        route=api.find_route(model, alias=alias, registry=registry),
        rollout=None if present is None else standing_of(registry, present),
        rollouts=[row_of(each) for each in reversed(rollouts)],
    )  # fmt: skip


def set_route(
    registry: Registry, model: str, shares: dict[int, float], *, shadows: dict[int, float] | None = None,
    key: str = "request", pins: Sequence[Pin] = (), alias: str = PRODUCTION, why: str = "",
) -> Route:  # fmt: skip
    """Part the requests of an alias among versions.

    `shares` are fractions that add up to 1, `shadows` those of requests that a version gets copies of, both by version.
    An arm is called after its version: `v4`.
    """
    return api.set_route(
        model, shares, shadows=shadows, key=key, pins=pins, alias=alias, why=why, registry=registry
    )  # fmt: skip


def clear_route(registry: Registry, model: str, *, alias: str = PRODUCTION, why: str = "") -> Cleared:
    """Let the alias alone decide again who answers."""
    return Cleared(api.clear_route(model, alias=alias, why=why, registry=registry))
