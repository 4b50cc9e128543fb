"""TensorFlow Serving over REST: its ``api_rest.md``, and where that differs from the server, the server."""

from __future__ import annotations

from typing import Any

from modelyard.conformance.client import Answer, Request
from modelyard.conformance.rules import (
    Dialect,
    Expectation,
    Rule,
    Skip,
    count,
    encoded,
    error_text,
    header,
    looks,
    misfit,
    no_fault_of_the_server,
    refused,
    status,
    values,
)
from modelyard.conformance.tfserving_model import TfModel, meet, read_rows

_SAME = values(read_rows)
_TOLD: list[Expectation] = [status(400), error_text()]
_NOT_FOUND: list[Expectation] = [status(404), error_text()]
_PREDICT = "api_rest.md, Predict API."
_STATUS = "api_rest.md, Model status API; version is int64 in the proto, a text in JSON."
_METADATA = "api_rest.md, Model Metadata API."
_FORMAT = "api_rest.md, Encoding: row format and column format."
_VERSION = {"version": str, "state": str, "status": {"error_code": str, "error_message": str}}
_SERVED = {"version": str, "state": "AVAILABLE", "status": {"error_code": "OK"}}
_FIELD = {"dtype": str, "tensor_shape": {"unknown_rank?": bool, "dim?": [{"size": str}]}, "name?": str}


def _digits(answer: Answer, _model: TfModel) -> str | None:
    versions = [row["version"] for row in answer.json["model_version_status"]]
    return None if all(version.isdigit() for version in versions) else f"expected versions of digits, got {versions}"


def _available(answer: Answer, _model: TfModel) -> str | None:
    states = [row["state"] for row in answer.json["model_version_status"]]
    return None if "AVAILABLE" in states else f"expected AVAILABLE among the states, got {states}"


def _signatures(answer: Answer, _model: TfModel) -> str | None:
    known = answer.json["metadata"]["signature_def"]["signature_def"]
    for name, signature in known.items():
        for side in ("inputs", "outputs"):
            for field, told in signature[side].items():
                if complaint := misfit(told, _FIELD, f"{name}.{side}.{field}"):
                    return complaint
    return None if known else "expected a signature, got none"


def _in_columns(answer: Answer, model: TfModel) -> str | None:
    if "outputs" not in answer.json:
        return f"expected the key outputs, got {', '.join(answer.json)}"
    return _SAME(answer, model)


def _verb(answer: Answer, _model: TfModel) -> str | None:
    """Results under their key, or a reason why the model has none."""
    if answer.status == 200:
        return looks({"results": list})(answer, _model)
    return refused(answer, _model) or error_text()(answer, _model)


def _examples(verb: str) -> Any:
    return lambda model: model.posts({"examples": list(model.rows)}, verb=verb)


def _at_label(model: TfModel) -> Request:
    return model.posts({"instances": model.instances()}, at=f"{model.url}/labels/no-such-label")


def _changed(model: TfModel, value: Any) -> Request:
    """The first number of the first row is another value."""
    name = model.number()
    return model.posts({"instances": model.instances(({**model.rows[0], name: value}, *model.rows[1:]))})


def _without_one(model: TfModel) -> Request:
    return model.posts({"instances": [dict(list(row.items())[1:]) for row in model.several()]})


def _columns_without_one(model: TfModel) -> Request:
    rows = model.several()
    return model.posts({"inputs": {name: [row[name] for row in rows] for name in list(rows[0])[1:]}})


def _named(model: TfModel) -> Request:
    if "" in model.rows[0]:
        raise Skip("the example does not name its input")
    return model.posts({"instances": list(model.rows)})


def _ragged(model: TfModel) -> Request:
    name = model.number()
    value = model.rows[0][name]
    return _changed(model, [value, value])


def _nan(model: TfModel) -> Request:
    name = model.number()
    value: Any = float("nan")
    shape = model.rows[0][name]
    return _changed(model, [value] * len(shape) if isinstance(shape, list) else value)


R = Rule[TfModel]

