"""keys: who may call servers that ask for a key."""

from __future__ import annotations

from typing import Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, Family, command

EXAMPLES = """
modelyard keys create shop --models churn --rate 100/s --expires 90d
modelyard keys create operator --scope admin
modelyard serve churn@production --keys
curl -H "Authorization: Bearer $KEY" -d '{"x1": 1.5, "x2": 2}' localhost:8080/predict
modelyard keys list
modelyard keys revoke shop
"""


@click.group("keys", cls=Family, examples=EXAMPLES)
def keys() -> None:
    """Make, list and revoke the API keys of a registry.

    Servers started with --keys (or MODELYARD_KEYS=on) answer nobody without one, health and readiness excepted.
    """


class Words(click.ParamType[tuple[str, ...]]):
    """Words parted by commas."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(word for word in str(value).replace(",", " ").split() if word)


@command(
    "create", examples="modelyard keys create shop --scope predict,label --models churn --rate 100/s --expires 90d"
)
@click.argument("name")
@click.option(
    "--scope", type=Words(), default="predict", metavar="WORDS", help="Any of predict, label, view and admin."
)
@click.option(
    "--models", type=Words(), default=(), show_default=False, metavar="NAMES", help="The models it is for.  [all]"
)
@click.option(
    "--rate", default="", show_default=False, metavar="CALLS/UNIT", help="Most calls, like 100/s or 6000/m.  [no limit]"
)
@click.option("--expires", default="", show_default=False, metavar="WHEN", help="30d, 12h, or a date.  [never]")
def create(name: str, scope: tuple[str, ...], models: tuple[str, ...], rate: str, expires: str) -> Answer:
    """Make a key and print it, this once.

    Only a digest of it is kept: a key that was lost is revoked, and another one made.
    """
    from modelyard import api

    key, text = api.open_registry().keys.create(name, scopes=scope, models=models, rate=rate, expires=expires)

    def show() -> None:
        screen.say(text)
        screen.note("this is the only time that it is shown; callers send it as `Authorization: Bearer KEY`")

    return Answer({"key": text, **_told(key)}, show)


@command("list", examples="modelyard keys list\nmodelyard keys list --all --json")
@click.option("--all", "revoked", is_flag=True, help="Those too that were revoked.")
def list_(revoked: bool) -> Answer:
    """List the keys."""
    from modelyard import api

    found = api.open_registry().keys.list(revoked=revoked)

    def show() -> None:
        headers = ["id", "name", "scopes", "models", "rate", "created", "by", "expires"]
        rows = [
            [k.id, k.name, k.scopes, k.models or "all", k.rate or "-", _day(k.created), k.by, _day(k.expires)]
            for k in found
        ]
        if revoked:
            headers.append("revoked")
            for row, key in zip(rows, found, strict=True):
                row.append(_day(key.revoked))
        screen.table(headers, rows)

    return Answer([_told(key) for key in found], show)


@command("revoke", examples="modelyard keys revoke shop\nmodelyard keys revoke 1f0c2a9b7d3e")
@click.argument("key", metavar="ID|NAME")
def revoke(key: str) -> Answer:
    """End a key for good.

    Running servers follow within a second.
    """
    from modelyard import api

    ended = api.open_registry().keys.revoke(key)
    return Answer(_told(ended), lambda: screen.say(f"revoked {ended.name} ({ended.id})"))


for each in (create, list_, revoke):
    keys.add_command(each)


def _told(key: Any) -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(key)
    return told


def _day(moment: str | None) -> str:
    return moment[:16].replace("T", " ") + "Z" if moment else "-"
