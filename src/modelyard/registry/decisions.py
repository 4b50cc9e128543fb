"""Decisions about rollouts, and the rows of rollouts. All that a decision changes is one transaction (``settle``):
the decision itself, the route, the alias, the rollout's state, evidence and position, and the row of the history.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from modelyard.errors import NotFound
from modelyard.registry import journal, routes, shelf, states
from modelyard.registry.database import Row, Work
from modelyard.registry.evidence import Evidence, Exposure
from modelyard.registry.plans import ACTIVE, Plan, Rollout, State
from modelyard.registry.records import author, now
from modelyard.registry.routes import Route

COLUMNS = "id, model, alias, state, started, ended, content, evidence, position"


#: The row of ``states`` that has the clients of a rollout whose labels are counted, by its model and its id.
LABELLED = "labelled"


class Finding(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one guard says. Rates are fractions of the requests (of the answers, the labels)."""

    guard: str
    #: What it counted worst: an event, a bin of the scores.
    event: str = ""
    #: ln of the evidence of harm, of what was bet last, and what it takes to roll back.
    log_e: float = 0.0
    log_last: float = 0.0
    needed: float = 0.0
    #: Bad events of those counted, in the candidate and in the stable version.
    bad: int = 0
    n: int = 0
    stable_bad: int = 0
    stable_n: int = 0
    #: How much more of it the candidate has: as seen, and at most, as what is tolerated counts it; None where nothing
    #: can be said yet.
    harm: float | None = None
    at_most: float | None = None
    #: Of an experiment's outcomes: how much more of it the candidate has at least and at most, at all times at once.
    between: tuple[float, float] | None = None
    #: What is tolerated, and whether the harm is shown to be below it, for the share that follows.
    tolerance: float = 0.0
    is_tolerable: bool = False


def odds(log: float) -> str:
    """Evidence in words, as odds against one: ``133``, ``over a million``."""
    value = math.exp(min(log, 600.0))
    if value >= 1e6:
        return "over a million"
    return "<0.01" if value < 0.01 else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about a rollout, with what it was based on. Never altered."""

    id: int = 0
    rollout: int
    moment: str = ""
    #: A person, or ``guard``.
    who: str = ""
    #: start, advance, reweigh, pause, resume, promote, roll back, abort, pass, end.
    action: str
    why: str = ""
    #: The state that it led to, the stage, and the candidate's share from then on.
    state: State
    stage: int = 0
    share: float = 0.0
    evidence: Evidence = Evidence()
    #: What each guard said, where guards were asked.
    findings: list[Finding] = []

    @property
    def exposure(self) -> Exposure:
        return self.evidence.exposure


def settle(
    work: Work,
    rollout: Rollout,
    action: str,
    state: State,
    *,
    why: str = "",
    who: str = "",
    stage: int | None = None,
    route: Route | None = None,
    keep: bool = False,
    move: int | None = None,
    findings: list[Finding] | None = None,
) -> Decision:
    """Write a decision and all that it changes. ``route`` is put in force, or the one in force ends unless it is to be
    kept; ``move`` is where the alias goes. The rollout's evidence and position are written as they are given.
    """
    stage = rollout.stage if stage is None else stage
    evidence, chances = rollout.evidence, dict(rollout.chances)
    share = 1.0 if state in ("watching", "promoted") else 0.0
    if route is not None:
        made = routes.put(work, route, why, who)
        share = made.arms[1].weight
        chances[made.revision] = msgspec.structs.replace(rollout.plan.stages[stage], share=share).chance
        evidence = evidence.at_new_stage()
    elif keep:
        share = share or rollout.share
    else:
        routes.end(work, rollout.model, rollout.alias, why, who)
    if move is not None:
        verb = "promote" if action == "promote" else "rollback"
        journal.move(work, verb, rollout.model, rollout.alias, move, why, who)
    after = msgspec.structs.replace(
        rollout, state=state, stage=stage, share=share, chances=chances, evidence=evidence,
        ended=None if state in ACTIVE else now(),
    )  # fmt: skip
    save(work, after)
    if after.ended:
        states.drop(work, LABELLED, rollout.model, str(rollout.id))
    last = work.row("SELECT max(id) AS id FROM decisions")
    kept = msgspec.structs.replace(rollout.evidence, clocks={}, curve=[] if state in ACTIVE[:2] else evidence.curve)
    decision = Decision(
        id=((last and last["id"]) or 0) + 1, rollout=rollout.id, moment=now(), who=who or author(), action=action,
        why=why, state=state, stage=stage, share=share, evidence=kept, findings=findings or [],
    )  # fmt: skip
    work.do(
        "INSERT INTO decisions (id, rollout, moment, who, action, content) VALUES (?, ?, ?, ?, ?, ?)",
        decision.id, decision.rollout, decision.moment, decision.who, decision.action, _json(decision),
    )  # fmt: skip
    journal.write(
        work, "rollout", rollout.model, alias=rollout.alias, why=why, who=who,
        detail=f"{rollout.id} {action}: {told(after)}",
    )  # fmt: skip
    return decision


def take_back(work: Work, rollout: Rollout, action: str, state: State, **more: Any) -> Decision:
    """The version before answers everything, whether the candidate was promoted or not."""
    move = rollout.stable if pointed(work, rollout) == rollout.candidate else None
    return settle(work, rollout, action, state, move=move, **more)


def pointed(work: Work, rollout: Rollout) -> int | None:
    """The version that the rollout's alias names."""
    return journal.pointed(work, rollout.model, rollout.alias)


