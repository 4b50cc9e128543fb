"""Vertex AI's custom containers: a health route and a predict route, both named by the environment.

``POST {"instances": [...], "parameters": {...}}`` is answered with ``{"predictions": [...]}``, one an instance: the
bare value of a single output, an object of several. ``parameters.outputs`` chooses among them. Instances are records,
or lists in the signature's order. What ``rawPredict`` forwards is read likewise, and CSV by its content type.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from modelyard import settings
from modelyard.decoding import CsvDecoder, EnvelopeDecoder
from modelyard.errors import NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call, Message, Request, Response
from modelyard.wires import code_of, told
from modelyard.wires.answers import Predictions

_encode = msgspec.json.encode

#: The routes where the environment names none.
_DEFAULT = "/v1/endpoints/0/deployedModels/0"


class VertexWire:
    """See the module. The routes are those of the environment unless given."""

    name = "vertex"

    def __init__(self, health: str = "", predict: str = "") -> None:
        cloud = settings.cloud()
        here = cloud if cloud is not None and cloud.name == "vertex" else None
        self.health = health or (here.health if here else _DEFAULT)
        self.predict = predict or (here.predict if here else f"{_DEFAULT}:predict")
        #: Errors on other paths are told in the words of other wires.
        self.prefix = self.predict

    def match(self, method: str, path: str) -> Call | None:
        if method == "POST" and path == self.predict:
            return Call("predict")
        if method == "GET" and path == self.health:
            return Call("health", scope="open")
        return None

    def codec(self, call: Call, served: Served) -> VertexCodec:
        return VertexCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if not catalog.ready:
            raise NotReady("not every declared model is ready")
        return Message(b'{"healthy":true}')

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(_encode({"error": told(error)}), code=code_of(error))


class VertexCodec:
    """Reads and answers predict calls of one loaded version."""

    def __init__(self, served: Served) -> None:
        self._predictions = Predictions(served.signature.outputs, served.signature.outputs)
        self._instances = EnvelopeDecoder(
            served.signature.inputs, rows=("instances",), others=("parameters", "signature_name")
        )
        self._csv = CsvDecoder.of(served.signature.inputs)

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        kind = headers.get("content-type", "")
        if kind.startswith("text/csv"):
            return self._csv.decode(body)
        request, others = self._instances.decode(body)
        self._predictions.take(request, others.get("parameters"), "parameters")
        return request

    def encode(self, request: Request, response: Response) -> Message:
        return self._predictions.answer(request, response)
