"""What is printed for people where no terminal is."""

from __future__ import annotations

import pytest

from modelyard.cli import screen


def test_tables_are_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    screen.table(("name", "rows", "note"), [("a" * 200, 5, None), ("b", 12345, {"x": 1.23456789})])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a" * 200 + "      5  -"
    assert lines[2] == "b".ljust(200) + "  12345  x=1.235"
    assert lines[0].split() == ["name", "rows", "note"]


def test_pairs_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    screen.pairs([("task", "regression"), ("alias", ()), ("n", 0), ("ok", False), ("nothing", None)])
    assert capsys.readouterr().out == "task  regression\nn     0\nok    no\n"


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.progress("working") as tell:
        tell(1, 2)
        tell(1, None, "still")
    assert capsys.readouterr() == ("", "")


def test_values_in_words() -> None:
    assert [screen.text_of(v) for v in (None, True, float("nan"), 0.5, (1, 2), [], {"a": None})] == [
        "-", "yes", "-", "0.5", "1, 2", "-", "a=-",
    ]  # fmt: skip


def test_one_is_not_several() -> None:
    assert [screen.count(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
