"""One turn of the loop, on SQLite and PostgreSQL: windows become findings, alerts and deliveries, each once."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.errors import Conflict, InvalidInput, NotFound, RemoteFailed
from modelyard.monitoring import postman, rules, watch
from modelyard.monitoring.report import report
from modelyard.monitoring.watch import Monitor
from modelyard.registry import Registry, alerts, states
from modelyard.registry.leases import CONTROL
from modelyard.registry.records import now, stamp
from modelyard.registry.windows import Window
from modelyard.telemetry import Log
from receivers import hanging, receiving, waited
from traffic import Traffic


def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
    columns["age"] = columns["age"] + 8
    columns["weight"] = columns["weight"] * 2.54


class Yard:
    """A registry with a model, its traffic, and a loop that holds the lease."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.traffic = Traffic(1)
        self.traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
        registry.register(self.traffic.bundle(folder / "one"), "churn")
        self.lease = registry.lease(CONTROL, "here")
        assert self.lease.beat()
        self.monitor = self.new_monitor()

    def new_monitor(self) -> Monitor:
        return Monitor(self.registry, self.lease, Log("error"))

    def write(self, count: int, change: Any = None, **more: Any) -> list[Window]:
        made = [msgspec.structs.replace(w, id=0) for w in self.traffic.windows(count, change=change, **more)]
        self.registry.windows.add(made)
        return made

    def settle(self) -> None:
        """Turn until there is nothing more to do, and nothing to send."""
        self.monitor.step()
        assert waited(lambda: self.monitor.step() == 0 and not self.monitor.postman.is_busy)

    @property
    def open(self) -> list[tuple[str, str]]:
        return sorted((f.kind, f.subject) for f in self.registry.findings.find(is_open=True))


@pytest.fixture
def yard(registry: Registry, tmp_path: Path) -> Iterator[Yard]:
    yield Yard(registry, tmp_path)


def test_windows_become_findings_one_alert_and_a_delivery_each_once(yard: Yard) -> None:
    yard.write(5)
    yard.settle()
    assert yard.open == []
    yard.write(5, change=older)
    yard.settle()
    assert yard.open == [("drift", "age"), ("unit", "weight")]
    (alert,) = yard.registry.alerts.find()
    assert (alert.state, alert.severity, alert.about, len(alert.findings)) == ("open", "error", "inputs", 2)
    # every alert prints n, effect, interval, the false alarms to be expected, and where its evidence is
    for text in ("1,500 live against 5,000 reference", "KS distance", "matters above 0.1", "such findings a month"):
        assert text in alert.text, text
    assert alert.links == {"command": f"modelyard monitor churn --finding {alert.finding}"}
    (sent,) = yard.registry.alerts.deliveries()
    assert (sent.sink, sent.event, sent.state) == ("log", "open", "sent")
    yard.write(30)
    yard.settle()
    assert yard.open == []
    (alert,) = yard.registry.alerts.find()
    assert alert.state == "closed"
    assert [(d.event, d.state) for d in yard.registry.alerts.deliveries()] == [("close", "sent"), ("open", "sent")]
    found = yard.registry.findings.find()
    assert all("below half of what matters" in finding.why for finding in found)


def test_a_loop_that_begins_anew_goes_on_where_the_other_was(yard: Yard) -> None:
    for _ in range(4):
        yard.write(1, change=older)
        yard.monitor = yard.new_monitor()
        yard.settle()
    assert yard.open == [("drift", "age"), ("unit", "weight")]
    assert len(yard.registry.alerts.find()) == 1
    seen = {f.subject: f.looks for f in yard.registry.findings.find()}
    assert seen == {"age": 3, "weight": 3}  # opened at the second look, seen in two more


