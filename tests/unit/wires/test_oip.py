"""The Open Inference Protocol, as its clients speak it: golden requests, answers, refusals."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, NotReady
from modelyard.messages import Batch, Call, Message, Response
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle
from modelyard.testing.wires import KitCatalog, KitServed, columns_of
from modelyard.wires.oip import OipWire

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "oip").glob("*.http"))
INPUTS = (
    Field(name="x1", dtype="float64"),
    Field(name="x2", dtype="int64"),
    Field(name="city", dtype="string"),
)
OUTPUTS = (
    Field(name="prediction", dtype="float64"),
    Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
)


def predict(columns: Columns) -> dict[str, Any]:
    """prediction = x1 + 10 x2 + 100 * letters of city"""
    letters = np.array([len(city) for city in columns["city"]])
    answer = columns["x1"] + 10 * columns["x2"] + 100 * letters
    return {"prediction": answer, "probabilities": np.stack([answer, -answer], axis=1)}


class Source:
    bundle = MemoryBundle(
        Signature(inputs=INPUTS, outputs=OUTPUTS), predict, {"x1": [0.0], "x2": [1], "city": ["Rome"]}
    )

    def marker(self) -> int:
        return 0

    def resolve(self, reference: str) -> Wanted:
        bundle = self.bundle
        return Wanted(model="m", version="1", digest=bundle.digest, aliases=(), open=lambda: bundle)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(["m"], source=Source, port=0, access_log="off") as server:
        yield server


def send(server: Server, data: bytes) -> tuple[int, dict[str, str], Any]:
    """Status, headers and the JSON of the answer; what follows it is under ``binary``."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    length = int(headers.get("inference-header-content-length", len(body)))
    answer = json.loads(body[:length])
    return int(first.split()[1]), headers, answer | {"binary": body[length:]} if body[length:] else answer


