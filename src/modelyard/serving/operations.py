"""The wire of those who run a server: health, metrics, and the description of its API."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from modelyard.interfaces import Catalog, Codec, Served
from modelyard.messages import Call, Message
from modelyard.prometheus import Page, form
from modelyard.wires import segments
from modelyard.wires.native import NativeWire

_encode = msgspec.json.encode


class OperationsWire:
    """``/health/live``, ``/health/ready``, ``/metrics`` and ``/openapi.json``."""

    name = "operations"
    prefix = "/health"

    def __init__(
        self,
        metrics: Callable[[], Page],
        troubles: Callable[[], dict[str, str]],
        *,
        watched: Callable[[], Page] | None = None,
        is_terse: bool = False,
        wants_keys: bool = False,
    ) -> None:
        self._metrics = metrics
        #: What others than servers count, of the same registry.
        self._watched = watched
        #: What else is wrong, by what it is about.
        self._troubles = troubles
        #: Readiness says yes or no, and keeps models and reasons to itself.
        self._is_terse = is_terse
        self._wants_keys = wants_keys
        self._native = NativeWire()

    def match(self, method: str, path: str) -> Call | None:
        if method != "GET":
            return None
        match segments(path):
            case ("health", "live" | "ready" as which):
                return Call(which, scope="open")
            case ("metrics",):
                return Call("metrics", scope="admin", is_lengthy=self._watched is not None)
            case ("openapi.json",):
                return Call("openapi")
        return None

    def codec(self, call: Call, served: Served) -> Codec:
        raise NotImplementedError("this wire predicts nothing")

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "live":
            return Message(b'{"live":true}')
        if call.action == "metrics":
            kind, page = form(message.headers.get("accept", "")), self._metrics()
            if self._watched is not None:
                page.extend(self._watched())
            return Message(page.text(kind).encode(), content_type=kind)
        if call.action == "openapi":
            from modelyard.serving import openapi

            return Message(_encode(openapi.describe(catalog, wants_keys=self._wants_keys)))
        return self._ready(catalog)

    def _ready(self, catalog: Catalog) -> Message:
        told: dict[str, object] = {"ready": catalog.ready}
        if not self._is_terse:
            told["models"] = [
                {"name": served.name, "version": served.version, "aliases": served.aliases, "digest": served.digest}
                for served in catalog.models()
            ]
            faults = catalog.faults()
            if faults:
                told["faults"] = faults
            told |= self._troubles()
        return Message(_encode(told), code="ok" if catalog.ready else "not_ready")

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return self._native.refuse(call, error, request_id)
