"""Outcomes become findings: rows opened, brought up to date and closed. Inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modelyard.monitoring import budget, latency, verdicts, words
from modelyard.monitoring.drift import Event
from modelyard.monitoring.turn import Outcome
from modelyard.registry import findings
from modelyard.registry.database import Work
from modelyard.registry.findings import Evidence, Finding, Severity
from modelyard.registry.records import now

#: Kinds of what is no ``Event``, which says its own.
_KINDS: dict[type, str] = {latency.Change: "latency", budget.Change: "budget", verdicts.Change: "accuracy"}


def apply(work: Work, model: str, version: str, outcomes: Sequence[Outcome]) -> tuple[list[Finding], list[Finding]]:
    """Write what changed; returns the findings that were opened, and those that were closed."""
    if not outcomes:
        return [], []
    there = {finding.key: finding for finding in findings.opened(work, model, version)}
    opened: list[Finding] = []
    closed: list[Finding] = []
    for outcome in outcomes:
        event = outcome.event
        kind = event.kind if isinstance(event, Event) else _KINDS[type(event)]
        key = (outcome.arm, kind, event.subject)
        before = there.get(key)
        if event.what == "open":
            if before is not None:  # it became graver
                closed.append(_close(work, before, before.latest, "it became graver"))
            made = findings.insert(work, _finding(model, version, kind, outcome))
            there[key] = made
            opened.append(made)
        elif before is None:
            continue
        elif event.what == "close":
            closed.append(_close(work, before, event.evidence, event.why))
            del there[key]
        else:
            there[key] = msgspec.structs.replace(before, latest=event.evidence, looks=before.looks + 1)
            findings.save(work, there[key])
    return [there.get(finding.key, finding) for finding in opened], closed


def _close(work: Work, finding: Finding, evidence: Evidence | None, why: str) -> Finding:
    made = msgspec.structs.replace(finding, closed=now(), latest=evidence or finding.latest, why=why)
    findings.save(work, made)
    return made


def _finding(model: str, version: str, kind: str, outcome: Outcome) -> Finding:
    event = outcome.event
    assert event.evidence is not None
    severity: Severity = "warning"
    if isinstance(event, Event):
        told, severity = words.tell(event), words.grade(event)
        evidence = msgspec.structs.replace(event.evidence, more=words.add_figures(event))
    else:
        told, evidence = event.told, event.evidence
        if isinstance(event, (budget.Change, verdicts.Change)):
            severity = event.severity
        elif evidence.low > 2 * evidence.floor:
            severity = "error"
    return Finding(
        model=model, version=version, kind=kind, subject=event.subject, opened=now(), arm=outcome.arm, told=told,
        severity=severity, evidence=evidence, false_alarms=outcome.false_alarms,
    )  # fmt: skip
