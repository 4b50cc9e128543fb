"""TensorFlow Serving over REST: its documentation's examples, paths, forms of requests and answers, refusals."""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, NotFound
from modelyard.interfaces import Codec, State
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle
from modelyard.testing.wires import KitCatalog, KitServed
from modelyard.wires.tfserving import TensorFlowServingWire

GOLDEN = Path(__file__).parents[2] / "golden" / "tfserving"
WIRE = TensorFlowServingWire()

HALF_PLUS_THREE = Signature(
    inputs=(Field(name="x", dtype="float32"),), outputs=(Field(name="y", dtype="float32"),)
)  # fmt: skip


class Source:
    bundle = MemoryBundle(HALF_PLUS_THREE, lambda columns: {"y": columns["x"] / 2 + 3}, {"x": np.float32([0.0])})

    def marker(self) -> int:
        return 0

    def resolve(self, reference: str) -> Wanted:
        bundle = self.bundle
        return Wanted(model=reference, version="123", digest=bundle.digest, aliases=("stable",), open=lambda: bundle)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(["half_plus_three"], source=Source, port=0, access_log="off", wires=["tfserving", "native"]) as server:
        yield server


def send(server: Server, data: bytes) -> tuple[int, dict[str, str], Any]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), json.loads(body)


def ask(server: Server, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    status, headers, answer = send(server, head.encode() + body)
    assert headers["content-type"] == "application/json"
    return status, answer


class TestDocumentation:
    """The examples of TensorFlow Serving's own documentation."""

    @pytest.mark.parametrize("name", ["status", "predict", "regress"])
    def test_answers(self, server: Server, name: str) -> None:
        status, headers, answer = send(server, (GOLDEN / f"{name}.http").read_bytes())
        assert (status, headers["content-type"]) == (200, "application/json")
        ours = {"name": "half_plus_three", "ready": True} if name == "status" else {}  # for KServe's clients
        assert answer == json.loads((GOLDEN / f"{name}.json").read_bytes()) | ours

    def test_whole_floats_keep_their_point(self, server: Server) -> None:
        request = (GOLDEN / "predict.http").read_bytes()
        call = server.application.endpoint("POST", "/v1/models/half_plus_three:predict", {}).call
        assert call is not None
        codec = WIRE.codec(call, KitServed(signature=HALF_PLUS_THREE))
        decoded = codec.decode(request.partition(b"\r\n\r\n")[2], {})
        assert (
            encode(codec, decoded, HALF_PLUS_THREE.outputs, {"y": np.float32([3.5, 4.0, 5.5])})
            == b'{"predictions":[3.5,4.0,5.5]}'
        )

    def test_an_unknown_model(self, server: Server) -> None:
        status, _, answer = send(server, (GOLDEN / "unknown.http").read_bytes())
        assert status == 404 and list(answer) == ["error"]
        assert answer["error"].startswith(json.loads((GOLDEN / "unknown.json").read_bytes())["error"])

    def test_rows_and_columns_mean_the_same(self) -> None:
        fields = (
            Field(name="tag", dtype="string"),
            Field(name="signal", dtype="int64", shape=(5,)),
            Field(name="sensor", dtype="float32", shape=(2, 2)),
        )
        rows, columns = (decode((GOLDEN / f"{name}.json").read_bytes(), fields) for name in ("instances", "inputs"))
        assert rows["tag"].tolist() == columns["tag"].tolist() == ["foo", "bar"]
        assert rows["signal"].tolist() == columns["signal"].tolist() == [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]]
        assert rows["sensor"].tolist() == columns["sensor"].tolist() == [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]

    def test_binary_features(self) -> None:
        fields = (Field(name="image", dtype="string"), Field(name="caption", dtype="string"))
        body = (GOLDEN / "classify.json").read_bytes().replace(b"classify_objects", b"classification")
        columns = decode(body, fields, "classify")
        assert columns["image"].tolist() == ["image bytes", "awesome image bytes"]
        assert columns["caption"].tolist() == ["seaside", "mountains"]


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "call"),
        [
            ("/v1/models/m:predict", Call("predict", "m", variant="predict")),
            ("/V1/MODELS/M:CLASSIFY", Call("predict", "M", variant="classify")),
            ("/v1/models/m/versions/7:regress", Call("predict", "m", "7", variant="regress")),
            ("/v1/models/m/versions/007:predict", Call("predict", "m", "7", variant="predict")),
            ("/v1/models/m/versions/0:predict", Call("predict", "m", "", variant="predict")),
            ("/v1/models/m/Labels/can%20ary:predict", Call("predict", "m", None, "can ary", variant="predict")),
            ("/v1/models/a%2Fb%C3%A9:predict", Call("predict", "a/bé", variant="predict")),
            ("/v1/models/m/metadata:predict", Call("malformed")),
            ("/v1/models/m:predict/", Call("malformed")),
            ("/v1/models/m/versions/x:predict", Call("malformed")),
            ("/v1/models/m:explain", None),
            ("/v1/modelsm:predict", None),
            ("/v1/models/m", None),
        ],
    )
    def test_post(self, path: str, call: Call | None) -> None:
        assert WIRE.match("POST", path) == call

    @pytest.mark.parametrize(
        ("path", "call"),
        [
            ("/v1/models/m", Call("status", "m", scope="open")),
            ("/v1/models/m/versions/12", Call("status", "m", "12", scope="open")),
            ("/v1/models/m/labels/l", Call("status", "m", None, "l", scope="open")),
            ("/v1/models/m/metadata", Call("metadata", "m")),
            ("/v1/models/m/versions/2/METADATA", Call("metadata", "m", "2")),
            ("/v1/models/m/labels/l/metadata", Call("metadata", "m", None, "l")),
            ("/v1/models", Call("nameless")),
            ("/v1/models/", Call("nameless")),
            ("/v1/models/m/", Call("malformed")),
            ("/v1/models/m/junk", Call("malformed")),
            ("/v1/models/m/metadata/junk", Call("malformed")),
            ("/v1/models/m/versions/1/labels/l", Call("malformed")),
            ("/v1/models/m:predict", None),
            ("/v1/", None),
        ],
    )
    def test_get(self, path: str, call: Call | None) -> None:
        assert WIRE.match("GET", path) == call

    def test_statuses(self, server: Server) -> None:
        body = b'{"instances": [1]}'
        assert ask(server, "POST", "/v1/models/half_plus_three/versions/123:predict", body)[0] == 200
        assert ask(server, "POST", "/V1/Models/half_plus_three/Labels/stable:Predict", body)[0] == 200
        assert ask(server, "GET", "/v1/models/half_plus_three/labels/stable/metadata")[0] == 200
        for path, told in (
            ("/v1/models/half_plus_three/versions/5", "Specific(half_plus_three, 5)"),
            ("/v1/models/half_plus_three/labels/none", "no such alias"),
        ):
            status, answer = ask(server, "POST", f"{path}:predict", body)
            assert status == 404 and told in answer["error"]
        assert ask(server, "GET", "/v1/models")[0] == 400
        assert "Malformed request" in ask(server, "GET", "/v1/models/half_plus_three/junk")[1]["error"]
        assert ask(server, "GET", "/v1/models/half_plus_three/versions/5")[0] == 404
        assert ask(server, "GET", "/v1/models/other")[0] == 404
        assert ask(server, "GET", "/v1/models/half_plus_three:predict")[0] == 405


