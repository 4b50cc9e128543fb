"""Reading tables: every way in which a CSV file may be written, and every fault with its line."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import InvalidInput, NotFound
from modelyard.tables import read_table, source
from modelyard.tables.source import CsvFile


def write(folder: Path, data: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def fault(path: Path, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_table(path, **options)
    return caught.value


def test_types_and_missing_values(tmp_path: Path) -> None:
    table = read_table(
        write(
            tmp_path,
            "i,f,b,d,t,gap,flag\n1,1.5,true,2024-01-31,x,3,True\n"
            "-2,2e3,False,2024-02-01 10:30,NA,,\n3,.5,TRUE,,y,4,false\n",
        )
    )
    assert {name: a.dtype.name for name, a in table.items()} == {
        "i": "int64", "f": "float64", "b": "bool", "d": "datetime64[us]", "t": "object", "gap": "float64",
        "flag": "object",
    }  # fmt: skip
    assert table["i"].tolist() == [1, -2, 3]
    assert table["f"].tolist() == [1.5, 2000.0, 0.5]
    assert table["b"].tolist() == [True, False, True]
    assert table["d"][1] == np.datetime64("2024-02-01T10:30")
    assert np.isnat(table["d"][2])
    assert table["t"].tolist() == ["x", None, "y"]
    assert np.isnan(table["gap"][1])
    assert table["flag"].tolist() == [True, None, False]
    assert table.missing == {"t": 1, "gap": 1, "d": 1, "flag": 1}
    assert any("t: 1 missing (1 written NA)" in note for note in table.notes)
    assert (table.rows, table.total, table.sampled) == (3, 3, False)


@pytest.mark.parametrize("mark", ["", "NA", "N/A", "NaN", "nan", "null", "None", "?", " ", "   "])
def test_markers_of_missing_values(tmp_path: Path, mark: str) -> None:
    table = read_table(write(tmp_path, f"a,b\n1,x\n{mark},y\n3,{mark}\n"))
    assert np.isnan(table["a"][1])
    assert table["b"].tolist() == ["x", "y", None]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_ends_of_lines(tmp_path: Path, delimiter: str, end: str) -> None:
    text = end.join(delimiter.join(row) for row in (["a", "b", "c"], ["1", "x y", "2.5"], ["2", "z", "3.5"])) + end
    table = read_table(write(tmp_path, text))
    assert {name: a.tolist() for name, a in table.items()} == {"a": [1, 2], "b": ["x y", "z"], "c": [2.5, 3.5]}


def test_a_decimal_comma(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a;b\n1,5;x\n2,25;y\n"))
    assert table["a"].tolist() == [1.5, 2.25]
    assert "numbers are read with a decimal comma" in table.notes


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files(tmp_path: Path, pack: Any) -> None:
    assert read_table(write(tmp_path, pack(b"a,b\n1,x\n2,y\n"), "t.csv.gz"))["a"].tolist() == [1, 2]


def test_a_truncated_compressed_file(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(5000)))
    assert "compressed" in str(fault(write(tmp_path, whole[: len(whole) // 2])))


def test_a_byte_order_mark_and_spaces_around_names(tmp_path: Path) -> None:
    assert list(read_table(write(tmp_path, "\ufeffa , b\n1,2\n"))) == ["a", "b"]


def test_quoted_cells(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'a,b\n1,"x, ""y""\nz"\n2,plain\n'))
    assert table["b"].tolist() == ['x, "y"\nz', "plain"]


def test_types_are_decided_over_the_whole_column(tmp_path: Path) -> None:
    rows = ["a,b,c"] + [f"{i},{i},2024-01-01" for i in range(300_000)] + ["0.5,word,2024-01-02"] * 40_000
    table = read_table(write(tmp_path, "\n".join(rows)), rows=10**9)
    assert table["a"].dtype == float
    assert table["b"].dtype == object
    assert table["b"][7] == "7"
    assert any(
        "b: is read as text: 40000 of its values are not a whole number" in n or "b: is read as text" in n
        for n in table.notes
    )


def test_a_word_among_numbers_is_named_with_its_line(tmp_path: Path) -> None:
    rows = [f"{i},{i}.5,2024-01-01" for i in range(100)]
    rows[40], rows[70] = "40,lots,2024-01-01", "70,1.5,soon"
    error = fault(write(tmp_path, "a,b,c\n" + "\n".join(rows)))
    assert [problem.path for problem in error.problems] == ["line 42, column b", "line 72, column c"]
    assert error.problems[0].got == "'lots'"
    assert "--missing 'lots'" in error.hint
    table = read_table(tmp_path / "t.csv", missing=["lots"], text=["c"])
    assert np.isnan(table["b"][40])
    assert table["c"][70] == "soon"


def test_the_line_is_right_after_cells_with_line_ends_and_empty_lines(tmp_path: Path) -> None:
    rows = ['1,"x\ny"', "", *[f"{i},z" for i in range(30)], "oops,z"]
    error = fault(write(tmp_path, "a,b\n" + "\n".join(rows) + "\n"))
    assert error.problems[0].path == "line 35, column a"


def test_ragged_rows(tmp_path: Path) -> None:
    error = fault(write(tmp_path, 'a,b\n1,2\n1,2,3\n"p\nq",2\n4\n' + "5,6\n" * 5 + "7,8,9,10\n"))
    assert [(p.path, p.got) for p in error.problems] == [("line 3", "3"), ("line 6", "1"), ("line 12", "4")]
    assert "expected 2 values" in str(error)
    assert error.details["count"] == 3


def test_many_ragged_rows_are_counted_and_the_first_listed(tmp_path: Path) -> None:
    error = fault(write(tmp_path, "a,b\n" + "1\n" * 500))
    assert len(error.problems) == 10
    assert "and 499 more" in error.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"\xef\xbb\xbf", "empty file"),
        (b"  \n\n", "empty file"),
        (b"a,b\n", "only the header line"),
        (b"a,b", "only the header line"),
        (b"a,b,a\n1,2,3\n", "'a' in columns 1 and 3"),
        (b",,\n1,2,3\n", "empty names"),
        (bytes(range(256)) * 40, "binary data"),
        (b"PK\x03\x04" + bytes(range(256)), "Excel"),
        (b"a,b\n1,2\n3,x\0y\n", "line 3: expected text, got a NUL byte at byte 4"),
        ("a,b\n1,x\n2,é\n".encode("latin-1"), "line 3: expected UTF-8 text, got the byte 0xE9 at byte 3"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), "UTF-16-LE"),
        (b'a,b\n1,2\n3,"never closed\n4,5\n', "line 3: expected whole rows, got a quotation mark"),
    ],
)
def test_what_is_no_table(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in str(fault(write(tmp_path, data)))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "cp1252"])
def test_other_encodings_by_name(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "naïve,b\n1,é\n2,ü\n".encode(encoding))
    assert "--encoding" in fault(path).hint
    table = read_table(path, encoding=encoding)
    assert table["naïve"].tolist() == [1, 2]
    assert table["b"].tolist() == ["é", "ü"]


def test_an_unknown_encoding(tmp_path: Path) -> None:
    assert "a known encoding" in str(fault(write(tmp_path, "a\n1\n"), encoding="klingon"))


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_table(tmp_path / "absent.csv")
    assert "a folder" in str(fault(tmp_path))


def test_a_nameless_column_gets_a_name(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, ",a\n0,5\n1,6\n"))
    assert list(table) == ["column_1", "a"]
    assert any("column 1 has no name" in note for note in table.notes)


def test_one_column_and_no_end_of_the_last_line(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "a\n1\n2"))["a"].tolist() == [1, 2]


def test_a_file_with_stray_quotes(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'a,b\n1,5" pipe\n2,x\n3,y\n'))
    assert table["b"].tolist() == ['5" pipe', "x", "y"]


def test_a_stray_quote_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no open quotation mark, whatever follows: rows come in small blocks before it and after it."""
    monkeypatch.setattr(source, "LONGEST", 2000)
    rows = [f'{i},"a, ""b""\nc"\n' for i in range(300)]
    text = "a,b\n" + "".join([*rows, '7,5" pipe\n', *rows])
    blocks = list(CsvFile.open(write(tmp_path, text)).blocks(256))
    assert [block.broken for block in blocks if block.broken] == []
    assert max(len(block.data) for block in blocks) < 512
    assert b"".join(block.data for block in blocks) == text.partition("\n")[2].encode()
    assert all(block.line == 2 + b"".join(b.data for b in blocks[:i]).count(b"\n") for i, block in enumerate(blocks))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1/13/2011", "2/1/2011"], "2011-02-01"),
        (["13/1/2011", "1/2/2011"], "2011-02-01"),
        (["31.12.2020", "1.2.2011"], "2011-02-01"),
        (["2011/1/13", "2011/2/1"], "2011-02-01"),
        (["13/01/2011 09:30", "01/02/2011 00:00"], "2011-02-01"),
        (["2011-01-13T09:30:00Z", "2011-02-01T01:00:00+01:00"], "2011-02-01"),
        (["1/13/2011 9:30 PM", "2/1/2011 12:00 AM"], "2011-02-01"),
    ],
)
def test_dates(tmp_path: Path, cells: list[str], expected: str) -> None:
    table = read_table(write(tmp_path, "d\n" + "\n".join(cells) + "\n"))
    assert table["d"].dtype == "datetime64[us]"
    assert table["d"][1] == np.datetime64(expected)


