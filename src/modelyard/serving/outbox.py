"""What leaves an HTTP/2 connection: frames, gathered for one write a turn, as far as the client's windows go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.serving import frames
from modelyard.serving.frames import FLOW_CONTROL_ERROR, FRAME, LARGEST_WINDOW, PROTOCOL_ERROR, ConnectionFault

if TYPE_CHECKING:
    from modelyard.serving.streams import Stream

#: The largest frame that we send, if the client takes it, and what is sent before it is asked whether that was enough.
LARGEST_SENT = 1 << 16
TURN_BYTES = 1 << 18


class Outbox:
    """Sends for one connection. ``ended`` is called with each stream whose last frame is sent."""

    def __init__(self, call_soon: Callable[..., Any], ended: Callable[[Stream], None]) -> None:
        self.transport: Any = None
        #: What we may send: in all, in a new stream, and in one frame.
        self.window = self.first_window = frames.DEFAULT_WINDOW
        self.frame_size = frames.DEFAULT_FRAME
        #: Streams whose answers wait for the client, how many bytes that is, and when they last got on.
        self.blocked: dict[int, Stream] = {}
        self.backlog = 0
        self.moved = perf_counter()
        #: The transport holds as much as it will.
        self.is_full = False
        #: Answers since somebody set it to 0.
        self.answers = 0
        #: The frames of this turn will be written: a call is on its way, or whoever set it does it.
        self.is_due = False
        self._out: list[bytes | bytearray] = []
        self._prefix = b""
        self._call_soon = call_soon
        self._ended = ended

    def block(self, fields: bytes) -> bytes:
        """A header block of these fields."""
        prefix = self._prefix
        if prefix:
            self._prefix = b""
            return prefix + fields
        return fields

    def send(self, stream: Stream, begin: bytes, prefix: bytes, body: bytes, end: bytes) -> None:
        """Send a header block, a body in two parts and, where it is not empty, the frame that ends the stream."""
        out = self._out
        if begin:
            out.append(begin)
        size = len(prefix) + len(body)
        self.answers += 1
        if end:
            stream.is_over = True
        if not stream.backlog and size <= stream.window and size <= self.window and size <= self.frame_size:
            if size:
                stream.window -= size
                self.window -= size
                out.append(FRAME.pack(size >> 8, size & 255, frames.DATA, 0, stream.number) + prefix)
                out.append(body)
            if end:
                out.append(end)
                self._ended(stream)
        else:
            if not stream.backlog:
                stream.backlog = bytearray()
            stream.backlog += prefix
            stream.backlog += body
            stream.tail = end
            self.backlog += size
            if not self.blocked:
                self.moved = perf_counter()
            self.blocked[stream.number] = stream
            self.pump()
        if not self.is_due:
            self.is_due = True
            self._call_soon(self.flush)

    def write(self, data: bytes) -> None:
        """Send frames at the end of this turn of the loop."""
        self._out.append(data)
        if not self.is_due:
            self.is_due = True
            self._call_soon(self.flush)

    def flush(self) -> None:
        """Hand the frames of this turn to the transport."""
        self.is_due = False
        out = self._out
        if out:
            data = b"".join(out)
            out.clear()
            self.transport.write(data)

    def clear(self) -> None:
        """Drop the frames of this turn."""
        self._out.clear()

    def pump(self) -> None:
        """Send what waited, as far as the client's windows go."""
        turn = 0
        for stream in list(self.blocked.values()):
            backlog = stream.backlog
            assert isinstance(backlog, bytearray)
            while backlog and not self.is_full:
                size = min(len(backlog), self.window, stream.window, self.frame_size)
                if size <= 0:
                    break
                stream.window -= size
                self.window -= size
                self._out.append(FRAME.pack(size >> 8, size & 255, frames.DATA, 0, stream.number))
                self._out.append(backlog[:size])
                del backlog[:size]
                self.backlog -= size
                self.moved = perf_counter()
                turn += size
                if turn >= TURN_BYTES:  # the transport may say that it has enough
                    turn = 0
                    self.flush()
            if not backlog:
                del self.blocked[stream.number]
                stream.backlog = b""
                if stream.tail:
                    self._out.append(stream.tail)
                    self._ended(stream)
        if not self.is_due:
            self.is_due = True
            self._call_soon(self.flush)

    def forget(self, stream: Stream) -> None:
        """Drop what waits of a stream."""
        if stream.backlog:
            self.backlog -= len(stream.backlog)
            stream.backlog = b""
            del self.blocked[stream.number]

    def widen(self, stream: Stream | None, size: int) -> int:
        """The client takes more, of one stream or in all. Returns the code of an error if that cannot be."""
        if stream is None:
            self.window = window = self.window + size
        else:
            stream.window = window = stream.window + size
        if not size:
            return PROTOCOL_ERROR
        if window > LARGEST_WINDOW:
            return FLOW_CONTROL_ERROR
        if self.blocked:
            self.pump()
        return 0

    def settle(self, values: dict[int, int], streams: Iterable[Stream]) -> None:
        """Heed the client's settings. Raises ConnectionFault."""
        if frames.TABLE_SIZE in values:
            self._prefix = frames.NO_TABLE
        if values.get(frames.ENABLE_PUSH, 0) > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        size = values.get(frames.MAX_FRAME, self.frame_size)
        if not frames.DEFAULT_FRAME <= size <= frames.LARGEST_FRAME:
            raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of bounds")
        self.frame_size = min(size, LARGEST_SENT)
        widest = window = values.get(frames.INITIAL_WINDOW, self.first_window)
        for stream in streams:
            stream.window += window - self.first_window
            widest = max(widest, stream.window)
        if widest > LARGEST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        self.first_window = window
        self.pump()
