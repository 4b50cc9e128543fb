"""Why the calls of a model had the sizes they had: limits, and a history of calls with the reason of each."""

from __future__ import annotations

from collections import Counter, deque
from time import time
from typing import Any

import msgspec

from modelyard.schema import Layout

#: Calls that the history tells one by one.
RECENT = 64

#: Why a call held what it held, in words for people.
REASONS = {
    "alone": "one request was there and the model was idle: it ran at once",
    "together": "requests that arrived in the same turn of the event loop ran together",
    "gathered": "requests that had arrived while the model was busy ran together",
    "full": "more requests waited than one call may hold: the call was cut at its limit",
    "part": "one request held more rows than a call may: it ran in parts, others between them",
    "apart": "a call of several failed: each of its requests ran again by itself",
    "suspect": "a model process ended under a call of several: each of its requests ran again by itself",
}


class Limits(msgspec.Struct, kw_only=True):
    """Bounds of joining and waiting. They may change while the server runs; the next call keeps the new ones."""

    #: Most rows in one request.
    max_rows: int = 1_000_000
    #: Most rows in one call of a model, and most bytes of input in it.
    batch_rows: int = 8192
    batch_bytes: int = 64 << 20
    #: Requests and rows that may wait for one version while it is busy; more are refused.
    queue_requests: int = 4096
    queue_rows: int = 262_144
    #: Seconds that a request may have to wait by the learned cost of those before it.
    queue_seconds: float = 5.0
    #: Longest call of a model before it counts as hung, in seconds.
    model_seconds: float = 60.0


def row_bytes(layout: Layout) -> int:
    """Bytes that one row takes, about; a text counts as 64."""
    total = 0
    for field in layout.fields:
        size = 64 if field.storage == "object" else 8
        for length in field.shape:
            size *= max(length, 1)
        total += size
    return max(total, 1)


class History:
    """The calls of one version."""

    __slots__ = ("_recent", "reasons")

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._recent: deque[tuple[str, int, int, float, float]] = deque(maxlen=RECENT)

    def note(self, reason: str, requests: int, rows: int, waited: float, took: float) -> None:
        """One call: why it held what it held, its size, how long its first request had waited, how long it took."""
        self.reasons[reason] += 1
        self._recent.append((reason, requests, rows, waited, took))

    def recent(self) -> list[dict[str, Any]]:
        """The last calls, newest first. Times are in milliseconds."""
        return [
            {
                "reason": reason,
                "requests": requests,
                "rows": rows,
                "waited_ms": round(waited * 1e3, 3),
                "took_ms": round(took * 1e3, 3),
            }
            for reason, requests, rows, waited, took in reversed(self._recent)
        ]


def explain(lane: Any) -> dict[str, Any]:
    """What there is to say about the batching of a lane: limits, learned cost, reasons, sizes, the last calls."""
    loaded, history, meter = lane.loaded, lane.history, lane.meter
    meter.sort_in()
    calls = sum(history.reasons.values())
    cost = loaded.cost
    sizes = {
        str(rows): {"calls": count, "mean_ms": round(seconds / count * 1e3, 3)}
        for rows, (count, seconds) in sorted(meter.batches.items())
    }
    return {
        "model": loaded.name,
        "version": loaded.version,
        "calls": calls,
        "requests": meter.ok + meter.refused.total(),
        "rows": meter.rows,
        "in_flight": lane.in_flight,
        "cost": {
            "per_row_us": round(cost.per_row * 1e6, 3),
            "per_call_us": round(cost.per_call * 1e6, 3),
            "says": f"a call of n rows takes about {cost.per_row * 1e6:.3g} us * n + {cost.per_call * 1e6:.3g} us",
            "runs": lane.where,
        },
        "limits": msgspec.to_builtins(lane.limits),
        "reasons": [
            {"reason": reason, "calls": count, "share": round(count / calls, 4), "means": REASONS[reason]}
            for reason, count in history.reasons.most_common()
        ],
        "sizes": sizes,
        "recent": history.recent(),
        "at": round(time(), 3),
    }
