"""gRPC over HTTP/2: calls whose messages are requests to a wire, one exchange each, answered in their order.

Whether a method takes one message or many is nothing that the listener knows: a call is over when the client has
said all and all of it is answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING
from urllib.parse import quote

from modelyard.errors import ModelyardError
from modelyard.messages import Message
from modelyard.serving import frames
from modelyard.serving.compression import COMPRESSED_FROM, COMPRESSED_ON_LOOP, deflate, shrinks
from modelyard.serving.frames import END_HEADERS, END_STREAM, HEADERS
from modelyard.serving.routing import Endpoint
from modelyard.serving.streams import Stream, StreamExchange
from modelyard.serving.tracing import trace_for
from modelyard.wires import told

if TYPE_CHECKING:
    from modelyard.serving.heads import Head
    from modelyard.serving.http2 import Http2Connection

OK, UNKNOWN, INTERNAL, UNIMPLEMENTED = 0, 2, 13, 12

#: From the code word of an error to the status of a call.
STATUS = {
    "ok": OK,
    "cancelled": 1,
    "invalid_input": 3,
    "bad_request": 3,
    "unsupported": 3,
    "deadline_passed": 4,
    "too_slow": 4,
    "not_found": 5,
    "conflict": 6,
    "refused": 7,
    "too_large": 8,
    "head_too_large": 8,
    "rate_limited": 8,
    "no_room": 8,
    "missing_dependency": UNIMPLEMENTED,
    "unimplemented": UNIMPLEMENTED,
    "method_not_allowed": UNIMPLEMENTED,
    "internal": INTERNAL,
    "model_failed": INTERNAL,
    "bad_bundle": INTERNAL,
    "overloaded": 14,
    "not_ready": 14,
    "remote_failed": 14,
    "unauthenticated": 16,
}

#: A DATA frame's head and that of the message in it: whether it is compressed, and its length.
_MESSAGE = Struct(">HBBBIBI")
_PREFIX = Struct(">BI")

_BEGIN = frames.status(200) + frames.field(b"content-type", b"application/grpc")
_ACCEPTED = frames.field(b"grpc-accept-encoding", b"identity, deflate, gzip")
_ID = frames.field(b"x-request-id", b"")[:-1]
_ENCODINGS = {"": b""} | {how: frames.field(b"grpc-encoding", how.encode()) for how in ("gzip", "deflate")}
_STATUS_FIELDS = {number: frames.field(b"grpc-status", b"%d" % number) for number in range(17)}
_DONE = _STATUS_FIELDS[OK]
_HEAD = frames.FRAME

#: The type of a message that was compressed here; to those who read it, it is as any other.
PACKED = "application/grpc, compressed"

#: The longest text of an error, in bytes; clients give up where trailers exceed 8 kB, and each byte may become three.
LONGEST_TEXT = 2000

#: Refusals that do not depend on who would answer.
_OF_SERVER = frozenset(("unauthenticated", "refused", "rate_limited", "overloaded", "not_ready", "deadline_passed"))

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Malformed(ModelyardError):
    """The messages of a call are not framed as gRPC says."""

    code = "internal"


def is_grpc(method: str, kind: str) -> bool:
    """Whether a request of this content type is a call of gRPC, whose messages are protobuf's."""
    return method == "POST" and kind.partition(";")[0].rstrip() in ("application/grpc", "application/grpc+proto")


def patience(headers: Mapping[str, str], otherwise: float) -> float:
    """The seconds that the caller waits: its ``grpc-timeout``; ``otherwise`` where there is none to be understood."""
    text = headers.get("grpc-timeout", "")
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not (number.isascii() and number.isdigit() and len(number) <= 8):
        return otherwise
    return int(number) * unit


