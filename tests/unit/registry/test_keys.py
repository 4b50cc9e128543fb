"""API keys: made, kept as digests, listed, revoked."""

from __future__ import annotations

import base64
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Conflict, InvalidInput, NotFound
from modelyard.registry import Registry, journal, keys, migrations


def test_a_key_is_an_id_and_256_random_bits(registry: Registry) -> None:
    key, text = registry.keys.create("shop")
    found = re.fullmatch(r"my_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", text)
    assert found and found[1] == key.id
    assert len(base64.urlsafe_b64decode(found[2] + "=")) == 32
    assert keys.parse(text) == (key.id, found[2])
    assert (key.name, key.scopes, key.models, key.rate, key.expires) == ("shop", ("predict",), (), "", None)
    other, text2 = registry.keys.create("shop2")
    assert key.id != other.id and text[-43:] != text2[-43:]


def test_only_its_digest_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    registry = Registry.open()
    key, text = registry.keys.create("shop")
    assert registry.keys.digests() == {key.id: (key, keys.digest_of(text[-43:]))}
    registry.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or text[-43:].encode() not in path.read_bytes()


def test_what_it_may_do_is_kept(registry: Registry) -> None:
    key, _ = registry.keys.create(
        "shop", scopes=["predict", "label", "label"], models=["churn", "risk"], rate="100/s", expires="30d"
    )
    assert (key.scopes, key.models, key.rate) == (("predict", "label"), ("churn", "risk"), "100/s")
    assert key.expires is not None and key.expires > key.created
    assert registry.keys.list() == [key]
    dated, _ = registry.keys.create("other", expires="2999-01-31")
    assert dated.expires == "2999-01-31T00:00:00.000000Z"


def test_making_and_revoking_are_history_and_move_the_marker(registry: Registry) -> None:
    before = registry.marker()
    key, text = registry.keys.create("shop")
    made = registry.marker()
    assert made > before
    ended = registry.keys.revoke("shop")
    assert registry.marker() > made
    assert ended.revoked is not None
    with registry._database.read() as work:
        rows = journal.changes(work, "")
    assert [(row.action, row.detail) for row in rows] == [
        ("create_key", f"shop ({key.id})"),
        ("revoke_key", f"shop ({key.id})"),
    ]
    assert all(text[-43:] not in row.detail for row in rows)


@pytest.mark.parametrize("by", ["id", "name", "key", "prefix"])
def test_revoking_by(by: str, registry: Registry) -> None:
    key, text = registry.keys.create("shop")
    kept, _ = registry.keys.create("kept")
    ended = registry.keys.revoke({"id": key.id, "name": "shop", "key": text, "prefix": text[:15]}[by])
    assert ended.id == key.id
    assert list(registry.keys.digests()) == [kept.id]
    assert registry.keys.list() == [kept]
    assert registry.keys.list(revoked=True) == [ended, kept]
    with pytest.raises(NotFound, match=r"no such key: shop \(known: kept\)"):
        registry.keys.revoke("shop")
    again, _ = registry.keys.create("shop")  # the name is free again
    assert again.id != key.id


def test_a_key_that_is_not_there_is_not_repeated(registry: Registry) -> None:
    _, text = registry.keys.create("shop")
    registry.keys.revoke("shop")
    with pytest.raises(NotFound) as caught:
        registry.keys.revoke(text)
    assert text[:15] in str(caught.value) and text[-43:] not in str(caught.value)


def test_a_name_is_given_once(registry: Registry) -> None:
    registry.keys.create("shop")
    with pytest.raises(Conflict, match="there is a key of this name: shop") as caught:
        registry.keys.create("shop")
    assert "modelyard keys revoke shop" in caught.value.hint


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "no spaces"}, "key name: expected 1 to 100"),
    ({"name": ""}, "key name"),
    ({"scopes": ["predict", "root"]}, "scope: expected one of predict, label, view, admin, got 'root'"),
    ({"scopes": []}, "scope: expected at least one"),
    ({"models": ["a b"]}, "model name"),
    ({"rate": "100"}, "rate: expected calls in a second, minute, hour or day, like 100/s or 6000/m, got '100'"),
    ({"rate": "0/s"}, "rate"),
    ({"rate": "-1/s"}, "rate"),
    ({"rate": "1.5/s"}, "rate"),
    ({"rate": "1/y"}, "rate"),
    ({"expires": "yesterday"}, "expires: expected a time to come, like 30d, 12h or 2030-01-31, got 'yesterday'"),
    ({"expires": "2020-01-01"}, "expires"),
    ({"expires": "0d"}, "expires"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str, registry: Registry) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.keys.create(**{"name": "shop", **options})
    assert message in caught.value.message
    assert registry.keys.list() == []


@pytest.mark.parametrize(
    ("text", "rate"), [("100/s", (100, 1)), ("6000/m", (6000, 60)), ("5/h", (5, 3600)), ("1/d", (1, 86_400))]
)
def test_rates(text: str, rate: tuple[int, int]) -> None:
    assert keys.read_rate(text) == rate


@pytest.mark.parametrize("text", ["", "my_", "Basic abc", "my_0123456789ab_short", "my_0123456789AB_" + "x" * 43])
def test_what_is_no_key(text: str) -> None:
    assert keys.parse(text) is None


def test_a_registry_of_the_first_schema_learns_about_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "STEPS", migrations.STEPS[:1])
        Registry.open().close()
    with sqlite3.connect(tmp_path / "registry.db") as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchone() == (1,)
    registry = Registry.open()
    key, _ = registry.keys.create("shop")
    assert registry.keys.list() == [key]
