"""Serving ONNX graphs: what feeds a tensor, what comes back, what fails and how."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.errors import BadBundle, ModelFailed
from modelyard.interfaces import ModelSpec, Predict
from modelyard.runtimes.onnx import OnnxRuntime
from modelyard.schema import Array, Field, Signature


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], **constants: Any) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model


def tensor(name: str, kind: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def linear(kind: int = TensorProto.DOUBLE, weights: tuple[float, ...] = (1.0, 10.0, 100.0)) -> onnx.ModelProto:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return graph(
        [helper.make_node("MatMul", ["x", "w"], ["prediction"])],
        [tensor("x", kind, "N", len(weights))],
        [tensor("prediction", kind, "N", 1)],
        w=np.array(weights, dtype=dtype)[:, None],
    )


def load(
    model: onnx.ModelProto, folder: Path, signature: Signature, inputs: Any = None, outputs: Any = None
) -> Predict:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    options: dict[str, Any] = {"file": "model.onnx"}
    if inputs is not None:
        options["inputs"] = inputs
    if outputs is not None:
        options["outputs"] = outputs
    return OnnxRuntime().load(folder, ModelSpec(runtime="onnx", options=options), signature)


def numbers(*names: str, dtype: str = "float64", nullable: bool = False) -> tuple[Field, ...]:
    return tuple(Field(name=n, dtype=dtype, nullable=nullable) for n in names)


PREDICTION = numbers("prediction")


def test_a_block_of_the_same_dtype_is_handed_over(tmp_path: Path) -> None:
    signature = Signature(inputs=numbers("a", "b", "c"), outputs=PREDICTION)
    predict = load(linear(), tmp_path, signature, [{"tensor": "x", "fields": ["a", "b", "c"], "dtype": "float64"}])
    rows = {"c": [3.0, 6.0], "a": [1.0, 4.0], "b": [2.0, 5.0]}
    answer = predict(signature.input_layout.from_arrays(rows))
    assert answer["prediction"].tolist() == [321.0, 654.0]
    assert answer.blocks[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("order", "dtypes"),
    [
        (("a", "b", "c"), ("float64", "float64", "float64")),
        (("c", "a", "b"), ("float64", "float64", "float64")),
        (("b", "c", "a"), ("float64", "int64", "bool")),
        (("a", "b", "c"), ("float32", "float64", "int8")),
    ],
)
@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT])
def test_tensors_are_made_of_any_fields(tmp_path: Path, order: Any, dtypes: Any, kind: int) -> None:
    fields = tuple(Field(name=n, dtype=d) for n, d in zip(("a", "b", "c", "unused"), (*dtypes, "float64"), strict=True))
    signature = Signature(inputs=fields, outputs=PREDICTION)
    predict = load(linear(kind), tmp_path, signature, [{"tensor": "x", "fields": list(order)}])
    row = {"a": [1], "b": [2], "c": [1], "unused": [9]}
    expected = sum(w * row[n][0] for w, n in zip((1, 10, 100), order, strict=True))
    assert predict(signature.input_layout.from_arrays(row))["prediction"].tolist() == [expected]


@pytest.mark.parametrize("rows", [0, 1, 2, 100])
def test_any_number_of_rows(tmp_path: Path, rows: int) -> None:
    signature = Signature(inputs=numbers("a", "b", "c"), outputs=PREDICTION)
    predict = load(linear(), tmp_path, signature)
    columns = signature.input_layout.from_arrays({n: np.arange(rows, dtype="float64") for n in "abc"})
    answer = predict(columns)
    assert answer.rows == rows
    assert answer["prediction"].tolist() == [111.0 * i for i in range(rows)]


def test_many_rows_are_run_in_parts_where_the_options_say_so(tmp_path: Path) -> None:
    model = graph(  # answers how many rows it was given
        [
            helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
            helper.make_node("Expand", ["s", "s"], ["prediction"]),
        ],
        [tensor("x", TensorProto.DOUBLE, "N")],
        [tensor("prediction", TensorProto.INT64, "N")],
    )
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    signature = Signature(inputs=numbers("x"), outputs=numbers("prediction", dtype="int64"))
    columns = signature.input_layout.from_arrays({"x": np.zeros(7)})
    for options, expected in (({}, [7] * 7), ({"max_rows": 3}, [3, 3, 3, 3, 3, 3, 1])):
        predict = OnnxRuntime().load(tmp_path, ModelSpec(runtime="onnx", options=options), signature)
        assert predict(columns)["prediction"].tolist() == expected
    for most in (0, -1, True, 2.5, "9"):
        with pytest.raises(BadBundle, match="max_rows of the model must be a whole number above 0"):
            OnnxRuntime().load(tmp_path, ModelSpec(runtime="onnx", options={"max_rows": most}), signature)


def test_a_model_goes_with_its_function(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()  # a server freezes what it has loaded: what only the collector would find stays for good
    try:
        predict = load(linear(), tmp_path, Signature(inputs=numbers("a", "b", "c"), outputs=PREDICTION))
        held = weakref.ref(predict)
        del predict
        assert held() is None
    finally:
        gc.enable()


def test_columns_of_another_order_are_laid_out_again(tmp_path: Path) -> None:
    signature = Signature(inputs=numbers("a", "b", "c"), outputs=PREDICTION)
    predict = load(linear(), tmp_path, signature)
    other = Signature(inputs=numbers("c", "b", "a"))
    columns = other.input_layout.from_arrays({"a": [1.0], "b": [2.0], "c": [3.0]})
    assert predict(columns)["prediction"].tolist() == [321.0]


def test_missing_text_reaches_the_graph_as_empty(tmp_path: Path) -> None:
    model = graph(
        [
            helper.make_node(
                "LabelEncoder", ["s"], ["y"], domain="ai.onnx.ml",
                keys_strings=["", "red", "blue"], values_int64s=[0, 1, 2], default_int64=9,
            )
        ],
        [tensor("s", TensorProto.STRING, "N", 2)],
        [tensor("y", TensorProto.INT64, "N", 2)],
    )  # fmt: skip
    fields = numbers("p", "q", dtype="string", nullable=True)
    signature = Signature(inputs=fields, outputs=(Field(name="y", dtype="int64", shape=(2,)),))
    predict = load(model, tmp_path, signature, [{"tensor": "s", "fields": ["p", "q"]}])
    columns = signature.input_layout.from_arrays({"p": ["red", None, "green"], "q": [None, "blue", "red"]})
    assert predict(columns)["y"].tolist() == [[1, 0], [0, 2], [9, 1]]
    assert columns["p"].tolist() == ["red", None, "green"], "the caller's columns stay as they were"


def test_text_and_vector_outputs(tmp_path: Path) -> None:
    model = graph(
        [
            helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
            helper.make_node("Gather", ["names", "i"], ["label"]),
            helper.make_node("Identity", ["x"], ["scores"]),
        ],
        [tensor("x", TensorProto.FLOAT, "N", 3)],
        [tensor("label", TensorProto.STRING, "N"), tensor("scores", TensorProto.FLOAT, "N", 3)],
        names=np.array(["no", "yes", "maybe"], dtype=object),
    )
    signature = Signature(
        inputs=(Field(name="x", dtype="float32", shape=(3,)),),
        outputs=(
            Field(name="prediction", dtype="string"),
            Field(name="probabilities", dtype="float64", shape=(3,), categories=("no", "yes", "maybe")),
        ),
    )
    outputs = [{"tensor": "label", "field": "prediction"}, {"tensor": "scores", "field": "probabilities"}]
    predict = load(model, tmp_path, signature, None, outputs)
    answer = predict(signature.input_layout.from_arrays({"x": np.eye(3, dtype="float32")[[2, 0]]}))
    assert answer["prediction"].tolist() == ["maybe", "no"]
    assert answer["probabilities"].dtype == np.float64
    assert answer["probabilities"].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_several_scalar_outputs_share_a_block(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])]
    outs = [tensor("a", TensorProto.DOUBLE, "N"), tensor("b", TensorProto.DOUBLE, "N")]
    model = graph(nodes, [tensor("x", TensorProto.DOUBLE, "N")], outs)
    signature = Signature(inputs=numbers("x"), outputs=numbers("b", "a"))
    answer = load(model, tmp_path, signature)(signature.input_layout.from_arrays({"x": [1.5, -2.0]}))
    assert (answer["a"].tolist(), answer["b"].tolist()) == ([-1.5, 2.0], [1.5, 2.0])


def test_a_failure_inside_the_graph_keeps_its_message(tmp_path: Path) -> None:
    model = graph(
        [helper.make_node("Gather", ["table", "i"], ["prediction"])],
        [tensor("i", TensorProto.INT64, "N")],
        [tensor("prediction", TensorProto.DOUBLE, "N")],
        table=np.array([1.0, 2.0]),
    )
    signature = Signature(inputs=(Field(name="i", dtype="int64"),), outputs=PREDICTION)
    predict = load(model, tmp_path, signature)
    with pytest.raises(ModelFailed, match="indices element out of data bounds"):
        predict(signature.input_layout.from_arrays({"i": [7]}))


def test_an_output_of_another_shape_is_named(tmp_path: Path) -> None:
    model = graph(
        [helper.make_node("ReduceSum", ["x"], ["prediction"], keepdims=1)],
        [tensor("x", TensorProto.DOUBLE, "N", 2)],
        [tensor("prediction", TensorProto.DOUBLE, 1, 1)],
    )
    signature = Signature(inputs=numbers("a", "b"), outputs=PREDICTION)
    predict = load(model, tmp_path, signature)
    with pytest.raises(ModelFailed, match=r"output prediction of the model has shape \[1, 1\] for 3 rows"):
        predict(signature.input_layout.from_arrays({"a": np.ones(3), "b": np.ones(3)}))


def test_what_does_not_fit_is_refused_at_load(tmp_path: Path) -> None:
    signature = Signature(inputs=numbers("a", "b", "c"), outputs=PREDICTION)
    with pytest.raises(BadBundle, match=r"no such model file: model\.onnx"):
        OnnxRuntime().load(tmp_path, ModelSpec(runtime="onnx"), signature)
    with pytest.raises(BadBundle, match="no such model file"):
        OnnxRuntime().load(tmp_path, ModelSpec(runtime="onnx", options={"file": "../../etc/passwd"}), signature)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BadBundle, match="cannot load the graph"):
        OnnxRuntime().load(tmp_path, ModelSpec(runtime="onnx"), signature)
    with pytest.raises(BadBundle, match="the graph has no input y: it has x"):
        load(linear(), tmp_path, signature, [{"tensor": "y", "fields": ["a"]}])
    with pytest.raises(BadBundle, match="the graph has no output score: it has prediction"):
        load(linear(), tmp_path, signature, None, [{"tensor": "score", "field": "prediction"}])
    texts = Signature(inputs=numbers("a", "b", "c", dtype="string"), outputs=PREDICTION)
    with pytest.raises(BadBundle, match=r"field a \(string\) does not fit tensor x \(float64\)"):
        load(linear(), tmp_path, texts)


def test_serving_imports_neither_onnx_nor_the_training_libraries(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear().SerializeToString())
    script = """
