"""Spans of sampled requests, sent to an OpenTelemetry receiver. The request path only notes what happened.

What was noted becomes spans in the thread of the SDK's batch processor: one for the request, and one inside it for
each stage that it went through.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from modelyard.errors import MissingDependency
from modelyard.serving.grpc import STATUS as GRPC_STATUS
from modelyard.serving.grpc import UNKNOWN
from modelyard.serving.listener import STATUS
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

    from modelyard.messages import Message
    from modelyard.serving.calls import Done, Exchange
    from modelyard.serving.loading import Loaded
    from modelyard.serving.tracing import Trace

#: Seconds that an end waits until the last spans are sent.
CLOSE_SECONDS = 3.0

#: Statuses of gRPC that are the server's fault, as OpenTelemetry's conventions have it.
_GRPC_FAULTS = frozenset((2, 4, 12, 13, 14, 15))


class _Sampled:
    """All that the processor asks a span for: what is noted here is sampled."""

    class trace_flags:
        sampled = True


class Noted(msgspec.Struct, gc=False):
    """One request, as it was answered. Times are ``perf_counter`` seconds; 0 for a stage that it did not reach."""

    context = _Sampled

    trace: Trace
    request_id: str
    model: str
    version: str
    digest: str
    wire: str
    code: str
    #: Empty where a framework took the request.
    method: str
    target: str
    is_grpc: bool
    received: float
    ended: float
    decoded: float = 0.0
    started: float = 0.0
    predicted: float = 0.0
    rows: int = 0
    #: Of the call of the model that it was part of.
    call_rows: int = 0
    call_requests: int = 0

    @property
    def stages(self) -> Iterator[tuple[str, float, float]]:
        """Each stage that it went through, from when to when."""
        yield "decode", self.received, self.decoded or self.ended
        if self.started:
            yield "queue", self.decoded, self.started
            yield "predict", self.started, self.predicted
            yield "encode", self.predicted, self.ended


class Spans:
    """Sends the spans of one application to ``address``. Raises MissingDependency where OpenTelemetry is not there."""

    def __init__(self, address: str, log: Log) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            library = "opentelemetry-exporter-otlp-proto-http"
            raise MissingDependency.extra(library, "tracing", f"sending spans to {address}") from None
        self._talk = _Talk(log)
        logging.getLogger("opentelemetry").addHandler(self._talk)
        exporter: Any = _Unfolding(OTLPSpanExporter(address))
        self._processor = BatchSpanProcessor(exporter)
        self._put: Any = self._processor.on_end

    def note(self, loaded: Loaded, done: Done) -> None:
        """Note the requests that shared a call of the model, as far as they are sampled."""
        for exchange, message in zip(done.exchanges, done.messages, strict=True):
            trace = exchange.trace
            if trace is not None and trace.is_sampled and not exchange.is_settled:
                noted = _noted(loaded, trace, exchange, message)
                noted.started, noted.predicted = done.started, done.predicted
                noted.rows, noted.call_rows = exchange.request.rows, done.rows
                noted.call_requests = len(done.exchanges)
                self._put(noted)

    def note_refused(self, loaded: Loaded, exchange: Exchange, message: Message) -> None:
        """Note a request that the model was not asked, if it is sampled."""
        trace = exchange.trace
        if trace is not None and trace.is_sampled:
            self._put(_noted(loaded, trace, exchange, message))

    def close(self) -> None:
        """Send what is left, as far as the receiver takes it in time."""
        ending = threading.Thread(target=self._processor.shutdown, name="modelyard-last-spans", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        logging.getLogger("opentelemetry").removeHandler(self._talk)


def _noted(loaded: Loaded, trace: Trace, exchange: Exchange, message: Message) -> Noted:
    head: Any = getattr(exchange, "head", None)
    return Noted(
        trace, exchange.id, loaded.name, loaded.version, loaded.digest, exchange.endpoint.wire.name, message.code,
        "" if head is None else head.method, "" if head is None else head.target,
        message.content_type == "application/grpc", exchange.received, perf_counter(), exchange.decoded,
    )  # fmt: skip


class _Unfolding:
    """Makes spans of what was noted, for the exporter behind it."""

    def __init__(self, exporter: Any) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        from modelyard import __version__

        self._exporter = exporter
        about: dict[str, Any] = {"service.name": "modelyard", "service.version": __version__}
        about["process.pid"] = os.getpid()
        self._resource = Resource(about).merge(OTELResourceDetector().detect())
        self._scope = InstrumentationScope("modelyard", __version__)
        self.shutdown = exporter.shutdown
        self.force_flush = exporter.force_flush

    def export(self, batch: Sequence[Noted]) -> Any:
        began = time_ns() - perf_counter_ns()
        return self._exporter.export([span for noted in batch for span in self._unfold(noted, began)])

    def _unfold(self, noted: Noted, began: int) -> Iterator[ReadableSpan]:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanKind, Status, StatusCode

        trace = noted.trace
        own = _context(trace, int(trace.span_id, 16))
        parent = _context(trace, int(trace.parent_id, 16), is_remote=True) if trace.parent_id else None

        def span(
            name: str, context: SpanContext, parent: SpanContext | None, start: float, end: float, **more: Any
        ) -> ReadableSpan:
            return ReadableSpan(
                name, context, parent, self._resource, start_time=began + int(start * 1e9),
                end_time=began + int(end * 1e9), instrumentation_scope=self._scope, **more,
            )  # fmt: skip

        yield span(
            f"predict {noted.model}", own, parent, noted.received, noted.ended, kind=SpanKind.SERVER,
            attributes=_attributes(noted), status=Status(StatusCode.ERROR if _is_fault(noted) else StatusCode.UNSET),
        )  # fmt: skip
        for name, start, end in noted.stages:
            context = _context(trace, int.from_bytes(os.urandom(8), "big"))
            yield span(name, context, own, start, end, attributes={}, kind=SpanKind.INTERNAL)


def _context(trace: Trace, span_id: int, *, is_remote: bool = False) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    state = TraceState.from_header([trace.state]) if trace.state else None
    return SpanContext(int(trace.trace_id, 16), span_id, is_remote, TraceFlags(TraceFlags.SAMPLED), state)


def _is_fault(noted: Noted) -> bool:
    """Whether the server is to blame: a caller's mistake is no error of ours."""
    if noted.is_grpc:
        return GRPC_STATUS.get(noted.code, UNKNOWN) in _GRPC_FAULTS
    return STATUS.get(noted.code, 500) >= 500


