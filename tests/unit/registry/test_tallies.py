"""Tallies: kept once, read after a position; each test on SQLite and on PostgreSQL."""

from __future__ import annotations

from modelyard.registry import Registry, tallies
from modelyard.registry.tallies import Counts, Labels, Pairs, Tally


def tally(sequence: int, *, rollout: int = 1, source: str = "here", **arms: Counts) -> Tally:
    return Tally(
        rollout=rollout, revision=2, source=source, sequence=sequence, moment="2026-11-30T12:00:00Z",
        arms=arms or {"stable": Counts(requests=sequence)},
    )  # fmt: skip


def test_rows_come_back_as_they_were(registry: Registry) -> None:
    canary = Counts(
        requests=9, clients=8, errors=7, invalid=6, slow50=5, slow95=4, slow99=3, bad=13, scores=[1, 2, 0],
        labels=Labels(2, 1),
    )  # fmt: skip
    made = Tally(
        rollout=3, revision=7, source="a", sequence=1, moment="2026-11-30T12:00:00Z", arms={"canary": canary},
        pairs=Pairs(10, 4, 2, 1), failed={"canary": "no such operator: Foo"},
    )  # fmt: skip
    assert registry.tallies.add([made]) == 1
    (found,) = registry.tallies.after(3, 0)
    assert found.id == 1
    assert (found.arms, found.pairs, found.failed) == (made.arms, made.pairs, made.failed)


def test_the_contract_of_recorders_is_read(registry: Registry) -> None:
    """What stands in a row is plain JSON, so that whatever wrote it can be read."""
    content = '{"arms": {"stable": {"requests": 5, "errors": 1, "labels": {"n": 2, "wrong": 1}}}, "pairs": {"n": 1}}'
    with registry.database.write() as work:
        columns = "id, rollout, revision, source, sequence, moment, content"
        values = (1, 1, 1, "x", 1, "2026-11-30T12:00:00Z", content)
        work.do(f"INSERT INTO tallies ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
    (found,) = registry.tallies.after(1, 0)
    assert found.arms["stable"] == Counts(requests=5, errors=1, labels=Labels(2, 1))
    assert found.pairs == Pairs(n=1)


def test_a_row_that_is_sent_again_is_kept_once(registry: Registry) -> None:
    assert registry.tallies.add([tally(1), tally(2)]) == 2
    assert registry.tallies.add([tally(1), tally(2), tally(3)]) == 1
    assert registry.tallies.add([tally(1, source="there"), tally(1, rollout=2)]) == 2
    assert [t.sequence for t in registry.tallies.after(1, 0) if t.source == "here"] == [1, 2, 3]


def test_those_after_a_position_are_read_in_order(registry: Registry) -> None:
    registry.tallies.add(tally(n) for n in range(1, 11))
    first = registry.tallies.after(1, 0, most=4)
    assert [t.sequence for t in first] == [1, 2, 3, 4]
    assert [t.sequence for t in registry.tallies.after(1, first[-1].id)] == [5, 6, 7, 8, 9, 10]
    assert registry.tallies.newest(1) == 10
    assert registry.tallies.newest(2) == 0


def test_old_rows_go_and_repeated_ones_are_still_known(registry: Registry) -> None:
    registry.tallies.add([tally(1, source="silent"), *(tally(n) for n in range(1, tallies.KEPT + 51))])
    with registry.database.write() as work:
        tallies.forget(work, 1, registry.tallies.newest(1))
    left = registry.tallies.after(1, 0, most=10_000)
    assert len(left) == tallies.KEPT + 1
    assert registry.tallies.add([tally(1, source="silent"), tally(7)]) == 0


def test_counts_add_up() -> None:
    one = Counts(requests=1, errors=1, scores=[1, 0], labels=Labels(1, 0))
    two = Counts(requests=2, slow95=1, scores=[0, 2], labels=Labels(2, 1))
    assert one.plus(two) == two.plus(one)
    assert one.plus(two) == Counts(requests=3, errors=1, slow95=1, scores=[1, 2], labels=Labels(3, 1))
    assert one.plus(Counts()) == one
