"""From findings to alerts: which rules ask for them, who is to be told, and when it is over. Inside transactions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from modelyard.monitoring.rules import Rules
from modelyard.monitoring.words import expectation, rests_on
from modelyard.registry import alerts
from modelyard.registry.alerts import Alert, Delivery
from modelyard.registry.database import Work
from modelyard.registry.findings import SEVERITIES, Finding, numbered
from modelyard.registry.records import now, stamp

#: What findings have in common that one alert gathers.
ABOUT = {"prediction": "outputs", "score": "outputs", "invalid": "outputs"} | {
    kind: kind for kind in ("latency", "budget", "accuracy")
}

#: Findings that follow so soon join the alert before them: what broke one column mostly breaks others.
JOIN_SECONDS = 900
#: Findings that an alert tells of in full.
_TOLD = 10


def about(finding: Finding) -> str:
    """What kind of trouble it is."""
    return ABOUT.get(finding.kind, "inputs")


def raise_alerts(work: Work, opened: Sequence[Finding], rules: Rules) -> list[Alert]:
    """Make the alerts that new findings ask for, or have them join those that are open. Returns those that are new."""
    made = []
    for name, rule in rules.alerts.items():
        groups: dict[tuple[str, ...], list[Finding]] = {}
        for finding in opened:
            if rule.asks_for(finding.model, finding.kind, finding.severity):
                key = (finding.model, finding.version, finding.arm, about(finding))
                groups.setdefault(key, []).append(finding)
        for (model, _, _, _), group in groups.items():
            there = _recent(work, name, group[0])
            if there is not None:
                both = [*numbered(work, there.findings), *group]
                alerts.save(work, _told(there, both, rules))
                continue
            draft = Alert(
                rule=name, model=model, version=group[0].version, arm=group[0].arm, about=about(group[0]),
                finding=group[0].id, opened=now(), title="",
            )  # fmt: skip
            alert = _told(draft, group, rules)
            if _is_silenced(work, group):
                alert = msgspec.structs.replace(alert, state="silenced")
            alert = alerts.insert(work, alert)
            if alert.state == "open":
                _deliver(work, alert, rule.sinks, "open")
            made.append(alert)
    return made


def close_alerts(work: Work, model: str, rules: Rules) -> None:
    """Close the alerts of a model of which every finding is closed."""
    for alert in alerts.opened(work, model):
        if any(finding.closed is None for finding in numbered(work, alert.findings)):
            continue
        alerts.save(work, msgspec.structs.replace(alert, state="closed", closed=now()))
        rule = rules.alerts.get(alert.rule)
        if rule is not None and rule.closing and alert.state != "silenced":
            _deliver(work, alert, rule.sinks, "close")


def wake_alerts(work: Work, rules: Rules) -> None:
    """Tell of those that were silenced and no longer are."""
    for alert in alerts.opened(work):
        if alert.state != "silenced" or _is_silenced(work, numbered(work, alert.findings)):
            continue
        alerts.save(work, msgspec.structs.replace(alert, state="open"))
        rule = rules.alerts.get(alert.rule)
        _deliver(work, alert, rule.sinks if rule is not None else (), "open")


def _recent(work: Work, rule: str, finding: Finding) -> Alert | None:
    """The open alert that a finding joins."""
    since = stamp(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=JOIN_SECONDS))
    for alert in alerts.opened(work, finding.model):
        ours = (rule, finding.version, finding.arm, about(finding))
        if (alert.rule, alert.version, alert.arm, alert.about) == ours and alert.opened >= since:
            return alert
    return None


def _is_silenced(work: Work, findings: Iterable[Finding]) -> bool:
    silences = alerts.silences(work)
    return bool(silences) and all(
        any(silence.covers(finding.model, finding.kind, finding.subject) for silence in silences)
        for finding in findings
        if finding.closed is None
    )


def _told(alert: Alert, findings: Sequence[Finding], rules: Rules) -> Alert:
    """The alert with what it says of these findings."""
    ranked = sorted(findings, key=weight, reverse=True)
    first = ranked[0]
    name = f"{alert.model}:{alert.version}" if alert.version else alert.model
    arm = f" ({alert.arm})" if alert.arm else ""
    more = f", and {len(ranked) - 1} more" if len(ranked) > 1 else ""
    lines = []
    for finding in ranked[:_TOLD]:
        lines += [f"{finding.told}.", f"  {rests_on(finding.evidence)}; {expectation(finding)}."]
    if len(ranked) > _TOLD:
        lines.append(f"{len(ranked) - _TOLD} more: {', '.join(finding.subject for finding in ranked[_TOLD:])}")
    return msgspec.structs.replace(
        alert,
        finding=first.id,
        findings=tuple(finding.id for finding in findings),
        severity=max((finding.severity for finding in findings), key=SEVERITIES.index),
        title=f"{name}{arm}: {first.told}{more}",
        text="\n".join(lines),
        links=links(alert.model, first, rules),
    )


def weight(finding: Finding) -> float:
    """By what the findings of an alert are ordered: how far an effect is above what matters."""
    return finding.evidence.low / finding.evidence.floor if finding.evidence.floor else 0.0


def links(model: str, finding: Finding, rules: Rules) -> dict[str, str]:
    """Where the evidence of a finding is."""
    made = {"command": f"modelyard monitor {model} --finding {finding.id}"}
    if rules.console:
        made["console"] = f"{rules.console.rstrip('/')}/findings/{finding.id}"
    return made


def _deliver(work: Work, alert: Alert, sinks: Sequence[str], event: Literal["open", "close"]) -> None:
    for sink in sinks:
        alerts.send(work, Delivery(alert=alert.id, sink=sink, event=event, due=now()))
