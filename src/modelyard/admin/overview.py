"""The overview: how every model does, at a glance."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.admin.traffic import Sums, ago, sums_of
from modelyard.monitoring import judging
from modelyard.monitoring.report import loop_of
from modelyard.monitoring.turn import unpack_state
from modelyard.registry import Registry, states
from modelyard.registry.findings import SEVERITIES
from modelyard.registry.records import PRODUCTION, now


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """The largest effect of any feature in the last look, and how many findings are open."""

    feature: str = ""
    effect: float | None = None
    looks: int = 0
    open: int = 0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One model: what callers get, and how it does. ``version``: what ``production`` means, else the newest."""

    model: str
    task: str
    version: int
    versions: int
    aliases: dict[str, int]
    #: The arms of its route in words; "" where the alias alone decides. The state of its rollout, "" for none.
    route: str = ""
    rollout: str = ""
    traffic: Sums
    drift: Drift
    #: By metric: value and bounds, by labels that are ripe; {} where there are none.
    quality: dict[str, tuple[float | None, float | None, float | None]] = {}
    #: Alerts that are not over, by severity.
    alerts: dict[str, int] = {}

    @property
    def worst(self) -> str:
        """The gravest severity of its alerts; "" for none."""
        return next((each for each in reversed(SEVERITIES) if self.alerts.get(each)), "")


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Every model, and whether somebody watches."""

    made: str
    hours: float
    endpoints: list[Endpoint]
    loop: dict[str, Any]
    #: Alerts that are not over, of all models.
    alerts: int


def overview(registry: Registry, *, hours: float = 24.0) -> Overview:
    """Every model at a glance: versions, traffic, latency, drift, accuracy and alerts of the last hours."""
    from modelyard.registry import routes

    since = ago(hours)
    alerts = registry.alerts.find(is_open=True)
    findings = registry.findings.find(is_open=True)
    rollouts = {(each.model, each.alias): each for each in registry.rollouts.active()}
    ways = {(each.model, each.alias): each for each in registry.routes.all()}
    looks = states.find(registry.database, "monitor")
    judged = states.find(registry.database, judging.STATE)
    endpoints = []
    for model in registry.models():
        versions = registry.versions(model)
        aliases = registry.aliases(model)
        current = next((v for v in versions if v.number == aliases.get(PRODUCTION)), versions[-1])
        way, rollout = ways.get((model, PRODUCTION)), rollouts.get((model, PRODUCTION))
        quality = judged.get((model, ""))
        made = Endpoint(
            model=model, task=current.task, version=current.number, versions=len(versions), aliases=aliases,
            route=routes.told(way) if way else "", rollout=rollout.state if rollout else "",
            traffic=sums_of(registry, model, since),
            drift=_drift(looks.get((model, str(current.number))), sum(finding.model == model for finding in findings)),
            quality=msgspec.json.decode(quality).get(str(current.number), {}) if quality else {},
            alerts=_by_severity([alert.severity for alert in alerts if alert.model == model]),
        )  # fmt: skip
        endpoints.append(made)
    return Overview(made=now(), hours=hours, endpoints=endpoints, loop=loop_of(registry), alerts=len(alerts))


def _drift(state: str | None, opened: int) -> Drift:
    if state is None:
        return Drift(open=opened)
    arms = unpack_state(state).arms
    feature, effect = max((arm.drift.worst for arm in arms.values()), key=lambda worst: worst[1], default=("", None))
    looks = sum(arm.drift.looks for arm in arms.values())
    return Drift(feature=feature, effect=effect if looks else None, looks=looks, open=opened)


def _by_severity(severities: list[Any]) -> dict[str, int]:
    return {each: severities.count(each) for each in SEVERITIES if each in severities}
