from __future__ import annotations

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.statistics import distances, effects, twosample

stats = pytest.importorskip("scipy.stats")


def histograms(seed: int, n: int, m: int, bins: int = 12):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(bins, 5.0))
    return rng.multinomial(n, p), rng.multinomial(m, rng.permutation(p) * 0.3 + p * 0.7)


@pytest.mark.parametrize("seed", range(5))
def test_many_rows_as_scipy_does_it(seed) -> None:
    a, b = histograms(seed, 3000, 900)
    values = np.arange(12)
    chi = stats.chi2_contingency([a, b], correction=False)
    found = twosample.compare_counts(a, b)
    assert (found.statistic, found.p) == (pytest.approx(chi.statistic), pytest.approx(chi.pvalue, rel=1e-9))
    rank = stats.mannwhitneyu(np.repeat(values, b), np.repeat(values, a), method="asymptotic")
    found = twosample.compare_ranks(a, b)
    assert (found.statistic, found.p) == (pytest.approx(rank.statistic), pytest.approx(rank.pvalue, rel=1e-9))
    ks = stats.ks_2samp(np.repeat(values, a), np.repeat(values, b), method="asymp")
    assert twosample.compare_distributions(a, b).statistic == pytest.approx(ks.statistic)


def test_few_rows_without_ties_as_scipy_does_it() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((3, 4), (8, 11), (17, 23), (40, 60)):
        x, y = rng.normal(size=n), rng.normal(0.5, size=m)
        places = np.argsort(np.argsort(np.concatenate([x, y])))
        a, b = np.zeros(n + m, int), np.zeros(n + m, int)
        a[places[:n]] = 1
        b[places[n:]] = 1
        found = twosample.compare_distributions(a, b)
        assert found.method == "exact"
        assert found.p == pytest.approx(stats.ks_2samp(x, y, method="exact").pvalue, rel=1e-9)
        if n * m <= 400:
            assert twosample.compare_ranks(a, b).p == pytest.approx(stats.mannwhitneyu(x, y, method="exact").pvalue)


def test_a_p_value_of_many_few_rows_keeps_its_digits() -> None:
    found = twosample.compare_distributions([100, 0], [0, 100])
    assert found.method == "exact"
    assert found.p == pytest.approx(2 / 9.0548514656103e58, rel=1e-12)  # two of C(200, 100) ways


def test_rare_bins_are_joined_by_their_totals_alone() -> None:
    a, b = np.array([1.0, 400, 2, 500, 1, 96]), np.array([0.0, 430, 0, 480, 0, 90])
    ours, theirs = twosample.join_rare(a, b)
    assert (ours.tolist(), theirs.tolist()) == ([400, 500, 100], [430, 480, 90])
    swapped = twosample.join_rare(b, a)
    assert (swapped[0].tolist(), swapped[1].tolist()) == (theirs.tolist(), ours.tolist())


def test_one_bin_tells_nothing() -> None:
    assert twosample.compare_counts([500], [3]).p == 1
    assert twosample.compare_ranks([5000, 0], [5000, 0]).p == 1
    assert distances.psi([10, 0], [20, 0]) == 0
    assert distances.psi_p_value(0.0, 10, 20, 1) == 1
    assert effects.bound_psi([10, 0], [20, 0]) == (0, 0, 0)


def test_shares_exact_where_small_and_normal_where_large() -> None:
    small = twosample.compare_shares(0, 20_000, 3, 1000)
    assert small.method == "exact"
    assert small.p == pytest.approx(stats.fisher_exact([[0, 20_000], [3, 997]])[1], rel=1e-9)
    large = twosample.compare_shares(200, 20_000, 30, 1000)
    assert large.method == "normal"
    assert large.p == pytest.approx(stats.chi2_contingency([[200, 19_800], [30, 970]], correction=False).pvalue)
    assert twosample.compare_shares(0, 50, 0, 70).p == 1
    huge = twosample.compare_shares(3, 10_000_000, 9, 10_000_000)
    assert huge.p == pytest.approx(stats.binomtest(3, 12, 0.5).pvalue, rel=1e-4)


def test_the_null_of_each_test_is_no_larger_than_it_says() -> None:
    """400 pairs of samples of 2000 and 500 rows of one distribution: at 5 %, within what chance allows."""
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.full(15, 2.0))
    a, b = rng.multinomial(2000, p, 400), rng.multinomial(500, p, 400)
    for compare in (twosample.compare_counts, twosample.compare_distributions, twosample.compare_ranks):
        rejected = sum(compare(x, y).p <= 0.05 for x, y in zip(a, b, strict=True))
        assert rejected <= stats.binom.isf(1e-3, 400, 0.05)


