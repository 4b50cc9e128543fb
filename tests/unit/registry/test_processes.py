"""Several processes at once, and processes that are killed: nothing is lost, doubled or half-made."""

import contextlib
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from modelyard.bundle import Bundle
from modelyard.errors import Conflict, ModelyardError, NotFound, Refused
from modelyard.registry import Change, Registry, Version
from modelyard.registry.database import is_url
from modelyard.stores.local import LocalStore
from registries import Make

Task = Callable[[Callable[[object], None]], None]


def spawn(task: Task) -> tuple[int, int]:
    """Run ``task`` in a child process; it gets a function that writes a value down a pipe, a line each.

    Returns the child's process number and the pipe. An error comes down the pipe as a text.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            task(lambda value: _write(writer, value))
        except BaseException:
            _write(writer, traceback.format_exc())
        finally:
            os._exit(0)
    os.close(writer)
    return child, reader


def _write(pipe: int, value: object) -> None:
    os.write(pipe, msgspec.json.encode(value) + b"\n")


def collected(child: int, reader: int, kill_after: tuple[int, float] | None = None) -> list[bytes]:
    """The whole lines that a child wrote until it ended, or was killed: after some lines and a few seconds."""
    with os.fdopen(reader, "rb") as pipe:
        lines = []
        if kill_after is not None:
            lines = [pipe.readline().rstrip() for _ in range(kill_after[0])]
            time.sleep(kill_after[1])
            os.kill(child, signal.SIGKILL)
        lines += pipe.read().split(b"\n")[:-1]
    os.waitpid(child, 0)
    for line in lines:
        assert not line.startswith(b'"'), msgspec.json.decode(line)
    return lines


def check(registry: Registry) -> list[Change]:
    """Whether a registry is whole: its tables are what its history says, and every blob is there and right."""
    with registry._database.write():  # whoever was killed in the middle of a commit is through with it after this
        pass
    names = {row["model"] for row in registry._database.query("SELECT DISTINCT model FROM changes")}
    changes = sorted((c for name in names for c in registry.history(name)), key=lambda c: c.id)
    assert [c.id for c in changes] == list(range(1, len(changes) + 1))
    assert [c.when for c in changes] == sorted(c.when for c in changes)
    alive: dict[tuple[str, int], str] = {}
    aliases: dict[tuple[str, str], int] = {}
    given: dict[str, int] = {}
    for change in changes:
        if change.alias is not None:
            assert aliases.get((change.model, change.alias)) == change.from_
            aliases.pop((change.model, change.alias), None)
            if change.to is not None:
                aliases[change.model, change.alias] = change.to
        elif change.action == "register":
            assert change.to == given.get(change.model, 0) + 1
            given[change.model] = change.to
            alive[change.model, change.to] = change.detail
        elif change.action == "delete":
            assert change.from_ is not None
            del alive[change.model, change.from_]
    versions = [version for name in registry.models() for version in registry.versions(name)]
    assert {(v.model, v.number): v.digest for v in versions} == alive
    assert {(v.model, alias): v.number for v in versions for alias in v.aliases} == aliases
    assert len({(v.model, v.digest) for v in versions}) == len(versions)
    store = registry._store
    assert isinstance(store, LocalStore)
    named = registry._database.query("SELECT DISTINCT digest FROM blobs")
    for row in named:
        with store.get(row["digest"]) as blob:
            while blob.read(1 << 20):
                pass
    held = registry._database.query("SELECT count(*) AS held FROM blobs WHERE part = 'image'")
    assert held[0]["held"] == len(versions)
    return changes


@pytest.mark.parametrize("processes", [2, 8])
def test_registering_at_once_loses_and_doubles_nothing(place: str, make: Make, processes: int) -> None:
    own = [[make(f"{process}.{number}") for number in range(24 // processes)] for process in range(processes)]
    shared = [make(f"shared {number}") for number in range(4)]

    def task(bundles: Sequence[Bundle]) -> Task:
        def run(tell: Callable[[object], None]) -> None:
            registry = Registry.open(place)
            for bundle in bundles:
                tell(registry.register(bundle, "churn"))

        return run

    children = [spawn(task(sorted([*mine, *shared], key=lambda _: random.random()))) for mine in own]
    told = [[msgspec.json.decode(line, type=Version) for line in collected(*child)] for child in children]
    registry = Registry.open(place)
    versions = registry.versions("churn")
    assert [version.number for version in versions] == list(range(1, 29))
    by_digest = {version.digest: version.number for version in versions}
    assert set(by_digest) == {bundle.digest for mine in [*own, shared] for bundle in mine}
    for mine in told:
        assert len(mine) == 24 // processes + 4
        assert all(by_digest[version.digest] == version.number for version in mine)
    fresh = [version.number for mine in told for version in mine if not version.existing]
    assert sorted(fresh) == list(range(1, 29)), "each version was new to exactly one process"
    check(registry)
    registry.close()


def test_compare_and_swap_from_many_processes(place: str, make: Make) -> None:
    registry = Registry.open(place)
    for number in range(1, 31):
        registry.register(make(str(number)), "churn")
    registry.close()

    def run(tell: Callable[[object], None]) -> None:
        mine = Registry.open(place)
        while (current := mine.resolve("churn").number) < 30:
            with contextlib.suppress(Conflict):
                tell(mine.promote("churn", current + 1, expect=current))

    children = [spawn(run) for _ in range(4)]
    moves = [msgspec.json.decode(line, type=Change) for child in children for line in collected(*child)]
    assert sorted((move.from_, move.to) for move in moves) == [(number, number + 1) for number in range(1, 30)]
    registry = Registry.open(place)
    check(registry)
    registry.close()


def test_collecting_while_others_register(place: str, make: Make) -> None:
    """What a collector finds unnamed may be just about to be named."""
    bundles = [make(str(number)) for number in range(8)]
    first = Registry.open(place)
    first.register(bundles[0], "churn")
    first.close()

    def collect(tell: Callable[[object], None]) -> None:
        registry = Registry.open(place)
        while True:
            registry.collect()
            time.sleep(0.002)

    def register(name: str) -> Task:
        def run(tell: Callable[[object], None]) -> None:
            registry = Registry.open(place)
            for bundle in bundles:
                version = registry.register(bundle, name)
                assert registry.fetch(version).digest == bundle.digest
                registry.delete(version.ref, force=True)
                tell(registry.register(bundle, name, alias="keep"))

        return run

    collector = spawn(collect)
    workers = [spawn(register(name)) for name in ("churn", "other")]
    try:
        for worker in workers:
            assert len(collected(*worker)) == len(bundles)
    finally:
        os.kill(collector[0], signal.SIGKILL)
        collected(*collector)
    registry = Registry.open(place)
    check(registry)
    for version in registry.versions("other"):
        assert registry.fetch(version).digest == version.digest
    registry.close()


def something(registry: Registry, bundles: Sequence[Bundle], random: random.Random) -> list[Change | Version]:
    """Change something; return what was acknowledged."""
    name = random.choice(("churn", "fraud"))
    number = random.randrange(1, 30)
    alias = random.choice(("production", "staging"))
    match random.choices(("register", "promote", "rollback", "tag", "delete", "collect"), (8, 4, 4, 2, 2, 1))[0]:
        case "register":
            return [registry.register(random.choice(bundles), name, alias=random.choice((None, alias)))]
        case "promote":
            return [registry.promote(name, number, alias=alias)]
        case "rollback":
            return [registry.rollback(name, alias=alias)]
        case "tag":
            return [registry.tag(f"{name}@{alias}", "step", str(random.random()))]
        case "delete":
            registry.delete(f"{name}:{number}")
        case "collect":
            registry.collect()
    return []


@pytest.fixture
def quick(place: str, quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place whose files are in memory."""
    monkeypatch.setenv("MODELYARD_HOME", str(quick_folder))
    return place if is_url(place) else str(quick_folder)


