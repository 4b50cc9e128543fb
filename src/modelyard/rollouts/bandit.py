"""A bandit: shares that follow the outcomes. Thompson sampling, with a floor so that neither arm is ever given up."""

from __future__ import annotations

import numpy as np

from modelyard.registry.plans import Rollout
from modelyard.registry.tallies import Labels

#: Shares are steps of this size, and draws are so many.
_STEP, _DRAWS = 0.05, 4_000


def share_of(rollout: Rollout) -> float:
    """The candidate's share by its outcomes: the chance that it is the better one, between the floors.

    The chance is read off draws from the Beta posteriors of both rates (Thompson 1933), always the same draws.
    """
    ours, theirs = Labels(), Labels()
    for stratum in rollout.evidence.strata.values():
        ours, theirs = ours.plus(stratum.candidate.labels), theirs.plus(stratum.stable.labels)
    dice = np.random.default_rng(0)
    wrong, stable_wrong = (dice.beta(1 + each.wrong, 1 + each.n - each.wrong, _DRAWS) for each in (ours, theirs))
    chance = float(np.mean(wrong < stable_wrong))
    floor = rollout.plan.floor
    return min(max(round(chance / _STEP) * _STEP, floor), 1 - floor)
