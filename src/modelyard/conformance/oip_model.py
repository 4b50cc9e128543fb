"""A model that speaks the Open Inference Protocol, as its metadata or an example request describe it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from modelyard.conformance.client import Answer, Client, Request
from modelyard.conformance.rules import Asked, Skip
from modelyard.errors import InvalidInput, NotFound, Refused

_KEY_HINT = "--key KEY is sent as a bearer token"

FLOATS = {"FP16", "FP32", "FP64"}
WHOLE = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
DATATYPES = {"BOOL", "BYTES", "BF16", *FLOATS, *WHOLE}

#: How struct packs a value of each type.
PACKED = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I",
    "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip

#: Rows of the example where the batch may be of any size.
_ROWS = 2


@dataclass(frozen=True)
class Tensor:
    """One input of a request; ``data`` is flat."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Any, ...]

    @property
    def json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape), "data": list(self.data)}

    @property
    def rows(self) -> int:
        """The first size. Raises Skip where there is none."""
        if not self.shape:
            raise Skip(f"the input {self.name} has no dimension")
        return self.shape[0]

    @property
    def raw(self) -> bytes:
        """The data as the binary extension has them. Raises Skip where they have no such form."""
        if self.datatype == "BYTES":
            texts = [str(value).encode() for value in self.data]
            return b"".join(struct.pack("<I", len(text)) + text for text in texts)
        if self.datatype not in PACKED:
            raise Skip(f"the kit writes no {self.datatype}")
        try:
            return struct.pack(f"<{len(self.data)}{PACKED[self.datatype]}", *self.data)
        except struct.error as error:
            raise Skip(f"the data of {self.name} in the example are no {self.datatype}: {error}") from None

    @property
    def described(self) -> dict[str, Any]:
        """As it is in the JSON part of a binary request."""
        told = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        return {**told, "parameters": {"binary_data_size": len(self.raw)}}


@dataclass(frozen=True)
class OipModel:
    """See the module. ``extensions`` are those that the server advertises."""

    model: str
    prefix: str
    metadata: dict[str, Any]
    extensions: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    #: The outputs of the good request, as they were answered.
    outputs: tuple[dict[str, Any], ...] = ()
    version: str = ""
    #: Output -> its values, flat.
    values: Any = None

    @property
    def url(self) -> str:
        return f"{self.prefix}/v2/models/{quote(self.model, safe='')}"

    @property
    def good(self) -> Request:
        return self.infer()

    def get(self, path: str = "") -> Request:
        """GET of a path of the model."""
        return Request("GET", self.url + path)

    def infer(self, *, at: str = "", **changes: Any) -> Request:
        """The good request with other fields; None leaves one out."""
        told = {"inputs": [tensor.json for tensor in self.tensors]} | changes
        body = json.dumps({name: value for name, value in told.items() if value is not None})
        return Request("POST", f"{at or self.url}/infer", body.encode())

    def sends(self, body: bytes) -> Request:
        """The good request with this body."""
        return self.infer().but(body=body)

    def with_first(self, **changes: Any) -> Request:
        """The good request with fields of the first input changed; None leaves one out."""
        return self.with_input(lambda tensor: True, "an input", **changes)

    def with_input(self, is_meant: Callable[[Tensor], bool], what: str, **changes: Any) -> Request:
        """The good request with fields of the first input that ``is_meant`` changed. Raises Skip without one."""
        chosen = self.find(is_meant, what)
        told = [tensor.json | (changes if tensor is chosen else {}) for tensor in self.tensors]
        return self.infer(inputs=[{k: v for k, v in each.items() if v is not None} for each in told])

    def find(self, is_meant: Callable[[Tensor], bool], what: str) -> Tensor:
        """The first input that ``is_meant``. Raises Skip."""
        for tensor in self.tensors:
            if is_meant(tensor):
                return tensor
        raise Skip(f"the model has no input that is {what}")

    def several(self) -> tuple[Tensor, ...]:
        """The inputs, where there is more than one. Raises Skip."""
        if len(self.tensors) < 2:
            raise Skip("the model has one input")
        return self.tensors

    def needs(self, *extensions: str) -> None:
        """Raise Skip unless the server advertises one of ``extensions``."""
        if not set(extensions) & set(self.extensions):
            raise Skip(f"the server does not advertise {extensions[0]}")

    def versioned(self) -> str:
        """The version that answered. Raises Skip where the server tells none."""
        if not self.version:
            raise Skip("the server tells no version")
        return self.version


