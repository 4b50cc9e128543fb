"""The canary guard's promises, tried: false rollbacks, time to catch, outages, sticky clients, promotion, scores.

Everything that decides is modelyard.statistics; this file only throws the dice. Tables are printed beside the limits
and the figures of the design. ``--rollouts 200`` is a quick look; the default takes some minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from math import log

import numpy as np

from modelyard.statistics import confidence, limits, sequential, special
from modelyard.statistics.special import Array

ALPHA = 0.01
THRESHOLD = log(1 / ALPHA)
Ramp = tuple[tuple[int, float], ...]
#: Requests, and the canary's share of them: a million in all, and the beginning of it.
RAMP: Ramp = ((50_000, 0.01), (50_000, 0.05), (100_000, 0.25), (800_000, 0.5))
SHORT: Ramp = ((5_000, 0.01), (10_000, 0.05), (15_000, 0.25), (20_000, 0.5))
#: Stable rate, canary rate, and what the design saw of median and 90th percentile, of its grid where it has both.
ROWS = (
    (0.001, 0.01, "445 / 970"),
    (0.005, 0.02, "435 / 1066"),
    (0.01, 0.02, "1601 / 3098"),
    (0.01, 0.03, "446 / 965"),
    (0.01, 0.05, "154 / 313"),
    (0.01, 0.10, "47 / 106"),
    (0.05, 0.10, "308 / 621"),
    (0.05, 0.06, ""),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=2000, help="five times as many for false rollbacks")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for part in (false_rollbacks, catches, disturbances, sticky_clients, promotions, scores):
        began = time.perf_counter()
        part(np.random.default_rng(options.seed), options.rollouts)
        print(f"\n({time.perf_counter() - began:.0f} s)\n", flush=True)


# -- the label game ------------------------------------------------------------------------------------------------


#: The canary's share, and for each bad event that happened at it, whether it was the canary's.
Stretch = tuple[float, Array]


def reaches(stretches: list[Stretch]) -> bool:
    """Whether e reaches 100 after some bad event."""
    before = np.zeros(len(sequential.RATIOS))
    for share, labels in stretches:
        up, down = sequential.log_gains(share, sequential.RATIOS)
        canary, events = np.cumsum(labels), np.arange(1, len(labels) + 1)
        paths = [w + canary * (u - d) + events * d for w, u, d in zip(before, up, down, strict=True)]
        # the mean is no larger than the largest
        if max(path.max(initial=-np.inf) for path in paths) >= THRESHOLD:
            wealth = sequential.average(np.stack(paths, axis=1), sequential.CAPITAL)
            if (wealth >= THRESHOLD).any():
                return True
        before = before + labels.sum() * up + (~labels).sum() * down
    return False


def roll(rng: np.random.Generator, p0: float, p1: float, ramp: Ramp, outage: bool = False) -> list[Stretch]:
    """The bad events of one rollout. An outage makes 1,000 requests bad at 30 %, in both arms."""
    stretches = []
    for requests, r in ramp:
        mean = r * p1 + (1 - r) * p0
        labels = rng.random(rng.binomial(requests, mean)) < r * p1 / mean
        if outage and r == 0.05:
            labels = np.append(labels, rng.random(rng.binomial(1000, 0.3)) < r)
        stretches.append((r, labels))
    return stretches


def false_rollbacks(rng: np.random.Generator, rollouts: int) -> None:
    title("False rollbacks, looked at after every bad event; nominal 1 %", "1, 5, 25, 50 % over 1e6 requests")
    head("baseline", "rollouts", "false", "rate", "99 % upper bound", "no higher than nominal")
    for p0 in (0.001, 0.01, 0.05):
        runs = 5 * rollouts
        false = sum(reaches(roll(rng, p0, p0, RAMP)) for _ in range(runs))
        bound = upper_bound(false, runs)
        row(f"{p0:.1%}", runs, false, f"{false / runs:.2%}", f"{bound:.2%}", "yes" if bound <= ALPHA else "no")


def catches(rng: np.random.Generator, rollouts: int) -> None:
    title("Canary requests until a bad canary is caught, share 10 %", "median / 90 %; wanted: 1.5x and 3x the limit")
    head("rates", "two-arm limit", "grid", "x limit", "mixture", "x limit", "design", "missed")
    for p0, p1, design in ROWS:
        limit = limits.two_arm_limit(p0, p1)
        cells, missed = [], []
        for play in (play_grid, play_mixture):
            # The mixture is only shown; where tens of thousands of events are needed, fewer rollouts do.
            runs = rollouts if play is play_grid else min(rollouts, 500)
            caught = catch_times(rng, p0, p1, 0.1, runs, play)
            median, late = np.quantile(caught, [0.5, 0.9])
            cells += [f"{median:.0f} / {late:.0f}", f"{median / limit:.2f} / {late / limit:.2f}"]
            missed.append(f"{np.isinf(caught).sum()} of {runs}")
        row(f"{p0:.1%} -> {p1:.0%}", f"{limit:.0f}", *cells, design, ", ".join(missed))
    caught = [reaches(roll(rng, 0.01, 0.05, SHORT)) for _ in range(min(rollouts, 1000))]
    print(f"\nRamp of {sum(n for n, _ in SHORT):,} requests, 1 % -> 5 %: {np.mean(caught):.1%} caught.")


def catch_times(
    rng: np.random.Generator, p0: float, p1: float, r: float, runs: int, play: Callable[..., Array]
) -> Array:
    """Canary requests at the bad event at which e reaches the threshold; infinite after 600,000 requests in all."""
    mean, block = r * p1 + (1 - r) * p0, 250
    requests, total = np.zeros(runs), np.zeros(runs)
    counts, caught = np.zeros((runs, 2)), np.full(runs, np.inf)
    alive = np.arange(runs)
    while alive.size and total[alive].min() < 600_000:
        labels = rng.random((alive.size, block)) < r * p1 / mean
        gaps = rng.geometric(mean, labels.shape)
        good = rng.binomial(gaps - 1, r * (1 - p1) / (1 - mean))
        at = requests[alive, None] + np.cumsum(good + labels, axis=1)
        canary = counts[alive, :1] + np.cumsum(labels, axis=1)
        stable = counts[alive, 1:] + np.cumsum(~labels, axis=1)
        over = play(canary, stable, r) >= THRESHOLD
        first, found = over.argmax(axis=1), over.any(axis=1)
        caught[alive[found]] = at[found, first[found]]
        requests[alive], total[alive] = at[:, -1], total[alive] + gaps.sum(axis=1)
        counts[alive] = np.stack([canary[:, -1], stable[:, -1]], axis=1)
        alive = alive[~found]
    return caught


def play_grid(canary: Array, stable: Array, r: float) -> Array:
    up, down = sequential.log_gains(r, sequential.RATIOS)
    return sequential.average(canary[..., None] * up + stable[..., None] * down, sequential.CAPITAL)


def play_mixture(canary: Array, stable: Array, r: float) -> Array:
    pairs, back = np.unique(np.stack([canary.ravel(), stable.ravel()], axis=1), axis=0, return_inverse=True)
    logs = sequential.log_beta_mixture(pairs[:, 0], pairs.sum(axis=1), r)
    return logs[back].reshape(canary.shape)


# -- what should not disturb it --------------------------------------------------------------------------------------


def disturbances(rng: np.random.Generator, rollouts: int) -> None:
    title("False rollbacks while something else happens; nominal 1 %", "ramp over 50,000 requests, baseline 1 %")
    head("what", "rollouts", "false", "rate", "design")
    quiet = sum(reaches(roll(rng, 0.01, 0.01, SHORT)) for _ in range(rollouts))
    row("nothing", rollouts, quiet, f"{quiet / rollouts:.2%}", "0.27 %")
    false = sum(reaches(roll(rng, 0.01, 0.01, SHORT, outage=True)) for _ in range(rollouts))
    row("1,000 requests at 30 % errors in both arms", rollouts, false, f"{false / rollouts:.2%}", "0.30 %")
    better = sum(reaches(roll(rng, 0.01, 0.008, SHORT)) for _ in range(rollouts))
    row("the canary is better (0.8 %)", rollouts, better, f"{better / rollouts:.2%}", "")


def sticky_clients(rng: np.random.Generator, rollouts: int) -> None:
    """2,000 clients, of whom 20 send ten or a hundred times as much and differ in how often they are bad."""
    title("Sticky clients at 10 %, baseline 2 %, 100,000 requests in 50 windows; nominal 1 %", "false rollbacks")
    head("heavy clients", "each request", "each client and window", "each client")
    for times in (10, 100):
        weight = np.ones(2000)
        weight[:20] = times
        false = np.zeros(3, int)
        runs = rollouts // 2
        for _ in range(runs):
            arms, rates = rng.random(2000) < 0.1, rng.beta(0.2, 9.8, 2000)  # mean 2 %; a few clients make most of it
            weights = weight * rates
            bad = rng.binomial(100_000, weights.sum() / weight.sum())
            clients = rng.choice(2000, bad, p=weights / weights.sum())
            windows = np.sort(rng.integers(0, 50, bad))
            once = [np.sort(np.unique(key, return_index=True)[1]) for key in (clients + 2000 * windows, clients)]
            for i, events in enumerate((np.arange(bad), *once)):
                false[i] += reaches([(0.1, arms[clients[events]])])
        row(f"20 of 2,000, {times} times the traffic", *(f"{f / runs:.2%}" for f in false))


# -- promotion -----------------------------------------------------------------------------------------------------


def promotions(rng: np.random.Generator, rollouts: int) -> None:
    title("Canary requests until 'less than twice as bad' is shown, share 50 %", "median / 90 %; and false promotions")
    head("baseline", "canary", "difference of rates", "promoted", "ratio game", "promoted")
    runs, times = rollouts // 4, np.unique(np.geomspace(100, 400_000, 120).astype(int))
    steps = np.diff(times, prepend=0)
    for p0 in (0.001, 0.01, 0.05):
        for p1, what in ((p0, "as good"), (2 * p0, "twice as bad")):
            k, j = (np.cumsum(rng.binomial(steps, p, (runs, len(steps))), axis=1) for p in (p0, p1))
            _, high = confidence.bound_rate_difference(k, times, j, times, ALPHA)
            game = sequential.LabelGame.below(2.0)
            up, down = sequential.log_gains(0.5, game.ratios, game.null)
            ratio = sequential.average(j[..., None] * up + k[..., None] * down, game.weights) >= THRESHOLD
            cells = []
            for shown in (high < p0, ratio):
                first = np.where(shown.any(axis=1), times[shown.argmax(axis=1)], np.inf)
                median, late = np.quantile(first, [0.5, 0.9], method="lower")
                cells += [f"{median:,.0f} / {late:,.0f}", f"{np.isfinite(first).mean():.1%}"]
            row(f"{p0:.1%}", what, *cells)


# -- scores --------------------------------------------------------------------------------------------------------


def scores(rng: np.random.Generator, rollouts: int) -> None:
    title("Scores in 20 bins, share 10 %, batches of 250 requests", "canary requests until caught")
    head("change", "limit", "median / 90 %", "x limit", "caught in 50,000 requests")
    edges = np.array([special.normal_quantile(1 - i / 20) for i in range(1, 20)])
    flat = np.full(20, 0.05)
    for change, shift, scale in (
        ("none", 0.0, 1.0), ("moved by 0.2 sd", 0.2, 1.0), ("moved by 0.5 sd", 0.5, 1.0), ("spread by 1.5", 0.0, 1.5)
    ):  # fmt: skip
        p1 = np.diff([0.0, *(1 - special.normal_sf((e - shift) / scale) for e in edges), 1.0])
        middle = 0.1 * p1 + 0.9 * flat
        told = float(0.1 * (p1 * np.log(p1 / middle)).sum() + 0.9 * (flat * np.log(flat / middle)).sum())
        runs, caught = rollouts // (4 if change == "none" else 10), []
        for _ in range(runs):
            game, seen = sequential.ScoreGame(shares=flat.tolist()), 0
            for canary in rng.binomial(250, 0.1, 200):
                game.add(rng.multinomial(canary, p1), rng.multinomial(250 - canary, flat), 0.1)
                seen += canary
                if game.log_e >= THRESHOLD:
                    caught.append(seen)
                    break
        share = f"{len(caught)} of {runs}"
        if change == "none":
            row(change, "", "", "", share)
        else:
            limit = 0.1 * THRESHOLD / told
            median, late = np.quantile([*caught, *[np.inf] * (runs - len(caught))], [0.5, 0.9], method="lower")
            times = f"{median:.0f} / {late:.0f}"
            row(change, f"{limit:.0f}", times, f"{median / limit:.2f} / {late / limit:.2f}", share)


# -- tables --------------------------------------------------------------------------------------------------------


def upper_bound(k: int, n: int, level: float = 0.01) -> float:
    """The rate at which k or fewer of n have a chance of ``level`` (Clopper and Pearson 1934)."""
    if k == n:
        return 1.0
    return special.find_root(lambda p: log(level) - float(special.log_beta_tails(k + 1, n - k, p)[1]), 0.0, 1.0)


def title(what: str, more: str) -> None:
    print(f"### {what}\n\n{more}\n")


def head(*names: str) -> None:
    row(*names)
    row(*["---"] * len(names))


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
