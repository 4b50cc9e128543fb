"""The description of a server's API (OpenAPI 3.1), with the real schema and an example of every model."""

from __future__ import annotations

from typing import Any

from modelyard import __version__
from modelyard.decoding.fast import FLOAT_LIMITS, integer_range
from modelyard.interfaces import Catalog
from modelyard.schema import INTEGER_RANGES, Field
from modelyard.serving.loading import Loaded
from modelyard.wires.labels import schema_of

Json = dict[str, Any]


def describe(catalog: Catalog, *, wants_keys: bool = False) -> Json:
    """The document for what a catalog serves now; with the keys that it wants, if it does."""
    names = list(dict.fromkeys(served.name for served in catalog.models()))
    paths: Json = {
        "/": _get("index", "What this server answers"),
        "/health/live": _get("live", "Whether the process answers"),
        "/health/ready": _get("ready", "Whether every declared model is loaded and verified", also=("503",)),
        "/metrics": _get("metrics", "Counts and times", media="text/plain"),
        "/models": _get("models", "The models, their versions and signatures"),
        "/openapi.json": _get("openapi", "This document"),
    }
    schemas: Json = {"Error": _error()}
    keys = {_key(name) for name in names}
    for name in names:
        served = catalog.find(name, None, None)
        key = _key(name)
        schemas |= _schemas(key, served.signature.inputs, served.signature.outputs)
        paths[f"/models/{name}"] = _get(f"model_{key}", f"Versions and signature of {name}", also=("404",))
        paths[f"/models/{name}/predict"] = _predict(key, f"Predict with {name}", served)
        if (label := schema_of(served, catalog)) is not None:
            paths[f"/models/{name}/labels"] = _labels(key, f"Tell the truth about predictions of {name}", label)
        for version in [v for v in catalog.models() if v.name == name]:
            own = key
            if version.signature != served.signature:
                own = f"{key}_{version.version}"
                while f"{own}_request" in schemas or own in keys:  # a model may have that name
                    own += "_"
                schemas |= _schemas(own, version.signature.inputs, version.signature.outputs)
            if version.version:
                path = f"/models/{name}/versions/{version.version}/predict"
                paths[path] = _predict(own, f"Predict with version {version.version} of {name}", version, path)
            for alias in version.aliases:
                path = f"/models/{name}/aliases/{alias}/predict"
                paths[path] = _predict(own, f"Predict with what {alias} names", version, path)
    if len(names) == 1:
        only = catalog.find(names[0], None, None)
        paths["/predict"] = _predict(_key(names[0]), f"Predict with {names[0]}", only, "/predict")
        if (label := schema_of(only, catalog)) is not None:
            paths["/labels"] = _labels(
                f"{_key(names[0])}_only", f"Tell the truth about predictions of {names[0]}", label
            )
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "Modelyard", "version": __version__, "description": f"Serves {', '.join(names)}."},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if wants_keys:
        _secure(document)
    return document


#: What is asked for without a key.
_OPEN = ("/health/live", "/health/ready")


