"""Calls of gRPC whose messages may come compressed: those that name a ``grpc-encoding``.

A large message is inflated in a thread. It keeps its place in the buffer until then, and those behind it wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.serving.grpc import GrpcStream, Malformed
from modelyard.wires import Unimplemented

if TYPE_CHECKING:
    from modelyard.serving.heads import Head
    from modelyard.serving.http2 import Http2Connection


class PackedStream(GrpcStream):
    """One such call."""

    __slots__ = ("_is_inflating",)

    def __init__(self, connection: Http2Connection, number: int, head: Head) -> None:
        super().__init__(connection, number, head)
        #: The first message of the buffer is being inflated in a thread.
        self._is_inflating = False

    def _split(self) -> None:
        if not self._is_inflating:
            super()._split()

    def _complete(self) -> None:
        if not self._is_inflating:
            super()._complete()

    def _inflate(self, body: bytes) -> bool:
        encoding = self.head.headers.get("grpc-encoding", "identity")
        if encoding == "identity":
            return super()._inflate(body)
        is_done = self.connection.listener.inflate(body, encoding, self._accept_inflated)
        self._is_inflating = not is_done
        return is_done

    def _accept_inflated(self, plain: bytes | ModelyardError) -> None:
        was_beside, self._is_inflating = self._is_inflating, False
        if self.is_over:
            return
        if isinstance(plain, InvalidInput):
            self.give_up(Malformed(f"a message that is not in the encoding {self.head.headers['grpc-encoding']}"))
        elif isinstance(plain, ModelyardError):
            self.give_up(Unimplemented(plain.message) if plain.code == "unsupported" else plain)
        else:
            self._accept(plain)
        if was_beside and not self.is_over:
            self._drop(5 + int.from_bytes(self.buffer[1:5], "big"))
            self._split()
            if self.has_ended:
                self._complete()
