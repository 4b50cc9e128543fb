"""The loop that looks at labels: what they show of each model becomes findings, alerts and deliveries."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from modelyard.errors import ModelyardError, NotFound
from modelyard.monitoring import alerting
from modelyard.monitoring.accuracy import Known, report
from modelyard.monitoring.outcomes import apply
from modelyard.monitoring.rules import load
from modelyard.monitoring.turn import Outcome
from modelyard.monitoring.verdicts import judge
from modelyard.registry import findings
from modelyard.registry.cohorts import Cohorts
from modelyard.registry.records import stamp
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.leases import Lease

#: Seconds between two looks at all models, and between two models.
LOOK_SECONDS, BUSY_SECONDS = 60.0, 0.05

#: Hours become days, and days are forgotten, once they are so old.
DAYS_AFTER, FORGOTTEN_AFTER = dt.timedelta(days=100), dt.timedelta(days=400)


class Judge:
    """Judges every model with labels, as long as it holds the lease."""

    def __init__(self, registry: Registry, lease: Lease, log: Log | None = None) -> None:
        self._registry = registry
        self._lease = lease
        self._log = log or Log()
        self._known: Known = {}
        #: Models that are still to be looked at.
        self._left: list[str] = []
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
                now = dt.datetime.now(dt.UTC)
                cohorts.merge(model, stamp(now - DAYS_AFTER))
                cohorts.forget(model, stamp(now - FORGOTTEN_AFTER))
            except ModelyardError:
                raise
            except Exception as error:  # a bug of ours: other models' labels are looked at all the same
                self._log.write("error", "labels could not be judged", model=model, error=error)
        self.pause = BUSY_SECONDS if self._left else LOOK_SECONDS
        return opened

    def _look(self, model: str) -> int:
        rules = load(self._registry.database, model)
        try:
            found = report(self._registry, model, rules=rules.accuracy, known=self._known)
        except NotFound:
            return 0
        opened = 0
        with self._registry.database.write() as work:
            self._lease.fence(work)
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
