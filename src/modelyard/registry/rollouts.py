"""Rollouts: timed changes of what an alias means, and every decision that was taken about them, for ever.

One alias has at most one rollout at a time. What people decide is here; what a guard decides, its controller writes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.errors import Conflict, NotFound
from modelyard.registry import decisions, journal, routes, shelf
from modelyard.registry.database import Database
from modelyard.registry.decisions import COLUMNS, Decision, rollout_of, settle
from modelyard.registry.plans import Rollout, State
from modelyard.registry.records import PRODUCTION, check_text
from modelyard.registry.routes import flag


class Rollouts:
    """The rollouts of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def active(self) -> list[Rollout]:
        """Those that have not ended."""
        return self._find("ended IS NULL")

    def of(self, model: str, alias: str = PRODUCTION) -> Rollout:
        """The rollout of an alias that has not ended. Raises NotFound."""
        with self._database.read() as work:
            return decisions.needed(work, model, alias)

    def find(self, rollout: int) -> Rollout:
        """A rollout by its id. Raises NotFound."""
        with self._database.read() as work:
            return decisions.find(work, rollout)

    def latest(self, model: str, alias: str = PRODUCTION) -> Rollout:
        """The newest rollout of an alias, ended or not. Raises NotFound."""
        found = self._find("model = ? AND alias = ?", model, alias)
        if not found:
            self._check_model(model)
            hint = f"modelyard rollout start {model} --to VERSION{flag(alias)}"
            raise NotFound(f"{model}@{alias} never had a rollout", hint=hint)
        return found[-1]

    def all(self, model: str | None = None) -> list[Rollout]:
        """Every rollout that ever was, or a model's, oldest first. Raises NotFound for no such model."""
        if model is None:
            return self._find("id > 0")
        found = self._find("model = ?", model)
        if not found:
            self._check_model(model)
        return found

    def newest(self) -> list[Rollout]:
        """The newest rollout of every alias that ever had one."""
        return self._find("id IN (SELECT max(id) FROM rollouts GROUP BY model, alias)")

    def counts(self) -> dict[tuple[str, str, str], int]:
        """How many decisions there were, by model, alias and action."""
        rows = self._database.query(
            """SELECT r.model, r.alias, d.action, count(*) AS n FROM decisions d JOIN rollouts r ON r.id = d.rollout
               GROUP BY r.model, r.alias, d.action ORDER BY r.model, r.alias, d.action"""
        )
        return {(row["model"], row["alias"], row["action"]): row["n"] for row in rows}

    def decisions(self, rollout: int) -> list[Decision]:
        """Every decision about a rollout, oldest first."""
        rows = self._database.query("SELECT content FROM decisions WHERE rollout = ? ORDER BY id", rollout)
        return [msgspec.json.decode(row["content"], type=Decision) for row in rows]

    def start(self, draft: Rollout) -> Rollout:
        """Begin a rollout with its first stage. Raises Conflict where the alias has one already, has a route that a
        person made, or has moved; NotFound where a version is gone.
        """
        check_text("why", draft.why)
        model, alias = draft.model, draft.alias
        with self._database.write() as work:
            routes.check_free(work, model, alias)
            if routes.current(work, model, alias) is not None:
                hint = f"modelyard route clear {model}{flag(alias)}"
                raise Conflict(f"{model}@{alias} has a route that somebody made", hint=hint)
            pointed = journal.pointed(work, model, alias)
            if pointed != draft.stable:
                is_now = f"is version {pointed}" if pointed else "is not set"
                raise Conflict(f"{model}@{alias} {is_now}, not the expected {draft.stable}", now=pointed)
            made = decisions.insert(work, draft)
            settle(work, made, "start", "running", why=made.why, route=made.route(0))
            return decisions.needed(work, model, alias)

    def pause(self, model: str, alias: str = PRODUCTION, *, why: str = "") -> Decision:
        """Stay at the present share. Harm is still looked for."""
        return self._turn(model, alias, "pause", "running", "paused", why)

    def resume(self, model: str, alias: str = PRODUCTION, *, why: str = "") -> Decision:
        """Go on after a pause."""
        return self._turn(model, alias, "resume", "paused", "running", why)

    def end(self, model: str, alias: str = PRODUCTION, *, why: str = "") -> Decision:
        """Watch a promoted candidate no longer: it stays."""
        return self._turn(model, alias, "end", "watching", "promoted", why)

    def abort(self, model: str, alias: str = PRODUCTION, *, why: str = "") -> Decision:
        """End a rollout: the version before answers everything, also where the candidate was promoted."""
        check_text("why", why)
        with self._database.write() as work:
            return decisions.take_back(work, decisions.needed(work, model, alias), "abort", "aborted", why=why)

    def _turn(self, model: str, alias: str, action: str, before: State, after: State, why: str) -> Decision:
        check_text("why", why)
        with self._database.write() as work:
            rollout = decisions.needed(work, model, alias)
            if rollout.state != before:
                verb = "abort" if action == "end" else "resume" if rollout.state == "paused" else "status"
                raise Conflict(
                    f"{rollout.name} is {rollout.state}: `{action}` is for one that is {before}",
                    hint=f"modelyard rollout {verb} {model}{flag(alias)}",
                )
            return settle(work, rollout, action, after, why=why, keep=True)

    def _check_model(self, model: str) -> None:
        """Raises NotFound where there is no such model."""
        with self._database.read() as work:
            shelf.versions(work, model)

    def _find(self, condition: str, *values: Any) -> list[Rollout]:
        rows = self._database.query(f"SELECT {COLUMNS} FROM rollouts WHERE {condition} ORDER BY id", *values)
        return [rollout_of(row) for row in rows]
