"""console: everything in a browser."""

from __future__ import annotations

from typing import Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import command, print_json, wants_json


@command(
    "console",
    examples="""
    modelyard console
    modelyard console --port 9000 --keys
    modelyard console --host 0.0.0.0 --keys
    """,
)
@click.option("--host", default="127.0.0.1", help="Address to bind to.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, help="Port to bind to; 0 picks a free one.")
@click.option("--keys/--no-keys", default=False, help="Whether visitors log in with an API key (scope admin or view).")
@click.option("--public", is_flag=True, help="Let others in without keys: something in front decides who may.")
def console(**options: Any) -> None:
    """Show models, traffic, drift, rollouts and alerts in a browser, and act there.

    The admin API answers on the same port, below /api; /api/openapi.json describes it. Needs the extra `console`.
    """
    from modelyard import api
    from modelyard.console import server

    as_json = wants_json()

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url})
        else:
            screen.say(f"the console is at {url} until Ctrl-C")

    server.run(api.open_registry(), ready=ready, **options)
