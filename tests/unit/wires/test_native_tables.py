"""The native wire with tables: CSV, a record a line, Arrow and Parquet, in and out."""

from __future__ import annotations

import datetime as dt
import gzip
import http.client
import io
import json
import sys
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, MissingDependency
from modelyard.interfaces import Codec
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.schema import Columns, Field, Layout, Signature
from modelyard.serving.server import Server
from modelyard.testing.wires import KitServed, outputs
from modelyard.wires.native import NativeWire
from yes_or_no import Source

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
import pyarrow.parquet as parquet  # noqa: E402

STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
KINDS = (STREAM, FILE, PARQUET)

ROWS = {"x1": [1.5, 0.0], "city": ["Rome", None], "x2": [-2.0, 4.0]}


def codec(*fields: Field, outs: tuple[Field, ...] | None = None) -> Codec:
    known = KitServed()
    signature = Signature(inputs=fields or known.signature.inputs, outputs=outs or known.signature.outputs)
    return NativeWire().codec(Call("predict"), KitServed(signature=signature))


def written(table: Any, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    if kind == PARQUET:
        parquet.write_table(table, sink, **options)
    else:
        make = pa.ipc.new_stream if kind == STREAM else pa.ipc.new_file
        with make(sink, table.schema) as writer:
            writer.write_table(table, **options)
    return sink.getvalue()


def columns(request: Request, *fields: Field) -> Columns:
    layout = Layout.of(fields or KitServed().signature.inputs)
    return request.columns if request.columns is not None else layout.from_tuples(request.tuples or [])


def read(table: Any, *fields: Field, kind: str = STREAM) -> Columns:
    return columns(codec(*fields).decode(written(table, kind), {"content-type": kind}), *fields)


def refusal(table: Any, *fields: Field) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(table, *fields)
    return str(caught.value.problems[0])


def answered(accept: str, rows: int = 3) -> Message:
    request = codec().decode(b'{"x1":1,"city":"a","x2":2}', {"accept": accept})
    return codec().encode(request, Response(Batch(outputs(60)), 50, 50 + rows, "id-1"))


class TestReading:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_table(self, kind: str) -> None:
        found = read(pa.table({name: ROWS[name] for name in ("city", "x2", "x1")}), kind=kind)
        assert {name: found[name].tolist() for name in ROWS} == ROWS

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_content_type_may_be_written_otherwise(self, kind: str) -> None:
        body = written(pa.table(ROWS), kind)
        assert codec().decode(body, {"content-type": f"{kind.title()} ; x=y"}).rows == 2

    def test_several_batches_and_dictionaries(self) -> None:
        table = pa.table({**ROWS, "city": pa.array(["Rome", None]).dictionary_encode()})
        body = written(table, STREAM, max_chunksize=1)
        found = columns(codec().decode(body, {"content-type": STREAM}))
        assert found["city"].tolist() == ["Rome", None] and found["x1"].tolist() == [1.5, 0.0]

    def test_every_type(self) -> None:
        fields = (
            Field(name="i", dtype="int8"), Field(name="u", dtype="uint64"), Field(name="h", dtype="float16"),
            Field(name="b", dtype="bool"), Field(name="n", dtype="int32", nullable=True),
            Field(name="m", dtype="bool", nullable=True), Field(name="t", dtype="datetime", nullable=True),
            Field(name="d", dtype="datetime"), Field(name="e", dtype="float64", nullable=True),
        )  # fmt: skip
        noon = dt.datetime(1970, 1, 1, 12, tzinfo=dt.UTC)
        table = pa.table(
            {
                "i": pa.array([-128, 127], pa.int64()), "u": pa.array([0, 2**64 - 1], pa.uint64()),
                "h": pa.array([1.5, 2], pa.float64()), "b": [True, False], "n": pa.array([7, None], pa.int16()),
                "m": [None, True], "t": pa.array([noon, None], pa.timestamp("s", "Europe/Rome")),
                "d": pa.array([dt.date(1970, 1, 2)] * 2), "e": pa.nulls(2),
            }
        )  # fmt: skip
        found = read(table, *fields)
        assert found["i"].tolist() == [-128, 127] and found["u"].tolist() == [0, 2**64 - 1]
        assert found["h"].dtype == np.float16 and found["b"].tolist() == [True, False]
        assert found["n"].tolist()[0] == 7 and np.isnan(found["n"][1]) and np.isnan(found["m"][0])
        assert found["t"][0] == 43200 and np.isnan(found["t"][1]) and found["d"].tolist() == [86400, 86400]
        assert np.isnan(found["e"]).all()

    def test_numbers_are_not_copied_where_they_lie_right(self) -> None:
        values = np.arange(1000, dtype="float64")
        body = written(pa.table({"x": values}), STREAM)
        for field in (Field(name="x", dtype="float64"), Field(name="x", dtype="float64", nullable=True)):
            request = codec(field).decode(body, {"content-type": STREAM})
            assert request.columns is not None
            assert np.shares_memory(request.columns.blocks[0], np.frombuffer(body, "u1"))
            assert request.columns["x"].tolist() == values.tolist()
        lists = pa.FixedSizeListArray.from_arrays(pa.array(values), 10)
        body = written(pa.table({"x": lists}), STREAM)
        request = codec(Field(name="x", dtype="float64", shape=(10,))).decode(body, {"content-type": STREAM})
        assert request.columns is not None and request.columns["x"].shape == (100, 10)
        assert np.shares_memory(request.columns.blocks[0], np.frombuffer(body, "u1"))

    def test_lists_of_any_kind(self) -> None:
        field = Field(name="x", dtype="float32", shape=(2, 2))
        assert read(pa.table({"x": [[[1, 2], [3, 4]]]}), field)["x"].tolist() == [[[1, 2], [3, 4]]]
        assert "rows of shape [2, 2]" in refusal(pa.table({"x": [[1, 2]]}), field)
        assert "one shape" in refusal(pa.table({"x": [[[1, 2], [3]]]}), field)
        assert "a column of type int64" in refusal(pa.table({"x": [1]}), field)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"x1": ["a", "b"]}, "x1: expected a number (float64), got a column of type string"),
            ({"x1": [True, False]}, "x1: expected a number (float64), got a column of type bool"),
            ({"x1": [1.5, None]}, "[1].x1: expected a number (float64), got a missing value"),
            ({"x1": [1.5, float("nan")]}, "[1].x1"),
            ({"x1": [1.5, float("inf")]}, "[1].x1: expected a number (float64), got an infinite number"),
            ({"city": [1, 2]}, "city: expected a text or null, got a column of type int64"),
            ({"x1": [[1.5], [2.5]]}, "x1"),
            ({"x3": [1, 2]}, "the unknown column x3"),
        ],
    )
    def test_wrong_columns(self, change: dict[str, Any], said: str) -> None:
        assert said in refusal(pa.table({**ROWS, **change}))

    def test_wrong_tables(self) -> None:
        table = pa.table(ROWS)
        assert "the column city" in refusal(table.drop(["city"]))
        assert "twice" in refusal(pa.Table.from_arrays([*table.columns, table.column(0)], [*ROWS, "x1"]))
        assert "at least one row" in refusal(table.slice(0, 0))
        assert "expected a whole number from -128 to 127" in refusal(
            pa.table({"i": [128]}), Field(name="i", dtype="int8")
        )
        assert "a missing value" in refusal(pa.table({"i": [None, 1]}), Field(name="i", dtype="int8"))
        assert "a fraction" in refusal(pa.table({"i": [1.5]}), Field(name="i", dtype="int8"))

    @pytest.mark.parametrize("kind", KINDS)
    def test_bytes_that_are_no_table(self, kind: str) -> None:
        body = written(pa.table({name: values * 50 for name, values in ROWS.items()}), kind)
        spoiled = [b"", b"PAR1", b"ARROW1\0\0", b"\xff" * 64, body[: len(body) // 2], body[:-9], b"\0" + body]
        for junk in spoiled:
            with pytest.raises(InvalidInput) as caught:
                codec().decode(junk, {"content-type": kind})
            assert caught.value.problems[0].expected in ("an Arrow stream", "an Arrow file", "a Parquet file")

    @pytest.mark.parametrize("kind", KINDS)
    def test_flipped_bytes_are_refused_or_read(self, kind: str) -> None:
        body = bytearray(written(pa.table(ROWS), kind))
        random = np.random.default_rng(0)
        for place in random.integers(0, len(body), 300):
            before = body[place]
            body[place] ^= 1 << int(random.integers(8))
            try:
                assert codec().decode(bytes(body), {"content-type": kind}).rows
            except InvalidInput as error:
                assert error.problems
            body[place] = before

    @pytest.mark.parametrize("kind", KINDS)
    def test_too_many_rows(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MODELYARD_MAX_ROWS", "1")
        with pytest.raises(InvalidInput, match="at most 1 rows, got 2 or more"):
            codec().decode(written(pa.table(ROWS), kind), {"content-type": kind})

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingDependency, match="pyarrow"):
            codec().decode(b"", {"content-type": STREAM})

    def test_csv(self) -> None:
        request = codec().decode(b"x1,city,x2\n1.5,Rome,-2\n", {"content-type": "text/csv; charset=utf-8"})
        assert request.tuples == [(1.5, -2.0, "Rome")] and request.form == "records"

    @pytest.mark.parametrize("kind", ["application/jsonlines", "application/x-ndjson"])
    def test_a_record_a_line(self, kind: str) -> None:
        line = json.dumps({"x1": 1, "city": "a", "x2": 2}).encode()
        for body, rows in ((line, 1), (line + b"\r\n\n" + line + b"\n", 2)):
            request = codec().decode(body, {"content-type": kind})
            assert (request.rows, request.form) == (rows, "records")
        for body in (b"", b"\n", line + line, line + b"," + line, b"[" + line + b"]", line + b"\n7"):
            with pytest.raises(InvalidInput):
                codec().decode(body, {"content-type": kind})

    @pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "application/json; charset=utf-8", "x"])
    def test_any_other_type_is_read_as_json(self, kind: str) -> None:
        assert codec().decode(b'{"x1":1,"city":"a","x2":2}', {"content-type": kind}).form == "record"


