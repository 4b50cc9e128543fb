"""The ONNX runtime: the form in which models are served. Loading needs onnxruntime and numpy, nothing else.

The options of an ONNX ``ModelSpec`` say which fields make each tensor and which tensor is each output::

    {"file": "model.onnx",
     "inputs": [{"tensor": "in_float64", "fields": ["age", "fare"], "dtype": "float64"}],
     "outputs": [{"tensor": "prediction", "field": "prediction"}]}

Scalar fields stand side by side in a tensor of shape (rows, fields); a single field may also be a tensor of shape
(rows,), and a field with a shape is a tensor of its own. Where a tensor is exactly one block of the input layout
with the same dtype, the block is handed over as it is.
"""

from __future__ import annotations

from pathlib import Path

from modelyard.errors import BadBundle, NotFound
from modelyard.interfaces import ModelSpec, Predict
from modelyard.runtimes.onnx_session import open_session, predict_with
from modelyard.schema import Signature


class OnnxRuntime:
    """Serves ONNX graphs on ONNX Runtime's CPU provider."""

    name = "onnx"

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
