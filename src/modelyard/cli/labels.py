"""labels: the truth about predictions, sent when it is known, and what it says of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from modelyard.cli import quality, screen
from modelyard.cli.frame import Answer, Family, command
from modelyard.cli.options import of_settings
from modelyard.cli.references import MODEL
from modelyard.cli.servers import KEY_OPTION, ask

if TYPE_CHECKING:
    from modelyard.monitoring.sending import Row, Sent
    from modelyard.truth import Receipt

EXAMPLES = """
modelyard labels send churn labels.csv
modelyard labels send churn outcomes.parquet --id request_id --label churned --time known_at
modelyard labels send churn labels.csv --url https://models.example:8080 --key "$KEY"
modelyard labels status churn
modelyard labels accuracy churn
"""

#: Labels in one request to a server, and the seconds that it may take to keep them.
PER_REQUEST, REQUEST_SECONDS = 10_000, 120.0


@click.group("labels", cls=Family, examples=EXAMPLES)
def labels() -> None:
    """Send the truth about predictions, and see what it says of a model.

    A label names its prediction by the request_id of the answer; of a request of several rows, the predictions are
    REQUEST_ID.0, REQUEST_ID.1 and so on. Labels are joined with predictions where those are recorded.
    """


@command(
    "send",
    examples="""
    modelyard labels send churn labels.csv
    modelyard labels send churn outcomes.parquet --id request_id --label churned --time known_at
    modelyard labels send churn labels.jsonl --url http://10.0.0.7:8080 --key "$KEY" --json
    """,
)
@click.argument("model", type=MODEL)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--id", "id_", default="prediction_id", metavar="COLUMN", help="The column of the prediction's id.")
@click.option("--label", default="label", metavar="COLUMN", help="The column of the label.")
@click.option("--time", default=None, metavar="COLUMN", help="The column of when the label became known, if any.")
@click.option("--encoding", default=None, help="The encoding of a CSV file, such as latin-1.  [utf-8]")
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    default=None,
    help="Where rows go that do not fit.  [FILE.rejected.csv]",
)
@click.option("--url", default=None, metavar="URL", help="A running server to send to.  [the registry itself]")
@KEY_OPTION
def send(
    model: str, file: Path, id_: str, label: str, time: str | None, encoding: str | None, rejects: Path | None,
    url: str | None, key: str | None,
) -> Answer:  # fmt: skip
    """Send labels from a CSV or Parquet file, or one of a JSON record a line.

    The same label again changes nothing, so a file can be sent again after any failure. Another label for the same
    prediction is a correction: it counts from then on; where there is a column of times, the latest counts. Rows that
    do not fit are set aside with the reason.
    """
    from modelyard import api
    from modelyard.monitoring import sending

    is_bytes = file.suffix.lower() not in (".parquet", ".pq")
    with screen.progress("sending labels", unit="bytes" if is_bytes else "") as tell:
        if url is None:
            sent = api.send_labels(
                model, file, id=id_, label=label, time=time, encoding=encoding, rejects=rejects, progress=tell
            )
        else:
            source = sending.LabelFile(file, id_, label, time, encoding)
            set_aside = rejects or file.with_name(file.name + ".rejected.csv")
            there = Server(url, model, key)
            sent = sending.send(model, source.batches(), there, set_aside, lambda: tell(*source.done))
    return Answer(sent, lambda: _show(sent))


class Server:
    """Takes labels into a running server, some thousands a request. What it refuses is left out and told of."""

    def __init__(self, url: str, model: str, key: str | None) -> None:
        self._url = url
        self._path = f"/models/{quote(model, safe='')}/labels"
        self._key = key

    def __call__(self, rows: Sequence[Row]) -> tuple[Receipt, dict[int, str]]:
        from modelyard.truth import Receipt

        receipt, refused = Receipt(), {place: why for place, row in enumerate(rows) if (why := _fault(row))}
        fitting = [place for place in range(len(rows)) if place not in refused]
        for start in range(0, len(fitting), PER_REQUEST):
            places = fitting[start : start + PER_REQUEST]
            while places:
                found = self._send([rows[place] for place in places])
                if isinstance(found, Receipt):
                    receipt = receipt.plus(found)
                    break
                refused.update({places[number]: reason for number, reason in found.items()})
                places = [place for number, place in enumerate(places) if number not in found]
        return receipt, refused

    def _send(self, rows: Sequence[Row]) -> Receipt | dict[int, str]:
        """What became of these rows; or where the server takes none of them, which do not fit, and why."""
        import msgspec

        from modelyard.errors import InvalidInput
        from modelyard.truth import Receipt

        records = [
            {"prediction_id": row.prediction, "label": row.label, **({} if row.time is None else {"time": row.time})}
            for row in rows
        ]
        try:
            body = msgspec.json.encode(records, enc_hook=str)
            told = ask(self._url, self._path, key=self._key, body=body, seconds=REQUEST_SECONDS)
        except InvalidInput as error:
            found: dict[int, str] = {}
            for problem in error.problems:
                number, bracket, what = problem.path.removeprefix("[").partition("]")
                if bracket and number.isdigit() and int(number) < len(rows):
                    # In production a server does not say what it expected.
                    reason = f"{what.lstrip('.')}: expected {problem.expected}, got {problem.got}"
                    found.setdefault(int(number), reason if problem.expected else "the server takes no such label")
            if not found:
                raise
            return found
        return Receipt(**{name: told[name] for name in Receipt.__struct_fields__})


def _fault(row: Row) -> str:
    """What can be seen to be wrong without knowing the model; "" for nothing."""
    from modelyard.errors import InvalidInput
    from modelyard.truth import check_id, read_time

    try:
        check_id(row.prediction)
        if row.time not in (None, ""):
            read_time(row.time)
    except InvalidInput as error:
        return str(error.problems[0])
    return "label: expected one, got nothing" if row.label is None or row.label == "" else ""


def _show(sent: Sent) -> None:
    rate = sent.received / max(sent.seconds, 1e-9)
    screen.say(f"{screen.count(sent.received, 'label')} of {sent.model} in {sent.seconds:.1f} s ({rate:,.0f} a second)")
    counts = [
        ("new", sent.new), ("known already", sent.repeated), ("corrections", sent.corrected),
        ("older than what is known", sent.late),
    ]  # fmt: skip
    screen.pairs([(name, f"{count:,}" if count else "") for name, count in counts])
    if sent.rejected:
        screen.say(f"{screen.count(sent.rejected, 'row')} set aside, with the reasons: {sent.rejected_file}")
        for reason in sent.reasons[:3]:
            screen.say(f"  {reason}")
        if any(reason.endswith("is not UTF-8") for reason in sent.reasons):
            screen.say("  where the file is in another encoding: --encoding latin-1")


@command("status", examples="modelyard labels status churn\nmodelyard labels status churn --json | jq .delays")
@click.argument("model", type=MODEL)
def status(model: str) -> Answer:
    """Show what became of a model's labels, and how late they come."""
    from modelyard import api

    report = api.accuracy(model)
    totals = report.labels
    waiting = totals.predictions - totals.matched - totals.unknown
    told: dict[str, Any] = {
        "model": model, "received": totals.received, "predictions": totals.predictions, "matched": totals.matched,
        "waiting": waiting, "unknown": totals.unknown, "corrected": totals.corrected,
        "corrected_too_late": totals.missed, "delays": report.delays, "ripe_after": report.ripe_after,
        "unripe": report.unripe, "notes": report.notes,
    }  # fmt: skip

    def show() -> None:
        screen.pairs(
            [
                ("labels received", f"{totals.received:,}"), ("predictions", f"{totals.predictions:,}"),
                ("matched", f"{totals.matched:,}"), ("waiting", f"{waiting:,}"),
                ("unknown", f"{totals.unknown:,}"), ("corrected", f"{totals.corrected:,}"),
                ("corrected too late", f"{totals.missed:,}" if totals.missed else ""),
            ]
        )  # fmt: skip
        quality.show_delays(report)

    return Answer(told, show)