def test_what_fails_in_the_middle_has_not_happened(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.write(5, change=older)
    failing = True

    def fail(*given: Any) -> Any:
        if failing:
            raise RemoteFailed("the last thing that a transaction does")
        return real(*given)

    real = watch.alerting.raise_alerts
    monkeypatch.setattr(watch.alerting, "raise_alerts", fail)
    with pytest.raises(RemoteFailed):
        yard.monitor.step()
    assert yard.registry.findings.find() == []
    assert states.get(yard.registry.database, "monitor", "churn", "1") is None
    failing = False
    yard.settle()
    assert yard.open == [("drift", "age"), ("unit", "weight")]


@pytest.mark.parametrize("error", [ZeroDivisionError(), InvalidInput("reference: no rows were counted")])
def test_a_bug_in_one_version_holds_up_no_other(yard: Yard, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    real = watch.turn.take

    def take(state: Any, windows: list[Window], *rest: Any) -> Any:
        if windows[0].version == "2":
            raise error
        return real(state, windows, *rest)

    monkeypatch.setattr(watch.turn, "take", take)
    yard.write(3, change=older, version="2")
    yard.write(3, change=older)
    yard.settle()
    assert {f.version for f in yard.registry.findings.find()} == {"1"}


def test_without_the_lease_nothing_is_decided(yard: Yard) -> None:
    yard.write(5, change=older)
    yard.lease.release()
    other = yard.registry.lease(CONTROL, "there")
    assert other.beat()
    with pytest.raises(Conflict, match="is not held by here any more"):
        yard.monitor.step()
    assert yard.registry.findings.find() == []
    assert states.get(yard.registry.database, "monitor", "churn", "1") is None


def test_a_turn_takes_in_so_much_and_no_more(yard: Yard) -> None:
    yard.write(120, rows=10)
    taken = yard.monitor.step()
    assert taken == 50
    assert yard.monitor.pause < 0.2
    assert [yard.monitor.step(), yard.monitor.step()] == [50, 20]
    assert yard.monitor.pause == watch.IDLE_SECONDS


def test_windows_that_were_merged_meanwhile_are_not_taken_in_again(yard: Yard) -> None:
    yard.write(5, change=older)
    yard.settle()
    looks = {f.subject: f.looks for f in yard.registry.findings.find()}
    yard.registry.windows.merge(stamp(dt.datetime.now(dt.UTC)), "hour")
    yard.write(1, rows=1)
    yard.monitor = yard.new_monitor()
    yard.settle()
    assert {f.subject: f.looks for f in yard.registry.findings.find()} == looks


def test_a_model_that_was_served_from_a_path_has_latency_and_no_drift(yard: Yard) -> None:
    made = [msgspec.structs.replace(w, version="") for w in yard.write(3, change=older, version="9")]
    yard.registry.windows.add(made)
    yard.settle()
    assert yard.open == []
    told = report(yard.registry, "churn", "")
    assert told.arms[0].features == []
    assert told.arms[0].latency["predict"]["p50"] > 0
    assert any("served from a path" in note for note in told.notes)


def test_errors_use_up_the_budget_of_the_model(yard: Yard) -> None:
    yard.write(30, rows=500)
    yard.write(8, rows=500, codes={"model_failed": 200})
    yard.settle()
    (found,) = yard.registry.findings.find(kind="budget")
    assert (found.severity, found.subject, found.version) == ("critical", "success", "")
    assert "requests failed in 60 minutes" in found.told
    (alert,) = yard.registry.alerts.find()
    assert (alert.about, alert.severity) == ("budget", "critical")


def test_a_clock_that_was_ahead_once_blinds_no_budget_and_ends_no_finding(yard: Yard) -> None:
    yard.write(3, change=older)
    yard.settle()
    assert len(yard.open) == 2
    yard.traffic.moment += dt.timedelta(days=400)
    yard.write(1, version="2")
    yard.settle()
    yard.traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=38)
    yard.write(30, rows=500)
    yard.write(8, rows=500, codes={"model_failed": 200})
    yard.monitor = yard.new_monitor()
    yard.settle()
    assert ("budget", "success") in yard.open
    assert "no traffic" not in "".join(finding.why for finding in yard.registry.findings.find())


def test_a_version_without_traffic_beside_another_has_no_open_findings(yard: Yard) -> None:
    yard.traffic.moment -= dt.timedelta(days=2)
    yard.write(3, change=older)
    yard.settle()
    assert len(yard.open) == 2
    yard.traffic.moment += dt.timedelta(days=2)
    yard.write(1, version="2")
    yard.monitor = yard.new_monitor()
    yard.settle()
    assert yard.open == []
    assert "no traffic for a day" in yard.registry.findings.find()[0].why
    assert [alert.state for alert in yard.registry.alerts.find()] == ["closed"]


# -- silences, acknowledgements, deliveries -----------------------------------------------------------------------


def test_a_silence_keeps_an_alert_to_itself_and_what_is_open_afterwards_is_told(yard: Yard) -> None:
    silence = yard.registry.alerts.silence("churn", until="2h", why="a campaign")
    yard.write(5, change=older)
    yard.settle()
    assert [alert.state for alert in yard.registry.alerts.find()] == ["silenced"]
    assert yard.registry.alerts.deliveries() == []
    yard.registry.alerts.unsilence(silence.id)
    yard.monitor = yard.new_monitor()
    yard.settle()
    assert [alert.state for alert in yard.registry.alerts.find()] == ["open"]
    assert [d.event for d in yard.registry.alerts.deliveries()] == ["open"]
    actions = [row["action"] for row in yard.registry.database.query("SELECT action FROM changes ORDER BY id")]
    assert actions[-2:] == ["silence", "unsilence"]


def test_what_is_over_while_it_is_silenced_is_never_told(yard: Yard) -> None:
    yard.registry.alerts.silence(until="2h")
    yard.write(5, change=older)
    yard.write(30)
    yard.settle()
    assert [alert.state for alert in yard.registry.alerts.find()] == ["closed"]
    assert yard.registry.alerts.deliveries() == []


def test_a_silence_of_one_feature_leaves_the_others(yard: Yard) -> None:
    yard.registry.alerts.silence("churn", kind="unit", subject="weight")
    yard.write(5, change=older)
    yard.settle()
    assert [alert.state for alert in yard.registry.alerts.find()] == ["open"]


def test_what_follows_soon_joins_the_alert(yard: Yard) -> None:
    yard.write(3, change=lambda c, _: c.update(age=c["age"] + 8))
    yard.settle()
    yard.write(3, change=older)
    yard.settle()
    (alert,) = yard.registry.alerts.find()
    assert len(alert.findings) == 2
    assert len(yard.registry.alerts.deliveries()) == 1


def test_an_alert_is_acknowledged_by_somebody(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_USER", "ada")
    yard.write(5, change=older)
    yard.settle()
    (alert,) = yard.registry.alerts.find()
    made = yard.registry.alerts.acknowledge(alert.id, why="on it")
    assert made.state == "acknowledged"
    assert made.acknowledged.startswith("ada, ")
    assert made.acknowledged.endswith(": on it")
    yard.write(30)
    yard.settle()
    assert yard.registry.alerts.get(alert.id).state == "closed"
    with pytest.raises(InvalidInput, match="nothing to acknowledge"):
        yard.registry.alerts.acknowledge(alert.id)
    with pytest.raises(NotFound, match="no such alert: 99"):
        yard.registry.alerts.acknowledge(99)


def test_silences_are_checked(yard: Yard) -> None:
    with pytest.raises(InvalidInput, match="a moment to come"):
        yard.registry.alerts.silence("churn", until="2020-01-01")
    with pytest.raises(NotFound, match="no such kind of findings: drifft"):
        yard.registry.alerts.silence("churn", kind="drifft")
    with pytest.raises(NotFound, match="no such silence: 4"):
        yard.registry.alerts.unsilence(4)


def test_what_fails_is_tried_again_and_dead_after_so_many_times(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postman, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(postman, "ATTEMPTS", 4)
    with receiving(500, 500, 200, 500) as receiver:
        put = {"sinks.ops.kind": "webhook", "sinks.ops.url": f"{receiver.url}/hook", "alerts.all.sinks": "ops"}
        rules.edit(yard.registry.database, put=put)
        yard.write(5, change=older)
        yard.settle()
        assert waited(lambda: yard.monitor.step() or yard.registry.alerts.deliveries()[0].state == "sent")
        (sent,) = yard.registry.alerts.deliveries()
        assert (sent.attempts, sent.error) == (3, "")
        assert {headers["modelyard-delivery"] for _, headers, _ in receiver.got} == {str(sent.id)}
        yard.write(30)
        yard.settle()
        assert waited(lambda: yard.monitor.step() or yard.registry.alerts.deliveries()[0].state == "dead")
    dead, _ = yard.registry.alerts.deliveries()
    assert (dead.event, dead.attempts) == ("close", 4)
    assert "answered 500" in dead.error


def test_a_receiver_that_hangs_holds_up_nobody(yard: Yard) -> None:
    with hanging() as url, receiving() as receiver:
        put = {
            "sinks.slow.kind": "webhook", "sinks.slow.url": url, "sinks.good.kind": "webhook",
            "sinks.good.url": f"{receiver.url}/hook", "alerts.all.sinks": "slow,good",
        }  # fmt: skip
        rules.edit(yard.registry.database, put=put)
        yard.monitor.postman = postman.Postman(yard.registry, yard.lease, Log("error"), limit=3.0)
        yard.write(5, change=older)
        yard.monitor.step()
        assert waited(lambda: receiver.got)
        assert json.loads(receiver.got[0][2])["event"] == "open"
        assert waited(lambda: yard.monitor.step() == 0 and not yard.monitor.postman.is_busy)
    states_ = {d.sink: (d.state, d.attempts) for d in yard.registry.alerts.deliveries()}
    assert states_ == {"slow": ("waiting", 1), "good": ("sent", 1)}
    slow = yard.registry.alerts.waiting()[0]
    assert "no answer within 3 s" in slow.error
    assert slow.due > now()


def test_however_much_waits_for_a_receiver_that_hangs_others_get_theirs(yard: Yard) -> None:
    with hanging() as url, receiving() as receiver:
        put = {
            "sinks.slow.kind": "webhook", "sinks.slow.url": url, "sinks.good.kind": "webhook",
            "sinks.good.url": f"{receiver.url}/hook",
        }  # fmt: skip
        rules.edit(yard.registry.database, put=put)
        yard.write(5, change=older)
        yard.settle()
        (alert,) = yard.registry.alerts.find()
        with yard.registry.database.write() as work:
            for sink in [*["slow"] * 150, "good"]:
                alerts.send(work, alerts.Delivery(alert=alert.id, sink=sink, due=now()))
        yard.monitor.postman = postman.Postman(yard.registry, yard.lease, Log("error"), limit=20.0)
        yard.monitor.step()
        yard.monitor.step()
        assert waited(lambda: receiver.got)


def test_a_sink_that_is_gone_is_told_of(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postman, "ATTEMPTS", 1)
    put = {"sinks.ops.kind": "log", "alerts.all.sinks": "ops"}
    rules.edit(yard.registry.database, put=put)
    yard.write(5, change=older)
    monkeypatch.setattr(yard.monitor.postman, "step", lambda _: None)
    yard.monitor.step()
    rules.edit(yard.registry.database, drop=["sinks", "alerts"])
    yard.monitor = yard.new_monitor()
    yard.settle()
    (dead,) = yard.registry.alerts.deliveries()
    assert (dead.state, dead.error) == ("dead", "there is no sink ops any more")


def test_a_clock_that_was_turned_back_does_not_put_a_delivery_off_for_ever() -> None:
    delivery = postman.Delivery(alert=1, sink="log", due="2026-11-30T12:00:00.000000Z")
    assert postman.is_due(delivery, "2026-11-30T12:00:00.000000Z")
    assert not postman.is_due(delivery, "2026-11-30T11:59:00.000000Z")
    assert postman.is_due(delivery, "2026-11-30T09:00:00.000000Z")


def test_the_loop_says_that_it_is_alive(yard: Yard) -> None:
    yard.settle()
    alive = json.loads(states.get(yard.registry.database, "loop") or "")
    assert (alive["holder"], alive["term"], alive["behind"]) == ("here", 1, 0)
    assert report(yard.registry, "churn").loop["alive"]
    yard.lease.release()
    told = report(yard.registry, "churn")
    assert not told.loop["alive"]
    assert any("nobody watches" in note for note in told.notes)
