"""records: what was predicted, to be searched, followed and kept to oneself."""

from __future__ import annotations

import csv
import io
from typing import Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, Family, Usage, command, print_json, wants_json
from modelyard.cli.options import of_settings
from modelyard.cli.references import MODEL, REFERENCE

EXAMPLES = """
modelyard records status
modelyard records query "select model, version, count(*) n, avg(total_s) from predictions group by all"
modelyard records query "select * from churn where list_contains(flags, 'age:above')" --csv > odd.csv
modelyard records show 9f1c2a9b7d3e
modelyard records tail churn
modelyard records redact churn --column email=drop --column city=hash
"""

_folder = of_settings("records")


@click.group("records", cls=Family, examples=EXAMPLES)
def records() -> None:
    """Search, follow and redact what was predicted.

    Servers note what they predict, and a recorder keeps it: `modelyard serve` brings one, `modelyard watch` is one.
    """


@command(
    "query",
    examples="""
    modelyard records query "select model, version, count(*) n from predictions group by all"
    modelyard records query 'select prediction_id, "in.age", "out.prediction" from churn limit 10' --json
    modelyard records query "select code, quantile_cont(total_s, 0.99) from churn group by code" --csv
    modelyard records query "describe predictions"
    """,
)
@click.argument("sql")
@click.option("--csv", "as_csv", is_flag=True, help="Answer with CSV.")
@_folder
def query(sql: str, as_csv: bool, records: str | None) -> Answer:
    """Run a SELECT over the records, with DuckDB.

    The view predictions has all rows, and a view of each model's name has its own. Inputs are called "in.NAME", outputs
    "out.NAME"; times are UTC. Only records can be read, and nothing can be written.
    """
    if as_csv and wants_json():
        raise Usage("expected --csv or --json, got both")
    found = _opened(records).run(sql)

    def show() -> None:
        if as_csv:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([found.columns, *found.rows])
            screen.say(text.getvalue().rstrip("\n"))
        else:
            screen.table(found.columns, found.rows)

    return Answer(found.records(), show)


@command("show", examples="modelyard records show 9f1c2a9b7d3e\nmodelyard records show 9f1c2a9b7d3e.4 --json")
@click.argument("id")
@_folder
def show(id: str, records: str | None) -> Answer:
    """Show everything about one prediction, by its id or its request's.

    A request of several rows has the predictions ID.0, ID.1 and so on.
    """
    from modelyard.recording.query import show as find

    found = find(_opened(records), id)

    def tell() -> None:
        for number, row in enumerate(found):
            if number:
                screen.say()
            _tell(row)

    return Answer(found, tell)


@command("status", examples="modelyard records status\nmodelyard records status --json")
@_folder
def status(records: str | None) -> Answer:
    """Show what was recorded, what waits, and what was lost."""
    from modelyard.recording.status import status as look

    told = look(_places(records))

    def tell() -> None:
        recorder = f"process {told['recorder']}" if told["recorder"] else "nobody: `modelyard watch` records"
        waiting = sum(ring["waiting"] for ring in told["rings"])
        screen.pairs(
            [
                ("folder", told["folder"]), ("recorder", recorder), ("size", f"{told['bytes']:,} bytes"),
                ("servers", sum(ring["alive"] for ring in told["rings"])), ("waiting", f"{waiting:,} bytes"),
                ("lost by these", sum(ring["lost"] for ring in told["rings"]) or None),
                ("windows waiting", told["windows_waiting"] or None),
            ]
        )  # fmt: skip
        if told["models"]:
            screen.say()
            names = ("model", "version", "requests", "rows", "lost", "not_kept", "bytes", "last")
            screen.table([n.replace("_", " ") for n in names], [[m[n] for n in names] for m in told["models"]])

    return Answer(told, tell)


@command("tail", examples="modelyard records tail\nmodelyard records tail churn --json | jq .flags")
@click.argument("model", type=MODEL, required=False)
@_folder
def tail(model: str | None, records: str | None) -> None:
    """Print predictions as they are recorded, until Ctrl-C; with --json one document a line."""
    from modelyard.recording.query import follow

    for row in follow(_places(records), model):
        if wants_json():
            print_json(row)
        else:
            screen.say(_line(row))


