"""serve: models over HTTP."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Usage, command, print_json, wants_json
from modelyard.cli.options import of_settings
from modelyard.cli.references import REFERENCE, trusted

if TYPE_CHECKING:
    from modelyard.serving.server import Server


@command(
    "serve",
    examples="""
    modelyard serve churn@production
    modelyard serve churn@production churn@staging risk:7 --port 9000
    modelyard serve churn@production --workers 4 --host 0.0.0.0 --keys
    modelyard serve churn.zip --wires native,oip
    modelyard serve churn@production --no-record
    modelyard serve --control              # nothing yet: clients say what to load
    curl -d '{"x1": 1.5, "x2": 2}' localhost:8080/predict
    """,
)
@click.argument("refs", type=REFERENCE, nargs=-1)
@of_settings(
    "host", "port", "wires", "workers", "keys", "public", "production", "control", "admin_port", "reflection",
    "origins", "tls_certificate", "tls_key", "tls_clients", "isolation", "model_processes", "memory", "weights",
    "cache", "request_seconds", "model_seconds", "max_body", "max_rows", "batch_rows",
    "queue_requests", "queue_rows", "queue_seconds", "poll_seconds", "drain_seconds", "access_log", "traces",
    "record", "records",
)  # fmt: skip
@trusted
def serve(refs: tuple[str, ...], trust: tuple[str, ...], **options: Any) -> None:
    """Serve models over HTTP and gRPC, on one port.

    Each REF is churn@production, churn:4, churn, churn:latest-2, churn:all, or a bundle; NAME=BUNDLE gives a bundle
    another name. An alias is followed: after a promote or rollback the server changes over within a second and drops
    no request. Ctrl-C or SIGTERM ends it once what is in flight is answered. What versions of a registry predict is
    recorded and watched by a process beside the server, which ends with it. Logs are JSON lines on stderr; with --json,
    one line on stdout tells that it is ready.

    In a container of SageMaker, Vertex AI or Azure ML no REF is needed: wire, port and model are those of the cloud.
    """
    from modelyard import api, settings

    as_json = wants_json()

    def ready(server: Server) -> None:
        if as_json:
            print_json({"url": server.url, "models": [_told(server, loaded) for loaded in server.models]})
        else:
            _show(server)

    given = {name: value for name, value in options.items() if value is not None}
    cloud = settings.cloud()
    if cloud is not None:
        given = {**cloud.options, **given}
        refs = refs or ((cloud.folder,) if cloud.folder else ())
    if not refs and not settings.Chosen(given).control:
        raise Usage("which model: REFS are missing", "modelyard serve NAME    (`modelyard models` lists them)")
    api.serve(*refs, trust=trust, on_ready=ready, **given)


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
    versions = server.models
    if len(versions) == 1:
        return "/predict"
    if sum(other.name == loaded.name for other in versions) == 1:
        return f"/models/{loaded.name}/predict"
    return f"/models/{loaded.name}/versions/{loaded.version}/predict"


def _show(server: Server) -> None:
    for loaded in server.models:
        version = f"{loaded.name} version {loaded.version}" if loaded.version else f"{loaded.name}, from a path"
        screen.say(f"serving {version} ({loaded.digest[:19]}…)")
    screen.say(f"at {server.url}; its API is described at {server.url}/openapi.json")
    notes = server.application.notes
    if notes is not None and not notes.is_failing and server.models:
        screen.say(f"recorded in {notes.places.folder}; `modelyard monitor {server.models[0].name}` tells how it does")
    if not server.models or all(wire.name != "native" for wire in server.application.wires):
        return
    loaded = server.models[0]
    screen.say("try:")
    body = shlex.quote(json.dumps(loaded.example, ensure_ascii=False))
    key = '-H "Authorization: Bearer $KEY" ' if server.application.settings.keys else ""
    screen.say(f"  curl {key}-d {body} {server.url}{_path(server, loaded)}")
