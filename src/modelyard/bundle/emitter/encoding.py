"""Categories to numbers: one-hot, ordinal and target encoding, of texts and of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard.bundle.emitter.columns import EMPTY, Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.schema import Array

#: A code that no text has.
NEVER = -1


def is_missing(category: Any) -> bool:
    return category is None or category != category


def text_code(column: Column, category: Any, gapped: bool = False) -> int:
    """The code of a category of a text column. In a nullable column the empty text is the missing one; where the
    categories also hold a real missing one (``gapped``), that is what a missing text becomes, and "" never comes."""
    assert column.vocabulary is not None
    if is_missing(category):
        return EMPTY if column.nullable else NEVER
    if not isinstance(category, str):
        raise NotConvertible(f"a text column is compared with the category {category!r}")
    if category == "" and column.nullable and gapped:
        return NEVER
    return column.vocabulary.code(category)


def indicators(graph: Graph, wanted: Sequence[tuple[Column, Any]]) -> list[Column]:
    """One column for each (column, category): 1.0 where they are equal, a missing category equals a missing value."""
    made: dict[int, Column] = {}
    texts = [i for i, (column, _) in enumerate(wanted) if column.is_text]
    numbers = [i for i, (column, category) in enumerate(wanted) if not column.is_text and not is_missing(category)]
    gaps = [i for i, (column, category) in enumerate(wanted) if not column.is_text and is_missing(category)]
    by_source: dict[int, list[int]] = {}
    for i in texts:
        by_source.setdefault(id(wanted[i][0].tensor), []).append(i)
    groups: list[tuple[list[int], str]] = []
    flags: dict[str, list[Column]] = {}
    for members in by_source.values():
        gapped = {wanted[i][0].index for i in members if is_missing(wanted[i][1])}
        known = [text_code(*wanted[i], gapped=wanted[i][0].index in gapped) for i in members]
        groups.append((members, _equal(graph, [wanted[i][0] for i in members], known, "int64")))
    if numbers:
        values = [_number(wanted[i][1]) for i in numbers]
        groups.append((numbers, _equal(graph, [wanted[i][0] for i in numbers], values, "float64")))
    for members, truth in groups:
        columns = graph.columns(graph.cast(truth, "float64"), len(members), finite=True)
        made.update(zip(members, columns, strict=True))
    for i in gaps:  # of whole tensors, whose IsNaN an imputer also needs
        tensor = wanted[i][0].tensor
        truth = graph.node("IsNaN", graph.real(tensor))
        whole = flags.setdefault(truth, [])
        if not whole:
            whole += graph.columns(graph.cast(truth, "float64"), tensor.width, finite=True)
        made[i] = whole[wanted[i][0].index]
    return [made[i] for i in range(len(wanted))]


def _equal(graph: Graph, columns: list[Column], values: list[Any], dtype: str) -> str:
    left = graph.codes(columns) if dtype == "int64" else graph.matrix(columns)
    return str(graph.node("Equal", left, graph.constant([values], dtype)))


def _number(category: Any) -> float:
    if isinstance(category, str):
        raise NotConvertible(f"a column of numbers is compared with the category {category!r}")
    return float(category)


def lookup(graph: Graph, columns: Sequence[Column], tables: Sequence[tuple[Sequence[Any], Array, Array]]) -> str:
    """For each column a table (categories, one row of results for each, the row for anything else): the results side
    by side. Shapes: categories (c,), rows (c, w), other (w,); the result has w columns for each input column."""
    width = len(tables[0][2])
    made: dict[int, Column] = {}
    texts: dict[int, list[int]] = {}
    for i, column in enumerate(columns):
        if column.is_text:
            texts.setdefault(id(column.tensor), []).append(i)
    for members in texts.values():
        chosen = [columns[i] for i in members]
        rows = []
        for i in members:
            categories, results, other = tables[i]
            gapped = any(map(is_missing, categories))
            codes = [text_code(columns[i], category, gapped) for category in categories]
            rows.append(({c: r for c, r in zip(codes, results, strict=True) if c != NEVER}, other))
        vocabulary = chosen[0].vocabulary
        assert vocabulary is not None

        def table(rows: Any = rows, vocabulary: Any = vocabulary) -> Array:
            full = np.empty((len(vocabulary), len(rows), width))
            for i, (known, other) in enumerate(rows):
                full[:, i] = other
                for code, row in known.items():
                    full[code, i] = row
            return full.reshape(-1, width)

        name = _gathered(graph, graph.codes(chosen), graph.deferred(table), len(members), width)
        _spread(made, members, graph.columns(name, len(members) * width), width)
    numbers = [i for i, column in enumerate(columns) if not column.is_text]
    if numbers:
        wanted = [(columns[i], category) for i in numbers for category in tables[i][0]]
        most = max(len(tables[i][0]) for i in numbers)
        full = np.empty((most + 1, len(numbers), width))
        places = np.zeros((len(wanted), len(numbers)))
        at = 0
        for n, i in enumerate(numbers):
            count = len(tables[i][0])
            full[:, n] = tables[i][2]
            full[1 : count + 1, n] = tables[i][1]
            places[at : at + count, n] = np.arange(1, count + 1)
            at += count
        if not wanted:
            raise NotConvertible("it has no categories")
        found = graph.cast(graph.linear(indicators(graph, wanted), places, None), "int64")
        name = _gathered(graph, found, graph.constant(full.reshape(-1, width)), len(numbers), width)
        _spread(made, numbers, graph.columns(name, len(numbers) * width), width)
    return graph.matrix([made[k] for k in range(len(columns) * width)])


def _gathered(graph: Graph, codes: str, table: str, columns: int, width: int) -> str:
    """(rows, columns * width): row ``code * columns + column`` of the table for each code."""
    if columns > 1:
        codes = graph.node("Mul", codes, graph.constant([columns], "int64"))
        codes = graph.node("Add", codes, graph.constant([list(range(columns))], "int64"))
    found: str = graph.node("Gather", table, codes, axis=0)
    shape = graph.constant([0, columns * width], "int64")
    return str(graph.node("Reshape", found, shape))


def _spread(made: dict[int, Column], members: list[int], columns: list[Column], width: int) -> None:
    for n, i in enumerate(members):
        for w in range(width):
            made[i * width + w] = columns[n * width + w]


def _one_hot(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(columns)
    unknown_is_infrequent = step.handle_unknown in ("infrequent_if_exist", "warn")
    grouped = getattr(step, "_infrequent_enabled", False)
    wanted: list[tuple[Column, Any]] = []
    #: One entry an output column: weights on the wanted indicators, and a constant.
    outputs: list[tuple[dict[int, float], float]] = []
    for i, (column, categories) in enumerate(zip(columns, step.categories_, strict=True)):
        rare = step._infrequent_indices[i] if grouped else None
        rare = set() if rare is None else {int(j) for j in rare}
        rest = [j for j in range(len(categories)) if j not in rare]
        starts = len(wanted)
        listed = rest if unknown_is_infrequent and rare else [*rest, *sorted(rare)]
        wanted += [(column, categories[j]) for j in listed]
        places = {j: starts + n for n, j in enumerate(listed)}
        outputs += [({places[j]: 1.0}, 0.0) for j in rest if j != dropped[i]]
        if rare and dropped[i] not in rare:
            if unknown_is_infrequent:
                outputs.append(({places[j]: -1.0 for j in rest}, 1.0))
            else:
                outputs.append(({places[j]: 1.0 for j in rare}, 0.0))
    if not outputs:
        return []
    if all(constant == 0.0 and list(weights.values()) == [1.0] for weights, constant in outputs):
        singles = [next(iter(weights)) for weights, _ in outputs]
        return indicators(graph, [wanted[i] for i in singles])
    matrix = np.zeros((len(wanted), len(outputs)))
    for o, (weights, _) in enumerate(outputs):
        for place, weight in weights.items():
            matrix[place, o] = weight
    bias = np.array([constant for _, constant in outputs])
    return graph.columns(graph.linear(indicators(graph, wanted), matrix, bias), len(outputs))


def _ordinal(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    unknown = np.nan if step.handle_unknown == "error" else float(step.unknown_value)
    tables = []
    for i, categories in enumerate(step.categories_):
        codes = np.arange(len(categories), dtype="float64")
        missing = step._missing_indices.get(i)
        if getattr(step, "_infrequent_enabled", False) and step._default_to_infrequent_mappings[i] is not None:
            mapping = step._default_to_infrequent_mappings[i]
            codes[: len(mapping)] = mapping
        if missing is not None:
            codes[missing] = step.encoded_missing_value
        tables.append((list(categories), codes[:, None], np.array([unknown])))
    return graph.columns(lookup(graph, columns, tables), len(columns), columns, vocabulary=None, nullable=True)


def _target(graph: Graph, step: Any, columns: list[Column]) -> list[Column]:
    means = np.atleast_1d(np.asarray(step.target_mean_, dtype="float64"))
    width = len(means)
    tables = []
    for i, categories in enumerate(step.categories_):
        rows = np.stack(step.encodings_[i * width : (i + 1) * width], axis=1)
        tables.append((list(categories), rows, means))
    return graph.columns(lookup(graph, columns, tables), len(columns) * width)


FORMS = {"OneHotEncoder": _one_hot, "OrdinalEncoder": _ordinal, "TargetEncoder": _target}
