"""Tails against scipy over wide ranges, and against exact fractions where scipy has no digits."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import InvalidInput
from modelyard.statistics import special

scipy_special = pytest.importorskip("scipy.special")
stats = pytest.importorskip("scipy.stats")

sizes = st.floats(-2, 7).map(lambda e: 10.0**e)  # 0.01 to 1e7
shares = st.floats(0, 1)
CLOSE = 1e-10


def near(found: float, true: float) -> bool:
    """Relative agreement of tails given as logarithms, and of the logarithms themselves."""
    return abs(found - true) <= CLOSE * max(1.0, abs(true))


def exact_log_gamma(x: float | Decimal) -> Decimal:
    """Stirling's series in fifty digits, from 200 up."""
    x, shifted = Decimal(x), Decimal(0)
    while x < 200:
        shifted -= x.ln()
        x += 1
    bernoulli = ((1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730))
    terms = [Decimal(a) / b / (2 * k * (2 * k - 1) * x ** (2 * k - 1)) for k, (a, b) in enumerate(bernoulli, 1)]
    log_2pi = Decimal("1.8378770664093454835606594728112352797227949472755668")
    return shifted + (x - Decimal("0.5")) * x.ln() - x + log_2pi / 2 + sum(terms)


@settings(deadline=None)
@given(x=st.floats(1e-3, 1e9))
def test_log_gamma(x) -> None:
    assert near(float(special.log_gamma(x)), float(scipy_special.gammaln(x)))


@settings(max_examples=30, deadline=None)
@given(a=sizes, b=sizes)
def test_log_beta(a, b) -> None:
    """Against fifty digits: for a = 1e6, b = 0.1, scipy has only nine."""
    with localcontext(prec=50):
        exact = exact_log_gamma(a) + exact_log_gamma(b) - exact_log_gamma(Decimal(a) + Decimal(b))
    assert abs(Decimal(float(special.log_beta(a, b))) - exact) <= Decimal("1e-13") * max(1, abs(exact))


@settings(max_examples=300, deadline=None)
@given(a=sizes, b=sizes, where=st.floats(-12, 12))
def test_beta_tails_around_the_mean(a, b, where) -> None:
    """At so many standard deviations from the mean, on the scale of log-odds."""
    odds = np.log(a / b) + where * np.sqrt(1 / a + 1 / b)
    x = float(scipy_special.expit(odds))
    lower, upper = special.log_beta_tails(a, b, x)
    for found, true in ((lower, scipy_special.betainc(a, b, x)), (upper, scipy_special.betaincc(a, b, x))):
        if true > 1e-290:
            assert abs(float(found) - log(true)) <= CLOSE * max(1, abs(log(true))), (a, b, x)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 400), k=st.integers(1, 400), rate=st.fractions(0, 1, max_denominator=1000))
def test_beta_tails_are_binomial_tails_however_small(n, k, rate) -> None:
    k = min(k, n)
    terms = [comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(n + 1)]
    lower, upper = special.log_beta_tails(k, n - k + 1, float(rate))
    for found, true in ((lower, sum(terms[k:])), (upper, sum(terms[:k]))):
        if true:
            exact = log(true.numerator) - log(true.denominator)
            # a double is no fraction: what that does to the tail is k (1 - k / n) times the rounding of x
            assert abs(float(found) - exact) <= 1e-10 * max(1.0, abs(exact)), (n, k, rate)
        else:
            assert found == -np.inf


def test_a_tail_that_no_double_can_hold() -> None:
    n, k, rate = 2000, 1900, Fraction(1, 8)
    exact = sum(comb(n, i) * 7 ** (n - i) for i in range(k, n + 1))
    true = log(exact) - n * log(8)
    assert true < -3000
    assert float(special.log_beta_tails(k, n - k + 1, float(rate))[0]) == pytest.approx(true, rel=1e-12)


@settings(max_examples=300, deadline=None)
@given(s=st.floats(-0.3, 5).map(lambda e: 10.0**e), where=st.floats(-12, 12))
def test_gamma_tails_around_the_mean(s, where) -> None:
    s = max(s, 0.5)
    x = float(s * np.exp(where / np.sqrt(s)))
    lower, upper = special.log_gamma_tails(s, x)
    for found, true in ((lower, scipy_special.gammainc(s, x)), (upper, scipy_special.gammaincc(s, x))):
        if true > 1e-290:
            assert abs(float(found) - log(true)) <= CLOSE * max(1, abs(log(true))), (s, x)


