"""How versions fare that were declared at some time: loading, failed, unloading, unloaded."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from modelyard.errors import ModelyardError
from modelyard.interfaces import Served, State

#: Versions that are remembered; the longest unchanged make room.
MOST_STATES = 500


class States:
    """The last thing known of each version that does not serve. Written on the catalog's thread, read on any."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], State] = {}

    def note(self, model: str, version: str, state: str, error: Exception | None = None) -> None:
        """``version`` is "" where no registry has numbered it, or where it is not known yet."""
        noted = dict(self._noted)
        noted.pop((model, version), None)
        if version:
            noted.pop((model, ""), None)  # what it was before anybody knew the version
        while len(noted) >= MOST_STATES:
            del noted[next(iter(noted))]
        kept = copy.copy(error) if isinstance(error, ModelyardError) else error  # the copy holds no frames
        reason = str(getattr(error, "message", error)) if error is not None else ""
        noted[model, version] = State(model=model, version=version, state=state, reason=reason, error=kept)
        self._noted = noted

    def all(self, serving: Iterable[Served]) -> list[State]:
        """Every version: those of ``serving`` are ready, whatever else is known of them."""
        ready = {(v.name, v.version): State(model=v.name, version=v.version, state="ready") for v in serving}
        return [*ready.values(), *(state for key, state in self._noted.items() if key not in ready)]
