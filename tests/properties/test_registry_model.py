"""The registry against a plain dict: any sequence of changes leaves both saying the same."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from modelyard.bundle import Bundle
from modelyard.errors import Conflict, NotFound, Refused
from modelyard.registry import Registry
from modelyard.stores.memory import MemoryStore
from registries import postgres_schema, quick_folder, run_sql, tiny_bundle

__all__ = ["postgres_schema", "quick_folder"]

NAMES = st.sampled_from(["churn", "fraud"])
ALIASES = st.sampled_from(["production", "staging"])
BUNDLES = st.integers(0, 5)
NUMBERS = st.integers(1, 8)


class Plain:
    """What one model is, in dicts and lists."""

    def __init__(self) -> None:
        self.given = 0
        self.alive: dict[int, int] = {}  # number -> bundle
        self.tags: dict[int, dict[str, str]] = {}
        self.aliases: dict[str, int] = {}
        self.piles: dict[str, list[int]] = {}  # what each alias would roll back through, the present one on top
        self.changes = 0
        self.moves: list[tuple[str, str, int | None]] = []  # moment, alias, where to

    def point(self, alias: str, number: int) -> bool:
        if self.aliases.get(alias) == number:
            return False
        self.aliases[alias] = number
        self.piles.setdefault(alias, []).append(number)
        self.changes += 1
        return True


class Machine(RuleBasedStateMachine):
    """Does each thing to the registry and to the dicts."""

    start: Callable[[], Registry]
    samples: list[Bundle]

    def __init__(self) -> None:
        super().__init__()
        self.registry = type(self).start()
        self.models = {"churn": Plain(), "fraud": Plain()}

    def moved(self, name: str, alias: str) -> None:
        """Note when the last change of ``alias`` was, and where it went."""
        last = [change for change in self.registry.history(name) if change.alias == alias][-1]
        self.models[name].moves.append((last.when, alias, last.to))

    @rule(name=NAMES, bundle=BUNDLES, alias=st.none() | ALIASES)
    def register(self, name: str, bundle: int, alias: str | None) -> None:
        plain = self.models[name]
        version = self.registry.register(self.samples[bundle], name, alias=alias)
        known = {held: number for number, held in plain.alive.items()}
        assert version.existing == (bundle in known)
        if bundle not in known:
            plain.given += 1
            plain.changes += 1
            assert version.number == plain.given
            plain.alive[plain.given] = bundle
            plain.tags[plain.given] = {}
            if alias is None and len(plain.alive) == 1:
                alias = "production"
        else:
            assert version.number == known[bundle]
        if alias is not None and plain.point(alias, version.number):
            self.moved(name, alias)

    @rule(name=NAMES, number=NUMBERS, alias=ALIASES, expect=st.none() | st.integers(0, 8))
    def promote(self, name: str, number: int, alias: str, expect: int | None) -> None:
        plain = self.models[name]
        if number not in plain.alive:
            with pytest.raises(NotFound):
                self.registry.promote(name, number, alias=alias, expect=expect)
        elif expect is not None and plain.aliases.get(alias, 0) != expect:
            with pytest.raises(Conflict):
                self.registry.promote(name, number, alias=alias, expect=expect)
        else:
            change = self.registry.promote(name, number, alias=alias, expect=expect)
            assert change.moved == plain.point(alias, number)
            if change.moved:
                self.moved(name, alias)

    @rule(name=NAMES, alias=ALIASES)
    def rollback(self, name: str, alias: str) -> None:
        plain = self.models[name]
        if alias not in plain.aliases:
            with pytest.raises(NotFound):
                self.registry.rollback(name, alias=alias)
            return
        pile, current = plain.piles[alias], plain.aliases[alias]
        rest = list(itertools.dropwhile(lambda n: n == current or n not in plain.alive, reversed(pile)))
        if not rest:
            with pytest.raises(Conflict):
                self.registry.rollback(name, alias=alias)
            return
        assert self.registry.rollback(name, alias=alias).to == rest[0]
        plain.piles[alias] = list(reversed(rest))
        plain.aliases[alias] = rest[0]
        plain.changes += 1
        self.moved(name, alias)

    @rule(name=NAMES, number=NUMBERS, force=st.booleans())
    def delete(self, name: str, number: int, force: bool) -> None:
        plain = self.models[name]
        pointing = sorted(alias for alias, to in plain.aliases.items() if to == number)
        allowed = not pointing or (force and ("production" not in pointing or len(plain.alive) == 1))
        if number not in plain.alive:
            with pytest.raises(NotFound):
                self.registry.delete(f"{name}:{number}", force=force)
        elif not allowed:
            with pytest.raises(Refused):
                self.registry.delete(f"{name}:{number}", force=force)
        else:
            self.registry.delete(f"{name}:{number}", force=force)
            del plain.alive[number], plain.tags[number]
            for alias in pointing:
                del plain.aliases[alias]
                self.moved(name, alias)
            plain.changes += 1 + len(pointing)

    @rule(name=NAMES, number=NUMBERS, key=st.sampled_from("ab"), value=st.sampled_from(["", "x"]))
    def tag(self, name: str, number: int, key: str, value: str) -> None:
        plain = self.models[name]
        if number not in plain.alive:
            with pytest.raises(NotFound):
                self.registry.tag(f"{name}:{number}", key, value)
            return
        fresh = plain.tags[number].get(key) != value
        assert self.registry.tag(f"{name}:{number}", key, value).moved == fresh
        plain.tags[number][key] = value
        plain.changes += fresh

    @rule(name=NAMES, number=NUMBERS, key=st.sampled_from("ab"))
    def untag(self, name: str, number: int, key: str) -> None:
        plain = self.models[name]
        if key not in plain.tags.get(number, {}):
            with pytest.raises(NotFound):
                self.registry.untag(f"{name}:{number}", key)
            return
        self.registry.untag(f"{name}:{number}", key)
        del plain.tags[number][key]
        plain.changes += 1

    @precondition(lambda self: any(plain.alive for plain in self.models.values()))
    @rule()
    def collect(self) -> None:
        self.registry.collect()
        assert self.registry.collect() == 0

    @invariant()
    def both_say_the_same(self) -> None:
        registry = self.registry
        assert registry.models() == sorted(name for name, plain in self.models.items() if plain.alive)
        assert registry.marker() == sum(plain.changes for plain in self.models.values())
        for name, plain in self.models.items():
            if not plain.alive:
                with pytest.raises(NotFound):
                    registry.resolve(name)
                continue
            versions = {version.number: version for version in registry.versions(name)}
            assert {n: v.digest for n, v in versions.items()} == {
                n: self.samples[b].digest for n, b in plain.alive.items()
            }
            assert {n: v.tags for n, v in versions.items()} == plain.tags
            assert registry.aliases(name) == plain.aliases
            assert registry.resolve(name).number == plain.aliases.get("production", max(plain.alive))
            assert len(registry.history(name)) == plain.changes

    def teardown(self) -> None:
        for name, plain in self.models.items():
            for moment, alias, to in plain.moves:
                same = [there for when, other, there in plain.moves if (when, other) == (moment, alias)]
                live = self.registry.live_at(name, moment, alias)
                assert (live.number if live else None) == same[-1], f"{to} at {moment}"
            for number in plain.alive:
                version = self.registry.resolve(f"{name}:{number}")
                assert self.registry.fetch(version).digest == version.digest
        self.registry.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_any_sequence_of_changes(
    kind: str, quick_folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(quick_folder / "home"))
    url = request.getfixturevalue("postgres_schema") if kind == "postgresql" else ""
    homes: Iterator[int] = itertools.count()

    def start() -> Registry:
        if url:
            run_sql(url, *(f"DELETE FROM {table}" for table in ("aliases", "tags", "blobs", "versions", "changes")))
        return Registry.open(url or quick_folder / str(next(homes)), store=MemoryStore())

    class Mine(Machine):
        samples = [tiny_bundle(quick_folder / f"bundle{number}", str(number)) for number in range(6)]  # noqa: RUF012

    Mine.start = staticmethod(start)
    run_state_machine_as_test(
        Mine,
        settings=settings(
            max_examples=6 if url else 30,
            stateful_step_count=20 if url else 30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    if url:
        with contextlib.closing(start()):
            pass
