"""The arithmetic of evidence: against the formulas, and against what chance allows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.rollouts import games
from modelyard.rollouts.games import Counted
from modelyard.statistics.confidence import bound_rate
from modelyard.statistics.sequential import LabelGame, average


def counted(*strata: tuple[float, int, int], n: int = 1000, stable_n: int = 9000) -> Counted:
    """One event: (the candidate's share, its bad events, those of the stable version) by stratum."""
    return Counted(
        ("errors",),
        tuple(chance for chance, _, _ in strata),
        np.array([[float(bad)] for _, bad, _ in strata]),
        np.array([[float(bad)] for _, _, bad in strata]),
        np.array([float(n)]),
        np.array([float(stable_n)]),
    )


@pytest.mark.parametrize("strata", [((0.1, 30, 90),), ((0.01, 2, 90), (0.25, 40, 70), (0.5, 11, 10)), ((0.1, 0, 5),)])
def test_harm_is_the_label_game_over_the_strata(strata: tuple[tuple[float, int, int], ...]) -> None:
    game = LabelGame()
    for share, bad, stable in strata:
        game.add(bad, stable, share)
    assert games.log_harm(counted(*strata))[0] == pytest.approx(game.log_e, abs=1e-9)
    better = LabelGame()
    for share, bad, stable in strata:
        better.add(stable, bad, 1 - share)
    assert games.log_better(counted(*strata))[0] == pytest.approx(better.log_e, abs=1e-9)


def test_without_events_there_is_no_evidence() -> None:
    assert games.log_harm(counted()) == pytest.approx(0)
    assert games.log_harm(counted((0.1, 0, 0))) == pytest.approx(0)
    assert games.log_harm_beyond(counted(), counted(), 0.05, 5.0).tolist() == [0.0]
    assert not games.is_below(counted(n=0, stable_n=0), 0.01, 0.05).any()
    assert not games.is_below(counted(n=0, stable_n=0), 1.0, 0.05).any(), "no traffic shows nothing"


@pytest.mark.parametrize("level", [1.0, 4.6, 12.0])
def test_the_floor_is_just_below_the_confidence_sequence(level: float) -> None:
    k = np.array([0.0, 1, 3, 40, 900, 1000, 60_000])
    n = np.array([100.0, 100, 1000, 1000, 1000, 1000, 1e6])
    found, exact = games.floor_of(k, n, level), bound_rate(k, n, math.exp(-level))[0]
    assert (found <= exact + 1e-9).all()
    assert (found >= exact * 0.5 - 1e-9).all()


def test_claims_are_monotone_and_at_most_is_where_they_begin() -> None:
    seen = counted((0.1, 12, 100))
    most = games.at_most(seen, 0.05)[0]
    assert not games.is_below(seen, most * 0.97, 0.05).any()
    assert games.is_below(seen, most * 1.03, 0.05).all()
    assert 0.001 < most < 0.05
    assert games.at_most(counted((0.1, 1, 1), n=5, stable_n=45), 0.05)[0] > 0.5, "a few requests show little"


def test_a_claim_is_made_by_the_own_rate_where_there_are_no_events() -> None:
    assert not games.is_below(counted((0.1, 0, 0), n=1000, stable_n=9000), 0.005, 0.05).any()
    assert games.is_below(counted((0.1, 0, 0), n=2000, stable_n=18_000), 0.005, 0.05).all()


def test_a_ramp_through_an_outage_confuses_neither_harm_nor_claim() -> None:
    """Each arm's rate is 30 % while the share is 1 %, and 1 % while it is 50 %: added up, the arms look different; in
    each stratum they are the same.
    """
    seen = counted((0.01, 30, 2970), (0.5, 50, 50), n=100 + 5000, stable_n=9900 + 5000)
    ours, theirs = seen.rates
    assert theirs[0] > 10 * ours[0], "what adding up the strata would tell"
    assert games.log_harm(seen)[0] < 0
    harmful = counted((0.01, 30, 2970), (0.5, 150, 50), n=100 + 5000, stable_n=9900 + 5000)
    assert harmful.rates[0][0] < harmful.rates[1][0]
    assert games.log_harm(harmful)[0] > math.log(100), "three times as many errors are seen all the same"
    assert not games.is_below(harmful, 0.005, 0.05).any()


def test_beyond_a_tolerance_only_what_breaks_it_is_evidence() -> None:
    def bins(top: float, n: int = 20_000) -> Counted:
        shares = np.append(np.full(9, (1 - top) / 9), top)
        return Counted(
            tuple(map(str, range(10))), (0.1,), np.round(shares * n)[None], np.full((1, 10), 9 * n / 10),
            np.full(10, float(n)), np.full(10, 9.0 * n),
        )  # fmt: skip

    level = math.log(1000)
    for top, is_harm in ((0.1, False), (0.12, False), (0.2, True), (0.5, True)):
        log_e = float(average(games.log_harm_beyond(bins(top), bins(top), 0.05, level)))
        assert (log_e >= level + games.BEYOND_COST) is is_harm, top
        assert bool(games.is_below(bins(top), 0.05, 0.05).all()) is not is_harm, top
    few = games.log_harm_beyond(bins(0.5, n=20), bins(0.5, n=20), 0.05, level)
    assert float(average(few)) < level


@pytest.mark.parametrize("theta", [1.0, 1.3])
def test_wrong_claims_are_as_rare_as_promised(theta: float) -> None:
    """The harm is exactly what is tolerated: at most one rollout in twenty may ever claim that it is less."""
    dice = np.random.default_rng(5)
    base, share = 0.02, 0.1
    tolerance = base * (theta - 1) if theta > 1 else 0.001
    wrong = 0
    for _ in range(400):
        bad = stable = n = stable_n = 0
        for step in 200 * 1.5 ** np.arange(14):
            ours = dice.binomial(int(step), share)
            n, stable_n = n + ours, stable_n + int(step) - ours
            bad += dice.binomial(ours, base + tolerance)
            stable += dice.binomial(int(step) - ours, base)
            if games.is_below(counted((share, bad, stable), n=n, stable_n=stable_n), tolerance, 0.05).all():
                wrong += 1
                break
    assert wrong <= 400 * 0.05
