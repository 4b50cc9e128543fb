"""Everything that is known of one model's health, computed from rows when somebody asks. Nothing here decides."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.errors import ModelyardError, NotFound
from modelyard.monitoring import accuracy, budget, latency, words
from modelyard.monitoring.features import Feature, features_of
from modelyard.monitoring.looks import Look, has_bins_of
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
    fitting = [each for each in windows if reference is not None and has_bins_of(reference, bins, each.counted)]
    whole = _sum(windows)
    made = Arm(
        version=version, arm=arm, since=min(w.opened for w in windows), until=max(w.closed for w in windows),
        windows=len(windows), requests=whole.requests, rows=whole.rows, failed=budget.failed_of(whole),
        invalid=whole.invalid, lost=whole.lost, codes=whole.codes,
        foreign=sum(w.counted.rows > 0 for w in windows) - sum(w.counted.rows > 0 for w in fitting)
        if reference is not None else 0,
    )  # fmt: skip
    parted = [[w for w in windows if _at(times, w.opened) == i] for i in range(len(times))]
    for stage in STAGES:
        counts = whole.stages.get(stage, [])
        if sum(counts):
            made.latency[stage] = {name: quantile_of(counts, q) for name, q in latency.QUANTILES.items()}
    sums = [_sum(each) if each else Counted() for each in parted]
    made.latency_line = {name: _line(sums, "total", q) for name, q in latency.QUANTILES.items()}
    made.stage_lines = {stage: _line(sums, stage, 0.95) for stage in made.latency if stage != "total"}
    if reference is None:
        return made
    made.limits = words.limits(reference, rules.drift)
    rows = sum(w.counted.rows for w in fitting)
    if rows:
        fits = [[w for w in each if has_bins_of(reference, bins, w.counted)] for each in parted]
        lives = [profile_of(reference, _sum(each)) if any(w.counted.rows for w in each) else None for each in fits]
        mine = [f for f in found if (f.version, f.arm) == (version, arm) and f.closed is None]
        made.features = features_of(reference, profile_of(reference, _sum(fitting)), lives, rules.drift, mine)
    return made


def _line(sums: Sequence[Counted], stage: str, q: float) -> list[float | None]:
    counts = [each.stages.get(stage, []) for each in sums]
    return [quantile_of(each, q) if sum(each) else None for each in counts]


def _sum(windows: Sequence[Window]) -> Counted:
    look = Look.of(windows[0])
    for window in windows[1:]:
        look = look.plus(Look.of(window)) if look.counted.fits(window.counted) else look
    return look.counted


def _at(times: Sequence[str], moment: str) -> int:
    """The point of a time line in which a moment lies."""
    return max((i for i, start in enumerate(times) if start <= moment), default=0)


def _changes(text: str | None, arm: str) -> list[str]:
    found = unpack_state(text).arms.get(arm)
    return found.latency.changes if found is not None else []


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
