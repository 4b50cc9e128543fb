"""KServe's first protocol: paths, instances, events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from modelyard.errors import InvalidInput, NotFound, NotReady
from modelyard.interfaces import State
from modelyard.messages import Batch, Call, Message, Response
from modelyard.schema import Field, Layout, Signature
from modelyard.testing.wires import KitCatalog, KitServed, columns_of, outputs
from modelyard.wires import Unimplemented
from modelyard.wires.kserve import KServeCodec, KServeWire

WIRE = KServeWire()
ROWS = {"instances": [[1.5, "Rome", -2], [0, None, 4]]}
EVENT = {"specversion": "1.0", "id": "36077800", "source": "here", "type": "some.request", "extra": "x"}


def codec_of(served: KitServed | None = None) -> KServeCodec:
    return WIRE.codec(Call("predict"), served or KitServed())


def answer(codec: KServeCodec, body: Any, headers: dict[str, str], rows: int = 2) -> Message:
    request = codec.decode(json.dumps(body).encode(), headers)
    assert request.rows == rows
    return codec.encode(request, Response(Batch(outputs(60)), 50, 50 + rows, "id-1"))


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "action", "model"),
        [
            ("GET", "/", "alive", None), ("GET", "/v1/models", "models", None), ("GET", "/v1/models/", "models", None),
            ("GET", "/v1/models/a%2Fb", "model", "a/b"), ("POST", "/v1/models/m:predict", "predict", "m"),
            ("POST", "/v1/models/a%3Ab:predict/", "predict", "a:b"), ("POST", "/v1/models/m:explain", "explain", "m"),
            ("POST", "/v1/models/a:b:predict", "predict", "a:b"),
        ],
    )  # fmt: skip
    def test_what_they_mean(self, method: str, path: str, action: str, model: str | None) -> None:
        call = WIRE.match(method, path)
        assert call is not None and (call.action, call.model) == (action, model)

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/"), ("POST", "/v1/models/m"), ("POST", "/v1/models/m%3Apredict"), ("GET", "/v1"),
            ("POST", "/v1/models/m:classify"), ("POST", "/v1/models/m/x:predict"), ("PUT", "/v1/models/m:predict"),
        ],
    )  # fmt: skip
    def test_others_are_not_ours(self, method: str, path: str) -> None:
        assert WIRE.match(method, path) is None

    def ask(self, path: str, catalog: KitCatalog | None = None, method: str = "GET") -> Any:
        call = WIRE.match(method, path)
        assert call is not None
        return json.loads(WIRE.inform(call, Message(b""), catalog or KitCatalog()).body)

    def test_what_is_told(self) -> None:
        assert self.ask("/") == {"status": "alive"}
        assert self.ask("/v1/models") == {"models": ["kit"]}
        assert self.ask("/v1/models/kit") == {"name": "kit", "ready": True}
        with pytest.raises(NotFound):
            self.ask("/v1/models/nobody")
        with pytest.raises(Unimplemented, match="no explainer"):
            self.ask("/v1/models/kit:explain", method="POST")

    def test_a_model_that_does_not_serve(self) -> None:
        class Yard(KitCatalog):
            def states(self) -> Sequence[State]:
                return [State(model="bad", version="2", state="failed", reason="its golden rows differ")]

        with pytest.raises(NotReady, match="bad is failed: its golden rows differ"):
            self.ask("/v1/models/bad", Yard())


class TestInstances:
    def test_the_answer_is_the_prediction(self) -> None:
        told = answer(codec_of(), ROWS, {})
        assert json.loads(told.body) == {"predictions": ["no", "yes"]}
        assert told.content_type == "application/json"

    def test_outputs_of_other_names_are_objects(self) -> None:
        fields = (Field(name="low", dtype="float64"), Field(name="high", dtype="float64"))
        codec = codec_of(KitServed(signature=Signature(inputs=KitServed().signature.inputs, outputs=fields)))
        batch = Batch(Layout.of(fields).from_arrays({"low": [1.0, 2.0], "high": [3.0, 4.0]}))
        request = codec.decode(json.dumps(ROWS).encode(), {})
        assert json.loads(codec.encode(request, Response(batch, 0, 2, "")).body) == {
            "predictions": [{"low": 1.0, "high": 3.0}, {"low": 2.0, "high": 4.0}]
        }

    def test_rows_of_a_matrix_and_bare_values(self) -> None:
        fields = tuple(Field(name=f"x{i}", dtype="float32") for i in range(3))
        codec = codec_of(KitServed(signature=Signature(inputs=fields, outputs=KitServed().signature.outputs)))
        request = codec.decode(b'{"inputs": [[1, 2, 3], [4, 5, 6.5]]}', {})
        rows = Layout.of(fields).from_tuples(request.tuples or []).blocks[0].tolist()
        assert rows == [[1, 2, 3], [4, 5, 6.5]]
        codec = codec_of(KitServed(signature=Signature(inputs=fields[:1], outputs=KitServed().signature.outputs)))
        assert codec.decode(b'{"instances": [1, 2]}', {}).tuples == [(1.0,), (2.0,)]

    def test_faults_are_named_where_they_are(self) -> None:
        with pytest.raises(InvalidInput) as caught:
            codec_of().decode(b'{"instances": [{"x1": "a", "city": "b", "x2": 1}]}', {})
        assert caught.value.problems[0].path == "instances[0].x1"


class TestEvents:
    def test_binary(self) -> None:
        headers = {f"ce-{name}": value for name, value in EVENT.items()} | {"content-type": "application/json"}
        told = answer(codec_of(), ROWS, headers)
        assert json.loads(told.body) == {"predictions": ["no", "yes"]}
        assert told.headers["ce-specversion"] == "1.0" and told.headers["ce-id"] == "id-1"
        assert told.headers["ce-source"] == "io.kserve.inference.kit"
        assert told.headers["ce-type"] == "io.kserve.inference.response"

    def test_structured(self) -> None:
        told = answer(
            codec_of(), EVENT | {"data": ROWS}, {"content-type": "application/cloudevents+json; charset=utf-8"}
        )
        event = json.loads(told.body)
        assert event["data"] == {"predictions": ["no", "yes"]}
        assert (event["specversion"], event["source"]) == ("1.0", "io.kserve.inference.kit")
        assert told.content_type == "application/cloudevents+json"

    def test_a_header_holds_any_name(self) -> None:
        codec = codec_of(KitServed(name="Zürich\r\n"))
        told = answer(codec, ROWS, {"ce-specversion": "1.0"})
        assert told.headers["ce-source"].isascii() and "\n" not in told.headers["ce-source"]

    @pytest.mark.parametrize(
        "body",
        [ROWS, {**EVENT, "data": 3}, {**EVENT, "data": {}}, {**EVENT, "id": 3, "data": ROWS}, EVENT, []],
        ids=["no event", "a number", "no instances", "another type", "no data", "a list"],
    )
    def test_malformed(self, body: Any) -> None:
        with pytest.raises(InvalidInput):
            codec_of().decode(json.dumps(body).encode(), {"content-type": "application/cloudevents+json"})


def test_columns_of_reads_them() -> None:
    request = codec_of().decode(json.dumps(ROWS).encode(), {})
    assert columns_of(request)["city"].tolist() == ["Rome", None]
