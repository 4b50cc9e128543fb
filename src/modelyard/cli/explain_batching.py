"""explain-batching: why a running server's calls of a model had the sizes they had."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.servers import KEY_OPTION, URL_OPTION, ask


@command(
    "explain-batching",
    examples="""
    modelyard explain-batching churn
    modelyard explain-batching --url http://10.0.0.7:8080 --key "$KEY"
    curl -X PATCH -d '{"batch_rows": 256}' localhost:8080/debug/limits     # change a limit live
    """,
)
@click.argument("model", required=False)
@URL_OPTION
@KEY_OPTION
def explain_batching(model: str | None, url: str, key: str | None) -> Answer:
    """Show why a running server joined the requests it joined."""
    path = f"/debug/batching/{quote(model, safe='')}" if model else "/debug/batching"
    told: list[dict[str, Any]] = ask(url, path, key=key)["batching"]

    def show() -> None:
        for i, lane in enumerate(told):
            if i:
                screen.say()
            _show(lane)

    return Answer({"batching": told}, show)


def _show(lane: dict[str, Any]) -> None:
    version = f" version {lane['version']}" if lane["version"] else ""
    screen.say(f"{lane['model']}{version}: {screen.count(lane['requests'], 'request')}, "
               f"{screen.count(lane['rows'], 'row')}, {screen.count(lane['calls'], 'call')} of the model; "
               f"{lane['in_flight']} in flight")  # fmt: skip
    screen.say(f"{lane['cost']['says']}; a small call runs {lane['cost']['runs']}")
    limits = lane["limits"]
    screen.say(f"limits: {limits['batch_rows']:,} rows a call, {limits['queue_requests']:,} requests and "
               f"{limits['queue_seconds']:g} s in the queue")  # fmt: skip
    if not lane["calls"]:
        screen.say("no call yet: send it a request")
        return
    screen.table(
        ["why", "calls", "share", "what it means"],
        [[r["reason"], r["calls"], f"{r['share']:.1%}", r["means"]] for r in lane["reasons"]],
    )
    screen.table(
        ["rows, up to", "calls", "mean ms"],
        [[int(rows), size["calls"], size["mean_ms"]] for rows, size in lane["sizes"].items()],
    )
    screen.table(
        ["last calls", "requests", "rows", "waited ms", "took ms"],
        [[c["reason"], c["requests"], c["rows"], c["waited_ms"], c["took_ms"]] for c in lane["recent"][:10]],
    )
