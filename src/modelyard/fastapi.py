"""Modelyard inside a FastAPI (or Starlette) application.

app.include_router(modelyard.fastapi.router("churn@production"), prefix="/ml")

app.mount("/ml", modelyard.asgi.app("churn@production"))     # the same as an app of its own
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from modelyard import asgi
from modelyard.errors import MissingDependency

if TYPE_CHECKING:
    from fastapi import APIRouter


def router(*refs: str, trust: Iterable[str] = (), **options: Any) -> APIRouter:
    """A router that answers every path below its prefix as a server of ``refs`` would.

    The models are loaded when the application starts, and what stands in the way ends the start. Options as for
    ``modelyard.serve``.
    """
    try:
        from fastapi import APIRouter
    except ImportError as error:
        raise MissingDependency.extra("fastapi", "fastapi", "modelyard.fastapi") from error
    served = asgi.app(*refs, trust=trust, **options)
    made = APIRouter(lifespan=served.lifespan)
    made.add_route("/{modelyard_path:path}", served, include_in_schema=False)  # type: ignore[arg-type]
    made.modelyard = served  # type: ignore[attr-defined]  # for those who want to stop it
    return made
