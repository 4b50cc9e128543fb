"""Models, versions, aliases, tags and history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, Usage, command
from modelyard.cli.references import MODEL, REFERENCE, tags_of, why_option

if TYPE_CHECKING:
    from modelyard.registry import Change, Version


class Number(click.ParamType[int]):
    """A version number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value).isdecimal() and int(value) > 0:
            return int(value)
        raise Usage(f"expected a version number, got {str(value)!r}", hint="modelyard promote churn 4")


_alias = click.option("--alias", default="production", help="The alias to move.")


@command(
    "promote",
    examples="""
    modelyard promote churn 4 --alias production
    modelyard promote churn:4                   # the same
    modelyard promote churn 4 --why "beats 3 by 0.02 AUC"
    modelyard promote churn 4 --expect 3        # only if production is still version 3
    """,
)
@click.argument("model", type=REFERENCE)
@click.argument("version", type=Number(), required=False)
@_alias
@why_option
@click.option("--expect", type=int, help="The version that must be there now; 0 for none. Otherwise a conflict.")
def promote(model: str, version: int | None, alias: str, why: str, expect: int | None) -> Answer:
    """Point an alias at a version.

    Running servers follow within a second and drop no request.
    """
    from modelyard import api

    if version is None:
        model, colon, number = model.partition(":")
        if not colon:
            raise Usage(
                "which version: expected a version number",
                hint=f"`modelyard versions {model.partition('@')[0]}` lists them",
            )
        version = Number().convert(number, None, None)
    return _moved(api.promote(model, version, alias=alias, why=why, expect=expect))


@command("rollback", examples='modelyard rollback churn\nmodelyard rollback churn --why "alerts since 10:00"')
@click.argument("model", type=MODEL)
@_alias
@why_option
def rollback(model: str, alias: str, why: str) -> Answer:
    """Point an alias back at the version before.

    A second rollback goes one further back. While a rollout is under way, its candidate is taken back instead.
    """
    from modelyard import api

    return _moved(api.rollback(model, alias=alias, why=why))


def _moved(change: Change) -> Answer:
    if change.action in ("rollout", "unroute"):
        told = f"rollout {change.detail}" if change.detail else "its route is gone, the alias alone decides"
        return Answer(change, lambda: screen.say(f"{change.model}@{change.alias}: {told}"))
    came = f" (was {change.from_})" if change.from_ is not None else ""
    line = f"{change.model}@{change.alias} is now version {change.to}{came}"
    if not change.moved:
        line = f"{change.model}@{change.alias} is version {change.to} already"
    return Answer(change, lambda: screen.say(line))


@command(
    "history",
    examples="""
    modelyard history churn
    modelyard history churn --at 2026-11-23T10:00:00Z     # what was live then
    modelyard history churn --json
    """,
)
@click.argument("model", type=MODEL)
@click.option("--at", metavar="TIME", help="Up to this moment (ISO 8601; UTC without a zone), and what was live then.")
@click.option("--alias", default="production", help="With --at: the alias to tell of.")
def history(model: str, at: str | None, alias: str) -> Answer:
    """Show who changed what, when and why."""
    from modelyard import api

    registry = api.open_registry()
    changes = api.history(model, at=at, registry=registry)
    live = registry.live_at(model, at, alias) if at is not None else None

    def show() -> None:
        if not changes:
            screen.say(f"nothing had happened by then: {model} came later than {at}")
            return
        rows = [(c.when[:19] + "Z", c.who, c.action, c.alias, c.from_, c.to, _detail(c), c.why) for c in changes]
        screen.table(("when", "who", "action", "alias", "from", "to", "detail", "why"), rows)
        if at is not None:
            then = f"version {live.number} ({_short(live.digest)})" if live else "not set"
            gone = f", deleted since ({live.deleted})" if live and live.deleted else ""
            screen.say(f"\nat {at}: {model}@{alias} was {then}{gone}")

    if at is None:
        return Answer(changes, show)
    return Answer({"at": at, "alias": alias, "live": live, "changes": changes}, show)


def _detail(change: Change) -> str:
    return _short(change.detail) if change.detail.startswith("sha256:") else change.detail


def _short(digest: str) -> str:
    return digest[:19] + "…" if len(digest) > 20 else digest


