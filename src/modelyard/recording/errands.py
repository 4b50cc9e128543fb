"""What the recorder has done beside its work, by threads that may wait: for the registry, and for the disk."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from math import inf
from time import monotonic

import msgspec

from modelyard.errors import ModelyardError
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.segments import Segments
from modelyard.recording.steadiness import Steadiness
from modelyard.registry.records import stamp
from modelyard.registry.redaction import CLOSED, OPEN, Policy
from modelyard.registry.registry import Registry
from modelyard.registry.windows import Window
from modelyard.telemetry import Log

#: Seconds between two looks at the policies, at what is too old, and at windows to be merged.
POLICY_SECONDS, RETAIN_SECONDS, MERGE_SECONDS = 2.0, 60.0, 3600.0

#: Seconds until a registry that failed is asked again, at first and at most.
RETRY_SECONDS, MOST_RETRY_SECONDS = 0.5, 15.0

#: Seconds until spools are made Parquet files again, where one of them could not be.
CONVERT_SECONDS = 60.0

#: Seconds that a starting recorder waits for the policies, before it begins without.
FIRST_SECONDS = 2.0

#: Windows become hours after two days, and days after a month.
HOURS_AFTER, DAYS_AFTER = dt.timedelta(days=2), dt.timedelta(days=30)


class Errands:
    """Everything returns at once but the constructor, which waits a moment for the policies, ``wait`` and ``close``."""

    def __init__(
        self, places: Places, registry: Registry | None, log: Log, options: Options, source: str, segments: Segments
    ) -> None:  # fmt: skip
        self._registry = registry
        self._log = log
        self._options = options
        self._source = source
        self._segments = segments
        self._path = places.state / "policies"
        self._registry_thread = ThreadPoolExecutor(1, "registry")
        self._disk_thread = ThreadPoolExecutor(1, "disk")
        self._consumers_thread = ThreadPoolExecutor(1, "consumers")
        self._pending: dict[str, Future[object]] = {}
        later = monotonic() + RETAIN_SECONDS
        self._due = {"policies": 0.0, "retain": 0.0, "merge": later}
        self._marker: int | None = None
        #: None while they are not known.
        self._policies: dict[str, Policy] | None = {} if registry is None else self._remembered()
        self._steadiness = Steadiness()
        self._is_steady = False
        self._is_away = False
        self._retry = RETRY_SECONDS
        self._next_send = self._next_convert = 0.0
        #: Batches that the registry has, and spools that are Parquet files, since somebody asked.
        self.sent: deque[str] = deque()
        self.converted: deque[str] = deque()
        self._has_changed = False
        #: What consumers are to be told.
        self._states: dict[str, bytes] = {}
        self.look()
        wait([self._pending[name] for name in ("policies",) if name in self._pending], FIRST_SECONDS)

    def policy(self, model: str) -> Policy | None:
        """What may be kept of a model's inputs; nothing until that is known."""
        return CLOSED if self._policies is None else self._policies.get(model, OPEN)

    @property
    def is_busy(self) -> bool:
        """Whether something was begun that is not done."""
        return any(not found.done() for found in self._pending.values())

    def look(self) -> bool:
        """Begin what is due; whether the policies have changed."""
        now = monotonic()
        self._is_steady = self._steadiness.is_given()
        if now >= self._due["policies"] and self._registry is not None:
            self._begin("policies", self._registry_thread, self._read_policies, POLICY_SECONDS)
        if now >= self._due["retain"]:
            self._begin("retain", self._disk_thread, self._forget_old, RETAIN_SECONDS)
        if now >= self._due["merge"] and self._registry is not None and self._is_steady:
            self._begin("merge", self._registry_thread, self._merge, MERGE_SECONDS)
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def send(self, batch: str, windows: Sequence[Window]) -> None:
        """Write closed windows to the registry, unless that is being done, or failed a moment ago."""
        if self._registry is None:
            self.sent.append(batch)
        elif monotonic() >= self._next_send and not self._is_pending("send"):
            self._pending["send"] = self._registry_thread.submit(self._send, batch, list(windows))

    def convert(self, names: Sequence[str]) -> bool:
        """Begin to make Parquet files of sealed spools. False while that is being done for others, or the disk had no
        room for one a moment ago.
        """
        if self._is_pending("convert") or monotonic() < self._next_convert:
            return False
        self._pending["convert"] = self._disk_thread.submit(self._guarded, partial(self._convert_all, list(names)))
        return True

    def tell(self, name: str, kept: Callable[[bytes], object], state: bytes) -> None:
        """Tell a consumer what is kept, on a thread that may wait for the registry, and has nothing else to do. Of
        several states that it had no time for it is told the newest.
        """
        self._states[name] = state
        if not self._is_pending(name):
            self._pending[name] = self._consumers_thread.submit(self._tell, name, kept)

    def wait(self, seconds: float) -> None:
        """Wait for what was begun."""
        wait(list(self._pending.values()), max(0.0, seconds))

    def close(self) -> None:
        for thread in (self._registry_thread, self._disk_thread, self._consumers_thread):
            thread.shutdown(wait=True, cancel_futures=True)

    def _begin(self, name: str, thread: ThreadPoolExecutor, function: Callable[[], object], seconds: float) -> None:
        if not self._is_pending(name):
            self._due[name] = monotonic() + seconds
            self._pending[name] = thread.submit(self._guarded, function)

    def _is_pending(self, name: str) -> bool:
        found = self._pending.get(name)
        return found is not None and not found.done()

    # On threads of their own.

    def _tell(self, name: str, kept: Callable[[bytes], object]) -> None:
        while (state := self._states.pop(name, None)) is not None:
            self._guarded(partial(kept, state))

    def _guarded(self, function: Callable[[], object]) -> bool:
        """Whether it could be done. The registry may be away: that is told once, and once that it is back."""
        try:
            function()
        except Exception as error:
            if not isinstance(error, ModelyardError):
                self._log.write("error", "the recorder could not do its rounds", error=error)
            elif not self._is_away:
                self._is_away = True
                self._log.write("warning", "the registry is away: windows are kept until it is back", error=error)
            return False
        return True

    def _send(self, batch: str, windows: list[Window]) -> None:
        def write() -> None:
            assert self._registry is not None
            self._registry.windows.add(windows, source=self._source, batch=batch)
            self.sent.append(batch)
            if self._is_away:
                self._is_away = False
                self._log.write("info", "the registry is back")

        if self._guarded(write):
            self._retry = RETRY_SECONDS
        else:
            self._next_send = monotonic() + self._retry
            self._retry = min(2 * self._retry, MOST_RETRY_SECONDS)

    def _convert_all(self, names: list[str]) -> None:
        done = [name for name in names if self._segments.convert(name)]
        self.converted += done
        if len(done) < len(names):
            self._next_convert = monotonic() + CONVERT_SECONDS

    def _forget_old(self) -> None:
        self._segments.retain(self._options.days if self._is_steady else inf, self._options.size)

    def _read_policies(self) -> None:
        assert self._registry is not None
        marker = self._registry.marker()
        if marker != self._marker or self._policies is None:
            found = self._registry.policies.all()
            self._has_changed |= found != self._policies
            self._marker, self._policies = marker, found
            with contextlib.suppress(OSError):
                making = self._path.with_suffix(".making")
                making.write_bytes(msgspec.json.encode(found))
                making.rename(self._path)

    def _remembered(self) -> dict[str, Policy] | None:
        """The policies as they were when the registry was last asked."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Policy])
        return None

    def _merge(self) -> None:
        assert self._registry is not None
        windows, now = self._registry.windows, dt.datetime.now(dt.UTC)
        windows.merge(stamp(now - HOURS_AFTER), "hour")
        windows.merge(stamp(now - DAYS_AFTER), "day")
        windows.forget(stamp(now - dt.timedelta(days=self._options.window_days)))


def taken(found: deque[str]) -> list[str]:
    """All that is in a queue that another thread fills."""
    return [found.popleft() for _ in range(len(found))]
