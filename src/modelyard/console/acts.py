"""What is done with versions and aliases: each asks first, and says what will be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from modelyard.admin import models as told
from modelyard.console import widgets
from modelyard.console.view import View
from modelyard.registry.records import PRODUCTION

#: Looks anew at what was changed.
Again = Callable[[], Awaitable[None]]

WHY = "Why (kept in the history)"


async def choose(view: View, said: told.Model, number: int, again: Again) -> None:
    """Ask what is to be done with a version, and do it."""
    row = next(each for each in said.versions if each.number == number)
    with widgets.dialog(f"{said.model}, version {number}") as asking:
        for verb, icon in (("Promote", "publish"), ("Tag", "sell"), ("Delete", "delete")):
            ui.button(verb, icon=icon, on_click=lambda verb=verb: asking.submit(verb)).props(
                f'outline no-caps align="left" color="{"negative" if verb == "Delete" else "primary"}"'
            )
        with ui.element("div").classes("y-row"):
            ui.link("Try it", f"/models/{said.model}/try?version={number}").classes("y-link")
            ui.link("Training report", f"/models/{said.model}/versions/{number}/report", new_tab=True).classes(
                "y-link"
            ).props('rel="noopener"')
        with ui.element("pre").classes("y-small y-soft").style("overflow-wrap: anywhere; white-space: pre-wrap"):
            ui.label(row.digest)
        with ui.row().classes("w-full justify-end"):
            ui.button("Close", on_click=lambda: asking.submit(None)).props("flat no-caps")
    verb = await widgets.answered(asking)
    if verb == "Promote":
        await promote(view, said, number, again)
    elif verb == "Tag":
        await retag(view, said.model, row, again)
    elif verb == "Delete":
        await delete(view, said.model, row, again)


async def promote(view: View, said: told.Model, number: int, again: Again) -> None:
    """Point an alias at a version."""

    def consequence(alias: str) -> str:
        before = said.aliases.get(alias)
        if before == number:
            return f"{alias} names version {number} already."
        did = f"; version {before} did" if before else ""
        return f"Version {number} answers for {alias} from now on{did}. Servers follow within a second."

    with widgets.dialog(f"Promote version {number} of {said.model}") as asking:
        alias = ui.input("Alias", value=PRODUCTION, autocomplete=[*said.aliases, PRODUCTION]).classes("w-full")
        ui.label().bind_text_from(alias, "value", lambda value: consequence(value or ""))
        why = ui.input(WHY).classes("w-full")
        _buttons(asking, "Promote")
    if await widgets.answered(asking):
        name = alias.value.strip()
        before = said.aliases.get(name, 0)
        done = f"{said.model}@{name} is version {number} now"
        if await view.act(
            told.promote, done=done, model=said.model, version=number, alias=name, why=why.value, expect=before
        ):
            await again()


async def roll_back(view: View, model: str, alias: str, number: int, again: Again) -> None:
    """Point an alias back."""
    why = await widgets.confirm(
        f"Roll back {model}@{alias}?",
        f"The version that was {alias} before version {number} answers from now on; while a rollout or a route is in "
        "force, that ends instead, and what was there before it answers.",
        "Roll back",
    )
    if why is not None and await view.act(
        told.rollback, done=f"{model}@{alias} is rolled back", model=model, alias=alias, why=why
    ):
        await again()


async def delete(view: View, model: str, row: told.VersionRow, again: Again) -> None:
    """Forget a version."""
    named = f" The aliases {', '.join(row.aliases)} name it, which keeps it from being deleted." if row.aliases else ""
    why = await widgets.confirm(
        f"Delete version {row.number} of {model}?",
        f"It cannot be served, compared or restored afterwards, and its number is never given again.{named}",
        "Delete",
    )
    if why is not None and await view.act(
        told.delete, done=f"{model}:{row.number} is deleted", model=model, version=row.number, why=why
    ):
        await again()


async def retag(view: View, model: str, row: told.VersionRow, again: Again) -> None:
    """Change the tags of a version."""
    text = "\n".join(f"{key}={value}" for key, value in row.tags.items())
    with widgets.dialog(f"Tags of {model}, version {row.number}") as asking:
        lines = ui.textarea("One a line: name=value", value=text).classes("w-full").props("autogrow")
        _buttons(asking, "Keep")
    if await widgets.answered(asking):
        wanted = {
            key.strip(): value.strip()
            for key, _, value in (line.partition("=") for line in lines.value.splitlines() if line.strip())
        }
        tags = {**dict.fromkeys(row.tags), **wanted}
        changed = {key: value for key, value in tags.items() if row.tags.get(key) != value}
        if changed and await view.act(
            told.tag, done=f"the tags of version {row.number} are kept", model=model, version=row.number, tags=changed
        ):
            await again()


def _buttons(asking: ui.dialog, verb: str) -> None:
    with ui.row().classes("w-full justify-end"):
        ui.button("Cancel", on_click=lambda: asking.submit(False)).props("flat no-caps")
        ui.button(verb, on_click=lambda: asking.submit(True)).props("unelevated no-caps")
