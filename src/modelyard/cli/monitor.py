"""monitor: what is known of a model's health, by what rules it is judged, and how well that works."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import quality, screen
from modelyard.cli.frame import Answer, Family, Usage, command

if TYPE_CHECKING:
    from modelyard.monitoring.report import Arm, Report
    from modelyard.registry.findings import Finding

EXAMPLES = """
modelyard monitor churn
modelyard monitor churn --hours 168 --html report.html
modelyard monitor churn --finding 12
modelyard monitor rules --set drift.ks=0.15
modelyard monitor selftest churn
"""

_BARS = "▁▂▃▄▅▆▇█"


class _Monitor(Family):
    """``modelyard monitor churn`` is ``modelyard monitor show churn``."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group("monitor", cls=_Monitor, examples=EXAMPLES)
def monitor() -> None:
    """Show drift, data quality, latency and findings of a model.

    Findings and alerts are made while `modelyard watch` runs; what is shown here is computed from what was recorded,
    whether it runs or not.
    """


@command(
    "show",
    examples="""
    modelyard monitor churn
    modelyard monitor churn --version 5 --hours 168 --html report.html
    modelyard monitor churn --finding 12
    """,
)
@click.argument("model")
@click.option("--version", default=None, metavar="NUMBER", help="One version only.")
@click.option("--hours", type=click.FloatRange(min=0.1, max=24 * 366), default=24.0, help="How far back to look.")
@click.option("--finding", type=int, default=None, metavar="NUMBER", help="Everything about one finding.")
@click.option("--html", type=click.Path(path_type=Path), default=None, help="Write a page that opens offline.")
@click.option("--multivariate", is_flag=True, help="Ask a classifier whether all inputs together changed.")
def show(
    model: str, version: str | None, hours: float, finding: int | None, html: Path | None, multivariate: bool
) -> Answer:
    """Show what is known of a model's health."""
    from modelyard import api

    if finding is not None:
        found = api.open_registry().findings.get(finding)
        return Answer(found, lambda: _show_finding(found))
    report = api.monitor(model, version=version, hours=hours, multivariate=multivariate)
    if html is not None:
        from modelyard.monitoring.page import page

        html.write_text(page(report), encoding="utf-8")
    return Answer(report, lambda: _show(report, html))


@command(
    "rules",
    examples="""
    modelyard monitor rules
    modelyard monitor rules --set drift.ks=0.15 --set latency.slower=1
    modelyard monitor rules churn --set drift.ignore=postcode,session
    modelyard monitor rules --set sinks.ops.kind=slack --set sinks.ops.url=env:SLACK_URL --set alerts.all.sinks=log,ops
    modelyard monitor rules --unset drift.ks
    """,
)
@click.argument("model", required=False, default="")
@click.option("--set", "put", multiple=True, metavar="RULE=VALUE", help="Change a rule; may be repeated.")
@click.option("--unset", "drop", multiple=True, metavar="RULE", help="Take a change back; may be repeated.")
@click.option("--why", default="", show_default=False, help="Kept in the history.")
def rules(model: str, put: tuple[str, ...], drop: tuple[str, ...], why: str) -> Answer:
    """Show or change by what findings and alerts are made.

    For all models, or for one. Secrets are named, not told: env:NAME or file:PATH, read where alerts are sent from.
    """
    from modelyard import api
    from modelyard.monitoring import rules as ruled

    database = api.open_registry().database
    if put or drop:
        given = {}
        for text in put:
            place, mark, value = text.partition("=")
            if not mark:
                raise Usage(f"--set {text}: expected RULE=VALUE", "modelyard monitor rules lists them")
            given[place.strip()] = value
        made = ruled.edit(database, model, put=given, drop=drop, why=why)
    else:
        made = ruled.load(database, model)
    told = ruled.shown_rules(made)
    changed = {*_places(ruled.changes(database)), *_places(ruled.changes(database, model))}

    def display() -> None:
        rows = [(place, value, "*" if place in changed else "") for place, value in _flat(told)]
        screen.table(("rule", "value", "changed"), rows)

    return Answer(told, display)


@command("selftest", examples="modelyard monitor selftest churn\nmodelyard monitor selftest churn --runs 50 --json")
@click.argument("model")
@click.option("--version", default=None, metavar="NUMBER", help="The version; the newest with traffic if not given.")
@click.option("--runs", type=click.IntRange(1, 10_000), default=20, help="How often each drift is tried.")
@click.option("--looks", type=click.IntRange(5, 10_000), default=60, help="Looks of each run.")
@click.option("--seed", type=int, default=0, help="The same seed gives the same figures.")
def selftest(model: str, version: str | None, runs: int, looks: int, seed: int) -> Answer:
    """Try the detectors on this model's own traffic: known drifts, and nothing at all.

    Says how many rows it takes until each drift is told, and how often nothing is taken for something. Nothing is
    written: it works on a copy of what was recorded, or on the reference where there is no traffic.
    """
    from modelyard import api
    from modelyard.monitoring.selftest import run

    with screen.progress("trying drifts") as tell:
        tried = run(api.open_registry(), model, version, runs=runs, looks=looks, seed=seed, progress=tell)

    def display() -> None:
        screen.say(tried.told)
        screen.say()
        screen.table(
            ("what was done", "to", "told", "as", "rows until then", "looks", "missed"),
            [(t.what, t.to, f"{t.found} of {t.runs}", t.named or "-", t.rows, t.looks, t.missed) for t in tried.trials],
        )
        screen.say()
        screen.say(tried.verdict)

    return Answer(tried, display)


