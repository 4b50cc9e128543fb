"""From what a reference means to a loaded version that has proved itself: open, load, verify, warm."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.interfaces import Predict
from modelyard.serving.cost import Cost
from modelyard.serving.sources import LoadableBundle, Wanted

if TYPE_CHECKING:
    from modelyard.bundle import Trust

#: How long a version may be warmed, in seconds, beyond the first call of each size.
WARM_SECONDS = 0.3


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
        #: Bytes of memory that it takes; None until that was measured.
        self.memory: int | None = None


def load(wanted: Wanted, bundle: LoadableBundle, trust: Trust | None, rows: int) -> Loaded:
    """Load, verify and warm an opened version, with calls of up to ``rows`` rows. Raises what stands in the way."""
    loaded = Loaded(wanted, bundle, bundle.load(trust=trust))
    bundle.check_golden(loaded.predict)
    warm(loaded, rows)
    return loaded


def warm(loaded: Loaded, rows: int) -> None:
    """Call the model with golden rows, in calls of one row up to ``rows``, so that its cost is learned.

    Sizes that would take longer than ``WARM_SECONDS`` in all are left out.
    """
    import numpy as np

    inputs, _ = loaded.bundle.golden()
    if not inputs.rows:
        return
    loaded.example = inputs.slice(0, 1).records()[0]
    left = WARM_SECONDS
    for size in _sizes(rows):
        columns = inputs.take(np.arange(size) % inputs.rows)
        for turn in range(3):  # the first call of a size makes room for it, and tells little of the next ones
            if size > 1 and 2 * loaded.cost.expect(size) > left:
                return
            started = perf_counter()
            loaded.predict(columns)
            seconds = perf_counter() - started
            left -= seconds
            if turn or size == 1:
                loaded.cost.learn(size, seconds)


def _sizes(rows: int) -> list[int]:
    """1, 16, 256 ... and ``rows`` itself."""
    return sorted({size for size in (1, 16, 256, 4096, 65536) if size < rows} | {rows})
