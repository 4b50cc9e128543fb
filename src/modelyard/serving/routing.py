"""From a method and a path to the endpoint that answers: which wire, which call, which loaded version.

An endpoint is found once for a path and kept; a new table of versions starts with none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from modelyard.errors import ModelyardError, NotFound, Overloaded
from modelyard.interfaces import Addresses, Catalog, Codec, Wire
from modelyard.messages import QUERY, Call, Message
from modelyard.serving.calls import Exchange
from modelyard.serving.engine import Lane
from modelyard.serving.loading import Loaded
from modelyard.serving.metrics import Metrics
from modelyard.telemetry import Log

#: Paths for which the endpoint is kept.
MOST_PATHS = 1024

#: Bodies of more bytes than this are decoded in a thread, so that the loop stays free.
DECODED_ON_LOOP = 262_144

#: What a caller is told where not even a wire's refusal could be made.
_BUG = "something went wrong inside the server"
_LAST_WORDS = b'{"error":{"code":"internal","message":"%b"},"request_id":"%%b"}' % _BUG.encode()

#: Runs a function in a thread.
Later = Callable[[Callable[[], None]], None]

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


class MethodNotAllowed(ModelyardError):
    """The path is known, the method is not one of its own; the ``headers`` of its answer list those."""

    code = "method_not_allowed"


def speaks_grpc(wire: Wire) -> bool:
    """Whether a wire is one of gRPC's: it is called so, see ``docs/architecture.md``."""
    return wire.name.endswith("-grpc")


