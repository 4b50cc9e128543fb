"""The rules by which findings and alerts are made: shown to all, changed by those who may, with the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from modelyard.admin import monitoring as told
from modelyard.console import tables, widgets
from modelyard.console.pieces import Build
from modelyard.console.tables import Column
from modelyard.console.view import View

_COLUMNS = (Column("place", "Rule"), Column("value", "Value"), Column("changed", "Changed", "mark"))
_HISTORY = (
    Column("when", "When", "moment"), Column("who", "Who"), Column("detail", "What"), Column("why", "Why"),
    Column("model", "Model"),
)  # fmt: skip

_CHANGED = {"model": "for this model", "all": "for all models"}


async def rules(view: View, model: str) -> None:
    """The rules of one model."""
    look: Callable[[], Awaitable[None]] | None = None

    async def changed() -> None:
        if look is not None:
            await look()

    look = await view.live(told.rules, _card(view, model, changed), every=30.0, model=model)


def _card(view: View, model: str, changed: Callable[[], Awaitable[None]]) -> Build:
    def build(said: told.Rules) -> None:
        count = sum(bool(rule.changed) for rule in said.rules)
        with widgets.card("Rules", f"By what findings and alerts are made; {count or 'none'} changed"):
            rows: list[dict[str, Any]] = [
                {"place": rule.place, "value": rule.value, "changed": _CHANGED.get(rule.changed, ""),
                 "changed_tone": "y-info"}
                for rule in said.rules
            ]  # fmt: skip
            with ui.expansion("Show all rules").classes("w-full").props("dense"):
                tables.table(_COLUMNS, rows, key="place", name="rules", page=15)
                if said.history:
                    ui.label("Changes").classes("y-soft y-small")
                    history = [
                        {"id": c.id, "when": c.when, "who": c.who, "detail": c.detail, "why": c.why,
                         "model": c.model or "all"}
                        for c in said.history
                    ]  # fmt: skip
                    tables.table(_HISTORY, history, key="id", name="changes of rules", page=10)
            if view.visitor.may_act:
                _form(view, model, said, changed)

    return build


def _form(view: View, model: str, said: told.Rules, changed: Callable[[], Awaitable[None]]) -> None:
    values = {rule.place: rule for rule in said.rules}
    with ui.element("div").classes("y-form"):
        place = ui.select(list(values), label="Rule to change", with_input=True).props("outlined dense")
        value = ui.input("New value").props("outlined dense")
        why = ui.input("Why (kept in the history)").props("outlined dense")
        whose = ui.select(
            {"": "all models", model: f"{model} only"}, value=model, label="It holds for"
        ).props("outlined dense")  # fmt: skip

    def shown(event: Any) -> None:
        rule = values.get(event.value)
        value.value = rule.value if rule else ""
        # Alert rules and sinks are those of all models.
        if rule and rule.place.partition(".")[0] in ("alerts", "sinks", "console"):
            whose.value = ""

    place.on_value_change(shown)

    async def change() -> None:
        done = f"{place.value} is {value.value} from the next turn on"
        asked = {"put": {place.value or "": value.value}, "why": why.value, "model": whose.value}
        if await view.act(told.change_rules, done=done, **asked):
            await changed()

    async def back() -> None:
        done = f"{place.value} is as before from the next turn on"
        if await view.act(told.change_rules, done=done, drop=(place.value or "",), why=why.value, model=whose.value):
            await changed()

    with ui.element("div").classes("y-row"):
        widgets.action("Change the rule", change, icon="edit")
        widgets.action("Take a change back", back, icon="undo")
