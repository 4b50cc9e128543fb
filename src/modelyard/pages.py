"""Pages that need nothing from outside: reports that open offline. Who fills them escapes what came from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files


def page(title: str, sections: Sequence[str]) -> str:
    """The whole page."""
    style = files("modelyard").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>{''.join(sections)}"
        "<footer>Written by Modelyard.</footer></main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """A heading and a card; nothing where there is nothing to show."""
    return f'<h2>{escape(title)}</h2><div class="card">{body}</div>' if body else ""


def line(cells: Sequence[str], kind: str = "td", style: str = "") -> str:
    """A row of ready-made cells; those that begin with ``#`` are numbers, set to the right."""
    made = [f'<{kind} class="n">{c[1:]}</{kind}>' if c.startswith("#") else f"<{kind}>{c}</{kind}>" for c in cells]
    return f"<tr{f' class={chr(34)}{style}{chr(34)}' if style else ''}>{''.join(made)}</tr>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], won: Sequence[bool] = ()) -> str:
    """A table of ready-made cells, whose rows become blocks on narrow screens; rows that ``won`` stand out."""
    names = [title.removeprefix("#") for title in head]
    made = [line(head, "th")]
    for i, row in enumerate(rows):
        cells = [
            f"<td{_number(c)}{f' data-name={chr(34)}{name}{chr(34)}' if name else ''}>{c.removeprefix('#')}</td>"
            for name, c in zip(names, row, strict=True)
        ]
        style = ' class="won"' if i < len(won) and won[i] else ""
        made.append(f"<tr{style}>{''.join(cells)}</tr>")
    return f'<table class="blocks">{"".join(made)}</table>'


def _number(cell: str) -> str:
    return ' class="n"' if cell.startswith("#") else ""


def note(text: str) -> str:
    """A sentence whose commands stand between backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def interval(low: float, high: float, value: float, start: float, end: float, floor: float | None = None) -> str:
    """An interval on a line from ``start`` to ``end``, with a mark at the value and one at the floor."""

    def at(x: float) -> float:
        return round(4 + 192 * min(1.0, max(0.0, (x - start) / (end - start) if end > start else 0.5)), 1)

    if not all(map(math.isfinite, (low, high, value))):
        return ""
    base = f'<rect class="floor" x="{at(floor) - 1.5}" y="3" width="3" height="10"/>' if floor is not None else ""
    return (
        '<svg class="track" viewBox="0 0 200 16" preserveAspectRatio="none">'
        '<line class="grid" x1="4" x2="196" y1="8" y2="8"/>'
        f'<rect class="reach" x="{at(low)}" y="3" width="{max(at(high) - at(low), 1):.1f}" height="10" rx="2"/>'
        f'{base}<rect class="mark" x="{at(value) - 1.5}" y="1" width="3" height="14"/></svg>'
    )