import json, sys
from pathlib import Path
from modelyard import plugins
from modelyard.interfaces import ModelSpec
from modelyard.schema import Field, Signature
fields = tuple(Field(name=n, dtype="float64") for n in "abc")
signature = Signature(inputs=fields, outputs=(Field(name="prediction", dtype="float64"),))
runtime = plugins.find("runtimes", "onnx")
predict = runtime.load(Path(sys.argv[1]), ModelSpec(runtime="onnx", options={"file": "model.onnx"}), signature)
answer = predict(signature.input_layout.from_arrays({"a": [1.0], "b": [1.0], "c": [1.0]}))["prediction"].tolist()
print(json.dumps([answer, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    answer, modules = json.loads(done.stdout)
    assert answer == [111.0]
    assert not {"onnx", "sklearn", "pandas", "scipy", "skops", "xgboost", "lightgbm", "joblib"} & set(modules)


def test_predictions_from_many_threads_do_not_mix(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    signature = Signature(inputs=numbers("a", "b", "c"), outputs=PREDICTION)
    predict = load(linear(), tmp_path, signature)

    def one(i: int) -> list[float]:
        row: dict[str, Array] = {n: np.full(1, float(i)) for n in "abc"}
        return predict(signature.input_layout.from_arrays(row))["prediction"].tolist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(2000))) == [[111.0 * i] for i in range(2000)]


def test_onnx_runtime_is_quiet_and_reports_nothing_where_the_home_folder_cannot_be_written(tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "model.onnx")
    script = (
        "import os, pathlib; from modelyard.runtimes.onnx_session import open_session; "
        "open_session(pathlib.Path('model.onnx')); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {"HOME": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