def test_dates_that_may_be_either_way_round_stay_text(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "d\n1/2/2011\n3/4/2011\n"))
    assert table["d"].tolist() == ["1/2/2011", "3/4/2011"]
    assert any("day/month/year or month/day/year" in note for note in table.notes)


@pytest.mark.parametrize("cells", [["007", "010"], ["12345678901234567890", "12345678901234567891"]])
def test_codes_stay_text(tmp_path: Path, cells: list[str]) -> None:
    table = read_table(write(tmp_path, "code\n" + "\n".join(cells) + "\n"))
    assert table["code"].tolist() == cells
    assert any("read as codes" in note for note in table.notes)


def test_numbers_with_zeros_are_numbers(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a,b\n0,0.5\n10,0\n"))
    assert [a.dtype.kind for a in table.values()] == ["i", "f"]


def test_a_sample_is_fair_deterministic_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + "".join(f"{i},w{i % 7}\n" for i in range(50_000)))
    one, again, other = (read_table(path, rows=1000, seed=seed) for seed in (1, 1, 2))
    assert one.rows == 1000
    assert one.total == 50_000
    assert one.sampled
    assert "1,000 of 50,000 rows" in one.notes[0]
    assert one["a"].tolist() == again["a"].tolist() == sorted(one["a"].tolist())
    assert one["a"].tolist() != other["a"].tolist()
    assert abs(one["a"].mean() - 25_000) < 5 * 14_434 / 1000**0.5


