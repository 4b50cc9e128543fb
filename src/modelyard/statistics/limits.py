"""How much traffic an answer must cost: the least that any test needs, and what a fixed-size test takes.

All in requests to the canary, for a bad event that happens at rate ``stable`` there and ``canary`` here, when ``share``
of the requests go to the canary. A test of level alpha that stops by itself needs ln(1 / alpha) nats of information on
average (Wald 1945); the functions divide that by what a request tells.
"""

from __future__ import annotations

from math import log, sqrt

from modelyard.errors import InvalidInput
from modelyard.statistics import special
from modelyard.statistics.counts import check_level


def kl_rate(p: float, q: float) -> float:
    """KL divergence of a coin of rate p from one of rate q, in nats a toss."""
    return (p * log(p / q) if p else 0.0) + ((1 - p) * log((1 - p) / (1 - q)) if p < 1 else 0.0)


def known_limit(stable: float, canary: float, alpha: float = 0.01) -> float:
    """If the stable rate were known exactly: ln(1 / alpha) / KL(canary, stable)."""
    _check_rates(stable, canary, alpha)
    return log(1 / alpha) / kl_rate(canary, stable)


def two_arm_limit(stable: float, canary: float, share: float = 0.1, alpha: float = 0.01) -> float:
    """If both arms are only seen: a request tells share KL(canary, mean) + (1 - share) KL(stable, mean)."""
    _check_rates(stable, canary, alpha)
    mean = _mean_rate(stable, canary, share)
    told = share * kl_rate(canary, mean) + (1 - share) * kl_rate(stable, mean)
    return share * log(1 / alpha) / told


def label_limit(stable: float, canary: float, share: float = 0.1, alpha: float = 0.01) -> float:
    """If only the arms of bad events are seen: a request tells mean KL(share canary / mean, share)."""
    _check_rates(stable, canary, alpha)
    mean = _mean_rate(stable, canary, share)
    return share * log(1 / alpha) / (mean * kl_rate(share * canary / mean, share))


def stop_limit(stable: float, canary: float, alpha: float = 0.01, miss: float = 0.05) -> float:
    """``known_limit`` where a bad canary may be missed with chance ``miss``: Wald's bound for his ratio test.

    [(1 - b) ln((1 - b) / a) + b ln(b / (1 - a))] / KL(canary, stable).
    """
    _check_rates(stable, canary, alpha)
    told = (1 - miss) * log((1 - miss) / alpha) + miss * log(miss / (1 - alpha))
    return told / kl_rate(canary, stable)


def fixed_size(stable: float, canary: float, share: float = 0.1, alpha: float = 0.01, miss: float = 0.05) -> float:
    """What the one-sided z-test needs that is looked at once, with the pooled variance under no harm."""
    _check_rates(stable, canary, alpha)
    ratio = share / (1 - share)
    mean = _mean_rate(stable, canary, share)
    level = special.normal_quantile(alpha) * sqrt(mean * (1 - mean) * (1 + ratio))
    power = special.normal_quantile(miss) * sqrt(canary * (1 - canary) + ratio * stable * (1 - stable))
    return ((level + power) / (canary - stable)) ** 2


def _mean_rate(stable: float, canary: float, share: float) -> float:
    check_level(share, "share")
    return share * canary + (1 - share) * stable


def _check_rates(stable: float, canary: float, alpha: float) -> None:
    check_level(alpha)
    check_level(stable, "stable")
    check_level(canary, "canary")
    if stable == canary:
        raise InvalidInput(f"two equal rates: {stable:g}, no amount of traffic tells them apart")
