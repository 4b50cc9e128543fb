"""Many tests: control of the false-discovery rate, over features at once and over windows as they come.

Over features: Benjamini and Hochberg on p-values, e-BH on e-values. Over time: LORD++ and SAFFRON on p-values that
are independent or conditionally valid, e-LOND on e-values under any dependence. A stream's state is a Struct; where
it is lost, a new one starts with fresh capital, so keep it.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics.counts import check_level
from modelyard.statistics.special import Array

#: Rejections that a stream remembers. Older ones no longer add to its levels, which keeps the promise.
REMEMBERED = 1000
#: One over the sum of ln(max(j, 2)) / (j exp(sqrt(ln j))) over j >= 1, rounded down.
_GAMMA = 0.07908196


# -- over features -------------------------------------------------------------------------------------------------


def adjust(p_values: npt.ArrayLike) -> Array:
    """Adjusted p-values of Benjamini and Hochberg (1995): the least level at which each would be rejected."""
    p = _read_p(p_values)
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * (len(p) / ranks)))
    return adjusted


def discover(p_values: npt.ArrayLike, q: float = 0.05) -> Array:
    """Which hypotheses Benjamini and Hochberg reject at rate ``q``: independent or positively dependent p-values."""
    check_level(q, "q")
    return np.asarray(adjust(p_values) <= q)


def combine(p_values: npt.ArrayLike) -> float:
    """Simes' p-value (1986) of "nothing happened anywhere": the least adjusted one. For positive dependence."""
    adjusted = adjust(p_values)
    return float(adjusted.min()) if adjusted.size else 1.0


def discover_by_evidence(log_es: npt.ArrayLike, q: float = 0.05) -> Array:
    """Which hypotheses e-BH rejects (Wang and Ramdas 2022), under any dependence: the k largest e of m for the
    largest k with e_(k) >= m / (q k)."""
    check_level(q, "q")
    logs = np.asarray(log_es, dtype="float64")
    order = np.argsort(-logs, kind="stable")
    enough = logs[order] >= np.log(len(logs) / (q * np.arange(1, len(logs) + 1)))
    rejected = np.zeros(len(logs), dtype=bool)
    rejected[order[: int(np.flatnonzero(enough)[-1]) + 1 if enough.any() else 0]] = True
    return rejected


def _read_p(p_values: npt.ArrayLike) -> Array:
    p = np.asarray(p_values, dtype="float64").ravel()
    bad = ~((p >= 0) & (p <= 1))
    if bad.any():
        raise InvalidInput(f"p-value: {p[bad][0]}, expected a number from 0 to 1")
    return p


# -- over time -----------------------------------------------------------------------------------------------------


class Stream(msgspec.Struct, kw_only=True):
    """Online false-discovery control on p-values that come one by one: LORD++ or SAFFRON.

    LORD++ (Ramdas, Yang, Wainwright, Jordan 2017) spends capital on each test; SAFFRON (Ramdas, Zrnic, Wainwright,
    Jordan 2018) only on tests whose p-value exceeds ``candidate``, which pays where many hypotheses are false. They
    are one rule: LORD++ is SAFFRON without candidates (``candidate=0``). The level of the next test is
    (1 - candidate) times
    start g(t) + (alpha - start) g(t - t1) + alpha (g(t - t2) + g(t - t3) + ...), where t counts the tests that cost,
    t1, t2, ... are its values at the rejections, and g falls like ln(j) / (j exp(sqrt(ln j))) with sum 1.
    """

    alpha: float = 0.05
    #: Capital to begin with; the rest of ``alpha`` is earned by the first rejection.
    start: float = 0.025
    candidate: float = 0.0
    #: Tests so far, and how many of them cost.
    tests: int = 0
    spent: int = 0
    rejections: int = 0
    #: ``spent`` at each remembered rejection, the first one of all first.
    times: list[int] = []

    @classmethod
    def lord(cls, alpha: float = 0.05) -> Stream:
        check_level(alpha)
        return cls(alpha=alpha, start=alpha / 2)

    @classmethod
    def saffron(cls, alpha: float = 0.05, candidate: float = 0.5) -> Stream:
        check_level(alpha)
        check_level(candidate, "candidate")
        return cls(alpha=alpha, start=alpha / 2, candidate=candidate)

    @property
    def level(self) -> float:
        """The level at which the next p-value is tested."""
        capital = self.start * _gamma(self.spent + 1)
        for i, time in enumerate(self.times):
            capital += (self.alpha - (0.0 if i else self.start)) * _gamma(self.spent - time + 1)
        level = (1 - self.candidate) * capital
        return min(level, self.candidate) if self.candidate else level

    def test(self, p: float) -> bool:
        """Whether ``p`` is a discovery. Counts the test."""
        _read_p(p)
        rejected = p <= self.level
        self.tests += 1
        self.spent += p > self.candidate or not self.candidate
        if rejected:
            self.rejections += 1
            self.times.append(self.spent)
            if len(self.times) > REMEMBERED:
                del self.times[1]
        return rejected


class EvidenceStream(msgspec.Struct, kw_only=True):
    """Online false-discovery control on e-values under any dependence: e-LOND (Xu and Ramdas 2024).

    The t-th is a discovery when e >= 1 / level with level = alpha g(t) (1 + rejections before).
    """

    alpha: float = 0.05
    tests: int = 0
    rejections: int = 0

    @property
    def level(self) -> float:
        return self.alpha * _gamma(self.tests + 1) * (1 + self.rejections)

    def test(self, log_e: float) -> bool:
        """Whether evidence of logarithm ``log_e`` is a discovery. Counts the test."""
        rejected = log_e >= -math.log(self.level)
        self.tests += 1
        self.rejections += rejected
        return rejected


def _gamma(j: int) -> float:
    return _GAMMA * math.log(max(j, 2)) / (j * math.exp(math.sqrt(math.log(j))))
