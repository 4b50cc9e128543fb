"""What stock tools of gRPC do, by grpcio and its companions: ``grpc_client.py PORT CASE [WORD ...]``.

Run by its own interpreter. The server has the model ``m`` of the inputs x1 and x2.
"""

import sys
import threading

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PORT, CASE, *WORDS = sys.argv[1:]
OIP = "inference.GRPCInferenceService"


def watch(channel):
    """Watch each of the WORDS: a line for each status, ``NAME STATUS``, and one at the end, ``NAME ended CODE``."""
    told = threading.Lock()

    def say(*words):
        with told:
            print(*words, flush=True)

    def follow(name):
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
        try:
            for answer in call:
                say(name, health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
        except grpc.RpcError:
            pass
        say(name, "ended", call.code().name)

    threads = [threading.Thread(target=follow, args=(name,)) for name in WORDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def leave(channel):
    """Watch what the server is, three hundred times over ten times, and leave again."""
    stub = health_pb2_grpc.HealthStub(channel)
    for _ in range(10):
        calls = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(200)]
        assert all(next(call).status == health_pb2.HealthCheckResponse.SERVING for call in calls)
        for call in calls:
            call.cancel()
    assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def reflect(channel):
    """Call a method of which nothing is known but what the server tells."""
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert services == {
        OIP, "inference.model_repository.ModelRepositoryService", "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService", "seldon.protos.Seldon", "seldon.protos.Model", "seldon.protos.Generic",
        "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    }, services  # fmt: skip
    pool = DescriptorPool(database)
    for name in services:
        for method in pool.FindServiceByName(name).methods:
            GetMessageClass(method.input_type)()
            GetMessageClass(method.output_type)()
    infer = pool.FindServiceByName(OIP).methods_by_name["ModelInfer"]
    request = GetMessageClass(infer.input_type)(model_name="m")
    for name, value in (("x1", 1.0), ("x2", 2.0)):
        one = request.inputs.add(name=name, datatype="FP64", shape=[1])
        one.contents.fp64_contents.append(value)
    call = channel.unary_unary(
        f"/{OIP}/ModelInfer", request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(infer.output_type).FromString,
    )  # fmt: skip
    assert list(call(request).outputs[0].contents.fp64_contents) == [6.0]
    floats = pool.FindMessageTypeByName("tensorflow.TensorProto").fields_by_name["float_val"]
    assert floats.type == floats.TYPE_FLOAT and floats.is_repeated
    for symbol in ("inference.Nothing", f"{OIP}.Nothing", "", "inference"):
        try:
            pool.FindFileContainingSymbol(symbol)
        except KeyError:
            continue
        raise AssertionError(symbol)


def ask_each(channel):
    """Every kind of question, by both names of the service, in one stream each."""
    ask = reflection_pb2.ServerReflectionRequest
    extension = reflection_pb2.ExtensionRequest(containing_type="inference.ModelInferRequest", extension_number=7)
    questions = [
        ask(host="here", list_services=""),
        ask(file_by_filename="seldon.protos.proto"),
        ask(file_containing_symbol=f"{OIP}.ModelInfer"),
        ask(file_containing_symbol="inference.ModelInferRequest.InferInputTensor"),
        ask(file_by_filename="nothing.proto"),
        ask(file_containing_symbol="no.such.Thing"),
        ask(file_containing_extension=extension),
        ask(all_extension_numbers_of_type="inference.ModelInferRequest"),
        ask(),
    ]
    newer = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=ask.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    for method in (newer, reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo):
        answers = list(method(iter(questions)))
        assert [answer.original_request for answer in answers] == questions
        assert answers[0].valid_host == "here" and answers[0].list_services_response.service
        files = [list(answer.file_descriptor_response.file_descriptor_proto) for answer in answers]
        assert len(files[1]) == 2 and b"seldon.protos" in files[1][0]  # it imports another
        assert files[2] == files[3] and len(files[2]) == 1
        codes = [answer.error_response.error_code for answer in answers]
        assert codes == [0, 0, 0, 0, 5, 5, 5, 5, 3], codes


def absent(channel):
    """A server that was told not to, or wants a key: the code that is the first of the WORDS."""
    metadata = [("authorization", f"Bearer {WORDS[1]}")] if WORDS[1:] else None
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    try:
        answers = list(stub.ServerReflectionInfo(iter([question]), metadata=metadata))
    except grpc.RpcError as error:
        assert error.code().name == WORDS[0], error
    else:
        assert WORDS[0] == "OK" and answers[0].list_services_response.service, answers


if __name__ == "__main__":
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as opened:
        globals()[CASE](opened)
