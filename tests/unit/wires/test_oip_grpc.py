"""The Open Inference Protocol over gRPC, on bytes: contents of both kinds, streams, and the repository's dialects."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, NotFound, NotReady
from modelyard.interfaces import Served
from modelyard.messages import Batch, Call, Message, Response
from modelyard.schema import Field, Layout, Signature
from modelyard.testing.wires import KitCatalog, KitServed, outputs
from modelyard.wires import Unimplemented
from modelyard.wires.oip.grpc import OipGrpcWire
from modelyard.wires.oip.grpc_codec import OipGrpcCodec, chunk, varint
from modelyard.wires.oip.protos import messages
from modelyard.wires.oip.tensors import TensorRequest

GOLDEN = Path(__file__).parents[2] / "golden" / "oip"
WIRE = OipGrpcWire()
SERVICE = "/inference.GRPCInferenceService/"
PAIR = (Field(name="a", dtype="float64"), Field(name="b", dtype="float64"))
P = messages()


def codec_of(*fields: Field, answers: tuple[Field, ...] | None = None, streamed: bool = False) -> OipGrpcCodec:
    signature = Signature(inputs=fields, outputs=answers or KitServed().signature.outputs)
    call = WIRE.match("POST", SERVICE + ("ModelStreamInfer" if streamed else "ModelInfer"))
    assert call is not None
    return WIRE.codec(call, KitServed(signature=signature))


def raw(*tensors: tuple[str, str, list[int], bytes], **more: Any) -> Any:
    request = P.ModelInferRequest(model_name="kit", **more)
    for name, datatype, shape, data in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(data)
    return request


def typed(name: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    request = P.ModelInferRequest(model_name="kit")
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    for kind, values in contents.items():
        getattr(tensor.contents, kind).extend(values)
    return request


def decode(request: Any, codec: OipGrpcCodec) -> TensorRequest:
    call = WIRE.match("POST", SERVICE + "ModelInfer")
    assert call is not None and call.is_inside
    _, opened = WIRE.address(call, Message(request.SerializeToString()))
    return codec.decode(opened, {})


def blocks(request: TensorRequest) -> list[list[float]]:
    """The rows of a request for two numbers, of either kind."""
    if request.columns is not None:
        found: list[list[float]] = request.columns.blocks[0].tolist()
        return found
    return [list(row) for row in request.tuples or []]


def inform(name: str, request: Any = None, catalog: KitCatalog | None = None, service: str = SERVICE) -> bytes:
    call = WIRE.match("POST", service + name)
    assert call is not None
    data = b"" if request is None else request.SerializeToString()
    message = WIRE.inform(call, Message(data), catalog or KitCatalog())
    assert message.content_type == "application/grpc"
    return message.body


class TestGolden:
    """Messages of stock clients, byte for byte."""

    FIELDS = (Field(name="x1", dtype="float64"), Field(name="x2", dtype="int64"), Field(name="city", dtype="string"))

    @pytest.mark.parametrize(
        ("name", "form", "request_id", "chosen"),
        [
            ("infer", "raw", "42", ("prediction",)), ("infer_defaults", "raw", "", None),
            ("infer_typed", "typed", "42", None),
        ],
    )  # fmt: skip
    def test_what_they_mean(self, name: str, form: str, request_id: str, chosen: tuple[str, ...] | None) -> None:
        body = (GOLDEN / f"{name}.grpc").read_bytes()
        call = WIRE.match("POST", SERVICE + "ModelInfer")
        assert call is not None
        addressed, opened = WIRE.address(call, Message(body))
        assert addressed.model == "m" and addressed.version == ("1" if name == "infer_defaults" else None)
        request = codec_of(*self.FIELDS).decode(opened, {})
        assert (request.form, request.id, request.outputs) == (form, request_id, chosen)
        assert request.columns is not None
        assert [request.columns[field.name].tolist() for field in self.FIELDS] == [
            [1.5, 2.0], [2, 1], ["Rome", "Zürich"],
        ]  # fmt: skip


class TestReading:
    def test_the_call_is_named_inside(self) -> None:
        call = WIRE.match("POST", SERVICE + "ModelInfer")
        assert call is not None
        request = P.ModelInferRequest(model_name="m", model_version="2")
        addressed, _ = WIRE.address(call, Message(request.SerializeToString()))
        assert addressed == Call("predict", "m", "2")
        addressed, _ = WIRE.address(call, Message(b""))
        assert addressed == Call("predict")
        with pytest.raises(InvalidInput, match="ModelInferRequest"):
            WIRE.address(call, Message(b"\xff"))

    @pytest.mark.parametrize("rows", [1, 100])
    def test_raw_contents(self, rows: int) -> None:
        codec = codec_of(*PAIR)
        for value in range(4):  # the third is read as the ones before were
            matrix = np.full((rows, 2), value, "<f4")
            request = decode(raw(("in", "FP32", [rows, 2], matrix.tobytes()), id=str(value)), codec)
            assert blocks(request) == matrix.tolist()
            assert request.id == str(value) and request.form == "raw"
            apart = decode(
                raw(("b", "FP64", [rows], bytes(8 * rows)), ("a", "FP32", [rows, 1], matrix[:, :1].tobytes())), codec
            )
            assert blocks(apart) == [[value, 0]] * rows

    @pytest.mark.parametrize(
        ("dtype", "datatype", "contents"),
        [
            ("bool", "BOOL", {"bool_contents": [True, False]}), ("int8", "INT8", {"int_contents": [127, -128]}),
            ("int16", "INT16", {"int_contents": [2, -3]}), ("int32", "INT32", {"int_contents": [2, -3]}),
            ("int64", "INT64", {"int64_contents": [2**62, -3]}), ("uint8", "UINT8", {"uint_contents": [2, 255]}),
            ("uint16", "UINT16", {"uint_contents": [2, 3]}), ("uint32", "UINT32", {"uint_contents": [2, 2**32 - 1]}),
            ("uint64", "UINT64", {"uint64_contents": [2, 2**64 - 1]}),
            ("float32", "FP32", {"fp32_contents": [1.5, -2]}), ("float64", "FP64", {"fp64_contents": [1.5, -2]}),
            ("string", "BYTES", {"bytes_contents": [b"a", "Zürich".encode()]}),
        ],
        ids=lambda value: value if isinstance(value, str) else "contents",
    )  # fmt: skip
    def test_typed_contents(self, dtype: str, datatype: str, contents: dict[str, list[Any]]) -> None:
        request = decode(typed("x", datatype, [2], **contents), codec_of(Field(name="x", dtype=dtype)))
        (values,) = contents.values()
        expected = [value.decode() for value in values] if datatype == "BYTES" else values
        assert request.columns is not None and request.columns["x"].tolist() == expected
        assert request.form == "typed"

    @pytest.mark.parametrize(
        ("make", "path"),
        [
            (lambda: typed("x", "FP64", [2], fp64_contents=[1]), "inputs[0].contents.fp64_contents"),
            (lambda: typed("x", "FP64", [1], fp32_contents=[1]), "inputs[0].contents.fp64_contents"),
            (lambda: typed("x", "FP64", [1]), "inputs[0].contents.fp64_contents"),
            (lambda: typed("x", "FP16", [1], fp32_contents=[1]), "inputs[0].contents"),
            (lambda: typed("x", "FP64", [1], fp64_contents=[1], fp32_contents=[1]), "inputs[0].contents"),
            (lambda: typed("x", "FP64", [2], fp64_contents=[1, 2], bytes_contents=[b"x"]), "inputs[0].contents"),
            (lambda: typed("x", "INT8", [1], int_contents=[300]), "inputs[0].contents.int_contents"),
            (lambda: typed("x", "FP64", [1], fp64_contents=[float("nan")]), "inputs.x[0]"),
            (lambda: typed("x", "FP64", [1], fp64_contents=[float("inf")]), "inputs.x[0]"),
            (lambda: typed("x", "FP9", [1], fp64_contents=[1]), "inputs[0].datatype"),
            (lambda: typed("x", "FP64", [-1], fp64_contents=[1]), "inputs[0].shape"),
            (lambda: P.ModelInferRequest(model_name="kit"), "inputs.x"),
            (lambda: raw(("x", "FP64", [1], bytes(7))), "inputs[0]"),
            (lambda: raw(("x", "BYTES", [1], bytes(8))), "inputs[0].datatype"),
            (lambda: raw(("x", "FP64", [2**40, 2**40], bytes(8))), "inputs[0].shape"),
        ],
        ids=["too few", "other contents", "none", "FP16", "two kinds", "two kinds more",
             "too large", "NaN", "infinity", "unknown", "negative",
             "no inputs", "cut", "another datatype", "huge"],
    )  # fmt: skip
    def test_malformed(self, make: Callable[[], Any], path: str) -> None:
        field = Field(name="x", dtype="int8" if "int_contents" in path else "float64")
        with pytest.raises(InvalidInput) as caught:
            decode(make(), codec_of(field))
        assert caught.value.problems[0].path == path

    def test_raw_and_typed_contents_exclude_one_another(self) -> None:
        request = raw(("x", "FP64", [1], bytes(8)))
        request.inputs[0].contents.fp64_contents.append(1)
        with pytest.raises(InvalidInput, match=r"inputs\[0\].contents: expected nothing beside raw_input_contents"):
            decode(request, codec_of(Field(name="x", dtype="float64")))

    def test_one_raw_contents_an_input(self) -> None:
        request = raw(("x", "FP64", [1], bytes(8)))
        request.raw_input_contents.append(bytes(8))
        with pytest.raises(InvalidInput, match="raw_input_contents: expected 1, one an input, got 2"):
            decode(request, codec_of(Field(name="x", dtype="float64")))

    def test_parameters(self) -> None:
        request = raw(("in", "FP64", [1, 2], bytes(16)))
        request.parameters["note"].string_param = "a"
        request.parameters["share"].double_param = 0.5
        request.parameters["sequence_id"].int64_param = 4
        assert decode(request, codec_of(*PAIR)).parameters == {"note": "a", "share": 0.5}
        request.parameters["triton_x"].bool_param = True
        with pytest.raises(InvalidInput, match="triton_x"):
            decode(request, codec_of(*PAIR))
        empty = raw(("in", "FP64", [1, 2], bytes(16)))
        empty.parameters["nothing"].SetInParent()
        with pytest.raises(InvalidInput, match=r"parameters\.nothing"):
            decode(empty, codec_of(*PAIR))


class TestAnswers:
    def answer(self, request: Any, codec: OipGrpcCodec, rows: int = 2, start: int = 50) -> Any:
        batch = Batch(outputs(60))
        message = codec.encode(decode(request, codec), Response(batch, start, start + rows, "id-1"))
        assert message.content_type == "application/grpc"
        return P.ModelInferResponse.FromString(message.body)

    def test_raw_is_answered_raw(self) -> None:
        codec = codec_of(*PAIR)
        for rows in (1, 2, 2):
            told = self.answer(raw(("in", "FP64", [1, 2], bytes(16))), codec, rows)
            assert (told.model_name, told.model_version, told.id) == ("kit", "3", "id-1")
            assert [(o.name, o.datatype, list(o.shape)) for o in told.outputs] == [
                ("prediction", "BYTES", [rows]), ("probabilities", "FP64", [rows, 2]),
            ]  # fmt: skip
            texts = b"".join(struct.pack("<I", len(t)) + t for t in (b"no", b"yes")[:rows])
            assert told.raw_output_contents[0] == texts
            assert np.frombuffer(told.raw_output_contents[1]).tolist() == [0.5, 0.5, 0.49, 0.51][: 2 * rows]

    def test_typed_is_answered_typed(self) -> None:
        told = self.answer(typed("in", "FP64", [1, 2], fp64_contents=[1, 2]), codec_of(*PAIR))
        assert not told.raw_output_contents
        assert list(told.outputs[0].contents.bytes_contents) == [b"no", b"yes"]
        assert list(told.outputs[1].contents.fp64_contents) == [0.5, 0.5, 0.49, 0.51]

    def test_typed_contents_of_every_type(self) -> None:
        fields = (
            Field(name="count", dtype="int64"), Field(name="flag", dtype="bool"), Field(name="half", dtype="float16"),
            Field(name="small", dtype="uint8"), Field(name="when", dtype="datetime"),
        )  # fmt: skip
        codec = codec_of(*PAIR, answers=fields)
        values = {"count": [2**62], "flag": [True], "half": [0.5], "small": [255], "when": ["1970-01-02"]}
        batch = Batch(Layout.of(fields).from_arrays(values))
        request = decode(typed("in", "FP64", [1, 2], fp64_contents=[1, 2]), codec)
        told = P.ModelInferResponse.FromString(codec.encode(request, Response(batch, 0, 1, "")).body)
        kinds = ("int64_contents", "bool_contents", "fp32_contents", "uint_contents", "bytes_contents")
        assert [list(getattr(o.contents, kind)) for o, kind in zip(told.outputs, kinds, strict=True)] == [
            [2**62], [True], [0.5], [255], [b"1970-01-02T00:00:00Z"],
        ]  # fmt: skip

    def test_outputs_are_chosen_and_classified(self) -> None:
        request = raw(("in", "FP64", [1, 2], bytes(16)))
        request.outputs.add(name="probabilities").parameters["classification"].int64_param = 1
        told = self.answer(request, codec_of(*PAIR))
        assert [(o.name, o.datatype, list(o.shape)) for o in told.outputs] == [("probabilities", "BYTES", [2, 1])]
        assert told.raw_output_contents[0][4:17] == b"0.500000:0:no"
        request.outputs.add(name="nothing")
        with pytest.raises(InvalidInput, match=r"outputs\[1\].name"):
            decode(request, codec_of(*PAIR))

    def test_the_mark_of_a_last_answer(self) -> None:
        request = raw(("in", "FP64", [1, 2], bytes(16)))
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        assert self.answer(request, codec_of(*PAIR)).parameters["triton_final_response"].bool_param

    def test_a_stream_answers_and_refuses_by_messages(self) -> None:
        call = WIRE.match("POST", SERVICE + "ModelStreamInfer")
        assert call is not None
        addressed, opened = WIRE.address(call, Message(raw(("in", "FP64", [1, 2], bytes(16))).SerializeToString()))
        assert type(addressed) is type(call) and addressed != Call("predict", "kit") and not addressed.is_inside
        codec = WIRE.codec(
            addressed, KitServed(signature=Signature(inputs=PAIR, outputs=KitServed().signature.outputs))
        )
        body = codec.encode(codec.decode(opened, {}), Response(Batch(outputs(1)), 0, 1, "id-1")).body
        assert body[:1] == b"\x12"
        told = P.ModelInferResponse.FromString(body[2:])
        assert told.id == "id-1" and body == chunk(2, told.SerializeToString())
        refusal = WIRE.refuse(addressed, NotFound("no such model: nobody"), "id")
        assert refusal.body == chunk(1, b"no such model: nobody") and refusal.code == "not_found"

    def test_a_refusal(self) -> None:
        refusal = WIRE.refuse(Call("predict"), NotFound("no such model: nobody"), "id")
        assert (refusal.body, refusal.headers["grpc-message"]) == (b"", "no such model: nobody")


class TestInformed:
    def test_health(self) -> None:
        assert P.ServerLiveResponse.FromString(inform("ServerLive")).live
        assert P.ServerReadyResponse.FromString(inform("ServerReady")).ready
        assert not P.ServerReadyResponse.FromString(inform("ServerReady", catalog=KitCatalog(ready=False))).ready
        named = P.ModelReadyRequest(name="kit", version="3")
        assert P.ModelReadyResponse.FromString(inform("ModelReady", named)).ready
        with pytest.raises(NotFound):
            inform("ModelReady", P.ModelReadyRequest(name="nobody"))

        class Loading(KitCatalog):
            def find(self, model: str | None, version: str | None, alias: str | None) -> Served:
                raise NotReady("the models are being loaded")

        assert not P.ModelReadyResponse.FromString(inform("ModelReady", named, Loading())).ready

    def test_metadata_and_configuration(self) -> None:
        assert "statistics" in P.ServerMetadataResponse.FromString(inform("ServerMetadata")).extensions
        told = P.ModelMetadataResponse.FromString(inform("ModelMetadata", P.ModelMetadataRequest(name="kit")))
        assert (told.name, list(told.versions), told.platform) == ("kit", ["3"], "memory")
        assert [(t.name, t.datatype, list(t.shape)) for t in told.outputs] == [
            ("prediction", "BYTES", [-1]), ("probabilities", "FP64", [-1, 2]),
        ]  # fmt: skip
        config = P.ModelConfigResponse.FromString(inform("ModelConfig", P.ModelConfigRequest(name="kit"))).config
        assert [one.data_type for one in config.input] == [12, 13, 12]
        assert config.version_policy.latest.num_versions == 1

    def test_statistics(self) -> None:
        (told,) = P.ModelStatisticsResponse.FromString(inform("ModelStatistics")).model_stats
        assert (told.name, told.inference_count, told.inference_stats.queue.ns) == ("kit", 5, 2_000_000)
        assert [batch.batch_size for batch in told.batch_stats] == [1, 4]

    @pytest.mark.parametrize("service", [SERVICE, "/inference.model_repository.ModelRepositoryService/"])
    def test_the_repository_in_both_layouts(self, service: str) -> None:
        told = P.RepositoryIndexResponse.FromString(inform("RepositoryIndex", service=service)).models
        assert [(one.name, one.version, one.state) for one in told] == [("kit", "3", "READY")]
        for request in (
            P.RepositoryModelLoadRequest(model_name="kit"),
            P.RepositoryModelLoadRequest(repository_name="kit"),
        ):
            loaded = P.RepositoryModelLoadResponse.FromString(inform("RepositoryModelLoad", request, service=service))
            assert (loaded.model_name, loaded.isLoaded) == ("kit", True)
            unloaded = P.RepositoryModelUnloadResponse.FromString(
                inform("RepositoryModelUnload", request, service=service)
            )
            assert (unloaded.model_name, unloaded.isUnloaded) == ("kit", True)
        with pytest.raises(NotFound):
            inform("RepositoryModelLoad", P.RepositoryModelLoadRequest(model_name="nobody"), service=service)
        with pytest.raises(InvalidInput, match="model_name"):
            inform("RepositoryModelLoad", P.RepositoryModelLoadRequest(), service=service)
        described = P.RepositoryModelLoadRequest(model_name="kit")
        described.parameters["config"].SetInParent()
        with pytest.raises(InvalidInput, match=r"parameters\.config"):
            inform("RepositoryModelLoad", described, service=service)

    def test_who_may_ask(self) -> None:
        scopes = {
            name: WIRE.match("POST", SERVICE + name)
            for name in ("ServerLive", "ModelReady", "ModelInfer", "RepositoryModelLoad", "LogSettings")
        }
        assert {name: call.scope for name, call in scopes.items() if call is not None} == {
            "ServerLive": "open", "ModelReady": "open", "ModelInfer": "predict", "RepositoryModelLoad": "admin",
            "LogSettings": "admin",
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting"])
    def test_what_is_known_and_not_answered(self, name: str) -> None:
        with pytest.raises(Unimplemented):
            inform(name)

    def test_what_is_not_ours(self) -> None:
        assert WIRE.match("POST", SERVICE + "Nothing") is None
        assert WIRE.match("GET", SERVICE + "ServerLive") is None


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63 - 1])
def test_varint(number: int) -> None:
    from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[attr-defined]

    assert _DecodeVarint(varint(number), 0) == (number, len(varint(number)))
