"""The figures of the method that have a closed form: the golden table, the null of PSI, the limits of rollouts."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.statistics import confidence, discovery, distances, expected, limits, sequential, special, twosample

P, Q = (2, 3, 5), (3, 3, 4)  # shares .2 .3 .5 and .3 .3 .4


def shown(value: float) -> object:
    return pytest.approx(value, abs=0.6e-8)


@pytest.mark.parametrize(
    ("distance", "value"),
    [
        (distances.psi, 0.06286087),
        (distances.js_distance, 0.10619851),
        (distances.js_divergence, 0.00781740),
        (distances.kl, 0.03047875),
        (distances.hellinger, 0.08852926),
        (distances.ks, 0.1),
    ],
)
def test_distances_of_two_known_distributions(distance, value) -> None:
    assert distance(P, Q) == shown(value)


def test_kolmogorovs_quantiles() -> None:
    assert special.kolmogorov_quantile(0.05) == pytest.approx(1.35810, abs=6e-6)
    assert special.kolmogorov_quantile(0.01) == pytest.approx(1.62762, abs=6e-6)
    assert twosample.ks_critical(1000, 1000) == pytest.approx(0.060736, abs=6e-7)


def test_exact_kolmogorov_smirnov_of_five_and_five() -> None:
    # r r r r l r l l l l: four fifths of the reference before the first live row
    reference, live = [1, 1, 1, 1, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1, 1, 1, 1]
    found = twosample.compare_distributions(reference, live)
    assert (found.statistic, found.method) == (pytest.approx(0.8), "exact")
    assert found.p == shown(0.07936508)


@pytest.mark.parametrize(("u", "p"), [(23, 0.043257), (24, 0.052426)])
def test_exact_mann_whitney_of_ten_and_ten(u, p) -> None:
    # Each live row in its place among the ten reference rows: as many places below it as make U together.
    places = [u // 10 + (i < u % 10) for i in range(10)]
    reference, live = [], []
    for place in range(11):
        here = places.count(place)
        live += [1] * here
        reference += [0] * here
        if place < 10:
            reference.append(1)
            live.append(0)
    found = twosample.compare_ranks(reference, live)
    assert (found.statistic, found.method) == (u, "exact")
    assert found.p == pytest.approx(p, abs=6e-7)


def test_chi_square_of_fit_and_the_same_counts_as_two_samples() -> None:
    seen, other = (16, 16, 16, 16, 16, 8), (16, 18, 16, 14, 12, 12)
    found = twosample.compare_to_shares(seen, other)
    assert found.statistic == pytest.approx(3.1746032, abs=6e-8)
    assert found.p == pytest.approx(0.67308760, abs=6e-9)
    both = twosample.compare_counts(other, seen)  # the reference is a sample too
    assert both.statistic == pytest.approx(1.6224090, abs=6e-8)
    assert both.p == pytest.approx(0.8985, abs=1e-3)


def test_benjamini_and_hochbergs_own_example() -> None:
    p = [1, 4, 19, 95, 201, 278, 298, 344, 459, 3240, 4262, 5719, 6528, 7590, 10_000]
    p = [x / 10_000 for x in p]
    assert discovery.discover(p, 0.05).sum() == 4
    assert sum(x <= 0.05 / len(p) for x in p) == 3


@pytest.mark.parametrize(("k", "rate", "e"), [(60, 0.5, 0.91304978), (70, 0.5, 427.306647), (25, 0.1, 1103.42842)])
def test_beta_binomial_evidence(k, rate, e) -> None:
    assert np.exp(sequential.log_beta_binomial(k, 100, rate)) == pytest.approx(e, rel=6e-9)


@pytest.mark.parametrize(("counts", "e"), [((40, 30, 30), 0.06154538), ((60, 20, 20), 52802.4836)])
def test_dirichlet_multinomial_evidence(counts, e) -> None:
    assert np.exp(sequential.log_dirichlet_multinomial(counts, [1 / 3] * 3)) == pytest.approx(e, rel=1e-7)


def test_e_bh_needs_m_over_q_k() -> None:
    exact = np.log([40.0, 60.0, 19.0, 1.0]) + 1e-12  # at q = 0.1: 40/1, 20/2 ...
    assert discovery.discover_by_evidence(exact, 0.1).tolist() == [True, True, True, False]
    assert not discovery.discover_by_evidence(np.log([39.9, 1.0, 1.0, 1.0]), 0.1).any()
    assert discovery.discover_by_evidence(np.log([40.1, 1.0, 1.0, 1.0]), 0.1).tolist() == [True, False, False, False]


def test_metrics_of_calibrated_scores() -> None:
    bins = 100_000
    scores = (np.arange(bins) + 0.5) / bins
    uniform = expected.expect(np.ones(bins), scores)
    assert uniform.accuracy == pytest.approx(3 / 4, abs=1e-8)
    assert uniform.auc == pytest.approx(5 / 6, abs=1e-8)
    assert uniform.brier == pytest.approx(1 / 6, abs=1e-8)
    assert uniform.log_loss == pytest.approx(1 / 2, abs=1e-8)
    assert expected.expect(6 * scores * (1 - scores), scores).accuracy == pytest.approx(0.6875, abs=1e-8)


# -- PSI without drift, section 1.1 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m", "bins", "mean", "five", "one"),
    [
        (500, 500, 10, 0.03600, 0.06768, 0.08666),
        (1000, 1000, 10, 0.01800, 0.03384, 0.04333),
        (10000, 1000, 10, 0.00990, 0.01861, 0.02383),
        (10000, 10000, 20, 0.00380, 0.00603, 0.00724),
    ],
)
def test_psi_without_drift(n, m, bins, mean, five, one) -> None:
    assert distances.psi_null_mean(n, m, bins) == pytest.approx(mean, abs=6e-6)
    assert distances.psi_critical(n, m, bins, 0.05) == pytest.approx(five, abs=6e-6)
    assert distances.psi_critical(n, m, bins, 0.01) == pytest.approx(one, abs=6e-6)


def test_alarms_of_many_tests() -> None:
    assert pytest.approx(0.64, abs=0.005) == 1 - 0.95**20
    assert pytest.approx(0.994, abs=0.0005) == 1 - 0.95**100


# -- rollouts, section 4.2: requests to the canary at 10 % and alpha 0.01 --------------------------------------------


@pytest.mark.parametrize(
    ("stable", "canary", "known", "both", "label", "efficiency"),
    [
        (0.001, 0.01, 327, 424, 425, 99.7),
        (0.005, 0.02, 359, 427, 432, 99.1),
        (0.01, 0.02, 1177, 1345, 1363, 98.7),
        (0.01, 0.03, 350, 409, 416, 98.4),
        (0.01, 0.05, 112, 135, 138, 97.8),
        (0.01, 0.1, 32, 41, 43, 96.6),
        (0.05, 0.1, 223, 254, 273, 93.3),
        (0.05, 0.06, 4642, 5189, 5483, 94.6),
    ],
)
def test_limits_of_rollouts(stable, canary, known, both, label, efficiency) -> None:
    assert round(limits.known_limit(stable, canary)) == known
    assert round(limits.two_arm_limit(stable, canary)) == both
    assert round(limits.label_limit(stable, canary)) == label
    found = 100 * limits.two_arm_limit(stable, canary) / limits.label_limit(stable, canary)
    assert found == pytest.approx(efficiency, abs=0.051)


@pytest.mark.parametrize(("stable", "canary", "size"), [(0.01, 0.02, 2425), (0.01, 0.05, 265), (0.05, 0.1, 455)])
def test_size_of_a_test_that_is_looked_at_once(stable, canary, size) -> None:
    assert round(limits.fixed_size(stable, canary)) == size


@pytest.mark.parametrize(("canary", "size"), [(0.02, 1067), (0.05, 101)])
def test_limit_where_some_may_be_missed(canary, size) -> None:
    assert round(limits.stop_limit(0.01, canary)) == size


def test_the_beta_mixture_is_the_formula() -> None:
    """Against the mean likelihood ratio over a fine grid of arm chances, weighted by the truncated prior."""
    r, a = 0.1, 1.0
    q = np.linspace(r, 1, 200_001)[1:-1]
    weight = q ** (a - 1) * (1 - q) ** (a * (1 - r) / r - 1)
    for k, n in ((0, 0), (3, 5), (0, 7), (40, 100)):
        ratio = (q / r) ** k * ((1 - q) / (1 - r)) ** (n - k)
        assert np.exp(sequential.log_beta_mixture(k, n, r)) == pytest.approx(
            (ratio * weight).sum() / weight.sum(), rel=1e-3
        )


def test_positive_claim_from_four_integers() -> None:
    low, high = confidence.bound_rate_difference(1000, 100_000, 1000, 100_000, 0.05)
    assert low == pytest.approx(-high)
    assert 0.0015 < high < 0.0025
