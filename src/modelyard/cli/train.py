"""train: from a table to a registered version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.interrupts import insistent
from modelyard.cli.package import command_line, made, show_made, somewhere
from modelyard.cli.references import new_version, tags_of

if TYPE_CHECKING:
    from modelyard.api import Trained


@command(
    "train",
    examples="""
    modelyard train data.csv --target y --name churn
    modelyard train data.parquet --target price --name price --candidates linear,forest,boosting
    modelyard train data.csv --target y --name churn --exclude customer_id --metric f1 --report report.html
    modelyard train data.csv --target y --out bundle/          # a bundle, not registered
    """,
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="COLUMN", help="The column to predict.")
@click.option("--name", default=None, help="The model's name, to register it under.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="A folder to keep the bundle in.")
@click.option("--task", type=click.Choice(["regression", "classification"]), default=None, help="Chosen if not given.")
@click.option(
    "--candidates", default=None, metavar="NAMES", help="linear,tree,svm,forest,boosting,mlp; all if not given."
)
@click.option("--metric", default=None, help="The metric to choose by; suits the task if not given.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="The same rows and seed give the same model."
)
@click.option("--folds", type=click.IntRange(2, 50), default=5, help="Folds of the cross-validation.")
@click.option("--test-size", type=click.FloatRange(0.05, 0.5), default=0.2, help="Share of the rows that is held out.")
@click.option("--max-rows", type=click.IntRange(min=1), default=None, help="Most rows to look at; more are sampled.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0),
    default=None,
    metavar="SECONDS",
    help="Leave out candidates after this time.",
)
@click.option("--exclude", multiple=True, metavar="COLUMN", help="A column to leave out; may be repeated.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="A column to use although the leakage guard drops it.")
@click.option("--encoding", default=None, help="The file's encoding, such as latin-1.  [utf-8]")
@click.option("--delimiter", default=None, metavar="CHARACTER", help="What parts the columns; found out if not given.")
@click.option("--missing", multiple=True, metavar="TEXT", help="A further text for a missing value; may be repeated.")
@click.option("--text", multiple=True, metavar="COLUMN", help="A column to read as text; may be repeated.")
@click.option(
    "--report", type=click.Path(path_type=Path), default=None, help="Write the report, an HTML page, here too."
)
@new_version
def train(
    data: Path, target: str, name: str | None, out: Path | None, candidates: str | None, report: Path | None,
    alias: str | None, tags: tuple[str, ...], why: str, **options: Any,
) -> Answer:  # fmt: skip
    """Train models on a table and register the best.

    Candidates are compared by cross-validation and the best is judged on rows that were held out, beside a baseline
    that always guesses the same. Columns that give the answer away are named and left out.
    """
    from modelyard import api

    somewhere(name, out)
    if report is not None:
        _check_writable(report)
    if candidates is not None:
        options["candidates"] = [word for word in candidates.split(",") if word]
    with insistent(), screen.progress("training") as tell:
        trained = api.train(
            data,
            target,
            name=name,
            out=out,
            alias=alias,
            tags=tags_of(tags),
            why=why,
            provenance={"command": command_line()},
            progress=tell,
            **options,
        )
    page = trained.bundle.report
    if report is not None:
        try:
            report.write_text(trained.result.report_html, encoding="utf-8")
            page = report
        except OSError as error:  # the model is registered: what it is worth must still be told
            screen.note(f"warning: cannot write the report: {error}; the bundle holds it, too")
    summary = trained.result.summary()
    told = {**summary, **made(trained.bundle, trained.version), "report": None if page is None else str(page)}
    return Answer(told, lambda: _show(trained, summary, page))


def _check_writable(report: Path) -> None:
    """Raises the error that writing ``report`` would, before there is anything to lose."""
    there = report.exists()
    report.open("a").close()
    if not there:
        report.unlink()


def _show(trained: Trained, summary: dict[str, Any], page: Path | None) -> None:
    for kind in ("warnings", "findings", "notes"):
        for line in summary[kind]:
            if kind == "findings" and line in summary["warnings"]:
                continue
            screen.say(f"{kind.removesuffix('s')}: {line}")
    metric = summary["metric"]
    screen.say()
    screen.table(
        ("candidate", f"{metric}, mean of folds", "spread", "seconds", ""),
        [
            (("* " if row["name"] == summary["winner"] else "  ") + row["title"], row["mean"], row["spread"],
             round(row["seconds"], 1), "; ".join(row["notes"]))
            for row in summary["leaderboard"]
        ],
    )  # fmt: skip
    screen.say()
    screen.table(
        ("on held-out rows", "value", "95% interval", "baseline"),
        [
            (r["metric"], r["value"], f"{screen.text_of(r['low'])} to {screen.text_of(r['high'])}", r["baseline"])
            for r in summary["held_out"]
        ],
    )  # fmt: skip
    screen.say()
    show_made(trained.bundle, trained.version, page)
