"""The overview: every model at a glance."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from modelyard.admin import overview as told
from modelyard.console import tables, widgets
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.console.widgets import seconds as written
from modelyard.console.widgets import share

_COLUMNS = (
    Column("model", "Model", "link"), Column("version", "Production", "number"), Column("route", "Route"),
    Column("rollout", "Rollout", "mark"), Column("requests", "Requests", "number"),
    Column("failed", "Failed", "number"),
    Column("p50", "p50", "number"), Column("p99", "p99", "number"), Column("drift", "Largest drift", "link"),
    Column("quality", "Quality by labels"), Column("alerts", "Alerts", "mark"),
    Column("last", "Last request", "moment"),
)  # fmt: skip


@page("/", "Overview")
async def overview(view: View) -> None:
    """Every model with its traffic, latency, drift, accuracy and alerts of the last 24 hours."""
    widgets.heading("Overview")
    await view.live(told.overview, _show, hours=24.0)


def _show(said: told.Overview) -> None:
    if not said.endpoints:
        widgets.empty("No model is registered yet.", "modelyard train data.csv --target COLUMN --name NAME")
        return
    requests = sum(each.traffic.requests for each in said.endpoints)
    failed = sum(each.traffic.failed for each in said.endpoints)
    lost = sum(each.traffic.lost for each in said.endpoints)
    with ui.element("div").classes("y-grid"):
        widgets.tile("Models", str(len(said.endpoints)))
        widgets.tile("Requests, 24 h", f"{requests:,}", f"{lost:,} rows not recorded" if lost else "")
        widgets.tile("Failed", share(failed, requests), f"{failed:,} requests", "y-bad" if failed else "")
        widgets.tile("Alerts", str(said.alerts), "open now", "y-bad" if said.alerts else "y-good")
        alive = bool(said.loop.get("alive"))
        widgets.tile("Watched", "yes" if alive else "no", _watcher(said.loop), "y-good" if alive else "y-warn")
    with widgets.card("Models", "What callers got in the last 24 hours"):
        tables.table(_COLUMNS, [_row(each) for each in said.endpoints], key="model", name="models")


def _row(each: told.Endpoint) -> dict[str, Any]:
    traffic, drift = each.traffic, each.drift
    effect = "–" if drift.effect is None else f"{drift.feature or 'none'} {drift.effect:.3f}"
    return {
        "model": each.model, "model_href": f"/models/{each.model}", "version": each.version, "route": each.route,
        "rollout": each.rollout, "requests": traffic.requests,
        "failed": share(traffic.failed, traffic.requests), "p50": written(traffic.p50), "p99": written(traffic.p99),
        "drift": effect + (f", {drift.open} open" if drift.open else ""),
        "drift_href": f"/models/{each.model}/monitoring", "quality": _quality(each),
        "alerts": ", ".join(f"{count} {word}" for word, count in each.alerts.items()),
        "alerts_tone": widgets.TONES.get(each.worst, ""), "last": traffic.last,
    }  # fmt: skip


def _quality(each: told.Endpoint) -> str:
    for metric in ("accuracy", "roc_auc", "mae", "rmse"):
        value, low, high = each.quality.get(metric, (None, None, None))
        if value is not None:
            bounds = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
            return f"{widgets.metric(metric)} {value:.3f}{bounds}"
    return "–"


def _watcher(loop: dict[str, Any]) -> str:
    if loop.get("alive"):
        return str(loop.get("holder", ""))
    return "start `modelyard watch`, or serve with recording"