class TestAbout:
    def test_metadata(self) -> None:
        told = json.loads(WIRE.inform(Call("metadata", "kit"), Message(b""), KitCatalog()).body)
        assert told["model_spec"] == {"name": "kit", "signature_name": "", "version": "3"}
        known = told["metadata"]["signature_def"]["signature_def"]
        assert sorted(known) == ["classification", "serving_default"]
        default = known["serving_default"]
        assert default["method_name"] == "tensorflow/serving/predict"
        assert default["inputs"]["x1"] == {
            "dtype": "DT_DOUBLE",
            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            "name": "serving_default_x1:0",
        }
        assert default["inputs"]["city"]["dtype"] == default["outputs"]["prediction"]["dtype"] == "DT_STRING"
        shape = default["outputs"]["probabilities"]["tensor_shape"]["dim"]
        assert [dim["size"] for dim in shape] == ["-1", "2"]
        assert known["classification"]["method_name"] == "tensorflow/serving/classify"

    def test_a_regression_has_its_signature_and_every_type_a_name(self) -> None:
        types = ("float16", "float32", "int8", "uint16", "int32", "uint64", "bool", "string", "datetime")
        fields = tuple(Field(name=dtype, dtype=dtype) for dtype in types)
        signature = Signature(inputs=fields, outputs=(Field(name="prediction", dtype="float64"),))
        served = KitServed(signature=signature, task="regression", version="")
        told = json.loads(WIRE.inform(Call("metadata", "kit"), Message(b""), KitCatalog(served)).body)
        assert told["model_spec"]["version"] == "0"
        known = told["metadata"]["signature_def"]["signature_def"]
        assert sorted(known) == ["regression", "serving_default"]
        assert [known["serving_default"]["inputs"][dtype]["dtype"] for dtype in types] == [
            "DT_HALF", "DT_FLOAT", "DT_INT8", "DT_UINT16", "DT_INT32", "DT_UINT64", "DT_BOOL", "DT_STRING", "DT_STRING",
        ]  # fmt: skip

    def test_states(self) -> None:
        class Many(KitCatalog):
            def states(self) -> list[State]:
                error = InvalidInput("the bundle is for something else")
                return [
                    State(model="kit", version="2", state="unloaded"),
                    State(model="kit", version="10", state="ready"),
                    State(model="other", version="1", state="ready"),
                    State(model="kit", version="11", state="failed", reason="the bundle is", error=error),
                    State(model="kit", version="12", state="loading"),
                    State(model="kit", version="3", state="unloading"),
                    State(model="kit", version="", state="declared"),
                ]

        def states(call: Call) -> list[tuple[str, str, str, str]]:
            told = json.loads(WIRE.inform(call, Message(b""), Many()).body)["model_version_status"]
            return [(s["version"], s["state"], s["status"]["error_code"], s["status"]["error_message"]) for s in told]

        assert states(Call("status", "kit")) == [
            ("12", "LOADING", "OK", ""),
            ("11", "END", "INVALID_ARGUMENT", "the bundle is"),
            ("10", "AVAILABLE", "OK", ""),
            ("3", "UNLOADING", "OK", ""),
            ("2", "END", "OK", ""),
            ("0", "START", "OK", ""),
        ]
        assert states(Call("status", "kit", "2")) == [("2", "END", "OK", "")]
        assert [version for version, *_ in states(Call("status", "kit", None, "production"))] == ["3"]
        with pytest.raises(NotFound, match="Could not find version 4 of model kit"):
            states(Call("status", "kit", "4"))
        with pytest.raises(NotFound, match="Could not find any versions of model half"):
            states(Call("status", "half"))


