"""Segments: spools that are cut and sealed, Parquet files made of them, what goes when, and a full disk."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from modelyard.recording import segments as room
from modelyard.recording.segments import Segments
from modelyard.recording.spool import read_spool
from modelyard.telemetry import Log

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def batch(*ids: int, text: str = "x") -> Any:
    return pa.RecordBatch.from_pydict({"id": list(ids), "text": [text] * len(ids)}, SCHEMA)


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    return Segments(tmp_path, "here", Log("error"))


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


def ids(folder: Path) -> list[int]:
    """Every row, of spools and Parquet files."""
    found: list[int] = []
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            found += parquet.read_table(path, partitioning=None)["id"].to_pylist()
        elif path.suffix == ".arrows":
            found += [row["id"] for row in read_spool(path).to_pylist()]
    return sorted(found)


def test_rows_lie_by_model_and_version(segments: Segments, tmp_path: Path) -> None:
    segments.append("churn", "5", batch(1, 2))
    segments.append("../a model", "", batch(3))
    folders = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.arrows")}
    assert folders == {"model=churn/version=5", "model=..%2Fa%20model/version=0"}
    assert ids(tmp_path) == [1, 2, 3]
    segments.close()


def test_a_spool_is_read_while_it_grows(segments: Segments, tmp_path: Path) -> None:
    for number in range(5):
        segments.append("churn", "5", batch(number))
        assert ids(tmp_path) == list(range(number + 1))
    (path,) = tmp_path.rglob("*.arrows")
    data, schema = path.read_bytes(), len(SCHEMA.serialize())
    seen = set()
    for cut in range(schema, len(data), 7):  # whatever there is of it, its whole batches can be read
        path.write_bytes(data[:cut])
        seen.add(tuple(ids(tmp_path)))
    assert seen == {tuple(range(number)) for number in range(5)}
    path.write_bytes(b"")
    assert ids(tmp_path) == []
    segments.close()


def test_a_damaged_spool_is_set_aside(tmp_path: Path) -> None:
    stream = io.StringIO()
    log = Log("info", stream)
    segments = Segments(tmp_path, "here", log)
    segments.append("churn", "5", batch(1))
    segments.seal(every=True)
    (name,) = segments.sealed
    (tmp_path / name).write_bytes(b"junk" * 100)
    assert segments.convert(name)
    assert files(tmp_path) == [".damaged"]
    log.flush()
    assert json.loads(stream.getvalue())["event"] == "a spool is damaged"


def test_a_sealed_spool_becomes_a_parquet_file(segments: Segments, tmp_path: Path) -> None:
    segments.append("churn", "5", batch(1, 2))
    segments.seal()
    assert segments.sealed == {}
    segments.seal(every=True)
    (name,) = segments.sealed
    segments.append("churn", "5", batch(3))
    assert set(segments.state()) > {name}
    assert segments.convert(name)
    assert files(tmp_path) == [".arrows", ".parquet"]
    assert ids(tmp_path) == [1, 2, 3]
    (path,) = tmp_path.rglob("*.parquet")
    assert parquet.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert segments.convert(name), "it was done before"
    segments.close()


def test_a_spool_becomes_a_parquet_file_a_few_rows_at_a_time(
    segments: Segments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.recording.spool.GROUP_ROWS", 10)
    for start in range(0, 25, 5):
        segments.append("churn", "5", batch(*range(start, start + 5)))
    segments.seal(every=True)
    assert all(segments.convert(name) for name in list(segments.sealed))
    (path,) = tmp_path.rglob("*.parquet")
    about = parquet.read_metadata(path)
    assert [about.row_group(number).num_rows for number in range(about.num_row_groups)] == [10, 10, 5]
    assert ids(tmp_path) == list(range(25))
    assert files(tmp_path) == [".parquet"]


def test_large_and_old_spools_are_sealed(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SPOOL_BYTES", 3000)
    segments.append("churn", "5", batch(1))
    segments.seal()
    assert len(segments.sealed) == 0
    segments.append("churn", "5", batch(2, text=os.urandom(3000).hex()))
    segments.seal()
    assert len(segments.sealed) == 1
    segments.append("churn", "5", batch(3))
    monkeypatch.setattr(room, "SPOOL_SECONDS", 0.0)
    segments.seal()
    assert len(segments.sealed) == 1  # it is not worth a file yet
    monkeypatch.setattr(room, "WORTH_BYTES", 100)
    segments.seal()
    assert len(segments.sealed) == 2
    monkeypatch.undo()
    segments.append("churn", "5", batch(4))
    monkeypatch.setattr(room, "SMALL_SECONDS", 0.0)
    segments.seal()
    assert len(segments.sealed) == 3
    segments.close()


def test_rows_of_another_schema_begin_another_spool(segments: Segments, tmp_path: Path) -> None:
    segments.append("churn", "5", batch(1))
    segments.append("churn", "5", pa.RecordBatch.from_pydict({"id": [2], "more": ["x"]}))
    segments.append("churn", "5", pa.RecordBatch.from_pydict({"id": [3], "more": ["x"]}))
    assert len(segments.sealed) == 1
    assert ids(tmp_path) == [1, 2, 3]
    segments.close()


def test_a_new_recorder_goes_on_from_what_was_kept(segments: Segments, tmp_path: Path) -> None:
    segments.append("churn", "5", batch(1, 2))
    segments.append("risk", "1", batch(3))
    kept = segments.state()
    segments.append("churn", "5", batch(4))  # not in the checkpoint: it is read from its ring again
    segments.append("new", "1", batch(5))
    other = Segments(tmp_path, "elsewhere", Log("error"))
    other.append("churn", "5", batch(6))
    again = Segments(tmp_path, "here", Log("error"))
    again.recover(kept)
    assert ids(tmp_path) == [1, 2, 3, 6]
    assert again.sealed == kept
    for name in kept:
        assert again.convert(name)
    assert ids(tmp_path) == [1, 2, 3, 6]
    for each in (segments, other):
        each.close()


def test_a_spool_that_had_become_a_parquet_file_is_not_read_twice(segments: Segments, tmp_path: Path) -> None:
    segments.append("churn", "5", batch(1, 2))
    segments.seal(every=True)
    kept = segments.state()
    (name,) = kept
    spool = (tmp_path / name).read_bytes()
    segments.convert(name)
    (tmp_path / name).write_bytes(spool)  # killed between making the one and removing the other
    again = Segments(tmp_path, "here", Log("error"))
    again.recover(kept)
    assert ids(tmp_path) == [1, 2]
    assert again.state() == {}


def aged(path: Path, days: float) -> None:
    moment = time.time() - days * 86400
    os.utime(path, (moment, moment))


def test_old_files_go_and_then_the_oldest_of_too_many(segments: Segments, tmp_path: Path) -> None:
    for number in range(6):
        segments.append("churn", str(number), batch(number, text=os.urandom(5000).hex()))
    segments.seal(every=True)
    for name in list(segments.sealed):
        segments.convert(name)
    for number in range(6):
        (path,) = (tmp_path / "model=churn" / f"version={number}").iterdir()
        aged(path, number)
    size = path.stat().st_size
    assert segments.retain(days=100, size=10 * size) == 0
    assert segments.retain(days=4.5, size=10 * size) == size
    assert ids(tmp_path) == [0, 1, 2, 3, 4]
    segments.append("churn", "9", batch(9))
    segments.retain(days=100, size=3 * size)
    assert ids(tmp_path) == [0, 1, 9]
    segments.retain(days=0, size=0)
    assert ids(tmp_path) == [9], "what is being written stays"
    segments.close()


def test_what_nobody_will_ever_read_goes_with_its_age(tmp_path: Path) -> None:
    """A spool of a recorder whose state was removed, and files that are damaged: they hold what others may not keep."""
    before = Segments(tmp_path, "before", Log("error"))
    before.append("churn", "5", batch(1))
    before.close()
    (tmp_path / "model=churn" / "version=5" / "20261101T000000000-here.damaged").write_bytes(b"1")
    segments = Segments(tmp_path, "here", Log("error"))
    segments.append("churn", "5", batch(2))
    for path in (tmp_path / "model=churn" / "version=5").iterdir():
        aged(path, 40)
    segments.retain(days=30, size=1 << 30)
    (left,) = (tmp_path / "model=churn" / "version=5").iterdir()
    assert left.name.endswith("-here.arrows"), "what is being written stays"
    segments.close()


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_segments as here
from modelyard.telemetry import Log
from modelyard.recording.segments import Segments

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
segments = Segments(Path(sys.argv[1]), "here", Log("info", sys.stdout))
low, high = resource.getrlimit(resource.RLIMIT_FSIZE)
segments.append("churn", "5", here.batch(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, high))
lost = [segments.append("churn", "5", here.batch(2, 3, text=here.os.urandom(4000).hex())) for _ in range(3)]
lost.append(segments.append("churn", "6", here.batch(4, text=here.os.urandom(4000).hex())))
resource.setrlimit(resource.RLIMIT_FSIZE, (low, high))
lost += [segments.append("churn", "5", here.batch(5)), segments.append("churn", "6", here.batch(6))]
segments.seal(every=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, high))
done = [segments.convert(name) for name in segments.sealed]
resource.setrlimit(resource.RLIMIT_FSIZE, (low, high))
done += [segments.convert(name) for name in segments.sealed]
segments._log.flush()
print(here.json.dumps([lost, done]))
"""


def test_a_disk_that_takes_no_more_costs_only_what_it_did_not_take(tmp_path: Path) -> None:
    """In a process of its own whose files may not grow, which is how a full disk looks to it."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    *logged, result = [json.loads(line) for line in io.StringIO(done.stdout)]
    assert result == [[2, 2, 2, 1, 0, 0], [False, False, True, True]]
    assert [line["event"] for line in logged] == [
        "predictions are not kept", "predictions are kept again", "a spool stays as it is", "a spool stays as it is",
    ]  # fmt: skip
    assert ids(tmp_path) == [1, 5, 6]
    assert files(tmp_path) == [".parquet", ".parquet"]
