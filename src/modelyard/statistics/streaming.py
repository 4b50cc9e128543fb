"""Drift between windows: evidence that accumulates row by row, on counts that come in batches.

The conformal martingale asks whether the live rows and the reference rows could be one shuffled deck, so the
reference's own size is in it. Its evidence exceeds 1 / alpha ever with chance at most alpha while nothing drifts. A
detector restarts instead: while nothing drifts, it takes at least 1 / alpha rows on average until its first alarm.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidInput
from modelyard.statistics.counts import read
from modelyard.statistics.sequential import average, capital, tilts
from modelyard.statistics.special import Array

#: Cells in which p-values are counted, and how many p-values' weight the learned bet starts with.
CELLS, START = 20, 100.0
#: Past p-values that the learned bet goes by: with more, their counts are halved.
REMEMBERED = 20_000
#: Rows that are drawn from a batch, at most.
DRAWN = 20_000
_TILTS = np.log(tilts(np.ones(CELLS)))
WEIGHTS: tuple[float, ...] = tuple(capital(len(_TILTS) + 1).tolist())


class ConformalMartingale(msgspec.Struct, kw_only=True):
    """A conformal test martingale over binned ranks, with a finite reference (Vovk, Nouretdinov, Gammerman 2003).

    The bag is the reference and every live row so far. For each row p = (rows above + U rows tied) / all, with itself
    among the tied and U uniform, is exactly uniform and independent of those before if the deck is shuffled. Three
    quarters of the capital are bet on tilts of p, one on a smoothed histogram of the p-values before. A batch is put
    into a random order, and of a large one only some rows are drawn, which changes nothing if the deck is shuffled.
    Order and U come from ``seed`` and the number of the batch, so that a replay gives the same evidence.
    """

    reference: list[int]
    #: Not the same for two streams: on equal bins they would share their false alarms.
    seed: int
    batches: int = 0
    live: list[int] = []
    #: How often p fell into each cell of [0, 1].
    cells: list[int] = []
    #: ln wealth of the bets: tilts, and last the learned one.
    wealth: list[float] = []

    def add(self, counts: npt.ArrayLike) -> Array:
        """Count a batch, shape (bins,). Returns the ln of the gain of each row drawn for each bet, (rows, bets)."""
        batch = read(counts).astype("int64")
        if batch.shape != (len(self.reference),):
            raise InvalidInput(f"counts in {batch.size} bins: expected {len(self.reference)}, as in the reference")
        rng = np.random.default_rng([self.seed, self.batches])
        if batch.sum() > DRAWN:
            batch = rng.multivariate_hypergeometric(batch, DRAWN, method="marginals")
        gains = self._add_rows(rng.permutation(np.repeat(np.arange(len(batch)), batch)), rng)
        self.batches += 1
        self.wealth = (np.array(self.wealth or [0.0] * len(WEIGHTS)) + gains.sum(axis=0)).tolist()
        return gains

    @property
    def log_e(self) -> float:
        return float(average(self.wealth, WEIGHTS)) if self.wealth else 0.0

    def _add_rows(self, rows: Array, rng: np.random.Generator) -> Array:
        reference = np.array(self.reference)
        bag = reference + np.array(self.live or [0] * len(reference))
        p = _ranks(bag, rows, rng.random(len(rows)))
        cells = np.minimum((p * CELLS).astype("int64"), CELLS - 1)
        past = np.array(self.cells or [0] * CELLS)
        past = past // 2 if past.sum() > REMEMBERED else past
        seen = _seen_before(cells, CELLS) + past[cells]
        learned = np.log(CELLS * (seen + START / CELLS) / (past.sum() + np.arange(len(rows)) + START))
        self.live = (bag + np.bincount(rows, minlength=len(bag)) - reference).tolist()
        self.cells = (past + np.bincount(cells, minlength=CELLS)).tolist()
        return np.hstack([_TILTS.T[cells], learned[:, None]])


def _ranks(bag: Array, rows: Array, uniform: Array) -> Array:
    """The p-value of each row, in order; the rows before it are in the bag too. ``rows`` are bins, shape (rows,)."""
    places = np.arange(len(rows))
    tied = bag[rows] + _seen_before(rows, len(bag)) + 1
    above_bag = np.append(np.cumsum(bag[::-1])[::-1][1:], 0)
    above = above_bag[rows] + _larger_before(rows, len(bag))
    return np.asarray((above + uniform * tied) / (bag.sum() + places + 1))


def _seen_before(items: Array, kinds: int) -> Array:
    """How many of the items before each one are equal to it."""
    order = np.argsort(items, kind="stable")
    starts = np.searchsorted(items[order], np.arange(kinds))
    seen = np.empty(len(items), dtype="int64")
    seen[order] = np.arange(len(items)) - starts[items[order]]
    return seen


def _larger_before(items: Array, kinds: int) -> Array:
    """How many of the items before each one are larger than it."""
    larger = np.zeros(len(items), dtype="int64")
    for kind in range(kinds - 1):
        here = items == kind
        larger[here] = np.cumsum(items > kind)[here]
    return larger


class Detector(msgspec.Struct, kw_only=True):
    """An e-detector (Shin, Ramdas, Rinaldo 2023) on gains that have mean at most 1 before the change, given the past.

    Shiryaev and Roberts: M = (1 + M) times the gain, the sum over all moments at which the change may have begun.
    CUSUM: M = max(1, M) times the gain, the largest of them. With several bets there is one M each, of which the
    weighted mean counts. An alarm at M >= 1 / alpha comes, while nothing changes, after at least 1 / alpha rows on
    average. After an alarm, start anew.
    """

    kind: Literal["shiryaev-roberts", "cusum"] = "shiryaev-roberts"
    #: Shares of the bets in M, of sum 1.
    weights: tuple[float, ...] = (1.0,)
    rows: int = 0
    #: ln M of each bet, none before the first row.
    wealth: list[float] = []

    def add(self, log_gains: npt.ArrayLike) -> Array:
        """Take the gains in order, as logarithms, shape (rows,) or (rows, bets); return ln M after each, (rows,)."""
        gains = np.asarray(log_gains, dtype="float64")
        gains = gains[:, None] if gains.ndim == 1 else gains
        if gains.ndim != 2 or gains.shape[1] != len(self.weights):
            raise InvalidInput(f"gains of shape {gains.shape}: expected (rows, {len(self.weights)}), a column a bet")
        if not len(gains):
            return np.zeros(0)
        total = np.cumsum(gains, axis=0)
        # M after t rows is exp(S_t) times the sum, or the largest, of M_0 and all exp(-S_j), j < t
        begun = np.array(self.wealth or [-np.inf] * len(self.weights))
        starts = np.vstack([begun, np.zeros_like(begun), -total[:-1]])
        join = np.logaddexp if self.kind == "shiryaev-roberts" else np.maximum
        paths = total + join.accumulate(starts, axis=0)[1:]
        self.rows, self.wealth = self.rows + len(gains), paths[-1].tolist()
        return average(paths, self.weights)


def log_rate_gains(bad: npt.ArrayLike, before: float, after: float) -> Array:
    """Gains of a detector of a rate that rises from a known ``before`` to ``after``: ln likelihood ratios of rows."""
    if not 0 < before < after < 1:
        raise InvalidInput(f"rates {before} and {after}: expected two between 0 and 1, the first the smaller")
    events = np.asarray(bad, dtype=bool)
    return np.asarray(np.where(events, np.log(after / before), np.log1p(-after) - np.log1p(-before)))
