"""One look at every reference: what serves it from now on, and what stands in the way of anything newer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from modelyard.errors import NotFound
from modelyard.serving.loading import Loaded
from modelyard.serving.sources import Source, Wanted, resolve_all
from modelyard.serving.table import Table, check_reachable

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
        #: Versions that serve in place of others that failed.
        self._kept: list[Loaded] = []
        self.served: dict[str, tuple[Loaded, ...]] = {}
        self.failures: dict[str, list[Failure]] = {}

    def take(self, reference: str, *, must: bool) -> None:
        """Look a reference up and load what it means. Where nothing of that can be had and it ``must``, raises."""
        before = self._before.get(reference, ())
        good: list[Loaded] = []
        failures: list[Failure] = []
        wanted: Sequence[Wanted] = ()
        try:
            wanted = resolve_all(self._source, reference)
        except Exception as error:
            failures.append(Failure(None, error))
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
        self._serve(reference, (*good, *kept))

    def table(self) -> Table:
        """What is served now."""
        for name, loaded in self._table.aliases.items():
            if loaded in self._kept:  # callers that ask by an alias which has moved on are still answered
                self._aliases.setdefault(name, loaded)
        return Table(self._declared(), self._aliases)

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