def test_a_reference_taken_for_the_truth_alarms_too_often() -> None:
    """Why the tests here carry the reference's size."""
    rng = np.random.default_rng(5)
    p = np.full(20, 0.05)
    a, b = rng.multinomial(1000, p, 300), rng.multinomial(1000, p, 300)
    assert sum(twosample.compare_to_shares(y, x).p <= 0.05 for x, y in zip(a, b, strict=True)) > 100
    assert sum(twosample.compare_counts(x, y).p <= 0.05 for x, y in zip(a, b, strict=True)) < 30


# -- effects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1000, 1000), (10_000, 500)])
@pytest.mark.parametrize("shift", [0.0, 0.15, 0.5, 1.2])
def test_bounds_hold_as_often_as_they_say(n, m, shift) -> None:
    rng = np.random.default_rng(7)
    edges = stats.norm.ppf(np.arange(1, 12) / 12)
    p = np.full(12, 1 / 12)
    q = np.diff(np.concatenate([[0], stats.norm.cdf(edges - shift), [1]]))
    truth = {
        effects.bound_psi: float(((p - q) * np.log(p / q)).sum()),
        effects.bound_ks: float(np.abs(np.cumsum(p - q)).max()),
    }
    a, b = rng.multinomial(n, p, 100), rng.multinomial(m, q, 100)
    for bound, true in truth.items():
        found = [bound(x, y, 0.1) for x, y in zip(a, b, strict=True)]
        assert sum(f.low > true + 1e-12 for f in found) <= stats.binom.isf(1e-3, 100, 0.05)
        assert sum(f.high < true for f in found) <= stats.binom.isf(1e-3, 100, 0.05)


def test_newcombes_own_examples() -> None:
    """Newcombe 1998, table II, method 10: 56/70 and 48/80, 9/10 and 3/10, 10/10 and 0/20."""
    for (k, n, j, m), low, high in (
        ((48, 80, 56, 70), 0.0524, 0.3339),
        ((3, 10, 9, 10), 0.1705, 0.8090),
        ((0, 20, 10, 10), 0.6791, 1.0),
    ):
        found = effects.bound_difference(k, n, j, m, 0.05)
        assert (found.low, found.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_an_empty_bin_is_half_a_row() -> None:
    assert distances.psi([50, 50, 0], [40, 40, 20]) == pytest.approx(distances.psi([100, 100, 1], [80.0, 80.0, 40.0]))
    assert distances.count_bins([50, 50, 0, 0], [40, 40, 20, 0]) == 3


def test_psi_by_chance_where_folklore_sees_drift() -> None:
    assert distances.psi_p_value(0.1, 100, 100, 10) == pytest.approx(0.834, abs=1e-3)
    assert distances.psi_p_value(0.1, 1000, 1000, 10) < 1e-6
    critical = distances.psi_critical(1000, 1000, 10, 0.05, floor=0.1)
    assert distances.psi_p_value(critical, 1000, 1000, 10, floor=0.1) == pytest.approx(0.05, rel=1e-9)


def test_what_cannot_be_compared_is_named() -> None:
    with pytest.raises(InvalidInput, match="frozen bins"):
        distances.psi([1, 2], [1, 2, 3])
    with pytest.raises(InvalidInput, match="live: no rows"):
        distances.ks([1, 2], [0, 0])
    with pytest.raises(InvalidInput, match=r"reference: -1, expected whole numbers"):
        twosample.compare_counts([-1, 2], [1, 1])
    with pytest.raises(InvalidInput, match=r"live: 0\.5"):
        twosample.compare_counts([1, 2], [1, 0.5])
    with pytest.raises(InvalidInput, match="ascending"):
        distances.wasserstein([1, 2], [1, 1], [3, 1])
    with pytest.raises(InvalidInput, match="a positive share a bin"):
        twosample.compare_to_shares([1, 2], [1, 0])
    with pytest.raises(InvalidInput, match="n: 0 rows"):
        distances.psi_critical(0, 100, 10)
    with pytest.raises(InvalidInput, match="alpha: 0"):
        effects.bound_ks([1, 2], [1, 1], 0)
