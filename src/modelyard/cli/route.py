"""route: which versions answer for an alias, with which share of its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, Family, Usage, command
from modelyard.cli.quantities import pairs_of, pins_of, read_percent
from modelyard.cli.references import MODEL, why_option

if TYPE_CHECKING:
    from modelyard.registry.routes import Route

EXAMPLES = """
modelyard route set churn 4=90% 5=10%
modelyard route set churn 4=50% 5=50% --key header:x-user-id --pin header:x-group:testers=v5
modelyard route set churn 4=100% --shadow 5=20%     # version 5 gets copies, its answers are dropped
modelyard route show churn
modelyard route clear churn                         # the alias alone decides again
"""

_alias = click.option("--alias", default="production", help="The alias whose requests are parted.")


@click.group("route", cls=Family, examples=EXAMPLES)
def route() -> None:
    """Part the requests of an alias among versions.

    Running servers follow within a second. A rollout makes routes by itself, and watches them; what is set here stays
    until somebody changes it.
    """


@command(
    "set",
    examples="""
    modelyard route set churn 4=90% 5=10%
    modelyard route set churn 4=50% 5=50% --key header:x-user-id --pin header:x-group:testers=v5
    modelyard route set churn 4=100% --shadow 5=20%
    """,
)
@click.argument("model", type=MODEL)
@click.argument("shares", nargs=-1, required=True, metavar="VERSION=SHARE...")
@click.option(
    "--shadow", "shadows", multiple=True, metavar="VERSION=SHARE", help="A version that gets copies; may be repeated."
)
@click.option("--key", default="request", help="What sticks to a version: request, header:NAME or column:NAME.")
@click.option(
    "--pin", "pins", multiple=True, metavar="KEY:VALUE=ARM", help="Requests that always go there; may be repeated."
)
@_alias
@why_option
def set_(
    model: str, shares: tuple[str, ...], shadows: tuple[str, ...], key: str, pins: tuple[str, ...], alias: str, why: str
) -> Answer:
    """Part the requests of an alias.

    The shares add up to 100%. The arms are called after their versions: v4, v5.
    """
    from modelyard import api

    made = api.set_route(
        model, _shares(shares, "share"), shadows=_shares(shadows, "--shadow"), key=key, pins=pins_of(pins), alias=alias,
        why=why,
    )  # fmt: skip
    return Answer(made, lambda: _show(made))


@command("show", examples="modelyard route show churn\nmodelyard route show churn --alias staging --json")
@click.argument("model", type=MODEL)
@_alias
def show(model: str, alias: str) -> Answer:
    """Show who answers for an alias."""
    from modelyard import api

    registry = api.open_registry()
    found = api.find_route(model, alias=alias, registry=registry)
    if found is not None:
        return Answer(found, lambda: _show(found))
    version = registry.resolve(f"{model}@{alias}")
    data = {"model": model, "alias": alias, "arms": [], "version": version.number}
    return Answer(
        data, lambda: screen.say(f"{model}@{alias} has no route: version {version.number} answers everything")
    )


@command("clear", examples='modelyard route clear churn\nmodelyard route clear churn --why "the experiment is over"')
@click.argument("model", type=MODEL)
@_alias
@why_option
def clear(model: str, alias: str, why: str) -> Answer:
    """Let the alias alone decide again."""
    from modelyard import api

    cleared = api.clear_route(model, alias=alias, why=why)
    line = f"the route of {model}@{alias} is gone" if cleared else f"{model}@{alias} had no route"
    return Answer({"model": model, "alias": alias, "cleared": cleared}, lambda: screen.say(line))


for each in (set_, show, clear):
    route.add_command(each)


def _shares(words: tuple[str, ...], what: str) -> dict[int, float]:
    made = {}
    for version, share in pairs_of(words, what):
        if not version.isdecimal() or int(version) in made:
            raise Usage(f"{what}: expected each version number once, got {version!r}")
        made[int(version)] = read_percent(share, what)
    return made


def _show(route: Route) -> None:
    by = f"rollout {route.rollout}" if route.rollout is not None else route.who
    screen.say(f"{route.model}@{route.alias}, revision {route.revision} of {route.moment[:19]}Z by {by}")
    rows = [
        (arm.name, arm.version, f"{arm.weight * 100:.4g}%", "copies" if arm.mode == "shadow" else "answers")
        for arm in route.arms
    ]
    screen.table(("arm", "version", "share", "gets"), rows)
    if route.key != "request":
        screen.say(f"sticks by {route.key}")
    for pin in route.pins:
        screen.say(f"{pin.key}:{pin.value} goes to {pin.arm}")
