"""serve: models over HTTP."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import command, print_json, wants_json
from modelyard.cli.references import REFERENCE, trusted

if TYPE_CHECKING:
    from modelyard.serving.server import Server


@command(
    "serve",
    examples="""
    modelyard serve churn@production
    modelyard serve churn@production churn@staging risk:7 --port 9000
    modelyard serve churn.zip --host 0.0.0.0 --wires native,oip
    curl -d '{"x1": 1.5, "x2": 2}' localhost:8080/predict
    """,
)
@click.argument("refs", type=REFERENCE, nargs=-1, required=True)
@click.option("--host", default=None, help="Address to bind to.  [MODELYARD_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="0 picks one.  [MODELYARD_PORT, else 8080]")
@click.option("--wires", default=None, metavar="NAMES", help="Protocols to speak.  [MODELYARD_WIRES, else native,oip]")
@trusted
def serve(refs: tuple[str, ...], host: str | None, port: int | None, wires: str | None, trust: tuple[str, ...]) -> None:
    """Serve models over HTTP.

    Each REF is churn@production, churn:4, churn, or a bundle. An alias is followed: after a promote or rollback the
    server changes over within a second and drops no request. Ctrl-C or SIGTERM ends it once what is in flight is
    answered. Logs are JSON lines on stderr; with --json, one line on stdout tells that it is ready.
    """
    from modelyard import api

    as_json = wants_json()
    words = [word for word in wires.split(",") if word] if wires is not None else None

    def ready(server: Server) -> None:
        if as_json:
            print_json({"url": server.url, "models": [_told(server, loaded) for loaded in server.catalog.models()]})
        else:
            _show(server)

    api.serve(*refs, trust=trust, host=host, port=port, wires=words, on_ready=ready)


def _told(server: Server, loaded: Any) -> dict[str, Any]:
    return {
        "model": loaded.name,
        "version": loaded.version,
        "digest": loaded.digest,
        "predict": f"{server.url}{_path(server, loaded)}",
        "example": loaded.example,
    }


def _path(server: Server, loaded: Any) -> str:
    """The shortest path that means this version: ``/predict`` where it is the only one."""
    versions = server.catalog.models()
    if len(versions) == 1:
        return "/predict"
    if sum(other.name == loaded.name for other in versions) == 1:
        return f"/models/{loaded.name}/predict"
    return f"/models/{loaded.name}/versions/{loaded.version}/predict"


def _show(server: Server) -> None:
    for loaded in server.catalog.models():
        version = f"{loaded.name} version {loaded.version}" if loaded.version else f"{loaded.name}, from a path"
        screen.say(f"serving {version} ({loaded.digest[:19]}…)")
    screen.say(f"at {server.url}; its API is described at {server.url}/openapi.json")
    loaded = server.catalog.models()[0]
    screen.say("try:")
    body = shlex.quote(json.dumps(loaded.example, ensure_ascii=False))
    screen.say(f"  curl -d {body} {server.url}{_path(server, loaded)}")
