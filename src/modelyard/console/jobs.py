"""Batch jobs: those under way, and how the others ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from modelyard.admin import jobs as told
from modelyard.console import tables, widgets
from modelyard.console.tables import Column
from modelyard.console.view import View, page
from modelyard.registry.jobs import Job

_COLUMNS = (
    Column("id", "Job", "link"), Column("state", "State", "mark"), Column("model", "Model", "link"),
    Column("progress", "Done", "number"), Column("scored", "Rows", "number"), Column("rejected", "Set aside", "number"),
    Column("started", "Started", "moment"), Column("input", "Input"), Column("output", "Output"), Column("who", "By"),
)  # fmt: skip


@page("/jobs", "Batch jobs")
async def jobs(view: View) -> None:
    """Every run of ``modelyard predict`` on a registered model, on any machine that shares the registry."""
    widgets.heading("Batch jobs")
    await view.live(told.jobs, _show)


def _show(said: list[Job]) -> Callable[[list[Job]], None] | None:
    if not said:
        widgets.empty("No batch job has run yet.", "modelyard predict NAME --input rows.csv --output out.parquet")
        return None
    with widgets.card("Jobs", "Each scores a file; the newest first"):
        table = tables.table(_COLUMNS, [_row(each) for each in said], key="id", name="jobs")
    return lambda newer: tables.refresh(table, _COLUMNS, [_row(each) for each in newer])


def _row(job: Job) -> dict[str, Any]:
    return {
        "id": job.id, "id_href": f"/jobs/{job.id}", "state": job.state, "model": f"{job.model}:{job.version}",
        "model_href": f"/models/{job.model}", "progress": _progress(job), "scored": job.scored or None,
        "rejected": job.rejected if job.state == "done" else None, "started": job.started, "input": job.input,
        "output": job.output, "who": job.who,
    }  # fmt: skip


def _progress(job: Job) -> str:
    if job.state == "done":
        return "100%"
    return f"{job.done / job.total:.0%}" if job.total else "–"


@page("/jobs/{number}", "Batch job {number}")
async def job(view: View, number: int) -> None:
    """One job, whole."""
    widgets.heading(f"Batch job {number}")
    await view.live(told.job, _one, number=number)


def _one(said: Job) -> None:
    with ui.element("div").classes("y-row"):
        widgets.mark(said.state)
        ui.link(f"{said.model}, version {said.version}", f"/models/{said.model}")
    if said.state == "running":
        ui.linear_progress(said.done / said.total if said.total else 0.0, show_value=False).props(
            'aria-label="How much is done"'
        )
    with ui.element("div").classes("y-grid"):
        widgets.tile("Done", _progress(said))
        widgets.tile("Rows scored", f"{said.scored:,}" if said.state == "done" else "–")
        widgets.tile("Set aside", f"{said.rejected:,}" if said.state == "done" else "–",
                     tone="y-warn" if said.rejected else "")  # fmt: skip
        widgets.tile("Took", widgets.seconds(said.seconds or None))
    if said.error:
        with widgets.card("Why it failed"), ui.element("pre").classes("y-bad"):
            ui.label(said.error)
    if said.state == "lost":
        with widgets.card("Its process ended without a word", "The same command goes on where it was:"):
            widgets.command(
                f"modelyard predict {said.model}:{said.version} --input {said.input} --output {said.output}"
            )
    with widgets.card("What it reads and writes"):
        widgets.pairs([
            ("Input", said.input), ("Output", said.output), ("Set aside", said.rejected_file),
            ("Started", widgets.Moment(said.started)), ("Heard of last", widgets.Moment(said.seen)),
            ("By", said.who), ("Process", f"{said.process} on {said.machine}"),
        ])  # fmt: skip