def decode(body: Any, fields: tuple[Field, ...], variant: str = "predict") -> Columns:
    outputs = KitServed().signature.outputs
    codec = WIRE.codec(
        Call("predict", variant=variant), KitServed(signature=Signature(inputs=fields, outputs=outputs))
    )  # fmt: skip
    request = codec.decode(body if isinstance(body, bytes) else json.dumps(body).encode(), {})
    if request.columns is not None:
        return request.columns
    assert request.tuples is not None
    return Signature(inputs=fields).input_layout.from_tuples(request.tuples)


NUMBERS = (Field(name="a", dtype="float64"), Field(name="b", dtype="float64", nullable=True))


class TestReading:
    @pytest.mark.parametrize(
        "body",
        [
            {"instances": [[1, 2], [3, None]]},
            {"instances": [{"a": 1, "b": 2}, {"b": None, "a": 3}]},
            {"instances": [{"inputs": [1, 2]}, {"inputs": [3, None]}]},
            {"instances": [{"a": [1], "b": [2]}, {"a": [3], "b": [None]}]},
            {"instances": [{"a": [1], "b": 2}, {"a": 3, "b": None}]},
            {"inputs": [[1, 2], [3, None]]},
            {"inputs": {"inputs": [[1, 2], [3, None]]}},
            {"inputs": {"b": [2, None], "a": [1, 3]}},
            {"inputs": {"b": [[2], [None]], "a": [[1], [3]]}},
            b'{"instances":[[1,2],[3,NaN]]}',
        ],
        ids=lambda body: str(body).replace(" ", ""),
    )
    def test_every_form_of_two_numbers(self, body: Any) -> None:
        columns = decode(body, NUMBERS)
        assert columns["a"].tolist() == [1, 3]
        assert columns["b"][0] == 2 and np.isnan(columns["b"][1])

    @pytest.mark.parametrize(
        "body",
        [
            {"instances": ["foo", "b:r"]}, {"instances": [["foo"], ["b:r"]]}, {"inputs": ["foo", "b:r"]},
            {"instances": [{"x": "foo"}, {"x": "b:r"}]}, {"inputs": {"x": ["foo", "b:r"]}},
            {"instances": [{"b64": "Zm9v"}, {"b64": "Yjpy"}]}, {"inputs": [{"b64": "Zm9v"}, "b:r"]},
            {"instances": ["foo", {"b64": "Yjpy"}]}, {"instances": ["foo", "b\\u003ar"]},
        ],
        ids=lambda body: str(body).replace(" ", ""),
    )  # fmt: skip
    def test_bare_values_of_a_single_input(self, body: Any) -> None:
        text = json.dumps(body).replace("\\\\", "\\").encode()
        assert decode(text, (Field(name="x", dtype="string"),))["x"].tolist() == ["foo", "b:r"]

    def test_bare_values_of_a_single_input_with_a_shape(self) -> None:
        field = Field(name="x", dtype="float32", shape=(1, 2))
        for key in ("instances", "inputs"):
            assert decode({key: [[[1, 2]], [[3, 4]]]}, (field,))["x"].tolist() == [[[1, 2]], [[3, 4]]]
        with pytest.raises(InvalidInput, match=r"instances\[1\]"):
            decode({"instances": [[[1, 2]], [[3]]]}, (field,))

    @pytest.mark.parametrize("dtype", ["uint64", "int8", "bool", "float32"])
    def test_bare_values_of_every_number_survive_the_collector(self, dtype: str) -> None:
        """A union of a fixed tuple and a number of a single bound makes msgspec's decoder crash when collected."""
        field = Field(name="x", dtype=dtype)
        value = True if dtype == "bool" else 1
        for _ in range(20):
            assert decode({"instances": [value, value]}, (field,))["x"].tolist() == [value, value]
            assert decode({"instances": [[value]]}, (field,))["x"].tolist() == [value]
        gc.collect()
        if dtype != "bool":
            for instances in ([-(2**200)], [2**200], [[2**200]]):
                with pytest.raises(InvalidInput):
                    decode({"instances": instances}, (field,))

    def test_infinities(self) -> None:
        columns = decode(b'{"instances":[[Infinity,1],[-Infinity,Infinity]]}', NUMBERS)
        assert columns["a"].tolist() == [np.inf, -np.inf]
        with pytest.raises(InvalidInput, match=r"inputs\.a\[0\]: expected a number \(float64\), got NaN, which stands"):
            decode(b'{"inputs":{"a":[NaN],"b":[1]}}', NUMBERS)
        with pytest.raises(InvalidInput, match=r"instances\[0\]"):
            decode(b'{"instances":[Infinity]}', (Field(name="n", dtype="int64"),))

    def test_types_are_kept(self) -> None:
        fields = (
            Field(name="when", dtype="datetime"), Field(name="n", dtype="int8"), Field(name="yes", dtype="bool"),
            Field(name='odd "name"', dtype="float32"), Field(name="u", dtype="uint64"),
        )  # fmt: skip
        row = {"when": "2024-02-01T10:00:00Z", "n": -3, "yes": True, 'odd "name"': 0.5, "u": 2**64 - 1}
        columns = decode({"instances": [row]}, fields)
        assert columns["when"].tolist() == [1706781600.0] and columns["yes"].tolist() == [True]
        assert columns["u"].tolist() == [2**64 - 1] and columns['odd "name"'].tolist() == [0.5]
        for name, value in (("n", 200), ("n", 1.5), ("yes", 1), ("u", 2**64), ("when", "today"), ("n", True)):
            with pytest.raises(InvalidInput, match=rf"instances\[0\]\.{name}"):
                decode({"instances": [{**row, name: value}]}, fields)

    def test_problems_are_told_at_their_places(self) -> None:
        for body, path, expected, got in (
            ({"instances": [[1, 2], [3]]}, "instances[1]", "a list of 2 (a, b), or an object with these",
             "a list of 1"),
            ({"instances": [{"a": 1, "c": 2}]}, "instances[0].c", "one of the columns a, b", "an unknown column"),
            ({"instances": [{"a": "1", "b": 2}]}, "instances[0].a", "a number (float64)", 'the text "1"'),
            ({"instances": [1]}, "instances[0]", "a list of 2 (a, b), or an object with these", "1"),
            ({"inputs": {"a": 1, "b": 2}}, "inputs.a", "a list with one value a row", "1"),
            ({"inputs": {"a": [1], "b": [2, 3]}}, "inputs.b", "1 values, as in the other inputs", "2"),
            ({"inputs": []}, "inputs", "at least one row", "an empty list"),
            ({"instances": [], "inputs": []}, "body", "either instances or inputs", "both"),
            ({"signature_name": "nope", "instances": [[1, 2]]}, "signature_name",
             "one of serving_default, predict, tensorflow/serving/predict", "nope"),
            (b'{"instances":[[1,2]],"instances":[[1,2]]}', "instances", "each key once", "the same key twice"),
        ):  # fmt: skip
            with pytest.raises(InvalidInput) as caught:
                decode(body, NUMBERS)
            problem = caught.value.problems[0]
            assert (problem.path, problem.expected, problem.got) == (path, expected, got)


