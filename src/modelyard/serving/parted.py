"""Heads that differ in nothing but lines that mean nothing to HTTP: ids of requests and of traces.

Such a head is parsed once; of the next one only these lines are read. They are cut out where they stand as lines of
their own, spelled plainly and once each; anything else is left to the parser.
"""

from __future__ import annotations

import re

_NAMES = (
    b"traceparent", b"tracestate", b"x-request-id", b"x-correlation-id", b"x-b3-traceid", b"x-b3-spanid",
    b"x-b3-parentspanid", b"x-b3-sampled", b"x-amzn-trace-id", b"x-cloud-trace-context", b"x-datadog-trace-id",
    b"x-datadog-parent-id", b"x-ms-request-id", b"x-ms-client-request-id",
)  # fmt: skip

_LINE = re.compile(rb"\r\n(?i:(" + b"|".join(_NAMES) + rb")): ?([\x21-\x7e]{1,512})(?=\r\n)")


def part(text: bytes) -> tuple[bytes, dict[str, str]] | None:
    """A head without such lines, and what they say; None where there are none, or one of them comes twice."""
    found = _LINE.findall(text)
    if not found or b"\r\n " in text or b"\r\n\t" in text:  # lines that go on in the next, as HTTP once allowed
        return None
    told = {name.decode().lower(): value.decode() for name, value in found}
    if len(told) != len(found):
        return None
    return _LINE.sub(b"", text), told
