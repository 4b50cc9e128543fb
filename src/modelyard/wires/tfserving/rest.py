"""TensorFlow Serving over REST.

    GET  /v1/models/{model}[/versions/{n}|/labels/{label}]
    GET  /v1/models/{model}[/versions/{n}|/labels/{label}]/metadata
    POST /v1/models/{model}[/versions/{n}|/labels/{label}]:predict   :classify   :regress

Paths are matched in any case, and the content type of a body is not looked at: both as the original has it. Rows
(``instances``) are answered by rows: bare where the model has one output, else an object of all its outputs each.
Columns (``inputs``) are answered by columns: one list, else an object of lists.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from modelyard.errors import InvalidInput, Problem
from modelyard.interfaces import Catalog, Codec, Served
from modelyard.messages import Call, Message
from modelyard.wires import code_of, segments
from modelyard.wires.tfserving.about import Tensor, number_of, refusal, signatures, states_of, version_of
from modelyard.wires.tfserving.texts import CODECS

_encode = msgspec.json.encode

_MODEL = r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_PREDICT = re.compile(_MODEL + ":(classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(_MODEL + "(?:/(metadata))?", re.IGNORECASE)
#: Other verbs may be another wire's.
_OTHER_VERB = re.compile(_MODEL + ":[^/:]*", re.IGNORECASE)


class TensorFlowServingWire:
    """See the module."""

    name = "tfserving"
    prefix = "/v1/models"

    def match(self, method: str, path: str) -> Call | None:
        if path[:10].lower() != "/v1/models" or method not in ("GET", "POST"):
            return None
        predict, status = _PREDICT.fullmatch(path), _STATUS.fullmatch(path)
        if predict is not None:
            return _call(predict, "predict", variant=predict[4].lower()) if method == "POST" else None
        if status is not None:
            if method != "GET":
                return None
            # Whether a model is there is what probes ask.
            return _call(status, "metadata") if status[4] else _call(status, "status", scope="open")
        if path[10:] in ("", "/"):
            return Call("nameless") if method == "GET" else None
        if path[10] != "/" or _OTHER_VERB.fullmatch(path):
            return None
        return Call("malformed")

    def codec(self, call: Call, served: Served) -> Codec:
        return CODECS[call.variant](served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        if call.action == "status":
            assert call.model is not None
            states = states_of(catalog, call.model, call.version, call.alias)
            told = [
                {
                    "version": str(state.version),
                    "state": state.state[0],
                    "status": {"error_code": state.code[0], "error_message": state.message},
                }
                for state in states
            ]
            answer: dict[str, Any] = {"model_version_status": told}
            if call.version is None and call.alias is None:
                # KServe's first protocol has this path too, and its clients look at these two only.
                answer |= {"name": call.model, "ready": any(state.state[0] == "AVAILABLE" for state in states)}
            return Message(_encode(answer))
        if call.action == "metadata":
            return Message(_encode(_metadata(catalog.find(call.model, call.version, call.alias))))
        if call.action == "nameless":
            raise _misdirected("Missing model name in request", "the name of a model, as in /v1/models/NAME")
        known = "/v1/models/NAME, with /versions/N or /labels/LABEL, then :predict, :classify, :regress or /metadata"
        raise _misdirected("Malformed request", known)

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(_encode({"error": refusal(call, error)}), code=code_of(error))


def _misdirected(what: str, expected: str) -> InvalidInput:
    problem = Problem("path", expected, "something else")
    return InvalidInput(f"{what}: expected {expected}", problems=[problem])


def _call(found: re.Match[str], action: str, **options: Any) -> Call:
    (model,) = segments(f"/{found[1]}")
    version = version_of(found[2]) if found[2] else None
    alias = segments(f"/{found[3]}")[0] if found[3] else None
    return Call(action, model, version, alias, **options)


def _metadata(served: Served) -> dict[str, Any]:
    announced = {
        name: {
            "inputs": _tensors(name, signature.inputs),
            "outputs": _tensors(name, signature.outputs),
            "method_name": signature.method,
        }
        for name, signature in signatures(served).items()
    }
    return {
        "model_spec": {"name": served.name, "signature_name": "", "version": str(number_of(served.version))},
        "metadata": {"signature_def": {"signature_def": announced}},
    }


def _tensors(signature: str, tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    return {
        tensor.name: {
            "dtype": tensor.data_type[0],
            "tensor_shape": {
                "dim": [{"size": str(size), "name": ""} for size in tensor.shape],
                "unknown_rank": False,
            },
            "name": tensor.graph_name(signature),
        }
        for tensor in tensors
    }
