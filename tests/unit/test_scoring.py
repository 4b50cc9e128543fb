"""Batch jobs: what is read, what is written, what is set aside, and going on after a crash."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from modelyard.errors import Conflict, InvalidInput, ModelFailed, NotFound
from modelyard.schema import Columns, Field, Signature
from modelyard.scoring import score_with
from modelyard.scoring.journal import Checkpoint
from modelyard.tables import csv_rows, parquet_rows

TWO = Signature(
    inputs=(Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64", nullable=True)),
    outputs=(Field(name="prediction", dtype="float64"),),
)


def add(columns: Columns) -> Columns:
    """x1 + x2, a missing x2 counting as 0."""
    block = columns.blocks[0]
    return Columns(TWO.output_layout, [np.nansum(block, axis=1, keepdims=True)], columns.rows)


def run(
    tmp_path: Path, text: str | bytes, *, output: str = "out.csv", **options: Any
) -> tuple[Any, list[dict[str, str]]]:
    source = tmp_path / "in.csv"
    source.write_bytes(text.encode() if isinstance(text, str) else text)
    scored = score_with(add, TWO, "sha256:a", source, tmp_path / output, **options)
    with (tmp_path / output).open() as file:
        return scored, list(csv.DictReader(file))


def rejected(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out.csv.rejected.csv").open() as file:
        return list(csv.DictReader(file))


def test_columns_in_any_order_and_extra_ones(tmp_path: Path) -> None:
    scored, rows = run(tmp_path, "name,x2,x1\nann,2,1.5\nbob,,3\n")
    assert rows == [{"row": "1", "prediction": "3.5"}, {"row": "2", "prediction": "3"}]
    assert (scored.rows, scored.scored, scored.rejected, scored.rejected_file) == (2, 2, 0, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.csv"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_dialects(tmp_path: Path, end: str, delimiter: str) -> None:
    text = end.join(delimiter.join(row) for row in [("x1", "x2"), ("1", "2"), (" 3", "4 "), ('"5"', "6")])
    _, rows = run(tmp_path, "\ufeff" + text)
    assert [row["prediction"] for row in rows] == ["3", "7", "11"]


def test_numbers_with_a_decimal_comma(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "x1;x2\n1,5;2\n;\n3;4,25\n")
    assert [row["prediction"] for row in rows] == ["3.5", "7.25"]


def test_compressed_and_in_another_encoding(tmp_path: Path) -> None:
    text = "x1,Größe,x2\n1,groß,2\n3,klein,4\n".encode("latin-1")
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    score_with(add, TWO, "d", tmp_path / "in.csv.gz", tmp_path / "out.csv", keep=["Größe"], encoding="latin-1")
    assert (tmp_path / "out.csv").read_text() == 'row,Größe,prediction\n1,"groß",3\n2,"klein",7\n'


@pytest.mark.parametrize("header", ["", "\n\r\n"])
def test_empty_lines_before_the_header(tmp_path: Path, header: str) -> None:
    _, rows = run(tmp_path, header + "x1,x2\n1,2\nbad,3\n")
    assert [row["row"] for row in rows] == ["1"]
    assert rejected(tmp_path)[0]["line"] == str(3 + header.count("\n"))


def test_dates_as_people_write_them(tmp_path: Path) -> None:
    fields = (Field(name="when", dtype="datetime", nullable=True),)
    signature = Signature(inputs=fields, outputs=TWO.outputs)

    def days(columns: Columns) -> Columns:
        return Columns(TWO.output_layout, [columns.blocks[0] / 86400], columns.rows)

    (tmp_path / "in.csv").write_text("when\n02/01/1970\n13/01/1970\n")
    score_with(days, signature, "d", tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "row,prediction\n1,1\n2,12\n"
    # Day and month may be either way round: nothing is guessed.
    (tmp_path / "in.csv").write_text("when\n02/01/1970\n1970-01-03\n")
    scored = score_with(days, signature, "d", tmp_path / "in.csv", tmp_path / "out.csv", overwrite=True)
    assert (scored.scored, scored.rejected) == (1, 1)


@pytest.mark.parametrize("kept", ["in.csv", "in.parquet"])
def test_the_form_of_dates_is_that_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """Pieces that hold only days up to 12, before and after the one that tells."""
    monkeypatch.setattr(csv_rows, "BLOCK", 64)
    monkeypatch.setattr(parquet_rows, "ROWS", 4)
    signature = Signature(inputs=(Field(name="when", dtype="datetime"),), outputs=TWO.outputs)
    days = [*(f"{d:02}/01/1970" for d in range(1, 13)), "13/01/1970", *(f"{d:02}/02/1970" for d in range(1, 13))]
    (tmp_path / "in.csv").write_text("when\n" + "".join(f"{day}\n" for day in days))
    pa.parquet.write_table(pa.table({"when": days}), tmp_path / "in.parquet")

    def number(columns: Columns) -> Columns:
        return Columns(TWO.output_layout, [columns.blocks[0] / 86400], columns.rows)

    scored = score_with(number, signature, "d", tmp_path / kept, tmp_path / "out.csv")
    assert (scored.scored, scored.rejected) == (25, 0)
    with (tmp_path / "out.csv").open() as file:
        found = [float(row["prediction"]) for row in csv.DictReader(file)]
    assert found == [*range(13), *range(31, 43)]


def test_dates_that_may_be_either_way_round_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    signature = Signature(inputs=(Field(name="when", dtype="datetime"),), outputs=TWO.outputs)
    (tmp_path / "in.csv").write_text("when\n02/01/1970\n03/01/1970\n")
    with pytest.raises(InvalidInput, match="dates that may be day/month/year or month/day/year") as caught:
        score_with(add, signature, "d", tmp_path / "in.csv", tmp_path / "out.csv")
    assert "ISO 8601" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_bad_rows_are_set_aside_with_line_reason_and_text(tmp_path: Path) -> None:
    text = (
        b'x1,x2,note\n1,2,"two\nlines"\n\noops,2,b\n,2,c\n3,4\n5,6,7,8\n7,\xff,d\n8,1e999,e\n'
        b'9,1,"a ""q"", b"\n10,nan,"f"\n'
    )
    scored, rows = run(tmp_path, text)
    assert [(r["row"], r["prediction"]) for r in rows] == [("1", "3"), ("8", "10"), ("9", "10")]
    assert (scored.scored, scored.rejected) == (3, 6)
    assert rejected(tmp_path) == [
        {"line": "5", "row": "2", "reason": "x1: expected a number (float64), got 'oops'", "text": "oops,2,b"},
        {"line": "6", "row": "3", "reason": "x1: expected a number (float64), got a missing value", "text": ",2,c"},
        {"line": "7", "row": "4", "reason": "expected 3 cells, got 2", "text": "3,4"},
        {"line": "8", "row": "5", "reason": "expected 3 cells, got 4", "text": "5,6,7,8"},
        {"line": "9", "row": "6", "reason": "byte 3 is not UTF-8", "text": "7,\ufffd,d"},
        {"line": "10", "row": "7", "reason": "x2: expected a number (float64) or null, got inf", "text": "8,1e999,e"},
    ]


@pytest.mark.parametrize("tail", ["4,5\n6,7\n", "4,5", ""])
def test_a_quote_that_never_closes_costs_one_row(tmp_path: Path, tail: str) -> None:
    _, rows = run(tmp_path, 'x1,x2\n1,2\n"3,4\n' + tail)
    assert [row["row"] for row in rows] == ["1", "3", "4"][: 1 + len(tail.split())]
    assert [(r["line"], r["reason"]) for r in rejected(tmp_path)] == [("3", "a quote that never closes")]


def test_pieces_of_any_size_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    lines = ["x1,x2,note"]
    for i in range(300):
        note = generator.choice(["plain", '"a, b"', '"two\nlines"', '"say ""hi"""', 'stray " quote', ""])
        lines.append(f"{i if generator.random() > 0.1 else 'bad'},{i / 7},{note}")
    text = "\n".join(lines)
    (tmp_path / "whole").mkdir()
    whole, expected = run(tmp_path / "whole", text)
    assert whole.rows == 300 and whole.rejected > 10
    for block in (64, 257, 1000):
        monkeypatch.setattr(csv_rows, "BLOCK", block)
        part = tmp_path / str(block)
        part.mkdir()
        scored, rows = run(part, text)
        assert rows == expected
        assert rejected(part) == rejected(tmp_path / "whole")
        assert scored.rows == 300


