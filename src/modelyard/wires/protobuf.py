"""Protobuf messages from the text of a ``.proto`` file, in a pool of descriptors of their own.

No code is generated and nothing is registered where other libraries look: a program that loads a client's stubs
for the same protocol beside this server finds no two definitions of one name.

What is read of the language is what the protocols here use: ``syntax``, ``package``, ``service``, ``message`` (nested,
too), ``enum``, ``oneof``, ``map<,>``, ``repeated``, ``optional`` and comments. A method is called by its path; services
have descriptors for those who ask for them (server reflection).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

from modelyard.errors import MissingDependency

_SCALARS = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6, "fixed32": 7, "bool": 8, "string": 9,
    "bytes": 12, "uint32": 13, "sfixed32": 15, "sfixed64": 16, "sint32": 17, "sint64": 18,
}  # fmt: skip

_TOKEN = re.compile(r'"[^"]*"|[A-Za-z_][\w.]*|-?\d+|[{}=;<>,\[\]()]')
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class Messages:
    """The message classes of some ``.proto`` texts, as attributes: ``Messages(TEXT).ModelInferRequest``.

    Repeated fields called as in ``as_bytes`` are read and written as the bytes that they are when packed.
    """

    def __init__(self, *texts: str, as_bytes: Collection[str] = ()) -> None:
        try:
            from google.protobuf import message_factory
        except ImportError as error:
            raise MissingDependency.extra("protobuf", "all", "gRPC") from error
        self._texts = texts
        self._classes: dict[str, Any] = {}
        for file in _described(texts, as_bytes):
            for name, descriptor in file.message_types_by_name.items():
                self._classes[name] = message_factory.GetMessageClass(descriptor)

    @cached_property
    def files(self) -> tuple[bytes, ...]:
        """The texts as serialized ``FileDescriptorProto``; none of their fields are ``as_bytes``."""
        from google.protobuf import descriptor_pb2

        found = []
        for file in _described(self._texts):
            proto = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(proto)
            found.append(proto.SerializeToString())
        return tuple(found)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_classes"][name]
        except KeyError:
            raise AttributeError(name) from None


def _described(texts: Sequence[str], as_bytes: Collection[str] = ()) -> list[Any]:
    """Descriptors of the files in a new pool, each called by its package. Each may use what is in those before it."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    found: list[Any] = []
    for text in texts:
        file = descriptor_pb2.FileDescriptorProto(syntax="proto3", dependency=[each.name for each in found])
        _Reader(text, as_bytes).file(file)
        file.name = f"{file.package}.proto"
        found.append(pool.AddSerializedFile(file.SerializeToString()))
    return found


class _Reader:
    """Reads one text into a ``FileDescriptorProto``."""

    def __init__(self, text: str, as_bytes: Collection[str]) -> None:
        self._tokens = _TOKEN.findall(_COMMENT.sub("", text))
        self._at = 0
        self._as_bytes = as_bytes

    def _next(self) -> str:
        self._at += 1
        token: str = self._tokens[self._at - 1]
        return token

    def _skip_to(self, end: str) -> None:
        while self._next() != end:
            pass

    def file(self, file: Any) -> None:
        while self._at < len(self._tokens):
            match self._next():
                case "package":
                    file.package = self._next()
                    self._skip_to(";")
                case "service":
                    self._service(file.service.add())
                case "message":
                    self._message(file.message_type.add())
                case "enum":
                    self._enum(file.enum_type.add())
                case _:
                    self._skip_to(";")

    def _service(self, service: Any) -> None:
        service.name = self._next()
        self._skip_to("{")
        while self._next() == "rpc":
            method = service.method.add(name=self._next())
            method.input_type, method.client_streaming = self._kind_of_call()
            method.output_type, method.server_streaming = self._kind_of_call()
            self._skip_to(";")

    def _kind_of_call(self) -> tuple[str, bool]:
        """The type in the next parentheses, and whether it comes in a stream."""
        self._skip_to("(")
        kind = self._next()
        is_stream = kind == "stream"
        return (self._next() if is_stream else kind), is_stream

    def _enum(self, enum: Any) -> None:
        enum.name = self._next()
        self._skip_to("{")
        while (name := self._next()) != "}":
            self._skip_to("=")
            enum.value.add(name=name, number=int(self._next()))
            self._skip_to(";")

    def _message(self, message: Any) -> None:
        message.name = self._next()
        self._skip_to("{")
        self._fields(message, None)

    def _fields(self, message: Any, oneof: int | None) -> None:
        while (token := self._next()) != "}":
            if token == "message":
                self._message(message.nested_type.add())
            elif token == "enum":
                self._enum(message.enum_type.add())
            elif token in ("reserved", "option"):
                self._skip_to(";")
            elif token == "oneof":
                message.oneof_decl.add(name=self._next())
                self._skip_to("{")
                self._fields(message, len(message.oneof_decl) - 1)
            elif token == "map":
                self._map(message)
            else:
                self._field(message, token, oneof)

    def _field(self, message: Any, token: str, oneof: int | None) -> None:
        label = 1
        if token in ("repeated", "optional"):
            label = 3 if token == "repeated" else 1
            kind = self._next()
        else:
            kind = token
        field = message.field.add(name=self._next(), label=label)
        if field.name in self._as_bytes:
            kind, field.label = "bytes", 1
        _set_type(field, kind)
        self._skip_to("=")
        field.number = int(self._next())
        self._skip_to(";")
        if oneof is not None:
            field.oneof_index = oneof

    def _map(self, message: Any) -> None:
        self._skip_to("<")
        key = self._next()
        self._skip_to(",")
        value = self._next()
        self._skip_to(">")
        name = self._next()
        entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        for number, (part, kind) in enumerate((("key", key), ("value", value)), 1):
            _set_type(entry.field.add(name=part, number=number, label=1), kind)
        field = message.field.add(name=name, label=3, type_name=entry.name, type=11)
        self._skip_to("=")
        field.number = int(self._next())
        self._skip_to(";")


def _set_type(field: Any, kind: str) -> None:
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        field.type = scalar
    else:  # whether it is a message or an enum the pool finds out
        field.type_name = kind
