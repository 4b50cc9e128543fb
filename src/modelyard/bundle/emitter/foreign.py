"""Estimators without a form of ours: converted alone by skl2onnx, and joined behind our graph.

The double preprocessing stays ours; what the other converter takes in float32 is rounded only at its door.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import OPSET, SINGLE, Graph, NotConvertible
from modelyard.errors import BadBundle, MissingDependency

#: The newest version of the ai.onnx.ml operators whose tree operators the other converters know.
OLD_ML_OPSET = 3


def estimate(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """The answer of an estimator through skl2onnx. Raises NotConvertible where that has no converter either."""
    if type(model).__module__.split(".")[0] != "sklearn":
        raise NotConvertible(f"{type(model).__name__} has no ONNX form", "it is no estimator that Modelyard knows")
    made, dtype = _convert(model, len(columns))
    matrix = graph.matrix(columns)
    outputs = join(graph, made, matrix if dtype == "float64" else graph.cast(matrix, "float32"))
    graph.foreign.append("skl2onnx")
    graph.tolerance = max(graph.tolerance, SINGLE)
    if not hasattr(model, "classes_"):
        targets = np.atleast_1d(getattr(model, "n_outputs_", 1))[0]
        value = graph.node("Reshape", outputs[0], graph.constant([-1, int(targets)], "int64"))
        return answers.regression(graph.cast(value, "float64"), int(targets))
    label = graph.node("Reshape", outputs[0], graph.constant([-1, 1], "int64"))
    answer = Answer(classes=np.asarray(model.classes_), label=label)
    if len(outputs) > 1 and hasattr(model, "predict_proba"):
        answer.probabilities = graph.cast(outputs[1], "float64")
    return answer


def _convert(model: Any, width: int) -> tuple[Any, str]:
    """The estimator's own graph with one (rows, width) input, in double where ONNX Runtime can run it so."""
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    except ImportError as error:
        raise MissingDependency.extra("skl2onnx", "sklearn", "converting this estimator to ONNX") from error
    from modelyard.runtimes.onnx_session import open_session

    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    opsets = {"": OPSET, "ai.onnx.ml": OLD_ML_OPSET}
    reason = ""
    for kind, dtype in ((DoubleTensorType, "float64"), (FloatTensorType, "float32")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logging.getLogger("skl2onnx").setLevel(logging.ERROR)
                made = convert_sklearn(
                    model, initial_types=[("X", kind([None, width]))], options=options, target_opset=opsets
                )
        except Exception as error:  # skl2onnx raises whatever its converters stumble over
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            continue
        try:
            open_session(made.SerializeToString())
        except BadBundle as error:
            reason = error.message
            continue
        return made, dtype
    raise NotConvertible(f"{type(model).__name__} has no ONNX form: {reason}", "use another estimator")


def join(graph: Graph, made: Any, tensor: str) -> list[str]:
    """Add the nodes of a model with one input, fed from ``tensor``; returns the names of its outputs."""
    from onnx import compose

    prefix = graph.name("part") + "_"
    part = compose.add_prefix(made, prefix).graph
    given = part.input[0].name
    for node in part.node:
        for i, name in enumerate(node.input):
            if name == given:
                node.input[i] = tensor
        if node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            graph.ml_opset = OLD_ML_OPSET
        graph.nodes.append(node)
    graph.initializers.extend(part.initializer)
    return [value.name for value in part.output]
