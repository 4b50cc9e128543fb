"""Metrics from integers are those of scikit-learn on the rows themselves, and their intervals cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.monitoring import scorecard
from modelyard.monitoring.grading import BILLION, BINS, EDGES, FURTHEST, Answers, Grader
from modelyard.registry.cohorts import Counts, plus
from modelyard.statistics.confidence import bound_mean
from modelyard.training.metrics import Answers as Rows
from modelyard.training.metrics import Measure
from modelyard.truth import Truth
from recorded import bundle_of

TWO = Grader(Truth("classification", ("no", "yes"), "string"), has_probabilities=True)
THREE = Grader(Truth("classification", ("a", "b", "c"), "string"), has_probabilities=True)
PLAIN = Grader(Truth("classification", ("no", "yes"), "string"))
NAMELESS = Grader(Truth("classification", (), "int64"))
NUMBERS = Grader(Truth("regression"), unit=2.0**-20, centre=0.0)


def rows_of(grader: Grader, rows: int, seed: int = 0) -> tuple[Answers, list[str]]:
    """Answers of a model that is somewhat sure, and truths drawn from its probabilities."""
    random = np.random.default_rng(seed)
    p = random.dirichlet([0.7] * len(grader.classes), rows)
    truth = (random.random(rows)[:, None] > np.cumsum(p, axis=1)).sum(axis=1).clip(0, len(grader.classes) - 1)
    return Answers(p.argmax(axis=1), p), [grader.classes[place] for place in truth]


def value_of(found: dict[str, scorecard.Metric]) -> dict[str, Any]:
    return {name: metric.value for name, metric in found.items()}


@pytest.mark.parametrize("grader", [TWO, THREE])
def test_they_are_those_of_training(grader: Grader) -> None:
    answers, labels = rows_of(grader, 3_000)
    found = scorecard.measure(grader.grade(answers, labels), grader)
    classes = list(grader.classes)
    said = np.array(classes, dtype=object)[answers.predicted]
    truth = np.array(labels, dtype=object)
    expected = Measure(truth, Rows(said, answers.probabilities), classes).point()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Scores in bins put an area off by half of the pairs that share a bin.
        assert found[name].value == pytest.approx(value, abs=0.01 if name == "roc_auc" else 1e-8), name
        low, high = found[name].low, found[name].high
        assert low is not None and high is not None and low <= value <= high


def test_each_class() -> None:
    answers, labels = rows_of(THREE, 500)
    found = scorecard.per_class(THREE.grade(answers, labels), THREE)
    said = [THREE.classes[place] for place in answers.predicted]
    report = sk.classification_report(labels, said, output_dict=True)
    for name in THREE.classes:
        assert found[name]["precision"].value == pytest.approx(report[name]["precision"])
        assert found[name]["recall"].value == pytest.approx(report[name]["recall"])
        assert found[name]["f1"].value == pytest.approx(report[name]["f1-score"])


def test_regression() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(1e6, 3, 2_000)
    predicted = truth + random.normal(0.5, 2, 2_000)
    grader = Grader(Truth("regression"), unit=2.0**-16, centre=1e6)
    found = scorecard.measure(grader.grade(Answers(predicted, None), [repr(v) for v in truth.tolist()]), grader)
    expected = {
        "r2": sk.r2_score(truth, predicted), "mse": sk.mean_squared_error(truth, predicted),
        "rmse": sk.root_mean_squared_error(truth, predicted), "mae": sk.mean_absolute_error(truth, predicted),
        "bias": (predicted - truth).mean(),
    }  # fmt: skip
    assert value_of(found) == pytest.approx(expected, abs=1e-4)
    for name, metric in found.items():
        assert metric.low is not None and metric.high is not None and metric.low <= expected[name] <= metric.high
        assert metric.high - metric.low < 0.6 * abs(expected[name]) + 0.5


def test_numbers_of_any_size_are_exact() -> None:
    grader = Grader(Truth("regression"), unit=2.0**-30)
    labels = ["1e+18", "-1e+18", "3.0"]
    counts = grader.grade(Answers(np.array([0.0, 1e300, 3.0]), None), labels)
    assert plus(counts, grader.grade(Answers(np.array([0.0, 1e300, 3.0]), None), labels), -1) == {}
    found = scorecard.measure(counts, grader)
    furthest = FURTHEST * grader.unit
    assert found["mae"].value == pytest.approx(furthest * 2 / 3) and found["r2"].value is not None


def test_a_classifier_without_probabilities_has_no_losses() -> None:
    counts = PLAIN.grade(Answers(np.array([0, 1, 1]), None), ["no", "yes", "no"])
    found = scorecard.measure(counts, PLAIN)
    assert set(found) == {"accuracy", "precision", "recall", "f1", "f1_macro", "balanced_accuracy"}
    assert found["precision"].value == 0.5 and found["recall"].value == 1.0


def test_a_classifier_without_names_of_classes_has_its_accuracy() -> None:
    fine, answers = NAMELESS.read([3, None, 7, 2**40], None)
    assert fine.tolist() == [True, False, True, True]
    assert value_of(scorecard.measure(NAMELESS.grade(answers, ["3", "8", "1099511627776"]), NAMELESS)) == {
        "accuracy": pytest.approx(2 / 3)
    }


def test_a_class_that_the_version_does_not_know_is_a_wrong_answer() -> None:
    answers, _ = rows_of(TWO, 2)
    counts = TWO.grade(answers, ["late", "late"])
    found = scorecard.measure(counts, TWO)
    assert found["accuracy"].value == 0.0 and found["recall"].value is None
    assert found["log_loss"].value == pytest.approx(-np.log(1e-15), abs=1e-6)


def test_what_is_undefined_is_nothing() -> None:
    assert scorecard.measure({}, TWO) == {} and scorecard.calibration({}, TWO) == []
    answers = Answers(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    found = scorecard.measure(TWO.grade(answers, ["no", "no"]), TWO)
    assert found["roc_auc"].value is None and found["precision"].value is None and found["accuracy"].value == 1.0
    same = NUMBERS.grade(Answers(np.array([1.0, 2.0]), None), ["5.0", "5.0"])
    assert scorecard.measure(same, NUMBERS)["r2"].value is None


def test_of_few_labels_only_shares_have_intervals() -> None:
    answers, labels = rows_of(TWO, 50)
    found = scorecard.measure(TWO.grade(answers, labels), TWO)
    assert found["accuracy"].low is not None
    assert found["log_loss"].low is None and found["roc_auc"].low is None and found["log_loss"].value is not None


@pytest.mark.parametrize("grader", [TWO, THREE])
def test_calibration(grader: Grader) -> None:
    answers, labels = rows_of(grader, 5_000)
    found = scorecard.calibration(grader.grade(answers, labels), grader)
    assert sum(each.rows for each in found) == 5_000
    assert answers.probabilities is not None
    said = answers.probabilities[:, 1] if len(grader.classes) == 2 else answers.probabilities.max(axis=1)
    assert sum(each.said * each.rows for each in found) == pytest.approx(said.sum(), abs=1e-4)
    for each in found:
        assert each.low <= each.true <= each.high
        assert each.low - 0.02 <= each.said <= each.high + 0.02  # truths were drawn from the probabilities


def test_bins_mirror_each_other() -> None:
    assert len(EDGES) == BINS + 1 and list(EDGES) == sorted(EDGES) and 0.5 in EDGES
    assert np.allclose(np.array(EDGES), 1 - np.array(EDGES)[::-1], atol=1e-15)


def test_answers_that_are_none() -> None:
    fine, answers = TWO.read(
        ["yes", None, "no", "odd", "no", "yes"], [[0.1, 0.9], [0.5, 0.5], None, [1, 0], [1.0], [0, 1]]
    )
    assert fine.tolist() == [True, False, False, False, False, True]
    assert answers.probabilities is not None and answers.probabilities.tolist() == [[0.1, 0.9], [0.0, 1.0]]
    fine, numbers = NUMBERS.read([1.5, None, float("nan"), float("inf"), 2], None)
    assert fine.tolist() == [True, False, False, False, True] and numbers.predicted.tolist() == [1.5, 2.0]


def test_the_unit_of_a_regression_is_frozen_with_the_version(tmp_path: Path) -> None:
    grader = Grader.of(bundle_of(tmp_path / "bundle", ()))
    assert grader.unit == 2.0 ** (7 - 20) and abs(grader.centre) < 1
    assert Grader.of(bundle_of(tmp_path / "other")).classes == ("no", "yes")


SCORES = (0.0, 0.02, 0.3, 0.5, 0.98, 1.0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(SCORES), st.sampled_from(["no", "yes"])), min_size=1, max_size=30), st.randoms()
)
def test_what_is_counted_apart_adds_up(rows: list[tuple[float, str]], random: Any) -> None:
    def graded(some: list[tuple[float, str]]) -> Counts:
        p = np.array([[1 - score, score] for score, _ in some])
        return TWO.grade(Answers(p.argmax(axis=1), p), [label for _, label in some], [60.0] * len(some))

    whole = graded(rows)
    shuffled = random.sample(rows, len(rows))
    apart: Counts = {}
    for row in shuffled:
        apart = plus(apart, graded([row]))
    assert apart == whole
    for row in rows:
        apart = plus(apart, graded([row]), -1)
    assert apart == {}
    assert sum(count for name, count in whole.items() if name.startswith("m.")) == pytest.approx(
        sum(max(score, 1 - score) for score, _ in rows) * BILLION
    )


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("accuracy", 0.7, 0.75, "worse"), ("accuracy", 0.7, 0.85, ""), ("accuracy", 0.95, 0.99, "better"),
        ("log_loss", 0.95, 0.99, "worse"), ("log_loss", 0.1, 0.2, "better"),
    ],
)  # fmt: skip
def test_compared_with_training(name: str, low: float, high: float, expected: str) -> None:
    metric = scorecard.Metric(value=0.8, low=low, high=high)
    trained = {"value": 0.85, "low": 0.8, "high": 0.9}
    assert scorecard.compared(metric, name, trained) == expected
    assert scorecard.compared(metric, name, trained, floor=0.7) == ""
    assert scorecard.compared(metric, name, None) == scorecard.compared(metric, name, {"value": 0.5}) == ""
    assert scorecard.compared(scorecard.Metric(value=0.1), name, trained) == ""


def reach_of(rows: int) -> float:
    """Half of an interval for a variance of 1."""
    return float(bound_mean(rows, 0.0, 1.0)[1])


def check_spread(runs: list[dict[str, scorecard.Metric]], rows: int, truths: dict[str, float]) -> None:
    """What intervals take for the spread of a metric is how much it really varies from run to run."""
    for name, truth in truths.items():
        values = np.array([run[name].value for run in runs])
        spreads = [(run[name].high - run[name].low) / 2 / reach_of(rows) / rows**0.5 for run in runs]  # type: ignore[operator]
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / len(runs) ** 0.5)
        assert np.mean(spreads) == pytest.approx(values.std(), rel=0.3), name


def test_the_spread_of_scores() -> None:
    """Of scores that are uniform and calibrated."""
    runs, rows = [], 1_000
    for seed in range(40):
        random = np.random.default_rng(seed)
        p = random.random(rows)
        labels = ["yes" if drawn < score else "no" for drawn, score in zip(random.random(rows), p, strict=True)]
        answers = Answers((p > 0.5).astype(int), np.stack([1 - p, p], axis=1))
        runs.append(scorecard.measure(TWO.grade(answers, labels), TWO))
    check_spread(runs, rows, {"log_loss": 1 / 2, "brier": 1 / 6})
    areas = np.array([run["roc_auc"].value for run in runs])
    assert areas.mean() == pytest.approx(5 / 6, abs=0.006)
    # The bins' own uncertainty comes on top: half of the pairs that share a bin, less than 1 %.
    widths = [(run["roc_auc"].high - run["roc_auc"].low) / 2 for run in runs]  # type: ignore[operator]
    assert reach_of(rows) * rows**0.5 * areas.std() < np.mean(widths) < 1.5 * reach_of(rows) * rows**0.5 * areas.std()


def test_the_spread_of_errors() -> None:
    runs, rows = [], 1_000
    for seed in range(60):
        random = np.random.default_rng(seed)
        t = random.normal(0, 2, rows)
        predicted = 0.5 + t + random.normal(0, 1, rows) * (1 + abs(t)) / 2  # errors grow with the truth
        runs.append(scorecard.measure(NUMBERS.grade(Answers(predicted, None), [repr(v) for v in t.tolist()]), NUMBERS))
    middle = {name: float(np.mean([run[name].value for run in runs])) for name in ("r2", "mse", "mae", "bias")}
    check_spread(runs, rows, middle)
