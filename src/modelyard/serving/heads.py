"""What the header blocks of an HTTP/2 connection come to mean.

A client that calls one method again and again sends the same few bytes each time, once its table is filled. Such a
block is decoded once and known by heart for as long as the table stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from modelyard.serving.compression import coding
from modelyard.serving.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
)
from modelyard.serving.grpc import GrpcStream, is_grpc, patience
from modelyard.serving.limits import MOST_HEAD_BYTES, MOST_HEADERS, is_request_id
from modelyard.serving.packed import PackedStream
from modelyard.serving.patience import seconds_of
from modelyard.serving.routing import Endpoint
from modelyard.serving.streams import PlainStream
from modelyard.serving.watches import WatchStream
from modelyard.wires import Unsupported

if TYPE_CHECKING:
    from modelyard.serving.listener import Listener

#: Blocks known by heart in one connection, and the most bytes of headers that one may mean.
MOST_BLOCKS = 64
LARGEST_KNOWN = 4096

_STATIC_ENTRIES = HeaderTable.STATIC_TABLE_LENGTH

_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_HTTP_1 = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_CAPITALS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Head(msgspec.Struct, gc=False, eq=False):
    """What the header block that opens a stream came to mean."""

    method: str
    target: str
    headers: dict[str, str]
    endpoint: Endpoint
    #: The caller's own id for the request, or "".
    request_id: str
    #: Bytes of the body as the client announced them; -1 where it did not.
    length: int
    #: What makes a stream of it: ``stream(connection, number, head)``.
    stream: Callable[..., Any]
    #: Seconds that the caller waits.
    seconds: float = inf
    #: In which coding the caller takes large answers: ``gzip``, ``deflate`` or "".
    coding: str = ""


class Blocks:
    """Reads the header blocks of one connection."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.is_admin_port = False
        self._decoder = Decoder(MOST_HEAD_BYTES)
        self._table = self._decoder.header_table
        #: The table's first entry, how many it has, and its size.
        self._state: tuple[Any, int, int] = (None, 0, self._table.maxsize)
        #: What is known by heart; looked at before ``open`` is called.
        self.known: dict[bytes, Head] = {}

    def open(self, block: bytes) -> Head:
        """The head of a new stream. Raises StreamFault where it is no proper request."""
        before = self._state
        pairs = self._quickly(block) or self.decode(block)
        size = sum([len(name) + len(value) for name, value in pairs])
        if size > MOST_HEAD_BYTES:
            raise _swollen()
        method, target, headers = _request(pairs)
        head = _understand(self._listener, self.is_admin_port, method, target, headers)
        if size <= LARGEST_KNOWN and before is self._state:
            if len(self.known) >= MOST_BLOCKS:
                self.known.clear()
            self.known[block] = head
        return head

    def _quickly(self, block: bytes) -> list[tuple[bytes, bytes]] | None:
        """The fields of a block that changes nothing in the table, if each is in it or written out plainly.

        Calls that differ by the id of their trace have such blocks; to the decoder each would be ten times the work.
        """
        pairs: list[tuple[bytes, bytes]] = []
        entries, at, size = self._table.dynamic_entries, 0, len(block)
        while at < size and len(pairs) < MOST_HEADERS:
            kind = block[at]
            if 0x80 < kind <= 0x80 | _STATIC_ENTRIES:
                pairs.append(HeaderTable.STATIC_TABLE[kind - 0x81])
                at += 1
            elif 0x80 | _STATIC_ENTRIES < kind < 0xFF and kind - 0x81 - _STATIC_ENTRIES < len(entries):
                pairs.append(entries[kind - 0x81 - _STATIC_ENTRIES])
                at += 1
            elif kind in (0x00, 0x10) and size - at > 2 and block[at + 1] < 127:
                value = at + 2 + block[at + 1]
                end = value + 1 + block[value] if value < size and block[value] < 127 else size + 1
                if end > size:
                    return None
                pairs.append((block[at + 2 : value], block[value + 1 : end]))
                at = end
            else:
                return None
        return pairs if at == size else None

    def renew(self, head: Head) -> Head:
        """What a head means now."""
        return _understand(self._listener, self.is_admin_port, head.method, head.target, head.headers)

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The fields of a block. What follows can only be read if each block is, even of streams that are refused."""
        if _resizes(block) > 2:
            raise ConnectionFault(COMPRESSION_ERROR, "a header block resizes the table again and again")
        try:
            pairs = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise _swollen() from None
        except (HPACKError, IndexError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"not a header block: {error}") from None
        self._look_at_table()
        return pairs

    def _look_at_table(self) -> None:
        """Forget what was known by heart where the table has changed: whatever enters it becomes its first entry."""
        entries = self._table.dynamic_entries
        first, count, size = entries[0] if entries else None, len(entries), self._table.maxsize
        if first is not self._state[0] or count != self._state[1] or size != self._state[2]:
            self._state = (first, count, size)
            self.known.clear()


def _swollen() -> ConnectionFault:
    return ConnectionFault(ENHANCE_YOUR_CALM, f"a list of headers above {MOST_HEAD_BYTES} bytes")


def _resizes(block: bytes) -> int:
    """How many instructions at the start of a block set the size of the table; counted up to 3."""
    count = at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20 and count < 3:
        count += 1
        more = block[at] & 0x1F == 0x1F
        at += 1
        while more and at < len(block):
            more = block[at] >= 128
            at += 1
    return count


def _request(pairs: list[tuple[bytes, bytes]]) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers of a request, as HTTP/1.1 would have them."""
    pseudo: dict[bytes, str] = {}
    headers: dict[str, str] = {}
    if len(pairs) > MOST_HEADERS:
        raise StreamFault(ENHANCE_YOUR_CALM, f"more than {MOST_HEADERS} headers")
    for name, value in pairs:
        if name.startswith(b":"):
            if headers or name in pseudo or name not in _PSEUDO:
                raise StreamFault(PROTOCOL_ERROR, f"a pseudo-header that must not be here: {name!r}")
            pseudo[name] = value.decode("latin-1")
            continue
        if name in _OF_HTTP_1 or not name or not _CAPITALS.isdisjoint(name):
            raise StreamFault(PROTOCOL_ERROR, f"a header that HTTP/2 has not: {name!r}")
        if name == b"te" and value.lower() != b"trailers":
            raise StreamFault(PROTOCOL_ERROR, "te other than trailers")
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise StreamFault(PROTOCOL_ERROR, "a line's end in a header")
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}{'; ' if key == 'cookie' else ', '}{text}" if key in headers else text
    method, target = pseudo.get(b":method", ""), pseudo.get(b":path", "")
    if not method or not target or b":scheme" not in pseudo:
        raise StreamFault(PROTOCOL_ERROR, "a request needs :method, :scheme and :path")
    if b":authority" in pseudo:
        headers.setdefault("host", pseudo[b":authority"])
    return method, target, headers


