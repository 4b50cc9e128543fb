"""Alerts, silences, and who is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from modelyard.admin import alerts as told
from modelyard.console import tables, widgets
from modelyard.console.pieces import Build
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.errors import ModelyardError, Refused
from modelyard.registry.alerts import Delivery, Silence
from modelyard.registry.findings import KINDS

_COLUMNS = (
    Column("id", "Alert", "number"), Column("state", "State", "mark"), Column("title", "What", "title"),
    Column("severity", "Severity", "mark"), Column("opened", "Since", "moment"), Column("closed", "Over", "moment"),
    Column("acknowledged", "Looked after by"),
)  # fmt: skip
_DELIVERIES = (
    Column("id", "Delivery", "number"), Column("sink", "To", "cell"), Column("event", "About", "cell"),
    Column("state", "State", "mark"), Column("attempts", "Attempts", "number"), Column("due", "When", "moment"),
    Column("error", "What went wrong"),
)  # fmt: skip
_SINKS = (
    Column("name", "Sink", "cell"), Column("kind", "Kind", "cell"), Column("url", "Address"),
    Column("secret", "Secret is in"), Column("to", "To"), Column("rules", "Told by the rule"),
)  # fmt: skip
_STATES = {"open": "Open", "past": "Over", "all": "All"}

_TONES = {"sent": "y-good", "waiting": "y-warn", "dead": "y-bad"}


@page("/alerts", "Alerts")
async def alerts(view: View, state: str = "open", model: str = "") -> None:
    """What was told, what is kept quiet, and who is told."""
    widgets.heading("Alerts")
    state = state if state in _STATES else "open"
    with ui.element("nav").classes("y-tabs").props('aria-label="Which alerts"'):
        for each, name in _STATES.items():
            ui.link(name, f"/alerts?state={each}").props('aria-current="page"' if each == state else "")
    look = await view.live(told.alerts, _board(view, state), model=model or None, state=state)
    if view.visitor.may_act:
        silence_form(view, look)
    await view.live(told.sinks, _sinks(view), every=30.0)


def _board(view: View, state: str) -> Build:
    def build(said: told.Board) -> Callable[[told.Board], None]:
        with widgets.card("Alerts", f"{said.open} open now; each gathers the findings of one cause"):
            if said.alerts:
                table = tables.table(_COLUMNS, [_row(each) for each in said.alerts], key="id", name="alerts")
            else:
                ui.label("No alert is open." if state == "open" else "There is none.").classes("y-soft")
        if said.silences:
            with widgets.card("Silences", "Of these nobody is told until they end"):
                for silence in said.silences:
                    _silence(view, silence)
        if said.dead:
            with widgets.card("Could not be delivered", "Every attempt failed; nobody was told"):
                rows = [delivery_row(each) for each in said.dead]
                tables.table(_DELIVERIES, rows, key="id", name="dead deliveries", page=10)

        def update(newer: told.Board) -> None:
            there = (newer.silences, newer.dead, newer.open, bool(newer.alerts))
            if there != (said.silences, said.dead, said.open, bool(said.alerts)) or not said.alerts:
                raise widgets.Rebuild
            tables.refresh(table, _COLUMNS, [_row(each) for each in newer.alerts])

        return update

    return build


def _row(alert: Any) -> dict[str, Any]:
    return {
        "id": alert.id, "title": alert.title, "title_href": f"/alerts/{alert.id}", "state": alert.state,
        "severity": alert.severity, "opened": alert.opened, "closed": alert.closed or "",
        "acknowledged": alert.acknowledged.partition(",")[0],
        "state_tone": {"open": "y-bad", "closed": "y-good"}.get(alert.state, "y-warn"),
        "severity_tone": widgets.TONES.get(alert.severity, ""),
    }  # fmt: skip


def delivery_row(delivery: Delivery) -> dict[str, Any]:
    """A delivery, sent, waiting or dead."""
    return {
        "id": delivery.id, "sink": delivery.sink, "event": delivery.event, "state": delivery.state,
        "state_tone": _TONES[delivery.state], "attempts": delivery.attempts, "due": delivery.due,
        "error": delivery.error,
    }  # fmt: skip


def deliveries(rows: list[Delivery], name: str) -> None:
    """A table of deliveries."""
    tables.table(_DELIVERIES, [delivery_row(each) for each in rows], key="id", name=name, page=10)


def _silence(view: View, silence: Silence) -> None:
    asked = [silence.model or "every model", silence.kind or "every kind"]
    asked += [silence.subject] if silence.subject else []
    with ui.element("div").classes("y-row"):
        with ui.element("div").classes("y-grow"):
            ui.label(", ".join(asked)).style("font-weight: 600")
            with ui.element("div").classes("y-row y-soft y-small"):
                ui.label(f"by {silence.who}" + (f": {silence.why}" if silence.why else "") + ", until")
                widgets.moment(silence.until)

        async def end() -> None:
            await view.act(told.unsilence, done="The silence is over", number=silence.id)

        if view.visitor.may_act:
            widgets.action("End it", end).props["aria-label"] = f"End the silence of {', '.join(asked)}"


def silence_form(
    view: View, look: Callable[[], Awaitable[None]], *, model: str = "", kind: str = "", subject: str = ""
) -> None:
    """Tell nobody of some findings for a while."""
    with widgets.card("Silence", "Findings are still made and shown; what is still open at the end is told then"):
        with ui.element("div").classes("y-form"):
            models = ui.input("Model (empty: every)", value=model).props("outlined dense")
            kinds = ui.select({"": "every kind", **{each: each for each in KINDS}}, value=kind, label="Kind")
            kinds.props("outlined dense options-dense")
            subjects = ui.input("Feature or subject (empty: every)", value=subject).props("outlined dense")
            until = ui.input("For how long: 30m, 2h, 7d, a date", value="2h").props("outlined dense")
            why = ui.input("Why (kept in the history)").props("outlined dense")

        async def silence() -> None:
            asked = {
                "model": models.value.strip(), "kind": kinds.value, "subject": subjects.value.strip(),
                "until": until.value.strip(), "why": why.value,
            }  # fmt: skip
            if await view.act(told.silence, done=f"Silent for {until.value}", **asked):
                await look()

        with ui.element("div").classes("y-row"):
            widgets.action("Silence", silence, icon="notifications_off")


def _sinks(view: View) -> Build:
    def build(said: list[told.SinkTold]) -> None:
        with widgets.card("Who is told", "Sinks are rules: modelyard monitor rules --set sinks.NAME.kind=slack ..."):
            rows = [
                {"name": each.name, "kind": each.kind, "url": each.url, "secret": each.secret, "to": ", ".join(each.to),
                 "rules": "; ".join(each.rules) or "none: nobody sends to it"}
                for each in said
            ]  # fmt: skip
            tables.table(_SINKS, rows, key="name", name="sinks")
            if view.visitor.may_act:
                _trying(view)

    return build


def _trying(view: View) -> None:
    outcome = ui.element("div").style("display: contents")

    async def attempt() -> None:
        button.disable()
        outcome.clear()
        try:
            if not view.visitor.may_act:
                raise Refused("this key allows to look only")
            tried = await view.load(told.try_sinks)
        except ModelyardError as error:
            widgets.tell(error)
            return
        finally:
            button.enable()
        with outcome:
            for each in tried:
                with ui.element("div").classes("y-row"):
                    ui.label(each.sink)
                    widgets.mark("delivered" if not each.error else "failed", "y-good" if not each.error else "y-bad")
                    if each.error:
                        ui.label(each.error).classes("y-bad y-small y-grow")

    with ui.element("div").classes("y-row"):
        button = widgets.action("Send a test to every sink", attempt, icon="send")