@command(
    "join",
    examples="""
    modelyard labels join
    modelyard labels join churn --json
    """,
)
@click.argument("models", type=MODEL, nargs=-1)
@of_settings("records")
def join(models: tuple[str, ...], records: str | None) -> Answer:
    """Join labels with the predictions that were recorded on this machine, now.

    `modelyard watch` does it by itself.
    """
    from modelyard import api

    done = api.join_labels(models or None, records=records)

    def show() -> None:
        names = ("joined", "corrected", "missed", "unknown", "predictions")
        screen.table(("model", *names), [(model, *(getattr(turn, n) for n in names)) for model, turn in done.items()])

    return Answer(done, show)


@command(
    "accuracy",
    examples="""
    modelyard labels accuracy churn
    modelyard labels accuracy churn --version 5 --days 90 --json
    modelyard labels accuracy churn --ripe-after 48
    """,
)
@click.argument("model", type=MODEL)
@click.option("--version", default=None, metavar="NUMBER", help="One version only.")
@click.option("--days", type=click.FloatRange(min=0.01), default=None, help="Days of predictions.  [accuracy.days]")
@click.option(
    "--ripe-after", "hours", type=click.FloatRange(min=0), default=None, metavar="HOURS",
    help="Hours after which labels are taken to be there.  [accuracy.hours, else learned]",
)  # fmt: skip
def accuracy(model: str, version: str | None, days: float | None, hours: float | None) -> Answer:
    """Show how good predictions turned out to be, beside what training measured.

    Only predictions count that have nearly all of their labels. Intervals hold at all times at once: they may be looked
    at every day.
    """
    from modelyard import api

    given = {name: value for name, value in (("days", days), ("hours", hours)) if value is not None}
    report = api.accuracy(model, version=version, **given)
    return Answer(report, lambda: quality.show(report))


for each in (send, status, accuracy, join):
    labels.add_command(each)
