"""From an ONNX graph to a prediction function: the hot path of serving. Needs onnxruntime and numpy, nothing else.

What depends only on the signature is decided once, when a graph is loaded: which block feeds which tensor, what is
cast, how tensors become output blocks. Measured for 20 columns and one row, in microseconds (ONNX Runtime 1.32)::

    session.run, the public method                                          9.7
    the bound method under it                                               7.3    it checks its inputs less often
    ... with one RunOptions object for all calls                            6.2    None makes a new one each time
    run_with_iobinding on buffers bound beforehand, one RunOptions          3.6
    predict(columns), one row, of numbers: bound buffers                    6.7
    predict(columns), otherwise                                             8.5
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard import settings
from modelyard.errors import BadBundle, InvalidInput, MissingDependency, ModelFailed
from modelyard.interfaces import Predict
from modelyard.schema import Array, Columns, Field, Layout, Signature

#: Element types of ONNX tensors and the numpy dtype in which each travels.
TENSOR_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(string)": "object",
    "tensor(bool)": "bool", "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
}  # fmt: skip

#: Bytes of weights from which on it matters that every process has a copy of its own.
LARGE = 64 << 20

#: From the columns of a call to the values of one tensor, in the dtype in which the columns hold them.
Feed = Callable[[Columns], Array]
#: From the arrays that a session returned, and the number of rows, to one block of the output layout.
Gather = Callable[[Sequence[Array], int], Array]


class _Input:
    """One tensor to feed."""

    __slots__ = ("dtype", "feed", "must_cast", "name", "row_shape")

    def __init__(self, name: str, dtype: str, feed: Feed, must_cast: bool, row_shape: tuple[int, ...]) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self.feed = feed
        self.must_cast = must_cast
        #: Shape of one row of the tensor; holds -1 where it may vary.
        self.row_shape = row_shape


def open_session(graph: Path | bytes, data: Path | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` with one thread that never spins: a small model is faster so, and several
    workers on one machine do not fight. ``data`` is the folder of external data of a graph that comes as bytes.

    Raises BadBundle where ONNX Runtime refuses the graph, MissingDependency without ONNX Runtime.
    """
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # its warnings speak about graph clean-up, not to the person who serves
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if data is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(data))
    elif isinstance(graph, Path) and settings.get("weights") == "mapped" and _has_large_data(graph):
        options.add_session_config_entry("session.disable_prepacking", "1")
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this one
        raise BadBundle(f"ONNX Runtime cannot load the graph: {first_line(error)}") from error


def _has_large_data(graph: Path) -> bool:
    """Whether large weights lie beside the graph: ONNX Runtime maps those, unless it packs a copy of them."""
    return any(file != graph and file.stat().st_size >= LARGE for file in graph.parent.iterdir())


def _onnxruntime() -> Any:
    """The module, quiet and without telemetry: as it is imported, 1.32 keeps an identifier of the machine in the home
    folder to report its use with, and complains on stderr where it cannot.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read during the import, before anything could be called
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependency("serving ONNX needs onnxruntime", hint="pip install onnxruntime") from error
    ort.disable_telemetry_events()
    ort.set_default_logger_severity(3)
    return ort


def first_line(error: Exception) -> str:
    """The message of an ONNX Runtime error without its prefix of codes."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text


