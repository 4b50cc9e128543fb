"""The HTTP/2 listener: the streams of one connection and their limits, on the same port as HTTP/1.1.

Only what servers need is here: no pushes, no priorities, no table of headers for answers. All the answers of one
turn of the loop leave in one write. A client that breaks the rules loses its stream or, where both sides no longer
agree on what was said, its connection.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from modelyard.serving import frames
from modelyard.serving.frames import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    LARGEST_WINDOW,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
)
from modelyard.serving.heads import Blocks
from modelyard.serving.inbox import Inbox
from modelyard.serving.limits import BODY_SECONDS, IDLE_SECONDS, MOST_HEAD_BYTES, STUCK_SECONDS
from modelyard.serving.outbox import Outbox
from modelyard.serving.streams import STREAM_WINDOW, Stream

if TYPE_CHECKING:
    from modelyard.serving.listener import Listener

#: Streams that a client may have open, and bytes that it may send ahead in all of them.
MOST_STREAMS = 256
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

#: Seconds between telling a client that we leave and counting on its having heard.
FAREWELL_SECONDS = 0.1

_HELLO = frames.settings({
    frames.CONCURRENT_STREAMS: MOST_STREAMS,
    frames.INITIAL_WINDOW: STREAM_WINDOW,
    frames.MAX_HEADERS: MOST_HEAD_BYTES,
}) + frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW)  # fmt: skip


class Http2Connection(asyncio.Protocol):
    """One connection, from its preface on."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.transport: Any = None
        self.streams: dict[int, Stream] = {}
        #: Requests that are not answered.
        self.unanswered = 0
        #: When something was last received.
        self.last = perf_counter()
        #: Frames are read on: we are neither leaving nor waiting until we have answered some.
        self.is_reading = True
        self.is_closing = False
        self._call_soon = listener.call_soon
        self._inbox = Inbox(self)
        self.outbox = Outbox(self._call_soon, self._end_stream)
        self._blocks = Blocks(listener)
        self._known = self._blocks.known
        #: What the client may send, in all.
        self._credit = CONNECTION_WINDOW
        #: It may send no more before it takes what it asked for.
        self._withholds = False
        self._last_number = 0
        self._late: dict[int, None] = {}
        self._held = 0
        self._noise = 0
        #: How often we took leave, and when; when we asked whether anybody is there.
        self._farewells = 0
        #: The client has said all.
        self._has_ended = False
        self._left = self._probed = 0.0

    def forget(self) -> None:
        """Find every endpoint anew, for streams that go on as well."""
        self._known.clear()
        going_on = [stream for stream in self.streams.values() if not stream.has_ended]
        renewed = {head: self._blocks.renew(head) for head in {stream.head for stream in going_on}}
        for stream in going_on:
            stream.head = renewed[stream.head]

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = self.outbox.transport = transport
        self.listener.connections.add(self)
        self._blocks.is_admin_port = self.listener.is_admin(transport)
        self.outbox.write(_HELLO)

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        self.outbox.clear()
        self._known.clear()  # unloading waits for all who hold a version, and we may wait for the collector of garbage
        self.listener.connections.discard(self)
        self.listener.note_lost()

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        self.last = perf_counter()
        outbox = self.outbox
        outbox.is_due = True  # by ourselves, below
        try:
            self._inbox.read(data)
        except ConnectionFault as fault:
            self._leave(fault.code, str(fault))
        outbox.flush()

    def eof_received(self) -> bool:
        """A client that has said all may still want its answers; streams that it left half-way get none."""
        for stream in list(self.streams.values()):
            stream.part()
        self._farewells = 2
        self._has_ended = True
        self.outbox.flush()  # what was answered in this turn: a transport that closes takes no more
        return bool(self.streams) and not self.is_closing

    def pause_writing(self) -> None:
        self.outbox.is_full = True
        self.outbox.moved = perf_counter()
        self._pause_reading()

    def resume_writing(self) -> None:
        self.outbox.is_full = False
        self.outbox.pump()
        self._resume_reading()

    # Called by the inbox.

    def open(self, number: int, block: bytes, ended: int) -> None:
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
            self.note_noise()
            self._reset(number, fault.code)
            return
        stream = self.streams[number] = head.stream(self, number, head)
        if ended:
            self._feed(stream, b"", ended)

    def _read_trailers(self, number: int, block: bytes, ended: int) -> None:
        stream = self.streams.get(number)
        if stream is None and number not in self._late:
            raise ConnectionFault(STREAM_CLOSED if number & 1 else PROTOCOL_ERROR, f"HEADERS for the stream {number}")
        pairs = self._blocks.decode(block)
        if stream is None:
            self.note_noise()
        elif stream.has_ended:
            self._reset(number, STREAM_CLOSED)
        elif not ended or any(name.startswith(b":") for name, _ in pairs):
            self._reset(number, PROTOCOL_ERROR)
        else:
            self._feed(stream, b"", ended)

    def take(self, number: int, data: bytes, ended: int, length: int) -> None:
        """DATA has come, which takes ``length`` bytes of the windows."""
        self._credit -= length
        stream = self.streams.get(number)
        if self._credit < CONNECTION_WINDOW >> 1:
            if self._credit < 0:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "more than the connection's window")
            self._grant(stream)
        if stream is None or stream.has_ended:
            if number > self._last_number or not number & 1:
                raise ConnectionFault(PROTOCOL_ERROR, f"DATA for the stream {number}, which is not open")
            self.note_noise()
            if number not in self._late:
                self._reset(number, STREAM_CLOSED)
            return
        stream.credit -= length
        if stream.credit < 0:
            self._reset(number, FLOW_CONTROL_ERROR)
            return
        if not ended:
            if stream.credit < STREAM_WINDOW >> 1:
                self._grant(stream)
            if not data:
                self.note_noise()
        self._feed(stream, data, ended)

    def _feed(self, stream: Stream, data: bytes, ended: int) -> None:
        if ended:
            stream.has_ended = True
        if stream.is_over:
            return
        try:
            stream.feed(data, bool(ended))
        except StreamFault as fault:
            self._reset(stream.number, fault.code)
        if self.unanswered >= MOST_UNANSWERED:
            self._pause_reading()

    def _grant(self, stream: Stream | None) -> None:
        """Let the client send on, in all and in one stream, unless it does not take what it asked for."""
        outbox = self.outbox
        self._withholds = outbox.backlog > MOST_BACKLOG
        if self._withholds:
            return
        if self._credit < CONNECTION_WINDOW >> 1:
            outbox.write(frames.window_update(0, CONNECTION_WINDOW - self._credit))
            self._credit = CONNECTION_WINDOW
        if stream is not None and stream.credit < STREAM_WINDOW >> 1 and not stream.has_ended:
            outbox.write(frames.window_update(stream.number, STREAM_WINDOW - stream.credit))
            stream.credit = STREAM_WINDOW

    def widen(self, number: int, size: int) -> None:
        """The client takes more."""
        stream = self.streams.get(number)
        if stream is not None:
            code = self.outbox.widen(stream, size)
            if code:
                self._reset(number, code)
        elif number:
            if number > self._last_number or not number & 1:
                raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that is not open")
        else:
            code = self.outbox.widen(None, size)
            if code:
                raise ConnectionFault(code, "a window update out of bounds")
        if self._withholds and self.outbox.backlog <= MOST_BACKLOG:
            self._grant(None)
            for stream in self.streams.values():
                self._grant(stream)

    def cancel(self, number: int) -> None:
        """The client no longer wants what it asked for."""
        if number > self._last_number or not number & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "RST_STREAM for a stream that is not open")
        self.note_noise()
        stream = self.streams.get(number)
        if stream is not None:
            stream.cancel()

    def part(self) -> None:
        """The client opens no more streams."""
        if not self.streams:
            self._leave(NO_ERROR, "")

    def note_noise(self) -> None:
        """Count a frame that brings us nothing. Raises ConnectionFault where there are too many."""
        self._noise += 1
        if self._noise > MOST_NOISE + NOISE_EACH * self.outbox.answers:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames to no purpose")

    # Called by streams.

    def hold(self, size: int) -> None:
        """Count bytes of messages that are not whole yet. Raises StreamFault where there are too many."""
        self._held += size
        if size > 0 and self._held > 2 * self.listener.max_body + STREAM_WINDOW:
            raise StreamFault(ENHANCE_YOUR_CALM, "too much at once in messages that are not whole")

    def note_answered(self, count: int = 1) -> None:
        """So many requests are answered, or need no answer any more."""
        self.unanswered -= count
        if not self.is_reading and self.unanswered <= FEW_UNANSWERED:
            self._call_soon(self._resume_reading)

    def let_go(self, stream: Stream) -> None:
        """Forget a stream."""
        del self.streams[stream.number]
        self._held -= len(stream.buffer)
        self.outbox.forget(stream)
        if not stream.has_ended:
            self._be_late(stream.number)
        if self._farewells > 1 and not self.streams:
            self._call_soon(self._leave, NO_ERROR, "")

    def _end_stream(self, stream: Stream) -> None:
        """All of its answer is sent."""
        if not stream.has_ended:
            self.outbox.write(frames.reset(stream.number, NO_ERROR))
        self.let_go(stream)

    def _reset(self, number: int, code: int) -> None:
        """End a stream that went wrong."""
        stream = self.streams.get(number)
        if stream is not None:
            stream.cancel()
        else:
            self._be_late(number)
        self.outbox.write(frames.reset(number, code))

    def _be_late(self, number: int) -> None:
        self._late[number] = None
        if len(self._late) > MOST_LATE:
            del self._late[next(iter(self._late))]

    # Reading, leaving, and looking after those who do not leave.

    def _pause_reading(self) -> None:
        if self.is_reading and not self.transport.is_closing():
            self.is_reading = False
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self.is_reading or self.outbox.is_full or self.unanswered > FEW_UNANSWERED or self.transport.is_closing():
            return
        self.is_reading = True
        self.data_received(b"")
        if self.is_reading:
            self.transport.resume_reading()

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        return self.unanswered

    def _leave(self, code: int, reason: str) -> None:
        """Say goodbye, and close once all is written."""
        if self.is_closing:
            return
        if code != NO_ERROR:
            self.listener.metrics.refused["bad_request"] += 1
        self._end()
        self.outbox.write(frames.goaway(self._last_number, code, reason))
        self.outbox.flush()
        self.transport.close()

    def _end(self) -> None:
        self.is_closing = True
        self.is_reading = False
        for stream in list(self.streams.values()):
            stream.cancel()

    def drain(self, now: float) -> None:
        """No new streams; those that are open end in peace. Called repeatedly."""
        if self.is_closing:
            return
        if not self._farewells:  # streams may be under way that we do not know of
            self._farewells, self._left = 1, now
            self.outbox.write(frames.goaway(LARGEST_WINDOW, NO_ERROR))
        elif self._farewells == 1 and now - self._left >= FAREWELL_SECONDS:
            self._farewells = 2
            if self.streams:
                self.outbox.write(frames.goaway(self._last_number, NO_ERROR))
            else:
                self._leave(NO_ERROR, "")

    def tend(self, now: float) -> None:
        """Once a second: end what idles, dawdles or never reads."""
        outbox = self.outbox
        self._noise = outbox.answers = 0
        if outbox.is_full or outbox.blocked:
            # One that has said all widens no window any more.
            if now - outbox.moved > (STUCK_SECONDS if outbox.is_full or not self._has_ended else 0):
                self.transport.abort()
        elif not self.is_reading:
            return
        elif self._inbox.is_partial and now - self._inbox.whole > BODY_SECONDS:
            self._leave(ENHANCE_YOUR_CALM, "a frame that does not end")
        elif not self.streams:
            if now - self.last > IDLE_SECONDS:
                self._leave(NO_ERROR, "idle")
        else:
            for stream in list(self.streams.values()):
                stream.tend(now)
            self._probe(now)

    def _probe(self, now: float) -> None:
        """Ask a client that is silent, but waits for answers, whether it is still there."""
        if self.last > self._probed and now - self.last > PROBE_SECONDS:
            self._probed = now
            self.outbox.write(frames.frame(frames.PING, 0, 0, b"are you?"))
        elif self.last < self._probed < now - PROBE_ANSWER_SECONDS:
            self.transport.abort()
