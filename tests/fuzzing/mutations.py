"""How requests are spoilt: as values, as fields of a message, as bytes. All chances are those of one ``Random``."""

from __future__ import annotations

import copy
import json
import struct
from random import Random
from typing import Any

from .seeds import Seed


class Raw(str):
    """A piece of JSON that is written as it is, right or wrong."""


class Pairs(list[tuple[Any, Any]]):
    """An object whose names may come twice."""


STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30, 1.5, -0.0, 1e308,
    "", "x", "1.5", "NaN", "Infinity", "\0", "é", "🜚" * 3, "a" * 5000, "\u202e", "2024-02-30", "9999-12-31T23:59:60Z",
    "0001-01-01", "2024-01-01T00:00:00+25:00", "b64", [], {}, [[]], [[[[]]]], [None], {"b64": "?"}, {"b64": "AAAA"},
    {"": 0}, [1, [2]], {"x": {"x": {"x": 1}}}, "production", "m", "@", "/etc/passwd", "s3://a/b",
    Raw("NaN"), Raw("-Infinity"), Raw("1e400"), Raw("-1e-400"), Raw("01"), Raw("1."), Raw("9" * 400), Raw("1e99999999"),
    Raw('"\\ud800"'), Raw('"\\u0000"'), Raw('"\\x"'), Raw('"\t"'), Raw("'a'"), Raw("[" * 2000),
    Raw("[" * 60 + "]" * 60),
    Raw('{"a":' * 300 + "1" + "}" * 300), Raw("tru"), Raw(""), Raw("/**/1"), Raw("-"), Raw("1 2"), Raw("0x10"),
    Raw("[" + "0," * 4000 + "0]"), Raw('{"a":1,}'), Raw("18446744073709551616"), Raw("1E+2"),
]  # fmt: skip

TEXTS = [
    "", "0", "-1", "1", "+1", " 7", "7 ", "4294967296", "9" * 40, "1e3", "0x10", "NaN", "inf", "é", "a" * 3000,
    ",", ";", "*",
    "application/json", "application/json; charset=utf-16", "text/csv", "application/octet-stream",
    "application/jsonlines",
    "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet", "multipart/form-data",
    "multipart/form-data; boundary=",
    "application/x-www-form-urlencoded", "application/grpc", "application/grpc+json",
    "application/vnd.x;json-header-size=5",
    "gzip", "deflate", "br", "gzip, gzip", "identity", "1S", "99999999H", "0n",
    "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
    "Bearer x", "outputs=", "q=0", "*/*;q=0", "\x01", "a\x7fb",
]  # fmt: skip

HEADERS = [
    "content-type", "content-encoding", "accept", "accept-encoding", "inference-header-content-length", "x-request-id",
    "x-request-timeout", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "traceparent", "tracestate",
    "authorization", "x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-target-model", "x-ms-request-id", "te",
    "x-vertex-ai-triton-redirect", "seldon-model", "ce-id", "ce-type", "cookie", "range", "if-none-match",
]  # fmt: skip

PATHS = [
    "/", "//", "*", "/predict", "/models/", "/models/m/versions/1/predict", "/models/m/versions/9/predict",
    "/%", "/%00",
    "/models/%2e%2e/predict", "/models/m%2fpredict", "/v2/models//infer", "/v2/models/m/versions//infer", "/v1/models",
    "/v1/models/m:explain", "/v1/models/m/versions/x:predict", "/v1/models/m/labels/production:predict", "/ping",
    "/v1/models/m/versions/99999999999999999999:predict", "/v2/models/m/generate", "/v2/systemsharedmemory/status",
    "/models/m/aliases/production/predict", "/v2/models/é/infer", "/seldon/a/b/api/v1.0/predictions", "/predict?json=1",
    "/score?x=1&n=2", "/v2/repository/index", "/send-feedback", "/models/xy/invoke", "/models?next_page_token=x",
    "/" + "a" * 9000, "/?" + "a=b&" * 500, "/inference.GRPCInferenceService/ModelInfer", "/grpc.health.v1.Health/Watch",
]  # fmt: skip


def spoil(seed: Seed, random: Random) -> Seed:
    """The seed with a few things changed."""
    if random.random() < 0.85:
        seed = seed._replace(body=_spoil_body(seed, random))
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        seed = seed._replace(headers=_spoil_headers(seed, random))
    if random.random() < 0.1:
        seed = seed._replace(path=random.choice(PATHS) if random.random() < 0.6 else _text(seed.path, random))
    if random.random() < 0.05 and not seed.is_grpc:
        seed = seed._replace(method=random.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "POST", "TRACE"]))
    return seed


def _spoil_body(seed: Seed, random: Random) -> bytes:
    if isinstance(seed.body, bytes):
        body = seed.body
        for _ in range(random.randint(1, 3)):
            body = spoil_message(body, random) if seed.is_grpc and random.random() < 0.7 else spoil_bytes(body, random)
        return body
    value = _plain(copy.deepcopy(seed.body))
    for _ in range(random.randint(1, 3)):
        value = _spoil_value(value, random)
    body = written(value).encode("utf-8", "surrogatepass")
    return spoil_bytes(body, random) if random.random() < 0.15 else body


def _plain(value: Any) -> Any:
    """With ``Pairs`` for objects."""
    if isinstance(value, dict):
        return Pairs((name, _plain(inner)) for name, inner in value.items())
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def written(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{written(inner)}" for name, inner in value) + "}"
    return "[" + ",".join(map(written, value)) + "]" if isinstance(value, list) else json.dumps(value)


