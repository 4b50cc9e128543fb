"""Live scikit-learn estimators: what they are, the table they are given, how they are kept."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from modelyard import plugins
from modelyard.errors import BadBundle, InvalidInput, ModelFailed, Refused
from modelyard.interfaces import ModelSpec
from modelyard.runtimes.answers import output_fields
from modelyard.runtimes.sklearn import SklearnRuntime
from modelyard.runtimes.sklearn_files import to_pickle
from modelyard.schema import Columns, Signature, infer_fields

RUNTIME = SklearnRuntime()
RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(120, 3)), columns=["a", "b", "c"])
NUMBER = X.a * 3 - X.b
LABEL = np.where(NUMBER > 0.5, "high", np.where(NUMBER < -1, "low", "mid"))


def prepared(model: Any, table: Any) -> tuple[Signature, Columns]:
    """The signature of a fitted model, and the columns of the table it was fitted on."""
    arrays = {c: table[c].astype(object).to_numpy() if table[c].dtype == "str" else table[c].to_numpy() for c in table}
    signature = Signature(inputs=infer_fields(arrays), outputs=output_fields(RUNTIME.describe(model)))
    return signature, signature.input_layout.from_arrays(dict(reversed(arrays.items())))


def check_like(model: Any, table: Any) -> Columns:
    signature, columns = prepared(model, table)
    answer = RUNTIME.predictor(model, signature)(columns)
    expected = np.asarray(model.predict(table))
    expected = expected.reshape(answer["prediction"].shape)
    if expected.dtype.kind == "f":  # sums may run in another order, as rows lie otherwise in memory
        np.testing.assert_allclose(answer["prediction"], expected, rtol=1e-12)
    else:
        assert answer["prediction"].tolist() == expected.tolist()
    if "probabilities" in answer:
        np.testing.assert_allclose(answer["probabilities"], model.predict_proba(table), rtol=1e-12)
    return answer


@pytest.mark.parametrize(
    ("model", "target", "task", "shares", "targets"),
    [
        (LinearRegression(), NUMBER, "regression", False, 1),
        (LinearRegression(), np.c_[NUMBER], "regression", False, 1),
        (LinearRegression(), np.c_[NUMBER, -NUMBER], "regression", False, 2),
        (RandomForestRegressor(3), np.c_[NUMBER, -NUMBER], "regression", False, 2),
        (KNeighborsRegressor(), np.c_[NUMBER, -NUMBER], "regression", False, 2),
        (MLPRegressor(hidden_layer_sizes=(4,), max_iter=2000, tol=0.1), np.c_[NUMBER, -NUMBER], "regression", False, 2),
        (MultiOutputRegressor(Ridge()), np.c_[NUMBER, -NUMBER], "regression", False, 2),
        (TransformedTargetRegressor(Ridge(), func=np.sinh, inverse_func=np.arcsinh), NUMBER, "regression", False, 1),
        (GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2), NUMBER, "regression", False, 1),
        (LogisticRegression(), LABEL, "classification", True, 1),
        (LogisticRegression(), NUMBER > 0, "classification", True, 1),
        (LogisticRegression(), np.where(NUMBER > 0, 7, -1), "classification", True, 1),
        (DecisionTreeClassifier(), np.where(NUMBER > 0, 1.0, 2.0), "classification", True, 1),
        (SVC(), LABEL, "classification", False, 1),
        (MLPClassifier((4,), max_iter=2000, tol=0.1), LABEL, "classification", True, 1),
        (RandomForestClassifier(3), np.c_[NUMBER > 0, NUMBER > 1], "classification", False, 2),
        (KNeighborsClassifier(), np.c_[NUMBER > 0, NUMBER > 1].astype(int), "classification", False, 2),
        (make_pipeline(GridSearchCV(LogisticRegression(), {"C": [1]}, cv=2)), LABEL, "classification", True, 1),
        (VotingClassifier([("l", LogisticRegression()), ("s", SVC())]), LABEL, "classification", False, 1),
        (make_pipeline(XGBClassifier(n_estimators=3)), (NUMBER > 0).astype(int), "classification", True, 1),
        (KMeans(2, n_init=1), None, "other", False, 1),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else None,
)  # fmt: skip
def test_describes_and_answers_as_the_estimator(model: Any, target: Any, task: str, shares: bool, targets: int) -> None:
    model.fit(X, target)
    assert RUNTIME.claims(model)
    facts = RUNTIME.describe(model)
    assert (facts.task, facts.has_probabilities, facts.targets) == (task, shares, targets)
    assert facts.feature_names in (("a", "b", "c"), None)
    if task == "classification":
        assert facts.classes == tuple(np.unique(np.asarray(target)).tolist())
    check_like(model, X)


def test_an_array_model_is_given_an_array() -> None:
    model = LogisticRegression().fit(X.to_numpy(), LABEL)
    facts = RUNTIME.describe(model)
    assert (facts.feature_names, facts.feature_count) == (None, 3)
    assert facts.kind == "sklearn.linear_model.LogisticRegression"
    signature, columns = prepared(model, X)
    answer = RUNTIME.predictor(model, signature)(columns)
    assert answer["prediction"].tolist() == model.predict(X.to_numpy()).tolist()


@pytest.mark.parametrize("missing", [np.nan, None, ""], ids=["nan", "none", "empty"])
def test_missing_text_is_what_the_model_was_fitted_on(missing: Any) -> None:
    texts = RNG.choice(["x", "y"], len(X)).astype(object)
    texts[::7] = missing
    table = X.assign(s=pd.Series(texts, dtype=object), i=RNG.integers(0, 5, len(X)), f=X.a > 0)
    encode = ColumnTransformer([("s", OneHotEncoder(handle_unknown="ignore"), ["s"])], remainder="passthrough")
    gone = [text not in ("x", "y") for text in texts]
    model = make_pipeline(encode, LogisticRegression(max_iter=2000)).fit(table, gone)
    signature = Signature(
        inputs=infer_fields({n: table[n].to_numpy() for n in table}), outputs=output_fields(RUNTIME.describe(model))
    )
    rows = {n: table[n].to_numpy() for n in table}
    rows["s"] = np.array([text if text in ("x", "y") else None for text in texts], dtype=object)
    fields = tuple(type(f)(name=f.name, dtype=f.dtype, nullable=True) if f.name == "s" else f for f in signature.inputs)
    signature = Signature(inputs=fields, outputs=signature.outputs)
    answer = RUNTIME.predictor(model, signature)(signature.input_layout.from_arrays(rows))
    np.testing.assert_array_equal(answer["probabilities"], model.predict_proba(table))


def test_categories_of_pandas_are_known_by_their_texts() -> None:
    table = X.assign(s=pd.Series(RNG.choice(["x", "y", None], len(X)), dtype="category"))
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(table, table.s.isna())
    rows = {n: table[n].astype(object).to_numpy() if n == "s" else table[n].to_numpy() for n in table}
    signature = Signature(inputs=infer_fields(rows), outputs=output_fields(RUNTIME.describe(model)))
    answer = RUNTIME.predictor(model, signature)(signature.input_layout.from_arrays(rows))
    np.testing.assert_array_equal(answer["probabilities"], model.predict_proba(table))


def test_the_callers_rows_are_not_changed() -> None:
    model = make_pipeline(StandardScaler(copy=False), LinearRegression()).fit(X.to_numpy(copy=True), NUMBER)
    signature, columns = prepared(model, X)
    before = columns.blocks[0].copy()
    RUNTIME.predictor(model, signature)(columns)
    np.testing.assert_array_equal(columns.blocks[0], before)


def test_columns_that_the_model_does_not_know_are_named() -> None:
    model = LinearRegression().fit(X, NUMBER)
    signature = Signature(inputs=infer_fields({"a": [1.0], "b": [1.0]}), outputs=output_fields(RUNTIME.describe(model)))
    with pytest.raises(InvalidInput, match="fitted on: a, b, c, got c"):
        RUNTIME.predictor(model, signature)


def test_an_exception_in_the_model_keeps_its_text() -> None:
    model = LinearRegression().fit(X, NUMBER)
    signature, columns = prepared(model, X)
    holed = Columns(columns.layout, [np.full_like(columns.blocks[0], np.nan)], columns.rows)
    with pytest.raises(ModelFailed, match="ValueError: Input X contains NaN"):
        RUNTIME.predictor(model, signature)(holed)


def test_an_unfitted_model_is_told_so() -> None:
    with pytest.raises(InvalidInput, match="has not been fitted"):
        RUNTIME.describe(make_pipeline(StandardScaler(), Ridge()))


class Own(ClassifierMixin, BaseEstimator):
    """An estimator that no list of known types holds."""

    def fit(self, table: Any, target: Any) -> Own:
        self.classes_ = np.unique(target)
        return self

    def predict(self, table: Any) -> Any:
        return np.full(len(table), self.classes_[0])


KEPT = [
    make_pipeline(StandardScaler(), SVC()),
    RandomForestClassifier(3, random_state=0),
    GradientBoostingClassifier(n_estimators=3),
    HistGradientBoostingRegressor(max_iter=3),
    KNeighborsClassifier(),
    GaussianProcessRegressor(),
    MLPClassifier((4,), max_iter=2000, tol=0.1),
    StackingClassifier([("tree", DecisionTreeClassifier(max_depth=2))], cv=2),
    make_pipeline(XGBClassifier(n_estimators=2)),
]


@pytest.mark.parametrize("model", KEPT, ids=lambda model: type(model).__name__)
def test_known_types_are_kept_as_skops_with_equal_bytes(tmp_path: Path, model: Any) -> None:
    model.fit(X, NUMBER if "Regressor" in type(model).__name__ else LABEL == "high")
    signature, columns = prepared(model, X)
    options = RUNTIME.save(model, tmp_path / "once")
    assert options["file"] == "model.skops"
    # A model that comes out of a pickle has other addresses, and shares other objects, than the one that went in.
    RUNTIME.save(pickle.loads(pickle.dumps(model)), tmp_path / "again")
    assert (tmp_path / "once" / "model.skops").read_bytes() == (tmp_path / "again" / "model.skops").read_bytes()
    predict = RUNTIME.load(tmp_path / "once", ModelSpec(runtime="sklearn", options=options), signature)
    expected = RUNTIME.predictor(model, signature)(columns)
    answer = predict(columns)
    for name in expected:
        np.testing.assert_array_equal(answer[name], expected[name])
    assert RUNTIME.claims(tmp_path / "once" / "model.skops")
    assert type(RUNTIME.read(tmp_path / "once" / "model.skops")) is type(model)


def test_other_types_are_kept_as_a_pickle_that_load_refuses(tmp_path: Path) -> None:
    model = Own().fit(X, LABEL)
    signature, columns = prepared(model, X)
    options = RUNTIME.save(model, tmp_path)
    assert options["file"] == "model.pkl"
    assert "not known to be harmless" in options["reason"]
    with pytest.raises(Refused, match="runs code"):
        RUNTIME.load(tmp_path, ModelSpec(runtime="sklearn", options=options), signature)
    # The bundle's own rules decide; then the same function serves.
    model = pickle.loads((tmp_path / "model.pkl").read_bytes())
    assert RUNTIME.predictor(model, signature)(columns).rows == len(X)


def test_what_cannot_be_pickled_is_explained(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(lambda table: table), LinearRegression()).fit(X, NUMBER)
    with pytest.raises(InvalidInput, match="cannot be saved") as caught:
        RUNTIME.save(model, tmp_path)
    assert "lambdas" in caught.value.hint


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from sklearn.ensemble import RandomForestClassifier
from modelyard.runtimes.sklearn import SklearnRuntime
rows = [[float(i % 7), float(i % 3)] for i in range(40)]
model = RandomForestClassifier(3, random_state=0).fit(rows, [i % 2 for i in range(40)])
SklearnRuntime().save(model, Path(sys.argv[1]))
"""
    for name, seed in (("one", "1"), ("two", "2")):
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)],
            check=True, timeout=120, env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    assert (tmp_path / "one" / "model.skops").read_bytes() == (tmp_path / "two" / "model.skops").read_bytes()


