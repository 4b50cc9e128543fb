"""Tails of the beta, gamma, normal and Kolmogorov distributions, in logarithms where they get small.

The tail of a beta or gamma distribution is its density at the point times the integral of how the density falls off
beyond it. On the scale of log-odds (beta) or of logarithms (gamma) that fall is exp(-convex function), so that 48
nodes of Gauss and Legendre are enough at any parameters, small, large or unequal: no iteration that may not converge
and no cancellation. The density is taken with Stirling's remainder, so that parameters of 1e7 lose no digits.
Everything is vectorised; to parameters of 1e7, tails and their logarithms are good to 1e-11, relative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput

Array = npt.NDArray[Any]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
#: A tail is followed until the density has fallen by exp(-40).
_DEEP = 40.0
_points, _weights = np.polynomial.legendre.leggauss(48)
_NODES, _WEIGHTS = (1 + _points) / 2, _weights / 2
#: Small parameters are raised by this much with the recurrence, because their densities fall too slowly.
_SHIFT = 10
_NORMAL = NormalDist()


# -- gamma and beta functions --------------------------------------------------------------------------------------


def _remainder(x: Array) -> Array:
    """ln Γ(x) - [(x - 1/2) ln x - x + ln(2π)/2] for x > 0: Stirling's series (DLMF 5.11.1), from x + 10 if x < 10."""
    small = x < _SHIFT
    y = np.where(small, x + _SHIFT, x)
    z = 1 / (y * y)
    series = (
        1 / 12 - z * (1 / 360 - z * (1 / 1260 - z * (1 / 1680 - z * (1 / 1188 - z * (691 / 360360 - z / 156)))))
    ) / y
    if not small.any():
        return np.asarray(series)
    low = np.where(small, x, 1.0)
    rising = np.log(np.prod(low[..., None] + np.arange(_SHIFT), axis=-1))
    shifted = series + (low + _SHIFT - 0.5) * np.log(low + _SHIFT) - _SHIFT - rising - (low - 0.5) * np.log(low)
    return np.where(small, shifted, series)


def log_gamma(x: npt.ArrayLike) -> Array:
    """ln Γ(x) for x > 0."""
    x = np.asarray(x, dtype="float64")
    return np.asarray((x - 0.5) * np.log(x) - x + _HALF_LOG_2PI + _remainder(x))


