"""XGBoost and LightGBM: their runtimes read the trees off, exactly; here they join the same graph as all others."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers, encoding, trees
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import BOOSTED, Graph, NotConvertible
from modelyard.runtimes.forest import Forest, NoForest
from modelyard.schema import Array

#: LightGBM takes values of at most this magnitude for zero before it compares them.
NOTHING = float(np.float32(1e-35))


def maker_of(model: Any) -> str:
    """ "xgboost" or "lightgbm" for their models, else ""."""
    library = type(model).__module__.partition(".")[0]
    return library if library in ("xgboost", "lightgbm") else ""


def estimate(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """Raises NotConvertible for boosters that are not made of plain trees."""
    runtime = importlib.import_module(f"modelyard.runtimes.{maker_of(model)}")
    try:
        forest: Forest = runtime.forest_of(model)
    except NoForest as error:
        raise NotConvertible(str(error), "use a tree booster with an objective of the library") from error
    if maker_of(model) == "xgboost":
        graph.tolerance = max(graph.tolerance, BOOSTED)  # it adds up its leaves in float32
    else:
        for tree in forest.trees:
            tree.threshold = _around_zero(np.asarray(tree.threshold, dtype="float64"))
    codes = runtime.codes_of(runtime.booster_of(model), tuple(map(str, range(len(columns)))))
    columns = _coded(graph, columns, {int(place): known for place, known in codes.items()})
    columns = _with_missing(graph, forest, columns)
    for target in np.flatnonzero(forest.base):
        first = next((tree for tree in forest.trees if tree.target == target), None)
        if first is None:
            raise NotConvertible("it has no tree for one of its targets")
        first.leaves = np.asarray(first.leaves, dtype="float64") + forest.base[target]
    raw = trees.ensemble(graph, columns, forest.trees, targets=forest.targets)
    return _answer(graph, forest, raw)


def _around_zero(thresholds: Array) -> Array:
    """Limits on the untouched value: all that is taken for zero goes the way of zero."""
    inside = np.abs(thresholds) <= NOTHING
    return np.where(inside, np.where(thresholds < 0, np.nextafter(-NOTHING, -np.inf), NOTHING), thresholds)


def _coded(graph: Graph, columns: list[Column], codes: dict[int, dict[Any, int]]) -> list[Column]:
    """Columns of categories as the codes that the booster was fitted on; one it never saw is missing."""
    if not codes:
        return columns
    places = sorted(codes)
    tables = [
        (list(codes[i]), np.array([[float(code)] for code in codes[i].values()]), np.array([np.nan])) for i in places
    ]
    found = graph.columns(encoding.lookup(graph, [columns[i] for i in places], tables), len(places), nullable=True)
    replaced = dict(zip(places, found, strict=True))
    return [replaced.get(i, column) for i, column in enumerate(columns)]


def _with_missing(graph: Graph, forest: Forest, columns: list[Column]) -> list[Column]:
    """NaN for the other values that the booster takes for missing."""
    gone = ""
    if forest.missing is not None:
        gone = graph.node("Equal", graph.matrix(columns), graph.constant(float(forest.missing)))
    elif forest.zero_is_missing:
        gone = graph.node("LessOrEqual", graph.node("Abs", graph.matrix(columns)), graph.constant(NOTHING))
    if not gone:
        return columns
    name = graph.node("Where", gone, graph.constant(np.nan), graph.matrix(columns))
    return graph.columns(name, len(columns), columns, nullable=True)


def _answer(graph: Graph, forest: Forest, raw: str) -> Answer:
    if forest.classes is None:
        return answers.regression(_linked(graph, forest, raw), forest.targets)
    classes = np.asarray(forest.classes)
    if not forest.has_probabilities:
        return Answer(classes=classes, index=answers.above(graph, raw), decision=raw)
    if forest.targets == 1:
        return answers.by_probability(graph, classes, answers.two_classes(graph, raw, forest.slope))
    return answers.by_probability(graph, classes, _linked(graph, forest, raw))


def _linked(graph: Graph, forest: Forest, raw: str) -> str:
    """Predictions from raw scores."""
    if forest.link == "sigmoid":
        return answers.sigmoid(graph, graph.node("Mul", raw, graph.constant(forest.slope)))
    if forest.link == "softmax":
        return str(graph.node("Softmax", raw, axis=1))
    if forest.link == "exp":
        return str(graph.node("Exp", raw))
    if forest.link == "softplus":
        return str(graph.node("Log", graph.node("Add", graph.node("Exp", raw), graph.constant(1.0))))
    if forest.link == "square":
        return str(graph.node("Mul", raw, graph.node("Abs", raw)))
    return raw
