"""The route in force of an alias, and setting one by hand."""

from __future__ import annotations

from nicegui import ui

from modelyard.admin import routes as told
from modelyard.console import plots, tables, widgets
from modelyard.console.acts import WHY, Again
from modelyard.console.reading import percent, pins_of
from modelyard.console.tables import Column
from modelyard.console.view import View
from modelyard.errors import ModelyardError
from modelyard.registry.routes import Route

_COLUMNS = (
    Column("name", "Arm"), Column("version", "Version", "number"), Column("share", "Share", "number"),
    Column("gets", "Gets"), Column("pins", "Always"),
)  # fmt: skip


def card(view: View, said: told.Answering, look: Again) -> None:
    """Who answers for the alias, and the actions that change it."""
    with widgets.card("Who answers", f"for {said.model}@{said.alias}"):
        if said.route is None:
            if said.version is None:
                ui.label(f"Nobody: no version is called {said.alias}.")
            else:
                ui.label(f"Version {said.version} answers every request.")
        else:
            _arms(said.route)
        if said.rollout is not None:
            ui.label(f"Rollout {said.rollout.rollout.id} decides: meanwhile nobody else moves it.").classes("y-soft")
            return
        with ui.element("div").classes("y-row"):
            if len(said.versions) > 1 or said.route is not None:
                label = "Part the requests" if said.route is None else "Change the route"
                widgets.action(label, lambda: _edit(view, said, look), icon="call_split")
            if said.route is not None:
                widgets.action("Clear the route", lambda: _clear(view, said, look), icon="clear", is_grave=True)


def _arms(route: Route) -> None:
    by = f"rollout {route.rollout}" if route.rollout is not None else route.who
    with ui.element("div").classes("y-row y-soft y-small"):
        ui.label(f"Revision {route.revision}, by {by},")
        widgets.moment(route.moment)
        if route.key != "request":
            ui.label(f"sticks by {route.key}")
    with ui.element("div").classes("y-shares").props('role="img" aria-label="Shares of the arms"'):
        for place, arm in enumerate(each for each in route.arms if each.mode == "live" and each.weight):
            with ui.element("div").style(f"flex-grow: {arm.weight}; background: {plots.COLOURS[place]}"):
                ui.label(f"{arm.name} {arm.weight:.4%}".replace(".0000", ""))
    rows = [
        {
            "name": arm.name, "version": arm.version, "share": f"{arm.weight * 100:.4g}%",
            "gets": "copies" if arm.mode == "shadow" else "answers",
            "pins": ", ".join(f"{pin.key}:{pin.value}" for pin in route.pins if pin.arm == arm.name),
        }
        for arm in route.arms
    ]  # fmt: skip
    tables.table(_COLUMNS, rows, key="name", name=f"{route.model} route")


async def _clear(view: View, said: told.Answering, look: Again) -> None:
    who = f"version {said.version} answers every request" if said.version else "nobody answers"
    why = await widgets.confirm(f"Clear the route of {said.model}@{said.alias}?", f"From now on {who}.", "Clear")
    if why is not None and await view.act(
        told.clear_route, done="the route is gone", model=said.model, alias=said.alias, why=why
    ):
        await look()


async def _edit(view: View, said: told.Answering, look: Again) -> None:
    before = said.route
    shares = {arm.version: arm.weight for arm in before.arms if arm.mode == "live"} if before else {said.version: 1.0}
    copies = {arm.version: arm.weight for arm in before.arms if arm.mode == "shadow"} if before else {}
    live, shadows = {}, {}
    with widgets.dialog(f"Part the requests of {said.model}@{said.alias}") as asking:
        ui.label("Shares in percent. Those that answer add up to 100; copies come on top, their answers are dropped.")
        for number in said.versions:
            with ui.element("div").classes("y-row"):
                live[number] = _share(f"Version {number} answers, %", shares.get(number))
                shadows[number] = _share(f"Version {number} gets copies, %", copies.get(number))
        key = ui.input("What sticks", value=before.key if before else "request").classes("w-full")
        key.props('hint="request (nothing), header:NAME or column:NAME"')
        lines = list(map(str, before.pins)) if before else []
        pins = ui.textarea("Always there, one a line: header:x-group:testers=v4", value="\n".join(lines))
        pins.classes("w-full").props("autogrow")
        why = ui.input(WHY).classes("w-full")
        wrong = ui.label().classes("y-bad").props('role="alert"')

        async def keep() -> None:
            try:
                told_shares = {n: percent(f"version {n}", each.value) for n, each in live.items() if each.value}
                told_copies = {n: percent(f"copies of {n}", each.value) for n, each in shadows.items() if each.value}
                told_pins = pins_of(pins.value)
            except ModelyardError as error:
                wrong.text = error.message
                return
            made = await view.try_(
                told.set_route, wrong, model=said.model, shares=told_shares, shadows=told_copies,
                key=key.value.strip(), pins=told_pins, alias=said.alias, why=why.value,
            )  # fmt: skip
            if made is not None:
                asking.submit(made)

        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=lambda: asking.submit(None)).props("flat no-caps")
            ui.button("Put in force", on_click=keep).props("unelevated no-caps")
    made = await widgets.answered(asking)
    if made is not None:
        ui.notify(f"{said.model}@{said.alias} is parted anew", type="positive")
        await look()


def _share(label: str, share: float | None) -> ui.input:
    made = ui.input(label, value="" if share is None else f"{share * 100:.6g}")
    return made.props('dense inputmode="decimal"').style("flex: 1 1 150px")
