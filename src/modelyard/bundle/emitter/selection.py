"""Feature selection: a mask over columns, no node."""

from __future__ import annotations

from typing import Any

from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph


def _selected(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    return [column for column, kept in zip(columns, step.get_support(), strict=True) if kept]


FORMS = dict.fromkeys(
    (
        "VarianceThreshold",
        "SelectKBest",
        "SelectPercentile",
        "SelectFpr",
        "SelectFdr",
        "SelectFwe",
        "GenericUnivariateSelect",
        "SelectFromModel",
        "RFE",
        "RFECV",
        "SequentialFeatureSelector",
    ),
    _selected,
)
