"""What a candidate is compared by, frozen before it gets its first request: what counts as slow, and bins of scores.

Both come from the stable version's own last windows, the bins in their absence from its reference profile. Whatever
they are, the comparison is fair, because both arms are held against the same; they only decide what is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.errors import Conflict
from modelyard.profile import Counts
from modelyard.registry.plans import Scores
from modelyard.registry.stages import quantile_of
from modelyard.registry.windows import Window, profile_of

if TYPE_CHECKING:
    from modelyard.bundle import Bundle

#: Fewer requests do not tell what the slowest 1 % are, fewer rows not how scores are distributed.
LEAST_REQUESTS = 500
LEAST_ROWS = 200
#: Bins of scores, and one more at each end for what the stable version never gave.
BINS = 10

_QUANTILES = (0.5, 0.95, 0.99)


class Frozen(msgspec.Struct, kw_only=True):
    """What can be compared, and why the rest cannot, by guard."""

    thresholds: tuple[float, ...] = ()
    scores: Scores | None = None
    miss: float | None = None
    lacking: dict[str, str] = {}


def freeze(bundle: Bundle, windows: Sequence[Window], outcome: str = "") -> Frozen:
    """What the stable version's bundle and windows allow to compare. ``outcome`` is the label that is a success."""
    lacking: dict[str, str] = {}
    total: list[int] = []
    for window in windows:
        counts = window.counted.stages.get("total", [])
        total = [a + b for a, b in zip(total, counts, strict=True)] if total and counts else total or list(counts)
    thresholds = tuple(quantile_of(total, q) for q in _QUANTILES) if sum(total) >= LEAST_REQUESTS else ()
    if not thresholds:
        lacking["latency"] = f"{sum(total):,} requests recorded in the last day, and it takes {LEAST_REQUESTS}"
    scores, lacking_scores = _scores(bundle, windows)
    if scores is None:
        lacking["scores"] = lacking_scores
    miss = _miss(bundle.manifest.metrics)
    if bundle.manifest.task == "regression" and miss is None and not outcome:
        lacking["labels"] = "the bundle does not say how far its predictions usually are from the truth"
    return Frozen(thresholds=thresholds, scores=scores, miss=miss, lacking=lacking)


def _scores(bundle: Bundle, windows: Sequence[Window]) -> tuple[Scores | None, str]:
    """The bins of the output that tells most: the probability of one of two classes, else the predicted class, else the
    first number; or why there are none.
    """
    parts = _outputs(bundle, windows)
    likely = [part for part in parts if part.field == "probabilities" and part.at is not None]
    classes = [part for part in parts if part.kind == "category" and part.values]
    numbers = [
        part for part in parts if part.kind == "number" and part.edges and (part.at is not None or not part.part)
    ]
    found = [*(likely[-1:] if len(likely) == 2 else []), *classes, *numbers]
    if not found:
        return None, "no output is a number or a class whose distribution is known"
    part = found[0]
    if part.total < LEAST_ROWS:
        return None, f"{part.total:,} rows known of {part.name}, and how it is distributed takes {LEAST_ROWS}"
    if part.kind == "category":
        return Scores(field=part.field, at=part.at, values=tuple(part.values[:BINS])), ""
    return Scores(field=part.field, at=part.at, edges=_edges(part)), ""


def _outputs(bundle: Bundle, windows: Sequence[Window]) -> list[Counts]:
    """How the stable version's outputs are distributed: lately, or in the rows of its reference."""
    reference = bundle.profile()
    lately: list[Counts] = []
    for window in windows:
        try:
            outputs = profile_of(reference, window.counted).outputs
        except Conflict:  # it counted no rows, or on other bins
            continue
        lately = [a.plus(b) for a, b in zip(lately, outputs, strict=True)] if lately else outputs
    return lately if lately and lately[0].total >= LEAST_ROWS else reference.outputs


def _edges(part: Counts) -> tuple[float, ...]:
    """Edges of bins of about equal counts, with one more bin below the lowest and above the highest that is known."""
    edges, seen, total = [part.edges[0]], part.below, part.total
    for edge, count in zip(part.edges, part.counts, strict=True):
        if edge > edges[-1] and seen >= len(edges) * total / BINS:
            edges.append(edge)
        seen += count
    above = math.nextafter(part.maximum if part.maximum is not None else part.edges[-1], math.inf)
    return tuple(dict.fromkeys([*edges, above]))


def _miss(metrics: dict[str, Any]) -> float | None:
    """How far a regression's predictions are from the truth, in its own held-out rows."""
    held_out = metrics.get("held_out")
    found = held_out.get("rmse") if isinstance(held_out, dict) else metrics.get("rmse")
    value = found.get("value") if isinstance(found, dict) else found
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
