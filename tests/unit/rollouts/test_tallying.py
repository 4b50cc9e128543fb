"""From what servers note to the tallies of rollouts: each request once, in its arm, whoever is killed when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, RemoteFailed
from modelyard.messages import Message
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.recorder import Recorder
from modelyard.registry import Registry
from modelyard.registry.plans import Plan, Rollout, Scores, Stage
from modelyard.registry.tallies import Counts, Pairs, Tallies, Tally
from modelyard.rollouts import tallying
from modelyard.rollouts.tallying import Tallying
from modelyard.telemetry import Log
from recordings import Sample, Shop, asked, records, shop, some_rows
from registries import Make

__all__ = ["records", "shop"]

STABLE, CANARY, SHADOW = "production/1/stable", "production/1/canary", "production/1/shadow"


class Here:
    """A recorder in this process that counts for rollouts."""

    def __init__(self, records: Path, registry: Registry) -> None:
        self._registry = registry
        self._records = records
        self.begin()

    def begin(self) -> None:
        self.tallying = Tallying(self._registry, Log("error"))
        consumers = [self.tallying]
        self.recorder = Recorder(Places(self._records), self._registry, Log("error"), Options(), consumers)

    def turn_until(self, done: Callable[[], Any]) -> None:
        until = time.monotonic() + 120
        while not done():
            assert time.monotonic() < until
            self.recorder.turn()
            time.sleep(0.01)

    def close(self) -> None:
        self.recorder.close()


@pytest.fixture
def two(registry: Registry, make: Make) -> Registry:
    for text in ("one", "two"):
        registry.register(make(text), "churn")
    return registry


@pytest.fixture
def here(records: Path, two: Registry) -> Iterator[Here]:
    made = Here(records, two)
    yield made
    made.close()


def start(registry: Registry, share: float = 0.5, mode: Any = "live", **more: Any) -> Rollout:
    plan = Plan(stages=(Stage(share, mode),), guards=("errors",), **more)
    return registry.rollouts.start(Rollout(model="churn", stable=1, candidate=2, plan=plan, share=share))


def tallies(registry: Registry, rollout: Rollout) -> list[Tally]:
    return registry.tallies.after(rollout.id, 0)


def total(registry: Registry, rollout: Rollout) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    for tally in tallies(registry, rollout):
        for arm, counts in tally.arms.items():
            found[arm] = found.get(arm, Counts()).plus(counts)
    return found


def requests(registry: Registry, rollout: Rollout) -> int:
    return sum(counts.requests for counts in total(registry, rollout).values())


def pairs(registry: Registry, rollout: Rollout) -> Pairs:
    found = Pairs()
    for tally in tallies(registry, rollout):
        found = found.plus(tally.pairs or Pairs())
    return found


def ids(count: int, name: str = "r") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


def test_what_happened_in_each_arm_is_counted(two: Registry, here: Here, shop: Shop) -> None:
    scores = Scores(field="probabilities", at=1, edges=(0.0, 0.5))
    rollout = start(two, thresholds=(0.001, 0.01, 0.1), scores=scores)
    sample = some_rows(4)
    sample.outputs["probabilities"][:] = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [np.nan, np.nan]]
    arms = [STABLE, CANARY, CANARY, CANARY]
    shop.sell(ids(4), sample=sample, arms=arms, codes=["ok", "ok", "ok", "ok"], seconds=0.05)
    shop.sell(ids(2, "f"), arms=[STABLE, CANARY], codes=["model_failed"] * 2, seconds=0.0001)
    refused = asked("x", arm=CANARY, seconds=0.2)
    shop.book.note_refused(refused, Message(b"", code="invalid_input"), InvalidInput("no"))
    here.turn_until(lambda: requests(two, rollout) == 7)
    found = total(two, rollout)
    assert found["stable"] == Counts(requests=2, errors=1, slow50=1, slow95=1, bad=1, scores=[0, 1, 0])
    assert found["canary"] == Counts(
        requests=5, errors=2, invalid=1, slow50=4, slow95=4, slow99=1, bad=3, scores=[0, 0, 2]
    )


def test_of_a_request_of_several_rows_the_first_speaks(two: Registry, here: Here, shop: Shop) -> None:
    rollout = start(two, scores=Scores(field="prediction", values=("no", "yes")))
    sample = some_rows(6)
    sample.outputs["prediction"][:] = ["yes", "no", "no", "no", "yes", "yes"]
    shop.sell(ids(2), [4, 2], sample, arms=[STABLE, CANARY])
    here.turn_until(lambda: requests(two, rollout) == 2)
    assert [counts.scores for counts in total(two, rollout).values()] == [[0, 1, 0], [0, 1, 0]]


def test_what_no_coin_decided_is_not_counted(two: Registry, here: Here, shop: Shop) -> None:
    """Pinned requests, those that no route parted, and those of a route that is no rollout's."""
    rollout = start(two)
    arms = [f"{CANARY}:pinned", "", "production/7/canary", STABLE]
    shop.sell(ids(4), arms=arms)
    here.turn_until(lambda: requests(two, rollout) == 1)
    assert total(two, rollout) == {"stable": Counts(requests=1)}
    assert not here.tallying._waiting


