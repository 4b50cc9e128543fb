"""What serves, without sockets: models, wires and counts. Listeners bring the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import msgspec

from modelyard import plugins
from modelyard.errors import Overloaded
from modelyard.interfaces import Catalog, Wire
from modelyard.serving.arms import Parting
from modelyard.serving.batching import Limits
from modelyard.serving.cache import AnswerCache
from modelyard.serving.catalog import ServerCatalog
from modelyard.serving.debug import DebugWire, apply_changes
from modelyard.serving.engine import Lane
from modelyard.serving.gate import Gate
from modelyard.serving.ledger import LateLedger
from modelyard.serving.loading import Loaded
from modelyard.serving.metrics import Meter, Metrics, Vitals, resident_bytes
from modelyard.serving.narrowed import Narrowed
from modelyard.serving.noting import Book, Notes
from modelyard.serving.operations import OperationsWire
from modelyard.serving.origins import Origins, Preflight
from modelyard.serving.reticence import Discreet, Reticent
from modelyard.serving.routing import Asked, Endpoint, Predicting, Refusing, Router
from modelyard.serving.sources import MixedSource, Source
from modelyard.serving.table import Table
from modelyard.serving.tls import Certificates
from modelyard.settings import Chosen, spans_address
from modelyard.telemetry import Log
from modelyard.wires import Unsupported
from modelyard.wires.health_grpc import HealthGrpcWire
from modelyard.wires.labels import LabelsWire
from modelyard.wires.reflection_grpc import ReflectionGrpcWire

if TYPE_CHECKING:
    from modelyard.bundle import Trust
    from modelyard.messages import Call
    from modelyard.prometheus import Page
    from modelyard.serving.spans import Spans

#: What the metrics of a version end with where it is a shadow, and how many copies may wait for it.
SHADOW = "+shadow"
SHADOW_REQUESTS = 256


#: Calls that may wait for long, such as for a disk, which run or wait for a thread.
MOST_WAITING = 256


class Application:
    """Serves the models that ``references`` name (see ``serving.catalog``) on one event loop.

    ``registry`` is a registry or its address; ``source`` replaces registry and disk altogether, for tests; ``watched``
    makes what ``GET /metrics`` tells beside the server's own counts. The other options are settings by their names
    (``modelyard settings`` lists them).
    """

    #: Whether requests are answered in threads of their own, rather than on the loop's.
    is_threaded = False

    def __init__(
        self,
        references: Sequence[str],
        *,
        registry: Any = None,
        trust: Trust | None = None,
        wires: Sequence[str | Wire] | None = None,
        source: Callable[[], Source] | None = None,
        watched: Callable[[], Page] | None = None,
        log_stream: TextIO | None = None,
        **options: Any,
    ) -> None:
        self.settings = Chosen(options)
        self.log = Log(self.settings.log_level, log_stream)
        #: The files of TLS, where it is wanted.
        self.certificates = Certificates.of(self.settings, self.log)
        self.metrics = Metrics()
        self.metrics.vitals = self._vitals
        self.catalog = ServerCatalog(
            references,
            source or (lambda: MixedSource(registry)),
            settings=self.settings,
            trust=trust,
            publish=self._publish,
            log=self.log,
            metrics=self.metrics,
        )
        named: Sequence[str | Wire] = self.settings.wires if wires is None else wires
        self.wires: list[Wire] = [plugins.find("wires", name) for name in _with_twins(named)]
        chosen = self.settings
        operations = OperationsWire(
            lambda: self.metrics.tell(self._lanes.values()),
            self._troubles,
            watched=watched,
            is_terse=chosen.production,
            wants_keys=chosen.keys,
        )
        self.catalog.ledger = LateLedger(registry)
        #: Bounds of joining and waiting, for all lanes; they may be changed while we run.
        self.limits = Limits(
            max_rows=chosen.max_rows,
            batch_rows=chosen.batch_rows,
            queue_requests=chosen.queue_requests,
            queue_rows=chosen.queue_rows,
            queue_seconds=chosen.queue_seconds,
            model_seconds=chosen.model_seconds,
        )
        #: Tells other processes of the same server what ``change_limits`` was told; set where there are any.
        self.spread: Callable[[Mapping[str, Any]], None] | None = None
        debug = DebugWire(lambda: list(self._lanes.values()), self.limits, self.change_limits)
        every: list[Wire] = [*self.wires, LabelsWire(), operations, debug, HealthGrpcWire(self.wires)]
        if chosen.reflection == "on" or (chosen.reflection == "auto" and not chosen.production):
            every.append(ReflectionGrpcWire(every))
        whole: Catalog = self.catalog
        if chosen.production:
            every, whole = [Reticent(wire) for wire in every], Discreet(whole)

        def route(catalog: Catalog) -> Router:
            return Router(every, catalog, self.lane, self.later, self.block, self.metrics, self.log, part=self._part)

        def narrow(models: tuple[str, ...]) -> Router:
            return route(Narrowed(whole, models))

        self.router = route(whole)
        #: Called whenever endpoints are to be found anew; listeners add what they remember of them.
        self.on_change: list[Callable[[], None]] = [self.router.forget]
        self.gate: Gate | None = None
        if Gate.is_needed(chosen):
            self.gate = Gate(chosen, registry, self.router, narrow, self.metrics, self.log)
            self.on_change.append(self.gate.forget)
        #: Whose web pages may call, where any may.
        self.origins = Origins(chosen.origins) if chosen.origins else None
        #: What ends with this application.
        self.on_close: list[Callable[[], None]] = []
        #: How many connections are open, where somebody counts them.
        self.connections: Callable[[], int] = lambda: 0
        self.loop: asyncio.AbstractEventLoop
        self._lanes: dict[Loaded, Lane] = {}
        self._shadows: dict[Loaded, Lane] = {}
        self._shadow_limits = msgspec.structs.replace(self.limits, queue_requests=SHADOW_REQUESTS, queue_seconds=1.0)
        #: What the catalog published last.
        self._newest = self.catalog.table
        self.cache = AnswerCache(chosen.cache) if chosen.cache else None
        #: What is told to the recorder, where there is to be one.
        self.notes = self._make_notes() if chosen.is_set("record") and chosen.record else None
        #: Where spans go, if anywhere.
        self.spans = self._open_spans()
        self._slots = max(1, _cores() // chosen.workers)
        # As many threads as cores: a thread runs model code that lets go of the interpreter, or waits for it.
        self._pool = ThreadPoolExecutor(max(2, _cores()), thread_name_prefix="modelyard-model")
        # For what takes long but never waits: reading large bodies, compressing large answers.
        self._slow = ThreadPoolExecutor(4, thread_name_prefix="modelyard-slow")
        # For calls that wait, such as for a model to be loaded. Nothing that such a call waits for may run here.
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._blocking = ThreadPoolExecutor(4, thread_name_prefix="modelyard-blocking")

    def _troubles(self) -> dict[str, str]:
        """What is wrong beside the models, none of which keeps requests from being answered."""
        told = {"registry": self.catalog.registry_fault} if self.catalog.registry_fault else {}
        if self.notes is not None and self.notes.places.recorder() is None:
            told["recorder"] = "nobody records what is predicted"
        if self.notes is not None and self.catalog.is_watched is False:
            told["control"] = "nobody watches: no alert and no rollout is decided"
        return told

    def _make_notes(self) -> Notes | None:
        from modelyard.recording.places import Places

        places = Places.chosen(self.settings.records)
        return None if places is None else Notes(places, self.log, is_shared=self.is_threaded)

    def _open_spans(self) -> Spans | None:
        address = spans_address(self.settings.otlp)
        if not address:
            return None
        from modelyard.serving.spans import Spans

        return Spans(address, self.log)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to load. From now on everything but ``catalog``'s own work happens on ``loop``'s thread."""
        self.loop = loop
        if self.notes is not None:
            self.notes.open()
        if self.gate is not None:
            self.gate.start(loop, self._forget)
        self.catalog.start()

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on on another loop: the one before is gone, and so are the requests that were under way on it."""
        self.loop = loop
        if self.gate is not None:
            self.gate.move(loop)
        self._lanes.clear()
        self._shadows.clear()
        self._take_over(self._newest)  # the loop before may not have come to it

    async def settled(self, stopping: asyncio.Event) -> bool:
        """Wait for the first loading. False where it was told to stop meanwhile; raises where it failed."""
        while not self.catalog.settled.is_set() and not stopping.is_set():
            await asyncio.sleep(0.005)
        if self.catalog.failure is not None:
            raise self.catalog.failure
        await asyncio.sleep(0)  # the published table arrives before anybody is told that we are ready
        return not stopping.is_set()

    def close(self) -> None:
        """Stop following the registry, and the threads."""
        self.catalog.stop()
        if self.gate is not None:
            self.gate.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
        self._blocking.shutdown(wait=False, cancel_futures=True)
        if self.spans is not None:
            self.spans.close()
        if self.notes is not None:
            self.notes.close()
        self.log.flush()
        for close in self.on_close:
            close()

    def endpoint(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        *,
        is_admin_port: bool = False,
        is_call: bool = False,
    ) -> Endpoint:
        """What answers a method and a target in any of HTTP's forms: every request of every listener enters here.

        ``is_call`` says that it is one of gRPC.
        """
        path, _, query = target.partition("#")[0].partition("?")
        if not path.startswith("/"):
            try:
                path = urlsplit(path).path or "/"
            except ValueError:
                path = "*"
        if self.origins is not None and self.origins.asks(method, headers):
            wire = self.router.speaker(path, is_plain=True)
            return Preflight(wire, self.router.methods(path), self.metrics, self.log)
        method = "GET" if method == "HEAD" else method
        if self.gate is None:
            endpoint = self.router.find(method, path)
        else:
            endpoint = self.gate.find(method, path, headers, is_admin_port)
        if endpoint.is_grpc and not is_call:
            if isinstance(endpoint, Refusing):
                return self.refusing(path, endpoint.error)
            return self.refusing(path, Unsupported(f"{path} is called over gRPC", hint="use a client of gRPC"))
        return Asked(endpoint, query) if query else endpoint

    def refusing(self, path: str, error: Exception) -> Refusing:
        """What refuses a request of plain HTTP for ``path``, in the words of the wire whose path it is."""
        return Refusing(self.router.speaker(path, is_plain=True), None, error, self.metrics, self.log)

    def lane(self, loaded: Loaded) -> Lane:
        """Where the requests for a loaded version wait."""
        lane = self._lanes.get(loaded)
        if lane is None:
            meter = self.metrics.meter(loaded.name, loaded.version)
            lane = self._lanes[loaded] = Lane(
                loaded, meter, self.loop, self._pool, self.log,
                limits=self.limits, slots=self._slots, cache=self.cache, spans=self.spans,
                book=self.book(loaded, meter),
            )  # fmt: skip
        return lane

    def _part(self, wire: Wire, call: Call, loaded: Loaded) -> Endpoint | None:
        """What gives the requests of a call to the arms of a route, where there is one."""
        routed = self.catalog.table.route(loaded.name, call.version, call.alias)
        if routed is None:
            return None

        def bind(version: Loaded, is_shadow: bool) -> Predicting:
            lane = self.shadow_lane(version) if is_shadow else self.lane(version)
            return Predicting(wire, call, lane, self.later, self.metrics, self.log)

        return Parting(wire, call, routed, bind, self.beside, self.later, self.metrics, self.log)

    def shadow_lane(self, loaded: Loaded) -> Lane:
        """Where the copies wait that a loaded version gets as a shadow: apart from its own requests, in threads, and
        few: what finds no room is dropped.
        """
        lane = self._shadows.get(loaded)
        if lane is None:
            meter = self.metrics.meter(loaded.name, f"{loaded.version}{SHADOW}")
            lane = self._shadows[loaded] = Lane(
                loaded, meter, self.loop, self._pool, self.log,
                limits=self._shadow_limits, book=self.book(loaded, meter), is_beside=True,
            )  # fmt: skip
            lane.is_routed = True
        return lane

    def book(self, loaded: Loaded, meter: Meter) -> Book | None:
        """Where the calls of a loaded version are noted, if they are; ``meter`` counts what cannot be."""
        return None if self.notes is None else self.notes.book(loaded, meter)

    def change_limits(self, told: Mapping[str, Any]) -> None:
        """Put new bounds of joining and waiting in force, in every process that serves."""
        self.apply_limits(told)
        if self.spread is not None:
            self.spread(told)

    def apply_limits(self, told: Mapping[str, Any]) -> None:
        """The same in this process."""
        if not told:
            return
        apply_changes(self.limits, told)
        self.log.write("info", "limits changed", **told)

    def beside(self, function: Callable[[], None]) -> None:
        """Run a function after what is under way on the loop."""
        self.loop.call_soon(function)

    def later(self, function: Callable[[], None]) -> None:
        """Run a function that takes long, but waits for nobody, in a thread."""
        self._slow.submit(function)

    def block(self, function: Callable[[], None]) -> None:
        """Run a function that may wait for long, in a thread. Raises Overloaded where too many wait."""
        if not self._waiting.acquire(blocking=False):
            raise Overloaded("too many slow calls wait", hint="try again in a second", retry_after=1)
        self._blocking.submit(function).add_done_callback(lambda _: self._waiting.release())

    def _publish(self, table: Table) -> None:
        """Called by the catalog's thread with each new table of versions."""
        self._newest = table
        with contextlib.suppress(RuntimeError):  # the loop was closed while the catalog was loading
            self.loop.call_soon_threadsafe(self._take_over, table)

    def _take_over(self, table: Table) -> None:
        """From here on requests go to the versions of ``table``; those under way end where they began."""
        self.catalog.table = table
        self._forget()
        routed = {loaded for route in table.routes.values() for _, loaded, _ in route.live}
        for loaded in table.versions:
            self.lane(loaded).is_routed = loaded in routed
        if self.notes is not None:
            for route in table.routes.values():
                for arm, reason in route.unserved:
                    self.notes.note_unserved(route.route.model, arm, reason)
        shadows = {loaded for route in table.routes.values() for _, loaded in route.shadows}
        for loaded in [loaded for loaded in self._shadows if loaded not in shadows]:
            del self._shadows[loaded]
        for loaded in [loaded for loaded in self._lanes if loaded not in table.versions]:
            del self._lanes[loaded]
            if self.cache is not None:
                self.cache.forget(loaded.digest)

    def _forget(self) -> None:
        for forget in self.on_change:
            forget()

    def _vitals(self) -> Vitals:
        times = os.times()
        board = self.metrics.board
        return Vitals(
            worker=board.number if board is not None else -1,
            process=os.getpid(),
            started=self.metrics.started,
            cpu=times.user + times.system,
            resident=resident_bytes(),
            connections=self.connections(),
            ready=self.catalog.ready,
            registry_up=not self.catalog.registry_fault,
            in_flight={(lane.meter.model, lane.meter.version): lane.in_flight for lane in list(self._lanes.values())},
            memory={(v.name, v.version): v.memory for v in self.catalog.models() if v.memory is not None},
            recorder_up=None if self.notes is None else self.notes.places.recorder() is not None,
            control_up=None if self.notes is None else self.catalog.is_watched,
        )


def _with_twins(named: Sequence[str | Wire]) -> list[str | Wire]:
    """Each wire, and after it its form for gRPC where it has one: ``oip-grpc`` beside ``oip``."""
    known = plugins.names("wires")
    found: list[str | Wire] = []
    for wire in named:
        found.append(wire)
        if isinstance(wire, str) and f"{wire}-grpc" in known and f"{wire}-grpc" not in named:
            found.append(f"{wire}-grpc")
    return found


def _cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
