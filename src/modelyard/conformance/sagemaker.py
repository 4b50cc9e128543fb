"""SageMaker's contract for hosting containers: ``/ping`` and ``/invocations``. Bodies are the container's own."""

from __future__ import annotations

from modelyard.conformance.client import Answer, Client, Request
from modelyard.conformance.rules import (
    Asked,
    Dialect,
    Rule,
    header,
    no_fault_of_the_server,
    refused,
    status,
    that,
    values,
)
from modelyard.conformance.table import TableModel, example_of, met, table_of

_SAME = values(lambda told: told)
_PING = "Custom inference code, how your container should respond to health check requests."
_POST = "Custom inference code, how your container should respond to inference requests."
_MANY = "Multi-model endpoints, contract for custom containers."


def _meet(client: Client, asked: Asked) -> TableModel:
    body = example_of(asked, "SageMaker", '{"instances": [{"x": 1.5}]}')
    model = TableModel(f"{asked.path}/invocations", body, asked.path, "", asked.content_type, table_of(body))
    return met(client, model, lambda told: told)


def _not_served(answer: Answer, model: TableModel) -> str | None:
    """A container of one model has no other paths of models; one of many answers 404."""
    return None if answer.status in (404, 405, 501) else f"expected 404 or 405, got {answer}"


R = Rule[TableModel]

RULES: list[R] = [
    R("ping", "GET /ping is 200.", _PING, lambda m: m.get("/ping"), [status(200)]),
    R("ping-body", "GET /ping has an empty body.", _PING, lambda m: m.get("/ping"),
      [status(200), that(lambda a, m: not a.body.strip(), "an empty body")], "should"),
    R("ping-any-accept", "GET /ping is 200 whatever Accept says.", _PING,
      lambda m: m.get("/ping").with_headers(accept="text/html"), [status(200)]),
    R("invocations", "POST /invocations answers the example.", _POST, lambda m: m.good, [status(200)]),
    R("invocations-type", "The answer has a content type.", _POST, lambda m: m.good,
      [status(200), header("content-type")], "should"),
    R("accept-any", "Accept: */* changes nothing.", _POST, lambda m: m.good.with_headers(accept="*/*"),
      [status(200), _SAME]),
    R("accept-json", "Accept: application/json changes nothing.", _POST,
      lambda m: m.good.with_headers(accept="application/json"), [status(200), _SAME]),
    R("custom-attributes", "Custom attributes of a caller do no harm.", _POST,
      lambda m: m.good.with_headers(x_amzn_sagemaker_custom_attributes="trace=7"), [status(200), _SAME]),
    R("target-model", "The name of a target model does no harm.", _MANY,
      lambda m: m.good.with_headers(x_amzn_sagemaker_target_model="m.tar.gz"), [status(200), _SAME]),
    R("charset", "The type may have a charset.", "Many clients send it.",
      lambda m: m.sends(m.body, f"{m.content_type}; charset=utf-8"), [status(200), _SAME], "should"),
    R("other-type", "A type that is not known is refused.", "sagemaker-inference-toolkit: 415.",
      lambda m: m.sends(b"\0\1", "application/x-nobody-knows"), [refused]),
    R("other-type-415", "A type that is not known is 415.", "sagemaker-inference-toolkit: UnsupportedFormatError.",
      lambda m: m.sends(b"\0\1", "application/x-nobody-knows"), [status(415)], "should"),
    R("bad-body", "A body that is not of its type is refused.", "It is the caller's fault: alarms look at 5xx.",
      lambda m: m.sends(b"{no json", "application/json"), [refused]),
    R("empty-body", "An empty body is refused.", "It is the caller's fault: alarms look at 5xx.",
      lambda m: m.sends(b""), [refused]),
    R("get-invocations", "GET /invocations is refused.", _POST, lambda m: m.get("/invocations"), [refused]),
    R("unknown-path", "A path that is nobody's is 404.", "RFC 9110, 15.5.5.", lambda m: m.get("/nothing/here"),
      [status(404)], "should"),
    R("unknown-model-invoke", "A model that was never loaded is 404.", _MANY,
      lambda m: m.good.but(path=f"{m.prefix}/models/no-such-model/invoke"), [_not_served]),
    R("unknown-model", "GET of a model that was never loaded is 404.", _MANY, lambda m: m.get("/models/no-such-model"),
      [_not_served]),
    R("unknown-model-delete", "Unloading a model that was never loaded is 404.", _MANY,
      lambda m: Request("DELETE", f"{m.prefix}/models/no-such-model"), [_not_served]),
    R("load-nothing", "Loading without a URL is no fault of the server.", _MANY,
      lambda m: m.posts({"model_name": "m"}).but(path=f"{m.prefix}/models"), [no_fault_of_the_server]),
]  # fmt: skip

DIALECT = Dialect("sagemaker", "SageMaker hosting container", _meet, RULES)
