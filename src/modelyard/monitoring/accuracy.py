"""How good predictions turned out to be: of each version, its arms, segments and days, beside what training measured.

Only cohorts count that have nearly all of their labels. What is known of the others is what may be expected of them,
which is no accuracy and is never called so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.errors import BadBundle, InvalidInput, NotFound
from modelyard.monitoring import expectation, scorecard
from modelyard.monitoring.expectation import Contradiction, Expected
from modelyard.monitoring.grading import Grader
from modelyard.monitoring.maturity import Curve, curve, ripe
from modelyard.monitoring.rules import AccuracyRules, load
from modelyard.monitoring.scorecard import Calibration, Metric
from modelyard.registry.cohorts import Cohort, Cohorts, Counts, total
from modelyard.registry.labels import Totals
from modelyard.registry.records import stamp

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.registry import Registry

#: What a version is judged by, where training measured it.
JUDGED = ("accuracy", "roc_auc", "log_loss", "mae", "rmse")

#: The arm whose answers nobody saw.
SHADOW = "shadow"


Trained = dict[str, dict[str, float | None]]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Some ripe predictions of a version: all, those of one arm, of one segment, or of one day."""

    #: "" for all: of arms, all that answered, without shadows.
    arm: str = ""
    segment: str = ""
    #: The hours of the first and the last of them.
    since: str
    until: str
    rows: int
    labelled: int
    metrics: dict[str, Metric]
    #: Which metrics are worse, or better, than training measured: their intervals lie apart.
    verdicts: dict[str, str] = {}


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One day: the accuracy, or of numbers the mean absolute error, of its ripe predictions."""

    day: str
    rows: int
    labelled: int
    metric: Metric


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """One version."""

    version: str
    task: str
    classes: tuple[str, ...] = ()
    #: What training measured on rows it held out: by metric ``value``, ``low``, ``high``; {} where it did not.
    trained: Trained = {}
    trained_rows: int = 0
    whole: Line | None = None
    #: The metrics that it is judged by, with intervals at a level that all of them share.
    judged: dict[str, Metric] = {}
    arms: list[Line] = []
    segments: list[Line] = []
    per_class: dict[str, dict[str, Metric]] = {}
    calibration: list[Calibration] = []
    days: list[Day] = []
    #: Of the predictions that are not ripe, and whether ripe labels fit what was expected of theirs.
    expected: Expected | None = None
    contradiction: Contradiction | None = None


class Unripe(msgspec.Struct, frozen=True, kw_only=True):
    """What is left out, because labels of it are still to come."""

    hours: int = 0
    rows: int = 0
    labelled: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A model's quality by its labels."""

    model: str
    moment: str
    labels: Totals
    delays: Curve
    #: Seconds after which cohorts are ripe; None where nobody can tell yet.
    ripe_after: float | None
    unripe: Unripe
    versions: list[Quality] = []
    notes: list[str] = []


def report(
    registry: Registry,
    model: str,
    version: str | None = None,
    *,
    rules: AccuracyRules | None = None,
    now: dt.datetime | None = None,
    known: Known | None = None,
) -> Report:
    """The quality of a model's versions, or of one; ``known`` is filled with what is asked for again in the next.

    Raises NotFound for a model that was never registered.
    """
    rules = load(registry.database, model).accuracy if rules is None else rules
    moment = now or dt.datetime.now(dt.UTC)
    known = {} if known is None else known
    registry.history(model)
    everything = Cohorts(registry.database).find(model)
    delays = curve(everything, moment)
    ripe_after = rules.hours * 3600 if rules.hours is not None else delays.within(rules.share)
    since = stamp(moment - dt.timedelta(days=rules.days, seconds=ripe_after or 0))
    recent = [cohort for cohort in everything if cohort.key.hour >= since[: len(cohort.key.hour)]]
    ready, others = ripe(recent, moment, rules.share, ripe_after)
    left = [cohort for cohort in others if not cohort.key.segment and version in (None, cohort.key.version)]
    names = {cohort.key.version for cohort in recent if version in (None, cohort.key.version)}
    made = []
    for name in sorted(names, key=_number):
        graded = _graded(registry, model, name, known)
        if graded is not None:
            made.append(_quality(name, graded, ready, others, rules))
    totals = registry.labels.totals(model)
    return Report(
        model=model, moment=stamp(moment), labels=totals, delays=delays, ripe_after=ripe_after,
        unripe=Unripe(
            hours=len({cohort.key.hour for cohort in left}),
            rows=_count(left, "rows"), labelled=_count(left, "labelled"),
        ),
        versions=made,
        notes=_notes(totals, delays, ripe_after, bool(recent), bool(ready)),
    )  # fmt: skip


class Graded(msgspec.Struct, frozen=True):
    """What a version's predictions are graded by, what training measured, and on how many rows."""

    grader: Grader
    trained: Trained
    rows: int


#: By the digest of a bundle; None where labels say nothing about what it predicts.
Known = dict[str, Graded | None]


def _graded(registry: Registry, model: str, version: str, known: Known) -> Graded | None:
    """None also where the version was deleted: nobody knows its classes any more."""
    try:
        found = registry.resolve(f"{model}:{version}")
        if found.digest not in known:
            bundle = registry.fetch(found)
            rows = bundle.manifest.metrics.get("rows")
            held_out = rows.get("held_out") if isinstance(rows, dict) else 0
            known[found.digest] = Graded(Grader.of(bundle), trained_of(bundle), int(held_out or 0))
        return known[found.digest]
    except (NotFound, BadBundle):
        return None
    except InvalidInput:
        known[found.digest] = None
        return None


