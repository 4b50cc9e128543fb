"""The ONNX runtime: the form in which models are served. Loading needs onnxruntime and numpy, nothing else.

The options of an ONNX ``ModelSpec`` say which fields make each tensor and which tensor is each output::

    {"file": "model.onnx",
     "inputs": [{"tensor": "in_float64", "fields": ["age", "fare"], "dtype": "float64"}],
     "outputs": [{"tensor": "prediction", "field": "prediction"}]}

Scalar fields stand side by side in a tensor of shape (rows, fields); a single field may also be a tensor of shape
(rows,), and a field with a shape is a tensor of its own. Where a tensor is exactly one block of the input layout
with the same dtype, the block is handed over as it is. ``max_rows`` in the options is the most rows to run at once.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from modelyard.errors import BadBundle, NotFound
from modelyard.interfaces import ModelFacts, ModelSpec, Predict
from modelyard.runtimes.onnx_graph import OnnxGraph, bind, fields_of_graph, put_apart
from modelyard.runtimes.onnx_session import LARGE, open_session, predict_with
from modelyard.schema import Signature

__all__ = ["OnnxGraph", "OnnxRuntime", "bind", "fields_of_graph"]


class OnnxRuntime:
    """Serves ONNX graphs on ONNX Runtime's CPU provider."""

    name = "onnx"
    is_native = True

    def claims(self, thing: object) -> bool:
        """An ``OnnxGraph``, an ``onnx.ModelProto``, or the path of a file that starts as a graph does."""
        if isinstance(thing, Path):
            return thing.is_file() and (thing.suffix == ".onnx" or _looks_like_a_graph(thing))
        kind = type(thing)
        return isinstance(thing, OnnxGraph) or (kind.__name__ == "ModelProto" and kind.__module__.startswith("onnx"))

    def read(self, path: Path) -> OnnxGraph:
        """The graph in a file, checked: it parses, its operators are known and its data lies beside it."""
        graph = OnnxGraph(path)
        graph.ready  # noqa: B018 (raises what is wrong with it)
        return graph

    def describe(self, model: Any) -> ModelFacts:
        """Task, columns and classes, found by running the graph on a few rows of zeros."""
        graph = OnnxGraph.of(model)
        ready = graph.ready
        _, signature = bind(graph)
        scalar = all(not field.shape for field in signature.inputs)
        widths = [math.prod(field.shape) if -1 not in field.shape else -1 for field in signature.inputs]
        prediction = next((field for field in signature.outputs if field.name == "prediction"), None)
        return ModelFacts(
            task=ready.task,
            kind="onnx",
            feature_names=tuple(field.name for field in signature.inputs) if scalar else None,
            feature_count=sum(widths) if -1 not in widths else None,
            classes=ready.classes,
            has_probabilities=any(field.name == "probabilities" for field in signature.outputs),
            targets=prediction.shape[0] if prediction is not None and len(prediction.shape) == 1 else 1,
        )

    def predictor(self, model: Any, signature: Signature) -> Predict:
        """The graph as a plain function; its tensors are filled by the signature's inputs as ``bind`` says."""
        graph = OnnxGraph.of(model)
        ready = graph.ready
        outputs = [{"tensor": tensor, "field": field.name} for tensor, field in ready.outputs]
        return predict_with(open_session(ready.data, graph.folder), {"outputs": outputs}, signature)

    def save(self, model: Any, folder: Path) -> dict[str, Any]:
        """Write ``model.onnx``, and the files of its external data where it has any. Large weights become such data, so
        that processes that serve the model can share them.

        The options say nothing of inputs: ``load`` pairs them with the signature. Those of ``bind`` say it all.
        """
        graph = OnnxGraph.of(model)
        ready = graph.ready
        folder.mkdir(parents=True, exist_ok=True)
        data = put_apart(ready.data, folder / "model.weights") if len(ready.data) >= LARGE else ready.data
        (folder / "model.onnx").write_bytes(data)
        for name in ready.external:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile((graph.folder or folder) / name, target)
        outputs = [{"tensor": tensor, "field": field.name} for tensor, field in ready.outputs]
        return {"file": "model.onnx", "outputs": outputs}

    def load(self, folder: Path, spec: ModelSpec, signature: Signature, device: str = "cpu") -> Predict:
        """The graph as a plain function; safe to call from several threads.

        Raises BadBundle where the file is missing, is no graph, or its tensors do not fit the options.
        """
        if device != "cpu":
            raise NotFound.among("device", device, ["cpu"])
        root = folder.resolve()
        path = (root / str(spec.options.get("file", "model.onnx"))).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise BadBundle(f"the bundle has no such model file: {spec.options.get('file', 'model.onnx')}")
        return predict_with(open_session(path), spec.options, signature)


def _looks_like_a_graph(path: Path) -> bool:
    """Whether a file starts as a ``ModelProto`` does: a small IR version, then one of its next fields."""
    with path.open("rb") as file:
        start = file.read(3)
    return len(start) == 3 and start[0] == 0x08 and 3 <= start[1] <= 32 and start[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"
