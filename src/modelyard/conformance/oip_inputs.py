"""Requests of the Open Inference Protocol that do not fit: each is the caller's fault, and the answer says so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from modelyard.conformance.client import Answer, Request
from modelyard.conformance.oip_model import FLOATS, OipModel, Tensor, numbers, texts, whole
from modelyard.conformance.rules import Expectation, Rule, error_text, refused, status, that

_TOLD: list[Expectation] = [refused, error_text()]
_ERRORS = "Inference Response JSON Error Object: {error} with a status that says failure."
_REQUEST = "Inference Request JSON Object."
_INPUT = "Request Input JSON Object."


def _without_one(model: OipModel) -> Request:
    return model.infer(inputs=[tensor.json for tensor in model.several()[1:]])


def _ragged(model: OipModel) -> Request:
    def is_meant(tensor: Tensor) -> bool:
        return numbers(tensor) and tensor.rows > 1 and len(tensor.data) > 1

    chosen = model.find(is_meant, "a number of several rows")
    return model.with_input(is_meant, "", data=[[chosen.data[0]] * 2, [chosen.data[0]] * (len(chosen.data) + 1)])


def _bare(word: str, model: OipModel) -> Request:
    """A word in place of the first number, which json.dumps would not write so."""
    data = ["@@", *model.find(numbers, "a number").data[1:]]
    request = model.with_input(numbers, "a number", data=data)
    return request.but(body=request.body.replace(b'"@@"', word.encode()))


def _half(model: OipModel) -> Request:
    return model.with_input(lambda tensor: tensor.datatype in FLOATS, "a number with a point", datatype="FP16")


_WHAT: dict[Callable[[Tensor], bool], str] = {numbers: "a number", whole: "a whole number", texts: "a text"}


def _filled(model: OipModel, is_meant: Callable[[Tensor], bool], value: object) -> Request:
    """The good request with ``value`` all over one input."""
    chosen = model.find(is_meant, _WHAT[is_meant])
    return model.with_input(is_meant, "", data=[value] * len(chosen.data))


def _finite(answer: Answer, _model: OipModel) -> bool:
    return answer.status < 500 and b"Infinity" not in answer.body and b"NaN" not in answer.body


R = Rule[OipModel]

RULES: list[R] = [
    R("not-json", "A body that is no JSON is refused with {error}.", _ERRORS, lambda m: m.sends(b"{no json"), _TOLD),
    R("not-json-is-400", "A body that is no JSON is 400.", "The specification: typically 400.",
      lambda m: m.sends(b"{no json"), [status(400)], "should"),
    R("empty-body", "An empty body is refused with {error}.", _ERRORS, lambda m: m.sends(b""), _TOLD),
    R("list-body", "A list as body is refused with {error}.", _REQUEST, lambda m: m.sends(b"[]"), _TOLD),
    R("not-utf8", "Text that is no UTF-8 is refused with {error}.", "RFC 8259, 8.1.",
      lambda m: m.infer(id="@").but(body=m.infer(id="@").body.replace(b'"@"', b'"\xff"')), _TOLD),
    R("deep", "100,000 lists in one another are refused with {error}.", "A parser must not run out of stack.",
      lambda m: m.sends(b'{"inputs":' + b"[" * 100_000), _TOLD),
    R("no-inputs", "A request without inputs is refused with {error}.", _REQUEST, lambda m: m.infer(inputs=None),
      _TOLD),
    R("schema-fault-is-400", "A request without inputs is 400.", "The specification: typically 400.",
      lambda m: m.infer(inputs=None), [status(400)], "should"),
    R("empty-inputs", "An empty list of inputs is refused with {error}.", _REQUEST, lambda m: m.infer(inputs=[]),
      _TOLD),
    R("inputs-object", "Inputs that are no list are refused with {error}.", _REQUEST, lambda m: m.infer(inputs={}),
      _TOLD),
    R("missing-input", "An input too few is refused with {error}.", _REQUEST, _without_one, _TOLD),
    R("unknown-input", "An input that the model has not is refused with {error}.", _REQUEST,
      lambda m: m.with_first(name="no-such-input"), _TOLD, "should"),
    R("input-twice", "An input that comes twice is refused with {error}.", "Nobody knows which of the two is meant.",
      lambda m: m.infer(inputs=[*(t.json for t in m.tensors), m.tensors[0].json]), _TOLD, "should"),
    R("no-name", "An input without a name is refused with {error}.", _INPUT, lambda m: m.with_first(name=None), _TOLD),
    R("no-datatype", "An input without a datatype is refused with {error}.", _INPUT,
      lambda m: m.with_first(datatype=None), _TOLD),
    R("no-shape", "An input without a shape is refused with {error}.", _INPUT, lambda m: m.with_first(shape=None),
      _TOLD),
    R("no-data", "An input without data is refused with {error}.", _INPUT, lambda m: m.with_first(data=None), _TOLD),
    R("unknown-datatype", "A datatype that is not in the table is refused with {error}.", "Tensor Data Types.",
      lambda m: m.with_first(datatype="COMPLEX64"), _TOLD),
    R("datatype-case", "Datatypes in small letters are refused with {error}.",
      "Tensor Data Types: names are in capitals.", lambda m: m.with_first(datatype=m.tensors[0].datatype.lower()),
      _TOLD, "should"),
    R("half-in-json", "FP16 in JSON is refused with {error}.", "Triton's binary extension: JSON has no FP16.", _half,
      _TOLD, "should"),
    R("shape-negative", "A negative size is refused with {error}.", _INPUT,
      lambda m: m.with_first(shape=[-1, *m.tensors[0].shape[1:]]), _TOLD),
    R("shape-fraction", "A size with a point is refused with {error}.", _INPUT,
      lambda m: m.with_first(shape=[1.5, *m.tensors[0].shape[1:]]), _TOLD),
    R("shape-text", "A shape that is a text is refused with {error}.", _INPUT, lambda m: m.with_first(shape="2"),
      _TOLD),
    R("shape-too-large", "A shape that says more than the data is refused with {error}.", "Tensor Data.",
      lambda m: m.with_first(shape=[m.tensors[0].rows + 1, *m.tensors[0].shape[1:]]), _TOLD),
    R("shape-too-small", "Data of more than the shape says are refused with {error}.", "Tensor Data.",
      lambda m: m.with_first(data=[*m.tensors[0].data, m.tensors[0].data[0]]), _TOLD),
    R("shape-rank", "A shape of more dimensions than the model's is refused with {error}.", "Model Metadata: shape.",
      lambda m: m.with_first(shape=[*m.tensors[0].shape, 1, 1]), _TOLD),
    R("shape-wrong", "A shape that holds the data but is not the model's is refused with {error}.",
      "Model Metadata: shape.", lambda m: m.with_first(shape=[1, 1, math.prod(m.tensors[0].shape), 1, 1]), _TOLD),
    R("shape-huge", "A shape whose product passes 64 bits is refused with {error}.",
      "A size that wraps around is a hole.", lambda m: m.with_first(shape=[2**32, 2**32]), _TOLD),
    R("empty-data", "Data that are empty where the shape is not are refused with {error}.", "Tensor Data.",
      lambda m: m.with_first(data=[]), _TOLD),
    R("ragged", "Rows of different lengths are refused with {error}.", "Tensor Data: nested data follow the shape.",
      _ragged, _TOLD),
    R("text-for-number", "A text for a number is refused with {error}.", "Tensor Data Types: JSON number.",
      lambda m: _filled(m, numbers, "1.5"), _TOLD, "should"),
    R("object-for-number", "An object for a number is refused with {error}.", "Tensor Data Types: JSON number.",
      lambda m: _filled(m, numbers, {}), _TOLD),
    R("fraction-for-whole", "A fraction for a whole number is refused with {error}.", "It would be cut in silence.",
      lambda m: _filled(m, whole, 1.5), _TOLD, "should"),
    R("too-large-for-whole", "A number that passes its type is refused with {error}.",
      "It would wrap around in silence.", lambda m: _filled(m, whole, 2**70), _TOLD),
    R("text-for-texts", "A number for a text is refused with {error}.", "Tensor Data Types: BYTES are texts in JSON.",
      lambda m: _filled(m, texts, 7), _TOLD, "should"),
    R("nan", "The bare word NaN is refused with {error}.", "RFC 8259, 6: JSON has no NaN.", lambda m: _bare("NaN", m),
      _TOLD, "should"),
    R("infinity", "The bare word Infinity is refused with {error}.", "RFC 8259, 6: JSON has no infinity.",
      lambda m: _bare("Infinity", m), _TOLD, "should"),
    R("overflow", "1e999 is no fault of the server, and no infinity in the answer.", "RFC 8259, 6.",
      lambda m: _bare("1e999", m), [that(_finite, "a status below 500 and no infinity")]),
    R("id-number", "An id that is a number is refused with {error}.", _REQUEST, lambda m: m.infer(id=7), _TOLD,
      "should"),
    R("outputs-text", "Outputs that are no list are refused with {error}.", _REQUEST, lambda m: m.infer(outputs="all"),
      _TOLD),
    R("output-no-name", "An output without a name is refused with {error}.", "Request Output JSON Object.",
      lambda m: m.infer(outputs=[{}]), _TOLD),
    R("parameters-list", "Parameters that are no object are refused with {error}.", "Parameters.",
      lambda m: m.infer(parameters=[1]), _TOLD),
    R("trailing", "What follows the JSON is refused with {error}.", "RFC 8259, 2: a text is one value.",
      lambda m: m.sends(m.good.body + json.dumps({}).encode()), _TOLD),
]  # fmt: skip
