"""Labels become evidence in the transaction that counts them, each once."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.registry import Registry, states
from modelyard.registry.decisions import LABELLED
from modelyard.registry.joined import Joined
from modelyard.registry.plans import Plan, Rollout, Stage
from modelyard.registry.tallies import Counts, Labels, Pairs, Tally
from modelyard.rollouts.truths import Truths, is_wrong
from registries import Make


@pytest.fixture
def two(registry: Registry, make: Make) -> Registry:
    for text in ("one", "two"):
        registry.register(make(text), "churn")
    return registry


def start(registry: Registry, share: float = 0.5, mode: Any = "live", **more: Any) -> Rollout:
    plan = Plan(stages=(Stage(share, mode),), guards=("labels",), **more)
    return registry.rollouts.start(Rollout(model="churn", stable=1, candidate=2, plan=plan, share=share))


def joined(id: str, arm: str, predicted: str, label: str, **more: Any) -> Joined:
    plain = Joined(id, id.partition(".")[0], "1", arm, "production", 1, False, "", predicted, label)
    return plain._replace(**more)


def told(registry: Registry, rollout: Rollout, *labels: Joined, truths: Truths | None = None) -> list[Tally]:
    """All tallies, once these labels were told in one transaction."""
    with registry.database.write() as work:
        (truths or Truths())(work, "churn", labels)
    return registry.tallies.after(rollout.id, 0)


def test_labels_are_counted_by_arm(two: Registry) -> None:
    rollout = start(two)
    first = told(
        two, rollout, joined("a", "stable", "yes", "yes"), joined("b", "canary", "yes", "no"),
        joined("c", "canary", "no", "no"), joined("d", "canary", "no", "yes", is_pinned=True),
        joined("e", "", "no", "yes", alias="", revision=0), joined("f", "canary", "no", "yes", revision=9),
    )  # fmt: skip
    (tally,) = first
    assert tally.arms == {"stable": Counts(labels=Labels(1, 0)), "canary": Counts(labels=Labels(2, 1))}
    assert (tally.source, tally.sequence, tally.revision) == ("labels", 0, 1)
    assert told(two, rollout, joined("g", "stable", "yes", "no"))[1].sequence == 1


def test_what_is_rolled_back_was_never_told(two: Registry) -> None:
    rollout, truths = start(two, key="header:x"), Truths()
    with pytest.raises(OSError, match="wall"), two.database.write() as work:
        truths(work, "churn", [joined("a", "canary", "yes", "no", client="0.1")])
        raise OSError("the wall fell down")
    (tally,) = told(two, rollout, joined("a", "canary", "yes", "no", client="0.1"), truths=truths)
    assert tally.arms == {"canary": Counts(labels=Labels(1, 1))}


def test_of_a_request_of_several_rows_the_first_speaks(two: Registry) -> None:
    rollout = start(two)
    rows = [joined(f"a.{row}", "canary", "yes", "no" if row else "yes") for row in range(4)]
    assert told(two, rollout, *rows)[0].arms == {"canary": Counts(labels=Labels(1, 0))}


def test_a_client_that_sticks_counts_once_until_the_rollout_ends(two: Registry) -> None:
    rollout = start(two, key="header:x")
    told(two, rollout, *(joined(id, "canary", "yes", "no", client="0.1") for id in "ab"))
    found = told(
        two, rollout, *(joined(id, "canary", "yes", "no", client=who) for id, who in (("c", "0.1"), ("d", "0.2")))
    )
    assert [tally.arms["canary"].labels for tally in found] == [Labels(1, 1), Labels(1, 1)]
    assert states.get(two.database, LABELLED, "churn", str(rollout.id))
    two.rollouts.abort("churn")
    assert states.get(two.database, LABELLED, "churn", str(rollout.id)) is None
    assert len(told(two, rollout, joined("e", "canary", "yes", "no"))) == 2, "it has ended"


def test_of_a_pair_is_told_which_was_right(two: Registry) -> None:
    rollout = start(two, 1.0, "shadow")
    answers = {"a": ("yes", "no"), "b": ("no", "yes"), "c": ("no", "yes"), "d": ("yes", "yes"), "e": ("no", "no")}
    pairs = [
        joined(id, arm, answer, "yes")
        for id, both in answers.items()
        for arm, answer in zip(("stable", "shadow"), both, strict=True)
    ]
    (tally,) = told(two, rollout, *pairs, joined("f", "stable", "yes", "yes"))
    assert tally.pairs == Pairs(0, 0, live_better=1, shadow_better=2)
    assert tally.arms == {"stable": Counts(labels=Labels(6, 3)), "shadow": Counts(labels=Labels(5, 2))}


@pytest.mark.parametrize(
    ("plan", "predicted", "label", "wrong"),
    [
        ({}, "yes", "yes", False), ({}, "yes", "no", True),
        ({"outcome": "yes"}, "no", "yes", False), ({"outcome": "yes"}, "no", "no", True),
        ({"miss": 0.5}, "1.0", "1.4", False), ({"miss": 0.5}, "1.0", "1.6", True), ({"miss": 0.5}, "nan", "1.0", True),
    ],
)  # fmt: skip
def test_what_is_wrong(plan: dict[str, Any], predicted: str, label: str, wrong: bool) -> None:
    made = Plan(stages=(Stage(0.5),), guards=("labels",), **plan)
    assert is_wrong(made, joined("a", "canary", predicted, label)) is wrong
