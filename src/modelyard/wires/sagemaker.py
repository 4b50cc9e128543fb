"""SageMaker's hosting containers, of one model (``/ping``, ``/invocations``) and of many (``/models`` besides).

A body is JSON, CSV without a header in the signature's order, one JSON value a line, or Parquet. JSON may have our own
forms (a record, records, columns), lists, MLflow's forms, and those of the built-in algorithms:
``{"instances": [{"features": [1.5, 2]}]}``. The answer comes in the form that ``Accept`` asks for, else in the
request's own: ``{"predictions": [...]}``, or one line a row. CSV holds the prediction alone; the header
``X-Amzn-SageMaker-Custom-Attributes: outputs=prediction,probabilities`` chooses otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from modelyard import settings
from modelyard.decoding import AnyDecoder, CsvDecoder, EnvelopeDecoder, ListsDecoder
from modelyard.decoding.arrow import PARQUET, ArrowDecoder
from modelyard.errors import Conflict, InvalidInput, NotFound, NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import QUERY, Call, Message, Request, Response
from modelyard.wires import Unsupported, code_of, segments, told
from modelyard.wires.answers import Predictions, csv_of, main_outputs

_encode = msgspec.json.encode

JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"

#: What each kind of body and answer may be called.
_KINDS = {
    JSON: JSON, CSV: CSV, LINES: LINES, "application/x-jsonlines": LINES, "application/x-ndjson": LINES,
    PARQUET: PARQUET, "application/x-parquet": PARQUET, "application/csv": CSV, "": JSON,
}  # fmt: skip

_ENVELOPES = ("dataframe_records", "instances", "inputs", "dataframe_split")

#: Models on one page of the list.
_PAGE = 100


class SagemakerWire:
    """See the module. Whether models come and go is what the environment says unless given."""

    name = "sagemaker"
    prefix = "/invocations"

    def __init__(self, *, is_multi_model: bool | None = None, accept: str | None = None) -> None:
        cloud = settings.cloud()
        here = cloud if cloud is not None and cloud.name == "sagemaker" else None
        self.is_multi_model = bool(here and here.is_multi_model) if is_multi_model is None else is_multi_model
        self._accept = (here.accept if here else "") if accept is None else accept
        #: Where loaded models came from, for the list.
        self._urls: dict[str, str] = {}

    def match(self, method: str, path: str) -> Call | None:
        if path == "/ping" and method == "GET":
            return Call("ping", scope="open")
        if path == "/invocations" and method == "POST":
            return Call("predict")
        if not self.is_multi_model or not path.startswith("/models"):
            return None
        match method, segments(path):
            case "GET", ("models",):
                return Call("list", scope="admin")
            case "POST", ("models",):
                return Call("load", scope="admin", is_slow=True)
            case "GET", ("models", model):
                return Call("describe", model, scope="admin")
            case "DELETE", ("models", model):
                return Call("unload", model, scope="admin", is_slow=True)
            case "POST", ("models", model, "invoke"):
                return Call("predict", model)
        return None

    def codec(self, call: Call, served: Served) -> SagemakerCodec:
        return SagemakerCodec(served, self._accept)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        match call.action:
            case "ping":
                # Many models come and go: the container is well without any of them.
                if not self.is_multi_model and not catalog.ready:
                    raise NotReady("not every declared model is ready")
                return Message(b"", content_type="text/plain; charset=utf-8")
            case "list":
                return Message(_encode(self._list(message, catalog)))
            case "load":
                return Message(_encode(self._load(message, catalog)))
            case "unload":
                catalog.unload(call.model or "")
                return Message(_encode({"status": f"unloaded {call.model}"}))
        return Message(_encode(self._describe(catalog.find(call.model, None, None).name)))

    def _describe(self, name: str) -> dict[str, str]:
        return {"modelName": name, "modelUrl": self._urls.get(name, f"/opt/ml/models/{name}/model")}

    def _list(self, message: Message, catalog: Catalog) -> dict[str, Any]:
        token = parse_qs(message.headers.get(QUERY, "")).get("next_page_token", ["0"])[-1]
        if not token.isdecimal() or len(token) > 9:
            raise InvalidInput.at("next_page_token", "a token of the page before", token[:40])
        names = list(dict.fromkeys(served.name for served in catalog.models()))
        stop = int(token) + _PAGE
        page: dict[str, Any] = {"models": [self._describe(name) for name in names[int(token) : stop]]}
        return page | ({"nextPageToken": str(stop)} if stop < len(names) else {})

    def _load(self, message: Message, catalog: Catalog) -> dict[str, str]:
        try:
            asked = msgspec.json.decode(message.body, type=_Load)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise InvalidInput.at("body", '{"model_name": a name, "url": a path}', str(error)) from None
        if any(served.name == asked.model_name for served in catalog.models()):
            raise Conflict(f"the model is loaded already: {asked.model_name}")
        path = asked.url.removeprefix("file://")
        if "://" in path:
            raise NotFound(f"not a path on this machine: {asked.url[:200]}")
        catalog.load(f"{asked.model_name}={path}")
        self._urls[asked.model_name] = asked.url
        return {"status": f"loaded {asked.model_name}"}

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(_encode({"code": code_of(error), "message": told(error)}), code=code_of(error))


class _Load(msgspec.Struct):
    model_name: str
    url: str


class _Features(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    features: msgspec.Raw


class _Values(msgspec.Struct, gc=False):
    values: msgspec.Raw


class _Dense(msgspec.Struct, gc=False):
    features: _Values


class _Data(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    data: _Dense


class _Instances(msgspec.Struct, gc=False):
    instances: list[_Features]


class _DenseInstances(msgspec.Struct, gc=False):
    instances: list[_Data]


_read_instances = msgspec.json.Decoder(_Instances).decode
_read_dense = msgspec.json.Decoder(_DenseInstances).decode


class SagemakerCodec:
    """Reads and answers invocations of one loaded version."""

    def __init__(self, served: Served, accept: str) -> None:
        fields, outputs = served.signature.inputs, served.signature.outputs
        self._accept = accept
        self._outputs = outputs
        self._lists = ListsDecoder.of(fields)
        self._any = AnyDecoder.of(fields)
        self._envelopes = EnvelopeDecoder(
            fields, rows=_ENVELOPES[:3], splits=_ENVELOPES[3:], others=("params", "configuration"), loose=True
        )
        #: A model whose own column is called so means it.
        self._marks = [f'"{name}"'.encode() for name in _ENVELOPES if all(name != field.name for field in fields)]
        self._has_features = any(field.name in ("features", "data") for field in fields)
        csv, arrow = CsvDecoder.of(fields), ArrowDecoder(fields)
        self._readers: dict[str, Callable[[bytes], Request]] = {
            JSON: self._json,
            CSV: lambda body: csv.decode(body, header=False),
            LINES: self._lines,
            PARQUET: lambda body: arrow.decode(body, PARQUET),
        }
        self._predictions = Predictions(outputs, outputs)

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        kind = _kind(headers.get("content-type", JSON), "content type")
        request = self._readers[kind](body)
        accept = headers.get("accept", "")
        if accept in ("", "*/*"):
            accept = self._accept
        asked = _kind(accept, "type to answer in") if accept and accept != "*/*" else kind
        request.form = JSON if asked == PARQUET else asked
        attributes = headers.get("x-amzn-sagemaker-custom-attributes", "")
        if attributes.startswith("outputs="):
            names = attributes.removeprefix("outputs=").split(",")
            request.outputs = self._predictions.choose(names, "X-Amzn-SageMaker-Custom-Attributes: outputs")
        return request

    def _json(self, body: bytes) -> Request:
        if any(mark in body for mark in self._marks) and self._envelopes.open(body)[0]:
            if b'"features"' in body and not self._has_features:
                found = self._features(body)
                if found is not None:
                    return found
            request, _ = self._envelopes.decode(body)
            return request
        return self._any.decode(body)

    def _features(self, body: bytes) -> Request | None:
        """The rows of the built-in algorithms' form; None where it is another."""
        lists: list[msgspec.Raw]
        try:
            lists = [row.features for row in _read_instances(body).instances]
        except (msgspec.DecodeError, ValueError, RecursionError):
            try:
                lists = [row.data.features.values for row in _read_dense(body).instances]
            except (msgspec.DecodeError, ValueError, RecursionError):
                return None
        return self._lists.decode(b"[" + b",".join([bytes(row) for row in lists]) + b"]", "instances")

    def _lines(self, body: bytes) -> Request:
        """One row a line: a record, a list, or an object with features; blank lines are no rows."""
        lines = [line for line in body.splitlines() if line.strip()]
        text = b"[" + b",".join(lines) + b"]"
        if b'"features"' in body and not self._has_features:
            request = self._features(b'{"instances":' + text + b"}") or self._any.decode(text)
        else:
            request = self._any.decode(text)
        if request.rows != len(lines):
            raise InvalidInput.at("body", "one row a line", f"{request.rows} rows on {len(lines)} lines")
        return request

    def encode(self, request: Request, response: Response) -> Message:
        if request.form == JSON:
            return self._predictions.answer(request, response)
        if request.form == LINES:
            rows = self._predictions.rows(request, response)
            return Message(b"\n".join(rows) + b"\n", content_type=LINES)
        outputs = main_outputs(self._outputs) if request.outputs is None else self._predictions.chosen(request)
        return Message(csv_of(response.batch, outputs, response.start, response.stop), content_type=CSV)


def _kind(text: str, what: str) -> str:
    """What a header's media type means; of several accepted ones, the first that is known."""
    found = _KINDS.get(text)
    if found is not None:
        return found
    for part in text.split(","):
        kind = part.partition(";")[0].strip().lower()
        found = JSON if kind == "*/*" else _KINDS.get(kind)
        if found is not None:
            return found
    known = ", ".join((JSON, CSV, LINES))
    raise Unsupported(f"no such {what}: {text[:60]} (known: {known})")
