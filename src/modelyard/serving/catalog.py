"""From declared references to loaded, verified versions, kept in step with the registry.

``churn@production``, ``churn:4``, ``churn`` are asked of a registry; a bundle's folder or file is served as it is,
under its own name or another (``churn=path/to/bundle``). A version counts only once it is loaded, warmed and has
reproduced its golden rows; until then, and where it fails, the one before goes on serving.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from modelyard.errors import Conflict, InvalidInput, NotFound, NotReady, Refused
from modelyard.interfaces import Served, State, Stats
from modelyard.serving.loading import Loaded, load
from modelyard.serving.sources import Source, Wanted
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.bundle import Trust
    from modelyard.serving.metrics import Metrics

#: A version that failed to load is tried again after this many seconds.
RETRY_SECONDS = 5.0


class Table:
    """What is served at one moment. Never changed once made; the next one takes its place as a whole."""

    def __init__(
        self, declared: Sequence[tuple[str, Loaded]] = (), aliases: dict[tuple[str, str], Loaded] | None = None
    ):
        #: Each version once, in the order of the references.
        self.versions: tuple[Loaded, ...] = tuple({id(loaded): loaded for _, loaded in declared}.values())
        self._aliases = aliases or {}
        self._models: dict[str, list[Loaded]] = {}
        for loaded in self.versions:
            self._models.setdefault(loaded.name, []).append(loaded)

    def find(self, model: str | None, version: str | None, alias: str | None) -> Loaded:
        """See ``interfaces.Catalog``."""
        if model is None:
            if len(self._models) != 1:
                names = ", ".join(sorted(self._models))
                hint = f"ask one of them by name, as in /models/{min(self._models)}/predict" if self._models else ""
                raise NotFound(f"this server serves several models: {names}", hint=hint)
            model = next(iter(self._models))
        versions = self._models.get(model)
        if versions is None:
            raise NotFound.among("model", model, self._models)
        if version is not None:
            for loaded in versions:
                if loaded.version == version:
                    return loaded
            raise NotFound.among(f"version of {model} on this server", version, (v.version for v in versions))
        if alias is not None:
            named = self._aliases.get((model, alias))
            if named is None:
                known = [known for name, known in self._aliases if name == model]
                raise NotFound.among(f"alias of {model} on this server", alias, known)
            return named
        return self._aliases.get((model, "production"), versions[0])


def _check_reachable(loaded: Loaded, reference: str, served: Mapping[str, Loaded]) -> None:
    """Raise Conflict where no path would lead to ``loaded``: a bundle without a version beside another of its name."""
    for other, taken in served.items():
        if taken is loaded or taken.name != loaded.name:
            continue
        if not taken.version or not loaded.version or taken.version == loaded.version:
            raise Conflict(
                f"two models would be served under one name: {loaded.name} ({other} and {reference})",
                hint=f"give a bundle another name: NAME={reference.rpartition('=')[2]}",
            )


class ServerCatalog:
    """Loads what is declared and follows the registry (a ``Catalog``).

    ``publish(table)`` is called, on the catalog's own thread, with each new table.
    """

    def __init__(
        self,
        references: Sequence[str],
        source: Callable[[], Source],
        *,
        trust: Trust | None,
        poll_seconds: float,
        publish: Callable[[Table], None],
        log: Log,
        metrics: Metrics,
    ) -> None:
        if not references:
            raise InvalidInput.at("references", "at least one model to serve", "none")
        self._references = list(dict.fromkeys(references))
        self._open_source = source
        self._trust = trust
        self._poll_seconds = poll_seconds
        self._publish = publish
        self._log = log
        self._metrics = metrics
        self._faults: dict[str, str] = dict.fromkeys(self._references, "not loaded yet")
        self._served: dict[str, Loaded] = {}
        self._marker = -1
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: Set by whoever ``publish`` tells, so that it changes between two requests and never within one.
        self.table = Table()
        self.draining = False
        #: Why the registry does not answer; "" while it does.
        self.registry_fault = ""
        #: What went wrong while the first table was made; the server does not start then.
        self.failure: Exception | None = None
        self.settled = threading.Event()

    # What wires and the server ask.

    @property
    def ready(self) -> bool:
        """Every declared reference has a version that serves, and the server is not stopping."""
        return not self.draining and len(self._served) == len(self._references)

    def models(self) -> Sequence[Loaded]:
        return self.table.versions

    def find(self, model: str | None, version: str | None, alias: str | None) -> Loaded:
        if not self.table.versions:
            raise NotReady("the models are being loaded", hint="try again in a moment")
        return self.table.find(model, version, alias)

    def faults(self) -> dict[str, str]:
        return dict(self._faults)

    def states(self) -> Sequence[State]:
        ready = [State(model=v.name, version=v.version, state="ready") for v in self.table.versions]
        failed = [State(model=name, version="", state="failed", reason=why) for name, why in self.faults().items()]
        return ready + failed

    def stats(self, served: Served) -> Stats:
        return self._metrics.stats(served.name, served.version)

    def load(self, reference: str) -> Served:
        raise Refused("clients may not load models here", hint="start the server with --control on")

    def unload(self, model: str) -> None:
        raise Refused("clients may not unload models here", hint="start the server with --control on")

    def replace(self, references: Sequence[str]) -> None:
        raise Refused("clients may not choose the models here", hint="start the server with --control on")

    # The thread that loads.

    def start(self) -> None:
        """Begin to load, and then to follow the registry. ``settled`` is set when the first loading has ended."""
        self._thread = threading.Thread(target=self._work, name="modelyard-catalog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following the registry."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _work(self) -> None:
        try:
            source = self._open_source()
            self._marker = source.marker()
            self._refresh(source, first=True)
        except Exception as error:
            self.failure = error
        finally:
            self.settled.set()
        while self.failure is None and not self._stopping.wait(self._poll_seconds):
            self._poll(source)

    def _poll(self, source: Source) -> None:
        try:
            marker = source.marker()
            if marker != self._marker or (self._faults and perf_counter() > self._retry_at):
                self._refresh(source)
                self._marker = marker
        except Exception as error:
            if not self.registry_fault:
                self._log.write("warning", "registry does not answer; serving on", error=error)
            self.registry_fault = str(error)
            self._marker = -1  # whatever comes back may be another registry: look everything up again
            return
        if self.registry_fault:
            self._log.write("info", "registry answers again")
            self.registry_fault = ""

    def _refresh(self, source: Source, first: bool = False) -> None:
        """Look every reference up, load what is new, publish a table if anything changed."""
        known = {(v.name, v.version, v.digest): v for v in self._served.values()}
        aliases: dict[tuple[str, str], Loaded] = {}
        served: dict[str, Loaded] = {}
        for reference in self._references:
            before = self._served.get(reference)
            wanted: Wanted | None = None
            try:
                wanted = source.resolve(reference)
                loaded = known.get(wanted.key)
                if loaded is None:
                    loaded = known[wanted.key] = self._load(wanted, reference)
                _check_reachable(loaded, reference, served)
                loaded.aliases = wanted.aliases
                self._faults.pop(reference, None)
            except Exception as error:
                if first:
                    raise
                self._note_fault(reference, wanted, before, error)
                if before is None:
                    continue
                loaded = before
            served[reference] = loaded
            for alias in loaded.aliases:
                aliases[loaded.name, alias] = loaded
            if "@" in reference and not reference.partition("@")[2].startswith("sha256:"):
                aliases[loaded.name, reference.partition("@")[2]] = loaded
        self._served = served
        self._retry_at = perf_counter() + RETRY_SECONDS
        self._publish(Table(list(served.items()), aliases))

    def _load(self, wanted: Wanted, reference: str) -> Loaded:
        started = perf_counter()
        loaded = load(wanted, self._trust)
        self._log.write(
            "info", "model loaded", reference=reference, model=loaded.name, version=loaded.version,
            digest=loaded.digest, platform=loaded.platform, seconds=round(perf_counter() - started, 3),
        )  # fmt: skip
        return loaded

    def _note_fault(self, reference: str, wanted: Wanted | None, before: Loaded | None, error: Exception) -> None:
        meant = f"version {wanted.version} of {wanted.model}" if wanted else reference
        kept = f"; version {before.version} goes on serving" if before else ""
        fault = f"{meant} cannot be served: {getattr(error, 'message', error)}{kept}"
        if self._faults.get(reference) != fault:
            self._log.write("error", "load failed", reference=reference, error=error, kept=before and before.version)
            self._metrics.failed_loads[wanted.model if wanted else reference] += 1
        self._faults[reference] = fault