def predict_with(session: Any, options: dict[str, Any], signature: Signature) -> Predict:
    """The prediction function of a session; safe to call from several threads.

    ``options`` are those of a ``ModelSpec`` (see ``OnnxRuntime``). Columns that are laid out in another way than
    the signature's inputs are laid out again. Raises BadBundle where tensors and fields do not fit.
    """
    ort = _onnxruntime()
    outputs = options.get("outputs") or [{"tensor": f.name, "field": f.name} for f in signature.outputs]
    tensors = [str(entry["tensor"]) for entry in outputs]
    inputs = _compile_inputs(session, options.get("inputs"), signature)
    gathers = _compile_outputs(session, {str(e["field"]): i for i, e in enumerate(outputs)}, tensors, signature)
    expected, layout = signature.input_layout, signature.output_layout
    feed_all = _feed_all(inputs)
    run_options = ort.RunOptions()
    run = getattr(session, "_sess", session).run
    predict_row = _bound_row(session, inputs, tensors, gathers, run_options)
    most = _most_rows(options)

    # None of these functions knows itself: a session would then go only when the garbage collector finds the circle.
    def call(columns: Columns) -> Columns:
        arrays = run(tensors, feed_all(columns), run_options)
        return Columns(layout, [gather(arrays, columns.rows) for gather in gathers], columns.rows)

    def predict(columns: Columns) -> Columns:
        if columns.layout is not expected and columns.layout.fields != expected.fields:
            columns = expected.from_arrays(columns)
        rows = columns.rows
        if not rows:
            return layout.from_tuples([])  # some kernels divide by the number of rows
        try:
            if rows == 1 and predict_row is not None:
                return Columns(layout, predict_row(columns), 1)
            if rows > most:
                return layout.concatenate([call(columns.slice(i, min(i + most, rows))) for i in range(0, rows, most)])
            return call(columns)
        except ModelFailed:
            raise
        except Exception as error:
            raise ModelFailed(f"the ONNX model failed: {first_line(error)}") from error

    return predict


def _most_rows(options: dict[str, Any]) -> int:
    most = options.get("max_rows")
    if most is None:
        return sys.maxsize
    if type(most) is not int or most < 1:
        raise BadBundle(f"max_rows of the model must be a whole number above 0, not {most!r}")
    return most


def _feed_all(inputs: list[_Input]) -> Callable[[Columns], dict[str, Array]]:
    feeds = [(tensor.name, _cast(tensor.feed, tensor.dtype) if tensor.must_cast else tensor.feed) for tensor in inputs]
    if len(feeds) == 1:
        ((name, feed),) = feeds
        return lambda columns: {name: feed(columns)}
    return lambda columns: {name: feed(columns) for name, feed in feeds}


def _cast(feed: Feed, dtype: np.dtype[Any]) -> Feed:
    return lambda columns: feed(columns).astype(dtype)


