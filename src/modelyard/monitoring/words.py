"""Findings in words: what happened in one sentence, and what it rests on in another."""

from __future__ import annotations

from typing import Any

from modelyard.monitoring.compare import cells, least_claim
from modelyard.monitoring.drift import Event
from modelyard.monitoring.measures import measure, plain, quantile
from modelyard.monitoring.rules import DriftRules
from modelyard.profile import Counts, Profile
from modelyard.registry.findings import Evidence, Finding, Severity

MEASURES = {
    "ks": "KS distance", "psi": "PSI beyond chance", "share": "change of the share", "ratio": "times as long",
    "burn": "times the budget", "lost": "lost", "growth": "growth", "gap": "right more or less often by",
}  # fmt: skip


def tell(event: Event) -> str:
    """What happened, in one sentence."""
    evidence, name = event.evidence, event.subject
    assert evidence is not None
    if event.named is not None:
        return f"{name} {event.named.told}"
    if event.kind == "missing":
        before, after = (_share_missing(side) for side in (event.part, event.seen))
        return f"{name} is missing in {after:.1%} of the rows, and was in {before:.1%} of the reference's"
    if event.kind == "type":
        return f"{name} has values of the wrong type in {evidence.value:.1%} of the rows more than in the reference"
    if event.kind == "invalid":
        return f"{evidence.value:.1%} of the predictions are no numbers"
    if event.kind == "category":
        texts = evidence.more.get("texts", {})
        named = ", ".join(f"“{text}”" for text in list(texts)[:3])
        more = " and others" if len(texts) > 3 else ""
        return f"{name} has texts that the reference does not have in {evidence.value:.1%} of the rows" + (
            f": {named}{more}" if named else ""
        )
    moved = _moved(event.part, event.seen)
    what = (
        "predictions" if event.kind == "prediction" else f"{'scores' if event.kind == 'score' else 'values'} of {name}"
    )
    return f"the {what} are distributed otherwise than in the reference{moved}"


def grade(event: Event) -> Severity:
    """How grave it is."""
    evidence = event.evidence
    assert evidence is not None
    if event.kind in ("stuck", "unit", "type", "invalid") or evidence.low > 3 * evidence.floor:
        return "error"
    return "warning"


def add_figures(event: Event) -> dict[str, Any]:
    """What is kept beside the effect: distances with critical values, both histograms' middles, what was named."""
    more = dict(event.evidence.more) if event.evidence is not None else {}
    if event.named is not None:
        more |= event.named.more
    if (
        event.part is not None
        and event.seen is not None
        and (event.part.kind == "category" or event.part.maximum is not None)
    ):
        more["distances"] = plain(measure(event.part, event.seen))
        middles = [quantile(side, 0.5) for side in (event.part, event.seen)]
        if None not in middles:
            more["middles"] = middles
    return more


def rests_on(evidence: Evidence) -> str:
    """n, effect, interval, chance."""
    return (
        f"{MEASURES.get(evidence.measure, evidence.measure)} {evidence.value:.3g} "
        f"({evidence.low:.3g} to {evidence.high:.3g}, matters above {evidence.floor:.3g}); "
        f"{evidence.live:,} live against {evidence.reference:,} reference" + chance(evidence.p)
    )


def chance(p: float | None) -> str:
    """A p-value, where there is one."""
    return "" if p is None else f"; p = {p:.2g}" if p > 1e-300 else "; p < 1e-300"


def expectation(finding: Finding) -> str:
    """How often such a thing is found without a cause."""
    if finding.false_alarms is None:
        return "no rate of false alarms is known for this kind"
    return f"at most {finding.false_alarms:.2g} such findings a month are to be expected where nothing changes"


def limits(reference: Profile, rules: DriftRules) -> list[str]:
    """What this reference does not allow anybody to claim."""
    told = []
    if not reference.inputs:
        return ["the bundle has no reference profile: its inputs and predictions cannot be compared with anything"]
    parts = [part for part in (*reference.inputs, *reference.outputs) if part.kind == "number" and any(part.counts)]
    if parts:
        worst = max(parts, key=lambda part: least_claim(part, rules.ks))
        least = least_claim(worst, rules.ks)
        if least >= 1:
            told.append(
                f"the reference has {reference.rows:,} rows: no difference of numbers, however large, can be claimed"
            )
        elif least > 1.5 * rules.ks:
            told.append(
                f"the reference has {reference.rows:,} rows: of numbers like {worst.name} only KS distances above "
                f"{least:.2g} can be claimed to matter (above {rules.ks:g}); smaller ones go unnoticed"
            )
    small = [part.name for part in (*reference.inputs, *reference.outputs) if sum(cells(part)) in range(1, 100)]
    if small:
        shown = ", ".join(small[:5]) + (" …" if len(small) > 5 else "")
        told.append(f"fewer than 100 reference rows have a value here, so that bounds are wide: {shown}")
    skipped = [part.name for part in (*reference.inputs, *reference.outputs) if part.kind == "skipped"]
    if skipped:
        told.append(f"not profiled, so that nothing is known of them: {', '.join(skipped[:5])}")
    return told


def _share_missing(part: Counts | None) -> float:
    return part.missing / max(part.total, 1) if part is not None else 0.0


def _moved(part: Counts | None, seen: Counts | None) -> str:
    if part is None or seen is None:
        return ""
    if part.kind == "number":
        before, after = quantile(part, 0.5), quantile(seen, 0.5)
        if before is None or after is None or before == after:
            return ""
        return f": half of them are below {after:.4g}, and were below {before:.4g}"
    ours, theirs = cells(part), cells(seen)
    shares = [b / max(sum(theirs), 1) - a / max(sum(ours), 1) for a, b in zip(ours, theirs, strict=True)]
    at = max(range(len(part.values)), key=lambda i: abs(shares[i]), default=None)
    if at is None:
        return ""
    before, after = ours[at] / max(sum(ours), 1), theirs[at] / max(sum(theirs), 1)
    return f": “{part.values[at]}” is {after:.1%} of them, and was {before:.1%}"
