"""A rollout: its ramp, its evidence against what is needed, what callers got, and the actions on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from modelyard.admin import models, rollouts
from modelyard.admin.rollouts import Standing
from modelyard.console import evidence, tables, widgets
from modelyard.console.acts import Again
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.errors import NotFound
from modelyard.registry.decisions import odds
from modelyard.registry.plans import Stage
from modelyard.rollouts.guard import LEAST_REQUESTS

_DECISIONS = (
    Column("moment", "When", "moment"), Column("who", "By", "cell"), Column("action", "Decision", "mark"),
    Column("share", "Share then", "number"), Column("served", "Served", "number"), Column("bad", "Bad", "number"),
    Column("slow", "Slow", "number"), Column("wrong", "Wrong", "number"), Column("why", "Why"),
    Column("evidence", "Evidence (needed), to 1"),
)  # fmt: skip

_TONES = {
    "promote": "y-good", "pass": "y-good", "advance": "y-info", "start": "y-info", "pause": "y-warn",
    "roll back": "y-bad", "abort": "y-bad",
}  # fmt: skip

Update = Callable[[Standing], None]


@page("/models/{model}/rollouts/{number}", "{model}, rollout {number}")
async def rollout(view: View, model: str, number: int) -> None:
    """One rollout, under way or past, with every decision."""
    widgets.sections(model, "/endpoint")

    def build(said: Standing) -> Update:
        if said.rollout.model != model:
            raise NotFound(f"rollout {number} is of {said.rollout.model}, not of {model}")
        return card(view, said, look)

    async def look() -> None:
        await again()

    again = await view.live(rollouts.rollout, build, rollout=number)


def card(view: View, said: Standing, look: Again) -> Update:
    """How a rollout stands; returns what shows newer data in place."""
    row = said.rollout
    about = f"of {row.model}@{row.alias}: version {row.stable} to {row.candidate}"
    with widgets.card(f"Rollout {row.id}", about):
        with ui.element("div").classes("y-row"):
            widgets.mark(row.state)
            verdict = ui.label(_verdict(said)).classes("y-grow")
        ramp = ui.element("div")
        with ramp:
            _ramp(said)
        with ui.element("div").classes("y-grid"):
            tiles = [widgets.tile(name, *figure) for name, figure in _figures(said).items()]
        curve = evidence.chart(said)
        findings = evidence.table(said)
        if row.ended is None:
            _actions(view, said, look)
    with widgets.card("Decisions", f"about rollout {row.id}, each with what it was based on"):
        rows = [_decision(each) for each in reversed(said.decisions)]
        tables.table(_DECISIONS, rows, key="id", name=f"{row.model} rollout {row.id} decisions", page=25)

    def update(newer: Standing) -> None:
        if (newer.rollout.id, newer.rollout.state, newer.rollout.stage, len(newer.decisions)) != (
            row.id, row.state, row.stage, len(said.decisions),
        ):  # fmt: skip
            raise widgets.Rebuild
        verdict.text = _verdict(newer)
        for tile, figure in zip(tiles, _figures(newer).values(), strict=True):
            tile.tell(*figure)
        curve(newer)
        findings(newer)

    return update


def _verdict(said: Standing) -> str:
    if said.rollout.ended is None:
        nobody = "" if said.decider else " – nobody decides: a server does, or `modelyard watch`"
        return said.verdict + nobody
    last = said.decisions[-1]
    return f"{last.action} by {last.who}" + (f": {last.why}" if last.why else "")


def _ramp(said: Standing) -> None:
    row, stages = said.rollout, said.plan.stages
    end = "100%" if said.plan.goal == "promote" else "a verdict"
    is_over = row.state in ("watching", "promoted", "passed")
    here = len(stages) if is_over else row.stage
    with ui.element("ol").classes("y-ramp").props('aria-label="Stages"'):
        for place, name in enumerate([*map(_stage, stages), end]):
            tone = "y-done" if place < here else ""
            if place == here:
                tone = "y-here" if row.ended is None or is_over else "y-ended"
            with ui.element("li").classes(tone).props('aria-current="step"' if place == here else ""):
                ui.label(name)


def _stage(stage: Stage) -> str:
    return ("copies " if stage.mode == "shadow" else "") + f"{stage.share * 100:.4g}%"


def _figures(said: Standing) -> dict[str, tuple[str, str]]:
    row, served = said.rollout, said.rollout.exposure
    if row.ended is None and row.state != "watching":
        lasted = f"{said.seconds:.0f} s of at least {said.plan.stage_seconds:g} s"
        stage = (f"{row.stage + 1} of {len(said.plan.stages)}", lasted)
    else:
        stage = (row.state, "")
    seen = f"at least {LEAST_REQUESTS} are needed; version {row.stable} had {said.stable_requests:,}"
    return {
        "Stage": stage,
        "Share now": (f"{row.share * 100:.4g}%", f"by {said.plan.key}" if said.plan.key != "request" else ""),
        f"Requests to version {row.candidate} in this stage": (f"{said.candidate_requests:,}", seen),
        f"Served by version {row.candidate} in all": (f"{served.requests:,}", "requests"),
        "Bad answers served": (f"{served.bad:,}", f"{served.slow:,} slow, {served.wrong:,} known to be wrong"),
    }


def _actions(view: View, said: Standing, look: Again) -> None:
    row = said.rollout
    model, alias = row.model, row.alias

    def doing(verb: str, consequence: str, function: Callable[..., Any], done: str) -> Callable[[], Awaitable[None]]:
        async def act() -> None:
            why = await widgets.confirm(f"{verb}?", consequence, verb)
            if why is not None and await view.act(function, done=done, model=model, alias=alias, why=why):
                await look()

        return act

    back = f"version {row.stable} answers everything from now on"
    with ui.element("div").classes("y-row"):
        if row.state == "running":
            stays = f"Version {row.candidate} stays at {row.share * 100:.4g}% until it is resumed. Harm still ends it."
            widgets.action("Pause", doing("Pause", stays, rollouts.pause_rollout, "paused"), icon="pause")
        if row.state == "paused":
            on = "The guard decides again when the next stage begins."
            widgets.action("Resume", doing("Resume", on, rollouts.resume_rollout, "resumed"), icon="play_arrow")
        if row.state == "watching":
            stays = f"Version {row.candidate} stays, and labels that come later do not take it back."
            widgets.action("End", doing("End", stays, rollouts.end_rollout, "ended"), icon="done")
        consequence = f"The rollout ends as aborted: {back}."
        widgets.action("Abort", doing("Abort", consequence, rollouts.abort_rollout, back), icon="block", is_grave=True)
        consequence = f"The rollout ends as rolled back, as for harm: {back}."
        widgets.action("Roll back", doing("Roll back", consequence, models.rollback, back), icon="undo", is_grave=True)


def _decision(each: rollouts.Decided) -> dict[str, Any]:
    worst = max(each.findings, key=lambda finding: finding.log_e - finding.needed, default=None)
    told = f"{worst.guard} {odds(worst.log_e)} ({odds(worst.needed)})" if worst else ""
    return {
        "id": each.id, "moment": each.moment, "who": each.who, "action": each.action,
        "action_tone": _TONES.get(each.action, ""), "share": f"{each.share * 100:.4g}%",
        "served": each.exposure.requests, "bad": each.exposure.bad, "slow": each.exposure.slow,
        "wrong": each.exposure.wrong, "why": each.why, "evidence": told,
    }  # fmt: skip
