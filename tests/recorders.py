"""A recorder without servers: it draws what the arms of a rollout's route would have done, and writes the tallies."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np

from modelyard.registry import Registry
from modelyard.registry.plans import CANARY, SHADOW, STABLE, Rollout
from modelyard.registry.tallies import Counts, Labels, Pairs, Tally

#: Rates of what may happen to a request, in either arm, where a test says nothing else.
GOOD: dict[str, Any] = {"errors": 0.01, "invalid": 0.0, "slow50": 0.5, "slow95": 0.05, "slow99": 0.01, "wrong": 0.1}


class Recorder:
    """Draws requests and counts them as a recorder does; ``stable`` and ``candidate`` are rates by event."""

    def __init__(
        self, seed: int = 0, source: str = "here", stable: dict[str, Any] | None = None,
        candidate: dict[str, Any] | None = None, labelled: float = 0.0,
    ) -> None:  # fmt: skip
        self.dice = np.random.default_rng(seed)
        self.source = source
        self.rates = {STABLE: {**GOOD, **(stable or {})}, CANARY: {**GOOD, **(stable or {}), **(candidate or {})}}
        self.rates[SHADOW] = self.rates[CANARY]
        #: How many of the requests get labels.
        self.labelled = labelled
        self.sequence = 0
        self.moment = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)

    def tally(self, rollout: Rollout, requests: int, *, seconds: float = 0.25, revision: int = 0, **more: Any) -> Tally:
        """One row about so many requests, which came within some seconds."""
        self.sequence += 1
        self.moment += dt.timedelta(seconds=seconds)
        stage = rollout.plan.stages[rollout.stage]
        if rollout.state == "watching":
            arms = {}
        elif stage.mode == "shadow":
            copies = int(self.dice.binomial(requests, stage.share))
            arms = {STABLE: self.counts(STABLE, requests, rollout), SHADOW: self.counts(SHADOW, copies, rollout)}
        else:
            ours = int(self.dice.binomial(requests, rollout.share))
            arms = {STABLE: self.counts(STABLE, requests - ours, rollout), CANARY: self.counts(CANARY, ours, rollout)}
        return Tally(
            rollout=rollout.id, revision=revision or max(rollout.chances, default=1), source=self.source,
            sequence=self.sequence, moment=self.moment.isoformat().replace("+00:00", "Z"), **{"arms": arms, **more},
        )  # fmt: skip

    def counts(self, arm: str, n: int, rollout: Rollout) -> Counts:
        rates, draw = self.rates[arm], self.dice.binomial
        bins = rollout.plan.scores.bins if rollout.plan.scores else 0
        shares = np.array(rates.get("scores") or [1 / max(bins, 1)] * bins)
        labelled = int(draw(n, self.labelled))
        events = {name: int(draw(n, rates[name])) for name in ("errors", "invalid", "slow50", "slow95", "slow99")}
        return Counts(
            requests=n,
            scores=self.dice.multinomial(n, shares).tolist() if bins else [],
            labels=Labels(labelled, int(draw(labelled, rates["wrong"]))),
            **events,
        )

    def write(self, registry: Registry, rollout: Rollout, requests: int, **more: Any) -> Tally:
        """Draw a row about the rollout as it stands, and keep it."""
        made = self.tally(registry.rollouts.of(rollout.model, rollout.alias), requests, **more)
        registry.tallies.add([made])
        return made


def pairs(n: int, differ: int) -> Pairs:
    return Pairs(n, differ, 0, 0)
