"""The console as an application, on a port of its own or mounted in another."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modelyard.errors import MissingDependency, Refused, RemoteFailed
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from fastapi import FastAPI

    from modelyard.registry import Registry

#: Each is imported for its pages.
_PAGES = ("overview", "model", "endpoint", "try_it", "jobs", "settings")


def application(registry: Registry, *, keys: bool, is_local: bool = True, log: Log | None = None) -> FastAPI:
    """The console as an ASGI application: pages at ``/``, the admin API at ``/api``.

    ``keys``: whether visitors have to log in. ``is_local``: whether only this machine is to reach it. One process has
    one console, as the framework of its pages knows no more. Raises MissingDependency without the extra ``console``.
    """
    try:
        from fastapi import FastAPI
        from nicegui import ui
    except ImportError:
        raise MissingDependency.extra("nicegui", "console", "the console") from None
    from modelyard.admin.api import AdminApi
    from modelyard.console import view
    from modelyard.console.door import Door
    from modelyard.console.guard import Guard, headers_of

    log = log or Log("info")
    door = Door(registry, wants_keys=keys)

    def caller(scope: Any, wanted: str) -> str:
        visitor = door.visitor(headers_of(scope))
        if wanted == "admin" and not visitor.may_act:
            raise Refused("this key allows to look only", hint="modelyard keys create NAME --scope admin")
        return visitor.name

    view.settle(view.House(registry, door, log))
    for name in _PAGES:
        importlib.import_module(f"modelyard.console.{name}")
    app = FastAPI(title="Modelyard", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/api", AdminApi(registry, caller, wants_keys=keys, log=log))
    ui.run_with(app, title="Modelyard", favicon="🏗️", dark=None, show_welcome_message=False, language="en-US")
    app.add_middleware(Guard, door=door, is_local=is_local)
    return app


def run(registry: Registry, *, host: str, port: int, keys: bool, public: bool, ready: Any = None) -> None:
    """Answer at ``host:port`` until Ctrl-C or SIGTERM.

    Raises Refused for an address that others reach, where nobody has to log in and nobody said so.
    """
    import ipaddress
    import socket

    app_is_local = ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    if not app_is_local and not keys and not public:
        raise Refused(
            f"whoever reaches {host} could do everything in this console: it asks for no key",
            hint="modelyard console ... --keys    (and `modelyard keys create NAME --scope admin`)",
        )
    app = application(registry, keys=keys, is_local=app_is_local and not keys)
    import uvicorn

    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise RemoteFailed(
                f"cannot listen at {host}:{port}: {error.strerror}", hint="modelyard console --port 0 picks a free one"
            ) from error
        listening.listen()  # who calls from now on waits until the pages are there
        if ready is not None:
            ready(f"http://{host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])