class GrpcStream(Stream):
    """One call."""

    __slots__ = ("_is_complete", "_is_started", "unanswered")

    def __init__(self, connection: Http2Connection, number: int, head: Head) -> None:
        super().__init__(connection, number, head)
        self.unanswered: deque[GrpcExchange] = deque()
        #: All that the client said has become exchanges.
        self._is_complete = False
        #: The headers of the answer are sent.
        self._is_started = False

    @property
    def in_flight(self) -> int:
        return len(self.unanswered)

    @property
    def is_partial(self) -> bool:
        return bool(self.buffer)

    # In.

    def feed(self, data: bytes, ended: bool) -> None:
        if not self.buffer and len(data) >= 5 and not data[0] and int.from_bytes(data[1:5], "big") == len(data) - 5:
            self._is_complete = ended
            self._accept(data[5:])  # most often: one frame, one message
            return
        if not self.buffer:
            self.began = self.connection.last
        self.buffer += data
        self.connection.hold(len(data))
        self._split()
        if ended:
            self._complete()

    def _split(self) -> None:
        """Accept the messages that are whole."""
        buffer, at = self.buffer, 0
        most = self.connection.listener.max_body
        while len(buffer) - at >= 5 and not self.is_over:
            flag, size = _PREFIX.unpack_from(buffer, at)
            if flag > 1:
                self.give_up(Malformed(f"a message begins with the byte {flag}, which means nothing"))
            elif size > most:
                self.give_up(self.connection.listener.too_large())
            elif len(buffer) - at - 5 < size:
                break
            else:
                body = bytes(memoryview(buffer)[at + 5 : at + 5 + size])
                if not flag:
                    self._accept(body)
                elif not self._inflate(body):
                    break
                at += 5 + size
        if not self.is_over:
            self._drop(at)

    def _drop(self, size: int) -> None:
        """Forget bytes that were accepted."""
        self.connection.hold(-size)
        del self.buffer[:size]

    def _inflate(self, body: bytes) -> bool:
        """Accept a compressed message. Returns whether that is done by now."""
        self.give_up(Malformed("a compressed message, but no grpc-encoding"))
        return True

    def _complete(self) -> None:
        """The client has said all."""
        if self.is_over:
            return
        if self.buffer:
            self.give_up(Malformed("the call ended within a message"))
            return
        self._is_complete = True
        if not self.unanswered:
            self.finish(Message(b""))

    def _accept(self, body: bytes) -> None:
        connection, head = self.connection, self.head
        listener = connection.listener
        received = connection.last
        listener.count = count = listener.count + 1
        exchange = GrpcExchange(
            id=head.request_id or listener.id_prefix + hex(count)[2:],
            received=received,
            endpoint=head.endpoint,
            deadline=received + head.seconds,
            trace=trace_for(head.headers, listener.traces),
            stream=self,
        )
        self.unanswered.append(exchange)
        connection.unanswered += 1
        head.endpoint.accept(exchange, body, head.headers)

    # Out.

    def write(self, exchange: GrpcExchange, message: Message) -> None:
        """Send an answer whose turn it is."""
        connection, flag = self.connection, 0
        if message.content_type != "application/grpc" or (message.code != "ok" and not message.body):
            if message.content_type != PACKED:
                self._refuse(exchange, message)
                return
            flag = 1
        body, number = message.body, self.number
        size = len(body)
        is_last = self._is_complete and not self.unanswered
        if self._is_started:
            begin = b""
        else:
            self._is_started = True
            name = exchange.id.encode()
            fields = b"".join((_BEGIN, _ID, frames.length(len(name)), name))
            if flag or not is_last:  # what follows may be compressed, and only now can it be said how
                fields += _ENCODINGS[self.head.coding]
            if exchange.trace is not None:
                fields += frames.field(b"traceresponse", exchange.trace.response.encode())
            block = connection.outbox.block(fields)
            begin = _HEAD.pack(len(block) >> 8, len(block) & 255, HEADERS, END_HEADERS, number) + block
        end = b""
        if is_last:
            end = _HEAD.pack(0, len(_DONE), HEADERS, END_HEADERS | END_STREAM, number) + _DONE
        connection.outbox.send(self, begin, _PREFIX.pack(flag, size), body, end)
        if connection.listener.notes_all or message.code != "ok":
            self._note(exchange, message)

    def _refuse(self, exchange: GrpcExchange, message: Message) -> None:
        """End the call as a wire says; where it is no wire of gRPC, or knows no such method, gRPC has a word for it."""
        endpoint = exchange.endpoint
        code, headers = message.code, message.headers
        is_ours = message.content_type == "application/grpc"
        if code not in _OF_SERVER if not is_ours else (endpoint.call is None and code == "not_found"):
            code, headers = "unimplemented", {"grpc-message": f"no such method: {self.head.target}"}
        elif not is_ours:
            headers = {"grpc-message": message.body.decode(errors="replace")}
        message = Message(b"", headers, code, "application/grpc")
        self._note(exchange, message)
        self.finish(message, exchange.id)

    def finish(self, message: Message, name: str = "") -> None:
        """End the call with the status that ``message`` tells, and no further answer."""
        connection = self.connection
        connection.note_answered(len(self.unanswered))
        self.unanswered.clear()
        status = STATUS.get(message.code, UNKNOWN)
        block = _STATUS_FIELDS[status]
        if not self._is_started:
            block = _BEGIN + _ACCEPTED + block
            if name:
                block += _ID + frames.length(len(name)) + name.encode()
        block += frames.fields(
            (name, percent(value) if name == "grpc-message" else value) for name, value in message.headers.items()
        )
        trailers = frames.headers(self.number, connection.outbox.block(block), END_STREAM)
        connection.outbox.send(self, b"", b"", b"", trailers)

    def give_up(self, error: ModelyardError) -> None:
        listener = self.connection.listener
        listener.metrics.refused[error.code] += 1
        self.finish(Message(b"", {"grpc-message": told(error)}, error.code))

    def cancel(self) -> None:
        super().cancel()
        self.unanswered.clear()  # they know us, and the collector of garbage does not know them

    def _note(self, exchange: GrpcExchange, message: Message) -> None:
        self.connection.listener.note(exchange, message)


