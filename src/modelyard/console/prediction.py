"""One recorded prediction: what was asked and answered, how long each stage took, and what turned out to be true."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from nicegui import ui

from modelyard.admin import predictions as told
from modelyard.console import plots, tables, widgets
from modelyard.console.plots import AXIS, BELOW, GRID_ABOVE
from modelyard.console.predictions import address, plain
from modelyard.console.tables import Column
from modelyard.console.view import View, page

_INPUTS = (Column("name", "Input"), Column("value", "Value"), Column("how", "How it was kept"))
_OUTPUTS = (Column("name", "Output"), Column("value", "Value"))
_CLASSES = (Column("class", "Class"), Column("probability", "Probability", "number"), Column("drawn", "Drawn", "drawn"))

_BAR = tables.cell('<div class="y-bar"><div class="y-step" :style="{width: props.value + \'%\'}"></div></div>')


@page("/predictions/{id}", "Prediction {id}")
async def prediction(view: View, id: str) -> None:
    """Everything about one prediction."""
    widgets.heading(f"Prediction {id}")
    ui.link("Predictions", "/predictions").classes("y-link")
    await view.live(told.prediction, _show, every=30.0, id=id)


def _show(said: list[told.Prediction]) -> None:
    if len(said) > 1:
        told_of = f"{len(said)} rows go by this id: those of its request, and of every arm that answered it."
        ui.label(told_of).classes("y-soft")
    for each in said:
        _one(each, is_alone=len(said) == 1)


def _one(said: told.Prediction, *, is_alone: bool) -> None:
    with widgets.card("" if is_alone else said.id + (f", {said.arm}" if said.arm else "")):
        with ui.element("div").classes("y-row"):
            widgets.mark(said.code, "y-good" if said.code == "ok" else "y-bad")
            for odd in said.odd:
                widgets.mark(odd, "y-warn")
        widgets.pairs([
            ("When", widgets.Moment(said.time)),
            ("Model", lambda: ui.link(f"{said.model}:{said.version}", f"/models/{said.model}").classes("y-link")),
            ("Route", f"{said.alias}, revision {said.revision}" if said.alias else ""), ("Arm", said.arm),
            ("Client", said.client), ("Why not", said.reason),
            ("Request", said.request if said.request != said.id else ""), ("Rows of the request", said.rows),
            ("Rows of the call", said.batch), ("Worker", f"process {said.worker}" if said.worker else ""),
            ("Inputs", f"kept: {said.because}" if said.kept else "not kept"),
            ("Answered together with", f"{len(said.joined_with)} other requests" if said.joined_with else ""),
        ])  # fmt: skip
        with ui.element("div").classes("y-row"):
            if said.inputs:
                ui.link("Try it with these inputs", f"/models/{said.model}/try?like={quote(said.id)}").classes("y-link")
            ui.link("Others of this version", address({"model": said.model, "version": said.version})).classes("y-link")
    with ui.element("div").classes("y-wide"):
        _inputs(said)
        _outputs(said)
    _stages(said)


def _inputs(said: told.Prediction) -> None:
    with widgets.card("Inputs"):
        if said.body:
            ui.label("What was sent, up to 16 KB:").classes("y-soft y-small")
            with ui.element("pre"):
                ui.label(said.body)
            return
        if not said.inputs:
            ui.label(
                "The inputs of this request were not kept. They are of requests that failed, were slow or odd, and of "
                "a sample (the setting record_sample)."
            ).classes("y-soft")
            return
        rows = [
            {"name": name, "value": "" if said.removed.get(name) == told.REMOVED["drop"] else plain(value),
             "how": said.removed.get(name, "as it was" if value is not None else "it was missing")}
            for name, value in said.inputs.items()
        ]  # fmt: skip
        tables.table(_INPUTS, rows, key="name", name=f"inputs of {said.id}", page=50)


def _outputs(said: told.Prediction) -> None:
    with widgets.card("Outputs"):
        if said.code != "ok":
            ui.label("There is no answer: the request failed.").classes("y-soft")
            return
        probabilities = said.outputs.get("probabilities")
        values = {name: value for name, value in said.outputs.items() if name != "probabilities" or not said.classes}
        rows = [{"name": name, "value": plain(value)} for name, value in values.items()]
        tables.table(_OUTPUTS, rows, key="name", name=f"outputs of {said.id}", page=50)
        if said.classes and probabilities:
            both = sorted(zip(said.classes, probabilities, strict=False), key=lambda each: -each[1])
            bars = [{"class": name, "probability": round(p, 6), "drawn": round(100 * p, 2)} for name, p in both]
            made = tables.table(_CLASSES, bars, key="class", name=f"probabilities of {said.id}")
            made.add_slot("body-cell-drawn", _BAR)
        if said.labels:
            label = said.labels[0]
            answer = said.outputs.get("prediction")
            is_right = plain(answer) == label.label if isinstance(answer, (str, bool)) else None
            with ui.element("div").classes("y-row"):
                ui.label(f"Its label says: {label.label}").style("font-weight: 600")
                if is_right is not None:
                    widgets.mark("right" if is_right else "wrong", "y-good" if is_right else "y-bad")
                widgets.moment(label.moment)
            for former in said.labels[1:]:
                with ui.element("div").classes("y-row y-soft y-small"):
                    ui.label(f"Before, it said {former.label}")
                    widgets.moment(former.moment)
        else:
            ui.label("No label has come of it.").classes("y-soft y-small")


def _stages(said: told.Prediction) -> None:
    """Stages one after the other; what no stage took is the rest."""
    parts = {name: seconds for name, seconds in said.stages.items() if name != "total"}
    total = said.stages.get("total", sum(parts.values()))
    if not total:
        return
    rest = total - sum(parts.values())
    if rest > 0 and parts:
        parts["the rest"] = rest
    parts = parts or {"total": total}
    begun, rows = 0.0, []
    for name, seconds in parts.items():
        rows.append((name, begun, seconds))
        begun += seconds
    with widgets.card("Time", f"{widgets.seconds(total)} from the first byte to the answer"):
        plots.chart(
            _waterfall(rows), ("Stage", "Begins, s", "Takes, s"), lambda: list(rows), f"stages of {said.id}",
            height=76 + 30 * len(rows),
        )  # fmt: skip


def _waterfall(rows: list[tuple[str, float, float]]) -> dict[str, Any]:
    bar = {"type": "bar", "stack": "time", "barWidth": 14}
    return {
        "legend": {"show": False}, "tooltip": {"trigger": "item", "confine": True},
        "grid": {**GRID_ABOVE, "right": 72, "top": 8}, "xAxis": {"type": "value", "name": "ms", **BELOW},
        "yAxis": {"type": "category", "inverse": True, "data": [name for name, _, _ in rows], **AXIS},
        "series": [
            {**bar, "name": "begins", "data": [_ms(begun) for _, begun, _ in rows], "silent": True,
             "itemStyle": {"color": "transparent"}},
            {**bar, "name": "takes, ms", "data": [_ms(seconds) for _, _, seconds in rows],
             "itemStyle": {"color": "#3b82f6"},
             "label": {"show": True, "position": "right", "color": plots.SOFT, "formatter": "{c} ms"}},
        ],
    }  # fmt: skip


def _ms(seconds: float) -> float:
    return float(f"{1e3 * seconds:.4g}")
