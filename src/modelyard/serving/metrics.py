"""What a server counts, and its Prometheus text."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.interfaces import Stats
from modelyard.telemetry import COUNTS, SECONDS, Histogram

if TYPE_CHECKING:
    from modelyard.messages import Message
    from modelyard.serving.calls import Exchange
    from modelyard.serving.engine import Lane

#: Versions whose counts are kept: those of versions long gone make room.
MOST_METERS = 500


class Meter:
    """The counts of one version of a model."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        #: Requests by code word; ``ok`` is kept apart because it comes most.
        self.ok = 0
        self.refused: Counter[str] = Counter()
        self.rows = 0
        #: Calls of the model, and those whose outputs held NaN or infinity.
        self.calls = 0
        self.gaps = 0
        #: Requests that were answered from the cache.
        self.cache_hits = 0
        #: Seconds of all requests in each stage; predict and encode are counted once a call.
        self.decode = self.queue = self.predict = self.encode = 0.0
        #: When the last request was answered, in seconds since 1970.
        self.last = 0.0
        #: Calls by their rows, rounded up to a power of 2: rows -> (calls, seconds).
        self.batches: dict[int, tuple[int, float]] = {}
        self.latency = Histogram(SECONDS)
        self.batch_rows = Histogram(COUNTS)
        self.batch_requests = Histogram(COUNTS)

    def note(
        self, exchanges: Sequence[Exchange], messages: Sequence[Message], rows: int, started: float, predicted: float
    ) -> None:
        """Count one call of the model: when it started and had predicted; now its answers are encoded and sent."""
        now = time.perf_counter()
        count = len(exchanges)
        latencies = [now - exchange.received for exchange in exchanges]
        decoded = sum([exchange.decoded for exchange in exchanges])
        self.latency.observe_all(latencies)
        self.batch_rows.observe(rows)
        self.batch_requests.observe(count)
        self.rows += rows
        self.decode += decoded - (count * now - sum(latencies))
        self.queue += count * started - decoded
        self.predict += predicted - started
        self.last = time.time()
        size = 1 << (rows - 1).bit_length()
        calls, seconds = self.batches.get(size, (0, 0.0))
        self.batches[size] = (calls + 1, seconds + predicted - started)
        self.encode += now - predicted
        refused = [message.code for message in messages if message.code != "ok"]
        self.ok += count - len(refused)
        if refused:
            self.refused.update(refused)

    def stats(self) -> Stats:
        """What wires are told of it."""
        failures = self.refused.total()
        return Stats(
            requests=self.ok + failures, failures=failures, rows=self.rows, calls=self.calls, decode=self.decode,
            queue=self.queue, predict=self.predict, encode=self.encode, last=self.last,
            batches=dict(self.batches), cache_hits=self.cache_hits,
        )  # fmt: skip


