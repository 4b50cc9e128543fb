"""conformance: whether a server, whoever made it, keeps the rules of a protocol."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from modelyard.cli import exits, screen
from modelyard.cli.frame import Answer, command

_PROTOCOLS = ("oip", "tfserving", "mlflow", "sagemaker", "vertex", "seldon", "kserve")
_JSON = "application/json"
_TYPES = {".csv": "text/csv", ".json": _JSON}


@command(
    "conformance",
    examples="""
    modelyard conformance http://localhost:8080 --protocol oip --model churn
    modelyard conformance http://localhost:8080 --protocol mlflow --body example.json
    modelyard conformance http://localhost:8080 --protocol vertex --path /health --predict /predict --body example.json
    modelyard conformance http://localhost:8080 --protocol oip --grpc localhost:8081 --json | jq .counts
    """,
)
@click.argument("url", metavar="URL")
@click.option("--protocol", type=click.Choice(_PROTOCOLS), required=True, help="The protocol that the server speaks.")
@click.option("--model", default="", metavar="NAME", help="The model, where the protocol names models.")
@click.option(
    "--path",
    default="",
    metavar="PREFIX",
    help="What stands before the protocol's paths; for vertex, the route of health.",
)
@click.option("--predict", default="", metavar="ROUTE", help="For vertex, the route of prediction.")
@click.option(
    "--body",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="An example request that the server answers, where the protocol does not describe the model's inputs.",
)
@click.option("--content-type", default=None, metavar="TYPE", help="The type of the example.  [default: by its name]")
@click.option("--key", default="", envvar="MODELYARD_KEY", show_envvar=True, help="Sent as a bearer token.")
@click.option("--grpc", default="", metavar="HOST:PORT", help="For oip, where the server speaks gRPC; needs grpcio.")
@click.option("--seconds", default=10.0, type=click.FloatRange(0.1), help="How long an answer may take.")
@click.option("--all", "shows_all", is_flag=True, help="List the rules that the server keeps, too.")
def conformance(
    url: str,
    protocol: str,
    model: str,
    path: str,
    predict: str,
    body: Path | None,
    content_type: str | None,
    key: str,
    grpc: str,
    seconds: float,
    shows_all: bool,
) -> Answer:
    """Ask any server whether it keeps the rules of an inference protocol.

    The exit number is 0 where it keeps all rules that are a must, and 11 where it breaks one.
    """
    from modelyard.conformance import check

    report = check(
        url, protocol, model=model, path=path, predict=predict, body=body.read_bytes() if body else b"",
        content_type=content_type or (_TYPES.get(body.suffix, _JSON) if body else _JSON), key=key, grpc=grpc,
        seconds=seconds,
    )  # fmt: skip

    def show() -> None:
        for outcome in report.outcomes:
            if not shows_all and outcome.outcome == "pass":
                continue
            screen.say(f"{outcome.outcome:<7}  {outcome.severity:<6}  {outcome.id}: {outcome.asks}")
            if outcome.outcome == "fail":
                screen.say(textwrap.indent(f"{outcome.reason}\nwhy: {outcome.why}", " " * 17))
            elif outcome.reason:
                screen.say(f"{'':17}{outcome.reason}")
        counts = report.counts
        musts = sum(each.severity == "must" for each in report.broken)
        screen.say(
            f"{screen.count(counts['pass'], 'rule')} kept, {counts['fail']} broken ({musts} of them a must), "
            f"{counts['skipped']} not asked"
        )

    return Answer(report.plain(), show, exit=exits.NUMBERS["ok" if report.passed else "nonconforming"])
