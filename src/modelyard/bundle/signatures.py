"""The signature of a model that came without one: its own facts, and what a sample of its inputs shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput, ModelFailed, Problem
from modelyard.interfaces import ModelFacts
from modelyard.runtimes.answers import output_fields
from modelyard.schema import EXACT_INTEGER, INTEGER_RANGES, Array, Columns, Field, Signature, infer_fields


def signature_of(
    facts: ModelFacts, sample: Mapping[str, Array], reference: Mapping[str, Array], note: Callable[[str], None]
) -> Signature:
    """Inputs in the model's own order, described by the rows of ``sample`` and ``reference``; outputs by the facts.

    Whole numbers of a sample become float64: that a column held only whole numbers so far is no promise, and models
    compute in floating point anyway. Raises InvalidInput where the sample is not what the model takes.
    """
    names = _ordered(facts, list(sample), note)
    fields = infer_fields({name: reference[name] for name in names})
    more = infer_fields({name: sample[name] for name in names})
    inputs = tuple(_widened(field, other) for field, other in zip(fields, more, strict=True))
    _check_count(facts, inputs)
    return Signature(inputs=inputs, outputs=_outputs(facts))


def graph_signature(
    graph: Any, facts: ModelFacts, sample: Mapping[str, Array], note: Callable[[str], None]
) -> tuple[Any, Signature]:
    """Spec and signature of a foreign ONNX graph: dtypes are the graph's, missing values and ranges the sample's."""
    from modelyard.runtimes.onnx import bind

    known = facts.feature_names is not None and set(facts.feature_names) <= set(sample)
    names = _ordered(facts, list(sample), note) if known else list(sample)
    spec, signature = bind(graph, names)
    seen = {field.name: field for field in infer_fields({name: sample[name] for name in names})}
    inputs = []
    for field in signature.inputs:
        other = seen[field.name]
        may_miss = other.nullable and field.storage in ("object", "float16", "float32", "float64")
        inputs.append(
            msgspec.structs.replace(
                field,
                nullable=may_miss,
                categories=other.categories if field.dtype == "string" else None,
                minimum=other.minimum,
                maximum=other.maximum,
            )
        )
    return spec, Signature(inputs=tuple(inputs), outputs=signature.outputs)


#: What Python and numpy say of a text that should be a number.
_NO_NUMBER = re.compile(r"could not convert string to float: (?:np\.str_\()?(['\"])(?P<text>.*)\1")


def text_among_numbers(error: ModelFailed, sample: Columns) -> InvalidInput | None:
    """The fault of the sample where the model failed on a text that it took for a number; None otherwise.

    A column with such a text in a single cell is a column of texts: nothing before the model could tell.
    """
    match = _NO_NUMBER.search(str(error.__cause__ or error))
    found = []
    for field in sample.layout.fields if match else ():
        texts = sample[field.name].ravel().tolist() if field.dtype == "string" else []
        if match and match["text"] in texts:
            found.append((sum(_is_number(text) for text in texts) / len(texts), field.name, texts.index(match["text"])))
    if not match or not found:
        return None
    _, name, row = max(found)
    return InvalidInput.at(
        f"column {name} of the sample, row {row + 1}",
        "a number, the model takes one there",
        repr(match["text"]),
        hint="leave that row out or empty the cell where the model takes missing values",
    )


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _ordered(facts: ModelFacts, names: list[str], note: Callable[[str], None]) -> list[str]:
    """The sample's columns that the model takes, in its order."""
    if facts.feature_names is None:
        return names
    wanted = list(facts.feature_names)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InvalidInput.of(
            [Problem(name, "a column of the sample, the model was fitted on it", "nothing") for name in missing],
            hint=f"the model takes {', '.join(wanted)}; the sample has {', '.join(names)}",
        )
    if extra := [name for name in names if name not in wanted]:
        note(f"note: columns of the sample that the model does not take are left out: {', '.join(extra)}")
    return wanted


def _check_count(facts: ModelFacts, inputs: tuple[Field, ...]) -> None:
    if facts.feature_names is not None or facts.feature_count is None:
        return
    count = sum(int(np.prod(field.shape)) for field in inputs)
    if count != facts.feature_count:
        raise InvalidInput(
            f"the model takes {facts.feature_count} columns and the sample has {count}: "
            f"{', '.join(field.name for field in inputs)}",
            hint="the sample holds the inputs only, in the order of fitting; leave the target out"
            if count > facts.feature_count
            else "the sample must have every column that the model was fitted on, in that order",
        )


def _widened(field: Field, other: Field) -> Field:
    """``field`` with missing values allowed where ``other`` has them, and whole numbers as float64 where exact."""
    if field.dtype in INTEGER_RANGES:
        largest = max(abs(field.minimum or 0), abs(field.maximum or 0))
        if other.dtype not in INTEGER_RANGES or largest <= EXACT_INTEGER:
            field = msgspec.structs.replace(field, dtype="float64")
    return msgspec.structs.replace(field, nullable=field.nullable or other.nullable)


def _outputs(facts: ModelFacts) -> tuple[Field, ...]:
    labels = tuple(str(label) for label in facts.classes or ())
    return tuple(
        msgspec.structs.replace(field, categories=labels)
        if field.name == "prediction" and field.dtype == "string" and labels
        else field
        for field in output_fields(facts)
    )
