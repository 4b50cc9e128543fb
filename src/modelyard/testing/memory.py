"""A bundle that is only a function and a signature, for tests of what serves or scores bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import ModelFailed
from modelyard.interfaces import ModelSpec, Predict
from modelyard.profile import Profile
from modelyard.schema import Array, Columns, Signature


class MemoryManifest(msgspec.Struct, kw_only=True):
    """The part of a manifest that is asked for."""

    signature: Signature
    task: str = "regression"
    model: ModelSpec = ModelSpec(runtime="memory")
    metrics: dict[str, Any] = {}


class MemoryBundle:
    """A model around ``function``: a mapping of input arrays to a mapping of output arrays.

    ``sample`` holds a few rows to warm the model with; its outputs are the golden ones.
    """

    def __init__(
        self,
        signature: Signature,
        function: Callable[[Columns], Mapping[str, Array]],
        sample: Mapping[str, Any],
        *,
        task: str = "regression",
        digest: str = "",
        metrics: dict[str, Any] | None = None,
    ) -> None:
        self.signature = signature
        self.manifest = MemoryManifest(signature=signature, task=task, metrics=metrics or {})
        self.digest = digest or f"sha256:{hashlib.sha256(repr((signature, id(function))).encode()).hexdigest()}"
        self._function = function
        self._inputs = signature.input_layout.from_arrays(sample)
        self._outputs: Columns | None = None

    def load(self, **_: Any) -> Predict:
        """The model as a plain function."""
        return lambda columns: _outputs(self.signature, self._function(columns))

    def golden(self) -> tuple[Columns, Columns]:
        """The sample and the outputs that the first call gave for it."""
        if self._outputs is None:
            self._outputs = self.load()(self._inputs)
        return self._inputs, self._outputs

    def profile(self) -> Profile:
        """The reference profile of the sample and its outputs."""
        inputs, outputs = self.golden()
        return Profile.of(inputs, self.signature.inputs, outputs, self.signature.outputs)

    def check_golden(self, predict: Predict) -> None:
        """Raise ModelFailed where ``predict`` answers the golden rows differently."""
        inputs, expected = self.golden()
        outputs = predict(inputs)
        for name in expected:
            if not np.array_equal(outputs[name], expected[name]):
                raise ModelFailed(f"golden rows differ in output: {name}")


def _outputs(signature: Signature, arrays: Mapping[str, Array]) -> Columns:
    """Output arrays as columns, unchecked as those of a real runtime are."""
    layout = signature.output_layout
    blocks = [
        np.stack([np.asarray(arrays[name], dtype=block.storage) for name in block.names], axis=1)
        if block.is_scalar
        else np.asarray(arrays[block.names[0]], dtype=block.storage)
        for block in layout.blocks
    ]
    return Columns(layout, blocks, len(blocks[0]))
