"""MLflow's scoring server: ``/invocations``, by its source and by what its own tests hold it to."""

from __future__ import annotations

import csv
import io
from typing import Any

from modelyard.conformance.client import Client, Request
from modelyard.conformance.rules import (
    Asked,
    Dialect,
    Expectation,
    Rule,
    count,
    error_text,
    header,
    looks,
    no_fault_of_the_server,
    refused,
    status,
    that,
    values,
)
from modelyard.conformance.table import Table, TableModel, example_of, met, table_of

_SAME = values(lambda told: told["predictions"])
_TOLD: list[Expectation] = [status(400), looks({"error_code": str}), error_text("message")]
_KIND: list[Expectation] = [status(415)]
_PARSE = "scoring_server: one of dataframe_split, dataframe_records, instances, inputs."
_TYPES = "scoring_server: content types."


def _meet(client: Client, asked: Asked) -> TableModel:
    body = example_of(asked, "MLflow's protocol", '{"dataframe_split": {"columns": ["x"], "data": [[1.5]]}}')
    model = TableModel(f"{asked.path}/invocations", body, asked.path, "", asked.content_type, table_of(body))
    return met(client, model, lambda told: told["predictions"])


def _split(table: Table, **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": table.named(), "data": table.lists, **more}}


def _records(table: Table) -> dict[str, Any]:
    return {"dataframe_records": table.records}


def _csv(table: Table) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.named(), *table.lists])
    return text.getvalue().encode()


def _twice(model: TableModel) -> Request:
    return model.posts({**_split(model.table), **_records(model.table)})


def _extra_column(model: TableModel) -> Request:
    table = model.table
    return model.posts(_split(Table(tuple((*row, 1) for row in table.rows), (*table.named(), "no-such-column"))))


R = Rule[TableModel]

