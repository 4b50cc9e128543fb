"""Plots as inline SVG, coloured by the page's style sheet so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 360, 290
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 44


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / about))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= about)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number as short as a person would write it."""
    if not math.isfinite(value):
        return "–"
    if value and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.3g}"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def score(value: float) -> str:
    """A metric: four decimals while it is small, so that those of one column can be compared."""
    return f"{value + 0.0:.4f}".replace("-0.0000", "0.0000") if abs(value) < 10 else number(value)


class Plot:
    """Two axes and what is drawn between them; ``svg`` is the picture. ``names``: what stands at places of the x axis,
    where these are no numbers to be read.
    """

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], x_label: str, y_label: str, title: str,
        names: Mapping[float, str] | None = None,
    ) -> None:  # fmt: skip
        self.x, self.y = _widened(x), _widened(y)
        self.title = title
        self.parts = [*self._axes(x_label, y_label, {t: number(t) for t in ticks(*self.x)} if names is None else names)]

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    def _axes(self, x_label: str, y_label: str, names: Mapping[float, str]) -> list[str]:
        parts = []
        for tick, name in names.items():
            at, _ = self._at(tick, 0)
            parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
            parts.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{escape(name)}</text>')
        for tick in ticks(*self.y):
            _, at = self._at(0, tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
            parts.append(f'<text x="{LEFT - 7}" y="{at + 4}" text-anchor="end">{number(tick)}</text>')
        middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
        parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
        half = TOP + (HEIGHT - TOP - BOTTOM) / 2
        parts.append(
            f'<text class="label" transform="translate(14 {half}) rotate(-90)" text-anchor="middle">'
            f"{escape(y_label)}</text>"
        )
        return parts

    def line(self, xs: Sequence[float], ys: Sequence[float], style: str, name: str = "") -> None:
        """A line through points; ``name`` appears on hovering."""
        points = " ".join("{},{}".format(*self._at(x, y)) for x, y in zip(xs, ys, strict=True))
        tip = f"<title>{escape(name)}</title>" if name else ""
        self.parts.append(f'<polyline class="{style}" points="{points}">{tip}</polyline>')

    def points(self, xs: Sequence[float], ys: Sequence[float], style: str, size: float = 2.2) -> None:
        for x, y in zip(xs, ys, strict=True):
            across, down = self._at(x, y)
            self.parts.append(f'<circle class="{style}" cx="{across}" cy="{down}" r="{size}"/>')

    def bars(self, edges: Sequence[float], heights: Sequence[float], style: str) -> None:
        """Bars that stand on 0 between neighbouring edges."""
        for low, high, value in zip(edges[:-1], edges[1:], heights, strict=True):
            left, top = self._at(low, value)
            right, ground = self._at(high, 0)
            self.parts.append(
                f'<rect class="{style}" x="{left}" y="{top}" width="{max(right - left - 1, 0.5):.1f}" '
                f'height="{max(ground - top, 0):.1f}"/>'
            )

    def key(self, entries: Sequence[tuple[str, str]]) -> None:
        """(style, name) of each line, in the lower right corner."""
        for i, (style, name) in enumerate(entries):
            y = HEIGHT - BOTTOM - 14 - 16 * (len(entries) - 1 - i)
            self.parts.append(
                f'<line class="{style}" x1="{WIDTH - 150}" x2="{WIDTH - 130}" y1="{y - 4}" y2="{y - 4}"/>'
            )
            self.parts.append(f'<text x="{WIDTH - 124}" y="{y}">{escape(short(name, 20))}</text>')

    def svg(self) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            + "".join(self.parts)
            + "</svg>"
        )


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def short(text: str, most: int) -> str:
    """``text`` cut to ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
