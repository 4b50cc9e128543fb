"""The wire of those who ask why: how requests were joined, and the bounds of it, which may be changed live.

GET /debug/batching            every loaded version
GET /debug/batching/{model}    one model
GET /debug/limits   PATCH /debug/limits {"batch_rows": 64}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from modelyard.errors import InvalidInput, NotFound
from modelyard.interfaces import Catalog, Codec, Served
from modelyard.messages import Call, Message
from modelyard.serving.batching import Limits, explain
from modelyard.serving.engine import Lane
from modelyard.wires import segments
from modelyard.wires.native import NativeWire

_encode = msgspec.json.encode


class DebugWire:
    """See the module. ``lanes`` tells of every lane; ``change`` puts new limits in force."""

    name = "debug"
    prefix = "/debug"

    def __init__(
        self, lanes: Callable[[], list[Lane]], limits: Limits, change: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._lanes = lanes
        self._limits = limits
        self._change = change
        self._native = NativeWire()

    def match(self, method: str, path: str) -> Call | None:
        match method, segments(path):
            case "GET", ("debug", "batching"):
                return Call("batching", scope="admin")
            case "GET", ("debug", "batching", model):
                return Call("batching", model, scope="admin")
            case "GET", ("debug", "limits"):
                return Call("limits", scope="admin")
            case "PATCH", ("debug", "limits"):
                return Call("change", scope="admin", is_slow=True)
        return None

    def codec(self, call: Call, served: Served) -> Codec:
        raise NotImplementedError("this wire predicts nothing")

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "batching":
            return Message(_encode({"batching": self._batching(call.model)}))
        if call.action == "change":
            self._change(read_changes(message.body))
        return Message(_encode(self._limits))

    def _batching(self, model: str | None) -> list[dict[str, Any]]:
        lanes = self._lanes()
        found = [explain(lane) for lane in lanes if model in (None, lane.loaded.name)]
        if model is not None and not found:
            raise NotFound.among("model", model, {lane.loaded.name for lane in lanes})
        return found

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return self._native.refuse(call, error, request_id)


def read_changes(body: bytes) -> dict[str, int | float]:
    """New limits from a JSON object. Raises InvalidInput that names the limit at fault."""
    try:
        told: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput.at("body", 'a JSON object such as {"batch_rows": 1024}', str(error)) from None
    known = {field.name: field.type for field in msgspec.structs.fields(Limits)}
    for name, value in told.items():
        if name not in known:
            raise InvalidInput.at(name, f"one of {', '.join(known)}", "an unknown limit")
        is_whole = known[name] is int
        fits = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
        if not fits or not 0 < value < float("inf"):
            raise InvalidInput.at(name, f"a {'whole ' if is_whole else ''}number above 0", repr(value))
    return told


def apply_changes(limits: Limits, told: Mapping[str, Any]) -> None:
    """Put new limits in force; they count from the next call on."""
    for name, value in told.items():
        setattr(limits, name, value)
