"""How much each column matters to a fitted model: what its metric loses when the column is shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.schema import Array
from modelyard.training.metrics import LOSSES, Measure
from modelyard.training.preprocess import frame_of
from modelyard.training.search import answers_of

#: Rows that are looked at, and cells (rows x columns x repeats) that are predicted again at most.
MOST_ROWS, MOST_CELLS, REPEATS = 1000, 200_000, 3


def importance(
    model: Any, inputs: dict[str, Array], targets: Array, classes: Sequence[Any] | None, metric: str, seed: int
) -> dict[str, float]:
    """Column -> mean loss of ``metric`` over some shuffles, the most important first. Breiman's permutation
    importance on rows that the model has not seen."""
    random = np.random.default_rng(seed)
    count = min(len(targets), MOST_ROWS, max(50, MOST_CELLS // (len(inputs) * REPEATS)))
    chosen = np.sort(random.choice(len(targets), count, replace=False))
    rows = {name: values[chosen] for name, values in inputs.items()}
    truth = targets[chosen]

    def value(some: dict[str, Array]) -> float:
        return Measure(truth, answers_of(model, frame_of(some), classes is not None), classes).point()[metric]

    whole = value(rows)
    sign = 1 if metric in LOSSES else -1
    losses = {
        name: float(np.mean([sign * (value({**rows, name: random.permutation(v)}) - whole) for _ in range(REPEATS)]))
        for name, v in rows.items()
    }
    return dict(sorted(losses.items(), key=lambda item: -item[1]))
