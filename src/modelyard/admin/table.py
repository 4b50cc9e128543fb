"""Every operation, one row each."""

from __future__ import annotations

from modelyard.admin import alerts, comparison, models, monitoring, predictions, rollouts, routes, trying
from modelyard.admin.jobs import job, jobs
from modelyard.admin.operation import Operation
from modelyard.admin.overview import overview
from modelyard.admin.settings import create_key, keys, revoke_key, settings
from modelyard.admin.traffic import traffic

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/overview", overview),
    Operation("GET", "/models/{model}", models.model),
    Operation("GET", "/models/{model}/history", models.history),
    Operation("GET", "/models/{model}/compare", comparison.compare),
    Operation("POST", "/models/{model}/promote", models.promote, "admin"),
    Operation("POST", "/models/{model}/rollback", models.rollback, "admin"),
    Operation("DELETE", "/models/{model}/versions/{version}", models.delete, "admin"),
    Operation("POST", "/models/{model}/versions/{version}/tags", models.tag, "admin"),
    Operation("GET", "/models/{model}/versions/{version}/report", models.report),
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
    Operation("GET", "/models/{model}/answering", routes.answering),
    Operation("POST", "/models/{model}/route", routes.set_route, "admin"),
    Operation("DELETE", "/models/{model}/route", routes.clear_route, "admin"),
    Operation("GET", "/rollouts/{rollout}", rollouts.rollout),
    Operation("POST", "/models/{model}/rollout", rollouts.start_rollout, "admin"),
    Operation("POST", "/models/{model}/rollout/pause", rollouts.pause_rollout, "admin"),
    Operation("POST", "/models/{model}/rollout/resume", rollouts.resume_rollout, "admin"),
    Operation("POST", "/models/{model}/rollout/abort", rollouts.abort_rollout, "admin"),
    Operation("POST", "/models/{model}/rollout/end", rollouts.end_rollout, "admin"),
    Operation("GET", "/models/{model}/versions/{version}/form", trying.form),
    Operation("POST", "/models/{model}/versions/{version}/try", trying.try_out, "admin"),
    Operation("GET", "/jobs", jobs),
    Operation("GET", "/jobs/{number}", job),
    Operation("GET", "/settings", settings),
    Operation("GET", "/keys", keys, "admin"),
    Operation("POST", "/keys", create_key, "admin"),
    Operation("DELETE", "/keys/{key}", revoke_key, "admin"),
)
