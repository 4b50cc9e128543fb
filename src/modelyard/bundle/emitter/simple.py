"""Constant predictions and naive Bayes."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.schema import Array


def _constant(graph: Graph, columns: list[Column], values: Array) -> str:
    """(rows, len(values)): the same values in every row."""
    (source, _), _ = graph.wholes(columns[:1])
    rows = graph.node("Shape", source, start=0, end=1)
    shape = graph.node("Concat", rows, graph.constant([len(values)], "int64"), axis=0)
    return str(graph.node("Expand", graph.constant([values]), shape))


def _dummy_regressor(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    values = np.asarray(model.constant_, dtype="float64").ravel()
    return answers.regression(_constant(graph, columns, values), len(values))


def _dummy_classifier(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if model.strategy in ("stratified", "uniform"):
        raise NotConvertible(f"DummyClassifier(strategy='{model.strategy}') answers at random")
    shares = np.asarray(model.class_prior_, dtype="float64")
    if model.strategy == "constant":
        best = int(np.flatnonzero(model.classes_ == model.constant)[0])
    else:
        best = int(shares.argmax())
    if model.strategy != "prior":
        shares = np.eye(len(shares))[best]
    probabilities = _constant(graph, columns, shares)
    return answers.by_probability(graph, model.classes_, probabilities)


def _softmax(graph: Graph, model: Any, scores: str) -> Answer:
    probabilities = str(graph.node("Softmax", scores, axis=1))
    return Answer(classes=model.classes_, index=answers.largest(graph, scores), probabilities=probabilities)


def _gaussian(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """log P(c) - sum of log(2 pi v) / 2 - sum of (x - m)^2 / v / 2, for each class."""
    wide = graph.node("Unsqueeze", graph.matrix(columns), graph.constant([1], "int64"))
    away = graph.node("Sub", wide, graph.constant(model.theta_))
    squares = graph.node("Div", graph.node("Mul", away, away), graph.constant(model.var_))
    total = graph.node("ReduceSum", squares, graph.constant([2], "int64"), keepdims=0)
    start = np.log(model.class_prior_) - 0.5 * np.log(2.0 * np.pi * model.var_).sum(axis=1)
    half = graph.node("Mul", total, graph.constant(-0.5))
    return _softmax(graph, model, graph.node("Add", half, graph.constant(start)))


def _multinomial(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    scores = graph.linear(columns, model.feature_log_prob_.T, model.class_log_prior_)
    return _softmax(graph, model, scores)


def _complement(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    bias = model.class_log_prior_ if len(model.classes_) == 1 else None
    return _softmax(graph, model, graph.linear(columns, model.feature_log_prob_.T, bias))


def _bernoulli(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if model.binarize is not None:
        above = graph.node("Greater", graph.matrix(columns), graph.constant(float(model.binarize)))
        graph.decides_at(columns, range(len(columns)), [float(model.binarize)] * len(columns))
        columns = graph.columns(graph.cast(above, "float64"), len(columns))
    absent = np.log(1 - np.exp(model.feature_log_prob_))
    bias = model.class_log_prior_ + absent.sum(axis=1)
    return _softmax(graph, model, graph.linear(columns, (model.feature_log_prob_ - absent).T, bias))


FORMS = {
    "DummyRegressor": _dummy_regressor,
    "DummyClassifier": _dummy_classifier,
    "GaussianNB": _gaussian,
    "MultinomialNB": _multinomial,
    "ComplementNB": _complement,
    "BernoulliNB": _bernoulli,
}
