"""Everything that is known of one model's health, computed from rows when somebody asks. Nothing here decides."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.errors import ModelyardError, NotFound
from modelyard.monitoring import accuracy, budget, latency, words
from modelyard.monitoring.features import Feature, features_of
from modelyard.monitoring.looks import has_bins_of, pool
from modelyard.monitoring.rules import Rules, load
from modelyard.monitoring.turn import unpack_state
from modelyard.monitoring.watch import Alive
from modelyard.profile import Profile
from modelyard.registry import states
from modelyard.registry.alerts import Alert
from modelyard.registry.findings import Finding
from modelyard.registry.leases import CONTROL
from modelyard.registry.records import now, stamp
from modelyard.registry.stages import STAGES, quantile_of
from modelyard.registry.windows import Counted, Window, bins_of, profile_of

if TYPE_CHECKING:
    from modelyard.registry import Registry

#: Points of a time line, and windows that are looked at.
POINTS, MOST_WINDOWS = 24, 100_000
#: Seconds without a sign after which the loop counts as gone.
GONE_SECONDS = 20.0


class Arm(msgspec.Struct, kw_only=True):
    """One arm of a version."""

    version: str
    arm: str
    since: str
    until: str
    windows: int
    requests: int
    rows: int
    failed: int
    invalid: int
    lost: int
    codes: dict[str, int]
    #: Windows that were counted on other bins than those of the reference, which are not compared.
    foreign: int = 0
    features: list[Feature] = []
    #: Seconds by stage and quantile, and over time.
    latency: dict[str, dict[str, float]] = {}
    latency_line: dict[str, list[float | None]] = {}
    #: The 95th percentile of each stage over time.
    stage_lines: dict[str, list[float | None]] = {}
    changes: list[str] = []
    #: What this version's reference does not allow to claim.
    limits: list[str] = []


class Report(msgspec.Struct, kw_only=True):
    """Everything. Times of lines are the beginnings of their points."""

    model: str
    made: str
    since: str
    until: str
    times: list[str]
    arms: list[Arm]
    findings: list[Finding]
    alerts: list[Alert]
    #: Of each objective its budget and, by the minutes of a window, how fast it is used.
    budgets: dict[str, dict[str, Any]] = {}
    loop: dict[str, Any] = {}
    #: What labels say of it; None where none came.
    quality: accuracy.Report | None = None
    notes: list[str] = []
    #: What a classifier says, where it was asked (see ``multivariate``).
    multivariate: dict[str, Any] | None = None


def report(registry: Registry, model: str, version: str | None = None, *, hours: float = 24.0) -> Report:
    """The last hours of a model, and what was found of it. Raises NotFound for a model of which there is nothing."""
    known = [each for name, each in registry.windows.models() if name == model]
    if not known and model not in registry.models():
        raise NotFound.among("model", model, {*registry.models(), *(name for name, _ in registry.windows.models())})
    if version is not None and version not in known:
        raise NotFound.among(f"version of {model} with recorded traffic", version, known)
    rules = load(registry.database, model)
    end = dt.datetime.now(dt.UTC)
    start = end - dt.timedelta(hours=hours)
    windows = registry.windows.find(model, version, since=stamp(start), most=MOST_WINDOWS)
    times = [stamp(start + (end - start) / POINTS * i) for i in range(POINTS)]
    found = registry.findings.find(model, version, since=stamp(start))
    loop = loop_of(registry)
    made = Report(
        model=model, made=now(), since=stamp(start), until=stamp(end), times=times, arms=[],
        findings=[finding for finding in found if finding.closed is None or finding.closed > stamp(start)],
        alerts=registry.alerts.find(model, is_open=True), budgets=budgets_of(registry, model, rules), loop=loop,
    )  # fmt: skip
    groups: dict[tuple[str, str], list[Window]] = {}
    for window in windows:
        groups.setdefault((window.version, window.arm), []).append(window)
    references = {each: reference_of(registry, model, each, made.notes) for each in {key[0] for key in groups}}
    for (number, arm), group in sorted(groups.items(), key=lambda item: (_number(item[0][0]), item[0][1])):
        made.arms.append(_arm(number, arm, group, references[number], rules, times, made.findings))
    for each in made.arms:
        text = states.get(registry.database, "monitor", model, each.version)
        each.changes = _changes(text, each.arm)
    if model in registry.labels.models() and model in registry.models():
        made.quality = accuracy.report(registry, model, version, rules=rules.accuracy)
    if len(windows) == MOST_WINDOWS:
        made.notes.append(f"only the first {MOST_WINDOWS:,} windows are told: look at fewer hours")
    if not windows:
        made.notes.append(
            f"no predictions were recorded in the last {hours:g} hours"
            + ("" if known else f"; `modelyard serve {model}` does that")
        )
    if not loop.get("alive"):
        made.notes.append("nobody watches: findings and alerts are made while `modelyard watch` runs")
    return made


def reference_of(registry: Registry, model: str, version: str, notes: list[str]) -> Profile | None:
    """The reference profile of a version; None and a note where there is none."""
    if not version:
        notes.append(f"{model} was served from a path: its reference is not in the registry, so nothing is compared")
        return None
    try:
        profile = registry.fetch(registry.resolve(f"{model}:{version}")).profile()
    except ModelyardError as error:
        notes.append(f"version {version} cannot be compared with its reference: {error.message}")
        return None
    return profile if profile.inputs else None


def loop_of(registry: Registry) -> dict[str, Any]:
    """Whether somebody watches, who, and how far behind it is."""
    text = states.get(registry.database, "loop")
    if text is None:
        return {"alive": False}
    alive = msgspec.json.decode(text, type=Alive)
    silent = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(alive.moment)).total_seconds()
    told: dict[str, Any] = msgspec.to_builtins(alive)
    is_held = registry.holder(CONTROL) == alive.holder
    return {**told, "silent": round(silent, 1), "alive": is_held and abs(silent) < GONE_SECONDS}


def budgets_of(registry: Registry, model: str, rules: Rules) -> dict[str, dict[str, Any]]:
    """How fast a model's budgets are used, over the windows that alerts go by."""
    text = states.get(registry.database, "budget", model)
    if text is None:
        return {}
    spent = msgspec.json.decode(text, type=budget.Spent)
    made: dict[str, dict[str, Any]] = {}
    asked = [("success", rules.budget.objective, "failed")]
    if rules.budget.slow_ms:
        asked.append(("speed", rules.budget.fast_objective, "slow"))
    for subject, objective, what in asked:
        burns = {}
        for minutes in sorted({*(b.long for b in budget.BURNS), *(b.short for b in budget.BURNS)}):
            seen = budget.sum_of(spent, minutes)
            if seen.requests:
                burns[str(minutes)] = getattr(seen, what) / seen.requests / (1 - objective)
        made[subject] = {"objective": objective, "days": rules.budget.days, "burn": burns}
    return made


