"""Requests in, answers out: one call of a model for the requests that share it. On the loop or in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from modelyard.errors import InvalidInput, ModelFailed, ModelyardError, NotReady, Overloaded
from modelyard.interfaces import Codec, Predict, Wire
from modelyard.messages import Batch, Message, Request, Response
from modelyard.schema import Columns, check_outputs
from modelyard.serving.loading import Loaded
from modelyard.serving.metrics import Meter
from modelyard.serving.parts import Parts
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.serving.cache import AnswerCache
    from modelyard.serving.tracing import Trace


#: A call that should take longer than this many seconds runs in a thread, so that the loop stays free.
INLINE_SECONDS = 0.002


class Answerer(Protocol):
    """What turns results into messages for one wire, one call and one loaded version."""

    codec: Codec
    wire: Wire
    #: The model and its version; "" where nothing is predicted.
    model: str
    version: str

    def refuse(self, exchange: Exchange, error: Exception) -> Message:
        """The message that tells of ``error``."""


class Exchange(msgspec.Struct, gc=False, kw_only=True, eq=False):
    """One request on its way through the server. A listener's own kind knows where the answer goes."""

    #: The id of the request, sent back with the answer.
    id: str
    #: When it was received and when it was decoded, as ``perf_counter`` seconds.
    received: float
    decoded: float = 0.0
    #: Set once it is decoded, before it is submitted.
    request: Request = None  # type: ignore[assignment]  # everybody who reads it comes after that
    #: Who answers it: encodes the response, or refuses.
    endpoint: Answerer
    #: When the caller stops waiting, as ``perf_counter`` seconds.
    deadline: float = inf
    #: The trace that it belongs to, if any.
    trace: Trace | None = None
    #: It was answered before its model was done: what comes of the model is dropped.
    is_settled: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return False

    def answer(self, message: Message) -> None:
        """Send the answer. Called once, on the loop's thread."""
        raise NotImplementedError

    def answer_from_thread(self, message: Message) -> None:
        """``answer`` for a caller on another thread."""
        raise NotImplementedError


class Done(msgspec.Struct, gc=False):
    """A call of a model that has ended, with the answers to the requests that shared it."""

    exchanges: list[Exchange]
    messages: list[Message]
    rows: int
    #: When the model was asked, and when it had predicted, as ``perf_counter`` seconds.
    started: float
    predicted: float
    #: Why it held these requests (see ``batching.REASONS``), or ``cached``.
    reason: str
    #: What the model was given, and what it made of it; None for what there was none of.
    inputs: Columns | None = None
    outputs: Columns | None = None


