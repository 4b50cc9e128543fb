"""An endpoint: who answers for an alias of a model, the rollout under way, and the traffic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from nicegui import ui

from modelyard.admin import routes as told
from modelyard.admin.rollouts import RolloutRow
from modelyard.console import rollout, route, starting, tables, traffic, widgets
from modelyard.console.acts import Again
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.registry.records import PRODUCTION

#: Seconds between two looks: a rollout is worth watching closely.
_EVERY = 1.0

_COLUMNS = (
    Column("id", "Rollout", "link"), Column("versions", "Versions", "cell"), Column("state", "State", "mark"),
    Column("started", "Started", "moment"), Column("ended", "Ended", "moment"), Column("who", "By", "cell"),
    Column("served", "Served", "number"), Column("bad", "Bad", "number"),
    Column("wrong", "Wrong", "number"), Column("why", "Why"),
)  # fmt: skip


@page("/models/{model}/endpoint", "{model}, endpoint")
async def endpoint(view: View, model: str, alias: str = PRODUCTION) -> None:
    """Who answers, how a rollout goes, and what callers get."""
    widgets.sections(model, "/endpoint")
    again: list[Again] = []

    async def look() -> None:
        for each in again:
            await each()

    def build(said: told.Answering) -> Callable[[told.Answering], None]:
        return _show(view, said, look)

    again.append(await view.live(told.answering, build, every=_EVERY, model=model, alias=alias))
    await traffic.charts(view, model)


def _show(view: View, said: told.Answering, look: Again) -> Callable[[told.Answering], None]:
    _aliases(said)
    route.card(view, said, look)
    follow = None
    if said.rollout is not None:
        follow = rollout.card(view, said.rollout, look)
    else:
        starting.card(view, said, look)
    _past(said)

    def update(newer: told.Answering) -> None:
        same = ("aliases", "versions", "route")
        if any(getattr(newer, each) != getattr(said, each) for each in same) or follow is None or not newer.rollout:
            raise widgets.Rebuild
        follow(newer.rollout)

    return update


def _aliases(said: told.Answering) -> None:
    """The aliases, of which one is shown; each is a page of its own, so that it can be pointed at."""
    names = list(dict.fromkeys([PRODUCTION, *said.aliases, said.alias]))
    if len(names) < 2:
        return
    with ui.element("nav").classes("y-row").props('aria-label="Aliases"'):
        ui.label("Alias").classes("y-soft")
        for name in names:
            target = f"/models/{quote(said.model)}/endpoint?alias={quote(name)}"
            ui.link(name, target).props('aria-current="page"' if name == said.alias else "").classes("y-mark")


def _past(said: told.Answering) -> None:
    ended = [each for each in said.rollouts if each.ended is not None]
    if not ended:
        return
    with widgets.card("Past rollouts", "Each with every decision, its evidence, and what callers got meanwhile"):
        tables.table(_COLUMNS, [_row(each) for each in ended], key="id", name=f"{said.model} rollouts", page=10)


def _row(each: RolloutRow) -> dict[str, Any]:
    return {
        "id": f"rollout {each.id}", "id_href": f"/models/{quote(each.model)}/rollouts/{each.id}",
        "versions": f"{each.stable} to {each.candidate}", "state": each.state, "started": each.started,
        "ended": each.ended, "who": each.who, "served": each.exposure.requests, "bad": each.exposure.bad,
        "wrong": each.exposure.wrong,
        "why": each.why,
    }  # fmt: skip
