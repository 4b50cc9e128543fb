"""The self-test: known drifts, and nothing at all, done to a copy of a model's own traffic.

What is recorded is cut into blocks as long as a look, which are drawn with replacement, so that whatever makes rows of
one minute alike is in the test too. The reference is drawn anew each time, as large as the real one, from all of that
traffic: then nothing has drifted but what is injected. Where there is no traffic, rows are drawn from the reference.
Everything that decides is what decides in the loop.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelyard.errors import InvalidInput, NotFound
from modelyard.monitoring import drift
from modelyard.monitoring.drift import Track
from modelyard.monitoring.injections import Injection, inject, injections
from modelyard.monitoring.looks import Look, has_bins_of, is_enough
from modelyard.monitoring.report import reference_of
from modelyard.monitoring.rules import DriftRules, load
from modelyard.profile import COUNTERS, Counts, Profile
from modelyard.registry.records import stamp
from modelyard.registry.windows import Counted, Part, Window, bins_of, parts_of
from modelyard.statistics.discovery import Stream
from modelyard.statistics.special import log_gamma_tails

if TYPE_CHECKING:
    from modelyard.registry import Registry

#: Looks without a drift before one is injected.
BEFORE = 5


class Trial(msgspec.Struct, kw_only=True):
    """What came of one drift over several runs."""

    what: str
    to: str
    runs: int
    found: int
    missed: int
    #: As which kind it was told most often, and the medians of rows and looks until it was.
    named: str = ""
    rows: int | None = None
    looks: int | None = None


class Tried(msgspec.Struct, kw_only=True):
    """What the self-test found."""

    model: str
    version: str
    told: str
    trials: list[Trial]
    #: Looks in which nothing was injected, findings that were made all the same, and how many of them in a thousand
    #: looks are still likely (the upper end of a 95 % interval); then what the method promises for a month.
    null_looks: int
    false_findings: int
    false_per_thousand: float
    promised_a_month: float
    verdict: str


def run(
    registry: Registry, model: str, version: str | None = None, *, runs: int = 20, looks: int = 60, seed: int = 0,
    progress: Callable[..., None] = lambda *_told: None,
) -> Tried:  # fmt: skip
    """Try the detectors on a model's own traffic. Raises NotFound where it has no reference to be compared with."""
    rules = load(registry.database, model).drift
    chosen = version or _version(registry, model)
    notes: list[str] = []
    reference = reference_of(registry, model, chosen, notes)
    if reference is None:
        raise NotFound(notes[0] if notes else f"{model}:{chosen} has no reference profile")
    windows = registry.windows.find(model, chosen, span="live", most=5_000)
    bins = bins_of(reference)
    blocks = _blocks([w for w in windows if w.arm != "shadow" and has_bins_of(reference, bins, w.counted)], rules)
    told = f"{model}:{chosen}, {len(blocks)} blocks of its own traffic"
    if len(blocks) < 5:
        told = (
            f"{model}:{chosen} has {len(blocks)} blocks of recorded traffic, too few: its reference was taken instead"
        )
        blocks = []
    return trial(model, chosen, reference, blocks, rules, told, runs=runs, looks=looks, seed=seed, progress=progress)


def trial(
    model: str, version: str, reference: Profile, blocks: Sequence[Look], rules: DriftRules, told: str, *, runs: int,
    looks: int, seed: int, progress: Callable[..., None] = lambda *_told: None,
) -> Tried:  # fmt: skip
    """See ``run``; without a registry."""
    source = _Source(reference, blocks, rules, np.random.default_rng(seed))
    asked = injections(reference)
    if not asked:
        raise InvalidInput("no column of this model is profiled, so that nothing can be injected")
    steps = len(asked) + 1
    false = 0
    for each in range(runs):
        false += _nothing(source, rules, looks)
        progress((each + 1) / runs, steps)
    trials = []
    for i, injection in enumerate(asked):
        trials.append(_something(source, rules, injection, runs, looks))
        progress(i + 2, steps, injection.what)
    total = runs * looks
    high = 1_000 * _poisson_high(false) / total
    begun = Track(stream=Stream.lord(rules.q), looks=1, began="2000-01-01T00:00:00Z", ended=_later(source.seconds))
    promised = drift.false_alarms(begun, rules)
    verdict = (
        f"nothing injected: {false} finding{'' if false == 1 else 's'} in {total:,} looks of {source.rows:,} rows and "
        f"{source.seconds:,.0f} s (95 % certain: at most {high:.2g} in a thousand); by its levels the method makes at "
        f"most {promised:.2g} in a month"
    )
    return Tried(
        model=model, version=version, told=told, trials=trials, null_looks=total, false_findings=false,
        false_per_thousand=high, promised_a_month=promised, verdict=verdict,
    )  # fmt: skip


