from __future__ import annotations

from math import log

import msgspec
import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.statistics import confidence, limits, sequential


def test_a_game_is_the_weighted_mean_over_its_grid_and_goes_on_from_its_row() -> None:
    game = sequential.LabelGame()
    game.add(3, 5, 0.1)
    saved = msgspec.json.encode(game)
    again = msgspec.json.decode(saved, type=sequential.LabelGame)
    for each in (game, again):
        each.add(4, 2, 0.25)
    assert again == game
    theta, capital = np.geomspace(1.2, 20, 12), np.arange(12, 0, -1) / 78
    product = np.ones(12)
    for canary, stable, r in ((3, 5, 0.1), (4, 2, 0.25)):
        q = theta * r / (theta * r + 1 - r)
        product *= (q / r) ** canary * ((1 - q) / (1 - r)) ** stable
    assert game.log_e == pytest.approx(log(capital @ product))
    assert (game.canary, game.stable) == (7, 7)
    assert len(saved) < 1000


def test_an_event_at_a_time_or_all_at_once_is_one() -> None:
    whole, single = sequential.LabelGame(), sequential.LabelGame()
    whole.add(5, 20, 0.1)
    for i in range(25):
        single.add(i % 5 == 0, i % 5 != 0, 0.1)
    assert single.log_e == pytest.approx(whole.log_e)


def test_without_a_choice_of_arms_nothing_is_learned() -> None:
    game = sequential.LabelGame()
    assert game.log_e == 0
    game.add(10, 0, 1.0)
    game.add(0, 10, 0.0)
    assert (game.log_e, game.canary, game.stable) == (pytest.approx(0, abs=1e-12), 10, 10)


def test_no_traffic_is_no_evidence_for_or_against() -> None:
    assert sequential.LabelGame(null=1.5, ratios=(1.0,), weights=(1.0,)).log_e == 0
    assert [float(v) for v in confidence.bound_rate(0, 0)] == [0, 1]
    assert [float(v) for v in confidence.bound_rate_difference(0, 0, 0, 0)] == [-1, 1]
    assert confidence.MeanSequence().bounds == (0, 1)


def test_catches_a_bad_canary_about_when_the_table_says() -> None:
    """1 % to 5 % at a share of 10 %: canary requests at which e reaches 100, 300 rollouts. Limit 135; the table has a
    median of 179 for the mixture and 154 for the grid."""
    rng = np.random.default_rng(11)
    horizon, p0, p1, r = 30_000, 0.01, 0.05, 0.1
    medians = {}
    for name in ("grid", "mixture"):
        caught = []
        for _ in range(300):
            arms = rng.random(horizon) < r
            bad = rng.random(horizon) < np.where(arms, p1, p0)
            places, label = np.flatnonzero(bad), arms[bad]
            if name == "grid":
                up, down = sequential.log_gains(r, sequential.RATIOS)
                path = sequential.average(np.cumsum(np.where(label[:, None], up, down), axis=0), sequential.CAPITAL)
            else:
                k, n = np.cumsum(label)[:400], np.arange(1, len(label) + 1)[:400]
                path = sequential.log_beta_mixture(k, n, r)
            over = np.flatnonzero(path >= log(100))
            assert over.size
            caught.append(arms[: places[over[0]] + 1].sum())
        medians[name] = np.median(caught)
    assert 110 < medians["grid"] < 203  # 1.5 times the limit
    assert 120 < medians["mixture"] < 203


def test_rolls_back_a_good_canary_no_more_often_than_it_says() -> None:
    """2000 ramps of 1, 5, 25, 50 %, 250 bad events at each, looked at after every one: nominal 1 %."""
    rng = np.random.default_rng(12)
    up, down = zip(*(sequential.log_gains(r, sequential.RATIOS) for r in (0.01, 0.05, 0.25, 0.5)), strict=True)
    wealth, top = np.zeros((2000, 12)), np.zeros(2000)
    for step, r in enumerate((0.01, 0.05, 0.25, 0.5)):
        for _ in range(250):
            wealth += np.where((rng.random(2000) < r)[:, None], up[step], down[step])
            top = np.maximum(top, sequential.average(wealth, sequential.CAPITAL))
    assert (top >= log(100)).sum() <= 36  # 20 expected at most; more than 36 has chance 5e-4
    assert (top >= log(5)).sum() > 36  # it does bet


def test_promotion_is_a_positive_claim() -> None:
    game = sequential.LabelGame.below(2.0)
    game.add(100, 100, 0.5)
    assert game.log_e > log(100)
    worse = sequential.LabelGame.below(2.0)
    worse.add(200, 100, 0.5)
    assert worse.log_e < 0


def test_shadow_pairs() -> None:
    assert float(sequential.log_sign(0, 0)) == pytest.approx(0, abs=1e-12)
    assert float(sequential.log_sign(12, 0)) > log(100) > float(sequential.log_sign(12, 9))
    assert float(sequential.log_sign(2, 40)) < 0


def test_scores_that_move_are_found_and_those_that_do_not_are_left_alone() -> None:
    """20 bins, a tenth of the traffic, a shift of half a standard deviation; batches of 200 requests, 40 rollouts."""
    rng = np.random.default_rng(13)
    edges = np.quantile(rng.normal(size=100_000), np.arange(1, 20) / 20)
    found = {0.0: 0, 0.5: 0}
    for shift in found:
        for _ in range(40):
            game = sequential.ScoreGame(shares=[0.05] * 20)
            for _ in range(30):
                arms = rng.random(200) < 0.1
                scores = np.searchsorted(edges, rng.normal(size=200) + shift * arms)
                game.add(*(np.bincount(scores[side], minlength=20) for side in (arms, ~arms)), 0.1)
                if game.log_e >= log(100):
                    found[shift] += 1
                    break
    assert found[0.0] <= 3
    assert found[0.5] >= 38
    again = msgspec.json.decode(msgspec.json.encode(game), type=sequential.ScoreGame)
    assert again.log_e == game.log_e


