"""What an estimator gives, and how it becomes the graph's outputs.

Every tensor has shape (rows, something), also the predictions of a single target: (rows, 1) is how a block of scalar
outputs is stored, so the runtime hands it on as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.schema import Array


@dataclass
class Answer:
    """Names of tensors. A regressor sets ``value`` (rows, targets); a classifier ``classes`` and ``index`` (rows, 1):
    the place of the predicted class; and ``probabilities`` (rows, classes), ``decision`` (rows, 1 or classes) where
    the model has them."""

    value: str = ""
    targets: int = 1
    classes: Array | None = None
    index: str = ""
    probabilities: str = ""
    decision: str = ""
    #: Labels from another converter, instead of ``index``.
    label: str = ""


def regression(value: str, targets: int = 1) -> Answer:
    return Answer(value=value, targets=targets)


def by_probability(graph: Graph, classes: Array, probabilities: str) -> Answer:
    """The most probable class; the first of equals, as ``numpy.argmax``."""
    return Answer(classes=classes, probabilities=probabilities, index=largest(graph, probabilities))


def largest(graph: Graph, scores: str) -> str:
    """(rows, 1): the place of the largest score in each row, the first of equals."""
    return str(graph.node("ArgMax", scores, axis=1, keepdims=1))


def above(graph: Graph, score: str, limit: float = 0.0) -> str:
    """(rows, 1): 1 where a score is above a limit."""
    return graph.cast(str(graph.node("Greater", score, graph.constant([limit]))), "int64")


def two_classes(graph: Graph, score: str, factor: float = 1.0) -> str:
    """(rows, 2): the probabilities of two classes, sigmoid(factor * score) being the second's.

    As a softmax of 0 and the score: ONNX Runtime's Sigmoid keeps no digits of small probabilities.
    """
    return str(graph.node("Softmax", graph.node("Mul", score, graph.constant([[0.0, factor]])), axis=1))


def sigmoid(graph: Graph, score: str) -> str:
    """1 / (1 + exp(-score)) with all its digits also where it is small."""
    one = graph.constant(1.0)
    return str(graph.node("Div", one, graph.node("Add", one, graph.node("Exp", graph.node("Neg", score)))))


def divided(graph: Graph, shares: str, classes: int) -> str:
    """(rows, classes): shares divided by their sum; all alike in rows where that is nothing."""
    total = graph.node("ReduceSum", shares, graph.constant([1], "int64"), keepdims=1)
    none = graph.node("Equal", total, graph.constant(0.0))
    quotient = graph.node("Div", shares, graph.node("Where", none, graph.constant(1.0), total))
    return str(graph.node("Where", none, graph.constant([[1.0 / classes] * classes]), quotient))


def both(graph: Graph, positive: str) -> str:
    """(rows, 2): the probabilities of two classes from that of the second."""
    return str(graph.node("Gemm", positive, graph.constant([[-1.0, 1.0]]), graph.constant([1.0, 0.0])))


def label(graph: Graph, answer: Answer) -> tuple[str, str]:
    """The tensor of predicted labels in their own type, and its dtype."""
    classes = np.asarray(answer.classes)
    kind: str = classes.dtype.kind
    if kind == "O":
        types = {type(label) for label in classes.tolist()}
        kind = {frozenset({str}): "U", frozenset({bool}): "b", frozenset({int}): "i"}.get(frozenset(types), "O")
    if kind not in "Ubifu":
        raise NotConvertible(f"class labels of type {classes.dtype} have no ONNX form", "use texts or whole numbers")
    dtype = {"U": "object", "b": "bool", "i": "int64", "u": "int64", "f": "float64"}[kind]
    if answer.label:
        return answer.label, dtype
    if dtype == "int64" and classes.tolist() == list(range(len(classes))):
        return answer.index, dtype
    return str(graph.node("Gather", graph.constant(classes, dtype), answer.index)), dtype


def outputs(graph: Graph, answer: Answer) -> tuple[list[Any], list[dict[str, Any]]]:
    """The graph's outputs ``prediction`` and ``probabilities``, and the runtime's entries for them."""
    from onnx import helper

    double = helper.np_dtype_to_tensor_dtype(np.dtype("float64"))
    if answer.classes is None:
        made = [("prediction", answer.value, double, answer.targets)]
    else:
        name, dtype = label(graph, answer)
        made = [("prediction", name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), 1)]
        if answer.probabilities:
            made.append(("probabilities", answer.probabilities, double, len(answer.classes)))
    values = []
    for output, name, kind, width in made:
        graph.rename(name, output)
        values.append(helper.make_tensor_value_info(output, kind, [None, width]))
    return values, [{"tensor": output, "field": output} for output, *_ in made]
