"""Charts whose data can be taken along as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from modelyard.console.widgets import download, escaped

#: Colours of a chart's lines, which can be told apart on light and dark ground, also by those who see few colours.
COLOURS = ("#3b82f6", "#d97706", "#10b981", "#d946ef", "#7c8aa0", "#ef4444", "#06b6d4", "#a3a300")

#: Colours of the style sheet, which follow light and dark: charts are drawn as SVG, whose colours may be variables.
SOFT, LINE, RED = "var(--soft)", "var(--line)", "var(--red)"


def chart(options: dict[str, Any], header: Sequence[str], rows: Callable[[], list[Sequence[Any]]], name: str,
          *, title: str = "", height: int = 240) -> ui.echart:  # fmt: skip
    """A chart of ECharts, below its title, and its data as CSV. ``rows`` gives them when they are asked for; ``name``
    is the file's.
    """
    if title:
        ui.label(title).classes("y-soft y-small")
    made = ui.echart({**_LOOK, **options}, renderer="svg", theme=_THEME).style(f"height: {height}px; width: 100%")
    made.props(f'role="img" aria-label="{escaped(name)}"')
    with ui.element("div").classes("y-row").style("justify-content: flex-end"):
        download(name, header, rows)
    return made


def redraw(made: ui.echart, options: dict[str, Any]) -> None:
    """Show newer data in a chart."""
    made.options.update(options)
    made.update()


#: Points are filled with their line's colour, not with white, which would glare on dark ground.
_THEME: dict[str, Any] = {"line": {"symbol": "circle"}}

GRID: dict[str, Any] = {"left": 8, "right": 24, "top": 34, "bottom": 8, "containLabel": True}

#: No movement, which would draw the eye to nothing.
_LOOK: dict[str, Any] = {
    "animation": False,
    "color": list(COLOURS),
    "textStyle": {"color": SOFT, "fontFamily": "Roboto, sans-serif"},
    "tooltip": {"trigger": "axis", "confine": True},
    "grid": GRID,
    "legend": {"top": 0, "type": "scroll", "textStyle": {"color": SOFT}, "pageTextStyle": {"color": SOFT},
               "pageIconColor": SOFT},
}  # fmt: skip

AXIS: dict[str, Any] = {
    "axisLine": {"lineStyle": {"color": SOFT}}, "axisLabel": {"color": SOFT, "hideOverlap": True},
    "splitLine": {"lineStyle": {"color": LINE}}, "nameTextStyle": {"color": SOFT, "align": "left"},
}  # fmt: skip

#: An axis below a chart, whose name stands in its middle, and the room that this takes.
BELOW: dict[str, Any] = {
    **AXIS, "nameLocation": "middle", "nameGap": 28, "nameTextStyle": {"color": SOFT, "align": "center"},
}  # fmt: skip
GRID_ABOVE: dict[str, Any] = {**GRID, "bottom": 28}


def limit(text: str, **at: Any) -> dict[str, Any]:
    """A dashed red line at a value of an axis, with what it means."""
    return {
        "symbol": "none", "silent": True, "lineStyle": {"color": RED, "type": "dashed", "width": 1.5},
        "label": {"show": bool(text), "formatter": text, "position": "insideEndTop", "color": RED}, "data": [at],
    }  # fmt: skip
