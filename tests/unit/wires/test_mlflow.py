"""MLflow's scoring protocol: content types, what is answered, and the words of its errors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from modelyard import __version__, errors
from modelyard.errors import InvalidInput, ModelyardError, NotReady
from modelyard.messages import Batch, Call, Message, Response
from modelyard.schema import Field, Signature
from modelyard.serving.listener import STATUS
from modelyard.testing.wires import KitCatalog, KitServed, outputs
from modelyard.wires import Unsupported
from modelyard.wires.mlflow import MlflowWire

WIRE = MlflowWire()
JSON = {"content-type": "application/json"}
RECORD = {"x1": 1.5, "city": "Rome", "x2": -2}


def answer(body: dict[str, Any], served: KitServed | None = None) -> Any:
    codec = WIRE.codec(Call("predict"), served or KitServed())
    request = codec.decode(json.dumps(body).encode(), JSON)
    message = codec.encode(request, Response(Batch(outputs(70)), 50, 50 + request.rows, "id-1"))
    assert message.content_type == "application/json"
    return json.loads(message.body)


class TestAnswers:
    def test_the_prediction_alone(self) -> None:
        assert answer({"dataframe_records": [RECORD] * 2}) == {"predictions": ["no", "yes"]}
        assert answer({"inputs": RECORD}) == {"predictions": ["no"]}

    def test_other_outputs_on_demand(self) -> None:
        params = {"outputs": ["probabilities", "prediction"], "temperature": 0.1}
        assert answer({"instances": [RECORD], "params": params}) == {
            "predictions": [{"probabilities": {"no": 0.5, "yes": 0.5}, "prediction": "no"}]
        }
        told = answer({"instances": [RECORD], "params": {"outputs": ["probabilities"]}})
        assert told == {"predictions": [[0.5, 0.5]]}

    def test_a_model_of_other_outputs_is_answered_with_records(self) -> None:
        known = KitServed().signature
        renamed = tuple(
            Field(name=name, dtype=field.dtype, shape=field.shape, categories=field.categories)
            for name, field in zip(("label", "scores"), known.outputs, strict=True)
        )
        served = KitServed(signature=Signature(inputs=known.inputs, outputs=renamed))
        codec = WIRE.codec(Call("predict"), served)
        columns = outputs(1)
        made = served.signature.output_layout.from_arrays(
            {"label": columns["prediction"], "scores": columns["probabilities"]}
        )
        request = codec.decode(json.dumps({"inputs": RECORD}).encode(), JSON)
        message = codec.encode(request, Response(Batch(made), 0, 1, ""))
        assert json.loads(message.body) == {"predictions": [{"label": "no", "scores": {"no": 1.0, "yes": 0.0}}]}

    def test_nan_is_a_missing_value(self) -> None:
        codec = WIRE.codec(Call("predict"), KitServed())
        body = b'{"dataframe_split":{"columns":["x1","note","city","x2"],"data":[[1,"NaN \\" NaN",NaN,2]]}}'
        assert codec.decode(body, JSON).tuples == [(1.0, 2.0, None)]
        assert codec.decode(b'{"inputs":[[1,"NaN",2]]}', JSON).tuples == [(1.0, 2.0, "NaN")]


class TestContentTypes:
    @pytest.mark.parametrize(
        "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", None]
    )
    def test_json(self, kind: str | None) -> None:
        headers = {} if kind is None else {"content-type": kind}
        body = json.dumps({"instances": [RECORD]}).encode()
        assert WIRE.codec(Call("predict"), KitServed()).decode(body, headers).rows == 1

    def test_csv(self) -> None:
        body = b",x2,city,x1,label\n0,-2,Rome,1.5,7\n"  # as a data frame writes itself, with its index
        request = WIRE.codec(Call("predict"), KitServed()).decode(body, {"content-type": "text/csv; charset=utf-8"})
        assert request.tuples == [(1.5, -2.0, "Rome")]

    def test_parquet(self) -> None:
        pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        import pyarrow.parquet as parquet

        sink = io.BytesIO()
        parquet.write_table(pa.table({"x1": [1.5], "city": ["Rome"], "x2": [2], "__index_level_0__": [0]}), sink)
        headers = {"content-type": "application/vnd.apache.parquet"}
        assert WIRE.codec(Call("predict"), KitServed()).decode(sink.getvalue(), headers).rows == 1

    @pytest.mark.parametrize(
        "kind",
        [
            "", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1",
            "application/json; format=pandas-split", "text/csv; header=present", "application/json; format",
        ],
    )  # fmt: skip
    def test_all_others_are_refused_in_plain_text(self, kind: str) -> None:
        with pytest.raises(Unsupported) as caught:
            WIRE.codec(Call("predict"), KitServed()).decode(b"{}", {"content-type": kind})
        message = WIRE.refuse(Call("predict"), caught.value, "id-1")
        assert (message.code, message.content_type) == ("unsupported", "text/plain; charset=utf-8")
        assert b"no such content" in message.body and b"(known: " in message.body


class TestCalls:
    @pytest.mark.parametrize("path", ["/ping", "/health"])
    def test_health(self, path: str) -> None:
        call = WIRE.match("GET", path)
        assert call is not None and call.scope == "open"
        assert WIRE.inform(call, Message(b""), KitCatalog()) == Message(b"\n")
        with pytest.raises(NotReady):
            WIRE.inform(call, Message(b""), KitCatalog(ready=False))

    def test_version(self) -> None:
        call = WIRE.match("GET", "/version")
        assert call is not None
        assert WIRE.inform(call, Message(b""), KitCatalog()).body == __version__.encode()

    @pytest.mark.parametrize("call", [("GET", "/invocations"), ("POST", "/ping"), ("POST", "/invocations/x")])
    def test_what_is_not_its_own(self, call: tuple[str, str]) -> None:
        assert WIRE.match(*call) is None


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (InvalidInput.at("a", "b", "c"), "BAD_REQUEST"),
            (errors.NotFound("no"), "RESOURCE_DOES_NOT_EXIST"),
            (errors.NotReady("no"), "TEMPORARILY_UNAVAILABLE"),
            (errors.Overloaded("no"), "REQUEST_LIMIT_EXCEEDED"),
            (errors.DeadlinePassed("no"), "DEADLINE_EXCEEDED"),
            (errors.ModelFailed("no"), "INTERNAL_ERROR"),
            (ZeroDivisionError("secret"), "INTERNAL_ERROR"),
        ],
    )
    def test_codes(self, error: Exception, code: str) -> None:
        told = json.loads(WIRE.refuse(None, error, "id-1").body)
        assert set(told) == {"error_code", "message"}
        assert told["error_code"] == code and "secret" not in told["message"]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b'{"a":1}', "exactly one of dataframe_split, dataframe_records, instances, inputs, got none of them"),
            (b"[1]", "an object with one of dataframe_split"),
            (
                b'{"dataframe_split":{"columns":["x1"],"data":[[1]]}}',
                "dataframe_split.columns: expected the column city",
            ),
            (
                b'{"dataframe_split":{"data":[[1,"a","b"]]}}',
                'dataframe_split.data[0][2]: expected a number (float64), got the text "b"',
            ),
            (
                b'{"dataframe_split":{"data":[[1,"a",NaN]]}}',
                "dataframe_split.data[0][2]: expected a number (float64), got null",
            ),
            (
                b'{"dataframe_records":[{"x1":1,"city":"a"}]}',
                "dataframe_records[0].x2: expected a number (float64), got nothing",
            ),
            (
                b'{"instances":[[1,"a",2]],"params":{"outputs":"all"}}',
                "params.outputs: expected a list of outputs: prediction, probabilities, got all",
            ),
        ],
    )
    def test_what_is_said(self, body: bytes, said: str) -> None:
        with pytest.raises(ModelyardError) as caught:
            WIRE.codec(Call("predict"), KitServed()).decode(body, JSON)
        assert said in json.loads(WIRE.refuse(None, caught.value, "id-1").body)["message"]


RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "mlflow" / "invocations.json").read_text())
PAIR = (Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64"))
COMPARED = KitServed(signature=Signature(inputs=PAIR, outputs=KitServed().signature.outputs[:1]))

#: What MLflow refuses and we take: a single record may come without a list around it.
TAKEN = {"records_no_list"}


@pytest.mark.parametrize("name", RECORDED)
def test_what_mlflow_answers(name: str) -> None:
    recorded = RECORDED[name]
    codec = WIRE.codec(Call("predict"), COMPARED)
    try:
        request = codec.decode(recorded["body"].encode(), {"content-type": recorded["content_type"]})
    except ModelyardError as error:
        message = WIRE.refuse(None, error, "id-1")
    else:
        columns = (
            COMPARED.signature.input_layout.from_tuples(request.tuples or []) if request.tuples else request.columns
        )
        assert columns is not None
        labels = ["yes" if x1 > x2 else "no" for x1, x2 in zip(columns["x1"], columns["x2"], strict=True)]
        made = COMPARED.signature.output_layout.from_arrays({"prediction": labels})
        message = codec.encode(request, Response(Batch(made), 0, request.rows, "id-1"))
    status = STATUS[message.code]
    assert status == (200 if name in TAKEN else recorded["status"])
    assert message.content_type.partition(";")[0] == recorded["answer_type"]
    if status == 200 and name not in TAKEN:
        assert json.loads(message.body) == json.loads(recorded["answer"])
    elif status == 400:
        assert json.loads(message.body)["error_code"] == json.loads(recorded["answer"])["error_code"]
