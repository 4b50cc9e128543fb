"""A builder of ONNX graphs in double precision.

Values flow as lists of **columns**. A column is a place in a tensor of shape (rows, width), so that selecting,
reordering and joining columns costs no node: nodes are added only when an operator needs a matrix. Scalings are kept
*pending* in the same way: a linear model takes them into its weights, and anything else has them done first.

Texts become whole numbers at the door: one ``LabelEncoder`` per text tensor maps every text that any step knows to a
code; all text steps then work on codes, and no text is ever copied inside the graph.

Equal nodes and equal constants are made once, and names are numbered in order of creation: the same model gives the
same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from modelyard.bundle.emitter.columns import UNSEEN, Column, Pending, Tensor, Vocabulary, moved
from modelyard.schema import Array

#: Versions of the operator sets and of the file format that the graphs need.
OPSET, ML_OPSET, IR = 18, 5, 10
ML = "ai.onnx.ml"

#: Largest relative difference from the original that is accepted: arithmetic in double; an estimator in float32;
#: boosted trees that their own library adds up in float32.
DOUBLE, SINGLE, BOOSTED = 1e-9, 1e-5, 1e-4


class NotConvertible(Exception):
    """A step has no faithful ONNX form: which, why, and the nearest remedy."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.step = ""


class Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        #: TensorProtos, or (name, maker) for those made at the end.
        self.initializers: list[Any] = []
        self.ml_opset = ML_OPSET
        #: Input field (name, element or None) -> values at which a tree decides.
        self.thresholds: dict[tuple[str, int | None], set[float]] = {}
        self.has_trees = False
        #: Steps whose results may differ from the original's in the last digit.
        self.rounded: list[str] = []
        #: Other converters used: "skl2onnx".
        self.foreign: list[str] = []
        self.tolerance = DOUBLE
        #: Most rows to be run at once, for graphs whose inner tensors are much larger than their inputs; 0: any.
        self.max_rows = 0
        self._made: dict[Any, Any] = {}
        self._count = 0
        self._path: list[str] = []
        self._outputs: set[str] = set()

    # -- errors ------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where we are in the model: ``columns.text``."""
        return ".".join(self._path)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Everything inside belongs to step ``name`` of the model: a refusal from inside carries the path."""
        self._path.append(name)
        try:
            yield
        except NotConvertible as error:
            error.step = error.step or self.path
            raise
        finally:
            self._path.pop()

    # -- nodes -------------------------------------------------------------------------------------------------

    def name(self, stem: str) -> str:
        self._count += 1
        return f"{stem.lower()}_{self._count}"

    def node(self, op: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and return the name of its output, or a list of names where it has several."""
        from onnx import helper

        names = [self.name(op) for _ in range(outputs)]
        node = helper.make_node(op, list(inputs), names, domain=domain, **attributes)
        copy = type(node)()
        copy.CopyFrom(node)
        del copy.output[:]
        key = copy.SerializeToString(deterministic=True)
        if key not in self._made:
            self.nodes.append(node)
            self._made[key] = names
        else:
            self._count -= outputs
        known: list[str] = self._made[key]
        return known[0] if outputs == 1 else known

    def constant(self, value: Any, dtype: Any = "float64") -> str:
        """The name of a constant tensor."""
        from onnx import helper, numpy_helper

        array = np.asarray(value, dtype=dtype)
        if array.dtype == object:
            key: Any = ("text", array.shape, tuple(array.ravel().tolist()))
        else:
            array = np.ascontiguousarray(array).reshape(array.shape)
            key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._made:
            name = self.name("c")
            if array.dtype == object:
                texts = [str(text).encode() for text in array.ravel().tolist()]
                self.initializers.append(helper.make_tensor(name, 8, array.shape, texts))
            else:
                self.initializers.append(numpy_helper.from_array(array, name))
            self._made[key] = name
        known: str = self._made[key]
        return known

    def deferred(self, make: Callable[[], Array]) -> str:
        """The name of a constant whose value is made at the end, when the vocabularies are complete."""
        name = self.name("c")
        self.initializers.append((name, make))
        return name

    def cast(self, name: str, dtype: str) -> str:
        from onnx import TensorProto

        kinds = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        made: str = self.node("Cast", name, to=kinds[dtype])
        return made

    # -- columns -----------------------------------------------------------------------------------------------

    def columns(
        self, name: str, width: int, like: Sequence[Column] | None = None, finite: bool = False, **same: Any
    ) -> list[Column]:
        """Columns over a tensor that exists. ``like`` gives each the origin and so on of another column."""
        tensor = Tensor(width, name, finite=finite)
        if like is not None:
            return [replace(c, tensor=tensor, index=i, **same) for i, c in enumerate(like)]
        return [Column(tensor, i, **{"nullable": False, **same}) for i in range(width)]

    def real(self, tensor: Tensor) -> str:
        """The name of the tensor, made now if it was pending."""
        if not tensor.name:
            assert tensor.make is not None
            tensor.name = tensor.make()
        return tensor.name

    def matrix(self, columns: Sequence[Column]) -> str:
        """One tensor of exactly these columns."""
        if any(column.is_text for column in columns):
            raise NotConvertible("it is given a text column", "encode texts first, for instance with OneHotEncoder")
        return self._joined(columns)

    def codes(self, columns: Sequence[Column]) -> str:
        """One tensor of the codes of these text columns."""
        return self._joined(columns)

    def _joined(self, columns: Sequence[Column]) -> str:
        if not columns:
            raise NotConvertible("no column is left for it")
        runs: list[tuple[Tensor, list[int]]] = []
        for column in columns:
            if not runs or runs[-1][0] is not column.tensor:
                runs.append((column.tensor, []))
            runs[-1][1].append(column.index)
        if len({id(tensor) for tensor, _ in runs}) < len(runs):
            everything, places = self.wholes(columns)
            return self._pick(everything[0], everything[1], places)
        parts = [self._pick(self.real(tensor), tensor.width, indices) for tensor, indices in runs]
        return parts[0] if len(parts) == 1 else str(self.node("Concat", *parts, axis=1))

    def wholes(self, columns: Sequence[Column]) -> tuple[tuple[str, int], list[int]]:
        """The tensors that hold these columns, whole and joined, with the width of that; and where in it each
        column is. For operators that can pick columns by themselves."""
        starts: dict[int, int] = {}
        names: list[str] = []
        width = 0
        for column in columns:
            if id(column.tensor) not in starts:
                starts[id(column.tensor)] = width
                names.append(self.real(column.tensor))
                width += column.tensor.width
        joined = names[0] if len(names) == 1 else str(self.node("Concat", *names, axis=1))
        return (joined, width), [starts[id(c.tensor)] + c.index for c in columns]

    def _pick(self, name: str, width: int, indices: list[int]) -> str:
        if indices == list(range(width)):
            return name
        return str(self.node("Gather", name, self.constant(indices, "int64"), axis=1))

    def elementwise(self, columns: Sequence[Column], steps: Sequence[tuple[str, Array]]) -> list[Column]:
        """Columns after pending ``steps``: Add, Sub, Mul, Div, Fill, each with one number per column."""
        if not columns or not steps:
            return list(columns)

        def make() -> str:
            name = self.matrix(columns)
            for op, vector in steps:
                if op == "Fill":
                    name = self.node("Where", self.node("IsNaN", name), self.constant([vector]), name)
                else:
                    name = self.node(op, name, self.constant(vector))
            return name

        pending = Pending(columns, steps)
        linear = pending.as_linear()
        factor, offset = linear if linear is not None else (np.ones(len(columns)), np.zeros(len(columns)))
        tensor = Tensor(len(columns), make=make, pending=pending)
        fills = any(op == "Fill" for op, _ in steps)
        return [
            replace(
                c,
                tensor=tensor,
                index=i,
                nullable=c.nullable and not fills,
                origin=moved(c.origin, float(factor[i]), float(offset[i])),
            )
            for i, c in enumerate(columns)
        ]

    def decides_at(self, columns: Sequence[Column], places: Sequence[int], values: Sequence[float] | Array) -> None:
        """Note that column ``places[i]`` is compared with ``values[i]``, to aim probe rows there."""
        for place, value in zip(places, values, strict=True):
            origin = columns[place].origin
            if origin is not None and np.isfinite(value) and origin.factor:
                raw = (float(value) - origin.offset) / origin.factor
                self.thresholds.setdefault((origin.name, origin.index), set()).add(raw)

    def linear(self, columns: Sequence[Column], weights: Array, bias: Array | None) -> str:
        """``columns @ weights + bias``: weights (columns, outputs). Pending scalings go into the weights."""
        weights = np.array(weights, dtype="float64")
        bias = np.zeros(weights.shape[1]) if bias is None else np.array(bias, dtype="float64").reshape(-1)
        base = list(columns)
        for i in range(len(base)):
            while (pending := base[i].tensor.pending) is not None and not base[i].tensor.name:
                folded = pending.as_linear()
                if folded is None:
                    break
                bias = bias + folded[1][base[i].index] * weights[i]
                weights[i] = weights[i] * folded[0][base[i].index]
                base[i] = pending.columns[base[i].index]
        if any(column.is_text for column in base):
            self.matrix(base)
        tensors = {id(column.tensor): column.tensor for column in base}
        used = {(id(column.tensor), column.index) for column in base}
        unused = {key for key, t in tensors.items() for i in range(t.width) if (key, i) not in used}
        if len(used) == len(base) and all(tensors[key].finite for key in unused):
            (joined, width), places = self.wholes(base)
            ordered = np.zeros((width, weights.shape[1]))
            ordered[places] = weights
            weights = ordered
        else:
            joined = self.matrix(base)
        return str(self.node("Gemm", joined, self.constant(weights), self.constant(bias)))

    def text_columns(self, name: str, columns: int) -> tuple[Tensor, Vocabulary]:
        """The codes of a tensor of texts; its encoder is written by ``finish``, when all texts are known."""
        vocabulary = Vocabulary()

        def make() -> str:
            codes = self.name("codes")
            self.nodes.append((codes, name, vocabulary))
            return codes

        return Tensor(columns, make=make), vocabulary

    def rename(self, name: str, output: str) -> None:
        """Make the value ``name`` the graph's output ``output``."""
        from onnx import helper

        producer = next((n for n in self.nodes if not isinstance(n, tuple) and name in n.output), None)
        if producer is None or name in self._outputs:
            self.nodes.append(helper.make_node("Identity", [name], [output]))
            return
        self._outputs.add(output)
        for node in self.nodes:
            if not isinstance(node, tuple):
                for side in (node.input, node.output):
                    for i, known in enumerate(side):
                        if known == name:
                            side[i] = output

    # -- the end -----------------------------------------------------------------------------------------------

    def finish(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """The model: a checked ``onnx.ModelProto`` with only the nodes and inputs that the outputs need."""
        from onnx import checker, helper, numpy_helper

        constants = [
            numpy_helper.from_array(value[1](), value[0]) if isinstance(value, tuple) else value
            for value in self.initializers
        ]
        if self.has_trees and self.ml_opset < ML_OPSET:
            raise NotConvertible("double trees and another converter's trees do not fit in one graph")
        nodes = [self._encoder(*node) if isinstance(node, tuple) else node for node in self.nodes]
        needed = {value.name for value in outputs}
        kept = []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_uses(node))
        graph = helper.make_graph(
            kept[::-1],
            "modelyard",
            [value for value in inputs if value.name in needed],
            list(outputs),
            [value for value in constants if value.name in needed],
        )
        versions = {"": OPSET, ML: self.ml_opset}
        domains = dict.fromkeys(["", *(node.domain for node in kept)])
        imports = [helper.make_opsetid(domain, versions.get(domain, 1)) for domain in domains]
        model = helper.make_model(graph, opset_imports=imports, producer_name="modelyard", ir_version=IR)
        checker.check_model(model)
        return model

    @staticmethod
    def _encoder(codes: str, texts: str, vocabulary: Vocabulary) -> Any:
        from onnx import helper

        return helper.make_node(
            "LabelEncoder",
            [texts],
            [codes],
            domain=ML,
            keys_strings=list(vocabulary.codes),
            values_int64s=list(vocabulary.codes.values()),
            default_int64=UNSEEN,
        )


def _uses(node: Any) -> Iterator[str]:
    """The names that a node reads, also from inside its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _uses(inner)