def log_beta(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """ln B(a, b) for a, b > 0, without the cancellation of three log-gammas."""
    a, b = np.asarray(a, dtype="float64"), np.asarray(b, dtype="float64")
    powers = a * np.log1p(b / a) + b * np.log1p(a / b) + 0.5 * (np.log(a) + np.log(b) - np.log(a + b))
    return np.asarray(_HALF_LOG_2PI + _remainder(a) + _remainder(b) - _remainder(a + b) - powers)


def log_beta_tails(a: npt.ArrayLike, b: npt.ArrayLike, x: npt.ArrayLike) -> tuple[Array, Array]:
    """(ln I, ln(1 - I)) of the regularized incomplete beta function I = I_x(a, b) (DLMF 8.17), 0 <= x <= 1.

    For whole k <= n, I_x(k, n - k + 1) is the chance of at least k among n at rate x.
    """
    a, b, x = np.broadcast_arrays(*(np.asarray(v, dtype="float64") for v in (a, b, x)))
    mirrored = x * (a + b) > a
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        near = _log_lower_beta(
            np.where(mirrored, b, a),
            np.where(mirrored, a, b),
            np.where(mirrored, 1 - x, x),
            np.where(mirrored, x, 1 - x),
        )
        far = log_complement(near)
    return np.where(mirrored, far, near), np.where(mirrored, near, far)


def _log_lower_beta(a: Array, b: Array, x: Array, y: Array) -> Array:
    """ln I_x(a, b) for x + y = 1 and x at most the mean a / (a + b)."""
    gap = a * y - b * x
    lower, upper = -gap / a, gap / b
    # With p = a / (a + b): ln of x^a y^b / B(a, b) is a ln(x / p) + b ln(y / (1 - p)) and Stirling's terms.
    log_x = np.where(lower > -0.5, np.log1p(lower), np.log(x * (1 + b / a)))
    log_y = np.where(upper < 0.5, np.log1p(upper), np.log(y * (1 + a / b)))
    density = a * log_x + b * log_y + 0.5 * (np.log(a) + np.log(b) - np.log(a + b)) - _HALF_LOG_2PI
    density = density + _remainder(a + b) - _remainder(a) - _remainder(b)
    # I_x(a, b) = density * (sum of ten terms / a) + I_x(a + 10, b)  (DLMF 8.17.20)
    steps = np.arange(_SHIFT)
    growth = (a + b)[..., None] + steps
    terms = np.cumprod(growth * x[..., None] / (a[..., None] + 1 + steps), axis=-1)
    finite = (1 + terms[..., :-1].sum(axis=-1)) / a
    scale = terms[..., -1] * (a + _SHIFT) / a

    # Down the log-odds by v, the density falls by high v + (high + b) ln(y + x exp(-v)), written without cancellation.
    def drop(v: Array, high: Array, b: Array, x: Array, y: Array) -> Array:
        few = high * v + (high + b) * np.log1p(x * np.expm1(-v))
        return np.asarray(np.where(x < 0.5, few, (high + b) * np.log1p(y * np.expm1(v)) - b * v))

    def slope(v: Array, high: Array, b: Array, x: Array, y: Array) -> Array:
        return np.asarray(high - (high + b) * x / (x + y * np.exp(v)))

    high = a + _SHIFT
    rest = _fall(drop, slope, (_DEEP - (high + b) * np.log(y)) / high, (high, b, x, y))
    return np.asarray(density + np.log(finite + scale * rest))


def log_gamma_tails(shape: npt.ArrayLike, x: npt.ArrayLike) -> tuple[Array, Array]:
    """(ln P, ln Q) of the regularized incomplete gamma functions P and Q (DLMF 8.2) at x >= 0, shape >= 1/2.

    Q(k, x) is the chance of fewer than k events at a mean of x; Q(df/2, x/2) is the survival of chi-square.
    """
    s, t = np.broadcast_arrays(np.asarray(shape, dtype="float64"), np.asarray(x, dtype="float64"))
    if s.size and s.min() < 0.5:
        raise InvalidInput(f"shape of a gamma distribution: {s.min():g}, expected at least 0.5")
    above = t > s
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.zeros(s.shape)
        if not above.all():
            near = _log_lower_gamma(s, np.minimum(t, s))
        if above.any():
            near = np.where(above, _log_upper_gamma(s, np.maximum(t, s)), near)
        far = log_complement(near)
    return np.where(above, far, near), np.where(above, near, far)


def _log_gamma_density(s: Array, x: Array) -> Array:
    """ln of x^s exp(-x) / Γ(s)."""
    over = (x - s) / s
    powers = s * (np.where(np.abs(over) < 0.5, np.log1p(over), np.log(x / s)) - over)
    return np.asarray(powers + 0.5 * np.log(s) - _HALF_LOG_2PI - _remainder(s))


def _log_lower_gamma(s: Array, x: Array) -> Array:
    """ln P(s, x) for x <= s; P(s, x) = density * (sum of ten terms) + P(s + 10, x) (DLMF 8.8.8)."""
    terms = np.cumprod(x[..., None] / (s[..., None] + 1 + np.arange(_SHIFT)), axis=-1)
    finite = (1 + terms[..., :-1].sum(axis=-1)) / s
    scale = terms[..., -1] * (s + _SHIFT) / s
    high = s + _SHIFT
    rest = _fall(
        lambda v, h, t: h * v + t * np.expm1(-v), lambda v, h, t: h - t * np.exp(-v), (_DEEP + x) / high, (high, x)
    )
    return np.asarray(_log_gamma_density(s, x) + np.log(finite + scale * rest))


def _log_upper_gamma(s: Array, x: Array) -> Array:
    """ln Q(s, x) for x >= s."""
    start = np.log1p(_DEEP / x) + np.sqrt(2 * _DEEP / x)
    rest = _fall(lambda v, s, t: t * np.expm1(v) - s * v, lambda v, s, t: t * np.exp(v) - s, start, (s, x))
    return np.asarray(_log_gamma_density(s, x) + np.log(rest))


def _fall(
    drop: Callable[..., Array], slope: Callable[..., Array], start: Array, parameters: tuple[Array, ...]
) -> Array:
    """∫ exp(-drop(v)) dv over v > 0, where ``drop`` is convex, zero at 0, and at least 40 at ``start``."""
    columns = [np.asarray(p)[..., None] for p in parameters]
    end = np.asarray(start)[..., None]
    for _ in range(100):  # Newton from the right of a convex function never overshoots
        excess = drop(end, *columns) - _DEEP
        if not (excess > 1).any():
            break
        end = end - np.where(excess > 1, excess / slope(end, *columns), 0.0)
    return np.asarray(end[..., 0] * (np.exp(-drop(end * _NODES, *columns)) @ _WEIGHTS))


def log_complement(log_p: npt.ArrayLike) -> Array:
    """ln(1 - p) from ln p, exact at both ends."""
    logs = np.minimum(np.asarray(log_p, dtype="float64"), 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(logs > -0.6931, np.log(-np.expm1(logs)), np.log1p(-np.exp(logs))))


def log_sum(logs: npt.ArrayLike, axis: int = -1) -> Array:
    """ln of the sum of exp(logs) along ``axis``."""
    return np.asarray(np.logaddexp.reduce(np.asarray(logs, dtype="float64"), axis=axis))


# -- chi-square, normal, Kolmogorov --------------------------------------------------------------------------------


def chi2_log_sf(x: npt.ArrayLike, df: npt.ArrayLike) -> Array:
    """ln P(X >= x) for chi-square with ``df`` degrees of freedom."""
    return log_gamma_tails(np.asarray(df) / 2, np.asarray(x) / 2)[1]


def noncentral_chi2_tails(x: float, df: float, shift: float) -> tuple[float, float]:
    """(P(X <= x), P(X >= x)) for chi-square with ``df`` degrees of freedom, noncentral by ``shift``.

    A Poisson mixture, mean shift / 2, of central ones with df + 2j (Johnson, Kotz and Balakrishnan 1995, 29.4), whose
    tails follow from one another by adding densities.
    """
    mean, half = shift / 2, x / 2
    middle = math.sqrt(mean * half)  # around which j the upper or lower tail gathers
    low, high = min(mean, middle), max(mean, middle)
    first = max(0, math.floor(low - 12 * math.sqrt(low) - 20))
    j = np.arange(first, math.ceil(high + 12 * math.sqrt(high) + 40), dtype="float64")
    s = df / 2 + j
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.exp(
            np.where(j > 0, _log_gamma_density(np.maximum(j, 1), np.full_like(j, mean)) - np.log(j), -mean)
        )
        steps = np.exp(_log_gamma_density(s, np.full_like(s, half)) - np.log(s))
    lower = np.exp(log_gamma_tails(s[-1:], half)[0]) + np.append(np.cumsum(steps[-2::-1])[::-1], 0.0)
    upper = np.exp(log_gamma_tails(s[:1], half)[1]) + np.append(0.0, np.cumsum(steps[:-1]))
    return min(1.0, float(weights @ lower)), min(1.0, float(weights @ np.minimum(upper, 1.0)))


@lru_cache(maxsize=1024)  # asked for the same few again and again, by each look at each feature
def chi2_quantile(p: float, df: float, shift: float = 0.0) -> float:
    """The x with P(X >= x) = p for chi-square with ``df`` degrees of freedom, noncentral by ``shift``."""

    def surplus(x: float) -> float:
        tail = float(chi2_log_sf(x, df)) if not shift else math.log(noncentral_chi2_tails(x, df, shift)[1] or 1e-300)
        return math.log(p) - tail

    spread = math.sqrt(2 * df + 4 * shift)
    return find_root(surplus, 0.0, df + shift + spread * (4 - 2 * math.log(p)) + 40)


def normal_sf(z: float) -> float:
    """P(Z >= z) for a standard normal Z."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def normal_quantile(p: float) -> float:
    """The z with P(Z >= z) = p for a standard normal Z."""
    return -_NORMAL.inv_cdf(p)


def kolmogorov_sf(x: float) -> float:
    """P(K >= x) of Kolmogorov's limit distribution of sqrt(n) D (Kolmogorov 1933): its two series, each where fast."""
    if x <= 0:
        return 1.0
    if x < 1:
        terms = (math.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8 * x * x)) for k in range(1, 6))
        return 1 - math.sqrt(2 * math.pi) / x * sum(terms)
    return 2 * sum((1 if k % 2 else -1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 7))


def kolmogorov_quantile(p: float) -> float:
    """The x with P(K >= x) = p, 0 < p < 1: 1.35810 for 0.05."""
    return find_root(
        lambda x: math.log(p) - math.log(kolmogorov_sf(x) or 1e-320), 0.02, 1 + math.sqrt(-math.log(p / 4) / 2)
    )


def find_root(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-14) -> float:
    """Where an increasing ``function`` is zero between ``low`` and ``high`` (an end, where it has one sign).

    To a relative ``tolerance``, by regula falsi with the Illinois weighting and a bisection every fourth time.
    """
    at_low, at_high = function(low), function(high)
    if at_low >= 0 or at_high <= 0:
        return low if at_low >= 0 else high
    moved = 0
    for turn in range(400):
        if high - low <= tolerance * max(abs(low), abs(high), 1e-290):
            break
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if turn % 4 == 3 or not low < middle < high:
            middle = (low + high) / 2
        value = function(middle)
        if value == 0:
            return middle
        if value < 0:
            low, at_low = middle, value
            at_high = at_high / 2 if moved < 0 else at_high
        else:
            high, at_high = middle, value
            at_low = at_low / 2 if moved > 0 else at_low
        moved = -1 if value < 0 else 1
    return (low + high) / 2
