"""Linear and generalised linear models: one matrix product, then a link."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.schema import Array


def _weights(model: Any) -> tuple[Array, Array]:
    """(columns, outputs) weights and (outputs,) bias."""
    weights = np.asarray(model.coef_, dtype="float64")
    weights = weights.reshape(1, -1) if weights.ndim == 1 else weights
    bias = np.broadcast_to(np.asarray(model.intercept_, dtype="float64").ravel(), (len(weights),))
    return weights.T, bias


def _regressor(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    weights, bias = _weights(model)
    return answers.regression(graph.linear(columns, weights, bias), weights.shape[1])


def _log_regressor(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """Poisson and Gamma regression have a log link; Tweedie's is the identity for power <= 0 unless told."""
    link = getattr(model, "link", "log")
    if link == "auto":
        link = "identity" if model.power <= 0 else "log"
    weights, bias = _weights(model)
    raw = graph.linear(columns, weights, bias)
    return answers.regression(raw if link == "identity" else str(graph.node("Exp", raw)))


def decide(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """A classifier by its decision function alone: the largest score, or the sign of the only one."""
    weights, bias = _weights(model)
    score = graph.linear(columns, weights, bias)
    index = answers.above(graph, score) if weights.shape[1] == 1 else answers.largest(graph, score)
    return Answer(classes=model.classes_, index=index, decision=score)


def _logistic(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if len(model.classes_) == 2:
        return two_sided(graph, model, columns)
    one_to_rest = model.solver == "liblinear" or getattr(model, "multi_class", "deprecated") == "ovr"
    weights, bias = _weights(model)
    score = graph.linear(columns, weights, bias)
    probabilities = (
        shares(graph, score, len(model.classes_)) if one_to_rest else str(graph.node("Softmax", score, axis=1))
    )
    return Answer(
        classes=model.classes_, index=answers.largest(graph, score), probabilities=probabilities, decision=score
    )


def two_sided(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """Two classes: the scores 0 and d in one product, whose softmax is 1 - sigmoid(d) and sigmoid(d)."""
    weights, bias = _weights(model)
    sides = [0.0, 2.0 if getattr(model, "multi_class", "") == "multinomial" else 1.0]  # until scikit-learn 1.7
    scores = graph.linear(columns, weights * sides, bias * sides)
    probabilities = str(graph.node("Softmax", scores, axis=1))
    return Answer(
        classes=model.classes_,
        index=answers.largest(graph, scores),
        probabilities=probabilities,
        decision=str(graph.node("Gather", scores, graph.constant([1], "int64"), axis=1)),
    )


def shares(graph: Graph, score: str, classes: int) -> str:
    """Sigmoids of one-against-rest scores, divided by their sum; all alike where that is nothing."""
    return answers.divided(graph, answers.sigmoid(graph, score), classes)


def _descent(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """SGDClassifier: probabilities for the losses that define them."""
    if model.loss == "log_loss":
        if len(model.classes_) == 2:
            return two_sided(graph, model, columns)
        answer = decide(graph, model, columns)
        answer.probabilities = shares(graph, answer.decision, len(model.classes_))
        return answer
    answer = decide(graph, model, columns)
    if model.loss == "modified_huber":
        answer.probabilities = _huber_shares(graph, answer.decision, len(model.classes_))
    return answer


def _huber_shares(graph: Graph, score: str, classes: int) -> str:
    clipped = graph.node("Clip", score, graph.constant(-1.0), graph.constant(1.0))
    half = graph.node("Div", graph.node("Add", clipped, graph.constant(1.0)), graph.constant(2.0))
    if classes == 2:
        return answers.both(graph, half)
    return answers.divided(graph, half, classes)


def _one_against_rest(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """RidgeClassifier: several outputs may also mean several labels at once, which have no single class."""
    if getattr(model, "_label_binarizer", None) is not None and model._label_binarizer.y_type_.startswith("multilabel"):
        raise NotConvertible("a classifier of several labels at once has no single prediction")
    return decide(graph, model, columns)


def _discriminant(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if len(model.classes_) == 2:
        return two_sided(graph, model, columns)
    answer = decide(graph, model, columns)
    answer.probabilities = str(graph.node("Softmax", answer.decision, axis=1))
    return answer


FORMS = {
    **dict.fromkeys(
        (
            "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC",
            "ElasticNet", "ElasticNetCV", "Lars", "LarsCV", "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV",
            "BayesianRidge", "ARDRegression", "HuberRegressor", "TheilSenRegressor", "QuantileRegressor",
            "SGDRegressor", "PassiveAggressiveRegressor", "LinearSVR", "MultiTaskLasso", "MultiTaskElasticNet",
            "MultiTaskLassoCV", "MultiTaskElasticNetCV",
        ),
        _regressor,
    ),
    **dict.fromkeys(("PoissonRegressor", "GammaRegressor", "TweedieRegressor"), _log_regressor),
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _logistic),
    **dict.fromkeys(("RidgeClassifier", "RidgeClassifierCV"), _one_against_rest),
    **dict.fromkeys(("LinearSVC", "Perceptron", "PassiveAggressiveClassifier"), decide),
    "SGDClassifier": _descent,
    "LinearDiscriminantAnalysis": _discriminant,
}  # fmt: skip