class TestExamples:
    FIELDS = (
        Field(name="x", dtype="float32"), Field(name="n", dtype="int64", nullable=True),
        Field(name="v", dtype="int32", shape=(2, 2)), Field(name="s", dtype="string", nullable=True),
    )  # fmt: skip

    def test_features(self) -> None:
        examples = [
            {"x": 1, "n": [3], "v": [1, 2, 3, 4], "s": "a"},
            {"x": [2.5], "v": [[1, 2], [3, 4]], "other": [1]},
            {"x": 0, "n": [], "s": None, "v": [1, 2, 3, 4]},
        ]
        columns = decode({"examples": examples}, self.FIELDS, "classify")
        assert columns["x"].tolist() == [1, 2.5, 0]
        assert columns["n"][0] == 3 and np.isnan(columns["n"][1:]).all()
        assert columns["v"].tolist() == [[[1, 2], [3, 4]]] * 3
        assert columns["s"].tolist() == ["a", None, None]

    def test_context(self) -> None:
        body = {"context": {"x": 1.5, "s": "all"}, "examples": [{"v": [1, 2, 3, 4]}, {"v": [5, 6, 7, 8], "n": 1}]}
        columns = decode(body, self.FIELDS, "classify")
        assert columns["x"].tolist() == [1.5, 1.5] and columns["s"].tolist() == ["all", "all"]
        with pytest.raises(InvalidInput, match=r"examples\[1\]\.x: expected a feature of the context or of examples"):
            decode({**body, "examples": [{"v": [1, 2, 3, 4]}, {"v": [5, 6, 7, 8], "x": 1}]}, self.FIELDS, "classify")

    def test_what_is_wrong(self) -> None:
        for example, path in (
            ({"v": [1, 2, 3, 4]}, "examples[0].x"), ({"x": [1, 2], "v": [1, 2, 3, 4]}, "examples[0].x"),
            ({"x": 1, "v": [1, 2, 3]}, "examples[0].v"), ({"x": 1}, "examples[0].v"), (3, "examples[0]"),
        ):  # fmt: skip
            with pytest.raises(InvalidInput) as caught:
                decode({"examples": [example]}, self.FIELDS, "classify")
            assert caught.value.problems[0].path == path