@command(
    "redact",
    examples="""
    modelyard records redact churn                                    # what holds
    modelyard records redact churn --column email=drop --column city=hash
    modelyard records redact churn --column income=bucket --column age=keep
    modelyard records redact churn --reset                            # keep everything again
    """,
)
@click.argument("model", type=REFERENCE)
@click.option("--column", "columns", multiple=True, metavar="NAME=ACTION", help="drop, hash, bucket or keep a column.")
@click.option("--reset", is_flag=True, help="Have no policy: keep every column of the signature.")
def redact(model: str, columns: tuple[str, ...], reset: bool) -> Answer:
    """Show or change what is recorded of a model's inputs.

    Without a policy every column is kept of those requests whose inputs are kept at all. A policy names each column;
    one that it does not name, of a later version, is dropped. hash keeps whether two values are the same, by a key that
    stays in the records folder; bucket keeps the bin of the reference profile. Recorders follow within seconds; what
    was recorded before stays as it is.
    """
    from modelyard import api

    registry = api.open_registry()
    version = registry.resolve(model)
    if reset:
        registry.policies.clear(version.model)
    elif columns:
        known = [field.name for field in registry.fetch(version).signature.inputs]
        registry.policies.set(version.model, _actions(columns), known)
    policy = registry.policies.all().get(version.model)

    def tell() -> None:
        if policy is None:
            screen.say(f"{version.model} has no policy: every column is kept")
        else:
            screen.table(("column", "action"), sorted(policy.columns.items()))

    return Answer({"model": version.model, "columns": policy and policy.columns}, tell)


for each in (query, show, status, tail, redact):
    records.add_command(each)


def _opened(given: str | None) -> Any:
    """The records, to be queried. Raises NotFound where there are none."""
    from modelyard.recording.query import Query

    query = Query(_places(given))
    if query.unreadable:
        files = screen.count(len(query.unreadable), "file")
        screen.note(f"note: {files} cannot be read and what is in there is left out: {query.unreadable[0]}")
    return query


def _places(given: str | None) -> Any:
    """The records folder. Raises NotFound where nothing is recorded."""
    from modelyard.errors import NotFound
    from modelyard.recording.places import Places

    places = Places.chosen(given)
    if places is None:
        raise NotFound("nothing is recorded: MODELYARD_RECORDS is off", hint="name a folder with --records")
    return places


def _actions(words: tuple[str, ...]) -> dict[str, str]:
    """``column=action`` words as a mapping; a column's name may have any character. Raises Usage."""
    actions = {}
    for word in words:
        column, _, action = word.rpartition("=")
        if not column:
            raise Usage(f"expected COLUMN=ACTION, got {word!r}", "modelyard records redact churn --column email=drop")
        actions[column] = action
    return actions


def _tell(row: dict[str, Any]) -> None:
    """One prediction, for people."""
    arm = "/".join(str(part) for part in (row["alias"], row["revision"], row["arm"]) if part is not None)
    screen.pairs(
        [
            ("prediction", row["prediction_id"]), ("model", f"{row['model']}:{row['version']}"), ("arm", arm),
            ("time", f"{row['time']:%Y-%m-%d %H:%M:%S.%f}Z"), ("answer", row["code"]), ("reason", row["reason"]),
            ("client", row["client"]), ("rows of the request", row["rows"]), ("rows of the call", row["batch"]),
            ("worker", row["worker"]), ("flags", row["flags"]), ("inputs kept", row["kept"] or "no"),
            ("not kept as they were", row["removed"]), ("body", row["body"] and row["body"].decode(errors="replace")),
        ]
    )  # fmt: skip
    timed = [(name[:-2], row[name]) for name in row if name.endswith("_s") and row[name] is not None]
    screen.pairs([(stage, f"{seconds * 1000:.3f} ms") for stage, seconds in timed])
    for title, prefix in (("inputs", "in."), ("outputs", "out.")):
        values = [(name.removeprefix(prefix), value) for name, value in row.items() if name.startswith(prefix)]
        shown = [(name, value) for name, value in values if value is not None]
        if shown:
            screen.say(title)
            screen.pairs([(f"  {name}", value) for name, value in shown])
    mates = row["joined_with"]
    if mates:
        screen.say(f"joined with {screen.count(len(mates), 'request')}: {', '.join(mates[:10])}")


def _line(row: dict[str, Any]) -> str:
    outputs = {name.removeprefix("out."): value for name, value in row.items() if name.startswith("out.")}
    parts = [
        f"{row['time']:%H:%M:%S.%f}"[:-3], f"{row['model']}:{row['version']}", row["arm"], row["prediction_id"],
        row["code"], f"{row['total_s'] * 1000:.2f} ms" if row["total_s"] is not None else None,
        screen.text_of(outputs) if row["code"] == "ok" else row["reason"], screen.text_of(row["flags"] or None),
    ]  # fmt: skip
    return "  ".join(part for part in parts if part and part != "-")
