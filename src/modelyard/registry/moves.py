"""Moving aliases by hand, inside a transaction: forward, and back to what was live before."""

from __future__ import annotations

from modelyard.errors import Conflict
from modelyard.registry import decisions, journal, routes, shelf
from modelyard.registry.database import Work
from modelyard.registry.records import Change, Reference
from modelyard.registry.routes import flag


def promote(work: Work, name: str, number: int, alias: str, why: str, expect: int | None) -> Change:
    """See Registry.promote."""
    shelf.find(work, Reference(name, number=number))
    current = journal.pointed(work, name, alias)
    if expect is not None and (current or 0) != expect:
        is_now = f"is {name}:{current}" if current else "is not set"
        raise Conflict(
            f"{name}@{alias} {is_now}, not the expected {expect}", hint=f"modelyard history {name}", now=current
        )
    check(work, name, alias)
    return journal.move(work, "promote", name, alias, number, why)


def rollback(work: Work, name: str, alias: str, why: str) -> Change:
    """See Registry.rollback."""
    rollout = decisions.current(work, name, alias)
    if rollout is not None:
        decisions.take_back(work, rollout, "roll back", "rolled back", why=why)
        return journal.last(work, name)
    if routes.end(work, name, alias, why):
        return journal.last(work, name)
    version = shelf.find(work, Reference(name, alias=alias))
    target = journal.before(work, name, alias, shelf.alive(work, name))
    if target is None:
        raise Conflict(
            f"nothing to roll back to: no version that still exists was {name}@{alias} before {version.ref}",
            hint=f"modelyard promote {name} NUMBER --alias {alias}",
        )
    return journal.move(work, "rollback", name, alias, target, why)


def check(work: Work, name: str, alias: str) -> None:
    """Raises Conflict where something else than the alias decides who answers: a rollout, or somebody's route."""
    routes.check_free(work, name, alias)
    if routes.current(work, name, alias) is not None:
        raise Conflict(
            f"{name}@{alias} has a route, so that its requests would not follow the alias",
            hint=f"modelyard route clear {name}{flag(alias)}",
        )
