"""The Open Inference Protocol over REST.

    POST /v2/models/{model}[/versions/{version}]/infer
    GET  /v2   /v2/health/live   /v2/health/ready   /v2/models   /v2/models/stats
    GET  /v2/models/{model}[/versions/{version}]   .../ready   .../config   .../stats
    POST /v2/repository/index   /v2/repository/models/{model}/load   .../unload

A server is ready once every declared model is. Answers are the union of what Triton's and KServe's clients read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.errors import InvalidInput
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call, Message
from modelyard.wires import Unimplemented, code_of, segments, told
from modelyard.wires.oip import about
from modelyard.wires.oip.codec import OipCodec

_encode = msgspec.json.encode


class OipWire:
    """See the module."""

    name = "oip"
    prefix = "/v2"

    def match(self, method: str, path: str) -> Call | None:
        if not path.startswith("/v2"):
            return None
        parts = segments(path)
        if parts[0] != "v2":
            return None
        if method == "POST":
            found = _posted(parts[1:])
        elif method == "GET":
            found = _gotten(parts[1:])
        else:
            found = None
        return found or _unanswered(method, parts[1:])

    def codec(self, call: Call, served: Served) -> OipCodec:
        return OipCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        return Message(_encode(self._inform(call, message, catalog)))

    def _inform(self, call: Call, message: Message, catalog: Catalog) -> Any:
        match call.action:
            case "server":
                return about.server()
            case "live":
                return {"live": True}
            case "ready":
                about.check_ready(catalog)
                return {"ready": True}
            case "models":
                return {"models": list(dict.fromkeys(served.name for served in catalog.models()))}
            case "model_ready":
                return {"name": about.ready_model(catalog, call.model, call.version).name, "ready": True}
            case "model":
                return about.model(catalog, catalog.find(call.model, call.version, None))
            case "config":
                return about.config(catalog.find(call.model, call.version, None))
            case "stats":
                return about.statistics(catalog, call.model, call.version)
            case "index":
                return about.index(catalog, only_ready=_object_in(message, '{"ready": true}').get("ready") is True)
            case "load" | "unload":
                check_repository(_object_in(message, '{"parameters": {}}').get("parameters"))
                return _change(catalog, call)
        raise Unimplemented(call.action)  # which says what it is: see ``_unanswered``

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(_encode({"error": told(error)}), code=code_of(error))


def _posted(parts: tuple[str, ...]) -> Call | None:
    match parts:
        case ("models", model, "infer"):
            return Call("predict", model)
        case ("models", model, "versions", version, "infer"):
            return Call("predict", model, version)
        case ("repository", "index"):
            return Call("index")
        case ("repository", "models", model, "load" | "unload" as action):
            return Call(action, model, scope="admin", is_slow=True)
    return None


def _gotten(parts: tuple[str, ...]) -> Call | None:
    match parts:
        case ():
            return Call("server")
        case ("health", "live" | "ready" as which):
            return Call(which, scope="open")
        case ("models",):
            return Call("models")
        case ("models", "stats"):
            return Call("stats")
        case ("models", model):
            return Call("model", model)
        case ("models", model, "ready"):
            return Call("model_ready", model, scope="open")
        case ("models", model, "config" | "stats" as action):
            return Call(action, model)
        case ("models", model, "versions", version):
            return Call("model", model, version)
        case ("models", model, "versions", version, "ready"):
            return Call("model_ready", model, version, scope="open")
        case ("models", model, "versions", version, "config" | "stats" as action):
            return Call(action, model, version)
    return None


def _unanswered(method: str, parts: tuple[str, ...]) -> Call | None:
    """Calls that the protocol has and this server does not answer; the action says why."""
    match method, parts:
        case ("GET" | "POST", ("logging",)):
            return Call("the log is set by the settings of this server, see: modelyard settings", scope="admin")
        case ("GET" | "POST", ("trace", "setting") | ("models", _, "trace", "setting")):
            return Call("traces are set by the settings of this server, see: modelyard settings", scope="admin")
        case ("GET" | "POST", ("systemsharedmemory" | "cudasharedmemory", *_)):
            return Call("this server takes no tensors in shared memory: send them as binary tensors", scope="admin")
        case ("POST", ("repository", _, "index") | ("repository", _, "models", _, "load" | "unload")):
            return Call("this server has one repository: leave its name out of the path", scope="admin")
        case ("POST", ("models", _, "generate" | "generate_stream")):
            return Call("models of rows generate no text: ask .../infer")
    return None


def _object_in(message: Message, example: str) -> dict[str, Any]:
    """The JSON object in a body that may be empty."""
    if not message.body.strip():
        return {}
    try:
        return msgspec.json.decode(message.body, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput.at("body", f"nothing, or a JSON object such as {example}", str(error)) from None


def check_repository(parameters: Any) -> None:
    """Raise where what is to be loaded is described in the request rather than found in the registry."""
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise InvalidInput.at("parameters", "an object", str(parameters)[:40])
    for name in parameters:
        if name != "unload_dependents":
            raise InvalidInput.at(
                f"parameters.{name}", "no parameters: models are found in the registry", "one",
                hint="register the model, then load it by its name",
            )  # fmt: skip


def _change(catalog: Catalog, call: Call) -> dict[str, Any]:
    """Load or unload; the answer is KServe's, and Triton's clients look at the status only."""
    assert call.model is not None
    if call.action == "load":
        catalog.load(call.model)
    else:
        catalog.unload(call.model)
    return {"name": call.model, call.action: True}
