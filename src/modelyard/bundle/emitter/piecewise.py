"""Straight lines between points, for isotonic calibration and quantile transforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.bundle.emitter.graph import Graph
from modelyard.schema import Array


def interpolate(graph: Graph, values: str, lines: Sequence[tuple[Array, Array]]) -> str:
    """(rows, columns): for each column its own line through points (x ascending, y), level beyond both ends.

    The formula is numpy.interp's: y[i] + (x - x[i]) * slope[i], i the last point not above x. NaN stays NaN.
    """
    longest = max(len(x) for x, _ in lines)
    points = np.full((len(lines), longest), np.inf)
    start, level, slope = (np.zeros((longest, len(lines))) for _ in range(3))
    for c, (x, y) in enumerate(lines):
        x, y = np.asarray(x, dtype="float64"), np.asarray(y, dtype="float64")
        count = len(x)
        points[c, :count] = x
        start[:count, c], level[:count, c] = x, y
        with np.errstate(divide="ignore", invalid="ignore"):
            rises = np.diff(y) / np.diff(x)
        slope[: count - 1, c] = np.where(np.isfinite(rises), rises, 0.0)
    lowest, highest = ([[float(x[end]) for x, _ in lines]] for end in (0, -1))
    clipped = graph.node("Min", graph.node("Max", values, graph.constant(lowest)), graph.constant(highest))
    wide = graph.node("Unsqueeze", clipped, graph.constant([2], "int64"))
    reached = graph.node("GreaterOrEqual", wide, graph.constant([points]))
    count = graph.node("ReduceSum", graph.cast(reached, "int64"), graph.constant([2], "int64"), keepdims=0)
    # Row (count - 1) of the tables, one column each; nothing is reached by NaN, which takes row 0.
    place = graph.node("Max", graph.node("Sub", count, graph.constant(1, "int64")), graph.constant(0, "int64"))
    flat = graph.node(
        "Add",
        graph.node("Mul", place, graph.constant(len(lines), "int64")),
        graph.constant([list(range(len(lines)))], "int64"),
    )
    at = [graph.node("Gather", graph.constant(table.ravel()), flat, axis=0) for table in (start, slope, level)]
    along = graph.node("Mul", graph.node("Sub", clipped, at[0]), at[1])
    return str(graph.node("Add", along, at[2]))
