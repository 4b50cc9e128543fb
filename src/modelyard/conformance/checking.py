"""Asks a server all rules of a protocol."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modelyard.conformance import http_rules
from modelyard.conformance.client import Client, Request
from modelyard.conformance.grpc_client import GrpcClient
from modelyard.conformance.report import Outcome, Report
from modelyard.conformance.rules import Asked, Dialect, Rule, Skip
from modelyard.errors import MissingDependency, NotFound, RemoteFailed

#: The name of a protocol -> the module in which its dialect is.
DIALECTS = {
    name: f"modelyard.conformance.{name}"
    for name in ("oip", "tfserving", "mlflow", "sagemaker", "vertex", "seldon", "kserve")
}


def dialect(protocol: str) -> Dialect[Any]:
    """The rules of ``protocol``. Raises NotFound."""
    if protocol not in DIALECTS:
        raise NotFound.among("protocol", protocol, DIALECTS)
    found: Dialect[Any] = import_module(DIALECTS[protocol]).DIALECT
    return found


def check(
    url: str,
    protocol: str,
    *,
    model: str = "",
    path: str = "",
    predict: str = "",
    body: bytes = b"",
    content_type: str = "application/json",
    key: str = "",
    grpc: str = "",
    seconds: float = 10.0,
) -> Report:
    """Ask the server at ``url`` the rules of ``protocol``.

    ``model`` names the model where the protocol has names; ``path`` is what stands before the protocol's paths (for
    Vertex AI the route of health, and ``predict`` that of prediction); ``body`` is an example request, for protocols
    and servers that do not describe their models; ``key`` is sent as a bearer token; ``grpc`` is HOST:PORT of the
    protocol's gRPC twin. No rule changes what the server has loaded. Raises RemoteFailed where nothing
    listens, and InvalidInput where not even the example is answered, because then no rule would mean anything.
    """
    spoken = dialect(protocol)
    client = Client(url, headers={"authorization": f"Bearer {key}"} if key else {}, seconds=seconds)
    first = client.ask(Request("GET", path or "/"))
    if not first.status:
        is_distrusted = "CERTIFICATE_VERIFY_FAILED" in first.fault
        hint = "SSL_CERT_FILE=FILE names authorities to trust" if is_distrusted else "does a server listen there?"
        raise RemoteFailed(f"no answer from {url}: {first.fault}", hint=hint)
    asked = Asked(model=model, path=path.rstrip("/"), predict=predict, body=body, content_type=content_type)
    example = spoken.meet(client, asked)
    rules = [*spoken.rules, *http_rules.RULES, http_rules.STILL_THERE]
    outcomes = [_ask(rule, client, example) for rule in rules]
    if protocol == "oip":
        outcomes += _ask_grpc(grpc, example, key, seconds)
    return Report(protocol=protocol, url=url, model=example.model, outcomes=outcomes)


def _ask_grpc(address: str, example: Any, key: str, seconds: float) -> list[Outcome]:
    from modelyard.conformance.oip_grpc import RULES

    if not address:
        return [_skipped(rule, "no address of gRPC was given") for rule in RULES]
    try:
        client = GrpcClient(address, key=key, seconds=seconds)
    except MissingDependency as error:
        return [_skipped(rule, f"grpcio is not installed: {error.hint}") for rule in RULES]
    try:
        return [_ask(rule, client, example) for rule in RULES]
    finally:
        client.close()


def _ask(rule: Rule[Any], client: Client | GrpcClient, example: Any) -> Outcome:
    try:
        request = rule.request(example)
    except Skip as reason:
        return _skipped(rule, str(reason))
    if request.closes and not client.can_close_half:
        return _skipped(rule, "TLS knows no connection of which one half is closed")
    complaint = rule.broken(client.ask(request), example)
    return Outcome(outcome="fail" if complaint else "pass", reason=complaint, **_told(rule))


def _skipped(rule: Rule[Any], reason: str) -> Outcome:
    return Outcome(outcome="skipped", reason=reason, **_told(rule))


def _told(rule: Rule[Any]) -> dict[str, Any]:
    return {"id": rule.id, "severity": rule.severity, "asks": rule.asks, "why": rule.why}
