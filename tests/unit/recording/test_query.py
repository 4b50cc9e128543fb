"""Queries: every row once, whatever it lies in, and nothing but records."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import InvalidInput, MissingDependency, NotFound, RemoteFailed
from modelyard.messages import Message
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.query import Query, follow, show
from modelyard.recording.recorder import Recorder
from modelyard.recording.search import Wanted, search
from modelyard.recording.status import status
from modelyard.schema import Columns, Field, Signature
from modelyard.telemetry import Log
from recordings import Served, Shop, asked, reference, remove_rings, some_ids, some_rows

OTHER = Signature(
    inputs=(Field(name="age", dtype="string"), Field(name="x", dtype="bool")),
    outputs=(Field(name="y", dtype="int32"),),
)


class Recorded:
    """Two models with rows in Parquet files and in spools."""

    def __init__(self, records: Path) -> None:
        self.places = Places(records)
        self.shop = Shop(records)
        self.other = self.shop.notes.book(Served("my risk", "", OTHER), self.shop.meter)  # type: ignore[arg-type]
        self.recorder = Recorder(self.places, None, Log("error"), Options(sample=1))

    def sell(self, id: str, rows: int = 1) -> None:
        self.shop.sell([id], [rows])

    def risk(self, id: str) -> None:
        inputs = OTHER.input_layout.from_arrays({"age": ["old"], "x": [True]})
        outputs = OTHER.output_layout.from_arrays({"y": [7]})
        self.other.note([asked(id)], [Message(b"")], 1.0, 2.0, inputs, outputs)

    def keep(self, *, sealed: bool = False) -> None:
        """Have what was noted in files: spools, or Parquet files."""
        self.recorder.turn()
        self.recorder._keep(is_last=sealed)
        self.recorder._wait()
        self.recorder._errands.wait(120)
        self.recorder._look()


@pytest.fixture
def recorded(records: Path) -> Iterator[Recorded]:
    made = Recorded(records)
    yield made
    made.recorder.close()
    made.shop.close()
    remove_rings(records)


def ids(places: Places, sql: str = "SELECT prediction_id FROM predictions ORDER BY 1") -> list[str]:
    query = Query(places)
    try:
        return [row[0] for row in query.run(sql).rows]
    finally:
        query.close()


def test_spools_and_files_of_all_models_are_read_together(recorded: Recorded) -> None:
    recorded.sell("a")
    recorded.risk("b")
    recorded.keep(sealed=True)
    recorded.sell("c", 2)
    recorded.risk("d")
    recorded.keep()
    assert len(list(recorded.places.segments.rglob("*.parquet"))) == 2
    assert len(list(recorded.places.segments.rglob("*.arrows"))) == 2
    assert ids(recorded.places) == ["a", "b", "c.0", "c.1", "d"]
    assert ids(recorded.places, 'SELECT prediction_id FROM "my risk" ORDER BY 1') == ["b", "d"]
    query = Query(recorded.places)
    found = query.run(
        'SELECT model, version, count(*) AS n, max("out.y") AS y FROM predictions GROUP BY ALL ORDER BY 1'
    ).records()
    assert found == [
        {"model": "churn", "version": "1", "n": 3, "y": None},
        {"model": "my risk", "version": "0", "n": 2, "y": 7},
    ]
    ages = query.run('SELECT "in.age" FROM predictions WHERE model = $1', ["my risk"])
    assert ages.rows == [("old",)] * 2, "columns of one name and several types become what holds both"
    assert query.run('SELECT typeof("in.age") FROM churn LIMIT 1').rows == [("BIGINT",)]
    hours = query.run("SELECT date_trunc('hour', time) FROM predictions WHERE time > now() - INTERVAL 1 HOUR")
    assert len(hours.rows) == 5
    query.close()


def test_a_spool_that_has_become_a_file_is_not_read_twice(recorded: Recorded) -> None:
    recorded.sell("a")
    recorded.keep()
    (spool,) = recorded.places.segments.rglob("*.arrows")
    content = spool.read_bytes()
    recorded.keep(sealed=True)
    spool.write_bytes(content)
    assert ids(recorded.places) == ["a"]


def test_every_row_is_seen_once_while_files_come_and_go(recorded: Recorded) -> None:
    stopped = threading.Event()
    seen: list[list[str]] = []
    failures: list[BaseException] = []

    def look() -> None:
        while not stopped.is_set():
            try:
                seen.append(ids(recorded.places))
            except NotFound:
                continue
            except BaseException as error:
                failures.append(error)
                return

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(30):
        recorded.sell(f"{number:03}")
        recorded.keep(sealed=number % 3 == 2)
    stopped.set()
    reader.join()
    assert not failures
    assert len(seen) > 3
    for found in seen:
        assert found == [f"{number:03}" for number in range(len(found))]
    assert [len(found) for found in seen] == sorted(len(found) for found in seen)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY predictions TO '{outside}'",
        "EXPLAIN ANALYZE COPY predictions TO '{outside}'",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO predictions VALUES (1)",
        "DELETE FROM predictions",
        "ATTACH '{outside}' AS other",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "PRAGMA database_list",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_only_one_select_is_run(recorded: Recorded, tmp_path: Path, sql: str) -> None:
    recorded.sell("a")
    recorded.keep()
    outside = tmp_path / "outside"
    query = Query(recorded.places)
    with pytest.raises(InvalidInput, match="one SELECT"):
        query.run(sql.format(outside=outside))
    assert not outside.exists()
    query.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('{segment}/../../../../{secret}')",
        "SELECT * FROM read_parquet('https://127.0.0.1:1/a.parquet')",
        "SELECT * FROM sql",
        "SELECT getenv('HOME')",
    ],
)
def test_nothing_but_records_is_read(recorded: Recorded, tmp_path: Path, sql: str) -> None:
    recorded.sell("a")
    recorded.keep(sealed=True)
    secret = tmp_path / "secret.csv"
    secret.write_text("a\nsecret\n")
    (segment,) = recorded.places.segments.rglob("*.parquet")
    query = Query(recorded.places)
    with pytest.raises(InvalidInput, match="the query failed") as error:
        query.run(sql.format(secret=secret, segment=segment))
    assert "secret\n" not in str(error.value)
    query.close()


def test_a_mistake_is_told_in_a_line_with_what_may_be_meant(recorded: Recorded) -> None:
    recorded.sell("a")
    recorded.keep()
    query = Query(recorded.places)
    with pytest.raises(InvalidInput) as error:
        query.run("SELECT predicton_id FROM churn")
    assert "predicton_id" in error.value.message and "\n" not in error.value.message
    assert "prediction_id" in error.value.hint
    query.close()


def test_an_unknown_view_is_told_with_those_that_there_are(recorded: Recorded) -> None:
    recorded.sell("a")
    recorded.keep()
    query = Query(recorded.places)
    with pytest.raises(InvalidInput) as error:
        query.run("SELECT * FROM chrun")
    assert error.value.hint == 'there are "predictions", "churn"'
    query.close()


def test_files_that_are_damaged_are_left_out_and_told(recorded: Recorded) -> None:
    recorded.sell("a")
    recorded.keep(sealed=True)
    (whole,) = recorded.places.segments.rglob("*.parquet")
    cut, empty = whole.with_name("0-cut.parquet"), whole.with_name("0-empty.parquet")
    cut.write_bytes(whole.read_bytes()[:-100])
    empty.touch()
    query = Query(recorded.places)
    assert query.run("SELECT prediction_id FROM churn").rows == [("a",)]
    assert query.unreadable == [cut, empty]
    query.close()
    whole.unlink()
    with pytest.raises(RemoteFailed, match="cannot be read"):
        Query(recorded.places)


def test_models_whose_names_differ_in_large_letters_only(records: Path) -> None:
    """DuckDB does not tell them apart; what one of them was asked is not told of the other."""
    for name, id in (("churn", "a"), ("Churn", "b"), ("Predictions", "c")):
        shop = Shop(records, Served(name))
        shop.sell([id])
        shop.close()
    Recorder(Places(records), None, Log("error")).finish()
    assert ids(Places(records)) == ["a", "b", "c"]
    query = Query(Places(records))
    assert query.run("SELECT model, prediction_id FROM churn ORDER BY 1").rows == [("Churn", "b"), ("churn", "a")]
    assert [row["model"] for row in show(query, "b")] == ["Churn"]
    assert [row.id for row in search(query, Wanted(model="churn")).rows] == ["a"]
    query.close()


def test_everything_about_one_prediction(recorded: Recorded) -> None:
    recorded.shop.sell(["a", "b", "c"], [1, 2, 1])
    recorded.sell("d")
    recorded.keep(sealed=True)
    query = Query(recorded.places)
    (row,) = show(query, "b.1")
    assert (row["prediction_id"], row["request_id"], row["joined_with"]) == ("b.1", "b", ["a", "c"])
    assert row["in.age"] is not None and row["out.prediction"] in ("yes", "no")
    assert [each["prediction_id"] for each in show(query, "b")] == ["b.0", "b.1"]
    assert show(query, "d")[0]["joined_with"] == []
    with pytest.raises(NotFound, match="no prediction has this id: nobody'; --"):
        show(query, "nobody'; --")
    query.close()


def test_where_nothing_was_recorded_it_says_so(records: Path) -> None:
    with pytest.raises(NotFound, match=f"nothing has been recorded yet in {records}"):
        Query(Places(records))


def test_a_missing_library_is_named_with_its_extra(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(MissingDependency) as error:
        Query(recorded.places)
    assert error.value.hint == "pip install 'modelyard[records]'"


def test_rows_are_followed_as_they_come(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: Iterator[Any] = iter(range(100))
    recorded.sell("before")
    recorded.keep()

    def next_step(_seconds: float) -> None:
        number = next(steps)
        recorded.sell(f"{number}")
        recorded.risk("other")
        recorded.keep(sealed=number % 2 == 1)  # what came is a Parquet file already when it is looked for

    monkeypatch.setattr("modelyard.recording.query.sleep", next_step)
    rows = follow(recorded.places, "churn")
    found = [next(rows) for _ in range(6)]
    assert [row["prediction_id"] for row in found] == ["0", "1", "2", "3", "4", "5"]
    assert {(row["model"], row["version"]) for row in found} == {("churn", "1")}


def test_status_tells_of_models_rings_and_who_records(recorded: Recorded) -> None:
    empty = status(Places(recorded.places.folder.parent / "elsewhere"))
    assert (empty["recorder"], empty["models"], empty["rings"], empty["bytes"]) == (None, [], [], 0)
    recorded.sell("a", 3)
    recorded.risk("b")
    recorded.keep()
    recorded.sell("c")
    told = status(recorded.places)
    assert told["recorder"] is not None
    first, second = told["models"]
    assert (first["model"], first["version"], first["requests"], first["rows"], first["lost"]) == (
        "churn",
        "1",
        1,
        3,
        0,
    )
    assert (second["model"], second["version"], second["rows"]) == ("my risk", "", 1)
    assert first["bytes"] > 0 and first["last"].startswith("20")
    (ring,) = told["rings"]
    assert ring["alive"] and ring["waiting"] > 0 and ring["lost"] == 0


def test_status_tells_what_a_running_server_lost(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.serving.noting.RING_BYTES", 1 << 15)
    shop = Shop(records, Served(profile=reference()))
    for _ in range(300):
        shop.sell(some_ids(2))
    (ring,) = status(Places(records))["rings"]
    assert ring["lost"] > 0
    assert ring["waiting"] > ring["size"] / 2
    shop.close()


def test_a_model_may_be_called_as_the_view_of_all(records: Path) -> None:
    shop = Shop(records, Served("predictions", "2"))
    shop.sell(["a"])
    shop.close()
    Recorder(Places(records), None, Log("error")).finish()
    assert ids(Places(records)) == ["a"]
    assert isinstance(some_rows(1).inputs, Columns)
