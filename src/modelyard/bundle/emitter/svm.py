"""Support vector machines with the kernels of libsvm: one product with the support vectors, then one with the
coefficients."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers, foreign
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.schema import Array


def _kernel(graph: Graph, model: Any, columns: list[Column]) -> str:
    """(rows, support vectors) of kernel values."""
    vectors = np.asarray(model.support_vectors_, dtype="float64")
    gamma = model._gamma
    if model.kernel == "rbf":
        # |x - s|^2 = |x|^2 + |s|^2 - 2 x s, with x and s taken from the vectors' centre so that little cancels.
        centre = vectors.mean(axis=0)
        near = vectors - centre
        moved = graph.elementwise(columns, [("Sub", centre)])
        x = graph.matrix(moved)
        size = graph.node("ReduceSum", graph.node("Mul", x, x), graph.constant([1], "int64"), keepdims=1)
        product = graph.node("Gemm", x, graph.constant(-2.0 * near.T), graph.constant((near**2).sum(axis=1)))
        distance = graph.node("Max", graph.node("Add", product, size), graph.constant(0.0))
        return str(graph.node("Exp", graph.node("Mul", distance, graph.constant(-gamma))))
    if model.kernel == "poly":
        inner = graph.linear(columns, gamma * vectors.T, np.full(len(vectors), float(model.coef0)))
        return str(graph.node("Pow", inner, graph.constant(float(model.degree))))
    if model.kernel == "sigmoid":
        return str(
            graph.node("Tanh", graph.linear(columns, gamma * vectors.T, np.full(len(vectors), float(model.coef0))))
        )
    raise NotConvertible(f"the kernel {model.kernel!r} has no ONNX form", "use rbf, linear, poly or sigmoid")


def _sums(graph: Graph, model: Any, columns: list[Column], weights: Array, bias: Array) -> str:
    """(rows, outputs): kernel values @ weights + bias. A linear kernel needs no support vectors."""
    if hasattr(model.support_vectors_, "toarray"):
        raise NotConvertible("it was fitted on sparse rows", "fit it on dense rows")
    if model.kernel == "linear":
        return graph.linear(columns, np.asarray(model.support_vectors_).T @ weights, bias)
    return str(graph.node("Gemm", _kernel(graph, model, columns), graph.constant(weights), graph.constant(bias)))


def _regressor(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    return answers.regression(_sums(graph, model, columns, model._dual_coef_.T, np.asarray(model._intercept_)))


def _classifier(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    classes = len(model.classes_)
    if model.probability is True:
        # libsvm couples pairs by an iteration that it stops early; ONNX Runtime's own operator repeats it.
        return foreign.estimate(graph, model, columns)
    if classes == 2:
        return _two_classes(graph, model, columns)
    weights, bias = _pairs(model)
    decision = _sums(graph, model, columns, weights, bias)
    return Answer(classes=model.classes_, index=_most_votes(graph, decision, classes, model))


def _two_classes(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    # libsvm's own sign is positive for the first class, scikit-learn's for the second.
    decision = _sums(graph, model, columns, -model._dual_coef_.T, -np.asarray(model._intercept_))
    at_least = graph.node("GreaterOrEqual", decision, graph.constant([0.0]))
    return Answer(classes=model.classes_, index=graph.cast(at_least, "int64"), decision=decision)


def _pairs(model: Any) -> tuple[Array, Array]:
    """(support vectors, pairs) coefficients of the one-against-one decisions, as libsvm stores them."""
    counts = np.asarray(model._n_support)
    starts = np.concatenate([[0], np.cumsum(counts)])
    pairs = list(combinations(range(len(counts)), 2))
    weights = np.zeros((int(starts[-1]), len(pairs)))
    for p, (i, j) in enumerate(pairs):
        for one, other in ((i, j - 1), (j, i)):
            rows = slice(int(starts[one]), int(starts[one + 1]))
            weights[rows, p] = model._dual_coef_[other, rows]
    return weights, np.asarray(model._intercept_, dtype="float64")


def _most_votes(graph: Graph, decision: str, classes: int, model: Any) -> str:
    """(rows, 1): the class that wins most pairs; the first of equals."""
    if model.break_ties:
        raise NotConvertible("SVC(break_ties=True) has no form", "leave break_ties off")
    pairs = list(combinations(range(classes), 2))
    votes, start = np.zeros((len(pairs), classes)), np.zeros(classes)
    for p, (i, j) in enumerate(pairs):
        votes[p, i], votes[p, j] = 1.0, -1.0
        start[j] += 1.0
    wins = graph.cast(str(graph.node("Greater", decision, graph.constant(0.0))), "float64")
    return answers.largest(graph, str(graph.node("Gemm", wins, graph.constant(votes), graph.constant(start))))


FORMS = {"SVR": _regressor, "NuSVR": _regressor, "SVC": _classifier, "NuSVC": _classifier}
