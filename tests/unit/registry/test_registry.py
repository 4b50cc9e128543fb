"""Registering, finding, moving and deleting; each test on SQLite and on a real PostgreSQL server."""

import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelyard.errors import BadBundle, Conflict, InvalidInput, NotFound, Refused
from modelyard.registry import Registry
from modelyard.stores.local import LocalStore
from modelyard.stores.memory import MemoryStore
from registries import Make

Refs = Callable[[str], list[int]]


@pytest.fixture
def three(registry: Registry, make: Make) -> Registry:
    """A registry with churn:1 to churn:3, production at 1."""
    for text in ("one", "two", "three"):
        registry.register(make(text), "churn")
    return registry


def test_the_first_version_is_production_and_later_ones_are_promoted(registry: Registry, make: Make) -> None:
    bundle = make("one", provenance='{"command": "train"}')
    version = registry.register(bundle, "churn", tags={"team": "blue"}, why="to try")
    assert (version.ref, version.digest, version.task) == ("churn:1", bundle.digest, "regression")
    assert (version.aliases, version.tags, version.existing) == (("production",), {"team": "blue"}, False)
    assert (version.metrics, version.provenance) == ({"r2": 0.5}, {"command": "train"})
    assert version.size > 0
    second = registry.register(make("two"), "churn")
    assert (second.number, second.aliases) == (2, ())
    assert registry.resolve("churn").number == 1
    assert [(c.action, c.alias, c.from_, c.to, c.why) for c in registry.history("churn")] == [
        ("register", None, None, 1, "to try"),
        ("promote", "production", None, 1, "first version"),
        ("tag", None, None, 1, "to try"),
        ("register", None, None, 2, ""),
    ]


def test_the_same_bundle_again_is_the_same_version(registry: Registry, make: Make) -> None:
    first = registry.register(make("one"), "churn")
    marker = registry.marker()
    again = registry.register(make("one"), "churn")
    assert again.existing
    assert msgspec.structs.replace(again, existing=False) == first
    assert registry.marker() == marker
    assert len(registry.versions("churn")) == 1
    other = registry.register(make("one"), "other")
    assert (other.ref, other.digest, other.image) == ("other:1", first.digest, first.image)


def test_registering_again_still_moves_alias_and_tags(registry: Registry, make: Make) -> None:
    registry.register(make("one"), "churn")
    version = registry.register(make("one"), "churn", alias="staging", tags={"a": "1"}, why="again")
    assert version.existing
    assert (version.aliases, version.tags) == (("production", "staging"), {"a": "1"})
    assert [c.action for c in registry.history("churn")] == ["register", "promote", "promote", "tag"]


def test_what_comes_to_lie_beside_a_bundle_later_is_added(registry: Registry, make: Make) -> None:
    bundle = make("one", provenance='{"n": 1}')
    first = registry.register(bundle, "churn")
    (bundle.folder / "beside" / "bundle.sig").write_text("signed")
    (bundle.folder / "beside" / "provenance.json").write_text('{"n": 2}')
    again = registry.register(bundle, "churn", why="signed")
    assert again.existing
    assert again.size == first.size + len("signed")
    change = registry.history("churn")[-1]
    assert (change.action, change.to, change.detail, change.why) == ("attach", 1, "bundle.sig", "signed")
    fetched = registry.fetch(again)
    assert (fetched.folder / "beside" / "bundle.sig").read_text() == "signed"
    assert fetched.provenance == again.provenance == {"n": 1}, "what was there stays"
    marker = registry.marker()
    registry.register(bundle, "churn")
    assert registry.marker() == marker
    assert registry.collect() == 0 or registry.fetch(again).digest == bundle.digest


def test_with_an_alias_of_ones_own_the_first_version_is_not_production(registry: Registry, make: Make) -> None:
    assert registry.register(make("one"), "churn", alias="staging").aliases == ("staging",)
    assert registry.register(make("two"), "churn").aliases == ()
    assert registry.resolve("churn").number == 2  # no production: the newest
    assert registry.register(make("three"), "churn", alias="production").aliases == ("production",)


