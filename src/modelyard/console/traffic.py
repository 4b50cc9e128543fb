"""Traffic over time: requests, failures and latency, of each version and arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from modelyard.admin.traffic import Series, Traffic, traffic
from modelyard.console import plots, widgets
from modelyard.console.plots import AXIS
from modelyard.console.view import View

#: How far back, and by how many points: each point has to hold several windows.
_SPANS = {0.25: 15, 1.0: 20, 6.0: 36, 24.0: 48, 168.0: 84}
_NAMES = {0.25: "15 min", 1.0: "1 h", 6.0: "6 h", 24.0: "24 h", 168.0: "7 d"}
_DASHES = {"p50": "solid", "p95": "dashed", "p99": "dotted"}
_HEADER = ("time", "version", "arm", "requests", "failed", "p50", "p95", "p99")

Options = dict[str, Any]

_AXES: Options = {
    "xAxis": {"type": "time", **AXIS, "splitLine": {"show": False}}, "yAxis": {"type": "value", "min": 0, **AXIS},
}  # fmt: skip


async def charts(view: View, model: str) -> None:
    """The card with the charts of a model's traffic."""
    with widgets.card("Traffic", "What callers got, by version and arm; a shadow's copies are nobody's answers"):
        span = ui.toggle(_NAMES, value=0.25).props(
            'no-caps dense unelevated padding="4px 10px" aria-label="How far back"'
        )
        room = ui.element("div").style("display: contents")

        async def show() -> None:
            room.clear()
            with room:
                await view.live(traffic, _show, model=model, hours=span.value, points=_SPANS[span.value])

        span.on_value_change(show)
        await show()


def _show(said: Traffic) -> Callable[[Traffic], None]:
    if not said.whole.requests:
        widgets.empty("No request was recorded in this time.", f"modelyard serve {said.model}")
        return _rebuild_when_there_is_some
    now = said
    with ui.element("div").classes("y-grid"):
        tiles = [widgets.tile(name, *figure) for name, figure in _figures(said).items()]
    drawn = []
    with ui.element("div").classes("y-wide"):
        for name, (title, options) in _DRAWN.items():
            with ui.element("div"):
                file = f"{said.model} {name}"
                made = plots.chart(options(said), _HEADER, lambda: _lines(now), file, title=title)
            drawn.append((made, options))
        if said.failures:
            with ui.element("div"):
                by_code = plots.chart(
                    _failures(said), ("time", "code", "requests"), lambda: _failed(now),
                    f"{said.model} failures by code", title="Refused or failed requests, by code",
                )  # fmt: skip
            drawn.append((by_code, _failures))

    def update(newer: Traffic) -> None:
        nonlocal now
        if len(newer.series) != len(now.series) or newer.failures.keys() != now.failures.keys():
            raise widgets.Rebuild
        for tile, figure in zip(tiles, _figures(newer).values(), strict=True):
            tile.tell(*figure)
        for chart, options in drawn:
            plots.redraw(chart, options(newer))
        now = newer

    return update


def _rebuild_when_there_is_some(newer: Traffic) -> None:
    if newer.whole.requests:
        raise widgets.Rebuild


def _figures(said: Traffic) -> dict[str, tuple[str, str]]:
    whole = said.whole
    return {
        "Requests": (f"{whole.requests:,}", f"{whole.lost:,} rows not recorded" if whole.lost else ""),
        "Failed": (widgets.share(whole.failed, whole.requests), f"{whole.failed:,} requests"),
        **{
            name: (widgets.seconds(value), f"{share} take less")
            for name, value, share in (
                ("p50", whole.p50, "half"),
                ("p95", whole.p95, "19 of 20"),
                ("p99", whole.p99, "99 of 100"),
            )
        },
    }


def _rates(said: Traffic) -> Options:
    lines = [
        {"name": name_of(each), "type": "line", "showSymbol": False, "data": [
            [time, round(point.requests / said.step, 6)]
            for time, point in zip(said.times[:-1], each.points[:-1], strict=True)  # the last one is not over
        ]}
        for each in said.series
    ]  # fmt: skip
    return {**_AXES, "series": lines}


def _latency(said: Traffic) -> Options:
    lines = [
        {
            "name": f"{name_of(each)}, {quantile}", "type": "line", "symbolSize": 3, "connectNulls": True,
            "lineStyle": {"type": dash}, "color": plots.COLOURS[place % len(plots.COLOURS)],
            "data": [
                [time, None if (value := getattr(point, quantile)) is None else round(value * 1e3, 4)]
                for time, point in zip(said.times, each.points, strict=True)
            ],
        }
        for place, each in enumerate(said.series) for quantile, dash in _DASHES.items()
    ]  # fmt: skip
    return {**_AXES, "series": lines}


def _shares(said: Traffic) -> Options:
    lines = [
        {"name": name_of(each), "type": "line", "symbolSize": 3, "connectNulls": True, "data": [
            [time, round(100 * point.failed / point.requests, 4) if point.requests else None]
            for time, point in zip(said.times, each.points, strict=True)
        ]}
        for each in said.series
    ]  # fmt: skip
    return {**_AXES, "series": lines}


def _failures(said: Traffic) -> Options:
    bars = [
        {"name": code, "type": "bar", "stack": "all", "data": [list(at) for at in zip(said.times, counts, strict=True)]}
        for code, counts in sorted(said.failures.items())
    ]
    return {**_AXES, "series": bars}


#: By what a chart's file is called.
_DRAWN: dict[str, tuple[str, Callable[[Traffic], Options]]] = {
    "requests a second": ("Requests a second", _rates), "latency": ("Latency, ms", _latency),
    "failed requests": ("Failed, % of the requests", _shares),
}  # fmt: skip


def name_of(each: Series) -> str:
    """A version and its arm, in words."""
    return f"version {each.version or '?'}" + (f", {each.arm}" if each.arm else "")


def _lines(said: Traffic) -> list[Any]:
    return [
        (time, each.version, each.arm, point.requests, point.failed, point.p50, point.p95, point.p99)
        for each in said.series
        for time, point in zip(said.times, each.points, strict=True)
    ]


def _failed(said: Traffic) -> list[Any]:
    return [
        (time, code, count)
        for code, counts in said.failures.items()
        for time, count in zip(said.times, counts, strict=True)
        if count
    ]
