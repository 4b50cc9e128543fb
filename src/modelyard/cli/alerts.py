"""alerts: what was told, to whom, and what people say to it."""

from __future__ import annotations

from typing import Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, Family, command

EXAMPLES = """
modelyard alerts list
modelyard alerts ack 3 --why "looking into it"
modelyard alerts silence churn --kind drift --for 2h --why "campaign"
modelyard alerts test
"""


@click.group("alerts", cls=Family, examples=EXAMPLES)
def alerts() -> None:
    """List, acknowledge and silence alerts, and try the sinks.

    Which findings make alerts, and who is told, are rules: `modelyard monitor rules`.
    """


@command("list", examples="modelyard alerts list\nmodelyard alerts list churn --all --json")
@click.argument("model", required=False)
@click.option("--all", "is_all", is_flag=True, help="Those too that are over.")
def list_(model: str | None, is_all: bool) -> Answer:
    """List alerts, silences, and what could not be delivered."""
    from modelyard import api

    known = api.open_registry().alerts
    found, silences = known.find(model, is_open=not is_all), known.silences()
    dead = known.deliveries(state="dead")

    def show() -> None:
        rows = [(a.id, a.state, a.severity, _moment(a.opened), _moment(a.closed), a.title) for a in found]
        screen.table(("alert", "state", "severity", "opened", "over", "what"), rows)
        if silences:
            screen.say()
            asked = [(s.id, s.model or "all", s.kind or "all", s.subject or "all", _moment(s.until), s.who, s.why)
                     for s in silences]  # fmt: skip
            screen.table(("silence", "model", "kind", "subject", "until", "by", "why"), asked)
        if dead:
            screen.say()
            screen.table(
                ("delivery", "alert", "sink", "attempts", "given up", "reason"),
                [(d.id, d.alert, d.sink, d.attempts, _moment(d.due), d.error) for d in dead],
            )

    return Answer({"alerts": found, "silences": silences, "dead": dead}, show)


@command("show", examples="modelyard alerts show 3")
@click.argument("number", type=int)
def show(number: int) -> Answer:
    """Show one alert: what it rests on, where its evidence is, and who was told."""
    from modelyard import api

    known = api.open_registry().alerts
    alert, sent = known.get(number), known.deliveries(number)

    def display() -> None:
        screen.say(f"{alert.title}\n\n{alert.text}\n")
        screen.pairs([
            ("state", alert.state), ("severity", alert.severity), ("rule", alert.rule), ("opened", alert.opened),
            ("over", alert.closed), ("acknowledged", alert.acknowledged),
            *((f"see ({name})", place) for name, place in alert.links.items()),
        ])  # fmt: skip
        if sent:
            screen.table(
                ("delivery", "sink", "about", "state", "attempts", "when", "reason"),
                [(d.id, d.sink, d.event, d.state, d.attempts, _moment(d.due), d.error) for d in sent],
            )

    return Answer({"alert": alert, "deliveries": sent}, display)


@command("ack", examples='modelyard alerts ack 3 --why "looking into it"')
@click.argument("number", type=int)
@click.option("--why", default="", show_default=False, help="Kept in the history.")
def ack(number: int, why: str) -> Answer:
    """Say that somebody looks after an alert."""
    from modelyard import api

    made = api.open_registry().alerts.acknowledge(number, why=why)
    return Answer(made, lambda: screen.say(f"acknowledged alert {made.id}: {made.title}"))


@command(
    "silence",
    examples="""
    modelyard alerts silence churn --for 2h --why "campaign"
    modelyard alerts silence churn --kind drift --subject age --for 7d
    modelyard alerts silence --for 30m
    modelyard alerts silence --end 4
    """,
)
@click.argument("model", required=False, default="")
@click.option("--kind", default="", show_default=False, help="Only findings of this kind.")
@click.option("--subject", default="", show_default=False, help="Only findings about this feature.")
@click.option("--for", "until", default="2h", metavar="WHEN", help="30m, 2h, 7d, or a date.")
@click.option("--why", default="", show_default=False, help="Kept in the history.")
@click.option("--end", type=int, default=None, metavar="NUMBER", help="End a silence instead.")
def silence(model: str, kind: str, subject: str, until: str, why: str, end: int | None) -> Answer:
    """Tell nobody of some findings for a while.

    They are still made and shown; what is still open when the silence ends is told then.
    """
    from modelyard import api

    known = api.open_registry().alerts
    if end is not None:
        known.unsilence(end)
        return Answer({"ended": end}, lambda: screen.say(f"silence {end} is over"))
    made = known.silence(model, kind=kind, subject=subject, until=until, why=why)
    return Answer(made, lambda: screen.say(f"silence {made.id}: until {_moment(made.until)}"))


@command("test", examples="modelyard alerts test\nmodelyard alerts test --sink ops")
@click.option("--sink", default=None, metavar="NAME", help="One sink only.")
def test(sink: str | None) -> Answer:
    """Send a test alert to every sink, from here, and say what came of it."""
    from modelyard import api
    from modelyard.errors import RemoteFailed

    tried = api.try_sinks(sink)

    def show() -> None:
        screen.table(("sink", "kind", "outcome"), [(t["sink"], t["kind"], t["error"] or "delivered") for t in tried])

    failed = any(t["error"] for t in tried)
    from modelyard.cli.exits import NUMBERS

    return Answer(tried, show, NUMBERS[RemoteFailed.code] if failed else 0)


for each in (list_, show, ack, silence, test):
    alerts.add_command(each)


def _moment(moment: Any) -> str:
    return moment[:16].replace("T", " ") + "Z" if moment else "-"
