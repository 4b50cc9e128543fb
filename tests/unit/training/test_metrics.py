"""Metrics agree with scikit-learn's, also for weighted rows; intervals hold what they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as theirs

from modelyard.errors import NotFound
from modelyard.training.metrics import (
    Answers,
    Measure,
    area,
    better,
    calibration,
    check_metric,
    confusion,
    judge,
    resamples,
)


def answers(classes: int, rows: int = 300, seed: int = 0) -> tuple[Any, Answers, list[str]]:
    random = np.random.default_rng(seed)
    names = [f"c{i}" for i in range(classes)]
    index = random.integers(0, classes, rows)
    raw = random.random((rows, classes)).round(1) + 0.05 + (np.arange(classes) == index[:, None]) * 0.4
    p = raw / raw.sum(axis=1, keepdims=True)
    labels = np.array(names, dtype=object)
    return labels[index], Answers(labels[p.argmax(axis=1)], p), names


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_classification(classes: int, weighted: bool) -> None:
    truth, said, names = answers(classes)
    w = np.random.default_rng(1).integers(0, 4, len(truth)) if weighted else np.ones(len(truth))
    got = {name: values[0] for name, values in Measure(truth, said, names).at(w[None, :].astype(float)).items()}
    t, p, keep = np.repeat(truth, w.astype(int)), np.repeat(said.predicted, w.astype(int)), w.astype(int)
    q = np.repeat(said.probabilities, keep, axis=0)
    average = {"average": "binary", "pos_label": "c1"} if classes == 2 else {"average": "macro"}
    expected = {
        "accuracy": theirs.accuracy_score(t, p),
        "balanced_accuracy": theirs.balanced_accuracy_score(t, p),
        "precision": theirs.precision_score(t, p, **average),
        "recall": theirs.recall_score(t, p, **average),
        "f1": theirs.f1_score(t, p, **average),
        "f1_macro": theirs.f1_score(t, p, average="macro"),
        "log_loss": theirs.log_loss(t, q, labels=names),
        "roc_auc": theirs.roc_auc_score(t == "c1", q[:, 1])
        if classes == 2
        else theirs.roc_auc_score(t, q, multi_class="ovr"),
        "brier": np.mean((q[:, 1] - (t == "c1")) ** 2)
        if classes == 2
        else np.mean(((q - (t[:, None] == np.array(names))) ** 2).sum(axis=1)),
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_regression() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=200) * 5 + 100
    said = truth + random.normal(size=200)
    got = Measure(truth, Answers(said), None).point()
    assert got["mse"] == pytest.approx(theirs.mean_squared_error(truth, said))
    assert got["rmse"] == pytest.approx(theirs.root_mean_squared_error(truth, said))
    assert got["mae"] == pytest.approx(theirs.mean_absolute_error(truth, said))
    assert got["r2"] == pytest.approx(theirs.r2_score(truth, said))


def test_an_area_without_one_side_is_unknown() -> None:
    assert np.isnan(area(np.array([0.1, 0.2]), np.array([True, True]), np.ones((1, 2)))).all()


def test_resamples_draw_as_many_rows_as_there_are_and_repeat_by_seed() -> None:
    whole = np.concatenate(list(resamples(50, 300, 7)))
    assert whole.shape == (300, 50)
    assert (whole.sum(axis=1) == 50).all()
    assert np.array_equal(whole, np.concatenate(list(resamples(50, 300, 7))))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        truth = random.normal(size=150)
        error = random.normal(size=150)
        judged = judge(truth, Answers(truth + error), Answers(np.zeros(150)), None, "rmse", seed)
        found = judged.estimates["rmse"]
        assert found.low < found.value < found.high
        hits += found.low < 1.0 < found.high
    assert hits >= 50  # 57 expected


@pytest.mark.parametrize(("skill", "beats"), [(0.0, False), (3.0, True)])
def test_better_than_the_baseline_only_where_it_is_clear(skill: float, beats: bool) -> None:
    random = np.random.default_rng(0)
    truth = np.array(["a", "b"], dtype=object)[random.integers(0, 2, 200)]
    score = random.normal(size=200) + skill * (truth == "b")
    p = 1 / (1 + np.exp(-score))
    both = np.column_stack([1 - p, p])
    predicted = np.where(p > 0.5, "b", "a").astype(object)
    flat = Answers(np.array(["a"] * 200, dtype=object), np.full((200, 2), 0.5))
    judged = judge(truth, Answers(predicted, both), flat, ["a", "b"], "roc_auc", 0)
    assert judged.beats_baseline is beats
    assert set(judged.per_class) == {"a", "b"}
    assert judged.estimates["roc_auc"].baseline == 0.5


def test_calibration_and_confusion() -> None:
    truth, said, names = answers(3)
    assert np.array_equal(confusion(truth, said.predicted, names), theirs.confusion_matrix(truth, said.predicted))
    groups = calibration(truth, said, names)
    assert sum(g["rows"] for g in groups) == len(truth)
    assert np.average([g["true"] for g in groups], weights=[g["rows"] for g in groups]) == pytest.approx(
        theirs.accuracy_score(truth, said.predicted)
    )


def test_names_of_metrics() -> None:
    assert better("rmse", 1, 2)
    assert better("r2", 2, 1)
    assert check_metric("f1", True) == "f1"
    with pytest.raises(NotFound, match="no such metric: rmsee"):
        check_metric("rmsee", False)


def test_rows_that_are_all_right_are_no_proof_of_certainty():
    truth = np.array(["no"] * 30 + ["yes"] * 10, dtype=object)
    sure = np.column_stack([truth == "no", truth == "yes"]).astype("float64")
    guess = Answers(np.full(40, "no", dtype=object), np.tile([0.75, 0.25], (40, 1)))
    judged = judge(truth, Answers(truth, sure), guess, ["no", "yes"], "roc_auc", seed=0)
    accuracy, area = judged.estimates["accuracy"], judged.estimates["roc_auc"]
    # Clopper-Pearson bounds for 40 of 40 and 10 of 10 at 95 %
    assert (accuracy.value, accuracy.high) == (1, 1)
    assert accuracy.low == pytest.approx(0.9119, abs=1e-4)
    assert area.low == pytest.approx(0.6915, abs=1e-4)
    assert judged.per_class["yes"]["recall"].low == pytest.approx(0.6915, abs=1e-4)
