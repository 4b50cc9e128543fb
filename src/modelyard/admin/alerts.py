"""Alerts: what was told of findings and to whom, and what people say to them."""

from __future__ import annotations

from typing import Literal

import msgspec

from modelyard.admin.monitoring import Found, found_of
from modelyard.errors import NotFound
from modelyard.monitoring import rules
from modelyard.monitoring import sinks as sending
from modelyard.monitoring.alerting import weight
from modelyard.registry import Registry
from modelyard.registry.alerts import Alert, Delivery, Silence


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts, the newest first; silences in force; what could not be delivered; deliveries by their state."""

    alerts: list[Alert]
    #: How many are not over, of all models.
    open: int
    silences: list[Silence]
    dead: list[Delivery]
    deliveries: dict[str, int]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One alert with its findings, those first that matter most, and what was sent of it."""

    alert: Alert
    findings: list[Found]
    deliveries: list[Delivery]


class SinkTold(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told, without what would let anybody else tell them: an address' host, where a secret is kept."""

    name: str
    kind: str
    url: str = ""
    secret: str = ""
    to: tuple[str, ...] = ()
    #: The rules that use it, in words.
    rules: list[str] = []


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a test; ``error`` is "" where it arrived."""

    sink: str
    kind: str
    error: str = ""


def alerts(
    registry: Registry, *, model: str | None = None, state: Literal["open", "past", "all"] = "all", most: int = 200
) -> Board:
    """Alerts that are open and those that are over, silences, and what could not be delivered."""
    found = registry.alerts.find(model, is_open=state == "open", most=min(max(most, 1), 1_000))
    return Board(
        alerts=[each for each in found if state != "past" or each.closed], open=registry.alerts.are_open(),
        silences=registry.alerts.silences(), dead=registry.alerts.deliveries(state="dead"),
        deliveries=registry.alerts.count(),
    )  # fmt: skip


def alert(registry: Registry, number: int) -> Case:
    """One alert: its findings with their evidence, and its deliveries."""
    found = registry.alerts.get(number)
    told = []
    for each in found.findings or (found.finding,):
        try:
            told.append(found_of(registry, registry.findings.get(each)))
        except NotFound:  # it was forgotten since
            continue
    told.sort(key=lambda one: -weight(one.finding))
    return Case(alert=found, findings=told, deliveries=registry.alerts.deliveries(number))


def acknowledge(registry: Registry, number: int, *, why: str = "") -> Alert:
    """Say that somebody looks after an alert."""
    return registry.alerts.acknowledge(number, why=why)


def silences(registry: Registry) -> list[Silence]:
    """The silences in force."""
    return registry.alerts.silences()


def silence(
    registry: Registry, *, model: str = "", kind: str = "", subject: str = "", until: str = "2h", why: str = ""
) -> Silence:
    """Tell nobody of such findings for a while; "" is any.

    ``until`` is 30m, 2h, 7d, or a date. What is still open when it ends is told then.
    """
    return registry.alerts.silence(model, kind=kind, subject=subject, until=until, why=why)


def unsilence(registry: Registry, number: int) -> list[Silence]:
    """End a silence now; returns those that are still in force."""
    registry.alerts.unsilence(number)
    return registry.alerts.silences()


def sinks(registry: Registry) -> list[SinkTold]:
    """Who is told of alerts, and by which rules. Secrets are not shown."""
    made = rules.load(registry.database)
    return [
        SinkTold(
            name=name, kind=sink.kind, url=rules.masked(sink.url), secret=sink.secret, to=sink.to,
            rules=[_told(each, rule) for each, rule in made.alerts.items() if name in rule.sinks],
        )
        for name, sink in made.sinks.items()
    ]  # fmt: skip


def try_sinks(registry: Registry, *, sink: str | None = None) -> list[Tried]:
    """Send a test to every sink, or to one, from this machine, and say what came of it."""
    return [msgspec.convert(each, Tried) for each in sending.try_sinks(registry, sink)]


def _told(name: str, rule: rules.AlertRule) -> str:
    kinds = "every kind" if "*" in rule.kinds else ", ".join(rule.kinds)
    models = "every model" if "*" in rule.models else ", ".join(rule.models)
    return f"{name}: {kinds} of {models}, from {rule.least} on"
