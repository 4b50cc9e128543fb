"""One alert: what it tells, its findings, what was sent of it, and what people say to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from modelyard.admin import alerts as told
from modelyard.console import tables, widgets
from modelyard.console.alerts import deliveries, silence_form
from modelyard.console.findings import rows_href
from modelyard.console.pieces import Build
from modelyard.console.tables import Column
from modelyard.console.view import View, page

_FINDINGS = (
    Column("told", "What was found", "title"), Column("kind", "Kind", "cell"), Column("severity", "Severity", "mark"),
    Column("rests", "Rests on"), Column("expected", "False alarms"), Column("opened", "Since", "moment"),
    Column("closed", "Over", "moment"), Column("rows", "Rows", "link"),
)  # fmt: skip


@page("/alerts/{number}", "Alert {number}")
async def alert(view: View, number: int) -> None:
    """Everything about one alert."""
    widgets.heading(f"Alert {number}")
    ui.link("Alerts", "/alerts").classes("y-link")
    look: Callable[[], Awaitable[None]] | None = None

    async def changed() -> None:
        if look is not None:
            await look()

    look = await view.live(told.alert, _case(view, changed), number=number)


def _case(view: View, changed: Callable[[], Awaitable[None]]) -> Build:
    def build(said: told.Case) -> None:
        found = said.alert
        with widgets.card():
            with ui.element("div").classes("y-row"):
                tone = {"open": "y-bad", "closed": "y-good"}.get(found.state, "y-warn")
                widgets.mark(found.state, tone)
                widgets.mark(found.severity)
                ui.label(found.title).style("font-weight: 600").classes("y-grow")
            widgets.pairs([
                ("Model", lambda: ui.link(f"{found.model}:{found.version}", f"/models/{found.model}/monitoring?version="
                                          f"{found.version}").classes("y-link")),
                ("Arm", found.arm), ("About", found.about), ("Rule", found.rule),
                ("Since", widgets.Moment(found.opened)),
                ("Over", widgets.Moment(found.closed or "")),
                ("Looked after by", found.acknowledged), ("Command", found.links.get("command", "")),
            ])  # fmt: skip
            if view.visitor.may_act and not found.closed:
                with ui.element("div").classes("y-row"):
                    widgets.action("Acknowledge", _acknowledging(view, said, changed), icon="check")
            with ui.expansion("What was sent").classes("w-full").props("dense"), ui.element("pre"):
                ui.label(found.text)
        with widgets.card("Findings", "Those first whose effects are furthest above what matters"):
            rows = [_finding(each) for each in said.findings]
            tables.table(_FINDINGS, rows, key="id", name=f"findings of alert {found.id}", page=10)
        with widgets.card("Deliveries"):
            if said.deliveries:
                deliveries(said.deliveries, f"deliveries of alert {found.id}")
            else:
                ui.label("Nobody was told: it is silenced, or its rule has no sinks.").classes("y-soft")
        if view.visitor.may_act and not found.closed:
            first = said.findings[0].finding if said.findings else None
            kind, subject = (first.kind, first.subject) if first else ("", "")
            silence_form(view, changed, model=found.model, kind=kind, subject=subject)

    return build


def _acknowledging(
    view: View, said: told.Case, changed: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    async def acknowledge() -> None:
        consequence = "Others see that you look after it. It closes by itself."
        why = await widgets.confirm(f"Acknowledge alert {said.alert.id}?", consequence, "Acknowledge")
        if why is None:
            return
        if await view.act(told.acknowledge, done="Acknowledged", number=said.alert.id, why=why):
            await changed()

    return acknowledge


def _finding(said: Any) -> dict[str, Any]:
    found = said.finding
    return {
        "id": found.id, "told": found.told, "told_href": f"/findings/{found.id}", "kind": found.kind,
        "severity": found.severity, "severity_tone": widgets.TONES.get(found.severity, ""), "rests": said.rests_on,
        "expected": said.expected, "opened": found.opened, "closed": found.closed or "", "rows": "recorded rows",
        "rows_href": rows_href(said.rows),
    }  # fmt: skip
