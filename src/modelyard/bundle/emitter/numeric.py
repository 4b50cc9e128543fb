"""Numbers to numbers: imputation, scaling, power and polynomial terms, bins, projections, parts of dates.

Each form repeats the arithmetic of the transformer in its own order of operations, so that the values are the same
doubles wherever the operations are those of IEEE 754.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.encoding import indicators, is_missing, text_code
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.bundle.emitter.piecewise import interpolate
from modelyard.schema import Array


def _imputer(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    fills = list(step.statistics_)
    kept = [i for i, fill in enumerate(fills) if step.keep_empty_features or not is_missing(fill)]
    flags = _missing_flags(graph, step.indicator_, columns) if step.add_indicator else []
    out = dict(zip(kept, (columns[i] for i in kept), strict=True))
    texts: dict[int, list[int]] = {}
    for i in kept:
        if columns[i].is_text:
            texts.setdefault(id(columns[i].tensor), []).append(i)
    for members in texts.values():
        out.update(_fill_texts(graph, columns, members, fills, step.missing_values))
    gap = is_missing(step.missing_values)
    gapped = {id(c.tensor) for c in columns if c.nullable}
    numbers = [i for i in kept if not columns[i].is_text and (not gap or id(columns[i].tensor) in gapped)]
    if numbers:
        chosen = [columns[i] for i in numbers]
        values = np.array([float(fills[i]) for i in numbers])
        if gap:
            after = graph.elementwise(chosen, [("Fill", values)])
        else:
            name = graph.matrix(chosen)
            where = graph.node("Equal", name, graph.constant([float(step.missing_values)]))
            after = graph.columns(graph.node("Where", where, graph.constant([values]), name), len(chosen), chosen)
        out.update(zip(numbers, after, strict=True))
    return [out[i] for i in kept] + flags


def _fill_texts(
    graph: Graph, columns: list[Column], members: list[int], fills: list[Any], missing: Any
) -> dict[int, Column]:
    chosen = [columns[i] for i in members]
    gap = is_missing(missing)
    if gap and not any(column.nullable for column in chosen):
        return {}
    # In a column that is never missing the empty text is a text, beside others in which it is not.
    wanted = [text_code(column, missing) for column in chosen]
    for i in members:
        if not isinstance(fills[i], str):
            raise NotConvertible(f"a missing text would become {fills[i]!r}", "fill it with a text")
    codes = graph.codes(chosen)
    #: In a nullable column the empty text is the missing one, and after imputation it is a text again.
    known = [replace(column, nullable=False) for column in chosen]
    new = [text_code(column, fills[i]) for column, i in zip(known, members, strict=True)]
    if new == wanted:
        return dict(zip(members, known, strict=True))
    where = graph.node("Equal", codes, graph.constant([wanted], "int64"))
    filled = graph.node("Where", where, graph.constant([new], "int64"), codes)
    after = graph.columns(filled, len(chosen), known if gap else chosen)
    return dict(zip(members, after, strict=True))


def _missing_flags(graph: Graph, indicator: Any, columns: list[Column]) -> list[Column]:
    return indicators(graph, [(columns[int(i)], indicator.missing_values) for i in indicator.features_])


def _standard(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    steps = [("Sub", step.mean_)] if step.with_mean else []
    return graph.elementwise(columns, steps + ([("Div", step.scale_)] if step.with_std else []))


def _min_max(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    scaled = graph.elementwise(columns, [("Mul", step.scale_), ("Add", step.min_)])
    return _clip(graph, scaled, *step.feature_range) if step.clip else scaled


def _max_abs(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    scaled = graph.elementwise(columns, [("Div", step.scale_)])
    return _clip(graph, scaled, -1.0, 1.0) if getattr(step, "clip", False) else scaled


def _clip(graph: Graph, columns: list[Column], low: float, high: float) -> list[Column]:
    name = graph.node("Clip", graph.matrix(columns), graph.constant(low), graph.constant(high))
    return graph.columns(name, len(columns), columns)


def _robust(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    steps = [("Sub", step.center_)] if step.with_centering else []
    return graph.elementwise(columns, steps + ([("Div", step.scale_)] if step.with_scaling else []))


def _normalizer(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    name = graph.matrix(columns)
    size = graph.node("Abs", name)
    axis = graph.constant([1], "int64")
    if step.norm == "l2":
        size = graph.node("Sqrt", graph.node("ReduceSum", graph.node("Mul", name, name), axis, keepdims=1))
    else:
        size = graph.node({"l1": "ReduceSum", "max": "ReduceMax"}[step.norm], size, axis, keepdims=1)
    zero = graph.node("Equal", size, graph.constant(0.0))
    size = graph.node("Where", zero, graph.constant(1.0), size)
    return graph.columns(graph.node("Div", name, size), len(columns), columns, origin=None)


def _power(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    name = graph.matrix(columns)
    lambdas = np.asarray(step.lambdas_, dtype="float64")
    if step.method == "box-cox":
        name = _box_cox(graph, name, lambdas)
    else:
        positive = graph.node("Max", name, graph.constant(0.0))
        negative = graph.node("Neg", graph.node("Min", name, graph.constant(0.0)))
        one = graph.constant(1.0)
        up = _box_cox(graph, graph.node("Add", positive, one), lambdas)
        down = graph.node("Neg", _box_cox(graph, graph.node("Add", negative, one), 2.0 - lambdas))
        below = graph.node("Less", name, graph.constant(0.0))
        powered = graph.node("Where", below, down, up)
        # Max and Min may drop a NaN; the missing stay missing.
        name = graph.node("Where", graph.node("IsNaN", name), name, powered)
    made = graph.columns(name, len(columns), columns, origin=None)
    return _standard(graph, step._scaler, made) if step.standardize else made


def _box_cox(graph: Graph, name: str, lambdas: Array) -> str:
    """(x ** lambda - 1) / lambda, or log(x) where lambda is nothing: scipy.special.boxcox."""
    flat = np.abs(lambdas) < np.finfo("float64").eps
    powers = np.where(flat, 1.0, lambdas)
    powered = graph.node("Pow", name, graph.constant(powers))
    made: str = graph.node("Div", graph.node("Sub", powered, graph.constant(1.0)), graph.constant(powers))
    if flat.any():
        made = graph.node("Where", graph.constant(flat, "bool"), graph.node("Log", name), made)
    return made


def _polynomial(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    """Each output is the product of at most ``degree`` inputs: one product of gathered columns a degree."""
    powers = np.asarray(step.powers_)
    degree = int(powers.sum(axis=1).max(initial=0))
    source = graph.matrix(columns)
    wide = source
    if (powers.sum(axis=1) < degree).any():
        # A column of ones stands for the factors that a lower term lacks: x * 0 + 1 would be NaN for a NaN.
        ones = graph.node("Expand", graph.constant([[1.0]]), _rows_by(graph, source, 1))
        wide = graph.node("Concat", source, ones, axis=1)
    factors = np.full((len(powers), max(degree, 1)), len(columns))
    for o, row in enumerate(powers):
        flat = np.repeat(np.arange(len(columns)), row)[::-1]  # scikit-learn multiplies from the last factor on
        factors[o, : len(flat)] = flat
    made: str = graph.node("Gather", wide, graph.constant(factors[:, 0], "int64"), axis=1)
    for d in range(1, degree):
        part = graph.node("Gather", wide, graph.constant(factors[:, d], "int64"), axis=1)
        made = graph.node("Mul", made, part)
    return graph.columns(made, len(powers), nullable=True)


def _rows_by(graph: Graph, like: str, width: int) -> str:
    """The shape (rows of ``like``, width)."""
    rows = graph.node("Shape", like, start=0, end=1)
    return str(graph.node("Concat", rows, graph.constant([width], "int64"), axis=0))


def _bins(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    edges = [np.asarray(edges[1:-1], dtype="float64") for edges in step.bin_edges_]
    pairs = [(column, edge) for column, inner in zip(columns, edges, strict=True) for edge in inner]
    counts = np.zeros((len(pairs), len(columns)))
    at = 0
    for i, inner in enumerate(edges):
        counts[at : at + len(inner), i] = 1.0
        at += len(inner)
    if pairs:
        left = graph.matrix([column for column, _ in pairs])
        reached = graph.node("GreaterOrEqual", left, graph.constant([[edge for _, edge in pairs]]))
        above = graph.columns(graph.cast(reached, "float64"), len(pairs))
        name = graph.linear(above, counts, None)
    else:
        name = graph.node("Mul", graph.matrix(columns), graph.constant(0.0))
    made = graph.columns(name, len(columns))
    for column, inner in zip(columns, edges, strict=True):
        _aim(graph, column, inner)
    if step.encode == "ordinal":
        return made
    from modelyard.bundle.emitter.encoding import FORMS

    return FORMS["OneHotEncoder"](graph, step._encoder, made)


def _aim(graph: Graph, column: Column, values: Array) -> None:
    graph.decides_at([column], [0] * len(values), values)


def _binarizer(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    above = graph.node("Greater", graph.matrix(columns), graph.constant(float(step.threshold)))
    for column in columns:
        _aim(graph, column, np.array([step.threshold]))
    return graph.columns(graph.cast(above, "float64"), len(columns))


def _indicator(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    return _missing_flags(graph, step, columns)


def _projection(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    weights = np.asarray(step.components_, dtype="float64").T
    mean = getattr(step, "mean_", None)
    bias = None if mean is None else -(np.asarray(mean, dtype="float64") @ weights)
    if getattr(step, "whiten", False):
        scale = np.maximum(np.sqrt(step.explained_variance_), np.finfo("float64").eps)
        weights = weights / scale
        bias = None if bias is None else bias / scale
    return graph.columns(graph.linear(columns, weights, bias), weights.shape[1], nullable=True)


def _discriminant(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    if step.solver == "lsqr":
        raise NotConvertible("LinearDiscriminantAnalysis(solver='lsqr') does not transform")
    weights = np.asarray(step.scalings_, dtype="float64")
    bias = -(step.xbar_ @ weights) if step.solver == "svd" else None
    name = graph.linear(columns, weights, bias)
    made = graph.columns(name, weights.shape[1], nullable=True)
    return made[: step._max_components]


def _quantile(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    if step.output_distribution != "uniform":
        raise NotConvertible("QuantileTransformer to a normal distribution has no ONNX form", "use 'uniform'")
    name = graph.matrix(columns)
    quantiles, levels = np.asarray(step.quantiles_), np.asarray(step.references_)
    up = interpolate(graph, name, [(column, levels) for column in quantiles.T])
    down = interpolate(graph, graph.node("Neg", name), [(-column[::-1], -levels[::-1]) for column in quantiles.T])
    name = graph.node("Mul", graph.node("Sub", up, down), graph.constant(0.5))
    return graph.columns(name, len(columns), columns, origin=None)


#: numpy functions that a FunctionTransformer may apply, as operators of one argument.
UNARY: dict[str, Callable[[Graph, str], Any]] = {
    "log": lambda g, x: g.node("Log", x),
    "log1p": lambda g, x: g.node("Log", g.node("Add", x, g.constant(1.0))),
    "log2": lambda g, x: g.node("Div", g.node("Log", x), g.constant(float(np.log(2.0)))),
    "log10": lambda g, x: g.node("Div", g.node("Log", x), g.constant(float(np.log(10.0)))),
    "exp": lambda g, x: g.node("Exp", x),
    "expm1": lambda g, x: g.node("Sub", g.node("Exp", x), g.constant(1.0)),
    "sqrt": lambda g, x: g.node("Sqrt", x),
    "square": lambda g, x: g.node("Mul", x, x),
    "abs": lambda g, x: g.node("Abs", x),
    "absolute": lambda g, x: g.node("Abs", x),
    "fabs": lambda g, x: g.node("Abs", x),
    "negative": lambda g, x: g.node("Neg", x),
    "reciprocal": lambda g, x: g.node("Div", g.constant(1.0), x),
    "sin": lambda g, x: g.node("Sin", x),
    "cos": lambda g, x: g.node("Cos", x),
    "floor": lambda g, x: g.node("Floor", x),
    "ceil": lambda g, x: g.node("Ceil", x),
    "sign": lambda g, x: g.node("Sign", x),
    "tanh": lambda g, x: g.node("Tanh", x),
}


def unary(function: Any) -> Callable[[Graph, str], Any] | None:
    """The operator for a numpy function, or None."""
    name = getattr(function, "__name__", "")
    return UNARY.get(name) if function is getattr(np, name, None) else None


def _function(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    if step.func is None:
        return columns
    form = unary(step.func)
    if form is None or step.kw_args:
        shown = getattr(step.func, "__name__", type(step.func).__name__)
        raise NotConvertible(
            f"FunctionTransformer({shown}) has no ONNX form", "use a numpy function such as numpy.log1p"
        )
    return graph.columns(form(graph, graph.matrix(columns)), len(columns), columns, origin=None, nullable=True)


def _date_parts(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    from modelyard.preprocessing import date_parts

    seconds = graph.matrix(columns)
    count = len(columns)
    made = date_parts(_Arithmetic(graph), seconds, step.parts)
    widths: dict[str, int] = {}
    for name, n in made:
        widths[name] = max(widths.get(name, 0), (n + 1) * count)
    tensors = {name: graph.columns(name, width, nullable=True) for name, width in widths.items()}
    return [tensors[name][n * count + i] for i in range(count) for name, n in made]


class _Arithmetic:
    """The few operations that ``date_parts`` is written in, as nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def _two(self, op: str, left: Any, right: Any) -> Any:
        sides = (x if isinstance(x, str) else self.graph.constant(float(x)) for x in (left, right))
        return self.graph.node(op, *sides)

    def add(self, left: Any, right: Any) -> Any:
        return self._two("Add", left, right)

    def subtract(self, left: Any, right: Any) -> Any:
        return self._two("Sub", left, right)

    def multiply(self, left: Any, right: Any) -> Any:
        return self._two("Mul", left, right)

    def divide(self, left: Any, right: Any) -> Any:
        return self._two("Div", left, right)

    def floor(self, value: Any) -> Any:
        return self.graph.node("Floor", value)

    def beside(self, values: Any) -> Any:
        return self.graph.node("Concat", *values, axis=1)


FORMS = {
    "SimpleImputer": _imputer,
    "MissingIndicator": _indicator,
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "RobustScaler": _robust,
    "Normalizer": _normalizer,
    "PowerTransformer": _power,
    "PolynomialFeatures": _polynomial,
    "KBinsDiscretizer": _bins,
    "Binarizer": _binarizer,
    "QuantileTransformer": _quantile,
    "PCA": _projection,
    "TruncatedSVD": _projection,
    "IncrementalPCA": _projection,
    "LinearDiscriminantAnalysis": _discriminant,
    "FunctionTransformer": _function,
    "DateParts": _date_parts,
}
