"""Two versions of a model beside each other."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from modelyard.admin import models
from modelyard.admin.comparison import Comparison, Fact, Metric, compare
from modelyard.charts import score
from modelyard.console import tables, widgets
from modelyard.console.acts import Again
from modelyard.console.tables import Column
from modelyard.console.view import View
from modelyard.errors import NotFound
from modelyard.registry.records import PRODUCTION

#: Seconds between two looks: versions never change, their traffic does.
_EVERY = 30.0


async def comparison(view: View, model: str) -> Again:
    """Two versions to choose, and how they differ. Returns what offers those that there are then."""
    place = ui.element("div").style("display: contents")

    async def again() -> None:
        place.clear()
        with place:
            await _choose(view, model)

    await again()
    return again


async def _choose(view: View, model: str) -> None:
    """At first production's and the newest."""
    try:
        said = await view.load(models.model, model=model)
    except NotFound:  # the last version is gone
        return
    numbers = [each.number for each in said.versions]
    if len(numbers) < 2:
        return
    after = numbers[0]
    before = said.aliases.get(PRODUCTION, numbers[1])
    before = numbers[1] if before == after else before
    with widgets.card("Compare", "What another version would change"):
        with ui.element("div").classes("y-row"):
            one = ui.select(numbers, value=before, label="Version").style("min-width: 150px").props("dense outlined")
            ui.label("beside").classes("y-soft")
            other = ui.select(numbers, value=after, label="Version beside").style("min-width: 150px")
            other.props("dense outlined")
        room = ui.element("div").style("display: contents")

        async def show() -> None:
            room.clear()
            with room:
                await view.live(compare, _show, every=_EVERY, model=model, before=one.value, after=other.value)

        one.on_value_change(show)
        other.on_value_change(show)
        await show()


def _show(said: Comparison) -> None:
    a, b = said.before, said.after
    signature = said.signature or ["the same: callers notice nothing"]
    with ui.element("div").classes("y-row"):
        widgets.mark("same signature" if not said.signature else "another signature",
                     "y-good" if not said.signature else "y-bad")  # fmt: skip
        for number, has_report in zip((a.number, b.number), said.has_report, strict=True):
            if has_report:
                ui.link(
                    f"Report of version {number}", f"/models/{said.model}/versions/{number}/report", new_tab=True
                ).classes("y-link y-small").props('rel="noopener"')
    columns = (
        Column("what", "What"), Column("name", "Which"), Column("before", f"Version {a.number}"),
        Column("after", f"Version {b.number}"), Column("says", "Difference", "mark"),
    )  # fmt: skip
    rows = [
        *(_metric(each) for each in said.metrics),
        _number("size", "bundle", f"{a.size / 1e3:,.0f} kB", f"{b.size / 1e3:,.0f} kB", a.size, b.size),
        *(
            _number("latency, 24 h", q, widgets.seconds(x), widgets.seconds(y), x, y)
            for q, x, y in (
                ("p50", a.traffic.p50, b.traffic.p50), ("p95", a.traffic.p95, b.traffic.p95),
                ("p99", a.traffic.p99, b.traffic.p99),
            )
        ),
        *({"what": "signature", "name": each, "says": "" if not said.signature else "differs"} for each in signature),
        *(_fact("package", each) for each in said.packages),
        {"what": "packages", "name": f"{said.same_packages} more are the same"},
        *(_fact("served by", each) for each in said.making),
        *(_fact("lineage", each) for each in said.lineage),
        *(_fact("rows", each) for each in said.rows),
    ]  # fmt: skip
    for place, row in enumerate(rows):
        row["id"] = place
    name = f"{said.model} {a.number} beside {b.number}"
    tables.table(columns, rows, key="id", name=name, page=100).classes("y-compare")


def _metric(each: Metric) -> dict[str, Any]:
    says, tone = "", ""
    if each.better:
        says = "better" if each.better == "after" else "worse"
        tone = ("y-good" if each.better == "after" else "y-bad") if each.is_clear else "y-warn"
        says += "" if each.is_clear else ", within the error"
    return {
        "what": "metric", "name": widgets.metric(each.name), "before": _value(each.before, each.before_range),
        "after": _value(each.after, each.after_range), "says": says, "says_tone": tone,
    }  # fmt: skip


def _value(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    return score(value) + (f" ({score(ends[0])} to {score(ends[1])})" if ends else "")


def _number(what: str, name: str, before: str, after: str, a: float | None, b: float | None) -> dict[str, Any]:
    says = f"{b / a - 1:+.0%}" if a and b and abs(b / a - 1) >= 0.005 else ""
    return {"what": what, "name": name, "before": before, "after": after, "says": says}


def _fact(what: str, each: Fact) -> dict[str, Any]:
    says = "differs" if each.differs else ""
    return {
        "what": what, "name": each.name.replace("_", " "), "before": _short(each.before), "after": _short(each.after),
        "says": says, "says_tone": "y-info",
    }  # fmt: skip


def _short(text: str) -> str:
    return text[:19] + "…" if text.startswith("sha256:") else text or "–"