def _arm(
    version: str, arm: str, windows: Sequence[Window], reference: Profile | None, rules: Rules, times: Sequence[str],
    found: Sequence[Finding],
) -> Arm:  # fmt: skip
    bins = bins_of(reference) if reference is not None else ""
    fits: list[list[Counted]] = [[] for _ in times]
    others: list[list[Counted]] = [[] for _ in times]
    for window in windows:
        is_fit = reference is not None and has_bins_of(reference, bins, window.counted)
        (fits if is_fit else others)[max(bisect_right(times, window.opened) - 1, 0)].append(window.counted)
    fitting = [pool(each) for each in fits]
    sums = [pool(map(_bare, (mine, *rest))) for mine, rest in zip(fitting, others, strict=True)]
    whole = pool(sums)
    made = Arm(
        version=version, arm=arm, since=min(w.opened for w in windows), until=max(w.closed for w in windows),
        windows=len(windows), requests=whole.requests, rows=whole.rows, failed=budget.failed_of(whole),
        invalid=whole.invalid, lost=whole.lost, codes=whole.codes,
        foreign=sum(each.rows > 0 for rest in others for each in rest) if reference is not None else 0,
    )  # fmt: skip
    for stage in STAGES:
        counts = whole.stages.get(stage, [])
        if sum(counts):
            made.latency[stage] = {name: quantile_of(counts, q) for name, q in latency.QUANTILES.items()}
    made.latency_line = {name: _line(sums, "total", q) for name, q in latency.QUANTILES.items()}
    made.stage_lines = {stage: _line(sums, stage, 0.95) for stage in made.latency if stage != "total"}
    if reference is None:
        return made
    made.limits = words.limits(reference, rules.drift)
    if any(each.rows for each in fitting):
        lives = [profile_of(reference, each) if each.rows else None for each in fitting]
        mine = [f for f in found if (f.version, f.arm) == (version, arm) and f.closed is None]
        made.features = features_of(reference, profile_of(reference, pool(fitting)), lives, rules.drift, mine)
    return made


def _line(sums: Sequence[Counted], stage: str, q: float) -> list[float | None]:
    counts = [each.stages.get(stage, []) for each in sums]
    return [quantile_of(each, q) if sum(each) else None for each in counts]


def _bare(counted: Counted) -> Counted:
    """All but what depends on bins."""
    return msgspec.structs.replace(counted, inputs=[], outputs=[], bins="")


def _changes(text: str | None, arm: str) -> list[str]:
    found = unpack_state(text).arms.get(arm)
    return found.latency.changes if found is not None else []


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
