"""Modelyard as a WSGI app: below a prefix of another WSGI app, or by itself under any WSGI server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from modelyard.serving.wsgi import WsgiApp


def app(*refs: str, wait: bool = True, trust: Iterable[str] = (), **options: Any) -> WsgiApp:
    """A WSGI app that serves what ``refs`` name; options are those of ``modelyard.serve``, but for its sockets.

    Loads the models now, and raises what stands in the way; with ``wait=False`` it loads them beside.
    """
    from modelyard.api import trusting
    from modelyard.companion import accompany
    from modelyard.scraping import Watched

    watched = Watched(options.get("registry"))
    return WsgiApp(refs, wait=wait, accompany=accompany, watched=watched, trust=trusting(trust), **options)


def mounted(outer: Callable[..., Any], prefix: str, inner: WsgiApp) -> Callable[..., Any]:
    """``outer`` with ``inner`` in front of it for everything below ``prefix``: ``/ml`` takes ``/ml/predict``.

    The way of least cost: what goes to the models never reaches the framework's own routing.
    """
    # WSGI has paths as bytes of UTF-8 in a text of Latin-1.
    start = f"/{prefix.strip('/')}".rstrip("/").encode().decode("latin-1")

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(start) and path[len(start) : len(start) + 1] in ("", "/"):
            below = {**environ, "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + start, "PATH_INFO": path[len(start) :]}
            return inner(below, start_response)
        return outer(environ, start_response)

    return application
