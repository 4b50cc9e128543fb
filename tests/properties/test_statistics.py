"""What must hold of the statistics whatever the counts are: symmetries, order, addition, and games that are fair."""

from __future__ import annotations

from itertools import product
from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelyard.statistics import (
    confidence,
    discovery,
    distances,
    effects,
    expected,
    quality,
    sequential,
    streaming,
    twosample,
)

stats = pytest.importorskip("scipy.stats")

counts = st.integers(0, 60)
pairs = st.integers(2, 8).flatmap(
    lambda bins: st.tuples(*[st.lists(counts, min_size=bins, max_size=bins).filter(any) for _ in range(2)])
)
shares = st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5, 0.9])


# -- distances -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(pair=pairs)
def test_distances_are_symmetric_bounded_and_zero_between_equals(pair) -> None:
    a, b = pair
    for distance in (distances.psi, distances.js_divergence, distances.js_distance, distances.hellinger, distances.ks):
        assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-12)
        assert distance(a, a) == pytest.approx(0, abs=1e-7)
    assert 0 <= distances.ks(a, b) <= 1 + 1e-12
    assert 0 <= distances.hellinger(a, b) <= 1 + 1e-12
    assert distances.js_distance(a, b) <= 1 + 1e-12
    if all(a) and all(b):  # an empty bin counts as half a row, which belongs to these two only
        assert distances.psi(a, b) == pytest.approx(distances.kl(a, b) + distances.kl(b, a))
        assert distances.kl(a, b) >= -1e-12


@settings(deadline=None)
@given(pair=pairs, times=st.integers(2, 9))
def test_distances_are_of_shares_not_of_sizes(pair, times) -> None:
    a, b = pair
    more = [times * c for c in b]
    for distance in (distances.js_distance, distances.hellinger, distances.ks):
        assert distance(a, more) == pytest.approx(distance(a, b), abs=1e-7)


