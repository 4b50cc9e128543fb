"""What is shown at an address that no page has."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from nicegui import Client, app, ui

from modelyard.console import widgets
from modelyard.console.view import View, frame
from modelyard.errors import NotFound


@app.exception_handler(404)
async def nowhere(request: Request, error: Exception) -> Response:
    """The frame, so that one finds back; of what pages load, a line."""
    path = request.url.path
    if "/_nicegui/" in path:
        return PlainTextResponse(f"not found: {path}", 404)
    with Client(ui.page(""), request=request) as client:
        ui.page_title("No such page – Modelyard")
        with frame(View(), ""):
            widgets.heading("No such page")
            widgets.failure(NotFound(f"no page has the address {path}"), again=False)
            ui.link("To the overview", "/").classes("y-link")
    return client.build_response(request, 404)
