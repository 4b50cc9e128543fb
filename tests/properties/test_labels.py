"""Properties of the ledger: whatever the order, the repetitions and the batches, it ends in the same state."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.registry.database import open_database
from modelyard.registry.labels import KEPT, Labels
from modelyard.registry.migrations import migrate
from modelyard.truth import Label, Receipt

IDS, CLASSES = "abc", "uvwxyz!?"
TIMES = [f"2026-01-01T00:00:0{second}.000000Z" for second in range(6)]

untimed = st.tuples(st.sampled_from(IDS), st.sampled_from(CLASSES)).map(lambda told: Label(*told))
timed = st.tuples(untimed, st.sampled_from(TIMES)).map(lambda told: told[0]._replace(moment=told[1]))


@contextmanager
def ledger() -> Iterator[Labels]:
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(str(Path(folder) / "labels.db"))
        migrate(database)
        yield Labels(database)
        database.close()


def send(to: Labels, labels: Sequence[Label], cuts: Sequence[int]) -> Receipt:
    """Send in batches that end at these places."""
    total = Receipt()
    ends = sorted({*(cut % (len(labels) + 1) for cut in cuts), 0, len(labels)})
    for begin, end in pairwise(ends):
        total = total.plus(to.add("m", labels[begin:end]))
    return total


def state(of: Labels) -> object:
    totals = of.totals("m")
    counted = (totals.received, totals.predictions, totals.corrected)
    return counted, {id: of.history("m", id) for id in IDS}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), labels=st.lists(timed, max_size=12), cuts=st.lists(st.integers(0, 12), max_size=3))
def test_the_order_of_labels_that_say_when_does_not_matter(
    data: st.DataObject, labels: list[Label], cuts: list[int]
) -> None:
    with ledger() as one, ledger() as other:
        receipt = send(one, labels, cuts)
        assert receipt.received == receipt.new + receipt.repeated + receipt.corrected + receipt.late == len(labels)
        send(other, data.draw(st.permutations(labels)), data.draw(st.lists(st.integers(0, 12), max_size=3)))
        assert state(one) == state(other)
        for id in IDS:
            told: dict[str, str] = {}
            for label in labels:
                if label.prediction == id:
                    told[label.label] = max(told.get(label.label, ""), label.moment)
            ranked = sorted(((moment, label) for label, moment in told.items()), reverse=True)[: KEPT + 1]
            assert [(each.moment, each.label) for each in one.history("m", id)] == ranked


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.one_of(timed, untimed), max_size=12), cuts=st.lists(st.integers(0, 12), max_size=3))
def test_what_came_before_changes_nothing_when_it_comes_again(labels: list[Label], cuts: list[int]) -> None:
    with ledger() as one:
        send(one, labels, cuts)
        before = {id: one.history("m", id) for id in IDS}
        waiting = one.waiting("m")
        again = [Label(id, each[0].label) for id, each in before.items() if each]
        again += [each for known in before.values() for each in known if each.moment]
        receipt = send(one, again, cuts)
        assert receipt.new == receipt.corrected == 0
        assert {id: one.history("m", id) for id in IDS} == before
        assert one.waiting("m") == waiting


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(untimed, max_size=12), cuts=st.lists(st.integers(0, 12), max_size=3))
def test_without_times_the_last_counts(labels: list[Label], cuts: list[int]) -> None:
    with ledger() as one:
        send(one, labels, cuts)
        last = {label.prediction: label.label for label in labels}
        assert {id: each[0].label for id in IDS if (each := one.history("m", id))} == last
