"""How a rollout looks: live in a terminal, a line a change elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from modelyard.cli import screen

if TYPE_CHECKING:
    from modelyard.api import Standing
    from modelyard.registry.decisions import Finding

_BAR = 16


def follow(standing: Standing, look: Callable[[Standing], Standing]) -> None:
    """Show a rollout until it has ended; ``look`` waits and finds it again, given how it stood."""
    if screen.plain():
        _follow_plainly(standing, look)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(_drawn(standing), console=Console(), auto_refresh=False, transient=False) as live:
        while standing.rollout.ended is None:
            standing = look(standing)
            live.update(_drawn(standing), refresh=True)


def show(standing: Standing) -> None:
    """How it stands, once."""
    screen.say(headline(standing))
    for line in _lines(standing):
        screen.say(line)
    rows = [_cells(finding) for finding in _findings(standing)]
    if rows:
        screen.table(_HEADERS, rows)
    for decision in standing.decisions[-5:]:
        screen.say(f"{decision.moment[:19]}Z {decision.who}: {decision.action}{_because(decision.why)}")


def headline(standing: Standing) -> str:
    """What is rolled out, and how far it is."""
    rollout = standing.rollout
    line = f"rollout {rollout.id} of {rollout.model}@{rollout.alias}, version {rollout.stable} to {rollout.candidate}: "
    if rollout.state not in ("running", "paused"):
        return line + rollout.state
    stage, stages = rollout.plan.stages[rollout.stage], len(rollout.plan.stages)
    what = "copies of " if stage.mode == "shadow" else ""
    return f"{line}{rollout.state}, stage {rollout.stage + 1} of {stages}, {what}{rollout.share * 100:.4g}%"


def _lines(standing: Standing) -> Iterator[str]:
    rollout = standing.rollout
    served = rollout.evidence.exposure
    bad = f"{served.bad:,} bad, {served.slow:,} slow, {served.wrong:,} wrong as far as is known"
    yield f"served by version {rollout.candidate}: {screen.count(served.requests, 'request')}; {bad}"
    if standing.verdict is not None:
        yield f"verdict: {standing.verdict.why}"
        if not standing.decider:
            yield "nobody decides: a server does, or `modelyard watch`"
    elif standing.decisions:
        last = standing.decisions[-1]
        yield f"{last.action} by {last.who} at {last.moment[:19]}Z{_because(last.why)}"


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _findings(standing: Standing) -> list[Finding]:
    return standing.verdict.findings if standing.verdict else standing.decisions[-1].findings


_HEADERS = ("guard", "of the candidate", "of the stable version", "harm", "at most", "tolerated", "evidence", "needed")


def _cells(finding: Finding) -> tuple[str, ...]:
    from modelyard.registry.decisions import odds

    name = finding.guard if finding.event in ("", finding.guard) else f"{finding.guard} ({finding.event})"
    return (
        name, _rate(finding.bad, finding.n), _rate(finding.stable_bad, finding.stable_n), _points(finding.harm),
        _points(finding.at_most), _points(finding.tolerance), odds(finding.log_e), odds(finding.needed),
    )  # fmt: skip


def _rate(bad: int, n: int) -> str:
    return f"{bad:,}/{n:,} {bad / n * 100:.3g}%" if n else "-"


def _points(share: float | None) -> str:
    return "-" if share is None or share >= 1 else f"{share * 100:.2g}%"


def _follow_plainly(standing: Standing, look: Callable[[Standing], Standing]) -> None:
    told = ""
    while True:
        verdict = standing.verdict.why if standing.verdict else ""
        line = "; ".join(part for part in (headline(standing), verdict) if part)
        if line != told:
            screen.say(line)
            told = line
        if standing.rollout.ended is not None:
            for line in _lines(standing):
                screen.say(line)
            return
        standing = look(standing)


def _drawn(standing: Standing) -> Any:
    """The same as ``show``, with the evidence as bars."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in _HEADERS:
        table.add_column(header, justify="left" if header == "guard" else "right")
    table.add_column("of what it takes", no_wrap=True, min_width=_BAR)
    for finding in _findings(standing):
        table.add_row(*(Text(cell) for cell in (*_cells(finding), _bar(finding))))
    style = {"rolled back": "bold red", "aborted": "bold red", "promoted": "bold green", "passed": "bold green"}
    head = Text(headline(standing), style=style.get(standing.rollout.state, "bold"))
    return Group(head, *(Text(line) for line in _lines(standing)), table)


def _bar(finding: Finding) -> str:
    """How far the evidence is, by its logarithm, which grows evenly while a candidate does harm."""
    full = min(max(finding.log_e / finding.needed, 0.0), 1.0) if finding.needed > 0 else 0.0
    return "█" * round(full * _BAR) + "░" * (_BAR - round(full * _BAR))
