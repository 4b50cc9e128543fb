"""Infer requests and answers over REST: JSON, then the bytes of those tensors that are sent as bytes.

JSON has no NaN and no infinity: null stands for them, both ways. The JSON of a binary request is often the same from
one request to the next, so what it means is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from modelyard.decoding import NOT_PLAIN, check_json
from modelyard.decoding.fast import element_type, fixup
from modelyard.errors import InvalidInput
from modelyard.interfaces import Served
from modelyard.messages import Batch, Message, Request, Response
from modelyard.wires.oip.known import Descriptions, Known
from modelyard.wires.oip.outputs import Outputs, Wanted
from modelyard.wires.oip.raw import RawPlan
from modelyard.wires.oip.tensors import Inputs, Place, TensorRequest, check_datatype

_encode = msgspec.json.encode

LENGTH = "inference-header-content-length"

#: Media types that say what is a header elsewhere, for gateways that pass no headers on.
_CARRIERS = ("application/vnd.sagemaker-triton.binary+json", "application/vnd.vertex-ai-triton.binary+json")

#: From this many bytes on, numpy counts faster than bytes do.
_LARGE = 16_384

Parameters = dict[str, str | int | float | bool]
_Data = TypeVar("_Data")
_LIST: Any = list


class _Tensor(msgspec.Struct, Generic[_Data], gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: _Data = None  # type: ignore[assignment]  # where it is missing, which no decoder is asked about
    parameters: Parameters | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: Parameters | None = None


class _Infer(msgspec.Struct, Generic[_Data], gc=False):
    inputs: list[_Tensor[_Data]]
    id: str = ""
    parameters: Parameters | None = None
    outputs: list[_Output] | None = None


_read_any = msgspec.json.Decoder(_Infer[msgspec.Raw]).decode


class OipCodec:
    """Reads and answers infer requests of one loaded version."""

    def __init__(self, served: Served) -> None:
        signature = served.signature
        self._inputs = Inputs(signature.inputs)
        self._outputs = Outputs(signature.outputs)
        # Where all fields are of one type, their values are read in one go, flat or as rows.
        self._read_flat = self._read_rows = None
        fields = [place.field for place in self._inputs.places.values()]
        elements = {element_type(field) for field in fields}
        if len(elements) == 1 and self._inputs.is_scalar and fixup(fields[0]) is None:
            element: Any = elements.pop()
            self._read_flat = msgspec.json.Decoder(_Infer[_LIST[element]]).decode
            self._read_rows = msgspec.json.Decoder(_Infer[_LIST[_LIST[element]]]).decode
        about = {"model_name": served.name} | ({"model_version": served.version} if served.version else {})
        self._head = _encode(about)[:-1] + b',"id":'
        self._descriptions = Descriptions()

    # Reading.

    def decode(self, body: bytes, headers: Mapping[str, str]) -> TensorRequest:
        length = headers.get(LENGTH)
        carrier = ""
        if length is None:
            kind = headers.get("content-type")
            if kind is None or "json-header-size" not in kind:
                return self._decode_json(body)
            carrier, length = _carried(kind)
        size = _length(length, len(body))
        request = self._decode_binary(body, size) if size else self._decode_bare(body)
        request.carrier = carrier
        return request

    def _decode_json(self, body: bytes) -> TensorRequest:
        infer, values = self._read(body)
        tensors = infer.inputs
        if any(tensor.data is None for tensor in tensors):
            return self._understand(infer, values).read(b"", 0)
        rows, places = self._inputs.arrange(tensors)
        if values is None:
            values = [_values(tensor, place, i) for i, (tensor, place) in enumerate(zip(tensors, places, strict=True))]
        tuples, columns = self._inputs.rows(rows, places, tensors, values)
        wanted, parameters = self._asked(infer)
        return TensorRequest(rows, tuples, columns, "tensors", infer.id, wanted.names, parameters, wanted)

    def _read(self, body: bytes) -> tuple[_Infer[Any], list[list[Any]] | None]:
        """What ``body`` says and, where it could be read in one go, the flat values of each tensor."""
        infer: _Infer[Any] | None = None
        values = None
        if self._read_flat is not None and self._read_rows is not None:
            try:
                infer = self._read_flat(body)
                values = [tensor.data for tensor in infer.inputs]
                if not all(len(t.data) == math.prod(t.shape) for t in infer.inputs if t.data is not None):
                    infer = None
            except NOT_PLAIN:
                try:
                    infer = self._read_rows(body)
                    values = [_flat(tensor) for tensor in infer.inputs]
                except NOT_PLAIN:
                    infer = None
        if infer is None:
            values = None
            try:
                infer = _read_any(body)
            except NOT_PLAIN as error:
                raise _explain(body, error) from None
        if _count_colons(body) != _colons(infer):
            check_json(body)
        return infer, values

    def _decode_binary(self, body: bytes, size: int) -> TensorRequest:
        head = body[:size]
        known = self._descriptions.get(head)
        if known is None:
            known = self._understand(*self._read(head))
            self._descriptions.note(head, size, known)
        return known.read(body, size)

    def _understand(self, infer: _Infer[Any], values: Sequence[Any] | None) -> Known:
        return Known(self._plan(infer, values), *self._asked(infer), infer.id)

    def _plan(self, infer: _Infer[Any], values: Sequence[Any] | None) -> RawPlan:
        """How the tensors of a request of which some are bytes become columns."""
        sizes: list[int | None] = []
        given: list[Any] = []
        for i, tensor in enumerate(infer.inputs):
            size = (tensor.parameters or {}).get("binary_data_size")
            path = f"inputs[{i}]"
            if tensor.data is None and size is None:
                raise InvalidInput.at(f"{path}.data", "a list, or binary_data_size", "nothing: the data are missing")
            if tensor.data is not None and size is not None:
                raise InvalidInput.at(path, "data or binary_data_size", "both")
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
                raise InvalidInput.at(f"{path}.parameters.binary_data_size", "a number of bytes", str(size))
            sizes.append(size)
            given.append(None)
        if any(size is None for size in sizes):
            _, places = self._inputs.arrange(infer.inputs, is_binary=True)
            for i, (tensor, place) in enumerate(zip(infer.inputs, places, strict=True)):
                if sizes[i] is None:
                    check_datatype(tensor, place, i, is_binary=False)
                    given[i] = _values(tensor, place, i) if values is None else values[i]
        return RawPlan(self._inputs, infer.inputs, sizes, given)

    def _decode_bare(self, body: bytes) -> TensorRequest:
        """A body of nothing but the bytes of the only input, for one row."""
        name, datatype, shape = self._inputs.bare(len(body))
        if datatype == "BYTES":  # the body is the text itself
            body = len(body).to_bytes(4, "little") + body
        tensor: _Tensor[Any] = _Tensor(name, shape, datatype)
        return Known(RawPlan(self._inputs, [tensor], [len(body)]), self._outputs.in_binary, None).read(body, 0)

    def _asked(self, infer: _Infer[Any]) -> tuple[Wanted, dict[str, Any] | None]:
        """How the answer shall look, and the parameters that are not about that."""
        parameters: dict[str, Any] | None = infer.parameters
        if not parameters and not infer.outputs:
            return self._outputs.in_json, None
        is_binary, parameters = check_parameters(parameters or {})
        named = [(output.name, output.parameters) for output in infer.outputs or ()]
        return self._outputs.choose(named, is_binary=is_binary), parameters

    # Answering.

    def encode(self, request: Request, response: Response) -> Message:
        assert isinstance(request, TensorRequest)
        batch, start, stop = response.batch, response.start, response.stop
        head = self._head + _encode(response.id) + b',"outputs":['
        wanted = request.wanted
        if wanted is self._outputs.in_json and stop - start == 1:
            rows: list[bytes] = batch.kept.get(self) or self._render(batch)
            return Message(head + rows[start])
        parts, blobs = [], []
        for output, is_binary in zip(wanted.outputs, wanted.is_binary, strict=True):
            if is_binary:
                part, blob = output.in_binary(batch, start, stop)
                blobs.append(blob)
            else:
                part = output.in_json(batch, start, stop)
            parts.append(part)
        body = head + b",".join(parts) + b"]}"
        if not blobs:
            return Message(body)
        length = len(body)
        body += b"".join(blobs)
        if request.carrier:
            return Message(body, content_type=f"{request.carrier};json-header-size={length}")
        return Message(body, {LENGTH: str(length)}, content_type="application/octet-stream")

    def _render(self, batch: Batch) -> list[bytes]:
        """The outputs of every row of a batch, each as if alone, made once for all requests of a single row."""
        columns = [output.each_in_json(batch) for output in self._outputs.in_json.outputs]
        rows = [b",".join(tensors) + b"]}" for tensors in zip(*columns, strict=True)]
        batch.kept[self] = rows
        return rows


#: Parameters that speak of sequences and queues, which a model of rows has none of: taken, and without effect.
_RESERVED = frozenset({"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"})

#: What a tensor of numbers or texts may say of its content; others would mean another reading of the same elements.
_CONTENT_TYPES = frozenset({"np", "pd", "str", "datetime"})


def check_parameters(parameters: Mapping[str, Any]) -> tuple[bool, dict[str, Any] | None]:
    """Whether outputs are wanted as bytes, and the parameters that are not the protocol's own. Raises InvalidInput."""
    is_binary = parameters.get("binary_data_output", False)
    if not isinstance(is_binary, bool):
        raise InvalidInput.at("parameters.binary_data_output", "true or false", str(is_binary))
    own: dict[str, Any] = {}
    for name, value in parameters.items():
        if name.startswith("triton_"):
            raise InvalidInput.at(f"parameters.{name}", "a name that does not start with triton_", "a reserved one")
        if name == "content_type" and value not in _CONTENT_TYPES:
            words = f"one of {', '.join(sorted(_CONTENT_TYPES))}"
            raise InvalidInput.at("parameters.content_type", words, str(value))
        if name not in _RESERVED and name not in ("binary_data_output", "content_type"):
            own[name] = value
    return is_binary, own or None


