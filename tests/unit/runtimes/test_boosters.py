"""XGBoost and LightGBM: what they are, how they predict, how they are kept, and their trees told exactly in ONNX."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard import plugins
from modelyard.bundle.emitter import emit
from modelyard.errors import BadBundle, InvalidInput
from modelyard.interfaces import ModelSpec, Predict, Runtime
from modelyard.runtimes import lightgbm as lightgbm_room
from modelyard.runtimes import xgboost as xgboost_room
from modelyard.runtimes.answers import output_fields
from modelyard.runtimes.forest import NoForest, float32_limits
from modelyard.runtimes.onnx_session import open_session, predict_with
from modelyard.schema import Array, Columns, Field, Signature

XGB: Runtime = plugins.find("runtimes", "xgboost")
LGB: Runtime = plugins.find("runtimes", "lightgbm")

RNG = np.random.default_rng(0)
ROWS, FITTED = 1500, 1000
NAMES = tuple("abcdef")
X = RNG.normal(size=(ROWS, 6)) * np.array([1, 10, 1e3, 1, 0.01, 1])
X[:, 3] = np.round(X[:, 3] * 3)
X[RNG.random(X.shape) < 0.05] = np.nan
X[RNG.random(X.shape) < 0.02] = 0.0
FULL = np.nan_to_num(X)
SCORE = FULL[:, 0] + FULL[:, 1] / 10 - FULL[:, 2] / 1e3 + (FULL[:, 3] > 0)
POSITIVE = np.exp(SCORE / 3) + 0.1
TWO, THREE = (SCORE > 0).astype(int), np.digitize(SCORE, [-1, 1])
WORDS = RNG.choice(["x", "y", "z", "w", "q", "long name"], ROWS).astype(object)
WORDS[::19] = None
TABLE = pd.DataFrame(X, columns=list(NAMES)).assign(word=pd.Series(WORDS, dtype="category"))
WITH_WORDS = SCORE + (WORDS == "x") * 5 - (WORDS == "z") * 3


def fit(model: Any, target: Any, table: Any = X, **options: Any) -> Any:
    return model.fit(table[:FITTED], target[:FITTED], **options)


def boosted(target: Any, **parameters: Any) -> xgb.Booster:
    return xgb.train(
        {"nthread": 1, **parameters}, xgb.DMatrix(X[:FITTED], target[:FITTED], feature_names=list(NAMES)), 15
    )


def grown(target: Any, **parameters: Any) -> lgb.Booster:
    return lgb.train({"verbose": -1, "num_threads": 1, **parameters}, lgb.Dataset(X[:FITTED], target[:FITTED]), 15)


def xgbr(**options: Any) -> xgb.XGBRegressor:
    return xgb.XGBRegressor(**{"n_estimators": 15, "max_depth": 4, "n_jobs": 1, **options})


def xgbc(**options: Any) -> xgb.XGBClassifier:
    return xgb.XGBClassifier(**{"n_estimators": 15, "max_depth": 4, "n_jobs": 1, **options})


def lgbr(**options: Any) -> lgb.LGBMRegressor:
    return lgb.LGBMRegressor(**{"n_estimators": 15, "verbose": -1, "n_jobs": 1, **options})


def lgbc(**options: Any) -> lgb.LGBMClassifier:
    return lgb.LGBMClassifier(**{"n_estimators": 15, "verbose": -1, "n_jobs": 1, **options})


XGBOOST = {
    "squared error": lambda: fit(xgbr(), SCORE),
    "binary": lambda: fit(xgbc(), TWO),
    "three classes": lambda: fit(xgbc(), THREE),
    "base score": lambda: fit(xgbc(base_score=0.2), TWO),
    "poisson": lambda: fit(xgbr(objective="count:poisson"), np.round(POSITIVE)),
    "tweedie": lambda: fit(xgbr(objective="reg:tweedie"), POSITIVE),
    "gamma": lambda: fit(xgbr(objective="reg:gamma"), POSITIVE),
    "logistic regression": lambda: fit(xgbr(objective="reg:logistic"), TWO),
    "quantiles": lambda: fit(xgbr(objective="reg:quantileerror", quantile_alpha=[0.1, 0.9]), SCORE),
    "two targets": lambda: fit(xgbr(), np.c_[SCORE, -SCORE]),
    "hinge": lambda: fit(xgbc(objective="binary:hinge"), TWO),
    "dart": lambda: fit(xgbr(booster="dart", rate_drop=0.3), SCORE),
    "pruned": lambda: fit(xgbr(gamma=30, tree_method="exact", max_depth=6), SCORE),
    "random forest": lambda: fit(xgb.XGBRFRegressor(n_estimators=7, n_jobs=1), SCORE),
    "early stopping": lambda: fit(
        xgbr(n_estimators=200, learning_rate=0.5, early_stopping_rounds=3),
        SCORE, eval_set=[(X[FITTED:], SCORE[FITTED:])], verbose=False,
    ),
    "zero is missing": lambda: fit(xgbr(missing=0.0), SCORE, FULL),
    "softmax booster": lambda: boosted(THREE, objective="multi:softmax", num_class=3),
    "named booster": lambda: boosted(TWO, objective="binary:logistic"),
    "ranking booster": lambda: boosted(SCORE, objective="rank:pairwise"),
    "categories one by one": lambda: fit(xgbr(enable_categorical=True, max_cat_to_onehot=99), WITH_WORDS, TABLE),
    "sets of categories": lambda: fit(xgbr(enable_categorical=True, max_cat_to_onehot=1), WITH_WORDS, TABLE),
}  # fmt: skip

LIGHTGBM = {
    "squared error": lambda: fit(lgbr(), SCORE),
    "texts": lambda: fit(lgbc(), np.array(["no", "yes"])[TWO]),
    "three classes": lambda: fit(lgbc(), THREE + 5),
    "one against all": lambda: fit(lgbc(objective="multiclassova"), THREE),
    "poisson": lambda: fit(lgbr(objective="poisson"), POSITIVE),
    "tweedie": lambda: fit(lgbr(objective="tweedie"), POSITIVE),
    "square root": lambda: fit(lgbr(reg_sqrt=True), SCORE),
    "absolute error": lambda: fit(lgbr(objective="l1"), SCORE),
    "zero is missing": lambda: fit(lgbr(zero_as_missing=True), SCORE),
    "nothing is missing": lambda: fit(lgbr(use_missing=False), SCORE),
    "random forest": lambda: fit(lgbr(boosting_type="rf", subsample=0.5, subsample_freq=1), SCORE),
    "dart": lambda: fit(lgbr(boosting_type="dart"), SCORE),
    "constant": lambda: fit(lgbr(), np.ones(ROWS)),
    "early stopping": lambda: fit(
        lgbr(n_estimators=200, learning_rate=0.5), SCORE, eval_set=[(X[FITTED:], SCORE[FITTED:])],
        callbacks=[lgb.early_stopping(3, verbose=False)],
    ),
    "cross entropy booster": lambda: grown(TWO, objective="cross_entropy"),
    "other cross entropy booster": lambda: grown(TWO, objective="cross_entropy_lambda"),
    "binary booster": lambda: grown(TWO, objective="binary", sigmoid=0.7),
    "categories": lambda: fit(lgbr(min_data_per_group=5), WITH_WORDS, TABLE),
    "categories of a classifier": lambda: fit(lgbc(min_data_per_group=5), WITH_WORDS > 0, TABLE),
}  # fmt: skip

#: Boosters that predict, and that no trees of ours can tell.
NOT_TREES = {
    "linear booster": (XGB, lambda: fit(xgbr(booster="gblinear"), SCORE), "gblinear booster is not made of trees"),
    "vectors": (XGB, lambda: fit(xgbr(multi_strategy="multi_output_tree"), np.c_[SCORE, -SCORE]), "hold vectors"),
    "several labels": (XGB, lambda: fit(xgbc(), np.c_[TWO, 1 - TWO]), "several targets"),
    "linear leaves": (LGB, lambda: fit(lgbr(linear_tree=True), SCORE, FULL), "linear models"),
}


def prepared(runtime: Runtime, model: Any, words: bool = False) -> tuple[Signature, Columns, Any]:
    """Signature, the rows not fitted on as columns, and as the model's own predict takes them."""
    facts = runtime.describe(model)
    fields = [Field(name=name, dtype="float64", nullable=True) for name in facts.feature_names or NAMES]
    table: Any = FULL[FITTED:] if getattr(model, "missing", None) == 0.0 else X[FITTED:]
    arrays = dict(zip(NAMES, table.T, strict=True))
    if words:
        fields[-1] = Field(name="word", dtype="string", nullable=True)
        arrays["word"], table = WORDS[FITTED:], TABLE[FITTED:]
    signature = Signature(inputs=tuple(fields), outputs=output_fields(facts))
    return signature, signature.input_layout.from_arrays(dict(reversed(arrays.items()))), table


