"""The console as an application, on a port of its own or mounted in another."""

from __future__ import annotations

import importlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from modelyard import settings
from modelyard.errors import MissingDependency, Refused, RemoteFailed
from modelyard.serving.gate import is_loopback
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from fastapi import FastAPI

    from modelyard.registry import Registry

#: How long a page whose connection broke is kept as it was, with what was typed into it.
RECONNECT_SECONDS = 30.0

#: Each is imported for its pages.
_PAGES = (
    "overview", "model", "endpoint", "try_it", "monitoring", "findings", "predictions", "prediction", "alerts", "alert",
    "jobs", "settings", "nowhere",
)  # fmt: skip


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
    ui.run_with(
        app, title="Modelyard", favicon="🏗️", dark=None, show_welcome_message=False, language="en-US",
        reconnect_timeout=RECONNECT_SECONDS,
    )  # fmt: skip
    app.add_middleware(Guard, door=door, is_local=is_local)
    return app


def mount(host: FastAPI, path: str, registry: Registry, *, keys: bool) -> None:
    """Answer below ``path`` of somebody's own application, a FastAPI's or Starlette's, from when it starts to its end.

    Without ``keys`` whoever reaches the application may do everything: it has to decide who does.
    """
    inner = application(registry, keys=keys, is_local=False)
    outer = host.router.lifespan_context

    @asynccontextmanager
    async def both(app: FastAPI) -> AsyncIterator[Any]:
        async with inner.router.lifespan_context(inner), outer(app) as state:
            yield state

    host.router.lifespan_context = both
    host.mount(path, inner)


def run(registry: Registry, *, ready: Callable[[str], None] | None = None, **given: Any) -> None:
    """Answer until Ctrl-C or SIGTERM. ``given``: the settings ``host``, ``console_port``, ``keys``, ``public``,
    ``tls_certificate`` and ``tls_key``. ``ready`` is told the address.

    Raises Refused for an address that others reach where nobody has to log in and nobody said so.
    """
    import uvicorn

    chosen = settings.Chosen(given)
    with _bound(chosen.host, chosen.console_port) as listening:
        address, port = listening.getsockname()[:2]
        is_local = is_loopback(address)
        if not (is_local or chosen.keys or chosen.public):
            raise Refused(
                f"whoever reaches {address} could do everything in this console: it asks for no key",
                hint="modelyard console ... --keys      (and `modelyard keys create NAME --scope admin`)\n"
                "modelyard console ... --public    (where something in front of it decides who may look)",
            )
        app = application(registry, keys=chosen.keys, is_local=is_local and not chosen.keys)
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=2, ssl_certfile=chosen.tls_certificate or None,
            ssl_keyfile=chosen.tls_key or None,
        )  # fmt: skip
        server = uvicorn.Server(config)
        listening.listen()  # who calls from now on waits until the pages are there
        if ready is not None:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
            scheme = "https" if chosen.tls_certificate else "http"
            ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        server.run(sockets=[listening])


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
        except OSError as error:
            hint = "modelyard console --port 0 picks a free one"
            raise RemoteFailed(f"cannot listen at {host}:{port}: {error.strerror or error}", hint=hint) from error
        yield made
