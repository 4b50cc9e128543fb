"""XGBoost and LightGBM, alone and at the end of a pipeline."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from .tables import frame, mixed, numeric, prepare, proved, target

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")


def models(classes):
    small = {"n_estimators": 15, "random_state": 0, "n_jobs": 1}
    if classes:
        return [xgboost.XGBClassifier(**small), lightgbm.LGBMClassifier(**small, min_child_samples=3, verbose=-1)]
    return [
        xgboost.XGBRegressor(**small),
        xgboost.XGBRegressor(objective="count:poisson", **small),
        lightgbm.LGBMRegressor(**small, min_child_samples=3, verbose=-1),
        lightgbm.LGBMRegressor(objective="poisson", **small, verbose=-1),
    ]


def proved_alone(model, arrays):
    from tempfile import TemporaryDirectory

    from modelyard.bundle.convert import convert
    from modelyard.plugins import find
    from modelyard.runtimes.answers import output_fields
    from modelyard.schema import Signature, infer_fields

    source = type(model).__module__.partition(".")[0]
    runtime = find("runtimes", source)
    facts = runtime.describe(model)
    signature = Signature(inputs=infer_fields(arrays), outputs=output_fields(facts))
    sample = signature.input_layout.from_arrays(arrays)
    with TemporaryDirectory() as folder:
        from pathlib import Path

        return convert(model, source, facts, signature, sample, runtime.predictor(model, signature), Path(folder))[1]


def agrees(conversion, model):
    assert conversion.accepted, f"{conversion.step}: {conversion.reason}"
    assert conversion.method == "emitter"
    exact = type(model).__module__.startswith("lightgbm")
    assert conversion.worst_relative <= (1e-11 if exact else 1e-4)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_behind_a_mixed_pipeline(classes):
    train = mixed()
    for model in models(classes):
        y = np.abs(target(train, 0)) if not classes else target(train, classes)
        piped = make_pipeline(prepare(), model).fit(frame(train), y)
        agrees(proved(piped, mixed(1, 60, unseen=True))[0], model)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_alone_with_gaps(classes):
    train = {k: v for k, v in mixed().items() if v.dtype.kind == "f"}
    for model in models(classes):
        y = np.abs(target(train, 0)) if not classes else target(train, classes)
        agrees(proved_alone(model.fit(frame(train), y), train), model)


def test_categories_of_their_own():
    train = {k: v for k, v in mixed().items() if k != "flag"}
    table = frame(train).astype({"colour": "category", "kind": "category"})
    y = target(mixed(), 2)
    held_out = {k: v for k, v in mixed(1, 60, unseen=True).items() if k != "flag"}
    one = xgboost.XGBClassifier(n_estimators=10, enable_categorical=True, n_jobs=1).fit(table, y)
    agrees(proved_alone(one, held_out), one)
    two = lightgbm.LGBMClassifier(n_estimators=10, min_child_samples=3, verbose=-1, n_jobs=1).fit(table, y)
    agrees(proved_alone(two, held_out), two)


def test_native_boosters():
    train = numeric()
    y = target(train, 2)
    one = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(frame(train), y), 5)
    agrees(proved_alone(one, train), one)
    two = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(frame(train), y), 5)
    agrees(proved_alone(two, train), two)


def test_what_is_not_made_of_trees_is_refused():
    train = numeric()
    model = xgboost.XGBRegressor(booster="gblinear", n_estimators=3).fit(frame(train), target(train, 0))
    conversion = proved_alone(model, train)
    assert not conversion.accepted
    assert conversion.step == "XGBRegressor"
    assert "gblinear booster is not made of trees" in conversion.reason
    assert conversion.target == "xgboost"
