"""Metrics of findings, alerts, quality and the loop, made from rows."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

from modelyard.monitoring import budget, judging, latency
from modelyard.monitoring.rules import load_all
from modelyard.monitoring.turn import unpack_state
from modelyard.monitoring.watch import Alive
from modelyard.prometheus import Page
from modelyard.registry import states
from modelyard.registry.stages import quantile_of

if TYPE_CHECKING:
    from modelyard.registry import Registry


def tell(registry: Registry) -> Page:
    """All of it, as a page. Raises RemoteFailed."""
    page = Page()
    found = registry.findings.find(is_open=True)
    page.head("modelyard_findings_open", "gauge", "Findings that are open, by kind.")
    for (model, version, kind), count in sorted(Counter((f.model, f.version, f.kind) for f in found).items()):
        page.add({"model": model, "version": version, "kind": kind}, count)
    alerts = registry.alerts.find(is_open=True)
    page.head("modelyard_alerts_open", "gauge", "Alerts that are not over, by what became of them.")
    groups = Counter((alert.model, alert.severity, alert.state) for alert in alerts)
    for (model, severity, became), count in sorted(groups.items()):
        page.add({"model": model, "severity": severity, "state": became}, count)
    page.head("modelyard_deliveries", "gauge", "Deliveries of alerts: waiting, sent, or dead after ten attempts.")
    for state, count in registry.alerts.count().items():
        page.add({"state": state}, count)
    _versions(registry, page)
    _labels(registry, page)
    _budgets(registry, page)
    _loop(registry, page)
    return page


def _versions(registry: Registry, page: Page) -> None:
    arms = [
        ({"model": model, "version": version, "arm": name}, arm)
        for (model, version), text in states.find(registry.database, "monitor").items()
        for name, arm in unpack_state(text).arms.items()
    ]
    page.head("modelyard_drift_worst_effect", "gauge", "Largest effect of any feature in the last look (KS or PSI).")
    for labels, arm in arms:
        if arm.drift.looks:
            page.add(labels, arm.drift.worst[1])
    page.head("modelyard_drift_looks_total", "counter", "Looks that were compared with the reference.")
    for labels, arm in arms:
        page.add(labels, arm.drift.looks)
    page.head("modelyard_recorded_rows_total", "counter", "Rows that were counted in windows.")
    for labels, arm in arms:
        page.add(labels, arm.rows)
    page.head("modelyard_unrecorded_rows_total", "counter", "Rows that recorders had no room for.")
    for labels, arm in arms:
        page.add(labels, arm.lost)
    page.head("modelyard_watched_latency_seconds", "gauge", "Quantiles of the whole time in the last point.")
    for labels, arm in arms:
        if arm.latency.recent:
            for name, q in latency.QUANTILES.items():
                seconds = quantile_of(arm.latency.recent[-1].total, q)
                page.add({**labels, "quantile": name.replace("p", "0.")}, seconds)


def _labels(registry: Registry, page: Page) -> None:
    totals = {model: registry.labels.totals(model) for model in registry.labels.models()}
    page.head("modelyard_labels_received_total", "counter", "Labels that came, also again.")
    for model, found in totals.items():
        page.add({"model": model}, found.received)
    page.head("modelyard_labelled_predictions", "gauge", "Predictions that were told a label, by what became of it.")
    for model, found in totals.items():
        waiting = found.predictions - found.matched - found.unknown
        for became, count in (("matched", found.matched), ("waiting", waiting), ("unknown", found.unknown)):
            page.add({"model": model, "became": became}, count)
    page.head("modelyard_corrected_predictions", "gauge", "Predictions that were told different labels.")
    for model, found in totals.items():
        page.add({"model": model}, found.corrected)
    page.head("modelyard_quality", "gauge", "Metrics by labels that are ripe, and the bounds of their intervals.")
    for (model, _), text in states.find(registry.database, judging.STATE).items():
        for version, figures in msgspec.json.decode(text).items():
            for metric, values in figures.items():
                for bound, value in zip(("value", "low", "high"), values, strict=True):
                    if value is not None:
                        page.add({"model": model, "version": version, "metric": metric, "bound": bound}, value)


def _budgets(registry: Registry, page: Page) -> None:
    page.head("modelyard_budget_burn_rate", "gauge", "How many times as fast as allowed an error budget is used.")
    general, own = load_all(registry.database)
    for (model, _), text in states.find(registry.database, "budget").items():
        spent = msgspec.json.decode(text, type=budget.Spent)
        rules = own.get(model, general).budget
        asked = [("success", 1 - rules.objective, "failed")]
        if rules.slow_ms:
            asked.append(("speed", 1 - rules.fast_objective, "slow"))
        for subject, allowed, what in asked:
            for burn in budget.BURNS:
                seen = budget.sum_of(spent, burn.long)
                if seen.requests:
                    labels = {"model": model, "objective": subject, "window": f"{burn.long // 60}h"}
                    page.add(labels, getattr(seen, what) / seen.requests / allowed)


def _loop(registry: Registry, page: Page) -> None:
    text = states.get(registry.database, "loop")
    if text is None:
        return
    alive = msgspec.json.decode(text, type=Alive)
    silent = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(alive.moment)).total_seconds()
    told: list[tuple[str, Literal["gauge", "counter"], str, float]] = [
        ("silent_seconds", "gauge", "Seconds since the control loop said that it is alive.", max(0.0, silent)),
        ("term", "gauge", "How often the lease of the control loop changed hands.", alive.term),
        ("turns_total", "counter", "Turns of the present loop.", alive.turns),
        ("windows_total", "counter", "Windows that the present loop took in.", alive.windows),
        ("failures_total", "counter", "Failures of the present loop that nobody foresaw.", alive.failures),
        ("behind_versions", "gauge", "Versions with windows that are not taken in yet.", alive.behind),
    ]
    for name, kind, about, value in told:
        page.single(f"modelyard_loop_{name}", kind, about, value)