class Endpoint:
    """Answers one call of one wire."""

    #: Where the call predicts.
    codec: Codec
    #: The model and its version; "" where nothing is predicted.
    model = version = ""
    #: Whatever the body says, the answer is no.
    is_refusing = False

    def __init__(self, wire: Wire, call: Call | None, metrics: Metrics, log: Log) -> None:
        self.wire = wire
        self.call = call
        #: It speaks gRPC, which plain HTTP cannot be answered in.
        self.is_grpc = speaks_grpc(wire)
        self._metrics = metrics
        self._log = log

    def accept(self, exchange: Exchange, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer, now or later."""
        raise NotImplementedError

    def refuse(self, exchange: Exchange, error: Exception) -> Message:
        """The message that tells of ``error``; a bug is logged with its trace."""
        if not isinstance(error, ModelyardError):
            self._log.write("error", "internal error", request_id=exchange.id, error=error)
        try:
            refusal = self.wire.refuse(self.call, error, exchange.id)
        except Exception as fault:  # whatever a wire makes of an error, its caller must hear something
            self._log.write("error", "internal error", request_id=exchange.id, error=fault)
            if self.is_grpc:
                refusal = Message(b"", {"grpc-message": _BUG}, "internal", "application/grpc")
            else:
                refusal = Message(_LAST_WORDS % exchange.id.encode(), code="internal")
        if isinstance(error, ModelyardError) and error.details:
            headers = dict(error.details.get("headers", ()))
            if "retry_after" in error.details:
                headers["retry-after"] = str(error.details["retry_after"])
            if headers:
                refusal.headers = {**refusal.headers, **headers}
        return refusal


class Predicting(Endpoint):
    """Predict calls of one loaded version."""

    def __init__(self, wire: Wire, call: Call, lane: Lane, later: Later, metrics: Metrics, log: Log) -> None:
        super().__init__(wire, call, metrics, log)
        self.codec = wire.codec(call, lane.loaded)
        self.lane = lane
        self.model, self.version = lane.loaded.name, lane.loaded.version
        self._decode = self.codec.decode
        self._submit = lane.submit
        self._later = later

    def accept(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        if type(body) is bytes and len(body) > DECODED_ON_LOOP:
            self._later(lambda: self._decode_in_thread(exchange, body, headers))
            return
        try:
            exchange.request = self._decode(body, headers)
            exchange.decoded = perf_counter()
            self._submit(exchange)
        except Exception as error:
            self.lane.turn_down(exchange, error, body)

    def _decode_in_thread(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        try:
            exchange.request = self._decode(body, headers)
        except Exception as error:
            self.lane.tell(self.lane.turn_down, exchange, error, body)
        else:
            self.lane.tell(self._submit_decoded, exchange)

    def _submit_decoded(self, exchange: Exchange) -> None:
        exchange.decoded = perf_counter()
        if exchange.is_gone:
            self.lane.meter.refused["cancelled"] += 1
            return
        try:
            self._submit(exchange)
        except Exception as error:
            self.lane.turn_down(exchange, error)


class Addressing(Endpoint):
    """Predict calls that name their model inside; each goes on to the endpoint of what it means."""

    def __init__(
        self, wire: Wire, call: Call, bind: Callable[[Wire, Call], Endpoint], metrics: Metrics, log: Log
    ) -> None:
        super().__init__(wire, call, metrics, log)
        assert isinstance(wire, Addresses)
        self.call: Call = call
        self._address = wire.address
        self._bind = bind
        self._known: dict[Call, Endpoint] = {}

    def accept(self, exchange: Exchange, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            call, opened = self._address(self.call, Message(body, headers))
            endpoint = self._known.get(call)
            if endpoint is None:
                endpoint = self._bind(self.wire, call)
                if len(self._known) >= MOST_PATHS:
                    self._known.clear()
                self._known[call] = endpoint
        except Exception as error:
            refusal = self.refuse(exchange, error)
            self._metrics.refused[refusal.code] += 1
            exchange.answer(refusal)
        else:
            exchange.endpoint = endpoint
            endpoint.accept(exchange, opened, headers)


class Informing(Endpoint):
    """Any other call of a wire."""

    def __init__(
        self, wire: Wire, call: Call, catalog: Catalog, later: Later, block: Later, metrics: Metrics, log: Log
    ) -> None:
        super().__init__(wire, call, metrics, log)
        self.call: Call = call
        self._catalog = catalog
        #: How to make the answer in a thread; None where it is made at once.
        self._aside = block if call.is_slow else later if call.is_lengthy else None

    def accept(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        if self._aside is not None:
            try:
                self._aside(lambda: exchange.answer_from_thread(self._answer(exchange, body, headers)))
            except Overloaded as error:
                exchange.answer(self.refuse(exchange, error))
        else:
            exchange.answer(self._answer(exchange, body, headers))

    def _answer(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> Message:
        try:
            return self.wire.inform(self.call, Message(body, headers), self._catalog)
        except Exception as error:
            return self.refuse(exchange, error)


class Refusing(Endpoint):
    """Calls that nothing answers."""

    is_refusing = True

    def __init__(self, wire: Wire, call: Call | None, error: Exception, metrics: Metrics, log: Log) -> None:
        super().__init__(wire, call, metrics, log)
        #: Without the frames in which it was raised: they hold the table of versions of that moment.
        self.error = error.with_traceback(None)

    def accept(self, exchange: Exchange, body: bytes, headers: Mapping[str, str]) -> None:
        refusal = self.refuse(exchange, self.error)
        self._metrics.refused[refusal.code] += 1
        exchange.answer(refusal)


class Asked(Endpoint):
    """Any endpoint, for a target with a query: wires find it among the headers, under a name that no header has."""

    def __init__(self, inner: Endpoint, query: str) -> None:
        super().__init__(inner.wire, inner.call, inner._metrics, inner._log)
        self.is_refusing = inner.is_refusing
        self._inner = inner
        self._query = query

    def accept(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        exchange.endpoint = self._inner
        self._inner.accept(exchange, body, {**headers, QUERY: self._query})


class Router:
    """Finds endpoints. Used on the loop's thread only, where nothing else is said."""

    def __init__(
        self,
        wires: Sequence[Wire],
        catalog: Catalog,
        lane: Callable[[Loaded], Lane],
        later: Later,
        block: Later,
        metrics: Metrics,
        log: Log,
        *,
        part: Callable[[Wire, Call, Loaded], Endpoint | None] = lambda wire, call, loaded: None,
    ) -> None:
        self._wires = tuple(wires)
        self._plain = tuple(wire for wire in wires if not speaks_grpc(wire))
        self._catalog = catalog
        self._lane = lane
        #: What answers where a route parts the requests of a call; None where one version gets them all.
        self._part = part
        #: For what takes long, and for calls that may wait.
        self._later = later
        self._block = block
        self._metrics = metrics
        self._log = log
        self._known: dict[tuple[str, str], Endpoint] = {}

    def forget(self) -> None:
        """Find every endpoint anew: the table of versions has changed."""
        self._known.clear()

    def known(self, method: str, path: str) -> Endpoint | None:
        """The endpoint of a method and a path for which it was found before. For any thread."""
        return self._known.get((method, path))

    def find(self, method: str, path: str) -> Endpoint:
        """The endpoint for a method and a path (percent-encoded, without query). One that refuses if there is none."""
        found = self.known(method, path)
        if found is not None:
            return found
        for wire in self._wires:
            call = wire.match(method, path)
            if call is not None:
                try:
                    endpoint = self._bind(wire, call)
                except ModelyardError as error:
                    return Refusing(wire, call, error, self._metrics, self._log)
                if len(self._known) >= MOST_PATHS:
                    self._known.clear()
                self._known[method, path] = endpoint
                return endpoint
        return self._refuse(method, path)

    def _bind(self, wire: Wire, call: Call) -> Endpoint:
        if call.is_inside:
            return Addressing(wire, call, self._bind, self._metrics, self._log)
        if call.action != "predict":
            return Informing(wire, call, self._catalog, self._later, self._block, self._metrics, self._log)
        loaded = self._catalog.find(call.model, call.version, call.alias)
        assert isinstance(loaded, Loaded)
        parting = self._part(wire, call, loaded)
        return parting or Predicting(wire, call, self._lane(loaded), self._later, self._metrics, self._log)

    def methods(self, path: str) -> list[str]:
        """The methods that some wire takes at a path."""
        return [method for method in METHODS if any(wire.match(method, path) for wire in self._wires)]

    def _refuse(self, method: str, path: str) -> Endpoint:
        allowed = self.methods(path)
        if allowed:
            words = ", ".join(["GET", "HEAD"] if allowed == ["GET"] else allowed)
            best = "POST" if "POST" in allowed else allowed[0]
            error = MethodNotAllowed(
                f"{method} is not what {path} takes: {words}", hint=f"use {best}", headers={"allow": words}
            )
            return Refusing(self.speaker(path), None, error, self._metrics, self._log)
        return self.missing(path)

    def missing(self, path: str) -> Refusing:
        """What says that nothing is at a path."""
        error = NotFound(f"no such path: {path}", hint="GET / lists what this server answers")
        return Refusing(self.speaker(path), None, error, self._metrics, self._log)

    def speaker(self, path: str, *, is_plain: bool = False) -> Wire:
        """The wire in whose words to refuse a path: the one with the longest prefix that fits, else the first. Where
        the request ``is_plain`` HTTP, none of gRPC, whose refusals have no body.
        """
        fitting = [wire for wire in (self._plain if is_plain else self._wires) if path.startswith(wire.prefix)]
        return max(fitting, key=lambda wire: len(wire.prefix), default=self._plain[0])
