"""Whole training runs: sensible figures, the same by seed, everything said."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

from modelyard.errors import InvalidInput, NotFound
from modelyard.training import Result, train
from modelyard.training.preprocess import frame_of

TABLES = Path(__file__).parents[4] / "shared" / "data"
real = pytest.mark.skipif(not TABLES.is_dir(), reason="the real tables are not here")


def bundled(name: str) -> Any:
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    return frame.rename(columns=lambda c: c.replace(" ", "_"))


def value(result: Result, metric: str) -> float:
    found = result.judgement.estimates[metric]
    assert found.low <= found.value <= found.high
    return found.value


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
def test_classification(name: str) -> None:
    result = train(bundled(name), "target", candidates=["linear", "tree"], folds=3)
    assert result.task == "classification"
    assert result.family == "linear"
    assert value(result, "accuracy") > 0.9
    assert value(result, "roc_auc") > 0.97
    assert result.judgement.beats_baseline
    assert [row["name"] for row in result.leaderboard] == ["linear", "tree"]


@pytest.mark.parametrize("family", ["linear", "tree", "svm", "forest", "boosting", "mlp"])
def test_every_family_on_regression(family: str) -> None:
    result = train(bundled("diabetes"), "target", candidates=family, folds=2, report=False)
    assert result.family == family
    assert result.task == "regression"
    assert value(result, "r2") > (0.0 if family == "tree" else 0.15)
    assert result.model.predict(frame_of(result.sample)).shape == (88,)


@pytest.mark.parametrize("family", ["svm", "forest", "boosting", "mlp"])
def test_every_other_family_on_classes(family: str) -> None:
    result = train(bundled("wine"), "target", candidates=family, folds=2, report=False)
    assert value(result, "accuracy") > 0.88
    np.testing.assert_allclose(result.model.predict_proba(frame_of(result.sample)).sum(axis=1), 1)


def mixed(rows: int = 300, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    amount = random.lognormal(3, 1, rows)
    city = random.choice(["Oslo", "Lima", "Pune"], rows).astype(object)
    flag = random.random(rows) < 0.5
    day = np.datetime64("2024-01-01") + random.integers(0, 300, rows).astype("timedelta64[D]")
    y = np.log(amount) + (city == "Lima") + 0.7 * flag + random.normal(size=rows) * 0.3
    amount[random.random(rows) < 0.1] = np.nan
    city[random.random(rows) < 0.1] = None
    maybe = np.array(
        [None if r < 0.1 else bool(f) for r, f in zip(random.random(rows), flag, strict=True)], dtype=object
    )
    return {
        "amount": amount,
        "city": city,
        "flag": maybe,
        "day": day.astype("datetime64[us]"),
        "n": np.arange(rows) % 7,
        "y": y,
    }


def test_mixed_columns_with_gaps() -> None:
    result = train(mixed(), "y", candidates=["linear", "boosting"], folds=3)
    assert value(result, "r2") > 0.6
    assert set(result.sample) == {"amount", "city", "flag", "day", "n"}
    assert len(result.reference["n"]) + len(result.sample["n"]) == 300
    assert any("carry dates (day)" in note for note in result.notes)


def test_none_and_nan_are_one_missing_text_and_unseen_texts_pass() -> None:
    model = train(mixed(), "y", candidates="linear", folds=2, report=False).model
    row = {"amount": [20.0], "flag": [True], "day": np.array(["2024-02-01"], "datetime64[us]"), "n": [1]}
    said = [
        model.predict(pd.DataFrame({**row, "city": pd.Series([city], dtype=kind)}))[0]
        for city, kind in ((None, object), (np.nan, object), ("", object), (None, "str"), ("Ürümqi", object))
    ]
    assert len(set(said[:4])) == 1
    assert said[4] != said[0]


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> tuple[str, bytes, str]:
        result = train(mixed(), "y", candidates=["tree", "mlp"], folds=2, seed=seed)
        page = re.sub(r'<td class="n">\d+\.\d</td>', "", result.report_html)  # the seconds
        return json.dumps(result.metrics), pickle.dumps(result.model.predict(frame_of(result.sample))), page

    first = run(1)
    assert run(1) == first
    assert run(2)[0] != first[0]


@pytest.mark.parametrize("family", ["svm", "forest", "boosting"])
def test_each_family_repeats_by_seed(family: str) -> None:
    runs = [train(mixed(120), "y", candidates=family, folds=2, report=False) for _ in range(2)]
    one, other = (pickle.dumps(run.model.predict(frame_of(run.sample))) for run in runs)
    assert one == other
    assert runs[0].metrics == runs[1].metrics


def test_a_target_of_noise_is_no_better_than_guessing() -> None:
    random = np.random.default_rng(0)
    data = {"a": random.normal(size=200), "b": random.normal(size=200), "y": random.choice(["u", "v"], 200)}
    result = train(data, "y", candidates="linear", folds=3)
    assert not result.judgement.beats_baseline
    assert result.warnings[0].startswith("not clearly better than always guessing the same: ROC AUC")
    assert "not clearly better" in result.report_html


def test_metrics_are_json_without_times() -> None:
    result = train(bundled("iris"), "target", candidates="linear", folds=2)
    plain = json.loads(json.dumps(result.metrics, allow_nan=False))
    assert plain["held_out"]["accuracy"].keys() == {"value", "low", "high", "baseline"}
    assert plain["rows"] == {"learnt_from": 120, "held_out": 30}
    assert set(plain["per_class"]) == {"0", "1", "2"}
    assert "seconds" not in json.dumps(plain)
    json.dumps(result.summary(), allow_nan=False)


def test_progress_reaches_its_end() -> None:
    told: list[tuple[float, float | None, str]] = []
    train(bundled("iris"), "target", candidates="linear,tree", folds=2, progress=lambda *event: told.append(event))
    assert told[0] == (0, 4, "Linear model")
    assert (4, 4, "") in told
    assert told[-1][2] == "report"


def test_a_time_limit_leaves_candidates_out_and_says_so() -> None:
    result = train(bundled("iris"), "target", candidates="linear,tree", folds=2, time_limit=0)
    assert [row["mean"] is None for row in result.leaderboard] == [False, True]
    assert result.leaderboard[1]["notes"] == ["the time limit of 0 s had passed"]


def test_a_machine_for_each_of_many_classes_is_not_tried() -> None:
    data = {"a": np.arange(240) % 12 + np.linspace(0, 1, 240), "y": [f"c{i % 12}" for i in range(240)]}
    result = train(data, "y", candidates="tree,svm", folds=2, report=False)
    assert "more than 10 classes" in result.leaderboard[1]["notes"][0]
    with pytest.raises(InvalidInput, match="no candidate could be fitted: svm: not tried"):
        train(data, "y", candidates="svm", folds=2)


def test_warnings_of_libraries_become_notes(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    data = {f"x{i}": random.normal(size=200) for i in range(3)}
    data["y"] = data["x0"] * data["x1"] + random.normal(size=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train(data, "y", candidates="mlp", folds=2, report=False)
    assert result.leaderboard[0]["name"] == "mlp"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"candidates": ["forrest"]}, NotFound, "no such candidate: forrest"),
        ({"candidates": []}, NotFound, "no such candidate"),
        ({"metric": "rmse"}, NotFound, "no such metric: rmse"),
        ({"test_size": 0.9}, InvalidInput, "test_size"),
        ({"exclude": ["petal"]}, NotFound, "no such column: petal"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        train(bundled("iris"), "target", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1}, {"seed": 2**32}, {"seed": 1.5}, {"folds": 1}, {"folds": True}, {"test_size": 0.0},
        {"test_size": 1.5}, {"test_size": float("nan")}, {"max_rows": 0}, {"time_limit": -1.0},
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidInput, match=f"^{name}: expected "):
        train(bundled("iris"), "target", **options)


def test_metrics_of_one_class_say_of_which_and_the_report_names_the_model() -> None:
    result = train(mixed_yes_no(), "y", candidates="linear", folds=2, name="<churn>")
    titles = [row["metric"] for row in result.summary()["held_out"]]
    assert {"Precision of yes", "Recall of yes", "F1 of yes"} <= set(titles)
    assert "Recall of yes" in result.report_html and "&lt;churn&gt;: predicting y" in result.report_html
    several = train(bundled("iris"), "target", candidates="linear", folds=2, report=False).summary()["held_out"]
    assert "Recall, mean of the classes" in [row["metric"] for row in several]


def mixed_yes_no() -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(100, 2))
    return {"a": x[:, 0], "b": x[:, 1], "y": np.where(x.sum(axis=1) + x[:, 0] ** 2 > 0.5, "yes", "no").tolist()}


def test_half_of_the_errors_are_below_their_absolute_median() -> None:
    result = train(mixed(), "y", candidates="linear", folds=2)
    assert "Half of the predictions are off by " in result.report_html
    assert "off by -" not in result.report_html


def test_nothing_is_left_after_the_guard() -> None:
    with pytest.raises(InvalidInput, match="no column is left to predict y from: a: an identifier"):
        train({"a": np.arange(100), "y": ["u", "v"] * 50}, "y")


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_report_needs_nothing_from_outside_and_escapes_what_came_with_the_data() -> None:
    random = np.random.default_rng(0)
    nasty = '<script>alert("x")</script>'
    data = {
        nasty: random.choice([f"<img src=x>{i}" for i in range(3)], 200).astype(object),
        "other": random.normal(size=200),
        "constant <b>": np.ones(200),
        "y": random.choice(["<i>up", "down&"], 200).astype(object),
    }
    html = train(data, "y", candidates="linear", folds=2).report_html
    page = Page()
    page.feed(html)
    assert not {"script", "img", "b>", "i", "link", "iframe"} & set(page.tags)
    assert page.links == []
    assert "&lt;script&gt;" in html
    assert "url(" not in html
    assert "@import" not in html
    assert page.tags.count("svg") > 5


def test_reports_of_regression_and_many_classes() -> None:
    assert "Predicted against true" in train(mixed(), "y", candidates="linear", folds=2).report_html
    random = np.random.default_rng(0)
    many = {"a": random.normal(size=600), "b": random.integers(0, 5, 600), "y": [f"class {i % 30}" for i in range(600)]}
    html = train(many, "y", candidates="tree", folds=2).report_html
    assert "Confusion matrix" not in html
    assert "ROC curve" in html


@real
def test_churn() -> None:
    result = train(TABLES / "churn_telco.csv", "Churn", candidates=["linear", "tree"], folds=3)
    assert value(result, "roc_auc") > 0.82
    assert [(f.column, f.kind) for f in result.findings] == [("customerID", "identifier")]
    assert "customerID" not in result.sample
    assert any("TotalCharges: 11 missing (11 blank)" in note for note in result.notes)


@real
def test_credit() -> None:
    result = train(TABLES / "credit_german.csv", "risk", candidates=["linear"], folds=3)
    assert result.classes == [1, 2]
    assert value(result, "roc_auc") > 0.72
    assert result.findings == []


@real
def test_disease() -> None:
    result = train(TABLES / "disease_breast_cancer.csv", "class", candidates=["linear"], folds=3)
    assert value(result, "roc_auc") > 0.96
    assert any("16 written ?" in note for note in result.notes)


@real
def test_maintenance_names_its_leaks() -> None:
    result = train(TABLES / "maintenance_ai4i2020.csv", "Machine_failure", candidates=["linear"], folds=2, report=False)
    dropped = {f.column for f in result.findings if f.dropped}
    assert dropped == {"UDI", "Product ID"}
    assert {f.column for f in result.findings if f.kind == "suspect"} == {"TWF", "HDF", "PWF", "OSF"}
    honest = train(
        TABLES / "maintenance_ai4i2020.csv",
        "Machine_failure",
        candidates=["boosting"],
        folds=2,
        exclude=["TWF", "HDF", "PWF", "OSF", "RNF"],
        report=False,
    )
    assert honest.warnings == []
    assert 0.9 < value(honest, "roc_auc") < 0.999


@real
def test_bikes() -> None:
    result = train(TABLES / "traffic_bike_hour.csv", "cnt", candidates=["tree"], folds=2)
    assert {(f.column, f.kind, f.dropped) for f in result.findings} == {
        ("instant", "identifier", True),
        ("casual", "sum", True),
        ("registered", "sum", True),
    }
    assert result.task == "regression"
    assert 0.75 < value(result, "r2") < 0.99
    assert result.sample["dteday"].dtype == "datetime64[us]"