def check(runtime: Runtime, model: Any, folder: Path, words: bool) -> tuple[Signature, Columns, Columns]:
    """The live predictor against the model's own predict, and the kept one against the live one."""
    assert runtime.claims(model)
    signature, columns, table = prepared(runtime, model, words)
    answer = runtime.predictor(model, signature)(columns)
    if hasattr(model, "get_params"):
        expected = np.asarray(model.predict(table)).reshape(answer["prediction"].shape)
        assert answer["prediction"].tolist() == expected.tolist()
        if "probabilities" in answer:
            np.testing.assert_array_equal(answer["probabilities"], model.predict_proba(table))
    options = runtime.save(model, folder / "once")
    runtime.save(model, folder / "again")
    file = options["file"]
    assert (folder / "once" / file).read_bytes() == (folder / "again" / file).read_bytes()
    kept = load(runtime, folder / "once", options, signature)(columns)
    for name in answer:
        assert kept[name].tolist() == answer[name].tolist()
    return signature, columns, answer


def load(runtime: Runtime, folder: Path, options: dict[str, Any], signature: Signature) -> Predict:
    return runtime.load(folder, ModelSpec(runtime=runtime.name, options=options), signature)


def through_onnx(model: Any, signature: Signature, columns: Columns) -> Columns:
    made = emit(model, signature)
    onnx.checker.check_model(made.model, full_check=True)
    graph = made.model.SerializeToString()
    assert graph == emit(model, signature).model.SerializeToString()
    predict = predict_with(open_session(graph), {"inputs": made.inputs, "outputs": made.outputs}, signature)
    whole, one = predict(columns), predict(columns.slice(0, 1))
    for name in whole:
        if whole[name].dtype == np.float64:
            np.testing.assert_allclose(one[name], whole[name][:1], rtol=1e-14)  # rows together go another way
        else:
            assert one[name].tolist() == whole[name][:1].tolist()
    return whole


