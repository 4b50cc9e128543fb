"""package and register: bundles from models that somebody has already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, Usage, command
from modelyard.cli.references import MODEL, new_version, tags_of, trusted

if TYPE_CHECKING:
    from modelyard.bundle import Bundle, Conversion
    from modelyard.registry import Version

_path = click.Path(path_type=Path)


@command(
    "package",
    examples="""
    modelyard package model.onnx --sample rows.csv --name churn
    modelyard package model.pkl --sample rows.csv --target y --name churn     # y is the label, no input
    modelyard package model.pkl --sample rows.csv --name churn --trust sha256:1f0c...
    modelyard package booster.json --sample rows.parquet --out bundle/
    """,
)
@click.argument("model", type=_path)
@click.option("--sample", type=_path, required=True, help="A CSV or Parquet file with rows of the model's inputs.")
@click.option("--target", default=None, metavar="COLUMN", help="A column of the sample that is no input: the label.")
@click.option("--encoding", default=None, help="The encoding of a CSV sample, such as latin-1.  [utf-8]")
@click.option("--name", default=None, help="The model's name, to register it under.")
@click.option("--out", type=_path, default=None, help="A folder to keep the bundle in.")
@trusted
@new_version
@click.option("--convert/--no-convert", default=True, help="Convert to ONNX where that gives the same predictions.")
def package(
    model: Path, sample: Path, target: str | None, encoding: str | None, name: str | None, out: Path | None,
    trust: tuple[str, ...], alias: str | None, tags: tuple[str, ...], why: str, convert: bool,
) -> Answer:  # fmt: skip
    """Package a trained model and register it.

    Takes pickle, joblib, skops, ONNX, XGBoost and LightGBM files. A pickle can run code when it is loaded: one that
    imports what is not known to be harmless is refused until --trust names its digest or its publisher's key.
    """
    from modelyard import api
    from modelyard.tables import read_table

    somewhere(name, out)
    notes: list[str] = []
    with screen.progress("packaging") as tell:

        def told(text: str) -> None:
            if text.startswith("note: "):
                notes.append(text)
            tell(0, None, text)

        packaged = api.package(
            model,
            sample=read_table(sample, encoding=encoding) if encoding else sample,
            target=target,
            name=name,
            out=out,
            trust=trust,
            alias=alias,
            tags=tags_of(tags),
            why=why,
            convert=convert,
            provenance={"command": command_line()},
            progress=told,
        )
    for line in notes:
        screen.note(line)

    def show() -> None:
        show_made(packaged.bundle, packaged.version)

    return Answer(made(packaged.bundle, packaged.version), show)


@command(
    "register",
    examples="""
    modelyard register bundle/ --name churn
    modelyard register churn.zip --name churn --alias staging --why "from the other team"
    """,
)
@click.argument("bundle", type=_path)
@click.option("--name", type=MODEL, required=True, help="The model's name.")
@new_version
def register(bundle: Path, name: str, alias: str | None, tags: tuple[str, ...], why: str) -> Answer:
    """Register a bundle: a folder or a one-file bundle.

    The same bundle again under the same name is the same version.
    """
    from modelyard import api
    from modelyard.bundle import Bundle

    opened = Bundle.open(bundle)
    version = api.register(opened, name, alias=alias, tags=tags_of(tags), why=why)
    return Answer(version, lambda: show_registered(version, opened))


def somewhere(name: str | None, out: Path | None) -> None:
    """Raises Usage where a command that makes a bundle is not told where to put it."""
    if name is None and out is None:
        raise Usage("nowhere to put the model", hint="--name NAME registers it, --out FOLDER keeps it in a folder")


def command_line() -> str:
    """What was typed, for the provenance; digests and keys that are trusted are part of it."""
    import shlex
    import sys

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def made(bundle: Bundle, version: Version | None) -> dict[str, Any]:
    """What a command that made a bundle tells machines."""
    return {
        "digest": bundle.digest,
        "task": bundle.manifest.task,
        "runtime": bundle.manifest.model.runtime,
        "signature": bundle.signature,
        "conversion": bundle.manifest.conversion,
        "version": version,
        "folder": None if version else str(bundle.folder),
    }


def show_made(bundle: Bundle, version: Version | None, report: Path | None = None) -> None:
    """What a command that made a bundle tells people: what it takes, how it is served, what to type next."""
    inputs = bundle.signature.inputs
    screen.pairs(
        [
            ("task", bundle.manifest.task),
            ("inputs", f"{len(inputs)}: {', '.join(f.name for f in inputs[:8])}{', …' if len(inputs) > 8 else ''}"),
            ("served as", converted(bundle.manifest.conversion) or bundle.manifest.model.runtime),
            ("digest", bundle.digest),
            ("report", report),
        ]
    )
    if version is not None:
        show_registered(version, bundle)
    else:
        screen.say(f"bundle written: {bundle.path}")
        screen.say(f"next: modelyard register {bundle.path} --name NAME")


def converted(conversion: Conversion | None) -> str:
    """What became of the model's format, in a line."""
    if conversion is None:
        return ""
    if conversion.accepted and conversion.method == "as given":
        return f"{conversion.target}, as given"
    if conversion.accepted:
        return (
            f"{conversion.target}, converted from {conversion.source}; largest relative difference "
            f"{conversion.worst_relative:.1e} on {conversion.rows} rows"
        )
    step = f"{conversion.step}: " if conversion.step else ""
    return f"{conversion.target}, not converted ({step}{conversion.reason})"


def show_registered(version: Version, bundle: Bundle) -> None:
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    again = ", the same bundle as before" if version.existing else ""
    screen.say(f"registered {version.ref}{aliases}{again}")
    if "production" in version.aliases:
        screen.say(f"next: modelyard serve {version.model}@production{_trust_needed(bundle)}")
    else:
        screen.say(f"next: modelyard promote {version.model} {version.number}")


def _trust_needed(bundle: Bundle) -> str:
    """The option without which the bundle is not loaded: it keeps a pickle that imports what may be harmful."""
    from modelyard.bundle.formats import is_pickle, look

    file = bundle.folder / "model" / str(bundle.manifest.model.options.get("file", ""))
    return f" --trust {bundle.digest}" if is_pickle(file) and not look(file).harmless else ""
