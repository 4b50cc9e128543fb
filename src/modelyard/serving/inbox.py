"""What comes in over an HTTP/2 connection: bytes in, whole frames out, each checked by the rules of its kind."""

from __future__ import annotations

from struct import Struct
from time import perf_counter
from typing import TYPE_CHECKING

from modelyard.serving import frames
from modelyard.serving.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    LARGEST_WINDOW,
    PADDED,
    PREFACE,
    PRIORITISED,
    PROTOCOL_ERROR,
    ConnectionFault,
)
from modelyard.serving.limits import MOST_HEAD_BYTES

if TYPE_CHECKING:
    from modelyard.serving.http2 import Http2Connection

#: A frame of fewer bytes that continues a header block has no purpose but to be a frame.
_FEW_BYTES = 256

_SETTING = Struct(">HI")

_OF_CONNECTION = frozenset((frames.SETTINGS, frames.PING, frames.GOAWAY))
_OF_STREAM = frozenset((
    frames.DATA, frames.HEADERS, frames.PRIORITY, frames.RST_STREAM, frames.PUSH_PROMISE, frames.CONTINUATION,
))  # fmt: skip


class Inbox:
    """Reads for one connection, and tells it what came. Raises ConnectionFault where that cannot be."""

    def __init__(self, connection: Http2Connection) -> None:
        #: When a frame was last whole; one that begins a header block is not before the block is.
        self.whole = perf_counter()
        self._connection = connection
        self._rest = b""
        self._is_greeted = False
        #: A header block that goes on: its stream, its bytes so far, whether it ends the stream.
        self._partial: tuple[int, bytearray, bool] | None = None

    @property
    def is_partial(self) -> bool:
        """Something has begun that is not whole yet."""
        return bool(self._rest) or self._partial is not None or not self._is_greeted

    def read(self, data: bytes) -> None:
        """Take in what came, as far as the connection wants to read."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        if not self._is_greeted:
            at = self._greet(data)
            if not at:
                self._rest = data
                return
        connection, unpack = self._connection, FRAME.unpack_from
        while size - at >= FRAME_SIZE and connection.is_reading:
            high, low, kind, flags, number = unpack(data, at)
            length = high << 8 | low
            if length > frames.DEFAULT_FRAME:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = at + FRAME_SIZE
            end = start + length
            if end > size:
                break
            at = end
            if self._partial is not None and kind != frames.CONTINUATION:
                raise ConnectionFault(PROTOCOL_ERROR, "a header block is interrupted")
            payload = data[start:end]
            if flags & (PADDED | PRIORITISED) and kind <= frames.HEADERS:
                payload = _bare(payload, flags if kind else flags & PADDED)
            if kind == frames.DATA:
                connection.take(number & LARGEST_WINDOW, payload, flags & END_STREAM, length)
            elif kind == frames.HEADERS and flags & END_HEADERS:
                connection.open(number & LARGEST_WINDOW, payload, flags & END_STREAM)
            else:
                self._read_other(kind, flags, number & LARGEST_WINDOW, payload)
        self._rest = data[at:]
        if at and self._partial is None:
            self.whole = connection.last

    def _greet(self, data: bytes) -> int:
        """Check how the connection begins, as far as it has; where its first frame starts, or 0."""
        start = len(PREFACE)
        if not data.startswith(PREFACE[: len(data)]):
            raise ConnectionFault(PROTOCOL_ERROR, "not the preface of HTTP/2")
        if len(data) < start + FRAME_SIZE:
            return 0
        if data[start + 3] != frames.SETTINGS or data[start + 4] & ACK:
            raise ConnectionFault(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        self._is_greeted = True
        return start

    def _read_other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Frames of any kind but DATA and whole HEADERS."""
        connection = self._connection
        if number and kind in _OF_CONNECTION:
            raise ConnectionFault(PROTOCOL_ERROR, "a frame of the connection within a stream")
        if not number and kind in _OF_STREAM:
            raise ConnectionFault(PROTOCOL_ERROR, "a frame of a stream without one")
        match kind:
            case frames.HEADERS:
                self._partial = (number, bytearray(payload), bool(flags & END_STREAM))
            case frames.CONTINUATION:
                self._continue(flags, number, payload)
            case frames.WINDOW_UPDATE:
                _expect(payload, 4)
                connection.widen(number, int.from_bytes(payload, "big") & LARGEST_WINDOW)
            case frames.PING:
                _expect(payload, 8)
                if not flags & ACK:
                    connection.note_noise()
                    connection.outbox.write(frames.frame(frames.PING, ACK, 0, payload))
            case frames.SETTINGS if flags & ACK:
                _expect(payload, 0)
            case frames.SETTINGS:
                if len(payload) % 6:
                    raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS that are cut off")
                connection.note_noise()
                connection.outbox.write(frames.frame(frames.SETTINGS, ACK, 0))
                connection.outbox.settle(dict(_SETTING.iter_unpack(payload)), connection.streams.values())
            case frames.RST_STREAM:
                _expect(payload, 4)
                connection.cancel(number)
            case frames.GOAWAY:
                connection.part()
            case frames.PUSH_PROMISE:
                raise ConnectionFault(PROTOCOL_ERROR, "a client that pushes")
            case frames.PRIORITY:
                _expect(payload, 5)
                connection.note_noise()
            case _:
                connection.note_noise()

    def _continue(self, flags: int, number: int, payload: bytes) -> None:
        if self._partial is None or self._partial[0] != number:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, block, ended = self._partial
        block += payload
        if len(block) > MOST_HEAD_BYTES:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"a header block above {MOST_HEAD_BYTES} bytes")
        if len(payload) < _FEW_BYTES:
            self._connection.note_noise()
        if flags & END_HEADERS:
            self._partial = None
            self._connection.open(number, bytes(block), int(ended))


def _expect(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{len(payload)} bytes where {size} belong")


def _bare(payload: bytes, flags: int) -> bytes:
    """A payload without padding and priority."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(FRAME_SIZE_ERROR, "padding without its length")
        start, end = 1, end - payload[0]
    if flags & PRIORITISED:
        start += 5
    if start > end:
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than frame")
    return payload[start:end]
