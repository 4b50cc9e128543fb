"""Making a plan: what a rollout is to do, checked against the registry, with what it is judged by frozen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard.errors import Conflict, InvalidInput, NotFound, Refused
from modelyard.registry.plans import GUARDS, Plan, Rollout, Stage
from modelyard.registry.records import (
    LARGEST_NUMBER,
    PRODUCTION,
    Version,
    check_alias,
    check_name,
    check_number,
    check_text,
    stamp,
)
from modelyard.registry.routes import Pin, check, check_columns, flag
from modelyard.rollouts import freezing
from modelyard.truth import Truth

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.registry import Registry
    from modelyard.schema import Field, Signature

#: How much more may be bad, by guard, where nothing else is said: half a point of the requests may fail, two points of
#: the labels may be wrong, five points of the requests may be slower or lie in another bin, a tenth of the answers may
#: differ.
TOLERANCES: dict[str, float] = {
    "errors": 0.005, "invalid": 0.005, "latency": 0.05, "scores": 0.05, "labels": 0.02, "disagreement": 0.1,
}  # fmt: skip

#: How long labels are waited for after a promotion, in seconds.
WATCH_SECONDS = 86_400.0

#: The stable version's windows that tell what is slow and how its scores are distributed: of so many seconds.
_RECENT_SECONDS = 86_400.0


def draft(
    registry: Registry,
    model: str,
    to: int,
    *,
    alias: str = PRODUCTION,
    canary: float | None = None,
    ramp: Sequence[float] = (),
    shadow: float | None = None,
    ab: float | None = None,
    bandit: bool = False,
    guards: Iterable[str] | None = None,
    by: Literal["evidence", "schedule"] = "evidence",
    alpha: float = 0.01,
    tolerances: Mapping[str, float] | None = None,
    stage_seconds: float = 60.0,
    watch_seconds: float | None = None,
    key: str = "request",
    pins: Sequence[Pin] = (),
    outcome: str = "",
    floor: float = 0.05,
    hold: bool = False,
    force_signature: bool = False,
    why: str = "",
) -> tuple[Rollout, list[str]]:
    """A rollout of version ``to`` that could be started, and notes on what was decided for it.

    Raises NotFound for a version that is not there, Conflict where there is nothing to compare with, Refused for a
    version with another signature, InvalidInput for what does not fit together.
    """
    check_name(model)
    check_alias(alias)
    check_number(to)
    if not 0 < to <= LARGEST_NUMBER:
        raise InvalidInput.at("version", "a whole number from 1", str(to))
    check_text("why", why)
    candidate = registry.resolve(f"{model}:{to}")
    stable = _stable(registry, candidate, alias)
    stages = _stages(canary, ramp, shadow, ab, bandit)
    judge: Literal["harm", "outcome", "bandit"] = "bandit" if bandit else "harm" if ab is None else "outcome"
    bundles = registry.fetch(stable), registry.fetch(candidate)
    if not force_signature:
        _check_signatures(stable, candidate, bundles[0].signature, bundles[1].signature)
    since = stamp(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=_RECENT_SECONDS))
    windows = registry.windows.find(model, str(stable.number), since=since)
    outcome = _outcome(outcome, bundles)
    frozen = freezing.freeze(bundles[0], windows, outcome)
    chosen, notes = _guards(guards, stages, judge, frozen)
    if not windows:
        notes.append(
            f"nothing of {stable.ref} was recorded in the last day: a guard sees what servers record, "
            "as `modelyard serve` does without --no-record"
        )
    plan = Plan(
        stages=stages,
        guards=chosen,
        judge=judge,
        by=by,
        goal="pass" if hold or stages[-1].mode == "shadow" else "promote",
        alpha=_fraction("alpha", alpha, 0.5),
        tolerances=_tolerances(tolerances, chosen),
        stage_seconds=_seconds("the time of a stage", stage_seconds),
        watch_seconds=_seconds("the time to watch", _watch(watch_seconds, chosen)),
        key=key,
        pins=tuple(pins),
        thresholds=frozen.thresholds if "latency" in chosen else (),
        scores=frozen.scores if "scores" in chosen else None,
        miss=frozen.miss if "labels" in chosen or "disagreement" in chosen else None,
        outcome=outcome,
        floor=_fraction("the floor of a bandit", floor, 0.5),
    )
    made = Rollout(
        model=model, alias=alias, stable=stable.number, candidate=candidate.number, plan=plan,
        share=stages[0].share, why=why,
    )  # fmt: skip
    check_columns(key, plan.pins, bundles[0].signature)
    if judge != "harm" and not plan.is_sticky:
        hint = "name what tells who it is, like --key header:x-user-id"
        raise InvalidInput.at(
            "key", "a header or a column, so that each client stays on one side", "request", hint=hint
        )
    for stage in range(len(stages)):
        check(made.route(stage))
    return made, notes


def differences(before: Signature, after: Signature) -> list[str]:
    """What callers of one signature would notice of another: fields that came, went or changed."""
    told = []
    for side, ours, theirs in (("input", before.inputs, after.inputs), ("output", before.outputs, after.outputs)):
        old, new = {field.name: field for field in ours}, {field.name: field for field in theirs}
        told += [f"{side} {name} is gone" for name in old if name not in new]
        told += [f"{side} {name} is new: {_shape(new[name])}" for name in new if name not in old]
        told += [
            f"{side} {name}: {_shape(old[name])} became {_shape(new[name])}"
            for name in old
            if name in new and _shape(old[name]) != _shape(new[name])
        ]
    return told


def _stable(registry: Registry, candidate: Version, alias: str) -> Version:
    """The version that the alias names, which the candidate is compared with."""
    model, number = candidate.model, candidate.number
    pointed = registry.aliases(model).get(alias)
    if pointed is None:
        hint = f"modelyard promote {model} {number}{flag(alias)}"
        raise Conflict(f"{model}@{alias} is not set: there is nothing to compare version {number} with", hint=hint)
    if pointed == number:
        raise Conflict(f"{model}@{alias} is version {number} already", hint=f"modelyard versions {model}")
    return registry.resolve(f"{model}:{pointed}")


def _stages(
    canary: float | None, ramp: Sequence[float], shadow: float | None, ab: float | None, bandit: bool
) -> tuple[Stage, ...]:
    given = [canary is not None, bool(ramp), ab is not None]
    if sum(given) > 1:
        raise InvalidInput.at("shares", "one of a canary's share, a ramp, and an experiment's share", "several")
    if canary is None and not ramp and ab is None and shadow is None:
        canary = 0.1
    shares = list(ramp) or [share for share in (canary, ab) if share is not None]
    what = "ramp" if ramp else "ab" if ab is not None else "canary"
    if shares and shares[-1] == 1.0:
        shares.pop()  # what a ramp ends with, always
    if bandit and (len(shares) != 1 or shadow is not None):
        raise InvalidInput.at("shares", "one share for a bandit to begin with", "a ramp or a shadow")
    if shares != sorted(set(shares)):
        told = ", ".join(f"{share * 100:.4g}%" for share in shares)
        raise InvalidInput.at("ramp", "shares that grow, like 1%, 5%, 25%, 50%, 100%", told)
    made = [Stage(_fraction(what, share, 1.0)) for share in shares]
    if shadow is not None:
        made.insert(0, Stage(1.0 if shadow == 1.0 else _fraction("shadow", shadow, 1.0), "shadow"))
    if not made:
        raise InvalidInput.at(what, "a share below 100%", "100%", hint="modelyard promote hands over everything")
    return tuple(made)


def _check_signatures(stable: Version, candidate: Version, before: Signature, after: Signature) -> None:
    if found := differences(before, after):
        raise Refused(
            f"{candidate.ref} has another signature than {stable.ref}: {'; '.join(found)}",
            hint="callers may break; --force-signature goes on all the same",
            differences=found,
        )


def _outcome(given: str, bundles: Sequence[Bundle]) -> str:
    """The label that is a success, as labels are kept: ``1`` is kept as ``1.0`` where labels are numbers."""
    if not given:
        return ""
    truth = Truth.of(bundles[0].manifest.task, [bundle.signature for bundle in bundles])
    try:
        return truth.read(given)
    except InvalidInput:
        raise InvalidInput.at("outcome", truth.describe(), repr(given)) from None


def _guards(
    wanted: Iterable[str] | None, stages: Sequence[Stage], judge: str, frozen: freezing.Frozen
) -> tuple[tuple[str, ...], list[str]]:
    """The guards of a plan: those wanted, all of which must be possible, or all that are."""
    lacking = dict(frozen.lacking)
    if all(stage.mode != "shadow" for stage in stages):
        lacking["disagreement"] = "answers are compared with those of a shadow, and this rollout has none"
    if all(stage.mode == "shadow" for stage in stages):
        lacking["latency"] = "copies wait until there is room, so that their time says nothing about the version"
    notes: list[str] = []
    if wanted is None:
        chosen = [guard for guard in GUARDS if guard not in lacking]
        notes = [f"not guarded: {guard}: {why}" for guard, why in lacking.items() if guard != "disagreement"]
    else:
        chosen = list(dict.fromkeys(wanted))
        for guard in chosen:
            if guard not in GUARDS:
                raise NotFound.among("guard", guard, GUARDS)
            if guard in lacking:
                hint = "where no guards are named, all are on that can be"
                raise InvalidInput.at(f"guard {guard}", "what it needs", lacking[guard], hint=hint)
    if judge != "harm" and "labels" not in chosen:
        raise InvalidInput.at("guards", "labels, which an experiment is judged by", ", ".join(chosen) or "none")
    if not chosen:
        raise InvalidInput.at("guards", f"at least one of {', '.join(GUARDS)}", "none")
    return tuple(chosen), notes


def _tolerances(given: Mapping[str, float] | None, guards: Sequence[str]) -> dict[str, float]:
    for guard, tolerance in (given or {}).items():
        if guard not in guards:
            raise NotFound.among("guard of this rollout", guard, guards)
        _fraction(f"tolerance of {guard}", tolerance, 1.0)
    return {guard: (given or {}).get(guard, TOLERANCES[guard]) for guard in guards}


def _watch(seconds: float | None, guards: Sequence[str]) -> float:
    if seconds is None:
        return WATCH_SECONDS if "labels" in guards else 0.0
    return seconds


def _fraction(what: str, value: Any, below: float) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < below:
        raise InvalidInput.at(what, f"a fraction above 0 and below {below:g}", str(value))
    return float(value)


def _seconds(what: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise InvalidInput.at(what, "seconds, from 0", str(value))
    return float(value)


def _shape(field: Field) -> str:
    return msgspec.structs.replace(field, categories=None).describe()
