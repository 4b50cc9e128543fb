"""Boosted trees as plain arrays, read off XGBoost's and LightGBM's own model files, and as an exact ONNX graph.

Converters that go through float32 move rows over thresholds. Here every decision is kept: XGBoost rounds a value to
float32 and asks ``x < t``, LightGBM asks ``x <= t`` in double; both become ``x <= limit`` on the untouched double.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelyard.errors import MissingDependency
from modelyard.schema import Array

#: Versions of the operator sets and of the file format: ``TreeEnsemble`` in double came with ai.onnx.ml 5.
OPSET, ML_OPSET, IR = 18, 5, 10
#: Comparison of a node: value <= split, or value is a member of a set.
LEQ, MEMBER = 0, 6


class NoForest(Exception):
    """The booster has no exact form as trees; the message says why."""


@dataclass
class Tree:
    """One tree as arrays over its nodes; node 0 is the root, and a leaf has ``left`` -1.

    A value <= ``threshold`` goes left, a missing one (NaN) where ``missing_left`` says. ``members`` maps a node to
    the category codes that go left instead. ``leaves``: (nodes,) what each leaf adds to ``target``.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    leaves: Array
    target: int = 0
    members: dict[int, Array] = field(default_factory=dict)


@dataclass
class Forest:
    """Trees, and what becomes of the sum of their leaves (its *raw* scores, one column for each target)."""

    trees: list[Tree]
    #: (targets,) what the scores start from.
    base: Array
    #: ``identity``, ``sigmoid``, ``softmax``, ``exp``, ``square`` (with the sign kept) or ``softplus``.
    link: str = "identity"
    #: Factor on the raw scores inside a sigmoid.
    slope: float = 1.0
    #: Class labels in order; None for a regression. Two classes have one target, the score of the second.
    classes: Array | None = None
    #: Whether classes have probabilities, or labels only.
    has_probabilities: bool = True
    #: This value stands for a missing one, besides NaN.
    missing: float | None = None
    #: Zeros (at most 1e-35 in magnitude) are missing as well.
    zero_is_missing: bool = False

    @property
    def targets(self) -> int:
        return len(self.base)


def float32_limits(thresholds: Array) -> Array:
    """For each float32 t the largest double x with float32(x) < t, rounding to nearest, ties to even."""
    t = np.asarray(thresholds, dtype="float32")
    with np.errstate(over="ignore"):
        below = np.nextafter(t, np.float32(-np.inf))
    middle = (below.astype("float64") + t.astype("float64")) / 2
    even = (below.view("uint32") & 1) == 0  # then the tie in the middle rounds down, below t
    limits = np.where(even, middle, np.nextafter(middle, -np.inf))
    # Below the least float32 lies half a step that still rounds to it, and its end rounds to minus infinity.
    return np.asarray(np.where(np.isfinite(below), limits, -(2.0**128 - 2.0**103)))


