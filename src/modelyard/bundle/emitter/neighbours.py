"""Nearest neighbours by Euclidean distance."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers, foreign
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph
from modelyard.schema import Array

#: Bytes that the matrix of closeness to every known row may take at once.
CLOSENESS_BYTES = 64 * 2**20


def _weighed(graph: Graph, model: Any, columns: list[Column], table: Array) -> str:
    """(rows, width): the mean of the nearest rows of ``table``, weighted as the model says."""
    known = np.asarray(model._fit_X, dtype="float64")
    count = model.n_neighbors
    graph.max_rows = min(graph.max_rows or 2**31, max(1, CLOSENESS_BYTES // (8 * len(known))))
    # The nearest have the largest 2 x k - |k|^2: that is |x|^2 less the squared distance. Both from the centre of
    # the known rows, so that little cancels.
    centre = known.mean(axis=0)
    near = known - centre
    x = graph.matrix(graph.elementwise(columns, [("Sub", centre)]))
    closeness = graph.node("Gemm", x, graph.constant(2.0 * near.T), graph.constant(-(near**2).sum(axis=1)))
    _, places = graph.node("TopK", closeness, graph.constant([count], "int64"), axis=1, outputs=2)
    rows = graph.node("Gather", graph.constant(table), places, axis=0)
    axis = graph.constant([1], "int64")
    if model.weights == "uniform":
        return str(graph.node("ReduceMean", rows, axis, keepdims=0))
    weights = _inverse_distances(graph, known, columns, places)
    wide = graph.node("Unsqueeze", weights, graph.constant([2], "int64"))
    total = graph.node("ReduceSum", graph.node("Mul", rows, wide), axis, keepdims=0)
    return str(graph.node("Div", total, graph.node("ReduceSum", weights, axis, keepdims=1)))


def _inverse_distances(graph: Graph, known: Array, columns: list[Column], places: str) -> str:
    """(rows, neighbours): 1 / distance; where one is at no distance, 1 for such and 0 for the others."""
    chosen = graph.node("Gather", graph.constant(known), places, axis=0)
    x = graph.node("Unsqueeze", graph.matrix(columns), graph.constant([1], "int64"))
    away = graph.node("Sub", chosen, x)
    squares = graph.node("ReduceSum", graph.node("Mul", away, away), graph.constant([2], "int64"), keepdims=0)
    distance = graph.node("Sqrt", squares)
    zero = graph.node("Equal", distance, graph.constant(0.0))
    at_none = graph.cast(zero, "float64")
    some = graph.node("ReduceMax", at_none, graph.constant([1], "int64"), keepdims=1)
    some_zero = graph.node("Greater", some, graph.constant(0.0))
    return str(graph.node("Where", some_zero, at_none, graph.node("Div", graph.constant(1.0), distance)))


def _is_plain(model: Any) -> bool:
    euclidean = model.effective_metric_ == "euclidean" or (
        model.effective_metric_ == "minkowski" and model.effective_metric_params_.get("p", 2) == 2
    )
    return euclidean and model.weights in ("uniform", "distance") and isinstance(model._fit_X, np.ndarray)


def _classifier(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if not _is_plain(model):
        return foreign.estimate(graph, model, columns)
    table = np.eye(len(model.classes_))[np.asarray(model._y).ravel()]
    return answers.by_probability(graph, model.classes_, _weighed(graph, model, columns, table))


def _regressor(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if not _is_plain(model):
        return foreign.estimate(graph, model, columns)
    table = np.asarray(model._y, dtype="float64").reshape(len(model._fit_X), -1)
    return answers.regression(_weighed(graph, model, columns, table), table.shape[1])


FORMS = {"KNeighborsClassifier": _classifier, "KNeighborsRegressor": _regressor}
