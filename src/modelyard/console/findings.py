"""Findings: their time line on the monitoring page, and a page for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from modelyard.admin import monitoring as told
from modelyard.charts import number
from modelyard.console import plots, tables, widgets
from modelyard.console.features import DISTANCES
from modelyard.console.plots import AXIS
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.monitoring.report import Report
from modelyard.monitoring.words import chance
from modelyard.registry.findings import Finding

#: Findings that are drawn.
MOST = 60

_TONES = {"info": "#3b82f6", "warning": "#d97706", "error": "#ef4444", "critical": "#b91c1c"}

_COLUMNS = (
    Column("kind", "Kind", "cell"), Column("told", "What was found", "title"), Column("severity", "Severity", "mark"),
    Column("where", "Version", "cell"), Column("opened", "Since", "moment"), Column("closed", "Over", "moment"),
)  # fmt: skip


def time_line(said: Report) -> Callable[[Report], None] | None:
    """Episodes as bars from when they began to when they were over, and as a table."""
    with widgets.card("Findings", "Each bar is an episode, from when it began to when it was over"):
        if not said.findings:
            ui.label("Nothing was found in this time.").classes("y-soft")
            return None
        shown = said.findings[:MOST]
        rows = [_row(each) for each in said.findings]

        def opened(event: Any) -> None:
            ui.navigate.to(f"/findings/{event.args['seriesName'].rpartition(' ')[2]}")

        header = ("Finding", "Kind", "Subject", "Version", "Arm", "Severity", "Since", "Over", "What was found")
        made = plots.chart(
            _bars(shown, said.until), header, lambda: [_plain(each) for each in said.findings], "findings over time",
            height=70 + 26 * len({_lane(each) for each in shown}),
        )  # fmt: skip
        made.on("componentClick", opened, ["seriesName"])  # on_point_click knows of the ends of a bar only
        tables.table(_COLUMNS, rows, key="id", name="findings", page=10)

    def update(newer: Report) -> None:
        if [_row(each) for each in newer.findings] != [_row(each) for each in said.findings]:
            raise widgets.Rebuild
        plots.redraw(made, _bars(newer.findings[:MOST], newer.until))

    return update


_DISTANCES = (
    Column("name", "Distance"), Column("value", "Value", "number"),
    Column("critical", "By chance up to (1 in 20)", "number"), Column("p", "p", "number"),
)  # fmt: skip


@page("/findings/{number}", "Finding {number}")
async def finding(view: View, number: int) -> None:
    """Everything about one finding."""
    widgets.heading(f"Finding {number}")
    await view.live(told.finding, _show, number=number)


def rows_href(asked: dict[str, str]) -> str:
    """The page of the recorded rows that fit."""
    return "/predictions?" + urlencode({name: value for name, value in asked.items() if value})


def _show(said: told.Found) -> None:
    found, evidence = said.finding, said.finding.evidence
    with widgets.card():
        with ui.element("div").classes("y-row"):
            widgets.mark(found.severity)
            widgets.mark("over" if found.closed else "open", "y-good" if found.closed else "y-bad")
            ui.label(found.told + ".").style("font-weight: 600").classes("y-grow")
        widgets.pairs([
            ("Kind", f"{found.kind}: {said.means}"), ("Subject", found.subject),
            ("Model", lambda: ui.link(f"{found.model}:{found.version}", f"/models/{found.model}/monitoring?version="
                                      f"{found.version}").classes("y-link")),
            ("Arm", found.arm), ("Since", widgets.Moment(found.opened)),
            ("Over", widgets.Moment(found.closed or "")), ("Because", found.why),
            ("Rests on", said.rests_on), ("Seen last", said.lately), ("Looks", found.looks),
            ("False alarms", said.expected), ("Alerts", _alerts(said.alerts)),
        ])  # fmt: skip
        with ui.element("div").classes("y-row"):
            ui.link("Its recorded rows", rows_href(said.rows)).classes("y-link")
            ui.link(
                "On the monitoring page", f"/models/{found.model}/monitoring?" + urlencode({"feature": found.subject})
            ).classes("y-link")
    with widgets.card("Evidence"):
        widgets.pairs([
            ("Rows", f"{evidence.live:,} live against {evidence.reference:,} of the reference"),
            ("Effect", f"{evidence.value:.3g}, from {evidence.low:.3g} to {evidence.high:.3g}"),
            ("Matters above", f"{evidence.floor:.3g}"), ("p", _bare(chance(evidence.p))),
            ("From", widgets.Moment(evidence.since)), ("To", widgets.Moment(evidence.until)),
            ("Windows", f"{evidence.windows[0]} to {evidence.windows[1]}" if any(evidence.windows) else ""),
            *((name, _plain_of(value)) for name, value in evidence.more.items() if name not in ("distances", "texts")),
        ])  # fmt: skip
    distances = evidence.more.get("distances")
    if distances:
        with widgets.card("Distances", "Each with what chance exceeds once in twenty times at these sample sizes"):
            rows: list[dict[str, Any]] = [
                {"name": DISTANCES.get(name, name), "value": number(each["value"]),
                 "critical": number(each["critical"]), "p": _bare(chance(each.get("p")))}
                for name, each in distances.items()
            ]  # fmt: skip
            tables.table(_DISTANCES, rows, key="name", name=f"finding {found.id} distances")
    texts = evidence.more.get("texts")
    if texts:
        with widgets.card("Texts", "New ones, and how often they came"):
            rows = [{"text": text, "times": times} for text, times in texts.items()]
            columns = (Column("text", "Text"), Column("times", "Times", "number"))
            tables.table(columns, rows, key="text", name=f"finding {found.id} texts")


def _bare(told: str) -> str:
    """A p-value below its own heading."""
    return told.removeprefix("; p ").removeprefix("= ")


def _alerts(numbers: Sequence[int]) -> Any:
    def build() -> None:
        with ui.element("div").classes("y-row"):
            for number in numbers:
                ui.link(f"alert {number}", f"/alerts/{number}").classes("y-link")

    return build if numbers else ""


def _row(found: Finding) -> dict[str, Any]:
    return {
        "id": found.id, "kind": found.kind, "told": found.told, "told_href": f"/findings/{found.id}",
        "severity": found.severity, "where": f"{found.version} {found.arm}".strip(), "opened": found.opened,
        "closed": found.closed or "",
    }  # fmt: skip


def _plain(found: Finding) -> Sequence[Any]:
    return (found.id, found.kind, found.subject, found.version, found.arm, found.severity, found.opened,
            found.closed, found.told)  # fmt: skip


def _lane(found: Finding) -> str:
    return f"{found.subject}: {found.kind}"


def _bars(findings: Sequence[Finding], until: str) -> dict[str, Any]:
    lanes = list(dict.fromkeys(_lane(each) for each in findings))
    series = [
        {
            "name": f"{_lane(each)} {each.id}", "type": "line", "symbol": "roundRect", "symbolSize": 12,
            "triggerLineEvent": True,
            "lineStyle": {"width": 10, "color": _TONES[each.severity], "opacity": 0.55 if each.closed else 1},
            "itemStyle": {"color": _TONES[each.severity], "opacity": 0.55 if each.closed else 1},
            "data": [[each.opened, _lane(each)], [each.closed or until, _lane(each)]],
            "tooltip": {"valueFormatter": None},
        }
        for each in findings
    ]  # fmt: skip
    return {
        "legend": {"show": False}, "tooltip": {"trigger": "item", "confine": True, "formatter": "{a}"},
        "grid": {"left": 8, "right": 16, "top": 8, "bottom": 8, "containLabel": True},
        "xAxis": {"type": "time", **AXIS}, "yAxis": {"type": "category", "data": lanes[::-1], **AXIS}, "series": series,
    }  # fmt: skip


def _plain_of(value: Any) -> str:
    """Further figures, as a person would write them."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain_of(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain_of(each) for each in value)
    return number(value) if isinstance(value, float) else str(value)
