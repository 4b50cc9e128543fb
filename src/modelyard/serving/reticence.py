"""What answers keep to themselves in production: errors say what kind they are, and where, but not why.

The log has the rest, under the id of the request, which every answer carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modelyard.errors import InvalidInput, ModelyardError, Problem
from modelyard.interfaces import Addresses, Catalog, Codec, Served, State, Wire
from modelyard.messages import Call, Message

#: Code -> all that is told. Errors of other codes speak of the request and not of models: their message is told.
TOLD = {
    "not_found": "no such path, model or version",
    "conflict": "it is in another state",
    "refused": "not allowed",
    "not_ready": "not ready",
    "overloaded": "too busy",
    "model_failed": "the model failed",
    "bad_bundle": "something went wrong inside the server",
    "missing_dependency": "something went wrong inside the server",
    "remote_failed": "something went wrong inside the server",
    "no_room": "no room",
}


def quieted(error: Exception) -> Exception:
    """An error of the same kind that tells no schema, no names that the caller did not send, and no reasons."""
    if isinstance(error, InvalidInput):
        # A path is the caller's own where something was sent there; what is missing has its name from the schema.
        sent = [problem.path for problem in error.problems if not problem.got.startswith(("nothing", "missing"))]
        paths = ", ".join(dict.fromkeys(sent))
        told = f"the input does not fit: {paths}" if paths else "the input does not fit"
        return type(error)(told, problems=[Problem(path, "", "") for path in sent])
    if isinstance(error, ModelyardError):
        return type(error)(TOLD.get(error.code, error.message))
    return error


class Discreet:
    """A ``Catalog`` that gives no reasons for what is not served."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.models = catalog.models
        self.find = catalog.find
        self.stats = catalog.stats
        self.label = catalog.label
        self.load = catalog.load
        self.unload = catalog.unload
        self.replace = catalog.replace

    @property
    def ready(self) -> bool:
        return self._catalog.ready

    @property
    def draining(self) -> bool:
        return self._catalog.draining

    def faults(self) -> dict[str, str]:
        return dict.fromkeys(self._catalog.faults(), "not ready")

    def states(self) -> Sequence[State]:
        return [
            msgspec.structs.replace(state, reason="", error=state.error and quieted(state.error))
            for state in self._catalog.states()
        ]


class Reticent:
    """A ``Wire`` whose refusals are quieted."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.name = wire.name
        self.prefix = wire.prefix
        if isinstance(wire, Addresses):
            self.address = wire.address

    def match(self, method: str, path: str) -> Call | None:
        return self._wire.match(method, path)

    def codec(self, call: Call, served: Served) -> Codec:
        return self._wire.codec(call, served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        return self._wire.inform(call, message, catalog)

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return self._wire.refuse(call, quieted(error), request_id)
