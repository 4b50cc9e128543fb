"""The Open Inference Protocol over gRPC: ``inference.GRPCInferenceService``, and MLServer's service for its repository.

A request with raw contents is answered raw, one with typed contents typed. A stream answers each of its messages by
one of its own, as Triton does: an error is a message too, and the stream goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from modelyard.errors import InvalidInput, NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call, Message
from modelyard.wires import Unimplemented, code_of, told
from modelyard.wires.oip import about
from modelyard.wires.oip.grpc_codec import OipGrpcCodec, chunk
from modelyard.wires.oip.protos import messages
from modelyard.wires.oip.rest import check_repository

_SERVICE = "/inference.GRPCInferenceService/"


class Streamed(Call, frozen=True, gc=False):
    """A call by one message of a stream."""


#: Methods of the service, and the calls that they mean.
_CALLS = {
    "ModelInfer": Call("predict", is_inside=True),
    "ModelStreamInfer": Streamed("predict", is_inside=True),
    "ServerLive": Call("live", scope="open"),
    "ServerReady": Call("ready", scope="open"),
    "ModelReady": Call("model_ready", scope="open"),
    "ServerMetadata": Call("server"),
    "ModelMetadata": Call("model"),
    "ModelConfig": Call("config"),
    "ModelStatistics": Call("stats"),
}

_REPOSITORY = {
    "RepositoryIndex": Call("index"),
    "RepositoryModelLoad": Call("load", scope="admin", is_slow=True),
    "RepositoryModelUnload": Call("unload", scope="admin", is_slow=True),
}

_UNANSWERED = {
    f"{kind}SharedMemory{verb}": Call("this server takes no tensors in shared memory: send raw contents", scope="admin")
    for kind in ("System", "Cuda")
    for verb in ("Status", "Register", "Unregister")
} | {
    name: Call("logs and traces are set by the settings of this server, see: modelyard settings", scope="admin")
    for name in ("TraceSetting", "LogSettings")
}

_PATHS = {_SERVICE + name: call for name, call in (_CALLS | _REPOSITORY | _UNANSWERED).items()} | {
    f"/inference.model_repository.ModelRepositoryService/{name}": call for name, call in _REPOSITORY.items()
}


class OipGrpcWire:
    """See the module."""

    name = "oip-grpc"
    prefix = "/inference."

    def match(self, method: str, path: str) -> Call | None:
        return _PATHS.get(path) if method == "POST" else None

    def address(self, call: Call, message: Message) -> tuple[Call, Any]:
        request = _parsed("ModelInferRequest", message)
        return type(call)("predict", request.model_name or None, request.model_version or None), request

    def codec(self, call: Call, served: Served) -> OipGrpcCodec:
        return OipGrpcCodec(served, is_streamed=isinstance(call, Streamed))

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        answer = _ANSWERS.get(call.action)
        if answer is None:
            raise Unimplemented(call.action)
        request, response, function = answer
        from google.protobuf.json_format import ParseDict

        values = function(_parsed(request, message), catalog)
        # Unknown fields: what only REST tells.
        filled = ParseDict(values, getattr(messages(), response)(), ignore_unknown_fields=True)
        return Message(filled.SerializeToString(), content_type="application/grpc")

    def descriptors(self) -> Sequence[bytes]:
        return messages().files

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        text = told(error)
        if isinstance(call, Streamed):
            return Message(chunk(1, text.encode()), code=code_of(error), content_type="application/grpc")
        return Message(b"", {"grpc-message": text}, code_of(error), "application/grpc")


def _parsed(name: str, message: Message) -> Any:
    parse, fault = _parser(name)
    try:
        return parse(message.body)
    except fault as error:
        raise InvalidInput.at("message", f"a {name} in protobuf", str(error)) from None


@cache
def _parser(name: str) -> tuple[Callable[[bytes], Any], type[Exception]]:
    """What reads a message, and what it raises."""
    from google.protobuf.message import DecodeError

    return getattr(messages(), name).FromString, DecodeError


def _ready(request: Any, catalog: Catalog) -> Any:
    return {"ready": catalog.ready}


def _model_ready(request: Any, catalog: Catalog) -> Any:
    try:
        about.ready_model(catalog, request.name or None, request.version or None)
    except NotReady:
        return {"ready": False}
    return {"ready": True}


def _found(request: Any, catalog: Catalog) -> Served:
    return catalog.find(request.name or None, request.version or None, None)


def _load(request: Any, catalog: Catalog) -> Any:
    name = _changed(request)
    catalog.load(name)
    return {"model_name": name, "isLoaded": True}


def _unload(request: Any, catalog: Catalog) -> Any:
    name = _changed(request)
    catalog.unload(name)
    return {"model_name": name, "isUnloaded": True}


def _changed(request: Any) -> str:
    """The model that is to be loaded or unloaded, in either layout."""
    check_repository(dict(request.parameters))
    name: str = request.model_name or request.repository_name
    if not name:
        raise InvalidInput.at("model_name", "the name of a model", "nothing")
    return name


_Function = Callable[[Any, Catalog], Any]

#: What answers each action: the messages asked with and answered, and the values of the answer.
_ANSWERS: dict[str, tuple[str, str, _Function]] = {
    "live": ("ServerLiveRequest", "ServerLiveResponse", lambda request, catalog: {"live": True}),
    "ready": ("ServerReadyRequest", "ServerReadyResponse", _ready),
    "model_ready": ("ModelReadyRequest", "ModelReadyResponse", _model_ready),
    "server": ("ServerMetadataRequest", "ServerMetadataResponse", lambda request, catalog: about.server()),
    "model": (
        "ModelMetadataRequest",
        "ModelMetadataResponse",
        lambda request, catalog: about.model(catalog, _found(request, catalog)),
    ),
    "config": (
        "ModelConfigRequest",
        "ModelConfigResponse",
        lambda request, catalog: {"config": about.config(_found(request, catalog))},
    ),
    "stats": (
        "ModelStatisticsRequest",
        "ModelStatisticsResponse",
        lambda request, catalog: about.statistics(catalog, request.name or None, request.version or None),
    ),
    "index": (
        "RepositoryIndexRequest",
        "RepositoryIndexResponse",
        lambda request, catalog: {"models": about.index(catalog, only_ready=request.ready)},
    ),
    "load": ("RepositoryModelLoadRequest", "RepositoryModelLoadResponse", _load),
    "unload": ("RepositoryModelUnloadRequest", "RepositoryModelUnloadResponse", _unload),
}
