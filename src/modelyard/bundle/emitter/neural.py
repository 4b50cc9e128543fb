"""Multi-layer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible

ACTIVATIONS = {"identity": "", "relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "exp": "Exp"}


def _layers(graph: Graph, model: Any, columns: list[Column]) -> str:
    """(rows, outputs): the last layer before its activation."""
    activation = ACTIVATIONS[model.activation]
    name = graph.linear(columns, model.coefs_[0], model.intercepts_[0])
    for weights, bias in zip(model.coefs_[1:], model.intercepts_[1:], strict=True):
        if activation:
            name = graph.node(activation, name)
        name = graph.node("Gemm", name, graph.constant(weights), graph.constant(bias))
    return name


def _regressor(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    value = _layers(graph, model, columns)
    if last := ACTIVATIONS[model.out_activation_]:
        value = graph.node(last, value)
    return answers.regression(value, model.n_outputs_)


def _classifier(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if model._label_binarizer.y_type_.startswith("multilabel"):
        raise NotConvertible("a classifier of several labels at once has no single prediction")
    score = _layers(graph, model, columns)
    if model.out_activation_ == "softmax":
        probabilities = graph.node("Softmax", score, axis=1)
    else:
        probabilities = answers.two_classes(graph, score)
    return answers.by_probability(graph, np.asarray(model.classes_), probabilities)


FORMS = {"MLPRegressor": _regressor, "MLPClassifier": _classifier}