class TestAnswering:
    @pytest.mark.parametrize("accept", [STREAM, f"text/html, {STREAM};q=0.9, */*", STREAM.upper()])
    def test_an_arrow_stream(self, accept: str) -> None:
        message = answered(accept)
        assert message.content_type == STREAM
        table = pa.ipc.open_stream(message.body).read_all()
        assert table.column("prediction").to_pylist() == ["no", "yes", "yes"]
        assert table.column("probabilities").to_pylist()[1] == [0.49, 0.51]
        assert table.schema.field("probabilities").metadata == {b"labels": b"no\nyes"}

    def test_every_kind_of_output(self) -> None:
        outs = (
            Field(name="at", dtype="datetime", nullable=True), Field(name="n", dtype="int16"),
            Field(name="grid", dtype="float32", shape=(1, 2)), Field(name="ok", dtype="bool"),
        )  # fmt: skip
        values = {"at": ["1970-01-01T12:00:00", None], "n": [1, 2], "grid": [[[1, 2]], [[3, 4]]], "ok": [True, False]}
        made = Signature(inputs=(), outputs=outs).output_layout.from_arrays(values)
        made = codec(outs=outs).encode(Request(1, form=STREAM), Response(Batch(made), 0, 2, ""))
        table = pa.ipc.open_stream(made.body).read_all().to_pydict()
        assert table["at"] == [dt.datetime(1970, 1, 1, 12, tzinfo=dt.UTC), None]
        assert (table["n"], table["grid"], table["ok"]) == ([1, 2], [[[1, 2]], [[3, 4]]], [True, False])

    def test_csv(self) -> None:
        message = answered("text/csv")
        assert message.content_type == "text/csv"
        assert (
            message.body == b"prediction,probabilities.no,probabilities.yes\nno,0.5,0.5\nyes,0.49,0.51\nyes,0.48,0.52\n"
        )

    def test_a_record_a_line(self) -> None:
        message = answered("application/x-ndjson")
        assert [json.loads(line)["prediction"] for line in message.body.splitlines()] == ["no", "yes", "yes"]

    @pytest.mark.parametrize("accept", ["*/*", "application/json", f"{STREAM};q=0", "image/png", f"*/*, {STREAM}"])
    def test_json_for_all_others(self, accept: str) -> None:
        message = answered(accept, rows=1)
        assert message.content_type == "application/json" and json.loads(message.body)["prediction"] == "no"

    def test_what_was_read_in_columns_is_answered_so(self) -> None:
        request = codec().decode(written(pa.table(ROWS), PARQUET), {"content-type": PARQUET})
        message = codec().encode(request, Response(Batch(outputs(2)), 0, 2, "id-1"))
        assert json.loads(message.body)["prediction"] == ["no", "no"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_table_over_a_socket(kind: str) -> None:
    numbers = np.random.default_rng(0).normal(size=(2, 20_000))
    body = gzip.compress(written(pa.table({"x1": numbers[0], "x2": numbers[1]}), kind), 1)
    with Server(["m"], source=Source, port=0, access_log="off", wires=["native"]) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        headers = {"content-type": kind, "content-encoding": "gzip", "accept": STREAM, "accept-encoding": "identity"}
        connection.request("POST", "/predict", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert (answer.status, answer.headers["content-type"]) == (200, STREAM), text[:200]
        connection.request("POST", "/predict", body, {**headers, "content-encoding": "identity"})
        answer = connection.getresponse()
        assert answer.status == 400 and b"something else, or a part of one" in answer.read()
        connection.close()
    table = pa.ipc.open_stream(text).read_all()
    assert table.column("prediction").to_pylist() == np.where(numbers[0] > numbers[1], "yes", "no").tolist()
