"""The Open Inference Protocol, version 2, over REST with JSON tensors.

Every input field is a tensor of shape [N] or [N, 1], or [N, *its own shape]. Where all fields are numbers of one
type, one tensor of shape [N, fields] under any other name is taken for all of them, in the signature's order.
Tensors are answered flat. JSON has no NaN and no infinity: null stands for them, both ways.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from modelyard import __version__
from modelyard.decoding import ValuesDecoder, check_json
from modelyard.errors import InvalidInput, ModelyardError, NotReady, Problem
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.schema import Columns, Field, Layout
from modelyard.wires import code_of, segments

_encode = msgspec.json.encode

#: Storage types of fields and the datatype under which each travels. FP16 has no JSON form: FP32 carries it.
DATATYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "float16": "FP32", "float32": "FP32", "float64": "FP64", "object": "BYTES",
}  # fmt: skip

_WHOLE = frozenset(name for name in DATATYPES.values() if "INT" in name)
_REAL = frozenset({"FP32", "FP64"})
_KNOWN = _WHOLE | _REAL | {"BOOL", "BYTES", "FP16", "BF16"}

#: Rows up to which a request is kept as tuples, which join with those of others at less cost.
_FEW_ROWS = 64


def datatype_of(field: Field) -> str:
    """The datatype under which a field is announced and answered."""
    return "BYTES" if field.dtype == "datetime" else DATATYPES[field.storage]


def _accepted(field: Field) -> frozenset[str]:
    if field.dtype in ("string", "datetime"):
        return frozenset({"BYTES"})
    if field.dtype == "bool":
        return frozenset({"BOOL"})
    if field.dtype.startswith("float"):
        return _REAL | _WHOLE
    return _WHOLE | _REAL if field.nullable else _WHOLE


class _Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Any] | None = None


class _Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class _Infer(msgspec.Struct, gc=False):
    inputs: list[_Tensor]
    id: str = ""
    parameters: dict[str, Any] | None = None
    outputs: list[_Wanted] | None = None


_read_infer = msgspec.json.Decoder(_Infer).decode


class OipWire:
    """See the module."""

    name = "oip"
    prefix = "/v2"

    def match(self, method: str, path: str) -> Call | None:
        if not path.startswith("/v2"):
            return None
        parts = segments(path)
        if method == "POST":
            match parts:
                case ("v2", "models", model, "infer"):
                    return Call("predict", model)
                case ("v2", "models", model, "versions", version, "infer"):
                    return Call("predict", model, version)
                case ("v2", "repository", "index"):
                    return Call("index")
        elif method == "GET":
            match parts:
                case ("v2",):
                    return Call("server")
                case ("v2", "health", "live" | "ready" as which):
                    return Call(which, scope="open")
                case ("v2", "models"):
                    return Call("models")
                case ("v2", "models", model):
                    return Call("model", model)
                case ("v2", "models", model, "ready"):
                    return Call("model_ready", model, scope="open")
                case ("v2", "models", model, "versions", version):
                    return Call("model", model, version)
                case ("v2", "models", model, "versions", version, "ready"):
                    return Call("model_ready", model, version, scope="open")
        return None

    def codec(self, call: Call, served: Served) -> OipCodec:
        return OipCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        return Message(_encode(self._inform(call, message, catalog)))

    def _inform(self, call: Call, message: Message, catalog: Catalog) -> Any:
        if call.action == "server":
            return {"name": "modelyard", "version": __version__, "extensions": []}
        if call.action == "live":
            return {"live": True}
        if call.action == "ready":
            if not catalog.ready:
                faults = "; ".join(f"{ref}: {why}" for ref, why in catalog.faults().items())
                raise NotReady(f"not every declared model is ready{': ' if faults else ''}{faults}")
            return {"ready": True}
        if call.action == "models":
            return {"models": list(dict.fromkeys(served.name for served in catalog.models()))}
        if call.action == "index":
            return _index(message, catalog)
        served = catalog.find(call.model, call.version, None)
        if call.action == "model_ready":
            return {"name": served.name, "ready": True}
        return {
            "name": served.name,
            "versions": [v.version for v in catalog.models() if v.name == served.name and v.version],
            "platform": served.platform,
            "inputs": [_announce(field) for field in served.signature.inputs],
            "outputs": [_announce(field) for field in served.signature.outputs],
        }

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        told = "something went wrong inside the server"
        if isinstance(error, InvalidInput) and len(error.problems) > 1:
            told = "; ".join(str(problem) for problem in error.problems)
        elif isinstance(error, ModelyardError):
            told = error.message
        if isinstance(error, ModelyardError) and error.hint:
            told += f" (hint: {error.hint})"
        return Message(_encode({"error": told}), code=code_of(error))


def _announce(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": datatype_of(field), "shape": [-1, *field.shape]}


def _index(message: Message, catalog: Catalog) -> list[dict[str, str]]:
    only_ready = False
    if message.body.strip():
        try:
            only_ready = bool(msgspec.json.decode(message.body, type=dict[str, Any]).get("ready"))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise InvalidInput.at("body", 'nothing, or a JSON object such as {"ready": true}', str(error)) from None
    found = [
        {"name": v.name} | ({"version": v.version} if v.version else {}) | {"state": "READY", "reason": ""}
        for v in catalog.models()
    ]
    if not only_ready:
        found += [
            {"name": reference, "state": "UNAVAILABLE", "reason": why} for reference, why in catalog.faults().items()
        ]
    return found


class OipCodec:
    """Reads and answers infer requests of one loaded version."""

    def __init__(self, served: Served) -> None:
        inputs = served.signature.inputs
        self._layout = Layout.of(inputs)
        #: name -> the field, its place in a row tuple, how its values are read, the datatypes it may come in
        self._fields = {
            field.name: (field, place, ValuesDecoder.of(_element(field)), _accepted(field))
            for place, field in enumerate(self._layout.fields)
        }
        self._scalar = all(not field.shape for field in inputs)
        self._matrix = self._matrix_field(inputs)
        self._outputs = {field.name: field for field in served.signature.outputs}
        about = {"model_name": served.name} | ({"model_version": served.version} if served.version else {})
        self._head = _encode(about)[:-1]

    def _matrix_field(self, inputs: Sequence[Field]) -> Field | None:
        """The field that stands for each column of one tensor for all fields; None where there can be none."""
        if len(self._layout.blocks) != 1 or not self._scalar or len({field.dtype for field in inputs}) != 1:
            return None
        if not inputs[0].is_numeric:
            return None
        return Field(name="inputs", dtype=inputs[0].dtype, nullable=any(field.nullable for field in inputs))

    # Reading.

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        if "inference-header-content-length" in headers:
            self._refuse_binary(body, headers)
        try:
            infer = _read_infer(body)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _explain(body, error) from None
        if body.count(b":") != _colons(infer):
            check_json(body)
        tensors = infer.inputs
        if len(tensors) == 1 and self._matrix is not None and tensors[0].name not in self._fields:
            request = self._read_matrix(tensors[0], self._matrix)
        else:
            request = self._read_tensors(tensors)
        request.id = infer.id
        request.parameters = infer.parameters
        if infer.outputs:
            request.outputs = self._check_outputs(infer.outputs)
        return request

    def _read_tensors(self, tensors: list[_Tensor]) -> Request:
        lists: list[list[Any] | None] = [None] * len(self._fields)
        shapes: list[list[int]] = [[]] * len(self._fields)
        rows = -1
        for i, tensor in enumerate(tensors):
            known = self._fields.get(tensor.name)
            if known is None:
                names = ", ".join(list(self._fields)[:20])
                raise InvalidInput.at(f"inputs[{i}].name", f"one of {names}", tensor.name)
            field, place, decoder, accepted = known
            if lists[place] is not None:
                raise InvalidInput.at(f"inputs[{i}].name", "each input once", f"{tensor.name} twice")
            _check_datatype(tensor, accepted, i)
            shape = tensor.shape
            if not _fits(shape, field.shape):
                expected = [["N"], ["N", 1]] if not field.shape else [["N", *field.shape]]
                words = " or ".join(str(one).replace("'", "") for one in expected)
                raise InvalidInput.at(f"inputs[{i}].shape", words, str(shape))
            if rows < 0:
                rows = shape[0]
            elif rows != shape[0]:
                raise InvalidInput.at(f"inputs[{i}].shape", f"{rows} rows, as in the other inputs", str(shape[0]))
            lists[place] = _read_data(tensor, decoder, i)
            shapes[place] = shape
        missing = [name for name, (_, place, _, _) in self._fields.items() if lists[place] is None]
        if missing:
            raise InvalidInput.of(
                Problem(f"inputs.{name}", "a tensor", "nothing: the input is missing") for name in missing
            )
        return self._request(lists, shapes, rows)

    def _request(self, lists: list[Any], shapes: list[list[int]], rows: int) -> Request:
        if self._scalar and rows <= _FEW_ROWS:
            return Request(rows, list(zip(*lists, strict=True)), None, "tensors")
        blocks = []
        for block in self._layout.blocks:
            if block.is_scalar:
                matrix = np.empty((rows, len(block.names)), dtype=block.storage)
                for i in range(block.start, block.stop):
                    matrix[:, i - block.start] = lists[i]
                blocks.append(matrix)
            else:
                flat = np.empty(len(lists[block.start]), dtype=block.storage)
                flat[:] = lists[block.start]
                blocks.append(flat.reshape(shapes[block.start]))
        return Request(rows, None, Columns(self._layout, blocks, rows), "tensors")

    def _read_matrix(self, tensor: _Tensor, field: Field) -> Request:
        width = len(self._fields)
        _check_datatype(tensor, _accepted(field), 0)
        if len(tensor.shape) != 2 or tensor.shape[1] != width or tensor.shape[0] < 1:
            names = ", ".join(list(self._layout.names)[:20])
            raise InvalidInput.at(
                "inputs[0].shape", f"[N, {width}]", str(tensor.shape), hint=f"or send one tensor each: {names}"
            )
        values = _read_data(tensor, ValuesDecoder.of(field), 0)
        rows = tensor.shape[0]
        if field.nullable and None in values:
            for place, one in enumerate(self._layout.fields):
                if not one.nullable and None in values[place::width]:
                    row = values[place::width].index(None)
                    raise InvalidInput.at(f"inputs[0].data[{row}][{place}]", f"{one.name}: {one.describe()}", "null")
        if rows <= _FEW_ROWS:
            tuples = [tuple(values[i : i + width]) for i in range(0, rows * width, width)]
            return Request(rows, tuples, None, "tensors")
        matrix = np.array(values, dtype=self._layout.blocks[0].storage).reshape(rows, width)
        return Request(rows, None, Columns(self._layout, [matrix], rows), "tensors")

    def _check_outputs(self, wanted: list[_Wanted]) -> tuple[str, ...]:
        for i, output in enumerate(wanted):
            if output.name not in self._outputs:
                names = ", ".join(self._outputs)
                raise InvalidInput.at(f"outputs[{i}].name", f"one of {names}", output.name)
            if (output.parameters or {}).get("classification"):  # what it asks for is another answer altogether
                raise InvalidInput.at(
                    f"outputs[{i}].parameters.classification", "none", "one: this server has no such extension",
                    hint="ask for the output probabilities where the model has it",
                )  # fmt: skip
        return tuple(dict.fromkeys(output.name for output in wanted))

    def _refuse_binary(self, body: bytes, headers: Mapping[str, str]) -> None:
        text = headers["inference-header-content-length"]
        if not text.isdigit() or int(text) != len(body):
            raise InvalidInput.at(
                "inference-header-content-length", "tensors in JSON", "binary tensors",
                hint="this server takes no binary tensors; with tritonclient, pass binary_data=False",
            )  # fmt: skip

    # Answering.

    def encode(self, request: Request, response: Response) -> Message:
        batch, start, stop = response.batch, response.start, response.stop
        names = request.outputs or self._outputs
        outputs = b",".join([self._tensor(batch, self._outputs[name], start, stop) for name in names])
        body = self._head + b',"id":' + _encode(response.id) + b',"outputs":[' + outputs + b"]}"
        return Message(body)

    def _tensor(self, batch: Batch, field: Field, start: int, stop: int) -> bytes:
        shape = [stop - start]
        if not field.shape:
            data = b",".join(batch.texts(field.name)[start:stop])
        else:
            inner = batch.columns[field.name].shape[1:]
            shape += inner
            if field.is_numeric and field.storage == field.dtype:
                width = math.prod(inner)
                data = b",".join(batch.cells(field.name)[start * width : stop * width])
            else:
                data = _encode(_flatten(batch.values(field.name)[start:stop], len(field.shape)))[1:-1]
        name, kind = _encode(field.name), datatype_of(field).encode()
        return b'{"name":%b,"datatype":"%b","shape":%b,"data":[%b]}' % (name, kind, _encode(shape), data)


def _element(field: Field) -> Field:
    """The field of one element of a tensor, without the tensor's shape and description."""
    return Field(name=field.name, dtype=field.dtype, nullable=field.nullable)