TYPES = Signature(
    inputs=(
        Field(name="big", dtype="int64"),
        Field(name="small", dtype="int8", nullable=True),
        Field(name="flag", dtype="bool"),
        Field(name="city", dtype="string", nullable=True),
        Field(name="when", dtype="datetime", nullable=True),
    ),
    outputs=(
        Field(name="prediction", dtype="string"),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
    ),
)


def tell(columns: Columns) -> Columns:
    """What the model saw, as text."""
    seen = [
        f"{columns['big'][i]}|{columns['small'][i]}|{columns['flag'][i]}|{columns['city'][i]}|{columns['when'][i]}"
        for i in range(columns.rows)
    ]
    labels = np.array([[text] for text in seen], dtype=object).reshape(columns.rows, 1)
    return Columns(TYPES.output_layout, [labels, np.tile([0.25, 0.75], (columns.rows, 1))], columns.rows)


def test_every_type_from_text(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "big,small,flag,city,when\n"
        "9007199254740993,,true,NA,\n"
        "7.0,-128,FALSE,Ulm,1970-01-02\n"
        "7,128,1,Ulm,1970-01-01T00:00:01Z\n"
        "7.5,1,1,Ulm,\n"
        "9223372036854775808,1,1,Ulm,\n"
        "1,1.5,0,Ulm,\n"
        "1,1,maybe,Ulm,\n"
        "1,1,0,Ulm,yesterday\n"
        '1,1,0,"Ulm, Donau",1970-01-01T01:00:00+01:00\n'
    )
    score_with(tell, TYPES, "d", tmp_path / "in.csv", tmp_path / "out.jsonl", keep="all")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == [
        "9007199254740993|nan|True|None|nan",
        "7|-128.0|False|Ulm|86400.0",
        "1|1.0|False|Ulm, Donau|0.0",
    ]
    assert rows[1] == {
        "row": 2, "big": 7, "small": -128, "flag": False, "city": "Ulm", "when": "1970-01-02T00:00:00Z",
        "prediction": rows[1]["prediction"], "probability_no": 0.25, "probability_yes": 0.75,
    }  # fmt: skip
    with (tmp_path / "out.jsonl.rejected.csv").open() as file:
        reasons = [row["reason"].replace("expected ", "") for row in csv.DictReader(file)]
    assert reasons == [
        "small: a whole number (int8) or null, got 128",
        "big: a whole number (int64), got '7.5'",
        "big: a whole number (int64), got '9223372036854775808'",
        "small: a whole number (int8) or null, got 1.5",
        "flag: true or false, got 'maybe'",
        "when: an ISO 8601 date or time or null, got 'yesterday'",
    ]


