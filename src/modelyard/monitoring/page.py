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
from modelyard.pages import interval, line, note, section, table
from modelyard.registry.findings import Finding

#: Features that get a picture of their own, and rows of a table.
PICTURES, MOST = 12, 200
#: Texts that have room below their bars.
_TEXTS = 5

_TITLES = {
    "psi": "PSI", "js": "Jensen-Shannon", "chi2": "chi-square", "ks": "KS", "wasserstein": "Wasserstein (sd)",
}  # fmt: skip


def page(report: Report) -> str:
    """The whole page."""
    is_open = [finding for finding in report.findings if finding.closed is None]
    nothing = '<p class="soft">None.</p>' if report.arms else ""
    sections = [_head(report), _notes(report), section("Open findings", _findings(is_open) or nothing)]
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
        (
            "Open findings",
            str(sum(f.closed is None for f in report.findings)),
            f"{len(report.alerts)} open alert{'' if len(report.alerts) == 1 else 's'}",
        ),
        ("Rows", f"{rows:,}", f"{lost:,} not recorded" if lost else "all recorded" if rows else "nothing recorded"),
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
    whose: dict[str, list[str]] = {}
    for arm in report.arms:
        for limit in (*arm.limits, *([f"{arm.foreign} windows were counted on other bins"] if arm.foreign else [])):
            whose.setdefault(limit, []).append(_name(arm))
    told = [*report.notes, *(f"{', '.join(names)}: {limit}" for limit, names in whose.items())]
    if not told:
        return ""
    return f'<div class="warn"><ul>{"".join(f"<li>{note(each)}</li>" for each in told)}</ul></div>'


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = []
    for finding in findings[:MOST]:
        since = f"<span class='day'>{_moment(finding.opened)}</span>"
        over = f"<br>over {_moment(finding.closed)}: {escape(finding.why)}" if finding.closed else ""
        where = f"version {finding.version}" + (f", {finding.arm}" if finding.arm else "")
        evidence = f"{rests_on(finding.evidence)}. {expectation(finding).capitalize()}."
        rows.append([
            f"{escape(finding.kind)} <span class='soft'>{escape(finding.severity)}</span>",
            f"<b>{escape(finding.told)}</b><br><span class='soft'>finding {finding.id}, {escape(where)}</span>",
            f"{since}{over}", f"<span class='soft'>{escape(evidence)}</span>",
        ])  # fmt: skip
    return table(["", "", "Since", "Evidence"], rows)


def _features(arm: Arm) -> str:
    shown = [feature for feature in arm.features if feature.value is not None]
    if not shown:
        return ""
    most = max(max(f.high or 0, f.floor) / f.floor for f in shown)
    rows = []
    for feature in shown[:MOST]:
        value, low, high, floor = feature.value or 0.0, feature.low or 0.0, feature.high or 0.0, feature.floor
        rows.append([
            f"{escape(feature.name)}<br><span class='soft day'>{feature.side}, {feature.live:,} rows</span>",
            MEASURES[feature.measure], f"#{value:.3f}", f"#{low:.3f} – {high:.3f}",
            interval(low / floor, high / floor, value / floor, 0.0, min(most, 10.0), 1.0), _distances(feature),
            _spark(feature), escape(", ".join(feature.open) or ("matters" if low > floor else "")),
        ])  # fmt: skip
    head = ["", "Effect", "#Value", "#95% interval", "", "Distances", "Over time", "Now"]
    kept = [i for i, _ in enumerate(head) if any(row[i] for row in rows)]
    head, rows = [head[i] for i in kept], [[row[i] for i in kept] for row in rows]
    rest = len(shown) - MOST
    return (
        f"{table(head, rows, [bool(feature.open) for feature in shown])}"
        '<p class="soft">Blue: the effect and its 95% interval, which carries the size of the reference; red: what '
        "matters. Distances are told with the value that chance exceeds once in twenty times at these sample sizes."
        f"{f' {rest} more features are not shown.' if rest > 0 else ''}</p>"
    )


def _distances(feature: Feature) -> str:
    told = [
        f"{_TITLES[name]} {found.value:.3g} (chance {found.critical:.3g}{escape(chance(found.p))})"
        for name, found in feature.distances.items()
    ]
    if not told:
        return ""
    rest = "".join(f"<div class='soft'>{each}</div>" for each in told)
    return f"<details><summary>{told[0].partition(' (')[0]}</summary>{rest}</details>"


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
    title = "value, at the reference's quantiles" if feature.kind == "number" else "text, most frequent first"
    plot = Plot((0, len(ours)), (0, most), title, "share of rows", feature.name, _places(feature))
    plot.bars(edges, ours, "bar less")
    steps = [x for edge in edges for x in (edge, edge)][1:-1]
    plot.line(steps, [y for value in theirs for y in (value, value)], "l0", "live")
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


def _places(feature: Feature) -> dict[float, str]:
    """What to write below the bars: some values between them, or the texts that they are of."""
    known = feature.cells
    if feature.kind == "category":
        return {i + 0.5: short(str(text), 9) for i, text in enumerate(known[:_TEXTS])}
    last = len(known) - 1
    return {at + 1.0: number(known[at]) for at in sorted({round(i * last / 3) for i in range(4)})}


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
    return f'<div class="plot">{plot.svg()}</div>'


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
