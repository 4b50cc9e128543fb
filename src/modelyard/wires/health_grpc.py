"""The health of the server over gRPC, as ``grpc.health.v1`` has it: for probes of Kubernetes, proxies and clients.

A service is the server as a whole (""), one of its services by the name that gRPC has for it, or a model by its own.
``Check`` is answered once, ``Watch`` again whenever the status is another one. What nobody knows is an error for the
first and a status for the second, because it may come.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from modelyard.errors import InvalidInput, NotFound, NotReady
from modelyard.interfaces import Catalog, Codec, Served, Wire
from modelyard.messages import Call, Message
from modelyard.wires import code_of, told
from modelyard.wires.protobuf import Messages

_SERVICE = "grpc.health.v1.Health"

_TEXT = """
package grpc.health.v1;

service Health {
  rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
  rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
}
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse {
  enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
  ServingStatus status = 1;
}
"""

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3

_CALLS = {"Check": Call("check", scope="open"), "Watch": Call("watch", scope="open", is_watched=True)}


@cache
def _messages() -> Messages:
    return Messages(_TEXT)


class HealthGrpcWire:
    """``Check`` and ``Watch``, for a server that speaks ``wires``."""

    name = "health-grpc"
    prefix = f"/{_SERVICE}/"

    def __init__(self, wires: Sequence[Wire] = ()) -> None:
        own = [wire.prefix for wire in wires if wire.name.endswith("-grpc") and wire.prefix]
        self._prefixes = (self.prefix, *own)

    def match(self, method: str, path: str) -> Call | None:
        return _CALLS.get(path.removeprefix(self.prefix)) if method == "POST" and path.startswith(self.prefix) else None

    def codec(self, call: Call, served: Served) -> Codec:
        raise NotImplementedError("this wire predicts nothing")

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        from google.protobuf.message import DecodeError

        try:
            service = _messages().HealthCheckRequest.FromString(message.body).service
        except DecodeError as error:
            raise InvalidInput.at("message", "a HealthCheckRequest in protobuf", str(error)) from None
        try:
            status = _SERVING if self._is_serving(service, catalog) else _NOT_SERVING
        except NotFound:
            if call.action == "check":
                raise
            status = _SERVICE_UNKNOWN
        answer = _messages().HealthCheckResponse(status=status)
        return Message(answer.SerializeToString(), content_type="application/grpc")

    def _is_serving(self, service: str, catalog: Catalog) -> bool:
        """Whether a service can be asked now. Raises NotFound where there is none."""
        if not service or f"/{service}/".startswith(self._prefixes):
            return catalog.ready
        try:
            return catalog.find(service, None, None).is_alive and not catalog.draining
        except NotReady:
            return False
        except NotFound:
            if any(state.model == service and state.state != "unloaded" for state in catalog.states()):
                return False  # it is on its way, or stands in its own way
            hint = 'ask for "", for a service of gRPC or for a model by its name'
            raise NotFound(f"no such service: {service}", hint=hint) from None

    def descriptors(self) -> Sequence[bytes]:
        return _messages().files

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(b"", {"grpc-message": told(error)}, code_of(error), "application/grpc")
