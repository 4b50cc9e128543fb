"""Foreign ONNX graphs: what is read off them, mended and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.errors import BadBundle, InvalidInput, Refused
from modelyard.interfaces import ModelSpec
from modelyard.runtimes.onnx import OnnxGraph, OnnxRuntime, bind, fields_of_graph
from modelyard.schema import Signature

FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING


def graph(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], opset: int = 17, **constants: Any
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def tensor(name: str, kind: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def weighted(*shape: Any) -> onnx.ModelProto:
    """x of shape [.., 3] times (1, 10, 100)."""
    return graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", FLOAT, *shape)],
        [tensor("y", FLOAT, shape[0], 1)],
        w=np.array([[1], [10], [100]], dtype="float32"),
    )


def classifier(labels: list[Any], zipmap: bool) -> onnx.ModelProto:
    """A linear classifier as scikit-learn converters write it."""
    texts = isinstance(labels[0], str)
    k = len(labels)
    named: dict[str, Any] = {"classlabels_strings" if texts else "classlabels_ints": labels}
    mapped: dict[str, Any] = {"classlabels_strings" if texts else "classlabels_int64s": labels}
    nodes = [
        helper.make_node(
            "LinearClassifier", ["X"], ["label", "raw"], domain="ai.onnx.ml", post_transform="SOFTMAX",
            coefficients=[float(i) for i in range(2 * k)], intercepts=[0.0] * k, multi_class=1, **named,
        ),
        helper.make_node("Normalizer", ["raw"], ["probabilities"], domain="ai.onnx.ml", norm="L1"),
    ]  # fmt: skip
    label = tensor("label", STRING if texts else INT64, None)
    if not zipmap:
        return graph(nodes, [tensor("X", FLOAT, None, 2)], [label, tensor("probabilities", FLOAT, None, k)])
    nodes.append(helper.make_node("ZipMap", ["probabilities"], ["output_probability"], domain="ai.onnx.ml", **mapped))
    key = STRING if texts else INT64
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, [])))
    return graph(nodes, [tensor("X", FLOAT, None, 2)], [label, helper.make_value_info("output_probability", maps)])


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def described(signature: Signature) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(f.name, f.dtype, f.shape) for f in (*signature.inputs, *signature.outputs)]


def test_shapes_become_fields() -> None:
    inputs = [
        tensor("flat", INT64, None), tensor("column", TensorProto.BOOL, "N", 1), tensor("text", STRING, "N", 1),
        tensor("vector", TensorProto.FLOAT16, "N", 4), tensor("sequence", DOUBLE, "N", "T", 2),
        tensor("weight", FLOAT, 3),
    ]  # fmt: skip
    nodes = [helper.make_node("Identity", [i.name], [f"{i.name}_out"]) for i in inputs[:-1]]
    nodes.append(helper.make_node("Identity", ["weight"], ["constant_out"]))
    outputs = [helper.make_tensor_value_info(f"{i.name}_out", i.type.tensor_type.elem_type, None) for i in inputs[:-1]]
    outputs.append(tensor("constant_out", FLOAT, 3))
    model = graph(nodes, inputs, outputs, weight=np.array([1, 2, 3], dtype="float32"))
    # A weight that is also listed as an input is no input, and what does not grow with the rows is no output.
    signature = fields_of_graph(model)
    assert described(signature)[:5] == [
        ("flat", "int64", ()),
        ("column", "bool", ()),
        ("text", "string", ()),
        ("vector", "float16", (4,)),
        ("sequence", "float64", (-1, 2)),
    ]
    assert described(signature)[5:] == [
        ("flat_out", "int64", ()),
        ("column_out", "bool", ()),
        ("text_out", "string", ()),
        ("vector_out", "float16", (4,)),
        ("sequence_out", "float64", (-1, 2)),
    ]


def test_a_wide_tensor_takes_the_columns_of_a_table(tmp_path: Path) -> None:
    path = saved(weighted("N", 3), tmp_path / "m.onnx")
    spec, signature = bind(path, ["a", "b", "c"])
    assert described(signature) == [
        ("a", "float32", ()), ("b", "float32", ()), ("c", "float32", ()), ("prediction", "float64", ())
    ]  # fmt: skip
    assert spec.options["inputs"] == [{"tensor": "x", "fields": ["a", "b", "c"], "dtype": "float32"}]
    assert spec.options["outputs"] == [{"tensor": "y", "field": "prediction"}]
    assert OnnxRuntime().describe(OnnxGraph(path)).task == "regression"
    predict = OnnxRuntime().predictor(OnnxGraph(path), signature)
    assert predict(signature.input_layout.from_arrays({"c": [3], "b": [2], "a": [1]}))["prediction"].tolist() == [321.0]


@pytest.mark.parametrize("given", [["a", "b"], ["a", "b", "c", "d"]])
def test_columns_that_do_not_fill_the_tensor_are_counted(given: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"3 columns, got 2|x \(3\), got d as well"):
        bind(weighted("N", 3), given)


def test_one_column_may_hold_the_vector() -> None:
    assert described(bind(weighted("N", 3), ["pixels"])[1])[0] == ("pixels", "float32", (3,))
    assert described(bind(weighted("N", 3))[1])[0] == ("x", "float32", (3,))


def test_tensors_named_as_columns_take_them_and_the_rest_fills_the_wide_one() -> None:
    model = graph(
        [helper.make_node("Concat", ["x", "age"], ["y"], axis=1)],
        [tensor("x", FLOAT, "N", 2), tensor("age", FLOAT, "N", 1)],
        [tensor("y", FLOAT, "N", 3)],
    )
    spec, signature = bind(model, ["p", "age", "q"])
    assert [e["fields"] for e in spec.options["inputs"]] == [["p", "q"], ["age"]]
    answer = OnnxRuntime().predictor(model, signature)(
        signature.input_layout.from_arrays({"age": [3.0], "q": [2.0], "p": [1.0]})
    )
    assert answer["prediction"].tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("zipmap", [False, True])
@pytest.mark.parametrize("labels", [["no", "yes", "maybe"], [3, 5, 9]])
def test_label_and_probabilities_are_recognised(tmp_path: Path, labels: list[Any], zipmap: bool) -> None:
    path = saved(classifier(labels, zipmap), tmp_path / "m.onnx")
    runtime = OnnxRuntime()
    facts = runtime.describe(runtime.read(path))
    assert (facts.task, facts.has_probabilities, facts.feature_count) == ("classification", True, 2)
    assert facts.classes == tuple(labels)
    _, signature = bind(path, ["a", "b"])
    prediction, probabilities = signature.outputs
    assert (prediction.name, prediction.dtype) == ("prediction", "string" if isinstance(labels[0], str) else "int64")
    assert (probabilities.name, probabilities.dtype, probabilities.shape) == ("probabilities", "float64", (3,))
    assert probabilities.categories == tuple(str(label) for label in labels)
    columns = signature.input_layout.from_arrays({"a": [1.0, -1.0], "b": [0.0, 0.0]})
    folder = tmp_path / "model"
    predict = runtime.load(folder, ModelSpec(runtime="onnx", options=runtime.save(OnnxGraph(path), folder)), signature)
    for answer in (predict(columns), runtime.predictor(OnnxGraph(path), signature)(columns)):
        assert answer["prediction"].tolist() == [labels[2], labels[0]]
        np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, atol=1e-6)
    assert not any(node.op_type == "ZipMap" for node in onnx.load(folder / "model.onnx").graph.node)


def test_a_fixed_batch_is_freed_where_the_graph_allows(tmp_path: Path) -> None:
    model = weighted(1, 3)
    _, signature = bind(model, ["a", "b", "c"])
    predict = OnnxRuntime().predictor(model, signature)
    rows = {name: np.ones(5, dtype="float32") for name in "abc"}
    assert predict(signature.input_layout.from_arrays(rows))["prediction"].tolist() == [111.0] * 5


def test_a_fixed_batch_that_is_baked_in_is_explained() -> None:
    model = graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x", FLOAT, 1, 2, 2)],
        [tensor("y", FLOAT, 1, 4)],
        shape=np.array([1, 4], dtype="int64"),
    )
    with pytest.raises(InvalidInput, match=r"takes one number of rows only: input x has shape \[1, 2, 2\]") as caught:
        fields_of_graph(model)
    assert "first axis that may vary" in caught.value.hint


def test_custom_operators_are_listed() -> None:
    model = graph(
        [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")],
        [tensor("x", FLOAT, "N", 2)],
        [tensor("y", FLOAT, "N", 2)],
    )
    with pytest.raises(Refused, match=r"com\.example\.Frobnicate"):
        fields_of_graph(model)


def test_unknown_standard_operators_are_reported() -> None:
    model = graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])], [tensor("x", FLOAT, "N", 2)], [tensor("y", FLOAT, "N", 2)]
    )
    with pytest.raises(BadBundle, match="NoSuchOperator"):
        fields_of_graph(model)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"{}", b"\x08\x07", b"\x00" * 100])
def test_other_files_are_no_graphs(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="not an ONNX graph"):
        OnnxRuntime().read(path)


def external(folder: Path, location: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    onnx.save(weighted("N", 3), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    if location:
        model = onnx.load(path, load_external_data=False)
        next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = location
        saved(model, path)
    return path


def test_external_data_travels_with_the_graph(tmp_path: Path) -> None:
    path = external(tmp_path / "source")
    _, signature = bind(path, ["a", "b", "c"])
    runtime = OnnxRuntime()
    folder = tmp_path / "model"
    options = runtime.save(runtime.read(path), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "w.bin"]
    path.unlink()
    predict = runtime.load(folder, ModelSpec(runtime="onnx", options=options), signature)
    assert predict(signature.input_layout.from_arrays({"a": [1], "b": [1], "c": [1]}))["prediction"].tolist() == [111.0]


@pytest.mark.parametrize("location", ["../secret.bin", "{absolute}", "link.bin"])
def test_external_data_stays_inside_the_folder(tmp_path: Path, location: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0" * 12)
    path = external(tmp_path / "source", location.format(absolute=secret))
    (tmp_path / "source" / "link.bin").symlink_to(secret)
    with pytest.raises(Refused, match="outside its folder"):
        OnnxRuntime().read(path)
    # A bundle that was made elsewhere, without that check, is stopped at load.
    signature = Signature(inputs=bind(weighted("N", 3), ["a", "b", "c"])[1].inputs)
    spec = ModelSpec(runtime="onnx", options={"file": "m.onnx"})
    with pytest.raises(BadBundle, match=r"External data path|Absolute path"):
        OnnxRuntime().load(tmp_path / "source", spec, signature)


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = external(tmp_path / "source", "gone.bin")
    with pytest.raises(InvalidInput, match=r"data file is missing: gone\.bin"):
        OnnxRuntime().read(path)


def test_an_untouched_graph_is_saved_byte_for_byte(tmp_path: Path) -> None:
    path = saved(weighted("N", 3), tmp_path / "m.onnx")
    OnnxRuntime().save(OnnxGraph(path), tmp_path / "model")
    assert (tmp_path / "model" / "model.onnx").read_bytes() == path.read_bytes()


def test_claims_files_by_content(tmp_path: Path) -> None:
    runtime = OnnxRuntime()
    assert runtime.claims(saved(weighted("N", 3), tmp_path / "no_suffix"))
    assert runtime.claims(weighted("N", 3))
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x95")
    assert not runtime.claims(tmp_path / "model.pkl")
    assert not runtime.claims(tmp_path / "absent.onnx")
    assert not runtime.claims({"a": 1})
