"""A receiver of spans over OTLP/HTTP, and what is read of them."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import Any

import pytest

service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs the extra")


class Receiver(ThreadingHTTPServer):
    """Takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.requests: list[Any] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait(self, count: int) -> list[Any]:
        until = monotonic() + 120
        while len(self.spans) < count:
            assert monotonic() < until, f"only {len(self.spans)} of {count} spans came"
            sleep(0.01)
        return self.spans


class _Post(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(service.ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quietly."""


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}
