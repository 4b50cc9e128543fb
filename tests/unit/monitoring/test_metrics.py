"""Metrics are made from rows, and Prometheus can read them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.monitoring.metrics import tell
from modelyard.monitoring.watch import Monitor
from modelyard.prometheus import OPEN_METRICS
from modelyard.registry import Registry
from modelyard.registry.leases import CONTROL
from modelyard.telemetry import Log
from traffic import Traffic


def values(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_what_a_watched_model_looks_like_in_prometheus(registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    traffic = Traffic(1)
    traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    registry.register(traffic.bundle(tmp_path / "one"), "churn")

    def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
        columns["age"] = columns["age"] + 8

    before = values(tell(registry).text())
    assert "modelyard_findings_open" not in before and "modelyard_loop_silent_seconds" not in before
    windows = [*traffic.windows(4), *traffic.windows(4, change=older, lost=7, codes={"model_failed": 3})]
    registry.windows.add([msgspec.structs.replace(w, id=0) for w in windows])
    lease = registry.lease(CONTROL, "here")
    lease.beat()
    Monitor(registry, lease, Log("error")).step()
    found = values(tell(registry).text())
    version = (("arm", ""), ("model", "churn"), ("version", "1"))
    assert found["modelyard_findings_open"] == {(("kind", "drift"), ("model", "churn"), ("version", "1")): 1}
    assert found["modelyard_alerts_open"] == {(("model", "churn"), ("severity", "warning"), ("state", "open")): 1}
    assert found["modelyard_drift_looks_total"] == {version: 8}
    assert found["modelyard_drift_worst_effect"][version] > 0.2
    assert found["modelyard_recorded_rows_total"] == {version: 12_000}
    assert found["modelyard_unrecorded_rows_total"] == {version: 28}
    assert found["modelyard_watched_latency_seconds"][(*version[:2], ("quantile", "0.95"), version[2])] > 1e-4
    burn = found["modelyard_budget_burn_rate"]
    assert burn[(("model", "churn"), ("objective", "success"), ("window", "1h"))] == pytest.approx(1.0)
    assert found["modelyard_loop_term"] == {(): 1}
    assert found["modelyard_loop_windows_total"] == {(): 8}
    assert found["modelyard_loop_silent_seconds"][()] < 60


def test_open_metrics_name_counters_without_their_ending(registry: Registry) -> None:
    assert "# TYPE modelyard_drift_looks counter" in tell(registry).text(OPEN_METRICS)
    assert "# TYPE modelyard_drift_looks_total counter" in tell(registry).text()
