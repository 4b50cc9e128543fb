"""Error budgets: what is grave is told soon, what is small later, and single errors never."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from modelyard.monitoring import budget
from modelyard.monitoring.budget import Change, Spent
from modelyard.monitoring.rules import BudgetRules
from modelyard.registry.records import stamp
from modelyard.registry.windows import Counted, Window
from traffic import START, Traffic

RULES = BudgetRules()


class Service:
    """Windows of a minute with some errors."""

    def __init__(self, rules: BudgetRules = RULES) -> None:
        self.rules = rules
        self.spent = Spent()
        self.moment = START

    def minute(self, requests: int = 1_000, failed: float = 0, *, code: str = "model_failed", **more: object) -> Window:
        opened, self.moment = self.moment, self.moment + dt.timedelta(minutes=1)
        counted = Counted(requests, {code: int(failed)} if failed else {}, **more)
        return Window(model="churn", version="5", opened=stamp(opened), closed=stamp(self.moment), counted=counted)

    def run(self, minutes: int, requests: int = 1_000, failed: float = 0, **more: object) -> list[Change]:
        """A window a minute, and a look at the budgets every minute or, over hours, every half an hour."""
        found = []
        step = 1 if minutes <= 120 else 30
        for _ in range(minutes // step):
            for _ in range(step - 1):
                budget.add(self.spent, [self.minute(requests, failed, **more)], self.rules)
            budget.add(self.spent, [self.minute(requests, failed, **more)], self.rules)
            found += budget.judge(self.spent, self.rules)
        return [change for change in found if change.what != "seen"]


def test_no_errors_are_no_trouble() -> None:
    assert Service().run(24 * 60) == []


def test_an_outage_is_critical_within_minutes_and_over_soon_after() -> None:
    service = Service()
    assert service.run(120) == []
    begun = service.moment
    found = service.run(10, failed=500)
    assert [(change.what, change.severity, change.subject) for change in found] == [("open", "critical", "success")]
    assert "requests failed in 60 minutes" in found[0].told
    assert found[0].told.endswith("of them in version 5")
    assert service.moment - begun <= dt.timedelta(minutes=10)
    over = service.run(40)
    assert [(change.what, change.severity) for change in over] == [("close", "critical")]


def test_a_slow_burn_is_a_warning() -> None:
    service = Service()
    service.run(60)
    found = service.run(24 * 60, failed=3)  # three times what is allowed
    assert [(change.what, change.severity) for change in found] == [("open", "warning")]
    assert "requests failed in 3 days" in found[0].told
    assert 2.0 < found[0].evidence.value <= 3.0


def test_what_gets_worse_is_told_again() -> None:
    service = Service()
    service.run(60)
    service.run(24 * 60, failed=3)
    assert [(c.what, c.severity) for c in service.run(60, failed=100)] == [("open", "critical")]


def test_one_error_among_few_requests_is_no_alarm() -> None:
    service = Service()
    assert service.run(60, requests=1) == []
    assert service.run(1, requests=1, failed=1) == []
    assert service.run(60, requests=1) == []


def test_errors_of_callers_do_not_count() -> None:
    service = Service()
    assert service.run(60, failed=900, code="invalid_input") == []
    assert service.run(60, failed=900, code="rate_limited") == []


def test_copies_for_a_shadow_do_not_count() -> None:
    service = Service()
    budget.add(service.spent, [msgspec.structs.replace(service.minute(1_000, 900), arm="shadow")], RULES)
    assert service.spent.fine == {}


def test_slow_answers_have_a_budget_where_the_rules_say_what_is_slow() -> None:
    stages = Traffic(1).stages(1_000)  # half a millisecond
    slow = Traffic(1).stages(1_000, slower=50.0)
    service = Service(BudgetRules(slow_ms=5.0))
    assert service.run(60, stages=stages) == []
    found = service.run(60, stages=slow)
    assert [(change.what, change.subject) for change in found] == [("open", "speed")]
    assert "took longer than 5 ms" in found[0].told
    assert budget.slow_of(Counted(1_000, stages=slow), 0.0) == 0


def test_buckets_are_forgotten() -> None:
    service = Service()
    for _ in range(4 * 24 * 6):
        budget.add(service.spent, [service.minute(100)], RULES)
        service.moment += dt.timedelta(minutes=9)
    assert len(service.spent.fine) <= 7 * 6 + 1
    assert len(service.spent.coarse) <= 75
    assert budget.sum_of(service.spent, 60).requests == 600
    assert budget.sum_of(service.spent, 72 * 60).requests == pytest.approx(72 * 600, rel=0.02)


def test_alarms_by_chance_are_as_rare_as_poisson_says() -> None:
    service = Service()
    service.run(60)
    (found,) = service.run(30, failed=500)
    assert 0 <= found.false_alarms < 1e-6
