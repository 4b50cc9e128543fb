"""Server reflection on bytes; real clients of it are in ``tests/e2e/test_clients_grpc.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from modelyard.errors import InvalidInput, NotFound
from modelyard.interfaces import Describes
from modelyard.messages import Message
from modelyard.testing.wires import KitCatalog
from modelyard.wires.health_grpc import HealthGrpcWire
from modelyard.wires.native import NativeWire
from modelyard.wires.oip.grpc import OipGrpcWire
from modelyard.wires.protobuf import Messages
from modelyard.wires.reflection_grpc import ReflectionGrpcWire, _messages
from modelyard.wires.seldon.grpc import SeldonGrpcWire
from modelyard.wires.tfserving.grpc import TensorFlowServingGrpcWire

PATH = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Mine(NativeWire):
    """Describes a message of the same name as another's, and differently."""

    name = "mine-grpc"

    def descriptors(self) -> Sequence[bytes]:
        text = "package inference; service Mine { rpc Do(ModelInferRequest) returns (Done); }"
        return Messages(text + "message ModelInferRequest { string mine = 1; } message Done {}").files


def ask(wire: ReflectionGrpcWire, **question: str) -> Any:
    call = wire.match("POST", PATH)
    assert call is not None and call.scope == "any" and not call.is_watched
    body = _messages().ServerReflectionRequest(**question).SerializeToString()
    answer = wire.inform(call, Message(body), KitCatalog())
    assert answer.content_type == "application/grpc"
    return _messages().ServerReflectionResponse.FromString(answer.body)


def files(answer: Any) -> list[FileDescriptorProto]:
    return [FileDescriptorProto.FromString(each) for each in answer.file_descriptor_response.file_descriptor_proto]


def test_services_of_the_wires_that_there_are() -> None:
    wire = ReflectionGrpcWire([NativeWire(), HealthGrpcWire()])
    told = [each.name for each in ask(wire, list_services="").list_services_response.service]
    assert told == [
        "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    ]  # fmt: skip
    assert ask(wire, file_containing_symbol="inference.ModelInferRequest").error_response.error_code == 5


def test_a_name_that_two_wires_have_means_what_the_first_says() -> None:
    for first, fields in ((Mine(), ["mine"]), (OipGrpcWire(), ["model_name", "model_version", "id"])):
        wire = ReflectionGrpcWire([first, Mine(), OipGrpcWire()])
        (file,) = files(ask(wire, file_containing_symbol="inference.ModelInferRequest"))
        (message,) = [each for each in file.message_type if each.name == "ModelInferRequest"]
        assert [field.name for field in message.field][: len(fields)] == fields
        assert files(ask(wire, file_containing_symbol="inference.Mine.Do"))


@pytest.mark.parametrize("wire", [OipGrpcWire(), SeldonGrpcWire(), TensorFlowServingGrpcWire(), HealthGrpcWire()])
def test_every_method_that_is_described_is_answered_and_the_other_way_round(wire: Any) -> None:
    assert isinstance(wire, Describes)
    described = [FileDescriptorProto.FromString(file) for file in wire.descriptors()]
    paths = {
        f"/{file.package}.{service.name}/{method.name}"
        for file in described
        for service in file.service
        for method in service.method
    }
    calls = {path: wire.match("POST", path) for path in paths}
    assert paths and all(call is not None and call.action != "other" for call in calls.values())
    known = {
        OipGrpcWire: "_PATHS", SeldonGrpcWire: "_CALLS", TensorFlowServingGrpcWire: "_CALLS", HealthGrpcWire: "_CALLS",
    }[type(wire)]  # fmt: skip
    module = __import__(type(wire).__module__, fromlist=[known])
    answered = {path.rpartition("/")[2] for path, call in getattr(module, known).items() if " " not in call.action}
    assert answered == {path.rpartition("/")[2] for path in paths}


def test_types_are_told_in_full_and_as_they_are() -> None:
    described = [FileDescriptorProto.FromString(file) for file in TensorFlowServingGrpcWire().descriptors()]
    by_name = {f"{file.package}.{message.name}": message for file in described for message in file.message_type}
    tensor = {field.name: field for field in by_name["tensorflow.TensorProto"].field}
    assert tensor["float_val"].type == FieldDescriptorProto.TYPE_FLOAT
    assert tensor["double_val"].label == FieldDescriptorProto.LABEL_REPEATED
    assert tensor["tensor_shape"].type_name == ".tensorflow.TensorShapeProto"
    assert described[2].dependency == ["google.protobuf.proto", "tensorflow.proto"]


def test_streams_are_told_as_such() -> None:
    (file,) = [FileDescriptorProto.FromString(file) for file in HealthGrpcWire().descriptors()]
    check, watch = file.service[0].method
    assert (check.client_streaming, check.server_streaming) == (False, False)
    assert (watch.client_streaming, watch.server_streaming) == (False, True)


def test_a_message_that_is_none() -> None:
    wire = ReflectionGrpcWire([])
    call = wire.match("POST", PATH)
    assert call is not None
    with pytest.raises(InvalidInput, match="ServerReflectionRequest"):
        wire.inform(call, Message(b"\xff"), KitCatalog())


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", PATH + "s"), ("POST", "/grpc.reflection.v2.X/Y")])
def test_other_methods_are_none_of_its_own(method: str, path: str) -> None:
    assert ReflectionGrpcWire([]).match(method, path) is None


def test_a_refusal() -> None:
    refusal = ReflectionGrpcWire([]).refuse(None, NotFound("no", hint="ask"), "id")
    assert (refusal.body, refusal.code, refusal.headers) == (b"", "not_found", {"grpc-message": "no (hint: ask)"})
