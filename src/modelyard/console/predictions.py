"""Recorded predictions: those that fit what was asked for, the newest first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from nicegui import ui

from modelyard.admin import predictions as told
from modelyard.charts import number
from modelyard.console import tables, widgets
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.console.widgets import escaped
from modelyard.errors import NotFound
from modelyard.recording.search import COUNTED, FAILED, Page, Row

#: Rows of a page, and seconds between two looks, as each reads files.
ROWS, EVERY = 50, 6.0

_COLUMNS = (
    Column("id", "Prediction", "link"), Column("time", "When", "moment"), Column("code", "Answer", "mark"),
    Column("outputs", "Outputs"), Column("flags", "Odd"), Column("model", "Model", "cell"),
    Column("version", "Version", "number"), Column("arm", "Arm", "cell"), Column("seconds", "Took", "number"),
    Column("kept", "Inputs kept", "cell"),
)  # fmt: skip

_ASKED = ("id", "model", "version", "arm", "since", "until", "code", "kept", "flag", "columns")

#: Moments as the browser's own zone writes them, and back.
_TO_LOCAL = """(() => { const two = n => String(n).padStart(2, "0"); return %s.map(said => { if (!said) return "";
const at = new Date(said); return isNaN(at) ? "" : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T`
+ `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`; }); })()"""
_TO_UTC = "%s.map(said => said ? new Date(said).toISOString() : '')"


@page("/predictions", "Predictions")
async def predictions(
    view: View, id: str = "", model: str = "", version: str = "", arm: str = "", since: str = "", until: str = "",
    code: str = "", kept: str = "", flag: str = "", columns: str = "", after: str = "",
) -> None:  # fmt: skip
    """Search what this machine recorded."""
    widgets.heading("Predictions")
    asked = {
        "id": id, "model": model, "version": version, "arm": arm, "since": since, "until": until, "code": code,
        "kept": kept, "flag": flag, "columns": columns,
    }  # fmt: skip
    await view.shown()
    try:
        known = await view.load(told.record_columns)
    except NotFound as error:
        widgets.empty(f"{error.message[:1].upper()}{error.message[1:]}.", "modelyard serve MODEL")
        return
    if model in known.models:
        known = await view.load(told.record_columns, model=model)
    ui.label(
        f"Only what this machine recorded, in {known.folder}. Other machines keep their own records."
    ).classes("y-soft y-small")  # fmt: skip
    await _form(known, asked)
    await view.live(
        told.predictions, _rows(asked, after), every=EVERY, most=ROWS, after=after, **asked,
    )  # fmt: skip


def address(asked: dict[str, str]) -> str:
    """The page of the predictions that fit."""
    return "/predictions?" + urlencode({name: value for name, value in asked.items() if value})


async def _form(known: told.Columns, asked: dict[str, str]) -> None:
    """Everything that can be asked for. What was asked stands in the address, so that it can be kept and sent on."""
    given = [piece.strip() for piece in asked["columns"].split(";") if piece.strip()]
    names = [name for name, kind in known.columns.items() if name[:3] in ("in.", "out") and "[" not in kind]
    fields: dict[str, Any] = {}
    pairs: list[tuple[Any, Any]] = []

    async def search() -> None:
        moments = [fields[name].value or "" for name in ("since", "until")]
        zoned = await ui.run_javascript(_TO_UTC % json.dumps(moments), timeout=5.0)
        wanted = {name: str(fields[name].value or "").strip() for name in _ASKED if name in fields}
        wanted |= dict(zip(("since", "until"), zoned, strict=True))
        there = [(name.value, value.value.strip()) for name, value in pairs if name.value and value.value]
        wanted["columns"] = "; ".join(f"{name}={value}" for name, value in there)
        ui.navigate.to(address(wanted))

    def text(name: str, label: str, more: str = "") -> None:
        fields[name] = ui.input(label, value=asked[name]).props(f"outlined dense {more}").on("keydown.enter", search)

    def select(name: str, label: str, options: dict[str, str]) -> None:
        there = asked[name] if asked[name] in options else ""
        fields[name] = ui.select(options, value=there, label=label).props("outlined dense options-dense")

    def condition(text: str = "") -> None:
        name = max((each for each in names if text.startswith(f"{each}=")), key=len, default="")
        with ui.element("div").classes("y-form"):
            column = ui.select(["", *names], value=name, label="Input or output").props("outlined dense options-dense")
            value = ui.input("Value, or from..to", value=text[len(name) + 1 :] if name else "")
            value.props("outlined dense").on("keydown.enter", search)
        pairs.append((column, value))

    with widgets.card(), ui.element("form").on("submit.prevent", search).classes("w-full"):
        with ui.element("div").classes("y-form"):
            text("id", "Id of a prediction or request")
            select("model", "Model", {"": "any", **{each: each for each in known.models}})
            text("version", "Version")
            text("since", "From", "type=datetime-local step=1 stack-label")
            text("until", "Before", "type=datetime-local step=1 stack-label")
            select("code", "Answer", {"": "any", "ok": "ok", FAILED: "failed, for any reason",
                                      **({asked["code"]: asked["code"]} if asked["code"] else {})})  # fmt: skip
        more = any(asked[name] for name in ("arm", "kept", "flag", "columns"))
        with ui.expansion("More filters", value=more).classes("w-full").props("dense"):
            with ui.element("div").classes("y-form"):
                text("arm", "Arm of a route")
                kept = {name: f"{name}: {why}" for name, why in told.KEPT.items()}
                select("kept", "Inputs kept", {"": "any", **kept})
                text("flag", "Flag: any, or age:above")
                # The framework points each of its inputs at a list of this name, which is there on phones only.
                with ui.element("datalist").props(f"id={fields['flag'].html_id}-datalist"):
                    for flag, words in {"any": "something was odd", **known.flags}.items():
                        ui.element("option").props(f'value="{escaped(flag)}" label="{escaped(words)}"')
            conditions = ui.element("div").classes("w-full")
            with conditions:
                for each in given or [""]:
                    condition(each)

            def another() -> None:
                with conditions:
                    condition()

            ui.button("Another column", icon="add", on_click=another).props('flat dense no-caps size="sm"')
        with ui.element("div").classes("y-row"):
            ui.button("Search", icon="search").props("unelevated no-caps type=submit")
            ui.link("Everything", "/predictions").classes("y-link")
    if asked["since"] or asked["until"]:
        moments = [asked["since"], asked["until"]]
        local = await ui.run_javascript(_TO_LOCAL % json.dumps(moments), timeout=5.0)
        for name, value in zip(("since", "until"), local, strict=True):
            fields[name].value = value
    else:
        for name in ("since", "until"):
            fields[name].value = ""


def _rows(asked: dict[str, str], after: str) -> Callable[[Page], Callable[[Page], None] | None]:
    def build(said: Page) -> Callable[[Page], None] | None:
        if not said.rows:
            widgets.empty("No recorded prediction fits." if any(asked.values()) else "No prediction is recorded yet.")
            return None
        with widgets.card("Predictions"):
            about = ui.label(_fitting(said)).classes("y-soft y-small")
            made = tables.table(_COLUMNS, [_row(each) for each in said.rows], key="key", name="predictions", page=ROWS)
            with ui.element("div").classes("y-row"):
                if after:
                    ui.link("The newest", address(asked)).classes("y-link")
                if said.next:
                    ui.link("Older ones", address({**asked, "after": said.next})).classes("y-link")

        def update(newer: Page) -> None:
            if bool(newer.next) != bool(said.next) or not newer.rows:
                raise widgets.Rebuild
            about.text = _fitting(newer)
            tables.refresh(made, _COLUMNS, [_row(each) for each in newer.rows])

        return update

    return build


def _fitting(said: Page) -> str:
    many = "1 fits" if said.fitting == 1 else f"{said.fitting:,} fit"
    return f"The newest first; {f'{COUNTED:,} or more fit' if said.fitting >= COUNTED else many}"


def _row(said: Row) -> dict[str, Any]:
    return {
        "key": f"{said.id} {said.time}", "id": said.id, "id_href": f"/predictions/{quote(said.id, safe='')}",
        "time": said.time, "model": said.model, "version": said.version, "arm": said.arm, "code": said.code,
        "code_tone": "y-good" if said.code == "ok" else "y-bad",
        "outputs": shown(said.outputs) if said.code == "ok" else said.reason,
        "seconds": widgets.seconds(said.seconds), "flags": ", ".join(said.flags), "kept": said.kept,
    }  # fmt: skip


def shown(values: dict[str, Any]) -> str:
    """Outputs in a line: of the probabilities the highest, which is that of the prediction."""
    told = []
    for name, value in values.items():
        if name == "probabilities" and isinstance(value, list) and value:
            told.append(f"at {plain(max(value))}")
        else:
            told.append(plain(value) if name == "prediction" else f"{name} {plain(value)}")
    return ", ".join(told)


def plain(value: Any) -> str:
    """A recorded value, as short as a person would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "–"}[value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(plain(each) for each in value[:20]) + (", …]" if len(value) > 20 else "]")
    return str(value)
