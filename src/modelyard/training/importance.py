"""How much each column matters to a fitted model: what its metric loses when the column is shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.schema import Array
from modelyard.training.metrics import LOSSES, Answers, Measure
from modelyard.training.preprocess import frame_of

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
    often = {name: np.concatenate([values] * REPEATS) for name, values in rows.items()}
    sign = 1 if metric in LOSSES else -1
    whole = Measure(truth, _answers(model, rows, classes), classes).point()[metric]
    losses = {}
    for name, values in rows.items():
        shuffled = {**often, name: np.concatenate([random.permutation(values) for _ in range(REPEATS)])}
        # one call for all repeats: most of the time goes into the call itself
        found = Measure(np.concatenate([truth] * REPEATS), _answers(model, shuffled, classes), classes)
        parts = found.at(np.kron(np.eye(REPEATS), np.ones(count)))[metric]
        losses[name] = float(np.mean(sign * (parts - whole)))
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def _answers(model: Any, inputs: dict[str, Array], classes: Sequence[Any] | None) -> Answers:
    frame = frame_of(inputs)
    if classes is None:
        return Answers(np.asarray(model.predict(frame), dtype="float64"))
    probabilities = model.predict_proba(frame)
    return Answers(model.classes_[probabilities.argmax(axis=1)], probabilities)
