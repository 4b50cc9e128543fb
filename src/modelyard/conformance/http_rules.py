"""Rules of HTTP/1.1 itself, which are asked of every protocol: bodies that lie about their length, and the like."""

from __future__ import annotations

from typing import Any

from modelyard.conformance.client import Answer, Request
from modelyard.conformance.rules import (
    Example,
    Expectation,
    Rule,
    header,
    refused,
    refused_or_closed,
    status,
)


def _head(good: Request, *lines: str, version: str = "HTTP/1.1", target: str = "") -> bytes:
    """The head of a request with exactly these lines besides what the caller asked to send."""
    kind = good.headers.get("content-type") or "application/json"
    listed = [f"{good.method} {target or good.path} {version}", *lines, f"Content-Type: {kind}", "{extra}", "", ""]
    return "\r\n".join(listed).encode()


def _framed(example: Example, *lines: str, body: bytes | None = None, **changes: Any) -> Request:
    """The good request under another head."""
    good = example.good
    target, version = changes.pop("target", ""), changes.pop("version", "HTTP/1.1")
    raw = _head(good, *lines, version=version, target=target) + (good.body if body is None else body)
    return good.but(raw=raw, **changes)


def _length(example: Example) -> str:
    return f"Content-Length: {len(example.good.body)}"


def _chunked(example: Example, extension: str = "") -> bytes:
    body = example.good.body
    half = len(body) // 2
    parts = [part for part in (body[:half], body[half:]) if part]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(p), extension.encode(), p) for p in parts) + b"0\r\n\r\n"


def _twice(example: Example) -> Request:
    good = example.good
    first = _head(good, "Host: {host}", _length(example)) + good.body
    last = _head(good, "Host: {host}", _length(example), "Connection: close") + good.body
    return good.but(raw=first + last, answers=2)


def _as_good(answer: Answer, example: Any) -> str | None:
    return None if answer.status == 200 else f"expected 200 as for the plain request, got {answer}"


def _allowed(answer: Answer, example: Any) -> str | None:
    return header("allow", "post")(answer, example) if answer.status == 405 else None


CLOSE = ("Host: {host}", "Connection: close")
GOOD: list[Expectation] = [_as_good]

RULES: list[Rule[Any]] = [
    Rule(
        "http-pipeline", "Two requests sent at once on one connection are both answered.",
        "RFC 9112, 9.3.2: answers come in order; a server that closes early makes the client ask again.", _twice, GOOD,
        "should",
    ),
    Rule(
        "http-chunked", "A body in chunks is read.",
        "RFC 9112, 7.1: a recipient must be able to parse the chunked transfer coding.",
        lambda e: _framed(e, *CLOSE, "Transfer-Encoding: chunked", body=_chunked(e)), GOOD,
    ),
    Rule(
        "http-chunk-extension", "Extensions of chunks are passed over.",
        "RFC 9112, 7.1.1: a recipient must ignore unrecognised chunk extensions.",
        lambda e: _framed(e, *CLOSE, "Transfer-Encoding: chunked", body=_chunked(e, ";a=b")), GOOD,
    ),
    Rule(
        "http-bad-chunk", "A chunk whose size is no number is refused.",
        "RFC 9112, 7.1: chunk-size is hexadecimal; guessing lets requests be smuggled.",
        lambda e: _framed(e, *CLOSE, "Transfer-Encoding: chunked", body=b"zz\r\n" + e.good.body, closes=True),
        [refused_or_closed],
    ),
    Rule(
        "http-length-word", "A Content-Length that is no number is refused.",
        "RFC 9112, 6.3: an invalid Content-Length is an unrecoverable error.",
        lambda e: _framed(e, *CLOSE, "Content-Length: many", closes=True), [refused_or_closed],
    ),
    Rule(
        "http-length-negative", "A negative Content-Length is refused.",
        "RFC 9110, 8.6: Content-Length is digits only.",
        lambda e: _framed(e, *CLOSE, "Content-Length: -5", closes=True), [refused_or_closed],
    ),
    Rule(
        "http-lengths", "Two Content-Lengths that differ are refused.",
        "RFC 9112, 6.3: differing lengths are an unrecoverable error; guessing lets requests be smuggled.",
        lambda e: _framed(e, *CLOSE, _length(e), f"Content-Length: {len(e.good.body) + 3}", closes=True),
        [refused_or_closed],
    ),
    Rule(
        "http-short-body", "A body that ends before its Content-Length is not answered as if it were whole.",
        "RFC 9112, 8: a body that is shorter than its length is incomplete.",
        lambda e: _framed(e, *CLOSE, f"Content-Length: {len(e.good.body) + 10}", closes=True), [refused_or_closed],
    ),
    Rule(
        "http-no-host", "A request of HTTP/1.1 without Host is refused with 400.",
        "RFC 9112, 3.2: a server must answer 400 to a request that lacks a Host.",
        lambda e: _framed(e, "Connection: close", _length(e)), [status(400)],
    ),
    Rule(
        "http-space-before-colon", "A space between a header's name and its colon is refused with 400.",
        "RFC 9112, 5.1: a server must reject such a message with 400.",
        lambda e: _framed(e, *CLOSE, _length(e), "X-Mine : 1"), [status(400)],
    ),
    Rule(
        "http-absolute-target", "A target that is a whole URL is understood.",
        "RFC 9112, 3.2.2: a server must accept the absolute form.",
        lambda e: _framed(e, *CLOSE, _length(e), target=f"http://{{host}}{e.good.path}"), GOOD,
    ),
    Rule(
        "http-1.0", "A request of HTTP/1.0 is answered.",
        "RFC 9110, 2.5: a server answers clients of a lower minor version.",
        lambda e: _framed(e, "Host: {host}", _length(e), version="HTTP/1.0"), GOOD, "should",
    ),
    Rule(
        "http-expect", "A request that expects 100-continue is answered.",
        "RFC 9110, 10.1.1: a server sends 100, or a final status; curl waits for it with large bodies.",
        lambda e: _framed(e, *CLOSE, _length(e), "Expect: 100-continue"), GOOD,
    ),
    Rule(
        "http-headers-too-large", "Headers of half a mebibyte are refused.",
        "RFC 6585, 5: 431; a server that keeps them can be filled up.",
        lambda e: _framed(e, *CLOSE, _length(e), f"X-Mine: {'a' * 2**19}"), [refused_or_closed], "should",
    ),
    Rule(
        "http-method", "A method that the path does not have is refused with 405 or 501.",
        "RFC 9110, 9.1: 405 for a method that is not allowed, 501 for one that is not known.",
        lambda e: e.good.but(method="PATCH"), [status(405, 501)], "should",
    ),
    Rule(
        "http-allow", "Getting what must be posted is refused, and 405 says what is allowed.",
        "RFC 9110, 15.5.6: a server must send Allow with 405.",
        lambda e: Request("GET", e.good.path), [refused, _allowed], "should",
    ),
]  # fmt: skip

#: Asked last: whatever was sent before, the server still answers.
STILL_THERE: Rule[Any] = Rule(
    "still-there", "After all of this, the example is answered as it was at first.",
    "No request of one client may take the server away from the others.", lambda e: e.good, GOOD,
)  # fmt: skip