def test_parquet_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as dt

    monkeypatch.setattr(parquet_rows, "ROWS", 3)
    rows = 10
    table = pa.table(
        {
            "when": pa.array(
                [dt.datetime(1970, 1, 1, 0, 0, i) if i else None for i in range(rows)], pa.timestamp("ms")
            ),
            "city": pa.array(["Ulm", None] * 5).dictionary_encode(),
            "flag": [True, False] * 5,
            "small": pa.array([None, *range(1, rows)], pa.float64()),
            "big": pa.array([*range(rows - 1), None], pa.int64()),
            "spare": [{"a": i} for i in range(rows)],
        }
    )
    pa.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    scored = score_with(
        tell,
        TYPES,
        "d",
        tmp_path / "in.parquet",
        tmp_path / "out.parquet",
        keep=["city", "spare"],
        outputs=["prediction"],
    )
    read = pa.parquet.read_table(tmp_path / "out.parquet")
    assert read.column_names == ["row", "city", "spare", "prediction"]
    assert read["row"].to_pylist() == list(range(1, rows))
    assert read["city"].to_pylist() == ["Ulm", None] * 4 + ["Ulm"]
    assert read["prediction"][0].as_py() == "0|nan|True|Ulm|nan"
    assert read["prediction"][1].as_py() == "1|1.0|False|None|1.0"
    assert scored.rejected == 1
    assert (
        "big: expected a whole number (int64), got a missing value"
        in (tmp_path / "out.parquet.rejected.csv").read_text()
    )


