"""From looks to episodes: what is real and matters, over all features and over time, told once.

A look's differences that matter are tested together (Benjamini and Hochberg) at a level that LORD++ gives to this
look, so that the rate of false discoveries holds over features and over looks. While nothing ever changes, the chance
that any look of an arm is ever taken for a discovery is at most q / 2, whatever the looks have in common: a level is
what is spent, and that much is there to begin with.

An episode begins when ``enter`` of the last ``of`` looks show the same, and is over when the looks since it was seen
last, taken together, show an effect whose upper bound is below half the floor. Where the reference is too small to
show that, as many looks that show nothing at all are taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from modelyard.monitoring import integrity
from modelyard.monitoring.compare import Question, questions
from modelyard.monitoring.looks import Look, seconds_between
from modelyard.monitoring.rules import DriftRules
from modelyard.profile import Counts, Profile
from modelyard.registry.findings import Evidence
from modelyard.registry.windows import profile_of
from modelyard.statistics.discovery import Stream, combine, discover
from modelyard.statistics.effects import Effect

#: Kinds that name how a part is distributed: at most one of them is open for a part.
SHAPES = ("drift", "prediction", "score", "stuck", "alive", "unit")

MONTH_SECONDS = 30 * 86_400.0


class Quiet(msgspec.Struct, kw_only=True):
    """What came of a part since its episode was seen last."""

    cells: list[int] = []
    looks: int = 0


class Track(msgspec.Struct, kw_only=True):
    """What is carried from one look of an arm to the next."""

    pool: Look | None = None
    stream: Stream = msgspec.field(default_factory=lambda: Stream(start=0.025))
    looks: int = 0
    #: When the first look began and the last one ended.
    began: str = ""
    ended: str = ""
    #: Of the last look the part that differs most from the reference, and its effect, not corrected for chance.
    worst: tuple[str, float] = ("", 0.0)
    #: Looks, by number, that showed something of which no episode has begun yet: by kind and part, those of ``SHAPES``
    #: as one, since what a difference is called may change from look to look.
    votes: dict[str, list[int]] = {}
    #: Episodes that are open, by kind and part.
    open: dict[str, Quiet] = {}


class Event(NamedTuple):
    """What a look changed: an episode was opened, seen again or closed."""

    what: str
    kind: str
    subject: str
    evidence: Evidence | None = None
    #: Both sides of the part, where it was opened, and what it was named.
    part: Counts | None = None
    seen: Counts | None = None
    named: integrity.Named | None = None
    why: str = ""


class _Suspect(NamedTuple):
    question: Question
    effect: Effect
    p: float
    named: integrity.Named | None

    @property
    def kind(self) -> str:
        return self.named.kind if self.named else self.question.kind


def judge(track: Track, look: Look, reference: Profile, rules: DriftRules, usual: Profile | None = None) -> list[Event]:
    """Take a look into account, in place, and say what it changed.

    ``usual``: what these hours of the day looked like in the version's first week. With it, a difference must show
    beside both.
    """
    live = profile_of(reference, look.counted)
    track.looks += 1
    track.began, track.ended = track.began or look.since, max(track.ended, look.until)
    parts = _parts(reference)
    seen = _parts(live)
    asked = [*questions(reference, live, rules), *_of_outputs(reference, look, rules)]
    beside = questions(usual, live, rules) if usual is not None else []
    values = [question.value() for question in asked]
    track.worst = _worst(asked, values)
    suspects = _suspects(asked, values, beside, parts, seen, look)
    events = [*_follow(track, asked, suspects, look, rules)]
    fresh = [suspect for suspect in suspects if not _holding(track, suspect.kind, suspect.question.name)]
    for suspect in _discovered(track, fresh, len(asked)):
        name = suspect.question.name
        key = f"{'shape' if suspect.kind in SHAPES else suspect.kind} {name}"
        since = track.looks - rules.of
        votes = [number for number in [*track.votes.pop(key, []), track.looks] if number > since]
        if len(votes) < rules.enter:
            track.votes[key] = votes
        else:
            track.open[f"{suspect.kind} {name}"] = Quiet()
            evidence = _evidence(suspect.question, suspect.effect, look, suspect.p)
            events.append(
                Event("open", suspect.kind, name, evidence, parts.get(name), seen.get(name), suspect.named)
            )  # fmt: skip
    track.votes = {key: numbers for key, numbers in track.votes.items() if numbers[-1] > track.looks - rules.of}
    return events


def false_alarms(track: Track, rules: DriftRules) -> float:
    """How many episodes a month are to be expected at most where nothing changes, at the present pace of looks.

    An episode takes ``enter`` looks, and a look is a false discovery with the chance of its level, at most: the sum of
    the levels to come.
    """
    seconds = max(seconds_between(track.began, track.ended) / max(track.looks, 1), 1e-3)
    ahead = MONTH_SECONDS / seconds
    stream = track.stream
    expected = stream.start * (_spent(stream.spent + ahead) - _spent(stream.spent))
    for i, time in enumerate(stream.times):
        capital = stream.alpha - (0.0 if i else stream.start)
        expected += capital * (_spent(stream.spent - time + ahead) - _spent(stream.spent - time))
    return expected / rules.enter


def _spent(tests: float) -> float:
    """The share of a capital that LORD++ has spent after so many tests; beyond a thousand by the integral of how its
    levels fall, ln(j) / (j exp(sqrt(ln j))).
    """
    known = _spending()
    if tests < len(known):
        return known[int(tests)]
    return 1.0 - (1.0 - known[-1]) * _tail(tests) / _tail(len(known) - 1)


@lru_cache
def _spending() -> list[float]:
    stream, spent = Stream(alpha=1.0, start=1.0), [0.0]
    for _ in range(1_000):
        spent.append(spent[-1] + stream.level)
        stream.test(1.0)
    return spent


def _tail(tests: float) -> float:
    u = math.sqrt(math.log(tests))
    return math.exp(-u) * (u**3 + 3 * u**2 + 6 * u + 6)


def _parts(profile: Profile) -> dict[str, Counts]:
    return {part.name: part for part in (*profile.inputs, *profile.outputs)}


def _of_outputs(reference: Profile, look: Look, rules: DriftRules) -> list[Question]:
    """Whether predictions are numbers: in the reference, which was computed when the bundle was packed, all are."""
    if not reference.outputs:
        return []
    invalid = look.counted.invalid
    return [
        Question("invalid", "outputs", "share", rules.new, [0, reference.rows], [invalid, look.counted.rows - invalid])
    ]


def _worst(asked: Sequence[Question], values: Sequence[float]) -> tuple[str, float]:
    shapes = [(v, q.name) for q, v in zip(asked, values, strict=True) if q.measure != "share" and v == v]
    value, name = max(shapes, default=(0.0, ""))
    return name, value


def _suspects(
    asked: Sequence[Question], values: Sequence[float], beside: Sequence[Question], parts: Mapping[str, Counts],
    seen: Mapping[str, Counts], look: Look,
) -> list[_Suspect]:  # fmt: skip
    """The differences that matter, by what they are."""
    found: list[_Suspect] = []
    usual = {(question.kind, question.name): question for question in beside}
    for question, value in zip(asked, values, strict=True):
        effect = question.matters(value)
        if effect is None:
            continue
        other = usual.get((question.kind, question.name))
        if other is not None and other.rows[0] and other.matters() is None:
            continue
        p = max(question.p(), other.p() if other is not None and other.rows[0] else 0.0)
        named = None
        if question.kind in SHAPES and question.measure != "share":
            name = question.name
            named = integrity.name(parts[name], seen[name], look.counted.outside.get(name))
        found.append(_Suspect(question, effect, p, named))
    new = {suspect.question.name for suspect in found if suspect.kind == "category"}
    return [suspect for suspect in found if suspect.kind not in SHAPES or suspect.question.name not in new]


def _holding(track: Track, kind: str, name: str) -> str | None:
    """The open episode that a difference of this kind belongs to."""
    family = SHAPES if kind in SHAPES else (kind,)
    return next((f"{each} {name}" for each in family if f"{each} {name}" in track.open), None)


def _discovered(track: Track, fresh: Sequence[_Suspect], tests: int) -> list[_Suspect]:
    """Those that are real. What does not matter takes part in the tests with p = 1, as nothing is said of it."""
    p = np.ones(max(tests, 1))
    p[: len(fresh)] = [suspect.p for suspect in fresh]
    level = track.stream.level
    track.stream.test(combine(p))
    if not fresh:
        return []
    return [suspect for suspect, is_real in zip(fresh, discover(p, level), strict=False) if is_real]


def _follow(
    track: Track, asked: Sequence[Question], suspects: Sequence[_Suspect], look: Look, rules: DriftRules
) -> list[Event]:
    """What became of the episodes that are open."""
    events: list[Event] = []
    seen = {_holding(track, suspect.kind, suspect.question.name): suspect for suspect in suspects}
    for key, quiet in list(track.open.items()):
        kind, _, name = key.partition(" ")
        if key in seen:
            track.open[key] = Quiet()
            evidence = _evidence(seen[key].question, seen[key].effect, look, seen[key].p)
            events.append(Event("seen", kind, name, evidence))
            continue
        question = _question(asked, kind, name)
        if question is None:
            del track.open[key]
            events.append(Event("close", kind, name, why="it is not asked for any more"))
            continue
        if not question.rows[1]:
            continue
        quiet.cells = [a + b for a, b in zip(quiet.cells or [0] * len(question.live), question.live, strict=True)]
        quiet.looks += 1
        pooled = question._replace(live=quiet.cells)
        effect = pooled.effect()
        why = _is_over(pooled, effect, quiet.looks, rules)
        evidence = _evidence(pooled, effect, look)
        if why:
            del track.open[key]
            events.append(Event("close", kind, name, evidence, why=why))
        else:
            events.append(Event("seen", kind, name, evidence))
    return events


def _question(asked: Sequence[Question], kind: str, name: str) -> Question | None:
    """The question that an open episode answers."""
    for question in asked:
        if question.name == name and (question.kind == kind or (kind in SHAPES and question.kind in SHAPES)):
            return question
    return None


def _is_over(question: Question, effect: Effect, looks: int, rules: DriftRules) -> str:
    """Why an episode is over, "" where it is not."""
    if effect.high < question.floor / 2:
        return f"the effect is at most {effect.high:.3g}, below half of what matters"
    ours = question.reference
    best = question._replace(live=[count * 10_000 for count in ours]).effect().high
    if best > question.floor / 4 and effect.low <= 0 and looks >= rules.of:
        return f"{looks} looks in a row showed nothing; the reference, {sum(ours):,} rows, is too small to say more"
    return ""


def _evidence(question: Question, effect: Effect, look: Look, p: float | None = None) -> Evidence:
    n, m = question.rows
    more: dict[str, Any] = {}
    if question.kind == "category":
        more["texts"] = dict(sorted(look.counted.unseen.get(question.name, {}).items(), key=lambda each: -each[1])[:10])
    return Evidence(
        measure=question.measure, value=_round(effect.value), low=_round(effect.low), high=_round(effect.high),
        floor=question.floor, reference=n, live=m, p=p, since=look.since, until=look.until,
        windows=(look.first, look.last), more=more,
    )  # fmt: skip


def _round(value: float) -> float:
    return float(f"{value:.6g}")
