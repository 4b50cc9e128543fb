"""Charts whose data can be taken along as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from modelyard.console.widgets import download, escaped

#: Colours of a chart's lines, which can be told apart on light and dark ground, also by those who see few colours.
COLOURS = ("#3b82f6", "#d97706", "#10b981", "#d946ef", "#64748b", "#ef4444", "#06b6d4", "#a3a300")


def chart(options: dict[str, Any], header: Sequence[str], rows: Callable[[], list[Sequence[Any]]], name: str,
          *, height: int = 240) -> ui.echart:  # fmt: skip
    """A chart of ECharts, and its data as CSV. ``rows`` gives them when they are asked for; ``name`` is the file's."""
    made = ui.echart({**_LOOK, **options}).style(f"height: {height}px; width: 100%")
    made.props(f'role="img" aria-label="{escaped(name)}"')
    with ui.element("div").classes("y-row").style("justify-content: flex-end"):
        download(name, header, rows)
    return made


def redraw(made: ui.echart, options: dict[str, Any]) -> None:
    """Show newer data in a chart."""
    made.options.update(options)
    made.update()


#: Greys that can be read on light and dark ground; no movement, which would draw the eye to nothing.
_LOOK: dict[str, Any] = {
    "animation": False,
    "color": list(COLOURS),
    "textStyle": {"color": "#7a8594", "fontFamily": "inherit"},
    "tooltip": {"trigger": "axis", "confine": True},
    "grid": {"left": 8, "right": 16, "top": 34, "bottom": 8, "containLabel": True},
    "legend": {"top": 0, "type": "scroll", "textStyle": {"color": "#7a8594"}},
}

AXIS: dict[str, Any] = {
    "axisLine": {"lineStyle": {"color": "#8a94a3"}}, "axisLabel": {"color": "#7a8594", "hideOverlap": True},
    "splitLine": {"lineStyle": {"color": "rgba(128,138,152,.25)"}}, "nameTextStyle": {"color": "#7a8594"},
}  # fmt: skip