def test_a_client_that_sticks_counts_once_for_each_kind_of_event(two: Registry, here: Here, shop: Shop) -> None:
    rollout = start(two, key="header:x-user", scores=Scores(field="prediction", values=("no", "yes")))
    sample = some_rows(4)
    sample.outputs["prediction"][:] = ["yes", "no", "no", "no"]
    who = ["0.1", "0.1", "0.2", ""]
    shop.sell(ids(4), sample=sample, arms=[CANARY] * 4, clients=who)
    shop.sell(ids(4, "f"), arms=[CANARY] * 4, clients=who, codes=["model_failed"] * 4)
    shop.sell(ids(2, "s"), arms=[STABLE] * 2, clients=["0.1", "0.3"])
    here.turn_until(lambda: requests(two, rollout) == 10)
    found = total(two, rollout)
    # what has no key is a client of its own, each time
    assert found["canary"] == Counts(requests=8, clients=4, errors=4 - 1, bad=4, scores=[2, 1, 0])
    assert found["stable"].clients == 1, "it was seen in the other arm"


def test_a_shadow_meets_what_was_answered(two: Registry, here: Here, shop: Shop) -> None:
    rollout = start(two, 1.0, "shadow")
    sample, other = some_rows(4, seed=1), some_rows(4, seed=1)
    other.outputs["prediction"][0] = "perhaps"
    shop.sell(ids(4), sample=sample, arms=[STABLE] * 4)
    shop.sell(ids(3), sample=Sample(other.inputs.slice(0, 3), other.outputs.slice(0, 3)), arms=[SHADOW] * 3)
    for code in ("overloaded", "deadline_passed"):  # it was not asked
        shop.book.note_refused(asked("r3", arm=SHADOW), Message(b"", code=code), InvalidInput("no"))
    here.turn_until(lambda: pairs(two, rollout).n == 3)
    assert pairs(two, rollout) == Pairs(3, 1)
    assert {arm: counts.requests for arm, counts in total(two, rollout).items()} == {"stable": 4, "shadow": 3}


def test_a_version_that_cannot_be_served_is_told(two: Registry, here: Here, shop: Shop) -> None:
    rollout = start(two)
    shop.notes.note_unserved("churn", CANARY, "no such operator")
    here.turn_until(lambda: tallies(two, rollout))
    (tally,) = tallies(two, rollout)
    assert (tally.failed, tally.arms) == ({"canary": "no such operator"}, {})


def test_nothing_is_done_where_no_route_parts_anything(two: Registry, here: Here, shop: Shop) -> None:
    shop.sell(ids(3))
    here.turn_until(lambda: here.recorder._totals)
    assert not here.tallying.is_urgent
    assert here.tallying.state() == b""


