"""The loop that looks at labels: what they show of each model becomes findings, alerts and deliveries."""

from __future__ import annotations

import datetime as dt
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from modelyard import settings
from modelyard.errors import Conflict, NotFound, RemoteFailed
from modelyard.monitoring import alerting
from modelyard.monitoring.accuracy import Known, Report, report
from modelyard.monitoring.outcomes import apply
from modelyard.monitoring.rules import load
from modelyard.monitoring.turn import Outcome
from modelyard.monitoring.verdicts import judge
from modelyard.registry import findings, states
from modelyard.registry.cohorts import Cohorts
from modelyard.registry.records import stamp
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.leases import Lease

#: Seconds between two looks at all models, and between two models.
LOOK_SECONDS, BUSY_SECONDS = 60.0, 0.05

#: Hours become days, and days are forgotten, once they are so old. Labels are forgotten long after the records of their
#: predictions: told again, they would count again.
DAYS_AFTER, FORGOTTEN_AFTER = dt.timedelta(days=100), dt.timedelta(days=400)

#: Seconds between two times that a model is tidied, which reads all of its labels.
TIDY_SECONDS = 86_400.0

#: The row of ``states`` with the metrics of each version that were looked at last, by model.
STATE = "quality"


class Judge:
    """Judges every model with labels, as long as it holds the lease."""

    def __init__(self, registry: Registry, lease: Lease, log: Log | None = None) -> None:
        self._registry = registry
        self._lease = lease
        self._log = log or Log()
        self._known: Known = {}
        #: Models that are still to be looked at.
        self._left: list[str] = []
        #: When each model was tidied.
        self._tidied: dict[str, float] = {}
        #: How long to wait before the next step.
        self.pause = LOOK_SECONDS

    def step(self) -> int:
        """Look at the next model; returns how many findings were opened. Raises Conflict where another has the lease,
        RemoteFailed where the registry does not answer.
        """
        cohorts, opened = Cohorts(self._registry.database), 0
        self._left = self._left or cohorts.models()
        if self._left:
            model = self._left.pop()
            try:
                opened = self._look(model)
                if monotonic() - self._tidied.get(model, float("-inf")) >= TIDY_SECONDS:
                    self._tidy(model, cohorts)
            except (Conflict, RemoteFailed):
                raise
            except Exception as error:  # a bug of ours: other models' labels are looked at all the same
                self._log.write("error", "labels could not be judged", model=model, error=error)
        self.pause = BUSY_SECONDS if self._left else LOOK_SECONDS
        return opened

    def _tidy(self, model: str, cohorts: Cohorts) -> None:
        self._tidied[model] = monotonic()
        now, kept = dt.datetime.now(dt.UTC), dt.timedelta(days=settings.get("record_days"))
        cohorts.merge(model, stamp(now - DAYS_AFTER))
        cohorts.forget(model, stamp(now - FORGOTTEN_AFTER))
        self._registry.labels.forget(model, stamp(now - max(FORGOTTEN_AFTER, 2 * kept)))

    def _look(self, model: str) -> int:
        rules = load(self._registry.database, model)
        try:
            found = report(self._registry, model, rules=rules.accuracy, known=self._known)
        except NotFound:
            return 0
        opened = 0
        with self._registry.database.write() as work:
            self._lease.fence(work)
            states.put(work, STATE, msgspec.json.encode(_figures(found)).decode(), model)
            for quality in found.versions:
                there = {
                    finding.subject
                    for finding in findings.opened(work, model, quality.version)
                    if finding.kind == "accuracy"
                }
                changes = judge(quality, rules.accuracy, there)
                outcomes = [Outcome("", change, change.false_alarms) for change in changes]
                new, over = apply(work, model, quality.version, outcomes)
                opened += len(new)
                for alert in alerting.raise_alerts(work, new, rules):
                    self._log.write("info", "alert made", alert=alert.id, rule=alert.rule, title=alert.title)
                if over:
                    alerting.close_alerts(work, model, rules)
        return opened


def _figures(found: Report) -> dict[str, dict[str, list[float | None]]]:
    """By version and metric: value, low, high."""
    return {
        quality.version: {name: [m.value, m.low, m.high] for name, m in quality.whole.metrics.items()}
        for quality in found.versions
        if quality.whole is not None
    }
