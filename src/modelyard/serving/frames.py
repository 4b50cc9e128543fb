"""The bytes of HTTP/2: frames, error codes, and header blocks that need no table to be read (RFC 9113, RFC 7541)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: A frame's head: its length (the two high bytes, then the low one), its kind, its flags, its stream.
FRAME = Struct(">HBBBI")
FRAME_SIZE = 9

# Kinds of frames.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Flags.
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

# Names of settings.
TABLE_SIZE, ENABLE_PUSH, CONCURRENT_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADERS = range(1, 7)

# Codes of errors.
NO_ERROR = 0
PROTOCOL_ERROR = 1
FLOW_CONTROL_ERROR = 3
STREAM_CLOSED = 5
FRAME_SIZE_ERROR = 6
REFUSED_STREAM = 7
CANCEL = 8
COMPRESSION_ERROR = 9
ENHANCE_YOUR_CALM = 11

#: Windows and frames as they are before anybody says otherwise, and the largest that a window may be.
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
LARGEST_FRAME = 16_777_215
LARGEST_WINDOW = 2**31 - 1

#: Tells the reader of header blocks that the writer's table is empty and stays so.
NO_TABLE = b"\x20"


class ConnectionFault(Exception):
    """The peer broke the rules, so that the connection cannot go on; it ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamFault(Exception):
    """The peer broke the rules in one stream, which ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return FRAME.pack(size >> 8, size & 255, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame: so many bytes more may come."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int, reason: str = "") -> bytes:
    """A GOAWAY frame: streams up to ``last`` are or will be answered."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + reason.encode())


def headers(stream: int, block: bytes, flags: int = 0) -> bytes:
    """A header block as a HEADERS frame, with CONTINUATION frames where it is too long for one."""
    size = len(block)
    if size <= DEFAULT_FRAME:
        return FRAME.pack(size >> 8, size & 255, HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[i : i + DEFAULT_FRAME] for i in range(0, size, DEFAULT_FRAME)]
    frames = [frame(HEADERS, flags, stream, parts[0])]
    frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(frames)


# Header blocks are written without the dynamic table: what is always the same is encoded once, when this is
# imported, and an answer costs no more than the bytes of its id.

_STATUSES = {200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}


def status(number: int) -> bytes:
    """The first field of an answer's block."""
    index = _STATUSES.get(number)
    return bytes((0x80 | index,)) if index else b"\x08\x03%d" % number


def field(name: bytes, value: bytes) -> bytes:
    """One field of a block, as it is: not indexed, not compressed."""
    return b"\0" + length(len(name)) + name + length(len(value)) + value


def fields(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Several fields of a block."""
    return b"".join(field(name.encode(), value.encode(errors="replace")) for name, value in pairs)


def length(number: int) -> bytes:
    """The length of a field's name or value: an integer behind a bit that is 0, for no compression."""
    if number < 127:
        return bytes((number,))
    found = bytearray((127,))
    number -= 127
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
