"""The local store beyond the seam: half-written files, full disks, strange digests, the layout."""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.errors import InvalidInput, Refused, RemoteFailed
from modelyard.stores.disk import Scratch
from modelyard.stores.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_it_is_an_oci_layout_from_the_first_blob(store: LocalStore) -> None:
    digest = store.put(b"hello")
    assert (store.folder / "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    assert store.index() == {"schemaVersion": 2, "manifests": []}
    blob = store.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
    assert blob.read_bytes() == b"hello"
    assert list((store.folder / "tmp").iterdir()) == []


def test_nothing_is_made_by_reading(store: LocalStore) -> None:
    assert not store.has("sha256:" + "0" * 64)
    assert list(store.digests()) == []
    assert store.index() == {}
    assert store.sweep() == 0
    assert not store.folder.exists()


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_what_is_no_digest_never_becomes_a_path(store: LocalStore, digest: str) -> None:
    for use in (store.has, store.get, store.delete, store.size):
        with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
            use(digest)


def test_a_foreign_file_is_no_blob(store: LocalStore) -> None:
    store.put(b"x")
    (store.folder / "blobs" / "sha256" / ".nfs0001").write_bytes(b"")
    assert len(list(store.digests())) == 1


def test_a_torn_index_reads_as_none(store: LocalStore) -> None:
    store.put(b"x")
    for torn in (b"", b'{"schemaVersion":2,"mani', b"\xff\xfe", b"[]"):
        (store.folder / "index.json").write_bytes(torn)
        assert store.index() == {}


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EROFS, "no permission to write")],
)
def test_a_disk_that_refuses_is_told_in_words(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    store.put(b"before")

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RemoteFailed, match=f"{store.folder}: {words}") as caught:
        store.put(b"after")
    assert "MODELYARD_HOME" in caught.value.hint
    assert len(list(store.digests())) == 1
    assert list((store.folder / "tmp").iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(RemoteFailed, match=r"store: (Not a directory|File exists)"):
        LocalStore(tmp_path / "store").put(b"x")


def test_a_store_has_one_owner(store: LocalStore) -> None:
    store.claim("one")
    store.claim("one")
    with pytest.raises(Refused, match="belong to another registry: one"):
        store.claim("two")


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(store: LocalStore) -> None:
    store.put(b"ready")

    def slowly() -> Iterator[bytes]:
        yield b"x" * 5000
        time.sleep(60)

    child = os.fork()
    if child == 0:
        store.put(slowly())
        os._exit(0)
    temporary = store.folder / "tmp"
    try:
        while not any(file.stat().st_size for file in temporary.iterdir()):
            time.sleep(0.005)
        assert store.sweep() == 0
        assert len(list(temporary.iterdir())) == 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert store.sweep() == 5000
    assert list(temporary.iterdir()) == []
    assert len(list(store.digests())) == 1


def test_temporary_folders_are_swept_alike(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "tmp")
    with scratch.directory() as folder:
        (folder / "file").write_bytes(b"12345")
        assert Scratch(tmp_path / "tmp").sweep() == 0
        assert folder.exists()
    assert not folder.exists()
    left = tmp_path / "tmp" / "left"
    left.mkdir()
    (left / "file").write_bytes(b"12345")
    assert scratch.sweep() == 5
    assert list((tmp_path / "tmp").iterdir()) == []


def test_writing_while_somebody_sweeps(tmp_path: Path) -> None:
    """A sweeper that comes between the making of a file and its lock must not cost the writer its blob."""
    store = LocalStore(tmp_path / "store")
    store.put(b"ready")
    child = os.fork()
    if child == 0:
        other = LocalStore(tmp_path / "store")
        while True:
            other.sweep()
    try:
        digests = [store.put(b"%d" % number) for number in range(150)]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert set(digests) <= set(store.digests())


def test_killed_while_putting_there_is_all_or_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put(b"ready")
    told: set[str] = set()
    for attempt in range(30):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for number in range(1000):
                digest = LocalStore(tmp_path / "store").put(b"%d,%d;" % (attempt, number) * 20_000)
                os.write(writer, digest.encode() + b"\n")
            os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told.update(pipe.readline().decode().strip() for _ in range(attempt % 3))
            time.sleep(attempt * 0.0003)
            os.kill(child, signal.SIGKILL)
            told.update(pipe.read().decode().split("\n")[:-1])
        os.waitpid(child, 0)
    digests = set(store.digests())
    assert told <= digests
    assert len(told) >= 20
    for digest in digests:
        with store.get(digest) as blob:
            blob.read()
    store.sweep()
    assert list((store.folder / "tmp").iterdir()) == []


def test_a_full_disk_for_real(tmp_path: Path) -> None:
    """A file system of 256 kB, where this machine lets us make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no permission to mount a file system; the same is tested with a faked error")
    try:
        store = LocalStore(folder / "store")
        kept = store.put(b"k" * 50_000)
        with pytest.raises(RemoteFailed, match="the disk is full"):
            store.put(b"x" * 1_000_000)
        assert list(store.digests()) == [kept]
        assert list((store.folder / "tmp").iterdir()) == []
        store.put(b"y" * 50_000)
    finally:
        subprocess.run(["umount", folder], check=True)