def _places(value: Any, found: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    if isinstance(value, list):
        for i, inner in enumerate(value):
            found.append((value, i))
            _places(inner[1] if isinstance(value, Pairs) else inner, found)
    return found


def _spoil_value(value: Any, random: Random) -> Any:
    """One change somewhere in a tree of values."""
    places = _places(value, [])
    if not places or random.random() < 0.03:
        return _plain(random.choice(STRANGE))
    parent, i = random.choice(places)
    strange = _plain(random.choice(STRANGE))
    match random.randrange(7):
        case 0:
            del parent[i]
        case 1:
            parent.insert(random.randint(0, len(parent)), copy.deepcopy(parent[i]))
        case 2 if isinstance(parent, Pairs):
            parent[i] = (random.choice(["", "x", "x1", "data", "inputs", "instances", "é", "shape"]), parent[i][1])
        case 3:
            other, j = random.choice(places)
            if j < len(other):
                taken = other[j][1] if isinstance(other, Pairs) else other[j]
                _put(parent, i, copy.deepcopy(taken))
        case 4 if not isinstance(parent, Pairs) and len(parent) < 500:
            parent.extend(copy.deepcopy(parent) * random.choice((1, 9)))
        case _:
            _put(parent, i, strange)
    return value


def _put(parent: Any, i: int, value: Any) -> None:
    parent[i] = (parent[i][0], value) if isinstance(parent, Pairs) else value


def _spoil_headers(seed: Seed, random: Random) -> tuple[tuple[str, str], ...]:
    headers = list(seed.headers)
    if headers and random.random() < 0.5:
        i = random.randrange(len(headers))
        name, text = headers[i]
        if random.random() < 0.2:
            del headers[i]
        else:
            headers[i] = (name, random.choice(TEXTS) if random.random() < 0.6 else _text(text, random))
    else:
        headers.append((random.choice(HEADERS), random.choice(TEXTS)))
    return tuple(headers)


def _text(text: str, random: Random) -> str:
    i = random.randint(0, len(text))
    return text[:i] + random.choice(["", "%", "/", ":", "%2F", "%00", "é", "0", "-", "?", "..", "%zz"]) + text[i + 1 :]


# Fields of messages.


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _fields(data: bytes) -> list[tuple[int, int, Any]] | None:
    """The fields of a message as (number, kind, value), or None where the bytes are none."""
    found: list[tuple[int, int, Any]] = []
    at = 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at += 1
            if data[at - 1] < 128:
                return value
            shift += 7

    try:
        while at < len(data):
            tag = read()
            kind = tag & 7
            size = {0: 0, 1: 8, 5: 4}.get(kind, -1)
            if kind == 2:
                size = read()
            if size < 0 or not tag >> 3 or at + size > len(data):
                return None
            found.append((tag >> 3, kind, read() if kind == 0 else data[at : at + size]))
            at += 0 if kind == 0 else size
    except IndexError:
        return None
    return found


def _joined(fields: list[tuple[int, int, Any]]) -> bytes:
    parts = []
    for number, kind, value in fields:
        tag = _varint(number << 3 | kind)
        parts.append(tag + _varint(value) if kind == 0 else tag + (_varint(len(value)) if kind == 2 else b"") + value)
    return b"".join(parts)


NUMBERS = (0, 1, 2, 7, 99, 127, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)


def spoil_message(data: bytes, random: Random) -> bytes:
    """A message with a field changed, in it or in one of the messages inside."""
    fields = _fields(data)
    if not fields:
        return spoil_bytes(data, random)
    i = random.randrange(len(fields))
    number, kind, value = fields[i]
    match random.randrange(7):
        case 0:
            del fields[i]
        case 1:
            fields.insert(random.randint(0, len(fields)), fields[i])
        case 2:
            fields[i] = (random.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 536870911)), kind, value)
        case 3:
            fields[i] = (number, 0, random.choice(NUMBERS))
        case 4:
            fields[i] = (
                number,
                *random.choice(((1, struct.pack("<d", float("nan"))), (5, bytes(4)), (2, b"\xff\xfe"))),
            )
        case _ if kind == 2:
            fields[i] = (number, kind, spoil_message(value, random))
        case _ if kind == 0:
            fields[i] = (number, kind, random.choice(NUMBERS))
        case _:
            fields[i] = (number, kind, random.randbytes(len(value)))
    return _joined(fields)


# Bytes.

TOKENS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b'"', b"{", b"[", b"]", b"}", b"\xff",
    b"\xc3", b"--b\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
    b"Host: b\r\n", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1", b"0\r\n\r\n", b"ffffffff\r\n",
    b"5;a=b\r\nhello\r\n", b"\r\n folded",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT ", b"HEAD ",
    b"http://a/predict",
    b"Content-Encoding: gzip\r\n", b"Accept-Encoding: gzip\r\n", b"X-Request-Id: \r\n",
    b"X-Request-Id: a b\r\n", b"1e999", b"NaN",
    b"x-request-timeout: 0.001\r\n", b"x-request-timeout: -1\r\n", b"traceparent: 00-0\r\n",
]  # fmt: skip


def spoil_bytes(data: bytes, random: Random) -> bytes:
    """One change somewhere."""
    i = random.randint(0, len(data))
    j = min(len(data), i + random.choice((1, 1, 2, 4, 40)))
    match random.randrange(7):
        case 0:
            return data[:i] + data[j:]
        case 1:
            return data[:i] + data[i:j] + data[i:]
        case 2 | 3:
            return data[:i] + random.choice(TOKENS) + data[i if random.random() < 0.5 else j :]
        case 4:
            return data[:i]
        case 5 if i < len(data):
            return data[:i] + bytes((data[i] ^ 1 << random.randrange(8),)) + data[i + 1 :]
    return data[:i] + random.randbytes(random.choice((1, 2, 8))) + data[j:]