def _bound_row(
    session: Any, inputs: list[_Input], tensors: list[str], gathers: list[Gather], settings: Any
) -> Callable[[Columns], list[Array]] | None:
    """One row through buffers that are bound to the session beforehand, which spares ONNX Runtime's own bookkeeping.

    None where the graph takes or gives text, or shapes that vary: there is nothing to bind then.
    """
    shapes = {node.name: node.shape for node in session.get_outputs()}
    dtypes = {node.name: TENSOR_DTYPES.get(node.type, "object") for node in session.get_outputs()}
    tails = [shapes[name][1:] for name in tensors]
    if any(tensor.dtype == object or -1 in tensor.row_shape for tensor in inputs):
        return None
    if any(dtypes[name] == "object" or not shapes[name] for name in tensors):
        return None
    if any(not isinstance(size, int) or size < 0 for tail in tails for size in tail):
        return None
    run = getattr(session, "_sess", session).run_with_iobinding
    feeds = [tensor.feed for tensor in inputs]

    def make_slot() -> tuple[Any, list[tuple[Feed, Array]], list[Array]]:
        binding = session.io_binding()
        taken = [np.zeros((1, *tensor.row_shape), tensor.dtype) for tensor in inputs]
        given = [np.zeros((1, *tail), dtypes[name]) for name, tail in zip(tensors, tails, strict=True)]
        for tensor, array in zip(inputs, taken, strict=True):
            binding.bind_input(tensor.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in zip(tensors, given, strict=True):
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        bound = getattr(binding, "_iobinding", binding) if hasattr(session, "_sess") else binding
        return bound, list(zip(feeds, taken, strict=True)), given

    # Each call takes a slot of its own; pop and append are atomic, so threads never share one.
    slots = []
    try:
        slots.append(make_slot())
        run(slots[0][0], settings)
    except Exception:  # a row of zeros is no fair row for this graph, or its declared shapes are not what it returns
        return None

    def predict_row(columns: Columns) -> list[Array]:
        slot = slots.pop() if slots else make_slot()
        bound, taken, given = slot
        for feed, array in taken:
            # Same dtype or a cast; a rank-1 tensor takes its one value from a view of shape (1,).
            array[...] = feed(columns)
        run(bound, settings)
        blocks = [np.array(gather(given, 1)) for gather in gathers]
        slots.append(slot)
        return blocks

    return predict_row


# -- inputs: columns -> tensors ----------------------------------------------------------------------------------


def _compile_inputs(session: Any, entries: Any, signature: Signature) -> list[_Input]:
    given = {node.name: node for node in session.get_inputs()}
    compiled: dict[str, _Input] = {}
    tensors = [(node.name, width_of(node.shape)) for node in given.values()]
    for entry in entries or pair_names(tensors, [field.name for field in signature.inputs]):
        node = given.get(str(entry["tensor"]))
        if node is None:
            raise BadBundle(f"the graph has no input {entry['tensor']}: it has {', '.join(given)}")
        dtype = TENSOR_DTYPES.get(node.type)
        if dtype is None:
            raise BadBundle(f"input {node.name} of the graph is no tensor that a column can fill: {node.type}")
        fields = [signature.input(str(name)) for name in entry["fields"]]
        _check_fields(node.name, dtype, fields)
        compiled[node.name] = _compile_input(node.name, dtype, len(node.shape), fields, signature.input_layout)
    if missing := [name for name in given if name not in compiled]:
        raise BadBundle(f"no field fills input {missing[0]} of the graph")
    return list(compiled.values())


def pair_names(tensors: Sequence[tuple[str, int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Which columns make each tensor, where nobody said so; ``tensors`` are (name, width), width -1 if it may vary.

    A tensor named as a column takes that column. The columns that remain fill the remaining tensors in order, side
    by side. Raises InvalidInput where they are too few or too many.
    """
    rest = [name for name in names if name not in {tensor for tensor, _ in tensors}]
    entries: list[dict[str, Any]] = []
    for at, (tensor, width) in enumerate(tensors):
        if tensor in names:
            entries.append({"tensor": tensor, "fields": [tensor]})
            continue
        last = all(other in names for other, _ in tensors[at + 1 :])
        take = len(rest) if width < 0 and last else width
        if len(rest) == 1 and take > 1 and last:
            take = 1  # one column that holds the whole vector
        if take < 0 or take > len(rest):
            many = "several" if take < 0 else str(take)
            raise InvalidInput.at(f"input {tensor} of the graph", f"{many} columns", f"{len(rest)}: {', '.join(rest)}")
        entries.append({"tensor": tensor, "fields": rest[:take]})
        rest = rest[take:]
    if rest:
        wanted = ", ".join(f"{tensor} ({width})" for tensor, width in tensors)
        raise InvalidInput.at("columns", f"those that the graph takes: {wanted}", f"{', '.join(rest)} as well")
    return entries


def width_of(shape: Sequence[Any]) -> int:
    """How many columns make a tensor of this shape; -1 if that may vary. One makes an image or a sequence."""
    if len(shape) != 2:
        return 1
    return shape[1] if isinstance(shape[1], int) and shape[1] > 0 else -1


def _check_fields(tensor: str, dtype: str, fields: list[Field]) -> None:
    for field in fields:
        if (field.storage == "object") != (dtype == "object"):
            raise BadBundle(f"field {field.name} ({field.dtype}) does not fit tensor {tensor} ({dtype})")
        if field.nullable and not dtype.startswith(("float", "object")):
            raise InvalidInput.at(
                field.name, f"a field that is never missing, for tensor {tensor} ({dtype})", "nullable"
            )
        if field.shape and len(fields) > 1:
            raise BadBundle(f"tensor {tensor} cannot be made of several fields where one has a shape: {field.name}")


def _compile_input(tensor: str, dtype: str, rank: int, fields: list[Field], layout: Layout) -> _Input:
    places = [layout.places[field.name] for field in fields]
    number, index = places[0]
    block = layout.blocks[number]
    if any(other != number for other, _ in places):
        return _Input(tensor, dtype, _stacked(places, np.dtype(dtype)), False, (len(places),))
    row_shape: tuple[int, ...] = fields[0].shape or (len(fields),)
    inside = [at for _, at in places]
    if rank == 1 and len(fields) == 1 and block.is_scalar:
        feed, row_shape = _one_column(number, index), ()
    elif fields[0].shape or inside == list(range(len(block.names))):
        feed = _whole_block(number)
    else:
        feed = _some_columns(number, inside)
    if dtype == "object" and any(field.nullable for field in fields):
        feed = _without_none(feed)
    return _Input(tensor, dtype, feed, block.storage != dtype, row_shape)


def _whole_block(number: int) -> Feed:
    return lambda columns: columns.blocks[number]


def _one_column(number: int, index: int) -> Feed:
    return lambda columns: columns.blocks[number][:, index]


def _some_columns(number: int, inside: list[int]) -> Feed:
    start = inside[0]
    if inside == list(range(start, start + len(inside))):
        part = slice(start, start + len(inside))
        return lambda columns: columns.blocks[number][:, part]
    order = np.array(inside)
    return lambda columns: columns.blocks[number].take(order, axis=1)


def _stacked(places: list[tuple[int, int]], dtype: np.dtype[Any]) -> Feed:
    """Scalar fields from several blocks, cast and put side by side."""
    groups = []
    for wanted in sorted({number for number, _ in places}):
        to = np.array([at for at, (number, _) in enumerate(places) if number == wanted])
        source = np.array([index for number, index in places if number == wanted])
        groups.append((wanted, to, source))

    def feed(columns: Columns) -> Array:
        matrix = np.empty((columns.rows, len(places)), dtype=dtype)
        for number, to, source in groups:
            matrix[:, to] = columns.blocks[number][:, source]
        return matrix

    return feed


def _without_none(feed: Feed) -> Feed:
    """Missing text as "": tensors of strings have no null."""

    def feed_text(columns: Columns) -> Array:
        array = feed(columns)
        texts = array.ravel().tolist()
        if None not in texts:  # on a list: ten times faster than numpy's comparison for a row or two
            return array
        return np.array(["" if text is None else text for text in texts], dtype=object).reshape(array.shape)

    return feed_text


# -- outputs: tensors -> columns ---------------------------------------------------------------------------------


def _compile_outputs(session: Any, position: dict[str, int], tensors: list[str], signature: Signature) -> list[Gather]:
    """One gather for each block of the output layout; ``position`` is the place of a field's tensor in ``tensors``."""
    types = {node.name: node.type for node in session.get_outputs()}
    for tensor in tensors:
        if tensor not in types:
            raise BadBundle(f"the graph has no output {tensor}: it has {', '.join(types)}")
        if types[tensor] not in TENSOR_DTYPES:
            raise BadBundle(f"output {tensor} of the graph is no tensor: {types[tensor]}")
    by_name = {field.name: field for field in signature.outputs}
    gathers: list[Gather] = []
    for block in signature.output_layout.blocks:
        if unknown := [name for name in block.names if name not in position]:
            raise BadBundle(f"no tensor of the graph gives output {unknown[0]}")
        at = [position[name] for name in block.names]
        storage = np.dtype(block.storage)
        if len(at) == 1:
            same = TENSOR_DTYPES[types[tensors[at[0]]]] == block.storage
            gathers.append(_one_output(at[0], by_name[block.names[0]], None if same else storage))
        else:
            gathers.append(_many_outputs(at, block.names, storage))
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
    """``array`` as (rows, *tail), where its first axis is the rows and the others hold as many values."""
    if array.shape == (rows,) and tail == (1,):
        return array[:, None]
    got = array.shape[1:]
    if array.shape[:1] == (rows,):
        if len(got) == len(tail) and all(want in (-1, size) for want, size in zip(tail, got, strict=True)):
            return array
        if -1 not in tail and int(np.prod(got)) == int(np.prod(tail)):
            return array.reshape(rows, *tail)
    raise ModelFailed(
        f"output {name} of the model has shape {list(array.shape)} for {rows} rows: expected {[rows, *tail]}"
    )
