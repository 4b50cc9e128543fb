"""Features beside their reference: ranked by effect, drawn with bounds and floor; of one both histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from nicegui import ui

from modelyard.charts import number
from modelyard.console import plots, tables, widgets
from modelyard.console.pieces import Build
from modelyard.console.plots import AXIS, GRID
from modelyard.console.tables import Column
from modelyard.monitoring.features import Feature
from modelyard.monitoring.words import MEASURES, chance

#: Rows of a table, and how many times the floor a drawing reaches.
MOST, REACH = 500, 10.0

#: What distances are called.
DISTANCES = {
    "psi": "PSI", "js": "Jensen-Shannon", "chi2": "chi-square", "ks": "KS", "wasserstein": "Wasserstein (sd)",
}  # fmt: skip

_COLUMNS = (
    Column("name", "Feature", "cell"), Column("now", "Now", "mark"), Column("measure", "Effect", "cell"),
    Column("value", "Value", "number"), Column("low", "Low", "number"), Column("high", "High", "number"),
    Column("floor", "Matters above", "number"), Column("track", "Drawn", "drawn"), Column("line", "Over time", "drawn"),
    Column("chance", "By chance up to", "number"), Column("psi", "PSI", "number"),
    Column("psi_chance", "PSI by chance", "number"), Column("missing", "Missing", "number"),
    Column("unseen", "New texts", "number"), Column("wrong", "Wrong type", "number"), Column("live", "Rows", "number"),
)  # fmt: skip

_PICK = tables.cell(
    '<button type="button" class="y-pick" @click="$parent.$emit(\'choose\', props.row.name)" '
    ":aria-label=\"'Show ' + props.value\">{{ props.value }}</button>"
)
#: The effect from low to high, and the floor in red.
_TRACK = tables.cell(
    '<svg v-if="props.value" class="y-draw" viewBox="0 0 120 18" width="120" height="18" '
    'role="img" :aria-label="props.value.told"><line class="y-even" x1="2" x2="118" y1="9" y2="9"/>'
    '<line class="y-floor" :x1="props.value.floor" :x2="props.value.floor" y1="1" y2="17"/>'
    '<line :x1="props.value.low" :x2="props.value.high" y1="9" y2="9"/>'
    '<circle :cx="props.value.at" cy="9" r="3.5"/></svg>'
)
_LINE = tables.cell(
    '<svg v-if="props.value" class="y-draw" viewBox="0 0 120 28" width="120" height="28" '
    'role="img" aria-label="the effect over time"><line class="y-floor" x1="2" x2="118" :y1="props.value.floor" '
    ':y2="props.value.floor"/><polyline :points="props.value.points"/></svg>'
)


class Shown(NamedTuple):
    """The features of one side of an arm, and when the points of their lines begin."""

    title: str
    about: str
    features: list[Feature]
    times: list[str]
    #: Where the recorded rows are.
    rows: str


class Chosen:
    """Which feature is looked at, for as long as the page is open."""

    def __init__(self, name: str) -> None:
        self.name = name

    def of(self, features: Sequence[Feature]) -> Feature | None:
        return next((each for each in features if each.name == self.name), features[0] if features else None)


def show(chosen: Chosen) -> Build:
    """Builds a card of ``Shown``: the table, and the chosen feature beside its reference."""

    def build(said: Shown) -> Callable[[Shown], None] | None:
        if not said.features:
            with widgets.card(said.title, said.about):
                ui.label("Nothing to compare in this time.").classes("y-soft")
            return None
        rows = [_row(each) for each in said.features[:MOST]]
        names = [each.name for each in said.features]
        now = said

        def choose(name: str) -> None:
            chosen.name = name
            select.value = name

        def pick(event: Any) -> None:
            if event.value and (feature := next((f for f in now.features if f.name == event.value), None)):
                chosen.name = event.value
                picture(feature, now)

        with widgets.card(said.title, said.about):
            made = tables.table(_COLUMNS, rows, key="name", name=said.title.lower(), page=15).classes("y-narrow")
            made.add_slot("body-cell-name", _PICK)
            made.add_slot("body-cell-track", _TRACK)
            made.add_slot("body-cell-line", _LINE)
            made.on("choose", lambda event: choose(event.args))
            first = chosen.of(said.features)
            assert first is not None
            select = ui.select(names, value=first.name, label=f"Look at ({said.title.lower()})", on_change=pick)
            select.props("outlined dense options-dense").classes("w-full").style("max-width: 320px")
            picture = _Picture()
            picture(first, said)

        def update(said: Shown) -> None:
            nonlocal now
            if {each.name for each in said.features} != set(names):
                raise widgets.Rebuild
            now = said
            tables.refresh(made, _COLUMNS, [_row(each) for each in said.features[:MOST]])
            shown = next((each for each in said.features if each.name == select.value), None)
            if shown is not None:
                picture(shown, said)

        return update

    return build


class _Picture:
    """The chosen feature: what is known of it, both histograms, and its effect over time."""

    def __init__(self) -> None:
        self._told = ui.element("div")
        with ui.element("div").classes("y-wide"):
            self._histograms = ui.element("div")
            self._time = ui.element("div")
        self._name = ""
        self._charts: list[ui.echart] = []
        self._said: tuple[Feature, Shown] | None = None

    def __call__(self, feature: Feature, said: Shown) -> None:
        self._said = (feature, said)
        self._told.clear()
        with self._told:
            _tell(feature, said)
        options = [_histograms(feature), _over_time(feature, said.times)]
        if self._name == feature.name:
            for chart, made in zip(self._charts, options, strict=True):
                plots.redraw(chart, made)
            return
        self._name = feature.name
        sides = (
            (self._histograms, ("Value", "Share of reference rows", "Share of live rows"), self._bins, "histograms"),
            (self._time, ("Since", "Effect"), self._line, "effect over time"),
        )
        self._charts = []
        for (container, header, rows, name), made in zip(sides, options, strict=True):
            container.clear()
            with container:
                self._charts.append(plots.chart(made, header, rows, f"{feature.name} {name}"))

    def _bins(self) -> list[Sequence[Any]]:
        assert self._said is not None
        feature = self._said[0]
        return list(zip(labels(feature), *feature.shares, strict=True))

    def _line(self) -> list[Sequence[Any]]:
        assert self._said is not None
        feature, said = self._said
        return list(zip(said.times, feature.line, strict=True))


def labels(feature: Feature) -> list[str]:
    """What the cells of a histogram are called."""
    if feature.kind == "category":
        return [str(cell) for cell in feature.cells]
    edges = [number(float(cell)) for cell in feature.cells]
    if not edges:
        return []
    inner = [a if a == b else f"{a} – {b}" for a, b in pairwise(edges)]
    return [f"below {edges[0]}", *inner, f"above {edges[-1]}"]


def _row(feature: Feature) -> dict[str, Any]:
    own = feature.distances.get(feature.measure)
    psi = feature.distances.get("psi")
    matters = feature.low is not None and feature.low > feature.floor > 0
    return {
        "name": feature.name, "now": ", ".join(feature.open) or ("matters" if matters else ""),
        "now_tone": "y-bad" if feature.open else "y-warn", "measure": MEASURES.get(feature.measure, feature.measure),
        "value": _short(feature.value), "low": _short(feature.low), "high": _short(feature.high),
        "floor": feature.floor or None, "track": _track(feature), "line": _spark(feature),
        "chance": _short(own.critical if own else None), "psi": _short(psi.value if psi else None),
        "psi_chance": _short(psi.critical if psi else None), "missing": f"{feature.missing[1]:.2%}",
        "unseen": f"{feature.unseen:.2%}" if feature.unseen else "",
        "wrong": f"{feature.wrong:.2%}" if feature.wrong else "", "live": feature.live,
    }  # fmt: skip


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _track(feature: Feature) -> dict[str, Any] | None:
    if feature.value is None or feature.low is None or feature.high is None or not feature.floor:
        return None
    # The root leaves room for small effects beside those that are many times what matters.
    at, low, high, floor = (
        2 + 116 * (min(max(each / feature.floor, 0.0), REACH) / REACH) ** 0.5
        for each in (feature.value, feature.low, feature.high, feature.floor)
    )
    told = f"{feature.value:.3g}, from {feature.low:.3g} to {feature.high:.3g}; matters above {feature.floor:g}"
    return {"at": round(at, 1), "low": round(low, 1), "high": round(high, 1), "floor": round(floor, 1), "told": told}


def _spark(feature: Feature) -> dict[str, Any] | None:
    points = [(i, value) for i, value in enumerate(feature.line) if value is not None]
    if not points or not feature.floor:
        return None
    most = max(feature.floor * 1.2, *(value for _, value in points))
    width = 116 / max(len(feature.line) - 1, 1)
    drawn = [f"{2 + width * i:.1f},{26 - 24 * value / most:.1f}" for i, value in points]
    if len(drawn) == 1:  # a line needs two ends
        x, _, y = drawn[0].partition(",")
        drawn.append(f"{float(x) + (3 if float(x) < 100 else -3):.1f},{y}")
    return {"points": " ".join(drawn), "floor": round(26 - 24 * feature.floor / most, 1)}


def _tell(feature: Feature, said: Shown) -> None:
    middles = feature.middles
    told = f"{feature.reference:,} reference rows, {feature.live:,} live"
    if middles[0] is not None and middles[1] is not None:
        told += f"; half of the values are below {number(middles[0])} in the reference, below {number(middles[1])} live"
    if any(feature.missing):
        told += f"; missing {feature.missing[0]:.2%} in the reference, {feature.missing[1]:.2%} live"
    ui.label(told).classes("y-soft y-small")
    if feature.distances:
        named = (
            f"{DISTANCES.get(name, name)} {number(far.value)} (by chance up to {number(far.critical)}{chance(far.p)})"
            for name, far in feature.distances.items()
        )
        ui.label("Distances: " + ", ".join(named)).classes("y-soft y-small")
    if said.rows:
        ui.link("Its recorded rows", said.rows).classes("y-link y-small")


def _histograms(feature: Feature) -> dict[str, Any]:
    ours, theirs = ([round(100 * share, 4) for share in side] for side in feature.shares)
    return {
        "xAxis": {"type": "category", "data": labels(feature), **AXIS,
                  "axisLabel": {**AXIS["axisLabel"], "rotate": 45}},
        "yAxis": {"type": "value", "name": "% of rows", **AXIS}, "grid": {**GRID, "left": 36},
        "series": [
            {"name": "reference", "type": "bar", "data": ours, "barGap": "-100%", "barCategoryGap": "12%",
             "itemStyle": {"color": "rgba(128,138,152,.55)"}},
            {"name": "live", "type": "bar", "data": theirs, "barCategoryGap": "12%",
             "itemStyle": {"color": "rgba(59,130,246,.25)", "borderColor": "#3b82f6", "borderWidth": 1.5}},
        ],
    }  # fmt: skip


def _over_time(feature: Feature, times: Sequence[str]) -> dict[str, Any]:
    points = [[time, value] for time, value in zip(times, feature.line, strict=True)]
    return {
        "xAxis": {"type": "time", **AXIS},
        "yAxis": {"type": "value", "name": MEASURES.get(feature.measure, ""), **AXIS},
        "series": [
            {"name": feature.name, "type": "line", "data": points, "connectNulls": False, "symbolSize": 5,
             "markLine": plots.limit("matters", yAxis=feature.floor) if feature.floor else {}},
        ],
    }  # fmt: skip
