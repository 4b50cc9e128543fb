"""Versions of a model that double their input, and what a canary may do worse: native graphs, quick to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import BaseEstimator, RegressorMixin

from modelyard.bundle import Bundle, pack

#: Below it inputs are odd: some versions fail there. It is no part of what they were packaged with.
ODD = 0.3

#: How far predictions are from the truth, as their metrics say.
RMSE = 0.1


def version(folder: Path, kind: str, *, noise: float = 0.0) -> Bundle:
    """One version: ``good``; ``failing`` or ``nan`` for odd inputs; ``slow``; ``shifted`` by a half; ``wrong``, which
    answers as often with each number as a good one, and hardly ever with the right one. ``noise`` makes it another
    bundle that predicts the same.
    """
    node = helper.make_node
    nodes = [node("Mul", ["x", "two"], ["double"])]
    constants: dict[str, Any] = {"two": [2.0], "odd": [ODD], "noise": [noise]}
    result = "double"
    if kind in ("failing", "nan"):
        nodes.append(node("Less", ["x", "odd"], ["is_odd"]))
        result = "changed"
    if kind == "failing":  # there is no such row of the table
        constants["table"] = [0.0]
        nodes += [
            node("Cast", ["is_odd"], ["place"], to=TensorProto.INT64), node("Gather", ["table", "place"], ["nothing"]),
            node("Add", ["double", "nothing"], ["changed"]),
        ]  # fmt: skip
    elif kind == "nan":
        constants["nan"] = [np.nan]
        nodes.append(node("Where", ["is_odd", "nan", "double"], ["changed"]))
    elif kind == "slow":
        constants |= {"many": [12_000_000], "second": [1]}
        result = "changed"
        nodes += [
            node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "second"], ["one"]),
            node("Mul", ["one", "many"], ["size"]),
            node("ConstantOfShape", ["size"], ["zeros"]), node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            node("Cast", ["zero"], ["nothing"], to=TensorProto.DOUBLE), node("Add", ["double", "nothing"], ["changed"]),
        ]  # fmt: skip
    elif kind in ("shifted", "wrong"):
        constants["other"] = [0.5 if kind == "shifted" else 2.0]
        result = "changed"
        nodes.append(node("Add" if kind == "shifted" else "Sub", ["double", "other"], ["moved"]))
        nodes.append(node("Abs", ["moved"], ["changed"]))
    nodes += [node("Mul", ["x", "noise"], ["none"]), node("Sub", ["none", "none"], ["zero_more"])]
    nodes.append(node("Add", [result, "zero_more"], ["prediction"]))
    tensors = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["N", 1]) for n in ("x", "prediction")]
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model)
    sample = {"x": np.random.default_rng(0).uniform(ODD, 1, 400)}
    return pack(path, folder / "bundle", sample=sample, metrics={"held_out": {"rmse": {"value": RMSE}}})


class Foreign(RegressorMixin, BaseEstimator):
    """A model of a kind that nobody trusts."""

    def fit(self, rows: Any = None, target: Any = None) -> Foreign:
        self.n_features_in_ = 1
        return self

    def predict(self, rows: Any) -> Any:
        return 2 * np.asarray(rows, dtype=float)[:, 0]


def foreign(folder: Path) -> Bundle:
    return pack(Foreign().fit(), folder, sample={"x": np.linspace(ODD, 1, 50)})


def truth(x: float) -> float:
    return 2 * x
