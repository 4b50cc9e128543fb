"""look, keygen and sign: what a file would run, and who vouches for it."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command

_path = click.Path(path_type=Path)


@command("look", examples="modelyard look model.pkl\nmodelyard look model.joblib --json")
@click.argument("file", type=_path)
def look(file: Path) -> Answer:
    """List what a model file would import; runs nothing."""
    return look_answer(file)


def look_answer(file: Path) -> Answer:
    """What a model file holds, as an answer."""
    from modelyard.bundle import look as look_into

    seen = look_into(file)

    def show() -> None:
        unknown = set(seen.unknown)
        screen.pairs(
            [
                ("file", file),
                ("digest", seen.digest),
                ("compression", seen.compression),
                ("versions", {name: ", ".join(found) for name, found in seen.versions.items()}),
                ("followed", "to its end" if seen.complete else f"not to its end: {seen.reason}"),
            ]
        )
        if seen.imports:
            screen.say()
            rows = [(name, "not on the allow list" if name in unknown else "") for name in seen.imports]
            screen.table(("would import", ""), rows)
        screen.say()
        if seen.harmless:
            screen.say("loads without asking: everything it imports is on the allow list")
        else:
            screen.say(f"is loaded only if you trust it: --trust {seen.digest}")

    return Answer({"file": str(file), **_builtins(seen), "harmless": seen.harmless}, show)


def _builtins(thing: object) -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(thing)
    return plain


@command("keygen", examples="modelyard keygen publisher        # publisher (keep it) and publisher.pub (give it away)")
@click.argument("path", type=_path)
def keygen(path: Path) -> Answer:
    """Make a key pair for signing."""
    from modelyard.bundle import signing

    private, public = signing.keygen(path)

    def show() -> None:
        screen.say(f"private key, for you alone: {private}")
        screen.say(f"public key, to be given away: {public}")
        screen.say(f"next: modelyard sign BUNDLE --key {private}; others then use --trust {public.name}")

    return Answer({"private": str(private), "public": str(public)}, show)


@command("sign", examples="modelyard sign model.pkl --key publisher\nmodelyard sign churn.zip --key publisher")
@click.argument("path", type=_path)
@click.option("--key", type=_path, required=True, help="The private key that `modelyard keygen` made.")
def sign(path: Path, key: Path) -> Answer:
    """Sign a model file or a bundle."""
    from modelyard.bundle import signing

    where = signing.sign(path, key)
    digest = signing.signed_digest(path)
    return Answer(
        {"path": str(path), "signature": str(where), "digest": digest},
        lambda: screen.say(f"signed {digest}\nsignature: {where}"),
    )