def told(rollout: Rollout) -> str:
    """What a rollout's state means for callers."""
    if rollout.state in ("watching", "promoted"):
        return f"version {rollout.candidate} answers everything"
    if rollout.state not in ACTIVE:
        return f"version {rollout.stable} answers everything"
    gets = "gets copies of" if rollout.plan.stages[rollout.stage].mode == "shadow" else "answers"
    return f"version {rollout.candidate} {gets} {rollout.share * 100:.4g}%"


# -- the rows of rollouts -----------------------------------------------------------------------------------------


def current(work: Work, model: str, alias: str) -> Rollout | None:
    """The rollout of an alias that has not ended."""
    row = work.row(f"SELECT {COLUMNS} FROM rollouts WHERE model = ? AND alias = ? AND ended IS NULL", model, alias)
    return rollout_of(row) if row else None


def find(work: Work, rollout: int) -> Rollout:
    """A rollout by its id. Raises NotFound."""
    row = work.row(f"SELECT {COLUMNS} FROM rollouts WHERE id = ?", rollout)
    if row is None:
        raise NotFound(f"no such rollout: {rollout}", hint="modelyard rollout list")
    return rollout_of(row)


def needed(work: Work, model: str, alias: str) -> Rollout:
    """The same. Raises NotFound where there is none."""
    rollout = current(work, model, alias)
    if rollout is None:
        shelf.versions(work, model)  # there may be no such model
        hint = f"modelyard rollout start {model} --to VERSION{routes.flag(alias)}"
        raise NotFound(f"no rollout of {model}@{alias} is under way", hint=hint)
    return rollout


def insert(work: Work, draft: Rollout) -> Rollout:
    """Give a rollout its number, and keep it."""
    last = work.row("SELECT max(id) AS id FROM rollouts")
    made = msgspec.structs.replace(draft, id=((last and last["id"]) or 0) + 1, started=now(), who=draft.who or author())
    work.do(
        f"INSERT INTO rollouts ({COLUMNS}) VALUES (?, ?, ?, ?, ?, NULL, ?, ?, 0)",
        made.id, made.model, made.alias, made.state, made.started, _content(made), _json(made.evidence),
    )  # fmt: skip
    return made


def save(work: Work, rollout: Rollout) -> None:
    """Write what has become of a rollout."""
    work.do(
        "UPDATE rollouts SET state = ?, ended = ?, content = ?, evidence = ?, position = ? WHERE id = ?",
        rollout.state, rollout.ended, _content(rollout), _json(rollout.evidence), rollout.position, rollout.id,
    )  # fmt: skip


def versions_in_use(work: Work, model: str) -> dict[int, str]:
    """Versions that a route or a rollout needs, and what needs them."""
    used: dict[int, str] = {}
    for route in routes.in_force(work, model):
        used |= dict.fromkeys((arm.version for arm in route.arms), f"the route of {model}@{route.alias}")
    for row in work.rows(f"SELECT {COLUMNS} FROM rollouts WHERE model = ? AND ended IS NULL", model):
        rollout = rollout_of(row)
        used |= dict.fromkeys((rollout.stable, rollout.candidate), f"{rollout.name}, which is {rollout.state}")
    return used


class _Content(msgspec.Struct, omit_defaults=True):
    stable: int
    candidate: int
    plan: Plan
    stage: int
    share: float
    chances: dict[int, float]
    who: str
    why: str


def _content(r: Rollout) -> str:
    return _json(_Content(r.stable, r.candidate, r.plan, r.stage, r.share, r.chances, r.who, r.why))


def rollout_of(row: Row) -> Rollout:
    c = msgspec.json.decode(row["content"], type=_Content)
    return Rollout(
        id=row["id"], model=row["model"], alias=row["alias"], stable=c.stable, candidate=c.candidate, plan=c.plan,
        state=row["state"], stage=c.stage, share=c.share, chances=c.chances,
        evidence=msgspec.json.decode(row["evidence"], type=Evidence), position=row["position"],
        started=row["started"], ended=row["ended"], who=c.who, why=c.why,
    )  # fmt: skip


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
