"""Records through the command line: searched, followed, redacted, and what goes wrong."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Done, environment, type_in
from modelyard.bundle import Bundle
from modelyard.registry import Registry
from receivers import until
from recordings import Served, Shop, reference, remove_rings, some_rows
from registries import tiny_bundle

RECORDER = """
import signal, threading
from modelyard.recording.options import Options
from modelyard.recording.places import Places
from modelyard.recording.recorder import Recorder
from modelyard.registry import Registry
from modelyard.telemetry import Log

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
recorder = Recorder(Places.chosen(), Registry.open(), Log("info"), Options.chosen())
print("ready", flush=True)
recorder.run(stopped)
"""


class Yard:
    """A home whose records a process of its own keeps, and a server that notes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.bundle: Bundle = tiny_bundle(folder / "bundle")
        registry = Registry.open(self.home)
        registry.register(self.bundle, "line")
        registry.close()
        self.shop = Shop(self.home / "records", Served("churn", "1", profile=reference()))
        self.recorder: subprocess.Popen[str] | None = None

    def record(self) -> None:
        given = environment(self.home) | {"MODELYARD_RECORD_SAMPLE": "1"}
        command = [sys.executable, "-c", RECORDER]
        self.recorder = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True)
        assert self.recorder.stdout is not None and self.recorder.stdout.readline() == "ready\n"

    def stop(self) -> None:
        if self.recorder is not None:
            self.recorder.send_signal(signal.SIGTERM)
            self.recorder.communicate(timeout=120)
            self.recorder = None

    def type(self, *words: str) -> Done:
        return type_in(self.home, self.folder, *words)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Three requests: in a Parquet file one of two rows, in a spool an odd one and one that failed."""
    made = Yard(tmp_path_factory.mktemp("yard"))
    made.record()
    made.shop.sell(["first", "second"], [1, 2])
    made.stop()
    made.record()
    odd = some_rows(1)
    odd.inputs["age"][0] = 1000
    odd.inputs["city"][0] = "Düren"
    made.shop.sell(["odd"], sample=odd, arms=["production/3/canary"], clients=["someone"])
    made.shop.sell(["failed"], codes=["model_failed"])
    until(lambda: list((made.home / "records").rglob("*.arrows")) and not made.type("records", "show", "failed").code)
    yield made
    made.stop()
    made.shop.close()
    remove_rings(made.home / "records")


def test_a_query_is_answered_for_people_programs_and_tables(yard: Yard) -> None:
    sql = "select prediction_id, code, flags from predictions order by time, prediction_id"
    done = yard.type("records", "query", sql)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "prediction_id  code          flags",
        "first          ok            -",
        "second.0       ok            -",
        "second.1       ok            -",
        "odd            ok            age:above, city:unseen",
        "failed         model_failed  -",
    ]
    assert yard.type("records", "query", sql, "--json").json[3] == {
        "prediction_id": "odd", "code": "ok", "flags": ["age:above", "city:unseen"],
    }  # fmt: skip
    rows = list(csv.reader(io.StringIO(yard.type("records", "query", sql, "--csv").out)))
    assert rows[0] == ["prediction_id", "code", "flags"] and rows[1] == ["first", "ok", ""]


def test_a_query_may_only_read_records(yard: Yard) -> None:
    done = yard.type("records", "query", "copy predictions to 'out.csv'", "--json")
    assert (done.code, done.error["code"]) == (2, "invalid_input")
    assert "one SELECT" in done.error["message"]
    done = yard.type("records", "query", "select * from '/etc/passwd'")
    assert done.code == 2 and "root" not in done.out + done.err
    assert yard.type("records", "query", "select 1", "--json", "--csv").code == 2


def test_one_prediction_is_shown_with_everything(yard: Yard) -> None:
    done = yard.type("records", "show", "odd")
    assert done.code == 0
    for told in (
        "model                churn:1", "arm                  production/3/canary", "client               someone",
        "flags                age:above, city:unseen", "inputs kept          flagged", "  city    Düren",
    ):  # fmt: skip
        assert told in done.out, done.out
    rows = yard.type("records", "show", "second", "--json").json
    assert [row["prediction_id"] for row in rows] == ["second.0", "second.1"]
    assert rows[0]["joined_with"] == ["first"]
    missing = yard.type("records", "show", "nobody")
    assert (missing.code, missing.out) == (3, "")
    assert "no prediction has this id: nobody" in missing.err


def test_status_says_who_records_what(yard: Yard) -> None:
    told = yard.type("records", "status", "--json").json
    assert yard.recorder is not None
    assert told["recorder"] == yard.recorder.pid
    (model,) = told["models"]
    assert (model["model"], model["version"], model["requests"], model["rows"]) == ("churn", "1", 4, 5)
    assert (model["lost"], model["not_kept"]) == (0, 0)
    done = yard.type("records", "status")
    assert f"process {yard.recorder.pid}" in done.out and "churn" in done.out


def test_predictions_are_followed(yard: Yard) -> None:
    command = [sys.executable, "-m", "modelyard", "records", "tail", "churn", "--json"]
    tail = subprocess.Popen(command, env=environment(yard.home), cwd=yard.folder, stdout=subprocess.PIPE, text=True)
    try:
        assert tail.stdout is not None
        ids = iter(f"tail-{n}" for n in range(1000))
        found: list[str] = []

        def sell() -> None:
            while not found:
                yard.shop.sell([next(ids)])
                time.sleep(0.2)

        import threading

        seller = threading.Thread(target=sell)
        seller.start()
        found.append(json.loads(tail.stdout.readline())["prediction_id"])
        seller.join()
        assert found[0].startswith("tail-")
    finally:
        tail.send_signal(signal.SIGINT)
        tail.communicate()
    assert tail.returncode == 130


def test_a_policy_is_made_shown_and_taken_back(yard: Yard) -> None:
    assert yard.type("records", "redact", "line").out == "line has no policy: every column is kept\n"
    done = yard.type("records", "redact", "line", "--column", "x=drop")
    assert done.out.splitlines() == ["column  action", "x       drop"]
    assert yard.type("records", "redact", "line", "--json").json == {"model": "line", "columns": {"x": "drop"}}
    wrong = yard.type("records", "redact", "line", "--column", "y=drop")
    assert (wrong.code, "no such column of line: y" in wrong.err) == (3, True)
    assert yard.type("records", "redact", "line", "--column", "x").code == 2
    assert yard.type("records", "redact", "line", "--column", "x=burn").code == 2
    assert [row["action"] for row in yard.type("history", "line", "--json").json].count("redact") == 1
    assert yard.type("records", "redact", "line", "--reset", "--json").json["columns"] is None


def test_without_records_it_says_where_they_would_be(yard: Yard, tmp_path: Path) -> None:
    done = yard.type("records", "query", "select 1", "--records", str(tmp_path))
    assert (done.code, f"nothing has been recorded yet in {tmp_path}" in done.err) == (3, True)
    done = yard.type("records", "status", "--records", "off")
    assert (done.code, "MODELYARD_RECORDS is off" in done.err) == (3, True)
    status = yard.type("records", "status", "--records", str(tmp_path)).out
    assert "nobody: `modelyard watch` records" in status
