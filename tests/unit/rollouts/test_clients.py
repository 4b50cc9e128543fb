"""Which clients were counted: each once for each kind of event, and of too many a fair part."""

from __future__ import annotations

import msgspec

from modelyard.rollouts.clients import Clients, Followed


def test_each_is_counted_once_for_each_kind_of_event() -> None:
    clients = Clients()
    assert clients.fresh("ann", 1 | 4) == 1 | 4
    assert clients.fresh("ann", 1 | 2 | 4) == 2
    assert clients.fresh("ann", 1 | 2 | 4) == 0
    assert clients.fresh("bob", 1) == 1


def test_a_successor_knows_whom_its_predecessor_counted() -> None:
    first = Clients()
    for number in range(100):
        first.fresh(f"client {number}", 1 + number % 3)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state()), type=Followed)
    second = Clients(kept)
    assert len(second) == 100
    assert [second.fresh(f"client {number}", 1 + number % 3) for number in range(101)] == [0] * 100 + [1 + 100 % 3]


def test_of_too_many_a_part_is_followed_that_chance_picks() -> None:
    clients = Clients(most=100)
    counted = [number for number in range(10_000) if clients.fresh(f"client {number}", 1)]
    assert len(clients) <= 100
    assert 300 < len(counted) < 1_000, "half, then a quarter, then an eighth ... of those that come"
    assert all(clients.fresh(f"client {number}", 1) == 0 for number in counted), "nobody is counted again"
    # whether a client is followed is the same for the next recorder
    after = Clients(clients.state(), most=100)
    news = [f"new {number}" for number in range(2_000)]
    assert [clients.fresh(name, 1) for name in news[:50]] == [after.fresh(name, 1) for name in news[:50]]