class Metrics:
    """Every count of a server."""

    def __init__(self) -> None:
        self.meters: dict[tuple[str, str], Meter] = {}
        #: Failed loads by model.
        self.failed_loads: Counter[str] = Counter()
        #: Requests that reached no model, by code word.
        self.refused: Counter[str] = Counter()
        self.started = time.time()

    def meter(self, model: str, version: str) -> Meter:
        """The meter of a version, made when first asked for."""
        found = self.meters.get((model, version))
        if found is None:
            if len(self.meters) >= MOST_METERS:
                self.meters.pop(next(iter(self.meters)))
            found = self.meters[model, version] = Meter(model, version)
        return found

    def render(self, lanes: Iterable[Lane], *, ready: bool, registry_up: bool, connections: int) -> bytes:
        """Prometheus' text format."""
        page = _Page()
        lanes = list(lanes)
        meters = list(self.meters.values())
        page.head("modelyard_requests_total", "counter", "Predict requests by the code word of their answer.")
        for meter in meters:
            page.add({**_names(meter), "code": "ok"}, meter.ok)
            for code, count in sorted(meter.refused.items()):
                page.add({**_names(meter), "code": code}, count)
        page.head("modelyard_refused_total", "counter", "Requests that reached no model, by code word.")
        for code, count in sorted(self.refused.items()):
            page.add({"code": code}, count)
        page.head("modelyard_rows_total", "counter", "Rows predicted.")
        for meter in meters:
            page.add(_names(meter), meter.rows)
        page.head("modelyard_calls_total", "counter", "Calls of the model.")
        for meter in meters:
            page.add(_names(meter), meter.calls)
        page.head("modelyard_not_finite_calls_total", "counter", "Calls whose outputs held NaN or infinity.")
        for meter in meters:
            page.add(_names(meter), meter.gaps)
        page.head("modelyard_stage_seconds_total", "counter", "Seconds of all requests (decode, queue) or calls.")
        for meter in meters:
            for stage in ("decode", "queue", "predict", "encode"):
                page.add({**_names(meter), "stage": stage}, getattr(meter, stage))
        page.histogram("modelyard_request_seconds", "From received to answered.", meters, "latency")
        page.histogram("modelyard_call_rows", "Rows in one call of the model.", meters, "batch_rows")
        page.histogram("modelyard_call_requests", "Requests joined in one call.", meters, "batch_requests")
        page.head("modelyard_in_flight", "gauge", "Requests that wait or run.")
        for lane in lanes:
            page.add(_names(lane.meter), lane.in_flight)
        page.head("modelyard_expected_seconds", "gauge", "Learned cost of a call: a a row, b a call.")
        for lane in lanes:
            page.add({**_names(lane.meter), "part": "a"}, lane.loaded.cost.per_row)
            page.add({**_names(lane.meter), "part": "b"}, lane.loaded.cost.per_call)
        page.head("modelyard_model_info", "gauge", "A loaded version.")
        for lane in lanes:
            loaded = lane.loaded
            about = {"digest": loaded.digest, "platform": loaded.platform, "task": loaded.task}
            page.add({**_names(lane.meter), **about}, 1)
        page.head("modelyard_failed_loads_total", "counter", "Versions that failed to load.")
        for model, count in sorted(self.failed_loads.items()):
            page.add({"model": model}, count)
        page.single("modelyard_ready", "gauge", "1 when every declared model is loaded and verified.", int(ready))
        page.single("modelyard_registry_up", "gauge", "1 while the registry answers.", int(registry_up))
        page.single("modelyard_connections", "gauge", "Open connections.", connections)
        page.process(self.started)
        return page.text()


def _names(meter: Meter) -> dict[str, str]:
    return {"model": meter.model, "version": meter.version}


class _Page:
    """Lines of Prometheus text."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._name = ""

    def head(self, name: str, kind: str, about: str) -> None:
        self._name = name
        self._lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]

    def add(self, labels: dict[str, str], value: float, suffix: str = "") -> None:
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        braces = f"{{{inside}}}" if inside else ""
        self._lines.append(f"{self._name}{suffix}{braces} {value!r}")

    def single(self, name: str, kind: str, about: str, value: float) -> None:
        self.head(name, kind, about)
        self.add({}, value)

    def histogram(self, name: str, about: str, meters: Iterable[Meter], part: str) -> None:
        self.head(name, "histogram", about)
        for meter in meters:
            histogram: Histogram = getattr(meter, part)
            cumulative, count, total = histogram.read()
            for bound, below in zip(histogram.bounds, cumulative, strict=True):
                self.add({**_names(meter), "le": f"{bound:g}"}, below, "_bucket")
            self.add({**_names(meter), "le": "+Inf"}, count, "_bucket")
            self.add(_names(meter), total, "_sum")
            self.add(_names(meter), count, "_count")

    def process(self, started: float) -> None:
        """What Prometheus' own clients tell of a process."""
        times = os.times()
        self.single("process_cpu_seconds_total", "counter", "CPU time.", times.user + times.system)
        self.single("process_start_time_seconds", "gauge", "Start, in seconds since 1970.", started)
        resident = resident_bytes()
        if resident is not None:
            self.single("process_resident_memory_bytes", "gauge", "Resident memory.", resident)

    def text(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