class Calls:
    """Calls of one loaded version. Safe to use from several threads, but for the counts, which may then miss some."""

    def __init__(self, loaded: Loaded, meter: Meter, log: Log, cache: AnswerCache | None = None) -> None:
        self._loaded = loaded
        self._meter = meter
        self._log = log
        self._cache = cache
        self._layout = loaded.signature.input_layout

    def compute(
        self, exchanges: list[Exchange], rows: int, reason: str, predict: Predict | None = None
    ) -> Done | BaseException:
        """The answers, by the model's own function or another; or where a call of several requests failed, why: one of
        them may be at fault, and the others should not pay for it. Never raises.
        """
        started = perf_counter()
        inputs: Columns | None = None
        try:
            inputs = self.join(exchanges)
            outputs = check_outputs((predict or self._loaded.predict)(inputs), rows)
        except BaseException as error:  # a model may call sys.exit, and a panic of a Rust library is no Exception
            if len(exchanges) > 1:
                return error
            messages = [self.refuse(exchanges[0], error)]
            return Done(exchanges, messages, rows, started, perf_counter(), reason, inputs)
        predicted = perf_counter()
        self._meter.calls += 1
        if self._meter.calls & 7 == 0 or predicted - started > INLINE_SECONDS:
            self._loaded.cost.learn(rows, predicted - started)
        return Done(exchanges, self.encode(exchanges, outputs), rows, started, predicted, reason, inputs, outputs)

    def compute_in_parts(self, exchange: Exchange, most: int) -> Done:
        """``compute`` for one request of more rows than a call may hold, one part after the other."""
        started = perf_counter()
        try:
            parts = Parts(exchange, self.columns(exchange.request), started)
            while not parts.are_all_there:
                columns, began = parts.next(most), perf_counter()
                parts.add(check_outputs(self._loaded.predict(columns), columns.rows), perf_counter() - began)
                self._meter.calls += 1
        except BaseException as error:
            messages = [self.refuse(exchange, error)]
            return Done([exchange], messages, exchange.request.rows, started, perf_counter(), "part")
        return self.finish(parts)

    def finish(self, parts: Parts) -> Done:
        """The answer from all parts."""
        outputs: Columns | None = None
        try:
            outputs = self._loaded.signature.output_layout.concatenate(parts.outputs)
            messages = self.encode(parts.alone, outputs)
        except BaseException as error:  # such as parts whose shapes differ
            messages = [self.refuse(parts.exchange, error)]
        predicted = parts.started + parts.seconds
        return Done(parts.alone, messages, parts.columns.rows, parts.started, predicted, "part", parts.columns, outputs)

    def encode(self, exchanges: list[Exchange], outputs: Columns) -> list[Message]:
        batch = Batch(outputs)
        messages = []
        start = 0
        for exchange in exchanges:
            request = exchange.request
            stop = start + request.rows
            response = Response(batch, start, stop, request.id or exchange.id)
            try:
                messages.append(exchange.endpoint.codec.encode(request, response))
            except Exception as error:
                messages.append(self.refuse(exchange, error))
            start = stop
        if batch.has_gaps:
            self._meter.gaps += 1
        if self._cache is not None:
            self._keep(exchanges, outputs)
        return messages

    def answer_again(self, exchange: Exchange) -> Done | None:
        """The answer as before, where the same was asked before and the outputs were kept."""
        assert self._cache is not None
        started = perf_counter()
        request = exchange.request
        outputs = self._cache.get(self._cache.key(self._loaded.digest, request))
        if outputs is None:
            return None
        try:
            response = Response(Batch(outputs), 0, outputs.rows, request.id or exchange.id)
            message = exchange.endpoint.codec.encode(request, response)
        except Exception as error:
            message = self.refuse(exchange, error)
        return Done([exchange], [message], request.rows, started, started, "cached", None, outputs)

    def join(self, exchanges: Sequence[Exchange]) -> Columns:
        if len(exchanges) == 1:
            return self.columns(exchanges[0].request)
        rows = []
        for exchange in exchanges:
            tuples = exchange.request.tuples
            if tuples is None:
                return self._layout.concatenate([self.columns(e.request) for e in exchanges])
            rows += tuples
        return self._layout.from_tuples(rows)

    def columns(self, request: Request) -> Columns:
        return request.columns if request.columns is not None else self._layout.from_tuples(request.tuples or [])

    def _keep(self, exchanges: Sequence[Exchange], outputs: Columns) -> None:
        assert self._cache is not None
        start = 0
        for exchange in exchanges:
            request = exchange.request
            stop = start + request.rows
            key = self._cache.key(self._loaded.digest, request)
            self._cache.put(key, request.rows * len(self._layout.fields), outputs.slice(start, stop))
            start = stop

    def refuse(self, exchange: Exchange, error: BaseException) -> Message:
        if isinstance(error, InvalidInput) and self._is_about_inputs(error):
            return exchange.endpoint.refuse(exchange, error)
        told: ModelyardError
        if isinstance(error, (ModelFailed, NotReady, Overloaded)):
            told = error
        else:
            reason = str(error) if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
            told = ModelFailed(f"the model {self._loaded.name} failed: {reason}")
            told.__cause__ = error
        self._log.write(
            "error", "model failed", model=self._loaded.name, version=self._loaded.version, request_id=exchange.id,
            error=told,
        )  # fmt: skip
        return exchange.endpoint.refuse(exchange, told)

    def _is_about_inputs(self, error: InvalidInput) -> bool:
        """Whether a model found fault with what it was given, rather than with what it made of it."""
        places = self._layout.places
        return any(problem.path.split("].")[-1].split("[")[0] in places for problem in error.problems)
