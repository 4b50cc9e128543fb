"""A model: its versions side by side, two of them compared, and what was done with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from nicegui import app, ui
from starlette.responses import HTMLResponse, Response

from modelyard.admin import models as told
from modelyard.charts import score
from modelyard.console import acts, tables, widgets
from modelyard.console.comparison import comparison
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.errors import ModelyardError
from modelyard.registry import Change
from modelyard.registry.records import PRODUCTION

_COLUMNS = (
    Column("act", "Actions", "act"), Column("number", "Version", "number"), Column("aliases", "Aliases", "mark"),
    Column("created", "Registered", "moment"), Column("by", "By", "cell"), Column("size", "Size, kB", "number"),
    Column("metrics", "Metrics"), Column("requests", "Requests, 24 h", "number"), Column("p50", "p50", "number"),
    Column("p99", "p99", "number"), Column("tags", "Tags"),
)  # fmt: skip

_HISTORY = (
    Column("when", "When", "moment"), Column("who", "Who", "cell"), Column("action", "Action", "cell"),
    Column("alias", "Alias", "cell"),
    Column("from", "From", "number"), Column("to", "To", "number"), Column("detail", "What"), Column("why", "Why"),
)  # fmt: skip

#: Metrics that a line has room for.
_FEW = 3


@page("/models/{model}", "{model}")
async def model(view: View, model: str) -> None:
    """The versions of a model, two of them compared, and its history."""
    widgets.sections(model, "")
    looks: list[Callable[[], Awaitable[None]]] = []

    async def again() -> None:
        for look in looks:
            await look()

    looks.append(await view.live(told.model, lambda said: _versions(view, said, again), model=model))
    looks.append(await comparison(view, model))
    with widgets.card("History", "What was done, when, by whom and why"):
        looks.append(await view.live(told.history, _history, model=model))


@app.get("/models/{model}/versions/{version}/report", include_in_schema=False)
def report(model: str, version: int) -> Response:
    """A training report as it is. It comes with the bundle, from whoever made that, so that it may do nothing here: no
    script, no form, nothing from elsewhere, and an origin of its own.
    """
    from modelyard.console.view import registry

    try:
        text = told.report(registry(), model, version).html
    except ModelyardError as error:
        return Response(f"{error.message}\n{error.hint}", 404, media_type="text/plain")
    policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
    return HTMLResponse(text, headers={"content-security-policy": policy, "cache-control": "no-store"})


def report_href(model: str, version: int) -> str:
    """Where the report of a version is."""
    return f"/models/{quote(model)}/versions/{version}/report"


def _versions(view: View, said: told.Model, again: acts.Again) -> Callable[[told.Model], None]:
    with ui.element("div").classes("y-row"):
        widgets.mark(said.task)
        for alias, number in said.aliases.items():
            widgets.mark(f"{alias} is {number}", "y-good" if alias == PRODUCTION else "y-info")
    with widgets.card("Versions", f"With their traffic of the last {said.hours:g} hours") as card:
        made = tables.table(_COLUMNS, _rows(said), key="number", name=f"{said.model} versions", page=10)
        now = said

        async def act(event: Any) -> None:
            await acts.choose(view, now, int(event.args["number"]), again)

        made.on("act", widgets.apart(act))
        if len(said.versions) > 1 or len(said.aliases):
            with ui.element("div").classes("y-row"):
                for alias in said.aliases:
                    widgets.action(f"Roll back {alias}", _rolling_back(view, said, alias, again), icon="undo")

    def update(newer: told.Model) -> None:
        nonlocal now
        if newer.aliases != now.aliases or len(newer.versions) != len(now.versions):
            raise widgets.Rebuild
        with card:
            tables.refresh(made, _COLUMNS, _rows(newer))
        now = newer

    return update


def _rolling_back(view: View, said: told.Model, alias: str, again: acts.Again) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        await acts.roll_back(view, said.model, alias, said.aliases[alias], again)

    return act


def _rows(said: told.Model) -> list[dict[str, Any]]:
    return [
        {
            "act": f"What to do with version {each.number}", "number": each.number, "aliases": ", ".join(each.aliases),
            "aliases_tone": "y-good" if PRODUCTION in each.aliases else "y-info",
            "created": each.created, "by": each.by, "size": round(each.size / 1e3), "metrics": _told(each.metrics),
            "requests": each.traffic.requests, "p50": _time(each.traffic.p50), "p99": _time(each.traffic.p99),
            "tags": ", ".join(f"{key}={value}" if value else key for key, value in each.tags.items()),
        }
        for each in said.versions
    ]  # fmt: skip


def _time(value: float | None) -> str:
    return "" if value is None else widgets.seconds(value)


def _told(metrics: dict[str, float]) -> str:
    return ", ".join(f"{widgets.metric(name)} {score(value)}" for name, value in list(metrics.items())[:_FEW])


def _history(said: list[Change]) -> Callable[[list[Change]], None]:
    made = tables.table(_HISTORY, [_line(each) for each in said], key="id", name="history", page=10)
    return lambda newer: tables.refresh(made, _HISTORY, [_line(each) for each in newer])


def _line(each: Change) -> dict[str, Any]:
    detail = each.detail[:19] + "…" if each.detail.startswith("sha256:") else each.detail
    return {
        "id": each.id, "when": each.when, "who": each.who, "action": each.action, "alias": each.alias,
        "from": each.from_, "to": each.to, "detail": detail, "why": each.why,
    }  # fmt: skip
