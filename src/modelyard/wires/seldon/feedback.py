"""Seldon's feedback: what turned out to be true of the predictions of one request."""

from __future__ import annotations

from typing import Any

from modelyard.errors import InvalidInput, Problem
from modelyard.interfaces import Catalog
from modelyard.truth import read_label
from modelyard.wires.labels import truth_of


def keep_truth(catalog: Catalog, model: str | None, puid: str, told: Any) -> None:
    """Keep the truth about the rows that were predicted under ``puid``: a value, or a list with one a row, each as it
    is or in a list of its own.

    Raises InvalidInput where a value is no label of the model, or nothing says which prediction it is of.
    """
    served = catalog.find(model, None, None)
    truth = truth_of(served, catalog)
    if not puid:
        raise InvalidInput.at("response.meta.puid", "the puid of the prediction, as its answer had it", "nothing")
    rows = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in _listed(told)]
    labels, problems = [], []
    for number, row in enumerate(rows):
        try:
            labels.append(read_label(puid if len(rows) == 1 else f"{puid}.{number}", row, None, truth))
        except InvalidInput as error:
            problems += [Problem("truth" if len(rows) == 1 else f"truth[{number}]", p.expected, p.got)
                         for p in error.problems]  # fmt: skip
    if problems:
        raise InvalidInput.of(problems)
    catalog.label(served, labels)


def _listed(told: Any) -> list[Any]:
    return told if isinstance(told, list) else [told]