def test_resolving(three: Registry) -> None:
    versions = three.versions("churn")
    assert [v.number for v in versions] == [1, 2, 3]
    three.promote("churn", 2, alias="staging")
    for ref, number in {"churn": 1, "churn:3": 3, "churn@production": 1, "churn@staging": 2}.items():
        assert three.resolve(ref).number == number
    assert three.resolve(f"churn@{versions[2].digest}") == versions[2]
    assert three.resolve(f"churn@{versions[2].digest[:19]}").number == 3
    assert three.aliases("churn") == {"production": 1, "staging": 2}
    assert three.models() == ["churn"]


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        ("chrun", "no such model: chrun (known: churn)", "did you mean churn?"),
        ("other:1", "no such model: other", ""),
        ("churn:9", "no such version of churn: 9", "did you mean churn:3?"),
        ("churn@prodution", "no such alias of churn: prodution (known: production)", "did you mean production?"),
        ("churn@blue", "no such alias of churn: blue", "modelyard promote churn 3 --alias blue"),
        ("churn@sha256:000000000000", "no version of churn has the digest", "modelyard versions churn"),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest(three: Registry, ref: str, message: str, hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        three.resolve(ref)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_empty_registry(registry: Registry) -> None:
    assert registry.models() == []
    assert registry.marker() == 0
    asks: list[Callable[[str], object]] = [
        registry.resolve, registry.versions, registry.aliases, registry.history, registry.delete, registry.rollback,
        lambda name: registry.promote(name, 1), lambda name: registry.live_at(name, "2026-01-01"),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(NotFound, match=r"no such model: churn \(there are none\)"):
            ask("churn")


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "x" * 300, "🦆", 4])
def test_bad_names_change_nothing(registry: Registry, make: Make, name: Any) -> None:
    bundle = make()
    uses: list[Callable[[], object]] = [
        lambda: registry.register(bundle, name),
        lambda: registry.register(bundle, "churn", alias=name),
        lambda: registry.register(bundle, "churn", tags={name: "x"}),
        lambda: registry.promote(name, 1),
        lambda: registry.promote("churn", 1, alias=name),
        lambda: registry.resolve(name),
        lambda: registry.versions(name),
        lambda: registry.aliases(name),
        lambda: registry.rollback(name),
        lambda: registry.rollback("churn", alias=name),
        lambda: registry.delete(name),
        lambda: registry.history(name),
        lambda: registry.tag(name, "a", "b"),
        lambda: registry.live_at(name, "2026-01-01"),
    ]
    for use in uses:
        with pytest.raises(InvalidInput):
            use()
    assert registry.models() == []
    assert registry.marker() == 0


def test_hostile_texts_are_only_texts(registry: Registry, make: Make) -> None:
    nasty = "'; DROP TABLE versions; -- %s ? \\ \" 𝕏"
    registry.register(make(), "churn", tags={"note": nasty}, why=nasty)
    assert registry.resolve("churn").tags == {"note": nasty}
    assert registry.history("churn")[0].why == nasty
    with pytest.raises(InvalidInput, match="why: expected text without NUL"):
        registry.promote("churn", 1, why="a\0b")


def test_promoting(three: Registry) -> None:
    change = three.promote("churn", 2, why="better")
    assert (change.action, change.from_, change.to, change.why, change.moved) == ("promote", 1, 2, "better", True)
    assert change == three.history("churn")[-1]
    assert three.resolve("churn").number == 2
    marker = three.marker()
    again = three.promote("churn", 2, why="again")
    assert (again.moved, again.from_, again.to) == (False, 2, 2)
    assert three.marker() == marker
    with pytest.raises(NotFound, match="no such version of churn: 4"):
        three.promote("churn", 4)
    with pytest.raises(NotFound, match="no such version of churn: 2147483648"):
        three.promote("churn", 2**31)
    wrong: Any
    for wrong in ("2", 2.0, True, None):
        with pytest.raises(InvalidInput, match="version: expected a whole number"):
            three.promote("churn", wrong)
    for wrong in (None, 5, b"x"):
        with pytest.raises(InvalidInput, match="why: expected a text"):
            three.promote("churn", 1, why=wrong)
        with pytest.raises(InvalidInput, match="value of tag a: expected a text"):
            three.tag("churn", "a", wrong)