for each in (show, rules, selftest):
    monitor.add_command(each)


def _show(report: Report, html: Path | None) -> None:
    for text in report.notes:
        screen.note(f"note: {text}")
    for arm in report.arms:
        _show_arm(report, arm)
    if report.quality is not None:
        screen.say()
        quality.show(report.quality)
    opened = [finding for finding in report.findings if finding.closed is None]
    screen.say(f"\nopen findings: {len(opened)}" + ("" if opened else " (none)"))
    if opened:
        screen.table(
            ("finding", "version", "kind", "since", "what"),
            [(f.id, _where(f), f.kind, _moment(f.opened), f.told) for f in opened],
        )
    for name, budget in report.budgets.items():
        burns = ", ".join(f"{_minutes(int(m))}: {burn:.3g}" for m, burn in budget["burn"].items())
        screen.say(f"budget of {name} ({budget['objective']:.3%} over {budget['days']} days), times as fast: {burns}")
    if report.multivariate is not None:
        screen.say(report.multivariate.get("told") or report.multivariate["lacking"])
        if "inputs" in report.multivariate:
            screen.table(("input", "AUC worse by"), list(report.multivariate["inputs"].items()))
    if html is not None:
        screen.say(f"written to {html}")


def _show_arm(report: Report, arm: Arm) -> None:
    name = f"{report.model}:{arm.version}" if arm.version else report.model
    lost = f", {arm.lost:,} not recorded" if arm.lost else ""
    screen.say(
        f"{name}{f' ({arm.arm})' if arm.arm else ''}: {screen.count(arm.rows, 'row')}, "
        f"{screen.count(arm.requests, 'request')}, {arm.failed:,} failed{lost}, "
        f"{_moment(arm.since)} to {_moment(arm.until)}"
    )
    for text in arm.limits:
        screen.say(f"what cannot be claimed: {text}")
    if arm.foreign:
        screen.say(f"{arm.foreign} windows were counted on other bins and are not compared")
    shown = [feature for feature in arm.features if feature.value is not None]
    if shown:
        screen.table(
            ("feature", "measure", "effect", "95% interval", "matters at", "chance", "PSI", "over time", "now"),
            [
                (
                    f.name, f.measure, round(f.value or 0.0, 4), f"{f.low:.3f} to {f.high:.3f}", f.floor,
                    _critical(f, f.measure), _critical(f, "psi", value=True), spark(f.line, f.floor),
                    ", ".join(f.open) or ("matters" if (f.low or 0.0) > f.floor else ""),
                )
                for f in shown
            ],
        )  # fmt: skip
    if arm.latency:
        rows = [(stage, *(_ms(found[q]) for q in ("p50", "p95", "p99"))) for stage, found in arm.latency.items()]
        screen.table(("stage", "p50 ms", "p95 ms", "p99 ms"), rows)
        line = arm.latency_line.get("p95", [])
        screen.say(
            f"p95 over time  {spark(line)}" + (f"  changed at {_moment(arm.changes[-1])}" if arm.changes else "")
        )


def _show_finding(finding: Finding) -> None:
    from modelyard.monitoring.words import expectation, rests_on

    evidence = finding.evidence
    screen.say(finding.told)
    screen.pairs([
        ("finding", finding.id), ("model", f"{finding.model}:{finding.version}"), ("arm", finding.arm),
        ("kind", finding.kind), ("subject", finding.subject), ("severity", finding.severity),
        ("opened", _moment(finding.opened)), ("closed", _moment(finding.closed) if finding.closed else "still open"),
        ("why", finding.why), ("evidence", rests_on(evidence)), ("false alarms", expectation(finding)),
        ("rows from", f"{_moment(evidence.since)} to {_moment(evidence.until)}"),
        ("windows", f"{evidence.windows[0]} to {evidence.windows[1]}" if any(evidence.windows) else ""),
        ("seen last", rests_on(finding.latest) if finding.latest else ""),
    ])  # fmt: skip
    distances = evidence.more.get("distances")
    if distances:
        rows = [(name, d["value"], d["critical"], d.get("p")) for name, d in distances.items()]
        screen.table(("distance", "value", "chance exceeds 1 in 20", "p"), rows)
    texts = evidence.more.get("texts")
    if texts:
        screen.table(("text", "times"), list(texts.items()))


def spark(values: Sequence[float | None], floor: float | None = None) -> str:
    """A line of values as bars; what is not known is a dot. ``floor``: what a full bar stands for at least."""
    known = [value for value in values if value is not None]
    most = max([*known, floor or 0.0], default=0.0)
    if not known or most <= 0:
        return "·" * len(values)
    return "".join("·" if v is None else _BARS[min(7, int(8 * max(v, 0.0) / most))] for v in values)


def _critical(feature: Any, name: str, *, value: bool = False) -> str:
    found = feature.distances.get(name)
    if found is None:
        return "-"
    return f"{found.value:.3f} ({found.critical:.3f})" if value else f"{found.critical:.3f}"


def _flat(told: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in told.items():
        place = f"{before}{name}"
        rows += _flat(value, f"{place}.") if isinstance(value, dict) else [(place, value)]
    return rows


def _places(changed: dict[str, Any]) -> set[str]:
    return {place for place, _ in _flat(changed)}


def _where(finding: Finding) -> str:
    return finding.version + (f" {finding.arm}" if finding.arm else "")


def _moment(moment: str) -> str:
    return moment[:16].replace("T", " ") + "Z"


def _minutes(minutes: int) -> str:
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"