@command("models", examples="modelyard models\nmodelyard models --json")
def models() -> Answer:
    """List the models."""
    from modelyard import api

    registry = api.open_registry()
    rows: list[dict[str, Any]] = []
    for name in api.models(registry=registry):
        newest = api.versions(name, registry=registry)[-1]
        aliases = registry.aliases(name)
        rows.append(
            {"model": name, "versions": newest.number, "aliases": aliases, "task": newest.task,
             "newest": newest.created}
        )  # fmt: skip

    def show() -> None:
        if not rows:
            screen.say("no models yet")
            screen.note("hint: modelyard train data.csv --target COLUMN --name NAME")
            return
        shown = [(r["model"], r["versions"], _aliases(r["aliases"]), r["task"], _day(r["newest"])) for r in rows]
        screen.table(("model", "newest version", "aliases", "task", "registered"), shown)

    return Answer(rows, show)


def _aliases(aliases: Any) -> str:
    return ", ".join(f"{alias}={number}" for alias, number in aliases.items())


def _day(moment: str) -> str:
    return moment[:16].replace("T", " ") + "Z"


@command("versions", examples="modelyard versions churn\nmodelyard versions churn --json")
@click.argument("model", type=MODEL)
def versions(model: str) -> Answer:
    """List the versions of a model."""
    from modelyard import api

    found = api.versions(model)

    def show() -> None:
        screen.table(
            ("version", "aliases", "registered", "by", "task", "digest", "tags"),
            [(v.number, v.aliases, _day(v.created), v.by, v.task, _short(v.digest), v.tags) for v in found],
        )

    return Answer(found, show)


@command("aliases", examples="modelyard aliases churn")
@click.argument("model", type=MODEL)
def aliases(model: str) -> Answer:
    """List the aliases of a model."""
    from modelyard import api

    found = api.open_registry().aliases(model)
    return Answer(found, lambda: screen.table(("alias", "version"), list(found.items())))


@command("show", examples="modelyard show churn@production\nmodelyard show churn:4 --json")
@click.argument("ref", type=REFERENCE)
def show(ref: str) -> Answer:
    """Show one version."""
    from modelyard import api

    version = api.open_registry().resolve(ref)
    return Answer(version, lambda: show_version(version))


def show_version(version: Version) -> None:
    """The facts of a version, for people."""
    screen.pairs(
        [
            ("version", version.ref), ("aliases", version.aliases), ("tags", version.tags), ("task", version.task),
            ("digest", version.digest), ("registered", f"{_day(version.created)} by {version.by}"),
            ("size", f"{version.size / 1e6:.2f} MB"), ("metrics", measured(version.metrics)),
            ("provenance", flat(version.provenance)),
        ]
    )  # fmt: skip


def measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics that fit on a line: those on held-out rows where the model was trained here."""
    held_out = metrics.get("held_out")
    if isinstance(held_out, dict):
        return {name: each.get("value") for name, each in held_out.items() if isinstance(each, dict)}
    return flat(metrics)


def flat(thing: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a nested mapping that fit on a line."""
    return {k: v for k, v in thing.items() if isinstance(v, (str, int, float, bool)) and len(str(v)) < 80}


@command("tag", examples="modelyard tag churn:4 owner=ann ticket=ML-12")
@click.argument("ref", type=REFERENCE)
@click.argument("tags", nargs=-1, required=True, metavar="KEY=VALUE...")
def tag(ref: str, tags: tuple[str, ...]) -> Answer:
    """Put tags on a version."""
    from modelyard import api

    version = api.tag(ref, tags_of(tags))
    return Answer(version, lambda: screen.say(f"{version.ref}: {screen.text_of(version.tags)}"))


@command("untag", examples="modelyard untag churn:4 ticket")
@click.argument("ref", type=REFERENCE)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def untag(ref: str, keys: tuple[str, ...]) -> Answer:
    """Take tags off a version."""
    from modelyard import api

    version = api.tag(ref, dict.fromkeys(keys))
    return Answer(version, lambda: screen.say(f"{version.ref}: {screen.text_of(version.tags)}"))


@command(
    "delete", examples='modelyard delete churn:2\nmodelyard delete churn:2 --why "trained on a wrong table" --force'
)
@click.argument("ref", type=REFERENCE)
@why_option
@click.option("--force", is_flag=True, help="Remove the aliases that name it, too.")
def delete(ref: str, why: str, force: bool) -> Answer:
    """Delete a version that no alias names.

    Its number is never given again. Its space is freed by `modelyard collect`.
    """
    from modelyard import api

    registry = api.open_registry()
    version = registry.resolve(ref)
    api.delete(version.ref, why=why, force=force, registry=registry)
    return Answer({"deleted": version.ref, "digest": version.digest}, lambda: screen.say(f"deleted {version.ref}"))


@command("collect", examples="modelyard collect")
def collect() -> Answer:
    """Free the space of what no version names."""
    from modelyard import api

    freed = api.open_registry().collect()
    return Answer({"freed_bytes": freed}, lambda: screen.say(f"freed {freed / 1e6:.2f} MB"))
