"""What a user of MLServer's stubs does. Run by their own interpreter: ``mlserver_client.py PORT``.

The server has the model ``m`` and may load the model ``spare`` (see ``tests/e2e/test_clients_mlserver.py``).
"""

import importlib.util
import struct
import sys
import types

import grpc

# The stubs alone: importing them the usual way imports the whole of the server, which takes seconds.
_FOLDER = importlib.util.find_spec("mlserver").submodule_search_locations[0]
for _name, _path in (("mlserver", _FOLDER), ("mlserver.grpc", f"{_FOLDER}/grpc")):
    sys.modules[_name] = types.ModuleType(_name)
    sys.modules[_name].__path__ = [_path]

from mlserver.grpc import dataplane_pb2 as pb  # noqa: E402
from mlserver.grpc import dataplane_pb2_grpc, model_repository_pb2, model_repository_pb2_grpc  # noqa: E402

TYPED = pb.ModelInferRequest(
    model_name="m",
    id="mine",
    inputs=[
        {"name": "x1", "datatype": "FP64", "shape": [2, 1], "contents": {"fp64_contents": [1.5, 0]}},
        {"name": "x2", "datatype": "INT64", "shape": [2, 1], "contents": {"int64_contents": [2, 3]}},
        {"name": "city", "datatype": "BYTES", "shape": [2, 1], "contents": {"bytes_contents": [b"Rome", b""]}},
    ],
    parameters={"content_type": {"string_param": "pd"}},
)


def fails(code, function, *arguments):
    try:
        function(*arguments)
    except grpc.RpcError as error:
        assert error.code() == code, error
    else:
        raise AssertionError("no error")


with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    service = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert service.ServerReady(pb.ServerReadyRequest()).ready
    assert service.ModelMetadata(pb.ModelMetadataRequest(name="m")).inputs[2].datatype == "BYTES"

    told = service.ModelInfer(TYPED)
    assert told.id == "mine" and not told.raw_output_contents
    assert list(told.outputs[0].contents.fp64_contents) == [421.5, 30.0]
    assert list(told.outputs[1].shape) == [2, 2]

    raw = pb.ModelInferRequest()
    raw.CopyFrom(TYPED)
    for tensor in raw.inputs:
        tensor.ClearField("contents")
    raw.raw_input_contents.extend([struct.pack("<2d", 1.5, 0), struct.pack("<2q", 2, 3), b"\4\0\0\0Rome\0\0\0\0"])
    told = service.ModelInfer(raw)
    assert struct.unpack("<2d", told.raw_output_contents[0]) == (421.5, 30.0)

    raw.inputs[0].CopyFrom(TYPED.inputs[0])
    fails(grpc.StatusCode.INVALID_ARGUMENT, service.ModelInfer, raw)

    for messages, repository in (
        (pb, service),
        (model_repository_pb2, model_repository_pb2_grpc.ModelRepositoryServiceStub(channel)),
    ):
        repository.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="spare"))
        models = repository.RepositoryIndex(messages.RepositoryIndexRequest(ready=True)).models
        assert {model.name for model in models} == {"m", "spare"}
        repository.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="spare"))
        unknown = messages.RepositoryModelLoadRequest(model_name="nobody")
        fails(grpc.StatusCode.NOT_FOUND, repository.RepositoryModelLoad, unknown)
