"""Markdown from what side-by-side runs found, and its place in a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- Between these lines `make bench` writes. -->", "<!-- What follows is written by hand. -->"

#: The server that all others are compared with.
OURS = "modelyard"

Line = Mapping[str, Any]
Cells = dict[tuple[str, str, int], Line]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def cells(lines: Iterable[Line]) -> Cells:
    """One run of each server, job and number of connections: the one that other programs disturbed least."""
    found: Cells = {}
    for line in lines:
        if "failed" in line or not line["pinned"]:
            continue
        key = (line["peer"], line["job"], line["conns"])
        if key not in found or line["other_cores"] < found[key]["other_cores"]:
            found[key] = line
    return found


def servers(found: Cells) -> list[str]:
    """Those measured, the least processor time a request first."""
    names = {peer for peer, _, _ in found}
    return sorted(names, key=lambda name: found[name, "linear", 64]["cpu_us"])


def side_by_side(lines: Sequence[Line]) -> str:
    """All servers at 64 connections: figures, and in brackets how many times as much Modelyard does or they take."""
    found = cells(lines)
    rows = []
    for name in servers(found):
        row = [f"**{name}**" if name.startswith(OURS) else name]
        for job in ("linear", "trees", "trees1000"):
            line, own = found.get((name, job, 64)), found.get((OURS, job, 64))
            if line is None or own is None:
                row += ["", ""]
                continue
            late = f"{_ms(line['p50_us'])} / {_ms(line['p99_us'])}"
            row += [f"{_number(line['rps'])} ({_times(own['rps'], line['rps'])}), {late}"]
            row += [f"{_number(line['cpu_us'])} ({_times(line['cpu_us'], own['cpu_us'])})"]
        rows.append(row)
    head = ["server"]
    for job in ("linear", "trees", "1000 rows of trees"):
        head += [f"{job}: requests/s, p50 / p99 ms", "CPU us"]
    return table(head, rows)


def connections(lines: Sequence[Line]) -> str:
    """The linear model at other numbers of connections; start and memory."""
    found = cells(lines)
    rows = []
    for name in servers(found):
        row = [f"**{name}**" if name.startswith(OURS) else name]
        for count in (1, 16, 256):
            line = found.get((name, "linear", count))
            row.append("" if line is None else f"{_number(line['rps'])}, {_ms(line['p50_us'])} / {_ms(line['p99_us'])}")
        about = [line for line in lines if line["peer"] == name and line.get("mem_mb")]
        row += [f"{min(line['start_s'] for line in about):.2f}", f"{about[0]['mem_mb']:.0f}"] if about else ["", ""]
        rows.append(row)
    head = ["server", *(f"{count}: requests/s, p50 / p99 ms" for count in (1, 16, 256)), "start, s", "memory, MB"]
    return table(head, rows)


def failures(lines: Sequence[Line]) -> str:
    """Servers that did not run, and answers that were none."""
    told = [f"- {line['peer']}, {line['job']}: {line['failed'][:120]}" for line in lines if "failed" in line]
    for (peer, job, count), line in cells(lines).items():
        bad = line["socket_errors"] + line["bad_status"] + line["timeouts"]
        if bad:
            told.append(f"- {peer}, {job}, {count} connections: {bad} of {line['requests']} requests failed")
    return "\n".join(told)


def disturbance(lines: Sequence[Line]) -> float:
    """The most of a core that other programs took during one of the runs that are shown."""
    return max(line["other_cores"] for line in cells(lines).values())


def put(page: Path, text: str) -> None:
    """Write ``text`` between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.{2 if microseconds < 100_000 else 0}f}"


def _times(more: float, less: float) -> str:
    if not less:
        return "–"
    ratio = more / less
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x"
