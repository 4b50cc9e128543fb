"""The page of settings is the table of settings."""

from __future__ import annotations

from pathlib import Path

from modelyard.settings import TABLE, Setting

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    return f"| `{setting.variable}` | {default} | {setting.purpose} |"


def test_the_page_has_the_rows_of_the_table() -> None:
    told = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `MODELYARD_")]
    expected = [row(setting) for setting in TABLE]
    assert told == expected, "the table of docs/settings.md has to be:\n" + "\n".join(expected)
