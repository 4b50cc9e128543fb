from __future__ import annotations

from math import log

import msgspec
import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.statistics import streaming

EDGES = np.array([-1.64, -1.28, -1.04, -0.84, -0.67, -0.52, -0.39, -0.25, -0.13, 0, 0.13, 0.25, 0.39, 0.52, 0.67, 0.84,
                  1.04, 1.28, 1.64])  # fmt: skip


def histogram(rng, rows: int, shift: float = 0.0) -> np.ndarray:
    return np.bincount(np.searchsorted(EDGES, rng.normal(shift, 1, rows)), minlength=20)


def run(reference: int, shift: float, batches: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    martingale = streaming.ConformalMartingale(reference=histogram(rng, reference).tolist(), seed=seed)
    path = []
    for _ in range(batches):
        martingale.add(histogram(rng, 500, shift))
        path.append(martingale.log_e)
    return path


def test_a_small_reference_is_not_taken_for_the_truth() -> None:
    """2,000 reference rows against 5,000 live ones: nominal 1 % of 60 streams, where a test that forgets the error of
    the reference itself alarms in most."""
    alarms = sum(max(run(2000, 0.0, 10, seed)) >= log(100) for seed in range(60))
    assert alarms <= 4


def test_a_shift_is_found_and_a_larger_one_sooner() -> None:
    delays = {}
    for shift in (0.2, 0.5):
        paths = [np.array(run(20_000, shift, 8, seed)) for seed in range(20)]
        found = [np.flatnonzero(path >= log(100)) for path in paths]
        assert sum(f.size > 0 for f in found) >= 18
        delays[shift] = np.mean([f[0] if f.size else 8 for f in found])
    assert delays[0.5] < delays[0.2]


def test_a_replay_gives_the_same_evidence_and_a_row_goes_on() -> None:
    rng = np.random.default_rng(3)
    batches = [histogram(rng, 300, 0.1) for _ in range(4)]
    whole = streaming.ConformalMartingale(reference=[100] * 20, seed=9)
    for batch in batches:
        whole.add(batch)
    parts = streaming.ConformalMartingale(reference=[100] * 20, seed=9)
    for batch in batches:
        parts = msgspec.json.decode(msgspec.json.encode(parts), type=streaming.ConformalMartingale)
        parts.add(batch)
    assert parts == whole
    assert whole.live == np.sum(batches, axis=0).tolist()
    assert sum(whole.cells) == 1200
    assert len(msgspec.json.encode(whole)) < 2000


def test_p_values_are_uniform_and_independent_while_nothing_drifts() -> None:
    """Over many small decks: each of the first three p-values is uniform, and so are their pairs."""
    rng = np.random.default_rng(4)
    cells = np.zeros((4, 4), int)
    for _ in range(4000):
        deck = rng.integers(0, 3, 8)
        p = streaming._ranks(np.bincount(deck[:5], minlength=3), deck[5:], rng.random(3))
        cells[int(p[0] * 4), int(p[2] * 4)] += 1
    chi2 = float(((cells - 250) ** 2 / 250).sum())
    assert chi2 < 37.7  # 15 degrees, chance 1e-3


def test_counts_are_halved_when_the_learned_bet_has_seen_enough() -> None:
    martingale = streaming.ConformalMartingale(reference=[1000, 1000], seed=1)
    for _ in range(5):
        martingale.add([5000, 5000])
    assert streaming.REMEMBERED / 2 < sum(martingale.cells) <= streaming.REMEMBERED + 10_000


def test_of_a_large_batch_only_some_rows_are_drawn() -> None:
    martingale = streaming.ConformalMartingale(reference=[3000, 7000], seed=5)
    gains = martingale.add([3_000_000, 7_000_000])
    assert len(gains) == sum(martingale.live) == streaming.DRAWN
    assert martingale.live[0] / streaming.DRAWN == pytest.approx(0.3, abs=0.015)
    assert martingale.log_e < 2


def test_an_empty_batch_changes_nothing() -> None:
    martingale = streaming.ConformalMartingale(reference=[10, 10], seed=1)
    assert martingale.add([0, 0]).shape == (0, len(streaming.WEIGHTS))
    assert martingale.log_e == pytest.approx(0, abs=1e-12)
    detector = streaming.Detector()
    assert detector.add([]).size == 0
    assert detector.wealth == []


@pytest.mark.parametrize("kind", ["shiryaev-roberts", "cusum"])
def test_run_length_without_a_change_and_delay_with_one(kind) -> None:
    """A rate of 2 % that becomes 6 %, alarm at 1 / alpha = 200: at least 200 rows to a false alarm on average."""
    rng = np.random.default_rng(6)
    lengths, delays = [], []
    for _ in range(200):
        detector = streaming.Detector(kind=kind)
        path = detector.add(streaming.log_rate_gains(rng.random(5000) < 0.02, 0.02, 0.06))
        over = np.flatnonzero(path >= log(200))
        lengths.append(over[0] + 1 if over.size else 5000)
        path = streaming.Detector(kind=kind).add(streaming.log_rate_gains(rng.random(5000) < 0.06, 0.02, 0.06))
        delays.append(np.flatnonzero(path >= log(200))[0] + 1)
    assert np.mean(lengths) > 200
    assert np.mean(delays) < np.mean(lengths) / 3


def test_several_bets_count_by_their_weights() -> None:
    detector = streaming.Detector(weights=(0.25, 0.75))
    path = detector.add([[log(2), log(4)], [log(2), log(4)]])
    # M = 2, then (1 + 2) 2 = 6; and 4, then (1 + 4) 4 = 20
    assert np.exp(path) == pytest.approx([0.25 * 2 + 0.75 * 4, 0.25 * 6 + 0.75 * 20])
    again = msgspec.json.decode(msgspec.json.encode(detector), type=streaming.Detector)
    assert np.exp(again.add([[0, 0]])) == pytest.approx([0.25 * 7 + 0.75 * 21])


def test_a_change_in_the_middle_of_a_long_stream_is_detected() -> None:
    rng = np.random.default_rng(8)
    martingale = streaming.ConformalMartingale(reference=histogram(rng, 20_000).tolist(), seed=1)
    detector = streaming.Detector(weights=streaming.WEIGHTS)
    for _ in range(20):
        before = detector.add(martingale.add(histogram(rng, 500)))
    assert before[-1] < log(1e4)
    after = [detector.add(martingale.add(histogram(rng, 500, 0.5))).max() for _ in range(4)]
    assert max(after) >= log(1e6)


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidInput, match="expected 2, as in the reference"):
        streaming.ConformalMartingale(reference=[1, 1], seed=1).add([1, 2, 3])
    with pytest.raises(InvalidInput, match="a column a bet"):
        streaming.Detector().add([[0.1, 0.2]])
    with pytest.raises(InvalidInput, match="the first the smaller"):
        streaming.log_rate_gains([1], 0.2, 0.1)
