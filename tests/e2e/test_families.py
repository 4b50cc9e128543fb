"""Every family of estimators: fitted, packaged from each form it may come in, served over a real socket, and compared
with the original object on rows that it has never seen."""

from __future__ import annotations

import json
import pickle
import urllib.request
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import modelyard as my

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

EXACT, CLOSE = 1e-12, 1e-9
FLOAT = 1e-5
BOOSTED = 1e-4

REGRESSORS = {
    "linear": (LinearRegression(), CLOSE),
    "ridge": (Ridge(), CLOSE),
    "tree": (DecisionTreeRegressor(max_depth=6, random_state=0), EXACT),
    "svm": (SVR(), FLOAT),
    "forest": (RandomForestRegressor(20, random_state=0), EXACT),
    "extra trees": (ExtraTreesRegressor(20, random_state=0), EXACT),
    "gradient boosting": (GradientBoostingRegressor(n_estimators=30, random_state=0), EXACT),
    "histogram boosting": (HistGradientBoostingRegressor(max_iter=30, random_state=0), EXACT),
    "mlp": (MLPRegressor(hidden_layer_sizes=(16,), max_iter=800, random_state=0), CLOSE),
}
CLASSIFIERS = {
    "logistic": (LogisticRegression(max_iter=1000), CLOSE),
    "tree": (DecisionTreeClassifier(max_depth=6, random_state=0), EXACT),
    "svm": (SVC(), FLOAT),
    "linear svm": (LinearSVC(random_state=0), FLOAT),
    "forest": (RandomForestClassifier(20, random_state=0), EXACT),
    "extra trees": (ExtraTreesClassifier(20, random_state=0), EXACT),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=20, random_state=0), EXACT),
    "histogram boosting": (HistGradientBoostingClassifier(max_iter=20, random_state=0), EXACT),
    "mlp": (MLPClassifier(hidden_layer_sizes=(16,), max_iter=800, random_state=0), CLOSE),
}


