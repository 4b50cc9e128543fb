"""One training run: read, guard, compare, fit, judge, report."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, MissingDependency, Problem
from modelyard.schema import Array
from modelyard.training import candidates as kinds
from modelyard.training.importance import importance
from modelyard.training.leakage import Finding, guard
from modelyard.training.metrics import LOSSES, TITLES, Judgement, check_metric, default_metric, judge, title_of
from modelyard.training.preprocess import frame_of, kind_of
from modelyard.training.report import overview, page
from modelyard.training.search import Progress, Trial, answers_of, quiet, search, winner
from modelyard.training.table import Rows, rows_of


@dataclass
class Result:
    """What a training run gives.

    ``model`` is the fitted scikit-learn Pipeline, learnt from the training part alone, so that ``metrics`` speak of
    this very model. ``sample`` are held-out rows and ``reference`` the training rows, inputs only, for the bundle.
    """

    model: Any
    task: str
    target: str
    #: Short name of the family that won.
    family: str
    #: The metric that candidates were compared by.
    metric: str
    #: Everything measured, fit for JSON and the same for the same rows and seed.
    metrics: dict[str, Any]
    judgement: Judgement
    winner: Trial
    trials: list[Trial]
    findings: list[Finding]
    notes: list[str]
    warnings: list[str]
    sample: dict[str, Array]
    reference: dict[str, Array]
    provenance: dict[str, Any]
    classes: list[Any] | None = None
    #: Column -> how much the metric worsens when the column is shuffled.
    importance: dict[str, float] = field(default_factory=dict)
    report_html: str = ""
    #: What the model will be called, for the report; empty where it has no name.
    name: str = ""

    @property
    def leaderboard(self) -> list[dict[str, Any]]:
        """One row for each candidate, the best first: name, title, mean and spread over the folds, seconds, notes."""
        tried = [trial for trial in self.trials if trial.scores]
        tried.sort(key=lambda t: t.mean(self.metric) * (1 if self.metric in LOSSES else -1))
        rows = [
            {
                "name": t.family.name,
                "title": t.family.title,
                "mean": t.mean(self.metric),
                "spread": t.spread(self.metric),
                "seconds": t.seconds,
                "notes": t.notes,
            }
            for t in tried
        ]
        return rows + [
            {"name": t.family.name, "title": t.family.title, "mean": None, "spread": None, "seconds": t.seconds,
             "notes": [t.skipped]}
            for t in self.trials if not t.scores
        ]  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """What a terminal shows: the leaderboard, the held-out metrics with intervals, notes and warnings."""
        return {
            "task": self.task,
            "target": self.target,
            "winner": self.family,
            "metric": self.metric,
            "leaderboard": self.leaderboard,
            "held_out": [
                {
                    "metric": title_of(name, self.classes),
                    "value": e.value,
                    "low": e.low,
                    "high": e.high,
                    "baseline": e.baseline,
                }
                for name, e in self.judgement.estimates.items()
            ],
            "findings": [str(finding) for finding in self.findings],
            "warnings": self.warnings,
            "notes": self.notes,
        }


def train(
    data: Any,
    target: str,
    *,
    name: str = "",
    task: str | None = None,
    seed: int = 0,
    folds: int = 5,
    candidates: Sequence[str] | str | None = None,
    metric: str | None = None,
    test_size: float = 0.2,
    max_rows: int | None = None,
    time_limit: float | None = None,
    exclude: Sequence[str] = (),
    keep: Sequence[str] = (),
    progress: Progress | None = None,
    report: bool = True,
    **reading: Any,
) -> Result:
    """Learn to predict ``target`` from the other columns of a table.

    The candidates (``linear``, ``tree``, ``svm``, ``forest``, ``boosting``, ``mlp``) are compared by
    cross-validation on the training part; the one with the best mean of ``metric`` is fitted on the whole training
    part and judged on the held-out rows, a share ``test_size`` of all. ``exclude`` names columns to leave out,
    ``keep`` columns to use although the leakage guard would drop them. ``reading`` (``encoding``, ``delimiter``,
    ``missing``, ``text``) says how to read a file; ``name`` is what the report calls the model. The same rows,
    options and seed give the same model, whatever else the machine does, unless ``time_limit`` (seconds) leaves
    candidates out.

    Raises NotFound for an unknown column, candidate or metric, InvalidInput for a table that cannot be learnt from and
    for an option out of its range.
    """
    families = kinds.chosen(candidates)
    _check(seed=seed, folds=folds, test_size=test_size, max_rows=max_rows, time_limit=time_limit)
    _need_libraries()
    rows = rows_of(data, target, task=task, seed=seed, max_rows=max_rows, exclude=exclude, progress=progress, **reading)
    classes = rows.classes if rows.is_classification else None
    metric = (
        check_metric(metric, classes is not None) if metric else default_metric(classes is not None, len(classes or ()))
    )
    columns = overview(rows.inputs) if report else []
    findings = guard(rows, target, keep=keep, seed=seed)
    dropped = {finding.column for finding in findings if finding.dropped}
    rows.inputs = {name: values for name, values in rows.inputs.items() if name not in dropped}
    if not rows.inputs:
        raise InvalidInput(
            f"no column is left to predict {target} from: {'; '.join(str(f) for f in findings[:5])}",
            hint="name the columns to keep although the guard drops them: --keep NAME",
        )
    learn, test = _split(rows, test_size, seed)
    inputs, targets = rows.take(learn), rows.targets[learn]
    with one_thread():
        trials = search(
            families, inputs, targets, classes, folds=folds, seed=seed, time_limit=time_limit, progress=progress
        )
    best = winner(trials, metric)
    if progress:
        progress(1, 1, f"fit {best.family.title}")
    warned: list[str] = []
    frame, held_out = frame_of(inputs), frame_of(rows.take(test))
    with one_thread(), quiet(warned):
        model = kinds.fit(best.family, frame, inputs, targets, is_classification=rows.is_classification, seed=seed)
        floor = kinds.fit(kinds.BASELINE, frame, inputs, targets, is_classification=rows.is_classification, seed=seed)
        answers = answers_of(model, held_out, classes is not None)
        guesses = answers_of(floor, held_out, classes is not None)
    judgement = judge(rows.targets[test], answers, guesses, classes, metric, seed)
    result = Result(
        model=model,
        task=rows.task,
        target=target,
        family=best.family.name,
        metric=metric,
        metrics={},
        judgement=judgement,
        winner=best,
        trials=trials,
        findings=findings,
        notes=[
            f"{rows.task}: {rows.why}",
            *rows.notes,
            *_dated(rows),
            *(f"{best.family.title}: {text}" for text in warned),
        ],
        warnings=[str(finding) for finding in findings if not finding.dropped],
        sample=rows.take(test),
        reference=inputs,
        provenance={
            **rows.source,
            "target": target,
            "seed": seed,
            "folds": folds,
            "exclude": list(exclude),
            "libraries": versions(),
        },
        classes=classes,
        name=name,
    )
    if not judgement.beats_baseline:
        result.warnings.insert(0, _no_better(judgement, metric))
    result.metrics = _metrics(result, len(learn), len(test))
    if report:
        if progress:
            progress(1, 1, "report")
        with one_thread(), quiet([]):
            result.importance = importance(model, result.sample, rows.targets[test], classes, metric, seed)
        result.report_html = page(result, columns, rows.targets[test], answers)
    return result


#: Option -> its least and largest value, whether it must be whole, and the range in words.
RANGES: dict[str, tuple[float, float, bool, str]] = {
    "seed": (0, 2**32 - 1, True, "a whole number from 0 to 4294967295"),
    "folds": (2, 50, True, "a whole number from 2 to 50"),
    "test_size": (0.05, 0.5, False, "a share from 0.05 to 0.5"),
    "max_rows": (1, float("inf"), True, "a whole number above 0"),
    "time_limit": (0, float("inf"), False, "seconds, 0 or more"),
}


def _check(**options: float | None) -> None:
    """Raises InvalidInput naming every option that is out of its range; None means that it was not given."""
    problems = []
    for name, value in options.items():
        low, high, whole, words = RANGES[name]
        if value is None:
            continue
        kinds_of = (int, np.integer) if whole else (int, float, np.number)
        if isinstance(value, bool) or not isinstance(value, kinds_of) or not low <= value <= high:
            problems.append(Problem(name, words, repr(value)))
    if problems:
        raise InvalidInput.of(problems)


def one_thread() -> Any:
    """Numerical libraries use one thread inside: sums then do not depend on the machine, nor fight for its cores."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    return threadpool_limits(limits=1)


