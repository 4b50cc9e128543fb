"""Histograms count right, and the log never stands in the way."""

from __future__ import annotations

import io
import json
import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import ModelFailed
from modelyard.telemetry import Histogram, Log, masked
from receivers import waited

BOUNDS = (1.0, 2.0, 5.0)


@given(st.lists(st.floats(0, 10) | st.sampled_from([1.0, 2.0, 5.0]), max_size=50))
def test_each_bound_counts_what_is_at_most_as_large(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(values[:10])
    histogram.observe(values[10:])
    cumulative, count, total = histogram.read()
    assert cumulative == [sum(value <= bound for value in values) for bound in BOUNDS]
    assert (count, total) == (len(values), pytest.approx(sum(values)))
    assert histogram.read()[1] == len(values)  # reading takes nothing away


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_and_wait_for_a_flush() -> None:
    stream = io.StringIO()
    log = Log("info", stream)
    log.write("info", "something", model="m", odd=object)
    log.write("debug", "nothing")
    assert not stream.getvalue()
    log.flush()
    (line,) = lines(stream)
    assert (line["level"], line["event"], line["model"]) == ("info", "something", "m")
    assert line["time"].endswith("Z")


def test_errors_are_written_at_once_and_bugs_with_their_trace() -> None:
    stream = io.StringIO()
    log = Log("info", stream)
    log.write("error", "expected", error=ModelFailed("the graph broke"))
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        log.write("error", "bug", error=error)
    expected, bug = lines(stream)
    assert expected["error"] == "ModelFailed: the graph broke" and "trace" not in expected
    assert "ZeroDivisionError" in bug["trace"]


def test_a_flood_is_dropped_and_counted() -> None:
    stream = io.StringIO()
    log = Log("info", stream, limit=10)
    for i in range(25):
        log.write("info", "line", i=i)
    log.flush()
    told = lines(stream)
    assert len(told) == 11
    assert told[-1]["lines"] == 15


def test_a_stream_that_is_gone_stops_nothing() -> None:
    stream = io.StringIO()
    log = Log("info", stream)
    stream.close()
    log.write("error", "nobody hears")
    log.flush()


@pytest.mark.parametrize("text", ["line", "l\u00efne"], ids=["ascii", "other"])
def test_a_pipe_that_nobody_reads_stops_nothing_and_tells_all_later(text: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream, os.fdopen(reading, encoding="utf-8") as reader:
        log = Log("info", stream, limit=3000)
        for i in range(5000):
            log.write("info", text * 20, i=i)
            if i % 100 == 0:
                log.flush()
        told: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: told.extend(map(json.loads, reader)))
        thread.start()
        assert waited(lambda: log.flush() or not (log._lines or log._rest))  # type: ignore[func-returns-value]
        stream.close()
        thread.join()
    numbers = [line["i"] for line in told if "i" in line]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + sum(line.get("lines", 0) for line in told) == 5000


KEY = "my_0123456789ab_" + "aB-_" * 10 + "xyz"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"no such path: /{KEY}/x", "no such path: /my_0123456789ab_***/x"),
        (f"/predict?api_key={KEY}", "/predict?api_key=***"),
        ("/predict?x=1&Token=abc&y=2", "/predict?x=1&Token=***&y=2"),
        ("/predict?access_token=a%20b#c", "/predict?access_token=***#c"),
        ("/predict?sig=abc&monitor=1", "/predict?sig=***&monitor=1"),
        ("postgresql://me:secret@host:5432/db?sslpassword=x", "postgresql://me:***@host:5432/db?sslpassword=***"),
        ("http://localhost:8080/a@b?keys=1", "http://localhost:8080/a@b?keys=1"),
        ("my_model at x=1", "my_model at x=1"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert masked(text.encode()).decode() == shown
    stream = io.StringIO()
    log = Log("info", stream)
    log.write("info", "line", target=text)
    log.write("error", "failed", error=ModelFailed(text))
    assert [line.get("target") or line["error"] for line in lines(stream)] == [shown, f"ModelFailed: {shown}"]
