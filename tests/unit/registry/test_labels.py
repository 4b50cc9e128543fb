"""The ledger of labels: exactly once, whatever comes how often and in what order."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from modelyard.registry import Registry, labels
from modelyard.registry.labels import Labels, Totals
from modelyard.truth import Label, Receipt


@pytest.fixture
def ledger(registry: Registry) -> Labels:
    return registry.labels


def told(*pairs: tuple[Any, ...]) -> list[Label]:
    return [Label(*pair) for pair in pairs]


def counts(ledger: Labels, model: str = "churn") -> dict[str, int]:
    totals = ledger.totals(model)
    names = ("received", "predictions", "corrected", "unknown")
    return {name: getattr(totals, name) for name in names if getattr(totals, name)}


EARLY, LATE, LATEST = (f"2026-01-0{day}T00:00:00.000000Z" for day in (1, 2, 3))


def test_new_again_and_corrected(ledger: Labels) -> None:
    assert ledger.add("churn", told(("a", "yes"), ("b", "no"))) == Receipt(received=2, new=2)
    assert ledger.add("churn", told(("a", "yes"), ("c", "no"))) == Receipt(received=2, new=1, repeated=1)
    assert ledger.add("churn", told(("a", "no"))) == Receipt(received=1, corrected=1)
    assert counts(ledger) == {"received": 5, "predictions": 3, "corrected": 1}
    assert [(each.label) for each in ledger.history("churn", "a")] == ["no", "yes"]
    assert ledger.history("churn", "unheard") == []
    assert ledger.add("churn", []) == Receipt()
    assert ledger.models() == ["churn"]


def test_the_same_id_of_two_models_is_two_predictions(ledger: Labels) -> None:
    ledger.add("churn", told(("a", "yes")))
    assert ledger.add("fraud", told(("a", "no"))) == Receipt(received=1, new=1)
    assert ledger.history("churn", "a")[0].label == "yes"


def test_of_labels_that_say_when_the_latest_counts(ledger: Labels) -> None:
    ledger.add("churn", told(("a", "yes", LATE)))
    assert ledger.add("churn", told(("a", "no", EARLY))) == Receipt(received=1, late=1)
    assert ledger.history("churn", "a") == told(("a", "yes", LATE), ("a", "no", EARLY))
    assert ledger.add("churn", told(("a", "no", LATEST))) == Receipt(received=1, corrected=1)
    assert ledger.history("churn", "a") == told(("a", "no", LATEST), ("a", "yes", LATE))
    assert ledger.add("churn", told(("a", "yes", LATE))) == Receipt(received=1, late=1)


def test_what_comes_last_counts_whatever_the_clocks_say(ledger: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment, label in ((LATEST, "yes"), (EARLY, "no"), (LATE, "maybe")):
        monkeypatch.setattr(labels, "now", lambda moment=moment: moment)
        ledger.add("churn", told(("a", label)))
    assert [each.label for each in ledger.history("churn", "a")] == ["maybe", "no", "yes"]


def test_within_one_batch_the_last_counts(ledger: Labels) -> None:
    receipt = ledger.add("churn", told(("a", "yes"), ("a", "no"), ("a", "no"), ("b", "no")))
    assert receipt == Receipt(received=4, new=2, corrected=1, repeated=1)
    assert ledger.history("churn", "a")[0].label == "no"


def test_history_is_kept_small(ledger: Labels) -> None:
    for number in range(20):
        ledger.add("churn", told(("a", f"class {number}")))
    assert [each.label for each in ledger.history("churn", "a")] == [f"class {n}" for n in (19, 18, 17, 16, 15)]
    assert counts(ledger) == {"received": 20, "predictions": 1, "corrected": 1}


def test_labels_that_wait_are_read_in_the_order_in_which_they_came(ledger: Labels) -> None:
    ledger.add("churn", told(("b", "yes"), ("a", "no")))
    ledger.add("churn", told(("c", "yes")))
    ledger.add("churn", told(("b", "no")))  # moves to the end
    ledger.add("churn", told(("a", "no")))  # changes nothing
    assert [(w.prediction, w.label, w.source) for w in ledger.waiting("churn")] == [
        ("a", "no", ""), ("c", "yes", ""), ("b", "no", ""),
    ]  # fmt: skip
    first = ledger.waiting("churn", most=1)[0]
    assert [w.prediction for w in ledger.waiting("churn", after=first.sequence)] == ["c", "b"]
    assert [w.prediction for w in ledger.waiting("churn", until=first.sequence)] == ["a"]
    assert ledger.waiting("other") == []


def test_many_are_kept_in_short_transactions(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "CHUNK", 10)
    kept: list[int] = []
    real = labels.keep
    monkeypatch.setattr(labels, "keep", lambda work, model, some: (kept.append(len(some)), real(work, model, some))[1])
    many = told(*((f"p{number % 25}", "yes") for number in range(50)))
    assert registry.labels.add("churn", many) == Receipt(received=50, new=25, repeated=25)
    assert kept == [10] * 5


def test_more_ids_than_a_statement_may_have_values(ledger: Labels) -> None:
    many = told(*((f"p{number}", "yes") for number in range(2_500)))
    assert ledger.add("churn", many).new == 2_500
    assert ledger.add("churn", many).repeated == 2_500
    assert ledger.add("churn", told(*((f"p{number}", "no") for number in range(2_500)))).corrected == 2_500
    assert len(ledger.waiting("churn", most=10_000)) == 2_500


def test_threads_share_transactions_and_get_their_own_receipts(ledger: Labels) -> None:
    receipts: dict[int, Receipt] = {}

    def send(number: int) -> None:
        for each in range(20):
            receipt = ledger.add("churn", told((f"{number}.{each}", "yes"), ("shared", "yes")))
            receipts[number] = receipts.get(number, Receipt()).plus(receipt)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(receipt.received == 40 for receipt in receipts.values())
    total = sum((r.new for r in receipts.values()), 0), sum((r.repeated for r in receipts.values()), 0)
    assert total == (161, 159)
    assert counts(ledger) == {"received": 320, "predictions": 161}


def test_a_failure_is_everybodys_and_what_is_sent_again_counts_once(
    ledger: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = labels.keep

    def fail(*_: Any) -> Receipt:
        raise OSError("no room")

    monkeypatch.setattr(labels, "keep", fail)
    with pytest.raises(OSError, match="no room"):
        ledger.add("churn", told(("a", "yes")))
    assert ledger.totals("churn") == Totals()
    monkeypatch.setattr(labels, "keep", real)
    assert ledger.add("churn", told(("a", "yes"))).new == 1


def test_what_waits_for_nothing_can_be_forgotten(registry: Registry) -> None:
    ledger = registry.labels
    ledger.add("churn", told(("a", "yes"), ("b", "no")))
    with registry.database.write() as work:
        work.do("UPDATE labels SET state = 'counted' WHERE prediction = 'a'")
    assert ledger.forget("churn", "2000") == 0
    assert ledger.forget("churn", "9999") == 1
    assert ledger.history("churn", "a") == [] and ledger.history("churn", "b") != []


def test_any_order_of_labels_that_say_when_ends_in_the_same_state(ledger: Labels) -> None:
    batch = told(("a", "yes", EARLY), ("a", "no", LATE), ("a", "yes", LATE), ("a", "odd", EARLY))
    ends = set()
    for number, order in enumerate(itertools.permutations(batch)):
        model = f"m{number}"
        for label in order:
            ledger.add(model, [label])
        ends.add((tuple(ledger.history(model, "a")), tuple(sorted(counts(ledger, model).items()))))
    assert len(ends) == 1