@pytest.mark.parametrize(("s", "where"), [(1e6, -5), (1e6, 0), (1e7, -12), (1e7, -1), (4e5, -30)])
def test_gamma_tails_of_large_shapes(s, where) -> None:
    """Against fifty digits: at a shape of 1e7 scipy is off by up to a third of a percent."""
    x = s * float(np.exp(where / np.sqrt(s)))
    with localcontext(prec=50):
        term = total = Decimal(1)
        k = 0
        while term > total * Decimal("1e-30"):
            k += 1
            term *= Decimal(x) / (Decimal(s) + k)
            total += term
        exact = Decimal(s) * Decimal(x).ln() - Decimal(x) - exact_log_gamma(Decimal(s) + 1) + total.ln()
    assert float(special.log_gamma_tails(s, x)[0]) == pytest.approx(float(exact), rel=1e-11)


@settings(deadline=None)
@given(mean=st.integers(1, 300), k=st.integers(1, 300))
def test_gamma_tails_are_poisson_tails(mean, k) -> None:
    terms = [Fraction(mean) ** i / scipy_factorial(i) for i in range(k)]
    total = sum(terms)
    exact = log(total.numerator) - log(total.denominator) - mean
    assert abs(float(special.log_gamma_tails(k, mean)[1]) - exact) <= 1e-11 * max(1, abs(exact), mean)


def scipy_factorial(i: int) -> int:
    return int(scipy_special.factorial(i, exact=True))


def test_tails_at_the_ends() -> None:
    assert [float(t) for t in special.log_beta_tails(2, 3, 0)] == [-np.inf, 0]
    assert [float(t) for t in special.log_beta_tails(2, 3, 1)] == [0, -np.inf]
    assert [float(t) for t in special.log_gamma_tails(2, 0)] == [-np.inf, 0]
    with pytest.raises(InvalidInput, match="shape of a gamma distribution"):
        special.log_gamma_tails(0.1, 1)


@settings(max_examples=200, deadline=None)
@given(df=st.integers(1, 500), shift=st.floats(-2, 6).map(lambda e: 10.0**e), where=st.floats(-6, 6))
def test_noncentral_chi_square(df, shift, where) -> None:
    x = max(1e-3, df + shift + where * np.sqrt(2 * df + 4 * shift))
    lower, upper = special.noncentral_chi2_tails(x, df, shift)
    assert lower == pytest.approx(stats.ncx2.cdf(x, df, shift), rel=1e-8, abs=1e-11)
    assert upper == pytest.approx(stats.ncx2.sf(x, df, shift), rel=1e-8, abs=1e-11)


@settings(deadline=None)
@given(df=st.integers(1, 200), p=st.floats(1e-250, 0.999))
def test_chi_square_quantile(df, p) -> None:
    assert special.chi2_quantile(p, df) == pytest.approx(stats.chi2.isf(p, df), rel=1e-9)


def test_noncentral_quantile() -> None:
    assert special.chi2_quantile(0.05, 9, 40) == pytest.approx(stats.ncx2.isf(0.05, 9, 40), rel=1e-9)


@settings(deadline=None)
@given(x=st.floats(0.05, 15))
def test_kolmogorov(x) -> None:
    assert special.kolmogorov_sf(x) == pytest.approx(scipy_special.kolmogorov(x), rel=CLOSE, abs=1e-300)


@settings(deadline=None)
@given(p=st.floats(1e-200, 0.999))
def test_kolmogorov_quantile(p) -> None:
    assert special.kolmogorov_quantile(p) == pytest.approx(scipy_special.kolmogi(p), rel=1e-9)


@settings(deadline=None)
@given(z=st.floats(-30, 30))
def test_normal(z) -> None:
    assert special.normal_sf(z) == pytest.approx(stats.norm.sf(z), rel=1e-12)
    if z > -5:
        assert special.normal_quantile(special.normal_sf(z)) == pytest.approx(z, abs=1e-8)


def test_complement_keeps_its_digits_at_both_ends() -> None:
    assert float(special.log_complement(-1e-20)) == pytest.approx(log(1e-20))
    assert float(special.log_complement(-50)) == pytest.approx(-np.exp(-50), rel=1e-12)


def test_a_root_is_found_or_an_end_named() -> None:
    assert special.find_root(lambda x: x**3 - 2, 0, 5) == pytest.approx(2 ** (1 / 3), rel=1e-13)
    assert special.find_root(lambda x: x + 1, 0, 5) == 0
    assert special.find_root(lambda x: x - 9, 0, 5) == 5
