"""Modelyard as an ASGI app: ``app.mount("/ml", modelyard.asgi.app("churn@production"))``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelyard.serving.asgi import AsgiApp


def app(*refs: str, trust: Iterable[str] = (), **options: Any) -> AsgiApp:
    """An ASGI app that serves what ``refs`` name; options are those of ``modelyard.serve``, but for its sockets.

    Its models are loaded with the life of the application that it is, or with the first request.
    """
    from modelyard.api import trusting
    from modelyard.companion import accompany
    from modelyard.scraping import Watched

    watched = Watched(options.get("registry"))
    return AsgiApp(refs, accompany=accompany, watched=watched, trust=trusting(trust), **options)
