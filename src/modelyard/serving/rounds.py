"""One look at every reference: what serves it from now on, and what stands in the way of anything newer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import NotFound, RemoteFailed
from modelyard.serving.arms import Routed
from modelyard.serving.loading import Loaded
from modelyard.serving.sources import Source, Wanted, resolve_all, route_of
from modelyard.serving.table import Table, check_reachable

if TYPE_CHECKING:
    from modelyard.registry.routes import Route

#: The versions that answer for each reference.
Serving = Mapping[str, tuple[Loaded, ...]]


class Failure(msgspec.Struct, frozen=True):
    """Why a version, or where it is None whatever a reference means now, is not served."""

    wanted: Wanted | None
    error: Exception


class Round:
    """Takes one reference after the other. What loaded before is kept; where something fails, it goes on serving."""

    def __init__(self, source: Source, load: Callable[[Wanted], Loaded], before: Serving, table: Table) -> None:
        self._source = source
        self._load = load
        self._before = before
        self._table = table
        self._known = {(v.name, v.version, v.digest): v for versions in before.values() for v in versions}
        self._aliases: dict[tuple[str, str], Loaded] = {}
        self._routes: dict[tuple[str, str], Routed] = {}
        #: Versions that serve in place of others that failed.
        self._kept: list[Loaded] = []
        #: Aliases whose routes could not be asked for.
        self._unasked: set[tuple[str, str]] = set()
        self.served: dict[str, tuple[Loaded, ...]] = {}
        self.failures: dict[str, list[Failure]] = {}

    def take(self, reference: str, *, must: bool) -> None:
        """Look a reference up and load what it means. Where nothing of that can be had and it ``must``, raises."""
        before = self._before.get(reference, ())
        good: list[Loaded] = []
        failures: list[Failure] = []
        wanted: Sequence[Wanted] = ()
        route: Route | None = None
        try:
            wanted = resolve_all(self._source, reference)
            route = route_of(self._source, reference)
        except Exception as error:
            failures.append(Failure(None, error))
            self._unasked |= {name for name in self._table.routes if name[0] in {v.name for v in before}}
        for one in wanted:
            try:
                good.append(self._obtain(one, reference))
            except Exception as error:
                failures.append(Failure(one, error))
        kept: list[Loaded] = []
        if failures:
            if must and not good:
                raise failures[0].error
            self.failures[reference] = failures
            room = len(wanted) - len(good) if wanted else len(before)
            kept = [loaded for loaded in before if loaded not in good][:room]
            for loaded in kept:
                self._renew_aliases(loaded)
            self._kept += kept
        arms = self._take_arms(route, reference, (*good, *kept)) if route is not None else ()
        self._serve(reference, (*good, *kept, *arms))

    def _take_arms(self, route: Route, reference: str, there: Sequence[Loaded]) -> list[Loaded]:
        """Load the versions of a route's arms that are not ``there`` yet. One that fails is left out of the route."""
        versions = {loaded.version: loaded for loaded in there}
        more: list[Loaded] = []
        failures: dict[int, str] = {}
        for number in dict.fromkeys(str(arm.version) for arm in route.arms):
            wanted: Wanted | None = None
            if number in versions:
                continue
            try:
                wanted = self._source.resolve(f"{route.model}:{number}")
                more.append(self._obtain(wanted, reference))
                versions[number] = more[-1]
            except Exception as error:
                self.failures.setdefault(reference, []).append(Failure(wanted, error))
                if wanted is not None and not isinstance(error, RemoteFailed):  # it is not the version's fault
                    failures[int(number)] = str(getattr(error, "message", error))
        routed = Routed(route, {int(number): loaded for number, loaded in versions.items() if number}, failures)
        if routed.live:
            self._routes[route.model, route.alias] = routed
        return more

    def table(self) -> Table:
        """What is served now."""
        for name, loaded in self._table.aliases.items():
            if loaded in self._kept:  # callers that ask by an alias which has moved on are still answered
                self._aliases.setdefault(name, loaded)
        declared = self._declared()
        there = {id(loaded) for _, loaded in declared}
        for name, routed in self._table.routes.items():  # where nobody could be asked, it goes on as before
            if name not in self._routes and name in self._unasked and all(id(v) in there for v in routed.versions):
                self._routes[name] = routed
        return Table(declared, self._aliases, self._routes)

    def _obtain(self, wanted: Wanted, reference: str) -> Loaded:
        loaded = self._known.get(wanted.key)
        if loaded is None:
            loaded = self._known[wanted.key] = self._load(wanted)
        check_reachable(loaded, reference, self._declared())
        loaded.aliases = wanted.aliases
        return loaded

    def _serve(self, reference: str, versions: tuple[Loaded, ...]) -> None:
        if not versions:
            return
        self.served[reference] = versions
        for loaded in versions:
            for alias in loaded.aliases:
                self._aliases[loaded.name, alias] = loaded
        alias = reference.partition("@")[2]
        if alias and not alias.startswith("sha256:"):
            self._aliases[versions[0].name, alias] = versions[0]

    def _renew_aliases(self, loaded: Loaded) -> None:
        """The version goes on serving, but the alias that led to it points elsewhere by now, or is gone."""
        if not loaded.version:
            return
        try:
            loaded.aliases = self._source.resolve(f"{loaded.name}:{loaded.version}").aliases
        except NotFound:
            loaded.aliases = ()
        except Exception:  # the registry does not answer, which is a failure of its own
            pass

    def _declared(self) -> list[tuple[str, Loaded]]:
        return [(reference, loaded) for reference, versions in self.served.items() for loaded in versions]