def _carried(kind: str) -> tuple[str, str]:
    """The media type and the length of the JSON that a content type holds."""
    media, _, options = kind.partition(";")
    media = media.strip().lower()
    if media not in _CARRIERS:
        raise InvalidInput.at("content-type", f"{' or '.join(_CARRIERS)} with json-header-size", kind[:80])
    for option in options.split(";"):
        name, _, value = option.partition("=")
        if name.strip().lower() == "json-header-size":
            return media, value.strip()
    raise InvalidInput.at("content-type", "json-header-size=N", kind[:80])


def _length(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= size):
        raise InvalidInput.at(LENGTH, f"how many of the {size} bytes are JSON", text[:40])
    return int(text)


def _flat(tensor: _Tensor[Any]) -> list[Any]:
    """The values of a tensor that came as rows, one after another. Raises ValueError where they have other sizes."""
    rows, shape = tensor.data, tensor.shape
    if rows is None:
        return []
    if len(shape) != 2 or len(rows) != shape[0] or set(map(len, rows)) != {shape[1]}:
        raise ValueError("not of the shape")
    return list(chain.from_iterable(rows))


def _values(tensor: _Tensor[Any], place: Place, i: int) -> list[Any]:
    """The flat values of a tensor whose data are JSON yet."""
    if isinstance(tensor.data, list):
        raise InvalidInput.at(f"inputs[{i}].data", "values of the shape", "others")
    values = place.values.decode(tensor.data, tensor.shape, f"inputs[{i}].data")
    expected = math.prod(tensor.shape)
    if len(values) != expected:
        raise InvalidInput.at(
            f"inputs[{i}].data", f"{expected} elements, as the shape {tensor.shape} says", str(len(values))
        )
    return values


def _count_colons(body: bytes) -> int:
    if len(body) < _LARGE:
        return body.count(b":")
    return int(np.count_nonzero(np.frombuffer(body, "u1") == 58))


def _colons(infer: _Infer[Any]) -> int:
    """Colons in the keys of a plain request whose texts hold none; any other number means: look closer."""
    count = 1 + bool(infer.id)
    if infer.parameters is not None:
        count += 1 + len(infer.parameters)
    for tensor in infer.inputs:
        count += 3 + (tensor.data is not None)
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
