"""Latency by stage over time, and how fast error budgets are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from modelyard.console import plots, tables, widgets
from modelyard.console.plots import AXIS
from modelyard.console.tables import Column
from modelyard.monitoring.budget import BURNS
from modelyard.monitoring.report import Arm

_STAGES = (Column("stage", "Stage"), Column("p50", "p50, ms", "number"), Column("p95", "p95, ms", "number"),
           Column("p99", "p99, ms", "number"))  # fmt: skip
_BUDGETS = (
    Column("name", "Objective", "cell"), Column("must", "Must hold", "number"), Column("window", "Window", "cell"),
    Column("burn", "Times as fast as allowed", "number"), Column("told", "Told above", "number"),
    Column("state", "State", "mark"),
)  # fmt: skip


def latency(said: tuple[list[str], Arm]) -> Callable[[tuple[list[str], Arm]], None] | None:
    """Quantiles of each stage, and over time, with the moments at which something changed."""
    times, arm = said
    with widgets.card("Latency", "Of answered requests; a dashed line is where a change was told"):
        if not arm.latency:
            ui.label("No request was timed in this time.").classes("y-soft")
            return None
        now = said
        stages = tables.table(_STAGES, _stages(arm), key="stage", name="latency by stage")
        with ui.element("div").classes("y-wide"):
            with ui.element("div"):
                whole = plots.chart(
                    _lines(times, arm.latency_line, arm.changes), ("Since", *arm.latency_line),
                    lambda: _plain(now[0], now[1].latency_line), "latency over time", title="Whole time",
                )  # fmt: skip
            with ui.element("div"):
                parts = plots.chart(
                    _lines(times, arm.stage_lines, arm.changes), ("Since", *arm.stage_lines),
                    lambda: _plain(now[0], now[1].stage_lines), "stages over time",
                    title="95th percentile of each stage",
                )  # fmt: skip
        if arm.changes:
            with ui.element("div").classes("y-row y-small"):
                ui.label("Changed at").classes("y-soft")
                for moment in arm.changes[-5:]:
                    widgets.moment(moment)

    def update(newer: tuple[list[str], Arm]) -> None:
        nonlocal now
        if newer[1].changes != arm.changes or set(newer[1].latency) != set(arm.latency):
            raise widgets.Rebuild
        now = newer
        tables.refresh(stages, _STAGES, _stages(newer[1]))
        for chart, lines in ((whole, newer[1].latency_line), (parts, newer[1].stage_lines)):
            plots.redraw(chart, _lines(newer[0], lines, arm.changes))

    return update


def budgets(said: dict[str, dict[str, Any]]) -> None:
    """How fast each budget is used, over the windows that alerts go by."""
    with widgets.card("Error budgets", "An alert is made where both windows of a pair are above their rate"):
        rows = [row for name, found in said.items() for row in _burns(name, found)]
        if not rows:
            ui.label("No requests were counted yet.").classes("y-soft")
            return
        tables.table(_BUDGETS, rows, key="key", name="error budgets")


def _burns(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for minutes, burn in found["burn"].items():
        rate = min(each.rate for each in BURNS if int(minutes) in (each.long, each.short))
        rows.append({
            "key": f"{name} {minutes}", "name": name, "must": f"{found['objective']:.3%} of {found['days']} days",
            "window": window(int(minutes)), "burn": float(f"{burn:.3g}"), "told": rate,
            "state": "above" if burn > rate else "ok", "state_tone": "y-bad" if burn > rate else "y-good",
        })  # fmt: skip
    return rows


def window(minutes: int) -> str:
    """A stretch of time as a person would write it."""
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours" if minutes < 2_880 else "3 days"


def _stages(arm: Arm) -> list[dict[str, Any]]:
    return [
        {"stage": stage, **{name: float(f"{1e3 * value:.3g}") for name, value in found.items()}}
        for stage, found in arm.latency.items()
    ]


def _lines(times: Sequence[str], lines: dict[str, list[float | None]], changes: Sequence[str]) -> dict[str, Any]:
    marks = {**plots.limit(""), "data": [{"xAxis": moment} for moment in changes if moment >= times[0]]}
    return {
        "xAxis": {"type": "time", **AXIS}, "yAxis": {"type": "value", "name": "ms", **AXIS},
        "series": [
            {"name": name, "type": "line", "symbolSize": 4, "markLine": marks if not place else {},
             "data": [[t, None if v is None else float(f"{1e3 * v:.4g}")] for t, v in zip(times, line, strict=True)]}
            for place, (name, line) in enumerate(lines.items())
        ],
    }  # fmt: skip


def _plain(times: Sequence[str], lines: dict[str, list[float | None]]) -> list[Sequence[Any]]:
    return list(zip(times, *lines.values(), strict=True))