def test_a_client_is_counted_once_while_it_keeps_its_arm() -> None:
    seen: set[str] = set()
    assert sequential.count_clients([("a", False), ("a", False), ("b", True)], seen) == (1, 1)
    assert sequential.count_clients([("a", True), ("c", False), ("b", True)], seen) == (0, 1)
    assert seen == {"a", "b", "c"}
    assert sequential.count_clients([("a", True)], set()) == (1, 0)


def test_a_few_heavy_clients_break_the_rate_unless_they_are_counted_once() -> None:
    """300 rollouts at 10 %, 200 clients, 5 of whom send nearly all traffic and stick to their arm."""
    rng = np.random.default_rng(14)
    up, down = sequential.log_gains(0.1, sequential.RATIOS)
    false = {"requests": 0, "windows": 0, "clients": 0}
    for _ in range(300):
        arms = rng.random(200) < 0.1
        clients = np.where(rng.random(400) < 0.9, rng.integers(0, 5, 400), rng.integers(0, 200, 400))
        first = np.sort(np.unique(clients, return_index=True)[1])
        hourly = np.sort(np.unique(clients + 1000 * (np.arange(400) // 40), return_index=True)[1])
        for name, places in (("requests", np.arange(400)), ("windows", hourly), ("clients", first)):
            label = arms[clients[places]]
            path = sequential.average(np.cumsum(np.where(label[:, None], up, down), axis=0), sequential.CAPITAL)
            false[name] += path.max() >= log(100)
    assert false["requests"] > 60
    assert false["windows"] > 15  # one event a client and window is not enough
    assert false["clients"] <= 9


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_an_interval_of_a_rate_holds_at_all_times(rate) -> None:
    rng = np.random.default_rng(15)
    k = np.cumsum(rng.random((200, 2000)) < rate, axis=1)[:, ::40]
    low, high = confidence.bound_rate(k, np.arange(1, 2001)[::40], 0.1)
    left = ((low > rate) | (high < rate)).any(axis=1).sum()
    assert left <= 34  # 20 expected at most; more than 34 has chance 1e-3


def test_an_interval_of_a_difference_holds_at_all_times_and_narrows() -> None:
    rng = np.random.default_rng(16)
    times = np.geomspace(20, 5000, 25).astype(int)
    k, j = (np.cumsum(rng.random((300, 5000)) < p, axis=1)[:, times - 1] for p in (0.05, 0.08))
    low, high = confidence.bound_rate_difference(k, times, j, times, 0.1)
    assert ((low > 0.03) | (high < 0.03)).any(axis=1).sum() <= 47
    assert np.median(high[:, -1]) < 0.055
    ours, theirs = (confidence.bound_rate(v, times, 0.05) for v in (k, j))
    square = (theirs[1] - ours[0]) - (theirs[0] - ours[1])
    assert np.median((high - low)[:, -1] / square[:, -1]) < 0.93
    alike = confidence.bound_rate_difference(250, 5000, 250, 5000, 0.1)
    one = confidence.bound_rate(250, 5000, 0.05)
    assert float(alike[1] - alike[0]) < 0.75 * float(2 * (one[1] - one[0]))


def test_an_interval_of_a_mean_holds_at_all_times_and_knows_the_variance() -> None:
    rng = np.random.default_rng(17)
    left, widths = 0, []
    for _ in range(200):
        sequence = confidence.MeanSequence(alpha=0.1)
        outside = False
        for size in (1, 5, 20, *[100] * 20):
            x = rng.beta(2, 18, size)  # mean 0.1, standard deviation 0.065
            sequence.add(size, float(x.sum()), float((x * x).sum()))
            low, high = sequence.bounds
            outside |= not low <= 0.1 <= high
        left += outside
        widths.append(high - low)
    assert left <= 35
    assert np.median(widths) < 0.02  # one that only knew the bounds 0 and 1 would have 0.06
    again = msgspec.json.decode(msgspec.json.encode(sequence), type=confidence.MeanSequence)
    assert again.bounds == sequence.bounds


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidInput, match="share from 0 to 1"):
        sequential.LabelGame().add(1, 1, 1.2)
    with pytest.raises(InvalidInput, match="share of the canary"):
        sequential.log_gains(0.0, [2.0])
    with pytest.raises(InvalidInput, match="3 of 2"):
        confidence.bound_rate(3, 2)
    with pytest.raises(InvalidInput, match="expected 2, as frozen"):
        sequential.ScoreGame(shares=[0.5, 0.5]).add([1], [1], 0.5)
    with pytest.raises(InvalidInput, match="values from 0 to 1"):
        confidence.MeanSequence().add(2, 3.0, 3.0)
    with pytest.raises(InvalidInput, match="of sum 1"):
        sequential.log_dirichlet_multinomial([1, 2], [0.5, 0.6])
    with pytest.raises(InvalidInput, match="two equal rates"):
        limits.two_arm_limit(0.1, 0.1)
    with pytest.raises(InvalidInput, match="weights"):
        sequential.average([1.0, 2.0], [1.0])
