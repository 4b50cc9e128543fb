"""Every operation, one row each."""

from __future__ import annotations

from modelyard.admin.jobs import job, jobs
from modelyard.admin.operation import Operation
from modelyard.admin.overview import overview
from modelyard.admin.settings import create_key, keys, revoke_key, settings
from modelyard.admin.traffic import traffic

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/overview", overview),
    Operation("GET", "/models/{model}/traffic", traffic),
    Operation("GET", "/jobs", jobs),
    Operation("GET", "/jobs/{number}", job),
    Operation("GET", "/settings", settings),
    Operation("GET", "/keys", keys, "admin"),
    Operation("POST", "/keys", create_key, "admin"),
    Operation("DELETE", "/keys/{key}", revoke_key, "admin"),
)
