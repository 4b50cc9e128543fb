"""Every operation, one row each."""

from __future__ import annotations

from modelyard.admin import alerts, monitoring, predictions
from modelyard.admin.operation import Operation
from modelyard.admin.overview import overview
from modelyard.admin.traffic import traffic

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/overview", overview),
    Operation("GET", "/models/{model}/traffic", traffic),
    Operation("GET", "/models/{model}/monitoring", monitoring.monitoring),
    Operation("GET", "/models/{model}/multivariate", monitoring.multivariate),
    Operation("GET", "/findings/{number}", monitoring.finding),
    Operation("GET", "/rules", monitoring.rules),
    Operation("POST", "/rules", monitoring.change_rules, "admin"),
    Operation("GET", "/predictions", predictions.predictions),
    Operation("GET", "/predictions/{id}", predictions.prediction),
    Operation("GET", "/records", predictions.record_columns),
    Operation("GET", "/alerts", alerts.alerts),
    Operation("GET", "/alerts/{number}", alerts.alert),
    Operation("POST", "/alerts/{number}/acknowledge", alerts.acknowledge, "admin"),
    Operation("GET", "/silences", alerts.silences),
    Operation("POST", "/silences", alerts.silence, "admin"),
    Operation("DELETE", "/silences/{number}", alerts.unsilence, "admin"),
    Operation("GET", "/sinks", alerts.sinks),
    Operation("POST", "/sinks/test", alerts.try_sinks, "admin"),
)