class _Source:
    """Draws references and looks."""

    def __init__(self, reference: Profile, blocks: Sequence[Look], rules: DriftRules, rng: np.random.Generator) -> None:
        self.reference = reference
        self.rng = rng
        self._blocks = blocks
        self.rows = int(np.median([b.counted.rows for b in blocks])) if blocks else rules.rows
        self.seconds = float(np.median([b.seconds for b in blocks])) if blocks else rules.seconds
        pooled = blocks[0].counted if blocks else None
        for block in blocks[1:]:
            pooled = pooled.plus(block.counted) if pooled is not None else None
        sides = [parts_of(reference.inputs), parts_of(reference.outputs)]
        #: What all rows look like: the traffic, or the reference.
        self._whole = [pooled.inputs, pooled.outputs] if pooled is not None else sides

    def draw_reference(self) -> Profile:
        """A reference as large as the real one, of rows like all of the traffic."""
        sides = []
        for frozen, whole in zip((self.reference.inputs, self.reference.outputs), self._whole, strict=True):
            sides.append([_drawn(f, part, f.total, self.rng) for f, part in zip(frozen, whole, strict=True)])
        return Profile(rows=self.reference.rows, inputs=sides[0], outputs=sides[1])

    def draw_look(self) -> Look:
        if self._blocks:
            return self._blocks[int(self.rng.integers(len(self._blocks)))]
        frozen = (self.reference.inputs, self.reference.outputs)
        sides = [
            parts_of(_drawn(f, part, self.rows, self.rng) for f, part in zip(side, whole, strict=True))
            for side, whole in zip(frozen, self._whole, strict=True)
        ]
        counted = Counted(requests=self.rows, rows=self.rows, inputs=sides[0], outputs=sides[1])
        return Look(since="2000-01-01T00:00:00Z", until="2000-01-01T00:01:00Z", first=0, last=0, counted=counted)


def _drawn(frozen: Counts, like: Part, rows: int, rng: np.random.Generator) -> Counts:
    weights = np.array([*like.counts, *like.counters], dtype="float64")
    if not weights.sum():
        return frozen.empty()
    found = rng.multinomial(rows, weights / weights.sum()).tolist()
    counters = dict(zip(COUNTERS, found[len(like.counts) :], strict=True))
    return msgspec.structs.replace(frozen, counts=found[: len(like.counts)], **counters)


def _nothing(source: _Source, rules: DriftRules, looks: int) -> int:
    """How many findings are made of looks in which nothing was injected."""
    reference, track = source.draw_reference(), Track(stream=Stream.lord(rules.q))
    found = 0
    for _ in range(looks):
        events = drift.judge(track, source.draw_look(), reference, rules)
        found += sum(event.what == "open" for event in events)
    return found


def _something(source: _Source, rules: DriftRules, injection: Injection, runs: int, looks: int) -> Trial:
    kinds: Counter[str] = Counter()
    rows, waits = [], []
    for _ in range(runs):
        reference, track = source.draw_reference(), Track(stream=Stream.lord(rules.q))
        for _ in range(BEFORE):
            drift.judge(track, source.draw_look(), reference, rules)
        seen = 0
        for wait in range(1, looks + 1):
            look = source.draw_look()
            seen += look.counted.rows
            changed = inject(source.reference, look.counted, injection, source.rng)
            events = drift.judge(track, msgspec.structs.replace(look, counted=changed), reference, rules)
            named = [e.kind for e in events if e.what == "open" and e.subject == injection.part.name]
            if named:
                kinds[named[0]] += 1
                rows.append(seen)
                waits.append(wait)
                break
    found = len(waits)
    return Trial(
        what=injection.what, to=injection.part.name, runs=runs, found=found, missed=runs - found,
        named=kinds.most_common(1)[0][0] if kinds else "", rows=int(np.median(rows)) if rows else None,
        looks=int(np.median(waits)) if waits else None,
    )  # fmt: skip


def _blocks(windows: Sequence[Window], rules: DriftRules) -> list[Look]:
    """Windows that followed one another, pooled as the loop pools them."""
    blocks: list[Look] = []
    pools: dict[str, Look] = {}
    for window in windows:
        look = Look.of(window)
        pool = pools[window.arm].plus(look) if window.arm in pools else look
        if is_enough(pool, rules):
            blocks.append(pool)
            pools.pop(window.arm, None)
        else:
            pools[window.arm] = pool
    return blocks


def _version(registry: Registry, model: str) -> str:
    """The newest version with traffic, else the one in production."""
    known = [version for name, version in registry.windows.models() if name == model and version.isdecimal()]
    return max(known, key=int) if known else str(registry.resolve(model).number)


def _later(seconds: float) -> str:
    return stamp(dt.datetime(2000, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds))


def _poisson_high(count: int) -> float:
    """The upper end of the exact one-sided 95 % interval of a Poisson mean (Garwood 1936)."""
    low, high = float(count), count + 10.0 + 5 * (count + 1) ** 0.5
    for _ in range(60):
        middle = (low + high) / 2
        below = float(np.exp(log_gamma_tails(count + 1.0, middle)[1]))  # P(X <= count)
        low, high = (middle, high) if below > 0.05 else (low, middle)
    return float(high)
