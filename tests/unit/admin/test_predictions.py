"""What the admin API tells of recorded predictions: files of this machine, read without anybody's SQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from answers import Api
from modelyard.errors import Overloaded
from modelyard.recording.places import Places
from modelyard.recording.query import Query
from modelyard.registry import Registry
from modelyard.truth import Label
from recorded import NOON, Prediction, bundle_of, table_of

SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "records"
    monkeypatch.setenv("MODELYARD_RECORDS", str(folder))
    return folder


@pytest.fixture
def api(registry: Registry, records: Path) -> Api:
    return Api(registry)


def write(records: Path, rows: list[Prediction], *, model: str = "m", **columns: Any) -> None:
    table = table_of(rows)
    for name, values in {"x": [float(i) for i in range(len(rows))]}.items():
        table = table.append_column(f"in.{name}", pa.array(values, pa.float64()))
    for name, values in columns.items():
        table = table.append_column(name, values)
    folder = records / "segments" / f"model={model}" / "version=1"
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "20260105T120000000-a.parquet")


@pytest.fixture
def some(records: Path, registry: Registry, tmp_path: Path) -> Iterator[None]:
    """Ten of ``m``, one each second from noon on; the last failed, ``p3`` has flags and hashed inputs; one of ``n``."""
    registry.register(bundle_of(tmp_path / "m"), "m")
    rows = [
        Prediction(f"p{i}", [1 - i / 10, i / 10], NOON + i * SECOND, arm="canary" if i == 4 else "",
                   code="model_failed" if i == 9 else "ok", city="Rome" if i % 2 else "Oslo")
        for i in range(10)
    ]  # fmt: skip
    texts = pa.list_(pa.string())
    write(
        records, rows,
        flags=pa.array([["x:above"] if i == 3 else None for i in range(10)], texts),
        removed=pa.array([["city:hash"] if i == 3 else None for i in range(10)], texts),
        total_s=pa.array([0.01 * i for i in range(10)], pa.float64()),
        predict_s=pa.array([0.004 * i for i in range(10)], pa.float64()),
        batch=pa.array([1] * 10, pa.int32()), worker=pa.array([7] * 10, pa.int32()),
    )  # fmt: skip
    one = {"batch": pa.array([1], pa.int32()), "worker": pa.array([7], pa.int32())}
    write(records, [Prediction("q", [0.5, 0.5], NOON)], model="n", **one)
    yield


def ids(api: Api, **asked: Any) -> list[str]:
    return [row["id"] for row in api("GET", f"/predictions?{urlencode(asked)}", scope="view")["rows"]]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"id": "p3"}, ["p3"]),
        ({"model": "n"}, ["q"]),
        ({"model": "m", "version": "1", "most": 2}, ["p9", "p8"]),
        ({"version": "2"}, []),
        ({"arm": "canary"}, ["p4"]),
        ({"code": "failed"}, ["p9"]),
        ({"code": "model_failed"}, ["p9"]),
        ({"model": "m", "flag": "any"}, ["p3"]),
        ({"model": "m", "flag": "x:above"}, ["p3"]),
        ({"model": "m", "flag": "x:below"}, []),
        ({"kept": "slow"}, []),
        ({"model": "m", "since": "2026-01-05T12:00:03Z", "until": "2026-01-05T12:00:05Z"}, ["p4", "p3"]),
        ({"model": "m", "since": "2026-01-05T14:00:08+02:00"}, ["p9", "p8"]),
        ({"model": "m", "columns": "in.x=3..5"}, ["p5", "p4", "p3"]),
        ({"model": "m", "columns": "in.x=..1"}, ["p1", "p0"]),
        ({"model": "m", "columns": "in.x=8.."}, ["p9", "p8"]),
        ({"model": "m", "columns": "in.x=6"}, ["p6"]),
        ({"model": "m", "columns": "in.x=3..5; in.city=Rome; out.prediction=no"}, ["p5", "p3"]),
        ({"model": "m", "columns": "in.city=' OR 1=1 --"}, []),
        ({"arm": "' OR 'a'='a"}, []),
    ],
)
def test_what_fits_is_found(api: Api, some: None, asked: Any, found: list[str]) -> None:
    assert ids(api, **asked) == found


def test_those_that_fit_are_counted_on_every_page(api: Api, some: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = api("GET", "/predictions?model=m&code=ok&most=4")
    second = api("GET", f"/predictions?model=m&code=ok&most=4&after={quote(first['next'])}")
    assert first["fitting"] == second["fitting"] == 9
    assert api("GET", "/predictions?arm=nobody")["fitting"] == 0
    monkeypatch.setattr("modelyard.recording.search.COUNTED", 5)
    assert api("GET", "/predictions?model=m&most=1")["fitting"] == 5


def test_flags_are_told_in_words(api: Api, some: None) -> None:
    assert api("GET", "/records?model=m")["flags"] == {"x:above": "x is above every value of the reference"}
    assert api("GET", "/records?model=n")["flags"] == {}


def test_pages_follow_one_another_to_the_end(api: Api, some: None) -> None:
    seen, after = [], ""
    while True:
        page = api("GET", f"/predictions?most=4&after={quote(after)}")
        seen += [row["id"] for row in page["rows"]]
        after = page["next"]
        if not after:
            break
    # of those of one moment the id decides
    assert seen == ["p9", "p8", "p7", "p6", "p5", "p4", "p3", "p2", "p1", "q", "p0"]


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"model": "mm"}, 404, "no such model with records on this machine: mm"),
        ({"columns": "in.y=3"}, 404, "no such column: in.y"),
        ({"columns": "prediction_id=3"}, 404, "no such column: prediction_id"),
        ({"model": "m", "columns": 'in.x"=3'}, 404, 'no such column: in.x"'),
        ({"model": "m", "columns": "in.x=3 OR 1=1"}, 400, "in.x: expected a number"),
        ({"model": "m", "columns": "out.probabilities=3"}, 400, "out.probabilities: expected a column of numbers"),
        ({"since": "noon"}, 400, "since: expected a moment such as"),
        ({"after": "x"}, 400, "after: expected a moment"),
        ({"most": "0"}, 400, "most: expected 1 to 500, got 0"),
        ({"most": "5000"}, 400, "most: expected 1 to 500, got 5000"),
        ({"sql": "select 1"}, 400, "unknown field"),
        ({"id": "a\0b"}, 400, "id: expected text without NUL"),
    ],
)
def test_what_cannot_be_asked_is_refused(api: Api, some: None, asked: Any, status: int, told: str) -> None:
    answered, message = api.refused("GET", f"/predictions?{urlencode(asked)}")
    assert answered == status and told in message


def test_everything_about_one(api: Api, registry: Registry, some: None) -> None:
    registry.labels.add("m", [Label("p3", "no", "2026-01-06T00:00:00.000000Z")])
    registry.labels.add("m", [Label("p3", "yes", "2026-01-07T00:00:00.000000Z")])
    (told,) = api("GET", "/predictions/p3", scope="view")
    assert told["inputs"] == {"city": "Rome", "x": 3.0}
    assert told["removed"] == {"city": "kept as a keyed hash"}
    assert told["outputs"] == {"prediction": "no", "probabilities": [0.7, 0.3]}
    assert told["classes"] == ["no", "yes"]
    assert told["odd"] == ["x is above every value of the reference"]
    assert told["because"] == "it is in the random sample"
    assert told["stages"] == {"predict": 0.012, "total": 0.03}
    assert [each["label"] for each in told["labels"]] == ["yes", "no"]
    assert told["time"] == "2026-01-05T12:00:03.000000Z"
    (failed,) = api("GET", "/predictions/p9")
    assert failed["code"] == "model_failed" and failed["labels"] == []
    # of a version that is not registered nobody knows the classes
    (other,) = api("GET", "/predictions/q")
    assert other["classes"] == [] and other["outputs"]["probabilities"] == [0.5, 0.5]
    assert api.refused("GET", "/predictions/nobody") == (404, "no prediction has this id: nobody")


def test_what_can_be_asked_of_records(api: Api, records: Path, some: None) -> None:
    told = api("GET", "/records?model=m", scope="view")
    assert told["models"] == ["m", "n"] and told["folder"] == str(records)
    assert told["columns"]["in.x"] == "DOUBLE" and "flags" in told["columns"]


def test_where_nothing_is_recorded_it_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing has been recorded yet" in api.refused("GET", "/predictions")[1]
    monkeypatch.setenv("MODELYARD_RECORDS", "off")
    assert api.refused("GET", "/predictions/p")[1] == "nothing is recorded: the setting records is off"


def test_without_the_extra_it_is_named(api: Api, some: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    status, message = api.refused("GET", "/predictions")
    assert status >= 500 and "duckdb" in message


def test_a_search_that_takes_too_long_is_ended(records: Path, some: None) -> None:
    query = Query(Places(records))
    with pytest.raises(Overloaded, match=r"searched for 0\.05 seconds"):
        query.run("SELECT count(*) FROM range(10000000000) a, range(1000) b", seconds=0.05)
    assert query.run("SELECT count(*) FROM predictions", seconds=120).rows == [(11,)]
    query.close()
