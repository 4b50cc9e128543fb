"""Binary tensors over REST: every datatype both ways, raw requests, carriers, and all that is malformed."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.messages import Batch, Call, Message, Response
from modelyard.schema import Columns, Field, Layout, Signature
from modelyard.testing.wires import KitServed, columns_of, outputs
from modelyard.wires.oip import OipWire
from modelyard.wires.oip.codec import OipCodec
from modelyard.wires.oip.tensors import TensorRequest

LENGTH = "inference-header-content-length"
PAIR = (Field(name="a", dtype="float64"), Field(name="b", dtype="float64"))


def codec_of(*fields: Field, answers: tuple[Field, ...] | None = None) -> OipCodec:
    signature = Signature(inputs=fields, outputs=answers or KitServed().signature.outputs)
    return OipWire().codec(Call("predict"), KitServed(signature=signature))


def tensor(name: str, datatype: str, shape: list[int], size: int | None = None, **more: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "datatype": datatype, "shape": shape, **parameters, **more}


def message(tail: bytes, *tensors: dict[str, Any], **more: Any) -> tuple[bytes, dict[str, str]]:
    head = json.dumps({"inputs": tensors, **more}).encode()
    return head + tail, {LENGTH: str(len(head))}


def columns(codec: OipCodec, tail: bytes, *tensors: dict[str, Any], **more: Any) -> Columns:
    return columns_in(codec.decode(*message(tail, *tensors, **more)), codec)


def columns_in(request: TensorRequest, codec: OipCodec) -> Columns:
    """The rows of a request of either kind as columns."""
    if request.columns is not None:
        return request.columns
    assert request.tuples is not None
    return codec._inputs.layout.from_tuples(request.tuples)


def framed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


class TestReading:
    @pytest.mark.parametrize(
        ("dtype", "datatype", "values", "stored"),
        [
            ("float64", "FP64", np.array([1.5, -2], "<f8"), [1.5, -2]),
            ("float64", "FP32", np.array([1.5, -2], "<f4"), [1.5, -2]),
            ("float32", "FP64", np.array([1.5, -2], "<f8"), [1.5, -2]),
            ("float16", "FP16", np.array([1.5, -2], "<f2"), [1.5, -2]),
            ("float64", "FP16", np.array([1.5, -2], "<f2"), [1.5, -2]),
            ("float64", "BF16", np.array([0x3FC0, 0xC000], "<u2"), [1.5, -2]),
            ("float64", "UINT8", np.array([1, 255], "u1"), [1, 255]),
            ("float64", "INT64", np.array([1, -(2**40)], "<i8"), [1, -(2**40)]),
            ("int64", "INT64", np.array([2**62, -1], "<i8"), [2**62, -1]),
            ("int64", "UINT64", np.array([2**62, 1], "<u8"), [2**62, 1]),
            ("uint64", "UINT64", np.array([2**64 - 1, 1], "<u8"), [2**64 - 1, 1]),
            ("int8", "INT64", np.array([127, -128], "<i8"), [127, -128]),
            ("uint16", "INT32", np.array([65535, 0], "<i4"), [65535, 0]),
            ("bool", "BOOL", np.array([1, 0], "u1"), [True, False]),
        ],
        ids=lambda value: "values" if isinstance(value, (np.ndarray, list)) else value,
    )
    def test_every_datatype(self, dtype: str, datatype: str, values: Any, stored: list[Any]) -> None:
        codec = codec_of(Field(name="x", dtype=dtype))
        data = values.tobytes()
        for shape in ([2], [2, 1]):
            got = columns(codec, data, tensor("x", datatype, shape, len(data)))
            assert got["x"].tolist() == stored
            assert got["x"].dtype == dtype

    @pytest.mark.parametrize(
        ("field", "texts", "stored"),
        [
            (Field(name="x", dtype="string"), [b"Z\xc3\xbcrich", b""], ["Zürich", ""]),
            (Field(name="x", dtype="string", nullable=True), [b"", b"a"], [None, "a"]),
            (Field(name="x", dtype="datetime"), [b"1970-01-02", b"1970-01-01T00:00:01Z"], [86400, 1]),
        ],
        ids=["text", "nullable text", "moment"],
    )
    def test_texts(self, field: Field, texts: list[bytes], stored: list[Any]) -> None:
        data = framed(*texts)
        assert columns(codec_of(field), data, tensor("x", "BYTES", [2], len(data)))["x"].tolist() == stored

    def test_an_empty_text_is_a_missing_moment(self) -> None:
        codec = codec_of(Field(name="x", dtype="datetime", nullable=True))
        assert np.isnan(columns(codec, framed(b""), tensor("x", "BYTES", [1], 4))["x"][0])

    @pytest.mark.parametrize("rows", [1, 3, 100])
    def test_one_matrix_for_all(self, rows: int) -> None:
        matrix = np.arange(rows * 2, dtype="<f4").reshape(rows, 2)
        got = columns(codec_of(*PAIR), matrix.tobytes(), tensor("in", "FP32", [rows, 2], matrix.nbytes))
        assert got.blocks[0].tolist() == matrix.tolist()

    @pytest.mark.parametrize("rows", [1, 3, 100])
    def test_columns_in_any_order(self, rows: int) -> None:
        a, b = np.arange(rows, dtype="<f8"), np.arange(rows, dtype="<f8") + 0.5
        got = columns(
            codec_of(*PAIR), b.tobytes() + a.tobytes(), tensor("b", "FP64", [rows], rows * 8),
            tensor("a", "FP64", [rows, 1], rows * 8),
        )  # fmt: skip
        assert got["a"].tolist() == a.tolist() and got["b"].tolist() == b.tolist()
        assert got.blocks[0].flags.c_contiguous

    def test_columns_of_two_types_and_shapes(self) -> None:
        fields = (
            Field(name="v", dtype="float32", shape=(2, -1)), Field(name="n", dtype="int16", nullable=True),
            Field(name="x", dtype="float64"), Field(name="word", dtype="string"),
        )  # fmt: skip
        values = np.arange(12, dtype="<f4").reshape(2, 2, 3)
        tail = values.tobytes() + framed(b"a", b"bc") + np.array([1, 2], "<i8").tobytes()
        tail += np.array([7, np.nan], "<f4").tobytes()
        got = columns(
            codec_of(*fields), tail, tensor("v", "FP32", [2, 2, 3], 48), tensor("word", "BYTES", [2], 11),
            tensor("x", "INT64", [2], 16), tensor("n", "FP32", [2], 8),
        )  # fmt: skip
        assert got["v"].tolist() == values.tolist() and got["word"].tolist() == ["a", "bc"]
        assert got["x"].tolist() == [1, 2] and got["n"][0] == 7 and np.isnan(got["n"][1])

    @pytest.mark.parametrize("size", range(8))
    def test_bytes_that_lie_unaligned_are_copied(self, size: int) -> None:
        codec = codec_of(*PAIR)
        got = columns(codec, np.ones(4).tobytes(), tensor("in", "FP64", [2, 2], 32), id="x" * size)
        assert got.blocks[0].flags.aligned and got.blocks[0].tolist() == [[1, 1], [1, 1]]

    def test_tensors_in_json_beside_it(self) -> None:
        got = columns(
            codec_of(*PAIR, Field(name="c", dtype="string")), np.array([1.5, 2.5]).tobytes(),
            tensor("c", "BYTES", [2], data=["x", "y"]), tensor("b", "FP64", [2], 16),
            tensor("a", "FP64", [2], data=[0, 1]),
        )  # fmt: skip
        assert got["a"].tolist() == [0, 1] and got["b"].tolist() == [1.5, 2.5] and got["c"].tolist() == ["x", "y"]

    def test_a_description_that_comes_again_reads_other_bytes(self) -> None:
        codec = codec_of(*PAIR)
        for value in range(5):
            got = columns(codec, np.full(2, value, "<f8").tobytes(), tensor("in", "FP64", [1, 2], 16))
            assert got.blocks[0].tolist() == [[value, value]]
        with pytest.raises(InvalidInput, match="expected 16 bytes of binary tensors, as their sizes say, got 15"):
            columns(codec, bytes(15), tensor("in", "FP64", [1, 2], 16))
        with pytest.raises(InvalidInput, match="a number"):
            columns(codec, np.full(2, np.nan).tobytes(), tensor("in", "FP64", [1, 2], 16))

    def test_a_tensor_without_elements(self) -> None:
        codec = codec_of(Field(name="v", dtype="float64", shape=(-1,)))
        assert columns(codec, b"", tensor("v", "FP64", [2, 0], 0))["v"].shape == (2, 0)

    def test_missing_and_infinite_numbers(self) -> None:
        maybe = Field(name="a", dtype="float64", nullable=True)
        codec = codec_of(maybe, PAIR[1])
        got = columns(codec, np.array([np.nan, 1]).tobytes(), tensor("in", "FP64", [1, 2], 16))
        assert np.isnan(got["a"][0])
        for values, path in (([1, np.nan], "inputs.b"), ([np.inf, 1], "inputs.a"), ([1, -np.inf], "inputs.b")):
            with pytest.raises(InvalidInput) as caught:
                columns(codec, np.array(values).tobytes(), tensor("in", "FP64", [1, 2], 16))
            assert caught.value.problems[0].path == f"{path}[0]"

    def test_a_number_too_large_for_its_field(self) -> None:
        codec = codec_of(Field(name="x", dtype="float32"))
        with pytest.raises(InvalidInput, match=r"inputs.x\[1\]: expected a number that fits float32"):
            columns(codec, np.array([1, 1e300]).tobytes(), tensor("x", "FP64", [2], 16))


MALFORMED: dict[str, tuple[bytes, list[dict[str, Any]], str]] = {
    "too few bytes": (bytes(7), [tensor("x", "FP64", [1], 8)], "body"),
    "bytes left over": (bytes(9), [tensor("x", "FP64", [1], 8)], "body"),
    "a size of another shape": (bytes(8), [tensor("x", "FP64", [2], 8)], "inputs[0]"),
    "a size of another datatype": (bytes(8), [tensor("x", "FP32", [1], 8)], "inputs[0]"),
    "a negative size": (bytes(8), [tensor("x", "FP64", [1], -8)], "inputs[0].parameters.binary_data_size"),
    "a size that is a text": (
        bytes(8), [tensor("x", "FP64", [1], parameters={"binary_data_size": "8"})],
        "inputs[0].parameters.binary_data_size",
    ),
    "a size that is true": (
        bytes(1), [tensor("x", "FP64", [1], parameters={"binary_data_size": True})],
        "inputs[0].parameters.binary_data_size",
    ),
    "a size and data": (bytes(8), [tensor("x", "FP64", [1], 8, data=[1])], "inputs[0]"),
    "neither size nor data": (b"", [tensor("x", "FP64", [1])], "inputs[0].data"),
    "an unknown datatype": (bytes(8), [tensor("x", "FP8", [8], 8)], "inputs[0].datatype"),
    "another datatype": (bytes(8), [tensor("x", "BYTES", [1], 8)], "inputs[0].datatype"),
    "a negative dimension": (bytes(8), [tensor("x", "FP64", [-1], 8)], "inputs[0].shape"),
    "no rows": (b"", [tensor("x", "FP64", [0], 0)], "inputs[0].shape"),
    "no shape": (bytes(8), [tensor("x", "FP64", [], 8)], "inputs[0].shape"),
    "a huge shape": (bytes(8), [tensor("x", "FP64", [2**62], 8)], "inputs[0]"),
    "a huge size": (bytes(8), [tensor("x", "FP64", [2**60], 2**63)], "body"),
    "another name": (bytes(16), [tensor("x", "FP64", [1], 8), tensor("y", "FP64", [1], 8)], "inputs[1].name"),
    "another name and no matrix": (bytes(8), [tensor("y", "FP64", [1], 8)], "inputs[0].shape"),
    "one name twice": (bytes(16), [tensor("x", "FP64", [1], 8)] * 2, "inputs[1].name"),
    "FP16 in JSON beside bytes": (b"", [tensor("x", "FP16", [1], data=[1])], "inputs[0].datatype"),
    "a parameter that is a list": (
        bytes(8), [tensor("x", "FP64", [1], parameters={"binary_data_size": [8]})], "inputs[0].parameters[…]",
    ),
}  # fmt: skip


class TestMalformed:
    @pytest.mark.parametrize("case", MALFORMED)
    def test_numbers(self, case: str) -> None:
        tail, tensors, path = MALFORMED[case]
        codec = codec_of(Field(name="x", dtype="float64", shape=()), *([] if case != "one name twice" else [PAIR[0]]))
        with pytest.raises(InvalidInput) as caught:
            codec.decode(*message(tail, *tensors))
        assert caught.value.problems[0].path == path

    @pytest.mark.parametrize(
        ("data", "count"),
        [
            (b"\x05\0\0\0abc", 1), (b"\xff\xff\xff\xff", 1), (b"\x01\0\0", 1), (framed(b"a", b"b"), 1),
            (framed(b"a"), 2), (framed(b"a") + b"\0", 1), (b"", 1), (framed(b"\xff\xfe"), 1),
        ],
        ids=["cut", "huge", "half a length", "one too many", "one too few", "a byte more", "nothing", "not UTF-8"],
    )  # fmt: skip
    def test_texts(self, data: bytes, count: int) -> None:
        with pytest.raises(InvalidInput, match=r"inputs\[0\]"):
            columns(codec_of(Field(name="x", dtype="string")), data, tensor("x", "BYTES", [count], len(data)))

    def test_a_moment_that_is_none(self) -> None:
        with pytest.raises(InvalidInput, match=r"inputs\[0\].data\[0\]: expected an ISO 8601"):
            columns(codec_of(Field(name="x", dtype="datetime")), framed(b"soon"), tensor("x", "BYTES", [1], 8))

    @pytest.mark.parametrize(
        ("field", "datatype", "values", "wrong"),
        [
            (Field(name="x", dtype="int8"), "INT64", np.array([1, 128], "<i8"), 1),
            (Field(name="x", dtype="uint8"), "INT8", np.array([-1, 1], "i1"), 0),
            (Field(name="x", dtype="int64"), "UINT64", np.array([1, 2**63], "<u8"), 1),
            (Field(name="x", dtype="int32", nullable=True), "FP64", np.array([1, 1.5]), 1),
            (Field(name="x", dtype="int64", nullable=True), "INT64", np.array([2**53 + 1, 1], "<i8"), 0),
            (Field(name="x", dtype="bool"), "BOOL", np.array([1, 2], "u1"), 1),
        ],
        ids=["above", "below", "above int64", "a fraction", "not exact", "neither true nor false"],
    )
    def test_numbers_that_do_not_fit(self, field: Field, datatype: str, values: Any, wrong: int) -> None:
        with pytest.raises(InvalidInput) as caught:
            columns(codec_of(field), values.tobytes(), tensor("x", datatype, [2], values.nbytes))
        assert caught.value.problems[0].path == f"inputs[0].data[{wrong}]"

    @pytest.mark.parametrize("length", ["-1", "x", "", "+5", " 5", "5.0", "99999999999", "1000", "²"])
    def test_a_senseless_length(self, length: str) -> None:
        with pytest.raises(InvalidInput, match="inference-header-content-length"):
            codec_of(*PAIR).decode(b"{}", {LENGTH: length})

    def test_a_length_that_cuts_the_json(self) -> None:
        body, headers = message(bytes(16), tensor("in", "FP64", [1, 2], 16))
        for change in (-1, 1):
            with pytest.raises(InvalidInput):
                codec_of(*PAIR).decode(body, {LENGTH: str(int(headers[LENGTH]) + change)})


class TestBareBodies:
    def bare(self, body: bytes, *fields: Field) -> Columns:
        codec = codec_of(*fields)
        request = codec.decode(body, {LENGTH: "0"})
        assert request.wanted.is_binary == (True, True)
        assert request.rows == 1
        return columns_in(request, codec)

    def test_a_number_a_vector_and_a_text(self) -> None:
        assert self.bare(np.array([2.5]).tobytes(), PAIR[0])["a"].tolist() == [2.5]
        vector = Field(name="v", dtype="float32", shape=(-1, 2))
        assert self.bare(np.arange(4, dtype="<f4").tobytes(), vector)["v"].tolist() == [[[0, 1], [2, 3]]]
        assert self.bare("Zürich".encode(), Field(name="s", dtype="string"))["s"].tolist() == ["Zürich"]
        assert self.bare(b"", Field(name="s", dtype="string"))["s"].tolist() == [""]

    def test_a_row_of_a_matrix(self) -> None:
        assert self.bare(np.array([1.0, 2.0]).tobytes(), *PAIR).blocks[0].tolist() == [[1, 2]]

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            (bytes(7), [PAIR[0]]), (b"", [PAIR[0]]), (bytes(24), PAIR),
            (bytes(16), [PAIR[0], Field(name="s", dtype="string")]),
            (bytes(4), [Field(name="v", dtype="float32", shape=(-1, -1))]),
            (bytes(6), [Field(name="v", dtype="float32", shape=(-1,))]),
            (b"a", [Field(name="s", dtype="string", shape=(1,))]),
        ],
        ids=["cut", "empty", "long", "two types", "two variable dimensions", "half a number", "shaped texts"],
    )  # fmt: skip
    def test_what_is_refused(self, body: bytes, fields: list[Field]) -> None:
        with pytest.raises(InvalidInput):
            self.bare(body, *fields)


def parse(answer: Message) -> tuple[list[dict[str, Any]], bytes]:
    assert answer.content_type == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    return json.loads(answer.body[:length])["outputs"], answer.body[length:]


class TestAnswers:
    def ask(self, codec: OipCodec, **more: Any) -> TensorRequest:
        return codec.decode(*message(bytes(16), tensor("in", "FP64", [1, 2], 16), **more))

    def test_every_output_as_bytes(self) -> None:
        codec = codec_of(*PAIR)
        request = self.ask(codec, parameters={"binary_data_output": True})
        told, tail = parse(codec.encode(request, Response(Batch(outputs(60)), 50, 52, "id")))
        assert told == [
            {"name": "prediction", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 13}},
            {"name": "probabilities", "datatype": "FP64", "shape": [2, 2], "parameters": {"binary_data_size": 32}},
        ]
        assert tail == framed(b"no", b"yes") + np.array([[0.5, 0.5], [0.49, 0.51]]).tobytes()

    def test_an_outputs_own_wish_goes_first(self) -> None:
        codec = codec_of(*PAIR)
        wishes = [
            {"name": "probabilities", "parameters": {"binary_data": False}},
            {"name": "prediction"},
        ]
        request = self.ask(codec, parameters={"binary_data_output": True}, outputs=wishes)
        told, tail = parse(codec.encode(request, Response(Batch(outputs(1)), 0, 1, "id")))
        assert told[0] == {"name": "probabilities", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 0.0]}
        assert told[1]["parameters"] == {"binary_data_size": 6} and tail == framed(b"no")
        request = self.ask(codec, outputs=[{"name": "prediction", "parameters": {"binary_data": True}}])
        assert request.outputs == ("prediction",)
        assert parse(codec.encode(request, Response(Batch(outputs(1)), 0, 1, "id")))[1] == framed(b"no")

    def test_without_a_wish_all_is_json(self) -> None:
        codec = codec_of(*PAIR)
        answer = codec.encode(self.ask(codec), Response(Batch(outputs(1)), 0, 1, "id"))
        assert answer.content_type == "application/json" and LENGTH not in answer.headers
        assert json.loads(answer.body)["outputs"][0]["data"] == ["no"]

    def test_every_type_of_output(self) -> None:
        fields = (
            Field(name="count", dtype="int64"), Field(name="flag", dtype="bool"), Field(name="half", dtype="float16"),
            Field(name="when", dtype="datetime", nullable=True), Field(name="words", dtype="string", shape=(2,)),
            Field(name="gap", dtype="int8", nullable=True),
        )  # fmt: skip
        codec = codec_of(*PAIR, answers=fields)
        values = {
            "count": [2**62, -1], "flag": [True, False], "half": [0.5, np.inf], "when": ["1970-01-02", None],
            "words": [["a", ""], ["c", "d"]], "gap": [1, None],
        }  # fmt: skip
        batch = Batch(Layout.of(fields).from_arrays(values))
        request = self.ask(codec, parameters={"binary_data_output": True})
        told, tail = parse(codec.encode(request, Response(batch, 0, 2, "id")))
        parts = {}
        for one in told:
            size = one["parameters"]["binary_data_size"]
            parts[one["name"]], tail = (one["datatype"], one["shape"], tail[:size]), tail[size:]
        assert not tail and not batch.has_gaps
        assert parts["count"] == ("INT64", [2], np.array([2**62, -1], "<i8").tobytes())
        assert parts["flag"] == ("BOOL", [2], b"\1\0")
        assert parts["half"] == ("FP32", [2], np.array([0.5, np.inf], "<f4").tobytes())
        assert parts["when"] == ("BYTES", [2], framed(b"1970-01-02T00:00:00Z", b""))
        assert parts["words"] == ("BYTES", [2, 2], framed(b"a", b"", b"c", b"d"))
        assert parts["gap"] == ("FP64", [2], np.array([1, np.nan]).tobytes())

    @pytest.mark.parametrize("vendor", ["sagemaker-triton", "vertex-ai-triton"])
    def test_gateways_that_pass_no_headers_on(self, vendor: str) -> None:
        body, headers = message(
            np.array([1.0, 2]).tobytes(), tensor("in", "FP64", [1, 2], 16), parameters={"binary_data_output": True}
        )
        media = f"application/vnd.{vendor}.binary+json"
        codec = codec_of(*PAIR)
        request = codec.decode(body, {"content-type": f"{media};json-header-size={headers[LENGTH]}"})
        answer = codec.encode(request, Response(Batch(outputs(1)), 0, 1, "id"))
        carried, _, length = answer.content_type.partition(";json-header-size=")
        assert carried == media and LENGTH not in answer.headers
        assert json.loads(answer.body[: int(length)])["outputs"][1]["parameters"] == {"binary_data_size": 16}

    @pytest.mark.parametrize(
        "kind",
        [
            "application/vnd.sagemaker-triton.binary+json;json-header-size=x", "application/json;json-header-size=3",
            "application/vnd.sagemaker-triton.binary+json;json-header-size=999999",
            "application/vnd.sagemaker-triton.binary+json;x-json-header-size=3",
        ],
        ids=["no number", "another type", "too large", "another option"],
    )  # fmt: skip
    def test_senseless_media_types(self, kind: str) -> None:
        body, _ = message(bytes(16), tensor("in", "FP64", [1, 2], 16))
        with pytest.raises(InvalidInput):
            codec_of(*PAIR).decode(body, {"content-type": kind})

    def test_classes(self) -> None:
        codec = codec_of(*PAIR)
        for binary in (True, False):
            wish = {"name": "probabilities", "parameters": {"classification": 1, "binary_data": binary}}
            answer = codec.encode(self.ask(codec, outputs=[wish]), Response(Batch(outputs(90)), 20, 22, "id"))
            if binary:
                told, tail = parse(answer)
                assert tail == framed(b"0.800000:0:no", b"0.790000:0:no")
            else:
                told = json.loads(answer.body)["outputs"]
                assert told[0]["data"] == ["0.800000:0:no", "0.790000:0:no"]
            assert (told[0]["datatype"], told[0]["shape"]) == ("BYTES", [2, 1])
        wish = {"name": "probabilities", "parameters": {"classification": 7}}
        told = json.loads(codec.encode(self.ask(codec, outputs=[wish]), Response(Batch(outputs(1)), 0, 1, "")).body)
        assert told["outputs"][0]["data"] == ["1.000000:0:no", "0.000000:1:yes"]

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("prediction", {"classification": 2}), ("probabilities", {"classification": -1}),
            ("probabilities", {"classification": "2"}), ("probabilities", {"classification": True}),
            ("probabilities", {"binary_data": 1}), ("probabilities", {"binary_data": "true"}), ("nothing", {}),
        ],
        ids=["labels", "negative", "a text", "true", "1", "true as a text", "unknown"],
    )  # fmt: skip
    def test_senseless_wishes(self, name: str, parameters: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput, match=r"outputs\[0\]"):
            self.ask(codec_of(*PAIR), outputs=[{"name": name, "parameters": parameters}])

    def test_an_output_asked_for_twice(self) -> None:
        with pytest.raises(InvalidInput, match=r"outputs\[1\].name: expected each output once"):
            self.ask(codec_of(*PAIR), outputs=[{"name": "prediction"}, {"name": "prediction"}])


class TestParameters:
    def ask(self, parameters: Any) -> TensorRequest:
        return codec_of(*PAIR).decode(*message(bytes(16), tensor("in", "FP64", [1, 2], 16), parameters=parameters))

    def test_the_protocols_own_are_not_the_models(self) -> None:
        given = {"sequence_id": 3, "sequence_start": True, "priority": 1, "timeout": 5, "content_type": "np"}
        assert self.ask(given).parameters is None
        assert self.ask({**given, "note": "a", "n": 1.5}).parameters == {"note": "a", "n": 1.5}

    @pytest.mark.parametrize(
        "parameters",
        [
            {"triton_x": 1},
            {"a": [1]},
            {"a": None},
            {"a": {}},
            {"binary_data_output": 1},
            {"content_type": "base64"},
            [],
        ],
        ids=["reserved", "a list", "null", "an object", "not true", "another content", "no object"],
    )
    def test_what_is_refused(self, parameters: Any) -> None:
        with pytest.raises(InvalidInput, match="parameters"):
            self.ask(parameters)


def test_both_ways_in_mean_the_same_rows() -> None:
    """Any request means the same as JSON and as bytes."""
    generator = np.random.default_rng(0)
    codec = codec_of(*PAIR)
    for rows in (1, 2, 64, 65, 500):
        matrix = generator.normal(size=(rows, 2))
        binary = columns(codec, matrix.tobytes(), tensor("in", "FP64", [rows, 2], matrix.nbytes))
        for data in (matrix.tolist(), matrix.ravel().tolist()):
            told = json.dumps({"inputs": [tensor("in", "FP64", [rows, 2], data=data)]}).encode()
            request = codec.decode(told, {})
            read = request.columns or Layout.of(PAIR).from_tuples(request.tuples or [])
            assert read.blocks[0].tolist() == binary.blocks[0].tolist() == matrix.tolist()


def test_columns_of_knows_these_requests() -> None:
    signature = KitServed().signature
    codec = codec_of(*signature.inputs)
    tail = np.array([1.0, 2.0]).tobytes() + framed(b"Rome")
    request = codec.decode(
        *message(tail, tensor("x1", "FP64", [1], 8), tensor("x2", "FP64", [1], 8), tensor("city", "BYTES", [1], 8))
    )
    assert columns_of(request)["city"].tolist() == ["Rome"]
