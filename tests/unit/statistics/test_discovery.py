from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.statistics import discovery


def test_the_sequence_spends_all_it_has_and_no_more() -> None:
    j = np.arange(2, 2_000_001, dtype="float64")
    terms = np.log(j) / (j * np.exp(np.sqrt(np.log(j))))
    root = math.sqrt(math.log(2_000_000.5))  # the rest is an integral: that of 2 s^3 exp(-s) from the root on
    rest = 2 * math.exp(-root) * (root**3 + 3 * root**2 + 6 * root + 6)
    total = discovery._gamma(1) + discovery._GAMMA * (terms.sum() + rest)
    assert 0.99999 < total <= 1


def test_lord_earns_by_discoveries() -> None:
    stream = discovery.Stream.lord(0.05)
    levels = []
    for p in (0.5, 0.5, 1e-9, 0.5):
        levels.append(stream.level)
        stream.test(p)
    assert levels[0] == pytest.approx(0.025 * discovery._gamma(1))
    assert levels[0] > levels[1] > levels[2]
    assert levels[3] == pytest.approx(0.025 * discovery._gamma(4) + 0.025 * discovery._gamma(1))
    assert stream.level == pytest.approx(0.025 * discovery._gamma(5) + 0.025 * discovery._gamma(2))
    stream.test(1e-9)
    assert stream.level == pytest.approx(
        0.025 * discovery._gamma(6) + 0.025 * discovery._gamma(3) + 0.05 * discovery._gamma(1)
    )
    assert (stream.tests, stream.rejections) == (5, 2)


def test_saffron_is_not_charged_for_candidates() -> None:
    stream = discovery.Stream.saffron(0.05)
    first = stream.level
    stream.test(0.4)  # a candidate that is no discovery
    assert stream.level == first == pytest.approx(0.5 * 0.025 * discovery._gamma(1))
    stream.test(0.6)
    assert stream.level < first


def test_what_is_forgotten_only_lowers_levels(monkeypatch) -> None:
    whole, short = discovery.Stream.lord(), discovery.Stream.lord()
    for i in range(60):
        p = 1e-12 if i % 2 else 0.9
        monkeypatch.setattr(discovery, "REMEMBERED", 1000)
        whole.test(p)
        monkeypatch.setattr(discovery, "REMEMBERED", 5)
        short.test(p)
    assert (len(whole.times), len(short.times)) == (30, 5)
    assert short.times == [whole.times[0], *whole.times[-4:]]
    assert 0 < short.level < whole.level


def test_evidence_over_time_needs_less_with_each_discovery() -> None:
    stream = discovery.EvidenceStream(alpha=0.05)
    need = -math.log(stream.level)
    assert not stream.test(need - 0.01)
    assert stream.test(-math.log(stream.level) + 0.01)
    assert stream.level == pytest.approx(0.05 * discovery._gamma(3) * 2)
    assert msgspec.json.decode(msgspec.json.encode(stream), type=discovery.EvidenceStream) == stream


@pytest.mark.parametrize("kind", ["lord", "saffron", "evidence"])
def test_false_discoveries_stay_below_the_rate(kind) -> None:
    """One in ten hypotheses is false: the share of false discoveries, on average over 200 streams of 200 tests."""
    rng = np.random.default_rng(4)
    proportions, power = [], []
    for _ in range(200):
        truth = rng.random(200) < 0.1
        z = rng.normal(size=200) + 4 * truth
        if kind == "evidence":
            found = _run(discovery.EvidenceStream(alpha=0.1), 4 * z - 8)
        else:
            found = _run(getattr(discovery.Stream, kind)(0.1), [0.5 * math.erfc(x / math.sqrt(2)) for x in z])
        proportions.append((found & ~truth).sum() / max(1, found.sum()))
        power.append((found & truth).sum() / max(1, truth.sum()))
    assert np.mean(proportions) < 0.1
    assert np.mean(power) > 0.3


def _run(stream, values) -> np.ndarray:
    return np.array([stream.test(float(v)) for v in values])


def test_simes() -> None:
    assert discovery.combine([0.01, 0.5, 0.9]) == pytest.approx(0.03)
    assert discovery.combine([0.04, 0.04, 0.04]) == pytest.approx(0.04)
    assert discovery.combine([]) == 1.0


def test_what_is_no_p_value_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"p-value: 1\.5"):
        discovery.adjust([0.1, 1.5])
    with pytest.raises(InvalidInput, match="p-value: nan"):
        discovery.Stream.lord().test(float("nan"))
