"""Drift that can be believed, tried: false alarms over 200 features and 200 windows, power, intervals, streams.

Everything that decides is modelyard.statistics; this file only throws the dice. Tables are printed beside the figures
of the design where it has them. ``--scale 0.2`` is a quick look; the default takes some minutes.
"""

from __future__ import annotations

import argparse
import time
from math import log

import numpy as np

from modelyard.statistics import discovery, distances, effects, sequential, special, streaming, twosample
from modelyard.statistics.special import Array

FEATURES, WINDOWS, BINS = 200, 200, 20
#: An effect that matters: a KS distance of 0.1, which is a quarter of a standard deviation, or a PSI of 0.1.
FLOOR = 0.1
EDGES = np.array([special.normal_quantile(1 - i / BINS) for i in range(1, BINS)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for part in (psi_null, nothing_drifts, some_drift, harmless, intervals, streams, run_lengths):
        began = time.perf_counter()
        part(np.random.default_rng(options.seed), options.scale)
        print(f"\n({time.perf_counter() - began:.0f} s)\n", flush=True)


def normal_shares(shift: float = 0.0, scale: float = 1.0) -> Array:
    """Shares of a normal in the 20 bins that a standard normal fills equally."""
    return np.diff([0.0, *(1 - special.normal_sf((edge - shift) / scale) for edge in EDGES), 1.0])


def psi_null(rng: np.random.Generator, scale: float) -> None:
    title("PSI without drift", "simulated / by formula")
    head("n, m, bins", "mean", "95 %", "99 %", "above 0.1", "above 0.2")
    for n, m, bins in ((100, 100, 10), (200, 200, 10), (500, 500, 10), (1000, 1000, 10), (10_000, 1000, 10),
                       (10_000, 10_000, 20)):  # fmt: skip
        shares = np.full(bins, 1 / bins)
        pairs = zip(*(rng.multinomial(rows, shares, int(10_000 * scale)) for rows in (n, m)), strict=True)
        seen = np.array([distances.psi(a, b) for a, b in pairs])
        cells = [f"{seen.mean():.5f} / {distances.psi_null_mean(n, m, bins):.5f}"]
        for alpha in (0.05, 0.01):
            cells.append(f"{np.quantile(seen, 1 - alpha):.5f} / {distances.psi_critical(n, m, bins, alpha):.5f}")
        for value in (0.1, 0.2):
            cells.append(f"{(seen > value).mean():.1%} / {distances.psi_p_value(value, n, m, bins):.1%}")
        row(f"{n:,}, {m:,}, {bins}", *cells)


# -- two gates over many features and windows -------------------------------------------------------------------------


class Rules:
    """What each rule makes of one window after the other; shares of features are counted, and windows with any."""

    NAMES = (
        "PSI > 0.1", "PSI > 0.2", "KS, p < 0.05", "chi-square, p < 0.05", "Benjamini-Hochberg in the window",
        "the same at LORD++'s level", "and KS surely > 0.1 (both gates)", "and PSI surely > 0.1 (both gates)",
    )  # fmt: skip

    def __init__(self) -> None:
        self.stream = discovery.Stream.lord(0.05)
        self.alarms: list[Array] = []

    def judge(self, reference: Array, live: Array) -> None:
        """Both of shape (features, bins)."""
        pairs = list(zip(reference, live, strict=True))
        psi = np.array([distances.psi(a, b) for a, b in pairs])
        ks = np.array([twosample.compare_distributions(a, b).p for a, b in pairs])
        p = np.array([twosample.compare_counts(a, b).p for a, b in pairs])
        level = self.stream.level
        real = discovery.discover(p, level) if self.stream.test(discovery.combine(p)) else np.zeros(len(p), dtype=bool)
        matters = [np.zeros(len(p), dtype=bool) for _ in range(2)]
        for i in np.flatnonzero(real):  # effects are only looked at where there is something
            matters[0][i] = effects.bound_ks(*pairs[i]).low > FLOOR
            matters[1][i] = effects.bound_psi(*pairs[i]).low > FLOOR
        found = (psi > 0.1, psi > 0.2, ks < 0.05, p < 0.05, discovery.discover(p, 0.05), real, *matters)
        self.alarms.append(np.array(found))


def nothing_drifts(rng: np.random.Generator, scale: float) -> None:
    windows = max(20, int(WINDOWS * scale))
    title(f"{FEATURES} features, {windows} windows, no drift", "alarms of feature-windows; windows with any alarm")
    sizes = ((100_000, 1000), (10_000, 1000), (2000, 1000), (10_000, 200))
    found = []
    for n, m in sizes:
        rules = Rules()
        shares = rng.dirichlet(np.full(BINS, 3.0), FEATURES)
        reference = np.array([rng.multinomial(n, p) for p in shares])
        for _ in range(windows):
            rules.judge(reference, np.array([rng.multinomial(m, p) for p in shares]))
        found.append(np.array(rules.alarms))
    head("rule", *(f"reference {n:,}, window {m:,}" for n, m in sizes))
    for i, name in enumerate(Rules.NAMES):
        row(name, *(f"{alarms[:, i].mean():.3%}; {alarms[:, i].any(axis=1).sum()}" for alarms in found))


def some_drift(rng: np.random.Generator, scale: float) -> None:
    windows = max(20, int(WINDOWS * scale) // 2)
    title(f"10 of {FEATURES} features drift from the middle of {windows} windows on", "reference 10,000, window 1,000")
    head("moved by", *(f"{name}: found, false" for name in Rules.NAMES[2:]))
    for shift in (0.2, 0.5, 1.0):
        rules, flat, moved = Rules(), np.full(BINS, 1 / BINS), normal_shares(shift)
        reference = rng.multinomial(10_000, flat, FEATURES)
        for window in range(windows):
            live = rng.multinomial(1000, flat, FEATURES)
            if window >= windows // 2:
                live[:10] = rng.multinomial(1000, moved, 10)
            rules.judge(reference, live)
        alarms = np.array(rules.alarms)
        after = alarms[windows // 2 :, :, :10].mean(axis=(0, 2))
        false = alarms.sum(axis=(0, 2)) - alarms[windows // 2 :, :, :10].sum(axis=(0, 2))
        cells = [f"{a:.0%}, {f / max(1, t):.1%}" for a, f, t in zip(after, false, alarms.sum(axis=(0, 2)), strict=True)]
        row(f"{shift} sd (KS {np.abs(np.cumsum(moved - flat)).max():.3f})", *cells[2:])


def harmless(rng: np.random.Generator, scale: float) -> None:
    title("A harmless shift of 0.02 sd", "rejected at 0.05, and past both gates")
    head("n = m", "KS, p < 0.05", "design (raw rows)", "chi-square, p < 0.05", "KS surely > 0.1")
    moved, flat = normal_shares(0.02), np.full(BINS, 1 / BINS)
    for rows, design in ((1000, "7.5 %"), (10_000, "33 %"), (100_000, "98 %"), (1_000_000, "100 %")):
        pairs = [(rng.multinomial(rows, flat), rng.multinomial(rows, moved)) for _ in range(int(1000 * scale))]
        ks = np.mean([twosample.compare_distributions(a, b).p < 0.05 for a, b in pairs])
        chi = np.mean([twosample.compare_counts(a, b).p < 0.05 for a, b in pairs])
        row(f"{rows:,}", f"{ks:.1%}", design, f"{chi:.1%}", sum(effects.bound_ks(a, b).low > FLOOR for a, b in pairs))


def intervals(rng: np.random.Generator, scale: float) -> None:
    title("Intervals of effects at 95 %", "how often the lower end is above the truth, the upper end below it")
    head("n, m", "distribution", "true PSI", "PSI", "lower end, median", "true KS", "KS", "lower end, median")
    flat = np.full(BINS, 1 / BINS)
    skewed = 0.75 ** np.arange(BINS) / (0.75 ** np.arange(BINS)).sum()
    shapes = {
        "equal bins, same": (flat, flat), "moved by 0.2 sd": (flat, normal_shares(0.2)),
        "moved by 0.5 sd": (flat, normal_shares(0.5)), "moved by 1.5 sd": (flat, normal_shares(1.5)),
        "spread by 2": (flat, normal_shares(0, 2)), "skewed, same": (skewed, skewed),
        "skewed, reversed by a fifth": (skewed, 0.8 * skewed + 0.2 * skewed[::-1]),
    }  # fmt: skip
    runs = int(400 * scale)
    for n, m in ((1000, 1000), (10_000, 1000), (100_000, 200)):
        for name, (p, q) in shapes.items():
            a, b = rng.multinomial(n, p, runs), rng.multinomial(m, q, runs)
            cells = []
            truths = (float(((p - q) * np.log(p / q)).sum()), float(np.abs(np.cumsum(p - q)).max()))
            for bound, true in zip((effects.bound_psi, effects.bound_ks), truths, strict=True):
                low, high = np.array([bound(x, y)[1:] for x, y in zip(a, b, strict=True)]).T
                over, under = (low > true + 1e-9).mean(), (high < true - 1e-9).mean()
                cells += [f"{true:.3f}", f"{over:.1%}, {under:.1%}", f"{np.median(low):.3f}"]
            row(f"{n:,}, {m:,}", name, *cells)


# -- streams -------------------------------------------------------------------------------------------------------


def streams(rng: np.random.Generator, scale: float) -> None:
    """Bins are the quantiles of the reference itself, as frozen at training."""
    runs, alpha = int(300 * scale), 0.01
    title("Conformal martingale over 20,000 rows, e >= 100 at any row", "and a test that takes the reference for truth")
    head("reference", "shift", "found", "median row of those found", "ln(100) / KL", "design", "reference as truth")
    design = {(2000, 0.0): "1.3-2 %", (2000, 0.1): "4 %", (20_000, 0.1): "66 %", (20_000, 0.2): "median 930"}
    for n in (2000, 20_000):
        for shift in (0.0, 0.1, 0.2, 0.5):
            found, naive = [], 0
            for run in range(runs):
                rows = rng.normal(size=n)
                edges = np.quantile(rows, np.arange(1, BINS) / BINS)
                reference = histogram(rows, edges)
                martingale = streaming.ConformalMartingale(reference=reference, seed=run)
                live, past, first = np.zeros(BINS), False, np.inf
                for start in range(0, 20_000, 1000):
                    batch = histogram(rng.normal(shift, 1, 1000), edges)
                    before = np.array(martingale.wealth or [0.0] * len(streaming.WEIGHTS))
                    path = sequential.average(before + np.cumsum(martingale.add(batch), axis=0), streaming.WEIGHTS)
                    if (path >= log(1 / alpha)).any():
                        first = min(first, start + 1 + float(np.argmax(path >= log(1 / alpha))))
                    live += batch
                    shares = np.array(reference) / n
                    past |= sequential.log_dirichlet_multinomial(live, shares, alpha=1.0) >= log(1 / alpha)
                    if np.isfinite(first) and (past or shift):
                        break
                found.append(first)
                naive += past
            caught = np.array(found)[np.isfinite(found)]
            limit = f"{log(100) / (shift**2 / 2):.0f}" if shift else ""
            median = f"{np.median(caught):.0f}" if len(caught) else ""
            row(f"{n:,}", f"{shift} sd", f"{len(caught) / runs:.1%}", median, limit, design.get((n, shift), ""),
                "" if shift else f"{naive / runs:.1%}")  # fmt: skip


def run_lengths(rng: np.random.Generator, scale: float) -> None:
    runs, rows = int(100 * scale), 60_000
    title("Detectors on the same bets, alarm at M >= 10,000", f"{rows:,} rows at most; the drift begins at row 5,000")
    head("detector", "rows to a false alarm, mean", "at least", "shift", "rows until found, median / 90 %", "found")
    for kind in ("shiryaev-roberts", "cusum"):
        quiet = [detect(rng, kind, 0.0, rows) for _ in range(runs)]
        length = f"{np.mean([min(first, rows) for first in quiet]):,.0f}"
        for shift in (0.2, 0.5):
            firsts = np.array([detect(rng, kind, shift, rows) for _ in range(runs)])
            late = firsts[firsts > 5000] - 5000
            median, most = np.quantile(late, [0.5, 0.9], method="lower") if len(late) else (np.nan, np.nan)
            row(
                kind, length, "10,000", f"{shift} sd", f"{median:,.0f} / {most:,.0f}", f"{np.isfinite(late).mean():.0%}"
            )


def detect(rng: np.random.Generator, kind: str, shift: float, rows: int) -> float:
    sample = rng.normal(size=20_000)
    edges = np.quantile(sample, np.arange(1, BINS) / BINS)
    seed = int(rng.integers(2**31))
    martingale = streaming.ConformalMartingale(reference=histogram(sample, edges), seed=seed)
    detector = streaming.Detector(kind=kind, weights=streaming.WEIGHTS)
    for start in range(0, rows, 1000):
        batch = histogram(rng.normal(shift if start >= 5000 else 0.0, 1, 1000), edges)
        path = detector.add(martingale.add(batch))
        if (path >= log(10_000)).any():
            return start + 1 + float(np.argmax(path >= log(10_000)))
    return float("inf")


def histogram(values: Array, edges: Array) -> list[int]:
    return np.bincount(np.searchsorted(edges, values), minlength=BINS).tolist()


# -- tables --------------------------------------------------------------------------------------------------------


def title(what: str, more: str) -> None:
    print(f"### {what}\n\n{more}\n")


def head(*names: str) -> None:
    row(*names)
    row(*["---"] * len(names))


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
