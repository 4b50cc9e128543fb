"""One ``TreeEnsemble`` of ``ai.onnx.ml`` 5 in double precision, and the arithmetic that keeps its decisions exact.

scikit-learn's trees round each value to float32 before they compare it, and pipelines scale and impute before that.
Rounding, scaling by positive factors and shifting are all non-decreasing, so for every threshold there is one largest
double that still goes left: the tree is emitted with that double, on the untouched column. Imputation becomes the
direction of the missing. The answers are the same to the last bit, and the steps cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import ML, Graph
from modelyard.runtimes.forest import LEQ, MEMBER, Tree
from modelyard.schema import Array


def of_sklearn(estimator: Any, leaves: Array, target: int = 0, chosen: Array | None = None) -> Tree:
    """A scikit-learn tree. ``leaves``: (nodes,) the value of each node; ``chosen``: the ensemble's column for each
    of the tree's, where it was given a part of them."""
    tree = estimator.tree_
    feature = np.maximum(tree.feature, 0)
    return Tree(
        feature=feature if chosen is None else np.asarray(chosen)[feature],
        threshold=float32_limits(np.asarray(tree.threshold, dtype="float64")),
        left=np.asarray(tree.children_left),
        right=np.asarray(tree.children_right),
        missing_left=np.asarray(getattr(tree, "missing_go_to_left", np.zeros(len(feature)))).astype(bool),
        leaves=np.asarray(leaves, dtype="float64"),
        target=target,
    )


def float32_limits(thresholds: Array) -> Array:
    """For each double t the largest double x with float32(x) <= t, rounding to nearest even."""
    with np.errstate(over="ignore"):
        below = thresholds.astype("float32")
    below = np.where(below.astype("float64") > thresholds, np.nextafter(below, np.float32(-np.inf)), below)
    with np.errstate(over="ignore", invalid="ignore"):
        above = np.nextafter(below, np.float32(np.inf))
        middle = (below.astype("float64") + above.astype("float64")) / 2
    # A tie rounds to the neighbour whose last bit is 0.
    even = (below.view("uint32") & 1) == 0
    limits = np.where(even, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isfinite(middle), limits, thresholds)


def before(limits: Array, steps: Sequence[tuple[str, float]]) -> tuple[Array, Array | None]:
    """The largest double x with steps(x) <= limit, for each limit; and where a missing x goes (True: left) if the
    steps fill it. ``steps``: (operation, number); the factors are positive."""
    missing: Array | None = None
    for op, by in reversed(steps):
        if op == "Fill":
            missing = by <= limits
        else:
            limits = _largest(op, by, limits)
    return limits, missing


def _apply(op: str, values: Array, by: float) -> Array:
    with np.errstate(all="ignore"):
        if op == "Add":
            return np.asarray(values + by)
        if op == "Sub":
            return np.asarray(values - by)
        return np.asarray(values * by if op == "Mul" else values / by)


def _largest(op: str, by: float, limits: Array) -> Array:
    """Bisection over all doubles, in the order of their bit patterns: 64 halvings."""
    low = np.full(len(limits), _rank(np.array([-np.inf]))[0])
    high = np.full(len(limits), _rank(np.array([np.inf]))[0])
    for _ in range(65):
        middle = (low | high) - ((low ^ high) >> 1)  # the upper mean, without overflow
        fits = _apply(op, _unrank(middle), by) <= limits
        low, high = np.where(fits, middle, low), np.where(fits, high, np.maximum(middle - 1, low))
    return _unrank(low)


def _rank(values: Array) -> Array:
    """Doubles as integers in the same order."""
    bits = values.view("int64")
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _unrank(ranks: Array) -> Array:
    bits = np.where(ranks < 0, np.int64(-(2**63)) - ranks, ranks)
    return np.asarray(bits.astype("int64").view("float64"))


def ensemble(
    graph: Graph, columns: Sequence[Column], trees: Sequence[Tree], targets: int = 1, average: bool = False
) -> str:
    """(rows, targets): for each target the sum, or the average, of its trees' leaves."""
    graph.has_trees = True
    base, trees = _take_over(graph, list(columns), trees)
    if any(column.is_text for column in base):
        graph.matrix(base)
    (source, _), places = graph.wholes(base)
    name: str = graph.node("TreeEnsemble", source, domain=ML, **_attributes(trees, np.array(places), targets, average))
    return name


