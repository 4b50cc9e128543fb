"""From a signature to the inputs of a graph: one tensor per block of scalars, one per field with a shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.bundle.emitter.columns import Column, Origin, Tensor
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.schema import Field, Signature


def declare(graph: Graph, signature: Signature) -> tuple[list[Any], list[dict[str, Any]], dict[str, list[Column]]]:
    """The graph's inputs, the runtime's entries for them (tensor, fields, dtype), and the columns of each field.

    Numbers of every kind become doubles inside the graph, texts become codes.
    """
    from onnx import helper

    values: list[Any] = []
    entries: list[dict[str, Any]] = []
    columns: dict[str, list[Column]] = {}
    fields = {field.name: field for field in signature.inputs}
    for block in signature.input_layout.blocks:
        members = [fields[name] for name in block.names]
        if block.is_scalar:
            tensor, width = f"in_{block.storage}", len(members)
            origins = [Origin(field.name) for field in members]
        else:
            with graph.step(block.names[0]):
                tensor, width = f"of_{block.names[0]}", _width(members[0])
            origins = [Origin(block.names[0], i) for i in range(width)]
            members = members * width
        kind = helper.np_dtype_to_tensor_dtype(_numpy(block.storage))
        values.append(helper.make_tensor_value_info(tensor, kind, [None, width]))
        entries.append({"tensor": tensor, "fields": list(block.names), "dtype": block.storage})
        made = _columns(graph, tensor, block.storage, members, origins)
        for column, field in zip(made, members, strict=True):
            columns.setdefault(field.name, []).append(column)
    return values, entries, columns


def _width(field: Field) -> int:
    if len(field.shape) != 1 or field.shape[0] < 1:
        raise NotConvertible(f"an input of shape {list(field.shape)} is no list of known length")
    return field.shape[0]


def _numpy(storage: str) -> Any:
    import numpy as np

    return np.dtype("O" if storage == "object" else storage)


def _columns(
    graph: Graph, tensor: str, storage: str, fields: Sequence[Field], origins: Sequence[Origin]
) -> list[Column]:
    width = len(fields)
    vocabulary = None
    if storage == "object":
        source, vocabulary = graph.text_columns(tensor, width)
    elif storage == "float64":
        source = Tensor(width, tensor)
    else:
        source = Tensor(width, make=lambda: graph.cast(tensor, "float64"))
    return [
        Column(source, i, field.nullable, vocabulary, origin)
        for i, (field, origin) in enumerate(zip(fields, origins, strict=True))
    ]
