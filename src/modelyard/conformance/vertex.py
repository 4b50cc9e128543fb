"""Vertex AI's contract for custom containers: a route of health and one of prediction."""

from __future__ import annotations

import json
from typing import Any

from modelyard.conformance.client import Client, Request
from modelyard.conformance.rules import Asked, Dialect, Rule, count, header, looks, refused, status, values
from modelyard.conformance.table import TableModel, example_of, met, table_of

#: What AIP_HEALTH_ROUTE is where nothing sets it; the route of prediction is the same with a verb.
_ROUTE = "/v1/endpoints/0/deployedModels/0"

_SAME = values(lambda told: told["predictions"])
_DOC = "Custom container requirements: prediction requests and responses."


def _meet(client: Client, asked: Asked) -> TableModel:
    body = example_of(asked, "Vertex AI's protocol", '{"instances": [{"x": 1.5}]}')
    health = asked.path or _ROUTE
    model = TableModel(asked.predict or f"{health}:predict", body, health, "", asked.content_type, table_of(body))
    return met(client, model, lambda told: told["predictions"])


def _rows(model: TableModel) -> list[Any]:
    found: list[Any] = json.loads(model.body)["instances"]
    return found


def _shaped(model: TableModel, change: str, *arguments: Any) -> Request:
    table = getattr(model.table, change)(*arguments)
    return model.posts({"instances": table.plain})


R = Rule[TableModel]

RULES: list[R] = [
    R("health", "The route of health is 200.", "Custom container requirements: health checks.", lambda m: m.get(""),
      [status(200)]),
    R("predict", "The example is answered with {predictions}.", _DOC, lambda m: m.good,
      [status(200), looks({"predictions": list})]),
    R("predict-type", "An answer is application/json.", _DOC, lambda m: m.good,
      [header("content-type", "application/json")]),
    R("predict-count", "An answer has one prediction an instance.", _DOC, lambda m: m.good,
      [status(200), count("predictions", lambda m: len(_rows(m)))]),
    R("one-instance", "One instance gets one prediction.", _DOC, lambda m: m.posts({"instances": _rows(m)[:1]}),
      [status(200), count("predictions", lambda m: 1)]),
    R("parameters", "Empty parameters change nothing.", _DOC,
      lambda m: m.posts({"instances": _rows(m), "parameters": {}}), [status(200), _SAME]),
    R("parameters-null", "Parameters that are null change nothing.",
      "The Python client sends null where there are none.",
      lambda m: m.posts({"instances": _rows(m), "parameters": None}), [status(200), _SAME]),
    R("charset", "application/json; charset=utf-8 is read.", "Google's front end sends it.",
      lambda m: m.sends(m.body, "application/json; charset=utf-8"), [status(200), _SAME]),
    R("no-instances", "An object without instances is refused.", _DOC, lambda m: m.posts({"rows": []}), [refused]),
    R("instances-text", "Instances that are no list are refused.", _DOC, lambda m: m.posts({"instances": "all"}),
      [refused]),
    R("no-json", "A body that is no JSON is refused.", _DOC, lambda m: m.sends(b"{no json"), [refused]),
    R("empty-body", "An empty body is refused.", _DOC, lambda m: m.sends(b""), [refused]),
    R("error-json", "Errors are JSON.", _DOC, lambda m: m.posts({}), [refused, looks(object)]),
    R("missing-feature", "An instance without one of its features is refused.", "It cannot be answered.",
      lambda m: _shaped(m, "without_column"), [refused], "should"),
    R("text-for-number", "A text for a number is refused.", "It cannot be answered.",
      lambda m: _shaped(m, "with_value", "many"), [refused], "should"),
    R("unknown-path", "A path that is nobody's is 404.", "RFC 9110, 15.5.5.", lambda m: Request("GET", "/nothing/here"),
      [status(404)], "should"),
]  # fmt: skip

DIALECT = Dialect("vertex", "Vertex AI custom container", _meet, RULES)
