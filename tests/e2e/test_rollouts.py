"""Rollouts from the command line to the verdict: a server with two workers, a real PostgreSQL, a steady load, and the
guard that watches. Whatever a canary does, no request is dropped.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the versions are graphs")

import canaries
from receivers import waited
from rolling import Load, Rolling


@pytest.fixture(scope="module")
def yard(begin: Callable[..., Rolling]) -> Rolling:
    """One server for all of these, whose stable version may change."""
    return begin()


@pytest.fixture
def load(yard: Rolling) -> Iterator[Load]:
    """A load of the server, of which nothing may be dropped."""
    made = yard.start_load()
    yield made
    made.stop()
    if yard.registry.rollouts.active():
        yard.registry.rollouts.abort("m")
    assert not made.dropped


def check(yard: Rolling, action: str, guard: str) -> dict[str, Any]:
    """That the last decision is this one, and that all who ask are told so; the decision."""
    last = yard.history()[-1]
    assert last["action"] == action and last["why"].startswith(guard), last
    assert last["who"] == "guard" and last["evidence"]["exposure"]["requests"] > 0
    assert yard.registry.routes.present("m") is None
    assert any(change.action == "rollout" and f" {action}: " in change.detail for change in yard.registry.history("m"))
    return last


def test_a_good_canary_is_promoted(yard: Rolling, load: Load) -> None:
    number = yard.start("good", "--ramp", "10,50", "--guard", "errors,invalid,scores", "--tolerate", "errors=3%",
                        "--tolerate", "invalid=3%", "--tolerate", "scores=20%")  # fmt: skip
    assert yard.until("rolled back", "promoted") == "promoted"
    assert yard.registry.resolve("m").number == number
    assert [d["action"] for d in yard.history()] == ["start", "advance", "promote"]
    check(yard, "promote", "the harm that a share of 100% could do is shown to be tolerable")
    assert set(load.codes) == {200}


@pytest.mark.parametrize(
    ("kind", "guard", "codes"),
    [
        ("failing", "errors", {200, 500}), ("nan", "invalid", {200}), ("slow", "latency", {200}),
        ("shifted", "scores", {200}),
    ],
)  # fmt: skip
def test_a_bad_canary_is_taken_back(yard: Rolling, load: Load, kind: str, guard: str, codes: set[int]) -> None:
    before = yard.registry.resolve("m").number
    number = yard.start(kind, "--canary", "20%")
    assert yard.until("rolled back", "promoted", "aborted") == "rolled back"
    last = check(yard, "roll back", guard)
    assert yard.registry.resolve("m").number == before
    told = yard.cli("rollout", "status", "m")
    assert (told["state"], told["candidate"], told["share"]) == ("rolled back", number, 0)
    assert set(load.codes) == codes
    if kind == "failing":
        assert waited(lambda: load.codes[500] >= last["evidence"]["exposure"]["bad"])
        assert last["evidence"]["exposure"]["bad"] > 5


@pytest.mark.slow
def test_wrong_labels_take_a_canary_back(yard: Rolling, load: Load) -> None:
    yard.start("wrong", "--canary", "30%", "--guard", "labels,errors")
    assert waited(lambda: len(load.answers) > 3_000)
    labels = [f"{answer.id},{canaries.truth(answer.x)}" for answer in load.answers[-2_500:]]
    (yard.folder / "labels.csv").write_text("\n".join(["prediction_id,label", *labels]))
    yard.cli("labels", "send", "m", "labels.csv")
    assert yard.until("rolled back", "promoted", "aborted") == "rolled back"
    last = check(yard, "roll back", "labels")
    found = next(finding for finding in last["findings"] if finding["guard"] == "labels")
    assert found["bad"] > found["n"] * 0.8 and not found.get("stable_bad")


def test_a_shadow_that_answers_otherwise_is_ended_and_never_answered(yard: Rolling, load: Load) -> None:
    yard.start("shifted", "--shadow", "50%", "--guard", "disagreement,errors")
    assert yard.until("rolled back", "passed", "aborted") == "rolled back"
    last = yard.history()[-1]
    assert last["why"].startswith("disagreement: ")
    pairs = last["evidence"]["pairs"]
    assert 0.9 * pairs["n"] < pairs["differ"] <= pairs["n"]
    assert all(answer.prediction == pytest.approx(canaries.truth(answer.x)) for answer in load.answers)


def test_an_equal_shadow_passes(yard: Rolling, load: Load) -> None:
    yard.start("good", "--shadow", "--guard", "disagreement,errors", "--tolerate", "errors=3%")
    assert yard.until("rolled back", "passed", "aborted") == "passed"
    pairs = yard.history()[-1]["evidence"]["pairs"]
    assert pairs["n"] > 50 and not pairs.get("differ")


@pytest.mark.slow
def test_a_person_takes_it_back_pauses_and_resumes(yard: Rolling, load: Load) -> None:
    number = yard.start("good", "--canary", "50%", "--guard", "errors", "--tolerate", "errors=3%")
    yard.cli("rollout", "pause", "m", "--why", "lunch")
    served = yard.registry.rollouts.of("m").evidence.exposure.requests
    assert waited(lambda: yard.registry.rollouts.of("m").evidence.exposure.requests > served + 1_500)
    assert yard.state() == "paused"
    yard.cli("rollout", "resume", "m")
    assert yard.until("promoted", "rolled back") == "promoted"
    yard.start("good", "--canary", "50%", "--guard", "errors", "--stage", "60s")
    assert waited(lambda: yard.registry.rollouts.of("m").evidence.exposure.requests > 100)
    yard.cli("rollback", "m", "--why", "complaints")
    assert (yard.registry.resolve("m").number, yard.state()) == (number, "rolled back")
    assert yard.registry.routes.present("m") is None
    last = yard.history()[-1]
    assert last["why"] == "complaints" and last["who"] != "guard"
    assert set(load.codes) == {200}


def test_without_traffic_nothing_is_promoted(yard: Rolling, load: Load) -> None:
    load.stop()
    yard.start("good", "--canary", "50%", "--guard", "errors", "--tolerate", "errors=50%")
    time.sleep(3)
    assert yard.state() == "running"
    assert [d["action"] for d in yard.history()] == ["start"]


@pytest.mark.slow
def test_a_canary_that_no_server_can_load_is_told_and_aborted(yard: Rolling, load: Load) -> None:
    """What it is made of is on no list of what may be loaded."""
    number = yard.register(canaries.foreign(yard.folder / "foreign"))
    yard.cli("rollout", "start", "m", "--to", str(number), "--canary", "50%", "--guard", "errors", "--force-signature")
    assert yard.until("rolled back", "promoted", "aborted") == "aborted"
    why = yard.history()[-1]["why"]
    assert why.startswith(f"version {number} cannot be served: ") and "canaries.Foreign" in why, why
    assert set(load.codes) == {200}


def settled(yard: Rolling, load: Load) -> tuple[int, int]:
    """How many requests were answered, and how many counted, once no more come."""
    load.is_held = True
    counted = yard.settled()
    return load.codes.total(), counted


def under_way(yard: Rolling, load: Load) -> tuple[int, int]:
    """A rollout that lasts, which all workers and the recorder know of."""
    yard.start("good", "--canary", "50%", "--guard", "errors", "--stage", "600s")
    assert waited(lambda: yard.tallied() > 200), yard.told()
    found = settled(yard, load)
    load.is_held = False
    return found


@pytest.mark.slow
def test_while_the_registry_is_away_service_goes_on_and_afterwards_all_of_it_counts(yard: Rolling, load: Load) -> None:
    answers, before = under_way(yard, load)
    yard.wire.cut()
    asked = load.codes.total()
    time.sleep(3)
    assert waited(lambda: load.codes.total() > asked + 200)
    yard.wire.mend()
    assert waited(lambda: yard.tallied() > before), yard.told()
    more, after = settled(yard, load)
    assert after - before == more - answers
    assert yard.state() == "running" and [d["action"] for d in yard.history()] == ["start"]
    assert set(load.codes) == {200}


@pytest.mark.slow
def test_a_recorder_that_is_killed_counts_everything_once(yard: Rolling, load: Load) -> None:
    answers, before = under_way(yard, load)
    for _ in range(2):
        assert waited(lambda: yard.watcher > 0)
        killed = yard.watcher
        os.kill(killed, signal.SIGKILL)
        assert waited(lambda killed=killed: yard.watcher not in (0, killed)), yard.told()
        seen = yard.tallied()
        assert waited(lambda seen=seen: yard.tallied() > seen), yard.told()
    more, after = settled(yard, load)
    assert after - before == more - answers
    assert set(load.codes) == {200}
