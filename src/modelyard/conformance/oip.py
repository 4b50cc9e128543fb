"""The Open Inference Protocol, version 2, over REST: the specification, and what stock clients take for granted.

Sections are those of the specification's ``inference_rest.md``; Triton's extensions are named where they are meant.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from modelyard.conformance.client import Answer, Request
from modelyard.conformance.oip_binary import RULES as BINARY
from modelyard.conformance.oip_inputs import RULES as INPUTS
from modelyard.conformance.oip_model import DATATYPES, OipModel, flat, meet, numbers, read_outputs
from modelyard.conformance.rules import (
    Dialect,
    Expectation,
    Rule,
    Skip,
    encoded,
    error_text,
    failed,
    header,
    looks,
    no_fault_of_the_server,
    refused,
    status,
    that,
    values,
)

_SAME = values(read_outputs)
_TOLD: list[Expectation] = [refused, error_text()]
_FAILED: list[Expectation] = [failed, error_text()]
_NOT_FOUND: list[Expectation] = [status(404), error_text()]
_TENSOR = {"name": str, "datatype": str, "shape": [int]}
_KSERVE = "KServe's client reads JSON from the routes of health."
_TRITON = "tritonclient reads errors from a JSON field error of whatever is not 200."


def _known_tensors(answer: Answer, _model: OipModel) -> str | None:
    for which in ("inputs", "outputs"):
        for tensor in answer.json.get(which) or []:
            if tensor["datatype"] not in DATATYPES:
                return f"{which}: expected a known datatype, got {tensor['datatype']}"
            if any(size < -1 for size in tensor["shape"]):
                return f"{which}: expected sizes from -1, got {tensor['shape']}"
    return None


def _as_described(answer: Answer, model: OipModel) -> str | None:
    described = {each["name"]: each for each in model.metadata.get("outputs") or []}
    for output in answer.json["outputs"]:
        told = described.get(output["name"])
        if described and told is None:
            return f"the output {output['name']} is not in the metadata"
        if told and told["datatype"] != output["datatype"]:
            return f"{output['name']}: expected {told['datatype']} as in the metadata, got {output['datatype']}"
        if told and len(told["shape"]) != len(output["shape"]):
            return f"{output['name']}: expected a shape like {told['shape']}, got {output['shape']}"
    return None


def _whole_data(answer: Answer, _model: OipModel) -> str | None:
    for output in answer.json["outputs"]:
        count = 1
        for size in output["shape"]:
            count *= size
        if len(flat(output["data"])) != count:
            return f"{output['name']}: expected {count} values for {output['shape']}, got {len(flat(output['data']))}"
    return None


def _flat_data(answer: Answer, _model: OipModel) -> str | None:
    nested = [o["name"] for o in answer.json["outputs"] if any(isinstance(each, list) for each in o["data"])]
    return f"expected flat data, got nested in {', '.join(nested)}" if nested else None


def _says(name: str, read: Any) -> Expectation:
    def expect(answer: Answer, model: OipModel) -> str | None:
        got, expected = answer.json.get(name), read(model)
        return None if got == expected else f"{name}: expected {expected!r}, got {got!r}"

    return expect


def _listed_version(answer: Answer, model: OipModel) -> str | None:
    listed = model.metadata.get("versions")
    got = answer.json.get("model_version")
    return f"model_version: expected one of {listed}, got {got!r}" if listed and got not in listed else None


def _only_first(answer: Answer, model: OipModel) -> str | None:
    got, first = [each["name"] for each in answer.json["outputs"]], model.outputs[0]["name"]
    return None if got == [first] else f"expected the output {first} alone, got {', '.join(got)}"


def _unpacked(answer: Answer, model: OipModel) -> str | None:
    coding = answer.headers.get("content-encoding", "identity")
    if coding != "gzip":
        return f"expected the content coding gzip, got {coding}"
    return _SAME(Answer(answer.status, answer.headers, gzip.decompress(answer.body)), model)


def _unpacked_if_packed(answer: Answer, model: OipModel) -> str | None:
    return _unpacked(answer, model) if "content-encoding" in answer.headers else _SAME(answer, model)


def _coded(model: OipModel, coding: str, body: bytes) -> Request:
    return model.sends(body).with_headers(content_encoding=coding)


def _nested(model: OipModel) -> Request:
    def nest(data: list[Any], shape: tuple[int, ...]) -> list[Any]:
        if len(shape) < 2 or not shape[0]:
            return data
        step = len(data) // shape[0]
        return [nest(data[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]

    return model.infer(inputs=[{**t.json, "data": nest(list(t.data), t.shape)} for t in model.tensors])


def _repository(path: str, body: dict[str, Any] | None = None) -> Any:
    def make(model: OipModel) -> Request:
        model.needs("model_repository")
        return Request("POST", f"{model.prefix}/v2/repository{path}", json.dumps(body).encode() if body else b"")

    return make


def _listed(answer: Answer, model: OipModel) -> str | None:
    names = [row["name"] for row in answer.json]
    return None if model.model in names else f"expected {model.model} among the models, got {names}"


def _statistics(model: OipModel) -> Request:
    model.needs("statistics")
    return model.get("/stats")


def _configuration(model: OipModel) -> Request:
    model.needs("model_configuration")
    return model.get("/config")


def _single_output(model: OipModel) -> Request:
    if len(model.outputs) < 2:
        raise Skip("the model has one output")
    return model.infer(outputs=[{"name": model.outputs[0]["name"]}])


R = Rule[OipModel]
_MODEL = {"name": str, "versions?": [str], "platform": str, "inputs": [_TENSOR], "outputs": [_TENSOR]}
_ANSWER = {"model_name": str, "model_version?": str, "id?": str, "outputs": [{**_TENSOR, "data": list}]}
_STATISTICS = {"name": str, "version": str, "inference_count": int, "inference_stats": {"success": {"count": int}}}

RULES: list[R] = [
    # what the server says of itself
    R("server-metadata", "GET /v2 tells name, version and extensions.", "Server Metadata Response JSON Object.",
      lambda m: Request("GET", f"{m.prefix}/v2"),
      [status(200), looks({"name": str, "version": str, "extensions": [str]})]),
    R("server-metadata-slash", "GET /v2/ is the same as GET /v2.", "The OpenAPI document writes the path with a slash.",
      lambda m: Request("GET", f"{m.prefix}/v2/"), [status(200), looks({"name": str})], "should"),
    R("server-live", "GET /v2/health/live is 200.", "Health: the server can answer.",
      lambda m: Request("GET", f"{m.prefix}/v2/health/live"), [status(200)]),
    R("server-live-body", "GET /v2/health/live is answered with {live}.", _KSERVE,
      lambda m: Request("GET", f"{m.prefix}/v2/health/live"), [looks({"live": True})], "should"),
    R("server-ready", "GET /v2/health/ready is 200.", "Health: all models are ready.",
      lambda m: Request("GET", f"{m.prefix}/v2/health/ready"), [status(200)]),
    R("server-ready-body", "GET /v2/health/ready is answered with {ready}.", _KSERVE,
      lambda m: Request("GET", f"{m.prefix}/v2/health/ready"), [looks({"ready": True})], "should"),
    R("unknown-path", "A path that is nobody's is 404 with {error}.", _TRITON,
      lambda m: Request("GET", f"{m.prefix}/v2/nothing/here"), _NOT_FOUND, "should"),
    # what it says of the model
    R("model-metadata", "Metadata of a model have a name, a platform, inputs and outputs.",
      "Model Metadata Response JSON Object.", lambda m: m.get(), [status(200), looks(_MODEL)]),
    R("model-metadata-name", "Metadata name the model that was asked for.", "Model Metadata Response JSON Object.",
      lambda m: m.get(), [status(200), _says("name", lambda m: m.model)]),
    R("model-metadata-tensors", "Datatypes in metadata are of the protocol's table; sizes are -1 or more.",
      "Tensor Data Types.", lambda m: m.get(),
      [status(200), looks({"inputs?": [_TENSOR], "outputs?": [_TENSOR]}), _known_tensors]),
    R("model-metadata-inputs", "Metadata describe the inputs.", "A client can build a request from metadata alone.",
      lambda m: m.get(), [status(200), that(lambda a, m: bool(a.json.get("inputs")), "inputs")], "should"),
    R("model-metadata-version", "Metadata of the version that answers are there.", "GET v2/models/{m}/versions/{v}.",
      lambda m: m.get(f"/versions/{m.versioned()}"), [status(200), _says("name", lambda m: m.model)]),
    R("model-name-encoded", "Names are percent-decoded.", "RFC 3986, 2.1: clients encode names.",
      lambda m: Request("GET", f"{m.prefix}/v2/models/{encoded(m.model)}"),
      [status(200), _says("name", lambda m: m.model)]),
    R("model-ready", "GET .../ready is 200.", "Health: the model is ready.", lambda m: m.get("/ready"), [status(200)]),
    R("model-ready-body", "Readiness of a model is answered with {name, ready}.", _KSERVE, lambda m: m.get("/ready"),
      [looks({"name": str, "ready": True})], "should"),
    R("model-ready-version", "GET .../versions/{v}/ready is 200.", "Health: a version is ready.",
      lambda m: m.get(f"/versions/{m.versioned()}/ready"), [status(200)]),
    R("unknown-model-metadata", "Metadata of an unknown model are 404 with {error}.", _TRITON,
      lambda m: Request("GET", f"{m.prefix}/v2/models/no-such-model"), _NOT_FOUND),
    R("unknown-model-ready", "An unknown model is not ready.", "Clients take any 200 for true.",
      lambda m: Request("GET", f"{m.prefix}/v2/models/no-such-model/ready"), [status(400, 404, 503)]),
    R("unknown-model", "Inference with an unknown model is 404 with {error}.", _TRITON,
      lambda m: m.infer(at=f"{m.prefix}/v2/models/no-such-model"), _NOT_FOUND),
    R("unknown-version", "Inference with an unknown version is refused with {error}.", _TRITON,
      lambda m: m.infer(at=f"{m.url}/versions/987654321"), _FAILED),
    R("unknown-version-metadata", "Metadata of an unknown version are refused with {error}.", _TRITON,
      lambda m: m.get("/versions/987654321"), _FAILED),
    # answers
    R("infer", "An answer has the model's name and outputs.", "Inference Response JSON Object.", lambda m: m.infer(),
      [status(200), looks(_ANSWER)]),
    R("infer-type", "An answer is application/json.", "All content is JSON.", lambda m: m.infer(),
      [header("content-type", "application/json")]),
    R("infer-name", "An answer names the model that was asked.", "Inference Response JSON Object.", lambda m: m.infer(),
      [status(200), _says("model_name", lambda m: m.model)]),
    R("infer-version", "A version in the path is the one that answers.",
      "The version in the answer is the one that was used.", lambda m: m.infer(at=f"{m.url}/versions/{m.versioned()}"),
      [status(200), _says("model_version", lambda m: m.version), _SAME]),
    R("infer-version-listed", "The version that answers is one that the metadata list.",
      "Model Metadata Response JSON Object.", lambda m: m.infer(), [status(200), _listed_version]),
    R("infer-id", "An id comes back.", "Inference Response JSON Object: id is the request's.",
      lambda m: m.infer(id="mine-7"), [status(200), _says("id", lambda m: "mine-7")]),
    R("infer-described", "Outputs are as the metadata describe them.", "Model Metadata Response JSON Object.",
      lambda m: m.infer(), [status(200), _as_described]),
    R("infer-whole", "Each output has as many values as its shape says.", "Tensor Data.", lambda m: m.infer(),
      [status(200), _whole_data]),
    R("infer-flat", "Data are answered flat.", "Tensor Data: clients give the shape by themselves.",
      lambda m: m.infer(), [status(200), _flat_data], "should"),
    R("infer-nested", "Nested data mean the same as flat.", "Tensor Data: both forms are taken.", _nested,
      [status(200), _SAME]),
    R("infer-order", "Inputs may come in any order.", "Inputs are told by their names.",
      lambda m: m.infer(inputs=[t.json for t in reversed(m.several())]), [status(200), _SAME]),
    R("infer-outputs", "Only the outputs that were asked for come back.", "Inference Request JSON Object: outputs.",
      _single_output, [status(200), _only_first]),
    R("infer-unknown-output", "An unknown output is refused with {error}.", "It cannot be answered.",
      lambda m: m.infer(outputs=[{"name": "no-such-output"}]), _TOLD),
    R("infer-parameters", "Parameters that nobody knows do no harm.", "Parameters: texts, numbers, booleans.",
      lambda m: m.infer(parameters={"mine": "a", "other": 1, "third": True}), [status(200), _SAME], "should"),
    R("infer-tensor-parameters", "Parameters of an input that nobody knows do no harm.", "Request Input: parameters.",
      lambda m: m.with_first(parameters={"mine": 1}), [status(200), _SAME], "should"),
    R("infer-no-type", "A body without Content-Type is read.", "Triton and curl -d: the path says what it is.",
      lambda m: m.infer().with_headers(content_type=None), [status(200), _SAME], "should"),
    R("infer-charset", "application/json; charset=utf-8 is read.", "Many clients send it.",
      lambda m: m.infer().with_headers(content_type="application/json; charset=utf-8"), [status(200), _SAME]),
    # compression
    R("gzip", "A request in gzip is read.", "Triton, HTTP/REST: compression.",
      lambda m: _coded(m, "gzip", gzip.compress(m.good.body)), [status(200), _SAME], "should"),
    R("deflate", "A request in deflate is read.", "Triton, HTTP/REST: compression.",
      lambda m: _coded(m, "deflate", zlib.compress(m.good.body)), [status(200), _SAME], "should"),
    R("identity", "Content-Encoding: identity changes nothing.", "RFC 9110, 8.4.1.",
      lambda m: _coded(m, "identity", m.good.body), [status(200), _SAME]),
    R("unknown-coding", "A coding that is not known is 415 and says which are.", "RFC 9110, 15.5.16.",
      lambda m: _coded(m, "br", b"\x0b\x02\x80abc\x03"), [status(415), header("accept-encoding", "gzip")], "should"),
    R("bad-gzip", "Bytes that are no gzip are the caller's fault.", "A broken body is no fault of the server.",
      lambda m: _coded(m, "gzip", b"this is no gzip"), _TOLD),
    R("cut-gzip", "gzip that ends early is the caller's fault.", "A broken body is no fault of the server.",
      lambda m: _coded(m, "gzip", gzip.compress(m.good.body)[:-9]), _TOLD),
    R("accepts-gzip", "An answer in gzip is the same once unpacked.", "RFC 9110, 12.5.3.",
      lambda m: m.infer().with_headers(accept_encoding="gzip"), [status(200), _unpacked_if_packed]),
    R("accepts-no-gzip", "gzip;q=0 is not answered in gzip.", "RFC 9110, 12.5.3: a weight of 0 forbids.",
      lambda m: m.infer().with_headers(accept_encoding="gzip;q=0, identity"), [status(200), _SAME]),
    *INPUTS,
    *BINARY,
    # extensions
    R("repository-index", "POST /v2/repository/index lists the model.", "Triton's repository extension.",
      _repository("/index"), [status(200), looks([{"name": str, "version?": str, "state?": str}]), _listed]),
    R("repository-index-ready", "The index takes {ready: true}.", "Triton's repository extension.",
      _repository("/index", {"ready": True}), [status(200), looks([{"name": str}]), _listed]),
    R("repository-unknown-load", "Loading an unknown model is refused with {error}.", "Triton's repository extension.",
      _repository("/models/no-such-model/load"), _FAILED),
    R("repository-unknown-unload", "Unloading an unknown model is no fault of the server.",
      "Triton's repository extension.", _repository("/models/no-such-model/unload"), [no_fault_of_the_server]),
    R("statistics", "Statistics count the model's requests.", "Triton's statistics extension.", _statistics,
      [status(200), looks({"model_stats": [_STATISTICS]})]),
    R("configuration", "The configuration names the model.", "Triton's model configuration extension.", _configuration,
      [status(200), looks({"name": str})]),
    R("infer-numbers-as-whole", "Numbers may be written without a point.", "JSON has one kind of number.",
      lambda m: m.with_input(numbers, "a number", data=[1] * len(m.find(numbers, "").data)), [status(200)]),
]  # fmt: skip

DIALECT = Dialect("oip", "Open Inference Protocol v2", meet, RULES)
