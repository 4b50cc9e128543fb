"""Leases: one acts at a time, whoever is slow, stopped or killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from modelyard.errors import Conflict, RemoteFailed
from modelyard.registry import Registry, leases
from modelyard.registry.leases import Lease, holder_of
from receivers import until


class Clock:
    """A steady clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(leases, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def lease(registry: Registry, holder: str, name: str = "loop") -> Lease:
    return Lease(registry._database, name, holder, free_seconds=6.0)


def test_the_first_has_it_and_the_others_wait(registry: Registry, clock: Clock) -> None:
    one, two = lease(registry, "one"), lease(registry, "two")
    assert holder_of(registry._database, "loop") == ""
    assert one.term == 0
    assert one.beat() and one.term == 1
    assert not two.beat() and two.term == 0
    for _ in range(20):
        clock.now += 2.0
        assert one.beat()
        assert not two.beat()
    assert one.term == 1
    assert holder_of(registry._database, "loop") == "one"
    assert lease(registry, "two", "another").beat()


def test_who_is_silent_for_long_is_replaced_and_may_not_act_any_more(registry: Registry, clock: Clock) -> None:
    one, two = lease(registry, "one"), lease(registry, "two")
    one.beat()
    two.beat()
    clock.now += 5.9
    assert not two.beat()
    assert one.term == 1
    clock.now += 0.2
    assert one.term == 0, "it cannot be sure any more, and does not act"
    assert two.beat() and two.term == 2
    with registry._database.write() as work:
        two.fence(work)
    with pytest.raises(Conflict, match="not held by one any more"), registry._database.write() as work:
        one.fence(work)
    assert not one.beat()
    assert holder_of(registry._database, "loop") == "two"


def test_what_is_written_under_a_lost_lease_is_not_kept(registry: Registry, clock: Clock) -> None:
    one, two = lease(registry, "one"), lease(registry, "two")
    one.beat()
    two.beat()
    clock.now += 7
    two.beat()
    with contextlib.suppress(Conflict), registry._database.write() as work:
        work.do("INSERT INTO states (name, model, version, content) VALUES ('x', '', '', '')")
        one.fence(work)
    assert registry._database.query("SELECT name FROM states") == []


def test_who_was_only_slow_goes_on_where_nobody_else_took_it(registry: Registry, clock: Clock) -> None:
    one = lease(registry, "one")
    one.beat()
    clock.now += 60
    assert one.term == 0
    assert one.beat() and one.term == 1


def test_what_is_let_go_of_is_free_at_once(registry: Registry, clock: Clock) -> None:
    one, two = lease(registry, "one"), lease(registry, "two")
    one.beat()
    assert not two.beat()
    one.release()
    assert one.term == 0 and holder_of(registry._database, "loop") == ""
    assert two.beat() and two.term == 2
    one.release()
    assert holder_of(registry._database, "loop") == "two", "what is another's cannot be let go of"
    assert not one.beat()


def test_a_successor_of_the_same_name_waits_like_any_other(registry: Registry, clock: Clock) -> None:
    lease(registry, "one").beat()
    again = lease(registry, "one")
    assert not again.beat()
    clock.now += 6
    assert again.beat() and again.term == 2


def test_every_taking_over_is_a_term_of_its_own(registry: Registry, clock: Clock) -> None:
    holders = [lease(registry, f"{n}") for n in range(3)]
    terms = []
    for turn in range(9):
        holder = holders[turn % 3]
        holder.beat()
        clock.now += 6
        assert holder.beat()
        terms.append(holder.term)
        clock.now += 0.1
    assert terms == sorted(set(terms))


def test_a_registry_that_is_away_lets_nobody_act_for_long(
    registry: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lease(registry, "one")
    one.beat()

    def away(*_: object) -> None:
        raise RemoteFailed("the registry is away")

    with monkeypatch.context() as patch:
        patch.setattr(type(registry._database), "write", away)
        with pytest.raises(RemoteFailed):
            one.beat()
    assert one.term == 1, "it is held until nobody can know any more"
    clock.now += 6
    assert one.term == 0


def test_of_many_processes_one_acts_and_after_a_kill_another(registry: Registry, place: str) -> None:
    """Each writes a row when it acts, in the transaction that asks whether it may. Terms never overlap."""
    registry.close()
    children = {}
    for number in range(3):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                act(place, f"{number}")
            os._exit(0)
        children[f"{number}"] = child
    killed = []
    try:
        for _ in range(2):
            until(lambda: acting(registry) - {*killed})
            holder = (acting(registry) - {*killed}).pop()
            time.sleep(0.2)
            os.kill(children[holder], signal.SIGKILL)
            killed.append(holder)
        until(lambda: len(actors(registry)) == 3)
        time.sleep(0.2)
    finally:
        for child in children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    rows = registry._database.query("SELECT name, version FROM states WHERE model = 'act' ORDER BY name")
    terms = [row["version"] for row in rows]
    assert terms == sorted(terms, key=lambda each: int(each.partition(" ")[0]))
    assert len({term.partition(" ")[2] for term in terms}) == 3


def actors(registry: Registry) -> set[str]:
    """Who has acted."""
    rows = registry._database.query("SELECT DISTINCT version FROM states WHERE model = 'act'")
    return {row["version"].partition(" ")[2] for row in rows}


def acting(registry: Registry) -> set[str]:
    """Who holds the lease, if it has acted. A slow machine may have had it change hands before anybody was killed."""
    return actors(registry) & {holder_of(registry._database, "loop")}


def act(place: str, holder: str) -> None:
    registry = Registry.open(place)
    mine = Lease(registry._database, "loop", holder, free_seconds=0.3)
    while True:
        if mine.beat():
            with contextlib.suppress(Conflict), registry._database.write() as work:
                mine.fence(work)
                row = work.row("SELECT count(*) AS n FROM states WHERE model = 'act'")
                assert row is not None
                work.do(
                    "INSERT INTO states (name, model, version, content) VALUES (?, 'act', ?, '')",
                    f"{row['n']:06}", f"{mine._term} {holder}",
                )  # fmt: skip
        time.sleep(0.02)
