"""Metrics of rollouts are made from rows, and Prometheus can read them in both forms."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from modelyard.prometheus import OPEN_METRICS
from modelyard.registry import Registry
from modelyard.registry.leases import CONTROL
from modelyard.registry.plans import Plan, Rollout, Stage
from modelyard.registry.routes import Arm, Route
from modelyard.rollouts.controller import Controller
from modelyard.rollouts.metrics import tell
from recorders import Recorder
from registries import Make

PLAN = Plan(stages=(Stage(0.1), Stage(0.5)), guards=("errors", "labels"), tolerances={"errors": 0.02, "labels": 0.05})


def samples(registry: Registry) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in their order."""
    found = {}
    for family in text_string_to_metric_families(tell(registry).text()):
        for sample in family.samples:
            found[sample.name.removeprefix("modelyard_"), *sample.labels.values()] = sample.value
    return found


def test_a_rollout_from_its_start_until_it_is_taken_back(registry: Registry, make: Make) -> None:
    assert samples(registry) == {}
    for text in ("one", "two"):
        registry.register(make(text), "churn")
    given = Rollout(model="churn", stable=1, candidate=2, plan=PLAN, share=0.1)
    rollout = registry.rollouts.start(given)
    here = ("churn", "production")
    begun = samples(registry)
    assert begun["rollout_info", *here, "1", "1", "2", "running"] == 1
    assert begun["rollout_active", *here] == begun["rollout_stage", *here] == 1
    assert begun["rollout_share", *here] == 0.1
    assert begun["rollout_served", *here, "requests"] == 0
    assert begun["rollout_decisions_total", *here, "start"] == 1
    assert begun["route_share", *here, "stable", "1", "live"] == 0.9
    assert begun["route_share", *here, "canary", "2", "live"] == 0.1

    lease = registry.lease(CONTROL, "test")
    assert lease.beat()
    loop, bad = Controller(registry, lease), Recorder(candidate={"errors": 0.3})
    bad.write(registry, rollout, 30)
    loop.step()
    under_way = samples(registry)
    assert (
        0
        < under_way["rollout_log_evidence", *here, "errors"]
        < under_way["rollout_log_evidence_needed", *here, "errors"]
    )
    assert under_way["rollout_tolerance", *here, "errors"] == 0.02
    while active := registry.rollouts.active():
        bad.write(registry, active[0], 200)
        loop.step()

    over = samples(registry)
    assert over["rollout_info", *here, "1", "1", "2", "rolled back"] == 1
    assert over["rollout_active", *here] == over["rollout_share", *here] == 0
    assert ("rollout_stage", *here) not in over and "route_share" not in {key[0] for key in over}
    assert over["rollout_log_evidence", *here, "errors"] >= over["rollout_log_evidence_needed", *here, "errors"]
    assert over["rollout_harm", *here, "errors"] > 0.1
    assert over["rollout_served", *here, "bad"] > 0.1 * over["rollout_served", *here, "requests"] > 0
    assert over["rollout_decisions_total", *here, "roll back"] == 1


def test_only_the_newest_rollout_of_an_alias_is_told_and_all_decisions_are_counted(
    registry: Registry, make: Make
) -> None:
    for text in ("one", "two", "three"):
        registry.register(make(text), "churn")
    for candidate in (2, 3):
        registry.rollouts.start(Rollout(model="churn", stable=1, candidate=candidate, plan=PLAN, share=0.1))
        registry.rollouts.abort("churn")
    found = samples(registry)
    here = ("churn", "production")
    assert [key for key in found if key[0] == "rollout_info"] == [("rollout_info", *here, "2", "1", "3", "aborted")]
    assert found["rollout_decisions_total", *here, "start"] == found["rollout_decisions_total", *here, "abort"] == 2


@pytest.mark.parametrize("name", ['say "when"', "back\\slash", "two\nlines"])
def test_both_forms_say_the_same_whatever_labels_hold(registry: Registry, make: Make, name: str) -> None:
    registry.register(make("one"), "churn")
    arm = Arm(name="v1", version=1, weight=1.0)
    registry.routes.set(Route(model="churn", alias="production", arms=(arm,), key="request", salt="churn"))
    page = tell(registry)
    page.single("odd", "gauge", "An odd label follows.", 1)
    page.add({"name": name}, 2.5)
    plain = list(text_string_to_metric_families(page.text()))
    in_open = list(openmetrics.text_string_to_metric_families(page.text(OPEN_METRICS)))
    assert [(f.name, f.type, f.documentation) for f in plain] == [(f.name, f.type, f.documentation) for f in in_open]
    assert [s[:3] for f in plain for s in f.samples] == [s[:3] for f in in_open for s in f.samples]
    assert plain[-1].samples[-1].labels == {"name": name}