def mixed(rows: int = 400, seed: int = 0) -> Any:
    """Two wide-range numbers with gaps, a whole number, two texts with gaps and rare words."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": rng.lognormal(10, 1, rows),
            "height": rng.normal(170, 10, rows),
            "visits": rng.integers(0, 50, rows),
            "city": rng.choice(["Oslo", "Lima", "Pune", "Rome"], rows).astype(object),
            "plan": rng.choice(["free", "pro"], rows).astype(object),
        }
    )
    frame.loc[rng.random(rows) < 0.05, "income"] = np.nan
    frame.loc[rng.random(rows) < 0.05, "city"] = None
    return frame


def targets(frame: Any, kind: str) -> Any:
    signal = (
        np.log(frame.income.fillna(20000)) + 0.05 * frame.visits + (frame.city == "Lima") - 0.5 * (frame.plan == "pro")
    )
    if kind == "regression":
        return signal.to_numpy() * 7
    if kind == "binary":
        return np.where(signal > signal.median(), "yes", "no")
    return np.digitize(signal, np.quantile(signal, [1 / 3, 2 / 3]))


def pipeline(estimator: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(
        ColumnTransformer(
            [
                ("numbers", numbers, make_column_selector(dtype_include="number")),
                ("texts", texts, make_column_selector(dtype_exclude="number")),
            ]
        ),
        estimator,
    )


def ask(url: str, frame: Any) -> dict[str, Any]:
    """The columns that a live server answers for a frame, sent with its columns the other way round."""
    columns = {name: [None if v != v else v for v in frame[name].tolist()] for name in reversed(frame.columns)}
    with urllib.request.urlopen(f"{url}/predict", json.dumps(columns).encode(), timeout=60) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def check(model: Any, thing: Any, sample: Any, held_out: Any, folder: Path, tolerance: float, **options: Any) -> Any:
    """Package ``thing``, serve the bundle, and compare the live answers with those of ``model``."""
    packaged = my.package(thing, sample=sample, out=folder / "bundle", **options)
    server: Any = my.serve(packaged.bundle.folder, block=False, port=0)
    try:
        told = ask(server.url, held_out)
    finally:
        server.stop()
    expected = model.predict(held_out)
    if np.asarray(expected).dtype.kind == "f":
        np.testing.assert_allclose(told["prediction"], expected, rtol=tolerance, atol=tolerance)
    else:
        assert told["prediction"] == expected.tolist()
    if hasattr(model, "predict_proba"):
        wanted = model.predict_proba(held_out)
        got = np.column_stack(list(told["probabilities"].values()))
        assert list(told["probabilities"]) == [str(c) for c in model.classes_]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=max(tolerance, EXACT))
    return packaged.bundle


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str, tmp_path: Path) -> None:
    estimator, tolerance = REGRESSORS[name]
    frame, held_out = mixed(), mixed(60, seed=1)
    held_out.loc[:9, "city"] = "Atlantis"
    model = pipeline(estimator).fit(frame, targets(frame, "regression"))
    bundle = check(model, model, frame, held_out, tmp_path, tolerance)
    assert bundle.manifest.conversion.accepted, bundle.manifest.conversion
    assert bundle.manifest.model.runtime == "onnx"


@pytest.mark.parametrize("kind", ["binary", "three classes"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str, kind: str, tmp_path: Path) -> None:
    estimator, tolerance = CLASSIFIERS[name]
    frame, held_out = mixed(), mixed(60, seed=1)
    held_out.loc[:9, "city"] = "Atlantis"
    model = pipeline(estimator).fit(frame, targets(frame, kind))
    bundle = check(model, model, frame, held_out, tmp_path, tolerance)
    assert bundle.manifest.conversion.accepted, bundle.manifest.conversion
    assert bundle.manifest.model.runtime == "onnx"


@pytest.mark.parametrize("form", ["pickle", "joblib", "compressed joblib", "skops", "onnx"])
def test_files_of_every_form(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"])
    held_out = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"])
    model = RandomForestRegressor(10, random_state=0).fit(frame, frame.a * 2 + frame.b)
    tolerance, path = EXACT, tmp_path / "model.file"
    if form == "pickle":
        path.write_bytes(pickle.dumps(model))
    elif "joblib" in form:
        import joblib

        joblib.dump(model, path, compress=3 if "compressed" in form else 0)
    elif form == "skops":
        import skops.io

        skops.io.dump(model, path)
    else:
        from skl2onnx import to_onnx

        model = LinearRegression().fit(frame, frame.a * 2 + frame.b)
        path.write_bytes(to_onnx(model, frame.to_numpy(dtype="float32")[:1]).SerializeToString())
        tolerance = FLOAT
    check(model, path, frame, held_out, tmp_path, tolerance)


def boosted(library: str, kind: str) -> Any:
    if library == "xgboost":
        made = xgboost.XGBRegressor if kind == "regression" else xgboost.XGBClassifier
        return made(n_estimators=30, max_depth=4, random_state=0)
    made = lightgbm.LGBMRegressor if kind == "regression" else lightgbm.LGBMClassifier
    return made(n_estimators=30, num_leaves=15, random_state=0, verbose=-1, deterministic=True, n_jobs=1)


@pytest.mark.parametrize("kind", ["regression", "binary", "three classes"])
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("form", ["wrapper", "pipeline"])
def test_boosters(library: str, kind: str, form: str, tmp_path: Path) -> None:
    frame, held_out = mixed(), mixed(60, seed=1)
    labels = targets(frame, kind)
    if kind == "binary":
        labels = (labels == "yes").astype(int)
    if form == "wrapper":
        frame, held_out = (f[["income", "height", "visits"]].astype(float) for f in (frame, held_out))
        model = boosted(library, kind).fit(frame, labels)
    else:
        model = pipeline(boosted(library, kind)).fit(frame, labels)
    bundle = check(model, model, frame, held_out, tmp_path, BOOSTED)
    assert bundle.manifest.conversion.accepted, bundle.manifest.conversion


@pytest.mark.parametrize("suffix", [".json", ".ubj", ".txt"])
def test_native_booster_files(suffix: str, tmp_path: Path) -> None:
    frame, held_out = (f[["income", "height", "visits"]].astype(float) for f in (mixed(), mixed(60, seed=1)))
    library = "lightgbm" if suffix == ".txt" else "xgboost"
    model = boosted(library, "regression").fit(frame, targets(mixed(), "regression"))
    path = tmp_path / f"booster{suffix}"
    (model.booster_ if library == "lightgbm" else model.get_booster()).save_model(str(path))
    check(model, path, frame, held_out, tmp_path, BOOSTED)


@pytest.mark.parametrize("target", ["regression", "binary", "three classes"])
def test_each_family_that_training_tries(target: str, tmp_path: Path) -> None:
    frame = mixed(500)
    frame["y"] = targets(frame, target)
    held_out = mixed(60, seed=1)
    for family in ("linear", "tree", "svm", "forest", "boosting", "mlp"):
        folder = tmp_path / family
        trained = my.train(frame, "y", out=folder, candidates=[family], folds=3)
        assert trained.bundle.manifest.conversion.accepted, trained.bundle.manifest.conversion
        server: Any = my.serve(folder, block=False, port=0)
        try:
            told = ask(server.url, held_out)
        finally:
            server.stop()
        expected = trained.result.model.predict(held_out)
        if target == "regression":
            np.testing.assert_allclose(told["prediction"], expected, rtol=FLOAT)
        else:
            assert told["prediction"] == expected.tolist()
