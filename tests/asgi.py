"""Ask an ASGI application without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import unquote


def ask(
    app: Any, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, root: str = ""
) -> tuple[int, Any]:  # fmt: skip
    """The status of an answer, and what its JSON says. ``body``: bytes as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    place, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": unquote(place), "raw_path": place.encode(), "root_path": root,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }  # fmt: skip
    parts = [data[at : at + 65_536] for at in range(0, len(data), 65_536)] or [b""]
    coming = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
    sent: list[Any] = []

    async def receive() -> Any:
        return coming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(each.get("body", b"") for each in sent[1:]))
