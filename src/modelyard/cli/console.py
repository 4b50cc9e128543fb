"""console: everything in a browser."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import command, print_json, wants_json
from modelyard.cli.options import of_settings


@command(
    "console",
    examples="""
    modelyard console
    modelyard console --port 9000 --keys
    modelyard console --host 0.0.0.0 --keys
    """,
)
@click.option("--beside", is_flag=True, help="End with standard input.")
@of_settings("host", "keys", "public", "tls_certificate", "tls_key", port="console_port")
def console(beside: bool, port: int | None, **options: Any) -> None:
    """Show models, traffic, drift, rollouts and alerts in a browser, and act there.

    The admin API answers on the same port, below /api; /api/openapi.json describes it. Needs the extra `console`.
    """
    from modelyard import api
    from modelyard.console import server

    if beside:
        _end_with(sys.stdin.fileno())
    as_json = wants_json()

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url})
        else:
            screen.say(f"the console is at {url} until Ctrl-C")

    given = {name: value for name, value in {"console_port": port, **options}.items() if value is not None}
    server.run(api.open_registry(), ready=ready, **given)


def _end_with(pipe: int) -> None:
    """In a thread of its own: end as if told to once the other end of ``pipe`` is closed, however that came."""

    def follow() -> None:
        while os.read(pipe, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="modelyard-end", daemon=True).start()