def test_a_sample_does_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a\n" + "".join(f"{i}\n" for i in range(20_000)))
    whole = read_table(path, rows=300)["a"].tolist()
    blocks = CsvFile.blocks
    monkeypatch.setattr(CsvFile, "blocks", lambda self, size=0: blocks(self, 1000))
    assert read_table(path, rows=300)["a"].tolist() == whole


def test_faults_outside_the_sample_are_found(tmp_path: Path) -> None:
    path = write(tmp_path, "a\n" + "".join(f"{i}\n" for i in range(20_000)) + "word\n")
    assert fault(path, rows=50).problems[0].path == "line 20002, column a"


def test_the_setting_bounds_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_TRAIN_ROWS", "10")
    assert read_table(write(tmp_path, "a\n" + "1\n" * 50)).rows == 10


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    columns = {
        "i": pa.array([1, None, 3]),
        "t": pa.array(["x", None, "y"]).dictionary_encode(),
        "d": pa.array([1, 2, None], pa.timestamp("ms", "UTC")),
        "v": pa.array([[1.0, 2.0]] * 3),
        "raw": pa.array([b"a"] * 3),
    }
    pq.write_table(pa.table(columns), path)
    table = read_table(path)
    assert list(table) == ["i", "t", "d", "v"]
    assert table["t"].tolist() == ["x", None, "y"]
    assert table["v"].shape == (3, 2)
    assert table["d"].dtype == "datetime64[us]"
    assert table.missing == {"i": 1, "t": 1, "d": 1}
    assert any(note.startswith("raw: left out") for note in table.notes)
    broken = write(tmp_path, path.read_bytes()[:200], "broken.parquet")
    assert "a whole Parquet file" in str(fault(broken))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8), st.integers(-(10**9), 10**9)),
        min_size=1,
        max_size=40,
    ),
    size=st.sampled_from([1, 7, 64, 4096]),
)
def test_texts_survive_whatever_the_blocks(tmp_path_factory: Any, rows: list[tuple[str, int]], size: int) -> None:
    import csv

    path = tmp_path_factory.mktemp("h") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["text", "number"])
        writer.writerows((f"x{text}\nz", number) for text, number in rows)
    blocks = CsvFile.blocks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvFile, "blocks", lambda self, _=0: blocks(self, size))
        table = read_table(path, delimiter=",")
    assert table["text"].tolist() == [f"x{text}\nz" for text, _ in rows]
    assert table["number"].tolist() == [number for _, number in rows]
