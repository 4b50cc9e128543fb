"""What was live when, and where a rollback goes."""

import datetime as dt

import pytest

from modelyard.errors import Conflict, InvalidInput, NotFound
from modelyard.registry import Registry, journal
from registries import Make


@pytest.fixture
def five(registry: Registry, make: Make) -> Registry:
    """A registry with churn:1 to churn:5, production at 1."""
    for number in range(1, 6):
        registry.register(make(str(number)), "churn")
    return registry


def live(registry: Registry) -> int:
    return registry.resolve("churn@production").number


def test_rolling_back_returns_to_what_was_live_before(five: Registry) -> None:
    five.promote("churn", 3)
    change = five.rollback("churn", why="too slow")
    assert (change.action, change.from_, change.to, change.why) == ("rollback", 3, 1, "too slow")
    assert live(five) == 1
    assert five.history("churn")[-1] == change


def test_rolling_back_twice_goes_twice_as_far(five: Registry) -> None:
    for number in (2, 3, 5):
        five.promote("churn", number)
    assert [five.rollback("churn").to for _ in range(3)] == [3, 2, 1]
    marker = five.marker()
    with pytest.raises(Conflict, match="no version that still exists was churn@production before churn:1"):
        five.rollback("churn")
    assert five.marker() == marker


def test_rolling_back_after_a_rollback_and_a_new_promotion(five: Registry) -> None:
    for number in (2, 3):
        five.promote("churn", number)
    five.rollback("churn")  # 2, not 3 again
    five.promote("churn", 4)
    assert five.rollback("churn").to == 2
    assert five.rollback("churn").to == 1


def test_rolling_back_never_returns_to_what_was_rolled_back(five: Registry) -> None:
    five.promote("churn", 2)
    five.rollback("churn")
    with pytest.raises(Conflict):
        five.rollback("churn")
    five.promote("churn", 2)
    assert five.rollback("churn").to == 1


def test_rolling_back_skips_what_was_deleted(five: Registry) -> None:
    for number in (2, 3, 4):
        five.promote("churn", number)
    five.delete("churn:3")
    assert five.rollback("churn").to == 2
    five.promote("churn", 5)
    five.delete("churn:1")
    assert five.rollback("churn").to == 2
    with pytest.raises(Conflict):
        five.rollback("churn")


def test_rolling_back_does_not_stay_where_it_is(five: Registry) -> None:
    five.promote("churn", 2)
    five.promote("churn", 1)
    five.delete("churn:2")
    with pytest.raises(Conflict):  # before churn:1 was only churn:1
        five.rollback("churn")


def test_aliases_have_histories_of_their_own(five: Registry) -> None:
    five.promote("churn", 2)
    five.promote("churn", 3, alias="staging")
    five.promote("churn", 4, alias="staging")
    assert five.rollback("churn", alias="staging").to == 3
    assert live(five) == 2
    with pytest.raises(Conflict):
        five.rollback("churn", alias="staging")
    with pytest.raises(NotFound, match="no such alias of churn: blue"):
        five.rollback("churn", alias="blue")


def test_an_alias_that_was_removed_and_made_again(five: Registry) -> None:
    five.promote("churn", 2, alias="staging")
    five.promote("churn", 3, alias="staging")
    five.delete("churn:3", force=True)
    with pytest.raises(NotFound, match="no such alias of churn: staging"):
        five.rollback("churn", alias="staging")
    five.promote("churn", 4, alias="staging")
    assert five.rollback("churn", alias="staging").to == 2


def test_what_was_live_at_a_time(five: Registry) -> None:
    five.promote("churn", 3)
    five.rollback("churn")
    five.promote("churn", 2, alias="staging")
    five.delete("churn:2", force=True)
    moves = [c for c in five.history("churn") if c.alias == "production"]
    for change in moves:
        version = five.live_at("churn", change.when)
        assert version is not None
        assert version.number == change.to
    first = dt.datetime.fromisoformat(moves[0].when)
    assert five.live_at("churn", first - dt.timedelta(microseconds=1)) is None
    assert five.live_at("churn", "2000-01-01") is None
    assert five.live_at("churn", "2000-01-01", alias="never") is None
    staged = next(c for c in five.history("churn") if c.alias == "staging" and c.to)
    version = five.live_at("churn", staged.when, alias="staging")
    assert version is not None
    assert (version.number, version.deleted is not None) == (2, True)
    assert five.live_at("churn", dt.datetime.now(dt.UTC), alias="staging") is None


def test_history_up_to_a_time(five: Registry) -> None:
    history = five.history("churn")
    assert five.history("churn", at=history[2].when) == history[:3]
    assert five.history("churn", at="2000-01-01") == []
    assert five.history("churn", at="2999-01-01") == history
    with pytest.raises(InvalidInput, match="moment"):
        five.history("churn", at="last week")
    with pytest.raises(NotFound, match="known: churn"):
        five.history("chum", at="2000-01-01")


def test_a_clock_that_goes_back_does_not_mix_up_history(five: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    before = five.history("churn")[-1].when
    monkeypatch.setattr(journal, "now", lambda: "2001-01-01T00:00:00.000000Z")
    change = five.promote("churn", 4)
    assert change.when == before
    version = five.live_at("churn", before)
    assert version is not None
    assert version.number == 4