def _take_over(graph: Graph, base: list[Column], trees: Sequence[Tree]) -> tuple[list[Column], Sequence[Tree]]:
    """The columns before their pending steps where trees can do without those; with the thresholds moved there."""
    used = np.unique(np.concatenate([t.feature[t.left >= 0] for t in trees] or [np.zeros(0, dtype=int)]))
    for i in used.tolist():
        at = [np.flatnonzero((tree.feature == i) & (tree.left >= 0)) for tree in trees]
        categorical = any(
            node in tree.members for tree, nodes in zip(trees, at, strict=True) for node in nodes.tolist()
        )
        limits = np.concatenate([tree.threshold[nodes] for tree, nodes in zip(trees, at, strict=True)])
        gaps: Array | None = None
        while not categorical and (pending := base[i].tensor.pending) is not None and not base[i].tensor.name:
            k = base[i].index
            if any(op in ("Mul", "Div") and not vector[k] > 0 for op, vector in pending.steps):
                break
            limits, missing = before(limits, [(op, vector[k]) for op, vector in pending.steps])
            gaps = gaps if missing is None else missing
            base[i] = pending.columns[k]
        ends = np.cumsum([len(nodes) for nodes in at])[:-1]
        for tree, nodes, part in zip(trees, at, np.split(limits, ends), strict=True):
            tree.threshold[nodes] = part
        if gaps is not None:
            for tree, nodes, part in zip(trees, at, np.split(gaps, ends), strict=True):
                tree.missing_left[nodes] = part
        if not categorical:
            graph.decides_at([base[i]], [0] * len(limits), limits)
    # Columns that no tree looks at need not be made.
    kept = used.tolist() or [0]
    moved = np.zeros(len(base), dtype=np.int64)
    moved[kept] = np.arange(len(kept))
    for tree in trees:
        tree.feature = moved[tree.feature]
    return [base[i] for i in kept], trees


def _attributes(trees: Sequence[Tree], places: Array, targets: int, average: bool) -> dict[str, Any]:
    from onnx import numpy_helper

    parts: dict[str, list[Array]] = {key: [] for key in ("feature", "split", "mode", "missing", "true", "false")}
    true_leaf, false_leaf, weights, target_ids, roots, members = [], [], [], [], [], []
    nodes_before = leaves_before = 0
    for tree in trees:
        inner = tree.left >= 0
        if not inner[0]:  # a leaf alone: a node whose two branches are the same leaf
            tree = _stump(tree)
            inner = tree.left >= 0
        # Places of inner nodes among inner nodes, and of leaves among leaves.
        number = np.where(inner, np.cumsum(inner) - 1 + nodes_before, np.cumsum(~inner) - 1 + leaves_before)
        left, right = tree.left[inner], tree.right[inner]
        mode = np.full(int(inner.sum()), LEQ, dtype="uint8")
        split = tree.threshold[inner]
        for node in sorted(tree.members):
            place, codes = number[node] - nodes_before, np.asarray(tree.members[node], dtype="float64").tolist()
            if codes:
                mode[place] = MEMBER
                members += [*codes, np.nan]
            else:  # no category goes left, at most the missing
                split[place] = -np.inf
        parts["feature"].append(places[tree.feature[inner]])
        parts["split"].append(split)
        parts["mode"].append(mode)
        parts["missing"].append(tree.missing_left[inner])
        parts["true"].append(number[left])
        parts["false"].append(number[right])
        true_leaf.append(~inner[left])
        false_leaf.append(~inner[right])
        weights.append(tree.leaves[~inner])
        target_ids.append(np.full(int((~inner).sum()), tree.target))
        roots.append(nodes_before)
        nodes_before += int(inner.sum())
        leaves_before += int((~inner).sum())

    def ints(arrays: list[Array]) -> list[int]:
        made: list[int] = np.concatenate(arrays).astype("int64").tolist()
        return made

    def tensor(arrays: list[Array], dtype: str, name: str) -> Any:
        return numpy_helper.from_array(np.concatenate(arrays).astype(dtype), name)

    attributes: dict[str, Any] = {
        "n_targets": targets,
        "aggregate_function": 0 if average else 1,
        "tree_roots": roots,
        "nodes_featureids": ints(parts["feature"]),
        "nodes_splits": tensor(parts["split"], "float64", "nodes_splits"),
        "nodes_modes": tensor(parts["mode"], "uint8", "nodes_modes"),
        "nodes_truenodeids": ints(parts["true"]),
        "nodes_falsenodeids": ints(parts["false"]),
        "nodes_trueleafs": ints(true_leaf),
        "nodes_falseleafs": ints(false_leaf),
        "leaf_weights": tensor(weights, "float64", "leaf_weights"),
        "leaf_targetids": ints(target_ids),
    }
    if any(part.any() for part in parts["missing"]):
        attributes["nodes_missing_value_tracks_true"] = ints(parts["missing"])
    if members:
        attributes["membership_values"] = numpy_helper.from_array(np.array(members), "membership_values")
    return attributes


def _stump(tree: Tree) -> Tree:
    zeros = np.zeros(2, dtype=np.int64)
    return Tree(
        feature=zeros,
        threshold=np.zeros(2),
        left=np.array([1, -1]),
        right=np.array([1, -1]),
        missing_left=zeros.astype(bool),
        leaves=np.array([0.0, tree.leaves[0]]),
        target=tree.target,
    )
