"""What stands before every page, socket and operation: origin first, then who it is."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, quote

from modelyard.console.door import COOKIE, LASTS, Door, check_origin, session_in
from modelyard.errors import ModelyardError, Refused, Unauthenticated

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Nothing comes from elsewhere, and nobody puts our pages in frames of theirs.
_HEADERS = [
    (b"x-frame-options", b"DENY"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"),
]  # fmt: skip


class Guard:
    """See the module. Wraps an application; answers ``/login`` and ``/logout`` itself."""

    def __init__(self, app: App, door: Door, *, is_local: bool) -> None:
        self._app = app
        self._door = door
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        try:
            check_origin(headers, is_local=self._is_local)
            if path == "/login" and self._door.wants_keys:
                await self._login(scope, receive, send)
                return
            if path == "/logout":
                self._door.leave(session_in(headers))
                await _send(send, 303, b"", [(b"location", f"{root}/login".encode()), _cookie("", 0, scope)])
                return
            if not path.startswith("/api/"):  # the API says itself what it lacks
                await asyncio.to_thread(self._door.visitor, headers)
        except ModelyardError as error:
            await self._refuse(scope, send, error)
            return
        await self._app(scope, receive, _marked(send) if scope["type"] == "http" else send)

    async def _refuse(self, scope: Scope, send: Send, error: ModelyardError) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401 if isinstance(error, Unauthenticated) else 4403})
        elif isinstance(error, Unauthenticated):
            where = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
            target = f"{scope.get('root_path', '')}/login?next={quote(where)}"
            await _send(send, 303, b"", [(b"location", target.encode())])
        else:
            status = 403 if isinstance(error, Refused) else 502
            await _send(send, status, _page(error.message, error.hint).encode())

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = parse_qs(scope["query_string"].decode("latin-1")).get("next", ["/"])[0]
        # Only places of ours: "//host" would be another's.
        target = wanted if wanted.startswith("/") and wanted[1:2] not in ("/", "\\") else "/"
        if scope["method"] != "POST":
            await _send(send, 200, _page("", "").encode())
            return
        body = b""
        while len(body) < 10_000:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        key = parse_qs(body.decode("latin-1")).get("key", [""])[0]
        try:
            session = await asyncio.to_thread(self._door.enter, key.strip())
        except (Unauthenticated, Refused) as error:
            await _send(send, 401, _page(error.message, error.hint).encode())
            return
        await _send(
            send, 303, b"", [(b"location", quote(target, safe="/?=&%:,+").encode()), _cookie(session, LASTS, scope)]
        )


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers of a request by their names in small letters."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _cookie(session: str, seconds: float, scope: Scope) -> tuple[bytes, bytes]:
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    told = f"{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={int(seconds)}{secure}"
    return b"set-cookie", told.encode()


def _marked(send: Send) -> Send:
    async def marked(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return marked


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    told = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": [*told, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})


def _page(message: str, hint: str) -> str:
    """The log-in, with what was wrong before. It needs no script."""
    text = files("modelyard.console").joinpath("login.html").read_text(encoding="utf-8")
    fault = f'<p role="alert">{html.escape(message)}</p><pre>{html.escape(hint)}</pre>' if message else ""
    return text.replace("<!-- fault -->", fault)