def numbers(tensor: Tensor) -> bool:
    return tensor.datatype in FLOATS | WHOLE


def whole(tensor: Tensor) -> bool:
    return tensor.datatype in WHOLE


def texts(tensor: Tensor) -> bool:
    return tensor.datatype == "BYTES"


def read_outputs(answer: Any) -> dict[str, list[Any]]:
    """Output -> its values, flat."""
    return {output["name"]: flat(output["data"]) for output in answer["outputs"]}


def flat(data: Any) -> list[Any]:
    """Nested lists as one list."""
    return [value for each in data for value in flat(each)] if isinstance(data, list) else [data]


def meet(client: Client, asked: Asked) -> OipModel:
    """The model that the caller names, or the server's only one."""
    server = _object(client.ask(Request("GET", f"{asked.path}/v2")))
    name = asked.model or _only(client, asked.path)
    described = client.ask(Request("GET", f"{asked.path}/v2/models/{quote(name, safe='')}"))
    if not asked.body and described.status in (401, 403, 404):
        kind, hint = (NotFound, "--model NAME") if described.status == 404 else (Refused, _KEY_HINT)
        raise kind(f"the server does not describe the model {name}: {described}", hint=hint)
    metadata = _object(described)
    tensors = _of_body(asked.body) if asked.body else _of_metadata(metadata)
    told_extensions = server.get("extensions")
    extensions = tuple(told_extensions) if isinstance(told_extensions, list) else ()
    found = OipModel(name, asked.path, metadata, extensions, tensors)
    answer = client.ask(found.good)
    try:
        told = answer.json
        values = read_outputs(told)
        if answer.status != 200 or not values:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(
            f"the server does not answer a plain request of the model {name}: {answer}",
            hint="--body FILE gives a request that it answers",
        ) from None
    return replace(found, outputs=tuple(told["outputs"]), version=str(told.get("model_version") or ""), values=values)


def _object(answer: Answer) -> dict[str, Any]:
    try:
        told = answer.json
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _only(client: Client, prefix: str) -> str:
    answer = client.ask(Request("POST", f"{prefix}/v2/repository/index"))
    if answer.status in (401, 403):
        raise Refused(f"the server does not list its models: {answer}", hint=_KEY_HINT)
    try:
        names = sorted({row["name"] for row in answer.json if row.get("state", "READY") == "READY"})
    except (ValueError, KeyError, TypeError, AttributeError):
        names = []
    if len(names) == 1:
        return str(names[0])
    listed = f"one of {', '.join(names)}" if names else "the name of a model"
    raise InvalidInput.at("--model", listed, "nothing", hint=f"--model {names[0] if names else 'NAME'}")


def _of_metadata(metadata: dict[str, Any]) -> tuple[Tensor, ...]:
    try:
        tensors = [_example(each["name"], each["datatype"], each["shape"]) for each in metadata.get("inputs") or []]
    except (KeyError, TypeError, AttributeError):
        tensors = []
    if not tensors:
        raise InvalidInput("the metadata of the model describe no inputs", hint="--body FILE gives an example request")
    return tuple(tensors)


def _example(name: str, datatype: str, described: list[int]) -> Tensor:
    shape = tuple(size if size > 0 else (1 if i else _ROWS) for i, size in enumerate(described))
    value: Any = "a" if datatype == "BYTES" else True if datatype == "BOOL" else 1 if datatype in WHOLE else 0.5
    return Tensor(name, datatype, shape, (value,) * math.prod(shape))


def _of_body(body: bytes) -> tuple[Tensor, ...]:
    try:
        inputs = json.loads(body)["inputs"]
        return tuple(
            Tensor(each["name"], each["datatype"], tuple(each["shape"]), tuple(flat(each["data"]))) for each in inputs
        )
    except (ValueError, KeyError, TypeError) as error:
        expected = '{"inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]}'
        raise InvalidInput.at("--body", expected, f"{type(error).__name__}: {error}") from None