RULES: list[R] = [
    R("ping", "GET /ping is 200.", "scoring_server: ping, which SageMaker asks.", lambda m: m.get("/ping"),
      [status(200)]),
    R("health", "GET /health is 200.", "scoring_server: health.", lambda m: m.get("/health"), [status(200)]),
    R("version", "GET /version is a plain text.", "scoring_server: version.", lambda m: m.get("/version"),
      [status(200), that(lambda a, m: a.body[:1].isdigit(), "digits")]),
    R("invocations", "The example is answered with {predictions}.", "scoring_server: predictions_to_json.",
      lambda m: m.good, [status(200), looks({"predictions": object})]),
    R("invocations-type", "An answer is application/json.", "scoring_server: the answer's type.", lambda m: m.good,
      [header("content-type", "application/json")]),
    R("invocations-rows", "An answer has one prediction a row.", "MLflow's client makes a column of them.",
      lambda m: m.posts(_split(m.table)), [status(200), count("predictions", lambda m: len(m.table.rows))]),
    R("split", "dataframe_split is read.", _PARSE, lambda m: m.posts(_split(m.table)), [status(200), _SAME]),
    R("split-index", "The index of dataframe_split changes nothing.", _PARSE,
      lambda m: m.posts(_split(m.table, index=list(range(5, 5 + len(m.table.rows))))), [status(200), _SAME]),
    R("records", "dataframe_records are read.", _PARSE, lambda m: m.posts(_records(m.table)), [status(200), _SAME]),
    R("columns-order", "Columns are told by their names.", "pyfunc: the signature puts columns in order.",
      lambda m: m.posts(_split(m.table.turned())), [status(200), _SAME]),
    R("extra-column", "A column that is no input is passed over.", "pyfunc: the signature drops it.", _extra_column,
      [status(200), _SAME], "should"),
    R("instances", "instances are read, as records.", _PARSE, lambda m: m.posts({"instances": m.table.records}),
      [status(200), _SAME], "should"),
    R("csv", "text/csv is read.", _TYPES, lambda m: m.sends(_csv(m.table), "text/csv"), [status(200), _SAME]),
    R("csv-charset", "text/csv; charset=utf-8 is read.", _TYPES,
      lambda m: m.sends(_csv(m.table), "text/csv; charset=utf-8"), [status(200), _SAME]),
    R("json-charset", "application/json; charset=utf-8 is read.", _TYPES,
      lambda m: m.sends(m.posts(_split(m.table)).body, "application/json; charset=utf-8"), [status(200), _SAME]),
    R("other-charset", "Another charset than utf-8 is 415.", _TYPES,
      lambda m: m.sends(m.posts(_split(m.table)).body, "application/json; charset=latin-1"), _KIND),
    R("other-parameter", "A parameter of the type that is not known is 415.", _TYPES,
      lambda m: m.sends(m.posts(_split(m.table)).body, "application/json; format=pandas-split"), _KIND),
    R("other-type", "application/octet-stream is 415.", _TYPES, lambda m: m.sends(m.body, "application/octet-stream"),
      _KIND),
    R("text-type", "text/plain is 415.", _TYPES, lambda m: m.sends(m.body, "text/plain"), _KIND),
    R("params", "Parameters that are not known do no harm.", "pyfunc: they are left out with a warning.",
      lambda m: m.posts({**_split(m.table), "params": {"mine": 1}}), [status(200), _SAME]),
    R("signature-name", "signature_name does no harm.", "TensorFlow's clients send it.",
      lambda m: m.posts({**_split(m.table), "signature_name": "serving_default"}), [status(200), _SAME], "should"),
    R("list", "A bare list is 400.", _PARSE, lambda m: m.posts(m.table.lists), _TOLD),
    R("none", "An object with none of the four forms is 400.", _PARSE, lambda m: m.posts({"rows": m.table.lists}),
      _TOLD),
    R("both", "An object with two of the four forms is 400.", _PARSE, _twice, _TOLD),
    R("empty-object", "An empty object is 400.", _PARSE, lambda m: m.posts({}), _TOLD),
    R("null", "null is 400.", _PARSE, lambda m: m.posts(None), _TOLD),
    R("not-json", "A body that is no JSON is 400.", _PARSE, lambda m: m.sends(b"{no json", "application/json"), _TOLD),
    R("empty-body", "An empty body is 400.", _PARSE, lambda m: m.sends(b"", "application/json"), _TOLD),
    R("split-list", "A dataframe_split that is a list is 400.", _PARSE,
      lambda m: m.posts({"dataframe_split": m.table.lists}), _TOLD),
    R("split-ragged", "A row that is too short is 400.", _PARSE,
      lambda m: m.posts(_split(m.table, data=[*m.table.lists, m.table.lists[0][:-1]])), _TOLD, "should"),
    R("records-object", "dataframe_records that are no list are 400.", _PARSE,
      lambda m: m.posts({"dataframe_records": 7}), _TOLD),
    R("missing-column", "A column too few is refused.", "pyfunc: the signature is enforced.",
      lambda m: m.posts(_split(m.table.without_column())), [refused]),
    R("text-for-number", "A text for a number is refused.", "pyfunc: the signature is enforced.",
      lambda m: m.posts(_split(m.table.with_value("many"))), [refused]),
    R("error-shape", "Errors have error_code and message.", "MlflowException: serialize_as_json.",
      lambda m: m.posts({}), [looks({"error_code": str, "message": str})]),
    R("nan", "The bare word NaN is no fault of the server.", "pandas writes it for what is missing.",
      lambda m: m.posts(_split(m.table.with_value(float("nan")))), [no_fault_of_the_server]),
    R("unknown-path", "A path that is nobody's is 404.", "RFC 9110, 15.5.5.", lambda m: m.get("/nothing/here"),
      [status(404)], "should"),
]  # fmt: skip

DIALECT = Dialect("mlflow", "MLflow scoring server", _meet, RULES)
