"""Foreign ONNX graphs: what they take and give, made ready to be served. Needs the ``onnx`` library; serving does not.

Three things are mended on the way in, each on a copy of the graph:

* a ``ZipMap`` at the end, which turns probabilities into one dict per row, is taken off;
* a batch axis that was exported with a fixed size is freed, and refused where the graph then fails;
* label and probability outputs as scikit-learn converters name them become ``prediction`` and ``probabilities``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput, MissingDependency, Refused
from modelyard.interfaces import ModelSpec
from modelyard.runtimes.onnx_session import TENSOR_DTYPES, first_line, open_session, pair_names, width_of
from modelyard.schema import Array, Field, Signature

#: Operator domains that ONNX Runtime brings along.
KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training", "com.microsoft")


class OnnxGraph:
    """An ONNX graph before it is packaged: a file, or the bytes of a graph without external data."""

    def __init__(self, source: Path | bytes) -> None:
        self.source = source

    @classmethod
    def of(cls, thing: Any) -> OnnxGraph:
        """From a path, bytes, an ``onnx.ModelProto`` or an ``OnnxGraph``."""
        if isinstance(thing, OnnxGraph):
            return thing
        if hasattr(thing, "SerializeToString"):
            return cls(thing.SerializeToString(deterministic=True))
        return cls(thing if isinstance(thing, bytes) else Path(thing))

    @property
    def folder(self) -> Path | None:
        """Where external data lies."""
        return self.source.resolve().parent if isinstance(self.source, Path) else None

    @cached_property
    def ready(self) -> Ready:
        """The graph checked and mended, worked out once. Raises what ``make_ready`` raises."""
        return make_ready(self)


class Ready(msgspec.Struct):
    """A graph made ready to be served."""

    data: bytes
    #: Files of external data, relative to the graph's folder.
    external: tuple[str, ...]
    #: Inputs as (tensor, dtype, shape of one row or None for a tensor of shape (rows,)).
    inputs: list[tuple[str, str, tuple[int, ...] | None]]
    outputs: list[tuple[str, Field]]
    task: str
    classes: tuple[Any, ...] | None


def fields_of_graph(graph: Any) -> Signature:
    """The signature of a graph as it stands: tensors of shape (rows,) or (rows, 1) are scalar fields.

    Raises what ``make_ready`` raises.
    """
    return bind(graph)[1]


def bind(graph: Any, names: Sequence[str] | None = None) -> tuple[ModelSpec, Signature]:
    """The spec and the signature with which ``graph`` (a path or an ``OnnxGraph``) is served.

    With ``names``, the columns of a table: a tensor of shape (rows, k) that no column is named after becomes k
    scalar fields. The file in the spec is the one that ``OnnxRuntime.save`` writes. Raises InvalidInput where the
    columns do not fill the tensors, and what ``make_ready`` raises.
    """
    ready = OnnxGraph.of(graph).ready
    shapes = {name: shape for name, _, shape in ready.inputs}
    dtypes = {name: dtype for name, dtype, _ in ready.inputs}
    if names is None:
        entries = [{"tensor": name, "fields": [name]} for name in shapes]
    else:
        widths = [
            (name, width_of([-1]) if shape is None else width_of([-1, *shape])) for name, _, shape in ready.inputs
        ]
        entries = pair_names(widths, names)
    fields: list[Field] = []
    for entry in entries:
        tensor = str(entry["tensor"])
        shape, dtype = shapes[tensor], dtypes[tensor]
        entry["dtype"] = dtype
        # One column for a wide tensor is a field with a shape; k columns are k scalars.
        whole = shape not in (None, (1,)) and len(entry["fields"]) == 1 and (names is None or shape != (-1,))
        row = shape if whole and shape is not None else ()
        kind = "string" if dtype == "object" else dtype
        fields += [Field(name=str(name), dtype=kind, shape=row) for name in entry["fields"]]
    options = {
        "file": "model.onnx",
        "inputs": entries,
        "outputs": [{"tensor": tensor, "field": field.name} for tensor, field in ready.outputs],
    }
    signature = Signature(inputs=tuple(fields), outputs=tuple(field for _, field in ready.outputs))
    return ModelSpec(runtime="onnx", options=options), signature


def make_ready(graph: OnnxGraph) -> Ready:
    """Check and mend a graph (see the top of this file), and find out what it takes and gives by running it.

    Raises InvalidInput where it is no graph, or takes a fixed number of rows; Refused where it has operators that
    ONNX Runtime lacks, or external data outside its folder; BadBundle where ONNX Runtime cannot load it.
    """
    model, original = _parse(graph)
    external = _external_files(model, graph.folder)
    _check_operators(model)
    labels = _strip_zip_maps(model)
    fixed = _free_batch(model)
    data = model.SerializeToString(deterministic=True) if labels or fixed else original
    session = open_session(data, graph.folder)
    given = [node for node in session.get_inputs() if node.name not in _initialised(model)]
    inputs = [(node.name, _tensor_dtype(node), _row_shape(node)) for node in given]
    few, many = _probe(session, inputs, 1), _probe(session, inputs, 3)
    if isinstance(many, Exception) and (fixed or not isinstance(few, Exception)):
        shown = f": input {fixed[0]} has shape {fixed[1]}" if fixed else ""
        raise InvalidInput(
            f"the graph takes one number of rows only{shown} (with 3 rows: {first_line(many)})",
            hint="export it again with a first axis that may vary (dynamic_axes or dynamic_shapes)",
        )
    outputs = _outputs(session, inputs, [(n, r) for n, r in ((1, few), (3, many)) if not isinstance(r, Exception)])
    classes = labels or _classes(model)
    task, named, known = _named_outputs(outputs, classes)
    return Ready(data, external, inputs, named, task, known)


def put_apart(data: bytes, weights: Path) -> bytes:
    """Write the weights of a graph to a file of their own; returns the graph that reads them from beside itself."""
    import onnx
    from onnx import external_data_helper

    model = onnx.load_from_string(data)
    external_data_helper.convert_model_to_external_data(model, location=weights.name)
    external_data_helper.write_external_data_tensors(model, str(weights.parent))
    if weights.exists():
        weights.chmod(0o644)
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph


def _parse(graph: OnnxGraph) -> tuple[Any, bytes]:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency.extra("onnx", "onnx", "packaging an ONNX graph") from error
    data = graph.source if isinstance(graph.source, bytes) else graph.source.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError; its module moves between versions
        raise InvalidInput(f"not an ONNX graph: {_name(graph)} ({error})") from error
    if not model.graph.output:
        raise InvalidInput(f"not an ONNX graph: {_name(graph)} (it has no outputs)")
    return model, data


def _name(graph: OnnxGraph) -> str:
    return str(graph.source) if isinstance(graph.source, Path) else f"{len(graph.source)} bytes"


def _initialised(model: Any) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _external_files(model: Any, folder: Path | None) -> tuple[str, ...]:
    tensors = [tensor for graph in _graphs(model.graph) for tensor in graph.initializer]
    for node in _nodes(model):
        for attribute in node.attribute:
            tensors += [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
    found: set[str] = set()
    for tensor in tensors:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if tensor.data_location != 1:  # TensorProto.EXTERNAL
            continue
        if folder is None:
            raise InvalidInput(f"the graph keeps data in another file, so it must come as a path: {location}")
        path = (folder / location).resolve()
        if PurePosixPath(location).is_absolute() or not path.is_relative_to(folder):
            raise Refused(f"the graph reads a file outside its folder: {location}", path=location)
        if not path.is_file():
            raise InvalidInput(f"the graph's data file is missing: {location}")
        found.add(location)
    return tuple(sorted(found))


def _check_operators(model: Any) -> None:
    known = {*KNOWN_DOMAINS, *(function.domain for function in model.functions)}
    custom = sorted({f"{node.domain}.{node.op_type}" for node in _nodes(model) if node.domain not in known})
    if custom:
        raise Refused(
            f"the graph uses operators that ONNX Runtime does not bring along: {', '.join(custom[:10])}",
            hint="export it with standard operators only",
            operators=custom,
        )


def _strip_zip_maps(model: Any) -> tuple[Any, ...]:
    """Take ``ZipMap`` nodes off the outputs; return the class labels that they held."""
    from onnx import TensorProto, helper

    labels: tuple[Any, ...] = ()
    ends = {output.name: output for output in model.graph.output}
    for node in [n for n in model.graph.node if n.op_type == "ZipMap" and n.output[0] in ends]:
        for attribute in node.attribute:
            texts = tuple(text.decode() for text in attribute.strings)
            labels = texts or tuple(attribute.ints)
        output = ends[node.output[0]]
        width = len(labels)
        output.CopyFrom(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, ["N", width]))
        model.graph.node.remove(node)
    return labels


def _free_batch(model: Any) -> tuple[str, list[int]] | None:
    """Free first axes of a fixed size; return the first such input and its shape."""
    fixed: tuple[str, list[int]] | None = None
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        if value.name not in _initialised(model) and shape.dim and shape.dim[0].HasField("dim_value"):
            fixed = fixed or (value.name, [dim.dim_value for dim in shape.dim])
            shape.dim[0].dim_param = "N"
    if fixed:
        for value in model.graph.output:
            if value.type.tensor_type.shape.dim:
                value.type.tensor_type.shape.dim[0].dim_param = "N"
        del model.graph.value_info[:]  # shapes along the way, worked out for the fixed size
    return fixed


def _tensor_dtype(node: Any) -> str:
    dtype = TENSOR_DTYPES.get(node.type)
    if dtype is None:
        raise InvalidInput.at(f"input {node.name} of the graph", "a tensor of numbers, booleans or texts", node.type)
    return dtype


def _row_shape(node: Any) -> tuple[int, ...] | None:
    if not node.shape:
        raise InvalidInput.at(f"input {node.name} of the graph", "a first axis for the rows", "a tensor without axes")
    sizes = tuple(size if isinstance(size, int) else -1 for size in node.shape[1:])
    return sizes if len(node.shape) > 1 else None


def _probe(session: Any, inputs: list[tuple[str, str, tuple[int, ...] | None]], rows: int) -> Any:
    """The outputs for ``rows`` rows of zeros, or the exception that they caused."""
    feed = {}
    for name, dtype, shape in inputs:
        sizes = (rows, *(1 if size < 0 else size for size in shape or ()))
        feed[name] = np.full(sizes, "", dtype=object) if dtype == "object" else np.zeros(sizes, dtype)
    try:
        return session.run(None, feed)
    except Exception as error:  # a graph may well not like zeros; the caller weighs it
        return error


def _outputs(
    session: Any, inputs: list[tuple[str, str, tuple[int, ...] | None]], probes: list[tuple[int, list[Array]]]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """(tensor, dtype, shape of one row) of every output that has a row for each row given; ``probes`` are (rows,
    outputs) of the runs that went well."""
    varies = any(size < 0 for _, _, shape in inputs for size in shape or ())
    found = []
    for at, node in enumerate(session.get_outputs()):
        dtype = TENSOR_DTYPES.get(node.type)
        if dtype is None or any(results[at].shape[:1] != (rows,) for rows, results in probes):
            continue
        tail = tuple(size if isinstance(size, int) else -1 for size in node.shape[1:])
        if probes:
            real = probes[-1][1][at].shape[1:]
            # A size that is only known by running is taken as fixed, unless inputs of varying size may move it.
            tail = tail if varies and len(tail) == len(real) else real
        found.append((node.name, dtype, () if tail == (1,) else tail))
    if not found:
        kinds = ", ".join(f"{node.name} {node.type} {node.shape}" for node in session.get_outputs())
        raise InvalidInput(f"no output of the graph is a tensor with one row for each row it is given: {kinds}")
    return found


def _classes(model: Any) -> tuple[Any, ...]:
    """Class labels as converters leave them in the graph: an attribute of the classifier, or a constant."""
    from onnx import numpy_helper

    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name.startswith("classlabels_") and (attribute.strings or attribute.ints):
                return tuple(text.decode() for text in attribute.strings) or tuple(attribute.ints)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("classes") and tensor.data_location != 1:
            values = numpy_helper.to_array(tensor).ravel().tolist()
            return tuple(value.decode() if isinstance(value, bytes) else value for value in values)
    return ()


def _named_outputs(
    outputs: list[tuple[str, str, tuple[int, ...]]], classes: tuple[Any, ...]
) -> tuple[str, list[tuple[str, Field]], tuple[Any, ...] | None]:
    """The task, the outputs as fields under the names that Modelyard gives them, and the classes."""
    labels = [o for o in outputs if o[1] in ("int64", "object", "bool") and o[2] == ()]
    shares = [o for o in outputs if o[1].startswith("float") and len(o[2]) == 1 and o[2][0] >= 2]
    if len(outputs) == 2 and len(labels) == len(shares) == 1 and (classes or "prob" in shares[0][0].lower()):
        (tensor, dtype, _), (other, _, shape) = labels[0], shares[0]
        if len(classes) != shape[0]:
            classes = tuple(range(shape[0])) if dtype == "int64" else ()
        return (
            "classification",
            [
                (tensor, Field(name="prediction", dtype="string" if dtype == "object" else dtype)),
                (other, _probabilities(shape, classes)),
            ],
            classes or None,
        )
    if len(outputs) == 1:
        tensor, dtype, shape = outputs[0]
        if dtype.startswith("float"):
            return (
                "other" if shape else "regression",
                [(tensor, Field(name="prediction", dtype="float64", shape=shape))],
                None,
            )
        field = Field(name="prediction", dtype="string" if dtype == "object" else dtype, shape=shape)
        return "other" if shape else "classification", [(tensor, field)], classes or None
    named = [(t, Field(name=t, dtype="string" if d == "object" else d, shape=s)) for t, d, s in outputs]
    return "other", named, classes or None


def _probabilities(shape: tuple[int, ...], classes: tuple[Any, ...]) -> Field:
    texts = tuple(str(label) for label in classes) or None
    return Field(name="probabilities", dtype="float64", shape=shape, categories=texts)
