"""A bandit: shares that follow the outcomes. Thompson sampling, with a floor so that neither arm is ever given up."""

from __future__ import annotations

import numpy as np

from modelyard.registry.plans import Rollout
from modelyard.rollouts import weighing

#: Shares are steps of this size, and draws are so many.
_STEP, _DRAWS = 0.05, 4_000


def weigh(rollout: Rollout) -> tuple[float, str]:
    """The candidate's share by its outcomes: the chance that it is the better one, between the floors; and why.

    The chance is read off draws from the Beta posteriors of both rates (Thompson 1933), always the same draws.
    """
    dice = np.random.default_rng(0)
    both = weighing.outcomes(rollout.evidence)
    wrong, stable_wrong = (dice.beta(1 + each.wrong, 1 + each.n - each.wrong, _DRAWS) for each in both)
    chance, floor = float(np.mean(wrong < stable_wrong)), rollout.plan.floor
    why = f"better with a chance of {chance:.3g}: {weighing.tell_outcomes(rollout.plan, rollout.evidence)}"
    return min(max(round(chance / _STEP) * _STEP, floor), 1 - floor), why
