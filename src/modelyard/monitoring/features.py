"""Each input and output beside its reference, for whoever wants to look at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modelyard.monitoring.compare import Question, cells, questions
from modelyard.monitoring.measures import Distance, measure, quantile
from modelyard.monitoring.rules import DriftRules
from modelyard.profile import Counts, Profile
from modelyard.registry.findings import Finding


class Feature(msgspec.Struct, kw_only=True):
    """One input or output beside its reference. Effects are those that the loop judges by."""

    name: str
    side: str
    kind: str
    reference: int
    live: int
    measure: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float = 0.0
    #: Distances with their critical values, by name.
    distances: dict[str, Distance] = {}
    #: Shares of missing values, of the reference and live; then of texts that are new and of wrong types, live.
    missing: tuple[float, float] = (0.0, 0.0)
    unseen: float = 0.0
    wrong: float = 0.0
    middles: tuple[float | None, float | None] = (None, None)
    #: The effect over time; None where there were too few rows.
    line: list[float | None] = []
    #: Kinds of the findings that are open.
    open: list[str] = []
    #: Both histograms: where the cells begin, or what they are; shares.
    cells: list[Any] = []
    shares: tuple[list[float], list[float]] = ([], [])


def features_of(
    reference: Profile, live: Profile, lives: Sequence[Profile | None], rules: DriftRules, found: Sequence[Finding]
) -> list[Feature]:
    """All of them, those first of which something is open, then by how far the effect is above what matters.

    ``live``: all rows; ``lives``: those of each point of a time line; ``found``: findings that are open.
    """
    asked = {q.name: q for q in questions(reference, live, rules) if q.measure != "share"}
    lines = [
        {q.name: q for q in questions(reference, each, rules) if q.measure != "share"} if each else {} for each in lives
    ]
    made = []
    for side, parts, lively in (("input", reference.inputs, live.inputs), ("output", reference.outputs, live.outputs)):
        for part, seen in zip(parts, lively, strict=True):
            if part.kind != "skipped":
                line = [_value(each.get(part.name), rules.few) for each in lines]
                made.append(_feature(side, part, seen, asked.get(part.name), line, found))
    return sorted(made, key=_rank)


def _rank(feature: Feature) -> tuple[bool, float, float]:
    floor = feature.floor or 1.0
    return (not feature.open, -(feature.low or 0.0) / floor, -(feature.value or 0.0) / floor)


def _feature(
    side: str, part: Counts, seen: Counts, question: Question | None, line: list[float | None],
    found: Sequence[Finding],
) -> Feature:  # fmt: skip
    ours, theirs = cells(part), cells(seen)
    made = Feature(
        name=part.name, side=side, kind=part.kind, reference=part.total, live=seen.total, line=line,
        missing=(part.missing / max(part.total, 1), seen.missing / max(seen.total, 1)),
        unseen=seen.unseen / max(seen.total, 1), wrong=seen.wrong / max(seen.total, 1),
        middles=(quantile(part, 0.5), quantile(seen, 0.5)), open=[f.kind for f in found if f.subject == part.name],
    )  # fmt: skip
    if part.kind == "category":
        made.cells = [*part.values, "others", "new"]
    elif part.maximum is not None:
        made.cells = [*part.edges, part.maximum]
    made.shares = tuple([count / max(sum(side), 1) for count in side] for side in (ours, theirs))  # type: ignore[assignment]
    if question is not None and all(question.rows):
        effect = question.effect()
        made.measure, made.floor = question.measure, question.floor
        made.value, made.low, made.high = effect.value, effect.low, effect.high
        made.distances = measure(part, seen)
    return made


def _value(question: Question | None, few: int) -> float | None:
    if question is None or question.rows[1] < few or not question.rows[0]:
        return None
    return max(question.value(), 0.0)
