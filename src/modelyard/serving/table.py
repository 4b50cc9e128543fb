"""What is served at one moment, and which version a call means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from modelyard.errors import Conflict, NotFound
from modelyard.serving.loading import Loaded

if TYPE_CHECKING:
    from modelyard.serving.arms import Routed


class Table:
    """Never changed once made; the next one takes its place as a whole."""

    def __init__(
        self,
        declared: Sequence[tuple[str, Loaded]] = (),
        aliases: Mapping[tuple[str, str], Loaded] | None = None,
        routes: Mapping[tuple[str, str], Routed] | None = None,
    ) -> None:
        #: Each version once, in the order of the references.
        self.versions: tuple[Loaded, ...] = tuple({id(loaded): loaded for _, loaded in declared}.values())
        #: Which version answers for an alias of a model.
        self.aliases: Mapping[tuple[str, str], Loaded] = aliases or {}
        #: The routes of aliases that several versions answer for.
        self.routes: Mapping[tuple[str, str], Routed] = routes or {}
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
            named = self.aliases.get((model, alias))
            if named is None:
                known = [known for name, known in self.aliases if name == model]
                raise NotFound.among(f"alias of {model} on this server", alias, known)
            return named
        return self.aliases.get((model, "production"), versions[0])

    def route(self, model: str, version: str | None, alias: str | None) -> Routed | None:
        """How the requests of a call that ``find`` answers are parted; None where one version gets them all."""
        return None if version is not None or not self.routes else self.routes.get((model, alias or "production"))


def check_reachable(loaded: Loaded, reference: str, declared: Iterable[tuple[str, Loaded]]) -> None:
    """Raise Conflict where no path would lead to ``loaded``: a bundle without a version beside another of its name."""
    for other, taken in declared:
        if taken is loaded or taken.name != loaded.name:
            continue
        if not taken.version or not loaded.version or taken.version == loaded.version:
            raise Conflict(
                f"two models would be served under one name: {loaded.name} ({other} and {reference})",
                hint=f"give a bundle another name: NAME={reference.rpartition('=')[2]}",
            )
