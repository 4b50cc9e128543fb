"""KServe's first protocol: ``:predict`` with instances."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from modelyard.conformance.client import Answer, Client, Request
from modelyard.conformance.rules import (
    Asked,
    Dialect,
    Expectation,
    Rule,
    count,
    error_text,
    header,
    looks,
    refused,
    status,
    values,
)
from modelyard.conformance.table import TableModel, example_of, met, table_of
from modelyard.errors import InvalidInput

_SAME = values(lambda told: told["predictions"])
_TOLD: list[Expectation] = [refused, error_text()]
_V1 = "KServe, predict API v1."
_EVENT = {
    "ce-specversion": "1.0", "ce-id": "7", "ce-source": "conformance", "ce-type": "org.kubeflow.serving.inference",
}  # fmt: skip


def _meet(client: Client, asked: Asked) -> TableModel:
    if not asked.model:
        raise InvalidInput.at("--model", "the name of a model", "nothing", hint="--model NAME")
    body = example_of(asked, "KServe's first protocol", '{"instances": [{"x": 1.5}]}')
    path = f"{asked.path}/v1/models/{quote(asked.model, safe='')}:predict"
    model = TableModel(path, body, asked.path, asked.model, asked.content_type, table_of(body))
    return met(client, model, lambda told: told["predictions"])


def _about(model: TableModel, name: str = "") -> Request:
    return model.get(f"/v1/models/{quote(name or model.model, safe='')}")


def _with_input(model: TableModel, told: Any) -> Request:
    return model.posts({"instances": told})


def _rows(model: TableModel) -> list[Any]:
    found: list[Any] = json.loads(model.body)["instances"]
    return found


def _with_model(answer: Answer, model: TableModel) -> str | None:
    listed = answer.json["models"]
    return None if model.model in listed else f"expected {model.model} among the models, got {listed}"


def _other_model(model: TableModel) -> Request:
    return model.good.but(path=f"{model.prefix}/v1/models/no-such-model:predict")


R = Rule[TableModel]

RULES: list[R] = [
    R("models", "GET /v1/models lists the model.", _V1, lambda m: m.get("/v1/models"),
      [status(200), looks({"models": [str]}), _with_model]),
    R("model", "GET /v1/models/{m} tells that it is ready.", "KServe's client: is_model_ready.", _about,
      [status(200), looks({"name": str, "ready": (True, "True")})]),
    R("unknown-model", "An unknown model is 404 with {error}.", _V1, lambda m: _about(m, "no-such-model"),
      [status(404), error_text()]),
    R("unknown-model-predict", "Prediction with an unknown model is 404 with {error}.", _V1, _other_model,
      [status(404), error_text()]),
    R("alive", "GET / tells {status: alive}.", "KServe's client: is_server_live.",
      lambda m: m.get("/").with_headers(accept="application/json"), [status(200), looks({"status": "alive"})]),
    R("predict", "The example is answered with {predictions}.", _V1, lambda m: m.good,
      [status(200), looks({"predictions": list})]),
    R("predict-type", "An answer is application/json.", _V1, lambda m: m.good,
      [header("content-type", "application/json")]),
    R("predict-count", "An answer has one prediction an instance.", _V1, lambda m: m.good,
      [status(200), count("predictions", lambda m: len(_rows(m)))]),
    R("one-instance", "One instance gets one prediction.", _V1, lambda m: _with_input(m, _rows(m)[:1]),
      [status(200), count("predictions", lambda m: 1)]),
    R("inputs", "inputs mean the same as instances.", "KServe's SDK: either key.",
      lambda m: m.posts({"inputs": _rows(m)}), [status(200), _SAME], "should"),
    R("charset", "application/json; charset=utf-8 is read.", "Many clients send it.",
      lambda m: m.sends(m.body, "application/json; charset=utf-8"), [status(200), _SAME]),
    R("no-json", "A body that is no JSON is refused with {error}.", _V1, lambda m: m.sends(b"{no json"), _TOLD),
    R("empty-body", "An empty body is refused with {error}.", _V1, lambda m: m.sends(b""), _TOLD),
    R("no-instances", "An object without instances is refused with {error}.", _V1, lambda m: m.posts({"rows": []}),
      _TOLD),
    R("instances-text", "Instances that are no list are refused with {error}.", _V1,
      lambda m: m.posts({"instances": "all"}), _TOLD),
    R("list-body", "A list as body is refused with {error}.", _V1, lambda m: m.posts([1, 2]), _TOLD),
    R("missing-feature", "An instance without one of its features is refused.", "It cannot be answered.",
      lambda m: _with_input(m, m.table.without_column().plain), [refused], "should"),
    R("text-for-number", "A text for a number is refused.", "It cannot be answered.",
      lambda m: _with_input(m, m.table.with_value("many").plain), [refused], "should"),
    R("event", "A CloudEvent in binary form is answered by an event.", "KServe: CloudEvents.",
      lambda m: m.good.but(headers={"content-type": "application/json", **_EVENT}),
      [status(200), header("ce-specversion", "1.0"), _SAME], "should"),
    R("explain", "Explaining is answered, or refused with a reason.", _V1,
      lambda m: m.good.but(path=m.path.replace(":predict", ":explain")), [status(200, 400, 404, 405, 501)]),
    R("unknown-verb", "A verb that is nobody's is refused.", _V1,
      lambda m: m.good.but(path=m.path.replace(":predict", ":brew")), [refused]),
]  # fmt: skip

DIALECT = Dialect("kserve", "KServe v1", _meet, RULES)
