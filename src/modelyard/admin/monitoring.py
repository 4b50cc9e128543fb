"""How a model does: what its windows, labels and detectors say, and by which rules."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.admin.traffic import span
from modelyard.errors import InvalidInput
from modelyard.monitoring import report as reports
from modelyard.monitoring import rules as ruled
from modelyard.monitoring.words import expectation, rests_on
from modelyard.recording.places import Places
from modelyard.registry import Registry, journal
from modelyard.registry.findings import KINDS, Finding
from modelyard.registry.records import Change, check_text


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A finding, and what it says in words."""

    finding: Finding
    #: What findings of this kind say; what this one rests on, and what was seen last.
    means: str
    rests_on: str
    lately: str = ""
    #: How often such a thing is found without a cause.
    expected: str
    #: What finds its rows among the recorded predictions.
    rows: dict[str, str]
    #: Alerts that tell of it.
    alerts: list[int] = []


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """What a classifier says that was asked to tell new rows from old ones; ``lacking`` is what it would take."""

    lacking: str = ""
    told: str = ""
    auc: float | None = None
    p: float | None = None
    new: int = 0
    old: int = 0
    #: By how much it gets worse where an input is shuffled.
    inputs: dict[str, float] = {}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule by its place. ``changed``: "" for a default, ``all`` or ``model`` where it was changed for these."""

    place: str
    value: str
    changed: str = ""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules in force, and how they came to be, the newest change first."""

    model: str
    rules: list[Rule]
    history: list[Change]


def monitoring(registry: Registry, model: str, *, version: str | None = None, hours: float = 24.0) -> reports.Report:
    """A model's drift, data quality, latency, budgets, findings, alerts and quality over the last hours."""
    return reports.report(registry, model, version, hours=span(hours))


def finding(registry: Registry, number: int) -> Found:
    """Everything about one finding: evidence, bounds, distances with critical values, and where its rows are."""
    return found_of(registry, registry.findings.get(number))


def found_of(registry: Registry, finding: Finding) -> Found:
    """A finding with its words."""
    told = [alert.id for alert in registry.alerts.find(finding.model) if finding.id in alert.findings]
    return Found(
        finding=finding, means=KINDS.get(finding.kind, ""), rests_on=rests_on(finding.evidence),
        lately=rests_on(finding.latest) if finding.latest else "", expected=expectation(finding), rows=rows_of(finding),
        alerts=told,
    )  # fmt: skip


def multivariate(registry: Registry, model: str, *, version: str | None = None, hours: float = 24.0) -> Together:
    """Ask a classifier whether all recorded inputs together changed in the last hours. It takes some seconds."""
    from modelyard.monitoring.multivariate import compare

    hours, places = span(hours), Places.chosen()
    if version is not None:
        check_text("version", version, 100)
    else:
        known = [each for name, each in registry.windows.models() if name == model]
        version = max(known, key=lambda text: int(text) if text.isdecimal() else 0, default=None)
    if places is None or version is None:
        return Together(lacking="no inputs are recorded: the setting records is off, or there is no traffic")
    return msgspec.convert(compare(places.segments, model, version, hours), Together)


def rules(registry: Registry, *, model: str = "") -> Rules:
    """By what findings and alerts are made, for all models or for one, and who changed it. Secrets are not shown."""
    database = registry.database
    told = _flat(ruled.shown_rules(ruled.load(database, model)))
    general = {place for place, _ in _flat(ruled.changes(database))}
    own = {place for place, _ in _flat(ruled.changes(database, model))} if model else set()
    with database.read() as work:
        changes = [change for each in dict.fromkeys(("", model)) for change in journal.changes(work, each)]
    return Rules(
        model=model,
        rules=[
            Rule(place=place, value=value, changed="model" if place in own else "all" if place in general else "")
            for place, value in told
        ],
        history=sorted((c for c in changes if c.action == "rules"), key=lambda change: -change.id)[:50],
    )  # fmt: skip


def change_rules(
    registry: Registry, *, model: str = "", put: dict[str, str] | None = None, drop: tuple[str, ...] = (), why: str = ""
) -> Rules:
    """Change rules by their places, such as ``drift.ks``, or take changes back; it holds from the next turn on."""
    if not put and not drop:
        raise InvalidInput.at("put", "a rule to change, or one to take back in drop", "neither")
    ruled.edit(registry.database, model, put=put, drop=drop, why=why)
    return rules(registry, model=model)


def rows_of(finding: Finding) -> dict[str, str]:
    """What finds the rows of a finding among the recorded predictions."""
    seen = finding.latest or finding.evidence
    asked = {
        "model": finding.model, "version": finding.version, "arm": finding.arm,
        "since": finding.evidence.since or finding.opened, "until": max(seen.until, finding.evidence.until),
    }  # fmt: skip
    flags = {"category": "unseen", "missing": "missing"}
    if finding.kind in flags:
        asked["flag"] = f"{finding.subject}:{flags[finding.kind]}"
    if finding.kind == "budget":
        asked["code"] = "failed"
    return {name: value for name, value in asked.items() if value}


def _flat(told: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in told.items():
        place = f"{before}{name}"
        if isinstance(value, dict):
            rows += _flat(value, f"{place}.")
        else:
            many = isinstance(value, (list, tuple))
            rows.append((place, ", ".join(map(str, value)) if many else "" if value is None else str(value)))
    return rows