def test_promoting_as_compare_and_swap(three: Registry) -> None:
    assert three.promote("churn", 2, expect=1).moved
    with pytest.raises(Conflict, match="churn@production is churn:2, not the expected 1") as caught:
        three.promote("churn", 3, expect=1)
    assert caught.value.details == {"now": 2}
    assert three.promote("churn", 3, alias="staging", expect=0).from_ is None
    with pytest.raises(Conflict, match="churn@staging is churn:3, not the expected 0"):
        three.promote("churn", 1, alias="staging", expect=0)
    with pytest.raises(Conflict, match="churn@blue is not set, not the expected 1"):
        three.promote("churn", 1, alias="blue", expect=1)
    assert three.aliases("churn") == {"production": 2, "staging": 3}


def test_tags(three: Registry) -> None:
    assert three.tag("churn:2", "stage", "gold").detail == "stage=gold"
    assert not three.tag("churn:2", "stage", "gold").moved
    three.tag("churn:2", "stage", "silver", why="oops")
    three.tag("churn:2", "empty", "")
    assert three.resolve("churn:2").tags == {"empty": "", "stage": "silver"}
    three.untag("churn:2", "stage")
    assert three.resolve("churn:2").tags == {"empty": ""}
    assert three.resolve("churn:1").tags == {}
    with pytest.raises(NotFound, match="no such tag of churn:2: stage"):
        three.untag("churn:2", "stage")
    done = [(c.action, c.to, c.detail, c.why) for c in three.history("churn")[4:]]
    assert done == [
        ("tag", 2, "stage=gold", ""), ("tag", 2, "stage=silver", "oops"), ("tag", 2, "empty=", ""),
        ("untag", 2, "stage", ""),
    ]  # fmt: skip


def test_deleting(three: Registry, make: Make) -> None:
    digest = three.resolve("churn:3").digest
    three.delete("churn:3", why="wrong data")
    with pytest.raises(NotFound, match=r"churn:3 was deleted on .*") as caught:
        three.resolve("churn:3")
    assert "churn:2" in caught.value.hint
    last = three.history("churn")[-1]
    assert (last.action, last.from_, last.to, last.why, last.detail) == ("delete", 3, None, "wrong data", digest)
    for gone in ("churn:3", f"churn@{digest}"):
        with pytest.raises(NotFound):
            three.delete(gone)
    assert three.register(make("four"), "churn").number == 4  # never given again
    assert three.register(make("three"), "churn").number == 5
    assert [v.number for v in three.versions("churn")] == [1, 2, 4, 5]


def test_deleting_what_is_live_is_refused(three: Registry) -> None:
    three.promote("churn", 2, alias="staging")
    three.promote("churn", 2, alias="blue")
    with pytest.raises(Refused, match="churn:2 is what an alias points to: blue, staging") as caught:
        three.delete("churn:2")
    assert caught.value.details == {"aliases": ("blue", "staging")}
    three.delete("churn:2", force=True)
    assert three.aliases("churn") == {"production": 1}
    removed = [(c.action, c.alias, c.from_, c.to) for c in three.history("churn")[-3:]]
    assert removed == [("delete", "blue", 2, None), ("delete", "staging", 2, None), ("delete", None, 2, None)]
    with pytest.raises(Refused, match="churn:1 is what an alias points to: production"):
        three.delete("churn:1", force=True)
    three.promote("churn", 3)
    three.delete("churn:1")


