"""Bytes to a server and back: requests in both versions of HTTP, cut anywhere, and answers that must be whole."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

from hpack import Decoder

from modelyard.serving import frames

from .mutations import spoil_bytes
from .seeds import Seed

#: Seconds after which a server that still says nothing, or does not close, counts as stuck.
PATIENCE = 60.0

HELLO = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)


class Answer(NamedTuple):
    """What came back for one request; ``grpc`` is the status in the trailers, or -1."""

    status: int
    body: bytes
    grpc: int = -1


def http1(seed: Seed) -> bytes:
    body = seed.bytes
    lines = [f"{seed.method} {seed.path} HTTP/1.1", "host: fuzz", *(f"{name}: {text}" for name, text in seed.headers)]
    if body or seed.method not in ("GET", "HEAD"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + body


def http2(seed: Seed, number: int) -> list[bytes]:
    """The frames of a request."""
    pairs = [(":method", seed.method), (":scheme", "http"), (":path", seed.path), (":authority", "fuzz"), *seed.headers]
    block = b"".join(frames.field(name.encode(), text.encode("utf-8", "replace")) for name, text in pairs)
    body = seed.bytes
    if seed.is_grpc:
        body = b"\0" + len(body).to_bytes(4, "big") + body
    parts = [body[i : i + frames.DEFAULT_FRAME] for i in range(0, len(body), frames.DEFAULT_FRAME)] or [b""]
    data = [frames.frame(frames.DATA, 0, number, part) for part in parts[:-1]]
    return [frames.headers(number, block), *data, frames.frame(frames.DATA, frames.END_STREAM, number, parts[-1])]


class Line:
    """A connection to the server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_open = True

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes, cuts: Sequence[int] = (), pause: float = 0.0) -> None:
        """Send in pieces; a server that has closed meanwhile is no trouble."""
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        try:
            for start, stop in pairwise(places):
                self.socket.sendall(data[start:stop])
                time.sleep(pause)
        except TimeoutError:
            raise
        except OSError:
            self._is_open = False

    def rest(self) -> bytes:
        """Say that all is said, and read until the server closes. Raises TimeoutError where it does not."""
        received = bytearray()
        try:
            if self._is_open:
                self.socket.shutdown(socket.SHUT_WR)
            while part := self.socket.recv(1 << 16):
                received += part
        except TimeoutError:
            raise TimeoutError(f"not closed; received {bytes(received[-300:])!r}") from None
        except OSError:
            pass
        return bytes(received)

    def break_off(self) -> None:
        """Close by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def ask(port: int, seed: Seed, cuts: Sequence[int] = ()) -> list[Answer]:
    """Ask one thing and read all that comes back."""
    with Line(port) as line:
        if seed.is_grpc:
            line.send(HELLO + b"".join(http2(seed, 1)), cuts)
            return answers2(line.rest())
        line.send(http1(seed), cuts)
        return answers1(line.rest())


def pipelined(seeds: Sequence[Seed], random: Random) -> bytes:
    """Requests one after the other in HTTP/1.1, some of their bytes spoilt."""
    data = b"".join(http1(seed) for seed in seeds)
    for _ in range(random.randint(0, 4)):
        data = spoil_bytes(data, random)
    return data


def streamed(seeds: Sequence[Seed], random: Random) -> bytes:
    """Requests beside one another in HTTP/2, some of the frames or their bytes spoilt."""
    sent = [one for i, seed in enumerate(seeds) for one in http2(seed, 2 * i + 1)]
    for _ in range(random.randint(0, 4)):
        i = random.randrange(len(sent)) if sent else 0
        match random.randrange(7):
            case 0 if sent:
                del sent[i]
            case 1 if sent:
                sent.insert(random.randint(0, len(sent)), sent[i])
            case 2 if sent:
                sent[i], sent[-1] = sent[-1], sent[i]
            case 3 if sent:
                sent[i] = spoil_bytes(sent[i], random)
            case 4 if sent:  # another kind, other flags, another stream
                changed = (random.randrange(12), random.randrange(256), 0, 0, 0, random.choice((0, 1, 2, 3, 9)))
                sent[i] = sent[i][:3] + bytes(changed) + sent[i][frames.FRAME_SIZE :]
            case _:
                sent.insert(random.randint(0, len(sent)), _stray(random))
    data = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0) + b"".join(sent)
    return spoil_bytes(data, random) if random.random() < 0.3 else data


def _stray(random: Random) -> bytes:
    stream = random.choice((0, 0, 1, 1, 3, 5, 2, 2**31 - 1))
    number = random.choice((0, 1, 5, 65_535, 2**31 - 1, 2**31, 2**32 - 1))
    match random.randrange(6):
        case 0:
            return frames.settings({random.randrange(8): number})
        case 1:
            return frames.window_update(stream, number)
        case 2:
            return frames.reset(stream, random.randrange(16))
        case 3:
            return frames.frame(frames.PING, random.choice((0, 1)), stream, bytes(random.choice((8, 8, 7))))
        case 4:
            return frames.goaway(number & 2**31 - 1, random.randrange(16))
    return frames.frame(random.randrange(16), random.randrange(256), stream, random.randbytes(random.randint(0, 40)))


# What comes back.

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]+\r\n((?:[!-9;-~]+: ?[^\r\n]*\r\n)*)\r\n")


def answers1(data: bytes) -> list[Answer]:
    """The answers in what a server has sent in HTTP/1.1. Raises AssertionError where they are not whole."""
    found: list[Answer] = []
    if data[3:9] == b"\x04\x00\x00\x00\x00\x00":  # what was sent had become the preface of HTTP/2: its settings
        return found
    at = 0
    while at < len(data):
        head = _HEAD.match(data, at)
        assert head is not None, f"not an answer: {data[at : at + 300]!r}"
        status, at = int(head[1]), head.end()
        if status == 100:
            continue
        fields = {
            name.lower(): text.strip() for name, _, text in (line.partition(b":") for line in head[2].split(b"\r\n"))
        }
        size = int(fields[b"content-length"])
        body = data[at : at + size]
        if len(body) < size or (body.startswith(b"HTTP/1.1 ") and size):
            body = b""  # the answer to HEAD
        at += len(body)
        if body and fields[b"content-type"] == b"application/json" and b"content-encoding" not in fields:
            _check_json(body)
        found.append(Answer(status, body))
    return found


def _check_json(body: bytes) -> None:
    try:
        json.loads(body if body != b"\n" else b"0")  # MLflow's pings are a lone newline, and say that they are JSON
    except ValueError as error:
        raise AssertionError(f"not JSON: {body[:300]!r}") from error


def answers2(data: bytes) -> list[Answer]:
    """The same in HTTP/2: the answers that are whole, by their streams. Nothing else may come half."""
    decoder = Decoder()
    heads: dict[int, dict[str, str]] = {}
    bodies: dict[int, bytearray] = {}
    found: list[Answer] = []
    at = 0
    while at < len(data):
        if at == 0 and data.startswith(b"HTTP/1.1 "):  # the preface was spoilt
            return answers1(data)
        assert len(data) - at >= frames.FRAME_SIZE, f"half a frame: {data[at:]!r}"
        high, low, kind, flags, number = frames.FRAME.unpack_from(data, at)
        start, at = at + frames.FRAME_SIZE, at + frames.FRAME_SIZE + (high << 8 | low)
        payload = data[start:at]
        assert at <= len(data), f"half a frame: {data[start:]!r}"
        if kind == frames.DATA:
            bodies[number] += payload
        elif kind == frames.HEADERS:
            assert flags & frames.END_HEADERS
            heads.setdefault(number, {}).update((str(each[0]), str(each[1])) for each in decoder.decode(payload))
            bodies.setdefault(number, bytearray())
        if kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM:
            head = heads.pop(number)
            found.append(Answer(int(head[":status"]), bytes(bodies.pop(number)), int(head.get("grpc-status", -1))))
            if (
                head[":status"] != "200"
                and "grpc-status" not in head
                and head.get("content-type") == "application/json"
            ):
                _check_json(found[-1].body or b"\n")
    return found


def faults(answers: Sequence[Answer]) -> list[Answer]:
    """The answers that only a fault of ours explains. INTERNAL is also what messages get that are not framed well."""
    return [each for each in answers if each.status in (500, 502) or each.grpc in (2, 15)]
