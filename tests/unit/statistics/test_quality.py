from __future__ import annotations

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.statistics import expected, quality

metrics = pytest.importorskip("sklearn.metrics")


def labelled(seed: int = 0, rows: int = 4000):
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 3, rows)
    return score, rng.random(rows) < score


def test_confusion_matrices_as_scikit_learn_does_them() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 500)
    predicted = np.where(rng.random(500) < 0.6, truth, rng.integers(0, 3, 500))
    table = metrics.confusion_matrix(truth, predicted)
    assert quality.accuracy(table) == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert quality.precision(table) == pytest.approx(metrics.precision_score(truth, predicted, average=None))
    assert quality.recall(table) == pytest.approx(metrics.recall_score(truth, predicted, average=None))
    assert quality.f1(table) == pytest.approx(metrics.f1_score(truth, predicted, average=None))
    halves = [metrics.confusion_matrix(truth[i::2], predicted[i::2]) for i in (0, 1)]
    assert quality.f1(halves[0] + halves[1]) == pytest.approx(quality.f1(table))


def test_what_is_undefined_is_not_a_number() -> None:
    table = [[5, 0], [3, 0]]
    assert np.isnan(quality.precision(table)[1])
    assert quality.recall(table).tolist() == [1, 0]
    assert np.isnan(quality.accuracy([[0, 0], [0, 0]]))
    assert all(np.isnan(quality.auc([0, 0], [1, 2])))
    assert all(np.isnan(quality.calibration_error([0, 0], [0, 0], [0.2, 0.8])))
    assert all(np.isnan(expected.expect([0, 0], [0.2, 0.8])))
    assert all(np.isnan(quality.regression(0, 0, 0, 0, 0)))


def test_scores_in_bins_hold_the_metrics_of_the_scores() -> None:
    score, truth = labelled()
    edges = np.linspace(0, 1, 41)
    negative, positive = (np.histogram(score[truth == label], edges)[0] for label in (False, True))
    sums = np.histogram(score, edges, weights=score)[0]
    means = np.divide(sums, negative + positive, out=(edges[:-1] + edges[1:]) / 2, where=negative + positive > 0)
    for found, true, close in (
        (quality.auc(negative, positive), metrics.roc_auc_score(truth, score), 2e-4),
        (quality.log_loss(negative, positive, edges, means), metrics.log_loss(truth, score), 1e-3),
        (quality.log_loss(negative, positive, edges), metrics.log_loss(truth, score), 1e-3),
        (quality.brier(negative, positive, edges, means), metrics.brier_score_loss(truth, score), 1e-3),
    ):
        assert found.low <= true <= found.high
        assert found.value == pytest.approx(true, abs=close)
        assert found.high - found.low < 0.15
    error, largest = quality.calibration_error(negative, positive, means)
    assert 0 < error < 0.05 and error < largest
    shifted = quality.calibration_error(negative, positive, np.clip(means + 0.2, 0, 1))
    assert shifted[0] == pytest.approx(0.2, abs=0.03)


def test_the_finer_the_bins_the_closer() -> None:
    score, truth = labelled(2)
    widths = []
    for bins in (5, 20, 100):
        edges = np.linspace(0, 1, bins + 1)
        found = quality.auc(*(np.histogram(score[truth == label], edges)[0] for label in (False, True)))
        assert found.low <= metrics.roc_auc_score(truth, score) <= found.high
        widths.append(found.high - found.low)
    assert widths[0] > 3 * widths[1] > 9 * widths[2]


def test_regression_from_sums() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(1e6, 5, 1000)
    predicted = truth + rng.normal(0, 2, 1000)
    error, centred = predicted - truth, truth - 1e6
    found = quality.regression(1000, np.abs(error).sum(), (error**2).sum(), centred.sum(), (centred**2).sum())
    assert found.mse == pytest.approx(metrics.mean_squared_error(truth, predicted))
    assert found.rmse == pytest.approx(found.mse**0.5)
    assert found.mae == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    assert found.r2 == pytest.approx(metrics.r2_score(truth, predicted), rel=1e-6)
    assert np.isnan(quality.regression(3, 1.0, 1.0, 6.0, 12.0).r2)  # the truth never varies


def test_expected_metrics_are_the_mean_of_those_that_come_true() -> None:
    score, _ = labelled(4)
    edges = np.linspace(0, 1, 201)
    counts = np.histogram(score, edges)[0]
    middle = (edges[:-1] + edges[1:]) / 2
    found = expected.expect(counts, middle, 0.5)
    rng = np.random.default_rng(5)
    seen = []
    for _ in range(60):
        truth = rng.random(len(score)) < score
        seen.append(
            (
                metrics.accuracy_score(truth, score >= 0.5),
                metrics.precision_score(truth, score >= 0.5),
                metrics.recall_score(truth, score >= 0.5),
                metrics.roc_auc_score(truth, score),
                metrics.brier_score_loss(truth, score),
                metrics.log_loss(truth, score),
            )
        )
    mean, spread = np.mean(seen, axis=0), np.std(seen, axis=0)
    true = (found.accuracy, found.precision, found.recall, found.auc, found.brier, found.log_loss)
    assert np.array(true) == pytest.approx(mean, abs=3e-3)
    assert found.spread == pytest.approx(spread[0], rel=0.3)


def test_expected_accuracy_falls_where_the_model_is_less_sure() -> None:
    scores = np.array([0.1, 0.3, 0.7, 0.9])
    assert expected.expect([50, 0, 0, 50], scores).accuracy == pytest.approx(0.9)
    assert expected.expect([0, 50, 50, 0], scores).accuracy == pytest.approx(0.7)


def test_calibrating_makes_scores_worth_what_they_say() -> None:
    score, truth = labelled(6, 40_000)
    edges = np.linspace(0, 1, 21)
    warped = score**2  # far too low
    negative, positive = (np.histogram(warped[truth == label], edges)[0] for label in (False, True))
    middle = (edges[:-1] + edges[1:]) / 2
    assert quality.calibration_error(negative, positive, middle)[0] > 0.1
    scores = expected.calibrate(negative, positive)
    assert scores[4] == pytest.approx(middle[4] ** 0.5, abs=0.04)
    accuracy = ((score >= 0.5) == truth).mean()
    assert expected.expect(negative + positive, scores).accuracy == pytest.approx(accuracy, abs=0.01)


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidInput, match="square"):
        quality.accuracy([[1, 2, 3], [1, 2, 3]])
    with pytest.raises(InvalidInput, match="bounds of 2 bins"):
        quality.brier([1, 1], [1, 1], [0, 0.5])
    with pytest.raises(InvalidInput, match="same bins"):
        quality.auc([1, 2], [1])
    with pytest.raises(InvalidInput, match="no labelled rows"):
        expected.calibrate([0, 0], [0, 0])
    with pytest.raises(InvalidInput, match="one score"):
        expected.expect([1, 2], [0.5])
