"""Our own ONNX emitter: whole scikit-learn pipelines as one graph in double precision.

``emit`` walks a fitted model: ``compose`` follows pipelines and column transformers, the other modules each know one
family of steps or estimators. Estimators without a double form are converted alone by skl2onnx, in float32 where
need be, and joined behind the double preprocessing (``foreign``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.schema import Signature

__all__ = ["Emitted", "NotConvertible", "emit"]


@dataclass(frozen=True)
class Emitted:
    """A graph and what is to be known about it."""

    model: Any
    #: Options of the runtime: tensors and fields.
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    #: How it was made: "emitter", or "emitter+skl2onnx" where an estimator went through float32.
    method: str
    #: Largest relative difference from the original that is to be accepted.
    tolerance: float
    #: Values at which it decides: input (name, element or None) -> values.
    thresholds: dict[tuple[str, int | None], list[float]]
    #: The step before a tree whose results may differ in the last digit, where there is one.
    rounded: str
    #: Most rows to be run at once; 0: any number.
    max_rows: int


def emit(model: Any, signature: Signature, names: Sequence[str] | None = None) -> Emitted:
    """The graph of a fitted model whose inputs are those of ``signature``; ``names`` are the model's own, in order.

    Raises NotConvertible naming the step that has no form.
    """
    from modelyard.bundle.emitter import answers, compose, inputs

    graph = Graph()
    values, entries, columns = inputs.declare(graph, signature)
    answer = compose.estimate(graph, model, compose.in_model_order(names, columns))
    outputs, named = answers.outputs(graph, answer)
    made = graph.finish(values, outputs)
    used = {value.name for value in made.graph.input}
    return Emitted(
        model=made,
        inputs=[entry for entry in entries if entry["tensor"] in used],
        outputs=named,
        method="+".join(["emitter", *dict.fromkeys(graph.foreign)]),
        tolerance=graph.tolerance,
        thresholds={key: sorted(values) for key, values in graph.thresholds.items()},
        rounded=graph.rounded[0] if graph.rounded and graph.has_trees else "",
        max_rows=graph.max_rows,
    )