def test_once_a_rollout_has_ended_nothing_of_it_is_kept(
    two: Registry, here: Here, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallying, "_LOOK_SECONDS", 0.0)
    rollout = start(two)
    shop.sell(ids(1), arms=[CANARY])
    here.turn_until(lambda: requests(two, rollout) == 1)
    two.rollouts.abort("churn")
    shop.sell(ids(1, "late"), arms=[CANARY])
    here.turn_until(lambda: here.tallying.state() == b"")
    shop.sell(ids(1, "later"), arms=[CANARY])
    here.turn_until(lambda: here.recorder._totals["churn", "1"].requests == 3)
    assert here.tallying.state() == b"" and not here.tallying._waiting


def test_while_the_registry_is_away_counts_add_up_and_are_sent_once(
    two: Registry, here: Here, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = start(two)
    shop.sell(ids(2), arms=[STABLE, CANARY])
    here.turn_until(lambda: requests(two, rollout) == 2)
    add, is_away, lies = Tallies.add, [True], [True]

    def away(self: Tallies, rows: Sequence[Tally]) -> int:
        if is_away:
            if lies:  # they were written, and nobody heard of it
                lies.pop()
                add(self, rows)
            raise RemoteFailed("away")
        return add(self, rows)

    monkeypatch.setattr(Tallies, "add", away)
    for number in range(5):
        shop.sell(ids(1, f"s{number}"), arms=[CANARY])
        seen = number + 3
        here.turn_until(lambda seen=seen: here.recorder._totals["churn", "1"].requests == seen)
        here.turn_until(lambda: not lies)
        until = time.monotonic() + 0.25
        here.turn_until(lambda until=until: time.monotonic() > until)
    is_away.clear()
    here.turn_until(lambda: requests(two, rollout) == 7)
    assert total(two, rollout)["canary"].requests == 6
    found = tallies(two, rollout)
    assert len(found) == 3, "one of all that came while another was on its way"
    assert [tally.sequence for tally in found] == [1, 2, 3]


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_successor_sends_what_its_predecessor_had_counted(
    two: Registry, here: Here, shop: Shop, monkeypatch: pytest.MonkeyPatch, is_sent: bool
) -> None:
    """Killed with the checkpoint written, before the tally was sent or after it."""
    rollout = start(two, key="header:x-user")
    shop.sell(ids(1), arms=[STABLE], clients=["0.1"])
    here.turn_until(lambda: requests(two, rollout) == 1)
    with monkeypatch.context() as patch:
        add, tried = Tallies.add, []

        def last(self: Tallies, rows: Sequence[Tally]) -> int:
            tried.append(rows)
            if is_sent:
                add(self, rows)
            raise RemoteFailed("and then it was killed")

        patch.setattr(Tallies, "add", last)
        shop.sell(ids(3, "s"), arms=[CANARY] * 3, clients=["0.1", "0.2", "0.2"])
        here.turn_until(lambda: tried)
        here.close()
    here.begin()
    shop.sell(ids(1, "t"), arms=[CANARY], clients=["0.2"])
    here.turn_until(lambda: requests(two, rollout) == 5)
    assert total(two, rollout)["canary"] == Counts(requests=4, clients=1)
    assert len({tally.source for tally in tallies(two, rollout)}) == 1


def test_without_its_checkpoint_a_successor_is_another_source(two: Registry, here: Here, shop: Shop) -> None:
    """Else what it counts would be taken for what was sent before."""
    rollout = start(two)
    shop.sell(ids(1), arms=[STABLE])
    here.turn_until(lambda: requests(two, rollout) == 1)
    here.close()
    (shop.places.state / "checkpoint").write_bytes(b"nonsense")
    here.begin()
    shop.sell(ids(1, "s"), arms=[STABLE])
    here.turn_until(lambda: requests(two, rollout) == 2)
    assert len({tally.source for tally in tallies(two, rollout)}) == 2
