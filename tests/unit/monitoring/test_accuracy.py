"""The report on a model's labels, and the findings that follow from it."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import Conflict, NotFound
from modelyard.monitoring import expectation, judging
from modelyard.monitoring.accuracy import Quality, Report, report
from modelyard.monitoring.grading import Answers, Grader
from modelyard.monitoring.judging import Judge
from modelyard.monitoring.metrics import tell
from modelyard.monitoring.rules import AccuracyRules, edit
from modelyard.monitoring.verdicts import PROMISE, judge
from modelyard.registry import Registry
from modelyard.registry.cohorts import Cohorts, Counts, Key, add, plus
from modelyard.truth import Label, Truth
from recorded import bundle_of

NOW = dt.datetime.now(dt.UTC).replace(minute=30, second=0, microsecond=0)
TWO = Grader(Truth("classification", ("no", "yes"), "string"), has_probabilities=True)
NUMBERS = Grader(Truth("regression"), unit=2.0**-10)

#: Training measured uniform calibrated scores on 10,000 rows.
TRAINED = {
    "held_out": {
        "accuracy": {"value": 0.75, "low": 0.74, "high": 0.76, "baseline": 0.5},
        "roc_auc": {"value": 0.833, "low": 0.825, "high": 0.841, "baseline": 0.5},
        "log_loss": {"value": 0.5, "low": 0.49, "high": 0.51, "baseline": 0.69},
    },
    "rows": {"learnt_from": 50_000, "held_out": 10_000},
}

AT_ONCE = AccuracyRules(hours=0.0)


def hour_of(days: float) -> str:
    return (NOW - dt.timedelta(days=days)).strftime("%Y-%m-%dT%H")


def graded(rows: int, seed: int = 0, *, flip: float = 0.0, labelled: float = 1.0) -> Counts:
    """Uniform, calibrated scores, of which some labels are turned round."""
    drawn = np.random.default_rng(seed)
    p = drawn.random(rows)
    truths = (drawn.random(rows) < p) ^ (drawn.random(rows) < flip)
    answers = Answers((p > 0.5).astype(int), np.stack([1 - p, p], axis=1))
    known = int(rows * labelled)
    some = Answers(answers.predicted[:known], np.stack([1 - p, p], axis=1)[:known])
    return plus(TWO.count(answers), TWO.grade(some, ["yes" if t else "no" for t in truths[:known]]))


def put(registry: Registry, *cohorts: tuple[Key, Counts], model: str = "m") -> None:
    with registry.database.write() as work:
        add(work, model, "here", dict(cohorts))


def days_of(days: Sequence[float], version: str = "1", arm: str = "", **options: Any) -> list[tuple[Key, Counts]]:
    return [
        (Key(version, arm, "", hour_of(day)), graded(1_000, seed=int(day * 24), **options)) for day in days
    ]  # fmt: skip


@pytest.fixture
def registered(registry: Registry, tmp_path: Path) -> Registry:
    registry.register(bundle_of(tmp_path / "one", metrics=TRAINED), "m")
    return registry


def only(found: Report) -> Quality:
    assert len(found.versions) == 1
    return found.versions[0]


def test_nothing_is_known_of_a_model_without_labels(registered: Registry) -> None:
    found = report(registered, "m")
    assert found.versions == [] and "labels send" in found.notes[0]
    with pytest.raises(NotFound):
        report(registered, "other")


def test_a_version_as_good_as_at_its_training(registered: Registry) -> None:
    put(registered, *days_of(range(1, 11)))
    found = only(report(registered, "m", rules=AT_ONCE))
    assert found.whole is not None and found.whole.labelled == found.whole.rows == 10_000
    assert found.whole.verdicts == {} and found.trained["accuracy"]["value"] == 0.75 and found.trained_rows == 10_000
    for name in ("accuracy", "roc_auc", "log_loss"):
        metric, strict = found.whole.metrics[name], found.judged[name]
        assert metric.low is not None and metric.high is not None and strict.low is not None
        assert metric.low < found.trained[name]["value"] < metric.high  # type: ignore[operator]
        assert strict.low < metric.low
    assert len(found.days) == 10 and all(day.labelled == 1_000 for day in found.days)
    assert found.contradiction is not None and found.contradiction.low < 0 < found.contradiction.high
    assert judge(found, AT_ONCE, ()) == []


def test_a_version_that_became_worse(registered: Registry) -> None:
    put(registered, *days_of(range(6, 11)), *days_of(range(1, 6), flip=0.3))
    found = only(report(registered, "m", rules=AT_ONCE))
    assert found.whole is not None
    assert found.whole.verdicts == {"accuracy": "worse", "roc_auc": "worse", "log_loss": "worse"}
    changes = {change.subject: change for change in judge(found, AT_ONCE, ())}
    assert set(changes) == {"accuracy", "roc_auc", "log_loss", PROMISE}
    for change in changes.values():
        assert change.what == "open" and change.false_alarms == 0.01 and change.evidence is not None
        assert change.evidence.low > change.evidence.floor and change.evidence.low <= change.evidence.value
    assert "was 0.75 (0.74 to 0.76) on rows that training held out" in changes["accuracy"].told
    assert "expected if the relationship is unchanged" in changes[PROMISE].told
    assert {change.what for change in judge(found, AT_ONCE, tuple(changes))} == {"seen"}


def test_an_episode_ends_when_intervals_meet(registered: Registry) -> None:
    put(registered, *days_of(range(1, 11)))
    found = only(report(registered, "m", rules=AT_ONCE))
    changes = judge(found, AT_ONCE, ("accuracy", "mae"))
    assert [(change.what, change.subject) for change in changes] == [("close", "accuracy"), ("close", "mae")]
    assert "no labels of the last 30 days" in changes[1].why


def test_cohorts_that_are_not_ripe_are_never_mixed_in(registered: Registry) -> None:
    old = [(key, plus(counts, {"delay.11": 1_000})) for key, counts in days_of(range(2, 6))]
    young = [(key, plus(c, {"delay.0": 200})) for key, c in days_of([0.2, 0.4], flip=1.0, labelled=0.2)]
    put(registered, *old, *young)
    found = report(registered, "m")
    quality = only(found)
    assert found.ripe_after == 24 * 3600
    assert quality.whole is not None and quality.whole.labelled == 4_000 and quality.whole.verdicts == {}
    assert (found.unripe.hours, found.unripe.rows, found.unripe.labelled) == (2, 2_000, 400)
    assert quality.expected is not None and quality.expected.rows == 2_000
    assert quality.expected.title == "expected if the relationship is unchanged"
    assert quality.expected.accuracy == pytest.approx(0.75, abs=0.03)


def test_where_nobody_knows_how_late_labels_come_it_says_so(registered: Registry) -> None:
    put(registered, *days_of([1, 2], labelled=0.2))
    registered.labels.add("m", [])
    found = report(registered, "m")
    assert found.ripe_after is None and only(found).whole is None
    edit(registered.database, "m", put={"accuracy.hours": "12", "accuracy.columns": "city,plan"})
    found = report(registered, "m")
    assert found.ripe_after == 12 * 3600
    assert only(found).whole is not None and only(found).whole.labelled == 400  # type: ignore[union-attr]


def test_arms_and_segments(registered: Registry) -> None:
    stable, canary = days_of([1], arm="stable"), days_of([1.5], arm="canary", flip=0.4)
    shadow = days_of([2], version="1", arm="shadow")
    segment = [(key._replace(segment="city=Rome"), counts) for key, counts in stable]
    put(registered, *stable, *canary, *shadow, *segment)
    found = only(report(registered, "m", rules=AT_ONCE))
    assert found.whole is not None and found.whole.labelled == 2_000
    assert {line.arm for line in found.arms} == {"stable", "canary", "shadow"}
    assert [(line.segment, line.labelled) for line in found.segments] == [("city=Rome", 1_000)]
    accuracy = {line.arm: line.metrics["accuracy"].value for line in found.arms}
    assert accuracy["canary"] < accuracy["stable"]  # type: ignore[operator]


def test_what_a_shadow_answered_is_no_answer_of_its_version(registry: Registry, tmp_path: Path) -> None:
    registry.register(bundle_of(tmp_path / "one"), "m")
    put(registry, *days_of([1], arm="shadow"))
    found = only(report(registry, "m", rules=AT_ONCE))
    assert found.whole is None and [line.arm for line in found.arms] == ["shadow"]


def test_versions_apart_and_one_alone(registered: Registry, tmp_path: Path) -> None:
    registered.register(bundle_of(tmp_path / "two", text="two"), "m")
    put(registered, *days_of([1]), *days_of([1], version="2"), *days_of([1], version="7"))
    assert [each.version for each in report(registered, "m", rules=AT_ONCE).versions] == ["1", "2"]
    assert only(report(registered, "m", "2", rules=AT_ONCE)).trained == {}


def test_numbers(registry: Registry, tmp_path: Path) -> None:
    trained = {"held_out": {"mae": {"value": 1.0, "low": 0.95, "high": 1.05, "baseline": 9.0}}}
    registry.register(bundle_of(tmp_path / "one", (), metrics=trained), "m")
    grader = Grader.of(bundle_of(tmp_path / "again", (), metrics=trained))
    drawn = random.Random(1)
    truths = [drawn.gauss(0, 30) for _ in range(2_000)]
    answers = Answers(np.array([truth + drawn.choice([-2, 2]) for truth in truths], dtype="float64"), None)
    counts = plus(grader.count(answers), grader.grade(answers, [repr(truth) for truth in truths]))
    put(registry, (Key("1", "", "", hour_of(1)), counts))
    found = only(report(registry, "m", rules=AT_ONCE))
    assert found.whole is not None and found.whole.verdicts == {"mae": "worse"}
    assert found.whole.metrics["mae"].value == pytest.approx(2.0, abs=0.01)
    assert found.expected is None and found.contradiction is None
    assert found.days[0].metric.value == found.whole.metrics["mae"].value
    changes = judge(found, AT_ONCE, ())
    assert [change.subject for change in changes] == ["mae"]
    assert changes[0].evidence is not None and changes[0].evidence.value == pytest.approx(1.0, abs=0.02)


# -- what is expected -----------------------------------------------------------------------------------------------


def cohorts_of(*counts: Counts) -> list[Any]:
    from modelyard.registry.cohorts import Cohort

    return [Cohort(Key("1", "", "", f"2026-01-01T{hour:02}"), each) for hour, each in enumerate(counts)]


def test_of_calibrated_scores_all_is_known_beforehand() -> None:
    """The closed forms for scores that are uniform: accuracy 3/4, AUC 5/6."""
    promise, used = expectation.learn(cohorts_of(graded(200)), TWO)
    assert used == 0 and promise.learned_from == 0
    found = expectation.expect(graded(50_000, labelled=0.0), TWO, promise)
    assert found.accuracy == pytest.approx(0.75, abs=0.005) and found.roc_auc == pytest.approx(5 / 6, abs=0.005)
    assert found.precision == pytest.approx(0.75, abs=0.005) and found.recall == pytest.approx(0.75, abs=0.005)
    assert expectation.contradict(graded(50_000), TWO, promise, 0.01) is None


def test_scores_that_promise_too_much_are_corrected_by_the_first_labels() -> None:
    promise, used = expectation.learn(cohorts_of(graded(4_000, flip=0.2), graded(10)), TWO)
    assert used == 1 and promise.learned_from == 4_000
    found = expectation.expect(graded(20_000, seed=5, labelled=0.0), TWO, promise)
    assert found.accuracy == pytest.approx(0.75 * 0.8 + 0.25 * 0.2, abs=0.02)
    same = expectation.contradict(graded(20_000, seed=6, flip=0.2), TWO, promise, 0.01)
    assert same is not None and same.low < 0 < same.high
    other = expectation.contradict(graded(20_000, seed=7), TWO, promise, 0.01)
    assert other is not None and other.low > 0.05 and other.accuracy > other.expected


def test_the_first_labels_uncertainty_is_in_the_interval() -> None:
    """Of pairs of few first labels and many later ones of the same kind, hardly any contradict each other."""
    wrong = 0
    for seed in range(60):
        promise, _ = expectation.learn(cohorts_of(graded(300, seed)), TWO, least=300)
        found = expectation.contradict(graded(5_000, 1_000 + seed), TWO, promise, 0.05)
        assert found is not None
        wrong += not found.low <= 0 <= found.high
    assert wrong <= 6


def test_of_several_classes_the_accuracy_is_known() -> None:
    three = Grader(Truth("classification", ("a", "b", "c"), "string"), has_probabilities=True)
    drawn = np.random.default_rng(3)
    p = drawn.dirichlet([1, 1, 1], 20_000)
    labels = [three.classes[place] for place in (drawn.random(20_000)[:, None] > np.cumsum(p, axis=1)).sum(axis=1)]
    answers = Answers(p.argmax(axis=1), p)
    counts = plus(three.count(answers), three.grade(answers, labels))
    promise, _ = expectation.learn([], three)
    found = expectation.expect(counts, three, promise)
    assert found.accuracy == pytest.approx(p.max(axis=1).mean(), abs=0.005) and found.precision is None
    promise, used = expectation.learn(cohorts_of(counts), three)
    assert used == 1
    later = expectation.contradict(counts, three, promise, 0.05)
    assert later is not None and later.difference == pytest.approx(0, abs=0.01)


def test_of_no_predictions_nothing_is_expected() -> None:
    promise, _ = expectation.learn([], TWO)
    assert expectation.expect({}, TWO, promise).accuracy is None


# -- the loop -------------------------------------------------------------------------------------------------------


def test_findings_and_alerts_of_labels(registered: Registry) -> None:
    edit(registered.database, put={"accuracy.hours": "0"})
    lease = registered.lease("control", "me")
    assert lease.beat()
    loop = Judge(registered, lease)
    assert loop.step() == 0
    put(registered, *days_of(range(1, 11), flip=0.3))
    assert loop.step() == 3  # what scores promise was learned from these labels
    opened = registered.findings.find("m", is_open=True)
    assert {finding.subject for finding in opened} == {"accuracy", "roc_auc", "log_loss"}
    assert {finding.kind for finding in opened} == {"accuracy"} and opened[0].version == "1"
    assert [alert.about for alert in registered.alerts.find("m", is_open=True)] == ["accuracy"]
    assert loop.step() == 0 and loop.pause > 1
    assert registered.findings.find("m", is_open=True)[0].looks == 2
    accuracy = report(registered, "m").versions[0].whole.metrics["accuracy"]  # type: ignore[union-attr]
    line = 'modelyard_quality{model="m",version="1",metric="accuracy",bound="low"}'
    assert f"{line} {accuracy.low!r}" in tell(registered).text()
    with registered.database.write() as work:
        work.do("DELETE FROM cohorts")
    put(registered, *days_of(range(1, 11)))
    assert loop.step() == 0
    assert registered.findings.find("m", is_open=True) == [] and registered.alerts.find("m", is_open=True) == []


def test_what_is_old_is_merged_and_forgotten_once_a_day(registered: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = registered.lease("control", "me")
    assert lease.beat()
    old = hour_of(200)[:10]
    put(registered, *days_of([1, 500]), *((Key("1", "", "", f"{old}T{hour}"), graded(100)) for hour in ("01", "13")))
    registered.labels.add("m", [Label("a", "yes"), Label("b", "no")])
    with registered.database.write() as work:
        work.do("UPDATE labels SET state = 'counted', received = '2000' WHERE prediction = 'a'")
    loop = Judge(registered, lease)
    loop.step()
    hours = [cohort.key.hour for cohort in Cohorts(registered.database).find("m")]
    assert [len(hour) for hour in hours] == [10, 13]
    assert registered.labels.history("m", "a") == [] and registered.labels.history("m", "b") != []
    put(registered, *days_of([500]))
    loop.step()
    assert len(Cohorts(registered.database).find("m")) == 3
    monkeypatch.setattr(judging, "TIDY_SECONDS", 0.0)
    loop.step()
    assert len(Cohorts(registered.database).find("m")) == 2


def test_who_lost_the_lease_judges_nothing(registered: Registry) -> None:
    edit(registered.database, put={"accuracy.hours": "0"})
    put(registered, *days_of(range(1, 11), flip=0.3))
    loop = Judge(registered, registered.lease("control", "me"))
    with pytest.raises(Conflict):
        loop.step()
    assert registered.findings.find("m") == []
