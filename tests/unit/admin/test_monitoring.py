"""What the admin API tells of how a model does, and by which rules."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest

from answers import Api
from modelyard.monitoring.watch import Monitor
from modelyard.registry import Registry
from modelyard.registry.leases import CONTROL
from modelyard.telemetry import Log
from receivers import waited
from traffic import Traffic


@pytest.fixture
def api(registry: Registry) -> Api:
    return Api(registry)


@pytest.fixture
def drifted(registry: Registry, tmp_path: Path) -> Registry:
    """``churn``, whose weight is in another unit since a while."""
    traffic = Traffic(1)
    traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    registry.register(traffic.bundle(tmp_path / "one"), "churn")
    lease = registry.lease(CONTROL, "here")
    assert lease.beat()
    monitor = Monitor(registry, lease, Log("error"))

    def heavier(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
        columns["weight"] = columns["weight"] * 2.54

    for change in (None, heavier):
        made = traffic.windows(5, change=change)
        registry.windows.add([msgspec.structs.replace(each, id=0) for each in made])
        monitor.step()
        assert waited(lambda: monitor.step() == 0 and not monitor.postman.is_busy)
    return registry


def test_everything_about_a_model(api: Api, drifted: Registry) -> None:
    told = api("GET", "/models/churn/monitoring?hours=2", scope="view")
    (arm,) = told["arms"]
    assert arm["features"][0]["name"] == "weight" and arm["features"][0]["open"] == ["unit"]
    assert [len(line) for line in arm["stage_lines"].values()] == [24] * 4
    assert set(arm["stage_lines"]) == {"decode", "queue", "predict", "encode"}
    assert max(v for v in arm["stage_lines"]["predict"] if v is not None) < 0.01
    assert told["loop"]["alive"]
    assert api("GET", "/models/churn/monitoring?version=1")["arms"][0]["rows"] == 15_000


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/models/churned/monitoring", 404, "no such model: churned"),
        ("/models/churn/monitoring?version=9", 404, "no such version of churn with recorded traffic: 9"),
        ("/models/churn/monitoring?hours=0", 400, "hours: expected more than 0, up to 9600, got 0"),
        ("/models/churn/monitoring?hours=nan", 400, "hours: expected more than 0, up to 9600, got nan"),
        ("/models/churn/multivariate?hours=-1", 400, "hours: expected more than 0"),
        ("/findings/99", 404, "no such finding: 99"),
    ],
)
def test_what_is_not_there_is_told(api: Api, drifted: Registry, path: str, status: int, told: str) -> None:
    answered, message = api.refused("GET", path)
    assert answered == status and told in message


def test_a_finding_has_its_words_and_where_its_rows_are(api: Api, drifted: Registry) -> None:
    told = api("GET", "/findings/1", scope="view")
    assert told["means"] == "a column is in another unit"
    assert "1,500 live" not in told["expected"] and "such findings a month" in told["expected"]
    assert "KS distance" in told["rests_on"] and "matters above 0.1" in told["rests_on"]
    assert told["alerts"] == [1]
    rows = told["rows"]
    assert (rows["model"], rows["version"]) == ("churn", "1") and rows["since"] < rows["until"]
    assert "arm" not in rows and "flag" not in rows


def test_rows_of_a_finding_are_found_by_flag_and_code(drifted: Registry) -> None:
    from modelyard.admin.monitoring import rows_of

    found = drifted.findings.get(1)
    new = msgspec.structs.replace(found, kind="category", subject="city")
    assert rows_of(new)["flag"] == "city:unseen"
    assert rows_of(msgspec.structs.replace(found, kind="missing"))["flag"] == "weight:missing"
    assert rows_of(msgspec.structs.replace(found, kind="budget"))["code"] == "failed"


def test_all_inputs_together_take_recorded_ones(api: Api, drifted: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    told = api("GET", "/models/churn/multivariate", scope="view")
    assert "no inputs of churn:1 are recorded" in told["lacking"]
    monkeypatch.setenv("MODELYARD_RECORDS", "off")
    assert "the setting records is off" in api("GET", "/models/churn/multivariate")["lacking"]


def test_rules_are_changed_with_a_reason_and_taken_back(api: Api, drifted: Registry) -> None:
    asked = {"put": {"drift.ks": "0.2", "sinks.ops.kind": "slack", "sinks.ops.url": "https://hooks.example/T0/secret"}}
    api("POST", "/rules", {**asked, "why": "a noisy sensor"})
    told = api("POST", "/rules", {"model": "churn", "put": {"drift.psi": "0.3"}})
    rules = {rule["place"]: (rule["value"], rule["changed"]) for rule in told["rules"]}
    assert (rules["drift.ks"], rules["drift.psi"]) == (("0.2", "all"), ("0.3", "model"))
    assert rules["drift.rows"] == ("1000", "")
    assert rules["sinks.ops.url"] == ("https://hooks.example/…", "all"), "an address that lets anybody send is kept"
    assert [(c["model"], c["why"], c["who"]) for c in told["history"]] == [
        ("churn", "", "ada"), ("", "a noisy sensor", "ada"),
    ]  # fmt: skip
    back = api("POST", "/rules", {"model": "churn", "drop": ["drift.psi"]})
    assert {rule["place"]: rule["changed"] for rule in back["rules"]}["drift.psi"] == ""


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 400, "put: expected a rule to change"),
        ({"put": {"drift.kss": "1"}}, 404, "no such rule: kss"),
        ({"put": {"drift.ks": "2"}}, 400, "drift.ks: "),
        ({"put": {"sinks.ops.kind": "slack"}}, 400, "sinks.ops.url: expected an address"),
        ({"model": "churn", "put": {"console": "x"}}, 400, "console: expected for one model a rule of"),
        ({"put": {"drift.ks": "0.2"}, "why": "x" * 20_000}, 400, "why: expected at most 10000 characters"),
        ({"drop": ["drift.ks"]}, 404, "nothing was changed at drift.ks"),
    ],
)
def test_rules_that_do_not_fit_are_refused(api: Api, registry: Registry, body: Any, status: int, told: str) -> None:
    before = api("GET", "/rules")
    answered, message = api.refused("POST", "/rules", body)
    assert answered == status and told in message
    assert api("GET", "/rules") == before


def test_who_may_look_only_changes_no_rules(api: Api, registry: Registry) -> None:
    assert api.refused("POST", "/rules", {"put": {"drift.ks": "0.2"}}, scope="view")[0] == 403
    assert not api("GET", "/rules", scope="view")["history"]
