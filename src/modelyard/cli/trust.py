"""look, keygen and sign: what a file would run, and who vouches for it."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.references import REFERENCE

_path = click.Path(path_type=Path)


@command("look", examples="modelyard look model.pkl\nmodelyard look model.joblib --json")
@click.argument("file", type=_path)
def look(file: Path) -> Answer:
    """List what a model file would import; runs nothing."""
    from modelyard.bundle.formats import recognise
    from modelyard.errors import InvalidInput

    kind = recognise(file)
    if kind != "pickle":
        raise InvalidInput(
            f"neither a pickle nor a joblib file, but {kind}, which imports nothing: {file}",
            hint=f"`modelyard inspect {file}` shows what it holds",
        )
    return look_answer(file)


def look_answer(file: Path) -> Answer:
    """What a model file holds, as an answer."""
    from modelyard.bundle import look as look_into
    from modelyard.bundle import signing

    seen = look_into(file)
    signature = signing.find_signature(file)

    def show() -> None:
        unknown = set(seen.unknown)
        screen.pairs(
            [
                ("file", file),
                ("digest", seen.digest),
                ("signature", signature),
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
            if signature is not None:
                screen.say("or its publisher's public key, if that is who signed it: --trust KEY.pub")

    told = {"file": str(file), **_builtins(seen), "harmless": seen.harmless}
    return Answer({**told, "signature": None if signature is None else str(signature)}, show)


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
        screen.say(f"next: modelyard sign MODEL --key {private}; others then use --trust {public.name}")

    return Answer({"private": str(private), "public": str(public)}, show)


@command(
    "sign",
    examples="""
    modelyard sign model.pkl --key publisher
    modelyard sign churn.zip --key publisher
    modelyard sign churn:4 --key publisher        # the signature is kept beside the registered version
    """,
)
@click.argument("what", metavar="PATH|REF", type=REFERENCE)
@click.option("--key", type=_path, required=True, help="The private key that `modelyard keygen` made.")
def sign(what: str, key: Path) -> Answer:
    """Sign a model file, a bundle or a registered version."""
    from modelyard import api
    from modelyard.bundle import signing
    from modelyard.errors import NotFound

    path = Path(what).expanduser()
    if path.is_file() or api.is_path(what):
        if not path.exists():
            raise NotFound(f"no such file or folder: {path}", hint=_WHAT)
        where = signing.sign(path, key)
        digest = signing.signed_digest(path)
        return Answer(
            {"path": str(path), "signature": str(where), "digest": digest},
            lambda: screen.say(f"signed {digest}\nsignature: {where}"),
        )
    registry = api.open_registry()
    try:
        registry.resolve(what)
    except NotFound as error:
        error.hint = error.hint or _WHAT
        raise
    version = api.sign(what, key, registry=registry)
    return Answer(
        {"version": version, "digest": version.digest},
        lambda: screen.say(
            f"signed {version.digest}\nthe signature is kept beside {version.ref}\n"
            f"next: modelyard serve {version.ref} --trust {key}.pub"
        ),
    )


_WHAT = "name a file or folder that is there (./folder) or a registered version (churn:4)"
