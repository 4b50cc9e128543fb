"""Print for people: lines, tables and progress. Plain text where stdout is not a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click


def say(line: str = "") -> None:
    """One line on stdout."""
    click.echo(line)


def note(line: str) -> None:
    """One line on stderr: what people want to know and programs do not."""
    click.echo(line, err=True)


def plain() -> bool:
    """Whether stdout takes no colour: no terminal, or NO_COLOR is set, or a dumb one."""
    return not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def text_of(value: Any) -> str:
    """A value as it stands in a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "-"
    if isinstance(value, dict):
        return ", ".join(f"{k}={text_of(v)}" for k, v in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(v) for v in value) or "-"
    return str(value)


def count(number: int, thing: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """A table. Without a terminal: columns parted by two spaces, never cut, so that grep and awk can read it."""
    cells = [[text_of(value) for value in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(headers))]
    if not plain():
        _rich_table(headers, cells, right, title)
        return
    if title:
        say(title)
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(headers)]
    for line in [list(headers), *cells]:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        say("  ".join(parts).rstrip())


def _rich_table(headers: Sequence[str], cells: list[list[str]], right: list[bool], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for header, is_right in zip(headers, right, strict=True):
        made.add_column(header, justify="right" if is_right else "left", overflow="fold")
    for row in cells:
        made.add_row(*(Text(cell) for cell in row))
    Console().print(made)


def pairs(rows: Sequence[tuple[str, Any]]) -> None:
    """Names and values under one another; rows whose value is None or empty are left out."""
    shown = [(name, text_of(value)) for name, value in rows if value not in (None, "", (), [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name.ljust(width)}  {value}")


#: Tells of progress: what is done, the total where it is known, and what is being done.
Advance = Callable[..., None]


def _silent(*_told: object) -> None:
    """Nobody watches."""


@contextmanager
def progress(what: str, *, unit: str = "") -> Iterator[Advance]:
    """A progress bar on stderr while it is a terminal; silent otherwise. ``unit`` ``bytes`` counts in MB."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    counted = DownloadColumn() if unit == "bytes" else TextColumn("{task.percentage:>3.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: float, total: float | None = None, text: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {text}".strip())

        yield advance
