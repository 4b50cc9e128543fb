"""A folder as an OCI image: deterministic, right to the last byte, and nothing gets out of it."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import msgspec
import pytest

from modelyard.errors import BadBundle
from modelyard.stores.image import Source, describe, layer, put_image, unpack
from modelyard.stores.local import LocalStore
from modelyard.stores.memory import MemoryStore

CONTENTS = {"model/weights.bin": b"w" * 1000, "model/a/b.txt": b"", "golden.json": b"{}", "ünïcode.txt": b"x" * 512}


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    made = []
    for path, content in CONTENTS.items():
        file = tmp_path / "files" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        made.append(Source(path, file, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)))
    return made


def test_a_layer_is_a_tar_that_anyone_reads(sources: list[Source]) -> None:
    data = b"".join(layer(sources))
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
        names = [info.name for info in infos]
        assert names == sorted(names)
        folders = [info.name for info in infos if info.isdir()]
        assert folders == ["models", "models/model", "models/model/a"]
        assert {(i.uid, i.gid, i.mtime, i.uname, i.gname) for i in infos} == {(0, 0, 0, "", "")}
        assert {oct(i.mode) for i in infos if i.isfile()} == {"0o644"}
        for path, content in CONTENTS.items():
            extracted = tar.extractfile(f"models/{path}")
            assert extracted is not None
            assert extracted.read() == content


def test_a_layer_comes_back_as_the_same_files(sources: list[Source], tmp_path: Path) -> None:
    unpack(io.BytesIO(b"".join(layer(sources))), tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert found == CONTENTS


def test_the_same_files_give_the_same_image(sources: list[Source]) -> None:
    one, two = MemoryStore(), MemoryStore()
    first = list(put_image(one, {"model": sources[:2], "about": sources[2:]}, {"a": "b"}))
    second = list(put_image(two, {"model": sources[1::-1], "about": sources[:1:-1]}, {"a": "b"}))
    assert first == second
    # Written down so that no later version changes the digest of a bundle unawares.
    assert first[-1].digest == "sha256:9fe6793d6d0d121c9c39fd79cef97a00dd459e8f8d58e29e16d55ff6b11c125d"


def test_the_manifest_says_what_is_there(sources: list[Source]) -> None:
    store = MemoryStore()
    parts = {part.role: part for part in put_image(store, {"model": sources[:2], "about": sources[2:]}, {"a": "b"})}
    manifest = json.loads(store.blobs[parts["image"].digest])
    config = json.loads(store.blobs[manifest["config"]["digest"]])
    layers = [parts["layer/model"], parts["layer/about"]]
    assert [(entry["digest"], entry["size"]) for entry in manifest["layers"]] == [(p.digest, p.size) for p in layers]
    assert {entry["mediaType"] for entry in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert config["rootfs"] == {"type": "layers", "diff_ids": [part.digest for part in layers]}
    assert manifest["annotations"] == {"a": "b"}
    for part in parts.values():
        assert part.size == len(store.blobs[part.digest])


def test_a_file_that_changed_meanwhile_is_noticed(sources: list[Source]) -> None:
    for content in (b"W" + b"w" * 999, b"w" * 999, b"w" * 1001):
        sources[0].file.write_bytes(content)
        with pytest.raises(BadBundle, match=r"not what its manifest says: model/weights\.bin"):
            b"".join(layer(sources))
    sources[0].file.unlink()
    with pytest.raises(BadBundle, match=r"gone: model/weights\.bin"):
        b"".join(layer(sources))


@pytest.mark.parametrize("name", ["/etc/passwd", "models/../../out", "elsewhere/x", "../x"])
def test_nothing_gets_out_of_a_layer(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadBundle, match="holds what no bundle does"):
        unpack(_tar(tarfile.TarInfo(name)), tmp_path / "inner")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_layer_holds_no_links_and_no_devices(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("models/link")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(BadBundle, match="models/link"):
        unpack(_tar(info), tmp_path)


def test_what_is_no_tar(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="not a tar"):
        unpack(io.BytesIO(b"junk" * 1000), tmp_path)


def _tar(info: tarfile.TarInfo) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(info)
    out.seek(0)
    return out


def test_skopeo_copies_from_the_layout(sources: list[Source], tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed (Debian: apt-get install skopeo)")
    store = LocalStore(tmp_path / "store")
    parts = list(put_image(store, {"model": sources[:2], "about": sources[2:]}, {}))
    image = parts[-1]
    store.write_index({"schemaVersion": 2, "manifests": [describe(image, "churn:4"), describe(image, "other:1")]})
    place = f"oci:{store.folder}:churn:4"
    inspected = msgspec.json.decode(_skopeo("inspect", place))
    assert inspected["Layers"] == [part.digest for part in parts if part.role.startswith("layer/")]
    # Without it skopeo compresses the layers, and the copy has another digest.
    _skopeo("copy", "--preserve-digests", place, f"oci:{tmp_path / 'copy'}:elsewhere")
    _skopeo("copy", place, f"docker-archive:{tmp_path / 'image.tar'}:churn:4")
    copied = LocalStore(tmp_path / "copy")
    assert set(copied.digests()) == {part.digest for part in parts}
    assert copied.index()["manifests"][0]["digest"] == image.digest


def _skopeo(*arguments: str) -> bytes:
    done = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
