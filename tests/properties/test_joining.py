"""However labels, corrections, predictions and restarts follow one another, cohorts end as if all was counted once."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.monitoring.labelling import Labelling
from modelyard.recording.places import Places
from modelyard.registry import Registry
from modelyard.registry.cohorts import Cohorts, Counts, Key
from modelyard.truth import Label
from recorded import NOON, Prediction, bundle_of, write_segment

KINDS: dict[str, tuple[str, ...]] = {"two": ("no", "yes"), "three": ("a", "b", "c"), "number": ()}
ANSWERS: dict[str, list[Any]] = {
    "two": [[0.1, 0.9], [0.5, 0.5], [0.98, 0.02], [1.0, 0.0]],
    "three": [[0.2, 0.3, 0.5], [0.9, 0.05, 0.05], [0.0, 1.0, 0.0]],
    "number": [0.0, 3.25, -1e9, 1e-12, 77.7],
}
LABELS: dict[str, list[str]] = {
    "two": ["no", "yes"],
    "three": ["a", "b", "c"],
    "number": ["0.0", "3.0", "-12.5", "1e+20"],
}

IDS = [f"p{number}" for number in range(8)]


def predictions_of(kind: str) -> st.SearchStrategy[list[Prediction]]:
    def one(id: str) -> st.SearchStrategy[Prediction]:
        return st.builds(
            Prediction, st.just(id), st.sampled_from(ANSWERS[kind]),
            st.sampled_from([NOON, NOON + dt.timedelta(hours=5)]), st.sampled_from(["", "canary"]),
            st.sampled_from(["ok", "ok", "ok", "model_failed"]), st.sampled_from(["Oslo", "Rome", None]),
            st.sampled_from(["sample", "flagged", None]), st.none(),
        )  # fmt: skip

    return st.tuples(*map(one, IDS)).map(list)


Step = tuple[str, Any]


def steps_of(kind: str) -> st.SearchStrategy[list[Step]]:
    tell = st.tuples(st.just("tell"), st.tuples(st.sampled_from([*IDS, "unheard of"]), st.sampled_from(LABELS[kind])))
    record = st.tuples(st.just("record"), st.integers(1, 4))
    return st.lists(st.one_of(tell, tell, record, st.sampled_from([("turn", None), ("restart", None)])), max_size=25)


@contextmanager
def yard(kind: str) -> Iterator[tuple[Registry, Path]]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        registry = Registry.open(Path(folder) / "home")
        registry.register(bundle_of(Path(folder) / "bundle", KINDS[kind]), "m")
        yield registry, Path(folder) / "records"
        registry.close()


def labelling_of(registry: Registry, records: Path) -> Labelling:
    return Labelling(registry, Places(records), columns=lambda model: ("city",), sample=2)


def counted(registry: Registry) -> dict[Key, Counts]:
    """What was counted, but for when labels came, and without cohorts that came to nothing."""
    found = {
        cohort.key: {name: count for name, count in cohort.counts.items() if not name.startswith("delay")}
        for cohort in Cohorts(registry.database).find("m")
    }
    return {key: counts for key, counts in found.items() if counts}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_cohorts_end_as_if_counted_once(kind: str, data: st.DataObject) -> None:
    predictions = data.draw(predictions_of(kind))
    steps: Sequence[Step] = data.draw(steps_of(kind))
    final: dict[str, str] = {}
    with yard(kind) as (registry, records):
        labelling, recorded = labelling_of(registry, records), 0
        for action, what in [*steps, ("record", len(IDS)), ("turn", None)]:
            if action == "tell":
                registry.labels.add("m", [Label(*what)])
                final[what[0]] = what[1]
            elif action == "record" and recorded < len(IDS):
                some = predictions[recorded : recorded + what]
                write_segment(records, some, name=f"2026010512000{recorded}000-a", classes=KINDS[kind])
                recorded += len(some)
            elif action == "turn":
                labelling.turn()
            elif action == "restart":
                labelling.close()
                labelling = labelling_of(registry, records)
        labelling.close()
        assert registry.labels.totals("m").missed == 0
        result, matched = counted(registry), registry.labels.totals("m").matched
    with yard(kind) as (registry, records):
        registry.labels.add("m", [Label(*pair) for pair in final.items()])
        write_segment(records, predictions, classes=KINDS[kind])
        labelling = labelling_of(registry, records)
        labelling.turn()
        labelling.close()
        assert counted(registry) == result
        assert registry.labels.totals("m").matched == matched
