"""Breaking the demo on purpose, from another terminal: what is broken is real, and so is what finds it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.cli import demo_data, demo_traffic, screen
from modelyard.cli.demo_data import MODEL, TARGET
from modelyard.errors import Conflict, NotFound

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.findings import Finding
    from modelyard.registry.plans import Rollout

#: Columns that may come in another unit, and what they are multiplied by.
COLUMNS, FACTOR = ("mean_radius", "mean_perimeter", "worst_radius", "worst_perimeter"), 10.0

#: Seconds after which nothing was found.
PATIENCE_SECONDS = 300.0


def break_drift(folder: Path, type_in: Callable[..., None]) -> dict[str, object]:
    """Change the unit of a column of the traffic, until the monitor says so."""
    from modelyard import api

    registry = api.open_registry()
    is_told = {finding.subject for finding in registry.findings.find(MODEL, is_open=True)}
    column = next((name for name in COLUMNS if name not in is_told), None)
    if column is None:
        raise Conflict(
            f"findings about {', '.join(COLUMNS)} are still open: what was broken is not over yet",
            hint=f"modelyard monitor {MODEL}    (and try again in a minute)",
        )
    screen.say(f"From now on {column} comes {FACTOR:g} times as large, as where millimetres are sent for centimetres.")
    screen.say("No request fails. The monitor compares what comes with what the model was trained on.")
    begun = time.monotonic()
    with demo_traffic.broken(folder, column, FACTOR, PATIENCE_SECONDS):
        finding = _wait_for(registry, column, begun)
    seconds = time.monotonic() - begun
    screen.say(f"\nFound after {seconds:.0f} s: {finding.told}.\n")
    alerts = [alert for alert in registry.alerts.find(MODEL) if finding.id in alert.findings]
    for alert in alerts:
        type_in("alerts", "show", str(alert.id))
    screen.say("\nThe unit is as before again; in a minute or so the finding is over. Look at it:")
    for words in (f"--finding {finding.id}", "--html report.html"):
        screen.say(f"  modelyard monitor {MODEL} {words}")
    return {
        "broken": "drift", "column": column, "seconds": seconds, "kind": finding.kind, "told": finding.told,
        "finding": finding.id, "alerts": [alert.id for alert in alerts],
    }  # fmt: skip


def _wait_for(registry: Registry, column: str, begun: float) -> Finding:
    """The finding about a column, and the alert that it belongs to."""
    from rich.console import Console

    with Console(stderr=True).status("waiting for the monitor: two of three looks have to show it"):
        while time.monotonic() - begun < PATIENCE_SECONDS:
            for finding in registry.findings.find(MODEL, is_open=True):
                if finding.subject == column:
                    return finding
            time.sleep(0.5)
    raise NotFound(
        f"no finding about {column} within {PATIENCE_SECONDS:g} s",
        hint="is the demo still running in its terminal, and does anybody watch? modelyard records status",
    )


def break_canary(folder: Path, type_in: Callable[..., None]) -> dict[str, object]:
    """Roll out a version that was trained on swapped diagnoses, until the guard takes it back."""
    from modelyard import api
    from modelyard.registry.decisions import told as outcome

    screen.say(
        "Somebody trains anew, on a table in which a spreadsheet has swapped the two diagnoses. What is held out"
    )
    screen.say("comes from the same table, so that its figures look as good as ever:\n")
    table = demo_data.write(folder, "swapped.csv", swapped=True).table
    type_in("train", str(table), "--target", TARGET, "--name", MODEL, "--candidates", "linear")
    number = api.versions(MODEL)[-1].number
    screen.say("\nIt gets a fifth of the traffic, and the guard compares what happens in both versions:\n")
    begun = time.monotonic()
    type_in("rollout", "start", MODEL, "--to", str(number), "--canary", "20%")
    type_in("rollout", "watch", MODEL)
    seconds = time.monotonic() - begun
    standing = api.find_rollout(MODEL)
    rollout, served = standing.rollout, standing.rollout.evidence.exposure
    screen.say(f"\n{rollout.state.capitalize()} after {seconds:.0f} s: {outcome(rollout)}.")
    share = f"{served.requests:,} requests of {served.requests + _stable(rollout):,}"
    screen.say(f"Version {number} answered {share}; {served.wrong:,} of them wrongly as far as labels tell by now.\n")
    screen.say("Look at it:")
    for words in ("rollout history", "rollout status", "history"):
        screen.say(f"  modelyard {words} {MODEL}")
    return {
        "broken": "canary", "version": number, "seconds": seconds, "state": rollout.state,
        "why": standing.decisions[-1].why, "requests": served.requests, "bad": served.bad, "wrong": served.wrong,
    }  # fmt: skip


def _stable(rollout: Rollout) -> int:
    return sum(stratum.stable.requests for stratum in rollout.evidence.strata.values())