def test_the_last_version_can_be_forced_out_and_the_next_is_production_again(registry: Registry, make: Make) -> None:
    registry.register(make("one"), "churn")
    with pytest.raises(Refused):
        registry.delete("churn")
    registry.delete("churn", force=True)
    assert registry.models() == []
    assert len(registry.history("churn")) == 4
    version = registry.register(make("two"), "churn")
    assert (version.number, version.aliases) == (2, ("production",))
    assert registry.history("churn")[-1].why == "only version"


def test_a_bundle_that_changed_since_it_was_opened_is_not_registered(registry: Registry, make: Make) -> None:
    bundle = make()
    (bundle.folder / "model" / "model.onnx").write_bytes(b"eno")
    with pytest.raises(BadBundle, match=r"model/model\.onnx"):
        registry.register(bundle, "churn")
    assert registry.models() == []
    assert registry.collect() == 0


def test_the_marker_grows_with_every_change_and_others_see_it(three: Registry, place: str) -> None:
    other = Registry.open(place)
    seen = [other.marker()]
    for change in (
        lambda: three.promote("churn", 2), lambda: three.rollback("churn"), lambda: three.tag("churn", "a", "b"),
        lambda: three.untag("churn", "a"), lambda: three.delete("churn:3"),
    ):  # fmt: skip
        change()
        seen.append(other.marker())
    assert seen == sorted(set(seen))
    assert other.resolve("churn").number == 1
    other.close()


def test_every_history_row_tells_who_and_when(three: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_USER", "ada")
    three.promote("churn", 3)
    history = three.history("churn")
    assert history[-1].who == "ada"
    assert [c.id for c in history] == list(range(1, 6))
    assert [c.when for c in history] == sorted(c.when for c in history)


def test_each_version_is_an_image_in_the_layout(three: Registry, place: str) -> None:
    store = three._store
    assert isinstance(store, LocalStore)
    three.delete("churn:2")
    entries = store.index()["manifests"]
    names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries]
    assert names == ["churn:1", "churn:3"]
    assert [entry["digest"] for entry in entries] == [v.image for v in three.versions("churn")]
    for torn in (b"", b'{"manifests": []}'):
        (store.folder / "index.json").write_bytes(torn)
        Registry.open(place).close()
        assert store.index()["manifests"] == entries


def test_skopeo_reads_what_was_registered(three: Registry) -> None:
    import shutil

    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed (Debian: apt-get install skopeo)")
    store = three._store
    assert isinstance(store, LocalStore)
    place = f"oci:{store.folder}:churn:2"
    done = subprocess.run(["skopeo", "--insecure-policy", "inspect", "--raw", place], capture_output=True, check=True)
    manifest = msgspec.json.decode(done.stdout)
    assert manifest["annotations"]["org.modelyard.bundle.digest"] == three.resolve("churn:2").digest
    assert manifest["artifactType"] == "application/vnd.modelyard.bundle.v1"


def test_versions_share_the_blobs_they_can(registry: Registry, make: Make) -> None:
    first = registry.register(make("one", rows=100_000), "churn")
    store = registry._store
    assert isinstance(store, LocalStore)
    before = set(store.digests())
    again = registry.register(make("one", rows=100_000, provenance="{}"), "other")
    assert first.image == again.image
    assert len(set(store.digests()) - before) == 1  # the provenance


def test_any_store_will_do(make: Make, place: str) -> None:
    store = MemoryStore()
    registry = Registry.open(place, store=store)
    version = registry.register(make("one", report="<p>fine</p>"), "churn")
    fetched = registry.fetch(version)
    assert fetched.digest == version.digest
    assert fetched.report is not None
    assert fetched.report.read_text() == "<p>fine</p>"
    registry.delete("churn", force=True)
    assert registry.collect() > 0
    assert store.blobs == {}