@settings(deadline=None)
@given(pair=pairs, scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_wasserstein_has_the_units_of_its_values(pair, scale, shift) -> None:
    a, b = pair
    values = np.arange(len(a), dtype="float64") ** 2
    plain = distances.wasserstein(a, b, values)
    assert plain == pytest.approx(stats.wasserstein_distance(values, values, a, b), abs=1e-9)
    assert distances.wasserstein(a, b, scale * values + shift) == pytest.approx(scale * plain, rel=1e-9, abs=1e-9)
    one = distances.wasserstein_normalised(a, b, values)
    assert distances.wasserstein_normalised(a, b, scale * values + shift) == pytest.approx(one, rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(pair=pairs)
def test_wider_bins_bring_two_distributions_closer(pair) -> None:
    a, b = (np.array(side) for side in pair)
    joined = [np.append(side[:-2], side[-2:].sum()) for side in (a, b)]
    assert distances.ks(*joined) <= distances.ks(a, b) + 1e-12
    assert distances.js_divergence(*joined) <= distances.js_divergence(a, b) + 1e-12
    assert distances.hellinger(*joined) <= distances.hellinger(a, b) + 1e-7


# -- tests ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(pair=pairs)
def test_p_values_are_symmetric_and_proper(pair) -> None:
    a, b = pair
    for compare in (twosample.compare_counts, twosample.compare_distributions, twosample.compare_ranks):
        found, back = compare(a, b), compare(b, a)
        assert 0 <= found.p <= 1
        assert found.p == pytest.approx(back.p, rel=1e-9)
    assert twosample.compare_distributions(a, a).p == 1


@settings(max_examples=60, deadline=None)
@given(a=st.lists(st.integers(0, 3), min_size=2, max_size=4), b=st.lists(st.integers(0, 3), min_size=2, max_size=4))
def test_exact_p_values_by_going_through_all_shuffles(a, b) -> None:
    bins = min(len(a), len(b))
    a, b = a[:bins], b[:bins]
    assume(any(a) and any(b))
    totals, n, m = [x + y for x, y in zip(a, b, strict=True)], sum(a), sum(b)
    ks = mann = whole = 0
    seen_ks = max(abs(np.cumsum(np.array(a) * m - np.array(b) * n)))
    seen_u = abs(2 * twosample.compare_ranks(a, b).statistic - n * m)
    for split in product(*[range(t + 1) for t in totals]):
        if sum(split) == n:
            ours = np.array(split)
            theirs = np.array(totals) - ours
            ways = int(np.prod([comb(t, s) for t, s in zip(totals, split, strict=True)]))
            u = float((theirs * (np.cumsum(ours) - ours / 2)).sum())
            whole += ways
            ks += ways * (max(abs(np.cumsum(ours * m - theirs * n))) >= seen_ks)
            mann += ways * (abs(2 * u - n * m) >= seen_u)
    assert whole == comb(n + m, n)
    assert twosample.compare_distributions(a, b).p == pytest.approx(ks / whole)
    assert twosample.compare_ranks(a, b).p == pytest.approx(mann / whole)


@settings(deadline=None)
@given(n=st.integers(1, 60), m=st.integers(1, 60), data=st.data())
def test_fisher_is_scipys(n, m, data) -> None:
    k, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    found = twosample.compare_shares(k, n, j, m)
    assume(found.method == "exact")
    assert found.p == pytest.approx(stats.fisher_exact([[k, n - k], [j, m - j]])[1], rel=1e-6)


@settings(deadline=None)
@given(pair=pairs)
def test_joined_bins_expect_five_rows_on_both_sides(pair) -> None:
    a, b = (np.array(side, dtype="float64") for side in pair)
    ours, theirs = twosample.join_rare(a, b)
    assert (ours.sum(), theirs.sum()) == (a.sum(), b.sum())
    share = min(ours.sum(), theirs.sum()) / (ours.sum() + theirs.sum())
    assert len(ours) == 1 or (share * (ours + theirs)).min() >= 5 - 1e-9


@settings(max_examples=50, deadline=None)
@given(pair=pairs)
def test_an_effect_lies_in_its_interval(pair) -> None:
    a, b = pair
    for bound in (effects.bound_ks, effects.bound_psi):
        wide, narrow = bound(a, b, 0.01), bound(a, b, 0.2)
        assert wide.low <= narrow.low + 1e-9 <= narrow.high + 2e-9 <= wide.high + 3e-9
        assert max(wide.value, 0) <= wide.high + 1e-9
        assert wide.low <= max(wide.value, 0) + 1e-9


@settings(deadline=None)
@given(n=st.integers(1, 10_000), m=st.integers(1, 10_000), x=st.floats(0, 1), y=st.floats(0, 1))
def test_a_difference_of_shares_turns_with_its_sides(n, m, x, y) -> None:
    k, j = round(x * n), round(y * m)
    found, back = effects.bound_difference(k, n, j, m), effects.bound_difference(j, m, k, n)
    assert found.low <= found.value <= found.high
    assert (found.low, found.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


# -- discovery -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=30), q=st.floats(0.001, 0.999))
def test_benjamini_hochberg_by_its_definition(p, q) -> None:
    ordered = sorted(p)
    largest = max((k for k in range(1, len(p) + 1) if ordered[k - 1] <= q * k / len(p)), default=0)
    adjusted = discovery.adjust(p)
    assert adjusted == pytest.approx(stats.false_discovery_control(p))
    rejected = discovery.discover(p, q)
    assume(abs(adjusted - q).min() > 1e-12)
    assert rejected.sum() == largest
    assert all(x >= y for x, y in zip(adjusted, p, strict=True))


@settings(deadline=None)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=60), kind=st.sampled_from(["lord", "saffron"]))
def test_a_stream_spends_no_more_than_it_has(p, kind) -> None:
    """The estimate of the false-discovery proportion that the two methods keep below alpha, by its definition."""
    stream = getattr(discovery.Stream, kind)(0.1)
    spent, rejections = 0.0, 0
    for x in p:
        level = stream.level
        rejections += stream.test(x)
        spent += level if kind == "lord" else level * (x > 0.5) / 0.5
        assert spent <= 0.1 * max(1, rejections) + 1e-12


@settings(deadline=None)
@given(p=st.lists(st.floats(0, 0.2), min_size=1, max_size=40), cut=st.integers(0, 40))
def test_a_stream_goes_on_from_its_row(p, cut) -> None:
    import msgspec

    whole, first = discovery.Stream.saffron(), discovery.Stream.saffron()
    answers = [whole.test(x) for x in p]
    before = [first.test(x) for x in p[:cut]]
    again = msgspec.json.decode(msgspec.json.encode(first), type=discovery.Stream)
    assert before + [again.test(x) for x in p[cut:]] == answers
    assert again == whole


# -- fair games: no bet gains on average while nothing is wrong, over all outcomes of a few rounds ---------------------


def binomial(n: int, k: int, r: float) -> float:
    return comb(n, k) * r**k * (1 - r) ** (n - k)


@settings(deadline=None)
@given(n=st.integers(0, 12), r=shares)
def test_the_beta_mixture_is_fair(n, r) -> None:
    mean = sum(binomial(n, k, r) * exp(sequential.log_beta_mixture(k, n, r)) for k in range(n + 1))
    assert mean == pytest.approx(1, rel=1e-9)


@settings(deadline=None)
@given(n=st.integers(0, 10), m=st.integers(0, 10), r=shares, later=shares, better=st.floats(0.05, 1))
def test_the_label_game_is_fair_while_the_share_changes_and_loses_when_the_canary_is_better(
    n, m, r, later, better
) -> None:
    def mean(theta: float) -> float:
        total = 0.0
        for k, j in product(range(n + 1), range(m + 1)):
            game = sequential.LabelGame()
            game.add(k, n - k, r)
            game.add(j, m - j, later)
            q, s = (theta * x / (theta * x + 1 - x) for x in (r, later))
            total += binomial(n, k, q) * binomial(m, j, s) * exp(game.log_e)
        return total

    assert mean(1) == pytest.approx(1, rel=1e-9)
    assert mean(better) <= 1 + 1e-9


@settings(deadline=None)
@given(n=st.integers(0, 10), r=shares, worse=st.floats(1.5, 20))
def test_the_game_for_promotion_does_not_gain_while_the_harm_is_real(n, r, worse) -> None:
    total = 0.0
    for k in range(n + 1):
        game = sequential.LabelGame.below(1.5)
        game.add(k, n - k, r)
        total += binomial(n, k, worse * r / (worse * r + 1 - r)) * exp(game.log_e)
    assert total <= 1 + 1e-9


@settings(deadline=None)
@given(rows=st.integers(1, 12), canary=st.integers(1, 11), bad=st.integers(0, 12), ratio=st.floats(0.2, 20))
def test_the_label_game_is_fair_on_the_share_of_traffic_that_came(rows, canary, bad, ratio) -> None:
    """With the share of requests that really went to the canary, arms of bad ones are drawn without replacement;
    the gain is convex in their number, so it is no larger on average than with replacement (Hoeffding 1963)."""
    assume(canary < rows and bad <= rows)
    up, down = sequential.log_gains(canary / rows, ratio)
    total = 0.0
    for k in range(max(0, bad - rows + canary), min(bad, canary) + 1):
        chance = comb(canary, k) * comb(rows - canary, bad - k) / comb(rows, bad)
        total += chance * exp(k * float(up) + (bad - k) * float(down))
    assert total <= 1 + 1e-9


@settings(max_examples=15, deadline=None)
@given(
    seen=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    then=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    r=shares,
)
def test_the_game_of_scores_is_fair(seen, then, r) -> None:
    """Whatever scores come, over all ways in which the coin can send them to the arms."""
    total = 0.0
    for split in product(*[range(c + 1) for c in (*seen, *then)]):
        chance = np.prod([binomial(c, k, r) for c, k in zip((*seen, *then), split, strict=True)])
        game = sequential.ScoreGame(shares=[0.2, 0.3, 0.5])
        first, second = np.array(split[:3]), np.array(split[3:])
        game.add(first, np.array(seen) - first, r)
        game.add(second, np.array(then) - second, r)
        total += float(chance) * exp(game.log_e)
    assert total == pytest.approx(1, rel=1e-9)


@settings(deadline=None)
@given(n=st.integers(0, 12), p=st.sampled_from([0.01, 0.3, 0.5, 0.9]), a=st.sampled_from([0.5, 1.0, 3.0]))
def test_the_beta_binomial_is_fair(n, p, a) -> None:
    mean = sum(binomial(n, k, p) * exp(sequential.log_beta_binomial(k, n, p, a, 1.0)) for k in range(n + 1))
    assert mean == pytest.approx(1, rel=1e-9)


@settings(deadline=None)
@given(n=st.integers(0, 7), alpha=st.sampled_from([0.5, 1.0, 4.0]))
def test_the_dirichlet_multinomial_is_fair(n, alpha) -> None:
    theta = [0.2, 0.3, 0.5]
    total = 0.0
    for i, j in product(range(n + 1), repeat=2):
        if i + j <= n:
            c = [i, j, n - i - j]
            chance = comb(n, i) * comb(n - i, j) * np.prod([t**x for t, x in zip(theta, c, strict=True)])
            total += float(chance) * exp(sequential.log_dirichlet_multinomial(c, theta, alpha))
    assert total == pytest.approx(1, rel=1e-9)


@settings(deadline=None)
@given(logs=st.lists(st.floats(-50, 50), min_size=1, max_size=6))
def test_the_mean_of_evidence_is_a_mean(logs) -> None:
    assert float(sequential.average(logs)) == pytest.approx(log(np.mean(np.exp(logs))), abs=1e-9)
    assert min(logs) - 1e-9 <= float(sequential.average(logs)) <= max(logs) + 1e-9


# -- conformal ranks -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    bag=st.lists(st.integers(0, 4), min_size=2, max_size=4), rows=st.lists(st.integers(0, 1), min_size=1, max_size=30)
)
def test_ranks_in_one_go_are_ranks_one_by_one(bag, rows) -> None:
    uniform = np.random.default_rng(1).random(len(rows))
    deck, expected_p = list(bag), []
    for row, u in zip(rows, uniform, strict=True):
        deck[row] += 1
        expected_p.append((sum(deck[row + 1 :]) + u * deck[row]) / sum(deck))
    assert streaming._ranks(np.array(bag), np.array(rows), uniform) == pytest.approx(expected_p)


