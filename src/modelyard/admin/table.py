"""Every operation, one row each."""

from __future__ import annotations

from modelyard.admin.operation import Operation
from modelyard.admin.overview import overview
from modelyard.admin.traffic import traffic

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/overview", overview),
    Operation("GET", "/models/{model}/traffic", traffic),
)
