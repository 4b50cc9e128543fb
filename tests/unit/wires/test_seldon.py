"""Seldon's protocol: where messages come from, kinds of data and their answers, over REST and gRPC."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from modelyard import errors
from modelyard.errors import InvalidInput, NotReady
from modelyard.messages import QUERY, Batch, Call, Message, Response
from modelyard.schema import Columns, Field, Signature
from modelyard.testing.wires import KitCatalog, KitServed, outputs
from modelyard.wires import Unimplemented
from modelyard.wires.seldon.grpc import SeldonGrpcWire
from modelyard.wires.seldon.protos import messages
from modelyard.wires.seldon.rest import SeldonWire

REST, GRPC = SeldonWire(), SeldonGrpcWire()
PAIR = (Field(name="x1", dtype="float64"), Field(name="x2", dtype="int32"))
CLASSES = KitServed().signature.outputs
SERVED = KitServed(signature=Signature(inputs=PAIR, outputs=CLASSES))
VALUE = (Field(name="prediction", dtype="float64"),)
VALUED = KitServed(signature=Signature(inputs=PAIR, outputs=VALUE))
LABELLED = KitServed(signature=Signature(inputs=PAIR, outputs=CLASSES[:1]))
NDARRAY = {"data": {"ndarray": [[1, 2], [3, 4]]}}


def columns_for(served: KitServed, rows: int) -> Columns:
    if served is VALUED:
        return served.signature.output_layout.from_arrays({"prediction": np.arange(rows) / 2})
    if served is LABELLED:
        return served.signature.output_layout.from_arrays({"prediction": outputs(rows)["prediction"]})
    return outputs(rows)


def ask(body: Any, served: KitServed = SERVED, **headers: str) -> Any:
    codec = REST.codec(Call("predict"), served)
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = codec.decode(text, {name.replace("_", "-"): value for name, value in headers.items()})
    batch = Batch(columns_for(served, request.rows + 50))
    return json.loads(codec.encode(request, Response(batch, 50, 50 + request.rows, request.id or "made")).body)


def sized(*sizes: int) -> dict[str, Any]:
    return {"dim": [{"size": str(size)} for size in sizes]}


def content(dtype: str, *values: float) -> str:
    return base64.b64encode(np.array(values, dtype=dtype).tobytes()).decode()


SQUARE = {"tensorShape": sized(2, 2)}


def decoded(body: Any, served: KitServed = SERVED) -> Columns:
    found = REST.codec(Call("predict"), served).decode(json.dumps(body).encode(), {}).columns
    assert found is not None
    return found


class TestKinds:
    def test_ndarray(self) -> None:
        assert ask(NDARRAY) == {
            "data": {"names": ["no", "yes"], "ndarray": [[0.5, 0.5], [0.49, 0.51]]}, "meta": {"puid": "made"},
        }  # fmt: skip

    def test_tensor(self) -> None:
        told = ask({"data": {"names": ["x2", "x1"], "tensor": {"shape": [2, 2], "values": [1, 2.5, 3, 4]}}})
        assert told["data"]["tensor"] == {"shape": [2, 2], "values": [0.5, 0.5, 0.49, 0.51]}

    @pytest.mark.parametrize(
        "told",
        [
            {"dtype": "DT_DOUBLE", "doubleVal": [1, 2.0, 3, 4]},
            {"dtype": "DT_FLOAT", "floatVal": [1, 2, 3, "4"]},
            {"dtype": 1, "float_val": [1, 2, 3, 4]},
            {"dtype": "DT_INT64", "int64Val": ["1", "2", 3, 4.0]},
            {"dtype": "DT_INT8", "intVal": [1, 2, 3, 4]},
            {"dtype": "DT_UINT64", "uint64Val": ["1", "2", "3", "4"]},
            {"dtype": "DT_DOUBLE", "tensorContent": content("<f8", 1, 2, 3, 4)},
            {"dtype": "DT_INT16", "tensor_content": content("<i2", 1, 2, 3, 4)},
        ],
    )
    def test_tftensor(self, told: dict[str, Any]) -> None:
        for shape in ({"tensorShape": {"dim": [{"size": "2"}, {"size": 2}]}}, {"tensor_shape": SQUARE["tensorShape"]}):
            found = decoded({"data": {"tftensor": {**told, **shape}}})
            assert found["x1"].tolist() == [1, 3] and found["x2"].tolist() == [2, 4]

    def test_tftensor_by_names(self) -> None:
        tensor = {"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, 2.5, 3, 4]}
        found = decoded({"data": {"names": ["x2", "x1"], "tftensor": tensor}})
        assert found["x1"].tolist() == [2.5, 4] and found["x2"].tolist() == [1, 3]

    def test_a_tftensor_may_leave_out_what_repeats(self) -> None:
        found = decoded({"data": {"tftensor": {"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, 7]}}})
        assert found["x1"].tolist() == [1, 7] and found["x2"].tolist() == [7, 7]

    def test_whole_numbers_of_a_tftensor_keep_their_digits(self) -> None:
        whole = (Field(name="n", dtype="int64"),)
        served = KitServed(signature=Signature(inputs=whole, outputs=CLASSES))
        tensor = {"dtype": "DT_INT64", "tensorShape": {"dim": [{"size": "1"}]}, "int64Val": [str(2**53 + 1)]}
        assert decoded({"data": {"tftensor": tensor}}, served)["n"].tolist() == [2**53 + 1]

    def test_a_tftensor_is_answered_by_one(self) -> None:
        tensor = {"dtype": "DT_FLOAT", **SQUARE, "floatVal": [1, 2, 3, 4]}
        told = ask({"data": {"tftensor": tensor}})["data"]
        assert told == {"names": ["no", "yes"], "tftensor": {
            "dtype": "DT_DOUBLE", **SQUARE, "tensorContent": content("<f8", 0.5, 0.5, 0.49, 0.51),
        }}  # fmt: skip
        assert ask({"data": {"tftensor": tensor}}, VALUED)["data"]["tftensor"]["tensorShape"] == {
            "dim": [{"size": "2"}]
        }
        assert ask({"data": {"tftensor": tensor}}, LABELLED)["data"]["ndarray"] == ["no", "yes"]

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ({}, "data.tftensor.dtype: expected one of DT_FLOAT, DT_DOUBLE"),
            ({"dtype": "DT_STRING", **SQUARE, "stringVal": ["YQ=="]}, "data.tftensor.dtype: expected one of"),
            ({"dtype": True, **SQUARE}, "data.tftensor.dtype"),
            ({"dtype": ["DT_FLOAT"], **SQUARE}, "data.tftensor.dtype"),
            ({"dtype": "DT_DOUBLE", **SQUARE}, "expected elements in tensorContent or doubleVal, got none"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "floatVal": [1, 2, 3, 4]}, "tensorContent or doubleVal"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, 2, 3, 4, 5]}, "doubleVal: expected 4 elements"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, None]}, "doubleVal: expected numbers of float64"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, True]}, "doubleVal: expected numbers"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, "NaN"]}, "x1"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, "Infinity"]}, "an infinite number"),
            ({"dtype": "DT_FLOAT", **SQUARE, "floatVal": [1, 1e300]}, "infinite"),
            ({"dtype": "DT_INT8", **SQUARE, "intVal": [1, 300]}, "intVal: expected numbers of int8"),
            ({"dtype": "DT_INT32", **SQUARE, "intVal": [1, 1.5]}, "intVal: expected numbers of int32"),
            ({"dtype": "DT_INT64", **SQUARE, "int64Val": ["x"]}, "int64Val"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "tensorContent": "AAAA"}, "tensorContent: expected 32 bytes"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "tensorContent": "!!"}, "tensorContent: expected base64"),
            ({"dtype": "DT_DOUBLE", **SQUARE, "tensorContent": 7}, "tensorContent: expected base64"),
            ({"dtype": "DT_DOUBLE", "tensorShape": 4, "doubleVal": [1]}, "tensorShape"),
            ({"dtype": "DT_DOUBLE", "tensorShape": {"dim": 4}, "doubleVal": [1]}, "tensorShape"),
            ({"dtype": "DT_DOUBLE", "tensorShape": {"dim": [4]}, "doubleVal": [1]}, "tensorShape: expected whole"),
            ({"dtype": "DT_DOUBLE", "tensorShape": {"dim": [{"size": "a"}]}, "doubleVal": [1]}, "expected whole"),
            ({"dtype": "DT_DOUBLE", "tensorShape": {"dim": [{"size": 1.5}]}, "doubleVal": [1]}, "expected whole"),
            ({"dtype": "DT_DOUBLE", "tensorShape": sized(2**40, 2), "doubleVal": [1]}, "expected 2199023255552"),
            ({"dtype": "DT_DOUBLE", "tensorShape": sized(-1, -4), "doubleVal": [1, 2, 3, 4]}, "data.tftensor.shape"),
            ({"dtype": "DT_DOUBLE", "tensorShape": sized(4), "doubleVal": [1]}, "shape: expected [rows, 2]"),
            ({"dtype": "DT_DOUBLE", "tensorShape": sized(0, 2), "doubleVal": [1]}, "doubleVal: expected 0 elements"),
            ([1], "data.tftensor: expected a TensorProto"),
        ],
    )  # fmt: skip
    def test_a_tftensor_that_is_none(self, told: Any, said: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            ask({"data": {"tftensor": told}})
        assert said in str(caught.value)

    def test_only_one_kind_of_data(self) -> None:
        tensor = {"dtype": "DT_DOUBLE", **SQUARE, "doubleVal": [1, 2, 3, 4]}
        for more in ({"ndarray": [[1, 2]]}, {"tensor": {"shape": [1, 2], "values": [1, 2]}}):
            with pytest.raises(InvalidInput, match="exactly one of ndarray, tensor, tftensor"):
                ask({"data": {"tftensor": tensor, **more}})
        with pytest.raises(InvalidInput, match="dtype"):
            ask(b'{"data": {"tftensor": {"dtype": "DT_DOUBLE", "dtype": "DT_FLOAT"}}}')

    def test_one_number_a_row_is_a_vector(self) -> None:
        tensor = {"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}}}
        assert ask(tensor, VALUED)["data"] == {"names": ["prediction"], "tensor": {"shape": [2], "values": [25, 25.5]}}
        assert ask(NDARRAY, VALUED)["data"] == {"names": ["prediction"], "ndarray": [25, 25.5]}

    def test_labels_have_no_tensor(self) -> None:
        tensor = {"data": {"tensor": {"shape": [1, 2], "values": [1, 2]}}}
        assert ask(tensor, LABELLED)["data"] == {"names": ["prediction"], "ndarray": ["no"]}

    def test_json_data(self) -> None:
        row = {"prediction": "no", "probabilities": {"no": 0.5, "yes": 0.5}}
        assert ask({"jsonData": {"x1": 1, "x2": 2}})["jsonData"] == {"predictions": [row]}

    def test_the_caller_names_the_message(self) -> None:
        assert ask({**NDARRAY, "meta": {"puid": "mine", "tags": {"a": "b:c"}}})["meta"] == {"puid": "mine"}

    def test_values_keep_their_places(self) -> None:
        codec = REST.codec(Call("predict"), SERVED)
        body = {"data": {"names": ["x2", "x1"], "tensor": {"shape": [2, 2], "values": [1, 2.5, 3, 4]}}}
        found = codec.decode(json.dumps(body).encode(), {}).columns
        assert found is not None and found["x1"].tolist() == [2.5, 4] and found["x2"].tolist() == [1, 3]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({"data": {"tensor": {"shape": [2], "values": [1, 2]}}}, "data.tensor.shape: expected [rows, 2] (x1, x2)"),
            ({"data": {"tensor": {"shape": [-1, 2], "values": [1, 2]}}}, "data.tensor.shape"),
            ({"data": {"tensor": {"shape": [2**70, 2], "values": [1, 2]}}}, "as the shape says, got 2"),
            ({"data": {"tensor": {"shape": [2, 2], "values": [1, 2]}}}, "data.tensor.values: expected 4"),
            ({"data": {"tensor": {"shape": [1, 2], "values": [1, 2.5]}}}, "x2: expected a whole number"),
            ({"data": {"tensor": {"shape": [1, 2], "values": [1, 2], "more": 1}}}, "data.tensor: expected a SeldonM"),
            ({"data": {"names": ["x1", "y"], "ndarray": [[1, 2]]}}, "data.names[1]: expected one of x1, x2"),
            ({"data": {"names": ["x1", "y"], "tensor": {"shape": [1, 2], "values": [1, 2]}}}, "data.names"),
            ({"data": {"names": "x1", "ndarray": [[1, 2]]}}, "data.names: expected a SeldonMessage"),
            ({"strData": "1,2"}, "strData: expected rows: data.ndarray, data.tensor or jsonData"),
            ({"data": {"tftensor": {}}}, "data.tftensor.dtype: expected one of DT_FLOAT"),
            ([1], "body: expected a SeldonMessage"),
        ],
    )
    def test_what_is_said(self, body: Any, said: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            ask(body)
        status = json.loads(REST.refuse(None, caught.value, "id-1").body)["status"]
        assert said in status["info"]
        assert (status["status"], status["code"], status["reason"]) == (1, -1, "MICROSERVICE_BAD_DATA")


class TestSources:
    def test_a_form(self) -> None:
        text = quote(json.dumps(NDARRAY))
        kind = "application/x-www-form-urlencoded"
        assert ask(f"a=1&json={text}".encode(), content_type=kind)["data"]["names"] == ["no", "yes"]
        assert ask(NDARRAY, content_type=kind)["data"]["names"] == ["no", "yes"]  # as curl -d sends it

    def test_a_query(self) -> None:
        assert ask(b"", **{QUERY: f"json={quote(json.dumps(NDARRAY))}"})["data"]["names"] == ["no", "yes"]

    def test_parts(self) -> None:
        body = (
            b'--cut\r\nContent-Disposition: form-data; name="data"\r\n\r\n{"ndarray":[[1,2],[3,4]]}\r\n'
            b'--cut\r\nContent-Disposition: form-data; name="meta"\r\n\r\n{"puid":"p"}\r\n--cut--\r\n'
        )
        assert ask(body, content_type="multipart/form-data; boundary=cut")["meta"] == {"puid": "p"}

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"--cut", b"junk",
            b'--cut\r\nContent-Disposition: form-data; name="data"\r\n\r\n{"ndarray"\r\n--cut--\r\n',
            b'--cut\r\nContent-Disposition: form-data; name="binData"; filename="a"\r\n\r\n\x00\xff\r\n--cut--\r\n',
            b'--cut\r\nContent-Disposition: form-data; name="strData"\r\n\r\n\xff"\r\n--cut--\r\n',
        ],
    )  # fmt: skip
    def test_parts_that_are_none(self, body: bytes) -> None:
        with pytest.raises(InvalidInput):
            ask(body, content_type="multipart/form-data; boundary=cut")


class TestCalls:
    @pytest.mark.parametrize("path", ["/predict", "/api/v1.0/predictions", "/api/v0.1/predictions"])
    def test_predictions(self, path: str) -> None:
        assert REST.match("POST", path) == Call("predict")
        assert REST.match("POST", f"/seldon/team/churn{path}") == Call("predict", "churn")
        assert (REST.match("GET", path) is None) == (path != "/predict")

    @pytest.mark.parametrize("path", ["/transform-input", "/transform-output", "/route", "/aggregate"])
    def test_what_a_model_is_not(self, path: str) -> None:
        call = REST.match("POST", path)
        assert call is not None
        with pytest.raises(Unimplemented) as caught:
            REST.inform(call, Message(b""), KitCatalog())
        assert REST.refuse(call, caught.value, "").code == "unimplemented"

    def test_health(self) -> None:
        ping, status = REST.match("GET", "/health/ping"), REST.match("GET", "/health/status")
        assert ping is not None and status is not None and ping.scope == status.scope == "open"
        assert REST.inform(ping, Message(b""), KitCatalog(ready=False)).body == b"pong"
        with pytest.raises(NotReady):
            REST.inform(status, Message(b""), KitCatalog(ready=False))

    def test_feedback(self) -> None:
        call = REST.match("POST", "/api/v1.0/feedback")
        assert call is not None and call.scope == "label"
        for good in ({"request": NDARRAY, "response": NDARRAY, "reward": 1.0}, {"truth": {}}):
            catalog = KitCatalog()
            assert json.loads(REST.inform(call, Message(json.dumps(good).encode()), catalog).body) == {"meta": {}}
            assert not catalog.labels
        for bad in (b"", b"[]", b'{"reward":"much"}', b'{"request":3}', b'{"more":1}'):
            with pytest.raises(InvalidInput):
                REST.inform(call, Message(bad), KitCatalog())

    @pytest.mark.parametrize(
        ("truth", "labels"),
        [
            ({"data": {"ndarray": [["yes"]]}}, [("p1", "yes")]),
            ({"data": {"ndarray": ["yes", "no"]}}, [("p1.0", "yes"), ("p1.1", "no")]),
            ({"jsonData": "no"}, [("p1", "no")]),
            ({"jsonData": ["no", "yes"]}, [("p1.0", "no"), ("p1.1", "yes")]),
            ({"strData": "yes"}, [("p1", "yes")]),
        ],
    )
    @pytest.mark.parametrize("side", ["request", "response"])
    def test_truth_is_kept(self, truth: Any, labels: list[tuple[str, str]], side: str) -> None:
        call, catalog = REST.match("POST", "/send-feedback"), KitCatalog()
        assert call is not None and call.is_slow
        REST.inform(call, Message(json.dumps({side: {"meta": {"puid": "p1"}}, "truth": truth}).encode()), catalog)
        assert [(label.prediction, label.label) for label in catalog.labels] == labels

    @pytest.mark.parametrize(
        ("feedback", "path"),
        [
            ({"truth": {"strData": "yes"}}, "response.meta.puid"),
            ({"response": {"meta": {"puid": "p1"}}, "truth": {"strData": "maybe"}}, "truth: expected one of .*no, yes"),
            ({"response": {"meta": {"puid": "p1"}}, "truth": {"jsonData": ["yes", 3]}}, r"truth\[1\].*got 3"),
            ({"response": {"meta": {"puid": "p1"}}, "truth": {"binData": "AA=="}}, "truth: expected one of data"),
        ],
    )
    def test_truth_that_is_none(self, feedback: Any, path: str) -> None:
        catalog = KitCatalog()
        with pytest.raises(InvalidInput, match=path):
            REST.inform(Call("feedback"), Message(json.dumps(feedback).encode()), catalog)
        assert not catalog.labels

    def test_metadata(self) -> None:
        told = json.loads(REST.inform(Call("metadata"), Message(b""), KitCatalog(SERVED)).body)
        assert told["name"] == "kit" and told["versions"] == ["3"]
        assert told["inputs"] == [{"messagetype": "ndarray", "schema": {"names": ["x1", "x2"], "shape": [2]}}]

    def test_reasons(self) -> None:
        reason = json.loads(REST.refuse(None, errors.ModelFailed("no"), "").body)["status"]["reason"]
        assert reason == "MICROSERVICE_INTERNAL_ERROR"


def ask_grpc(fill: Any, served: KitServed = SERVED) -> Any:
    codec = GRPC.codec(Call("predict"), served)
    message = messages().SeldonMessage()
    fill(message)
    request = codec.decode(message.SerializeToString(), {})
    batch = Batch(columns_for(served, request.rows + 50))
    answer = codec.encode(request, Response(batch, 50, 50 + request.rows, request.id or "made"))
    assert answer.content_type == "application/grpc"
    return messages().SeldonMessage.FromString(answer.body)


class TestGrpc:
    @pytest.mark.parametrize("method", ["Seldon/Predict", "Model/Predict"])
    def test_predict(self, method: str) -> None:
        assert GRPC.match("POST", f"/seldon.protos.{method}") == Call("predict")
        assert GRPC.match("GET", f"/seldon.protos.{method}") is None

    def test_tensor(self) -> None:
        def fill(message: Any) -> None:
            message.meta.puid = "mine"
            message.data.tensor.shape.extend([2, 2])
            message.data.tensor.values.extend([1, 2, 3, 4])

        told = ask_grpc(fill)
        assert list(told.data.tensor.shape) == [2, 2] and list(told.data.names) == ["no", "yes"]
        assert list(told.data.tensor.values) == [0.5, 0.5, 0.49, 0.51] and told.meta.puid == "mine"
        assert list(ask_grpc(fill, VALUED).data.tensor.shape) == [2]

    def test_ndarray(self) -> None:
        def fill(message: Any) -> None:
            message.data.names.extend(["x2", "x1"])
            row = message.data.ndarray.values.add().list_value.values
            row.add(number_value=7)
            row.add(number_value=1.5)

        row = ask_grpc(fill).data.ndarray.values[0].list_value.values
        assert [cell.number_value for cell in row] == [0.5, 0.5]
        assert ask_grpc(fill, LABELLED).data.ndarray.values[0].string_value == "no"

    def test_json_data(self) -> None:
        def fill(message: Any) -> None:
            message.jsonData.struct_value.fields["x1"].number_value = 1.5
            message.jsonData.struct_value.fields["x2"].number_value = 2

        row = ask_grpc(fill).jsonData.struct_value.fields["predictions"].list_value.values[0].struct_value
        assert row.fields["prediction"].string_value == "no"
        assert row.fields["probabilities"].struct_value.fields["yes"].number_value == 0.5

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_are_none(self, value: float) -> None:
        def fill(message: Any) -> None:
            message.data.tensor.shape.extend([1, 2])
            message.data.tensor.values.extend([value, 1])

        with pytest.raises(InvalidInput, match="x1"):
            ask_grpc(fill)

    def test_junk(self) -> None:
        with pytest.raises(InvalidInput, match="protobuf"):
            GRPC.codec(Call("predict"), SERVED).decode(b"\xff\xff", {})

    def test_feedback_and_metadata(self) -> None:
        call = GRPC.match("POST", "/seldon.protos.Seldon/SendFeedback")
        assert call is not None and call.scope == "label"
        body = messages().Feedback(reward=1.0).SerializeToString()
        assert messages().SeldonMessage.FromString(GRPC.inform(call, Message(body), KitCatalog()).body) is not None
        call = GRPC.match("POST", "/seldon.protos.Seldon/ModelMetadata")
        assert call is not None
        told = messages().SeldonModelMetadata.FromString(GRPC.inform(call, Message(b""), KitCatalog(SERVED)).body)
        names = told.inputs[0].schema.struct_value.fields["names"].list_value.values
        assert told.name == "kit" and [name.string_value for name in names] == ["x1", "x2"]
        body = messages().SeldonModelMetadataRequest(name="other").SerializeToString()
        with pytest.raises(errors.NotFound):
            GRPC.inform(call, Message(body), KitCatalog(SERVED))

    def test_truth_is_kept(self) -> None:
        catalog = KitCatalog()
        feedback = messages().Feedback()
        feedback.response.meta.puid = "p1"
        for text in ("yes", "no"):
            feedback.truth.data.ndarray.values.add(string_value=text)
        GRPC.inform(Call("feedback"), Message(feedback.SerializeToString()), catalog)
        feedback.truth.strData = "no"
        GRPC.inform(Call("feedback"), Message(feedback.SerializeToString()), catalog)
        found = [(label.prediction, label.label) for label in catalog.labels]
        assert found == [("p1.0", "yes"), ("p1.1", "no"), ("p1", "no")]
        feedback.truth.data.tensor.values.append(3.0)
        with pytest.raises(InvalidInput, match="classes"):
            GRPC.inform(Call("feedback"), Message(feedback.SerializeToString()), catalog)

    @pytest.mark.parametrize("method", ["Router/Route", "Seldon/GraphMetadata", "Combiner/Aggregate"])
    def test_what_a_model_is_not(self, method: str) -> None:
        call = GRPC.match("POST", f"/seldon.protos.{method}")
        assert call is not None
        with pytest.raises(Unimplemented):
            GRPC.inform(call, Message(b""), KitCatalog())
