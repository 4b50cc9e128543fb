"""What labels say of a model, in print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard.cli import screen

if TYPE_CHECKING:
    from modelyard.monitoring.accuracy import Line, Quality, Report
    from modelyard.monitoring.scorecard import Metric


def show(report: Report) -> None:
    """All versions, and what is not told of them."""
    for number, quality in enumerate(report.versions):
        if number:
            screen.say()
        _show_version(report, quality)
    if report.versions:
        screen.say()
    show_delays(report)


def show_delays(report: Report) -> None:
    """How late labels come."""
    if report.ripe_after is not None:
        screen.say(f"predictions count {_duration(report.ripe_after)} after they were made")
    if report.unripe.rows:
        screen.say(
            f"left out, as labels are still to come: {report.unripe.rows:,} predictions of "
            f"{screen.count(report.unripe.hours, 'hour')}, {report.unripe.labelled:,} of them labelled"
        )
    shares = dict(zip(report.delays.seconds, report.delays.shares, strict=True))
    steps = [(s, share) for s, share in shares.items() if share > 0.005]
    shown = [step for i, step in enumerate(steps) if i == 0 or step[1] - steps[i - 1][1] >= 0.005][:14]
    if shown:
        screen.table(("labels that come within", "share"), [(_duration(s), f"{share:.1%}") for s, share in shown])
    for note in report.notes:
        screen.note(f"note: {note}")


def _show_version(report: Report, quality: Quality) -> None:
    from modelyard.monitoring.expectation import TITLE

    name = f"{report.model}:{quality.version}"
    if quality.whole is None:
        screen.say(f"{name}: no predictions that have their labels")
    else:
        whole = quality.whole
        screen.say(f"{name}: {whole.labelled:,} of {whole.rows:,} predictions labelled, {whole.since} to {whole.until}")
        rows = []
        for metric, found in whole.metrics.items():
            trained, verdict = quality.trained.get(metric, {}), whole.verdicts.get(metric, "")
            then = trained.get("value"), _between(trained.get("low"), trained.get("high"))
            rows.append((metric, found.value, _interval(found), *then, verdict))
        screen.table(("metric", "value", "95% interval", "at training", "95% interval", ""), rows)
    _show_lines("arm", [(line.arm or "-", line) for line in quality.arms])
    _show_lines("segment", [(line.segment, line) for line in quality.segments])
    kept = quality.contradiction
    if kept is not None:
        screen.say(
            f"labels beside what scores promised: {kept.accuracy:.1%} right, {kept.expected:.1%} {TITLE} (difference "
            f"{kept.low:+.1%} to {kept.high:+.1%}; {kept.rows:,} labels, learned from {kept.learned_from:,} others)"
        )
    expected = quality.expected
    if expected is not None and expected.accuracy is not None:
        basis = expected.learned_from
        read = f"as the first {basis:,} labels read scores" if basis else "by scores as they are"
        screen.say(
            f"{expected.rows:,} predictions whose labels are still to come: {expected.accuracy:.1%} right {TITLE}, "
            f"{read}; this is no accuracy"
        )


def _show_lines(what: str, lines: Sequence[tuple[str, Line]]) -> None:
    if not lines:
        return
    metrics = [name for name in ("accuracy", "f1", "roc_auc", "r2", "mae") if name in lines[0][1].metrics]
    screen.table(
        (what, "labelled", *(word for name in metrics for word in (name, "95% interval"))),
        [
            (
                name,
                line.labelled,
                *(word for m in metrics for word in (line.metrics[m].value, _interval(line.metrics[m]))),
            )
            for name, line in lines
        ],
    )


def _interval(metric: Metric) -> str:
    return _between(metric.low, metric.high)


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            number = seconds / size
            return f"{number:g} {unit}{'' if number == 1 else 's'}"
    return f"{seconds:g} seconds"
