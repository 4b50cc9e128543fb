"""Web pages of other origins that may call this server (CORS, as the Fetch standard has it).

A browser asks before it lets a page call: that is answered for whatever path, and needs no key. Every other answer says
whether the page may read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.interfaces import Wire
from modelyard.messages import Message
from modelyard.serving.calls import Exchange
from modelyard.serving.metrics import Metrics
from modelyard.serving.routing import Endpoint
from modelyard.telemetry import Log

_METHOD, _HEADERS = "access-control-request-method", "access-control-request-headers"


class Origins:
    """Those that are ``allowed``: ``https://shop.example``, ``shop.example`` for any scheme, or ``*`` for all."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._is_open = "*" in allowed
        self._allowed = frozenset(allowed)

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin, as browsers tell it, may call."""
        told = origin.lower()
        return bool(told) and (self._is_open or told in self._allowed or told.partition("://")[2] in self._allowed)

    def asks(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether a browser asks, for a page that may call."""
        return method == "OPTIONS" and _METHOD in headers and self.allows(headers.get("origin", ""))

    def headers(self, asked: Mapping[str, str]) -> list[tuple[str, str]]:
        """What the answer to a request with these headers has beside its own."""
        if self._is_open:
            return [("access-control-allow-origin", "*")]
        origin = asked.get("origin", "")
        allowed = [("access-control-allow-origin", origin)] if self.allows(origin) else []
        return [("vary", "origin"), *allowed]


class Preflight(Endpoint):
    """Answers a browser that asks: what the path takes may be sent, with any headers."""

    def __init__(self, wire: Wire, methods: Sequence[str], metrics: Metrics, log: Log) -> None:
        super().__init__(wire, None, metrics, log)
        self._methods = ", ".join(methods)

    def accept(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        told = {"access-control-allow-methods": self._methods}
        if _HEADERS in headers:
            told["access-control-allow-headers"] = headers[_HEADERS]
        exchange.answer(Message(b"", told, content_type="text/plain; charset=utf-8"))
