"""SageMaker's containers: bodies and answers of every type, and models that come and go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from modelyard.errors import Conflict, InvalidInput, NoRoom, NotFound, NotReady
from modelyard.interfaces import Served
from modelyard.messages import QUERY, Batch, Call, Message, Request, Response
from modelyard.testing.wires import KitCatalog, KitServed, outputs
from modelyard.wires import Unsupported
from modelyard.wires.sagemaker import SagemakerWire

WIRE = SagemakerWire(is_multi_model=False, accept="")
MANY = SagemakerWire(is_multi_model=True, accept="")
JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
RECORD = {"x1": 1.5, "city": "Rome", "x2": -2}
LIST = [1.5, "Rome", -2]
DECODED = (1.5, -2.0, "Rome")


def ask(body: bytes, wire: SagemakerWire = WIRE, **headers: str) -> tuple[Request, Message]:
    codec = wire.codec(Call("predict"), KitServed())
    request = codec.decode(body, {name.replace("_", "-"): value for name, value in headers.items()})
    return request, codec.encode(request, Response(Batch(outputs(70)), 50, 50 + request.rows, "id-1"))


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


class TestBodies:
    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            (JSON, dumps(RECORD)),
            (JSON + "; charset=utf-8", dumps([LIST])),
            (JSON, dumps({"instances": [{"features": LIST}]})),
            (JSON, dumps({"instances": [{"data": {"features": {"values": LIST}}}], "configuration": {}})),
            (JSON, dumps({"dataframe_split": {"columns": list(RECORD), "data": [LIST]}})),
            (CSV, b"1.5,Rome,-2\n"),
            (CSV, b"1.5,Rome,-2"),
            (CSV, b"city,x1,x2\nRome,1.5,-2\n"),
            (LINES, dumps(RECORD)),
            (LINES, dumps(LIST) + b"\n\n"),
            (LINES, dumps({"features": LIST})),
            ("application/x-ndjson", dumps({"data": {"features": {"values": LIST}}})),
        ],
    )
    def test_rows(self, kind: str, body: bytes) -> None:
        assert ask(body, content_type=kind)[0].tuples == [DECODED]

    def test_a_text_that_looks_like_the_name_of_a_form(self) -> None:
        request, _ = ask(dumps({**RECORD, "city": "instances"}), content_type=JSON)
        assert request.tuples == [(1.5, -2.0, "instances")]

    @pytest.mark.parametrize("kind", ["application/x-recordio-protobuf", "application/x-npy", "text/libsvm"])
    def test_types_that_are_not_read(self, kind: str) -> None:
        with pytest.raises(Unsupported, match=f"no such content type: {kind} .known: application/json, text/csv"):
            ask(b"", content_type=kind)

    @pytest.mark.parametrize(
        ("kind", "body", "said"),
        [
            (JSON, dumps({"instances": [{"features": [1]}]}), "instances[0]: expected a list of 3"),
            (CSV, b"a,Rome,1", "line 1, x1"),
            (LINES, dumps(LIST) + dumps(LIST), "JSON"),
            (LINES, dumps(LIST) + b"," + dumps(LIST), "2 rows on 1 lines"),
            (LINES, b"", "at least one row"),
        ],
    )
    def test_what_is_said(self, kind: str, body: bytes, said: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            ask(body, content_type=kind)
        assert said in str(caught.value)


class TestAnswers:
    def test_the_form_of_the_request(self) -> None:
        row = {"prediction": "no", "probabilities": {"no": 0.5, "yes": 0.5}}
        assert json.loads(ask(dumps(RECORD), content_type=JSON)[1].body) == {"predictions": [row]}
        message = ask(b"1,a,2\n3,b,4", content_type=CSV)[1]
        assert (message.body, message.content_type) == (b"no\nyes\n", CSV)
        message = ask(dumps(LIST) + b"\n", content_type=LINES)[1]
        assert (json.loads(message.body), message.content_type) == (row, LINES)

    def test_what_is_accepted(self) -> None:
        assert ask(b"1,a,2", content_type=CSV, accept="*/*")[1].content_type == CSV
        assert ask(b"1,a,2", content_type=CSV, accept=JSON)[1].content_type == JSON
        assert ask(dumps(RECORD), accept=f"image/png, {CSV};q=0.9")[1].body == b"no\n"
        assert ask(dumps(RECORD), accept="application/x-jsonlines")[1].content_type == LINES
        with pytest.raises(Unsupported, match="no such type to answer in: image/png"):
            ask(dumps(RECORD), accept="image/png")

    def test_what_the_environment_accepts(self) -> None:
        wire = SagemakerWire(is_multi_model=False, accept=CSV)
        assert ask(dumps(RECORD), wire)[1].body == b"no\n"
        assert ask(dumps(RECORD), wire, accept="*/*")[1].body == b"no\n"
        assert ask(dumps(RECORD), wire, accept=JSON)[1].content_type == JSON

    def test_chosen_outputs(self) -> None:
        header = "outputs=prediction,probabilities"
        assert ask(b"1,a,2", content_type=CSV, x_amzn_sagemaker_custom_attributes=header)[1].body == b"no,0.5,0.5\n"
        header = "outputs=probabilities"
        message = ask(dumps(RECORD), x_amzn_sagemaker_custom_attributes=header)[1]
        assert message.body == b'{"predictions":[[0.5,0.5]]}'
        assert ask(dumps(RECORD), x_amzn_sagemaker_custom_attributes="trace=1")[0].rows == 1
        with pytest.raises(InvalidInput, match="a list of outputs"):
            ask(dumps(RECORD), x_amzn_sagemaker_custom_attributes="outputs=more")


class Shelf(KitCatalog):
    """A catalog that loads whatever it is told, up to four models."""

    def __init__(self, *names: str) -> None:
        super().__init__(ready=False)
        self.names = list(names)

    def models(self) -> Sequence[Served]:
        return [KitServed(name=name) for name in self.names]

    def find(self, model: str | None, version: str | None, alias: str | None) -> Served:
        if model not in self.names:
            raise NotFound.among("model", str(model), self.names)
        return KitServed(name=str(model))

    def load(self, reference: str) -> Served:
        if len(self.names) == 4:
            raise NoRoom("it needs about 2GB, and 7GB of 8GB are in use")
        name, _, path = reference.partition("=")
        assert path.startswith("/opt/ml/models/")
        self.names.append(name)
        return KitServed(name=name)

    def unload(self, model: str) -> None:
        self.find(model, None, None)
        self.names.remove(model)


def inform(catalog: Shelf, method: str, path: str, body: Any = None, query: str = "") -> Any:
    call = MANY.match(method, path)
    assert call is not None and call.scope == "admin"
    message = Message(b"" if body is None else dumps(body), {QUERY: query})
    return json.loads(MANY.inform(call, message, catalog).body)


class TestManyModels:
    def test_a_life(self) -> None:
        shelf = Shelf()
        url = "/opt/ml/models/9f8e/model"
        inform(shelf, "POST", "/models", {"model_name": "9f8e", "url": url})
        assert inform(shelf, "GET", "/models") == {"models": [{"modelName": "9f8e", "modelUrl": url}]}
        assert inform(shelf, "GET", "/models/9f8e") == {"modelName": "9f8e", "modelUrl": url}
        with pytest.raises(Conflict, match="9f8e"):
            inform(shelf, "POST", "/models", {"model_name": "9f8e", "url": url})
        inform(shelf, "DELETE", "/models/9f8e")
        for call in (("GET", "/models/9f8e"), ("DELETE", "/models/9f8e")):
            with pytest.raises(NotFound):
                inform(shelf, *call)

    def test_no_room_is_told_by_a_code_of_its_own(self) -> None:
        shelf = Shelf("a", "b", "c", "d")
        with pytest.raises(NoRoom) as caught:
            inform(shelf, "POST", "/models", {"model_name": "e", "url": "/opt/ml/models/e/model"})
        assert MANY.refuse(None, caught.value, "").code == "no_room"

    def test_pages(self) -> None:
        shelf = Shelf(*(f"m{i}" for i in range(250)))
        page = inform(shelf, "GET", "/models")
        names = [model["modelName"] for model in page["models"]]
        while "nextPageToken" in page:
            page = inform(shelf, "GET", "/models", query=f"next_page_token={page['nextPageToken']}")
            names += [model["modelName"] for model in page["models"]]
        assert names == shelf.names
        with pytest.raises(InvalidInput, match="next_page_token"):
            inform(shelf, "GET", "/models", query="next_page_token=-1")

    @pytest.mark.parametrize("body", [{}, [], {"model_name": 3, "url": "a"}, {"model_name": "a"}])
    def test_loads_that_are_none(self, body: Any) -> None:
        with pytest.raises(InvalidInput, match="model_name"):
            inform(Shelf(), "POST", "/models", body)

    def test_a_url_elsewhere(self) -> None:
        with pytest.raises(NotFound, match="not a path on this machine: s3://bucket/a"):
            inform(Shelf(), "POST", "/models", {"model_name": "a", "url": "s3://bucket/a"})

    def test_predict(self) -> None:
        assert MANY.match("POST", "/models/9f8e/invoke") == Call("predict", "9f8e")

    def test_ping_says_live(self) -> None:
        call = MANY.match("GET", "/ping")
        assert call is not None and call.scope == "open"
        assert MANY.inform(call, Message(b""), KitCatalog(ready=False)).body == b""
        with pytest.raises(NotReady):
            WIRE.inform(call, Message(b""), KitCatalog(ready=False))

    def test_one_model_leaves_the_paths_of_many_to_others(self) -> None:
        assert WIRE.match("GET", "/models") is None
        assert MANY.match("PUT", "/models/a") is None
