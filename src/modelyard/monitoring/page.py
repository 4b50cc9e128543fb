"""The report as one page that opens offline. Every name and value that came with the data is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from modelyard import pages
from modelyard.charts import Plot, number, short
from modelyard.monitoring.features import Feature
from modelyard.monitoring.looks import seconds_between
from modelyard.monitoring.report import Arm, Report
from modelyard.monitoring.words import MEASURES, chance, expectation, rests_on
from modelyard.pages import interval, line, section
from modelyard.registry.findings import Finding

#: Features that get a picture of their own, and rows of the table.
PICTURES, MOST = 12, 200

_TITLES = {
    "psi": "PSI", "js": "Jensen-Shannon", "chi2": "chi-square", "ks": "KS", "wasserstein": "Wasserstein (sd)",
}  # fmt: skip


def page(report: Report) -> str:
    """The whole page."""
    sections = [_head(report), _notes(report), section("Open findings", _findings(report.findings))]
    for arm in report.arms:
        name = f"version {arm.version or '–'}" + (f", {arm.arm}" if arm.arm else "")
        sections += [
            section(f"Features of {name}", _features(arm)),
            _pictures(arm, name),
            section(f"Latency of {name}", _latency(report, arm)),
        ]
    sections += [
        section("Error budgets", _budgets(report)),
        section("Findings that are over", _findings([f for f in report.findings if f.closed])),
        section("All inputs together", _multivariate(report)),
    ]
    return pages.page(f"{report.model}: monitoring", sections)


def _head(report: Report) -> str:
    rows, requests = sum(arm.rows for arm in report.arms), sum(arm.requests for arm in report.arms)
    failed, lost = sum(arm.failed for arm in report.arms), sum(arm.lost for arm in report.arms)
    cards = [
        ("Open findings", str(sum(f.closed is None for f in report.findings)), f"{len(report.alerts)} open alerts"),
        ("Rows", f"{rows:,}", f"{lost:,} not recorded" if lost else "all recorded"),
        ("Requests", f"{requests:,}", f"{failed:,} failed"),
        ("Versions and arms", str(len(report.arms)), ", ".join(_name(arm) for arm in report.arms) or "none"),
    ]
    made = "".join(
        f'<div class="card"><span>{escape(title)}</span><b>{escape(value)}</b><span>{escape(more)}</span></div>'
        for title, value, more in cards
    )
    return (
        f"<h1>{escape(report.model)}: monitoring</h1>"
        f'<p class="soft">From {_moment(report.since)} to {_moment(report.until)} (UTC).</p>'
        f'<div class="cards">{made}</div>'
    )


def _notes(report: Report) -> str:
    told = [*report.notes, *(f"{_name(arm)}: {limit}" for arm in report.arms for limit in arm.limits)]
    told += [f"{_name(arm)}: {arm.foreign} windows were counted on other bins" for arm in report.arms if arm.foreign]
    if not told:
        return ""
    return f'<div class="warn"><ul>{"".join(f"<li>{escape(note)}</li>" for note in told)}</ul></div>'


def _findings(findings: Sequence[Finding]) -> str:
    shown = [f for f in findings if f.closed is None] or [f for f in findings if f.closed]
    if not shown:
        return ""
    lines = [line(["Kind", "What", "Since", "Evidence"], "th")]
    for finding in shown[:MOST]:
        over = f"<br>over {_moment(finding.closed)}: {escape(finding.why)}" if finding.closed else ""
        where = f"version {finding.version}" + (f", {finding.arm}" if finding.arm else "")
        evidence = f"{rests_on(finding.evidence)}. {expectation(finding).capitalize()}."
        lines.append(
            line([
                f"{escape(finding.kind)}<br><span class='soft'>{escape(finding.severity)}</span>",
                f"<b>{escape(finding.told)}</b><br><span class='soft'>finding {finding.id}, {escape(where)}</span>",
                f"{_moment(finding.opened)}{over}", f"<span class='soft'>{escape(evidence)}</span>",
            ])
        )  # fmt: skip
    return f"<table>{''.join(lines)}</table>"


def _features(arm: Arm) -> str:
    shown = [feature for feature in arm.features if feature.value is not None]
    if not shown:
        return ""
    most = max(max(f.high or 0, f.floor) / f.floor for f in shown)
    lines = [line(["Feature", "Effect", "#Value", "#95% interval", "", "Distances", "Over time", "Now"], "th")]
    for feature in shown[:MOST]:
        value, low, high = feature.value or 0.0, feature.low or 0.0, feature.high or 0.0
        floor = feature.floor
        track = interval(low / floor, high / floor, value / floor, 0.0, min(most, 10.0), 1.0)
        name = f"{escape(feature.name)}<br><span class='soft'>{feature.side}, {feature.live:,} rows</span>"
        now = ", ".join(feature.open) or ("matters" if low > feature.floor else "")
        lines.append(
            line([
                name, MEASURES[feature.measure], f"#{value:.3f}", f"#{low:.3f} – {high:.3f}", track,
                f"<span class='soft'>{_distances(feature)}</span>", _spark(feature), f"<b>{escape(now)}</b>",
            ], style="won" if feature.open else "")
        )  # fmt: skip
    rest = len(shown) - MOST
    return (
        f"<table>{''.join(lines)}</table>"
        '<p class="soft">Blue: the effect and its 95% interval, which carries the size of the reference; red: what '
        "matters. Distances are told with the value that chance exceeds once in twenty times at these sample sizes."
        f"{f' {rest} more features are not shown.' if rest > 0 else ''}</p>"
    )


def _distances(feature: Feature) -> str:
    return "<br>".join(
        f"{_TITLES[name]} {found.value:.3g} (chance {found.critical:.3g}{escape(chance(found.p))})"
        for name, found in feature.distances.items()
    )


def _spark(feature: Feature) -> str:
    points = [(i, value) for i, value in enumerate(feature.line) if value is not None]
    if len(points) < 2:
        return ""
    most = max(feature.floor, *(value for _, value in points))
    drawn = " ".join(f"{4 + 112 * i / (len(feature.line) - 1):.1f},{26 - 22 * v / most:.1f}" for i, v in points)
    floor = 26 - 22 * feature.floor / most
    return (
        '<svg viewBox="0 0 120 30" style="width:120px">'
        f'<line class="even" x1="4" x2="116" y1="{floor:.1f}" y2="{floor:.1f}"/>'
        f'<polyline class="l0" points="{drawn}"/></svg>'
    )


def _pictures(arm: Arm, name: str) -> str:
    shown = [feature for feature in arm.features if feature.cells and any(feature.shares[1])][:PICTURES]
    if not shown:
        return ""
    cards = "".join(f'<div class="card"><h3>{escape(f.name)}</h3>{_histograms(f)}</div>' for f in shown)
    return (
        f"<h2>Reference and live rows of {escape(name)}</h2>"
        f'<div class="two">{cards}</div><p class="soft">Grey: the reference; blue: live rows. Each bin of a number held'
        " about as many reference rows as the others; the outermost hold what lies beyond the reference's range.</p>"
    )


def _histograms(feature: Feature) -> str:
    ours, theirs = feature.shares
    most = max(*ours, *theirs)
    edges = [float(i) for i in range(len(ours) + 1)]
    title = "bin" if feature.kind == "number" else "text, most frequent first"
    plot = Plot((0, len(ours)), (0, most), title, "share of rows", feature.name)
    plot.bars(edges, ours, "bar less")
    plot.line([x + 0.5 for x in edges[:-1]], theirs, "l0", "live")
    middles = feature.middles
    told = ""
    if feature.kind == "number" and None not in middles:
        told = f"middle {number(middles[0] or 0.0)} in the reference, {number(middles[1] or 0.0)} live"
    elif feature.kind == "category":
        gaps = [b - a for a, b in zip(ours, theirs, strict=True)]
        at = max(range(len(gaps)), key=lambda i: abs(gaps[i]))
        told = f"{short(str(feature.cells[at]), 24)}: {ours[at]:.1%} in the reference, {theirs[at]:.1%} live"
    missing = f"; missing {feature.missing[0]:.1%}, live {feature.missing[1]:.1%}" if any(feature.missing) else ""
    return plot.svg() + f'<p class="soft">{escape(told + missing)}</p>'


def _latency(report: Report, arm: Arm) -> str:
    if not arm.latency:
        return ""
    lines = [line(["Stage", "#p50, ms", "#p95, ms", "#p99, ms"], "th")]
    for stage, found in arm.latency.items():
        lines.append(line([stage, *(f"#{1e3 * seconds:.3g}" for seconds in found.values())]))
    changed = f'<p class="soft">Changed at {", ".join(map(_moment, arm.changes))}.</p>' if arm.changes else ""
    return f"<table>{''.join(lines)}</table>{_time_line(report, arm)}{changed}"


def _time_line(report: Report, arm: Arm) -> str:
    values = [v for each in arm.latency_line.values() for v in each if v is not None]
    if sum(v is not None for v in arm.latency_line.get("p50", [])) < 2:
        return ""
    span = seconds_between(report.since, report.until) / 3600
    hours = span / len(report.times)
    plot = Plot((-span, 0), (0, 1e3 * max(values)), "hours ago", "ms, whole time", "Latency")
    names = []
    for n, (name, each) in enumerate(arm.latency_line.items()):
        points = [(-span + hours * i, 1e3 * v) for i, v in enumerate(each) if v is not None]
        plot.line([x for x, _ in points], [y for _, y in points], f"l{n}", name)
        names.append((f"l{n}", name))
    plot.key(names)
    return plot.svg()


def _budgets(report: Report) -> str:
    if not report.budgets:
        return ""
    lines = [line(["Objective", "#must hold", "#window", "#times as fast as allowed"], "th")]
    for name, found in report.budgets.items():
        for minutes, burn in found["burn"].items():
            lines.append(line([name, f"#{found['objective']:.3%}", f"#{_window(int(minutes))}", f"#{burn:.3g}"]))
    return f"<table>{''.join(lines)}</table>"


def _multivariate(report: Report) -> str:
    found = report.multivariate
    if not found:
        return ""
    if "lacking" in found:
        return f"<p>{escape(found['lacking'])}</p>"
    lines = [line(["Input", "#AUC worse by"], "th")]
    lines += [line([escape(name), f"#{value:.3f}"]) for name, value in found["inputs"].items()]
    return f"<p>{escape(found['told'])}</p><table>{''.join(lines)}</table>"


def _name(arm: Arm) -> str:
    return f"version {arm.version or '–'}" + (f" ({arm.arm})" if arm.arm else "")


def _moment(moment: str) -> str:
    return escape(moment[:16].replace("T", " "))


def _window(minutes: int) -> str:
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
