"""TensorFlow Serving over gRPC, on bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from modelyard.errors import Conflict, InvalidInput, ModelyardError, NotFound
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.schema import Columns, Field, Signature
from modelyard.testing.wires import KitCatalog, KitServed
from modelyard.wires import Unimplemented
from modelyard.wires.tfserving.grpc import TensorFlowServingGrpcWire
from modelyard.wires.tfserving.protos import messages
from modelyard.wires.tfserving.tensors import MOST_REPEATED

WIRE = TensorFlowServingGrpcWire()
P = messages()
PREDICT, CLASSIFY, REGRESS, MULTI = (
    f"/tensorflow.serving.PredictionService/{name}" for name in ("Predict", "Classify", "Regress", "MultiInference")
)
SPEC = {"name": "kit"}
NUMBERS = (Field(name="a", dtype="float64"), Field(name="b", dtype="float64"))
SCORES = (
    Field(name="prediction", dtype="string"),
    Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
)
VALUE = (Field(name="prediction", dtype="float64"),)

FLOAT, DOUBLE, INT32, INT16, STRING, INT64, BOOL, BFLOAT16, HALF, UINT64 = 1, 2, 3, 5, 7, 9, 10, 14, 19, 23


def tensor(dtype: int, shape: Sequence[int], **more: Any) -> Any:
    if "double_val" in more:
        more["double_val"] = struct.pack(f"<{len(more['double_val'])}d", *more["double_val"])
    if "float_val" in more:
        more["float_val"] = struct.pack(f"<{len(more['float_val'])}f", *more["float_val"])
    return P.TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": size} for size in shape]}, **more)


def addressed(path: str, request: Any) -> tuple[Call, Any]:
    call = WIRE.match("POST", path)
    assert call is not None and call.is_inside
    return WIRE.address(call, Message(request.SerializeToString()))


def codec(fields: Sequence[Field], outputs: Sequence[Field] = SCORES, path: str = PREDICT, task: str = "other") -> Any:
    call = WIRE.match("POST", path)
    assert call is not None
    return WIRE.codec(call, KitServed(signature=Signature(inputs=tuple(fields), outputs=tuple(outputs)), task=task))


def read(fields: Sequence[Field], tensors: dict[str, Any], **more: Any) -> Request:
    request = P.PredictRequest(model_spec=SPEC, **more)
    for name, one in tensors.items():
        request.inputs[name].CopyFrom(one)
    decoded: Request = codec(fields).decode(addressed(PREDICT, request)[1], {})
    return decoded


def columns(fields: Sequence[Field], request: Request) -> Columns:
    if request.columns is not None:
        return request.columns
    assert request.tuples is not None
    return Signature(inputs=tuple(fields)).input_layout.from_tuples(request.tuples)


class TestTensors:
    @pytest.mark.parametrize("rows", [1, 64, 65, 200])
    @pytest.mark.parametrize("wide", [True, False])
    @pytest.mark.parametrize("dtype", [FLOAT, DOUBLE])
    def test_named_inputs_of_many_sizes(self, rows: int, wide: bool, dtype: int) -> None:
        values = np.arange(2 * rows, dtype="<f4" if dtype == FLOAT else "<f8").reshape(2, rows)
        shape = [rows, 1] if wide else [rows]
        request = read(
            NUMBERS,
            {
                "b": tensor(dtype, shape, tensor_content=values[1].tobytes()),
                "a": tensor(dtype, shape, **{"float_val" if dtype == FLOAT else "double_val": values[0].tolist()}),
            },
        )
        found = columns(NUMBERS, request)
        assert [found["a"].tolist(), found["b"].tolist()] == values.tolist()
        assert request.rows == rows

    @pytest.mark.parametrize("rows", [1, 65])
    @pytest.mark.parametrize("dtype", [FLOAT, DOUBLE, INT64])
    def test_one_matrix(self, rows: int, dtype: int) -> None:
        values = np.arange(2 * rows).reshape(rows, 2)
        place = {FLOAT: "float_val", DOUBLE: "double_val", INT64: "int64_val"}[dtype]
        request = read(NUMBERS, {"inputs": tensor(dtype, [rows, 2], **{place: values.ravel().tolist()})})
        found = columns(NUMBERS, request)
        assert np.stack([found["a"], found["b"]], axis=1).tolist() == values.tolist()

    @pytest.mark.parametrize("shape", [[2], [1, 3], [2, 1], [0, 2], [1, 1, 2]])
    def test_a_matrix_of_another_shape(self, shape: list[int]) -> None:
        with pytest.raises(InvalidInput, match=r"inputs\.inputs\.tensor_shape: expected \[N, 2\] \(a, b\)"):
            read(NUMBERS, {"inputs": tensor(DOUBLE, shape, double_val=[1.0] * int(np.prod(shape)))})

    @pytest.mark.parametrize("rows", [3, 70])
    def test_types(self, rows: int) -> None:
        fields = (
            Field(name="i16", dtype="int16"), Field(name="i32", dtype="int32"), Field(name="u64", dtype="uint64"),
            Field(name="yes", dtype="bool"), Field(name="word", dtype="string", nullable=True),
            Field(name="half", dtype="float32"), Field(name="brain", dtype="float32"),
            Field(name="when", dtype="datetime"), Field(name="n", dtype="int64", nullable=True),
            Field(name="v", dtype="float32", shape=(2, -1)),
        )  # fmt: skip
        halves = np.full(rows, 0.5, "<f2").view("<u2").tolist()
        request = read(
            fields,
            {
                "i16": tensor(INT16, [rows], int_val=[-3] * rows),
                "i32": tensor(INT32, [rows], tensor_content=np.full(rows, 7, "<i4").tobytes()),
                "u64": tensor(UINT64, [rows], uint64_val=[2**64 - 1] * rows),
                "yes": tensor(BOOL, [rows], bool_val=[True] * rows),
                "word": tensor(STRING, [rows], string_val=[b""] + ["é".encode()] * (rows - 1)),
                "half": tensor(HALF, [rows], half_val=halves),
                "brain": tensor(BFLOAT16, [rows, 1], half_val=[0x3FC0] * rows),
                "when": tensor(STRING, [rows], string_val=[b"1970-01-02"] * rows),
                "n": tensor(DOUBLE, [rows], double_val=[float("nan")] + [4.0] * (rows - 1)),
                "v": tensor(FLOAT, [rows, 2, 3], float_val=[1.0]),
            },
        )
        found = columns(fields, request)
        assert found["i16"].tolist() == [-3] * rows and found["i32"].tolist() == [7] * rows
        assert found["u64"].tolist() == [2**64 - 1] * rows and found["yes"].tolist() == [True] * rows
        assert found["word"].tolist() == [None] + ["é"] * (rows - 1)
        assert found["half"].tolist() == [0.5] * rows and found["brain"].tolist() == [1.5] * rows
        assert found["when"].tolist() == [86400.0] * rows
        assert np.isnan(found["n"][0]) and found["n"][1:].tolist() == [4] * (rows - 1)
        assert found["v"].tolist() == [[[1.0] * 3] * 2] * rows

    def test_truths_as_content(self) -> None:
        fields = (Field(name="yes", dtype="bool"),)
        found = columns(fields, read(fields, {"yes": tensor(BOOL, [3], tensor_content=b"\x01\x00\x02")}))
        assert found["yes"].tolist() == [True, False, True]

    def test_the_last_element_stands_for_those_left_out(self) -> None:
        fields = (Field(name="a", dtype="float64"), Field(name="word", dtype="string"))
        request = read(
            fields,
            {
                "a": tensor(DOUBLE, [4], double_val=[1.5, 2]),
                "word": tensor(STRING, [4], string_val=[b"x"]),
            },
        )
        found = columns(fields, request)
        assert found["a"].tolist() == [1.5, 2, 2, 2] and found["word"].tolist() == ["x"] * 4

    A, B = tensor(DOUBLE, [1], double_val=[1]), tensor(DOUBLE, [1], double_val=[2])

    @pytest.mark.parametrize(
        ("b", "path"),
        [
            (tensor(STRING, [1], string_val=[b"2"]), "inputs.b.dtype"),
            (tensor(BOOL, [1], bool_val=[True]), "inputs.b.dtype"),
            (tensor(77, [1]), "inputs.b.dtype"),
            (tensor(DOUBLE, []), "inputs.b.double_val"),
            (tensor(DOUBLE, [], double_val=[2]), "inputs.b.tensor_shape"),
            (tensor(DOUBLE, [0]), "inputs.b.tensor_shape"),
            (tensor(DOUBLE, [2**62, 0]), "inputs.b.tensor_shape"),
            (tensor(DOUBLE, [-1], double_val=[2]), "inputs.b.tensor_shape"),
            (tensor(DOUBLE, [1, 2], double_val=[2, 3]), "inputs.b.tensor_shape"),
            (tensor(DOUBLE, [2], double_val=[2, 3]), "inputs.b.tensor_shape"),
            (tensor(DOUBLE, [1], double_val=[2, 3]), "inputs.b.double_val"),
            (tensor(DOUBLE, [1], float_val=[2]), "inputs.b.float_val"),
            (P.TensorProto(dtype=DOUBLE, tensor_shape={"dim": [{"size": 1}]}, double_val=b"1234567"),
             "inputs.b.double_val"),
            (P.TensorProto(dtype=DOUBLE, tensor_shape={"unknown_rank": True}), "inputs.b.tensor_shape"),
            (tensor(DOUBLE, [1], tensor_content=b"1234567"), "inputs.b.tensor_content"),
            (tensor(DOUBLE, [1], tensor_content=b"123456789"), "inputs.b.tensor_content"),
            (tensor(DOUBLE, [MOST_REPEATED + 1], double_val=[2]), "inputs.b.double_val"),
            (tensor(DOUBLE, [2**40, 2**40], double_val=[2]), "inputs.b.double_val"),
            (tensor(DOUBLE, [1], double_val=[float("nan")]), "[0].b"),
            (tensor(INT64, [1]), "inputs.b.int64_val"),
            (tensor(4, [1], int_val=[256]), "inputs.b.int_val"),
            (None, "inputs.b"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )  # fmt: skip
    def test_what_is_wrong(self, b: Any, path: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            read(NUMBERS, {"a": self.A} | ({"b": b} if b is not None else {}))
        assert caught.value.problems[0].path == path

    def test_other_faults(self) -> None:
        with pytest.raises(InvalidInput, match=r"inputs\.c: expected one of a, b, got an unknown input"):
            read(NUMBERS, {"a": self.A, "b": self.B, "c": self.A})
        with pytest.raises(InvalidInput, match=r"inputs\.word\.string_val\[0\]: expected text in UTF-8"):
            read((Field(name="word", dtype="string"),), {"word": tensor(STRING, [1], string_val=[b"\xff"])})
        with pytest.raises(InvalidInput, match=r"inputs\.word\.tensor_content"):
            read((Field(name="word", dtype="string"),), {"word": tensor(STRING, [1], tensor_content=b"\x01a")})
        with pytest.raises(InvalidInput, match="a whole number from -128 to 127"):
            read((Field(name="n", dtype="int8"),), {"n": tensor(INT32, [1], int_val=[300])})
        with pytest.raises(InvalidInput, match="body: expected a PredictRequest"):
            WIRE.address(Call("predict", is_inside=True, variant="predict"), Message(b"\xff"))


def answered(fields: Sequence[Field], request: Request, outputs: dict[str, Any], made: Any) -> Message:
    """The answer for rows one to the last but one of a joined batch."""
    batch = Batch(Signature(inputs=NUMBERS, outputs=tuple(fields)).output_layout.from_arrays(outputs))
    message: Message = made.encode(request, Response(batch, 1, 1 + request.rows, "id"))
    assert message.content_type == "application/grpc"
    return message


class TestPredict:
    OUTPUTS: ClassVar[dict[str, Any]] = {
        "prediction": np.array(["no", "yes", "no", "no"], dtype=object),
        "probabilities": np.array([[1.0, 0], [0.25, 0.75], [0.5, 0.5], [1, 0]]),
    }
    TENSORS: ClassVar[dict[str, Any]] = {
        "a": tensor(DOUBLE, [2], double_val=[1, 2]),
        "b": tensor(DOUBLE, [2], double_val=[3, 4]),
    }

    def answer(self, **more: Any) -> Any:
        request = read(NUMBERS, self.TENSORS, **more)
        return P.PredictResponse.FromString(answered(SCORES, request, self.OUTPUTS, codec(NUMBERS)).body)

    def test_outputs_in_their_typed_fields(self) -> None:
        answer = self.answer()
        assert (answer.model_spec.name, answer.model_spec.version.value) == ("kit", 3)
        assert answer.model_spec.signature_name == "serving_default"
        prediction, scores = answer.outputs["prediction"], answer.outputs["probabilities"]
        assert (prediction.dtype, list(prediction.string_val)) == (STRING, [b"yes", b"no"])
        assert [dim.size for dim in scores.tensor_shape.dim] == [2, 2]
        assert np.frombuffer(scores.double_val).tolist() == [0.25, 0.75, 0.5, 0.5]

    def test_the_signature_is_echoed_and_outputs_are_filtered(self) -> None:
        answer = self.answer(output_filter=["probabilities"])
        assert list(answer.outputs) == ["probabilities"]
        request = P.PredictRequest(model_spec={"name": "kit", "signature_name": "predict"}, inputs=self.TENSORS)
        decoded = codec(NUMBERS).decode(request, {})
        told = P.PredictResponse.FromString(answered(SCORES, decoded, self.OUTPUTS, codec(NUMBERS)).body)
        assert told.model_spec.signature_name == "predict"
        for more, match in (
            ({"output_filter": ["none"]}, r"output_filter\[0\]: expected one of prediction, probabilities"),
            ({"output_filter": ["prediction"] * 2}, r"output_filter\[1\]: expected each output once"),
        ):
            with pytest.raises(InvalidInput, match=match):
                read(NUMBERS, self.TENSORS, **more)
        request.model_spec.signature_name = "nope"
        with pytest.raises(InvalidInput, match=r"model_spec\.signature_name: expected one of serving_default"):
            codec(NUMBERS).decode(request, {})

    @pytest.mark.parametrize(
        ("field", "values", "place", "expected"),
        [
            (Field(name="y", dtype="float16"), [0.5, 1.5], "half_val", [0x3800, 0x3E00]),
            (Field(name="y", dtype="float32"), [0.5, 1.5], "float_val", struct.pack("<2f", 0.5, 1.5)),
            (Field(name="y", dtype="int8"), [-3, 4], "int_val", [-3, 4]),
            (Field(name="y", dtype="uint32"), [3, 4], "uint32_val", [3, 4]),
            (Field(name="y", dtype="uint64"), [3, 2**64 - 1], "uint64_val", [3, 2**64 - 1]),
            (Field(name="y", dtype="int64"), [-3, 4], "int64_val", [-3, 4]),
            (Field(name="y", dtype="bool"), [True, False], "bool_val", [True, False]),
            (Field(name="y", dtype="datetime"), [0.0, 1.0], "string_val",
             [b"1970-01-01T00:00:00Z", b"1970-01-01T00:00:01Z"]),
            (Field(name="y", dtype="string", nullable=True), ["é", None], "string_val", ["é".encode(), b""]),
        ],
        ids=lambda value: value.dtype if isinstance(value, Field) else "",
    )  # fmt: skip
    def test_outputs_of_every_type(self, field: Field, values: Any, place: str, expected: Any) -> None:
        given = np.array([values[0], *values, values[0]], dtype=field.storage)
        made = codec(NUMBERS, [field])
        message = answered([field], read(NUMBERS, self.TENSORS), {"y": given}, made)
        told = getattr(P.PredictResponse.FromString(message.body).outputs["y"], place)
        assert (told if isinstance(told, bytes) else list(told)) == expected

    def test_the_model_is_named_inside(self) -> None:
        for spec, call in (
            ({"name": "m"}, Call("predict", "m", variant="predict")),
            ({"name": "m", "version": {"value": 7}}, Call("predict", "m", "7", variant="predict")),
            ({"name": "m", "version": {"value": 0}}, Call("predict", "m", "", variant="predict")),
            ({"name": "m", "version_label": "stable"}, Call("predict", "m", None, "stable", variant="predict")),
        ):
            assert addressed(PREDICT, P.PredictRequest(model_spec=spec))[0] == call
        with pytest.raises(InvalidInput, match=r"model_spec\.name: expected the name of a model, got nothing"):
            addressed(PREDICT, P.PredictRequest())

    def test_paths(self) -> None:
        assert WIRE.match("GET", PREDICT) is None
        assert WIRE.match("POST", PREDICT.lower()) is None
        assert WIRE.match("POST", "/tensorflow.serving.SessionService/SessionRun") is None
        assert WIRE.match("POST", "PredictionService/Predict") is None


def example(**features: Any) -> Any:
    found = P.Example()
    for name, values in features.items():
        feature = found.features.feature[name]
        kind = {int: feature.int64_list, float: feature.float_list, bytes: feature.bytes_list}[type(values[0])]
        kind.value.extend(values)
    return found


FEATURES = (
    Field(name="x", dtype="float64"), Field(name="n", dtype="int32", nullable=True), Field(name="yes", dtype="bool"),
    Field(name="s", dtype="string"),
)  # fmt: skip
FULL = {"x": [0.5], "n": [3], "yes": [1], "s": [b"a"]}


class TestExamples:
    def decode(self, path: str = CLASSIFY, outputs: Sequence[Field] = SCORES, **more: Any) -> Request:
        kind = {CLASSIFY: P.ClassificationRequest, REGRESS: P.RegressionRequest, MULTI: P.MultiInferenceRequest}[path]
        request = kind(**({"model_spec": SPEC} if path != MULTI else {}), **more)
        decoded: Request = codec(FEATURES, outputs, path).decode(addressed(path, request)[1], {})
        return decoded

    def test_examples_and_their_context(self) -> None:
        examples = [example(**FULL, other=[1.0]), example(x=[2], yes=[0], s=[b"b"])]
        found = columns(FEATURES, self.decode(input={"example_list": {"examples": examples}}))
        assert found["x"].tolist() == [0.5, 2] and found["yes"].tolist() == [True, False]
        assert found["n"][0] == 3 and np.isnan(found["n"][1])
        with_context = {"context": example(s=[b"c"], yes=[1]), "examples": [example(x=[1.5])]}
        found = columns(FEATURES, self.decode(input={"example_list_with_context": with_context}))
        assert found["s"].tolist() == ["c"] and found["yes"].tolist() == [True]

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ({}, "examples"),
            ({"input": {"example_list": {}}}, "examples"),
            ({"input": {"example_list": {"examples": [example(x=[1.0])]}}}, "examples[0].yes"),
            ({"input": {"example_list": {"examples": [example(**{**FULL, "x": [1.0, 2.0]})]}}}, "examples[0].x"),
            ({"input": {"example_list": {"examples": [example(**{**FULL, "x": [b"1"]})]}}}, "examples[0].x"),
            ({"input": {"example_list": {"examples": [example(**{**FULL, "yes": [2]})]}}}, "examples[0].yes"),
            ({"input": {"example_list": {"examples": [example(**{**FULL, "s": [b"\xff"]})]}}}, "s.bytes_list[0]"),
            ({"input": {"example_list": {"examples": [example(**{**FULL, "x": [float("nan")]})]}}}, "examples[0].x"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_is_wrong(self, given: dict[str, Any], path: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            self.decode(**given)
        assert caught.value.problems[0].path == path

    INPUT: ClassVar[dict[str, Any]] = {"example_list": {"examples": [example(**FULL), example(**FULL)]}}

    def test_classify(self) -> None:
        made = codec(FEATURES, SCORES, CLASSIFY)
        message = answered(SCORES, self.decode(input=self.INPUT), TestPredict.OUTPUTS, made)
        answer = P.ClassificationResponse.FromString(message.body)
        assert answer.model_spec.version.value == 3 and answer.model_spec.signature_name == "serving_default"
        told = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
        assert told == [[("no", 0.25), ("yes", 0.75)], [("no", 0.5), ("yes", 0.5)]]

    def test_classify_without_scores(self) -> None:
        made = codec(FEATURES, SCORES[:1], CLASSIFY, "classification")
        outputs = {"prediction": TestPredict.OUTPUTS["prediction"]}
        message = answered(SCORES[:1], self.decode(input=self.INPUT), outputs, made)
        answer = P.ClassificationResponse.FromString(message.body)
        told = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
        assert told == [[("yes", 0.0)], [("no", 0.0)]]

    def test_regress(self) -> None:
        made = codec(FEATURES, VALUE, REGRESS)
        spec = {"name": "kit", "signature_name": "tensorflow/serving/regress"}
        request = made.decode(P.RegressionRequest(model_spec=spec, input=self.INPUT), {})
        answer = P.RegressionResponse.FromString(answered(VALUE, request, {"prediction": np.arange(4.0)}, made).body)
        assert [one.value for one in answer.result.regressions] == [1, 2]
        assert answer.model_spec.signature_name == "tensorflow/serving/regress"

    def test_several_at_once(self) -> None:
        outputs = (*SCORES, Field(name="value", dtype="float64"))
        tasks = [
            {
                "model_spec": {"name": "kit", "signature_name": "regression"},
                "method_name": "tensorflow/serving/regress",
            },
            {"model_spec": SPEC, "method_name": "tensorflow/serving/classify"},
        ]
        made = codec(FEATURES, outputs, MULTI)
        request = self.decode(MULTI, outputs, tasks=tasks, input=self.INPUT)
        message = answered(outputs, request, {**TestPredict.OUTPUTS, "value": np.arange(4.0)}, made)
        one, other = P.MultiInferenceResponse.FromString(message.body).results
        assert [value.value for value in one.regression_result.regressions] == [1, 2]
        assert other.classification_result.classifications[0].classes[1].score == 0.75
        assert [one.model_spec.signature_name, other.model_spec.signature_name] == ["regression", "serving_default"]

    def test_tasks_that_cannot_be(self) -> None:
        task = {"model_spec": SPEC, "method_name": "tensorflow/serving/classify"}
        for tasks, error, match in (
            ([], InvalidInput, "tasks for one version of one model"),
            ([task, {**task, "model_spec": {"name": "other"}}], InvalidInput, "tasks for one version of one model"),
            ([{**task, "method_name": "tensorflow/serving/predict"}], Unimplemented, r"tasks\[0\].method_name"),
            ([{**task, "method_name": "tensorflow/serving/regress"}], InvalidInput, "a signature that kit has"),
        ):
            with pytest.raises(error, match=match):
                self.decode(MULTI, tasks=tasks, input=self.INPUT)
        for path, outputs in ((CLASSIFY, VALUE), (REGRESS, SCORES)):
            with pytest.raises(InvalidInput, match="a signature that kit has"):
                codec(FEATURES, outputs, path)


def inform(service: str, request: Any, catalog: KitCatalog | None = None) -> bytes:
    call = WIRE.match("POST", f"/tensorflow.serving.{service}")
    assert call is not None
    return WIRE.inform(call, Message(request.SerializeToString()), catalog or KitCatalog()).body


class TestAbout:
    def test_metadata(self) -> None:
        request = P.GetModelMetadataRequest(model_spec=SPEC, metadata_field=["signature_def"])
        answer = P.GetModelMetadataResponse.FromString(inform("PredictionService/GetModelMetadata", request))
        assert (answer.model_spec.name, answer.model_spec.version.value) == ("kit", 3)
        packed = answer.metadata["signature_def"]
        assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        known = P.SignatureDefMap.FromString(packed.value).signature_def
        assert sorted(known) == ["classification", "serving_default"]
        probabilities = known["serving_default"].outputs["probabilities"]
        assert probabilities.dtype == DOUBLE and [d.size for d in probabilities.tensor_shape.dim] == [-1, 2]
        for fields in ([], ["graph"], ["signature_def", "graph"]):
            with pytest.raises(InvalidInput, match="metadata_field"):
                inform("PredictionService/GetModelMetadata",
                       P.GetModelMetadataRequest(model_spec=SPEC, metadata_field=fields))  # fmt: skip

    def test_status(self) -> None:
        answer = inform("ModelService/GetModelStatus", P.GetModelStatusRequest(model_spec=SPEC))
        (state,) = P.GetModelStatusResponse.FromString(answer).model_version_status
        assert (state.version, state.state, state.status.error_code) == (3, 30, 0)
        answer = inform(
            "ModelService/GetModelStatus", P.GetModelStatusRequest(model_spec=SPEC), KitCatalog(ready=False)
        )
        assert P.GetModelStatusResponse.FromString(answer).model_version_status[0].state == 20
        with pytest.raises(NotFound, match="any versions of model half"):
            inform("ModelService/GetModelStatus", P.GetModelStatusRequest(model_spec={"name": "half"}))

    def test_refusals(self) -> None:
        call = Call("predict", "m", "7")
        message = WIRE.refuse(call, NotFound("no such version", hint="none"), "id")
        assert (message.body, message.code, message.content_type) == (b"", "not_found", "application/grpc")
        told = "Servable not found for request: Specific(m, 7): no such version (hint: none)"
        assert message.headers["grpc-message"] == told


class Recording(KitCatalog):
    references: list[str] | None = None

    def replace(self, references: Sequence[str]) -> None:
        self.references = list(references)


class TestReload:
    def reload(self, *configs: dict[str, Any]) -> list[str] | None:
        catalog = Recording()
        request = P.ReloadConfigRequest(config={"model_config_list": {"config": list(configs)}})
        answer = inform("ModelService/HandleReloadConfigRequest", request, catalog)
        assert P.ReloadConfigResponse.FromString(answer).status.error_code == 0
        return catalog.references

    def test_it_is_for_admins_and_may_block(self) -> None:
        call = WIRE.match("POST", "/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        assert call == Call("reload", scope="admin", is_slow=True)

    def test_references(self) -> None:
        assert self.reload() == []
        assert self.reload(
            {"name": "a"},
            {"name": "b", "base_path": "registry", "model_platform": "tensorflow"},
            {"name": "c", "model_version_policy": {"latest": {}}},
            {"name": "d", "model_version_policy": {"latest": {"num_versions": 3}}},
            {"name": "e", "model_version_policy": {"all": {}}},
            {"name": "f", "model_version_policy": {"specific": {"versions": [2, 5]}}},
            {"name": "g", "base_path": "/models/g"},
            {"name": "h", "base_path": "file:///h.bundle", "model_version_policy": {"latest": {"num_versions": 1}}},
            {"name": "i", "base_path": "i@production"},
            {"name": "kit", "version_labels": {"production": 3}},
        ) == [
            "a", "b", "c:latest", "d:latest-3", "e:all", "f:2", "f:5", "g=/models/g", "h=/h.bundle", "i@production",
            "kit",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("config", "error", "match"),
        [
            ({}, InvalidInput, r"config\[0\].name"),
            ({"name": "a", "model_version_policy": {"specific": {}}}, InvalidInput, "specific.versions"),
            ({"name": "a", "base_path": "/a", "model_version_policy": {"all": {}}}, InvalidInput, "version_policy"),
            ({"name": "kit", "version_labels": {"canary": 4}}, Conflict, "version 4 of kit is not served yet"),
            ({"name": "kit", "version_labels": {"canary": 3}}, Conflict, "labels are the registry's aliases"),
        ],
    )
    def test_what_cannot_be(self, config: dict[str, Any], error: type[ModelyardError], match: str) -> None:
        with pytest.raises(error, match=match):
            self.reload(config)

    def test_other_kinds_of_configuration(self) -> None:
        for config in ({}, {"custom_model_config": {"type_url": "x"}}):
            with pytest.raises(InvalidInput, match="expected a model_config_list"):
                inform("ModelService/HandleReloadConfigRequest", P.ReloadConfigRequest(config=config))