@settings(deadline=None)
@given(gains=st.lists(st.floats(-3, 3), min_size=1, max_size=40), cut=st.integers(0, 40), kind=st.booleans())
def test_a_detector_in_batches_is_the_recursion(gains, cut, kind) -> None:
    name = "cusum" if kind else "shiryaev-roberts"
    detector = streaming.Detector(kind=name)
    path = [*detector.add(gains[:cut]), *detector.add(gains[cut:])]
    m = 0.0
    for gain, found in zip(gains, path, strict=True):
        m = (max(1.0, m) if kind else 1 + m) * exp(gain)
        assert found == pytest.approx(log(m), abs=1e-9)


# -- quality -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(pair=pairs)
def test_area_turns_with_its_sides_and_is_that_of_ranks(pair) -> None:
    negative, positive = pair
    found, back = quality.auc(negative, positive), quality.auc(positive, negative)
    assert found.value == pytest.approx(1 - back.value)
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12
    u = twosample.compare_ranks(negative, positive).statistic
    assert found.value == pytest.approx(u / (sum(negative) * sum(positive)))


@settings(deadline=None)
@given(pair=pairs)
def test_bounds_of_binned_losses_hold_for_any_scores_in_the_bins(pair) -> None:
    negative, positive = pair
    edges = np.linspace(0, 1, len(negative) + 1)
    rng = np.random.default_rng(0)
    for metric, loss in (
        (quality.brier, lambda s: (1 - s) ** 2),
        (quality.log_loss, lambda s: -np.log(np.maximum(s, quality.CLIP))),
    ):
        total = 0.0
        for label, side in ((0, negative), (1, positive)):
            for place, count in enumerate(side):
                scores = rng.uniform(edges[place], edges[place + 1], count)
                total += float(loss(scores if label else 1 - scores).sum())
        found = metric(negative, positive, edges)
        assert found.low - 1e-9 <= total / (sum(negative) + sum(positive)) <= found.high + 1e-9


