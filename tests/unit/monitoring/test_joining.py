"""Labels meet predictions: each once, in the cohort of its prediction, whatever comes first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Conflict
from modelyard.monitoring import joining
from modelyard.monitoring.joining import Turn
from modelyard.monitoring.labelling import Labelling
from modelyard.recording.places import Places
from modelyard.registry import Registry
from modelyard.registry.cohorts import Cohorts, Key
from modelyard.registry.joined import Joined
from modelyard.truth import Label
from recorded import NOON, Prediction, SpoolFile, bundle_of, write_segment

YES, NO = [0.1, 0.9], [0.8, 0.2]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


Open = Callable[..., Labelling]


@pytest.fixture
def opened(registry: Registry, records: Path, tmp_path: Path) -> Iterator[Open]:
    """Opens what joins; two versions of ``m`` are registered."""
    for text in ("one", "two"):
        registry.register(bundle_of(tmp_path / f"bundle {text}", text=text), "m")
    made: list[Labelling] = []

    def open(where: Path = records, **options: Any) -> Labelling:
        made.append(Labelling(registry, Places(where), **options))
        return made[-1]

    yield open
    for each in made:
        each.close()


def tell(registry: Registry, *labels: Sequence[str]) -> None:
    registry.labels.add("m", [Label(*label) for label in labels])


def sums(registry: Registry, **wanted: Any) -> dict[str, int]:
    """Plain counters of all cohorts of all rows, or of those that are wanted."""
    total: dict[str, int] = {}
    for cohort in Cohorts(registry.database).find("m"):
        if all(getattr(cohort.key, name) == value for name, value in {"segment": "", **wanted}.items()):
            for name, count in cohort.counts.items():
                if "." not in name and name in ("rows", "labelled", "right"):
                    total[name] = total.get(name, 0) + count
    return total


def test_predictions_are_read_once_their_model_has_a_label(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES), Prediction("b", NO)])
    labelling = opened()
    assert labelling.turn() == {}
    tell(registry, ("a", "yes"))
    assert labelling.turn() == {"m": Turn(joined=1, predictions=2)}


def test_labels_after_predictions(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES), Prediction("b", NO), Prediction("c", YES)])
    labelling = opened()
    tell(registry, ("a", "yes"), ("b", "yes"), ("unheard of", "no"))
    assert labelling.turn() == {"m": Turn(joined=2, predictions=3)}
    assert sums(registry) == {"rows": 3, "labelled": 2, "right": 1}
    assert labelling.turn() == {"m": Turn()}
    totals = registry.labels.totals("m")
    assert (totals.predictions, totals.matched, totals.unknown) == (3, 2, 0)


def test_labels_before_predictions(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("x", YES)], name="20260105T110000000-a")
    labelling = opened()
    tell(registry, ("a", "yes"), ("b", "yes"))
    assert labelling.turn() == {"m": Turn(predictions=1)}
    write_segment(records, [Prediction("a", YES)])
    assert labelling.turn() == {"m": Turn(joined=1, predictions=1)}
    labelling.close()
    labelling = opened()  # one that knows nothing of what was tried
    write_segment(records, [Prediction("b", NO)], name="20260105T140000000-a")
    assert labelling.turn() == {"m": Turn(joined=1, predictions=1)}
    assert sums(registry) == {"rows": 3, "labelled": 2, "right": 1}


def test_a_correction_takes_back_what_was_added(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES), Prediction("b", NO)])
    labelling = opened()
    tell(registry, ("a", "yes"), ("b", "yes"))
    labelling.turn()
    straight = {cohort.key: cohort.counts for cohort in Cohorts(registry.database).find("m")}
    tell(registry, ("a", "no"))
    assert labelling.turn() == {"m": Turn(corrected=1)}
    assert sums(registry) == {"rows": 2, "labelled": 2}
    tell(registry, ("a", "yes"))
    assert labelling.turn() == {"m": Turn(corrected=1)}
    assert {cohort.key: cohort.counts for cohort in Cohorts(registry.database).find("m")} == straight


def test_a_correction_before_anybody_looked_is_none(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES)])
    labelling = opened()
    tell(registry, ("a", "yes"))
    labelling.turn()
    tell(registry, ("a", "no"))
    tell(registry, ("a", "yes"))
    assert labelling.turn() == {"m": Turn()}
    assert sums(registry) == {"rows": 1, "labelled": 1, "right": 1}
    assert registry.labels.waiting("m") == []


def test_a_correction_after_the_prediction_is_gone_is_told(registry: Registry, opened: Open, records: Path) -> None:
    path = write_segment(records, [Prediction("a", YES)])
    labelling = opened()
    tell(registry, ("a", "yes"))
    labelling.turn()
    path.unlink()
    tell(registry, ("a", "no"))
    assert labelling.turn() == {"m": Turn(missed=1)}
    assert sums(registry) == {"rows": 1, "labelled": 1, "right": 1}
    assert registry.labels.totals("m").missed == 1


def test_numbers_of_parts_that_are_gone_are_not_given_again(registry: Registry, opened: Open, records: Path) -> None:
    path = write_segment(records, [Prediction("a", YES)])
    labelling = opened()
    tell(registry, ("a", "yes"))
    labelling.turn()
    path.unlink()
    labelling.turn()
    write_segment(records, [Prediction("b", NO)], name="20260105T150000000-a")
    labelling.turn()
    tell(registry, ("a", "no"))
    assert labelling.turn() == {"m": Turn(missed=1)}


def test_labels_that_find_no_prediction_are_given_up(
    registry: Registry, opened: Open, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(records, [Prediction("a", YES)])
    tell(registry, ("a", "yes"), ("unheard of", "no"))
    labelling = opened(horizon_days=-1.0)
    assert labelling.turn() == {"m": Turn(joined=1, unknown=1, predictions=1)}
    assert registry.labels.totals("m").unknown == 1
    tell(registry, ("unheard of", "yes"))  # a correction makes it wait again
    assert registry.labels.totals("m").unknown == 0
    assert [label.prediction for label in registry.labels.waiting("m")] == ["unheard of"]


def test_rows_without_an_answer_are_no_predictions(registry: Registry, opened: Open, records: Path) -> None:
    rows = [Prediction("a", YES, code="model_failed"), Prediction("b", [float("nan"), 0.5]), Prediction("c", YES)]
    write_segment(records, rows)
    tell(registry, ("a", "yes"), ("b", "yes"), ("c", "yes"))
    assert opened().turn() == {"m": Turn(joined=1, predictions=3)}
    assert sums(registry) == {"rows": 1, "labelled": 1, "right": 1}


def test_a_shadows_answer_is_graded_too(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES, arm="stable")])
    write_segment(records, [Prediction("a", NO, arm="shadow")], version="2")
    tell(registry, ("a", "yes"))
    labelling = opened()
    assert labelling.turn() == {"m": Turn(joined=1, predictions=2)}
    assert sums(registry, version="1", arm="stable") == {"rows": 1, "labelled": 1, "right": 1}
    assert sums(registry, version="2", arm="shadow") == {"rows": 1, "labelled": 1}
    tell(registry, ("a", "no"))
    labelling.turn()
    assert sums(registry, version="1", arm="stable") == {"rows": 1, "labelled": 1}
    assert sums(registry, version="2", arm="shadow") == {"rows": 1, "labelled": 1, "right": 1}


def test_predictions_that_are_too_young_may_not_be_all_there_are(
    registry: Registry, opened: Open, records: Path
) -> None:
    now = dt.datetime.now(dt.UTC)
    write_segment(records, [Prediction("a", YES, now, arm="stable")])
    tell(registry, ("a", "yes"))
    labelling = opened(settle_seconds=3600.0)
    assert labelling.turn() == {"m": Turn(predictions=1)}
    write_segment(records, [Prediction("a", NO, now, arm="shadow")], version="2")
    assert labelling.turn() == {"m": Turn(predictions=1)}
    labelling.close()
    assert opened(settle_seconds=0.0).turn() == {"m": Turn(joined=1)}
    assert sums(registry) == {"rows": 2, "labelled": 2, "right": 1}


def test_an_id_that_came_twice_counts_at_its_first_prediction(registry: Registry, opened: Open, records: Path) -> None:
    later = NOON + dt.timedelta(hours=3)
    write_segment(records, [Prediction("a", NO, later), Prediction("a", YES)])
    tell(registry, ("a", "yes"))
    opened().turn()
    assert sums(registry, hour="2026-01-05T12") == {"rows": 1, "labelled": 1, "right": 1}
    assert sums(registry, hour="2026-01-05T15") == {"rows": 1}


def test_cohorts_are_of_hours_arms_and_segments(registry: Registry, opened: Open, records: Path) -> None:
    rows = [
        Prediction("a", YES, NOON, "canary", city="Oslo"),
        Prediction("b", YES, NOON, "canary", city="Rome"),
        Prediction("c", YES, NOON + dt.timedelta(minutes=70), city="Rome"),
        Prediction("d", YES, city="Paris"),
        Prediction("e", YES, city=None),
        Prediction("f", YES, kept=None),
    ]
    write_segment(records, rows)
    tell(registry, *((row.id, "yes") for row in rows))
    opened(columns=lambda model: ("city", "x", "nothing"), sample=1).turn()
    found = {cohort.key: cohort.counts["labelled"] for cohort in Cohorts(registry.database).find("m")}
    noon, one = "2026-01-05T12", "2026-01-05T13"
    assert found == {
        Key("1", "canary", "", noon): 2, Key("1", "canary", "city=Oslo", noon): 1,
        Key("1", "canary", "city=Rome", noon): 1,
        Key("1", "", "", one): 1, Key("1", "", "city=Rome", one): 1,
        Key("1", "", "", noon): 3, Key("1", "", "city=(other)", noon): 1, Key("1", "", "city=(missing)", noon): 1,
    }  # fmt: skip


def test_segments_are_of_a_fair_sample_of_the_requests(registry: Registry, opened: Open, records: Path) -> None:
    """What was kept because it was odd would make a segment look worse than it is."""
    rows = [Prediction(f"p{number}", YES, kept="flagged") for number in range(200)]
    write_segment(records, rows)
    tell(registry, ("p0", "yes"))
    opened(columns=lambda model: ("city",), sample=10).turn()
    found = [cohort.counts["rows"] for cohort in Cohorts(registry.database).find("m") if cohort.key.segment]
    assert len(found) == 1 and 5 <= found[0] <= 40


def test_a_correction_is_of_the_segments_that_were_counted(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES, city="Rome")])
    tell(registry, ("a", "yes"))
    labelling = opened(columns=lambda model: ("city",), sample=1)
    labelling.turn()
    labelling.close()
    labelling = opened(sample=1)  # nobody asks for cities any more
    tell(registry, ("a", "no"))
    labelling.turn()
    assert sums(registry, segment="city=Rome") == {"rows": 1, "labelled": 1}


def test_each_machine_counts_what_it_recorded(registry: Registry, opened: Open, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_segment(one, [Prediction("a", YES)])
    write_segment(other, [Prediction("b", YES)])
    tell(registry, ("a", "yes"), ("b", "no"))
    here, there = opened(one), opened(other)
    assert here.turn() == there.turn() == {"m": Turn(joined=1, predictions=1)}
    tell(registry, ("a", "no"), ("b", "yes"))
    assert here.turn() == there.turn() == {"m": Turn(corrected=1)}
    assert sums(registry) == {"rows": 2, "labelled": 2, "right": 1}
    assert registry.labels.totals("m").matched == 2


def test_a_spool_counts_as_far_as_it_is_kept(registry: Registry, opened: Open, records: Path) -> None:
    spool = SpoolFile(records)
    spool.append([Prediction("a", YES), Prediction("b", NO)])
    spool.append([Prediction("c", YES)], keep=False)
    labelling = opened()
    tell(registry, ("a", "yes"), ("c", "yes"))
    assert labelling.turn() == {"m": Turn(joined=1, predictions=2)}
    spool.append([Prediction("d", YES)])
    tell(registry, ("d", "no"))
    assert labelling.turn() == {"m": Turn(joined=2, predictions=2)}
    spool.convert()
    tell(registry, ("a", "no"), ("b", "no"))
    assert labelling.turn() == {"m": Turn(joined=1, corrected=1)}
    labelling.close()
    tell(registry, ("b", "yes"), ("d", "yes"))
    assert opened().turn() == {"m": Turn(corrected=2)}
    assert sums(registry) == {"rows": 4, "labelled": 4, "right": 2}


def test_versions_that_nobody_knows_are_left_alone(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES)], version="0")
    write_segment(records, [Prediction("b", YES)], version="7")
    tell(registry, ("a", "yes"), ("b", "yes"))
    labelling = opened()
    assert labelling.turn() == {"m": Turn(predictions=2)}
    assert labelling.turn() == {"m": Turn()}
    assert Cohorts(registry.database).find("m") == []


def test_who_wants_to_know_is_told_once_inside_the_transaction(registry: Registry, opened: Open, records: Path) -> None:
    write_segment(records, [Prediction("a", YES, arm="stable"), Prediction("b", NO)])
    told: list[Joined] = []
    failing = [True]

    def hear(work: Any, model: str, joined: Sequence[Joined]) -> None:
        assert model == "m"
        told.extend(joined)
        if failing.pop():
            raise OSError("the wall fell down")

    labelling = opened(tell=[hear])
    tell(registry, ("a", "no"))
    with pytest.raises(OSError, match="wall"):
        labelling.turn()
    assert sums(registry) == {"rows": 2}
    failing.append(False)
    assert labelling.turn() == {"m": Turn(joined=1)}
    assert told == [Joined("a", "a", "1", "stable", "production", 3, False, "", "yes", "no")] * 2
    failing.append(False)
    tell(registry, ("a", "yes"))
    labelling.turn()
    assert len(told) == 2


def test_many_are_counted_in_short_transactions(
    registry: Registry, opened: Open, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "LOOK", 7)
    monkeypatch.setattr(joining, "CHUNK", 3)
    for hour in range(4):
        rows = [Prediction(f"{hour}.{n}", YES, NOON + dt.timedelta(hours=hour)) for n in range(10)]
        write_segment(records, rows, name=f"20260105T1{hour}0000000-a")
    tell(registry, *((f"{n % 4}.{n // 4}", "yes") for n in range(40)))
    assert opened().turn() == {"m": Turn(joined=40, predictions=40)}
    assert sums(registry) == {"rows": 40, "labelled": 40, "right": 40}


def test_two_processes_do_not_join_the_same_records(opened: Open) -> None:
    labelling = opened()
    with pytest.raises(Conflict, match="another process"):
        opened()
    labelling.close()
    opened()


def test_hours_become_days(registry: Registry, opened: Open, records: Path) -> None:
    rows = [Prediction(f"p{hour}", YES, NOON + dt.timedelta(hours=hour)) for hour in range(24)]
    write_segment(records, rows)
    labelling = opened()
    tell(registry, *((row.id, "yes") for row in rows[:20]))
    labelling.turn()
    cohorts = Cohorts(registry.database)
    assert cohorts.merge("m", "2026-01-06") == 11
    assert cohorts.merge("m", "2026-01-06") == 0
    assert {cohort.key.hour[:13] for cohort in cohorts.find("m", until="2026-01-06")} == {"2026-01-05"}
    assert sums(registry) == {"rows": 24, "labelled": 20, "right": 20}
    tell(registry, ("p0", "no"))
    labelling.turn()
    cohorts.merge("m", "2026-01-06")
    assert sums(registry, hour="2026-01-05") == {"rows": 12, "labelled": 12, "right": 11}
    cohorts.forget("m", "2026-01-06")
    assert sums(registry)["rows"] == 12
