"""Seldon's protocol: a SeldonMessage in, a SeldonMessage of the same kind out."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import quote, urlencode

from modelyard.conformance.client import Answer, Client, Request
from modelyard.conformance.rules import Asked, Dialect, Expectation, Rule, Skip, looks, refused, status, that, values
from modelyard.conformance.table import Table, TableModel, example_of, met, table_of

_PATH = "/api/v1.0/predictions"
_TOLD: list[Expectation] = [refused, looks({"status": {"status": (int, str), "info": str, "code": int, "reason": str}})]
_MESSAGE = "Prediction API: SeldonMessage has exactly one of data, binData, strData, jsonData, customData."
_MIRROR = "seldon_core wrapper: the answer's data are of the kind of the request's."


def _cells(told: Any) -> Any:
    """The values of an answer whatever the kind of its data, flat."""
    data = told["data"]
    found = data["ndarray"] if "ndarray" in data else data["tensor"]["values"]
    return [cell for row in found for cell in (row if isinstance(row, list) else [row])]


_SAME = values(_cells)


def _meet(client: Client, asked: Asked) -> TableModel:
    body = example_of(asked, "Seldon's protocol", '{"data": {"names": ["x"], "ndarray": [[1.5]]}}')
    model = TableModel(asked.path + _PATH, body, asked.path, asked.model, asked.content_type, table_of(body))
    return met(client, model, _cells)


def _data(model: TableModel, table: Table | None = None) -> dict[str, Any]:
    table = table or model.table
    names = {"names": list(table.columns)} if table.columns else {}
    return {"data": {**names, "ndarray": table.lists}}


def _tensor(model: TableModel, *, sizes: list[int] | None = None) -> dict[str, Any]:
    table = model.table
    flat = [value for row in table.rows for value in row]
    if not all(isinstance(value, (int, float)) for value in flat):
        raise Skip("a tensor has numbers only, and the example has others")
    names = {"names": list(table.columns)} if table.columns else {}
    return {"data": {**names, "tensor": {"shape": sizes or [len(table.rows), len(table.rows[0])], "values": flat}}}


def _form(model: TableModel) -> Request:
    body = urlencode({"json": model.body.decode()}).encode()
    return model.sends(body, "application/x-www-form-urlencoded")


def _multipart(model: TableModel) -> Request:
    (key, told) = next(iter(json.loads(model.body).items()))
    part = f'--edge\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{json.dumps(told)}\r\n--edge--\r\n'
    return model.sends(part.encode(), "multipart/form-data; boundary=edge")


def _query(model: TableModel) -> Request:
    return Request("GET", f"{model.prefix}/predict?json={quote(model.body.decode(), safe='')}")


def _kind(name: str) -> Expectation:
    def expect(answer: Answer, _model: TableModel) -> str | None:
        kinds = answer.json["data"]
        return None if name in kinds else f"expected {name} as was sent, got {', '.join(kinds)}"

    return expect


def _is_tensor(answer: Answer, model: TableModel) -> str | None:
    """A tensor that its shape describes, where the values are such that it could be one."""
    if not all(isinstance(value, (int, float)) for value in model.values):
        return None
    if complaint := _kind("tensor")(answer, model):
        return complaint
    tensor = answer.json["data"]["tensor"]
    expected = math.prod(tensor["shape"])
    got = len(tensor["values"])
    return None if got == expected else f"tensor: expected {expected} values for {tensor['shape']}, got {got}"


def _at(path: str) -> Any:
    return lambda model: model.good.but(path=model.prefix + path)


R = Rule[TableModel]

RULES: list[R] = [
    R("ping", "GET /health/ping is pong.", "seldon_core wrapper: health.", lambda m: m.get("/health/ping"),
      [status(200), that(lambda a, m: a.body.strip() == b"pong", "pong")]),
    R("status", "GET /health/status is 200.", "seldon_core wrapper: health.", lambda m: m.get("/health/status"),
      [status(200)]),
    R("metadata", "GET /metadata tells of the model.", "seldon_core wrapper: metadata.", lambda m: m.get("/metadata"),
      [status(200), looks({})], "should"),
    R("openapi", "GET /seldon.json is an OpenAPI document.", "seldon_core wrapper: openapi.",
      lambda m: m.get("/seldon.json"), [status(200), looks({"openapi": str})], "should"),
    R("predict", "The example is answered with data and names.", _MESSAGE, lambda m: m.good,
      [status(200), looks({"data": {"names?": [str]}, "meta": {}})]),
    R("predict-v0.1", "/api/v0.1/predictions answers the example.", "seldon_core wrapper: paths.",
      _at("/api/v0.1/predictions"), [status(200), _SAME]),
    R("predict-plain", "/predict answers the example.", "seldon_core wrapper: paths.", _at("/predict"),
      [status(200), _SAME], "should"),
    R("ndarray", "ndarray is answered with ndarray.", _MIRROR, lambda m: m.posts(_data(m)),
      [status(200), _kind("ndarray"), _SAME]),
    R("tensor", "tensor is answered with tensor, where the answer is all numbers.", _MIRROR,
      lambda m: m.posts(_tensor(m)), [status(200), _SAME, _is_tensor]),
    R("names", "Names may be left out.", "DefaultData: names are optional.",
      lambda m: m.posts({"data": {"ndarray": m.table.lists}}), [status(200), _SAME]),
    R("puid", "meta.puid comes back.", "Prediction API: puid names the request.",
      lambda m: m.posts({**_data(m), "meta": {"puid": "mine-7"}}), [status(200), looks({"meta": {"puid": "mine-7"}})],
      "should"),
    R("form", "The message may be the field json of a form.", "seldon_core flask_utils: sources of a message.", _form,
      [status(200), _SAME]),
    R("multipart", "The parts of a message may be those of a multipart form.",
      "seldon_core flask_utils: sources of a message.", _multipart, [status(200), _SAME]),
    R("query", "The message may be the query of a GET.", "seldon_core flask_utils: sources of a message.", _query,
      [status(200), _SAME]),
    R("feedback", "Feedback is taken.", "Prediction API: send feedback.",
      lambda m: m.posts({"request": json.loads(m.body), "reward": 1.0}).but(path=m.prefix + "/api/v1.0/feedback"),
      [status(200), looks({})], "should"),
    R("no-json", "A body that is no JSON is refused.", _MESSAGE, lambda m: m.sends(b"{no json"), [refused]),
    R("empty-object", "A message without data is refused with a status.", _MESSAGE, lambda m: m.posts({}), _TOLD),
    R("no-kind", "Data without any kind are refused with a status.", _MESSAGE,
      lambda m: m.posts({"data": {"names": ["a"]}}), _TOLD),
    R("list-body", "A list as body is refused.", _MESSAGE, lambda m: m.posts([1, 2]), [refused]),
    R("tensor-shape", "A tensor whose shape does not hold its values is refused.", "Tensor: shape and values.",
      lambda m: m.posts(_tensor(m, sizes=[len(m.table.rows) + 1, len(m.table.rows[0])])), [refused]),
    R("tensor-negative", "A tensor with a negative size is refused.", "Tensor: shape and values.",
      lambda m: m.posts(_tensor(m, sizes=[-7, -7])), [refused]),
    R("ragged", "Rows of different lengths are refused.", "It cannot be answered.",
      lambda m: m.posts({"data": {"ndarray": [*m.table.lists, m.table.lists[0][:-1]]}}), [refused], "should"),
    R("two-kinds", "Two kinds of data at once are refused.", _MESSAGE,
      lambda m: m.posts({"data": {**_data(m)["data"], **_tensor(m)["data"]}}), [refused], "should"),
    R("two-data", "Data beside strData are refused.", _MESSAGE, lambda m: m.posts({**_data(m), "strData": "a"}),
      [refused], "should"),
    R("missing-column", "A column too few is refused.", "It cannot be answered.",
      lambda m: m.posts(_data(m, m.table.without_column())), [refused], "should"),
    R("text-for-number", "A text for a number is refused.", "It cannot be answered.",
      lambda m: m.posts(_data(m, m.table.with_value("many"))), [refused], "should"),
    R("unknown-path", "A path that is nobody's is 404.", "RFC 9110, 15.5.5.", lambda m: m.get("/nothing/here"),
      [status(404)], "should"),
]  # fmt: skip

DIALECT = Dialect("seldon", "Seldon v1", _meet, RULES)
