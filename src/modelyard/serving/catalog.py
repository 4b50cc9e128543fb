"""From declared references to loaded, verified versions, kept in step with the registry.

``churn@production``, ``churn:4``, ``churn`` are asked of a registry, and so are ``churn:latest``, ``churn:latest-2``
(the newest two) and ``churn:all``; a bundle's folder or file is served as it is, under its own name or another
(``churn=path/to/bundle``). A version counts only once it is loaded, warmed and has reproduced its golden rows; until
then, and where it fails, the one before goes on serving.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Literal

import msgspec

from modelyard.errors import InvalidInput, ModelyardError, NotFound, NotReady, Refused
from modelyard.interfaces import Ledger, Served, State, Stats
from modelyard.serving.isolation.choice import Isolation
from modelyard.serving.loading import WARM_BESIDE_SECONDS, WARM_SECONDS, Loaded, load
from modelyard.serving.memory import Memory, hand_back
from modelyard.serving.rounds import Failure, Round, Serving
from modelyard.serving.sources import HasWatch, Source, Wanted, model_of
from modelyard.serving.states import States
from modelyard.serving.table import Table
from modelyard.settings import Chosen
from modelyard.telemetry import Log
from modelyard.truth import Label, Receipt

if TYPE_CHECKING:
    from modelyard.bundle import Trust
    from modelyard.serving.metrics import Metrics

#: A version that failed to load is tried again after this many seconds.
RETRY_SECONDS = 5.0

#: Seconds between two looks whether somebody watches, and before the first: whoever does starts after us.
LOOK_SECONDS, FIRST_LOOK_SECONDS = 2.0, 10.0

#: A table is taken over in one turn of the event loop; a loop that takes longer has other troubles.
_TAKE_OVER_SECONDS = 10.0

#: How often somebody who waits for another thread looks, in seconds.
_LOOK_SECONDS = 0.002


class Change(msgspec.Struct, frozen=True):
    """What somebody wants to be served: one reference more, one model less, or exactly these references."""

    action: Literal["load", "unload", "replace"]
    names: tuple[str, ...]


class ServerCatalog:
    """Loads what is declared and follows the registry (a ``Catalog``).

    ``publish(table)`` is called, on the catalog's own thread, with each new table; whoever is told sets ``table``.

    Where several processes serve, ``coordinate`` is set in each of them: it takes a ``Change`` that a client asked
    this process for, has every process ``apply`` it, and returns once all have; where one raises, it has the others
    ``apply(Change("replace", references))`` with their ``references`` of before, and raises the same.
    """

    def __init__(
        self,
        references: Sequence[str],
        source: Callable[[], Source],
        *,
        settings: Chosen,
        trust: Trust | None,
        publish: Callable[[Table], None],
        log: Log,
        metrics: Metrics,
    ) -> None:
        if not references and not settings.control:
            raise InvalidInput.at("references", "at least one model to serve", "none")
        self._open_source = source
        self._settings = settings
        self._trust = trust
        self._publish = publish
        self._log = log
        self._metrics = metrics
        self._source: Source
        #: What is declared, in order; a change replaces the whole.
        self.references: tuple[str, ...] = tuple(dict.fromkeys(references))
        #: What unloaded models were declared as, so that they can be loaded again by their names.
        self._former: dict[str, tuple[str, ...]] = {}
        self._faults: dict[str, str] = dict.fromkeys(self.references, "not loaded yet")
        #: The versions that answer for each reference.
        self._served: Serving = {}
        self._states = States()
        self._memory = Memory(settings.memory, settings.workers)
        #: Which models run in processes of their own.
        self.isolation = Isolation(settings, log)
        self._marker = -1
        self._retry_at = 0.0
        #: What the catalog's thread has been asked to do; None wakes it to stop.
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.coordinate: Callable[[Change], None] | None = None
        #: Where the truth about predictions is kept; set before anything is served.
        self.ledger: Ledger
        #: Set by whoever ``publish`` tells, so that it changes between two requests and never within one.
        self.table = Table()
        self.draining = False
        #: Why the registry does not answer; "" while it does.
        self.registry_fault = ""
        #: Whether somebody watches and decides; None where nobody could, and while that is not known.
        self.is_watched: bool | None = None
        self._look_at = monotonic() + FIRST_LOOK_SECONDS
        #: What went wrong while the first table was made; the server does not start then.
        self.failure: Exception | None = None
        self.settled = threading.Event()

    # What wires and the server ask.

    @property
    def ready(self) -> bool:
        """Every declared reference has a version that serves, and the server is not stopping.

        A server of nothing is ready where clients may say what to load.
        """
        complete = self.settled.is_set() and len(self._served) == len(self.references)
        return complete and not self.draining and all(loaded.is_alive for loaded in self.table.versions)

    def models(self) -> Sequence[Loaded]:
        return self.table.versions

    def find(self, model: str | None, version: str | None, alias: str | None) -> Loaded:
        if not self.table.versions:
            if self.ready:
                raise NotFound("this server serves no model at the moment", hint="load one")
            raise NotReady("the models are being loaded", hint="try again in a moment")
        return self.table.find(model, version, alias)

    def faults(self) -> dict[str, str]:
        stopped = [loaded for loaded in self.table.versions if not loaded.is_alive]
        return self._faults | {f"{each.name}:{each.version}": "no live process; being replaced" for each in stopped}

    def states(self) -> Sequence[State]:
        return self._states.all(self.table.versions)

    def stats(self, served: Served) -> Stats:
        counted = self._metrics.stats(served.name, served.version)
        return msgspec.structs.replace(counted, memory=getattr(served, "memory", None))

    def label(self, served: Served, labels: Sequence[Label]) -> Receipt:
        return self.ledger.add(served.name, labels)

    def load(self, reference: str) -> Served:
        self._change(Change("load", (reference,)))
        served = self._served.get(reference)
        return served[0] if served else self.table.find(model_of(reference), None, None)

    def unload(self, model: str) -> None:
        going = [weakref.ref(loaded) for loaded in self.table.versions if loaded.name == model]
        self._change(Change("unload", (model,)))
        self._wait(lambda: all(held() is None for held in going), self._settings.drain_seconds)

    def replace(self, references: Sequence[str]) -> None:
        self._change(Change("replace", tuple(references)))

    def _change(self, change: Change) -> None:
        if not self._settings.control:
            raise Refused("clients may not choose what is served here", hint="start the server with --control")
        (self.coordinate or self.apply)(change)

    def apply(self, change: Change) -> None:
        """Make a change in this process; returns once it serves, or raises, and then all is as before."""
        done: Future[None] = Future()
        self._asked.put(partial(self._apply, change, done))
        try:
            done.result(self._settings.request_seconds)
        except TimeoutError:
            done.cancel()  # it is not even begun then
            raise NotReady(
                f"to {change.action} {' '.join(change.names)} takes longer than {self._settings.request_seconds:g} s",
                hint="it goes on if it was begun: ask for the state of the model",
            ) from None

    # The thread that loads.

    def start(self) -> None:
        """Begin to load, and then to follow the registry. ``settled`` is set when the first loading has ended."""
        self._thread = threading.Thread(target=self._work, name="modelyard-catalog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following the registry."""
        self._stopping.set()
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join(timeout=10)
        self.isolation.close()

    def _work(self) -> None:
        try:
            self._source = self._open_source()
            self._marker = self._source.marker()
            self._refresh(self.references, must=self.references)
        except Exception as error:
            self.failure = error
        finally:
            self.settled.set()
        poll_at = monotonic()
        while self.failure is None and not self._stopping.is_set():
            try:
                task = self._asked.get(timeout=max(0.0, poll_at - monotonic()))
            except queue.Empty:
                self._poll()
                poll_at = monotonic() + self._settings.poll_seconds
                continue
            if task is not None:
                task()

    def _poll(self) -> None:
        try:
            marker = self._source.marker()
            if marker != self._marker or (self._faults and perf_counter() > self._retry_at):
                self._refresh(self.references)
                self._marker = marker
            if monotonic() >= self._look_at and isinstance(self._source, HasWatch):
                self.is_watched = self._source.is_watched()
                self._look_at = monotonic() + LOOK_SECONDS
        except Exception as error:
            if not self.registry_fault:
                self._log.write("warning", "registry does not answer; serving on", error=error)
            self.registry_fault = str(error)
            self._marker = -1  # whatever comes back may be another registry: look everything up again
            return
        if self.registry_fault:
            self._log.write("info", "registry answers again")
            self.registry_fault = ""

    def _apply(self, change: Change, done: Future[None]) -> None:
        """``apply`` on the catalog's thread."""
        if not done.set_running_or_notify_cancel():
            return
        try:
            references, must = self._meant(change)
            for reference in must:
                self._source.forget(reference)
            going = tuple(reference for reference in self.references if reference not in references)
            self._refresh(references, must=must)
            if change.action == "unload":
                self._former[change.names[0]] = going
            self._log.write("info", f"{change.action} done", names=change.names)
        except Exception as error:
            level = "warning" if isinstance(error, ModelyardError) else "error"
            self._log.write(level, f"{change.action} failed", names=change.names, error=error)
            done.set_exception(_bare(error))
        else:
            done.set_result(None)

    def _meant(self, change: Change) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The references to serve after a change, and those of them that must not fail. Raises NotFound."""
        before = self.references
        if change.action == "replace":
            after = tuple(dict.fromkeys(change.names))
            return after, tuple(r for r in after if r not in self._served)
        (name,) = change.names
        own = tuple(r for r in before if self._model_of(r) == name)
        if change.action == "unload":
            if not own:
                raise NotFound.among("model", name, {self._model_of(r) for r in before})
            return tuple(r for r in before if r not in own), ()
        meant = (name,) if name in before else own or self._former.get(name) or (name,)
        return tuple(dict.fromkeys((*before, *meant))), meant

    def _model_of(self, reference: str) -> str:
        served = self._served.get(reference)
        return served[0].name if served else model_of(reference)

    def _refresh(self, references: Sequence[str], must: Collection[str] = ()) -> None:
        """Look every reference up, load what is new, publish a table. Raises where one of ``must`` cannot be served;
        then all is as before.
        """
        this = Round(self._source, self._load, self._served, self.table)
        for reference in references:
            this.take(reference, must=reference in must)
        self._faults = {
            reference: "; ".join([self._fault(reference, failure) for failure in failures])
            for reference, failures in this.failures.items()
        }
        before, table = self.table, this.table()
        self.references, self._served = tuple(references), this.served
        self._retry_at = perf_counter() + RETRY_SECONDS
        for loaded in before.versions:  # they are ready for as long as the table holds them
            if loaded not in table.versions:
                self._states.note(loaded.name, loaded.version, "unloading")
        self._publish(table)
        self._wait(lambda: self.table is table, _TAKE_OVER_SECONDS)

    def _load(self, wanted: Wanted) -> Loaded:
        started = perf_counter()
        self._states.note(wanted.model, wanted.version, "loading")
        try:
            bundle = wanted.open()
            what = f"version {wanted.version} of {wanted.model}" if wanted.version else wanted.model
            rows, seconds = self._settings.batch_rows, WARM_BESIDE_SECONDS if self.table.versions else WARM_SECONDS
            loaded = self._memory.admit(
                what, bundle, lambda: load(wanted, bundle, self._trust, rows, seconds, self.isolation)
            )
        except Exception as error:
            self._states.note(wanted.model, wanted.version, "failed", error)
            raise
        gone = weakref.finalize(loaded, self._note_gone, loaded.name, loaded.version, loaded.memory or 0)
        gone.atexit = False
        self._log.write(
            "info", "model loaded", model=loaded.name, version=loaded.version, digest=loaded.digest,
            platform=loaded.platform, memory=loaded.memory, seconds=round(perf_counter() - started, 3),
        )  # fmt: skip
        return loaded

    def _fault(self, reference: str, failure: Failure) -> str:
        """What stands in the way of a reference, in words; logged when it is new."""
        wanted, error = failure.wanted, failure.error
        meant = f"version {wanted.version} of {wanted.model}" if wanted else reference
        kept = [loaded.version for loaded in self._served.get(reference, ())]
        serving = f"; version {kept[0]} goes on serving" if kept else ""
        fault = f"{meant} cannot be served: {getattr(error, 'message', error)}{serving}"
        if fault not in self._faults.get(reference, ""):
            self._log.write("error", "load failed", reference=reference, error=error, kept=", ".join(kept) or None)
            self._metrics.failed_loads[wanted.model if wanted else reference] += 1
        _bare(error)
        return fault

    def _note_gone(self, model: str, version: str, size: int) -> None:
        """Nobody holds a version any more. Called on any thread."""
        self._asked.put(partial(self._tidy, model, version, size))

    def _tidy(self, model: str, version: str, size: int) -> None:
        self._states.note(model, version, "unloaded")
        hand_back(size)
        self._log.write("info", "model unloaded", model=model, version=version)

    def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        """Block until something has come true, for so long at most, and no longer than the server lives."""
        end = monotonic() + seconds
        while not until() and monotonic() < end and not self._stopping.wait(_LOOK_SECONDS):
            pass


def _bare(error: Exception) -> Exception:
    """The error without its traces: their frames would keep models in memory for as long as somebody keeps it."""
    told: BaseException | None = error
    while told is not None:
        told.__traceback__ = None
        told = told.__cause__ or told.__context__
    return error
