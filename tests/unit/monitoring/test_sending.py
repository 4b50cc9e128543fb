"""Labels from files into a ledger: every form, every fault by its line, nothing kept twice."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard import api
from modelyard.cli.labels import Server
from modelyard.errors import InvalidInput, NotFound, Refused
from modelyard.monitoring import sending
from modelyard.monitoring.sending import Row, Sent
from modelyard.registry import Registry
from modelyard.tables import csv_rows
from recorded import bundle_of, csv_of, lines_of

Send = Callable[..., Sent]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    return str(tmp_path / "home")


@pytest.fixture
def send(registry: Registry, tmp_path: Path) -> Send:
    """Sends the content of a file."""
    registry.register(bundle_of(tmp_path / "bundle"), "m")

    def sent(content: str | bytes, name: str = "labels.csv", **options: Any) -> Sent:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return api.send_labels("m", path, registry=registry, **options)

    return sent


def kept(registry: Registry, *ids: str) -> list[str]:
    return [registry.labels.history("m", id)[0].label for id in ids]


def rejects(path: str | None) -> list[list[str]]:
    assert path is not None
    with Path(path).open(newline="") as file:
        return list(csv.reader(file))


def test_a_csv_file(registry: Registry, send: Send) -> None:
    sent = send(csv_of([("a", "yes"), ("b", "no"), ("a", "yes")]))
    assert (sent.received, sent.new, sent.repeated, sent.rejected, sent.rejected_file) == (3, 2, 1, 0, None)
    assert kept(registry, "a", "b") == ["yes", "no"]


def test_rows_that_do_not_fit_are_set_aside_with_their_lines(send: Send) -> None:
    content = 'prediction_id,label\na,yes\n"b\nb",maybe\n,no\nc,\nd,no,more\ne,yes\n'
    sent = send(content)
    assert (sent.received, sent.rejected) == (2, 4)
    found = rejects(sent.rejected_file)
    assert found[0] == ["line", "row", "reason", "text"]
    assert [(line, row) for line, row, _, _ in found[1:]] == [("3", "2"), ("5", "3"), ("6", "4"), ("7", "5")]
    reasons = [reason for _, _, reason, _ in found[1:]]
    assert "'b\\nb'" in reasons[0] and "got nothing" in reasons[1] and "got nothing" in reasons[2]
    assert reasons[3] == "expected 2 cells, got 3"
    assert found[4][3] == "d,no,more"
    assert sent.reasons[3] == "line 7: expected 2 cells, got 3"


def test_a_file_of_rejects_that_is_left_over_goes(send: Send, tmp_path: Path) -> None:
    assert send("prediction_id,label\na,maybe\n").rejected_file == str(tmp_path / "labels.csv.rejected.csv")
    assert send(csv_of([("a", "yes")])).rejected_file is None
    assert not (tmp_path / "labels.csv.rejected.csv").exists()
    other = send("prediction_id,label\na,maybe\n", rejects=tmp_path / "odd.csv")
    assert other.rejected_file == str(tmp_path / "odd.csv")


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.txt"])
def test_json_lines(registry: Registry, send: Send, name: str) -> None:
    content = (
        lines_of([("a", "yes"), ("b", 3), ("c", None)]) + '\n{"prediction_id": "d"\n[]\n' + lines_of([("e", "no")])
    )
    sent = send(content, name)
    assert (sent.received, sent.rejected) == (2, 4)
    assert [(row[0], row[3][:25]) for row in rejects(sent.rejected_file)[1:]] == [
        ("2", '{"prediction_id": "b", "l'), ("3", '{"prediction_id": "c", "l'), ("5", '{"prediction_id": "d"'),
        ("6", "[]"),
    ]  # fmt: skip
    assert kept(registry, "a", "e") == ["yes", "no"]


def test_a_parquet_file_with_times(registry: Registry, send: Send, tmp_path: Path) -> None:
    moments = [dt.datetime(2026, 1, day, tzinfo=dt.UTC) for day in (3, 2, 1)]
    table = pa.table({"request": ["a", "a", "b"], "outcome": ["yes", "no", "sure"], "known": moments})
    pq.write_table(table, tmp_path / "labels.csv")  # whatever it is called
    sent = send((tmp_path / "labels.csv").read_bytes(), id="request", label="outcome", time="known")
    assert (sent.new, sent.late, sent.rejected) == (1, 1, 1)
    assert [label.moment[:10] for label in registry.labels.history("m", "a")] == ["2026-01-03", "2026-01-02"]
    assert rejects(sent.rejected_file)[1][:2] == ["", "3"]


def test_numbers_with_a_decimal_comma(registry: Registry, tmp_path: Path) -> None:
    registry.register(bundle_of(tmp_path / "bundle", ()), "m")
    path = tmp_path / "labels.csv"
    path.write_text("prediction_id;label\na;3,25\nb;-1,5\nc;x\n")
    sent = api.send_labels("m", path, registry=registry)
    assert kept(registry, "a", "b") == ["3.25", "-1.5"] and sent.rejected == 1


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"prediction_id": ["a", "b", "c"], "label": ["yes", "no", "maybe"]}),
        {"prediction_id": ["a", "b", "c"], "label": np.array(["yes", "no", None], dtype=object)},
        [{"prediction_id": id, "label": label} for id, label in (("a", "yes"), ("b", "no"), ("c", "x"))],
    ],
)  # fmt: skip
def test_what_is_in_memory(registry: Registry, send: Send, data: Any) -> None:
    sent = api.send_labels("m", data, registry=registry)
    assert (sent.received, sent.rejected, sent.rejected_file) == (2, 1, None)
    assert sent.reasons[0].startswith("row 3: label: expected one of the model's classes (no, yes)")
    assert kept(registry, "a", "b") == ["yes", "no"]


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ("id,label\na,yes\n", {}, "prediction_id.*none; the file has id, label"),
        ("prediction_id,label,label\na,yes,no\n", {}, "each column name once"),
        ("prediction_id,label\na,yes\n", {"time": "known"}, "known"),
        ("", {}, "empty file"),
        (b"\x00\x01\x02" * 100, {}, "binary|NUL|text"),
        ("prediction_id,label\nä,yes\n".encode("latin-1"), {"encoding": "nonsense"}, "encoding"),
    ],
)
def test_files_that_are_none(send: Send, content: str | bytes, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        send(content, **options)


def test_models_and_files_that_are_none(send: Send, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        api.send_labels("m", tmp_path / "nothing.csv", registry=registry)
    with pytest.raises(NotFound, match="no such model"):
        api.send_labels("other", tmp_path / "nothing.csv", registry=registry)


def test_a_label_may_be_of_any_version_that_is_in_use(registry: Registry, tmp_path: Path) -> None:
    for number, classes in enumerate([("no", "yes"), ("no", "once"), ("no", "late"), ("no", "new")], 1):
        registry.register(bundle_of(tmp_path / f"b{number}", classes, text=str(number)), "m")
    registry.promote("m", 3, alias="canary")
    assert sending.truth_of(registry, "m").classes == ("no", "yes", "late", "new")


def test_a_file_is_read_in_pieces_and_can_be_sent_again_after_a_failure(
    registry: Registry, send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK", 2_000)
    told: list[tuple[int, int]] = []
    path = tmp_path / "many.csv"
    path.write_text(csv_of((f"p{number}", "yes") for number in range(2_000)))
    file = sending.LabelFile(path, "prediction_id", "label", None)
    here, calls = sending.Here(registry.labels, "m", sending.truth_of(registry, "m")), [0]

    def failing(rows: Sequence[Row]) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise OSError("the wall fell down")
        return here(rows)

    with pytest.raises(OSError, match="wall"):
        sending.send("m", file.batches(), failing)
    before = registry.labels.totals("m").predictions
    assert 0 < before < 2_000
    sent = api.send_labels("m", path, registry=registry, progress=lambda *done: told.append(done))
    assert (sent.new, sent.repeated) == (2_000 - before, before)
    assert len(told) > 5 and told == sorted(told) and told[-1][0] == told[-1][1]


# -- to a server ----------------------------------------------------------------------------------------------------


def test_a_server_that_refuses_some_gets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    from modelyard.cli import labels
    from modelyard.errors import Problem

    asked: list[list[Any]] = []

    def ask(url: str, path: str, *, key: str | None, body: bytes, seconds: float) -> Any:
        records = msgspec.json.decode(body)
        asked.append(records)
        bad = [number for number, record in enumerate(records) if record["label"] == "bad"][:2]
        if bad:
            raise InvalidInput.of(
                [Problem(f"[{number}].label", "a class" if number else "", "'bad'") for number in bad]
            )
        return {"received": len(records), "new": len(records), "repeated": 0, "corrected": 0, "late": 0, "model": "m"}

    monkeypatch.setattr(labels, "ask", ask)
    monkeypatch.setattr(labels, "PER_REQUEST", 5)
    rows = [Row(f"p{number}", "bad" if number in (0, 1, 3, 6) else "yes", "2026-01-01") for number in range(8)]
    receipt, refused = Server("http://there", "m", None)(rows)
    assert receipt.received == 4 and sorted(refused) == [0, 1, 3, 6]
    assert refused[0] == "the server takes no such label" and refused[1] == "label: expected a class, got 'bad'"
    assert [len(records) for records in asked] == [5, 3, 2, 3, 2]
    assert asked[0][2] == {"prediction_id": "p2", "label": "yes", "time": "2026-01-01"}


def test_what_a_server_says_of_no_row_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.cli import labels

    for error in (Refused("this key is not for m"), InvalidInput.at("body", "JSON", "nothing")):
        monkeypatch.setattr(labels, "ask", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            Server("http://there", "m", None)([Row("a", "yes")])
