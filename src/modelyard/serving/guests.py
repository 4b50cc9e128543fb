"""What requests of other frameworks have in common: targets below a prefix, headers in, status and headers out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from urllib.parse import quote

from modelyard.messages import Message
from modelyard.serving.compression import inflate
from modelyard.serving.limits import TooLarge, is_request_id
from modelyard.serving.listener import STATUS

#: What may stand in a path as it is.
_SAFE = "/:@!$&'()*+,;=~-._"

_PREFIX = os.urandom(6).hex()
_COUNT = itertools.count(1)


def target_of(path: str, query: str) -> str:
    """The request's target below the prefix, from a path that a framework has decoded."""
    encoded = quote(path if path.startswith("/") else "/" + path, safe=_SAFE)
    return f"{encoded}?{query}" if query else encoded


def id_of(headers: Mapping[str, str]) -> str:
    """The caller's own id for its request where it can be taken over, else one that is unique."""
    given = headers.get("x-request-id", "")
    return given if is_request_id(given) else f"{_PREFIX}-{os.getpid():x}-{next(_COUNT):x}"


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


def answer_of(message: Message, request_id: str) -> tuple[int, list[tuple[str, str]]]:
    """The status and the headers with which a framework sends a message."""
    status = STATUS.get(message.code, 500)
    headers = [
        ("content-type", message.content_type),
        ("content-length", str(len(message.body))),
        ("x-request-id", request_id),
        *message.headers.items(),
    ]
    if status in (429, 503) and "retry-after" not in message.headers:
        headers.append(("retry-after", "1"))
    return status, headers