def _need_libraries() -> None:
    for name, library in (("sklearn", "scikit-learn"), ("pandas", "pandas"), ("scipy", "scipy")):
        try:
            __import__(name)
        except ImportError:
            raise MissingDependency.extra(library, "train", "training") from None


def _split(rows: Rows, test_size: float, seed: int) -> tuple[Array, Array]:
    """Row numbers to learn from and to hold out, both ascending."""
    from sklearn.model_selection import train_test_split

    count = rows.count
    classes = len(rows.classes) if rows.is_classification else 0
    held_out = max(round(count * test_size), classes, 4)
    learn, test = train_test_split(
        np.arange(count), test_size=held_out, random_state=seed, stratify=rows.targets if classes else None
    )
    return np.sort(learn), np.sort(test)


def _dated(rows: Rows) -> list[str]:
    dates = [name for name, values in rows.inputs.items() if kind_of(values) == "date"]
    if not dates:
        return []
    note = f"the rows carry dates ({', '.join(dates[:3])}) and were parted at random"
    return [f"{note}: of a future that was not learnt from, expect less than these figures"]


def _no_better(judgement: Judgement, metric: str) -> str:
    found = judgement.estimates[metric]
    low, high = judgement.gain
    return (
        f"not clearly better than always guessing the same: {TITLES[metric]} {found.value:.4g} against "
        f"{found.baseline:.4g} (the difference may be anything from {low:.3g} to {high:.3g})"
    )


def _metrics(result: Result, learnt: int, held_out: int) -> dict[str, Any]:
    """What goes into the manifest: no times, so that the same run has the same digest."""

    def plain(estimate: Any) -> dict[str, float | None]:
        values = {name: getattr(estimate, name) for name in ("value", "low", "high", "baseline")}
        return {name: value if value == value else None for name, value in values.items()}

    made: dict[str, Any] = {
        "metric": result.metric,
        "held_out": {name: plain(e) for name, e in result.judgement.estimates.items()},
        "cross_validation": {
            t.family.name: {"mean": t.mean(result.metric), "spread": t.spread(result.metric)}
            for t in result.trials if t.scores
        },
        "family": result.family,
        "rows": {"learnt_from": learnt, "held_out": held_out},
        "beats_baseline": result.judgement.beats_baseline,
    }  # fmt: skip
    if result.judgement.per_class:
        made["per_class"] = {
            label: {name: plain(e) for name, e in each.items()} for label, each in result.judgement.per_class.items()
        }
    return made


def versions() -> dict[str, str]:
    """The versions that a run depends on."""
    from importlib.metadata import version

    names = ("scikit-learn", "numpy", "scipy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