@pytest.mark.parametrize("name", ["model.skops", "model.pkl"])
def test_sets_in_a_model_are_written_in_one_order(tmp_path: Path, name: str) -> None:
    script = """
import sys
from pathlib import Path
from sklearn.linear_model import LinearRegression
from modelyard.runtimes.sklearn_files import to_pickle, to_skops
words = "one two three four five six seven eight nine ten".split()
model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
model.texts = set(words)
model.pairs = {(word, 1) for word in words}
if sys.argv[1].endswith(".pkl"):
    model.mixed = {*words, 1, 2.5, None, int, str, len, (1, "one")}
    model.frozen = frozenset(frozenset((word, word * 2)) for word in words)
Path(sys.argv[1]).write_bytes(to_pickle(model) if sys.argv[1].endswith(".pkl") else to_skops(model)[0])
"""
    files = [tmp_path / seed / name for seed in "12"]
    for file in files:
        file.parent.mkdir()
        subprocess.run(
            [sys.executable, "-c", script, str(file)],
            check=True, timeout=120, env={"PYTHONHASHSEED": file.parent.name, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    assert files[0].read_bytes() == files[1].read_bytes() != b""


def test_sets_come_back_from_a_pickle() -> None:
    model = Own()
    model.held = {"a", 1, frozenset({"b", (2, None)})}
    model.ring = {model}  # refers to what holds it
    model.many = set(range(5000))
    back = pickle.loads(to_pickle(model))
    assert (back.held, back.many, back.ring) == (model.held, model.many, {back})


def test_another_version_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"not even a zip")
    signature = Signature(inputs=infer_fields({"a": [1.0]}))
    spec = ModelSpec(runtime="sklearn", options={"file": "model.skops", "versions": {"scikit-learn": "1.3.2"}})
    with pytest.raises(Refused, match=r"another version of scikit-learn: 1\.3\.2") as caught:
        RUNTIME.load(tmp_path, spec, signature)
    assert "pip install 'scikit-learn==1.3.*'" in caught.value.hint


def test_damaged_and_hostile_skops_files(tmp_path: Path) -> None:
    import skops.io

    path = tmp_path / "model.skops"
    path.write_bytes(b"not a zip")
    with pytest.raises(BadBundle, match="cannot be read"):
        RUNTIME.read(path)
    with pytest.raises(BadBundle, match="no such model file"):
        RUNTIME.load(tmp_path, ModelSpec(runtime="sklearn", options={"file": "../x.skops"}), Signature(inputs=()))
    path.write_bytes(skops.io.dumps(Own()))
    with pytest.raises(Refused, match="not known to be harmless") as caught:
        RUNTIME.read(path)
    assert any(name.endswith(".Own") for name in caught.value.details["types"])


def test_claims_what_predicts_and_has_parameters() -> None:
    assert RUNTIME.claims(Ridge())
    assert not RUNTIME.claims(Ridge)
    assert not RUNTIME.claims(StandardScaler())
    assert not RUNTIME.claims(XGBClassifier())
    assert not RUNTIME.claims({"predict": 1})
    assert not RUNTIME.claims(Path("absent.skops"))


def test_claiming_imports_nothing() -> None:
    script = (
        "import sys; from modelyard import plugins; assert not plugins.find('runtimes', 'sklearn').claims(object());"
        "assert not {'sklearn', 'pandas', 'skops', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert plugins.find("runtimes", "sklearn").name == "sklearn"