def _secure(document: Json) -> None:
    """Say how keys are sent, where they are wanted, and how a call is refused for the sake of one."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of this server"},
        "key": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "The same, in another header",
        },
    }
    document["security"] = [{"bearer": []}, {"key": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in _OPEN:
                operation["security"] = []
            else:
                operation["responses"] |= {status: _failure(status) for status in _OF_KEYS}


def _key(text: str) -> str:
    """``text`` as part of the name of a schema or an operation, in which names of models may stand as they are."""
    return "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "_" for c in text)


def _get(operation: str, summary: str, also: tuple[str, ...] = (), media: str = "application/json") -> Json:
    schema: Json = {"type": "string"} if media == "text/plain" else {"type": "object"}
    responses: Json = {"200": {"description": "The answer", "content": {media: {"schema": schema}}}}
    responses |= {status: _failure(status) for status in also if operation != "ready"}
    if operation == "ready":
        responses["503"] = {"description": "Not ready", "content": {media: {"schema": schema}}}
    return {"get": {"operationId": operation, "summary": summary, "responses": responses}}


#: How calls are refused for the sake of keys.
_OF_KEYS = {
    "401": "No key, or one that is not known, was revoked or has expired",
    "403": "A key that does not allow this",
    "429": "The key has used up its calls for now: `Retry-After` says when there are more",
}

_REASONS = {
    "400": "The input does not fit; `problems` lists each fault",
    "404": "No such model, version or alias here",
    "413": "The body is too large",
    "500": "The model failed",
    "503": "Loading, stopping, or too many requests wait: try again",
}


def _failure(status: str) -> Json:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": (_REASONS | _OF_KEYS)[status], "content": content}


def _predict(key: str, summary: str, served: Any, path: str = "") -> Json:
    body: Json = {"schema": {"$ref": f"#/components/schemas/{key}_request"}}
    example = served.example if isinstance(served, Loaded) else {}
    if example:
        body["examples"] = {
            "record": {"summary": "One record", "value": example},
            "records": {"summary": "A list of records", "value": [example]},
            "columns": {"summary": "Columns", "value": {name: [value] for name, value in example.items()}},
        }
    good = {
        "description": "Predictions, in the form of the request",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{key}_response"}}},
    }
    operation = {
        "operationId": f"predict_{key}{_key(path)}",
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": good, **{status: _failure(status) for status in _REASONS}},
    }
    return {"post": operation}


def _labels(key: str, summary: str, label: Json) -> Json:
    counts = {name: {"type": "integer"} for name in ("received", "new", "repeated", "corrected", "late")}
    receipt = _object({"model": {"type": "string"}, **counts})
    good = {"description": "They are kept, durably", "content": {"application/json": {"schema": receipt}}}
    body = {"schema": {"oneOf": [label, {"type": "array", "items": label}]}}
    operation = {
        "operationId": f"label_{key}",
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": good, **{status: _failure(status) for status in ("400", "404", "413", "503")}},
    }
    return {"post": operation}


def _schemas(key: str, inputs: tuple[Field, ...], outputs: tuple[Field, ...]) -> Json:
    def ref(what: str) -> Json:
        return {"$ref": f"#/components/schemas/{key}_{what}"}

    record = _object({field.name: value_schema(field) for field in inputs})
    columns = _object({f.name: {"type": "array", "items": value_schema(f), "minItems": 1} for f in inputs})
    about: Json = {
        "model": {"type": "string"},
        "version": {"type": ["integer", "string"]},
        "request_id": {"type": "string"},
        "warnings": {"type": "array", "items": {"type": "string"}},
    }
    is_plain = {field.name for field in outputs} <= {"prediction", "probabilities"}
    row = {field.name: output_schema(field) for field in outputs}
    row_of_columns = {field.name: output_schema(field, in_columns=True) for field in outputs}
    if not is_plain:
        row, row_of_columns = {"prediction": _object(row)}, {"prediction": _object(row_of_columns)}
    needed = [*row, "model", "request_id"]
    return {
        f"{key}_record": {**record, "additionalProperties": False},
        f"{key}_columns": {**columns, "additionalProperties": False},
        f"{key}_request": {
            "oneOf": [ref("record"), {"type": "array", "items": ref("record"), "minItems": 1}, ref("columns")]
        },
        f"{key}_response": {
            "anyOf": [
                {**_object({**row, **about}), "required": needed},
                {
                    **_object({"predictions": {"type": "array", "items": _object(row)}, **about}),
                    "required": ["predictions", "model", "request_id"],
                },
                {**_object({**row_of_columns, **about}), "required": needed},
            ]
        },
    }


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def value_schema(field: Field) -> Json:
    """The JSON Schema of one row's value of an input. Categories and ranges describe; they are not enforced."""
    kind = _element(field)
    if field.categories:
        kind["examples"] = list(field.categories[:20])
    if field.minimum is not None and field.maximum is not None and not field.shape:
        kind["description"] = f"seen from {field.minimum:g} to {field.maximum:g}"
    return _nested(kind, field)


def output_schema(field: Field, in_columns: bool = False) -> Json:
    """The JSON Schema of an output. A number may be null: NaN and infinity are written so."""
    kind = _element(field)
    if field.dtype.startswith("float"):
        kind["type"] = ["number", "null"]
    labels = field.categories or ()
    if labels and field.shape == (len(labels),) and field.is_numeric:
        one: Json = {"type": "array", "items": kind} if in_columns else kind
        return _object(dict.fromkeys(labels, one))
    nested = _nested(kind, field)
    return {"type": "array", "items": nested} if in_columns else nested


def _element(field: Field) -> Json:
    kind: Json
    if field.dtype == "string":
        kind = {"type": "string"}
    elif field.dtype == "datetime":
        kind = {"type": "string", "format": "date-time"}
    elif field.dtype == "bool":
        kind = {"type": "boolean"}
    elif field.dtype in INTEGER_RANGES:
        low, high = integer_range(field)
        kind = {"type": "integer", "minimum": low, "maximum": high}
    else:
        kind = {"type": "number"}
        if field.dtype in FLOAT_LIMITS:
            limit = FLOAT_LIMITS[field.dtype]
            kind |= {"exclusiveMinimum": -limit, "exclusiveMaximum": limit}
    if field.nullable:
        kind["type"] = [kind["type"], "null"]
    return kind


def _nested(kind: Json, field: Field) -> Json:
    for size in reversed(field.shape):
        kind = {"type": "array", "items": kind}
        if size >= 0:
            kind |= {"minItems": size, "maxItems": size}
    return kind


def _error() -> Json:
    problem = _object({"path": {"type": "string"}, "expected": {"type": "string"}, "got": {"type": "string"}})
    told = {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "hint": {"type": "string"},
        "problems": {"type": "array", "items": problem},
    }
    return _object(
        {
            "error": {"type": "object", "properties": told, "required": ["code", "message"]},
            "request_id": {"type": "string"},
        }
    )
