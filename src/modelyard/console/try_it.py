"""Try it: a form made of what a version takes, and what it answers, beside another version's answer."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from modelyard.admin import models as told
from modelyard.admin.trying import Form, Tried, form, try_out
from modelyard.console import plots, requests, tables, widgets
from modelyard.console.fields import Inputs
from modelyard.console.plots import AXIS
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.errors import InvalidInput, ModelyardError, NotFound, Refused
from modelyard.registry.records import PRODUCTION

_NOBODY = "no other"


@page("/models/{model}/try", "{model}, try it")
async def try_it(view: View, model: str, version: int = 0) -> None:
    """One row, asked of one version or of two. ``version``: 0 for production's, else the newest."""
    widgets.sections(model, "/try")
    said = await view.load(told.model, model=model)
    numbers = [each.number for each in said.versions]
    if version and version not in numbers:
        raise NotFound.among(f"version of {model}", str(version), map(str, numbers))
    names = {each.number: " ".join([str(each.number), *each.aliases]) for each in said.versions}
    with widgets.card("Try it", "The answer is computed in the console: no server is asked, nothing is recorded"):
        with ui.element("div").classes("y-row"):
            one = ui.select(names, value=version or said.aliases.get(PRODUCTION, numbers[0]), label="Version")
            one.props("dense outlined").style("min-width: 170px")
            other = ui.select({0: _NOBODY, **names}, value=0, label="Compared with").style("min-width: 170px")
            other.props("dense outlined")
        room = ui.element("div").style("display: contents")
    answers = ui.element("div").style("display: contents")
    copies = ui.element("div").style("display: contents")

    async def show() -> None:
        room.clear()
        answers.clear()
        copies.clear()
        with room:
            widgets.loading()
        try:
            made = await view.load(form, model=model, version=one.value)
        except ModelyardError as error:
            room.clear()
            with room:
                widgets.failure(error, again=False)
            return
        room.clear()
        with room:
            _Trial(view, made, other, answers, copies).build()

    one.on_value_change(show)
    await show()


class _Trial:
    """The form of one version, and what became of it."""

    def __init__(
        self, view: View, made: Form, other: ui.select, answers: ui.element, copies: ui.element
    ) -> None:  # fmt: skip
        self._view, self._form, self._other = view, made, other
        self._answers, self._copies = answers, copies
        self._inputs = Inputs(made.inputs, made.example)

    def build(self) -> None:
        self._inputs.build()
        with ui.element("div").classes("y-row"):
            self._button = ui.button("Predict", icon="play_arrow", on_click=self.ask).props("unelevated no-caps")
            ui.button("Example", on_click=self._inputs.fill).props("flat no-caps")
            ui.button("Empty", on_click=self._inputs.empty).props("flat no-caps")
        self._inputs.on_enter(self.ask)
        self._show_request()

    async def ask(self) -> None:
        """Ask one version or two, and show what they answer."""
        self._inputs.clear_faults()
        row = self._inputs.row()
        versions = [self._form.version]
        if self._other.value and self._other.value != self._form.version:
            versions.append(self._other.value)
        self._button.props("loading")
        try:
            found = await asyncio.gather(*(self._try(version, row) for version in versions))
        finally:
            self._button.props(remove="loading")
        self._show_request()
        first = found[0]
        if isinstance(first, InvalidInput) and self._inputs.show_faults(first):
            self._answers.clear()
            return
        self._answers.clear()
        with self._answers:
            _show(self._form, versions, list(found))

    async def _try(self, version: int, row: dict[str, Any]) -> Tried | ModelyardError:
        try:
            if not self._view.visitor.may_act:
                raise Refused("this key allows to look only", hint="log in with a key whose scope is admin")
            return await self._view.load(try_out, model=self._form.model, version=version, row=row)
        except ModelyardError as error:
            return error

    def _show_request(self) -> None:
        self._copies.clear()
        with self._copies, widgets.card("The same request elsewhere", "of a server at the usual address"):
            texts = requests.texts(self._form.model, self._form.version, self._inputs.row())
            with ui.tabs().props("no-caps dense align=left inline-label") as tabs:
                for name in texts:
                    ui.tab(name)
            with ui.tab_panels(tabs, value=next(iter(texts))).classes("w-full").style("background: transparent"):
                for name, text in texts.items():
                    with ui.tab_panel(name).style("padding: 8px 0"):
                        widgets.copied(text, f"Copy the {name} form")


def _show(made: Form, versions: list[int], found: list[Tried | ModelyardError]) -> None:
    """The answers side by side, and the probabilities as bars."""
    answers = {version: each for version, each in zip(versions, found, strict=True) if isinstance(each, Tried)}
    main = made.outputs[0].name
    with ui.element("div").classes("y-grid"):
        for version, each in zip(versions, found, strict=True):
            if isinstance(each, Tried):
                widgets.tile(
                    f"Version {version}: {main}", _plain(each.outputs.get(main)),
                    f"{widgets.seconds(each.seconds)} in the model",
                )  # fmt: skip
    for version, each in zip(versions, found, strict=True):
        if isinstance(each, ModelyardError):
            with widgets.card(f"Version {version} did not answer"):
                widgets.failure(each, again=False)
    if len(answers) == 2:
        a, b = answers.values()
        same = a.outputs.get(main) == b.outputs.get(main)
        with ui.element("div").classes("y-row"):
            widgets.mark("the same answer" if same else "another answer", "y-good" if same else "y-warn")
    for name in dict.fromkeys(name for each in answers.values() for name in each.labels):
        with widgets.card(name.capitalize()):
            _bars(made.model, name, {n: each for n, each in answers.items() if name in each.labels})
    names = list(dict.fromkeys(name for each in answers.values() for name in each.outputs))
    rows = [
        {"output": name, **{f"v{n}": _plain(each.outputs.get(name)) for n, each in answers.items()}} for name in names
    ]
    if rows:
        with widgets.card("All outputs"):
            columns = [Column("output", "Output"), *(Column(f"v{n}", f"Version {n}") for n in answers)]
            tables.table(columns, rows, key="output", name=f"{made.model} outputs")


def _bars(model: str, name: str, answers: dict[int, Tried]) -> None:
    labels = list(dict.fromkeys(label for each in answers.values() for label in each.labels[name]))
    shares = {n: dict(zip(each.labels[name], each.outputs[name], strict=False)) for n, each in answers.items()}
    options = {
        "tooltip": {"trigger": "axis", "confine": True, "axisPointer": {"type": "shadow"}},
        "grid": {"left": 8, "right": 60, "top": 34, "bottom": 8, "containLabel": True},
        "xAxis": {"type": "value", "min": 0, "max": 1, **AXIS},
        "yAxis": {"type": "category", "data": labels, "inverse": True, **AXIS},
        "series": [
            {"name": f"version {n}", "type": "bar", "barMaxWidth": 22, "data": [each.get(label) for label in labels],
             "label": {"show": True, "position": "right", "color": plots.SOFT,
                       ":formatter": "p => p.value === null ? '' : p.value.toFixed(4)"}}
            for n, each in shares.items()
        ],
    }  # fmt: skip
    header = (name, *(f"version {n}" for n in shares))
    height = 60 + len(labels) * (16 + 24 * len(shares))

    def rows() -> list[Any]:
        return [(label, *(each.get(label) for each in shares.values())) for label in labels]

    plots.chart(options, header, rows, f"{model} {name}", height=min(height, 1200))


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_plain(each) for each in value[:20]) + (", …" if len(value) > 20 else "")
    return "null" if value is None else str(value)