def test_parquet_column_of_the_wrong_type(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"x1": [[1.0]], "x2": [1.0]}), tmp_path / "in.parquet")
    with pytest.raises(InvalidInput, match="x1: expected a number"):
        score_with(add, TWO, "d", tmp_path / "in.parquet", tmp_path / "out.csv")


def test_kept_columns_with_taken_names(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "x1,x2,prediction,row\n1,2,p,r\n", keep="all")
    assert rows == [{"row": "1", "x1": "1", "x2": "2", "input_prediction": "p", "input_row": "r", "prediction": "3"}]


def test_header_only(tmp_path: Path) -> None:
    scored, rows = run(tmp_path, "x1,x2\n")
    assert rows == [] and scored.rows == 0
    assert (tmp_path / "out.csv").read_text() == "row,prediction\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header|empty"),
        ("x1,X2\n1,2\n", "x2"),
        ("x1,x2,x2\n1,2,3\n", "x2"),
        ("x1,x2\n1,2\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_files_that_cannot_be_scored(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(tmp_path, text)
    assert not (tmp_path / "out.csv").exists()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        score_with(add, TWO, "d", tmp_path / "none.csv", tmp_path / "out.csv")
    with pytest.raises(InvalidInput, match=r"\.parquet"):
        run(tmp_path, "x1,x2\n1,2\n", output="out.xlsx")
    with pytest.raises(NotFound, match="no such folder"):
        run(tmp_path, "x1,x2\n1,2\n", output="none/out.csv")
    with pytest.raises(NotFound, match="output"):
        run(tmp_path, "x1,x2\n1,2\n", outputs=["predicton"])
    with pytest.raises(InvalidInput, match="nope"):
        run(tmp_path, "x1,x2\n1,2\n", keep=["nope"])
    run(tmp_path, "x1,x2\n1,2\n")
    with pytest.raises(Conflict, match="there already"):
        run(tmp_path, "x1,x2\n3,4\n")
    _, rows = run(tmp_path, "x1,x2\n3,4\n", overwrite=True)
    assert rows[0]["prediction"] == "7"


def test_rows_that_the_model_refuses_are_set_aside(tmp_path: Path) -> None:
    def picky(columns: Columns) -> Columns:
        if (columns["x1"] == 13).any():
            raise ModelFailed("13 is unlucky")
        return add(columns)

    (tmp_path / "in.csv").write_text("x1,x2\n" + "".join(f"{i},0\n" for i in [*range(100), 13, 100]))
    scored = score_with(picky, TWO, "d", tmp_path / "in.csv", tmp_path / "out.csv")
    assert (scored.scored, scored.rejected) == (100, 2)
    with (tmp_path / "out.csv").open() as file:
        assert [int(row["prediction"]) for row in csv.DictReader(file)] == [i for i in range(101) if i != 13]
    assert [(r["line"], r["reason"]) for r in rejected(tmp_path)] == [("15", "13 is unlucky"), ("102", "13 is unlucky")]


def test_a_model_that_refuses_everything_stops_the_job(tmp_path: Path) -> None:
    def broken(columns: Columns) -> Columns:
        raise ModelFailed("no")

    (tmp_path / "in.csv").write_text("x1,x2\n" + "1,2\n" * 1000)
    with pytest.raises(ModelFailed, match="no"):
        score_with(broken, TWO, "d", tmp_path / "in.csv", tmp_path / "out.csv")


# -- going on ----------------------------------------------------------------------------------------------------


class Stop(Exception):
    """The power cut of these tests."""


def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int, output: str = "out.csv") -> None:
    """A job that was cut off after some pieces, each with a checkpoint."""
    monkeypatch.setattr(csv_rows, "BLOCK", 256)
    calls = 0

    def cut(columns: Columns) -> Columns:
        nonlocal calls
        calls += 1
        if calls > pieces:
            raise Stop
        return add(columns)

    (tmp_path / "in.csv").write_text("x1,x2\n" + "".join(f"{i if i % 50 else 'bad'},{i}\n" for i in range(1, 1000)))
    with pytest.raises(Stop):
        score_with(cut, TWO, "sha256:a", tmp_path / "in.csv", tmp_path / output, checkpoint_seconds=0)


