"""A home whose models drift, fail and are labelled: written through the registry and judged by the loop's own steps, so
that nobody has to wait for traffic. A console shows it.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import numpy as np

from modelyard.errors import InvalidInput
from modelyard.messages import Message
from modelyard.monitoring import rules
from modelyard.monitoring.grading import DELAYS, Answers, Grader
from modelyard.monitoring.judging import Judge
from modelyard.monitoring.watch import Monitor
from modelyard.recording.options import Options
from modelyard.recording.recorder import Recorder
from modelyard.registry import Registry, alerts, findings
from modelyard.registry.alerts import Delivery
from modelyard.registry.cohorts import Key, add, plus
from modelyard.registry.leases import CONTROL
from modelyard.registry.records import now
from modelyard.telemetry import Log
from modelyard.truth import Label, Truth
from receivers import waited
from recorded import bundle_of
from recordings import SIGNATURE, Served, Shop, asked, reference, remove_rings, some_rows
from registries import tiny_bundle
from traffic import Traffic

#: Training measured calibrated scores on 10,000 rows.
TRAINED = {
    "held_out": {
        "accuracy": {"value": 0.75, "low": 0.74, "high": 0.76, "baseline": 0.5},
        "roc_auc": {"value": 0.833, "low": 0.825, "high": 0.841, "baseline": 0.5},
        "log_loss": {"value": 0.5, "low": 0.49, "high": 0.51, "baseline": 0.69},
    },
    "rows": {"learnt_from": 50_000, "held_out": 10_000},
}


class Drifting:
    """``churn``, whose inputs drift after a new city came and went; ``fraud``, whose labels say that it is worse;
    ``shop``, whose predictions are recorded.
    """

    def __init__(self, home: Path) -> None:
        self.registry = Registry.open(home)
        self.traffic = Traffic(1)
        self.traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
        self.registry.register(self.traffic.bundle(home / "one"), "churn")
        self.registry.register(self.traffic.bundle(home / "two"), "churn")
        self.lease = self.registry.lease(CONTROL, "here")
        assert self.lease.beat()
        self.monitor = Monitor(self.registry, self.lease, Log("error"))
        rules.edit(self.registry.database, put={"sinks.ops.kind": "slack", "sinks.ops.url": "env:MODELYARD_NOT_THERE"})
        for count, change, more in (
            (30, None, {}), (8, elsewhere, {}), (12, None, {}),
            (14, older, {"slower": 4.0, "codes": {"model_failed": 90}}),
        ):  # fmt: skip
            self.write(count, change, **more)
            self.settle()
        self.write(5, None, arm="canary", version="2")
        with self.registry.database.write() as work:
            for found in self.registry.findings.find():  # as if the loop had turned while the windows came
                seen = found.latest or found.evidence
                closed = seen.until if found.closed else None
                findings.save(work, msgspec.structs.replace(found, opened=found.evidence.until, closed=closed))
            alerts.send(work, Delivery(alert=1, sink="ops", state="dead", attempts=10, due=now(), error="it hung up"))
        self.label(home)
        self.sell(home)

    def write(self, count: int, change: Any = None, **more: Any) -> None:
        made = self.traffic.windows(count, change=change, **more)
        self.registry.windows.add([msgspec.structs.replace(each, id=0) for each in made])

    def settle(self) -> None:
        """Turn until there is nothing more to do, and nothing to send."""
        self.monitor.step()
        assert waited(lambda: self.monitor.step() == 0 and not self.monitor.postman.is_busy)

    def label(self, home: Path) -> None:
        self.registry.register(bundle_of(home / "fraud", metrics=TRAINED), "fraud")
        self.registry.labels.add("fraud", [Label("a", "yes")])
        grader = Grader(Truth("classification", ("no", "yes"), "string"), has_probabilities=True)
        begun = dt.datetime.now(dt.UTC)
        made: dict[Key, Any] = {}
        for days in range(1, 9):
            hour = (begun - dt.timedelta(days=days)).strftime("%Y-%m-%dT%H")
            drawn = np.random.default_rng(days)
            p = drawn.random(1_000)
            truths = (drawn.random(1_000) < p) ^ (drawn.random(1_000) < (0.3 if days < 3 else 0.0))
            answers = Answers((p > 0.5).astype(int), np.stack([1 - p, p], axis=1))
            counts = plus(grader.count(answers), grader.grade(answers, ["yes" if t else "no" for t in truths]))
            counts |= {f"delay.{place}": 1_000 // len(DELAYS[:6]) for place in range(6)}
            made[Key("1", "", "", hour)] = counts
            made[Key("1", "", "city=Oslo", hour)] = counts
        young = (begun - dt.timedelta(minutes=5)).strftime("%Y-%m-%dT%H")
        p = np.random.default_rng(9).random(500)
        made[Key("1", "", "", young)] = grader.count(Answers((p > 0.5).astype(int), np.stack([1 - p, p], axis=1)))
        with self.registry.database.write() as work:
            add(work, "fraud", "here", made)
        rules.edit(self.registry.database, "fraud", put={"accuracy.hours": "2"}, why="labels come within two hours")
        judge = Judge(self.registry, self.lease, Log("error"))
        judge.step()

    def sell(self, home: Path) -> None:
        """Predictions of ``shop`` as a recorder keeps them: of a request with an odd value, one that failed, one that
        was refused, one of two rows, and sixty that nothing is the matter with; incomes are dropped, cities hashed.
        """
        self.registry.register(tiny_bundle(home / "shop", "shop", signature=SIGNATURE), "shop")
        columns = [field.name for field in SIGNATURE.inputs]
        self.registry.policies.set("shop", dict.fromkeys(columns, "keep") | {"income": "drop", "city": "hash"}, columns)
        shop = Shop(home / "records", Served("shop", profile=reference()))
        recorder = Recorder(shop.places, self.registry, Log("error"), Options(sample=1))
        until = monotonic() + 120
        while not recorder._errands.policy("shop"):
            assert monotonic() < until, "the policy was not read"
            recorder.turn()
        for number in range(60):
            shop.sell([f"fine-{number:02d}"], sample=some_rows(1, seed=number))
        odd = some_rows(1)
        odd.inputs["age"][:] = 140
        odd.outputs["prediction"][:] = "yes"
        shop.sell(["odd"], sample=odd, clients=["customer-9"], arms=["production/3/canary"])
        shop.sell(["failed"], codes=["model_failed"])
        shop.sell(["two"], [2])
        error = InvalidInput.at("age", "a whole number", "'old'")
        shop.book.note_refused(asked("refused"), Message(b"", code="invalid_input"), error, b'{"age": "old"}')
        recorder.turn()
        shop.close()
        recorder.finish()
        remove_rings(home / "records")
        self.registry.labels.add("shop", [Label("odd", "no", "2026-11-01T00:00:00.000000Z")])
        self.registry.labels.add("shop", [Label("odd", "yes", "2026-11-02T00:00:00.000000Z")])


def elsewhere(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
    columns["city"][::5] = "Quito"


def older(columns: dict[str, Any], outputs: dict[str, Any]) -> None:
    columns["age"] = columns["age"] + 8
    columns["weight"] = columns["weight"] * 2.54
    outputs["score"] = outputs["score"] ** 0.3
