"""What mounts in other frameworks have in common: targets below a prefix, headers in, status and headers out, and
processes that count together.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard import settings
from modelyard.errors import ModelyardError, NotReady
from modelyard.messages import Message
from modelyard.serving.application import Application
from modelyard.serving.compression import inflate
from modelyard.serving.limits import TooLarge, is_request_id
from modelyard.serving.listener import STATUS
from modelyard.serving.tracing import Trace

if TYPE_CHECKING:
    from modelyard.serving.siblings import Siblings

#: What may stand in a path as it is.
_SAFE = "/:@!$&'()*+,;=~-._"

#: Seconds in which a process that could not load the models says so without trying again.
RETRY_SECONDS = 5.0

#: Has what an application notes recorded, by a process beside it: the application, and the registry that it was given.
Accompany = Callable[[Application, Any], None]

_PREFIX = os.urandom(6).hex()
_COUNT = itertools.count(1)


class GuestApplication(Application):
    """An application in a process of somebody else's server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._siblings: Siblings | None = None
        if folder := self.settings.metrics_folder:
            from modelyard.serving.siblings import Siblings

            self._siblings = self.metrics.board = Siblings(Path(folder).expanduser())
            self.metrics.adopt(self._siblings.inherited)

    def tend(self) -> None:
        """Once a second: write the log, and tell the other processes what was counted here."""
        self.log.flush()
        self.metrics.publish()

    def close(self) -> None:
        if self._siblings is not None:
            self.metrics.publish()
            self._siblings.close()
            self._siblings = self.metrics.board = None
        super().close()


def target_of(path: str, query: str) -> str:
    """The request's target below the prefix, from a path that a framework has decoded."""
    return f"{_encoded(path)}?{query}" if query else _encoded(path)


@lru_cache(maxsize=1024)
def _encoded(path: str) -> str:
    return quote(path if path.startswith("/") else "/" + path, safe=_SAFE)


def id_of(headers: Mapping[str, str]) -> str:
    """The caller's own id for its request where it can be taken over, else one that is unique."""
    given = headers.get("x-request-id")
    return given if given and is_request_id(given) else f"{_PREFIX}-{os.getpid():x}-{next(_COUNT):x}"


def check_length(headers: Mapping[str, str], most: int) -> None:
    """Raise TooLarge for a body that says that it is, before it is read."""
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large(most)


def plain_body(body: bytes, headers: Mapping[str, str], most: int) -> bytes:
    """The body without its content encoding. Raises what a listener would refuse it with."""
    if len(body) > most:
        raise too_large(most)
    coding = headers.get("content-encoding")
    if not coding:
        return body
    plain = inflate(body, coding, most)
    if plain is None:
        raise too_large(most)
    return plain


def too_large(most: int) -> TooLarge:
    """The refusal of a body above ``most`` bytes."""
    hint = "send fewer rows at once, or set MODELYARD_MAX_BODY for the server"
    return TooLarge(f"the body is larger than {most} bytes", hint=hint)


def unserved(error: ModelyardError, request_id: str, options: Mapping[str, Any]) -> Message:
    """What a request is told where the models could not be loaded: the reason, but not in production."""
    from modelyard.wires.native import NativeWire

    if settings.get("production", options.get("production")):
        told = NotReady("the models cannot be served", hint="the log of the server says why")
    else:
        told = NotReady(f"the models cannot be served: {error.message}", hint=error.hint)
    return NativeWire().refuse(None, told, request_id)


def answer_of(message: Message, request_id: str, trace: Trace | None = None) -> tuple[int, list[tuple[str, str]]]:
    """The status and the headers with which a framework sends a message."""
    status = STATUS.get(message.code, 500)
    headers = [
        ("content-type", message.content_type),
        ("content-length", str(len(message.body))),
        ("x-request-id", request_id),
        *message.headers.items(),
    ]
    if trace is not None:
        headers.append(("traceresponse", trace.response))
    if status in (429, 503) and "retry-after" not in message.headers:
        headers.append(("retry-after", "1"))
    return status, headers
