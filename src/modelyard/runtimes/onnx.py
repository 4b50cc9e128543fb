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

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import BadBundle, InvalidInput, MissingDependency, ModelFailed, NotFound
from modelyard.interfaces import ModelSpec, Predict
from modelyard.schema import Array, Columns, Field, Layout, Signature

#: Element types of ONNX tensors and the numpy dtype in which each travels.
TENSOR_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(string)": "object",
    "tensor(bool)": "bool", "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
}  # fmt: skip

#: From the columns of a call to the array of one tensor.
Feed = Callable[[Columns], Array]
#: From the arrays that a session returned, and the number of rows, to one block of the output layout.
Gather = Callable[[Sequence[Array], int], Array]


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


def open_session(graph: Path | bytes) -> Any:
    """An ``onnxruntime.InferenceSession`` with one thread that never spins: a small model is faster so, and several
    workers on one machine do not fight.

    Raises BadBundle where ONNX Runtime refuses the graph, MissingDependency without ONNX Runtime.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependency("serving ONNX needs onnxruntime", hint="pip install onnxruntime") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # its warnings speak about graph clean-up, not to the person who serves
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this one
        raise BadBundle(f"ONNX Runtime cannot load the graph: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The message of an ONNX Runtime error without its prefix of codes."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text


def predict_with(session: Any, options: dict[str, Any], signature: Signature) -> Predict:
    """The prediction function of a session: everything that depends on the signature only is decided here."""
    outputs = options.get("outputs") or [{"tensor": f.name, "field": f.name} for f in signature.outputs]
    tensors = [str(entry["tensor"]) for entry in outputs]
    feeds = _compile_inputs(session, options.get("inputs"), signature)
    layout = signature.output_layout
    gathers = _compile_outputs(session, {str(e["field"]): i for i, e in enumerate(outputs)}, tensors, signature)
    # The Python method around the bound one looks its inputs over again at every call: 4 us of 12 for a small graph.
    run = getattr(session, "_sess", session).run

    feed = _feed_all(list(feeds.items()))
    expected = signature.input_layout

    def predict(columns: Columns) -> Columns:
        if columns.layout is not expected and columns.layout.fields != expected.fields:
            columns = expected.from_arrays(columns)
        rows = columns.rows
        try:
            arrays = run(tensors, feed(columns), None)
            return Columns(layout, [gather(arrays, rows) for gather in gathers], rows)
        except ModelFailed:
            raise
        except Exception as error:
            raise ModelFailed(f"the ONNX model failed: {first_line(error)}") from error

    return predict


# -- inputs: columns -> tensors ----------------------------------------------------------------------------------


def _compile_inputs(session: Any, entries: Any, signature: Signature) -> dict[str, Feed]:
    given = {node.name: node for node in session.get_inputs()}
    entries = entries or _pair_inputs(list(given), signature)
    feeds: dict[str, Feed] = {}
    for entry in entries:
        node = given.get(str(entry["tensor"]))
        if node is None:
            raise BadBundle(f"the graph has no input {entry['tensor']}: it has {', '.join(given)}")
        dtype = TENSOR_DTYPES.get(node.type)
        if dtype is None:
            raise BadBundle(f"input {node.name} of the graph is no tensor that a column can fill: {node.type}")
        fields = [signature.input(str(name)) for name in entry["fields"]]
        feeds[node.name] = _compile_feed(node.name, dtype, len(node.shape), fields, signature.input_layout)
    if missing := [name for name in given if name not in feeds]:
        raise BadBundle(f"no field fills input {missing[0]} of the graph")
    return feeds


def _feed_all(feeds: list[tuple[str, Feed]]) -> Callable[[Columns], dict[str, Array]]:
    if len(feeds) == 1:
        ((tensor, feed),) = feeds
        return lambda columns: {tensor: feed(columns)}
    return lambda columns: {tensor: feed(columns) for tensor, feed in feeds}


def _pair_inputs(tensors: list[str], signature: Signature) -> list[dict[str, Any]]:
    """The entries where the options give none: tensors named as fields, or one tensor of all fields."""
    names = [field.name for field in signature.inputs]
    if len(tensors) == 1 and names != tensors:
        return [{"tensor": tensors[0], "fields": names}]
    return [{"tensor": name, "fields": [name]} for name in tensors]


def _compile_feed(tensor: str, dtype: str, rank: int, fields: list[Field], layout: Layout) -> Feed:
    for field in fields:
        if (field.storage == "object") != (dtype == "object"):
            raise BadBundle(f"field {field.name} ({field.dtype}) does not fit tensor {tensor} ({dtype})")
        if field.nullable and field.storage == "float64" and not dtype.startswith(("float", "object")):
            raise InvalidInput.at(
                field.name, f"a field that is never missing for tensor {tensor} ({dtype})", "nullable"
            )
    places = [layout.places[field.name] for field in fields]
    numbers = [number for number, _ in places]
    block = layout.blocks[numbers[0]]
    if fields[0].shape:
        if len(fields) > 1:
            raise BadBundle(f"tensor {tensor} is made of several fields with shapes: {fields[0].name} ...")
        feed = _whole_block(numbers[0])
    elif len(set(numbers)) == 1:
        inside = [index for _, index in places]
        flat = rank == 1 and len(fields) == 1
        if flat:
            feed = _one_column(numbers[0], inside[0])
        elif inside == list(range(len(block.names))):
            feed = _whole_block(numbers[0])
        else:
            feed = _some_columns(numbers[0], inside)
    else:
        return _stacked(places, dtype)
    storage = layout.blocks[numbers[0]].storage
    if dtype == "object":
        return _without_none(feed) if any(field.nullable for field in fields) else feed
    return feed if storage == dtype else _cast(feed, dtype)


def _whole_block(number: int) -> Feed:
    return lambda columns: columns.blocks[number]


def _one_column(number: int, index: int) -> Feed:
    return lambda columns: columns.blocks[number][:, index]


def _some_columns(number: int, inside: list[int]) -> Feed:
    step = inside[1] - inside[0] if len(inside) > 1 else 1
    if step == 1 and inside == list(range(inside[0], inside[0] + len(inside))):
        part = slice(inside[0], inside[0] + len(inside))
        return lambda columns: columns.blocks[number][:, part]
    order = np.array(inside)
    return lambda columns: columns.blocks[number].take(order, axis=1)


def _cast(feed: Feed, dtype: str) -> Feed:
    target = np.dtype(dtype)
    return lambda columns: feed(columns).astype(target)


def _stacked(places: list[tuple[int, int]], dtype: str) -> Feed:
    """Scalar fields from several blocks, cast and put side by side."""
    target = np.dtype(dtype)
    blocks = sorted({number for number, _ in places})
    groups = []
    for wanted in blocks:
        columns_to = np.array([at for at, (number, _) in enumerate(places) if number == wanted])
        columns_from = np.array([index for number, index in places if number == wanted])
        groups.append((wanted, columns_to, columns_from))

    def feed(columns: Columns) -> Array:
        matrix = np.empty((columns.rows, len(places)), dtype=target)
        for number, to, source in groups:
            matrix[:, to] = columns.blocks[number][:, source]
        return matrix

    return feed


def _without_none(feed: Feed) -> Feed:
    """Missing text as "": tensors of strings have no null."""

    def feed_text(columns: Columns) -> Array:
        array = feed(columns)
        if None in array.ravel().tolist():  # ten times faster than numpy's comparison for a row or two
            filled = ["" if text is None else text for text in array.ravel().tolist()]
            array = np.array(filled, dtype=object).reshape(array.shape)
        return array

    return feed_text


# -- outputs: tensors -> columns ---------------------------------------------------------------------------------


def _compile_outputs(session: Any, position: dict[str, int], tensors: list[str], signature: Signature) -> list[Gather]:
    types = {node.name: node.type for node in session.get_outputs()}
    for tensor in tensors:
        if tensor not in types:
            raise BadBundle(f"the graph has no output {tensor}: it has {', '.join(types)}")
    by_name = {field.name: field for field in signature.outputs}
    gathers: list[Gather] = []
    for block in signature.output_layout.blocks:
        for name in block.names:
            if name not in position:
                raise BadBundle(f"no tensor of the graph gives output {name}")
        at = [position[name] for name in block.names]
        dtypes = {TENSOR_DTYPES.get(types[tensors[i]], "other") for i in at}
        if "other" in dtypes:
            raise BadBundle(f"output {block.names[0]} of the graph is no tensor: {types[tensors[at[0]]]}")
        cast = None if dtypes == {block.storage} else np.dtype(block.storage)
        if len(at) == 1:
            gathers.append(_one_output(at[0], by_name[block.names[0]], cast))
        else:
            gathers.append(_many_outputs(at, block.names, np.dtype(block.storage)))
    return gathers


def _one_output(at: int, field: Field, cast: np.dtype[Any] | None) -> Gather:
    tail = field.shape or (1,)

    def gather(arrays: Sequence[Array], rows: int) -> Array:
        array = arrays[at]
        if array.shape != (rows, *tail):
            array = _shaped(array, rows, tail, field.name)
        return array if cast is None else array.astype(cast)

    return gather


def _many_outputs(at: list[int], names: tuple[str, ...], dtype: np.dtype[Any]) -> Gather:
    def gather(arrays: Sequence[Array], rows: int) -> Array:
        matrix = np.empty((rows, len(at)), dtype=dtype)
        for i, number in enumerate(at):
            matrix[:, i] = _shaped(arrays[number], rows, (1,), names[i])[:, 0]
        return matrix

    return gather


def _shaped(array: Array, rows: int, tail: tuple[int, ...], name: str) -> Array:
    """``array`` as (rows, *tail), where it has that many values and its first axis is the rows."""
    if array.shape == (rows,) and tail == (1,):
        return array[:, None]
    if array.shape[:1] == (rows,) and -1 not in tail and array.size == rows * int(np.prod(tail)):
        return array.reshape(rows, *tail)
    if array.shape[:1] == (rows,) and len(array.shape) == len(tail) + 1 and -1 in tail:
        wanted = zip(array.shape[1:], tail, strict=True)
        if all(want in (-1, got) for got, want in wanted):
            return array
    raise ModelFailed(
        f"output {name} of the model has shape {list(array.shape)} for {rows} rows: expected {[rows, *tail]}"
    )
