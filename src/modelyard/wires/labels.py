"""The truth about predictions, sent when it is known.

    POST /labels                      a server of one model
    POST /models/{model}/labels

The body is a record, a list of records, one record a line, or CSV with a header, as the content type says:

    {"prediction_id": "9f86d081884c-1a", "label": "yes", "time": "2026-01-05T09:30:00Z"}

``prediction_id`` is the ``request_id`` of the answer; of a request of several rows it is ``request_id.N``, N the row
from 0. ``time`` may be left out: it is when the truth became known, and where labels differ the later counts.

A request is taken whole or not at all. What is answered with 200 is durable; sending it again changes nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from modelyard.errors import InvalidInput, Problem
from modelyard.interfaces import Catalog, Codec, Served
from modelyard.messages import Call, Message
from modelyard.truth import LONGEST_ID, Label, Truth, read_label
from modelyard.wires import segments
from modelyard.wires.native import CSV, JSON, LINES, NativeWire

#: More labels than this are sent in several requests.
MOST_LABELS = 100_000

#: Faults of one request that are told: a client that leaves those out is through soon.
MOST_TOLD = 1_000

NAMES = ("prediction_id", "label", "time")

#: Times as our documents write them; a few more forms are read.
TIME = (
    "^(19[1-9][0-9]|2[0-8][0-9]{2})-"
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])$"
)

_encode = msgspec.json.encode


class LabelsWire:
    """See the module."""

    name = "labels"
    prefix = "/labels"

    def __init__(self) -> None:
        self._native = NativeWire()

    def match(self, method: str, path: str) -> Call | None:
        if method != "POST":
            return None
        match segments(path):
            case ("labels",):
                return Call("labels", scope="label", is_slow=True)
            case ("models", model, "labels"):
                return Call("labels", model, scope="label", is_slow=True)
        return None

    def codec(self, call: Call, served: Served) -> Codec:
        raise NotImplementedError("this wire predicts nothing")

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        served = catalog.find(call.model, None, None)
        labels = read_labels(_records(message), truth_of(served, catalog))
        receipt = catalog.label(served, labels)
        return Message(_encode({"model": served.name, **msgspec.structs.asdict(receipt)}))

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return self._native.refuse(call, error, request_id)


def truth_of(served: Served, catalog: Catalog) -> Truth:
    """What labels of a model may be, by all of its versions that are loaded."""
    versions = [each for each in catalog.models() if each.name == served.name and each.task == served.task]
    return Truth.of(served.task, [each.signature for each in versions])


def schema_of(served: Served, catalog: Catalog) -> dict[str, Any] | None:
    """What a label of a model looks like, as a JSON Schema; None where no label tells anything about it."""
    try:
        truth = truth_of(served, catalog)
    except InvalidInput:
        return None
    label: dict[str, Any] = (
        {"enum": list(truth.classes)} if truth.classes else {"type": ["string", "number", "boolean"]}
    )
    properties = {
        "prediction_id": {
            "type": "string", "minLength": 1, "maxLength": LONGEST_ID, "pattern": "^[!-~]+$",
            "description": "The request_id of the answer; of a request of several rows, request_id.N",
        },
        "label": {"type": "number"} if truth.task == "regression" else label,
        "time": {
            "type": ["string", "null"], "pattern": TIME,
            "description": "When it became known: ISO 8601, in UTC where it has no zone",
        },
    }  # fmt: skip
    return {
        "type": "object", "properties": properties, "required": list(NAMES[:2]), "additionalProperties": False,
    }  # fmt: skip


def read_labels(records: Iterable[tuple[str, Any]], truth: Truth) -> list[Label]:
    """Labels from records and the paths at which they were found. Raises InvalidInput that lists each fault."""
    labels: list[Label] = []
    problems: list[Problem] = []
    for path, record in records:
        if len(labels) + len(problems) >= MOST_LABELS:
            raise InvalidInput.at(
                "body", f"at most {MOST_LABELS:,} labels", "more", hint="send the others in another request"
            )
        try:
            labels.append(_label(record, truth))
        except InvalidInput as error:
            problems += [Problem(f"{path}.{p.path}".lstrip("."), p.expected, p.got) for p in error.problems]
            if len(problems) >= MOST_TOLD:
                break
    if problems:
        raise InvalidInput.of(problems)
    return labels


def _label(record: Any, truth: Truth) -> Label:
    if not isinstance(record, dict):
        raise InvalidInput.at("", "a record with prediction_id and label", type(record).__name__)
    extra = [name for name in record if name not in NAMES]
    if extra:
        raise InvalidInput.at(str(extra[0]), f"one of {', '.join(NAMES)}", "an unknown name")
    if record.get("time") == "":
        raise InvalidInput.at("time", "a time, or no such field", "nothing")
    return read_label(record.get("prediction_id"), record.get("label"), record.get("time"), truth)


def _records(message: Message) -> Iterator[tuple[str, Any]]:
    """Each record of a body, and the path by which its sender knows it."""
    kind = message.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind == CSV:
        yield from _cells(message.body)
    elif kind in LINES:
        for number, line in enumerate(message.body.split(b"\n"), 1):
            if line.strip():
                yield f"line {number}", _json(line, f"line {number}")
    else:
        told = _json(message.body, "body")
        if not isinstance(told, list):
            yield "", told
            return
        for place, record in enumerate(told):
            yield f"[{place}]", record


def _json(text: bytes, path: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.at(path, "JSON", str(error)) from None


def _cells(body: bytes) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput.at("body", "UTF-8 text", f"the byte 0x{error.object[error.start]:02X}") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, None) or []
    if any(header.count(name) != 1 for name in NAMES[:2]) or not set(header) <= set(NAMES):
        raise InvalidInput.at("line 1", "the header prediction_id,label or prediction_id,label,time", ",".join(header))
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InvalidInput.at(f"line {reader.line_num}", "CSV", str(error)) from None
        if cells is None:
            return
        if cells:
            place = f"line {reader.line_num}"
            if len(cells) != len(header):
                raise InvalidInput.at(place, f"{len(header)} cells", str(len(cells)))
            record = dict(zip(header, cells, strict=True))
            if record.get("time") == "":
                del record["time"]
            yield place, record