def encode(codec: Codec, request: Request, fields: tuple[Field, ...], outputs: dict[str, Any]) -> bytes:
    """The answer of a codec whose model has given ``outputs``, which are not checked."""
    layout = Signature(inputs=NUMBERS, outputs=fields).output_layout
    blocks = [
        np.stack([outputs[name] for name in block.names], axis=1) if block.is_scalar else outputs[block.names[0]]
        for block in layout.blocks
    ]
    batch = Batch(Columns(layout, blocks, request.rows))
    return codec.encode(request, Response(batch, 0, request.rows, "")).body


class TestAnswers:
    def answer(
        self, fields: tuple[Field, ...], outputs: dict[str, Any], form: str = "instances", task: str = "other",
        variant: str = "predict",
    ) -> bytes:  # fmt: skip
        served = KitServed(signature=Signature(inputs=NUMBERS, outputs=fields), task=task)
        codec = WIRE.codec(Call("predict", variant=variant), served)
        rows = len(next(iter(outputs.values())))
        body = {
            "instances": {"instances": [[1, 2]] * rows},
            "inputs": {"inputs": {"a": [1] * rows, "b": [1] * rows}},
            "examples": {"examples": [{"a": 1}] * rows},
        }[form]
        return encode(codec, codec.decode(json.dumps(body).encode(), {}), fields, outputs)

    PREDICTION = Field(name="prediction", dtype="string")
    SCORES = Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", 'y"%es'))

    def test_one_output_goes_without_its_name(self) -> None:
        field = Field(name="y", dtype="float64", shape=(2,))
        assert self.answer((field,), {"y": np.array([[1.0, 2], [3, 4]])}) == b'{"predictions":[[1.0,2.0],[3.0,4.0]]}'
        assert (
            self.answer((field,), {"y": np.array([[1.0, 2], [3, 4]])}, "inputs") == b'{"outputs":[[1.0,2.0],[3.0,4.0]]}'
        )

    def test_several_outputs_are_named(self) -> None:
        outputs = {"prediction": np.array(["no", "no"], dtype=object), "probabilities": np.array([[0.75, 0.25]] * 2)}
        fields = (self.PREDICTION, self.SCORES)
        row = b'{"prediction":"no","probabilities":[0.75,0.25]}'
        assert self.answer(fields, outputs) == b'{"predictions":[' + row + b"," + row + b"]}"
        assert self.answer(fields, outputs, "inputs") == (
            b'{"outputs":{"prediction":["no","no"],"probabilities":[[0.75,0.25],[0.75,0.25]]}}'
        )

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_floats_are_short_and_words_are_bare(self, dtype: str) -> None:
        values = np.array([0.1, 3, np.nan, np.inf, -np.inf, 1e-5], dtype=dtype)
        told = self.answer((Field(name="y", dtype=dtype),), {"y": values})
        assert told == b'{"predictions":[0.1,3.0,NaN,Infinity,-Infinity,1e-05]}'
        shaped = self.answer((Field(name="y", dtype=dtype, shape=(3,)),), {"y": values.reshape(2, 3)}, "inputs")
        assert json.loads(shaped)["outputs"][0][:2] == [0.1, 3.0]
        assert b"NaN],[Infinity,-Infinity" in shaped

    def test_other_types(self) -> None:
        def one(dtype: str, value: Any, name: str = "y", **more: Any) -> bytes:
            array = np.array([value], dtype="object" if dtype == "string" else dtype)
            return self.answer((Field(name=name, dtype=dtype, **more),), {name: array})

        assert one("int64", -3) == b'{"predictions":[-3]}'
        assert one("bool", True) == b'{"predictions":[true]}'
        assert one("string", 'a"b') == b'{"predictions":["a\\"b"]}'
        assert one("string", None, nullable=True) == b'{"predictions":[null]}'
        assert one("string", "foo", "image_bytes") == b'{"predictions":[{"b64":"Zm9v"}]}'

    def test_classify(self) -> None:
        outputs = {"prediction": np.array(["no"], dtype=object), "probabilities": np.array([[0.75, np.nan]])}
        told = self.answer((self.PREDICTION, self.SCORES), outputs, "examples", variant="classify")
        assert told == b'{"results":[[["no",0.75],["y\\"%es",NaN]]]}'

    def test_classify_without_scores(self) -> None:
        options: Any = {"form": "examples", "task": "classification", "variant": "classify"}
        told = self.answer((self.PREDICTION,), {"prediction": np.array(["no"], dtype=object)}, **options)
        assert told == b'{"results":[[["no",0.0]]]}'
        told = self.answer((Field(name="prediction", dtype="int64"),), {"prediction": np.array([7])}, **options)
        assert told == b'{"results":[[["7",0.0]]]}'

    def test_regress(self) -> None:
        options: Any = {"form": "examples", "task": "regression", "variant": "regress"}
        field = Field(name="prediction", dtype="float64")
        assert self.answer((field,), {"prediction": np.array([1.5, 2])}, **options) == b'{"results":[1.5,2.0]}'
        field = Field(name="prediction", dtype="int32")
        assert self.answer((field,), {"prediction": np.array([1, 2], "int32")}, **options) == b'{"results":[1.0,2.0]}'

    def test_what_a_model_cannot(self) -> None:
        number = KitServed(
            signature=Signature(inputs=NUMBERS, outputs=(Field(name="y", dtype="float64"),)), task="regression"
        )  # fmt: skip
        with pytest.raises(InvalidInput, match="a signature that kit has: serving_default, regression"):
            WIRE.codec(Call("predict", variant="classify"), number)
        with pytest.raises(InvalidInput, match="a signature that kit has: serving_default, classification"):
            WIRE.codec(Call("predict", variant="regress"), KitServed())
