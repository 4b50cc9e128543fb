"""The monitoring page of a model: drift, data quality, latency, budgets, quality, and by which rules it is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
from nicegui import ui

from modelyard.admin import monitoring as told
from modelyard.console import features, findings, rules, tables, timing, widgets
from modelyard.console.pieces import together
from modelyard.console.quality import quality
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.errors import InvalidInput, ModelyardError
from modelyard.monitoring.report import Arm, Report

#: Spans that can be chosen, in hours; and seconds between two looks, as a report reads many windows.
SPANS = {"1": "1 hour", "6": "6 hours", "24": "24 hours", "168": "7 days", "720": "30 days"}
EVERY = 15.0

_INPUTS = "Ranked by effect: those first that are furthest above what matters. Blue: the effect and its 95% interval, "
_INPUTS += "which carries the size of the reference; red: what matters"
_OUTPUTS = "Predictions and scores beside those of the reference rows"


@page("/models/{model}/monitoring", "{model}: monitoring")
async def monitoring(
    view: View, model: str, hours: str = "24", version: str = "", arm: str = "", feature: str = ""
) -> None:
    """How one model does."""
    widgets.sections(model, "/monitoring")
    ui.link("Its predictions", findings.rows_href({"model": model})).classes("y-link")
    try:
        span = float(hours)
    except ValueError:
        raise InvalidInput.at("hours", "a number", hours) from None
    await view.shown()
    chosen = _Choice(model, hours, version, arm)
    looked = features.Chosen(feature)
    build = together(
        (chosen.choosers, lambda said: said),
        (_tiles, lambda said: (said, chosen.of(said))),
        (_limits, chosen.limits),
        (findings.time_line, lambda said: said),
        (features.show(looked), lambda said: chosen.shown(said, "input")),
        (features.show(features.Chosen(feature)), lambda said: chosen.shown(said, "output")),
        (_latency, lambda said: (said.times, chosen.of(said))),
        (timing.budgets, lambda said: said.budgets),
        (quality, lambda said: said.quality and msgspec.structs.replace(said.quality, moment="")),
    )
    await view.live(told.monitoring, build, every=EVERY, model=model, hours=span)
    _multivariate(view, model, version or None, span)
    await rules.rules(view, model)


class _Choice:
    """What was chosen of a report, and how something else is."""

    def __init__(self, model: str, hours: str, version: str, arm: str) -> None:
        self.model, self.hours, self.version, self.arm = model, hours, version, arm

    def of(self, said: Report) -> Arm | None:
        """The chosen arm; the busiest where none was chosen, or the chosen one had no traffic."""
        fitting = [a for a in said.arms if a.version == self.version and (a.arm == self.arm or not self.arm)]
        return max(fitting or said.arms, key=lambda arm: arm.requests, default=None)

    def choosers(self, said: Report) -> Callable[[Report], None]:
        """Which version and arm, and how long a time."""
        names = {_key(arm): name_of(arm) for arm in said.arms}
        here = self.of(said)

        def go(**changed: str) -> None:
            asked = {"hours": self.hours, "version": self.version, "arm": self.arm, **changed}
            there = urlencode({name: value for name, value in asked.items() if value})
            ui.navigate.to(f"/models/{self.model}/monitoring?{there}")

        def other(event: Any) -> None:
            version, _, arm = event.value.partition(" ")
            go(version=version, arm=arm)

        with ui.element("div").classes("y-row"):
            if here is not None:
                arms = ui.select(names, value=_key(here), label="Version and arm", on_change=other)
                arms.props("outlined dense options-dense").style("min-width: 180px")
            spans = SPANS if self.hours in SPANS else {self.hours: f"{self.hours} hours", **SPANS}
            span = ui.select(spans, value=self.hours, label="Time", on_change=lambda e: go(hours=e.value))
            span.props("outlined dense options-dense").style("min-width: 130px")

        def update(newer: Report) -> None:
            if {_key(arm) for arm in newer.arms} != set(names):
                raise widgets.Rebuild

        return update

    def shown(self, said: Report, side: str) -> features.Shown:
        arm = self.of(said)
        title, about = ("Features", _INPUTS) if side == "input" else ("Predictions and scores", _OUTPUTS)
        found = [each for each in arm.features if each.side == side] if arm else []
        asked = {"model": said.model, "since": said.since, "until": said.until}
        if arm:
            asked |= {"version": arm.version, "arm": arm.arm}
        return features.Shown(title, about, found, said.times, findings.rows_href(asked))

    def limits(self, said: Report) -> list[str]:
        """What cannot be claimed, and what else has to be said."""
        arm = self.of(said)
        limits = [f"What cannot be claimed: {limit}" for limit in arm.limits] if arm else []
        if arm and arm.foreign:
            limits.append(f"{arm.foreign} windows were counted on other bins than the reference, and are not compared")
        return [*said.notes, *limits]


def name_of(arm: Arm) -> str:
    """An arm of a version, for people."""
    return f"version {arm.version or '–'}" + (f", {arm.arm}" if arm.arm else "")


def _key(arm: Arm) -> str:
    return f"{arm.version} {arm.arm}"


def _tiles(said: tuple[Report, Arm | None]) -> None:
    report, arm = said
    opened = sum(finding.closed is None for finding in report.findings)
    with ui.element("div").classes("y-grid"):
        widgets.tile(
            "Open findings", str(opened), f"{len(report.findings)} in this time", "y-bad" if opened else "y-good"
        )
        widgets.tile("Alerts", str(len(report.alerts)), "open now", "y-bad" if report.alerts else "y-good")
        if arm is not None:
            widgets.tile("Rows", f"{arm.rows:,}", f"{arm.lost:,} not recorded" if arm.lost else "all recorded")
            failed = widgets.share(arm.failed, arm.requests)
            widgets.tile("Failed", failed, f"of {arm.requests:,} requests", "y-bad" if arm.failed else "")
            if arm.invalid:
                widgets.tile("No numbers", f"{arm.invalid:,}", "rows of predictions", "y-bad")
        alive = bool(report.loop.get("alive"))
        widgets.tile(
            "Watched", "yes" if alive else "no",
            str(report.loop.get("holder", "")) if alive else "findings are made while `modelyard watch` runs",
            "y-good" if alive else "y-warn",
        )  # fmt: skip


def _limits(said: list[str]) -> None:
    if said:
        with ui.element("div").classes("y-card").props('role="note"'):
            for note in said:
                ui.label(note[:1].upper() + note[1:]).classes("y-note")


def _latency(said: tuple[list[str], Arm | None]) -> Callable[[Any], None] | None:
    if said[1] is None:
        return None
    return timing.latency((said[0], said[1]))


def _multivariate(view: View, model: str, version: str | None, hours: float) -> None:
    """A report, on a button as it takes some seconds."""
    with widgets.card(
        "All inputs together", "Whether a classifier can tell recorded rows of this time from those before"
    ):
        place = ui.element("div").style("display: contents")

        async def ask() -> None:
            button.disable()
            place.clear()
            with place:
                ui.spinner(size="28px").props('aria-label="A classifier learns"')
            try:
                said = await view.load(told.multivariate, model=model, version=version, hours=hours)
            except ModelyardError as error:
                place.clear()
                with place:
                    ui.label(error.message).classes("y-bad")
                    if error.hint:
                        ui.label(error.hint).classes("y-soft y-small")
                return
            finally:
                button.enable()
            place.clear()
            with place:
                ui.label(said.told or said.lacking)
                if said.inputs:
                    rows = [{"name": name, "worse": round(value, 4)} for name, value in said.inputs.items()]
                    columns = (Column("name", "Input"), Column("worse", "AUC worse by, where it is shuffled", "number"))
                    tables.table(columns, rows, key="name", name="all inputs together")

        with ui.element("div").classes("y-row"):
            button = widgets.action("Ask a classifier", ask, icon="hub")
