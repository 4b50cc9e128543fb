"""Full disks and homes that cannot be written."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.errors import RemoteFailed
from modelyard.registry import Registry
from registries import Make, tiny_bundle

# -- full ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no permission to mount a file system; the same is tested with a faked error")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return filler


def blobs(home: Path) -> list[Path]:
    return list((home / "store" / "blobs" / "sha256").iterdir()) + list((home / "store" / "tmp").iterdir())


def test_a_bundle_that_does_not_fit_on_the_disk(small: Path, make: Make) -> None:
    registry = Registry.open(small / "home")
    registry.register(make("one"), "churn")
    before = blobs(small / "home")
    marker = registry.marker()
    with pytest.raises(RemoteFailed, match="home/store: the disk is full; nothing was registered") as caught:
        registry.register(make("two", rows=1_000_000), "churn")
    assert "free some space" in caught.value.hint
    assert sorted(blobs(small / "home")) == sorted(before)
    assert registry.marker() == marker
    assert registry.register(make("three"), "churn").number == 2


def test_no_room_for_the_database(small: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_STORE", str(tmp_path / "elsewhere"))
    registry = Registry.open(small / "home")
    registry.register(make("one"), "churn", tags={"padding": "x" * 1000})
    registry.promote("churn", 1, alias="staging")
    marker = registry.marker()
    filler = fill(small)
    changes: list[Callable[[], object]] = [
        lambda: [registry.tag("churn", f"tag{number}", "y" * 1000) for number in range(2000)],
        lambda: [registry.register(make(f"more {number}", rows=10), "churn") for number in range(500)],
    ]
    for change in changes:
        with pytest.raises(RemoteFailed, match=r"home: the disk is full"):
            change()
    assert registry.resolve("churn@staging").number == 1
    assert registry.marker() >= marker
    acknowledged = registry.marker()
    filler.unlink()
    assert registry.register(make("two"), "churn").number == len(registry.versions("churn"))
    assert registry.marker() == acknowledged + 1
    again = Registry.open(small / "home")
    assert again.history("churn") == registry.history("churn")
    assert again.collect() == 0


def test_starting_on_a_full_disk(small: Path, make: Make) -> None:
    registry = Registry.open(small / "home")
    version = registry.register(make("one"), "churn")
    registry.fetch(version)
    registry.close()
    filler = fill(small)
    again = Registry.open(small / "home")
    assert again.resolve("churn") == version
    assert again.fetch(version).digest == version.digest
    with pytest.raises(RemoteFailed, match="home: the disk is full"):
        again.promote("churn", 1, alias="staging")
    with pytest.raises(RemoteFailed, match="the disk is full"):
        Registry.open(small / "other")
    filler.unlink()
    assert again.promote("churn", 1, alias="staging").moved
    assert again.aliases("churn") == {"production": 1, "staging": 1}


def test_a_full_disk_everywhere(registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a real full disk: the n-th call that makes bytes durable fails, for every n."""
    registry.register(make("one"), "churn")
    before = registry.history("churn")
    real = os.fsync
    for nth in range(1, 50):
        calls = 0

        def fsync(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls == nth:  # noqa: B023
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            try:
                version = registry.register(make("two"), "churn")
            except RemoteFailed as error:
                assert error.message.endswith("the disk is full; nothing was registered")
                assert registry.history("churn") == before
                continue
        break
    assert nth > 4, "several steps must have failed before one went through"
    assert version.number == 2
    assert registry.collect() == 0
    assert registry.fetch(version).digest == version.digest


def test_a_cache_that_does_not_fit(small: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_STORE", str(tmp_path / "elsewhere"))
    registry = Registry.open(small / "home")
    version = registry.register(make("one", rows=1_000_000), "churn")
    with pytest.raises(RemoteFailed, match="cache/bundles: the disk is full"):
        registry.fetch(version)
    assert list((small / "home" / "cache").rglob("*.onnx")) == []


# -- read-only -----------------------------------------------------------------------------------------------

Inside = Callable[[Path, Callable[[], None]], None]


@pytest.fixture(params=["mount", "user"])
def read_only(request: pytest.FixtureRequest) -> Iterator[Inside]:
    """Runs a function in a child process for which a folder cannot be written: two ways, at least one of them real."""
    mounted: list[Path] = []

    def run(folder: Path, use: Callable[[], None]) -> None:
        if request.param == "mount":
            for options in (["--bind"], ["-o", "remount,ro,bind"]):
                done = subprocess.run(["mount", *options, folder, folder], capture_output=True)
                if done.returncode:
                    pytest.skip("no permission to mount a folder read-only")
                mounted[:] = [folder]
        else:
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if request.param == "user" and os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                use()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0, "see the traceback above"

    yield run
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that another user may reach."""
    with tempfile.TemporaryDirectory(prefix="modelyard-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"


@pytest.mark.parametrize("left", ["closed", "open", "killed"])
def test_a_read_only_home_is_read_and_not_written(home: Path, make: Make, read_only: Inside, left: str) -> None:
    registry = Registry.open(home)
    cached = registry.register(make("one"), "churn")
    other = registry.register(make("two"), "churn")
    registry.fetch(cached)
    bundle = tiny_bundle(home.parent / "bundle", "three")
    if left == "closed":
        registry.close()
    elif left == "killed":
        registry.close()
        child = os.fork()
        if child == 0:
            writer = Registry.open(home)
            writer.tag("churn", "last", "words")
            os._exit(0)  # without closing: the log stays
        os.waitpid(child, 0)
    history = 5 if left == "killed" else 4
    if left == "killed":
        assert (home / "registry.db-wal").stat().st_size > 0

    def use() -> None:
        reader = Registry.open(home)
        assert reader.resolve("churn").number == 1
        assert len(reader.history("churn")) == history - 1
        assert reader.fetch(cached).digest == cached.digest
        assert reader.models() == ["churn"]
        fetched = reader.fetch(other)  # which is not cached, and cannot be
        assert fetched.digest == other.digest
        assert (fetched.folder / "model" / "model.onnx").read_bytes() == b"two"
        place = fetched.folder
        assert not place.is_relative_to(home)
        del fetched
        assert not place.exists()
        writes: list[Callable[[], object]] = [
            lambda: reader.register(bundle, "churn"), lambda: reader.promote("churn", 2),
            lambda: reader.tag("churn", "a", "b"), lambda: reader.delete("churn:2"), lambda: reader.rollback("churn"),
            reader.collect,
        ]  # fmt: skip
        for write in writes:
            with pytest.raises(RemoteFailed, match="no permission to write") as caught:
                write()
            assert "MODELYARD_HOME" in caught.value.hint
        assert len(reader.history("churn")) == history - 1

    read_only(home, use)


def test_a_reader_without_permission_sees_what_others_write(home: Path, make: Make, tmp_path: Path) -> None:
    registry = Registry.open(home)
    registry.register(make("one"), "churn")
    registry.register(make("two"), "churn")
    view = tmp_path / "view"
    view.mkdir()
    for options in (["--bind", home], ["-o", "remount,ro,bind", home]):
        if subprocess.run(["mount", *options, view], capture_output=True).returncode:
            pytest.skip("no permission to mount a folder read-only")
    try:
        reader = Registry.open(view)
        assert reader.resolve("churn").number == 1
        marker = reader.marker()
        registry.promote("churn", 2)
        assert reader.resolve("churn").number == 2
        assert reader.marker() == marker + 1
        registry.close()  # the log is gone now
        assert reader.resolve("churn").number == 2
        Registry.open(home).promote("churn", 1)
        assert reader.resolve("churn").number == 1
    finally:
        subprocess.run(["umount", "--lazy", view], check=True)


def test_a_home_that_is_not_there_and_cannot_be_made(home: Path, read_only: Inside) -> None:
    home.mkdir()

    def use() -> None:
        for place in (home, home / "deeper"):
            with pytest.raises(RemoteFailed, match="no permission to write"):
                Registry.open(place)

    read_only(home, use)