def to_onnx(forest: Forest, feature_count: int) -> Any:
    """The forest as an ``onnx.ModelProto``.

    One input ``X``: double, shape (rows, feature_count), NaN for missing, category codes as numbers. Outputs, all
    with a first axis of rows: ``value`` double (rows, targets) for a regression; ``label`` (rows,) in the labels' own
    type, and ``probabilities`` double (rows, classes) where there are any, for a classifier. Equal forests give equal
    graphs. Raises MissingDependency without ``onnx``.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingDependency.extra("onnx", "sklearn", "converting boosted trees to ONNX") from error
    build = _Build(helper)
    source = _with_missing(build, forest)
    raw = build.node("TreeEnsemble", source, domain="ai.onnx.ml", **_attributes(forest))
    if forest.base.any():
        raw = build.node("Add", raw, build.constant(forest.base))
    outputs = []
    if forest.classes is None:
        build.end(_linked(build, forest, raw), "value")
        outputs.append(helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, forest.targets]))
    else:
        kind = forest.classes.dtype.kind
        types = {"i": TensorProto.INT64, "b": TensorProto.BOOL, "f": TensorProto.DOUBLE}
        label, shares = _classified(build, forest, raw)
        build.end(label, "label")
        outputs.append(helper.make_tensor_value_info("label", types.get(kind, TensorProto.STRING), [None]))
        if forest.has_probabilities:
            build.end(shares, "probabilities")
            width = len(forest.classes)
            outputs.append(helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, [None, width]))
    inputs = [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, feature_count])]
    graph = helper.make_graph(build.nodes, "trees", inputs, outputs, build.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="modelyard")


class _Build:
    """Nodes and constants under construction."""

    def __init__(self, helper: Any) -> None:
        self._helper = helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(op, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = "float64") -> str:
        from onnx import numpy_helper

        name = f"c_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def end(self, name: str, output: str) -> None:
        self.nodes.append(self._helper.make_node("Identity", [name], [output]))


def _with_missing(build: _Build, forest: Forest) -> str:
    source = "X"
    if forest.missing is not None:
        gone = build.node("Equal", source, build.constant(forest.missing))
        source = build.node("Where", gone, build.constant(np.nan), source)
    if forest.zero_is_missing:
        gone = build.node("LessOrEqual", build.node("Abs", source), build.constant(float(np.float32(1e-35))))
        source = build.node("Where", gone, build.constant(np.nan), source)
    return source


def _linked(build: _Build, forest: Forest, raw: str) -> str:
    if forest.link == "identity":
        return raw
    if forest.link == "sigmoid":
        scaled = raw if forest.slope == 1.0 else build.node("Mul", raw, build.constant(forest.slope))
        return build.node("Sigmoid", scaled)
    if forest.link == "softmax":
        return build.node("Softmax", raw, axis=1)
    if forest.link == "exp":
        return build.node("Exp", raw)
    if forest.link == "softplus":
        return build.node("Log", build.node("Add", build.node("Exp", raw), build.constant(1.0)))
    return build.node("Mul", raw, build.node("Abs", raw))


def _classified(build: _Build, forest: Forest, raw: str) -> tuple[str, str]:
    """Labels and probabilities."""
    classes = np.asarray(forest.classes)
    if forest.targets == 1 and len(classes) == 2:
        positive = _linked(build, forest, raw) if forest.has_probabilities else raw
        limit = 0.5 if forest.has_probabilities else 0.0
        above = build.node("Greater", positive, build.constant(limit))
        index = build.node("Squeeze", build.node("Cast", above, to=7), build.constant([1], "int64"))
        negative = build.node("Sub", build.constant(1.0), positive)
        shares = build.node("Concat", negative, positive, axis=1)
    else:
        shares = _linked(build, forest, raw)
        index = build.node("ArgMax", shares, axis=1, keepdims=0)
    if classes.dtype.kind in "iu" and classes.tolist() == list(range(len(classes))):
        return index, shares
    kinds = {"i": "int64", "u": "int64", "b": "bool", "f": "float64"}
    return build.node("Gather", build.constant(classes, kinds.get(classes.dtype.kind, object)), index), shares


def _attributes(forest: Forest) -> dict[str, Any]:
    """Attributes of ``TreeEnsemble`` 5 (onnx/defs/traditionalml): inner nodes and leaves are numbered apart, and
    the true branch is the left one here."""
    from onnx import TensorProto, helper

    inner: dict[str, list[Any]] = {
        name: [] for name in ("feature", "split", "mode", "missing", "left", "right", "left_leaf", "right_leaf")
    }
    roots: list[int] = []
    members: list[float] = []
    leaf_targets: list[int] = []
    leaf_weights: list[float] = []
    for tree in forest.trees:
        left, right = np.asarray(tree.left), np.asarray(tree.right)
        if left[0] < 0:  # a single leaf: both ways lead to it
            tree = _stump(tree)
            left, right = tree.left, tree.right
        is_leaf = left < 0
        number = np.where(
            is_leaf, np.cumsum(is_leaf) - 1 + len(leaf_weights), np.cumsum(~is_leaf) - 1 + len(inner["mode"])
        )
        roots.append(int(number[0]))
        for node in np.flatnonzero(~is_leaf).tolist():
            inner["feature"].append(int(tree.feature[node]))
            inner["split"].append(float(tree.threshold[node]))
            inner["missing"].append(int(tree.missing_left[node]))
            inner["mode"].append(MEMBER if node in tree.members else LEQ)
            for side, child in (("left", int(left[node])), ("right", int(right[node]))):
                inner[side].append(int(number[child]))
                inner[f"{side}_leaf"].append(int(is_leaf[child]))
            if node in tree.members:
                members += [*(float(code) for code in tree.members[node]), float("nan")]
        leaf_targets += [tree.target] * int(is_leaf.sum())
        leaf_weights += np.asarray(tree.leaves, dtype="float64")[is_leaf].tolist()

    def doubles(name: str, values: Sequence[float]) -> Any:
        return helper.make_tensor(name, TensorProto.DOUBLE, [len(values)], values)

    attributes: dict[str, Any] = {
        "n_targets": forest.targets,
        "aggregate_function": 1,
        "post_transform": 0,
        "tree_roots": roots,
        "nodes_featureids": inner["feature"],
        "nodes_splits": doubles("nodes_splits", inner["split"]),
        "nodes_modes": helper.make_tensor("nodes_modes", TensorProto.UINT8, [len(inner["mode"])], inner["mode"]),
        "nodes_missing_value_tracks_true": inner["missing"],
        "nodes_truenodeids": inner["left"],
        "nodes_trueleafs": inner["left_leaf"],
        "nodes_falsenodeids": inner["right"],
        "nodes_falseleafs": inner["right_leaf"],
        "leaf_targetids": leaf_targets,
        "leaf_weights": doubles("leaf_weights", leaf_weights),
    }
    if members:
        attributes["membership_values"] = doubles("membership_values", members)
    return attributes


def _stump(tree: Tree) -> Tree:
    leaf = float(tree.leaves[0])
    return Tree(
        feature=np.zeros(3, int), threshold=np.zeros(3), left=np.array([1, -1, -1]), right=np.array([2, -1, -1]),
        missing_left=np.ones(3, bool), leaves=np.array([0.0, leaf, leaf]), target=tree.target,
    )  # fmt: skip
