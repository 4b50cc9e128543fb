"""The evidence of a rollout's guards: how it grew, and what each found, beside what it takes to roll back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nicegui import ui

from modelyard.admin.rollouts import Standing
from modelyard.console import plots, tables, widgets
from modelyard.console.plots import AXIS, BELOW, GRID_ABOVE
from modelyard.console.tables import Column
from modelyard.registry.decisions import Finding, odds

Update = Callable[[Standing], None]

#: What is drawn at most and at least.
_MOST, _LEAST = 1e6, 1e-6

_COLUMNS = (
    Column("guard", "Guard", "cell"), Column("ours", "Bad, new version", "number"),
    Column("theirs", "Bad, version before", "number"), Column("harm", "Harm", "number"),
    Column("at_most", "At most", "number"), Column("tolerance", "Tolerated", "number"),
    Column("is_tolerable", "Shown tolerable", "mark"), Column("odds", "Evidence (needed), to 1", "number"),
)  # fmt: skip


#: What the events of a guard are, where their names do not say it: times beside those of the version before.
_EVENTS = {f"slow{part}": f"above its p{part}" for part in (50, 95, 99)}


def chart(said: Standing) -> Update:
    """The evidence of each guard over the requests, with the line at which it takes the candidate back."""
    now = said
    if not _has_points(said):
        ui.label("The evidence is drawn here once both versions were asked.").classes("y-soft")
        return _rebuild_when_drawn
    name = f"{said.rollout.model} rollout {said.rollout.id} evidence"
    made = plots.chart(
        _options(said),
        ("moment", "requests", "guard", "evidence of what is needed"),
        lambda: _rows(now),
        name,
        height=300,
    )

    def update(newer: Standing) -> None:
        nonlocal now
        now = newer
        plots.redraw(made, _options(newer))

    return update


def _rebuild_when_drawn(newer: Standing) -> None:
    if _has_points(newer):
        raise widgets.Rebuild


def _has_points(said: Standing) -> bool:
    return any(point.requests > 0 for point in said.curve)


def _options(said: Standing) -> dict[str, Any]:
    lines: list[dict[str, Any]] = [
        {"name": guard, "type": "line", "showSymbol": len(said.curve) < 3, "data": [
            [point.requests, _part(point.logs[guard])]
            for point in said.curve if point.requests > 0 and guard in point.logs
        ]}
        for guard in said.plan.guards
    ]  # fmt: skip
    lines[0]["markLine"] = plots.limit("takes it back", yAxis=1)
    drawn = [_part(log) for point in said.curve for log in point.logs.values()]
    least, most = min(drawn, default=1.0), max(drawn, default=1.0)
    return {
        "xAxis": {"type": "log", "name": f"requests to version {said.rollout.candidate}", **BELOW},
        "yAxis": {"type": "log", "name": "evidence of harm; at 1 it is enough", **AXIS,
                  "min": 10.0 ** min(-1, math.floor(math.log10(least))),
                  "max": 10.0 ** max(1, math.ceil(math.log10(most)))},
        "grid": {**GRID_ABOVE, "top": 52},
        "series": lines,
    }  # fmt: skip


def _rows(said: Standing) -> list[Any]:
    return [
        (point.moment, point.requests, guard, math.exp(min(log, 600.0)))
        for point in said.curve
        for guard, log in point.logs.items()
    ]


def _part(log: float) -> float:
    return float(f"{min(max(math.exp(min(log, 600.0)), _LEAST), _MOST):.4g}")


def table(said: Standing) -> Update:
    """What each guard found, and what it says at most."""
    rows = [_row(each, said) for each in said.findings]
    if not rows:
        return lambda newer: None
    name = f"{said.rollout.model} rollout {said.rollout.id} findings"
    made = tables.table(_COLUMNS, rows, key="guard", name=name)
    ui.label(
        "Harm: how many more of a hundred are bad than of the version before, and how many at most. Evidence of harm "
        "is in odds to one; in brackets what takes the new version back."
    ).classes("y-soft y-small")
    return lambda newer: tables.refresh(made, _COLUMNS, [_row(each, newer) for each in newer.findings])


def _row(each: Finding, said: Standing) -> dict[str, Any]:
    event = _EVENTS.get(each.event, each.event)
    name = each.guard if event in ("", each.guard) else f"{each.guard} ({event})"
    is_harm = each.log_e >= each.needed
    return {
        "guard": name, "ours": _rate(each.bad, each.n), "theirs": _rate(each.stable_bad, each.stable_n),
        "harm": _points(each.harm), "at_most": _points(each.at_most), "tolerance": _points(each.tolerance),
        "is_tolerable": "harm is shown" if is_harm else "yes" if each.is_tolerable else "not yet",
        "is_tolerable_tone": "y-bad" if is_harm else "y-good" if each.is_tolerable else "",
        "odds": f"{odds(each.log_e)} ({odds(each.needed)})",
    }  # fmt: skip


def _rate(bad: int, n: int) -> str:
    return f"{bad:,} of {n:,}, {bad / n * 100:.3g}%" if n else "–"


def _points(share: float | None) -> str:
    return "–" if share is None or share >= 1 else f"{share * 100:.2g}%"
