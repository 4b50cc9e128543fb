"""Server reflection: what services there are and what their messages look like, for ``grpcurl`` and its like.

Both of its names, ``grpc.reflection.v1`` and ``v1alpha``, mean the same. Descriptors are those that the wires have:
of what this server reads and writes. An answer holds a file, and then those that it imports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

from modelyard.errors import InvalidInput
from modelyard.interfaces import Catalog, Codec, Describes, Served, Wire
from modelyard.messages import Call, Message
from modelyard.wires import code_of, told
from modelyard.wires.protobuf import Messages

_SERVICE = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"
_VERSIONS = ("v1", "v1alpha")
_PATHS = frozenset(_SERVICE.format(version) for version in _VERSIONS)

_TEXT = """
package grpc.reflection.%s;

service ServerReflection {
  rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse);
}
message ServerReflectionRequest {
  string host = 1;
  oneof message_request {
    string file_by_filename = 3;
    string file_containing_symbol = 4;
    ExtensionRequest file_containing_extension = 5;
    string all_extension_numbers_of_type = 6;
    string list_services = 7;
  }
}
message ExtensionRequest { string containing_type = 1; int32 extension_number = 2; }
message ServerReflectionResponse {
  string valid_host = 1;
  ServerReflectionRequest original_request = 2;
  oneof message_response {
    FileDescriptorResponse file_descriptor_response = 4;
    ExtensionNumberResponse all_extension_numbers_response = 5;
    ListServiceResponse list_services_response = 6;
    ErrorResponse error_response = 7;
  }
}
message FileDescriptorResponse { repeated bytes file_descriptor_proto = 1; }
message ExtensionNumberResponse { string base_type_name = 1; repeated int32 extension_number = 2; }
message ListServiceResponse { repeated ServiceResponse service = 1; }
message ServiceResponse { string name = 1; }
message ErrorResponse { int32 error_code = 1; string error_message = 2; }
"""

#: Statuses of gRPC, which errors in answers have.
_INVALID_ARGUMENT, _NOT_FOUND = 3, 5


@cache
def _messages(version: str = "v1") -> Messages:
    return Messages(_TEXT % version)


class ReflectionGrpcWire:
    """Tells of ``wires``, as far as they describe themselves, and of itself."""

    name = "reflection-grpc"
    prefix = "/grpc.reflection."

    def __init__(self, wires: Sequence[Wire]) -> None:
        self._wires = wires

    def match(self, method: str, path: str) -> Call | None:
        return Call("reflect", scope="any") if method == "POST" and path in _PATHS else None

    def codec(self, call: Call, served: Served) -> Codec:
        raise NotImplementedError("this wire predicts nothing")

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        from google.protobuf.message import DecodeError

        known = _messages()
        try:
            request = known.ServerReflectionRequest.FromString(message.body)
        except DecodeError as error:
            raise InvalidInput.at("message", "a ServerReflectionRequest in protobuf", str(error)) from None
        answer = known.ServerReflectionResponse(valid_host=request.host, original_request=request)
        self._fill(answer, request)
        return Message(answer.SerializeToString(), content_type="application/grpc")

    def _fill(self, answer: Any, request: Any) -> None:
        kind = request.WhichOneof("message_request")
        found: list[bytes] | None = None
        if kind == "list_services":
            for name in self._described.services:
                answer.list_services_response.service.add(name=name)
            return
        if kind == "file_by_filename":
            found = self._described.file(request.file_by_filename)
        elif kind == "file_containing_symbol":
            found = self._described.file_of(request.file_containing_symbol)
        if found is not None:
            answer.file_descriptor_response.file_descriptor_proto.extend(found)
            return
        error = answer.error_response
        if kind is None:
            error.error_code, error.error_message = _INVALID_ARGUMENT, "the request asks for nothing"
        elif kind in ("file_by_filename", "file_containing_symbol"):
            error.error_code, error.error_message = _NOT_FOUND, f"nothing is called so: {getattr(request, kind)}"
        else:
            error.error_code, error.error_message = _NOT_FOUND, "no message here has extensions"

    @cached_property
    def _described(self) -> _Described:
        return _Described([wire.descriptors() for wire in (*self._wires, self) if isinstance(wire, Describes)])

    def descriptors(self) -> Sequence[bytes]:
        return [file for version in _VERSIONS for file in _messages(version).files]

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(b"", {"grpc-message": told(error)}, code_of(error), "application/grpc")


class _Described:
    """Descriptors, in a pool for each wire: two need not agree on what a name means."""

    def __init__(self, wires: Sequence[Sequence[bytes]]) -> None:
        from google.protobuf.descriptor_pool import DescriptorPool

        self.services: list[str] = []
        self._pools: list[Any] = []
        for files in wires:
            pool = DescriptorPool()
            for file in files:
                described = pool.AddSerializedFile(file)
                self.services += [service.full_name for service in described.services_by_name.values()]
            self._pools.append(pool)

    def file(self, name: str) -> list[bytes] | None:
        """The file of this name and those that it imports; None where there is none."""
        return self._first(lambda pool: pool.FindFileByName(name))

    def file_of(self, symbol: str) -> list[bytes] | None:
        """The same for the file in which a service, a method, a message or an enum is."""
        service, _, method = symbol.rpartition(".")

        def find(pool: Any) -> Any:
            try:
                return pool.FindFileContainingSymbol(symbol)
            except KeyError:
                return pool.FindServiceByName(service).methods_by_name[method].containing_service.file

        return self._first(find)

    def _first(self, find: Callable[[Any], Any]) -> list[bytes] | None:
        for pool in self._pools:
            try:
                file = find(pool)
            except KeyError:
                continue
            return [file.serialized_pb, *(imported.serialized_pb for imported in _imports(file).values())]
        return None


def _imports(file: Any) -> dict[str, Any]:
    """Whatever a file imports, directly or not, by name."""
    found: dict[str, Any] = {}
    for each in file.dependencies:
        found |= {each.name: each} | _imports(each)
    return found