def test_goes_on_in_a_compressed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK", 100)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"x1,x2\n" + b"".join(b"%d,1\n" % i for i in range(500))))
    calls: list[int] = []

    def cut(columns: Columns) -> Columns:
        calls.append(columns.rows)
        if len(calls) == 10:
            raise Stop
        return add(columns)

    places = (tmp_path / "in.csv.gz", tmp_path / "out.csv")
    with pytest.raises(Stop):
        score_with(cut, TWO, "d", *places, checkpoint_seconds=0)
    assert score_with(add, TWO, "d", *places).resumed_at == sum(calls[:9])
    with places[1].open() as file:
        assert [int(row["prediction"]) for row in csv.DictReader(file)] == list(range(1, 501))


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    interrupted(tmp_path, monkeypatch, 10, output)
    # What was written after the checkpoint, as by a process that was killed, is cut off.
    with (tmp_path / f"{output}.partial" / "rows").open("ab") as file:
        file.write(b"half a row")
    seen: list[int] = []

    def watching(columns: Columns) -> Columns:
        seen.append(columns.rows)
        return add(columns)

    scored = score_with(watching, TWO, "sha256:a", tmp_path / "in.csv", tmp_path / output)
    assert scored.resumed_at > 100 and sum(seen) < scored.scored
    assert (scored.scored, scored.rejected) == (980, 19)
    (tmp_path / "clean").mkdir()
    score_with(add, TWO, "sha256:a", tmp_path / "in.csv", tmp_path / "clean" / output)
    if output.endswith("parquet"):
        read = [pa.parquet.read_table(folder / output) for folder in (tmp_path, tmp_path / "clean")]
        assert read[0].equals(read[1])
    else:
        assert (tmp_path / output).read_bytes() == (tmp_path / "clean" / output).read_bytes()
    name = f"{output}.rejected.csv"
    assert (tmp_path / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()
    assert not (tmp_path / f"{output}.partial").exists()


def test_does_not_go_on_with_another_input_or_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, monkeypatch, 5)
    places = (tmp_path / "in.csv", tmp_path / "out.csv")
    with pytest.raises(Conflict, match="the model changed"):
        score_with(add, TWO, "sha256:b", *places)
    with pytest.raises(Conflict, match="the wanted columns changed"):
        score_with(add, TWO, "sha256:a", *places, keep="all")
    os.utime(places[0], ns=(0, 0))
    with pytest.raises(Conflict, match="the input changed"):
        score_with(add, TWO, "sha256:a", *places)
    scored = score_with(add, TWO, "sha256:b", *places, overwrite=True)
    assert scored.resumed_at == 0 and scored.scored == 980


