"""Settings and keys."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from modelyard.admin import settings as told
from modelyard.console import tables, widgets
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.registry.keys import SCOPES, Key

_SETTINGS = (
    Column("name", "Setting"), Column("value", "Value"), Column("origin", "From", "mark"),
    Column("purpose", "What it is for"),
)  # fmt: skip


@page("/settings", "Settings and keys")
async def settings(view: View) -> None:
    """What this process was told, and who may call the servers of the registry."""
    widgets.heading("Settings and keys")
    if view.visitor.may_act:
        look = await view.live(told.keys, lambda said: _keys(view, said))
        view.look = look
    await view.live(told.settings, _settings, every=30.0)


def _keys(view: View, said: list[Key]) -> None:
    with widgets.card("API keys", "Who may call servers and the console; secrets are known to nobody but the callers"):
        with ui.element("div").classes("y-row"):
            widgets.action("New key", lambda: _create(view), icon="add")
        if not said:
            ui.label("There are none.").classes("y-soft")
        for key in said:
            _key(view, key)


def _key(view: View, key: Key) -> None:
    with ui.element("div").classes("y-row").style("border-top: 1px solid var(--line); padding-top: 8px"):
        with ui.element("div").classes("y-grow"):
            ui.label(key.name).style("font-weight: 600")
            limits = [f"for {', '.join(key.models)}" if key.models else "for all models", key.rate]
            with ui.element("div").classes("y-row y-small y-soft"):
                ui.label(", ".join(filter(None, limits)))
                ui.label(f"made by {key.by}")
                widgets.moment(key.created)
                if key.expires:
                    ui.label("until")
                    widgets.moment(key.expires)
        for scope in key.scopes:
            widgets.mark(scope)

        async def revoke() -> None:
            why = await widgets.confirm(
                f"Revoke {key.name}?", "Whoever uses it is refused within a second. It cannot be taken back.", "Revoke",
                asks_why=False,
            )  # fmt: skip
            if why is not None and await view.act(told.revoke_key, done=f"{key.name} is revoked", key=key.id):
                await view.look()

        ui.button("Revoke", on_click=revoke).props(f'flat no-caps color="negative" aria-label="Revoke {key.name}"')


async def _create(view: View) -> None:
    """Ask what the key is for, make it, and show it once."""
    with ui.dialog() as dialog, ui.card().style("min-width: min(460px, 92vw)"):
        ui.label("New key").style("font-size: 18px; font-weight: 650")
        name = ui.input("Name, like shop").classes("w-full").props("autofocus")
        scopes = ui.select(list(SCOPES), multiple=True, value=["predict"], label="What it allows").classes("w-full")
        models = ui.select(
            await view.load(lambda registry: registry.models()), multiple=True, value=[],
            label="Models (all where none is chosen)",
        ).classes("w-full")  # fmt: skip
        rate = ui.input("Most calls, like 100/s (no limit when empty)").classes("w-full")
        expires = ui.input("Until, like 30d or 2030-01-31 (for ever when empty)").classes("w-full")
        fault = ui.label().classes("y-bad").props('role="alert"')
        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).props("flat")

            async def make() -> None:
                made = await view.try_(
                    told.create_key, fault, name=name.value.strip(), scopes=scopes.value, models=models.value,
                    rate=rate.value.strip(), expires=expires.value.strip(),
                )  # fmt: skip
                if made is not None:
                    dialog.submit(made)

            ui.button("Make the key", on_click=make).props("unelevated no-caps")
    made = await dialog
    dialog.delete()
    if made is not None:
        await _show_once(made)
        await view.look()


async def _show_once(made: told.MadeKey) -> None:
    with ui.dialog().props("persistent") as dialog, ui.card().style("min-width: min(460px, 92vw)"):
        ui.label(f"The key {made.key.name}").style("font-size: 18px; font-weight: 650")
        ui.label("This is the only time that it is shown. Callers send it as Authorization: Bearer KEY.")
        widgets.command(made.text)
        with ui.row().classes("w-full justify-end"):
            ui.button("I have it", on_click=dialog.close).props("unelevated no-caps")
    await dialog
    dialog.delete()


def _settings(said: told.Settings) -> None:
    with widgets.card(
        "Settings", "Of this process: a command's option wins over the environment, that over the default"
    ):
        ui.label(f"Registry: {said.registry}").classes("y-soft y-small")
        ui.label("A setting such as port is MODELYARD_PORT in the environment.").classes("y-soft y-small")
        rows: list[dict[str, Any]] = [
            {
                "name": each.name, "value": each.value or "–", "origin": each.origin, "purpose": each.purpose,
                "origin_tone": "y-info" if each.origin == "environment" else "",
            }
            for each in said.settings
        ]  # fmt: skip
        tables.table(_SETTINGS, rows, key="name", name="settings", page=50)
    with widgets.card("Versions"):
        widgets.pairs(list(said.versions.items()))