def _quality(
    version: str, graded: Graded, ready: Sequence[Cohort], others: Sequence[Cohort], rules: AccuracyRules
) -> Quality:
    grader, trained = graded.grader, graded.trained
    ours = [cohort for cohort in ready if cohort.key.version == version]
    live = [cohort for cohort in ours if not cohort.key.segment and cohort.key.arm != SHADOW]
    young = [c for c in others if c.key.version == version and not c.key.segment and c.key.arm != SHADOW]
    arms = {cohort.key.arm for cohort in ours if not cohort.key.segment}
    segments = {cohort.key.segment for cohort in ours if cohort.key.segment}
    whole = _line(live, grader, trained)
    counts = total(cohort.counts for cohort in live)
    asked = [name for name in JUDGED if name in trained]
    strict = scorecard.measure(counts, grader, rules.alpha / (len(asked) + 1)) if asked else {}
    expected = contradiction = None
    if grader.has_probabilities:
        promise, used = expectation.learn(live, grader)
        expected = expectation.expect(total(cohort.counts for cohort in young), grader, promise)
        later = total(cohort.counts for cohort in live[used:])
        contradiction = expectation.contradict(later, grader, promise, rules.alpha / (len(asked) + 1))
    return Quality(
        version=version, task=grader.truth.task, classes=grader.classes, trained=trained,
        trained_rows=graded.rows,
        whole=whole,
        judged={name: strict[name] for name in asked if name in strict},
        arms=_lines(arms if arms - {""} else set(), _is_of_arm, ours, grader),
        segments=_lines(segments, _is_of_segment, ours, grader),
        per_class=scorecard.per_class(counts, grader) if whole else {},
        calibration=scorecard.calibration(counts, grader), days=_days(live, grader), expected=expected,
        contradiction=contradiction,
    )  # fmt: skip


def trained_of(bundle: Bundle) -> Trained:
    """What training measured on rows it held out, by metric; {} for a bundle that was not trained here."""
    found: Any = bundle.manifest.metrics.get("held_out")
    if not isinstance(found, dict):
        return {}
    names = ("value", "low", "high")
    return {
        metric: {name: each.get(name) for name in names}
        for metric, each in found.items()
        if isinstance(each, dict) and all(isinstance(each.get(name), (int, float, type(None))) for name in names)
    }


def _is_of_arm(cohort: Cohort, arm: str) -> bool:
    return cohort.key.arm == arm and not cohort.key.segment


def _is_of_segment(cohort: Cohort, segment: str) -> bool:
    return cohort.key.segment == segment and cohort.key.arm != SHADOW


def _lines(
    names: Iterable[str], fits: Callable[[Cohort, str], bool], ours: Sequence[Cohort], grader: Grader
) -> list[Line]:
    """A line for each arm, or for each segment, that has labels; the one with the most first."""
    found = []
    for name in sorted(names):
        line = _line([cohort for cohort in ours if fits(cohort, name)], grader, {})
        if line is not None:
            found.append(line)
    return sorted(found, key=lambda line: -line.labelled)


def _line(cohorts: Sequence[Cohort], grader: Grader, trained: Trained) -> Line | None:
    counts = total(cohort.counts for cohort in cohorts)
    found = scorecard.measure(counts, grader)
    if not found:
        return None
    verdicts = {name: scorecard.compared(metric, name, trained.get(name)) for name, metric in found.items()}
    arms, segments = ({getattr(cohort.key, name) for cohort in cohorts} for name in ("arm", "segment"))
    hours = sorted(cohort.key.hour for cohort in cohorts)
    return Line(
        arm=arms.pop() if len(arms) == 1 else "", segment=segments.pop() if len(segments) == 1 else "",
        since=hours[0], until=hours[-1], rows=counts.get("rows", 0), labelled=counts.get("labelled", 0), metrics=found,
        verdicts={name: verdict for name, verdict in verdicts.items() if verdict},
    )  # fmt: skip


def _days(cohorts: Sequence[Cohort], grader: Grader) -> list[Day]:
    days: dict[str, Counts] = {}
    for cohort in cohorts:
        day = cohort.key.hour[:10]
        days[day] = total([days.get(day, {}), cohort.counts])
    labelled = {day: counts for day, counts in sorted(days.items()) if counts.get("labelled")}
    if grader.is_regression:
        found = {day: scorecard.measure(counts, grader)["mae"] for day, counts in labelled.items()}
    else:
        shares = {day: (counts.get("right", 0), counts["labelled"]) for day, counts in labelled.items()}
        found = scorecard.rates(shares, 0.05)
    return [
        Day(day=day, rows=counts.get("rows", 0), labelled=counts["labelled"], metric=found[day])
        for day, counts in labelled.items()
    ]


def _notes(totals: Totals, delays: Curve, ripe_after: float | None, has_cohorts: bool, has_ripe: bool) -> list[str]:
    """What keeps anything from being told, and what to do."""
    if not totals.received:
        return ["no labels have come: modelyard labels send"]
    if not has_cohorts:
        return ["no label has found its prediction: are predictions recorded, and does modelyard watch run there?"]
    notes = []
    if ripe_after is None:
        known = f"{delays.labels:,} labels" if delays.labels else "too few labels"
        notes.append(
            f"how late labels may come is not known yet from {known}, so that only hours count whose predictions have "
            "nearly all of theirs; where you know it: modelyard monitor rules MODEL --set accuracy.hours=48"
        )
    elif not has_ripe:
        notes.append(f"no predictions are old enough: labels come up to {ripe_after / 3600:,.1f} hours late")
    return notes


def _count(cohorts: Iterable[Cohort], name: str) -> int:
    return sum(cohort.counts.get(name, 0) for cohort in cohorts)


def _number(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (0, version)