def test_a_crash_while_finishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.csv").write_text("x1,x2\n1,2\nbad,1\n")
    for step in ("modelyard.scoring.journal.Journal.remove", "modelyard.scoring.writing.Encoding.finish"):
        for output in (tmp_path / "out.csv", tmp_path / "out.csv.rejected.csv"):
            output.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(step, lambda *_: (_ for _ in ()).throw(Stop()))
            with pytest.raises(Stop):
                score_with(add, TWO, "d", tmp_path / "in.csv", tmp_path / "out.csv")
        scored = score_with(add, TWO, "d", tmp_path / "in.csv", tmp_path / "out.csv")
        assert (scored.scored, scored.rejected) == (1, 1)
        assert (tmp_path / "out.csv").read_text() == "row,prediction\n1,3\n"
        assert rejected(tmp_path)[0]["text"] == "bad,1"
        assert not (tmp_path / "out.csv.partial").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    def nested(columns: Columns) -> Columns:
        with pytest.raises(Conflict, match="another process"):
            score_with(add, TWO, "d", tmp_path / "in.csv", tmp_path / "out.csv")
        return add(columns)

    (tmp_path / "in.csv").write_text("x1,x2\n1,2\n")
    assert score_with(nested, TWO, "d", tmp_path / "in.csv", tmp_path / "out.csv").scored == 1


_JOB = """
import sys
from pathlib import Path
import numpy as np
from modelyard.schema import Columns, Field, Signature
from modelyard.scoring import score_with
from modelyard.tables import csv_rows, parquet_rows
csv_rows.BLOCK = 20_000
fields = tuple(Field(name=f"x{i}", dtype="float64") for i in (1, 2))
signature = Signature(inputs=fields, outputs=(Field(name="prediction", dtype="float64"),))
def predict(columns):
    return Columns(signature.output_layout, [columns.blocks[0].sum(axis=1, keepdims=True)], columns.rows)
print("ready", flush=True)
score_with(predict, signature, "d", Path(sys.argv[1]), Path(sys.argv[2]), checkpoint_seconds=0)
"""


@pytest.mark.parametrize(("output", "most"), [("out.parquet", 20), ("out.csv", 6)])
def test_killed_again_and_again(tmp_path: Path, output: str, most: int) -> None:
    rows = 60_000
    values = np.arange(rows)
    text = "\n".join(f"{v},{v / 4}" if v % 1000 else f"{v},oops" for v in values.tolist())
    (tmp_path / "in.csv").write_text(f"x1,x2\n{text}\n")
    command = [sys.executable, "-c", _JOB, str(tmp_path / "in.csv"), str(tmp_path / output)]
    generator = random.Random(1)
    kills = 0
    while kills < most:
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert job.stdout is not None
        job.stdout.readline()
        time.sleep(generator.uniform(0.0, 0.06))
        job.send_signal(signal.SIGKILL)
        job.communicate()
        if job.returncode == 0 or (tmp_path / output).exists():
            break
        kills += 1
        state = tmp_path / f"{output}.partial" / "checkpoint.json"
        if state.exists():
            import msgspec

            assert msgspec.json.decode(state.read_bytes(), type=Checkpoint).place.row <= rows
    if not (tmp_path / output).exists() or (tmp_path / f"{output}.partial").exists():
        subprocess.run(command, check=True, capture_output=True)
    assert kills >= 3, "the job must be long enough to be killed"
    read = (pa.parquet.read_table if output.endswith("parquet") else pa.csv.read_csv)(tmp_path / output)
    expected = values[values % 1000 != 0]
    assert np.array_equal(read["row"].to_numpy(), expected + 1)
    assert np.array_equal(read["prediction"].to_numpy(), expected * 1.25)
    with (tmp_path / f"{output}.rejected.csv").open() as file:
        assert [int(row["row"]) for row in csv.DictReader(file)] == list(range(1, rows, 1000))


def test_a_column_to_keep_that_is_nearly_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        run(tmp_path, "customerID,x1,x2\nc,1,2\n", keep=["customerid"])
    assert caught.value.hint == "did you mean --keep customerID?"
    with pytest.raises(InvalidInput) as caught:
        run(tmp_path, "X1,x2\n1,2\n")
    assert caught.value.hint == "the file has a column X1: rename it to x1"