def check_trees(answer: Columns, made: Columns, tolerance: float) -> None:
    assert list(made) == list(answer)
    if answer["prediction"].dtype.kind == "f":
        scale = np.abs(answer["prediction"]).mean()
        np.testing.assert_allclose(made["prediction"], answer["prediction"], rtol=tolerance, atol=tolerance * scale)
    else:
        assert made["prediction"].tolist() == answer["prediction"].tolist()
    if "probabilities" in answer:
        np.testing.assert_allclose(made["probabilities"], answer["probabilities"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", XGBOOST)
def test_xgboost(tmp_path: Path, name: str) -> None:
    model = XGBOOST[name]()
    signature, columns, answer = check(XGB, model, tmp_path, "categories" in name)
    check_trees(answer, through_onnx(model, signature, columns), 2e-6)  # it sums in float32


@pytest.mark.parametrize("name", LIGHTGBM)
def test_lightgbm(tmp_path: Path, name: str) -> None:
    model = LIGHTGBM[name]()
    signature, columns, answer = check(LGB, model, tmp_path, "categories" in name)
    check_trees(answer, through_onnx(model, signature, columns), 1e-14)


@pytest.mark.parametrize("name", NOT_TREES)
def test_what_is_not_made_of_trees_predicts_and_says_so(tmp_path: Path, name: str) -> None:
    runtime, make, reason = NOT_TREES[name]
    model = make()
    check(runtime, model, tmp_path, words=False)
    with pytest.raises(NoForest, match=reason):
        (xgboost_room if runtime is XGB else lightgbm_room).forest_of(model)


@pytest.mark.parametrize(("runtime", "make"), [(XGB, XGBOOST["sets of categories"]), (LGB, LIGHTGBM["categories"])])
def test_a_category_that_was_never_seen_is_missing(runtime: Runtime, make: Any) -> None:
    model = make()
    signature, columns, _ = prepared(runtime, model, words=True)
    rows = {name: columns[name][:20] for name in columns}
    predict = runtime.predictor(model, signature)
    unseen = predict(signature.input_layout.from_arrays({**rows, "word": np.array(["new"] * 20, dtype=object)}))
    missing = predict(signature.input_layout.from_arrays({**rows, "word": np.array([None] * 20, dtype=object)}))
    assert unseen["prediction"].tolist() == missing["prediction"].tolist()


def test_facts() -> None:
    facts = XGB.describe(XGBOOST["named booster"]())
    assert (facts.task, facts.kind, facts.feature_names) == ("classification", "xgboost.Booster", NAMES)
    assert (facts.classes, facts.has_probabilities) == ((0, 1), True)
    facts = XGB.describe(XGBOOST["two targets"]())
    assert (facts.task, facts.targets, facts.feature_names, facts.feature_count) == ("regression", 2, None, 6)
    facts = LGB.describe(LIGHTGBM["three classes"]())
    assert (facts.kind, facts.classes, facts.feature_names) == ("lightgbm.LGBMClassifier", (5, 6, 7), None)
    assert LGB.describe(LIGHTGBM["binary booster"]()).classes == (0, 1)
    assert LGB.describe(LIGHTGBM["categories"]()).feature_names == (*NAMES, "word")


@pytest.mark.parametrize(("runtime", "model"), [(XGB, xgb.XGBRegressor()), (LGB, lgb.LGBMRegressor())])
def test_an_unfitted_wrapper_is_told_so(runtime: Runtime, model: Any) -> None:
    assert runtime.claims(model)
    with pytest.raises(InvalidInput, match="has not been fitted"):
        runtime.describe(model)


@pytest.mark.parametrize(
    ("runtime", "make", "files"),
    [(XGB, XGBOOST["binary"], ("m.json", "m.ubj")), (LGB, LIGHTGBM["three classes"], ("m.txt",))],
)
def test_native_files_are_known_by_their_content(tmp_path: Path, runtime: Runtime, make: Any, files: Any) -> None:
    model = make()
    signature, columns, _ = prepared(runtime, model)
    for file in files:
        booster = model.get_booster() if runtime is XGB else model.booster_
        booster.save_model(tmp_path / file)
        path = (tmp_path / file).rename(tmp_path / f"{file}.model_of_some_kind")
        assert [name for name in plugins.names("runtimes") if plugins.find("runtimes", name).claims(path)] == [
            runtime.name
        ]
        live = runtime.predictor(model, signature)(columns)
        numbered = Signature(inputs=signature.inputs, outputs=output_fields(runtime.describe(path)))
        answer = runtime.predictor(runtime.read(path), numbered)(columns)
        assert answer["probabilities"].tolist() == live["probabilities"].tolist()
        assert answer["prediction"].tolist() == live["probabilities"].argmax(axis=1).tolist()


@pytest.mark.parametrize("runtime", [XGB, LGB])
@pytest.mark.parametrize("content", [b"", b"{}", b'{"learner":', b"tree\nversion=v4\n", b"\x80\x04.", b"{L\0\0"])
def test_other_files_are_refused(tmp_path: Path, runtime: Runtime, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(InvalidInput):
        runtime.read(path)
    spec = ModelSpec(runtime=runtime.name, options={"file": "model"})
    with pytest.raises(BadBundle):
        runtime.load(tmp_path, spec, Signature(inputs=()))


@pytest.mark.parametrize("runtime", [XGB, LGB])
def test_a_truncated_file_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    model = (XGBOOST if runtime is XGB else LIGHTGBM)["squared error"]()
    options = runtime.save(model, tmp_path)
    path = tmp_path / options["file"]
    whole = path.read_bytes()
    signature, _, _ = prepared(runtime, model)
    for share in (0.01, 0.1, 0.3, 0.6, 0.8):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BadBundle):
            load(runtime, tmp_path, options, signature)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree["left_children"].__setitem__(0, 10**6), "left_children"),
        (lambda tree: tree["left_children"].__setitem__(1, 0), "no tree"),
        (lambda tree: tree["right_children"].__setitem__(0, tree["left_children"][0]), "no tree"),
        (lambda tree: tree["split_indices"].__setitem__(0, 6), "split_indices"),
        (lambda tree: tree["default_left"].pop(), "default_left"),
        (lambda tree: tree["split_conditions"].pop(), "split_conditions"),
        (lambda tree: tree.pop("tree_param"), "damaged"),
    ],
)
def test_xgboost_trees_that_point_astray_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    """XGBoost itself would read outside its memory."""
    model = json.loads(bytes(XGBOOST["squared error"]().get_booster().save_raw("json")))
    change(model["learner"]["gradient_booster"]["model"]["trees"][0])
    path = tmp_path / "m.json"
    path.write_text(json.dumps(model, separators=(",", ":")))
    with pytest.raises(InvalidInput, match=message):
        XGB.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: re.sub(r"left_child=\S+", "left_child=99999", text, count=1), "left_child"),
        (lambda text: re.sub(r"right_child=\S+", "right_child=0", text, count=1), "no tree"),
        (lambda text: re.sub(r"split_feature=\S+", "split_feature=6", text, count=1), "split_feature"),
        (lambda text: re.sub(r"leaf_value=\S+", "leaf_value=", text, count=1), "leaf_value"),
        (lambda text: text.replace("max_feature_idx", "something"), "max_feature_idx"),
    ],
)
def test_lightgbm_trees_that_point_astray_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "m.txt"
    path.write_text(change(LIGHTGBM["squared error"]().booster_.model_to_string()))
    with pytest.raises(InvalidInput, match=message):
        LGB.read(path)


