"""W3C trace context: the trace that a request belongs to, and our own span in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from random import random

import msgspec

# https://www.w3.org/TR/trace-context/#traceparent-header: later versions may add fields, the first may not.
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


class Trace(msgspec.Struct, gc=False, frozen=True):
    """Where a request stands in a trace. Ids are lower-case hexadecimal: 32 digits of the trace, 16 of a span."""

    trace_id: str
    #: The caller's span; "" where the trace begins here.
    parent_id: str
    span_id: str
    is_sampled: bool
    #: What vendors added, passed on as it came.
    state: str = ""

    @property
    def response(self) -> str:
        """The value of ``traceresponse`` (Trace Context, Level 2 draft): which span of ours answered."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def trace_of(headers: Mapping[str, str]) -> Trace | None:
    """The trace that a request's headers name; None where there is none, or it is malformed, which is ignored."""
    found = _PARENT.fullmatch(headers.get("traceparent", ""))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if (more and version == "00") or not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    is_sampled = bool(int(flags, 16) & _SAMPLED)
    return Trace(trace_id, parent_id, os.urandom(8).hex(), is_sampled, headers.get("tracestate", ""))


def begin_trace(share: float) -> Trace | None:
    """A trace that begins with this request, and is sampled: for a ``share`` of requests."""
    if share and random() < share:
        return Trace(os.urandom(16).hex(), "", os.urandom(8).hex(), True)
    return None


def trace_for(headers: Mapping[str, str], share: float) -> Trace | None:
    """The trace that a request belongs to; for a ``share`` of those that belong to none, one that begins here."""
    return trace_of(headers) if "traceparent" in headers else begin_trace(share)