def _fits(shape: list[int], own: tuple[int, ...]) -> bool:
    if not shape or shape[0] < 1:
        return False
    if not own:
        return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    return len(shape) == len(own) + 1 and all(
        got >= 0 and want in (-1, got) for want, got in zip(own, shape[1:], strict=True)
    )


def _check_datatype(tensor: _Tensor, accepted: frozenset[str], i: int) -> None:
    if tensor.datatype in accepted:
        return
    path, words = f"inputs[{i}].datatype", ", ".join(sorted(accepted))
    if tensor.datatype in ("FP16", "BF16"):
        raise InvalidInput.at(path, words, tensor.datatype, hint=f"{tensor.datatype} has no JSON form: send FP32")
    if tensor.datatype not in _KNOWN:
        hint = "datatypes are written in capitals" if tensor.datatype.upper() in _KNOWN else ""
        raise InvalidInput.at(path, words, f"the unknown datatype {tensor.datatype}", hint=hint)
    raise InvalidInput.at(path, f"{words} for {tensor.name}", tensor.datatype)


def _read_data(tensor: _Tensor, decoder: ValuesDecoder, i: int) -> list[Any]:
    if not tensor.data:
        parameters = tensor.parameters or {}
        if "binary_data_size" in parameters:
            raise InvalidInput.at(
                f"inputs[{i}]", "data in JSON", "a binary tensor",
                hint="this server takes no binary tensors; with tritonclient, pass binary_data=False",
            )  # fmt: skip
        raise InvalidInput.at(f"inputs[{i}].data", "a list", "nothing: the data are missing")
    values = decoder.decode(tensor.data, tensor.shape, f"inputs[{i}].data")
    expected = math.prod(tensor.shape)
    if len(values) != expected:
        raise InvalidInput.at(
            f"inputs[{i}].data", f"{expected} elements, as the shape {tensor.shape} says", str(len(values))
        )
    return values


def _colons(infer: _Infer) -> int:
    """Colons in the keys of a plain request whose texts hold none; any other number means: look closer."""
    count = 1 + bool(infer.id) + 4 * len(infer.inputs)
    if infer.parameters is not None:
        count += 1 + len(infer.parameters)
    for tensor in infer.inputs:
        if tensor.parameters is not None:
            count += 1 + len(tensor.parameters)
    if infer.outputs is not None:
        count += 1 + len(infer.outputs)
        count += sum(1 + len(output.parameters) for output in infer.outputs if output.parameters is not None)
    return count


def _explain(body: bytes, error: Exception) -> InvalidInput:
    """What is wrong with a body that is not an infer request."""
    try:
        check_json(body)
    except InvalidInput as found:
        return found
    message, _, place = str(error).partition(" - at `")
    path = place.rstrip("`").removeprefix("$").lstrip(".").replace("[...]", "[…]") or "body"
    return InvalidInput.at(path, 'an infer request: {"inputs": [{name, shape, datatype, data}]}', message)


def _flatten(values: Any, depth: int) -> list[Any]:
    for _ in range(depth):
        values = [inner for value in values for inner in value]
    return list(values)
