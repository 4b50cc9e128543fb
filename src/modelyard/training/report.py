"""The report as one page that needs nothing from outside. Every name and value that came with the data is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard import pages
from modelyard.charts import Plot, number, score, short
from modelyard.pages import interval, line, section
from modelyard.schema import Array
from modelyard.training.metrics import LOSSES, TITLES, Answers, Estimate, calibration, confusion, title_of
from modelyard.training.preprocess import kind_of
from modelyard.training.table import is_missing

if TYPE_CHECKING:
    from modelyard.training.study import Result

#: More columns, classes or points than these are not shown one by one.
MOST_COLUMNS, MOST_CLASSES, MOST_LINES, MOST_POINTS = 60, 15, 10, 1200


def overview(inputs: dict[str, Array]) -> list[dict[str, Any]]:
    """One row for each column: name, kind, share missing, and what it holds in words."""
    rows = []
    for name, values in inputs.items():
        gaps = is_missing(values)
        present = values[~gaps]
        rows.append({"name": name, "kind": kind_of(values), "missing": float(gaps.mean()), "holds": _holds(present)})
    return rows


def _holds(present: Array) -> str:
    if not len(present):
        return "nothing"
    if present.ndim > 1:
        return f"rows of shape {list(present.shape[1:])}"
    if present.dtype == object:
        known, counts = np.unique([str(v) for v in present.tolist()], return_counts=True)
        top = [short(str(known[i]), 24) for i in np.argsort(-counts, kind="stable")[:3]]
        return f"{len(known):,} different: {', '.join(top)}" + (" …" if len(known) > 3 else "")
    if present.dtype.kind == "M":
        return f"{str(present.min())[:16]} to {str(present.max())[:16]}".replace("T", " ")
    if present.dtype == bool:
        return f"true in {present.mean():.0%}"
    return (
        f"{number(float(present.min()))} to {number(float(present.max()))}, middle {number(float(np.median(present)))}"
    )


def page(result: Result, columns: Sequence[dict[str, Any]], truth: Array, answers: Answers) -> str:
    """The whole page."""
    title = f"{result.name or result.target}: {result.winner.family.title.lower()}"
    sections = [
        _head(result, len(truth)),
        _warnings(result),
        section("Candidates, compared by cross-validation", _leaderboard(result)),
        section("On held-out rows", _held_out(result)),
        _pictures(result, truth, answers),
        section("What the model looks at", _importance(result)),
        section("The columns", _columns(result, columns)),
        section("How it was made", _made(result)),
    ]
    return pages.page(title, sections)


def _head(result: Result, held_out: int) -> str:
    rows = result.metrics["rows"]
    names = ("roc_auc", "accuracy", "f1", "log_loss") if result.classes else ("r2", "rmse", "mae")
    cards = "".join(
        f'<div class="card"><span>{escape(title_of(name, result.classes))}</span><b>{score(found.value)}</b>'
        f"<span>{score(found.low)} to {score(found.high)}</span></div>"
        for name in names
        for found in [result.judgement.estimates[name]]
    )
    verdict = (
        "clearly better than always guessing the same"
        if result.judgement.beats_baseline
        else "not clearly better than always guessing the same"
    )
    heading = f"Predicting {escape(result.target)}"
    if result.name:
        heading = f"{escape(result.name)}: predicting {escape(result.target)}"
    return (
        f"<h1>{heading}</h1>"
        f'<p class="soft">{escape(result.task.capitalize())}. {escape(result.winner.family.title)} won; it is '
        f"{verdict}. Learnt from {rows['learnt_from']:,} rows, judged on {held_out:,} others.</p>"
        f'<div class="cards">{cards}</div>'
    )


def _warnings(result: Result) -> str:
    if not result.warnings:
        return ""
    return f'<div class="warn"><ul>{"".join(f"<li>{escape(w)}</li>" for w in result.warnings)}</ul></div>'


def _leaderboard(result: Result) -> str:
    board = result.leaderboard
    tried = [row for row in board if row["mean"] is not None]
    low = min(row["mean"] - row["spread"] for row in tried)
    high = max(row["mean"] + row["spread"] for row in tried)
    better = "less is better" if result.metric in LOSSES else "more is better"
    lines = [line(["Model", f"#{TITLES[result.metric]}", "#± folds", f"{better}", "#Seconds", "Remarks"], "th")]
    for row in board:
        notes = escape("; ".join(row["notes"]))
        if row["mean"] is None:
            lines.append(line([escape(row["title"]), "#–", "#–", "", "#–", f"left out: {notes}"]))
            continue
        mean, spread = row["mean"], row["spread"]
        track = interval(mean - spread, mean + spread, mean, low, high)
        lines.append(
            line(
                [
                    escape(row["title"]),
                    f"#{score(mean)}",
                    f"#{score(spread)}",
                    track,
                    f"#{row['seconds']:.1f}",
                    notes,
                ],
                style="won" if row["name"] == result.family else "",
            )
        )
    return f"<table>{''.join(lines)}</table>"


def _held_out(result: Result) -> str:
    lines = [line(["Metric", "#Value", "#95% interval", "", "#Baseline"], "th")]
    for name, found in result.judgement.estimates.items():
        if name == "f1_macro" and result.classes and len(result.classes) > 2:
            continue  # the same as f1
        ends = [v for v in (found.low, found.high, found.baseline, found.value) if np.isfinite(v)]
        start, end = min(*ends, 0.0) if name in LOSSES else min(ends), max(ends)
        if name not in LOSSES and name != "r2":
            start, end = 0.0, 1.0
        track = interval(found.low, found.high, found.value, start, end, found.baseline)
        title = escape(title_of(name, result.classes))
        lines.append(line([title, f"#{score(found.value)}", f"#{_span(found)}", track, f"#{score(found.baseline)}"]))
    table = f"<table>{''.join(lines)}</table>"
    note = (
        '<p class="soft">Blue: the model and its 95% interval over resampled rows. Red: the baseline, which always '
        f"guesses {'the most common class' if result.classes else 'the mean'}. The model was fitted on the other rows "
        "only: these figures are those of the very model in the bundle.</p>"
    )
    return table + note + _per_class(result)


def _span(found: Estimate) -> str:
    return f"{score(found.low)} – {score(found.high)}"


def _per_class(result: Result) -> str:
    each = result.judgement.per_class
    if not each or len(each) > 40:
        return ""
    lines = [line(["Class", "#Precision", "#", "#Recall", "#", "#F1", "#"], "th")]
    for label, found in each.items():
        cells = [escape(label)]
        for name in ("precision", "recall", "f1"):
            cells += [f"#{score(found[name].value)}", f'#<span class="soft">{_span(found[name])}</span>']
        lines.append(line(cells))
    return f'<table style="margin-top:14px">{"".join(lines)}</table>'


def _pictures(result: Result, truth: Array, answers: Answers) -> str:
    if result.classes is None:
        pictures = [("Predicted against true", _scatter(truth, answers.predicted))]
        pictures.append(("Errors: predicted less true", _errors(truth, answers.predicted)))
    else:
        pictures = [("ROC curve", _roc(truth, answers, result.classes))]
        pictures.append(("Calibration", _calibration(truth, answers, result.classes)))
        if len(result.classes) <= MOST_CLASSES:
            pictures.insert(0, ("Confusion matrix", _confusion(truth, answers.predicted, result.classes)))
    wide = "card wide" if result.classes and len(result.classes) > 4 else "card"
    cards = "".join(
        f'<div class="{wide if title == "Confusion matrix" else "card"}"><h3>{title}</h3>{body}</div>'
        for title, body in pictures
    )
    return f'<h2>Pictures of the held-out rows</h2><div class="two">{cards}</div>'


def _confusion(truth: Array, predicted: Array, classes: Sequence[Any]) -> str:
    counts = confusion(truth, predicted, classes)
    names = [escape(short(str(label), 18)) for label in classes]
    head = "<tr><th></th>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    body = ""
    for i, row in enumerate(counts):
        total = sum(row) or 1
        cells = "".join(
            f'<td class="cell" style="background: color-mix(in srgb, var(--{"blue" if i == j else "red"}) '
            f'{round(72 * count / total)}%, transparent)">{count:,}</td>'
            for j, count in enumerate(row)
        )
        body += f"<tr><th>{names[i]}</th>{cells}</tr>"
    return (
        f'<table class="matrix">{head}{body}</table>'
        '<p class="soft">A row for each true class, a column for each predicted one; coloured by share of the row.</p>'
    )


def _roc(truth: Array, answers: Answers, classes: Sequence[Any]) -> str:
    assert answers.probabilities is not None
    plot = Plot((0, 1), (0, 1), "false alarms", "hits", "ROC curve")
    plot.line([0, 1], [0, 1], "even")
    shown = [1] if len(classes) == 2 else list(range(len(classes)))[:MOST_LINES]
    for n, i in enumerate(shown):
        positive = np.array([value == classes[i] for value in truth.tolist()])
        order = np.argsort(-answers.probabilities[:, i], kind="stable")
        scores = answers.probabilities[order, i]
        ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))
        hits = np.cumsum(positive[order])[ends] / max(positive.sum(), 1)
        alarms = np.cumsum(~positive[order])[ends] / max((~positive).sum(), 1)
        if len(ends) > 400:
            few = np.unique(np.linspace(0, len(ends) - 1, 400).astype(int))
            hits, alarms = hits[few], alarms[few]
        plot.line([0.0, *alarms.tolist()], [0.0, *hits.tolist()], f"l{n}", str(classes[i]))
    if len(shown) > 1:
        plot.key([(f"l{n}", str(classes[i])) for n, i in enumerate(shown)])
    of = f"of {classes[1]}" if len(classes) == 2 else "of each class against the others"
    return plot.svg() + f'<p class="soft">{escape(of)}. The dashed line is guessing.</p>'


def _calibration(truth: Array, answers: Answers, classes: Sequence[Any]) -> str:
    groups = calibration(truth, answers, classes)
    plot = Plot((0, 1), (0, 1), "probability that the model said", "share that came true", "Calibration")
    plot.line([0, 1], [0, 1], "even")
    said, true = [g["said"] for g in groups], [g["true"] for g in groups]
    plot.line(said, true, "l0")
    plot.points(said, true, "knot", 3.5)
    of = f"of {classes[1]}" if len(classes) == 2 else "of the class it chose"
    each = int(min(g["rows"] for g in groups))
    return (
        plot.svg()
        + f'<p class="soft">{escape(of)}; each point is at least {each} rows. On the dashed line it is right.</p>'
    )


def _scatter(truth: Array, predicted: Array) -> str:
    low, high = float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))
    plot = Plot((low, high), (low, high), "true", "predicted", "Predicted against true")
    step = max(1, -(-len(truth) // MOST_POINTS))
    plot.points(truth[::step].tolist(), predicted[::step].tolist(), "dot")
    plot.line([low, high], [low, high], "even")
    return plot.svg() + '<p class="soft">On the dashed line it is right.</p>'


def _errors(truth: Array, predicted: Array) -> str:
    errors = predicted - truth
    reach = float(np.quantile(np.abs(errors), 0.995)) or 1.0
    counts, edges = np.histogram(np.clip(errors, -reach, reach), bins=41, range=(-reach, reach))
    plot = Plot((-reach, reach), (0, float(counts.max())), "predicted less true", "rows", "Errors")
    plot.bars(edges.tolist(), counts.tolist(), "bar")
    middle = number(float(np.median(np.abs(errors))))
    return plot.svg() + (
        f'<p class="soft">Half of the predictions are off by {middle} or less, up or down. '
        "The ends hold all beyond.</p>"
    )


def _importance(result: Result) -> str:
    if not result.importance:
        return ""
    shown = list(result.importance.items())[:20]
    most = max(1e-12, *(value for _, value in shown))
    lines = [line(["Column", f"#{TITLES[result.metric]} worse by", ""], "th")]
    for name, value in shown:
        width = max(0.0, 200 * value / most)
        bar = (
            '<svg class="track" viewBox="0 0 200 16" preserveAspectRatio="none">'
            f'<rect class="bar" x="0" y="3" width="{width:.1f}" height="10" rx="2"/></svg>'
        )
        lines.append(line([escape(name), f"#{score(value)}", bar]))
    rest = len(result.importance) - len(shown)
    return (
        f'<p class="soft">How much worse {TITLES[result.metric]} gets when a column is shuffled among held-out rows'
        f"{f'; {rest} columns that matter less are not shown' if rest else ''}.</p><table>{''.join(lines)}</table>"
    )


def _columns(result: Result, columns: Sequence[dict[str, Any]]) -> str:
    found = {finding.column: finding for finding in result.findings}
    # first those with something to say
    ordered = sorted(columns, key=lambda row: row["name"] not in found)
    lines = [line(["Column", "Kind", "#Missing", "Holds", "Remarks"], "th")]
    for row in ordered[:MOST_COLUMNS]:
        finding = found.get(row["name"])
        name = escape(row["name"])
        if finding and finding.dropped:
            name = f'<span class="out">{name}</span>'
        missing = f"{row['missing']:.1%}" if row["missing"] else "–"
        remark = escape(finding.detail + (" (left out)" if finding.dropped else "")) if finding else ""
        lines.append(line([name, row["kind"], f"#{missing}", escape(row["holds"]), remark]))
    rest = len(columns) - MOST_COLUMNS
    more = f'<p class="soft">and {rest:,} more</p>' if rest > 0 else ""
    return f"<table>{''.join(lines)}</table>{more}"


def _made(result: Result) -> str:
    facts = result.provenance
    lines = [
        line([escape(name), f"<code>{escape(str(facts[key]))}</code>"])
        for name, key in (
            ("Data", "data"), ("Digest of the data", "data_digest"), ("Rows in the data", "data_rows"),
            ("Seed", "seed"), ("Folds", "folds"), ("Columns left out on request", "exclude"),
        )
        if facts.get(key) not in (None, [], "")
    ]  # fmt: skip
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    lines.append(line(["Made with", escape(libraries)]))
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    return f"<ul>{notes}</ul><table style='margin-top:10px'>{''.join(lines)}</table>"