def _understand(listener: Listener, is_admin_port: bool, method: str, target: str, headers: dict[str, str]) -> Head:
    application, kind = listener.application, headers.get("content-type", "")
    is_call = is_grpc(method, kind)
    if not is_call and kind.startswith("application/grpc"):
        known = "application/grpc or application/grpc+proto, by POST"
        endpoint: Endpoint = application.refusing(target, Unsupported(f"no such form of gRPC: {kind[:80]} ({known})"))
    else:
        endpoint = application.endpoint(method, target, headers, is_admin_port=is_admin_port, is_call=is_call)
    given = headers.get("x-request-id", "")
    seconds = seconds_of(headers, listener.request_seconds)
    return Head(
        method,
        target,
        headers,
        endpoint,
        given if is_request_id(given) else "",
        _announced(headers),
        _call_of(endpoint, headers) if is_call else PlainStream,
        patience(headers, seconds) if is_call else seconds,
        coding(_accepted(headers) if is_call else headers.get("accept-encoding", "")),
    )


def _accepted(headers: Mapping[str, str]) -> str:
    """How the answers to a call may be compressed: as the caller says, if it names an encoding for its own messages.

    Libraries of gRPC say what they can inflate in every call, wanted or not, and compressing costs more than the model.
    """
    is_wanted = headers.get("grpc-encoding", "identity") != "identity"
    return headers.get("grpc-accept-encoding", "") if is_wanted else ""


def _call_of(endpoint: Endpoint, headers: Mapping[str, str]) -> type[GrpcStream]:
    """What becomes of a call of gRPC; most are neither watched nor compressed."""
    call = endpoint.call
    if call is not None and call.is_watched and call.scope == "open" and not call.is_slow:
        return WatchStream
    return PackedStream if "grpc-encoding" in headers else GrpcStream


def _announced(headers: Mapping[str, str]) -> int:
    """The length of the body as the headers tell it; -1 where they do not."""
    text = headers.get("content-length")
    if text is None:
        return -1
    if not (text.isascii() and text.isdigit()):
        raise StreamFault(PROTOCOL_ERROR, "content-length is no number")
    return int(text)
