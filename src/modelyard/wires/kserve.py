"""KServe's first protocol, as plain JSON or in CloudEvents.

    GET  /v1/models   /v1/models/{model}
    POST /v1/models/{model}:predict     {"instances": [...]}, or "inputs"
    GET  /                              where no other wire answers it

Instances are objects, lists in the order of the signature, or the bare values of a single input. The answer has one
prediction an instance: the output ``prediction`` where the model has it, else an object of all outputs. An event is
answered by an event of its form.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from modelyard.decoding import NOT_PLAIN, AnyDecoder, check_envelope, check_json
from modelyard.errors import InvalidInput, NotFound, NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call, Message, Request, Response
from modelyard.wires import Unimplemented, code_of, segments, told
from modelyard.wires.answers import RowTexts, main_outputs

_encode = msgspec.json.encode

#: The media type of an event that holds its attributes beside the data.
_STRUCTURED = "application/cloudevents+json"


class KServeWire:
    """See the module."""

    name = "kserve"
    prefix = "/v1"

    def match(self, method: str, path: str) -> Call | None:
        if path == "/" and method == "GET":
            return Call("alive", scope="open")
        if not path.startswith("/v1/models"):
            return None
        if method == "GET":
            match segments(path):
                case ("v1", "models"):
                    return Call("models")
                case ("v1", "models", model):
                    return Call("model", model, scope="open")
        elif method == "POST":
            path, _, verb = path.removesuffix("/").rpartition(":")  # one that is percent-encoded belongs to the name
            match segments(path), verb:
                case ("v1", "models", model), "predict":
                    return Call("predict", model)
                case ("v1", "models", model), "explain":
                    return Call("explain", model)
        return None

    def codec(self, call: Call, served: Served) -> KServeCodec:
        return KServeCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "alive":
            return Message(_encode({"status": "alive"}))
        if call.action == "models":
            return Message(_encode({"models": list(dict.fromkeys(served.name for served in catalog.models()))}))
        if call.action == "explain":
            raise Unimplemented(f"the model {call.model} has no explainer", hint=f"ask /v1/models/{call.model}:predict")
        return Message(_encode({"name": _ready(catalog, call.model), "ready": True}))

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(_encode({"error": told(error)}), code=code_of(error))


def _ready(catalog: Catalog, model: str | None) -> str:
    """The name of a model that serves. Raises NotReady where it is declared and does not, else NotFound."""
    try:
        return catalog.find(model, None, None).name
    except NotFound:
        for state in catalog.states():
            if state.model == model and state.state != "ready":
                raise NotReady(f"the model {model} is {state.state}: {state.reason}".rstrip(": ")) from None
        raise


class _Body(msgspec.Struct, gc=False):
    instances: msgspec.Raw = msgspec.Raw(b"")
    inputs: msgspec.Raw = msgspec.Raw(b"")


class _Event(msgspec.Struct, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw
    datacontenttype: str = "application/json"


_read_body = msgspec.json.Decoder(_Body).decode
_read_event = msgspec.json.Decoder(_Event).decode


class KServeCodec:
    """Reads and answers predict requests of one loaded version."""

    def __init__(self, served: Served) -> None:
        self._rows = AnyDecoder.of(served.signature.inputs).decode
        self._texts = RowTexts.of(main_outputs(served.signature.outputs)).render
        self._source = f"io.kserve.inference.{served.name}"

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        form = ""
        if headers:
            if headers.get("content-type", "").partition(";")[0].strip().lower() == _STRUCTURED:
                form, body = "structured", _data(body)
            elif "ce-specversion" in headers:
                form = "binary"
        try:
            found = _read_body(body)
        except NOT_PLAIN as error:
            raise _explain(body, str(error)) from None
        if bool(found.instances) == bool(found.inputs):
            raise _explain(body, "both" if found.inputs else "neither")
        name, text = ("instances", found.instances) if found.instances else ("inputs", found.inputs)
        rows = bytes(text)
        if rows[:1] != b"[":
            raise InvalidInput.at(name, "a list of instances", rows[:40].decode("utf-8", "replace"))
        request = self._rows(rows, name)
        check_envelope(body, 1, rows)
        request.form = form
        return request

    def encode(self, request: Request, response: Response) -> Message:
        rows = self._texts(response.batch)[response.start : response.stop]
        body = b'{"predictions":[' + b",".join(rows) + b"]}"
        return self._event(request.form, body, response.id) if request.form else Message(body)

    def _event(self, form: str, body: bytes, request_id: str) -> Message:
        """The answer to an event."""
        attributes = {
            "specversion": "1.0", "id": request_id, "source": self._source, "type": "io.kserve.inference.response",
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }  # fmt: skip
        if form == "structured":
            event = _encode(attributes | {"datacontenttype": "application/json"})
            return Message(event[:-1] + b',"data":' + body + b"}", content_type=_STRUCTURED)
        # Percent-encoded as the binding to HTTP wants it, where a header could not hold it.
        return Message(body, {f"ce-{name}": quote(value, safe=" /:.+-") for name, value in attributes.items()})


def _data(body: bytes) -> bytes:
    """The data of a structured event."""
    try:
        return bytes(_read_event(body).data)
    except NOT_PLAIN as error:
        check_json(body)
        words = 'an event in JSON: {"specversion", "id", "source", "type", "data"}'
        raise InvalidInput.at("body", words, str(error)) from None


def _explain(body: bytes, got: str) -> InvalidInput:
    """What is wrong with a body that does not hold instances."""
    try:
        check_json(body)
    except InvalidInput as found:
        return found
    return InvalidInput.at("body", '{"instances": [...]}, or "inputs" in its place', got)