RULES: list[R] = [
    # status and metadata
    R("status", "GET of the model tells the state of its versions.", _STATUS, lambda m: m.get(),
      [status(200), looks({"model_version_status": [_VERSION]}), _digits]),
    R("status-available", "A version is AVAILABLE.", _STATUS, lambda m: m.get(), [status(200), _available]),
    R("status-ok", "The error code of a version that is AVAILABLE is OK.", _STATUS,
      lambda m: m.get(f"/versions/{m.available()}"), [status(200), looks({"model_version_status": [_SERVED]})]),
    R("status-unknown-model", "The status of an unknown model is 404 with {error}.", _STATUS,
      lambda m: Request("GET", f"{m.prefix}/v1/models/no-such-model"), _NOT_FOUND),
    R("status-unknown-version", "The status of an unknown version is 404 with {error}.", _STATUS,
      lambda m: m.get("/versions/987654321"), _NOT_FOUND),
    R("status-version-word", "A version that is no number is 400 or 404.",
      "http_rest_api_handler: versions are digits.", lambda m: m.get("/versions/last"), [status(400, 404)]),
    R("metadata", "Metadata have the model's spec and signatures.", _METADATA, lambda m: m.get("/metadata"),
      [status(200), looks({"model_spec": {"name": str, "version": str}}), _signatures]),
    R("metadata-version", "Metadata of a version are there.", _METADATA,
      lambda m: m.get(f"/versions/{m.available()}/metadata"),
      [status(200), looks({"model_spec": {"name": str, "version": str}})]),
    R("metadata-unknown-model", "Metadata of an unknown model are 404 with {error}.", _METADATA,
      lambda m: Request("GET", f"{m.prefix}/v1/models/no-such-model/metadata"), _NOT_FOUND),
    # predict
    R("predict", "instances are answered with predictions.", _PREDICT, lambda m: m.good,
      [status(200), looks({"predictions": list})]),
    R("predict-count", "There is one prediction an instance.", _FORMAT, lambda m: m.good,
      [status(200), count("predictions", lambda m: len(m.rows))]),
    R("predict-type", "An answer is application/json.", _PREDICT, lambda m: m.good,
      [header("content-type", "application/json")]),
    R("predict-columns", "inputs are answered with outputs, with the same values.", _FORMAT,
      lambda m: m.posts({"inputs": m.columns()}), [status(200), _in_columns]),
    R("predict-one", "One instance gets one prediction.", _FORMAT,
      lambda m: m.posts({"instances": m.instances(m.rows[:1])}), [status(200), count("predictions", lambda m: 1)]),
    R("predict-named", "A single input may be named.", _FORMAT, _named, [status(200), _SAME]),
    R("predict-signature", "The signature may be named.", _PREDICT,
      lambda m: m.posts({"signature_name": m.signature, "instances": m.instances()}), [status(200), _SAME]),
    R("predict-version", "The version may be in the path.", _PREDICT,
      lambda m: m.posts({"instances": m.instances()}, at=f"{m.url}/versions/{m.available()}"), [status(200), _SAME]),
    R("predict-form-type", "Content-Type is passed over: curl -d works.",
      "http_server: the request's type is never read.",
      lambda m: m.good.with_headers(content_type="application/x-www-form-urlencoded"), [status(200), _SAME]),
    R("predict-no-type", "A body without Content-Type is read.", "http_server: the request's type is never read.",
      lambda m: m.good.with_headers(content_type=None), [status(200), _SAME]),
    R("predict-path-case", "Paths are matched whatever their case.", "http_rest_api_handler: (?i).",
      lambda m: m.good.but(path=m.good.path.replace("/v1/models/", "/V1/Models/").replace(":predict", ":Predict")),
      [status(200), _SAME], "should"),
    R("predict-name-encoded", "Names are percent-decoded.", "RFC 3986, 2.1.",
      lambda m: m.good.but(path=f"{m.prefix}/v1/models/{encoded(m.model)}:predict"), [status(200), _SAME], "should"),
    R("nan", "The bare word NaN is no fault of the server.",
      "json_tensor: NaN and infinities are bare words both ways.", _nan, [no_fault_of_the_server]),
    # what does not fit
    R("unknown-model", "An unknown model is 404 with {error}.", _PREDICT,
      lambda m: m.posts({"instances": [1]}, at=f"{m.prefix}/v1/models/no-such-model"), _NOT_FOUND),
    R("unknown-version", "An unknown version is 404 with {error}.", _PREDICT,
      lambda m: m.posts({"instances": m.instances()}, at=f"{m.url}/versions/987654321"), _NOT_FOUND),
    R("unknown-label", "An unknown label is refused with {error}.", _PREDICT, _at_label,
      [status(400, 404), error_text()]),
    R("unknown-signature", "An unknown signature is 400 with {error}.", _PREDICT,
      lambda m: m.posts({"signature_name": "no-such-signature", "instances": m.instances()}), _TOLD),
    R("unknown-verb", "A verb that is nobody's is refused with {error}.", "http_rest_api_handler: malformed request.",
      lambda m: m.posts({"instances": m.instances()}, verb="brew"), [refused, error_text()]),
    R("junk-after-verb", "Junk after the verb is refused with {error}.", "http_rest_api_handler: malformed request.",
      lambda m: m.posts({"instances": m.instances()}, verb="predict/more"), [refused, error_text()]),
    R("both", "instances and inputs at once are 400 with {error}.", _PREDICT,
      lambda m: m.posts({"instances": m.instances(), "inputs": m.columns()}), _TOLD),
    R("neither", "Neither instances nor inputs is 400 with {error}.", _PREDICT,
      lambda m: m.posts({"signature_name": m.signature}), _TOLD),
    R("empty-instances", "Empty instances are 400 with {error}.", _PREDICT, lambda m: m.posts({"instances": []}),
      _TOLD),
    R("instances-object", "Instances that are no list are 400 with {error}.", _PREDICT,
      lambda m: m.posts({"instances": m.rows[0]}), _TOLD),
    R("instances-text", "Instances that are a text are 400 with {error}.", _PREDICT,
      lambda m: m.posts({"instances": "all"}), _TOLD),
    R("not-json", "A body that is no JSON is 400 with {error}.", _PREDICT, lambda m: m.sends(b"{no json"), _TOLD),
    R("empty-body", "An empty body is 400 with {error}.", _PREDICT, lambda m: m.sends(b""), _TOLD),
    R("list-body", "A list as body is 400 with {error}.", _PREDICT, lambda m: m.posts(m.instances()), _TOLD),
    R("signature-number", "A signature_name that is a number is 400 with {error}.", _PREDICT,
      lambda m: m.posts({"signature_name": 7, "instances": m.instances()}), _TOLD),
    R("missing-input", "An instance without one of its inputs is 400 with {error}.", _FORMAT, _without_one, _TOLD),
    R("extra-input", "An instance with an input that the model has not is 400 with {error}.",
      "json_tensor: keys equal the inputs' names.",
      lambda m: m.posts({"instances": [{**row, "no-such-input": 1} for row in m.several()]}), _TOLD),
    R("mixed-instances", "Objects and lists side by side are 400 with {error}.", _FORMAT,
      lambda m: m.posts({"instances": [m.instances()[0], [[[1]]]]}), _TOLD),
    R("ragged", "Instances of different shapes are 400 with {error}.", _FORMAT, _ragged, _TOLD),
    R("text-for-number", "A text for a number is 400 with {error}.", _FORMAT, lambda m: _changed(m, "many"), _TOLD),
    R("columns-missing", "inputs without one of them are 400 with {error}.", _FORMAT, _columns_without_one, _TOLD),
    R("deep", "100,000 lists in one another are refused with {error}.", "A parser must not run out of stack.",
      lambda m: m.sends(b'{"instances":' + b"[" * 100_000), _TOLD),
    # classify and regress
    R("classify", "classify is answered with results, or refused with {error}.",
      "http_rest_api_util: the key is results.", _examples("classify"), [_verb]),
    R("regress", "regress is answered with results, or refused with {error}.",
      "http_rest_api_util: the key is results.", _examples("regress"), [_verb]),
    R("classify-no-examples", "classify without examples is 400 with {error}.",
      "api_rest.md, Classify and Regress API.", lambda m: m.posts({}, verb="classify"), _TOLD),
    R("classify-empty", "classify with empty examples is 400 with {error}.", "api_rest.md, Classify and Regress API.",
      lambda m: m.posts({"examples": []}, verb="classify"), _TOLD),
]  # fmt: skip

DIALECT = Dialect("tfserving", "TensorFlow Serving REST", meet, RULES)
