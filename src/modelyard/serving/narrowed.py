"""A catalog as a key for some models sees it: as if the server had no others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelyard.errors import NotFound, Refused
from modelyard.interfaces import Catalog, Served, State, Stats
from modelyard.truth import Label, Receipt


class Narrowed:
    """The part of a ``Catalog`` that these models make up."""

    def __init__(self, catalog: Catalog, models: Sequence[str]) -> None:
        self._catalog = catalog
        self._models = tuple(models)

    @property
    def ready(self) -> bool:
        return self._catalog.ready

    @property
    def draining(self) -> bool:
        return self._catalog.draining

    def models(self) -> Sequence[Served]:
        return [served for served in self._catalog.models() if served.name in self._models]

    def find(self, model: str | None, version: str | None, alias: str | None) -> Served:
        names = list(dict.fromkeys(served.name for served in self.models()))
        if model is None:
            if len(names) != 1 and self._catalog.models():
                raise NotFound(f"this key is for several models, or for none that is here: {', '.join(self._models)}")
            model = names[0] if names else None
        elif model not in self._models:
            raise self._beyond(model)
        try:
            return self._catalog.find(model, version, alias)
        except NotFound:
            if model in names:
                raise
            raise NotFound.among("model", model or "", names) from None

    def faults(self) -> dict[str, str]:
        return {reference: why for reference, why in self._catalog.faults().items() if self._has(reference)}

    def states(self) -> Sequence[State]:
        return [state for state in self._catalog.states() if state.model in self._models]

    def stats(self, served: Served) -> Stats:
        return self._catalog.stats(served)

    def label(self, served: Served, labels: Sequence[Label]) -> Receipt:
        return self._catalog.label(served, labels)

    def load(self, reference: str) -> Served:
        if not self._has(reference):
            raise self._beyond(reference)
        return self._catalog.load(reference)

    def unload(self, model: str) -> None:
        if model not in self._models:
            raise self._beyond(model)
        self._catalog.unload(model)

    def replace(self, references: Sequence[str]) -> None:
        raise Refused(f"this key is for some models only: {', '.join(self._models)}")

    def _has(self, reference: str) -> bool:
        return re.split("[:@=]", reference, maxsplit=1)[0] in self._models

    def _beyond(self, model: str) -> Refused:
        return Refused(f"this key is not for {model}: it is for {', '.join(self._models)}")