def _attributes(noted: Noted) -> Mapping[str, Any]:
    """What OpenTelemetry's conventions have for servers of HTTP or gRPC, and what is ours.

    A query may hold keys, and stays out.
    """
    told: dict[str, Any] = {
        "modelyard.model": noted.model, "modelyard.version": noted.version, "modelyard.digest": noted.digest,
        "modelyard.wire": noted.wire, "modelyard.request_id": noted.request_id,
    }  # fmt: skip
    path = urlsplit(noted.target.partition("?")[0]).path if noted.target else ""
    if noted.is_grpc:
        _, service, name = path.split("/") if path.count("/") == 2 else ("", "", path)
        told |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        told["rpc.grpc.status_code"] = GRPC_STATUS.get(noted.code, UNKNOWN)
    else:
        told["http.response.status_code"] = STATUS.get(noted.code, 500)
        if noted.method:
            told |= {"http.request.method": noted.method, "url.path": path}
    if noted.code != "ok":
        told["error.type"] = noted.code
    if noted.started:
        told |= {"modelyard.rows": noted.rows, "modelyard.call.rows": noted.call_rows}
        told["modelyard.call.requests"] = noted.call_requests
    return told


class _Talk(logging.Handler):
    """What OpenTelemetry has to say, such as that the receiver cannot be reached, as lines of our log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write("warning", "opentelemetry", message=record.getMessage())
