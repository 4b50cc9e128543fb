"""Decision trees and what is made of them: forests, bagging, gradient boosting, histogram gradient boosting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers, trees
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.runtimes.forest import Tree
from modelyard.schema import Array

#: Bytes that an inner tensor of leaves may take at once; rows are run in portions that keep to it.
LEAF_BYTES = 64 * 2**20


#: Estimators that are one tree.
SINGLE = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")


def total(graph: Graph, columns: list[Column], members: Sequence[Any], values: list[Array]) -> str:
    """(rows, width): the sum over trees of the rows of ``values`` (nodes, width) in their leaves."""
    if values[0].shape[1] == 1:
        made = [trees.of_sklearn(member, value[:, 0]) for member, value in zip(members, values, strict=True)]
        return trees.ensemble(graph, columns, made)
    return _leaf_table(graph, columns, members, [None] * len(members), values, "ReduceSum")


def _averaged(graph: Graph, columns: list[Column], members: Sequence[Any], chosen: Sequence[Array | None]) -> str:
    """(rows, width): the mean over trees of the rows of values in their leaves."""
    values = [_values(member) for member in members]
    width = values[0].shape[1]
    if width == 1:
        made = [trees.of_sklearn(m, v[:, 0], 0, c) for m, v, c in zip(members, values, chosen, strict=True)]
        return trees.ensemble(graph, columns, made, average=len(made) > 1)
    return _leaf_table(graph, columns, members, chosen, values, "ReduceMean")


def _leaf_table(
    graph: Graph,
    columns: list[Column],
    members: Sequence[Any],
    chosen: Sequence[Array | None],
    values: list[Array],
    reduce: str,
) -> str:
    """A leaf of ``TreeEnsemble`` holds one number: here its place in a table of all leaves, so that a tree is walked
    once for all classes. One output a tree, then the rows of the table, then their mean or sum."""
    before, made = 0, []
    for target, (member, nodes, places) in enumerate(zip(members, values, chosen, strict=True)):
        made.append(trees.of_sklearn(member, np.arange(before, before + len(nodes)), target, places))
        before += len(nodes)
    found = graph.cast(trees.ensemble(graph, columns, made, targets=len(members)), "int64")
    rows: str = graph.node("Gather", graph.constant(np.concatenate(values)), found, axis=0)
    width = values[0].shape[1]
    graph.max_rows = min(graph.max_rows or 2**31, max(1, LEAF_BYTES // (8 * width * len(members))))
    return str(graph.node(reduce, rows, graph.constant([1], "int64"), keepdims=0))


def _values(estimator: Any) -> Array:
    """(nodes, width): class shares or targets in each node. Two classes are told by the second alone."""
    raw = np.asarray(estimator.tree_.value, dtype="float64")
    if not hasattr(estimator, "classes_"):
        return raw[:, :, 0]
    if raw.shape[1] > 1:
        raise NotConvertible("a classifier of several targets has no single prediction")
    shares = raw[:, 0, :]
    # Before scikit-learn 1.3 nodes held counts.
    shares = shares / shares.sum(axis=1, keepdims=True) if not np.allclose(shares.sum(axis=1), 1.0) else shares
    return shares[:, 1:] if shares.shape[1] == 2 else shares


def _vote(graph: Graph, model: Any, columns: list[Column], members: Sequence[Any], chosen: Sequence[Any]) -> Answer:
    average = _averaged(graph, columns, members, chosen)
    if not hasattr(model, "classes_"):
        return answers.regression(average, _values(members[0]).shape[1])
    if len(model.classes_) == 2:
        average = answers.both(graph, average)
    return answers.by_probability(graph, np.asarray(model.classes_), average)


def _tree(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    return _vote(graph, model, columns, [model], [None])


def _forest(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    return _vote(graph, model, columns, model.estimators_, [None] * len(model.estimators_))


def _bagging(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    strangers = {type(member).__name__ for member in model.estimators_} - set(SINGLE)
    if strangers:
        raise NotConvertible(f"{type(model).__name__} of {strangers.pop()} has no double form", "bag decision trees")
    if any(len(getattr(m, "classes_", ())) != len(getattr(model, "classes_", ())) for m in model.estimators_):
        raise NotConvertible("a member has not seen every class", "use more rows or stratified samples")
    return _vote(graph, model, columns, model.estimators_, list(model.estimators_features_))


# -- boosting ----------------------------------------------------------------------------------------------------


def _link(graph: Graph, classes: Array | None, raw: str, width: int, inclusive: bool) -> Answer:
    """From raw scores to an answer. ``inclusive``: a score of exactly 0 is the second class."""
    if classes is None:
        return answers.regression(raw, width)
    if width > 1:
        probabilities = str(graph.node("Softmax", raw, axis=1))
        index = answers.largest(graph, raw)
    else:
        probabilities = answers.two_classes(graph, raw)
        if inclusive:
            above = graph.node("GreaterOrEqual", raw, graph.constant([0.0]))
            index = graph.cast(above, "int64")
        else:
            index = answers.largest(graph, probabilities)
    return Answer(classes=classes, index=index, probabilities=probabilities, decision=raw)


def _gradient_boosting(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    width = model.estimators_.shape[1]
    classes = getattr(model, "classes_", None)
    start = _constant_start(model, width)
    made: list[Tree] = []
    for stage, members in enumerate(model.estimators_):
        for target, member in enumerate(members):
            leaves = model.learning_rate * member.tree_.value[:, 0, 0]
            # The start goes into the first tree's leaves: the same sum in the same order.
            made.append(trees.of_sklearn(member, leaves + (start[target] if stage == 0 else 0.0), target))
    raw = trees.ensemble(graph, columns, made, targets=width)
    if classes is not None and model.loss == "exponential":
        above = graph.cast(graph.node("GreaterOrEqual", raw, graph.constant([0.0])), "int64")
        shares = answers.two_classes(graph, raw, 2.0)
        return Answer(classes=classes, index=above, probabilities=shares, decision=raw)
    return _link(graph, classes, raw, width, inclusive=True)


def _constant_start(model: Any, width: int) -> Array:
    """What boosting starts from; scikit-learn asks its init estimator, which here must not depend on the row."""
    kind = type(model.init_).__name__
    if model.init_ == "zero" if isinstance(model.init_, str) else False:
        return np.zeros(width)
    if kind not in ("DummyClassifier", "DummyRegressor"):
        raise NotConvertible(f"gradient boosting that starts from {kind} has no form", "leave init at its default")
    row = np.zeros((1, model.n_features_in_), dtype="float32")
    return np.asarray(model._raw_predict_init(row), dtype="float64").ravel()


def _histogram_boosting(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if getattr(model, "_preprocessor", None) is not None:
        columns = _hist_columns(graph, model._preprocessor, columns)

    width = model.n_trees_per_iteration_
    start = np.asarray(model._baseline_prediction, dtype="float64").ravel()
    made = [
        _hist_tree(predictor, target, start[target] if stage == 0 else 0.0)
        for stage, predictors in enumerate(model._predictors)
        for target, predictor in enumerate(predictors)
    ]
    raw = trees.ensemble(graph, columns, made, targets=width)
    classes = getattr(model, "classes_", None)
    if classes is None and model.loss in ("poisson", "gamma"):
        raw = str(graph.node("Exp", raw))
    return _link(graph, classes, raw, width, inclusive=False)


def _hist_columns(graph: Graph, preprocessor: Any, columns: list[Column]) -> list[Column]:
    """HistGradientBoosting puts its categorical columns first, as codes; the others pass."""
    from modelyard.bundle.emitter.encoding import FORMS

    branches = preprocessor._transformer_to_input_indices
    encoded = [columns[int(i)] for i in branches["encoder"]]
    encoded = FORMS["OrdinalEncoder"](graph, preprocessor.named_transformers_["encoder"], encoded) if encoded else []
    return encoded + [columns[int(i)] for i in branches["numerical"]]


def _hist_tree(predictor: Any, target: int, start: float) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    members = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
        bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        members[int(node)] = np.flatnonzero(np.unpackbits(bits.view("uint8"), bitorder="little")).astype("float64")
    return Tree(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype("int64"),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, -1, nodes["left"].astype("int64")),
        right=np.where(leaf, -1, nodes["right"].astype("int64")),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        leaves=nodes["value"] + start,
        target=target,
        members=members,
    )


FORMS = {
    **dict.fromkeys(SINGLE, _tree),
    **dict.fromkeys(
        ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"), _forest
    ),
    **dict.fromkeys(("BaggingClassifier", "BaggingRegressor"), _bagging),
    **dict.fromkeys(("GradientBoostingClassifier", "GradientBoostingRegressor"), _gradient_boosting),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _histogram_boosting),
}
