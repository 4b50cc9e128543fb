"""Every estimator with a double form: on a numeric table and behind a mixed pipeline with gaps, texts and unseen
categories; regression, two classes, three classes. Trees also at their thresholds and the neighbours of those."""

import warnings

import numpy as np
import pytest
from sklearn import (
    calibration,
    discriminant_analysis,
    dummy,
    ensemble,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    svm,
    tree,
)
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .tables import assert_exact, frame, mixed, numeric, prepare, target

TREES_REGRESSION = [
    tree.DecisionTreeRegressor(random_state=0),
    tree.ExtraTreeRegressor(random_state=0),
    ensemble.RandomForestRegressor(12, random_state=0),
    ensemble.ExtraTreesRegressor(12, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=25, random_state=0),
    ensemble.GradientBoostingRegressor(loss="huber", n_estimators=10, subsample=0.7, random_state=0),
    ensemble.HistGradientBoostingRegressor(max_iter=10, min_samples_leaf=3),
    ensemble.HistGradientBoostingRegressor(max_iter=6, loss="poisson"),
    ensemble.HistGradientBoostingRegressor(max_iter=6, loss="gamma"),
    ensemble.BaggingRegressor(n_estimators=8, max_features=0.6, random_state=0),
]
TREES_CLASSIFICATION = [
    tree.DecisionTreeClassifier(random_state=0, min_samples_leaf=3),
    ensemble.RandomForestClassifier(12, random_state=0),
    ensemble.ExtraTreesClassifier(12, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=12, random_state=0),
    ensemble.HistGradientBoostingClassifier(max_iter=6, min_samples_leaf=3),
    ensemble.BaggingClassifier(n_estimators=8, max_features=0.6, random_state=0),
    ensemble.AdaBoostClassifier(n_estimators=12, random_state=0),
]
REGRESSION = [
    linear_model.LinearRegression(),
    linear_model.Ridge(),
    linear_model.Lasso(0.1),
    linear_model.ElasticNet(0.1),
    linear_model.BayesianRidge(),
    linear_model.HuberRegressor(max_iter=500),
    linear_model.SGDRegressor(random_state=0),
    linear_model.QuantileRegressor(alpha=0.01),
    linear_model.PoissonRegressor(),
    linear_model.GammaRegressor(),
    linear_model.TweedieRegressor(power=1.5),
    linear_model.TweedieRegressor(power=0),
    svm.LinearSVR(random_state=0),
    svm.SVR(),
    svm.SVR(kernel="poly", degree=2),
    svm.SVR(kernel="linear"),
    svm.SVR(kernel="sigmoid"),
    svm.NuSVR(),
    neural_network.MLPRegressor(hidden_layer_sizes=(8, 5), max_iter=60, random_state=0),
    neural_network.MLPRegressor(hidden_layer_sizes=(6,), activation="tanh", max_iter=60, random_state=0),
    neighbors.KNeighborsRegressor(),
    neighbors.KNeighborsRegressor(3, weights="distance"),
    dummy.DummyRegressor(strategy="median"),
    ensemble.VotingRegressor(
        [("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=3))], weights=[1, 3]
    ),
    ensemble.StackingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=3))], cv=3),
    TransformedTargetRegressor(linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1),
    TransformedTargetRegressor(linear_model.Ridge(), transformer=StandardScaler()),
    GridSearchCV(linear_model.Ridge(), {"alpha": [0.1, 1.0]}, cv=3),
]
CLASSIFICATION = [
    linear_model.LogisticRegression(),
    linear_model.LogisticRegressionCV(cv=3, Cs=3),
    linear_model.RidgeClassifier(),
    linear_model.SGDClassifier(random_state=0),
    linear_model.SGDClassifier(loss="log_loss", random_state=0),
    linear_model.SGDClassifier(loss="modified_huber", random_state=0),
    linear_model.Perceptron(random_state=0),
    discriminant_analysis.LinearDiscriminantAnalysis(),
    svm.LinearSVC(random_state=0),
    svm.SVC(),
    svm.SVC(kernel="poly", degree=2),
    svm.SVC(kernel="linear"),
    svm.NuSVC(nu=0.2),
    neural_network.MLPClassifier(hidden_layer_sizes=(8,), max_iter=60, random_state=0),
    neural_network.MLPClassifier(hidden_layer_sizes=(6, 4), activation="logistic", max_iter=60, random_state=0),
    naive_bayes.GaussianNB(),
    naive_bayes.BernoulliNB(),
    neighbors.KNeighborsClassifier(),
    neighbors.KNeighborsClassifier(3, weights="distance"),
    dummy.DummyClassifier(),
    dummy.DummyClassifier(strategy="prior"),
    ensemble.VotingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=3))], voting="soft"
    ),
    ensemble.VotingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=3)), ("c", svm.SVC())]
    ),
    ensemble.StackingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=3))], cv=3
    ),
    calibration.CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=3),
    calibration.CalibratedClassifierCV(tree.DecisionTreeClassifier(max_depth=3), cv=3, method="isotonic"),
    multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
]


def name_of(model):
    changed = ",".join(str(v) for v in vars(model).values() if isinstance(v, (str, float)))[:40]
    return f"{type(model).__name__}({changed})"


def fitted(model, table, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return model.fit(table, y)


def check(model, classes, kind, within):
    if kind == "numeric":
        train, held_out = numeric(), numeric(1, 60)
        scaled = make_pipeline(StandardScaler(), model)
        assert_exact(fitted(scaled, frame(train), target(train, classes)), held_out, within)
    else:
        train, held_out = mixed(), mixed(1, 60, unseen=True)
        piped = make_pipeline(prepare(), model)
        assert_exact(fitted(piped, frame(train), target(train, classes, ["no", "yes", "maybe"])), held_out, within)


@pytest.mark.parametrize("kind", ["numeric", "mixed"])
@pytest.mark.parametrize("model", TREES_REGRESSION, ids=name_of)
def test_trees_regress_to_the_last_digit(model, kind):
    check(model, 0, kind, 1e-12)


@pytest.mark.parametrize("kind", ["numeric", "mixed"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("model", TREES_CLASSIFICATION, ids=name_of)
def test_trees_classify_to_the_last_digit(model, classes, kind):
    check(model, classes, kind, 1e-12)


@pytest.mark.parametrize("kind", ["numeric", "mixed"])
@pytest.mark.parametrize("model", REGRESSION, ids=name_of)
def test_regressors(model, kind):
    check(model, 0, kind, 1e-9)


@pytest.mark.parametrize("kind", ["numeric", "mixed"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("model", CLASSIFICATION, ids=name_of)
def test_classifiers(model, classes, kind):
    check(model, classes, kind, 1e-9)
