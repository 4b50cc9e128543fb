"""The description of the admin API (OpenAPI 3.1), made from the table."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard import __version__
from modelyard.admin.operation import Operation
from modelyard.errors import Problem

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"


class Fault(msgspec.Struct, frozen=True):
    """What was wrong, in words; ``hint`` says what to do, ``problems`` lists each fault of an input."""

    code: str
    message: str
    hint: str = ""
    problems: tuple[Problem, ...] = ()


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What every refusal holds."""

    error: Fault


def describe(operations: tuple[Operation, ...], prefix: str, *, wants_keys: bool) -> Json:
    """The document of an API that answers below ``prefix``."""
    kinds = [operation.returns for operation in operations]
    inputs = [operation.takes for operation in operations]
    schemas, components = msgspec.json.schema_components([ErrorAnswer, *kinds, *inputs], ref_template=_REF)
    answers, taken = schemas[1 : len(kinds) + 1], schemas[len(kinds) + 1 :]
    paths: Json = {}
    for operation, answer, takes in zip(operations, answers, taken, strict=True):
        shape = components[takes["$ref"].rpartition("/")[2]]
        paths.setdefault(prefix + operation.path, {})[operation.method.lower()] = _told(operation, answer, shape)
    for kind in inputs:
        del components[kind.__name__]
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Modelyard admin API", "version": __version__,
            "description": "What the console shows and does. Moments are ISO 8601 in UTC, times seconds.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }  # fmt: skip
    if wants_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    plain: Json = msgspec.json.decode(msgspec.json.encode(document))  # defaults that are tuples become lists
    return plain


def _told(operation: Operation, answer: Json, shape: Json) -> Json:
    properties, required = shape["properties"], set(shape.get("required", ()))
    about, _, more = operation.about.partition("\n\n")
    told: Json = {
        "operationId": operation.name,
        "summary": " ".join(about.split()),
        **({"description": " ".join(more.split())} if more else {}),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": properties[name]} for name in operation.in_path
        ],
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": answer}}},
            "default": {
                "description": "Refused; `code` says why",
                "content": {"application/json": {"schema": {"$ref": _REF.format(name="ErrorAnswer")}}},
            },
        },
    }
    others = {name: schema for name, schema in properties.items() if name not in operation.in_path}
    if operation.method == "POST":
        body: Json = {"type": "object", "properties": others, "additionalProperties": False}
        if needed := [name for name in others if name in required]:
            body["required"] = needed
        told["requestBody"] = {"required": bool(needed), "content": {"application/json": {"schema": body}}}
    else:
        told["parameters"] += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in others.items()
        ]
    return told
