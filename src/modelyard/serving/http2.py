"""The HTTP/2 listener: frames, flow control and limits of one connection, on the same port as HTTP/1.1.

Only what servers need is here: no pushes, no priorities, no table of headers for answers. All the answers of one
turn of the loop leave in one write. A client that breaks the rules loses its stream or, where both sides no longer
agree on what was said, its connection.
"""

from __future__ import annotations

import asyncio
from struct import Struct
from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.serving import frames
from modelyard.serving.compression import coding
from modelyard.serving.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    LARGEST_WINDOW,
    NO_ERROR,
    PADDED,
    PREFACE,
    PRIORITISED,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
)
from modelyard.serving.grpc import GrpcStream, is_grpc, patience
from modelyard.serving.heads import Blocks, Head, announced, given_id
from modelyard.serving.limits import (
    BODY_SECONDS,
    IDLE_SECONDS,
    MOST_HEAD_BYTES,
    STUCK_SECONDS,
    TooSlow,
    is_slow_body,
)
from modelyard.serving.patience import seconds_of
from modelyard.serving.streams import PlainStream, Stream

if TYPE_CHECKING:
    from modelyard.serving.listener import Listener

#: Streams that a client may have open, and bytes that it may send ahead in one and in all of them.
MOST_STREAMS = 256
STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 1 << 24

#: Unanswered requests of one connection at which no more is read from it, and at which reading goes on.
MOST_UNANSWERED = 1024
FEW_UNANSWERED = 256

#: Bytes of answers that wait for the client's windows at which it may not send more.
MOST_BACKLOG = 1 << 24

#: Frames a second that bring us nothing, beside so many for each answer, before the client is told to calm down.
MOST_NOISE = 1000
NOISE_EACH = 4

#: Streams that we have ended whose late frames are not held against the client.
MOST_LATE = 1024

#: Seconds without a word from a client that has streams open before it is asked whether it lives, and to answer that.
PROBE_SECONDS = 60.0
PROBE_ANSWER_SECONDS = 20.0

#: The largest frame that we send, if the client takes it, and what is sent before it is asked whether that was enough.
LARGEST_SENT = 1 << 16
TURN_BYTES = 1 << 18

#: Seconds between telling a client that we leave and counting on its having heard.
FAREWELL_SECONDS = 0.1

_SETTING = Struct(">HI")

_HELLO = frames.settings({
    frames.CONCURRENT_STREAMS: MOST_STREAMS,
    frames.INITIAL_WINDOW: STREAM_WINDOW,
    frames.MAX_HEADERS: MOST_HEAD_BYTES,
}) + frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW)  # fmt: skip


