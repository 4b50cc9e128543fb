"""From what a reference means to a loaded version that has proved itself: open, load, verify, warm."""

from __future__ import annotations

import weakref
from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.interfaces import Predict
from modelyard.serving.cost import Cost
from modelyard.serving.sources import LoadableBundle, Wanted

if TYPE_CHECKING:
    from modelyard.bundle import Trust
    from modelyard.serving.isolation.choice import Isolation
    from modelyard.serving.isolation.remote import Remote

#: How long a version is warmed at most, in seconds; and while others serve, whose requests pay for it.
WARM_SECONDS, WARM_BESIDE_SECONDS = 0.3, 0.03


class Loaded:
    """One loaded version (a ``Served``).

    It is unloaded when nobody holds it any more: the table of versions, lanes, and requests under way do.
    """

    def __init__(self, wanted: Wanted, bundle: LoadableBundle, predict: Predict) -> None:
        self.name = wanted.model
        self.version = wanted.version
        self.digest = wanted.digest
        self.aliases = wanted.aliases
        self.signature = bundle.signature
        manifest = bundle.manifest
        self.platform: str = manifest.model.runtime
        self.task: str = manifest.task
        self.metrics: dict[str, Any] = dict(manifest.metrics or {})
        self.predict = predict
        #: Kept because a one-file bundle's folder lives as long as it.
        self.bundle = bundle
        self.cost = Cost()
        #: One input row with which the model is known to work.
        self.example: dict[str, Any] = {}
        #: Its processes, where it runs in some of its own; ``predict`` waits for them, their ``call`` does not.
        self.remote: Remote | None = None
        self._memory: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether somebody can answer for it, now."""
        return self.remote is None or self.remote.is_alive

    @property
    def memory(self) -> int | None:
        """Bytes of memory that it takes; None until that was measured."""
        return self._memory if self.remote is None else self.remote.memory

    @memory.setter
    def memory(self, size: int) -> None:
        self._memory = size


def load(
    wanted: Wanted,
    bundle: LoadableBundle,
    trust: Trust | None,
    rows: int,
    seconds: float,
    isolation: Isolation | None = None,
) -> Loaded:
    """Load, verify and warm an opened version, with calls of up to ``rows`` rows, for ``seconds`` at most.

    It runs here, or in processes of its own where ``isolation`` has some for it. Raises what stands in the way.
    """
    remote = isolation.remote(bundle, trust) if isolation is not None else None
    loaded = Loaded(wanted, bundle, bundle.load(trust=trust) if remote is None else remote.predict)
    if isolation is not None and remote is not None:
        loaded.remote = remote
        weakref.finalize(loaded, isolation.release, remote).atexit = False
    bundle.check_golden(loaded.predict)
    warm(loaded, rows, seconds)
    return loaded


def warm(loaded: Loaded, rows: int, seconds: float) -> None:
    """Call the model with golden rows, in calls of one row up to ``rows``, so that its cost is learned.

    Sizes that would take longer than what is left of ``seconds`` are left out.
    """
    import numpy as np

    inputs, _ = loaded.bundle.golden()
    if not inputs.rows:
        return
    loaded.example = inputs.slice(0, 1).records()[0]
    until = perf_counter() + seconds
    for size in sorted({min(size, rows) for size in (1, 16, 256, rows)}):
        columns = inputs.take(np.arange(size) % inputs.rows)
        for turn in range(3):
            started = perf_counter()
            if size > 1 and started + loaded.cost.expect(size) > until:
                return
            loaded.predict(columns)
            if turn or size == 1:  # the first call of a size makes room for it, and tells little of the next ones
                loaded.cost.learn(size, perf_counter() - started)