class GrpcExchange(StreamExchange, gc=False, kw_only=True, eq=False):
    """One message of a call."""

    endpoint: Endpoint
    stream: GrpcStream
    answered: Message | None = None

    def answer(self, message: Message, is_packed: bool = False) -> None:
        stream = self.stream
        if stream.is_over:
            return
        if len(message.body) >= COMPRESSED_FROM and not is_packed and self._is_worth_packing(message):
            if len(message.body) > COMPRESSED_ON_LOOP:
                self._pack_beside(message)
                return
            message = pack(message, stream.head.coding)
        unanswered = stream.unanswered
        if unanswered[0] is not self:
            self.answered = message
            return
        unanswered.popleft()
        stream.connection.note_answered()
        stream.write(self, message)
        while unanswered and (answered := unanswered[0].answered) is not None:
            first = unanswered.popleft()
            stream.connection.note_answered()
            stream.write(first, answered)

    def _is_worth_packing(self, message: Message) -> bool:
        is_ours = message.content_type == "application/grpc"
        return bool(is_ours and self.stream.head.coding and shrinks(message.body))

    def _pack_beside(self, message: Message) -> None:
        listener, how = self.stream.connection.listener, self.stream.head.coding

        def work() -> None:
            listener.call_from_thread(self.answer, pack(message, how), True)

        listener.application.later(work)


def pack(message: Message, how: str) -> Message:
    """A message as it travels compressed."""
    return Message(deflate(message.body, how), message.headers, message.code, PACKED)


def percent(text: str) -> str:
    """A text as ``grpc-message`` has it."""
    cut = text.encode(errors="replace")[:LONGEST_TEXT].decode(errors="ignore")
    return quote(cut, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
