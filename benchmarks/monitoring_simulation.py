"""Monitoring, tried through the code that decides in the loop: false findings, power, delays, and what a turn costs.

Windows of 200 numbers are drawn, counted on the bins of a reference, and taken in by ``monitoring.turn`` one after the
other, as the loop does. Nothing is decided here. ``--runs 5`` is a quick look; the default takes some minutes.
``--svg FILE`` draws what was found.
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modelyard.charts import Plot
from modelyard.monitoring import turn
from modelyard.monitoring.rules import DEFAULTS
from modelyard.monitoring.turn import Hour, State
from modelyard.profile import Counts, Profile
from modelyard.registry.records import stamp
from modelyard.registry.stages import STAGE_BOUNDS
from modelyard.registry.windows import Counted, Part, Window
from modelyard.statistics.special import normal_sf

FEATURES, WINDOWS, BINS = 200, 200, 20
WINDOW_ROWS = 1_000
START = 1_760_000_000.0
EDGES = [float(x) for x in np.linspace(-2.4, 2.4, BINS - 1)]


class Drawn(NamedTuple):
    """A reference, and a source of windows."""

    reference: Profile
    window: Callable[[int, np.ndarray], Window]


def shares(shift: float = 0.0) -> np.ndarray:
    """Shares of a normal in the bins, moved by so many standard deviations; below and above are never reached."""
    ends = np.concatenate([[0.0], [1 - normal_sf(edge - shift) for edge in EDGES], [1.0]])
    return np.diff(ends)


def source(rng: np.random.Generator, rows: int, features: int = FEATURES) -> Drawn:
    """A reference of so many rows of ``features`` independent normals."""
    even = np.tile(shares(), (features, 1))
    inputs = []
    for i, counts in enumerate(rng.multinomial(rows, even)):
        edges = [-1e9, *EDGES]
        inputs.append(Counts(field=f"x{i}", edges=edges, maximum=1e9, counts=counts.tolist()))

    def window(number: int, probabilities: np.ndarray) -> Window:
        parts = [Part(counts, [0] * 6) for counts in rng.multinomial(WINDOW_ROWS, probabilities).tolist()]
        return Window(
            id=number + 1, model="churn", version="1", opened=moment(number), closed=moment(number + 1),
            counted=Counted(requests=WINDOW_ROWS, rows=WINDOW_ROWS, inputs=parts),
        )  # fmt: skip

    return Drawn(Profile(rows=rows, inputs=inputs), window)


def moment(number: int) -> str:
    """The beginning of a window, a minute after the one before."""
    return stamp(dt.datetime.fromtimestamp(START + 60 * number, dt.UTC))


def nothing_drifts(runs: int, rows: int, seed: int) -> tuple[int, int, float]:
    """Findings of so many runs of 200 features and 200 windows in which nothing drifts; runs with any; ms a window."""
    found = alarmed = 0
    spent = 0.0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        drawn, state, mine = source(rng, rows), State(), 0
        probabilities = np.tile(shares(), (FEATURES, 1))
        for number in range(WINDOWS):
            window = drawn.window(number, probabilities)
            begun = time.perf_counter()
            outcomes, _ = turn.take(state, [window], drawn.reference, DEFAULTS, lambda _: Hour())
            spent += time.perf_counter() - begun
            mine += sum(outcome.event.what == "open" for outcome in outcomes)
        found += mine
        alarmed += mine > 0
    return found, alarmed, 1e3 * spent / (runs * WINDOWS)


def some_drift(runs: int, rows: int, size: float, seed: int) -> tuple[float, float, int]:
    """Ten of 200 features move by so many standard deviations from window 20 on, for 40 windows: the share of them that
    is told, the median of windows until then, and findings about other features.
    """
    waits: list[int] = []
    false = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run, int(100 * size)])
        drawn, state = source(rng, rows), State()
        calm, moved = np.tile(shares(), (FEATURES, 1)), np.tile(shares(), (FEATURES, 1))
        moved[:10] = shares(size)
        told: dict[str, int] = {}
        for number in range(60):
            window = drawn.window(number, calm if number < 20 else moved)
            outcomes, _ = turn.take(state, [window], drawn.reference, DEFAULTS, lambda _: Hour())
            for outcome in outcomes:
                if outcome.event.what == "open":
                    told.setdefault(outcome.event.subject, number - 19)
        drifting = {f"x{i}" for i in range(10)}
        waits += [wait for name, wait in told.items() if name in drifting]
        false += len(told.keys() - drifting)
    return len(waits) / (10 * runs), float(np.median(waits)) if waits else float("nan"), false


def episodes(runs: int, rows: int, seed: int) -> tuple[float, float, float]:
    """A feature drifts by a standard deviation for 20 windows and is as before for 100: findings about it a run, those
    that are closed, and the median of windows until then.
    """
    opened = closed = 0
    waits = []
    for run in range(runs):
        rng = np.random.default_rng([seed, run, 7])
        drawn, state = source(rng, rows, 20), State()
        calm, moved = np.tile(shares(), (20, 1)), np.tile(shares(), (20, 1))
        moved[0] = shares(1.0)
        for number in range(140):
            window = drawn.window(number, moved if 20 <= number < 40 else calm)
            outcomes, _ = turn.take(state, [window], drawn.reference, DEFAULTS, lambda _: Hour())
            for outcome in outcomes:
                opened += outcome.event.what == "open"
                if outcome.event.what == "close":
                    closed += 1
                    waits.append(number - 39)
    return opened / runs, closed / runs, float(np.median(waits)) if waits else float("nan")


def latencies(runs: int, seed: int, slower: float = 1.0, points: int = 1_000) -> tuple[int, float]:
    """Runs of latencies a point a minute, ``slower`` from point 100 on: how many are told of, and the median of points
    until then.
    """
    waits = []
    for run in range(runs):
        rng = np.random.default_rng([seed, run, int(100 * slower)])
        state = State()
        for number in range(points):
            times = 5e-4 * (slower if number >= 100 else 1.0) * rng.lognormal(0, 0.5, 300)
            counts = np.bincount(np.searchsorted(STAGE_BOUNDS, times), minlength=len(STAGE_BOUNDS) + 1).tolist()
            window = Window(
                id=number + 1, model="churn", version="1", opened=moment(number), closed=moment(number + 1),
                counted=Counted(requests=300, stages={"total": counts, "predict": counts}),
            )  # fmt: skip
            outcomes, _ = turn.take(state, [window], None, DEFAULTS, lambda _: Hour())
            if any(outcome.event.what == "open" for outcome in outcomes):
                waits.append(number - 99)
                break
    return len(waits), float(np.median(waits)) if waits else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    runs, seed = options.runs, options.seed
    print(f"\nNothing drifts: {FEATURES} features, {WINDOWS} windows of {WINDOW_ROWS:,} rows, {runs} runs\n")
    print("| reference | findings | runs with any | ms a window |\n|---|---|---|---|")
    for rows in (1_000, 10_000):
        found, alarmed, cost = nothing_drifts(runs, rows, seed)
        print(f"| {rows:,} rows | {found} | {alarmed} of {runs} | {cost:.1f} |", flush=True)
    few = max(2, runs // 5)
    print(f"\nTen of {FEATURES} features move, {few} runs\n")
    print(
        "| moved by, standard deviations | KS distance | told | windows until then | others told |\n"
        "|---|---|---|---|---|"
    )
    curve: dict[int, list[tuple[float, float]]] = {}
    for rows in (1_000, 10_000):
        for size in (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0):
            told, wait, false = some_drift(few, rows, size, seed)
            distance = 1 - 2 * normal_sf(size / 2)
            curve.setdefault(rows, []).append((size, told))
            print(f"| {size:g}, reference {rows:,} | {distance:.2f} | {told:.0%} | {wait:g} | {false} |", flush=True)
    opened, closed, wait = episodes(few, 10_000, seed)
    print(f"\nAn episode of 20 windows: {opened:g} findings a run, {closed:g} closed, after {wait:g} windows (median)")
    print(f"\nLatency, a point of 300 requests a minute, {few} runs\n")
    print("| slower by | told | points until then |\n|---|---|---|")
    for slower in (1.0, 1.25, 1.6, 2.0, 3.0):
        told_of, wait = latencies(few, seed, slower, 1_000 if slower == 1.0 else 200)
        print(f"| {slower:g} times | {told_of} of {few} | {wait:g} |", flush=True)
    if options.svg:
        options.svg.write_text(drawing(curve))


def drawing(curve: dict[int, list[tuple[float, float]]]) -> str:
    """How large a shift is told, by the size of the reference; for a page, so with colours of its own."""
    plot = Plot((0, 1), (0, 1), "moved by, standard deviations", "share of drifting features that is told", "Power")
    for n, points in enumerate(curve.values()):
        plot.line([x for x, _ in points], [y for _, y in points], f"l{n}")
        plot.points([x for x, _ in points], [y for _, y in points], f"k{n}", 3.0)
    plot.key([(f"l{n}", f"reference {rows:,}") for n, rows in enumerate(curve)])
    style = (
        "<style>text{font:11px sans-serif;fill:#5b6676}.label{fill:#1d2430;font-size:12px}.grid{stroke:#dfe3e9}"
        "polyline{fill:none;stroke-width:2}.l0{stroke:#c2410c}.l1{stroke:#2563c9}line.l0,line.l1{stroke-width:3}"
        ".k0{fill:#c2410c}.k1{fill:#2563c9}</style><rect width='100%' height='100%' fill='#fff'/>"
    )
    svg = plot.svg().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="540" height="435" ', 1)
    return svg.replace(">", f">{style}", 1)


if __name__ == "__main__":
    main()
