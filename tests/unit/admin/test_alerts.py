"""What the admin API tells of alerts, and what is done about them there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from answers import Api
from modelyard.monitoring import rules
from modelyard.monitoring.alerting import raise_alerts
from modelyard.registry import Registry, alerts, findings
from modelyard.registry.alerts import Delivery
from modelyard.registry.findings import Evidence, Finding
from modelyard.registry.records import now


@pytest.fixture
def api(registry: Registry) -> Api:
    return Api(registry)


def finding(subject: str, low: float, **more: Any) -> Finding:
    evidence = Evidence(measure="ks", value=low + 0.1, low=low, high=low + 0.2, floor=0.1, reference=5_000, live=1_500)
    return Finding(
        model="churn", version="1", kind="drift", subject=subject, opened=now(), told=f"{subject} moved",
        evidence=evidence, false_alarms=0.02, **more,
    )  # fmt: skip


@pytest.fixture
def alerted(registry: Registry) -> Registry:
    """An alert of two findings, with one delivery that waits and one that is dead."""
    with registry.database.write() as work:
        made = [findings.insert(work, finding(name, low)) for name, low in (("age", 0.2), ("weight", 0.5))]
        raise_alerts(work, made, rules.DEFAULTS)
        alerts.send(work, Delivery(alert=1, sink="ops", state="dead", attempts=10, due=now(), error="it hung up"))
    return registry


def test_alerts_are_listed_by_state(api: Api, alerted: Registry) -> None:
    told = api("GET", "/alerts", scope="view")
    assert (len(told["alerts"]), told["open"], told["deliveries"]) == (1, 1, {"dead": 1, "waiting": 1})
    assert [each["error"] for each in told["dead"]] == ["it hung up"]
    assert api("GET", "/alerts?state=past")["alerts"] == []
    assert len(api("GET", "/alerts?state=open&model=churn")["alerts"]) == 1
    assert api("GET", "/alerts?model=other")["alerts"] == []
    assert api.refused("GET", "/alerts?state=odd")[0] == 400


def test_an_alert_has_its_findings_the_gravest_first(api: Api, alerted: Registry) -> None:
    told = api("GET", "/alerts/1", scope="view")
    assert [each["finding"]["subject"] for each in told["findings"]] == ["weight", "age"]
    assert "at most 0.02 such findings a month" in told["findings"][0]["expected"]
    assert sorted(each["sink"] for each in told["deliveries"]) == ["log", "ops"]
    assert api.refused("GET", "/alerts/9") == (404, "no such alert: 9")


def test_an_alert_leads_to_its_finding_in_the_console(registry: Registry) -> None:
    known = msgspec.structs.replace(rules.DEFAULTS, console="https://yard.example/")
    with registry.database.write() as work:
        (made,) = raise_alerts(work, [findings.insert(work, finding("age", 0.2))], known)
    assert made.links["console"] == "https://yard.example/findings/1"


def test_an_alert_is_acknowledged_by_who_asks(api: Api, alerted: Registry) -> None:
    assert api.refused("POST", "/alerts/1/acknowledge", {}, scope="view")[0] == 403
    assert alerted.alerts.get(1).state == "open"
    told = api("POST", "/alerts/1/acknowledge", {"why": "looking into it"})
    assert told["state"] == "acknowledged"
    assert told["acknowledged"].startswith("ada, ") and told["acknowledged"].endswith(": looking into it")
    assert api.refused("POST", "/alerts/9/acknowledge", {}) == (404, "no such alert: 9")


def test_a_silence_is_made_and_ended(api: Api, registry: Registry) -> None:
    asked = {"model": "churn", "kind": "drift", "subject": "age", "until": "7d", "why": "a campaign"}
    made = api("POST", "/silences", asked)
    assert (made["who"], made["why"]) == ("ada", "a campaign")
    assert [each["id"] for each in api("GET", "/silences", scope="view")] == [made["id"]]
    assert api.refused("DELETE", f"/silences/{made['id']}", scope="view")[0] == 403
    assert api("DELETE", f"/silences/{made['id']}") == []
    assert api("GET", "/alerts")["silences"] == []


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"kind": "drifts"}, 404, "no such kind of findings: drifts"),
        ({"until": "yesterday"}, 400, "moment: expected an ISO 8601 date or time"),
        ({"until": "2020-01-01"}, 400, "until: expected a moment to come"),
        ({"model": "a b"}, 400, "model name: expected 1 to 100"),
        ({"hours": 2}, 400, "unknown field"),
    ],
)
def test_silences_that_do_not_fit_are_refused(api: Api, registry: Registry, body: Any, status: int, told: str) -> None:
    answered, message = api.refused("POST", "/silences", body)
    assert answered == status and told in message
    assert registry.alerts.silences() == []
    assert api.refused("DELETE", "/silences/9") == (404, "no such silence: 9")


def test_sinks_are_shown_without_secrets_and_tried(api: Api, registry: Registry) -> None:
    put = {"sinks.ops.kind": "webhook", "sinks.ops.url": "https://ada:secret@nowhere.invalid/hook/secret"}
    rules.edit(registry.database, put={**put, "alerts.all.sinks": "log,ops"})
    told = {each["name"]: each for each in api("GET", "/sinks", scope="view")}
    assert told["ops"]["url"] == "https://nowhere.invalid/…"
    assert told["ops"]["rules"] == ["all: every kind of every model, from warning on"]
    assert api.refused("POST", "/sinks/test", {}, scope="view")[0] == 403
    tried = {each["sink"]: each["error"] for each in api("POST", "/sinks/test", {})}
    assert tried["log"] == "" and tried["ops"] != "" and "secret" not in tried["ops"]
    assert [each["sink"] for each in api("POST", "/sinks/test", {"sink": "log"})] == ["log"]
    assert api.refused("POST", "/sinks/test", {"sink": "pager"})[1].startswith("no such sink: pager")
