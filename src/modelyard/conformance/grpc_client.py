"""A client of gRPC for rules: a request's path is the method, its body the message.

Codes come back as the statuses of HTTP that mean the same, so that rules say what they expect in the same words.
"""

from __future__ import annotations

from typing import Any

from modelyard.conformance.client import Answer, Request
from modelyard.errors import MissingDependency

_STATUSES = {
    "OK": 200, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409, "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip


class GrpcClient:
    """Calls the server at ``address``. Raises MissingDependency where grpcio is not installed."""

    can_close_half = False

    def __init__(self, address: str, *, key: str = "", seconds: float = 10.0) -> None:
        try:
            import grpc
        except ImportError:
            raise MissingDependency(
                "rules of gRPC need a library that is not installed: grpcio", hint="pip install grpcio"
            ) from None
        self._failure = grpc.RpcError
        self._compressions = {None: None, "gzip": grpc.Compression.Gzip}
        self._channel: Any = grpc.insecure_channel(address)
        self._metadata = [("authorization", f"Bearer {key}")] if key else []
        self._seconds = seconds

    def ask(self, request: Request) -> Answer:
        """What the method answers to one message. A header ``grpc-encoding`` has it compressed."""
        options = {
            "timeout": self._seconds,
            "metadata": self._metadata,
            "compression": self._compressions[request.headers.get("grpc-encoding")],
        }
        try:
            if not request.streams:
                return Answer(200, body=self._channel.unary_unary(request.path)(request.body, **options))
            answers = self._channel.unary_stream(request.path)(request.body, **options)
            first = next(answers, None)
            answers.cancel()
            return Answer(0, fault="the stream ended without an answer") if first is None else Answer(200, body=first)
        except self._failure as error:
            code = error.code().name
            return Answer(_STATUSES.get(code, 500), body=f"{code}: {error.details()}".encode())

    def close(self) -> None:
        self._channel.close()