def post(server: Server, path: str, body: Any, *headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *headers]
    status, _, answer = send(server, "\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    return status, answer


def get(server: Server, path: str) -> tuple[int, Any]:
    status, _, answer = send(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return status, answer


class TestGolden:
    @pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
    def test_every_recorded_request_is_answered_200(self, server: Server, path: Path) -> None:
        status, headers, answer = send(server, path.read_bytes())
        assert status == 200
        is_binary = "binary" in answer
        assert headers["content-type"] == ("application/octet-stream" if is_binary else "application/json")

    def answer(self, server: Server, name: str) -> Any:
        (path,) = [path for path in GOLDEN if path.stem == name]
        return send(server, path.read_bytes())[2]

    def test_infer(self, server: Server) -> None:
        assert self.answer(server, "infer") == {
            "model_name": "m",
            "model_version": "1",
            "id": "42",
            "outputs": [{"name": "prediction", "datatype": "FP64", "shape": [2], "data": [421.5, 612.0]}],
        }

    def test_infer_without_named_outputs_gives_all(self, server: Server) -> None:
        answer = self.answer(server, "infer_defaults")  # which asks for binary outputs, as the client does by default
        assert [output["name"] for output in answer["outputs"]] == ["prediction", "probabilities"]
        assert answer["outputs"][1]["shape"] == [2, 2]
        assert [output["parameters"] for output in answer["outputs"]] == [
            {"binary_data_size": 16}, {"binary_data_size": 32},
        ]  # fmt: skip
        assert np.frombuffer(answer["binary"]).tolist() == [421.5, 612.0, 421.5, -421.5, 612.0, -612.0]

    @pytest.mark.parametrize("name", ["binary", "binary_gzip"])
    def test_binary_tensors(self, server: Server, name: str) -> None:
        answer = self.answer(server, name)
        assert np.frombuffer(answer["binary"]).tolist() == [421.5, 612.0, 421.5, -421.5, 612.0, -612.0]

    def test_a_binary_output_beside_one_in_json(self, server: Server) -> None:
        answer = self.answer(server, "binary_mixed_outputs")
        assert answer["id"] == "42"
        assert answer["outputs"] == [
            {"name": "prediction", "datatype": "FP64", "shape": [2], "data": [421.5, 612.0]},
            {"name": "probabilities", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": 38}},
        ]
        assert answer["binary"] == b"".join(
            len(text).to_bytes(4, "little") + text for text in (b"421.500000:0:no", b"612.000000:0:no")
        )

    def test_infer_makes_an_id_where_none_was_sent(self, server: Server) -> None:
        one, other = self.answer(server, "infer_version"), self.answer(server, "infer_version")
        assert one["id"] and one["id"] != other["id"]
        assert one["model_version"] == "1"

    def test_metadata(self, server: Server) -> None:
        metadata = self.answer(server, "model_metadata")
        assert metadata["name"] == "m" and metadata["versions"] == ["1"]
        assert metadata["inputs"] == [
            {"name": "x1", "datatype": "FP64", "shape": [-1]},
            {"name": "x2", "datatype": "INT64", "shape": [-1]},
            {"name": "city", "datatype": "BYTES", "shape": [-1]},
        ]
        assert metadata["outputs"][1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}

    def test_health_and_the_rest(self, server: Server) -> None:
        assert self.answer(server, "live") == {"live": True}
        assert self.answer(server, "ready") == {"ready": True}
        assert self.answer(server, "model_ready") == {"name": "m", "ready": True}
        assert self.answer(server, "server_metadata")["name"] == "modelyard"
        assert self.answer(server, "index") == [{"name": "m", "version": "1", "state": "READY", "reason": ""}]


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/v2/models/nobody", 404), ("/v2/models/nobody/ready", 404), ("/v2/models/m/versions/9", 404),
            ("/v2/models/m/versions/9/ready", 404), ("/v2/nothing", 404), ("/v2/models/m/infer", 405),
        ],
    )  # fmt: skip
    def test_unknown_things_are_told_as_error(self, server: Server, path: str, status: int) -> None:
        got, answer = get(server, path)
        assert got == status
        assert list(answer) == ["error"]

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[1]", b"\xff", b"[" * 1_000_000, b'{"inputs":[]}', b'{"inputs":[{"name":"x1"}]}']
    )
    def test_bad_bodies_are_400_and_told_as_error(self, server: Server, body: bytes) -> None:
        status, answer = post(server, "/v2/models/m/infer", body)
        assert status == 400
        assert list(answer) == ["error"]

    def test_an_unknown_model_and_version(self, server: Server) -> None:
        assert post(server, "/v2/models/n/infer", {})[0] == 404
        status, answer = post(server, "/v2/models/m/versions/2/infer", {})
        assert (status, "2" in answer["error"]) == (404, True)

    @pytest.mark.parametrize("length", ["-1", "x", "99999999999", "0"])
    def test_a_senseless_json_length_is_refused(self, server: Server, length: str) -> None:
        assert post(server, "/v2/models/m/infer", b"{}", f"Inference-Header-Content-Length: {length}")[0] == 400

    def test_fp16_in_json(self) -> None:
        with pytest.raises(InvalidInput, match="FP16 has no JSON form") as caught:
            decode({"inputs": [{"name": "x1", "datatype": "FP16", "shape": [1], "data": [1]}]}, (INPUTS[0],))
        assert caught.value.problems[0].path == "inputs[0].datatype"

    def test_not_ready(self) -> None:
        wire, call = OipWire(), Call("ready")
        with pytest.raises(NotReady, match="kit: not loaded yet"):
            wire.inform(call, Message(b""), KitCatalog(ready=False))
        told = json.loads(wire.inform(Call("index"), Message(b"{}"), KitCatalog(ready=False)).body)
        assert told == [{"name": "kit", "version": "3", "state": "LOADING", "reason": ""}]
        told = json.loads(wire.inform(Call("index"), Message(b'{"ready":true}'), KitCatalog(ready=False)).body)
        assert told == []
        with pytest.raises(InvalidInput):
            wire.inform(Call("index"), Message(b"["), KitCatalog())


def served(inputs: tuple[Field, ...], outputs: tuple[Field, ...] = OUTPUTS) -> KitServed:
    return KitServed(signature=Signature(inputs=inputs, outputs=outputs))


def decode(body: Any, inputs: tuple[Field, ...]) -> Columns:
    request = OipWire().codec(Call("predict"), served(inputs)).decode(json.dumps(body).encode(), {})
    if request.columns is not None:
        return request.columns
    assert request.tuples is not None
    return Signature(inputs=inputs).input_layout.from_tuples(request.tuples)


class TestTensors:
    NUMBERS = tuple(Field(name=f"x{i}", dtype="float32") for i in range(3))

    @pytest.mark.parametrize("rows", [1, 64, 65, 300])
    @pytest.mark.parametrize("nested", [True, False])
    def test_one_matrix_for_all_fields(self, rows: int, nested: bool) -> None:
        matrix = np.arange(rows * 3, dtype="float32").reshape(rows, 3)
        data = matrix.tolist() if nested else matrix.ravel().tolist()
        tensor = {"name": "input", "datatype": "FP32", "shape": [rows, 3], "data": data}
        columns = decode({"inputs": [tensor]}, self.NUMBERS)
        assert columns.blocks[0].tolist() == matrix.tolist()

    @pytest.mark.parametrize("shape", [[3], [1, 2], [3, 1], [1, 3, 1], [0, 3]])
    def test_a_matrix_of_another_shape_is_refused(self, shape: list[int]) -> None:
        with pytest.raises(InvalidInput, match=r"inputs\[0\].shape"):
            decode({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": [1, 2, 3]}]}, self.NUMBERS)

    def test_a_matrix_needs_fields_of_one_type(self) -> None:
        with pytest.raises(InvalidInput, match=r"inputs\[0\].name"):
            decode({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}, INPUTS)

    def test_null_in_a_matrix_only_where_it_may_be(self) -> None:
        fields = (Field(name="a", dtype="float64", nullable=True), Field(name="b", dtype="float64"))
        tensor = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [None, 1]}
        assert np.isnan(decode({"inputs": [tensor]}, fields)["a"][0])
        tensor["data"] = [1, None]
        with pytest.raises(InvalidInput, match="b: a number"):
            decode({"inputs": [tensor]}, fields)

    @pytest.mark.parametrize("rows", [1, 100])
    def test_a_field_with_a_shape(self, rows: int) -> None:
        fields = (Field(name="v", dtype="float32", shape=(2, -1)), Field(name="x", dtype="int8"))
        values = np.arange(rows * 6).reshape(rows, 2, 3)
        columns = decode(
            {
                "inputs": [
                    {"name": "x", "datatype": "INT8", "shape": [rows], "data": [1] * rows},
                    {"name": "v", "datatype": "FP32", "shape": [rows, 2, 3], "data": values.tolist()},
                ]
            },
            fields,
        )
        assert columns["v"].tolist() == values.tolist()

    def test_many_rows_of_every_type(self) -> None:
        fields = (
            Field(name="when", dtype="datetime", nullable=True),
            Field(name="flag", dtype="bool"),
            Field(name="n", dtype="int32", nullable=True),
            Field(name="word", dtype="string", nullable=True),
        )
        rows = 200
        columns = decode(
            {
                "inputs": [
                    {"name": "when", "datatype": "BYTES", "shape": [rows], "data": ["1970-01-02", None] * 100},
                    {"name": "flag", "datatype": "BOOL", "shape": [rows, 1], "data": [[True], [False]] * 100},
                    {"name": "n", "datatype": "FP64", "shape": [rows], "data": [3.0, None] * 100},
                    {"name": "word", "datatype": "BYTES", "shape": [rows], "data": ["a", ""] * 100},
                ]
            },
            fields,
        )
        assert columns["when"][0] == 86400 and np.isnan(columns["when"][1])
        assert columns["flag"][:2].tolist() == [True, False]
        assert columns["n"][0] == 3 and np.isnan(columns["n"][1])
        assert columns["word"][:2].tolist() == ["a", None]

    def test_repeated_keys_are_refused(self) -> None:
        codec = OipWire().codec(Call("predict"), served((INPUTS[0],)))
        body = b'{"inputs":[{"name":"x1","datatype":"FP64","shape":[1],"data":[1],"data":[2]}]}'
        with pytest.raises(InvalidInput, match=r"inputs\[0\].data: expected each key once"):
            codec.decode(body, {})

    def test_what_would_be_another_answer_is_refused(self) -> None:
        codec = OipWire().codec(Call("predict"), served(INPUTS, OUTPUTS[:1]))
        asked = json.loads(GOLDEN_BODY) | {"outputs": [{"name": "prediction", "parameters": {"classification": 2}}]}
        with pytest.raises(InvalidInput, match=r"outputs\[0\].parameters.classification"):
            codec.decode(json.dumps(asked).encode(), {})
        asked["outputs"][0]["parameters"] = {"binary_data": False, "classification": 0}
        assert codec.decode(json.dumps(asked).encode(), {}).outputs == ("prediction",)


class TestAnswers:
    def test_every_type_of_output(self) -> None:
        outputs = (
            Field(name="label", dtype="string"),
            Field(name="count", dtype="int64"),
            Field(name="flag", dtype="bool"),
            Field(name="when", dtype="datetime"),
            Field(name="words", dtype="string", shape=(2,)),
            Field(name="half", dtype="float16"),
        )
        layout = Signature(inputs=(), outputs=outputs).output_layout
        values = {
            "label": ["a", "b"], "count": [2**62, -1], "flag": [True, False], "when": ["1970-01-02", "1970-01-01"],
            "words": [["a", "b"], ["c", "d"]], "half": [0.5, 1.5],
        }  # fmt: skip
        codec = OipWire().codec(Call("predict"), served(INPUTS, outputs))
        request = codec.decode(GOLDEN_BODY, {})
        told = json.loads(codec.encode(request, Response(Batch(layout.from_arrays(values)), 0, 2, "7")).body)
        assert {o["name"]: (o["datatype"], o["shape"], o["data"]) for o in told["outputs"]} == {
            "label": ("BYTES", [2], ["a", "b"]),
            "count": ("INT64", [2], [2**62, -1]),
            "flag": ("BOOL", [2], [True, False]),
            "when": ("BYTES", [2], ["1970-01-02T00:00:00Z", "1970-01-01T00:00:00Z"]),
            "words": ("BYTES", [2, 2], ["a", "b", "c", "d"]),
            "half": ("FP32", [2], [0.5, 1.5]),
        }

    def test_not_finite_is_null(self) -> None:
        codec = OipWire().codec(Call("predict"), served(INPUTS, OUTPUTS[:1]))
        layout = Signature(inputs=(), outputs=OUTPUTS[:1]).output_layout
        batch = Batch(Columns(layout, [np.array([[np.nan], [np.inf]])], 2))
        told = json.loads(codec.encode(codec.decode(GOLDEN_BODY, {}), Response(batch, 0, 2, "7")).body)
        assert told["outputs"][0]["data"] == [None, None]

    def test_a_version_that_nothing_numbered_is_left_out(self) -> None:
        one = served(INPUTS, OUTPUTS[:1])
        one.version = ""
        codec = OipWire().codec(Call("predict"), one)
        layout = Signature(inputs=(), outputs=OUTPUTS[:1]).output_layout
        batch = Batch(layout.from_arrays({"prediction": [1.0, 2.0]}))
        told = json.loads(codec.encode(codec.decode(GOLDEN_BODY, {}), Response(batch, 0, 2, "7")).body)
        assert "model_version" not in told


_DEFAULTS = next(path for path in GOLDEN if path.stem == "infer_defaults").read_bytes().partition(b"\r\n\r\n")[2]
GOLDEN_BODY = _DEFAULTS.replace(b',"parameters":{"binary_data_output":true}', b"")


def test_columns_of_reads_both_forms() -> None:
    codec = OipWire().codec(Call("predict"), KitServed())
    tensors = [
        {"name": "x1", "datatype": "FP64", "shape": [1], "data": [1]},
        {"name": "x2", "datatype": "FP64", "shape": [1], "data": [2]},
        {"name": "city", "datatype": "BYTES", "shape": [1], "data": [None]},
    ]
    assert columns_of(codec.decode(json.dumps({"inputs": tensors}).encode(), {}))["x2"].tolist() == [2.0]
