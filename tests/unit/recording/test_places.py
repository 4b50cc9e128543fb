"""The records folder: where it is, its secret, and its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.errors import RemoteFailed
from modelyard.recording.places import Places


@pytest.fixture
def places(records: Path) -> Places:
    made = Places(records)
    made.make()
    return made


def test_where_it_is_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(given: str | None = None) -> Path | None:
        found = Places.chosen(given)
        return found and found.folder

    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.delenv("MODELYARD_RECORDS", raising=False)
    assert chosen() == tmp_path / "records"
    monkeypatch.setenv("MODELYARD_RECORDS", "off")
    assert chosen() is None
    assert chosen("/elsewhere") == Path("/elsewhere")
    monkeypatch.setenv("MODELYARD_RECORDS", "~/there")
    assert chosen() == Path.home() / "there"
    assert chosen("Off") is None


def test_the_secret_is_made_once_and_is_the_owners(places: Places) -> None:
    key = places.key()
    assert len(key) == 32 and places.key() == key
    assert Places(places.folder).key() == key
    assert (places.state / "key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in places.state.iterdir()) == ["key"]


def test_several_that_make_the_secret_at_once_get_the_same(places: Places) -> None:
    reader, writer = os.pipe()
    for _ in range(8):
        if os.fork() == 0:
            os.write(writer, Places(places.folder).key())
            os._exit(0)
    for _ in range(8):
        os.wait()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    assert found == places.key() * 8


def test_memory_that_another_has_taken_is_not_used(places: Places) -> None:
    """After a reboot anybody may make a folder of the name that a link leads to."""
    before = places.rings.readlink()
    before.chmod(0o777)
    places.make()
    after = places.rings.readlink()
    assert after != before and after.stat().st_mode & 0o777 == 0o700
    places.make()
    assert places.rings.readlink() == after


def test_several_that_make_it_at_once_share_one_memory(records: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    for _ in range(8):
        if os.fork() == 0:
            Places(records).make()
            os._exit(0)
    for _ in range(8):
        os.wait()
    new = set(Path("/dev/shm").iterdir()) - before
    made = {path for path in new if (path / "records").resolve() == records.resolve()}
    assert made == {Places(records).rings.readlink()}


def test_its_name_stays(places: Places) -> None:
    name = places.source()
    assert places.source() == Places(places.folder).source() == name
    assert name.isascii() and "/" not in name and len(name) <= 64


def test_a_folder_that_cannot_be_written_is_told(places: Places) -> None:
    broken = Places(places.folder / "nowhere")
    with pytest.raises(RemoteFailed, match=f"cannot write to {broken.state}"):
        broken.key()
