"""Infer requests and answers over gRPC.

The description of raw tensors is often the same from one request to the next, so what it means is remembered; raw
answers are put together by hand, because most of their bytes never change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput
from modelyard.interfaces import Served
from modelyard.messages import Message, Request, Response
from modelyard.wires.oip.codec import check_parameters
from modelyard.wires.oip.datatypes import BINARY, HALVES, framed
from modelyard.wires.oip.known import Descriptions, Known
from modelyard.wires.oip.outputs import Output, Outputs
from modelyard.wires.oip.protos import messages
from modelyard.wires.oip.raw import RawPlan
from modelyard.wires.oip.tensors import Inputs, TensorRequest

#: Where the typed contents of a datatype lie; FP16 and BF16 have none.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip

#: Asked for with a message of a stream, so that its last answer is marked.
_MARK = "triton_enable_empty_final_response"

#: Descriptions of answered tensors that are kept.
_MOST_DESCRIBED = 256


class _Tensor(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]


class OipGrpcCodec:
    """Reads and answers infer requests of one loaded version."""

    def __init__(self, served: Served, *, is_streamed: bool) -> None:
        self._inputs = Inputs(served.signature.inputs)
        self._outputs = Outputs(served.signature.outputs)
        self._is_streamed = is_streamed
        self._head = chunk(1, served.name.encode())
        if served.version:
            self._head += chunk(2, served.version.encode())
        self._descriptions = Descriptions()
        self._described: dict[tuple[Any, ...], bytes] = {}

    # Reading.

    def decode(self, body: Any, headers: Mapping[str, str]) -> TensorRequest:
        request_id: str = body.id
        blobs: list[bytes] = list(body.raw_input_contents)
        if blobs:
            form = "raw"
            body.ClearField("raw_input_contents")
        else:
            form = "typed"
            for i, tensor in enumerate(body.inputs):
                blobs.append(_raw(tensor, i))
                tensor.ClearField("contents")
        body.ClearField("id")
        description = body.SerializeToString()
        key = (description, tuple(map(len, blobs)))
        known = self._descriptions.get(key)
        if known is None:
            known = self._understand(body, blobs)
            self._descriptions.note(key, len(description), known)
        request = known.read(blobs[0] if len(blobs) == 1 else b"".join(blobs), 0)
        request.id = request_id
        request.form = form
        return request

    def _understand(self, body: Any, blobs: list[bytes]) -> Known:
        tensors = [_Tensor(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in body.inputs]
        for i, tensor in enumerate(body.inputs):  # typed contents were taken out
            if tensor.contents.ByteSize():
                raise InvalidInput.at(f"inputs[{i}].contents", "nothing beside raw_input_contents", "values")
        if len(blobs) != len(tensors):
            raise InvalidInput.at("raw_input_contents", f"{len(tensors)}, one an input", str(len(blobs)))
        plan = RawPlan(self._inputs, tensors, [len(blob) for blob in blobs])
        parameters = _plain(body.parameters)
        is_marked = parameters.pop(_MARK, False) is True
        _, own = check_parameters(parameters)
        named = [(output.name, _plain(output.parameters)) for output in body.outputs]
        return Known(plan, self._outputs.choose(named, is_binary=False), own, "", is_marked)

    # Answering.

    def encode(self, request: Request, response: Response) -> Message:
        assert isinstance(request, TensorRequest)
        batch, start, stop = response.batch, response.start, response.stop
        body = self._head + chunk(3, response.id.encode())
        if request.is_marked:
            body += _FINAL
        outputs = request.wanted.outputs
        if request.form == "raw":
            raw = [chunk(6, output.raw(batch, start, stop)) for output in outputs]
            shapes = [self._describe(output, output.shape(batch, stop - start)) for output in outputs]
            body += b"".join(shapes) + b"".join(raw)
        else:
            answer = messages().ModelInferResponse()
            for output in outputs:
                shape = output.shape(batch, stop - start)
                tensor = answer.outputs.add(name=output.name, datatype=output.datatype, shape=shape)
                contents = getattr(tensor.contents, _CONTENTS[output.datatype])
                if output.datatype == "BYTES":
                    contents.extend([(text or "").encode() for text in output.texts(batch, start, stop)])
                else:
                    contents.extend(batch.columns[output.name][start:stop].ravel().tolist())
            body += answer.SerializeToString()
        if self._is_streamed:
            body = chunk(2, body)
        return Message(body, content_type="application/grpc")

    def _describe(self, output: Output, shape: list[int]) -> bytes:
        """The description of a raw tensor."""
        key = (output.name, output.datatype, *shape)
        found = self._described.get(key)
        if found is None:
            sizes = b"".join(map(varint, shape))
            inside = chunk(1, output.name.encode()) + chunk(2, output.datatype.encode()) + chunk(3, sizes)
            if len(self._described) >= _MOST_DESCRIBED:
                self._described.clear()
            found = self._described[key] = chunk(5, inside)
        return found


def _raw(tensor: Any, i: int) -> bytes:
    """The typed contents of a tensor as raw ones."""
    datatype, contents = tensor.datatype, tensor.contents
    kind = _CONTENTS.get(datatype)
    if kind is None:
        if datatype in HALVES:
            raise InvalidInput.at(f"inputs[{i}].contents", f"{datatype} in raw_input_contents", "typed contents")
        return b""  # which is refused for its datatype
    values = getattr(contents, kind)
    expected = math.prod(tensor.shape)
    if 0 <= expected != len(values):
        words = f"{expected} elements, as the shape {list(tensor.shape)} says"
        raise InvalidInput.at(f"inputs[{i}].contents.{kind}", words, str(len(values)))
    if datatype == "BYTES":
        return framed(list(values))
    dtype = BINARY[datatype]
    if dtype.kind == "f":
        # Protobuf packs them as they are, after their length: nothing else is in a message of nothing else.
        text: bytes = contents.SerializeToString()
        size = len(values) * dtype.itemsize
        if len(text) != (1 + len(varint(size)) + size if size else 0):
            raise InvalidInput.at(f"inputs[{i}].contents", f"{kind} alone", "others beside it")
        return text[len(text) - size :]
    try:
        return np.array(list(values), dtype).tobytes()
    except OverflowError:
        words = f"numbers that fit {datatype}"
        raise InvalidInput.at(f"inputs[{i}].contents.{kind}", words, "one that does not") from None


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a map of parameters."""
    found = {}
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidInput.at(f"parameters.{name}", "a value", "nothing")
        found[name] = getattr(value, kind)
    return found


def varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def chunk(field: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    size = len(content)
    if size < 128:
        return bytes((field << 3 | 2, size)) + content
    return bytes((field << 3 | 2,)) + varint(size) + content


#: The parameter that marks the last answer to a message of a stream.
_FINAL = chunk(4, chunk(1, b"triton_final_response") + chunk(2, b"\x08\x01"))