class Http2Connection(asyncio.Protocol):
    """One connection; ``data_received`` begins with the preface."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.transport: Any = None
        self.streams: dict[int, Stream] = {}
        #: Requests that are not answered.
        self.unanswered = 0
        #: When something was last received.
        self.last = perf_counter()
        #: What we may send: in all, in a new stream, and in one frame.
        self.window = self.first_window = frames.DEFAULT_WINDOW
        self.frame_size = frames.DEFAULT_FRAME
        #: What the client may send: in all, and in a new stream.
        self.credit = CONNECTION_WINDOW
        self.first_credit = STREAM_WINDOW
        self.is_closing = False
        self._blocks = Blocks(self._understand)
        self._known = self._blocks.known
        self._rest = b""
        self._is_greeted = False
        #: A header block that goes on: its stream, its bytes so far, whether it ends the stream.
        self._partial: tuple[int, bytearray, bool] | None = None
        self._last_number = 0
        self._late: dict[int, None] = {}
        self._held = 0
        self._out: list[bytes | bytearray] = []
        self._flush_is_due = False
        self._blocked: dict[int, Stream] = {}
        self._backlog = 0
        self._sent = perf_counter()
        self._prefix = b""
        self._noise = self._answers = 0
        self._reading_paused = self._writing_paused = False
        self._farewells = 0
        #: When a frame was last whole, when we took leave, and when we asked whether anybody is there.
        self._whole = perf_counter()
        self._left = self._probed = 0.0
        self._call_soon = asyncio.get_running_loop().call_soon

    def _understand(self, method: str, target: str, headers: dict[str, str]) -> Head:
        listener = self.listener
        grpc = is_grpc(method, headers)
        seconds = seconds_of(headers, listener.request_seconds)
        return Head(
            method,
            target,
            headers,
            listener.application.endpoint(method, target, headers),
            given_id(headers),
            announced(headers),
            GrpcStream if grpc else PlainStream,
            patience(headers, seconds) if grpc else seconds,
            coding(headers.get("accept-encoding", "")) if not grpc else "",
        )

    def forget(self) -> None:
        """Find every endpoint anew."""
        self._known.clear()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.listener.connections.add(self)
        self.write(_HELLO)

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        self.listener.connections.discard(self)
        self.listener.note_lost()

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        self.last = perf_counter()
        self._flush_is_due = True  # by ourselves, below
        try:
            self._read(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            self._leave(fault.code, str(fault))
        self._flush()

    def eof_received(self) -> bool:
        return bool(self.streams) and not self.is_closing

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._sent = perf_counter()
        self._pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._resume_reading()

    # In.

    def _read(self, data: bytes) -> None:
        at, size = 0, len(data)
        if not self._is_greeted:
            if not data.startswith(PREFACE[:size]):
                raise ConnectionFault(PROTOCOL_ERROR, "not the preface of HTTP/2")
            at = len(PREFACE)
            if size < at + FRAME_SIZE:
                self._rest = data
                return
            if data[at + 3] != frames.SETTINGS or data[at + 4] & ACK:
                raise ConnectionFault(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._is_greeted = True
        streams, unpack = self.streams, FRAME.unpack_from
        while size - at >= FRAME_SIZE and not self._reading_paused:
            high, low, kind, flags, number = unpack(data, at)
            length = high << 8 | low
            if length > frames.DEFAULT_FRAME:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = at + FRAME_SIZE
            end = start + length
            if end > size:
                break
            at = end
            number &= 0x7FFFFFFF
            if self._partial is not None and kind != frames.CONTINUATION:
                raise ConnectionFault(PROTOCOL_ERROR, "a header block is interrupted")
            if kind == frames.DATA:
                stream = streams.get(number)
                self.credit -= length
                if self.credit < CONNECTION_WINDOW >> 1:
                    self._top_up()
                if stream is None or stream.has_ended or flags & PADDED:
                    self._read_odd_data(number, flags, data[start:end])
                else:
                    self._feed(stream, data[start:end], flags & END_STREAM, length)
            elif kind == frames.HEADERS:
                block = data[start:end] if not flags & (PADDED | PRIORITISED) else _bare(data[start:end], flags)
                if flags & END_HEADERS:
                    self._open(number, block, flags & END_STREAM)
                else:
                    self._partial = (number, bytearray(block), bool(flags & END_STREAM))
            else:
                self._read_other(kind, flags, number, data[start:end])
            if self.is_closing:
                return
        self._rest = data[at:]
        if at and self._partial is None:
            self._whole = self.last

    def _feed(self, stream: Stream, data: bytes, ended: int, length: int) -> None:
        """Give a stream its bytes; ``length`` is what they take of its window."""
        stream.credit -= length
        try:
            if stream.credit < 0:
                raise StreamFault(FLOW_CONTROL_ERROR, "more than the stream's window")
            if ended:
                stream.has_ended = True
            elif stream.credit < STREAM_WINDOW >> 1 and self._backlog <= MOST_BACKLOG:
                self.write(frames.window_update(stream.number, STREAM_WINDOW - stream.credit))
                stream.credit = STREAM_WINDOW
            if not length and not ended:
                self._note_noise()
            if not stream.is_over:
                stream.feed(data, bool(ended))
        except StreamFault as fault:
            self._reset(stream.number, fault.code)
        if self.unanswered >= MOST_UNANSWERED:
            self._pause_reading()

    def _read_odd_data(self, number: int, flags: int, payload: bytes) -> None:
        """DATA that is padded, or for no open stream."""
        if flags & PADDED:
            data = _bare(payload, PADDED)
        else:
            data = payload
        stream = self.streams.get(number)
        if stream is not None and not stream.has_ended:
            self._feed(stream, data, flags & END_STREAM, len(payload))
        elif number == 0 or number > self._last_number or not number & 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"DATA for the stream {number}, which is not open")
        else:
            self._note_noise()
            if number not in self._late:
                self._reset(number, STREAM_CLOSED)

    def _open(self, number: int, block: bytes, ended: int) -> None:
        """A header block is whole: it opens a stream, or is the trailers of one."""
        if number <= self._last_number or not number & 1:
            self._read_trailers(number, block, ended)
            return
        self._last_number = number
        try:
            head = self._known.get(block) or self._blocks.open(block)
            if self._farewells > 1 or len(self.streams) >= MOST_STREAMS:
                raise StreamFault(REFUSED_STREAM, "too many streams, or leaving")
        except StreamFault as fault:
            self._note_noise()
            self._reset(number, fault.code)
            return
        stream = self.streams[number] = head.stream(self, number, head)
        if ended:
            self._feed(stream, b"", ended, 0)

    def _read_trailers(self, number: int, block: bytes, ended: int) -> None:
        stream = self.streams.get(number)
        if stream is None and number not in self._late:
            raise ConnectionFault(STREAM_CLOSED if number & 1 else PROTOCOL_ERROR, f"HEADERS for the stream {number}")
        pairs = self._blocks.decode(block)
        if stream is None:
            self._note_noise()
        elif stream.has_ended:
            self._reset(number, STREAM_CLOSED)
        elif not ended or any(name.startswith(b":") for name, _ in pairs):
            self._reset(number, PROTOCOL_ERROR)
        else:
            self._feed(stream, b"", ended, 0)

    def _read_other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Frames of any kind but DATA and HEADERS."""
        if kind in (frames.SETTINGS, frames.PING, frames.GOAWAY):
            if number:
                raise ConnectionFault(PROTOCOL_ERROR, "a frame of the connection within a stream")
        elif kind <= frames.CONTINUATION and kind != frames.WINDOW_UPDATE and not number:
            raise ConnectionFault(PROTOCOL_ERROR, "a frame of a stream without one")
        if kind == frames.WINDOW_UPDATE:
            self._widen(number, payload)
        elif kind == frames.PING:
            self._expect(payload, 8)
            if not flags & ACK:
                self._note_noise()
                self.write(frames.frame(frames.PING, ACK, 0, payload))
        elif kind == frames.SETTINGS:
            self._settle(flags, payload)
        elif kind == frames.RST_STREAM:
            self._expect(payload, 4)
            if number > self._last_number or not number & 1:
                raise ConnectionFault(PROTOCOL_ERROR, "RST_STREAM for a stream that is not open")
            self._note_noise()
            stream = self.streams.get(number)
            if stream is not None:
                stream.cancel()
        elif kind == frames.CONTINUATION:
            self._continue(flags, number, payload)
        elif kind == frames.GOAWAY:
            if not self.streams:
                self._leave(NO_ERROR, "")
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(PROTOCOL_ERROR, "a client that pushes")
        else:  # PRIORITY, and what is not known, means nothing
            self._note_noise()
            if kind == frames.PRIORITY and len(payload) != 5:
                self._reset(number, FRAME_SIZE_ERROR)

    def _expect(self, payload: bytes, size: int) -> None:
        if len(payload) != size:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"{len(payload)} bytes where {size} belong")

    def _continue(self, flags: int, number: int, payload: bytes) -> None:
        if self._partial is None or self._partial[0] != number:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, block, ended = self._partial
        block += payload
        if len(block) > MOST_HEAD_BYTES:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"a header block above {MOST_HEAD_BYTES} bytes")
        if not payload:
            self._note_noise()
        if flags & END_HEADERS:
            self._partial = None
            self._open(number, bytes(block), int(ended))

    def _settle(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            self._expect(payload, 0)
            return
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS that are cut off")
        self._note_noise()
        values = dict(_SETTING.iter_unpack(payload))
        if frames.TABLE_SIZE in values:
            self._prefix = frames.NO_TABLE
        if values.get(frames.ENABLE_PUSH, 0) > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        size = values.get(frames.MAX_FRAME, self.frame_size)
        if not frames.DEFAULT_FRAME <= size <= frames.LARGEST_FRAME:
            raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of bounds")
        self.frame_size = min(size, LARGEST_SENT)
        window = values.get(frames.INITIAL_WINDOW, self.first_window)
        for stream in self.streams.values():
            stream.window += window - self.first_window
        if max([window, *(stream.window for stream in self.streams.values())]) > LARGEST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        self.first_window = window
        self.write(frames.frame(frames.SETTINGS, ACK, 0))
        self._pump()

    def _widen(self, number: int, payload: bytes) -> None:
        """The client takes more."""
        self._expect(payload, 4)
        size = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if number:
            stream = self.streams.get(number)
            if stream is None:
                if number > self._last_number or not number & 1:
                    raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that is not open")
                return
            stream.window += size
            if not size or stream.window > LARGEST_WINDOW:
                self._reset(number, FLOW_CONTROL_ERROR if size else PROTOCOL_ERROR)
                return
        else:
            self.window += size
            if not size or self.window > LARGEST_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR if size else PROTOCOL_ERROR, "a window update out of bounds")
        if self._blocked:
            self._pump()

    def _note_noise(self) -> None:
        """Count a frame that brings us nothing. Raises ConnectionFault where there are too many."""
        self._noise += 1
        if self._noise > MOST_NOISE + NOISE_EACH * self._answers:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames to no purpose")

    def _top_up(self) -> None:
        """Let the client send on, unless it does not take what it asked for."""
        if self.credit < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more than the connection's window")
        if self._backlog <= MOST_BACKLOG:
            self.write(frames.window_update(0, CONNECTION_WINDOW - self.credit))
            self.credit = CONNECTION_WINDOW

    def hold(self, size: int) -> None:
        """Count bytes of messages that are not whole yet. Raises StreamFault where there are too many."""
        self._held += size
        if size > 0 and self._held > 2 * self.listener.max_body + STREAM_WINDOW:
            raise StreamFault(ENHANCE_YOUR_CALM, "too much at once in messages that are not whole")

    # Out.

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
        self._answers += 1
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
                self._end_stream(stream)
        else:
            if not stream.backlog:
                stream.backlog = bytearray()
            stream.backlog += prefix
            stream.backlog += body
            stream.tail = end
            self._backlog += size
            if not self._blocked:
                self._sent = perf_counter()
            self._blocked[stream.number] = stream
            self._pump()
        if self._reading_paused and self.unanswered <= FEW_UNANSWERED:
            self._call_soon(self._resume_reading)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._call_soon(self._flush)

    def write(self, data: bytes) -> None:
        """Send frames at the end of this turn of the loop."""
        self._out.append(data)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        out = self._out
        if out:
            data = b"".join(out)
            out.clear()
            self.transport.write(data)

    def _pump(self) -> None:
        """Send what waited for the client's windows, as far as they go."""
        turn = 0
        for stream in list(self._blocked.values()):
            backlog = stream.backlog
            assert isinstance(backlog, bytearray)
            while backlog and not self._writing_paused:
                size = min(len(backlog), self.window, stream.window, self.frame_size)
                if size <= 0:
                    break
                stream.window -= size
                self.window -= size
                self._out.append(FRAME.pack(size >> 8, size & 255, frames.DATA, 0, stream.number))
                self._out.append(backlog[:size])
                del backlog[:size]
                self._backlog -= size
                self._sent = self.last
                turn += size
                if turn >= TURN_BYTES:  # the transport may say that it has enough
                    turn = 0
                    self._flush()
            if not backlog:
                del self._blocked[stream.number]
                stream.backlog = b""
                if stream.tail:
                    self.write(stream.tail)
                    self._end_stream(stream)
        if self.credit < CONNECTION_WINDOW >> 1:
            self._top_up()
        for stream in self.streams.values():
            if stream.credit < STREAM_WINDOW >> 1 and not stream.has_ended and self._backlog <= MOST_BACKLOG:
                self.write(frames.window_update(stream.number, STREAM_WINDOW - stream.credit))
                stream.credit = STREAM_WINDOW

    def _end_stream(self, stream: Stream) -> None:
        """All of its answer is sent."""
        if not stream.has_ended:
            self.write(frames.reset(stream.number, NO_ERROR))
        self.let_go(stream)

    def _reset(self, number: int, code: int) -> None:
        """End a stream that went wrong."""
        stream = self.streams.get(number)
        if stream is not None:
            stream.cancel()
        else:
            self._be_late(number)
        self.write(frames.reset(number, code))

    def let_go(self, stream: Stream) -> None:
        """Forget a stream."""
        del self.streams[stream.number]
        if stream.buffer:
            self._held -= len(stream.buffer)
        if stream.backlog:
            self._backlog -= len(stream.backlog)
            stream.backlog = b""
            self._blocked.pop(stream.number, None)
        if not stream.has_ended:
            self._be_late(stream.number)
        if self._reading_paused:
            self._call_soon(self._resume_reading)
        if self._farewells > 1 and not self.streams:
            self._call_soon(self._leave, NO_ERROR, "")

    def _be_late(self, number: int) -> None:
        self._late[number] = None
        if len(self._late) > MOST_LATE:
            del self._late[next(iter(self._late))]

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if (
            not self._reading_paused
            or self._writing_paused
            or self.unanswered > FEW_UNANSWERED
            or self.transport.is_closing()
        ):
            return
        self._reading_paused = False
        self.data_received(b"")
        if not self._reading_paused and not self.is_closing:
            self.transport.resume_reading()

    # Leaving, and looking after those who do not.

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        return self.unanswered

    def _leave(self, code: int, reason: str) -> None:
        """Say goodbye, and close once all is written."""
        if self.is_closing:
            return
        self._end()
        self._out.append(frames.goaway(self._last_number, code, reason))
        self._flush()
        if code != NO_ERROR:
            self.listener.metrics.refused["bad_request"] += 1
        self.transport.close()

    def _end(self) -> None:
        self.is_closing = True
        for stream in list(self.streams.values()):
            stream.cancel()
        self._out.clear()

    def drain(self, now: float) -> None:
        """No new streams; those that are open end in peace. Called repeatedly."""
        if self.is_closing:
            return
        if not self._farewells:  # streams may be under way that we do not know of
            self._farewells, self._left = 1, now
            self.write(frames.goaway(LARGEST_WINDOW, NO_ERROR))
        elif self._farewells == 1 and now - self._left >= FAREWELL_SECONDS:
            self._farewells = 2
            if self.streams:
                self.write(frames.goaway(self._last_number, NO_ERROR))
            else:
                self._leave(NO_ERROR, "")

    def tend(self, now: float) -> None:
        """Once a second: end what idles, dawdles or never reads."""
        self._noise = self._answers = 0
        if self._writing_paused or self._blocked:
            if now - self._sent > STUCK_SECONDS:
                self.transport.abort()
            return
        if self.is_closing or self._reading_paused:
            return
        if (self._rest or self._partial or not self._is_greeted) and now - self._whole > BODY_SECONDS:
            self._leave(ENHANCE_YOUR_CALM, "a frame that does not end")
        elif not self.streams:
            if now - self.last > IDLE_SECONDS:
                self._leave(NO_ERROR, "idle")
        else:
            for stream in list(self.streams.values()):
                waited = now - stream.began
                if stream.is_reading and is_slow_body(waited, len(stream.buffer)):
                    stream.give_up(TooSlow(f"the request was not complete after {waited:.0f} seconds"))
            self._probe(now)

    def _probe(self, now: float) -> None:
        """Ask a client that is silent, but waits for answers, whether it is still there."""
        if self.last > self._probed and now - self.last > PROBE_SECONDS:
            self._probed = now
            self.write(frames.frame(frames.PING, 0, 0, b"are you?"))
        elif self.last < self._probed < now - PROBE_ANSWER_SECONDS:
            self.transport.abort()


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
