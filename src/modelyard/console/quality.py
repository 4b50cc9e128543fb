"""How good predictions turned out to be, beside training; and what is only expected, which is no accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from modelyard.charts import number, score
from modelyard.console import plots, tables, widgets
from modelyard.console.plots import AXIS, BELOW, COLOURS, GRID_ABOVE
from modelyard.console.tables import Column
from modelyard.monitoring.accuracy import Line, Quality, Report
from modelyard.monitoring.maturity import Curve
from modelyard.monitoring.scorecard import Calibration, Metric

_METRICS = (
    Column("metric", "Metric", "cell"), Column("value", "By labels", "number"),
    Column("bounds", "95% interval", "cell"), Column("trained", "At training", "number"),
    Column("trained_bounds", "Its 95% interval", "cell"), Column("verdict", "Beside training", "mark"),
)  # fmt: skip
_LINES = (
    Column("name", "Part"), Column("labelled", "Labels", "number"), Column("metric", "Metric", "cell"),
    Column("value", "Value", "number"), Column("bounds", "95% interval", "cell"),
)  # fmt: skip


def quality(said: Report | None) -> None:
    """Everything that labels say; nothing where none came."""
    if said is None:
        with widgets.card("Quality", "What labels, which arrive later, say of predictions"):
            ui.label("No labels have come yet.").classes("y-soft")
            widgets.command("modelyard labels send MODEL labels.csv")
        return
    totals = said.labels
    about = (
        f"Labels: {totals.received:,}, of {totals.predictions:,} predictions, {totals.matched:,} of them joined; "
        f"{totals.corrected:,} corrected, {totals.unknown:,} for ids that nobody knows"
    )
    with widgets.card("Quality", about):
        for note in said.notes:
            ui.label(note).classes("y-note")
        if said.unripe.rows:
            ripe = f"older than {said.ripe_after / 3600:,.3g} hours" if said.ripe_after is not None else "complete"
            hours = "1 hour" if said.unripe.hours == 1 else f"{said.unripe.hours:,} hours"
            ui.label(
                f"{said.unripe.rows:,} predictions of {hours} are left out until they are {ripe}: "
                f"{said.unripe.labelled:,} of them have a label so far."
            ).classes("y-soft y-small")
        for version in said.versions:
            _version(version)
        if len(said.delays.seconds) > 1:
            _delays(said.delays)


def _version(said: Quality) -> None:
    widgets.heading(f"Version {said.version}", 2)
    if said.whole is None:
        ui.label("None of its predictions that are old enough has a label yet.").classes("y-soft")
    else:
        with ui.element("div").classes("y-row y-soft y-small").style("gap: 4px"):
            ui.label(f"{said.whole.labelled:,} labelled of {said.whole.rows:,} predictions, made from")
            widgets.moment(f"{said.whole.since}:00:00Z")
            ui.label("to")
            widgets.moment(f"{said.whole.until}:59:59Z")
            ui.label(f"; training held out {said.trained_rows:,} rows")
        tables.table(_METRICS, _metrics(said, said.whole), key="metric", name=f"version {said.version} metrics")
    _expected(said)
    with ui.element("div").classes("y-wide"):
        if len(said.days) > 1:
            with ui.element("div"):
                _days(said)
        if said.calibration:
            with ui.element("div"):
                _calibration(said.version, said.calibration)
    if said.per_class:
        rows = [
            {"class": name, **{metric: _value(found) for metric, found in each.items()},
             **{f"{metric}_bounds": _bounds(found) for metric, found in each.items()}}
            for name, each in said.per_class.items()
        ]  # fmt: skip
        columns = [Column("class", "Class")]
        for metric in ("precision", "recall", "f1"):
            columns += [
                Column(metric, widgets.metric(metric), "number"),
                Column(f"{metric}_bounds", "95% interval", "cell"),
            ]
        tables.table(columns, rows, key="class", name=f"version {said.version} classes")
    parts = [(f"arm {line.arm}", line) for line in said.arms] + [(line.segment, line) for line in said.segments]
    if parts:
        ui.label("Arms and segments").classes("y-soft y-small")
        rows = [_part(name, line) for name, line in parts]
        tables.table(_LINES, rows, key="name", name=f"version {said.version} segments")


def _expected(said: Quality) -> None:
    found = said.expected
    if found is not None and found.rows and found.accuracy is not None:
        with ui.element("div").classes("y-note"):
            ui.label(f"{found.title[:1].upper()}{found.title[1:]}").style("font-weight: 600")
            more = ", ".join(
                f"{widgets.metric(name)} {score(value)}"
                for name in ("precision", "recall", "f1", "roc_auc")
                if (value := getattr(found, name)) is not None
            )
            ui.label(
                f"Of {found.rows:,} predictions whose labels are still to come: {score(found.accuracy)} right"
                + (f"; {more}" if more else "")
                + ". This is what the scores themselves promise, and no accuracy: where the relationship between "
                "inputs and truth changes, scores do not know."
            ).classes("y-small")
    contrary = said.contradiction
    if contrary is not None:
        clear = contrary.low > 0 or contrary.high < 0
        verdict = "Labels contradict" if clear else "Labels do not contradict"
        ui.label(
            f"{verdict} what was expected: {score(contrary.accuracy)} of {contrary.rows:,} were right, "
            f"{score(contrary.expected)} were expected; the difference is {score(contrary.difference)} "
            f"({score(contrary.low)} to {score(contrary.high)})."
        ).classes("y-bad" if clear else "y-soft y-small")


def _metrics(said: Quality, whole: Line) -> list[dict[str, Any]]:
    rows = []
    for name, metric in whole.metrics.items():
        trained = said.trained.get(name, {})
        before = Metric(value=trained.get("value"), low=trained.get("low"), high=trained.get("high"))
        verdict = whole.verdicts.get(name, "")
        rows.append({
            "metric": widgets.metric(name), "value": _value(metric), "bounds": _bounds(metric),
            "trained": _value(before), "trained_bounds": _bounds(before),
            "verdict": verdict or ("alike" if before.low is not None else ""),
            "verdict_tone": {"worse": "y-bad", "better": "y-good"}.get(verdict, ""),
        })  # fmt: skip
    return rows


def _part(name: str, line: Line) -> dict[str, Any]:
    metric = next((each for each in ("accuracy", "mae") if each in line.metrics), next(iter(line.metrics)))
    found = line.metrics[metric]
    return {
        "name": name,
        "labelled": line.labelled,
        "metric": widgets.metric(metric),
        "value": _value(found),
        "bounds": _bounds(found),
    }


def _days(said: Quality) -> None:
    name = "MAE" if said.task == "regression" else "accuracy"
    lows = [[day.day, day.metric.low] for day in said.days]
    spans = [
        [day.day, None if day.metric.high is None or day.metric.low is None else day.metric.high - day.metric.low]
        for day in said.days
    ]
    bare = {"type": "line", "stack": "bounds", "symbol": "none", "lineStyle": {"opacity": 0}}
    options = {
        "xAxis": {"type": "category", **AXIS}, "yAxis": {"type": "value", "scale": True, **AXIS},
        "legend": {"show": False},
        "series": [
            {**bare, "name": "low", "data": lows},
            {**bare, "name": "to high", "data": spans, "areaStyle": {"color": COLOURS[0], "opacity": 0.2}},
            {"name": name, "type": "line", "data": [[day.day, day.metric.value] for day in said.days],
             "lineStyle": {"color": COLOURS[0]}, "itemStyle": {"color": COLOURS[0]}},
        ],
    }  # fmt: skip
    plots.chart(
        options, ("Day", "Rows", "Labels", name, "Low", "High"),
        lambda: [(d.day, d.rows, d.labelled, d.metric.value, d.metric.low, d.metric.high) for d in said.days],
        f"version {said.version} days", title=f"By day (UTC): {name}",
    )  # fmt: skip


def _calibration(version: str, cells: Sequence[Calibration]) -> None:
    options = {
        "grid": GRID_ABOVE,
        "xAxis": {"type": "value", "min": 0, "max": 1, "name": "said", **BELOW},
        "yAxis": {"type": "value", "min": 0, "max": 1, "name": "came true", **AXIS},
        "series": [
            {"name": "perfect", "type": "line", "symbol": "none", "data": [[0, 0], [1, 1]],
             "lineStyle": {"type": "dashed", "color": plots.SOFT}, "itemStyle": {"color": plots.SOFT}},
            {"name": "came true", "type": "line", "data": [[_short(c.said), _short(c.true)] for c in cells],
             "lineStyle": {"color": COLOURS[0]}, "itemStyle": {"color": COLOURS[0]}},
            *(
                {"name": "bounds", "type": "line", "symbol": "none", "data": [[c.said, c.low], [c.said, c.high]],
                 "lineStyle": {"color": COLOURS[0], "opacity": 0.4}, "itemStyle": {"color": COLOURS[0]}}
                for c in cells
            ),
        ],
        "legend": {"show": False},
    }  # fmt: skip
    plots.chart(
        options, ("Said", "Came true", "Low", "High", "Rows"),
        lambda: [(c.said, c.true, c.low, c.high, c.rows) for c in cells], f"version {version} calibration",
        title="Calibration: of what was said to be so probable, how much came true",
    )  # fmt: skip


def _delays(curve: Curve) -> None:
    points = list(zip((s / 3600 for s in curve.seconds), curve.shares, strict=True))
    options = {
        "xAxis": {"type": "log", "name": "hours after the prediction", **BELOW},
        "yAxis": {"type": "value", "max": 1, "name": "share of labels", **AXIS}, "grid": GRID_ABOVE,
        "series": [
            {"name": "have come", "type": "line", "step": "end", "data": [[_short(x), _short(y)] for x, y in points]}
        ],
        "legend": {"show": False},
    }  # fmt: skip
    plots.chart(options, ("Hours", "Share of labels"), lambda: list(points), "label delays",
                title=f"How late labels come, by {curve.labels:,} of them", height=220)  # fmt: skip


def _value(metric: Metric) -> str:
    return "–" if metric.value is None else score(metric.value)


def _bounds(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"{score(metric.low)} – {score(metric.high)}"


def _short(value: float) -> float:
    return float(number(value).replace(",", "")) if value == value else value
