"""The REST admin API, as an ASGI application: ``GET <prefix>/overview``, ``POST <prefix>/models/churn/promote`` ...

Operations may wait for a database, so that each runs in a thread. Who calls is known to whoever mounts this: ``caller``
says so of a request's scope, or raises Unauthenticated or Refused.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from modelyard.admin.openapi import ErrorAnswer, Fault, describe
from modelyard.admin.operation import Operation
from modelyard.admin.table import OPERATIONS
from modelyard.errors import InvalidInput, ModelyardError, NotFound
from modelyard.registry import Registry
from modelyard.registry.records import acting
from modelyard.serving.listener import STATUS
from modelyard.telemetry import Log

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Who calls, as history names them, where this may call operations of that scope ("" where no keys are asked for).
Caller = Callable[[Scope, str], str]

#: Bytes of a body.
MOST_BODY = 1 << 20


class AdminApi:
    """See the module."""

    def __init__(
        self, registry: Registry, caller: Caller, *, prefix: str = "", wants_keys: bool = False, log: Log | None = None
    ) -> None:  # fmt: skip
        self._registry = registry
        self._caller = caller
        self._prefix = prefix
        self._wants_keys = wants_keys
        self._log = log or Log("info")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, body = 200, await self._answer(scope, receive)
        except ModelyardError as error:
            problems = error.problems if isinstance(error, InvalidInput) else ()
            status = STATUS.get(error.code, 500)
            body = ErrorAnswer(Fault(error.code, error.message, error.hint, problems))
        except Exception as error:  # a bug of ours: told here, with all that there is, and to the caller without
            self._log.write(
                "error", "an operation failed", path=scope["path"], error=error, trace=traceback.format_exc()
            )
            self._log.flush()
            status, body = 500, ErrorAnswer(Fault("internal", "an error of Modelyard; its log tells more"))
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": encode(body)})

    async def _answer(self, scope: Scope, receive: Receive) -> Any:
        segments = _segments(scope, scope.get("root_path", "") + self._prefix)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method == "GET" and segments == ["openapi.json"]:
            await asyncio.to_thread(self._caller, scope, "view")
            return describe(OPERATIONS, scope.get("root_path", "") + self._prefix, wants_keys=self._wants_keys)
        operation, said = _find(method, segments)
        who = await asyncio.to_thread(self._caller, scope, operation.scope)
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        arguments = operation.read({**dict(query), **said}, await _body(receive))
        with acting(who):  # a thread that is started here takes the context along
            return await asyncio.to_thread(operation.function, self._registry, **arguments)


def _segments(scope: Scope, root: str) -> list[str]:
    """The path below ``root``, each part decoded by itself: an id may hold what parts a path, or looks like a code."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    parts = [unquote(part) for part in raw.decode("latin-1").strip("/").split("/")]
    return parts[root.count("/") :] if scope["path"].startswith(root) else parts


def _find(method: str, segments: list[str]) -> tuple[Operation, dict[str, str]]:
    for operation in OPERATIONS:
        said = operation.match(method, segments)
        if said is not None:
            return operation, said
    raise NotFound(f"no such operation: {method} /{'/'.join(segments)}", hint="openapi.json lists them")


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            raise InvalidInput.at("body", f"at most {MOST_BODY} bytes", "more")
        if not message.get("more_body"):
            break
    return b"".join(parts)


def encode(answer: Any) -> bytes:
    """An answer as JSON, which knows no NaN: what is missing is null."""
    return msgspec.json.encode(finite(msgspec.to_builtins(answer, str_keys=True, enc_hook=_plain)))


def finite(value: Any) -> Any:
    """``value`` with None for numbers that are none."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
