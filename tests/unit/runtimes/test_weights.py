"""Large weights of a graph lie in a file of their own, which processes that serve it can share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.runtimes.onnx import OnnxRuntime, bind

SIZE = 2400

#: Loads a model and calls it; says what it answered and how many MB of memory of its own that took.
PROGRAM = """
import json, re, sys
from pathlib import Path
import msgspec, onnxruntime
from modelyard.interfaces import ModelSpec
from modelyard.runtimes.onnx import OnnxRuntime
from modelyard.schema import Signature

def own():
    return int(re.search(r"Anonymous: +(\\d+) kB", Path("/proc/self/smaps_rollup").read_text())[1]) / 1024

folder, spec, signature = sys.argv[1:]
spec, signature = msgspec.json.decode(spec, type=ModelSpec), msgspec.json.decode(signature, type=Signature)
before = own()
predict = OnnxRuntime().load(Path(folder), spec, signature)
answer = predict(signature.input_layout.from_arrays({"x": [[1.0, 2.0]]}))["prediction"].ravel().tolist()
print(json.dumps([answer, own() - before]))
"""


@pytest.fixture(scope="module")
def large() -> onnx.ModelProto:
    names = ["first", "second", "third"]
    weights = {
        "wide": np.ones((2, SIZE), np.float32),
        **{name: np.full((SIZE, SIZE), 1 / SIZE, np.float32) for name in names},
        "narrow": np.full((SIZE, 1), 1 / SIZE, np.float32),
    }
    tensors = ["x", "h0", "h1", "h2", "h3", "prediction"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [tensors[i], name], [tensors[i + 1]]) for i, name in enumerate(weights)],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")
def test_large_weights_lie_apart_and_are_mapped_or_packed(large: onnx.ModelProto, tmp_path: Path) -> None:
    spec, signature = bind(large)
    folder = tmp_path / "model"
    OnnxRuntime().save(large, folder)
    assert (folder / "model.weights").stat().st_size >= 3 * 4 * SIZE * SIZE
    assert (folder / "model.onnx").stat().st_size < 10_000
    own = {}
    for weights in ("mapped", "packed", "auto"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, folder, msgspec.json.encode(spec), msgspec.json.encode(signature)],
            env={**os.environ, "MODELYARD_WEIGHTS": weights}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer, own[weights] = json.loads(done.stdout)
        assert answer == pytest.approx([3.0], rel=1e-4)
    assert own["mapped"] < 20
    assert min(own["packed"], own["auto"]) > 35