def test_categories_that_xgboost_cut_are_refused() -> None:
    table = TABLE.assign(word=TABLE.word.cat.rename_categories({"x": "é"}))
    model = fit(xgbr(enable_categorical=True), WITH_WORDS, table)
    with pytest.raises(InvalidInput, match="cuts texts beyond ASCII"):
        prepared_predictor(model)


def prepared_predictor(model: Any) -> Predict:
    signature, _, _ = prepared(XGB, model, words=True)
    return XGB.predictor(model, signature)


@pytest.mark.parametrize(("runtime", "make"), [(XGB, XGBOOST["named booster"]), (LGB, LIGHTGBM["squared error"])])
def test_columns_that_the_booster_does_not_know_are_named(runtime: Runtime, make: Any) -> None:
    fields = tuple(Field(name=name, dtype="float64") for name in ("a", "b"))
    with pytest.raises(InvalidInput, match=r"the columns that the booster was fitted on: (a, b, c|6 columns)"):
        runtime.predictor(make(), Signature(inputs=fields, outputs=()))


@given(hnp.arrays("float32", 5, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_the_limit_of_a_float32_threshold_is_exact(thresholds: Array) -> None:
    """A double goes left of a float32 threshold exactly where it is at most the limit."""
    limits = float32_limits(thresholds)
    with np.errstate(over="ignore"):
        assert (limits.astype("float32") < thresholds).all()
        assert not (np.nextafter(limits, np.inf).astype("float32") < thresholds).any()
