"""rollout: let a version take over by and by, watched by a guard that takes it back."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import screen
from modelyard.cli.exits import NUMBERS
from modelyard.cli.frame import Answer, Family, Usage, command, wants_json
from modelyard.cli.keys import Words
from modelyard.cli.quantities import Share, Shares, Span, pairs_of, pins_of, read_share
from modelyard.cli.references import MODEL, why_option

if TYPE_CHECKING:
    from modelyard.api import Standing
    from modelyard.registry.decisions import Decision

EXAMPLES = """
modelyard rollout start churn --to 5 --canary 10%
modelyard rollout start churn --to 5 --ramp 1,5,25,50,100 --guard errors,latency,scores,labels
modelyard rollout start churn --to 5 --shadow 20%
modelyard rollout watch churn
modelyard rollout abort churn --why "complaints"
modelyard rollback churn                       # takes the candidate back, too
"""

_alias = click.option("--alias", default="production", help="The alias that is to name the version.")


@click.group("rollout", cls=Family, examples=EXAMPLES)
def rollout() -> None:
    """Let a version take over by and by, and back if it does harm.

    The guard compares what happens in both versions at the same time. It takes the new one back as soon as it is shown
    to do harm, lets it go on only when the harm is shown to be tolerable, and says that there is not enough evidence
    otherwise. `modelyard watch` decides, which every server runs beside itself.
    """


@command(
    "start",
    examples="""
    modelyard rollout start churn --to 5 --canary 10% --guard errors,latency,scores,labels
    modelyard rollout start churn --to 5 --ramp 1,5,25,50,100 --stage 10m --key header:x-user-id
    modelyard rollout start churn --to 5 --shadow --ramp 5,50,100     # copies first, then answers
    modelyard rollout start churn --to 5 --ab 50% --outcome yes --key header:x-user-id
    modelyard rollout start churn --to 5 --canary 10% --alpha 0.1% --tolerate errors=0.2%
    """,
)
@click.argument("model", type=MODEL)
@click.option(
    "--to", type=click.IntRange(min=1), required=True, metavar="VERSION", help="The version that is to take over."
)
@click.option("--canary", type=Share(), show_default=False, help="Its share until it takes over.  [10%]")
@click.option("--ramp", type=Shares(), metavar="PERCENTS", help="Shares one after the other, like 1,5,25,50,100.")
@click.option(
    "--shadow", type=Share(or_all=True), is_flag=False, flag_value="100%", help="First copies of this share.  [100%]"
)
@click.option("--ab", type=Share(), help="An experiment: this share, until its outcomes are shown to be better.")
@click.option("--bandit", is_flag=True, help="Let the shares follow the outcomes.")
@click.option("--outcome", default="", show_default=False, help="The label that is a success.  [a right prediction]")
@click.option("--guard", "guards", type=Words(), metavar="WORDS", help="What is watched.  [all that can be]")
@click.option("--alpha", type=Share(0.5), default="1%", help="Chance of a false rollback, over all guards and times.")
@click.option("--tolerate", multiple=True, metavar="GUARD=PERCENT", help="How much more may be bad; may be repeated.")
@click.option("--stage", type=Span(), default="60s", help="The least time of a stage, with traffic.")
@click.option(
    "--by", type=click.Choice(["evidence", "schedule"]), default="evidence", help="What begins the next stage."
)
@click.option("--watch", type=Span(), show_default=False, help="How long labels may roll it back later.  [24h]")
@click.option("--key", default="request", help="What sticks to a version: request, header:NAME or column:NAME.")
@click.option(
    "--pin", "pins", multiple=True, metavar="KEY:VALUE=ARM", help="Requests that always go to stable or canary."
)
@click.option("--hold", is_flag=True, help="End with a verdict instead of taking over.")
@click.option("--force-signature", is_flag=True, help="Even if callers may break.")
@_alias
@why_option
def start(model: str, to: int, pins: tuple[str, ...], tolerate: tuple[str, ...], **options: Any) -> Answer:
    """Begin a rollout.

    Guards: errors, invalid, latency, scores, labels, disagreement (with a shadow). What is slow and how scores are
    distributed is taken from the last day of the version that is live.
    """
    from modelyard import api

    tolerances = {name: read_share(text, f"--tolerate {name}") for name, text in pairs_of(tolerate, "--tolerate")}
    renamed = {"stage": "stage_seconds", "watch": "watch_seconds"}
    given = {renamed.get(name, name): value for name, value in options.items() if value is not None}
    registry = api.open_registry()
    made, notes = api.start_rollout(
        model, to, tolerances=tolerances or None, pins=pins_of(pins), registry=registry, **given
    )
    standing = api.find_rollout(model, alias=made.alias, registry=registry)

    def show() -> None:
        from modelyard.cli.rollout_screen import headline

        screen.say(headline(standing))
        for note in notes:
            screen.note(note)
        if not standing.decider:
            screen.note("nobody decides yet: a server does, or `modelyard watch`")
        screen.note(f"hint: modelyard rollout watch {model}")

    return Answer(_told(standing), show)


@command("status", examples="modelyard rollout status churn\nmodelyard rollout status churn --json")
@click.argument("model", type=MODEL)
@_alias
def status(model: str, alias: str) -> Answer:
    """Show how a rollout stands, or how the last one ended."""
    from modelyard import api
    from modelyard.cli.rollout_screen import show

    standing = api.find_rollout(model, alias=alias)
    return Answer(_told(standing), lambda: show(standing))


@command("watch", examples="modelyard rollout watch churn\nmodelyard rollout watch churn --json     # once")
@click.argument("model", type=MODEL)
@_alias
@click.option("--every", type=Span(), default="0.5s", help="How often to look.")
def watch(model: str, alias: str, every: float) -> Answer:
    """Follow a rollout until it ends: evidence, exposure, verdict.

    Ctrl-C stops watching, not the rollout. With --json it tells once how it stands.
    """
    from modelyard import api
    from modelyard.cli.rollout_screen import follow

    registry = api.open_registry()
    standing = api.find_rollout(model, alias=alias, registry=registry)
    if wants_json():
        return Answer(_told(standing), lambda: None)

    def show() -> None:
        try:
            follow(standing, _Looking(partial(api.find_rollout, model, alias=alias, registry=registry), every))
        except KeyboardInterrupt:
            screen.note("\nthe rollout goes on without anybody watching here")
            raise click.exceptions.Exit(NUMBERS["interrupted"]) from None

    return Answer(None, show)


class _Looking:
    """Waits, and finds a rollout again. While the registry is away, it stands as it stood."""

    def __init__(self, find: Callable[[], Standing], every: float) -> None:
        self._find = find
        self._every = every
        self._is_away = False

    def __call__(self, before: Standing) -> Standing:
        from modelyard.errors import RemoteFailed

        time.sleep(self._every)
        try:
            found = self._find()
        except RemoteFailed as error:
            if not self._is_away:
                screen.note(f"{error.message}; it is asked again")
            self._is_away = True
            return before
        if self._is_away:
            screen.note("the registry answers again")
        self._is_away = False
        return found


@command("abort", examples='modelyard rollout abort churn --why "complaints"')
@click.argument("model", type=MODEL)
@_alias
@why_option
def abort(model: str, alias: str, why: str) -> Answer:
    """End a rollout: the version before answers everything."""
    from modelyard import api

    return _decided(model, alias, api.abort_rollout(model, alias=alias, why=why))


@command("pause", examples='modelyard rollout pause churn --why "over the weekend"')
@click.argument("model", type=MODEL)
@_alias
@why_option
def pause(model: str, alias: str, why: str) -> Answer:
    """Stay at the present share; harm still ends the rollout."""
    from modelyard import api

    return _decided(model, alias, api.pause_rollout(model, alias=alias, why=why))


@command("resume", examples="modelyard rollout resume churn")
@click.argument("model", type=MODEL)
@_alias
@why_option
def resume(model: str, alias: str, why: str) -> Answer:
    """Go on after a pause."""
    from modelyard import api

    return _decided(model, alias, api.resume_rollout(model, alias=alias, why=why))


@command("end", examples="modelyard rollout end churn")
@click.argument("model", type=MODEL)
@_alias
@why_option
def end(model: str, alias: str, why: str) -> Answer:
    """Stop waiting for labels of a version that was promoted: it stays."""
    from modelyard import api

    return _decided(model, alias, api.end_rollout(model, alias=alias, why=why))


@command("list", examples="modelyard rollout list\nmodelyard rollout list churn --json")
@click.argument("model", type=MODEL, required=False)
def list_(model: str | None) -> Answer:
    """List the rollouts."""
    from modelyard import api

    found = api.open_registry().rollouts.all(model)

    def show() -> None:
        headers = ("id", "model", "alias", "from", "to", "state", "started", "ended", "by", "why")
        rows = [
            (
                r.id,
                r.model,
                r.alias,
                r.stable,
                r.candidate,
                r.state,
                r.started[:19] + "Z",
                (r.ended or "-")[:19],
                r.who,
                r.why,
            )
            for r in found
        ]
        screen.table(headers, rows)

    plain = [{name: getattr(r, name) for name in _FACTS} for r in found]
    return Answer(plain, show)


@command("history", examples="modelyard rollout history churn\nmodelyard rollout history 3 --json")
@click.argument("which", metavar="MODEL|ID")
@_alias
def history(which: str, alias: str) -> Answer:
    """Show every decision about a rollout, with what it was based on."""
    from modelyard import api

    rollouts = api.open_registry().rollouts
    number = int(which) if which.isdecimal() else rollouts.latest(which, alias).id
    found = rollouts.decisions(number)
    if not found:
        raise Usage(f"no such rollout: {which}", hint="`modelyard rollout list` shows them")

    def show() -> None:
        rows = [
            (d.moment[:19] + "Z", d.who, d.action, f"{d.share * 100:.4g}%", d.exposure.requests, d.exposure.bad, d.why)
            for d in found
        ]
        screen.table(("when", "who", "decision", "share then", "served", "bad", "why"), rows)

    return Answer(found, show)


for each in (start, status, watch, abort, pause, resume, end, list_, history):
    rollout.add_command(each)

_FACTS = ("id", "model", "alias", "stable", "candidate", "state", "stage", "share", "started", "ended", "who", "why")


def _told(standing: Any) -> dict[str, Any]:
    """How a rollout stands, for programs."""
    rollout, verdict = standing.rollout, standing.verdict
    return {
        **{name: getattr(rollout, name) for name in _FACTS},
        "plan": rollout.plan,
        "exposure": rollout.evidence.exposure,
        "seconds": rollout.evidence.seconds,
        "verdict": verdict and {"action": verdict.action, "why": verdict.why},
        "findings": verdict.findings if verdict else standing.decisions[-1].findings,
        "curve": rollout.evidence.curve,
        "decider": standing.decider,
        "decisions": [
            {"moment": d.moment, "who": d.who, "action": d.action, "why": d.why, "state": d.state, "share": d.share}
            for d in standing.decisions
        ],
    }


def _decided(model: str, alias: str, decision: Decision) -> Answer:
    line = f"{model}@{alias}: rollout {decision.rollout} is {decision.state}, share {decision.share * 100:.4g}%"
    return Answer(decision, lambda: screen.say(line))
