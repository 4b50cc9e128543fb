"""The scoring server of MLflow: ``POST /invocations`` with JSON, CSV or Parquet, ``/ping``, ``/health``, ``/version``.

JSON is an object with one of ``dataframe_split``, ``dataframe_records``, ``instances`` and ``inputs``, and maybe
``params``. As in MLflow, columns that are no input are passed over, and NaN stands for a missing value; unlike there,
a value that does not fit its type is refused rather than cast. The answer holds the predictions alone; ``{"params":
{"outputs": ["prediction", "probabilities"]}}`` asks for more, and then each row is an object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from modelyard import __version__
from modelyard.decoding import CsvDecoder, EnvelopeDecoder
from modelyard.decoding.arrow import PARQUET, ArrowDecoder
from modelyard.decoding.exact import parse
from modelyard.errors import InvalidInput, NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call, Message, Request, Response
from modelyard.wires import Unsupported, code_of, told
from modelyard.wires.answers import Predictions, main_outputs

_encode = msgspec.json.encode

JSON, CSV = "application/json", "text/csv"

#: Code words and what MLflow calls such errors; the rest are its BAD_REQUEST.
_ERROR_CODES = {
    "not_found": "RESOURCE_DOES_NOT_EXIST", "not_ready": "TEMPORARILY_UNAVAILABLE",
    "overloaded": "REQUEST_LIMIT_EXCEEDED", "rate_limited": "REQUEST_LIMIT_EXCEEDED",
    "deadline_passed": "DEADLINE_EXCEEDED", "refused": "PERMISSION_DENIED", "unauthenticated": "UNAUTHENTICATED",
    "missing_dependency": "NOT_IMPLEMENTED", "conflict": "RESOURCE_CONFLICT", "internal": "INTERNAL_ERROR",
    "model_failed": "INTERNAL_ERROR", "bad_bundle": "INTERNAL_ERROR", "remote_failed": "INTERNAL_ERROR",
}  # fmt: skip


#: Texts, so that they are left alone, and the word itself.
_NAN = re.compile(rb'"(?:[^"\\]|\\.)*"|NaN', re.DOTALL)


class MlflowWire:
    """See the module."""

    name = "mlflow"
    prefix = "/invocations"

    def match(self, method: str, path: str) -> Call | None:
        if method == "POST":
            return Call("predict") if path == "/invocations" else None
        if method == "GET":
            if path in ("/ping", "/health"):
                return Call("ping", scope="open")
            if path == "/version":
                return Call("version", scope="open")
        return None

    def codec(self, call: Call, served: Served) -> MlflowCodec:
        return MlflowCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "version":
            return Message(__version__.encode(), content_type="text/plain; charset=utf-8")
        if not catalog.ready:
            raise NotReady("not every declared model is ready")
        return Message(b"\n")

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        code = code_of(error)
        if code == "unsupported":
            return Message(told(error).encode(), code=code, content_type="text/plain; charset=utf-8")
        return Message(
            _encode({"error_code": _ERROR_CODES.get(code, "BAD_REQUEST"), "message": told(error)}), code=code
        )


class MlflowCodec:
    """Reads and answers invocations of one loaded version."""

    def __init__(self, served: Served) -> None:
        self._frames = EnvelopeDecoder(
            served.signature.inputs, rows=("dataframe_records", "instances", "inputs"), splits=("dataframe_split",),
            others=("params", "signature_name"), loose=True,
        )  # fmt: skip
        self._csv = CsvDecoder.of(served.signature.inputs)
        self._arrow = ArrowDecoder(served.signature.inputs)
        outputs = served.signature.outputs
        self._predictions = Predictions(outputs, main_outputs(outputs))

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        content_type = headers.get("content-type", JSON)
        kind = content_type if content_type == JSON else _kind(content_type)
        if kind == JSON:
            return self._json(body)
        if kind == CSV:
            return self._csv.decode(body, loose=True)
        return self._arrow.decode(body, PARQUET, loose=True)

    def _json(self, body: bytes) -> Request:
        try:
            request, others = self._frames.decode(body)
        except InvalidInput:
            if b"NaN" not in body:
                raise
            # How data frames write a missing value, though JSON has no such word. All texts must end before they are
            # looked for, or the search would go over the rest again and again.
            parse(body)
            request, others = self._frames.decode(_NAN.sub(_null, body))
        self._predictions.take(request, others.get("params"), "params")
        return request

    def encode(self, request: Request, response: Response) -> Message:
        return self._predictions.answer(request, response)


def _null(found: re.Match[bytes]) -> bytes:
    return b"null" if found[0] == b"NaN" else found[0]


def _kind(content_type: str) -> str:
    """The media type, where it is one that is read. Raises Unsupported, as MLflow does, for any unknown parameter."""
    kind, *parameters = [part.strip() for part in content_type.split(";")]
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.lower() != "charset" or value.strip('"').lower() != "utf-8":
            raise Unsupported(f"no such content-type parameter: {parameter[:60]} (known: charset=utf-8)")
    if kind.lower() not in (JSON, CSV, PARQUET):
        raise Unsupported(f"no such content type: {kind[:60]} (known: {JSON}, {CSV}, {PARQUET})")
    return kind.lower()
