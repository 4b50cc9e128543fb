"""The scoring server of MLflow: ``POST /invocations`` with JSON, CSV or Parquet, ``/ping``, ``/health``, ``/version``.

JSON is an object with one of ``dataframe_split``, ``dataframe_records``, ``instances`` and ``inputs``, and maybe
``params``. As in MLflow, columns that are no input are passed over; unlike there, a value that does not fit its type
is refused rather than cast. The answer holds the predictions alone; ``{"params": {"outputs": ["prediction",
"probabilities"]}}`` asks for more, and then each row is an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from modelyard import __version__
from modelyard.decoding import AnyDecoder, CsvDecoder, ListsDecoder, check_envelope, check_json, under
from modelyard.decoding.arrow import PARQUET, ArrowDecoder
from modelyard.errors import InvalidInput, NotReady
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call, Message, Request, Response
from modelyard.wires import Unsupported, code_of, told
from modelyard.wires.answers import RowTexts, choose, main_outputs

_encode = msgspec.json.encode

JSON, CSV = "application/json", "text/csv"

_NOTHING = msgspec.Raw(b"")

#: Orders of columns whose decoders a codec keeps.
_MOST_ORDERS = 64

#: Code words and what MLflow calls such errors; the rest are its BAD_REQUEST.
_ERROR_CODES = {
    "not_found": "RESOURCE_DOES_NOT_EXIST", "not_ready": "TEMPORARILY_UNAVAILABLE",
    "overloaded": "REQUEST_LIMIT_EXCEEDED", "rate_limited": "REQUEST_LIMIT_EXCEEDED",
    "deadline_passed": "DEADLINE_EXCEEDED", "refused": "PERMISSION_DENIED", "unauthenticated": "UNAUTHENTICATED",
    "missing_dependency": "NOT_IMPLEMENTED", "conflict": "RESOURCE_CONFLICT", "internal": "INTERNAL_ERROR",
    "model_failed": "INTERNAL_ERROR", "bad_bundle": "INTERNAL_ERROR", "remote_failed": "INTERNAL_ERROR",
}  # fmt: skip


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


class _Split(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    data: msgspec.Raw
    columns: list[str | int] | None = None
    index: msgspec.Raw = _NOTHING


class _Frame(msgspec.Struct, gc=False):
    dataframe_split: _Split | None = None
    dataframe_records: msgspec.Raw = _NOTHING
    instances: msgspec.Raw = _NOTHING
    inputs: msgspec.Raw = _NOTHING
    params: msgspec.Raw = _NOTHING
    signature_name: msgspec.Raw = _NOTHING


_read_frame = msgspec.json.Decoder(_Frame).decode

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class MlflowCodec:
    """Reads and answers invocations of one loaded version."""

    def __init__(self, served: Served) -> None:
        self._fields = served.signature.inputs
        self._rows = AnyDecoder.of(self._fields, loose=True)
        self._lists = ListsDecoder.of(self._fields)
        self._csv = CsvDecoder.of(self._fields)
        self._arrow = ArrowDecoder(self._fields)
        self._outputs = {field.name: field for field in served.signature.outputs}
        self._main = RowTexts.of(main_outputs(served.signature.outputs))
        #: The orders of columns that came so far.
        self._orders: dict[tuple[str | int, ...], ListsDecoder] = {}

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
            frame = _read_frame(body)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _explain(body, error) from None
        split, keys, parts = frame.dataframe_split, 1, []
        form = "dataframe_split"
        given = [
            (name, raw)
            for name, raw in zip(_FORMS[1:], (frame.dataframe_records, frame.instances, frame.inputs), strict=True)
            if raw
        ]
        if len(given) + (split is not None) != 1:
            got = ", ".join([*(["dataframe_split"] if split else []), *(name for name, _ in given)]) or "none of them"
            raise InvalidInput.at("body", f"exactly one of {', '.join(_FORMS)}", got)
        if split is not None:
            text = bytes(split.data)
            keys += 1 + (split.columns is not None)
            read: Callable[[bytes, str], Request] = self._columns_of(split)
            form = "dataframe_split.data"
            if split.index:
                keys += 1
                parts.append(bytes(split.index))
        else:
            form, raw = given[0]
            text = bytes(raw)
            read = self._rows.decode
        for raw in (frame.params, frame.signature_name):
            if raw:
                keys += 1
                parts.append(bytes(raw))
        check_envelope(body, keys, text, *parts)
        request = read(text, form)
        if frame.params:
            self._take(frame.params, request)
        return request

    def _columns_of(self, split: _Split) -> Callable[[bytes, str], Request]:
        """The reader for the columns that a frame names; one that only counts them has the signature's."""
        names = split.columns
        if names is None:
            return self._lists.decode
        order = tuple(names)
        decoder = self._orders.get(order)
        if decoder is None:
            try:
                decoder = self._order(order)
            except InvalidInput as error:
                raise under("dataframe_split", error) from None
            if len(self._orders) >= _MOST_ORDERS:
                self._orders.clear()
            self._orders[order] = decoder
        return decoder.decode

    def _order(self, names: tuple[str | int, ...]) -> ListsDecoder:
        if all(isinstance(name, int) for name in names):
            return self._lists
        return ListsDecoder.of(self._fields, tuple(map(str, names)), True)

    def _take(self, params: msgspec.Raw, request: Request) -> None:
        """Parameters that mean nothing here are passed over, as in MLflow."""
        given = msgspec.json.decode(params)
        if given is None:
            return
        if not isinstance(given, dict):
            raise InvalidInput.at("params", "an object", type(given).__name__)
        request.parameters = given
        if "outputs" in given:
            request.outputs = choose(list(self._outputs.values()), given["outputs"], "params.outputs")

    def encode(self, request: Request, response: Response) -> Message:
        texts = self._main
        if request.outputs is not None:
            texts = RowTexts.of(tuple(self._outputs[name] for name in request.outputs))
        rows = texts.render(response.batch)[response.start : response.stop]
        return Message(b'{"predictions":[' + b",".join(rows) + b"]}")


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


def _explain(body: bytes, error: Exception) -> InvalidInput:
    """What is wrong with a body that is no object with one of the forms."""
    try:
        check_json(body)
    except InvalidInput as found:
        return found
    message, _, place = str(error).partition(" - at `")
    path = place.rstrip("`").removeprefix("$").lstrip(".")
    expected = '{"columns": [names], "data": [rows]}' if path else f"an object with one of {', '.join(_FORMS)}"
    return InvalidInput.at(path or "body", expected, message)
