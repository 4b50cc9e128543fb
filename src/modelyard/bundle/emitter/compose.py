"""Pipelines, column transformers and unions: which columns go where. They add no node of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible

#: Transformers whose logarithms, powers and sums of products differ between libraries in the last digit.
ROUNDED = (
    "FunctionTransformer", "IncrementalPCA", "LinearDiscriminantAnalysis", "Normalizer", "PCA", "PowerTransformer",
    "QuantileTransformer", "TruncatedSVD",
)  # fmt: skip

Transform = Callable[[Graph, Any, list[Column]], list[Column]]
Estimate = Callable[[Graph, Any, list[Column]], Answer]


def in_model_order(names: Sequence[str] | None, columns: dict[str, list[Column]]) -> list[Column]:
    """The columns as the model takes them: by its feature names where they fit, else as the signature has them.

    A single field with a shape is the whole matrix whatever its name. LightGBM writes spaces in names as underscores.
    """
    by_plain = {name.replace(" ", "_"): name for name in columns}
    for known in (dict(zip(columns, columns, strict=True)), by_plain):
        if names is not None and len(names) == len(columns) and set(names) == set(known):
            return [column for name in names for column in columns[known[name]]]
    return [column for part in columns.values() for column in part]


def known_as(thing: Any) -> str:
    """The class name of a scikit-learn object or one of ours; "" for a stranger, however it is called."""
    kind = type(thing)
    return kind.__name__ if kind.__module__.split(".")[0] in ("sklearn", "modelyard") else ""


def transform(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    """The columns after a fitted transformer. Raises NotConvertible for one that is not known."""
    from modelyard.bundle.emitter import encoding, numeric, selection

    if step is None or (isinstance(step, str) and step == "passthrough"):
        return columns
    name = known_as(step)
    forms: dict[str, Transform] = {
        "Pipeline": _pipeline,
        "ColumnTransformer": _column_transformer,
        "FeatureUnion": _union,
        **encoding.FORMS,
        **numeric.FORMS,
        **selection.FORMS,
    }
    form = forms.get(name)
    if form is None:
        raise NotConvertible(
            f"{type(step).__name__} has no double form", "use transformers of scikit-learn that Modelyard knows"
        )
    expected = getattr(step, "n_features_in_", None)
    if expected is not None and expected != len(columns):
        raise NotConvertible(f"{type(step).__name__} was fitted on {expected} columns and is given {len(columns)}")
    if name in ROUNDED and getattr(step, "func", step) is not None:
        graph.rounded.append(graph.path)
    return form(graph, step, columns)


def estimate(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """The answer of a fitted estimator: by a form of ours, else through float32."""
    from modelyard.bundle.emitter import boosted, ensembles, foreign, forests, linear, neighbours, neural, simple, svm

    name = known_as(model)
    if name == "Pipeline":
        return _final(graph, model, columns)
    if boosted.maker_of(model):
        return boosted.estimate(graph, model, columns)
    forms: dict[str, Estimate] = {
        **linear.FORMS,
        **forests.FORMS,
        **neural.FORMS,
        **svm.FORMS,
        **simple.FORMS,
        **neighbours.FORMS,
        **ensembles.FORMS,
    }
    if isinstance(getattr(model, "classes_", None), list):
        raise NotConvertible("a classifier of several targets has no single prediction")
    expected = getattr(model, "n_features_in_", None)
    if name and expected is not None and expected != len(columns):
        raise NotConvertible(f"{type(model).__name__} was fitted on {expected} columns and is given {len(columns)}")
    form = forms.get(name)
    if form is None:
        return foreign.estimate(graph, model, columns)
    return form(graph, model, columns)


def _final(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    for name, step in model.steps[:-1]:
        with graph.step(name):
            columns = transform(graph, step, columns)
    name, last = model.steps[-1]
    with graph.step(name):
        return estimate(graph, last, columns)


def _pipeline(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    for name, inner in step.steps:
        with graph.step(name):
            columns = transform(graph, inner, columns)
    return columns


def _column_transformer(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    out: list[Column] = []
    for name, inner, _ in step.transformers_:
        chosen = _positions(step, name)
        if isinstance(inner, str) and inner == "drop":
            continue
        if not len(chosen):
            continue
        with graph.step(name):
            out += transform(graph, inner, [columns[i] for i in chosen])
    return out


def _positions(step: Any, name: str) -> Sequence[int]:
    """Where the columns of one branch are, names, slices, masks and callables resolved when it was fitted."""
    indices = step._transformer_to_input_indices.get(name, [])
    return [int(i) for i in np.asarray(indices).ravel()]


def _union(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    out: list[Column] = []
    for name, inner in step.transformer_list:
        if isinstance(inner, str) and inner == "drop":
            continue
        with graph.step(name):
            made = transform(graph, inner, columns)
            weight = (step.transformer_weights or {}).get(name)
            if weight is not None:
                made = graph.elementwise(made, [("Mul", np.full(len(made), float(weight)))])
            out += made
    return out
