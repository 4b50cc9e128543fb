"""Rollouts as records, and their plans: what a rollout is to do, frozen when it starts. Recorders count by plans,
guards judge by them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from modelyard.registry.evidence import Evidence
from modelyard.registry.records import PRODUCTION
from modelyard.registry.routes import Arm, Pin, Route
from modelyard.schema import Array

#: What a guard may watch, and how much of the chance of a false rollback it gets beside the others.
GUARDS: dict[str, float] = {
    "errors": 6, "invalid": 1, "latency": 2, "scores": 1, "labels": 2, "disagreement": 1,
}  # fmt: skip

State = Literal["running", "paused", "watching", "promoted", "rolled back", "aborted", "passed"]

#: The states of a rollout that has not ended. ``watching``: it was promoted, and labels may still roll it back.
ACTIVE: tuple[State, ...] = ("running", "paused", "watching")

#: The arms of a rollout's routes.
STABLE, CANARY, SHADOW = "stable", "canary", "shadow"


class Stage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stage: the candidate answers this share of the requests, or gets a copy of it."""

    share: float
    mode: Literal["live", "shadow"] = "live"

    @property
    def arm(self) -> str:
        return SHADOW if self.mode == "shadow" else CANARY

    @property
    def chance(self) -> float:
        """The candidate's share of what both arms get: a shadow's requests are also the stable version's."""
        return self.share / (1 + self.share) if self.mode == "shadow" else self.share


class Scores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which output's distribution is watched, and its bins: ``edges`` of numbers, or ``values`` of texts."""

    field: str
    #: The place in a row of an output with a shape.
    at: int | None = None
    #: Ascending; bin 0 is below the first, bin n from the n-th on.
    edges: tuple[float, ...] = ()
    #: One bin each, and one more for all others.
    values: tuple[str, ...] = ()

    @property
    def bins(self) -> int:
        return (len(self.values) if self.values else len(self.edges)) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """What is compared, in words: each bin, and of numbers also all below each edge, and all from there on."""
        if self.values:
            return (*self.values, "others")
        told = [f"{edge:.4g}" for edge in self.edges]
        bins = [f"below {told[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(told)), f"from {told[-1]}"]
        return (*bins, *(f"below {edge}" for edge in told[1:]), *(f"from {edge}" for edge in told[:-1]))

    def sets(self, counts: Sequence[int]) -> list[int]:
        """Counts of what ``names`` names, from those of the bins: a shift moves a little of each, and much of these."""
        counts = counts or [0] * self.bins
        if self.values:
            return list(counts)
        below = list(itertools.accumulate(counts))
        return [*counts, *below[1:-1], *(below[-1] - each for each in below[:-2])]

    def places(self, outputs: Array) -> Array:
        """The bin that each of these values of the field, one a row, lies in; -1 for what is missing, NaN, or no number
        where numbers are wanted.
        """
        rows = outputs if self.at is None else outputs.reshape(len(outputs), -1)[:, self.at : self.at + 1].ravel()
        nowhere = np.full(len(outputs), -1)
        if self.values:
            places = {value: place for place, value in enumerate(self.values)}
            told = [-1 if value is None else places.get(str(value), len(places)) for value in rows.tolist()]
            return np.array(told, dtype="int64")
        if rows.dtype.kind not in "fiub" or rows.shape != nowhere.shape:
            return nowhere
        numbers = rows.astype("float64")
        return np.where(np.isnan(numbers), nowhere, np.searchsorted(self.edges, numbers, side="right"))


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rollout is to do. Shares, rates and tolerances are fractions, times seconds."""

    stages: tuple[Stage, ...]
    guards: tuple[str, ...]
    #: ``harm``: promoted when the harm is shown to be below the tolerances; ``outcome``: when its outcomes are shown to
    #: be better; ``bandit``: the same, while the shares follow the outcomes.
    judge: Literal["harm", "outcome", "bandit"] = "harm"
    #: ``evidence``: the next stage begins when what it could do to all traffic is shown to be tolerable; ``schedule``:
    #: when the time is up and no harm was shown. The last step always takes evidence.
    by: Literal["evidence", "schedule"] = "evidence"
    #: What follows the last stage: the alias moves, or the rollout ends with its verdict and a person decides.
    goal: Literal["promote", "pass"] = "promote"
    #: The chance that a candidate is rolled back which is no worse, over all guards and all times together.
    alpha: float = 0.01
    #: The chance that a candidate passes a guard whose tolerance it breaks.
    claim: float = 0.05
    #: By guard: how many more of the requests (of the answers, the labels) may be bad.
    tolerances: dict[str, float] = {}
    stage_seconds: float = 60.0
    #: How long, once it is promoted, it can still be rolled back for what labels say.
    watch_seconds: float = 0.0
    #: See ``routes.Route``.
    key: str = "request"
    pins: tuple[Pin, ...] = ()
    #: Seconds that half, 5 % and 1 % of the stable version's requests took longer than, before.
    thresholds: tuple[float, ...] = ()
    scores: Scores | None = None
    #: A label that is further than this from a predicted number is a wrong prediction, and the answer of a shadow that
    #: is as far from the one that was given is another answer. None for classes, and where nobody knows.
    miss: float | None = None
    #: The label that is a success, whatever was predicted; "" where a success is a right prediction.
    outcome: str = ""
    #: The least share of either arm of a bandit.
    floor: float = 0.05

    @property
    def is_sticky(self) -> bool:
        return self.key != "request"

    @property
    def has_shadow(self) -> bool:
        return any(stage.mode == "shadow" for stage in self.stages)

    def level(self, guard: str) -> float:
        """A guard's part of ``alpha``."""
        return self.alpha * GUARDS[guard] / sum(GUARDS[each] for each in self.guards)

    def needs(self, stage: int) -> float:
        """The share that follows a stage: what must be shown is that this much of the harm is tolerable."""
        return self.stages[stage + 1].share if stage + 1 < len(self.stages) else 1.0


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, as it stands."""

    id: int = 0
    model: str
    alias: str = PRODUCTION
    #: The version that the alias named when it began, and the one that it may come to name.
    stable: int
    candidate: int
    plan: Plan
    state: State = "running"
    #: From 0; which of the plan's stages. The candidate's share now.
    stage: int = 0
    share: float = 0.0
    #: The candidate's share of what both arms get, by the route's revision.
    chances: dict[int, float] = {}
    evidence: Evidence = Evidence()
    #: The last tally that is in the evidence.
    position: int = 0
    started: str = ""
    ended: str | None = None
    who: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        return f"rollout {self.id} of {self.model}@{self.alias} (version {self.stable} to {self.candidate})"

    def route(self, stage: int, share: float | None = None) -> Route:
        """The route of a stage; ``share`` where it is another than the plan's."""
        row = self.plan.stages[stage]
        share = row.share if share is None else share
        is_live = row.mode == "live"
        arms = (
            Arm(name=STABLE, version=self.stable, weight=1.0 - share if is_live else 1.0),
            Arm(name=row.arm, version=self.candidate, weight=share, mode=row.mode),
        )
        pins = tuple(pin for pin in self.plan.pins if is_live or pin.arm == STABLE)
        return Route(
            model=self.model, alias=self.alias, arms=arms, key=self.plan.key, salt=f"rollout {self.id}", pins=pins,
            rollout=self.id,
        )  # fmt: skip
