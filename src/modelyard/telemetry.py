"""Counters, histograms and JSON log lines that cost next to nothing on the request path."""

from __future__ import annotations

import re
import select
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from modelyard.errors import ModelyardError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: Upper bounds in seconds: 50 microseconds to 50 seconds in steps of about 2.
SECONDS = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0,
)  # fmt: skip

#: Upper bounds for counts of rows or requests.
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0)


@dataclass(slots=True)
class Histogram:
    """Counts of values at most as large as each bound.

    A plain structure, so that processes can hand theirs to one another; ``a + b`` is what one that saw both would be.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, values: ArrayLike) -> None:
        """Count these values. Many at once cost little each."""
        import numpy as np

        found = np.sort(np.asarray(values, float))
        low = 0
        for i, high in enumerate(found.searchsorted(self.bounds, side="right").tolist()):
            self.counts[i] += high - low
            low = high
        self.counts[-1] += found.size - low
        self.total += float(found.sum())

    def read(self) -> tuple[list[int], int, float]:
        """Cumulative counts for each bound, the count of all values, and their sum."""
        cumulative = list(accumulate(self.counts))
        return cumulative[:-1], cumulative[-1], self.total

    def __add__(self, other: Histogram) -> Histogram:
        counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.bounds, counts, self.total + other.total)


#: Bytes that a pipe takes at once where it takes any, and lines that are joined at most.
_PAGE = 4096
_LINES_AT_ONCE = 64

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


#: An API key; a value of a query whose name says that it is a secret; a password in a URL.
_KEY = re.compile(rb"(my_[0-9a-f]{12}_)[A-Za-z0-9_-]+")
_SECRET = re.compile(
    rb"([?&][a-z0-9_.-]*(?:key|token|secret|password|passwd|signature|sig|auth|credential)=)[^&#\"\\\s]+", re.IGNORECASE
)
_PASSWORD = re.compile(rb"(://[^/:@\s\"]*:)[^@/\s\"]+(?=@)")


def masked(text: bytes) -> bytes:
    """``text`` without the secrets that it may hold: API keys, passwords in URLs, tokens in queries."""
    if b"my_" in text:
        text = _KEY.sub(rb"\1***", text)
    if b"://" in text:
        text = _PASSWORD.sub(rb"\1***", text)
    query = text.find(b"?")  # there are no names before
    if query >= 0 and text.find(b"=", query) >= 0:
        text = text[:query] + _SECRET.sub(rb"\1***", text[query:])
    return text


class Log:
    """JSON lines: ``{"time": ..., "level": ..., "event": ..., ...}``.

    Lines are kept and written by ``flush``, which the server calls once a second, or at once from warning upward.
    At most ``limit`` lines wait; what is dropped beyond is counted in the next line. Secrets are masked.
    """

    def __init__(self, level: str = "info", stream: TextIO | None = None, limit: int = 10_000) -> None:
        self._threshold = LEVELS[level]
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._limit = limit
        self._dropped = 0
        #: What the stream has not taken yet of lines that were begun.
        self._rest = ""
        self._lock = threading.Lock()
        #: Fields of every line, such as which process wrote it; the same as they stand in a line.
        self._always: dict[str, Any] = {}
        self._always_text = ""

    def always(self, **fields: Any) -> None:
        """From now on have these fields in every line."""
        self._always |= fields
        self._always_text = msgspec.json.encode(self._always).decode()[1:-1] + ","

    def write(self, level: str, event: str, **fields: Any) -> None:
        """Keep one line. ``error=`` may be an exception; the trace of one that nobody foresaw goes with it."""
        if LEVELS[level] < self._threshold:
            return
        if len(self._lines) >= self._limit:
            self._dropped += 1
            return
        error = fields.get("error")
        if isinstance(error, BaseException):
            told = error.message if isinstance(error, ModelyardError) else str(error)
            fields["error"] = f"{type(error).__name__}: {told}"
            if level == "error" and (not isinstance(error, ModelyardError) or error.__cause__ is not None):
                fields["trace"] = "".join(traceback.format_exception(error))
        line = {"time": _now(), "level": level, "event": event, **self._always, **fields}
        self._lines.append(masked(msgspec.json.encode(line, enc_hook=str)))
        if LEVELS[level] >= LEVELS["error"]:
            self.flush()

    def write_fields(self, level: str, event: str, fields: str) -> None:
        """``write`` for fields that are JSON already, and hold no secrets."""
        if LEVELS[level] < self._threshold:
            return
        if len(self._lines) >= self._limit:
            self._dropped += 1
            return
        line = f'{{"time":"{_now()}","level":"{level}","event":"{event}",{self._always_text}{fields}}}'
        self._lines.append(line.encode())

    def flush(self) -> None:
        """Write what was kept. A stream that is gone or full is no reason to stop serving."""
        with self._lock:
            if self._dropped:
                note = {"time": _now(), "level": "warning", "event": "log lines dropped", "lines": self._dropped}
                self._lines.append(msgspec.json.encode(note))
                self._dropped = 0
            stream = self._stream or sys.stderr
            while self._lines or self._rest:
                if not self._rest:
                    lines = [self._lines.popleft() for _ in range(min(len(self._lines), _LINES_AT_ONCE))]
                    self._rest = b"\n".join(lines).decode() + "\n"
                if not _takes_more(stream):
                    return
                size = _PAGE if self._rest.isascii() else _PAGE // 4
                try:
                    stream.write(self._rest[:size])
                    stream.flush()
                    self._rest = self._rest[size:]
                except (OSError, ValueError):
                    self._dropped += self._rest.count("\n")
                    self._rest = ""


def _takes_more(stream: TextIO) -> bool:
    """Whether a stream takes ``_PAGE`` bytes now. A pipe that nobody reads would hold whoever writes into it."""
    try:
        asked = select.poll()
        asked.register(stream.fileno(), select.POLLOUT)
        return bool(asked.poll(0))  # also where it is gone: writing tells
    except (AttributeError, OSError, ValueError):  # no file, or a system that cannot tell
        return True


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1_000_000:03d}Z"