def test_killed_at_any_moment(quick: str, make: Make) -> None:
    """kill -9 into a loop of changes, 200 times on SQLite and 40 times on PostgreSQL.

    Each time the registry must open, hold every change that was acknowledged, exactly as it was, and be whole.
    """
    place = quick
    kills = 40 if is_url(place) else 200
    bundles = [make(str(number), provenance=f'{{"n": {number}}}') for number in range(40)]
    dice = random.Random(7)
    acknowledged: dict[int, Change] = {}
    registered = 0
    for attempt in range(kills):

        def task(tell: Callable[[object], None], seed: int = attempt) -> None:
            mine = random.Random(seed)
            registry = Registry.open(place)
            tell(None)
            while True:
                with contextlib.suppress(NotFound, Conflict, Refused):
                    for done in something(registry, bundles, mine):
                        tell(done)

        # By what was acknowledged rather than by the clock, so that slow machines are killed in the middle, too.
        lines = collected(*spawn(task), kill_after=(dice.choice((0, 1, 2, 4, 6, 8)), dice.random() ** 2 * 0.01))
        registry = Registry.open(place)
        changes = {change.id: change for change in check(registry)}
        for line in lines:
            if line == b"null":
                continue
            if b'"number"' in line:
                version = msgspec.json.decode(line, type=Version)
                registered += not version.existing
                assert any(
                    (c.action, c.model, c.to, c.detail) == ("register", version.model, version.number, version.digest)
                    for c in changes.values()
                )
            else:
                change = msgspec.json.decode(line, type=Change)
                if change.moved:
                    acknowledged[change.id] = change
        assert acknowledged.items() <= changes.items()
        registry.close()
    registry = Registry.open(place)
    registry.collect()
    for name in registry.models():
        for version in registry.versions(name):
            assert registry.fetch(version).digest == version.digest
    store = registry._store
    assert isinstance(store, LocalStore)
    assert list((store.folder / "tmp").iterdir()) == []
    named = {row["digest"] for row in registry._database.query("SELECT DISTINCT digest FROM blobs")}
    assert set(store.digests()) == named
    print(f"{kills} kills, {len(changes)} changes")
    assert len(changes) > kills / 2, "too little was going on to prove anything"
    assert len(acknowledged) > kills / 10
    assert registered > kills / 10
    registry.close()


def test_errors_of_a_child_are_seen() -> None:
    def fail(_: Callable[[object], None]) -> None:
        raise ModelyardError("seen")

    with pytest.raises(AssertionError, match="seen"):
        collected(*spawn(fail))
