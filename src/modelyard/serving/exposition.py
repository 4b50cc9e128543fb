"""What a server counts, as a page of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard.prometheus import Page

if TYPE_CHECKING:
    from modelyard.serving.engine import Lane
    from modelyard.serving.metrics import Counts, Meter, Vitals


def tell(counts: Counts, vitals: Sequence[Vitals], restarts: int, lanes: Sequence[Lane]) -> Page:
    """The page: ``counts`` of all workers there were, ``vitals`` of those that live, ``lanes`` of this one."""
    page = Page()
    meters = list(counts.meters.values())
    page.head("modelyard_requests_total", "counter", "Predict requests by the code word of their answer.")
    for meter in meters:
        page.add({**_names(meter), "code": "ok"}, meter.ok)
        for code, count in sorted(meter.refused.items()):
            page.add({**_names(meter), "code": code}, count)
    page.head("modelyard_refused_total", "counter", "Requests that reached no model, by code word.")
    for code, count in sorted(counts.refused.items()):
        page.add({"code": code}, count)
    _counter(page, "modelyard_rows_total", "Rows predicted.", meters, "rows")
    _counter(page, "modelyard_calls_total", "Calls of the model.", meters, "calls")
    _counter(page, "modelyard_not_finite_calls_total", "Calls whose outputs held NaN or infinity.", meters, "gaps")
    _counter(page, "modelyard_cache_hits_total", "Requests answered from the cache.", meters, "cache_hits")
    _counter(page, "modelyard_fatal_requests_total", "Requests that ended their model's process.", meters, "fatal")
    _counter(page, "modelyard_server_unrecorded_rows_total", "Rows that no recorder will see.", meters, "unrecorded")
    page.head("modelyard_stage_seconds", "histogram", "Of each request (decode, queue) or call (predict, encode).")
    for meter in meters:
        for stage in ("decode", "queue", "predict", "encode"):
            page.spread({**_names(meter), "stage": stage}, getattr(meter, stage))
    _histogram(page, "modelyard_request_seconds", "From received to answered.", meters, "latency")
    _histogram(page, "modelyard_call_rows", "Rows in one call of the model.", meters, "batch_rows")
    _histogram(page, "modelyard_call_requests", "Requests joined in one call.", meters, "batch_requests")
    page.head("modelyard_in_flight", "gauge", "Requests that wait or run.")
    for key in dict.fromkeys(key for each in vitals for key in each.in_flight):
        page.add({"model": key[0], "version": key[1]}, sum(each.in_flight.get(key, 0) for each in vitals))
    page.head("modelyard_model_memory_bytes", "gauge", "Memory that a loaded version takes, in all workers.")
    for key in dict.fromkeys(key for each in vitals for key in each.memory):
        page.add({"model": key[0], "version": key[1]}, sum(each.memory.get(key, 0) for each in vitals))
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
    for model, count in sorted(counts.failed_loads.items()):
        page.add({"model": model}, count)
    ready = sum(each.ready for each in vitals)
    page.single("modelyard_ready", "gauge", "1 when every declared model is loaded and verified.", int(ready > 0))
    registry_up = all(each.registry_up for each in vitals)
    page.single("modelyard_registry_up", "gauge", "1 while the registry answers.", int(registry_up))
    for gauge, what in (("recorder_up", "records what is predicted here"), ("control_up", "watches and decides")):
        ups = [up for each in vitals if (up := getattr(each, gauge)) is not None]
        if ups:
            page.single(f"modelyard_{gauge}", "gauge", f"1 while some process {what}.", int(all(ups)))
    page.single("modelyard_connections", "gauge", "Open connections.", sum(each.connections for each in vitals))
    page.head("modelyard_workers", "gauge", "Worker processes that live, by whether they are ready.")
    page.add({"state": "ready"}, ready)
    page.add({"state": "not_ready"}, len(vitals) - ready)
    page.single("modelyard_worker_restarts_total", "counter", "Worker processes that were replaced.", restarts)
    _processes(page, vitals)
    return page


def _names(meter: Meter) -> dict[str, str]:
    return {"model": meter.model, "version": meter.version}


def _counter(page: Page, name: str, about: str, meters: Sequence[Meter], part: str) -> None:
    page.head(name, "counter", about)
    for meter in meters:
        page.add(_names(meter), getattr(meter, part))


def _histogram(page: Page, name: str, about: str, meters: Sequence[Meter], part: str) -> None:
    page.head(name, "histogram", about)
    for meter in meters:
        page.spread(_names(meter), getattr(meter, part))


def _processes(page: Page, vitals: Sequence[Vitals]) -> None:
    """What Prometheus' own clients tell of a process; of each worker where there are several."""
    rows = [({"worker": str(each.worker)} if each.worker >= 0 else {}, each) for each in vitals]
    page.head("process_cpu_seconds_total", "counter", "CPU time.")
    for labels, each in rows:
        page.add(labels, each.cpu)
    page.head("process_start_time_seconds", "gauge", "Start, in seconds since 1970.")
    for labels, each in rows:
        page.add(labels, each.started)
    page.head("process_resident_memory_bytes", "gauge", "Resident memory.")
    for labels, each in rows:
        if each.resident is not None:
            page.add(labels, each.resident)