@settings(deadline=None)
@given(pair=pairs)
def test_calibrated_scores_ascend_and_keep_the_positives(pair) -> None:
    negative, positive = (np.array(side) for side in pair)
    scores = expected.calibrate(negative, positive)
    assert (np.diff(scores) >= -1e-12).all()
    assert ((negative + positive) * scores).sum() == pytest.approx(positive.sum())
    assert quality.calibration_error(*[(negative + positive) * s for s in (1 - scores, scores)], scores)[0] < 1e-9


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_an_interval_at_all_times_holds_its_own_middle_and_the_one_at_one_time(n, share) -> None:
    k = round(share * n)
    low, high = confidence.bound_rate(k, n, 0.05)
    assert float(low) <= k / n <= float(high)
    wilson = effects.bound_share(k, n, 0.05)
    assert float(high - low) >= 0.9 * (wilson.high - wilson.low)
    for end in (float(low), float(high)):
        if 0 < end < 1:
            assert float(sequential.log_beta_binomial(k, n, end, 0.5, 0.5)) == pytest.approx(log(20), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 500), m=st.integers(1, 500), x=st.floats(0, 1), y=st.floats(0, 1))
def test_the_interval_of_a_difference_by_its_definition(n, m, x, y) -> None:
    k, j = round(x * n), round(y * m)
    low, high = (float(v) for v in confidence.bound_rate_difference(k, n, j, m, 0.05))
    back = confidence.bound_rate_difference(j, m, k, n, 0.05)
    assert (low, high) == (pytest.approx(-float(back[1])), pytest.approx(-float(back[0])))
    assert low <= j / m - k / n <= high

    def least(d: float) -> float:
        p = np.linspace(max(0.0, -d), min(1.0, 1 - d), 20_001)[1:-1]
        apart = sequential.log_beta_binomial(k, n, p, 0.5, 0.5) + sequential.log_beta_binomial(j, m, p + d, 0.5, 0.5)
        alike = sequential.log_beta_binomial(k + j, n + m, 0.5, 0.5, 0.5) - (n + m) * log(2)
        alike = alike - sequential.log_likelihood(k, n, p) - sequential.log_likelihood(j, m, p + d)
        return float(np.logaddexp(apart, alike).min() - log(2))

    if high < 0.99:
        assert least(high + 1e-6) > log(20) - 1e-6
        assert least(high - 1e-3) < log(20)
